//! `/v3/users/{id}/application_credentials`: secrets that a user gives to programs, worth some of the user's roles in
//! one project. They cannot make others of their kind, and end with the roles they were made from.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use orzo_database::Row;
use orzo_model::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Identity, LIST_MAX, Principal, fields::Fields, password, roles::Role, tables::new_id};
use crate::http::{ApiError, JsonBody};

/// As Keystone's schema.
const NAME_CHARS_MAX: usize = 255;
/// Of one user; programs need few, and each is one more secret to lose.
const CREDENTIALS_MAX: i64 = 100;

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/users/{user}/application_credentials", get(list).post(create))
        .route("/v3/users/{user}/application_credentials/{credential}", get(show).delete(remove))
        .route("/v3/users/{user}/access_rules", get(list_access_rules))
}

#[derive(Debug, Deserialize)]
struct Filters {
    name: Option<String>,
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(user): Path<String>,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    must_own(&principal, &user, "identity:list_application_credentials", true)?;
    let rows = identity
        .database
        .query(
            &format!("SELECT * FROM identity_credentials WHERE user_id = $1 ORDER BY name LIMIT {}", LIST_MAX + 1),
            &[user.as_str().into()],
        )
        .await?;
    let all = identity.all_roles().await?;
    let wanted = |row: &&Row| filters.name.as_ref().is_none_or(|name| row.string("name") == *name);
    let found = rows.iter().filter(wanted).map(|row| shown(&identity, row, &all)).collect();
    Ok(Json(identity.list("application_credentials", &format!("/users/{user}/application_credentials"), found)))
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path((user, id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    must_own(&principal, &user, "identity:get_application_credential", true)?;
    let row = identity
        .database
        .query_one(
            "SELECT * FROM identity_credentials WHERE user_id = $1 AND id = $2",
            &[user.into(), id.as_str().into()],
        )
        .await?
        .ok_or_else(|| ApiError::not_found("application credential", &id))?;
    let all = identity.all_roles().await?;
    Ok(Json(json!({"application_credential": shown(&identity, &row, &all)})))
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(user): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    must_own(&principal, &user, "identity:create_application_credential", false)?;
    let fields = Fields::of(body, "application_credential")?;
    let name = fields.required_name(NAME_CHARS_MAX)?;
    let description = fields.text("description", 16_384)?;
    if fields.flag("unrestricted")? == Some(true) {
        let message = "Unrestricted application credentials, which could make others, are not part of this cloud.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if fields.get("access_rules").is_some_and(|rules| rules.as_array().is_none_or(|rules| !rules.is_empty())) {
        // Silently ignoring a limit that was asked for would give more than the user meant to.
        return Err(fields.wrong("access_rules", "is given, and access rules are not part of this cloud"));
    }
    let Some(project) = principal.project.clone() else {
        return Err(ApiError::bad_request("An application credential needs a token with a project."));
    };
    if fields.text("project_id", 64)?.is_some_and(|id| id != project.id) {
        return Err(ApiError::forbidden("identity:create_application_credential"));
    }
    let expires_at = expiry(&fields, identity.clock.now())?;
    let roles = chosen_roles(&fields, &principal.roles)?;
    let secret = match fields.text("secret", usize::MAX)? {
        Some(secret) => {
            password::check_length(&secret)?;
            SecretString::from(secret)
        }
        None => password::generated(),
    };
    let hash = identity.passwords.hash(&secret).await?;
    let role_ids = json!(roles.iter().map(|role| &role.id).collect::<Vec<_>>()).to_string();
    let id = new_id();
    let row = identity
        .change(|tx| {
            let (identity, principal, user, id) = (identity.clone(), principal.clone(), user.clone(), id.clone());
            let (name, description, hash, role_ids) =
                (name.clone(), description.clone(), hash.clone(), role_ids.clone());
            let project_id = project.id.clone();
            Box::pin(async move {
                let own = tx
                    .query("SELECT name FROM identity_credentials WHERE user_id = $1", &[user.as_str().into()])
                    .await?;
                if own.iter().any(|row| row.string("name") == name) {
                    return Err(ApiError::conflict(format!(
                        "There is an application credential named {name} already."
                    )));
                }
                if own.len() as i64 >= CREDENTIALS_MAX {
                    let message = format!("A user has at most {CREDENTIALS_MAX} application credentials.");
                    return Err(ApiError::new(StatusCode::FORBIDDEN, message));
                }
                tx.execute(
                    "INSERT INTO identity_credentials \
                     (id, user_id, project_id, name, description, secret_hash, role_ids, expires_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                    &[
                        id.as_str().into(),
                        user.into(),
                        project_id.into(),
                        name.into(),
                        description.into(),
                        hash.into(),
                        role_ids.into(),
                        expires_at.into(),
                    ],
                )
                .await?;
                identity.tell(tx, &principal, "created", "application_credential", &id).await?;
                let row =
                    tx.query_one("SELECT * FROM identity_credentials WHERE id = $1", &[id.as_str().into()]).await?;
                row.ok_or_else(|| ApiError::not_found("application credential", &id))
            })
        })
        .await?;
    use secrecy::ExposeSecret;
    let mut body = shown(&identity, &row, &roles);
    // The only time that it is shown.
    body["secret"] = json!(secret.expose_secret());
    Ok((StatusCode::CREATED, Json(json!({"application_credential": body}))))
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path((user, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    if principal.is_delegated() || principal.user.id != user {
        principal.must_be_admin("identity:delete_application_credential")?;
    }
    if principal.is_delegated() {
        return Err(ApiError::forbidden("identity:delete_application_credential"));
    }
    identity
        .change(|tx| {
            let (identity, principal, user, id) = (identity.clone(), principal.clone(), user.clone(), id.clone());
            Box::pin(async move {
                let changed = tx
                    .execute(
                        "DELETE FROM identity_credentials WHERE user_id = $1 AND id = $2",
                        &[user.into(), id.as_str().into()],
                    )
                    .await?;
                if changed == 0 {
                    return Err(ApiError::not_found("application credential", &id));
                }
                Ok(identity.tell(tx, &principal, "deleted", "application_credential", &id).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// There are no access rules.
async fn list_access_rules(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(user): Path<String>,
) -> Result<Json<Value>, ApiError> {
    must_own(&principal, &user, "identity:list_access_rules", true)?;
    Ok(Json(identity.list("access_rules", &format!("/users/{user}/access_rules"), Vec::new())))
}

impl Identity {
    async fn all_roles(&self) -> Result<Vec<Role>, ApiError> {
        let rows = self.database.query("SELECT id, name FROM identity_roles", &[]).await?;
        Ok(rows.iter().map(|row| Role { id: row.string("id"), name: row.string("name") }).collect())
    }
}

/// The owner; to look, an admin or the credential itself as well.
fn must_own(principal: &Principal, user: &str, action: &str, only_looks: bool) -> Result<(), ApiError> {
    let is_owner = principal.user.id == user;
    match only_looks {
        true if is_owner => Ok(()),
        true => principal.must_be_admin(action),
        false if is_owner && !principal.is_delegated() => Ok(()),
        false => Err(ApiError::forbidden(action)),
    }
}

fn expiry(fields: &Fields, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = fields.text("expires_at", 64)? else { return Ok(None) };
    let time: Timestamp = text.parse().map_err(|_| fields.wrong("expires_at", "is not a time"))?;
    if time <= now {
        return Err(fields.wrong("expires_at", "is in the past"));
    }
    Ok(Some(time))
}

/// The roles asked for, all of which the caller must have; without a wish, all of the caller's.
fn chosen_roles(fields: &Fields, own: &[Role]) -> Result<Vec<Role>, ApiError> {
    let Some(asked) = fields.get("roles") else { return Ok(own.to_vec()) };
    let asked = asked.as_array().ok_or_else(|| fields.wrong("roles", "is not a list"))?;
    let mut chosen: Vec<Role> = Vec::new();
    for role in asked {
        let (id, name) = (role["id"].as_str(), role["name"].as_str());
        let found = match (id, name) {
            (Some(id), _) => own.iter().find(|role| role.id == id),
            (None, Some(name)) => own.iter().find(|role| role.name == name),
            (None, None) => return Err(fields.wrong("roles", "has a member without id and name")),
        };
        let found = found.ok_or_else(|| {
            let name = id.or(name).unwrap_or_default();
            ApiError::bad_request(format!("You do not have role {name} in this project and cannot pass it on."))
        })?;
        if !chosen.contains(found) {
            chosen.push(found.clone());
        }
    }
    // An empty list is no wish: openstackclient sends one when nobody names a role.
    Ok(if chosen.is_empty() { own.to_vec() } else { chosen })
}

fn shown(identity: &Identity, row: &Row, roles: &[Role]) -> Value {
    let (id, user) = (row.string("id"), row.string("user_id"));
    let limits: Vec<String> = serde_json::from_str(&row.string("role_ids")).unwrap_or_default();
    let role = |role: &Role| json!({"id": role.id, "name": role.name, "domain_id": null});
    let roles: Vec<Value> = roles.iter().filter(|role| limits.contains(&role.id)).map(role).collect();
    let link = identity.catalog.identity_url(&format!("/users/{user}/application_credentials/{id}"));
    json!({"id": id, "name": row.string("name"), "description": row.text("description"), "user_id": user,
           "project_id": row.string("project_id"), "roles": roles, "unrestricted": false, "system": null,
           "expires_at": row.time("expires_at").map(|at| at.naive()), "links": {"self": link}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role { id: format!("id-{name}"), name: name.to_owned() }
    }

    #[test]
    fn only_own_roles_can_be_passed_on() {
        let own = [role("member"), role("reader")];
        let choose = |roles: Value| {
            let body = json!({"application_credential": {"roles": roles}});
            chosen_roles(&Fields::of(body, "application_credential").expect("an object"), &own)
        };
        assert_eq!(choose(json!(null)).expect("all"), own);
        assert_eq!(choose(json!([])).expect("all"), own);
        assert_eq!(choose(json!([{"name": "reader"}, {"id": "id-reader"}])).expect("one"), own[1..]);
        for wrong in [json!([{"name": "admin"}]), json!("reader"), json!([{}])] {
            assert!(choose(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
