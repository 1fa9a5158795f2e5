//! The way over HTTP, against a small Orzo with an identity service: which answers are success, which are for ever,
//! which send a batch to the spool, and what a refused token does.

use std::{collections::VecDeque, path::Path, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use orzo_bus::{Records, batch};
use orzo_model::{Batch, Rooms, Sample, SampleKind, SampleSink, SystemClock, Timestamp};
use orzo_session::Credentials;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::publish::Publisher;

/// A test that waits longer than this has failed.
const WAIT: Duration = Duration::from_secs(20);

/// One request for a batch.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    token: String,
    content_type: String,
    body: Bytes,
}

/// Answers batches as scripted, then with 200. Tokens are `t1`, `t2` ...
#[derive(Default)]
struct Orzo {
    script: Mutex<VecDeque<u16>>,
    seen: watch::Sender<Vec<Seen>>,
    issued: Mutex<u32>,
}

async fn issue(State(orzo): State<Arc<Orzo>>, Json(body): Json<serde_json::Value>) -> Response {
    if body["auth"]["identity"]["password"]["user"]["password"] != "right" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let token = {
        let mut issued = orzo.issued.lock();
        *issued += 1;
        format!("t{issued}")
    };
    let body = json!({"token": {"user": {"id": "u", "name": "agent"}, "expires_at": "2100-01-01T00:00:00.000000Z"}});
    (StatusCode::CREATED, [("x-subject-token", token)], Json(body)).into_response()
}

async fn take(State(orzo): State<Arc<Orzo>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let seen = Seen { token: header("x-auth-token"), content_type: header("content-type"), body };
    let status = orzo.script.lock().pop_front().unwrap_or(200);
    orzo.seen.send_modify(|all| all.push(seen));
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("location", "/elsewhere")], format!("words of {status} {}", "x".repeat(10_000))).into_response()
}

