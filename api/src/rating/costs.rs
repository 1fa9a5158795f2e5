//! Mappings and thresholds of the hashmap.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bigdecimal::{BigDecimal, RoundingMode};
use http::{StatusCode, header};
use orzo_model::Timestamp;
use orzo_rating::{
    COST_PLACES, Kind, LEVEL_PLACES, Mapping, MappingChange, MappingFilter, NewMapping, NewThreshold, Threshold,
    ThresholdChange, ThresholdFilter,
};
use serde_json::{Value, json};

use super::{
    book,
    hashmap::{author, created, group_shown},
    must_be_admin, problem_of, problem_of_parent,
    wsme::{Body, identified, known, query_text, query_time, query_uuid},
};
use crate::{
    RATING_MOUNT, SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    problem::Problem,
    request::{JsonBody, Links, OptionalJsonBody},
};

const MAPPING: [&str; 17] = [
    "mapping_id",
    "value",
    "type",
    "cost",
    "service_id",
    "field_id",
    "group_id",
    "tenant_id",
    "created_at",
    "start",
    "end",
    "name",
    "description",
    "deleted",
    "created_by",
    "updated_by",
    "deleted_by",
];
const THRESHOLD: [&str; 8] =
    ["threshold_id", "level", "type", "cost", "service_id", "field_id", "group_id", "tenant_id"];

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Flat => "flat",
        Kind::Rate => "rate",
    }
}

/// With all its places, as CloudKitty's database gives it back.
fn places(number: &BigDecimal, places: i64) -> String {
    number.with_scale_round(places, RoundingMode::HalfEven).to_plain_string()
}

pub(super) fn mapping_shown(mapping: &Mapping) -> Value {
    let time = |time: Option<Timestamp>| time.map(Timestamp::naive);
    json!({
        "mapping_id": mapping.mapping_id, "value": mapping.value, "type": kind(mapping.kind),
        "cost": places(&mapping.cost, COST_PLACES), "service_id": mapping.service_id, "field_id": mapping.field_id,
        "group_id": mapping.group_id, "tenant_id": mapping.tenant_id, "created_at": mapping.created_at.naive(),
        "start": mapping.start.naive(), "end": time(mapping.end), "name": mapping.name,
        "description": mapping.description, "deleted": time(mapping.deleted), "created_by": mapping.created_by,
        "updated_by": mapping.updated_by, "deleted_by": mapping.deleted_by,
    })
}

pub(super) fn threshold_shown(threshold: &Threshold) -> Value {
    json!({
        "threshold_id": threshold.threshold_id, "level": places(&threshold.level, LEVEL_PLACES),
        "type": kind(threshold.kind), "cost": places(&threshold.cost, COST_PLACES),
        "service_id": threshold.service_id, "field_id": threshold.field_id, "group_id": threshold.group_id,
        "tenant_id": threshold.tenant_id,
    })
}

fn missing(name: &str) -> Problem {
    Problem::bad(format!("Invalid input for field/attribute {name}. Value: 'None'. Mandatory field missing."))
}

/// `Some(None)`: only what is for everybody.
fn tenant(parameters: &Parameters) -> Result<Option<Option<String>>, Problem> {
    Ok(parameters.flag("filter_tenant")?.then(|| query_text(parameters, "tenant_id")))
}

pub(super) async fn mappings(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(
        &parameters,
        &[
            "service_id",
            "field_id",
            "group_id",
            "no_group",
            "tenant_id",
            "filter_tenant",
            "deleted",
            "start",
            "end",
            "updated_by",
            "created_by",
            "deleted_by",
            "description",
            "is_active",
            "all",
        ],
    )?;
    let book = book(&api)?;
    let filter = MappingFilter {
        service_id: query_uuid(&parameters, "service_id")?,
        field_id: query_uuid(&parameters, "field_id")?,
        group_id: query_uuid(&parameters, "group_id")?,
        no_group: parameters.flag("no_group")?,
        tenant_id: tenant(&parameters)?,
        deleted: parameters.flag("deleted")?,
        start: query_time(&parameters, "start")?,
        end: query_time(&parameters, "end")?,
        created_by: query_text(&parameters, "created_by"),
        updated_by: query_text(&parameters, "updated_by"),
        deleted_by: query_text(&parameters, "deleted_by"),
        description: query_text(&parameters, "description"),
        active_at: parameters.flag("is_active")?.then(|| book.now()),
    };
    let is_narrowed = filter.service_id.is_some() || filter.field_id.is_some() || filter.group_id.is_some();
    if !is_narrowed && !parameters.flag_or("all", true)? {
        return Err(Problem::bad("You must specify either service_uuid, field_uuid or group_uuid."));
    }
    let mappings = book.mappings(&filter).await.map_err(problem_of)?;
    Ok(Json(json!({"mappings": mappings.iter().map(mapping_shown).collect::<Value>()})))
}

pub(super) async fn mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(mapping_shown(&book(&api)?.mapping(&id).await.map_err(problem_of)?)))
}

