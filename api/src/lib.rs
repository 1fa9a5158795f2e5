//! Every HTTP face: Gnocchi's metric API, events, health and counters.
//!
//! In come requests with a credential; out go answers that the clients of the real services cannot tell from theirs. A
//! request's way: limits and request id → credential → policy → handler → engine → answer, negotiated.
//!
//! This room keeps nothing. It knows neither files nor SQL; tenants are kept apart below it, by the scope that it passes
//! on with every question.
#![forbid(unsafe_code)]

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use orzo_model::{Room, Rooms, SharedClock};
use orzo_query::Engine;
use tower::ServiceExt;

mod aodh;
mod authenticate;
mod batches;
mod cors;
mod events;
mod filter;
mod front;
mod gnocchi;
mod health;
mod influx;
mod ingest;
mod offered;
mod parameters;
mod policy;
mod problem;
mod prometheus;
mod request;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use authenticate::{AuthenticationUnavailable, Authenticator, Credentials, TrustedHeader};
pub use batches::BatchDoor;
pub use health::{MetricsAccess, Readiness, RoomState, health_alone};
pub use policy::{Policies, PolicyError};

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The URL that clients use, if it is not the one in their `Host` header (behind a proxy that ends TLS).
    pub public_url: Option<url::Url>,
    /// Where Gnocchi's root is mounted.
    pub metric_path: String,
    /// Who may do what in the metric API.
    pub policies: Arc<Policies>,
    /// Which credentials the metric API takes.
    pub credentials: Credentials,
    /// Origins whose pages may use the metric API from a browser; none by default.
    pub cors_origins: Vec<String>,
    /// Whether `Forwarded` and `X-Forwarded-*` say how clients reach this server. Only behind a proxy that sets them.
    pub proxy_headers: bool,
    /// Whether the alarm API believes `X-User-Id`, `X-Project-Id` and `X-Roles` (Aodh's noauth). Only where nobody but
    /// this machine can ask.
    pub alarming_noauth: bool,
    /// Whether the alarm API tells how often each alarm was evaluated.
    pub evaluation_metrics: bool,
    /// Longest page of a list; Gnocchi's `api.max_limit`.
    pub limit_max: u32,
    /// Who may read `/metrics`.
    pub metrics_access: MetricsAccess,
    /// Requests worked on at once; more are told to come back, because each may hold a body of 8 MiB.
    pub requests_max: usize,
    /// A request that takes longer is given up with 503.
    pub answer_deadline: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            public_url: None,
            metric_path: "/metric".to_owned(),
            policies: Arc::new(Policies::default()),
            credentials: Credentials::Identity,
            cors_origins: Vec::new(),
            proxy_headers: false,
            alarming_noauth: false,
            evaluation_metrics: false,
            limit_max: 1000,
            metrics_access: MetricsAccess::default(),
            requests_max: 128,
            answer_deadline: Duration::from_secs(60),
        }
    }
}

/// What the faces are made from.
pub struct ApiParts {
    /// Index and store, for reading and writing.
    pub engine: Arc<Engine>,
    /// Alarms; `None` leaves their API answering 503.
    pub alarms: Option<orzo_alarms::AlarmBook>,
    /// Sends test notices and makes trusts; `None` leaves those requests answering 503 or 400.
    pub deliverer: Option<Arc<orzo_alarms::Deliverer>>,
    /// Where dry runs of `prometheus` rules are asked; `None` refuses them.
    pub prometheus: Option<Arc<dyn orzo_alarms::InstantQueries>>,
    /// Checks credentials; a [`orzo_session::Session`] in production.
    pub session: Arc<dyn Authenticator>,
    /// Where everything is counted; [`router`] registers a counter in its registry, so call it once per registry.
    pub rooms: Rooms,
    /// Tells the time.
    pub clock: SharedClock,
    /// What an operator can set.
    pub settings: ApiSettings,
    /// Asks the rooms whether they can work.
    pub readiness: Arc<dyn Readiness>,
    /// Where agents' batches go; `None` closes that door.
    pub batches: Option<BatchDoor>,
}

/// The parts, as handlers share them.
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
    pub(crate) alarms: Option<orzo_alarms::AlarmBook>,
    pub(crate) deliverer: Option<Arc<orzo_alarms::Deliverer>>,
    pub(crate) prometheus: Option<Arc<dyn orzo_alarms::InstantQueries>>,
    /// Test notices and dry runs under way at once: each holds a connection to wherever a tenant said.
    pub(crate) alarm_tests: tokio::sync::Semaphore,
    pub(crate) session: Arc<dyn Authenticator>,
    pub(crate) rooms: Rooms,
    pub(crate) room: Room,
    pub(crate) clock: SharedClock,
    pub(crate) settings: ApiSettings,
    pub(crate) readiness: Arc<dyn Readiness>,
    pub(crate) batches: Option<BatchDoor>,
    pub(crate) ingest: prometheus::Ingest,
}

