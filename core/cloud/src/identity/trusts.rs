//! `/v3/OS-TRUST/trusts`: a user (trustor) lets another (trustee) act in one project, with some of the trustor's roles,
//! in the trustor's name or the trustee's own.
//!
//! ```text
//! trustee's proof + trust → trust-scoped token → validate: trust there, both enabled, trustor still has every role
//! ```
//!
//! Tokens of a trust are no proof for other tokens, and make neither trusts nor application credentials. A trust is
//! worth nothing from the moment in which its trustor loses one of its roles, is disabled or deleted. Trusts that are
//! passed on (redelegation) are not part of this cloud.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use orzo_database::{Migration, Row};
use orzo_model::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Identity, LIST_MAX, Place, Principal, Standing,
    fields::Fields,
    revision,
    roles::{Role, effective},
    tables::{self, new_id},
    uuid_of,
};
use crate::http::{ApiError, JsonBody};

/// Of one trustor. A service that makes one for each of its alarms or stacks needs many; more than this are forgotten
/// ones.
const TRUSTS_MAX: i64 = 10_000;
/// More uses than anybody counts.
const USES_MAX: i64 = 1 << 31;
/// What can go on for that long is as good as endless; it is what a row can hold.
const EXPIRY_TEXT_CHARS_MAX: usize = 64;

/// Steps of the table of trusts.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    name: "trusts",
    sql: "CREATE TABLE identity_trusts (
            id TEXT PRIMARY KEY,
            trustor_user_id TEXT NOT NULL REFERENCES identity_users (id) ON DELETE CASCADE,
            trustee_user_id TEXT NOT NULL REFERENCES identity_users (id) ON DELETE CASCADE,
            project_id TEXT NOT NULL REFERENCES identity_projects (id) ON DELETE CASCADE,
            impersonation BIGINT NOT NULL,
            role_ids TEXT NOT NULL,
            expires_at BIGINT,
            remaining_uses BIGINT,
            made_at BIGINT NOT NULL);
          CREATE INDEX identity_trusts_trustor ON identity_trusts (trustor_user_id);
          CREATE INDEX identity_trusts_trustee ON identity_trusts (trustee_user_id);\n",
}];

/// The trust behind a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    pub(crate) id: String,
    pub(crate) impersonation: bool,
    pub(crate) trustor: String,
    pub(crate) trustee: String,
    pub(crate) expires_at: Option<Timestamp>,
}

/// What a trust is worth to its trustee now.
pub(super) struct Entrusted {
    /// Whose name the token bears.
    pub(super) user: Row,
    pub(super) trust: Trust,
    pub(super) standing: Standing,
}

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/OS-TRUST/trusts", get(list).post(create))
        .route("/v3/OS-TRUST/trusts/{trust}", get(show).delete(remove))
        .route("/v3/OS-TRUST/trusts/{trust}/roles", get(list_roles))
        .route("/v3/OS-TRUST/trusts/{trust}/roles/{role}", get(show_role))
}

