//! The compute service as its clients see it: on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names one.

mod client;
mod guests;
mod life;
mod requests;
mod resize;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderMap, Request},
};
use http_body_util::BodyExt;
use orzo_hypervisor::{GuestSpec, GuestStats, HypervisorError, PowerState, Simulated};
use orzo_model::{ManualClock, SystemClock};
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::{
    image::tests::{asker, settings as image_settings},
    notify::tests::{RecordingBus, databases, rooms},
};

/// Simulated guests that can be told to fail, and to pass for real ones.
struct Scripted {
    guests: Simulated,
    kind: &'static str,
    /// Creates fail for good.
    broken: AtomicBool,
    /// So many creates fail for a passing reason.
    passing_failures: AtomicUsize,
    made: Mutex<Vec<GuestSpec>>,
    /// Creates wait while a test holds it for writing.
    gate: tokio::sync::RwLock<()>,
}

#[async_trait]
impl Hypervisor for Scripted {
    fn kind(&self) -> &'static str {
        self.kind
    }
    async fn node(&self) -> Result<Node, HypervisorError> {
        self.guests.node().await
    }
    async fn stats(&self) -> Result<Vec<GuestStats>, HypervisorError> {
        self.guests.stats().await
    }
    async fn create(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let _open = self.gate.read().await;
        if self.broken.load(Ordering::SeqCst) {
            return Err(HypervisorError::Failed { action: "create", reason: "the test says so".into() });
        }
        let left = self.passing_failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return Err(HypervisorError::Deadline { action: "create", deadline_ms: 1 });
        }
        self.made.lock().push(spec.clone());
        self.guests.create(spec).await
    }
    async fn start(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.guests.start(uuid).await
    }
    async fn stop(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
        self.guests.stop(uuid, hard).await
    }
    async fn reboot(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
        self.guests.reboot(uuid, hard).await
    }
    async fn destroy(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.guests.destroy(uuid).await
    }
    async fn state(&self, uuid: Uuid) -> Result<Option<PowerState>, HypervisorError> {
        self.guests.state(uuid).await
    }
}

struct World {
    compute: Arc<Compute>,
    images: Arc<Images>,
    hypervisor: Arc<Scripted>,
    bus: Arc<RecordingBus>,
    outbox: Arc<Outbox>,
    database: Database,
    rooms: Rooms,
    clock: SharedClock,
    image: String,
    stop: CancellationToken,
    directory: tempfile::TempDir,
    _guard: Option<tempfile::TempDir>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

fn member(project: &str) -> Asker {
    asker("u", project, &["member", "reader"])
}

fn admin() -> Asker {
    asker("a", "admin-project", &["admin", "member", "reader"])
}

fn settings(directory: &std::path::Path) -> ComputeSettings {
    ComputeSettings {
        directory: directory.join("instances"),
        url: "http://cloud.example/compute/v2.1".to_owned(),
        image_url: "http://cloud.example/image".to_owned(),
        ratios: Ratios::default(),
        quotas: Quotas::default(),
        audit_period: Duration::from_secs(3600),
        reconcile_period: Duration::from_secs(10),
    }
}

async fn worlds(kind: &'static str, clock: SharedClock) -> Vec<World> {
    let mut worlds = Vec::new();
    for (database, guard) in databases().await {
        let (bus, rooms) = (RecordingBus::new(), rooms());
        let outbox = Outbox::open(database.clone(), bus.clone(), clock.clone(), &rooms).await.expect("an outbox");
        let directory = tempfile::tempdir().expect("a directory");
        let images =
            Images::open(image_settings(directory.path()), database.clone(), clock.clone(), outbox.clone(), &rooms)
                .await
                .expect("images open");
        let hypervisor = Arc::new(Scripted {
            guests: Simulated::new("host-1", 1, clock.clone()),
            kind,
            broken: AtomicBool::new(false),
            passing_failures: AtomicUsize::new(0),
            made: Mutex::default(),
            gate: Default::default(),
        });
        let compute = Compute::open(
            settings(directory.path()),
            database.clone(),
            clock.clone(),
            outbox.clone(),
            hypervisor.clone(),
            images.clone(),
            &rooms,
        )
        .await
        .expect("compute opens");
        let stop = CancellationToken::new();
        tokio::spawn(outbox.clone().run(stop.clone()));
        let body = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
        let image = images.create(&admin(), &body).await.expect("an image").id;
        let data = futures::stream::iter([Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(b"boot"))]);
        images.clone().upload(admin(), image.clone(), data).await.expect("uploaded");
        worlds.push(World {
            compute,
            images,
            hypervisor,
            bus,
            outbox,
            database,
            rooms,
            clock: clock.clone(),
            image,
            stop,
            directory,
            _guard: guard,
        });
    }
    worlds
}

impl World {
    fn run(&self) {
        tokio::spawn(self.compute.clone().run(self.stop.clone()));
    }

    async fn ask(&self, asker: &Asker, method: &str, path: &str, version: &str, body: Value) -> Answer {
        let router: Router = router(self.compute.clone()).layer(Extension(asker.caller.clone()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("OpenStack-API-Version", format!("compute {version}"))
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, asker: &Asker, path: &str) -> Answer {
        self.ask(asker, "GET", path, "2.96", Value::Null).await
    }

    async fn post(&self, asker: &Asker, path: &str, body: Value) -> Answer {
        self.ask(asker, "POST", path, "2.96", body).await
    }

    fn request(&self, name: &str, flavor: &str) -> Value {
        json!({"server": {"name": name, "flavorRef": flavor, "imageRef": self.image, "networks": "auto"}})
    }

    async fn create(&self, asker: &Asker, name: &str) -> String {
        let body = self.post(asker, "/v2.1/servers", self.request(name, "1")).await.expect(202);
        body["server"]["id"].as_str().expect("an id").to_owned()
    }

    async fn status(&self, asker: &Asker, id: &str) -> Value {
        self.get(asker, &format!("/v2.1/servers/{id}")).await.expect(200)["server"]["status"].clone()
    }

    async fn act(&self, asker: &Asker, id: &str, action: Value) -> Answer {
        self.post(asker, &format!("/v2.1/servers/{id}/action"), action).await
    }

    async fn told(&self, event: &str, count: usize) {
        self.bus.wait_for_event(&format!("compute.instance.{event}"), count).await;
    }

    /// Event types about servers, without what is common to all.
    fn events(&self) -> Vec<String> {
        let events = self.bus.events().into_iter().map(|(event, _)| event);
        events.filter_map(|event| event.strip_prefix("compute.instance.").map(str::to_owned)).collect()
    }

    async fn payload_of(&self, event: &str) -> Value {
        self.told(event, 1).await;
        let wanted = format!("compute.instance.{event}");
        self.bus.events().into_iter().find(|(event, _)| *event == wanted).expect("just told").1
    }

    /// Another process on the same database.
    async fn restarted(&self, hypervisor: Arc<dyn Hypervisor>) -> Arc<Compute> {
        let directory = self.directory.path();
        Compute::open(
            settings(directory),
            self.database.clone(),
            self.clock.clone(),
            self.outbox.clone(),
            hypervisor,
            self.images.clone(),
            &rooms(),
        )
        .await
        .expect("compute opens again")
    }
}
