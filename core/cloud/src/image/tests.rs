//! The image service as its clients see it: on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names one.

use std::convert::Infallible;

use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderMap, Request},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use orzo_model::ManualClock;
use tower::ServiceExt;

use super::{format::tests::qcow2_header, *};
use crate::notify::tests::{RecordingBus, databases, rooms};

struct World {
    images: Arc<Images>,
    bus: Arc<RecordingBus>,
    clock: Arc<ManualClock>,
    database: Database,
    rooms: Rooms,
    stop: tokio_util::sync::CancellationToken,
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
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

pub(crate) fn asker(user: &str, project: &str, roles: &[&str]) -> Asker {
    Asker {
        caller: Caller {
            user_id: user.to_owned(),
            user_name: user.to_owned(),
            project_id: Some(project.to_owned()),
            project_name: Some(format!("{project}-name")),
            user_domain_id: Some("default".to_owned()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            standing: orzo_model::Standing::Project,
        },
        request_id: Some("req-test".to_owned()),
    }
}

fn member(project: &str) -> Asker {
    asker("u", project, &["member", "reader"])
}

fn admin() -> Asker {
    asker("a", "admin-project", &["admin", "member", "reader"])
}

pub(crate) fn settings(directory: &std::path::Path) -> ImageSettings {
    ImageSettings {
        directory: directory.join("images"),
        image_bytes_max: 1 << 20,
        project_bytes_max: 1_500_000,
        host: "host".to_owned(),
        url: "http://cloud.example/image".to_owned(),
    }
}

async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for (database, guard) in databases().await {
        let (bus, rooms) = (RecordingBus::new(), rooms());
        let clock = ManualClock::new(Timestamp::from_secs(1_795_291_460));
        let outbox = Outbox::open(database.clone(), bus.clone(), clock.clone(), &rooms).await.expect("an outbox");
        let directory = tempfile::tempdir().expect("a directory");
        let images = Images::open(settings(directory.path()), database.clone(), clock.clone(), outbox.clone(), &rooms)
            .await
            .expect("images open");
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(outbox.run(stop.clone()));
        worlds.push(World { images, bus, clock, database, rooms, stop, directory, _guard: guard });
    }
    worlds
}

impl World {
    fn router(&self, asker: &Asker) -> Router {
        router(self.images.clone()).layer(Extension(asker.caller.clone()))
    }

    async fn ask(&self, asker: &Asker, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let response = self.router(asker).oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    async fn get(&self, asker: &Asker, path: &str) -> Answer {
        self.ask(asker, "GET", path, &[], Body::empty()).await
    }

    async fn send(&self, asker: &Asker, method: &str, path: &str, body: Value) -> Answer {
        self.ask(asker, method, path, &[("content-type", "application/json")], Body::from(body.to_string())).await
    }

    async fn patch(&self, asker: &Asker, id: &str, body: Value) -> Answer {
        let kind = [("content-type", "application/openstack-images-v2.1-json-patch")];
        self.ask(asker, "PATCH", &format!("/v2/images/{id}"), &kind, Body::from(body.to_string())).await
    }

    async fn create(&self, asker: &Asker, name: &str, format: &str) -> String {
        let body = json!({"name": name, "disk_format": format, "container_format": "bare"});
        let image = self.send(asker, "POST", "/v2/images", body).await.expect(201);
        image["id"].as_str().expect("an id").to_owned()
    }

    async fn upload(&self, asker: &Asker, id: &str, bytes: impl Into<Body>) -> Answer {
        let kind = [("content-type", "application/octet-stream")];
        self.ask(asker, "PUT", &format!("/v2/images/{id}/file"), &kind, bytes.into()).await
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("images")).expect("the directory").count()
    }
}

#[tokio::test]
async fn an_image_is_created_filled_read_and_deleted_and_every_step_is_told() {
    for world in worlds().await {
        let me = member("p");
        let id = world.create(&me, "cirros", "raw").await;
        assert_eq!(world.get(&me, &format!("/v2/images/{id}/file")).await.status, 204);
        let data = vec![7u8; 70_000];
        world.upload(&me, &id, data.clone()).await.expect(204);
        let image = world.get(&me, &format!("/v2/images/{id}")).await.expect(200);
        assert_eq!((image["status"].as_str(), image["size"].as_i64()), (Some("active"), Some(70_000)));
        assert_eq!(image["visibility"], "shared");
        assert_eq!(image["os_hash_algo"], "sha512");
        let digest = <sha2::Sha512 as sha2::Digest>::digest(&data);
        assert_eq!(image["os_hash_value"], hex::encode(digest));

        let whole = world.get(&me, &format!("/v2/images/{id}/file")).await;
        assert_eq!((whole.status, whole.bytes.len()), (200, 70_000));
        assert_eq!(whole.headers["content-md5"].to_str().ok(), image["checksum"].as_str());
        let path = format!("/v2/images/{id}/file");
        let part = world.ask(&me, "GET", &path, &[("range", "bytes=10-19")], Body::empty()).await;
        assert_eq!((part.status, part.bytes.len()), (206, 10));
        assert_eq!(part.headers["content-range"], "bytes 10-19/70000");
        world.bus.wait_for_event("image.send", 2).await;

        world.send(&me, "DELETE", &format!("/v2/images/{id}"), Value::Null).await.expect(204);
        world.get(&me, &format!("/v2/images/{id}")).await.expect(404);
        assert_eq!(world.files(), 0);
        world.bus.wait_for_event("image.delete", 1).await;
        let events = world.bus.events();
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "image.create",
            "image.update",
            "image.upload",
            "image.update",
            "image.send",
            "image.send",
            "image.delete",
        ];
        assert_eq!(names, expected);
        assert_eq!(events[1].1["status"], "saving");
        assert_eq!(events[2].1["size"], 70_000);
        assert_eq!(events[4].1["bytes_sent"], 70_000);
        assert_eq!(events[6].1["status"], "deleted");
        assert!(events[6].1["deleted_at"].is_string());
        assert!(world.rooms.room("cloud.image").balance().is_conserved());
    }
}

