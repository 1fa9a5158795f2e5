//! The compute service as its clients see it: on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names one.

mod client;

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

#[tokio::test]
async fn a_server_goes_through_its_life_and_every_step_is_told() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        assert_eq!(world.status(&me, &id).await, "BUILD");
        world.act(&me, &id, json!({"os-stop": null})).await.expect(409);
        world.run();
        world.told("create.end", 1).await;
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        for (action, event, status) in [
            (json!({"os-stop": null}), "power_off.end", "SHUTOFF"),
            (json!({"os-start": null}), "power_on.end", "ACTIVE"),
            (json!({"reboot": {"type": "SOFT"}}), "reboot.end", "ACTIVE"),
        ] {
            world.act(&me, &id, action).await.expect(202);
            world.told(event, 1).await;
            assert_eq!(world.status(&me, &id).await, status, "{event}");
        }
        world.act(&me, &id, json!({"reboot": {"type": "HARD"}})).await.expect(202);
        world.told("reboot.end", 2).await;
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(404);
        let deleted = world.get(&admin(), "/v2.1/servers/detail?all_tenants=1&deleted=true").await.expect(200);
        assert_eq!(deleted["servers"][0]["status"], "DELETED");

        let mut events = world.events();
        events.retain(|event| event != "update");
        assert_eq!(
            events,
            [
                "create.start",
                "create.end",
                "power_off.start",
                "power_off.end",
                "power_on.start",
                "power_on.end",
                "reboot.start",
                "reboot.end",
                "reboot.start",
                "reboot.end",
                "delete.start",
                "shutdown.start",
                "shutdown.end",
                "exists",
                "delete.end",
            ]
        );
        let end = world.payload_of("create.end").await;
        assert_eq!(
            (end["state"].as_str(), end["memory_mb"].as_i64(), end["vcpus"].as_i64()),
            (Some("active"), Some(512), Some(1))
        );
        assert_eq!(end["node"], "simulated-host-1");
        assert_eq!(end["image_meta"]["base_image_ref"], world.image.as_str());
        assert!(world.payload_of("delete.end").await["deleted_at"].as_str().is_some_and(|at| !at.is_empty()));
        let balance = world.rooms.room("cloud.compute").balance();
        assert!(balance.is_conserved() && balance.refused == 0);
    }
}

#[tokio::test]
async fn requests_at_once_can_overbook_neither_the_machine_nor_a_quota() {
    for world in worlds("simulated", SystemClock::shared()).await {
        // 128 GiB of memory, 16 GiB each: eight fit. 32 vCPUs × 4 and 2000 GiB are enough for them.
        let unlimited = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
        world.ask(&admin(), "PUT", "/v2.1/os-quota-sets/p", "2.1", unlimited).await.expect(200);
        world
            .ask(&admin(), "PUT", "/v2.1/os-quota-sets/q", "2.1", json!({"quota_set": {"instances": 3}}))
            .await
            .expect(200);
        let (me, other) = (member("p"), member("q"));
        let many = futures::future::join_all(
            (0..12).map(|n| world.post(&me, "/v2.1/servers", world.request(&format!("s{n}"), "5")).boxed_local()),
        );
        use futures::FutureExt;
        for answer in many.await {
            answer.expect(202);
        }
        let servers = world.get(&admin(), "/v2.1/servers/detail?all_tenants=1").await.expect(200);
        let servers = servers["servers"].as_array().expect("a list").clone();
        let failed: Vec<&Value> = servers.iter().filter(|server| server["status"] == "ERROR").collect();
        assert_eq!((servers.len(), failed.len()), (12, 4));
        assert!(failed[0]["fault"]["message"].as_str().is_some_and(|text| text.starts_with("No valid host")));
        world.told("create.error", 4).await;
        let statistics = world.get(&admin(), "/v2.1/os-hypervisors/statistics").await.expect(200);
        assert_eq!(statistics["hypervisor_statistics"]["free_ram_mb"], 0);
        // Room for small ones of another project, which may have three.
        let id = servers.iter().find(|server| server["status"] != "ERROR").and_then(|s| s["id"].as_str()).expect("one");
        world.run();
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        let many = futures::future::join_all(
            (0..8).map(|n| world.post(&other, "/v2.1/servers", world.request(&format!("t{n}"), "1")).boxed_local()),
        );
        let statuses: Vec<u16> = many.await.into_iter().map(|answer| answer.status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 3, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 5, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_guest_that_cannot_be_made_leaves_a_server_in_error_that_can_be_deleted() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        world.hypervisor.broken.store(true, Ordering::SeqCst);
        let id = world.create(&me, "web").await;
        world.run();
        let payload = world.payload_of("create.error").await;
        assert!(payload["message"].as_str().is_some_and(|text| text.contains("the test says so")), "{payload}");
        let server = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(
            (server["server"]["status"].as_str(), server["server"]["fault"]["code"].as_i64()),
            (Some("ERROR"), Some(500))
        );
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        // What passes is tried again.
        world.hypervisor.broken.store(false, Ordering::SeqCst);
        world.hypervisor.passing_failures.store(1, Ordering::SeqCst);
        let id = world.create(&me, "web").await;
        world.told("create.end", 1).await;
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        let limits = world.get(&me, "/v2.1/limits").await.expect(200);
        assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 1);
    }
}

