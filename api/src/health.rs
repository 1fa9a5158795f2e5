//! What an orchestrator, a load balancer and Prometheus ask: is it alive, is it ready, what has it counted.
//!
//! `/healthz`: the process answers. `/readyz`: every room can work, else 503 with the reasons. `/healthcheck`: 200, empty,
//! as oslo.middleware answers. `/metrics`: Prometheus text, for callers on this machine and for operators.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use orzo_model::Rooms;
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use serde_json::json;

use crate::{SharedApi, authenticate, policy, problem::Problem};

/// Whether one room can work now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoomState {
    /// `store`, `index`, `bus` ...
    pub room: String,
    /// Can work.
    pub ready: bool,
    /// Why not, or what it is connected to.
    pub reason: String,
}

/// Asks every room; compose knows them all.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// One row per room.
    async fn rooms(&self) -> Vec<RoomState>;
}

/// Who may read `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Connections from this machine that did not come through a proxy, and operators. The default: the counters tell how
    /// busy a cloud is, which is nobody else's business.
    #[default]
    Loopback,
    /// Only operators (admin or service), by token or password, or by a read token for all projects.
    Operators,
    /// Anyone who can connect; for a port that only the monitoring network reaches.
    Everyone,
}

/// The routes.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/healthcheck", get(healthcheck))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

pub(crate) async fn healthcheck() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], "").into_response()
}

async fn healthz() -> Response {
    axum::Json(json!({"alive": true})).into_response()
}

/// The same for a process that has no other face: an evaluator alone. `/metrics` knows no operators there, since nobody
/// checks credentials: it is for this machine, or for everyone.
pub fn health_alone(rooms: Rooms, readiness: Arc<dyn Readiness>, access: MetricsAccess) -> Router {
    let metrics = move |request: Request| async move {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        match may_read(access, peer, request.headers()) {
            true => counted(&rooms).into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        }
    };
    Router::new()
        .route("/healthcheck", get(healthcheck))
        .route("/healthz", get(healthz))
        .route("/readyz", get(move || async move { told(readiness.as_ref()).await }))
        .route("/metrics", get(metrics))
}

async fn readyz(State(api): State<SharedApi>) -> Response {
    told(api.readiness.as_ref()).await
}

async fn told(readiness: &dyn Readiness) -> Response {
    let rooms = readiness.rooms().await;
    let ready = rooms.iter().all(|room| room.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({"ready": ready, "rooms": rooms}))).into_response()
}

async fn metrics(State(api): State<SharedApi>, request: Request) -> Result<Response, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    if !may_read(api.settings.metrics_access, peer, request.headers()) {
        let authenticate::Asker(caller) = authenticate::verify(request.headers(), None, Some(peer), &api).await?;
        policy::operator(&caller)?;
    }
    counted(&api.rooms)
}

fn counted(rooms: &Rooms) -> Result<Response, Problem> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&rooms.registry().gather(), &mut text).map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response())
}

/// Without a credential.
fn may_read(access: MetricsAccess, peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
    match access {
        MetricsAccess::Everyone => true,
        MetricsAccess::Operators => false,
        MetricsAccess::Loopback => {
            let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|h| headers.contains_key(*h));
            !proxied && peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_for_this_machine_and_not_for_its_proxy() {
        let direct = HeaderMap::new();
        let mut proxied = HeaderMap::new();
        proxied.insert("x-forwarded-for", "10.0.0.1".parse().expect("a header"));
        let peer = |text: &str| text.parse().ok();
        use MetricsAccess::*;
        assert!(may_read(Loopback, peer("127.0.0.1:1"), &direct));
        assert!(may_read(Loopback, peer("[::1]:1"), &direct));
        assert!(may_read(Loopback, peer("[::ffff:127.0.0.1]:1"), &direct));
        assert!(!may_read(Loopback, peer("127.0.0.1:1"), &proxied));
        assert!(!may_read(Loopback, peer("192.0.2.1:1"), &direct));
        assert!(!may_read(Loopback, None, &direct));
        assert!(!may_read(Operators, peer("127.0.0.1:1"), &direct));
        assert!(may_read(Everyone, None, &proxied));
    }
}