#[tokio::test]
async fn an_upload_that_is_too_large_broken_or_not_what_it_says_leaves_nothing_behind() {
    for world in worlds().await {
        let me = member("p");
        let raw = world.create(&me, "raw", "raw").await;
        // No length is announced, so only counting while streaming can find out.
        let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![0u8; 100_000])));
        world.upload(&me, &raw, Body::from_stream(endless)).await.expect(413);
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("gone"))]);
        world.upload(&me, &raw, Body::from_stream(broken)).await.expect(400);
        world.upload(&me, &raw, qcow2_header()).await.expect(415);
        let disguised = world.create(&me, "q", "qcow2").await;
        world.upload(&me, &disguised, vec![0u8; 4096]).await.expect(415);
        let mut backing = qcow2_header();
        backing[15] = 200;
        backing[19] = 5;
        let refusal = world.upload(&me, &disguised, backing).await.expect(415);
        assert!(refusal["message"].as_str().is_some_and(|text| text.contains("backing file")), "{refusal}");
        assert_eq!(world.files(), 0);
        for id in [&raw, &disguised] {
            let image = world.get(&me, &format!("/v2/images/{id}")).await.expect(200);
            assert_eq!((image["status"].as_str(), image["size"].is_null()), (Some("queued"), true));
        }
        // And a good one is taken afterwards.
        world.upload(&me, &raw, vec![1u8; 10]).await.expect(204);
        world.upload(&me, &disguised, qcow2_header()).await.expect(204);
        world.upload(&me, &raw, vec![1u8; 10]).await.expect(409);
        let image = world.get(&me, &format!("/v2/images/{disguised}")).await.expect(200);
        assert_eq!(image["virtual_size"], 1 << 20);
        let balance = world.rooms.room("cloud.image").balance();
        assert_eq!((balance.stored, balance.waiting), (2, 0));
        assert!(balance.is_conserved());
    }
}

#[tokio::test]
async fn a_project_cannot_exceed_its_quota() {
    for world in worlds().await {
        let me = member("p");
        for (name, bytes, status) in [("a", 1_000_000, 204), ("b", 600_000, 413), ("c", 500_000, 204), ("d", 1, 413)] {
            let id = world.create(&me, name, "raw").await;
            assert_eq!(world.upload(&me, &id, vec![0u8; bytes]).await.status, status, "{name}");
        }
        let other = member("q");
        let id = world.create(&other, "mine", "raw").await;
        world.upload(&other, &id, vec![0u8; 1_000_000]).await.expect(204);
    }
}