#[tokio::test]
async fn a_restart_takes_up_unfinished_work_and_makes_lost_guests_again() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        // This process does nothing about it; the next one does.
        let second = world.restarted(world.hypervisor.clone()).await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(second.run(stop.clone()));
        world.told("create.end", 1).await;
        stop.cancel();
        running.await.expect("no panic");
        // All guests are gone, as simulated ones are after a restart, and the machine has a new name.
        let fresh = Arc::new(Simulated::new("host-2", 1, world.clock.clone()));
        let third = world.restarted(fresh.clone()).await;
        third.restore().await.expect("restored");
        let uuid = Uuid::try_parse(&id).expect("a uuid");
        assert_eq!(fresh.state(uuid).await.expect("an answer"), Some(PowerState::Running));
        let server = third.server(&me.caller, &id).await.expect("there");
        assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Active, Some("host-2")));
        assert_eq!(world.events().iter().filter(|event| *event == "create.end").count(), 1);
    }
}

#[tokio::test]
async fn a_guest_that_dies_is_noticed_and_one_that_rises_is_stopped() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        let worker = tokio::spawn(world.compute.clone().run_worker(world.stop.clone()));
        world.told("create.end", 1).await;
        let uuid = Uuid::try_parse(&id).expect("a uuid");
        world.compute.reconcile().await.expect("compared");
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        world.hypervisor.stop(uuid, true).await.expect("switched off behind our back");
        world.compute.reconcile().await.expect("compared");
        assert_eq!(world.status(&me, &id).await, "SHUTOFF");
        world.told("power_off.end", 1).await;
        world.hypervisor.start(uuid).await.expect("switched on behind our back");
        world.compute.reconcile().await.expect("compared");
        world.told("power_off.end", 2).await;
        assert_eq!(world.hypervisor.state(uuid).await.expect("an answer"), Some(PowerState::ShutOff));
        world.stop.cancel();
        worker.await.expect("no panic");
    }
}

#[tokio::test]
async fn every_hour_is_told_exactly_once_for_each_server_also_over_restarts() {
    let hour = Duration::from_secs(3600);
    let clock = ManualClock::new(Timestamp::from_secs(1_795_291_200).floor(hour).plus(Duration::from_secs(60)));
    for world in worlds("simulated", clock.clone()).await {
        let me = member("p");
        assert!(!world.compute.audit_one().await.expect("the first look"));
        let first = world.create(&me, "first").await;
        clock.advance(hour);
        assert!(world.compute.audit_one().await.expect("an hour is over"));
        assert!(!world.compute.audit_one().await.expect("only once"));
        world.create(&me, "second").await;
        let again = world.restarted(world.hypervisor.clone()).await;
        assert!(!again.audit_one().await.expect("only once, also after a restart"));
        clock.advance(hour * 2);
        assert!(again.audit_one().await.expect("the next"));
        assert!(again.audit_one().await.expect("and the one after"));
        assert!(!again.audit_one().await.expect("done"));
        world.outbox.wake();
        // 1 + 2 + 2
        world.told("exists", 5).await;
        let exists: Vec<Value> =
            world.bus.events().into_iter().filter(|(e, _)| e.ends_with("exists")).map(|(_, p)| p).collect();
        assert_eq!(exists.len(), 5);
        let periods: std::collections::BTreeSet<String> = exists
            .iter()
            .filter(|payload| payload["instance_id"] == first.as_str())
            .map(|payload| payload["audit_period_beginning"].to_string())
            .collect();
        assert_eq!(periods.len(), 3);
    }
}