impl Orzo {
    /// The address below which it listens.
    async fn start(script: &[u16]) -> (Arc<Self>, Url) {
        let orzo = Arc::new(Self { script: Mutex::new(script.iter().copied().collect()), ..Self::default() });
        let router = Router::new()
            .route("/telemetry/identity/v3/auth/tokens", post(issue))
            .route("/telemetry/collector/v1/batches", post(take))
            .with_state(orzo.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/telemetry/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (orzo, url)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    async fn has_seen(&self, count: usize) -> Vec<Seen> {
        let mut receiver = self.seen.subscribe();
        let seen = tokio::time::timeout(WAIT, receiver.wait_for(|seen| seen.len() >= count)).await;
        seen.expect("the batches are sent in time").unwrap().clone()
    }
}

fn outlet(url: &Url, password: &str) -> HttpOutlet {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let credentials = Credentials {
        auth_url: joined(url, "identity/v3"),
        username: "agent".to_owned(),
        password: password.into(),
        user_domain: "Default".to_owned(),
        project: "service".to_owned(),
        project_domain: "Default".to_owned(),
    };
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    HttpOutlet::new(client.clone(), url, Session::new(credentials, client, SystemClock::shared()))
}

fn a_batch(number: u128) -> Batch {
    let sample = Sample {
        id: Uuid::from_u128(number),
        meter: "cpu".to_owned(),
        kind: SampleKind::Cumulative,
        unit: "ns".to_owned(),
        value: 1.5,
        timestamp: Timestamp::from_secs(60),
        resource_id: "guest".to_owned(),
        project_id: None,
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Arc::default(),
    };
    Batch { id: Uuid::from_u128(number), origin: "compute@h".to_owned(), samples: vec![sample], events: Vec::new() }
}

fn parcel(number: u128) -> Parcel {
    let batch = a_batch(number);
    let body = batch::encode(&batch).unwrap();
    Parcel { id: batch.id, origin: batch.origin, shard: 0, things: 1, body }
}

fn publisher(outlet: HttpOutlet, directory: &Path) -> (Arc<Publisher>, Rooms) {
    let rooms = Rooms::new(&prometheus::Registry::new());
    let spool = Arc::new(Records::open(directory, 1 << 20).unwrap());
    (Publisher::new(Arc::new(outlet), spool, 1, &rooms, SystemClock::shared()), rooms)
}

#[tokio::test]
async fn a_batch_goes_with_a_token_that_is_asked_for_once() {
    let (orzo, url) = Orzo::start(&[200, 202]).await;
    let outlet = outlet(&url, "right");
    outlet.send(&parcel(1)).await.unwrap();
    outlet.send(&parcel(2)).await.unwrap();
    let seen = orzo.seen();
    assert_eq!(seen.iter().map(|seen| seen.token.as_str()).collect::<Vec<_>>(), ["t1", "t1"]);
    assert_eq!(seen[0].content_type, CONTENT_TYPE);
    assert_eq!(batch::decode(&seen[1].body).unwrap(), a_batch(2));
}

#[tokio::test]
async fn a_refused_token_is_renewed_and_the_batch_sent_again_once() {
    let (orzo, url) = Orzo::start(&[200, 401, 200, 401, 401]).await;
    let outlet = outlet(&url, "right");
    outlet.send(&parcel(1)).await.unwrap();
    outlet.send(&parcel(2)).await.unwrap();
    let refused = outlet.send(&parcel(3)).await.unwrap_err();
    assert!(matches!(&refused, OutletError::Unavailable { reason } if reason.contains("401")), "{refused}");
    let tokens: Vec<String> = orzo.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!(tokens, ["t1", "t1", "t2", "t2", "t3"]);
    assert_eq!(orzo.seen()[1].body, orzo.seen()[2].body);
}

#[tokio::test]
async fn what_is_wrong_with_the_batch_is_for_ever_and_all_else_may_pass() {
    for status in [400, 413, 415, 422] {
        let (_, url) = Orzo::start(&[status]).await;
        let error = outlet(&url, "right").send(&parcel(1)).await.unwrap_err();
        let OutletError::Rejected { reason } = error else { panic!("{status}: {error}") };
        assert!(reason.contains(&format!("words of {status}")) && reason.len() < 1_000, "{reason}");
    }
    for status in [302, 307, 403, 404, 408, 429, 500, 502, 503, 507] {
        let (orzo, url) = Orzo::start(&[status]).await;
        let error = outlet(&url, "right").send(&parcel(1)).await.unwrap_err();
        assert!(matches!(error, OutletError::Unavailable { .. }), "{status}: {error}");
        assert_eq!(orzo.seen().len(), 1, "{status} is not followed nor tried again here");
    }
}

#[tokio::test]
async fn a_rejected_batch_is_refused_and_does_not_wait_in_the_spool() {
    let (orzo, url) = Orzo::start(&[400]).await;
    let directory = tempfile::tempdir().unwrap();
    let (publisher, rooms) = publisher(outlet(&url, "right"), directory.path());
    let error = publisher.accept(a_batch(1)).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!((publisher.spooled_batches(), rooms.room("publisher").balance().refused), (0, 1));
    assert_eq!(publisher.accept(a_batch(2)).await.unwrap().stored, 1);
    assert_eq!(orzo.seen().len(), 2);
}

#[tokio::test]
async fn while_orzo_is_busy_batches_wait_on_disk_and_arrive_in_order() {
    let (orzo, url) = Orzo::start(&[503, 503]).await;
    let directory = tempfile::tempdir().unwrap();
    let (publisher, rooms) = publisher(outlet(&url, "right"), directory.path());
    for number in 0..3 {
        assert_eq!(publisher.accept(a_batch(number)).await.unwrap().stored, 1);
    }
    assert_eq!((publisher.spooled_batches(), orzo.seen().len()), (3, 1), "later ones do not knock themselves");
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (publisher, stop) = (publisher.clone(), stop.clone());
        async move { publisher.run(stop).await }
    });
    let bodies: Vec<Bytes> = orzo.has_seen(5).await.into_iter().map(|seen| seen.body).collect();
    let expected: Vec<Bytes> = [0, 0, 0, 1, 2].map(|number| parcel(number).body).to_vec();
    assert_eq!(bodies, expected);
    tokio::time::timeout(WAIT, async {
        while publisher.spooled_batches() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the spool empties");
    stop.cancel();
    task.await.unwrap();
    let balance = rooms.room("spool").balance();
    assert_eq!((balance.received, balance.stored, balance.waiting), (3, 3, 0));
}

#[tokio::test]
async fn without_a_connection_or_a_token_batches_go_to_the_spool() {
    // Nobody listens on a port that was just given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = outlet(&nobody, "right").send(&parcel(1)).await.unwrap_err();
    let OutletError::Unavailable { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("onnection refused"), "the cause is told: {reason}");

    let (orzo, url) = Orzo::start(&[]).await;
    let error = outlet(&url, "wrong").send(&parcel(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the identity service refuses user `agent` in project `service`");
    for outlet in [outlet(&nobody, "right"), outlet(&url, "wrong")] {
        let directory = tempfile::tempdir().unwrap();
        let (publisher, rooms) = publisher(outlet, directory.path());
        publisher.accept(a_batch(1)).await.unwrap();
        assert_eq!((publisher.spooled_batches(), rooms.room("spool").balance().waiting), (1, 1));
    }
    assert!(orzo.seen().is_empty());
}
