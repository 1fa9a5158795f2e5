//! The session against a small identity service of our own.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode as Status},
    response::{IntoResponse, Response},
    routing::get,
};
use orzo_model::ManualClock;

use super::*;

/// Counts what it is asked; tokens are `t1`, `t2` ...; only the newest is valid.
#[derive(Default)]
struct Keystone {
    address: parking_lot::Mutex<String>,
    issued: AtomicU64,
    validated: AtomicU64,
    logins: AtomicU64,
    life_s: AtomicU64,
    broken: std::sync::atomic::AtomicBool,
}

const START: Timestamp = Timestamp::EPOCH;

fn own(state: &Keystone, headers: &HeaderMap) -> bool {
    headers.get("x-auth-token").is_some_and(|token| *token == *format!("t{}", state.issued.load(SeqCst)))
}

async fn issue(State(state): State<Arc<Keystone>>, Json(body): Json<Value>) -> Response {
    if state.broken.load(SeqCst) {
        return Status::SERVICE_UNAVAILABLE.into_response();
    }
    let identity = &body["auth"]["identity"];
    let user = &identity["password"]["user"];
    let (name, mut project) = match identity["methods"][0].as_str() {
        Some("token") => ("ann", body["auth"]["scope"]["project"]["id"].clone()),
        Some("password") => match (user["name"].as_str(), user["password"].as_str()) {
            (Some("orzo"), Some("right")) => ("orzo", json!("service")),
            (Some("ann"), Some("secret")) => ("ann", Value::Null),
            _ => {
                state.logins.fetch_add(1, SeqCst);
                return Status::UNAUTHORIZED.into_response();
            }
        },
        _ => return Status::UNAUTHORIZED.into_response(),
    };
    if let Some(asked) = body["auth"]["scope"]["project"]["name"].as_str() {
        project = json!(asked);
    }
    let token = if name == "orzo" {
        format!("t{}", state.issued.fetch_add(1, SeqCst) + 1)
    } else {
        state.logins.fetch_add(1, SeqCst);
        "ann-token".to_owned()
    };
    let life = Duration::from_secs(state.life_s.load(SeqCst).max(1));
    let address = state.address.lock().clone();
    let endpoint = json!({"interface": "public", "url": format!("http://{address}/image")});
    let body = json!({"token": {
        "user": {"id": name, "name": name, "domain": {"id": "default"}},
        "project": {"id": project, "name": project}, "roles": [{"name": "member"}],
        "expires_at": START.plus(life).zulu_micros(),
        "catalog": [{"type": "image", "endpoints": [endpoint]}]}});
    (Status::CREATED, [("x-subject-token", token)], Json(body)).into_response()
}

async fn validate(State(state): State<Arc<Keystone>>, headers: HeaderMap) -> Response {
    if !own(&state, &headers) {
        return Status::UNAUTHORIZED.into_response();
    }
    state.validated.fetch_add(1, SeqCst);
    if headers["x-subject-token"] != "good" {
        return Status::NOT_FOUND.into_response();
    }
    Json(json!({"token": {"user": {"id": "u1", "name": "bob"}, "project": {"id": "p1"},
                          "roles": [{"name": "admin"}]}}))
    .into_response()
}

async fn images(State(state): State<Arc<Keystone>>, headers: HeaderMap) -> Response {
    if own(&state, &headers) {
        Json(json!({"images": []})).into_response()
    } else {
        Status::UNAUTHORIZED.into_response()
    }
}

/// `p1` is one, and of `hidden` nothing is told.
async fn project(State(state): State<Arc<Keystone>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match id.as_str() {
        _ if !own(&state, &headers) => Status::UNAUTHORIZED.into_response(),
        "p1" => Json(json!({"project": {"id": "p1"}})).into_response(),
        "hidden" => Status::FORBIDDEN.into_response(),
        "broken" => Status::INTERNAL_SERVER_ERROR.into_response(),
        _ => Status::NOT_FOUND.into_response(),
    }
}

async fn keystone() -> (Arc<Keystone>, Arc<ManualClock>, Arc<Session>) {
    keystone_with("right").await
}

