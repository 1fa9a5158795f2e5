//! `/v3/projects`: who owns things.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use orzo_database::{Row, Transaction, Value as Cell};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, Principal,
    collection::{Columns, Filter, Kind, is_elsewhere, is_true, raised},
    fields::{Fields, extra_of},
    tables::DOMAIN_ID,
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

struct Projects;

impl Kind for Projects {
    const ONE: &'static str = "project";
    const MANY: &'static str = "projects";
    const TABLE: &'static str = "identity_projects";
    const COLUMNS: &'static str = "*";

    fn shown(identity: &Identity, row: &Row) -> Value {
        shown(identity, row)
    }

    /// Assignments and application credentials go with the project; its tokens end because there is no such project.
    async fn release(tx: &mut Transaction<'_>, id: &str) -> Result<(), ApiError> {
        let one: [Cell; 1] = [id.into()];
        for sql in [
            "DELETE FROM identity_assignments WHERE target_id = $1",
            "DELETE FROM identity_assignment_revisions WHERE target_id = $1",
            "UPDATE identity_users SET default_project_id = NULL WHERE default_project_id = $1",
        ] {
            tx.execute(sql, &one).await?;
        }
        Ok(())
    }
}

async fn list(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_projects")?;
    let wants_domains = filters.is_domain.as_deref().is_some_and(is_true);
    let is_elsewhere = [filters.domain_id, filters.parent_id].iter().any(|id| is_elsewhere(id.as_deref()));
    let (name, enabled) = (filters.name, filters.enabled);
    identity.list_kind::<Projects>(Filter { name, enabled, is_elsewhere: wants_domains || is_elsewhere }).await
}

async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if principal.project.as_ref().is_none_or(|project| project.id != id) {
        principal.must_be_admin_or_service("identity:get_project")?;
    }
    identity.show_kind::<Projects>(&id).await
}

async fn create(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    JsonBody(body): JsonBody<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    principal.must_be_admin("identity:create_project")?;
    let fields = Fields::of(body, "project")?;
    check_domain(&fields)?;
    check_flat(&fields)?;
    let columns: Columns = vec![
        ("name", fields.required_name(NAME_CHARS_MAX)?.into()),
        ("description", fields.text("description", DESCRIPTION_CHARS_MAX)?.unwrap_or_default().into()),
        ("enabled", fields.flag("enabled")?.unwrap_or(true).into()),
        ("extra", fields.extra(KNOWN, "{}")?.into()),
        ("revision", 0i64.into()),
    ];
    identity.create_kind::<Projects>(&principal, columns).await
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
    let edit = move |before: &Row| {
        let mut columns: Columns = vec![("extra", fields.extra(KNOWN, &before.string("extra"))?.into())];
        columns.extend(name.clone().map(|name| ("name", name.into())));
        columns.extend(description.clone().map(|description| ("description", description.into())));
        columns.extend(enabled.map(|enabled| ("enabled", enabled.into())));
        if before.flag("enabled") && enabled == Some(false) {
            columns.push(raised(before));
        }
        Ok(columns)
    };
    identity.update_kind::<Projects>(&principal, &id, edit).await
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    principal.must_be_admin("identity:delete_project")?;
    identity.remove_kind::<Projects>(&principal, &id).await
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
