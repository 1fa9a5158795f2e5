//! The HTTP face of the compute service.
//!
//! Expects a verified [`Caller`] among the request's extensions (put there by the shell); without one the answer is
//! 401, but for the documents that tell versions. Every answer tells the microversion that it is written in.

mod flavors;
mod hosts;
mod servers;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{StatusCode, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use orzo_model::Caller;
use serde_json::{Map, Value, json};

use super::{
    Compute, ComputeError, ZONE,
    version::{self, Microversion},
    view::Frame,
};
use crate::{http::RequestContext, image::Asker};

pub(super) type Service = State<Arc<Compute>>;
pub(super) type Parameters = Query<Vec<(String, String)>>;
pub(super) type Answer = Result<Json<Value>, ComputeError>;

/// The routes, relative to the service's root (`/compute`).
pub fn router(compute: Arc<Compute>) -> Router {
    let versioned = Router::new()
        .merge(servers::routes())
        .merge(flavors::routes())
        .merge(hosts::routes())
        .route("/limits", get(limits))
        .route("/os-quota-sets/{project}", get(show_quotas).put(set_quotas).delete(reset_quotas))
        .route("/os-quota-sets/{project}/defaults", get(default_quotas))
        .route("/os-quota-sets/{project}/detail", get(detail_quotas))
        .route("/os-availability-zone", get(zones))
        .route("/os-availability-zone/detail", get(zones_in_detail))
        .route("/os-keypairs", get(|_: Who| async { Json(json!({"keypairs": []})) }))
        .route("/os-server-groups", get(|_: Who| async { Json(json!({"server_groups": []})) }))
        .route("/os-aggregates", get(|_: Who| async { Json(json!({"aggregates": []})) }))
        // A client without a network service in its catalog looks here for names; there are none.
        .route("/os-networks", get(|_: Who| async { Json(json!({"networks": []})) }))
        .route("/extensions", get(|_: Who| async { Json(json!({"extensions": []})) }));
    Router::new()
        .route("/", get(versions))
        .route("/v2.1", get(version_document))
        .nest("/v2.1", versioned)
        .fallback(fallback)
        .layer(middleware::from_fn(negotiate))
        .with_state(compute)
}

/// Who asks, and in which microversion.
pub(super) struct Who {
    pub asker: Asker,
    pub version: Microversion,
}

impl Who {
    pub(super) fn caller(&self) -> &Caller {
        &self.asker.caller
    }

    /// Operators only; `rule` is the name of Nova's policy.
    pub(super) fn check_admin(&self, rule: &str) -> Result<(), ComputeError> {
        if self.caller().is_admin() { Ok(()) } else { Err(ComputeError::policy(rule)) }
    }