impl Api {
    pub(crate) fn index(&self) -> &orzo_index::Index {
        self.engine.index()
    }

    /// 403 unless the policy lets the caller do this to that.
    pub(crate) fn allow(
        &self,
        action: policy::Action,
        caller: &orzo_model::Caller,
        target: policy::Target<'_>,
    ) -> Result<(), problem::Problem> {
        self.settings.policies.allow(action, caller, target)
    }

    /// How far this caller's action may look.
    pub(crate) fn scope(&self, action: policy::Action, caller: &orzo_model::Caller) -> orzo_model::Scope {
        self.settings.policies.scope(action, caller)
    }
}

pub(crate) type SharedApi = Arc<Api>;

/// Test notices under way at once, over all projects.
const ALARM_TESTS_MAX: usize = 8;
/// Where the events API is mounted.
pub(crate) const EVENT_MOUNT: &str = "/event";
/// Where Aodh's root is mounted.
pub(crate) const ALARMING_MOUNT: &str = "/alarming";
/// Where Prometheus' API is mounted.
pub(crate) const PROMETHEUS_MOUNT: &str = "/prometheus";
/// Where InfluxDB's write API is mounted.
pub(crate) const INFLUX_MOUNT: &str = "/influxdb";
/// Where the agents' door is mounted.
pub(crate) const COLLECTOR_MOUNT: &str = "/collector";
/// Where evaluators elsewhere ask.
pub(crate) const WATCH_MOUNT: &str = "/watch";

/// All routes, ready to be merged with other services' routers (it has no fallback of its own outside its mounts).
///
/// Serve it with connection info (`into_make_service_with_connect_info::<SocketAddr>()`), so that `/metrics` knows who
/// is on this machine; without it, `/metrics` asks everyone for a credential.
pub fn router(parts: ApiParts) -> Router {
    let front = front::Front::new(&parts);
    let api = Arc::new(Api {
        room: parts.rooms.room("api"),
        engine: parts.engine,
        alarms: parts.alarms,
        deliverer: parts.deliverer,
        prometheus: parts.prometheus,
        alarm_tests: tokio::sync::Semaphore::new(ALARM_TESTS_MAX),
        session: parts.session,
        rooms: parts.rooms,
        clock: parts.clock,
        settings: parts.settings,
        readiness: parts.readiness,
        batches: parts.batches,
        ingest: prometheus::Ingest::default(),
    });
    let mut router = front.face("health", health::router().with_state(api.clone()));
    let metric_path = api.settings.metric_path.clone();
    let faces = [
        (metric_path.as_str(), "metric", gnocchi::router().layer(axum::Extension(authenticate::TakesSetCredentials))),
        (ALARMING_MOUNT, "alarming", aodh::router()),
        (EVENT_MOUNT, "event", events::router()),
        (COLLECTOR_MOUNT, "collector", batches::router(api.batches.is_some())),
        (WATCH_MOUNT, "watch", watch::router()),
    ];
    for (mount, name, routes) in faces {
        let routes = routes
            .fallback(front::no_route)
            .method_not_allowed_fallback(front::no_method)
            .layer(axum::middleware::from_fn(problem::negotiate))
            .with_state(api.clone());
        let routes = match name {
            "metric" => cors::around(gnocchi::outside(routes), &api.settings.cors_origins),
            _ => routes,
        };
        // Paths are made normal before they are routed, which only works around a router, not inside it.
        let face = front.face(name, routes).map_request(|mut request: Request| {
            front::make_path_normal(&mut request);
            request
        });
        router = router.nest_service(mount, face);
    }
    // These have their own forms of answers and errors, whatever a client says that it accepts.
    let plain = [(PROMETHEUS_MOUNT, "prometheus", prometheus::router()), (INFLUX_MOUNT, "influxdb", influx::router())];
    for (mount, name, routes) in plain {
        let routes = routes.fallback(front::no_route).method_not_allowed_fallback(front::no_method);
        let face = front.face(name, routes.with_state(api.clone())).map_request(|mut request: Request| {
            front::make_path_normal(&mut request);
            request
        });
        router = router.nest_service(mount, face);
    }
    router
}
