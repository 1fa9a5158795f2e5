//! `/v3/roles` and who has them where.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, put},
};
use orzo_database::{Row, Transaction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, LIST_MAX, Principal,
    collection::{Columns, Filter, Kind},
    domain,
    fields::Fields,
    roles::{BUILT_IN, implied_by},
    tables::{self, DOMAIN_ID},
};
use crate::{
    http::{ApiError, JsonBody},
    notify::record,
};

/// As Keystone's schema.
const NAME_CHARS_MAX: usize = 255;

pub(super) fn routes() -> Router<Arc<Identity>> {
    let assignment = || put(give).delete(take).get(check);
    Router::new()
        .route("/v3/roles", get(list).post(create))
        .route("/v3/roles/{role}", get(show).patch(update).delete(remove))
        .route("/v3/role_inferences", get(inferences))
        .route("/v3/role_assignments", get(assignments))
        .route("/v3/projects/{target}/users/{user}/roles", get(list_of))
        .route("/v3/domains/{target}/users/{user}/roles", get(list_of))
        .route("/v3/projects/{target}/users/{user}/roles/{role}", assignment())
        .route("/v3/domains/{target}/users/{user}/roles/{role}", assignment())
}

#[derive(Debug, Deserialize)]
struct Filters {
    name: Option<String>,
    domain_id: Option<String>,
}

struct Roles;

impl Kind for Roles {
    const ONE: &'static str = "role";
    const MANY: &'static str = "roles";
    const TABLE: &'static str = "identity_roles";
    const COLUMNS: &'static str = "*";
    // Services compare role names without case: `Admin` must not be somebody's second `admin`.
    const NAME_TAKEN: &'static str = "lower(name) = lower($1)";

    fn shown(identity: &Identity, row: &Row) -> Value {
        shown(identity, row)
    }

    fn check_changeable(row: &Row) -> Result<(), ApiError> {
        if !row.flag("built_in") {
            return Ok(());
        }
        let message = format!("Role {} is immutable: the services' policies depend on it.", row.string("name"));
        Err(ApiError::new(StatusCode::FORBIDDEN, message))
    }

    /// Whoever had the role loses it, and the tokens made with it.
    async fn release(tx: &mut Transaction<'_>, id: &str) -> Result<(), ApiError> {
        let sql = "SELECT user_id, target_id FROM identity_assignments WHERE role_id = $1";
        for holder in tx.query(sql, &[id.into()]).await? {
            tables::revoke_assignment(tx, &holder.string("user_id"), &holder.string("target_id")).await?;
        }
        Ok(())
    }
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_roles")?;
    // Roles of a domain: there are none.
    let filter = Filter { name: filters.name, enabled: None, is_elsewhere: filters.domain_id.is_some() };
    identity.list_kind::<Roles>(filter).await
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:get_role")?;
    identity.show_kind::<Roles>(&id).await
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    principal.must_be_admin("identity:create_role")?;
    let fields = Fields::of(body, "role")?;
    if fields.get("domain_id").is_some() {
        return Err(fields.wrong("domain_id", "is given, and roles of one domain are not part of this cloud"));
    }
    let columns: Columns = vec![
        ("name", fields.required_name(NAME_CHARS_MAX)?.into()),
        ("description", fields.text("description", NAME_CHARS_MAX)?.into()),
        ("built_in", false.into()),
    ];
    identity.create_kind::<Roles>(&principal, columns).await
}

async fn update(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin("identity:update_role")?;
    let fields = Fields::of(body, "role")?;
    let name = fields.name(NAME_CHARS_MAX)?;
    let description = fields.text("description", NAME_CHARS_MAX)?;
    let edit = move |_: &Row| {
        let mut columns: Columns = name.clone().map(|name| ("name", name.into())).into_iter().collect();
        if fields.has("description") {
            columns.push(("description", description.clone().into()));
        }
        Ok(columns)
    };
    identity.update_kind::<Roles>(&principal, &id, edit).await
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:delete_role")?;
    identity.remove_kind::<Roles>(&principal, &id).await
}

/// Which role implies which: fixed here.
async fn inferences(State(identity): State<Arc<Identity>>, principal: Principal) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_role_inference_rules")?;
    let rows = identity.database.query("SELECT * FROM identity_roles WHERE built_in = 1", &[]).await?;
    let named = |name: &str| {
        let row = rows.iter().find(|row| row.string("name") == name);
        row.map(|row| json!({"id": row.string("id"), "name": name, "description": null}))
    };
    let rules = BUILT_IN
        .iter()
        .filter_map(|name| Some(json!({"prior_role": named(name)?, "implies": [named(implied_by(name)?)?]})));
    Ok(Json(identity.list("role_inferences", "/role_inferences", rules.collect())))
}