#[derive(Debug, Deserialize)]
struct Filters {
    trustor_user_id: Option<String>,
    trustee_user_id: Option<String>,
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    let own = Some(principal.user.id.as_str());
    if filters.trustor_user_id.as_deref() != own && filters.trustee_user_id.as_deref() != own {
        principal.must_be_admin("identity:list_trusts")?;
    }
    let mut sql = "SELECT * FROM identity_trusts WHERE 1 = 1".to_owned();
    let mut values = Vec::new();
    for (column, value) in [("trustor_user_id", filters.trustor_user_id), ("trustee_user_id", filters.trustee_user_id)]
    {
        if let Some(value) = value {
            values.push(value.into());
            sql.push_str(&format!(" AND {column} = ${}", values.len()));
        }
    }
    let rows = identity.database.query(&format!("{sql} ORDER BY made_at, id LIMIT {}", LIST_MAX + 1), &values).await?;
    let current = rows.iter().filter(|row| identity.is_current(row));
    // Without its roles, as Keystone lists them.
    let found = current.map(|row| shown(&identity, row, None)).collect();
    Ok(Json(identity.list("trusts", "/OS-TRUST/trusts", found)))
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let fields = Fields::of(body, "trust")?;
    let trustor = required(&fields, "trustor_user_id")?;
    let trustee = required(&fields, "trustee_user_id")?;
    let impersonation = fields.flag("impersonation")?;
    let impersonation = impersonation.ok_or_else(|| fields.wrong("impersonation", "is required"))?;
    if trustor != principal.user.id || principal.is_delegated() {
        // What was delegated cannot be delegated further.
        return Err(ApiError::forbidden("identity:create_trust"));
    }
    if fields.flag("allow_redelegation")? == Some(true) || fields.get("redelegation_count").is_some_and(|n| *n != 0) {
        return Err(fields.wrong("allow_redelegation", "is given, and redelegation is not part of this cloud"));
    }
    let now = identity.clock.now();
    let expires_at = expiry(&fields, now)?;
    let remaining_uses = uses(&fields)?;
    let project = required(&fields, "project_id")?;
    let project = tables::project(&mut &identity.database, &project)
        .await?
        .filter(|project| project.flag("enabled"))
        .ok_or_else(|| ApiError::not_found("project", &project))?;
    if tables::user(&mut &identity.database, &trustee).await?.is_none() {
        return Err(ApiError::not_found("user", &trustee));
    }
    let (own, _) = identity.roles_of(&trustor, &project.string("id")).await?;
    let roles = chosen_roles(&fields, &own)?;
    let role_ids = json!(roles.iter().map(|role| &role.id).collect::<Vec<_>>()).to_string();
    let id = new_id();
    let row = identity
        .change(|tx| {
            let (identity, principal, id) = (identity.clone(), principal.clone(), id.clone());
            let (trustor, trustee, role_ids) = (trustor.clone(), trustee.clone(), role_ids.clone());
            let project_id = project.string("id");
            Box::pin(async move {
                let count = "SELECT count(*) AS n FROM identity_trusts WHERE trustor_user_id = $1";
                let count = tx.query_one(count, &[trustor.as_str().into()]).await?;
                if count.and_then(|row| row.int("n")).unwrap_or(0) >= TRUSTS_MAX {
                    let message = format!("A user has at most {TRUSTS_MAX} trusts.");
                    return Err(ApiError::new(StatusCode::FORBIDDEN, message));
                }
                tx.execute(
                    "INSERT INTO identity_trusts (id, trustor_user_id, trustee_user_id, project_id, impersonation, \
                     role_ids, expires_at, remaining_uses, made_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    &[
                        id.as_str().into(),
                        trustor.into(),
                        trustee.into(),
                        project_id.into(),
                        impersonation.into(),
                        role_ids.into(),
                        expires_at.into(),
                        remaining_uses.into(),
                        now.into(),
                    ],
                )
                .await?;
                identity.tell(tx, &principal, "created", "OS-TRUST:trust", &id).await?;
                let row = tx.query_one("SELECT * FROM identity_trusts WHERE id = $1", &[id.as_str().into()]).await?;
                row.ok_or_else(|| ApiError::not_found("trust", &id))
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({"trust": shown(&identity, &row, Some(&roles))}))))
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let row = identity.visible_trust(&principal, &id, "identity:get_trust").await?;
    let roles = identity.roles_of_trust(&row).await?;
    Ok(Json(json!({"trust": shown(&identity, &row, Some(&roles))})))
}

async fn list_roles(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let row = identity.visible_trust(&principal, &id, "identity:list_roles_for_trust").await?;
    let roles = identity.roles_of_trust(&row).await?;
    let roles = roles.iter().map(|role| shown_role(&identity, role)).collect();
    Ok(Json(identity.list("roles", &format!("/OS-TRUST/trusts/{id}/roles"), roles)))
}

