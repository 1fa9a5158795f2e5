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
mod backups;
mod batches;
mod cors;
mod events;
mod filter;
mod front;
mod gnocchi;
mod health;
mod imports;
mod influx;
mod ingest;
mod offered;
mod otlp;
mod page;
mod parameters;
mod points;
mod policy;
mod problem;
mod prometheus;
mod rating;
pub mod remote;
mod request;
mod sql;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use authenticate::{AuthenticationUnavailable, Authenticator, Credentials, TrustedHeader};
pub use backups::{BackupMaker, BackupState};
pub use batches::BatchDoor;
pub use health::{MetricsAccess, Readiness, RoomState, health_alone};
pub use page::{KnownMeter, Pipeline, Quarantined};
pub use points::{PointStream, PointsReader, PointsRefusal};
pub use policy::{Policies, PolicyError};
pub use prometheus::targets::{TargetView, Targets};
pub use rating::{Exports, RatingParts, ScheduleError, SummaryError, summary_by_project};
pub use sql::{SqlAnswer, SqlForm, SqlRefusal, SqlRefusalKind, SqlRunner};

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The URL that clients use, if it is not the one in their `Host` header (behind a proxy that ends TLS).
    pub public_url: Option<url::Url>,
    /// The identity service's URL (`https://keystone.example.org/v3`) for the page's log-in; `None` if it is this
    /// server's own.
    pub identity_url: Option<url::Url>,
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
            identity_url: None,
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
    /// Where dry runs of `prometheus` rules, and those of evaluators elsewhere, are asked.
    pub prometheus: Arc<dyn orzo_model::InstantQueries>,
    /// Checks credentials; a [`orzo_session::Session`] in production.
    pub session: Arc<dyn Authenticator>,
    /// Read tokens; `None`: there are none.
    pub tokens: Option<Arc<orzo_tokens::TokenBook>>,
    /// What is scraped; `None`: nothing.
    pub targets: Option<Arc<dyn Targets>>,
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
    /// Makes backups; `None` closes that door.
    pub backups: Option<Arc<dyn BackupMaker>>,
    /// What is known of the rooms before this one; `None` leaves that out of the page.
    pub pipeline: Option<Arc<dyn Pipeline>>,
    /// Rules and rated lines; `None` leaves the rating API answering 503.
    pub rating: Option<RatingParts>,
    /// Runs SQL over everything, for administrators; `None` closes that door.
    pub sql: Option<Arc<dyn SqlRunner>>,
    /// Reads points for exports, for administrators; `None` closes that door.
    pub points: Option<Arc<dyn PointsReader>>,
}