#[tokio::test]
async fn a_real_guest_gets_its_own_disk_from_the_checked_image() {
    for world in worlds("libvirt", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        world.run();
        world.told("create.end", 1).await;
        let spec = world.hypervisor.made.lock()[0].clone();
        let disk = spec.root_disk.clone().expect("a disk");
        assert_eq!(disk.format, "raw");
        assert!(disk.path.starts_with(world.directory.path().join("instances").join(&id)));
        let bytes = std::fs::metadata(&disk.path).expect("the disk").len();
        assert_eq!(bytes, 1 << 30, "as large as the flavor says");
        assert_eq!(&std::fs::read(&disk.path).expect("readable")[..5], b"boot\0");
        assert!(spec.mac.is_some_and(|mac| mac.starts_with("fa:16:3e:")));
        assert_eq!((spec.nova.project_name.as_str(), spec.nova.flavor.name.as_str()), ("p-name", "m1.tiny"));
        let shown = world.get(&admin(), &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(shown["server"]["OS-EXT-SRV-ATTR:hypervisor_hostname"], "host-1");
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        assert!(!disk.path.exists());
    }
}

#[tokio::test]
async fn the_demonstration_is_made_once() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("demo");
        assert!(world.compute.ensure_demo_servers(&me).await.expect("made"));
        let count =
            || async { world.get(&me, "/v2.1/servers").await.expect(200)["servers"].as_array().map_or(0, Vec::len) };
        assert_eq!(count().await, 6);
        world.run();
        world.told("create.end", 6).await;
        let list = world.get(&me, "/v2.1/servers").await.expect(200);
        let id = list["servers"][0]["id"].as_str().expect("an id").to_owned();
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        assert!(!world.compute.ensure_demo_servers(&me).await.expect("never again"));
        assert_eq!(count().await, 5);
    }
    for world in worlds("libvirt", SystemClock::shared()).await {
        assert!(!world.compute.ensure_demo_servers(&member("demo")).await.expect("not with real guests"));
    }
}

#[tokio::test]
async fn who_may_do_what_is_as_in_nova() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (me, other, reader) = (member("p"), member("q"), asker("r", "p", &["reader"]));
        let id = world.create(&me, "web").await;
        let path = format!("/v2.1/servers/{id}");
        world.get(&other, &path).await.expect(404);
        world.act(&other, &id, json!({"os-stop": null})).await.expect(404);
        world.get(&reader, &path).await.expect(200);
        world.act(&reader, &id, json!({"os-stop": null})).await.expect(403);
        world.post(&reader, "/v2.1/servers", world.request("x", "1")).await.expect(403);
        world.get(&me, "/v2.1/servers?all_tenants=1").await.expect(403);
        world.get(&me, "/v2.1/os-hypervisors").await.expect(403);
        world
            .post(&me, "/v2.1/flavors", json!({"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1}}))
            .await
            .expect(403);
        world.get(&me, "/v2.1/os-quota-sets/q").await.expect(403);
        let shown = world.get(&me, &path).await.expect(200);
        assert!(shown["server"].get("OS-EXT-SRV-ATTR:host").is_none());
        let nobody = router(world.compute.clone());
        for (path, status) in [("/v2.1/servers", 401), ("/", 200), ("/v2.1", 200), ("/v2.1/", 200)] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            assert_eq!(nobody.clone().oneshot(request).await.expect("infallible").status().as_u16(), status, "{path}");
        }
    }
}