async fn show_role(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path((id, role)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let row = identity.visible_trust(&principal, &id, "identity:get_role_for_trust").await?;
    let roles = identity.roles_of_trust(&row).await?;
    let found = roles.iter().find(|own| own.id == role).ok_or_else(|| ApiError::not_found("role", &role))?;
    Ok(Json(json!({"role": shown_role(&identity, found)})))
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let row = identity.visible_trust(&principal, &id, "identity:delete_trust").await?;
    if row.string("trustor_user_id") != principal.user.id || principal.is_delegated() {
        principal.must_be_admin("identity:delete_trust")?;
    }
    identity
        .change(|tx| {
            let (identity, principal, id) = (identity.clone(), principal.clone(), id.clone());
            Box::pin(async move {
                tx.execute("DELETE FROM identity_trusts WHERE id = $1", &[id.as_str().into()]).await?;
                Ok(identity.tell(tx, &principal, "deleted", "OS-TRUST:trust", &id).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Identity {
    /// What `trustee` is worth by this trust now; `None`: nothing, for whatever reason.
    pub(super) async fn entrusted(&self, trustee: Option<&Row>, id: &str) -> Result<Option<Entrusted>, ApiError> {
        let sql = "SELECT * FROM identity_trusts WHERE id = $1";
        let row = self.database.query_one(sql, &[id.into()]).await?;
        let Some(row) = row.filter(|row| self.is_current(row)) else { return Ok(None) };
        let trustee_id = row.string("trustee_user_id");
        let Some(trustee) = trustee.filter(|user| user.string("id") == trustee_id && user.flag("enabled")) else {
            return Ok(None);
        };
        let trustor = tables::user(&mut &self.database, &row.string("trustor_user_id")).await?;
        let project = tables::project(&mut &self.database, &row.string("project_id")).await?;
        // What the trustor is worth there, and no more than the trust says.
        let standing = self.standing(trustor.as_ref(), Place::Project(project), None).await?;
        let (Some(mut standing), Some(trustor)) = (standing, trustor) else { return Ok(None) };
        let limits = role_ids(&row);
        if !limits.iter().all(|id| standing.roles.iter().any(|role| role.id == *id)) {
            return Ok(None);
        }
        let allowed = effective(&standing.roles, |role| limits.contains(&role.id));
        standing.roles.retain(|role| allowed.contains(role));
        let trust = Trust {
            id: row.string("id"),
            impersonation: row.flag("impersonation"),
            trustor: trustor.string("id"),
            trustee: trustee_id,
            expires_at: row.time("expires_at"),
        };
        let user = if trust.impersonation { trustor } else { trustee.clone() };
        standing.revisions.user = revision(&user);
        Ok(Some(Entrusted { user, trust, standing }))
    }

    /// The same for a token's trust, when only the trust is known.
    pub(super) async fn entrusted_by(&self, id: Uuid) -> Result<Option<Entrusted>, ApiError> {
        let id = super::text(id);
        let sql = "SELECT trustee_user_id FROM identity_trusts WHERE id = $1";
        let Some(row) = self.database.query_one(sql, &[id.as_str().into()]).await? else { return Ok(None) };
        let trustee = tables::user(&mut &self.database, &row.string("trustee_user_id")).await?;
        self.entrusted(trustee.as_ref(), &id).await
    }

    /// Counts one use; 403 if there is none left. One statement, so that of two at once only one has the last.
    pub(super) async fn use_trust(&self, id: &str) -> Result<(), ApiError> {
        let sql = "UPDATE identity_trusts SET remaining_uses = remaining_uses - 1 \
                   WHERE id = $1 AND (remaining_uses IS NULL OR remaining_uses > 0)";
        match self.database.execute(sql, &[id.into()]).await? {
            0 => Err(ApiError::new(StatusCode::FORBIDDEN, format!("No remaining uses for trust: {id}."))),
            _ => Ok(()),
        }
    }

    /// A trust for its trustor, its trustee or an admin; to others it is not there.
    async fn visible_trust(&self, principal: &Principal, id: &str, action: &str) -> Result<Row, ApiError> {
        let missing = || ApiError::not_found("trust", id);
        let sql = "SELECT * FROM identity_trusts WHERE id = $1";
        let row = self.database.query_one(sql, &[id.into()]).await?.ok_or_else(missing)?;
        let own = [row.string("trustor_user_id"), row.string("trustee_user_id")];
        if !own.contains(&principal.user.id) {
            principal.must_be_admin(action).map_err(|_| missing())?;
        }
        if self.is_current(&row) { Ok(row) } else { Err(missing()) }
    }

    async fn roles_of_trust(&self, row: &Row) -> Result<Vec<Role>, ApiError> {
        let limits = role_ids(row);
        let rows = self.database.query("SELECT id, name FROM identity_roles ORDER BY name", &[]).await?;
        let all = rows.iter().map(|row| Role { id: row.string("id"), name: row.string("name") });
        Ok(all.filter(|role| limits.contains(&role.id)).collect())
    }
}

fn role_ids(row: &Row) -> Vec<String> {
    serde_json::from_str(&row.string("role_ids")).unwrap_or_default()
}

fn required(fields: &Fields, key: &str) -> Result<String, ApiError> {
    fields.text(key, 64)?.filter(|text| !text.is_empty()).ok_or_else(|| fields.wrong(key, "is required"))
}

fn expiry(fields: &Fields, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = fields.text("expires_at", EXPIRY_TEXT_CHARS_MAX)? else { return Ok(None) };
    let time: Timestamp = text.parse().map_err(|_| fields.wrong("expires_at", "is not a time"))?;
    if time <= now {
        return Err(fields.wrong("expires_at", "is in the past"));
    }
    Ok(Some(time))
}

fn uses(fields: &Fields) -> Result<Option<i64>, ApiError> {
    match fields.get("remaining_uses") {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(uses) if (1..=USES_MAX).contains(&uses) => Ok(Some(uses)),
            _ => Err(fields.wrong("remaining_uses", "is not a positive number, or null")),
        },
    }
}

/// The roles asked for, all of which the trustor must have there.
fn chosen_roles(fields: &Fields, own: &[Role]) -> Result<Vec<Role>, ApiError> {
    let asked = fields.get("roles").and_then(Value::as_array);
    let asked = asked.filter(|roles| !roles.is_empty()).ok_or_else(|| fields.wrong("roles", "names no role"))?;
    let mut chosen: Vec<Role> = Vec::new();
    for role in asked {
        let (id, name) = (role["id"].as_str(), role["name"].as_str());
        let found = own.iter().find(|own| match (id, name) {
            (Some(id), _) => own.id == id,
            (None, Some(name)) => own.name == name,
            (None, None) => false,
        });
        // 403 and not 404, as Keystone: nobody passes on what they do not have.
        let found = found.ok_or_else(|| ApiError::forbidden("identity:create_trust"))?;
        if !chosen.contains(found) {
            chosen.push(found.clone());
        }
    }
    Ok(chosen)
}

fn shown_role(identity: &Identity, role: &Role) -> Value {
    let link = identity.catalog.identity_url(&format!("/roles/{}", role.id));
    json!({"id": role.id, "name": role.name, "domain_id": null, "links": {"self": link}})
}

fn shown(identity: &Identity, row: &Row, roles: Option<&[Role]>) -> Value {
    let id = row.string("id");
    let link = identity.catalog.identity_url(&format!("/OS-TRUST/trusts/{id}"));
    let roles_link = format!("{link}/roles");
    let mut trust = json!({
        "id": id, "trustor_user_id": row.string("trustor_user_id"), "trustee_user_id": row.string("trustee_user_id"),
        "project_id": row.string("project_id"), "impersonation": row.flag("impersonation"),
        "expires_at": row.time("expires_at").map(Timestamp::zulu_micros), "remaining_uses": row.int("remaining_uses"),
        "deleted_at": null, "redelegated_trust_id": null, "redelegation_count": 0, "links": {"self": link},
    });
    if let Some(roles) = roles {
        trust["roles"] = roles.iter().map(|role| shown_role(identity, role)).collect();
        trust["roles_links"] = json!({"self": roles_link, "next": null, "previous": null});
    }
    trust
}

/// The id of a trust in a request for a token.
pub(super) fn id_asked(trust: &Value) -> Result<String, ApiError> {
    let id = trust["id"].as_str();
    id.map(str::to_owned).ok_or_else(|| ApiError::bad_request("A scope by trust needs the trust's id."))
}

/// The id as a token carries it.
pub(super) fn packed(trust: &Trust) -> Result<Uuid, ApiError> {
    uuid_of(&trust.id)
}
