//! `/v3/users`: people and service accounts.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use orzo_database::Row;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, LIST_MAX, Principal,
    fields::{Fields, extra_of},
    password, projects,
    tables::{self, DOMAIN_ID, new_id},
};
use crate::http::{ApiError, JsonBody};

/// As Keystone's schema.
const NAME_CHARS_MAX: usize = 255;
const KNOWN: &[&str] =
    &["id", "name", "password", "original_password", "enabled", "domain_id", "default_project_id", "links"];

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/users", get(list).post(create))
        .route("/v3/users/{user}", get(show).patch(update).delete(remove))
        .route("/v3/users/{user}/password", post(change_password))
        .route("/v3/users/{user}/projects", get(list_projects))
        .route("/v3/users/{user}/groups", get(list_groups))
}

#[derive(Debug, Deserialize)]
struct Filters {
    name: Option<String>,
    enabled: Option<String>,
    domain_id: Option<String>,
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_users")?;
    let mut sql = format!("SELECT {} FROM identity_users WHERE 1 = 1", tables::USER_COLUMNS);
    let values = projects::filter(&mut sql, filters.name, filters.enabled.as_deref());
    let rows = match projects::is_elsewhere(&filters.domain_id) {
        true => Vec::new(),
        false => identity.database.query(&format!("{sql} ORDER BY name LIMIT {}", LIST_MAX + 1), &values).await?,
    };
    let found = rows.iter().map(|row| shown(&identity, row)).collect();
    Ok(Json(identity.list("users", "/users", found)))
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_user_or_admin(&id, "identity:get_user")?;
    let row = tables::user(&mut &identity.database, &id).await?.ok_or_else(|| ApiError::not_found("user", &id))?;
    Ok(Json(json!({"user": shown(&identity, &row)})))
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    principal.must_be_admin("identity:create_user")?;
    let fields = Fields::of(body, "user")?;
    let name = fields.required_name(NAME_CHARS_MAX)?;
    projects::check_domain(&fields)?;
    let enabled = fields.flag("enabled")?.unwrap_or(true);
    let default_project = fields.text("default_project_id", 64)?;
    let extra = fields.extra(KNOWN, "{}")?;
    let hash = match fields.text("password", usize::MAX)? {
        Some(password) => Some(identity.new_hash(password).await?),
        None => None,
    };
    let id = new_id();
    let row = identity
        .change(|tx| {
            let (identity, principal) = (identity.clone(), principal.clone());
            let (id, name, extra, hash) = (id.clone(), name.clone(), extra.clone(), hash.clone());
            let default_project = default_project.clone();
            Box::pin(async move {
                if tables::user_named(tx, &name).await?.is_some() {
                    return Err(name_taken(&name));
                }
                tx.execute(
                    "INSERT INTO identity_users (id, name, password_hash, enabled, default_project_id, extra, revision) \
                     VALUES ($1, $2, $3, $4, $5, $6, 0)",
                    &[
                        id.as_str().into(),
                        name.into(),
                        hash.into(),
                        enabled.into(),
                        default_project.into(),
                        extra.into(),
                    ],
                )
                .await?;
                identity.tell(tx, &principal, "created", "user", &id).await?;
                tables::user(tx, &id).await?.ok_or_else(|| ApiError::not_found("user", &id))
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({"user": shown(&identity, &row)}))))
}

async fn update(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin("identity:update_user")?;
    let fields = Fields::of(body, "user")?;
    let name = fields.name(NAME_CHARS_MAX)?;
    projects::check_domain(&fields)?;
    let enabled = fields.flag("enabled")?;
    let default_project = fields.text("default_project_id", 64)?;
    let hash = match fields.text("password", usize::MAX)? {
        Some(password) => Some(identity.new_hash(password).await?),
        None => None,
    };
    let row = identity
        .change(|tx| {
            let (identity, principal, fields, id) = (identity.clone(), principal.clone(), fields.clone(), id.clone());
            let (name, hash, default_project) = (name.clone(), hash.clone(), default_project.clone());
            Box::pin(async move {
                let missing = || ApiError::not_found("user", &id);
                let before = tables::user(tx, &id).await?.ok_or_else(missing)?;
                if let Some(name) = &name
                    && tables::user_named(tx, name).await?.is_some_and(|other| other.string("id") != id)
                {
                    return Err(name_taken(name));
                }
                let extra = fields.extra(KNOWN, &before.string("extra"))?;
                let is_disabled = before.flag("enabled") && enabled == Some(false);
                let revokes = hash.is_some() || is_disabled;
                let default_project =
                    if fields.has("default_project_id") { default_project } else { before.text("default_project_id") };
                tx.execute(
                    "UPDATE identity_users SET name = $2, password_hash = $3, enabled = $4, default_project_id = $5, \
                     extra = $6, revision = revision + $7 WHERE id = $1",
                    &[
                        id.as_str().into(),
                        name.unwrap_or_else(|| before.string("name")).into(),
                        hash.or_else(|| before.text("password_hash")).into(),
                        enabled.unwrap_or_else(|| before.flag("enabled")).into(),
                        default_project.into(),
                        extra.into(),
                        revokes.into(),
                    ],
                )
                .await?;
                identity.tell(tx, &principal, "updated", "user", &id).await?;
                tables::user(tx, &id).await?.ok_or_else(missing)
            })
        })
        .await?;
    Ok(Json(json!({"user": shown(&identity, &row)})))
}

/// Assignments and application credentials go with the user; its tokens end because there is no such user.
async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:delete_user")?;
    identity
        .change(|tx| {
            let (identity, principal, id) = (identity.clone(), principal.clone(), id.clone());
            Box::pin(async move {
                if tx.execute("DELETE FROM identity_users WHERE id = $1", &[id.as_str().into()]).await? == 0 {
                    return Err(ApiError::not_found("user", &id));
                }
                Ok(identity.tell(tx, &principal, "deleted", "user", &id).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct PasswordBody {
    user: PasswordChange,
}

#[derive(Deserialize)]
struct PasswordChange {
    original_password: SecretString,
    password: String,
}

/// The owner's way: by the old password. Like a login, it is slowed down when it is guessed at.
async fn change_password(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<PasswordBody>,
) -> Result<StatusCode, ApiError> {
    if principal.user.id != id || principal.credential.is_some() {
        return Err(ApiError::forbidden("identity:change_password"));
    }
    let before = tables::user(&mut &identity.database, &id).await?.ok_or_else(ApiError::unauthorized)?;
    identity.check_own(&before, &body.user.original_password, &principal.context).await?;
    let hash = identity.new_hash(body.user.password).await?;
    let revision = before.int("revision").unwrap_or(0);
    identity
        .change(|tx| {
            let (identity, principal, id, hash) = (identity.clone(), principal.clone(), id.clone(), hash.clone());
            Box::pin(async move {
                // Only if nobody changed it meanwhile: the old password proved nothing about theirs.
                let changed = tx
                    .execute(
                        "UPDATE identity_users SET password_hash = $2, revision = revision + 1 \
                         WHERE id = $1 AND revision = $3",
                        &[id.as_str().into(), hash.into(), revision.into()],
                    )
                    .await?;
                if changed == 0 {
                    return Err(ApiError::conflict("The password was changed by someone else at the same time."));
                }
                Ok(identity.tell(tx, &principal, "updated", "user", &id).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_projects(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_user_or_admin(&id, "identity:list_user_projects")?;
    let found = projects::of_user(&identity, &id, false).await?;
    Ok(Json(identity.list("projects", &format!("/users/{id}/projects"), found)))
}

/// There are no groups in this cloud.
async fn list_groups(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_user_or_admin(&id, "identity:list_groups_for_user")?;
    Ok(Json(identity.list("groups", &format!("/users/{id}/groups"), Vec::new())))
}

impl Identity {
    async fn new_hash(&self, password: String) -> Result<String, ApiError> {
        password::check_length(&password)?;
        self.passwords.hash(&SecretString::from(password)).await
    }
}

fn shown(identity: &Identity, row: &Row) -> Value {
    let id = row.string("id");
    let mut user = extra_of(row);
    user.insert("name".to_owned(), json!(row.string("name")));
    user.insert("enabled".to_owned(), json!(row.flag("enabled")));
    user.insert("domain_id".to_owned(), json!(DOMAIN_ID));
    if let Some(project) = row.text("default_project_id") {
        user.insert("default_project_id".to_owned(), json!(project));
    }
    user.entry("options").or_insert_with(|| json!({}));
    user.insert("password_expires_at".to_owned(), Value::Null);
    user.insert("links".to_owned(), json!({"self": identity.catalog.identity_url(&format!("/users/{id}"))}));
    user.insert("id".to_owned(), json!(id));
    Value::Object(user)
}

fn name_taken(name: &str) -> ApiError {
    ApiError::conflict(format!("Conflict occurred attempting to store user - there is a user named {name} already."))
}