async fn give(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(ids): Path<[String; 3]>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:create_grant")?;
    identity
        .change(|tx| {
            let (identity, principal, ids) = (identity.clone(), principal.clone(), ids.clone());
            Box::pin(async move {
                let [target, user, role] = &ids;
                check_parties(tx, &ids).await?;
                if tables::assign(tx, user, target, role).await? {
                    let now = identity.clock.now();
                    let told = identity.notices.assignment(now, &principal.actor(), "created", [user, target, role]);
                    record(tx, now, &told).await?;
                }
                Ok(())
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Taking a role ends the user's tokens and application credentials for that target at once.
async fn take(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(ids): Path<[String; 3]>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:revoke_grant")?;
    identity
        .change(|tx| {
            let (identity, principal, ids) = (identity.clone(), principal.clone(), ids.clone());
            Box::pin(async move {
                let [target, user, role] = &ids;
                let changed = tx
                    .execute(
                        "DELETE FROM identity_assignments WHERE target_id = $1 AND user_id = $2 AND role_id = $3",
                        &[target.into(), user.into(), role.into()],
                    )
                    .await?;
                if changed == 0 {
                    return Err(ApiError::not_found("role assignment with role", role));
                }
                tables::revoke_assignment(tx, user, target).await?;
                let now = identity.clock.now();
                let told = identity.notices.assignment(now, &principal.actor(), "deleted", [user, target, role]);
                Ok(record(tx, now, &told).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 204 if the user has exactly this role there. Also answers HEAD.
async fn check(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path([target, user, role]): Path<[String; 3]>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin_or_service("identity:check_grant")?;
    let row = identity
        .database
        .query_one(
            "SELECT 1 AS one FROM identity_assignments WHERE target_id = $1 AND user_id = $2 AND role_id = $3",
            &[target.into(), user.into(), role.as_str().into()],
        )
        .await?;
    row.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| ApiError::not_found("role assignment with role", &role))
}

async fn list_of(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path([target, user]): Path<[String; 2]>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_grants")?;
    let rows = identity
        .database
        .query(
            "SELECT r.id AS id, r.name AS name, r.description AS description, r.built_in AS built_in \
             FROM identity_roles r JOIN identity_assignments a ON a.role_id = r.id \
             WHERE a.target_id = $1 AND a.user_id = $2 ORDER BY r.name",
            &[target.into(), user.into()],
        )
        .await?;
    let found = rows.iter().map(|row| shown(&identity, row)).collect();
    Ok(Json(identity.list("roles", "/roles", found)))
}

#[derive(Debug, Deserialize)]
struct AssignmentFilters {
    include_names: Option<String>,
    #[serde(rename = "user.id")]
    user: Option<String>,
    #[serde(rename = "role.id")]
    role: Option<String>,
    #[serde(rename = "group.id")]
    group: Option<String>,
    #[serde(rename = "scope.project.id")]
    project: Option<String>,
    #[serde(rename = "scope.domain.id")]
    domain: Option<String>,
    #[serde(rename = "scope.system")]
    system: Option<String>,
}

async fn assignments(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<AssignmentFilters>,
) -> Result<Json<Value>, ApiError> {
    if filters.user.as_deref() != Some(principal.user.id.as_str()) {
        principal.must_be_admin_or_service("identity:list_role_assignments")?;
    }
    let mut sql = "SELECT a.user_id AS user_id, a.target_id AS target_id, a.role_id AS role_id, \
                   u.name AS user_name, p.name AS project_name, r.name AS role_name \
                   FROM identity_assignments a JOIN identity_users u ON u.id = a.user_id \
                   JOIN identity_roles r ON r.id = a.role_id \
                   LEFT JOIN identity_projects p ON p.id = a.target_id WHERE 1 = 1"
        .to_owned();
    let mut values = Vec::new();
    for (column, value) in [
        ("user_id", filters.user),
        ("role_id", filters.role),
        ("target_id", filters.project),
        ("target_id", filters.domain),
    ] {
        if let Some(value) = value {
            values.push(value.into());
            sql.push_str(&format!(" AND a.{column} = ${}", values.len()));
        }
    }
    // There are no groups and no system roles.
    let rows = match filters.group.is_some() || filters.system.is_some() {
        true => Vec::new(),
        false => {
            let order = format!("{sql} ORDER BY u.name, a.target_id, r.name LIMIT {}", LIST_MAX + 1);
            identity.database.query(&order, &values).await?
        }
    };
    let with_names = filters.include_names.is_some_and(|wish| !["0", "false", "False"].contains(&wish.as_str()));
    let found = rows.iter().map(|row| shown_assignment(&identity, row, with_names)).collect();
    Ok(Json(identity.list("role_assignments", "/role_assignments", found)))
}

/// User, role and target must be there.
async fn check_parties(tx: &mut Transaction<'_>, [target, user, role]: &[String; 3]) -> Result<(), ApiError> {
    if tables::user(tx, user).await?.is_none() {
        return Err(ApiError::not_found("user", user));
    }
    if tables::role(tx, role).await?.is_none() {
        return Err(ApiError::not_found("role", role));
    }
    if target != DOMAIN_ID && tables::project(tx, target).await?.is_none() {
        return Err(ApiError::not_found("project", target));
    }
    Ok(())
}

fn shown(identity: &Identity, row: &Row) -> Value {
    let id = row.string("id");
    let options = if row.flag("built_in") { json!({"immutable": true}) } else { json!({}) };
    json!({"id": id, "name": row.string("name"), "description": row.text("description"), "domain_id": null,
           "options": options, "links": {"self": identity.catalog.identity_url(&format!("/roles/{id}"))}})
}

fn shown_assignment(identity: &Identity, row: &Row, with_names: bool) -> Value {
    let (user_id, target_id, role_id) = (row.string("user_id"), row.string("target_id"), row.string("role_id"));
    let mut user = json!({"id": user_id});
    let mut role = json!({"id": role_id});
    let mut target = json!({"id": target_id});
    let on = if target_id == DOMAIN_ID { "domain" } else { "project" };
    if with_names {
        user["name"] = json!(row.string("user_name"));
        user["domain"] = domain();
        role["name"] = json!(row.string("role_name"));
        if on == "domain" {
            target = domain();
        } else {
            target["name"] = json!(row.string("project_name"));
            target["domain"] = domain();
        }
    }
    let path = format!("/{on}s/{target_id}/users/{user_id}/roles/{role_id}");
    json!({"user": user, "role": role, "scope": {on: target},
           "links": {"assignment": identity.catalog.identity_url(&path)}})
}
