//! `/v3/projects`: who owns things.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use orzo_database::{Row, Value as Cell};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, LIST_MAX, Principal,
    fields::{Fields, extra_of},
    tables::{self, DOMAIN_ID, new_id},
};
use crate::http::{ApiError, JsonBody};

/// As Keystone's schema.
const NAME_CHARS_MAX: usize = 64;
const DESCRIPTION_CHARS_MAX: usize = 16_384;
const KNOWN: &[&str] = &["id", "name", "description", "enabled", "domain_id", "parent_id", "is_domain", "links"];

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/projects", get(list).post(create))
        .route("/v3/projects/{project}", get(show).patch(update).delete(remove))
}

#[derive(Debug, Deserialize)]
struct Filters {
    name: Option<String>,
    enabled: Option<String>,
    domain_id: Option<String>,
    parent_id: Option<String>,
    is_domain: Option<String>,
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_projects")?;
    let mut sql = "SELECT * FROM identity_projects WHERE 1 = 1".to_owned();
    let values = filter(&mut sql, filters.name, filters.enabled.as_deref());
    let wants_domains = filters.is_domain.as_deref().is_some_and(is_true);
    let rows = match wants_domains || is_elsewhere(&filters.domain_id) || is_elsewhere(&filters.parent_id) {
        true => Vec::new(),
        false => identity.database.query(&format!("{sql} ORDER BY name LIMIT {}", LIST_MAX + 1), &values).await?,
    };
    let found = rows.iter().map(|row| shown(&identity, row)).collect();
    Ok(Json(identity.list("projects", "/projects", found)))
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if principal.project.as_ref().is_none_or(|project| project.id != id) {
        principal.must_be_admin_or_service("identity:get_project")?;
    }
    let row =
        tables::project(&mut &identity.database, &id).await?.ok_or_else(|| ApiError::not_found("project", &id))?;
    Ok(Json(json!({"project": shown(&identity, &row)})))
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    principal.must_be_admin("identity:create_project")?;
    let fields = Fields::of(body, "project")?;
    let name = fields.required_name(NAME_CHARS_MAX)?;
    check_domain(&fields)?;
    check_flat(&fields)?;
    let description = fields.text("description", DESCRIPTION_CHARS_MAX)?.unwrap_or_default();
    let enabled = fields.flag("enabled")?.unwrap_or(true);
    let extra = fields.extra(KNOWN, "{}")?;
    let id = new_id();
    let row = identity
        .change(|tx| {
            let (identity, principal) = (identity.clone(), principal.clone());
            let (id, name, description, extra) = (id.clone(), name.clone(), description.clone(), extra.clone());
            Box::pin(async move {
                if tables::project_named(tx, &name).await?.is_some() {
                    return Err(name_taken(&name));
                }
                tx.execute(
                    "INSERT INTO identity_projects (id, name, description, enabled, extra, revision) \
                     VALUES ($1, $2, $3, $4, $5, 0)",
                    &[id.as_str().into(), name.into(), description.into(), enabled.into(), extra.into()],
                )
                .await?;
                identity.tell(tx, &principal, "created", "project", &id).await?;
                tables::project(tx, &id).await?.ok_or_else(|| ApiError::not_found("project", &id))
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({"project": shown(&identity, &row)}))))
}

async fn update(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin("identity:update_project")?;
    let fields = Fields::of(body, "project")?;
    let name = fields.name(NAME_CHARS_MAX)?;
    check_domain(&fields)?;
    check_flat(&fields)?;
    let description = fields.text("description", DESCRIPTION_CHARS_MAX)?;
    let enabled = fields.flag("enabled")?;
    let row = identity
        .change(|tx| {
            let (identity, principal, fields, id) = (identity.clone(), principal.clone(), fields.clone(), id.clone());
            let (name, description) = (name.clone(), description.clone());
            Box::pin(async move {
                let missing = || ApiError::not_found("project", &id);
                let before = tables::project(tx, &id).await?.ok_or_else(missing)?;
                if let Some(name) = &name
                    && tables::project_named(tx, name).await?.is_some_and(|other| other.string("id") != id)
                {
                    return Err(name_taken(name));
                }
                let extra = fields.extra(KNOWN, &before.string("extra"))?;
                let is_disabled = before.flag("enabled") && enabled == Some(false);
                tx.execute(
                    "UPDATE identity_projects SET name = $2, description = $3, enabled = $4, extra = $5, \
                     revision = revision + $6 WHERE id = $1",
                    &[
                        id.as_str().into(),
                        name.unwrap_or_else(|| before.string("name")).into(),
                        description.unwrap_or_else(|| before.string("description")).into(),
                        enabled.unwrap_or_else(|| before.flag("enabled")).into(),
                        extra.into(),
                        is_disabled.into(),
                    ],
                )
                .await?;
                identity.tell(tx, &principal, "updated", "project", &id).await?;
                tables::project(tx, &id).await?.ok_or_else(missing)
            })
        })
        .await?;
    Ok(Json(json!({"project": shown(&identity, &row)})))
}

/// Assignments and application credentials go with the project; its tokens end because there is no such project.
async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:delete_project")?;
    identity
        .change(|tx| {
            let (identity, principal, id) = (identity.clone(), principal.clone(), id.clone());
            Box::pin(async move {
                let one: [Cell; 1] = [id.as_str().into()];
                if tx.execute("DELETE FROM identity_projects WHERE id = $1", &one).await? == 0 {
                    return Err(ApiError::not_found("project", &id));
                }
                tx.execute("DELETE FROM identity_assignments WHERE target_id = $1", &one).await?;
                tx.execute("DELETE FROM identity_assignment_revisions WHERE target_id = $1", &one).await?;
                tx.execute("UPDATE identity_users SET default_project_id = NULL WHERE default_project_id = $1", &one)
                    .await?;
                Ok(identity.tell(tx, &principal, "deleted", "project", &id).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Projects in which a user has a role; only the enabled ones for someone who wants to work in them.
pub(super) async fn of_user(identity: &Identity, user_id: &str, enabled_only: bool) -> Result<Vec<Value>, ApiError> {
    let rows = identity
        .database
        .query(
            "SELECT * FROM identity_projects WHERE enabled >= $2 AND id IN \
             (SELECT target_id FROM identity_assignments WHERE user_id = $1) ORDER BY name",
            &[user_id.into(), enabled_only.into()],
        )
        .await?;
    Ok(rows.iter().map(|row| shown(identity, row)).collect())
}

/// Adds the filters that users, projects and roles share; their values, in order.
pub(super) fn filter(sql: &mut String, name: Option<String>, enabled: Option<&str>) -> Vec<Cell> {
    let mut values: Vec<Cell> = Vec::new();
    if let Some(name) = name {
        values.push(name.into());
        sql.push_str(&format!(" AND name = ${}", values.len()));
    }
    if let Some(enabled) = enabled {
        values.push(is_true(enabled).into());
        sql.push_str(&format!(" AND enabled = ${}", values.len()));
    }
    values
}

/// Whether a filter names a domain that is not here. Aodh sends an empty one when it has none to name.
pub(super) fn is_elsewhere(domain: &Option<String>) -> bool {
    domain.as_deref().is_some_and(|domain| !domain.is_empty() && domain != DOMAIN_ID)
}

/// There is one domain; whatever is made belongs to it.
pub(super) fn check_domain(fields: &Fields) -> Result<(), ApiError> {
    match fields.text("domain_id", 64)? {
        Some(id) if id != DOMAIN_ID => Err(ApiError::not_found("domain", &id)),
        _ => Ok(()),
    }
}

/// Projects have no tree here, and none of them is a domain.
fn check_flat(fields: &Fields) -> Result<(), ApiError> {
    if fields.flag("is_domain")? == Some(true) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "This cloud has exactly one domain."));
    }
    match fields.text("parent_id", 64)? {
        Some(id) if id != DOMAIN_ID => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "Projects inside projects are not part of this cloud."))
        }
        _ => Ok(()),
    }
}

fn is_true(text: &str) -> bool {
    !["0", "false", "no", "off"].contains(&text.to_ascii_lowercase().as_str())
}

fn shown(identity: &Identity, row: &Row) -> Value {
    let id = row.string("id");
    let mut project = extra_of(row);
    project.entry("tags").or_insert_with(|| json!([]));
    project.entry("options").or_insert_with(|| json!({}));
    project.insert("name".to_owned(), json!(row.string("name")));
    project.insert("description".to_owned(), json!(row.string("description")));
    project.insert("enabled".to_owned(), json!(row.flag("enabled")));
    project.insert("domain_id".to_owned(), json!(DOMAIN_ID));
    project.insert("parent_id".to_owned(), json!(DOMAIN_ID));
    project.insert("is_domain".to_owned(), json!(false));
    project.insert("links".to_owned(), json!({"self": identity.catalog.identity_url(&format!("/projects/{id}"))}));
    project.insert("id".to_owned(), json!(id));
    Value::Object(project)
}

fn name_taken(name: &str) -> ApiError {
    ApiError::conflict(format!(
        "Conflict occurred attempting to store project - there is a project named {name} already."
    ))
}