async fn keystone_with(password: &str) -> (Arc<Keystone>, Arc<ManualClock>, Arc<Session>) {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let state = Arc::new(Keystone::default());
    state.life_s.store(3600, SeqCst);
    let router = Router::new()
        .route("/identity/v3/auth/tokens", get(validate).post(issue))
        .route("/identity/v3/auth/projects", get(|| async { Json(json!({"projects": [{"id": "only"}]})) }))
        .route("/identity/v3/projects/{id}", get(project))
        .route("/image/v2/images", get(images))
        .with_state(state.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    *state.address.lock() = address.to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let clock = ManualClock::new(START);
    let credentials = Credentials {
        auth_url: Url::parse(&format!("http://{address}/identity")).expect("a URL"),
        username: "orzo".to_owned(),
        password: password.to_owned().into(),
        user_domain: "Default".to_owned(),
        project: "service".to_owned(),
        project_domain: "Default".to_owned(),
    };
    let session = Session::new(credentials, reqwest::Client::new(), clock.clone());
    (state, clock, session)
}

#[tokio::test]
async fn many_callers_share_one_token_and_it_is_renewed_before_it_expires() {
    let (keystone, clock, session) = keystone().await;
    let asked = futures_of(20, || {
        let session = session.clone();
        async move { session.token().await.map(|token| token.expose_secret().to_owned()) }
    })
    .await;
    assert!(asked.iter().all(|token| token.as_deref().ok() == Some("t1")), "{asked:?}");
    clock.advance(Duration::from_secs(3600 - 121));
    session.token().await.expect("still good");
    assert_eq!(keystone.issued.load(SeqCst), 1);
    keystone.life_s.store(7200, SeqCst);
    clock.advance(Duration::from_secs(2));
    session.token().await.expect("renewed");
    assert_eq!(keystone.issued.load(SeqCst), 2);
}

#[tokio::test]
async fn a_revoked_token_is_replaced_and_the_request_sent_again() {
    let (keystone, _, session) = keystone().await;
    session.token().await.expect("a token");
    keystone.issued.fetch_add(1, SeqCst); // t1 is no longer valid
    let images = session.get("image", "/v2/images?limit=1").await.expect("answered by the second try");
    assert_eq!(images, json!({"images": []}));
    assert_eq!(keystone.issued.load(SeqCst), 3);
    let missing = session.get("image", "/v2/nothing").await.expect_err("not there");
    assert!(matches!(missing, SessionError::Refused { status: 404, .. }) && !missing.is_retryable());
    assert!(matches!(session.get("network", "/").await, Err(SessionError::NoEndpoint { .. })));
}

#[tokio::test]
async fn a_project_is_there_or_not_or_nobody_tells() {
    let (_, _, session) = keystone().await;
    for (id, expected) in [
        ("p1", Some(true)),
        ("p2", Some(false)),
        ("hidden", None),
        ("", Some(false)),
        ("p1/users", Some(false)),
        ("../p1", Some(false)),
        ("p1?a=b", Some(false)),
    ] {
        assert_eq!(session.has_project(id).await.expect("asked"), expected, "{id}");
    }
    assert!(session.has_project("broken").await.is_err());
}

#[tokio::test]
async fn verdicts_on_tokens_are_cached_for_a_few_seconds_only() {
    let (keystone, clock, session) = keystone().await;
    for _ in 0..3 {
        let caller = session.validate("good").await.expect("asked").expect("valid");
        assert!(caller.is_admin() && caller.has_role("reader"));
        assert_eq!(session.validate("bad").await.expect("asked"), None);
    }
    assert_eq!(keystone.validated.load(SeqCst), 2);
    clock.advance(VERDICT_TTL);
    session.validate("good").await.expect("asked").expect("valid");
    assert_eq!(keystone.validated.load(SeqCst), 3);
    assert_eq!(session.validate("").await.expect("nothing to ask"), None);
    assert_eq!(session.validate("two\nlines").await.expect("nothing to ask"), None);
    assert_eq!(keystone.validated.load(SeqCst), 3);
}

#[tokio::test]
async fn no_verdict_is_used_after_the_revision_was_raised() {
    let (keystone, clock, foreign) = keystone().await;
    let revision = Arc::new(AtomicU64::new(7));
    let (credentials, client) = (foreign.credentials.clone(), reqwest::Client::new());
    let session = Session::with_revision(credentials, client, clock, revision.clone());
    for (raised, asked) in [(0, 1), (0, 1), (1, 2), (0, 2)] {
        revision.fetch_add(raised, SeqCst);
        session.validate("good").await.expect("asked").expect("valid");
        assert_eq!(keystone.validated.load(SeqCst), asked);
    }
}

#[tokio::test]
async fn a_password_gives_a_caller_in_the_asked_or_the_only_project() {
    let (keystone, _, session) = keystone().await;
    for _ in 0..2 {
        let caller = session.check_password("ann", "secret", Some("p9")).await.expect("asked").expect("right");
        assert_eq!(caller.project_id.as_deref(), Some("p9"));
    }
    assert_eq!(keystone.logins.load(SeqCst), 1, "the second is remembered");
    let caller = session.check_password("ann", "secret", None).await.expect("asked").expect("right");
    assert_eq!(caller.project_id.as_deref(), Some("only"));
    assert_eq!(session.check_password("ann", "wrong", None).await.expect("asked"), None);
}

#[tokio::test]
async fn our_own_wrong_password_is_not_tried_again_at_once() {
    let (keystone, clock, session) = keystone_with("wrong").await;
    for _ in 0..5 {
        assert!(matches!(session.token().await, Err(SessionError::Credentials { .. })));
    }
    assert_eq!(keystone.logins.load(SeqCst), 1);
    clock.advance(REFUSED_PAUSE);
    assert!(session.token().await.is_err());
    assert_eq!(keystone.logins.load(SeqCst), 2);
}

#[tokio::test]
async fn a_broken_service_is_an_error_that_may_pass_and_never_a_verdict() {
    let (keystone, _, session) = keystone().await;
    keystone.broken.store(true, SeqCst);
    let error = session.validate("good").await.expect_err("cannot know");
    assert!(error.is_retryable(), "{error}");
    keystone.broken.store(false, SeqCst);
    assert!(session.validate("good").await.expect("asked").is_some(), "the error was not remembered");
}

#[test]
fn a_token_is_renewed_in_time_whatever_its_life() {
    let now = Timestamp::from_secs(1000);
    let after = |life: u64| renew_at(now, now.plus(Duration::from_secs(life))).since(now).as_secs();
    assert_eq!((after(3600), after(60), after(0)), (3480, 30, 0));
}

async fn futures_of<F>(count: usize, make: impl Fn() -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(make())).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.expect("no panic"));
    }
    outputs
}

/// Handlers of axum need it; nothing else in this crate would notice.
#[allow(dead_code)]
fn the_futures_may_move_between_threads(session: &Session) {
    fn may_move(_: impl Send) {}
    may_move(session.validate(""));
    may_move(session.check_password("", "", None));
    may_move(session.get("", ""));
    may_move(session.endpoint(""));
}