pub(super) async fn group_of_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let id = identified(path, &parameters, None, "mapping_id")?;
    Ok(Json(group_shown(&book(&api)?.group_of_mapping(&id).await.map_err(problem_of)?)))
}

pub(super) async fn create_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["force"])?;
    let body = Body::read(body, &MAPPING)?;
    let new = NewMapping {
        value: body.text("value")?,
        kind: body.kind("type")?.unwrap_or(Kind::Flat),
        cost: body.decimal("cost")?.ok_or_else(|| missing("cost"))?,
        service_id: body.uuid("service_id")?,
        field_id: body.uuid("field_id")?,
        group_id: body.uuid("group_id")?,
        tenant_id: body.text("tenant_id")?,
        start: body.time("start")?,
        end: body.end("end")?,
        name: body.text("name")?,
        description: body.text("description")?,
        force: parameters.flag("force")?,
    };
    let mapping = book(&api)?.create_mapping(author(&caller), &new).await.map_err(problem_of_parent)?;
    Ok(created(&links, &mapping.mapping_id, mapping_shown(&mapping)))
}

pub(super) async fn update_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &MAPPING)?;
    let id = identified(path, &parameters, Some(&body), "mapping_id")?;
    let change = MappingChange {
        cost: Some(body.decimal("cost")?.ok_or_else(|| missing("cost"))?),
        start: body.time("start")?,
        end: body.end("end")?,
        description: body.text("description")?,
        value: body.text("value")?,
        kind: body.kind("type")?,
        service_id: body.uuid("service_id")?,
        field_id: body.uuid("field_id")?,
        group_id: body.uuid("group_id")?,
        tenant_id: body.text("tenant_id")?,
        name: body.text("name")?,
    };
    let is_changed = book(&api)?.update_mapping(author(&caller), &id, &change).await.map_err(problem_of)?;
    Ok(moved(&links, is_changed))
}

/// CloudKitty answers changes with 302. The real client then sends the same change again, thirty times; the second of
/// them changes nothing and is answered with 200, which ends that.
pub(super) fn moved(links: &Links, is_changed: bool) -> Response {
    match is_changed {
        true => (StatusCode::FOUND, [(header::LOCATION, links.here(RATING_MOUNT))]).into_response(),
        false => StatusCode::OK.into_response(),
    }
}

pub(super) async fn delete_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["mapping_id"])).transpose()?;
    let id = identified(path, &parameters, body.as_ref(), "mapping_id")?;
    book(&api)?.delete_mapping(author(&caller), &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn thresholds(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["service_id", "field_id", "group_id", "no_group", "tenant_id", "filter_tenant"])?;
    let filter = ThresholdFilter {
        service_id: query_uuid(&parameters, "service_id")?,
        field_id: query_uuid(&parameters, "field_id")?,
        group_id: query_uuid(&parameters, "group_id")?,
        no_group: parameters.flag("no_group")?,
        tenant_id: tenant(&parameters)?,
    };
    let thresholds = book(&api)?.thresholds(&filter).await.map_err(problem_of)?;
    Ok(Json(json!({"thresholds": thresholds.iter().map(threshold_shown).collect::<Value>()})))
}

pub(super) async fn threshold(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(threshold_shown(&book(&api)?.threshold(&id).await.map_err(problem_of)?)))
}

pub(super) async fn group_of_threshold(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let id = identified(path, &parameters, None, "threshold_id")?;
    Ok(Json(group_shown(&book(&api)?.group_of_threshold(&id).await.map_err(problem_of)?)))
}

pub(super) async fn create_threshold(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &THRESHOLD)?;
    let new = NewThreshold {
        level: body.decimal("level")?.ok_or_else(|| missing("level"))?,
        kind: body.kind("type")?.unwrap_or(Kind::Flat),
        cost: body.decimal("cost")?.ok_or_else(|| missing("cost"))?,
        service_id: body.uuid("service_id")?,
        field_id: body.uuid("field_id")?,
        group_id: body.uuid("group_id")?,
        tenant_id: body.text("tenant_id")?,
    };
    let threshold = book(&api)?.create_threshold(author(&caller), &new).await.map_err(problem_of_parent)?;
    Ok(created(&links, &threshold.threshold_id, threshold_shown(&threshold)))
}

pub(super) async fn update_threshold(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &THRESHOLD)?;
    let id = identified(path, &parameters, Some(&body), "threshold_id")?;
    let change = ThresholdChange {
        level: body.decimal("level")?.ok_or_else(|| missing("level"))?,
        kind: body.kind("type")?.unwrap_or(Kind::Flat),
        cost: body.decimal("cost")?.ok_or_else(|| missing("cost"))?,
        group_id: body.uuid("group_id")?,
        tenant_id: body.text("tenant_id")?,
    };
    let is_changed = book(&api)?.update_threshold(author(&caller), &id, &change).await.map_err(problem_of)?;
    Ok(moved(&links, is_changed))
}

pub(super) async fn delete_threshold(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["threshold_id"])).transpose()?;
    let id = identified(path, &parameters, body.as_ref(), "threshold_id")?;
    book(&api)?.delete_threshold(author(&caller), &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}