#[tokio::test]
async fn who_may_see_and_change_an_image_is_as_in_glance() {
    for world in worlds().await {
        let (me, other, reader) = (member("p"), member("q"), asker("r", "p", &["reader"]));
        let id = world.create(&me, "image", "raw").await;
        let path = format!("/v2/images/{id}");
        world.get(&other, &path).await.expect(404);
        world.get(&reader, &path).await.expect(200);
        world.patch(&reader, &id, json!([{"op": "replace", "path": "/name", "value": "x"}])).await.expect(403);
        world.patch(&other, &id, json!([{"op": "replace", "path": "/name", "value": "x"}])).await.expect(404);
        world.send(&reader, "POST", "/v2/images", json!({"name": "x"})).await.expect(403);
        let nobody = router(world.images.clone());
        let request = Request::builder().uri("/v2/images").body(Body::empty()).expect("a request");
        assert_eq!(nobody.oneshot(request).await.expect("infallible").status().as_u16(), 401);

        // Shared with q, seen at once by id, listed when accepted.
        world.send(&me, "POST", &format!("{path}/members"), json!({"member": "q"})).await.expect(200);
        world.send(&me, "POST", &format!("{path}/members"), json!({"member": "q"})).await.expect(409);
        world.get(&other, &path).await.expect(200);
        let list = |asker: Asker, query: &'static str| {
            let world = &world;
            async move { world.get(&asker, query).await.expect(200)["images"].as_array().map_or(0, Vec::len) }
        };
        assert_eq!(list(other.clone(), "/v2/images").await, 0);
        assert_eq!(list(other.clone(), "/v2/images?visibility=shared&member_status=pending").await, 1);
        world.send(&me, "PUT", &format!("{path}/members/q"), json!({"status": "accepted"})).await.expect(403);
        world.send(&other, "PUT", &format!("{path}/members/q"), json!({"status": "accepted"})).await.expect(200);
        assert_eq!(list(other.clone(), "/v2/images").await, 1);
        world.patch(&other, &id, json!([{"op": "replace", "path": "/name", "value": "x"}])).await.expect(403);
        world.send(&other, "DELETE", &path, Value::Null).await.expect(403);
        world.send(&other, "DELETE", &format!("{path}/members/q"), Value::Null).await.expect(403);
        world.send(&me, "DELETE", &format!("{path}/members/q"), Value::Null).await.expect(204);
        world.get(&other, &path).await.expect(404);

        let publish = json!([{"op": "replace", "path": "/visibility", "value": "public"}]);
        world.patch(&me, &id, publish.clone()).await.expect(403);
        world.patch(&admin(), &id, publish).await.expect(200);
        assert_eq!(list(other.clone(), "/v2/images").await, 1);
        world
            .patch(&me, &id, json!([{"op": "replace", "path": "/visibility", "value": "community"}]))
            .await
            .expect(403);
        world
            .patch(&admin(), &id, json!([{"op": "replace", "path": "/visibility", "value": "community"}]))
            .await
            .expect(200);
        assert_eq!(list(other.clone(), "/v2/images").await, 0);
        assert_eq!(list(other, "/v2/images?visibility=community").await, 1);
    }
}

