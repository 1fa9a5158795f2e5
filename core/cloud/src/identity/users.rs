//! `/v3/users`: people and service accounts.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use orzo_database::{Row, Transaction};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, Principal,
    collection::{Columns, Filter, Kind, is_elsewhere, raised},
    fields::{Fields, extra_of},
    password, projects,
    tables::{self, DOMAIN_ID},
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

struct Users;

impl Kind for Users {
    const ONE: &'static str = "user";
    const MANY: &'static str = "users";
    const TABLE: &'static str = "identity_users";
    const COLUMNS: &'static str = tables::USER_COLUMNS;

    fn shown(identity: &Identity, row: &Row) -> Value {
        shown(identity, row)
    }

    /// Assignments and application credentials go with the user, by their keys; its tokens end because there is no such
    /// user.
    async fn release(_: &mut Transaction<'_>, _: &str) -> Result<(), ApiError> {
        Ok(())
    }
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_users")?;
    let Filters { name, enabled, domain_id } = filters;
    let is_elsewhere = is_elsewhere(domain_id.as_deref());
    identity.list_kind::<Users>(Filter { name, enabled, is_elsewhere }).await
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_user_or_admin(&id, "identity:get_user")?;
    identity.show_kind::<Users>(&id).await
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    principal.must_be_admin("identity:create_user")?;
    let fields = Fields::of(body, "user")?;
    projects::check_domain(&fields)?;
    let mut columns: Columns = vec![
        ("name", fields.required_name(NAME_CHARS_MAX)?.into()),
        ("enabled", fields.flag("enabled")?.unwrap_or(true).into()),
        ("default_project_id", fields.text("default_project_id", 64)?.into()),
        ("extra", fields.extra(KNOWN, "{}")?.into()),
        ("revision", 0i64.into()),
    ];
    columns.push(("password_hash", identity.hash_of(&fields).await?.into()));
    identity.create_kind::<Users>(&principal, columns).await
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
    let hash = identity.hash_of(&fields).await?;
    let edit = move |before: &Row| {
        let mut columns: Columns = vec![("extra", fields.extra(KNOWN, &before.string("extra"))?.into())];
        columns.extend(name.clone().map(|name| ("name", name.into())));
        columns.extend(enabled.map(|enabled| ("enabled", enabled.into())));
        columns.extend(hash.clone().map(|hash| ("password_hash", hash.into())));
        if fields.has("default_project_id") {
            columns.push(("default_project_id", default_project.clone().into()));
        }
        if hash.is_some() || before.flag("enabled") && enabled == Some(false) {
            columns.push(raised(before));
        }
        Ok(columns)
    };
    identity.update_kind::<Users>(&principal, &id, edit).await
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:delete_user")?;
    identity.remove_kind::<Users>(&principal, &id).await
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
    if principal.user.id != id || principal.is_delegated() {
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
    /// The hash of the password in a body, if there is one.
    async fn hash_of(&self, fields: &Fields) -> Result<Option<String>, ApiError> {
        match fields.text("password", usize::MAX)? {
            Some(password) => Ok(Some(self.new_hash(password).await?)),
            None => Ok(None),
        }
    }

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
