//! The cloud as a whole: one router, one sign of who asks, one stop.

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use orzo_bus::InProcessBus;
use orzo_hypervisor::Simulated;
use orzo_model::{ManualClock, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

struct World {
    cloud: Arc<Cloud>,
    router: Router,
    _directory: tempfile::TempDir,
}

async fn world() -> World {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(Timestamp::from_secs(1_795_291_459));
    let database = Database::open_file(&directory.path().join("cloud.db")).await.expect("sqlite opens");
    let parts = CloudParts {
        database,
        bus: Arc::new(InProcessBus::new(clock.clone())),
        hypervisor: Arc::new(Simulated::new("simulated-host", 7, clock.clone())),
        clock,
        rooms: Rooms::new(&prometheus::Registry::new()),
    };
    let base_url = Url::parse("http://cloud.example:8041").expect("a URL");
    let settings = CloudSettings::new(base_url, directory.path().join("data"));
    let cloud = Cloud::open(settings, parts).await.expect("the cloud opens");
    World { router: cloud.router(), cloud, _directory: directory }
}

impl World {
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, String, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible");
        let (parts, body) = response.into_parts();
        assert!(parts.headers.contains_key(http::REQUEST_ID), "{method} {path}");
        let token = parts.headers.get("x-subject-token").map(|token| token.to_str().expect("text").to_owned());
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), token.unwrap_or_default(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn one_token_opens_every_service_and_nothing_else_does() {
    let world = world().await;
    let password = world.cloud.bootstrap_password().expect("generated at the first start");
    let user = json!({"name": "admin", "domain": {"id": "default"}, "password": password.expose_secret()});
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
    let (status, token, _) = world.call("POST", "/identity/v3/auth/tokens", &[], body).await;
    assert_eq!(status, 201);
    let spoofed = [("x-user-id", "u"), ("x-roles", "admin"), ("x-project-id", "p"), ("x-identity-status", "Confirmed")];
    for path in ["/identity/v3/projects", "/image/v2/images", "/compute/v2.1/flavors", "/compute/v2.1/servers/detail"] {
        let (status, _, body) = world.call("GET", path, &[("x-auth-token", &token)], Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        for nobody in [&[][..], &[("x-auth-token", "gAAAA")][..], &spoofed[..]] {
            assert_eq!(world.call("GET", path, nobody, Value::Null).await.0, 401, "{path} {nobody:?}");
        }
    }
    for (path, status) in
        [("/identity", 300), ("/image", 300), ("/image/", 300), ("/image/versions", 200), ("/identity/no", 404)]
    {
        assert_eq!(world.call("GET", path, &[], Value::Null).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn the_loops_end_when_told() {
    let world = world().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.cloud.clone().run(stop.clone()));
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
    ended.expect("all loops end").expect("and none of them panics");
}