/// The parts, as handlers share them.
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
    pub(crate) alarms: Option<orzo_alarms::AlarmBook>,
    pub(crate) deliverer: Option<Arc<orzo_alarms::Deliverer>>,
    pub(crate) prometheus: Arc<dyn orzo_model::InstantQueries>,
    /// Test notices and dry runs under way at once: each holds a connection to wherever a tenant said.
    pub(crate) alarm_tests: tokio::sync::Semaphore,
    pub(crate) session: Arc<dyn Authenticator>,
    pub(crate) tokens: Option<Arc<orzo_tokens::TokenBook>>,
    pub(crate) targets: Option<Arc<dyn Targets>>,
    pub(crate) rooms: Rooms,
    pub(crate) room: Room,
    pub(crate) clock: SharedClock,
    /// When the process came up.
    pub(crate) started_at: orzo_model::Timestamp,
    pub(crate) settings: ApiSettings,
    pub(crate) readiness: Arc<dyn Readiness>,
    pub(crate) batches: Option<BatchDoor>,
    pub(crate) backups: Option<Arc<dyn BackupMaker>>,
    pub(crate) pipeline: Option<Arc<dyn Pipeline>>,
    pub(crate) rating: Option<RatingParts>,
    pub(crate) sql: Option<Arc<dyn SqlRunner>>,
    pub(crate) points: Option<Arc<dyn PointsReader>>,
    pub(crate) ingest: prometheus::Ingest,
    /// Queries that run.
    pub(crate) queries: prometheus::places::Queries,
    /// Queries that were parsed lately.
    pub(crate) expressions: orzo_promql::Expressions,
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
/// Where CloudKitty's root is mounted.
pub(crate) const RATING_MOUNT: &str = "/rating";
/// Where Prometheus' API is mounted.
pub(crate) const PROMETHEUS_MOUNT: &str = "/prometheus";
/// Where InfluxDB's write API is mounted.
pub(crate) const INFLUX_MOUNT: &str = "/influxdb";
/// Where OpenTelemetry's metrics are taken.
pub(crate) const OTLP_MOUNT: &str = "/otlp";
/// Where the agents' door is mounted.
pub(crate) const COLLECTOR_MOUNT: &str = "/collector";
/// Where operators look after the store.
pub(crate) const STORE_MOUNT: &str = "/store";
/// Where SQL is asked, below it `sql`, and points for exports, below it `points`.
pub(crate) const SQL_MOUNT: &str = "/v1";
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
        tokens: parts.tokens,
        targets: parts.targets,
        rooms: parts.rooms,
        started_at: parts.clock.now(),
        clock: parts.clock,
        settings: parts.settings,
        readiness: parts.readiness,
        batches: parts.batches,
        backups: parts.backups,
        pipeline: parts.pipeline,
        rating: parts.rating,
        sql: parts.sql,
        points: parts.points,
        ingest: prometheus::Ingest::default(),
        queries: prometheus::places::Queries::default(),
        expressions: orzo_promql::Expressions::default(),
    });
    let mut router = front.face("health", health::router().with_state(api.clone()));
    router = router.merge(front.face("page", page::router().with_state(api.clone())));
    let metric_path = api.settings.metric_path.clone();
    let faces = [
        (STORE_MOUNT, "store", store::router().merge(imports::router()).merge(backups::router(api.backups.as_ref()))),
        (
            metric_path.as_str(),
            "metric",
            gnocchi::router()
                .layer(axum::Extension(authenticate::TakesSetCredentials))
                .layer(reads_of(gnocchi::only_reads)),
        ),
        (ALARMING_MOUNT, "alarming", aodh::router()),
        (RATING_MOUNT, "rating", rating::router()),
        (EVENT_MOUNT, "event", events::router().layer(reads_of(|parts| parts.method.is_safe()))),
        (COLLECTOR_MOUNT, "collector", batches::router(api.batches.is_some())),
        (WATCH_MOUNT, "watch", watch::router()),
    ];
    for (mount, name, routes) in faces {
        let pages: &'static [&'static str] = if name == "rating" { rating::PAGES } else { &[] };
        let routes = routes
            .fallback(front::no_route)
            .method_not_allowed_fallback(front::no_method)
            .layer(axum::middleware::from_fn_with_state(pages, problem::negotiate))
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
    let plain = [
        (PROMETHEUS_MOUNT, "prometheus", prometheus::router()),
        (INFLUX_MOUNT, "influxdb", influx::router()),
        (OTLP_MOUNT, "otlp", otlp::router()),
        (otlp::GRPC_MOUNT, "otlp", otlp::grpc_router()),
        (SQL_MOUNT, "sql", sql::router(api.sql.as_ref()).merge(points::router(api.points.as_ref()))),
    ];
    for (mount, name, routes) in plain {
        let routes = routes.fallback(front::no_route).method_not_allowed_fallback(front::no_method);
        let face = front.face(name, routes.with_state(api.clone())).map_request(move |mut request: Request| {
            front::make_path_normal(&mut request);
            if mount == PROMETHEUS_MOUNT {
                prometheus::name_project(&mut request);
            }
            request
        });
        let face = face.map_response(move |response| match mount == PROMETHEUS_MOUNT {
            true => prometheus::in_envelope(response),
            false => response,
        });
        router = router.nest_service(mount, face);
    }
    router
}

/// Lets a face's requests of which `only_reads` is true take read tokens.
fn reads_of(only_reads: fn(&http::request::Parts) -> bool) -> axum::Extension<authenticate::TakesReadTokens> {
    axum::Extension(authenticate::TakesReadTokens(only_reads))
}