#[tokio::test]
async fn flavors_are_kept_and_private_ones_are_seen_by_those_they_are_for() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (boss, me) = (admin(), member("p"));
        let list = world.get(&me, "/v2.1/flavors/detail").await.expect(200);
        assert_eq!(list["flavors"].as_array().map(Vec::len), Some(5));
        let body = json!({"flavor": {"name": "secret", "ram": 64, "vcpus": 1, "disk": 0, "id": "auto", "swap": 0,
            "rxtx_factor": 1.0, "OS-FLV-EXT-DATA:ephemeral": 0, "os-flavor-access:is_public": false}});
        let flavor = world.post(&boss, "/v2.1/flavors", body.clone()).await.expect(200);
        let id = flavor["flavor"]["id"].as_str().expect("an id").to_owned();
        world.post(&boss, "/v2.1/flavors", body).await.expect(409);
        world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(404);
        let grant = json!({"addTenantAccess": {"tenant": "p"}});
        world.post(&boss, &format!("/v2.1/flavors/{id}/action"), grant).await.expect(200);
        world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(200);
        let specs = json!({"extra_specs": {"hw:cpu_policy": "shared"}});
        world.post(&boss, &format!("/v2.1/flavors/{id}/os-extra_specs"), specs).await.expect(200);
        let shown = world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(200);
        assert_eq!(shown["flavor"]["extra_specs"]["hw:cpu_policy"], "shared");
        world.ask(&boss, "DELETE", &format!("/v2.1/flavors/{id}"), "2.1", Value::Null).await.expect(202);
        world.get(&boss, &format!("/v2.1/flavors/{id}")).await.expect(404);
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged_and_bad_requests_are_told_in_novas_shape() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        for number in 0..5 {
            world.create(&me, &format!("web_{number}")).await;
        }
        let (mut next, mut names) = (Some("/v2.1/servers?limit=2".to_owned()), Vec::new());
        while let Some(path) = next {
            let page = world.get(&me, &path).await.expect(200);
            let servers = page["servers"].as_array().cloned().unwrap_or_default();
            names.extend(servers.iter().filter_map(|server| server["name"].as_str().map(str::to_owned)));
            let href = page["servers_links"][0]["href"].as_str();
            next = href.map(|href| href.replace("http://cloud.example/compute", ""));
        }
        names.sort();
        assert_eq!(names, ["web_0", "web_1", "web_2", "web_3", "web_4"]);
        let uuid = Uuid::new_v4();
        let uuid_query = format!("uuid={uuid}");
        for (query, count) in [
            ("name=web_3", 1),
            ("name=web", 5),
            ("name=^web$", 0),
            ("name=web%25", 0),
            ("status=BUILD", 5),
            ("status=active", 0),
            ("status=PAUSED", 0),
            ("flavor=1", 5),
            (uuid_query.as_str(), 0),
        ] {
            let body = world.get(&me, &format!("/v2.1/servers?{query}")).await.expect(200);
            assert_eq!(body["servers"].as_array().map(Vec::len), Some(count), "{query}");
        }
        let error = world.get(&me, &format!("/v2.1/servers/{uuid}")).await.expect(404);
        assert_eq!(error["itemNotFound"]["code"], 404);
        let error = world.post(&me, "/v2.1/servers", world.request("x", "none")).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("Flavor none")), "{error}");
        let error = world.act(&me, &world.create(&me, "last").await, json!({"migrate": null})).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("migrate")), "{error}");
        let old = world.ask(&me, "GET", "/v2.1/servers/detail", "2.1", Value::Null).await;
        assert_eq!(old.headers["x-openstack-nova-api-version"], "2.1");
        assert!(old.body["servers"][0]["flavor"]["id"].is_string());
        world.ask(&me, "GET", "/v2.1/servers", "2.999", Value::Null).await.expect(406);
    }
}

#[tokio::test]
async fn metadata_can_be_set_and_a_server_renamed() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        let path = format!("/v2.1/servers/{id}");
        let added =
            world.post(&me, &format!("{path}/metadata"), json!({"metadata": {"a": "1", "b": "2"}})).await.expect(200);
        assert_eq!(added["metadata"], json!({"a": "1", "b": "2"}));
        world.ask(&me, "DELETE", &format!("{path}/metadata/a"), "2.1", Value::Null).await.expect(204);
        world.ask(&me, "DELETE", &format!("{path}/metadata/a"), "2.1", Value::Null).await.expect(404);
        let body = json!({"server": {"name": "renamed", "description": "new"}});
        let server = world.ask(&me, "PUT", &path, "2.96", body).await.expect(200);
        assert_eq!(
            (server["server"]["name"].as_str(), server["server"]["description"].as_str()),
            (Some("renamed"), Some("new"))
        );
        assert_eq!(world.get(&me, &format!("{path}/metadata")).await.expect(200)["metadata"], json!({"b": "2"}));
    }
}

#[tokio::test]
async fn hypervisors_say_when_they_are_simulated() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let detail = world.get(&admin(), "/v2.1/os-hypervisors/detail").await.expect(200);
        let hypervisor = &detail["hypervisors"][0];
        assert_eq!(hypervisor["hypervisor_type"], "simulated");
        assert_eq!(hypervisor["hypervisor_hostname"], "simulated-host-1");
        let id = hypervisor["id"].as_str().expect("a uuid since 2.53").to_owned();
        world.get(&admin(), &format!("/v2.1/os-hypervisors/{id}")).await.expect(200);
        let old = world.ask(&admin(), "GET", "/v2.1/os-hypervisors/detail", "2.1", Value::Null).await.expect(200);
        assert_eq!(
            (old["hypervisors"][0]["id"].as_i64(), old["hypervisors"][0]["vcpus"].as_i64()),
            (Some(1), Some(32))
        );
    }
}
