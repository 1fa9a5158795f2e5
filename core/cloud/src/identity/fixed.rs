//! What is as it is in this cloud: one domain, one region, the services of the settings, no groups. Read only.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity, Principal,
    tables::{DOMAIN_ID, DOMAIN_NAME},
};
use crate::http::ApiError;

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/domains", get(list_domains))
        .route("/v3/domains/{domain}", get(show_domain))
        .route("/v3/regions", get(list_regions))
        .route("/v3/regions/{region}", get(show_region))
        .route("/v3/services", get(list_services))
        .route("/v3/services/{service}", get(show_service))
        .route("/v3/endpoints", get(list_endpoints))
        .route("/v3/endpoints/{endpoint}", get(show_endpoint))
        .route("/v3/groups", get(list_groups))
        .route("/v3/groups/{group}", get(show_group))
}

#[derive(Debug, Deserialize)]
struct Filters {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    interface: Option<String>,
    service_id: Option<String>,
}

impl Filters {
    fn select(&self, items: Vec<Value>) -> Vec<Value> {
        let wishes = [
            ("name", &self.name),
            ("type", &self.kind),
            ("interface", &self.interface),
            ("service_id", &self.service_id),
        ];
        let is_wanted = |item: &Value| {
            wishes.iter().all(|(key, wish)| wish.as_deref().is_none_or(|wish| item[*key].as_str() == Some(wish)))
        };
        items.into_iter().filter(is_wanted).collect()
    }
}

/// The domain, as `GET /v3/domains` lists it.
pub(super) fn the_domain(identity: &Identity) -> Value {
    json!({"id": DOMAIN_ID, "name": DOMAIN_NAME, "description": "The default domain", "enabled": true, "tags": [],
           "options": {}, "links": {"self": identity.catalog.identity_url("/domains/default")}})
}

async fn list_domains(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_domains")?;
    Ok(Json(identity.list("domains", "/domains", filters.select(vec![the_domain(&identity)]))))
}

/// Everybody here is in it and may look at it.
async fn show_domain(
    State(identity): State<Arc<Identity>>,
    _: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    one("domain", &id, vec![the_domain(&identity)])
}

async fn list_regions(State(identity): State<Arc<Identity>>) -> Json<Value> {
    Json(identity.list("regions", "/regions", vec![region(&identity)]))
}

async fn show_region(State(identity): State<Arc<Identity>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    one("region", &id, vec![region(&identity)])
}

async fn list_services(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_services")?;
    Ok(Json(identity.list("services", "/services", filters.select(identity.catalog.services()))))
}

async fn show_service(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:get_service")?;
    one("service", &id, identity.catalog.services())
}

async fn list_endpoints(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(filters): Query<Filters>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_endpoints")?;
    Ok(Json(identity.list("endpoints", "/endpoints", filters.select(identity.catalog.endpoints()))))
}

async fn show_endpoint(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:get_endpoint")?;
    one("endpoint", &id, identity.catalog.endpoints())
}

async fn list_groups(State(identity): State<Arc<Identity>>, principal: Principal) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:list_groups")?;
    Ok(Json(identity.list("groups", "/groups", Vec::new())))
}

async fn show_group(principal: Principal, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    principal.must_be_admin_or_service("identity:get_group")?;
    one("group", &id, Vec::new())
}

fn region(identity: &Identity) -> Value {
    let name = identity.catalog.region();
    let link = identity.catalog.identity_url(&format!("/regions/{name}"));
    json!({"id": name, "description": "", "parent_region_id": null, "links": {"self": link}})
}

fn one(what: &str, id: &str, items: Vec<Value>) -> Result<Json<Value>, ApiError> {
    let found = items.into_iter().find(|item| item["id"].as_str() == Some(id));
    found.map(|found| Json(json!({what: found}))).ok_or_else(|| ApiError::not_found(what, id))
}