#[tokio::test]
async fn a_patch_changes_what_may_be_changed() {
    for world in worlds().await {
        let me = member("p");
        let id = world.create(&me, "image", "raw").await;
        let patch = json!([
            {"op": "add", "path": "/os_distro", "value": "debian"},
            {"op": "replace", "path": "/tags", "value": ["a", "b"]},
            {"op": "replace", "path": "/min_ram", "value": 64},
            {"op": "replace", "path": "/protected", "value": true},
        ]);
        let image = world.patch(&me, &id, patch).await.expect(200);
        assert_eq!((image["os_distro"].as_str(), image["min_ram"].as_i64()), (Some("debian"), Some(64)));
        world.send(&me, "DELETE", &format!("/v2/images/{id}"), Value::Null).await.expect(403);
        world.patch(&me, &id, json!([{"op": "replace", "path": "/size", "value": 1}])).await.expect(403);
        world.patch(&me, &id, json!([{"op": "replace", "path": "/status", "value": "active"}])).await.expect(403);
        world.patch(&me, &id, json!([{"op": "replace", "path": "/disk_format", "value": "vmdk"}])).await.expect(400);
        world.send(&me, "PATCH", &format!("/v2/images/{id}"), json!([])).await.expect(415);
        world.upload(&me, &id, vec![0u8; 10]).await.expect(204);
        // Otherwise content that was never checked as qcow2 would become qcow2 (CVE-2024-32498's kin).
        world.patch(&me, &id, json!([{"op": "replace", "path": "/disk_format", "value": "qcow2"}])).await.expect(403);
        world.send(&me, "PUT", &format!("/v2/images/{id}/tags/c"), Value::Null).await.expect(204);
        world.send(&me, "DELETE", &format!("/v2/images/{id}/tags/a"), Value::Null).await.expect(204);
        world.send(&me, "DELETE", &format!("/v2/images/{id}/tags/a"), Value::Null).await.expect(404);
        let image = world.get(&me, &format!("/v2/images/{id}")).await.expect(200);
        assert_eq!(image["tags"], json!(["b", "c"]));
        let patch =
            json!([{"op": "remove", "path": "/os_distro"}, {"op": "replace", "path": "/protected", "value": false}]);
        let image = world.patch(&me, &id, patch).await.expect(200);
        assert!(image.get("os_distro").is_none());
        world.send(&me, "POST", &format!("/v2/images/{id}/actions/deactivate"), Value::Null).await.expect(403);
        world.send(&admin(), "POST", &format!("/v2/images/{id}/actions/deactivate"), Value::Null).await.expect(204);
        world.get(&me, &format!("/v2/images/{id}/file")).await.expect(403);
        world.send(&me, "DELETE", &format!("/v2/images/{id}"), Value::Null).await.expect(204);
    }
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged_without_gaps() {
    for world in worlds().await {
        let me = member("p");
        for number in 0..7 {
            world.clock.advance(std::time::Duration::from_secs(1));
            let body = json!({"name": format!("i{number}"), "disk_format": if number < 3 { "raw" } else { "qcow2" },
                "container_format": "bare", "kind": if number % 2 == 0 { "even" } else { "odd" }, "tags": ["all"]});
            world.send(&me, "POST", "/v2/images", body).await.expect(201);
        }
        let names = |body: &Value| -> Vec<String> {
            let list = body["images"].as_array().cloned().unwrap_or_default();
            list.iter().filter_map(|image| image["name"].as_str().map(str::to_owned)).collect()
        };
        // Page by page equals all at once, in both directions.
        for query in ["/v2/images?limit=3", "/v2/images?limit=2&sort=disk_format:asc,name:desc"] {
            let all = world
                .get(&me, &query.replace("limit=3", "limit=100").replace("limit=2", "limit=100"))
                .await
                .expect(200);
            let (mut next, mut paged) = (Some(query.to_owned()), Vec::new());
            while let Some(path) = next {
                let page = world.get(&me, &path).await.expect(200);
                paged.extend(names(&page));
                next = page["next"].as_str().map(str::to_owned);
            }
            assert_eq!((paged.len(), paged), (7, names(&all)), "{query}");
        }
        for (query, count) in [
            ("name=i3", 1),
            ("name=in:i1,i2,nothing", 2),
            ("disk_format=raw", 3),
            ("kind=even", 4),
            ("kind=even&disk_format=raw", 2),
            ("tag=all", 7),
            ("tag=none", 0),
            ("status=active", 0),
            ("size_min=1", 0),
            ("owner=p", 7),
            ("created_at=gt:2026-11-21T20:04:25Z", 2),
        ] {
            let body = world.get(&me, &format!("/v2/images?{query}")).await.expect(200);
            assert_eq!(names(&body).len(), count, "{query}");
        }
        for query in ["limit=-1", "sort=secret", "marker=nothing", "size_min=x", "protected=perhaps"] {
            world.get(&me, &format!("/v2/images?{query}")).await.expect(400);
        }
        assert_eq!(names(&world.get(&member("q"), "/v2/images").await.expect(200)).len(), 0);
    }
}

#[tokio::test]
async fn after_a_restart_a_cut_upload_is_queued_and_its_files_are_gone() {
    for world in worlds().await {
        let me = member("p");
        let (cut, whole) = (world.create(&me, "cut", "raw").await, world.create(&me, "whole", "raw").await);
        world.upload(&me, &whole, vec![0u8; 10]).await.expect(204);
        world
            .database
            .execute("UPDATE image_images SET status = 'saving' WHERE id = $1", &[cut.as_str().into()])
            .await
            .expect("sql");
        let directory = world.directory.path().join("images");
        std::fs::write(directory.join("x.part"), b"half").expect("a file");
        std::fs::write(directory.join(&cut), b"renamed, but not written down").expect("a file");
        let outbox = Outbox::open(world.database.clone(), world.bus.clone(), world.clock.clone(), &world.rooms).await;
        Images::open(
            settings(world.directory.path()),
            world.database.clone(),
            world.clock.clone(),
            outbox.expect("open"),
            &world.rooms,
        )
        .await
        .expect("opens again");
        assert_eq!(world.files(), 1);
        let image = world.get(&me, &format!("/v2/images/{cut}")).await.expect(200);
        assert_eq!(image["status"], "queued");
        world.upload(&me, &cut, vec![0u8; 5]).await.expect(204);
        assert_eq!(world.get(&me, &format!("/v2/images/{whole}/file")).await.bytes.len(), 10);
    }
}

#[tokio::test]
async fn clients_find_versions_and_schemas() {
    let world = worlds().await.remove(0);
    let versions = world.get(&member("p"), "/").await.expect(300);
    assert_eq!(versions["versions"][0]["links"][0]["href"], "http://cloud.example/image/v2/");
    world.get(&member("p"), "/versions").await.expect(200);
    for name in ["image", "images", "member", "members"] {
        let schema = world.get(&member("p"), &format!("/v2/schemas/{name}")).await.expect(200);
        assert_eq!(schema["name"], name);
    }
    world.get(&member("p"), "/v2/schemas/other").await.expect(404);
    world.get(&member("p"), "/v2/nothing").await.expect(404);
}
