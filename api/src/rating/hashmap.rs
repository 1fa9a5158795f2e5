//! Services, fields and groups of the hashmap.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use orzo_model::Caller;
use orzo_rating::{MappingFilter, RuleField, RuleGroup, RuleService, ThresholdFilter};
use serde_json::{Value, json};

use super::{
    book,
    costs::{mapping_shown, threshold_shown},
    must_be_admin, problem_of, problem_of_parent,
    wsme::{Body, identified, known, query_uuid},
};
use crate::{
    RATING_MOUNT, SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    problem::Problem,
    request::{JsonBody, Links, OptionalJsonBody},
};

/// 201 with the place of what was made.
pub(super) fn created(links: &Links, id: &str, body: Value) -> Response {
    let place = format!("{}/{id}", links.here(RATING_MOUNT));
    (StatusCode::CREATED, [(header::LOCATION, place)], Json(body)).into_response()
}

/// Who is written down as having changed a rule.
pub(super) fn author(caller: &Caller) -> &str {
    &caller.user_id
}

fn service_shown(service: &RuleService) -> Value {
    json!({"service_id": service.service_id, "name": service.name})
}

fn field_shown(field: &RuleField) -> Value {
    json!({"field_id": field.field_id, "service_id": field.service_id, "name": field.name})
}

pub(super) fn group_shown(group: &RuleGroup) -> Value {
    json!({"group_id": group.group_id, "name": group.name})
}

pub(super) async fn types(Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(json!(["flat", "rate"])))
}

pub(super) async fn services(State(api): State<SharedApi>, Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let services = book(&api)?.services().await.map_err(problem_of)?;
    Ok(Json(json!({"services": services.iter().map(service_shown).collect::<Value>()})))
}

pub(super) async fn service(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(service_shown(&book(&api)?.service(&id).await.map_err(problem_of)?)))
}

pub(super) async fn create_service(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let name = Body::read(body, &["service_id", "name"])?.needed_text("name")?;
    let service = book(&api)?.create_service(author(&caller), &name).await.map_err(problem_of)?;
    Ok(created(&links, &service.service_id, service_shown(&service)))
}

pub(super) async fn delete_service(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["service_id"])).transpose()?;
    let id = identified(path, &parameters, body.as_ref(), "service_id")?;
    book(&api)?.delete_service(author(&caller), &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn fields(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["service_id"])?;
    let service = query_uuid(&parameters, "service_id")?;
    let service = service.ok_or_else(|| Problem::bad("Missing argument: \"service_id\""))?;
    let fields = book(&api)?.fields(&service).await.map_err(problem_of)?;
    Ok(Json(json!({"fields": fields.iter().map(field_shown).collect::<Value>()})))
}

pub(super) async fn field(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(field_shown(&book(&api)?.field(&id).await.map_err(problem_of)?)))
}

pub(super) async fn create_field(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["field_id", "service_id", "name"])?;
    let name = body.needed_text("name")?;
    let service = body.uuid("service_id")?;
    let service = service.map_or_else(|| body.needed_text("service_id"), Ok)?;
    let field = book(&api)?.create_field(author(&caller), &service, &name).await.map_err(problem_of_parent)?;
    Ok(created(&links, &field.field_id, field_shown(&field)))
}

pub(super) async fn delete_field(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["field_id"])).transpose()?;
    let id = identified(path, &parameters, body.as_ref(), "field_id")?;
    book(&api)?.delete_field(author(&caller), &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn groups(State(api): State<SharedApi>, Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let groups = book(&api)?.groups().await.map_err(problem_of)?;
    Ok(Json(json!({"groups": groups.iter().map(group_shown).collect::<Value>()})))
}

pub(super) async fn group(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(group_shown(&book(&api)?.group(&id).await.map_err(problem_of)?)))
}

pub(super) async fn create_group(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let name = Body::read(body, &["group_id", "name"])?.needed_text("name")?;
    let group = book(&api)?.create_group(author(&caller), &name).await.map_err(problem_of)?;
    Ok(created(&links, &group.group_id, group_shown(&group)))
}

pub(super) async fn delete_group(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["group_id", "recursive"])).transpose()?;
    let id = identified(path, &parameters, body.as_ref(), "group_id")?;
    let told = body.map(|body| body.flag("recursive")).transpose()?.flatten();
    let is_recursive = told.map_or_else(|| parameters.flag("recursive"), Ok)?;
    book(&api)?.delete_group(author(&caller), &id, is_recursive).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn mappings_of_group(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let id = identified(path, &parameters, None, "group_id")?;
    let filter = MappingFilter { group_id: Some(id), ..MappingFilter::default() };
    let mappings = book(&api)?.mappings(&filter).await.map_err(problem_of)?;
    Ok(Json(json!({"mappings": mappings.iter().map(mapping_shown).collect::<Value>()})))
}

pub(super) async fn thresholds_of_group(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let id = identified(path, &parameters, None, "group_id")?;
    let filter = ThresholdFilter { group_id: Some(id), ..ThresholdFilter::default() };
    let thresholds = book(&api)?.thresholds(&filter).await.map_err(problem_of)?;
    Ok(Json(json!({"thresholds": thresholds.iter().map(threshold_shown).collect::<Value>()})))
}