    pub(super) fn frame(&self, compute: &Compute) -> Frame {
        Frame {
            url: compute.settings.url.clone(),
            node: compute.node_name(),
            admin: self.caller().is_admin(),
            version: self.version,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = ComputeError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ComputeError> {
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(ComputeError::unauthorized)?;
        let request_id = parts.extensions.get::<RequestContext>().map(|context| context.request_id.clone());
        let version = Microversion::of(&parts.headers)?;
        Ok(Self { asker: Asker { caller, request_id }, version })
    }
}

/// Refuses microversions that there are not, and tells the one that is used.
async fn negotiate(request: Request, next: Next) -> Response {
    match Microversion::of(request.headers()) {
        Ok(version) => {
            let mut response = next.run(request).await;
            version.announce(response.headers_mut());
            response
        }
        Err(error) => error.into_response(),
    }
}

/// The shell limits the length; what is wrong is told with line and column.
pub(super) fn read_json(body: &Bytes) -> Result<Value, ComputeError> {
    serde_json::from_slice(body).map_err(|error| ComputeError::bad_request(format!("Malformed request body: {error}.")))
}

/// The first value of a query parameter.
pub(super) fn parameter<'p>(parameters: &'p [(String, String)], wanted: &str) -> Option<&'p str> {
    parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

async fn versions(State(compute): Service) -> Json<Value> {
    Json(version::versions(&compute.settings.url))
}

async fn version_document(State(compute): Service) -> Json<Value> {
    Json(json!({"version": version::version(&compute.settings.url)}))
}

/// A trailing slash means the same page; anything else is not there.
async fn fallback(State(compute): Service, request: Request) -> Response {
    match request.uri().path().trim_end_matches('/') {
        "" => Json(version::versions(&compute.settings.url)).into_response(),
        "/v2.1" => Json(json!({"version": version::version(&compute.settings.url)})).into_response(),
        _ => ComputeError::not_found("The resource could not be found.").into_response(),
    }
}

async fn limits(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    let own = who.caller().project_id.clone().unwrap_or_default();
    let project = match parameter(&parameters, "tenant_id").or(parameter(&parameters, "project_id")) {
        Some(other) if other != own => {
            who.check_admin("os_compute_api:limits:other_project")?;
            other.to_owned()
        }
        _ => own,
    };
    let (usage, limits) = compute.quotas(&project).await?;
    let mut absolute = Map::new();
    for (name, value) in [
        ("maxTotalInstances", limits.instances),
        ("maxTotalCores", limits.cores),
        ("maxTotalRAMSize", limits.ram_mib),
        ("maxServerMeta", 128),
        ("maxTotalKeypairs", 0),
        ("maxServerGroups", 0),
        ("maxServerGroupMembers", 0),
        ("totalInstancesUsed", usage.instances),
        ("totalCoresUsed", usage.cores),
        ("totalRAMUsed", usage.ram_mib),
        ("totalServerGroupsUsed", 0),
    ] {
        absolute.insert(name.to_owned(), json!(value));
    }
    Ok(Json(json!({"limits": {"rate": [], "absolute": absolute}})))
}

fn check_quota_reader(who: &Who, project: &str) -> Result<(), ComputeError> {
    if who.caller().project_id.as_deref() == Some(project) {
        return Ok(());
    }
    who.check_admin("os_compute_api:os-quota-sets:show")
}

async fn show_quotas(State(compute): Service, who: Who, Path(project): Path<String>) -> Answer {
    check_quota_reader(&who, &project)?;
    Ok(Json(json!({"quota_set": compute.quotas(&project).await?.1.to_json(&project)})))
}

async fn default_quotas(State(compute): Service, _: Who, Path(project): Path<String>) -> Answer {
    Ok(Json(json!({"quota_set": compute.settings.quotas.to_json(&project)})))
}

async fn detail_quotas(State(compute): Service, who: Who, Path(project): Path<String>) -> Answer {
    check_quota_reader(&who, &project)?;
    let (usage, limits) = compute.quotas(&project).await?;
    Ok(Json(json!({"quota_set": limits.to_detail(&project, usage)})))
}

async fn set_quotas(State(compute): Service, who: Who, Path(project): Path<String>, body: Bytes) -> Answer {
    who.check_admin("os_compute_api:os-quota-sets:update")?;
    let quotas = compute.set_quotas(&project, &read_json(&body)?).await?;
    let mut set = quotas.to_json(&project);
    if let Some(map) = set.as_object_mut() {
        map.remove("id");
    }
    Ok(Json(json!({"quota_set": set})))
}

async fn reset_quotas(
    State(compute): Service,
    who: Who,
    Path(project): Path<String>,
) -> Result<StatusCode, ComputeError> {
    who.check_admin("os_compute_api:os-quota-sets:delete")?;
    compute.reset_quotas(&project).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn zones(_: Who) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": true}, "hosts": Value::Null}]}))
}

async fn zones_in_detail(State(compute): Service, who: Who) -> Answer {
    who.check_admin("os_compute_api:os-availability-zone:detail")?;
    let service = json!({"nova-compute": {"active": true, "available": true, "updated_at": Value::Null}});
    let mut hosts = Map::new();
    hosts.insert(compute.host(), service);
    Ok(Json(json!({"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": true}, "hosts": hosts}]})))
}
