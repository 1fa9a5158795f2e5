//! Runs on their way to receivers that fail, forget, refuse and die; and senders that die.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use orzo_database::Database;
use orzo_export::{FileEntry, MANIFEST, Manifest, Profile, SIGNATURE, SigningKey};
use orzo_model::{Clock, ManualClock, Rooms, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

mod vendors;

/// What was asked, and what is answered next (the last first); then 200.
#[derive(Default)]
struct Server {
    requests: Mutex<Vec<(String, String, HeaderMap, Bytes)>>,
    answers: Mutex<Vec<(u16, Value)>>,
}

impl Server {
    fn bodies(&self) -> Vec<Value> {
        let requests = self.requests.lock();
        requests.iter().map(|(_, _, _, body)| serde_json::from_slice(body).unwrap_or_default()).collect()
    }

    /// Numbers of the events of each request.
    fn numbers(&self) -> Vec<Vec<u64>> {
        let number = |event: &Value| event["id"].as_u64().unwrap();
        self.bodies()
            .iter()
            .map(|body| body.as_array().map_or_else(|| vec![number(body)], |all| all.iter().map(number).collect()))
            .collect()
    }
}

async fn answer(Shared(own): Shared<Arc<Server>>, request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    own.requests.lock().push((parts.method.to_string(), parts.uri.path().to_owned(), parts.headers, body));
    let (status, said) = own.answers.lock().pop().unwrap_or((200, Value::Null));
    (StatusCode::from_u16(status).unwrap(), axum::Json(said))
}

struct World {
    server: Arc<Server>,
    url: url::Url,
    clock: Arc<ManualClock>,
    outbox: Outbox,
    directory: tempfile::TempDir,
    rooms: Rooms,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Arc::new(Server::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new("2026-11-10T00:00:00Z".parse().unwrap());
        let database = Database::open_file(&directory.path().join("db")).await.unwrap();
        let outbox = Outbox::open(database, clock.clone()).await.unwrap();
        Self { server, url, clock, outbox, directory, rooms: Rooms::new(&prometheus::Registry::new()) }
    }

    fn deliverer(&self, holder: &str) -> Deliverer {
        let (outbox, clock, room) = (self.outbox.clone(), self.clock.clone(), self.rooms.room("deliveries"));
        Deliverer::new(outbox, Poster::new().unwrap(), clock, room, holder.to_owned())
    }

    fn target(&self, profile: &str) -> Target {
        Target::new("t", profile, None, &self.url, target::Access::default()).unwrap()
    }

    /// A signed run of these lines, in the outbox.
    async fn ask(&self, profile: Profile, lines: &[String]) -> String {
        let run = Uuid::new_v5(&Uuid::NAMESPACE_OID, lines.join("").as_bytes());
        let directory = self.directory.path().join(run.to_string());
        write_run(&directory, run, profile, lines, self.directory.path());
        let new = NewDelivery {
            run,
            directory: directory.display().to_string(),
            profile: profile.name().to_owned(),
            target: "t".to_owned(),
        };
        // Asked twice it is there once.
        let first = self.outbox.ask(std::slice::from_ref(&new), None).await.unwrap();
        assert_eq!(self.outbox.ask(&[new], None).await.unwrap(), first);
        first[0].clone()
    }

    async fn now(&self, id: &str) -> Delivery {
        self.outbox.find(id).await.unwrap().unwrap()
    }

    fn assert_conserved(&self) {
        let balance = self.rooms.room("deliveries").balance();
        assert!(balance.is_conserved(), "{balance:?}");
    }
}

fn write_run(directory: &Path, run: Uuid, profile: Profile, lines: &[String], keys: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let key = SigningKey::open(&keys.join("key")).unwrap();
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    // Two files, as a large run has.
    let mut files = Vec::new();
    for (number, part) in lines.chunks(lines.len().div_ceil(2).max(1)).enumerate() {
        let name = format!("part-{:05}.ndjson", number + 1);
        std::fs::write(directory.join(&name), part.join("\n") + "\n").unwrap();
        let sha256 = orzo_export::digest_of(&directory.join(&name)).unwrap();
        let bytes = std::fs::metadata(directory.join(&name)).unwrap().len();
        files.push(FileEntry { name, bytes, lines: part.len() as u64, sha256 });
    }
    let manifest = Manifest {
        run,
        profile: profile.name().to_owned(),
        begin: time("2026-10-01T00:00:00Z"),
        end: time("2026-11-01T00:00:00Z"),
        projects: None,
        watermark: None,
        rated_after: None,
        lines: lines.len() as u64,
        left_out: 0,
        totals: Default::default(),
        columns: Vec::new(),
        files,
        public_key: key.public(),
    };
    let text = serde_json::to_vec_pretty(&manifest).unwrap();
    std::fs::write(directory.join(MANIFEST), &text).unwrap();
    std::fs::write(directory.join(SIGNATURE), key.sign(&text)).unwrap();
}

fn events(count: u64) -> Vec<String> {
    (0..count).map(|number| json!({"id": number}).to_string()).collect()
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered(_))
}

#[tokio::test]
async fn events_go_together_and_each_once() {
    let world = World::new().await;
    let id = world.ask(Profile::CloudEvents, &events(230)).await;
    let (deliverer, target) = (world.deliverer("a"), world.target("openmeter-cloudevents"));
    assert!(is_delivered(&deliverer.deliver_next(&target).await.unwrap()));
    let numbers = world.server.numbers();
    assert_eq!(numbers.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 30]);
    assert_eq!(numbers.concat(), (0..230).collect::<Vec<u64>>());
    let own = world.now(&id).await;
    assert_eq!((own.state, own.done, own.taken, own.parked), (DeliveryState::Delivered, 230, 230, 0));
    assert_eq!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Nothing);
    // Asked for again it stays delivered.
    world.ask(Profile::CloudEvents, &events(230)).await;
    assert_eq!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Nothing);
    world.assert_conserved();
}

#[tokio::test]
async fn what_is_wrong_is_found_among_others_and_parked() {
    let world = World::new().await;
    let id = world
        .ask(
            Profile::LagoEvents,
            &(0..3).map(|n| json!({"id": n, "event": {"transaction_id": n}}).to_string()).collect::<Vec<_>>(),
        )
        .await;
    let (deliverer, target) = (world.deliverer("a"), world.target("lago-events"));
    let repeat = json!({"error_details": {"transaction_id": ["value_already_exist"]}});
    // The batch, then each: taken, a repeat, wrong.
    let wrong = json!({"error_details": {"code": ["x"]}});
    *world.server.answers.lock() = vec![(422, wrong), (422, repeat), (200, Value::Null), (422, Value::Null)];
    assert!(is_delivered(&deliverer.deliver_next(&target).await.unwrap()));
    let paths: Vec<String> = world.server.requests.lock().iter().map(|(_, path, ..)| path.clone()).collect();
    assert_eq!(paths, ["/events/batch", "/events", "/events", "/events"]);
    let own = world.now(&id).await;
    assert_eq!((own.done, own.taken, own.parked), (3, 2, 1));
    let parked = world.outbox.parked(&id).await.unwrap();
    assert_eq!(parked, [Parked { place: 2, reason: "refused with status 422 Unprocessable Entity".to_owned() }]);
    world.assert_conserved();
}

#[tokio::test]
async fn a_receiver_that_fails_gets_the_same_again_later_and_after_a_week_no_more() {
    let world = World::new().await;
    let id = world.ask(Profile::CloudEvents, &events(150)).await;
    let (deliverer, target) = (world.deliverer("a"), world.target("openmeter-cloudevents"));
    *world.server.answers.lock() = vec![(503, Value::Null), (200, Value::Null)];
    let outcome = deliverer.deliver_next(&target).await.unwrap();
    assert!(matches!(&outcome, Outcome::Later { reason, .. } if reason.contains("503")), "{outcome:?}");
    assert_eq!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Nothing, "its time has not come");
    let own = world.now(&id).await;
    assert_eq!((own.done, own.attempts, own.next_at), (100, 1, world.clock.now().plus(Duration::from_secs(5))));
    // A wrong token is not the events' fault, and its failure is told without it.
    for attempt in 2..5 {
        world.clock.advance(Duration::from_secs(3600));
        *world.server.answers.lock() = vec![(401, Value::Null)];
        assert!(matches!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Later { .. }));
        assert_eq!(world.now(&id).await.attempts, attempt);
    }
    world.clock.advance(Duration::from_secs(7 * 24 * 3600));
    *world.server.answers.lock() = vec![(503, Value::Null)];
    assert!(matches!(deliverer.deliver_next(&target).await.unwrap(), Outcome::GivenUp { .. }));
    assert_eq!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Nothing);
    // Given a new start it goes on where it was.
    world.server.requests.lock().clear();
    assert_eq!(world.outbox.replay(&id).await.unwrap().state, DeliveryState::Waiting);
    assert!(is_delivered(&deliverer.deliver_next(&target).await.unwrap()));
    assert_eq!(world.server.numbers(), [(100..150).collect::<Vec<u64>>()]);
    assert!(world.outbox.replay(&id).await.is_err(), "it is delivered");
    world.assert_conserved();
}

#[tokio::test]
async fn who_dies_in_the_middle_sends_the_same_keys_again_and_who_lost_the_lease_writes_nothing() {
    let world = World::new().await;
    let id = world.ask(Profile::CloudEvents, &events(100)).await;
    let target = world.target("openmeter-cloudevents");
    let lease = Duration::from_secs(1200);
    // Sent, and dead before the answer was written down.
    let mut former = world.outbox.take("t", "a", lease).await.unwrap().unwrap();
    world.outbox.trying(&mut former, 100, lease).await.unwrap();
    let other = world.deliverer("b");
    assert_eq!(other.deliver_next(&target).await.unwrap(), Outcome::Nothing, "it is leased to another");
    world.clock.advance(lease + Duration::from_secs(1));
    assert!(is_delivered(&other.deliver_next(&target).await.unwrap()));
    assert_eq!(world.server.numbers(), [(0..100).collect::<Vec<u64>>()]);
    let late = world.outbox.came_to(&mut former, 50, 50, &[], lease).await;
    assert!(matches!(late, Err(DeliveryError::TakenOver(own)) if own == id));
    // The same name takes its own up at once.
    world.ask(Profile::CloudEvents, &events(7)).await;
    world.outbox.take("t", "a", lease).await.unwrap().unwrap();
    assert!(is_delivered(&world.deliverer("a").deliver_next(&target).await.unwrap()));
}

#[tokio::test]
async fn what_stripe_may_have_forgotten_is_parked_and_the_rest_goes() {
    let world = World::new().await;
    let at = world.clock.now().minus(Duration::from_secs(3600)).secs();
    let line = |n: u64| json!({"object": "billing.meter_event", "id": n, "identifier": n, "timestamp": at}).to_string();
    let id = world.ask(Profile::StripeMeterEvents, &[line(0), line(1), line(2)]).await;
    let target = world.target("stripe-meter-events");
    let lease = Duration::from_secs(1200);
    let mut former = world.outbox.take("t", "a", lease).await.unwrap().unwrap();
    world.outbox.trying(&mut former, 1, lease).await.unwrap();
    world.clock.advance(Duration::from_secs(25 * 3600));
    assert!(is_delivered(&world.deliverer("a").deliver_next(&target).await.unwrap()));
    let own = world.now(&id).await;
    assert_eq!((own.taken, own.parked, world.server.requests.lock().len()), (2, 1, 2));
    assert!(world.outbox.parked(&id).await.unwrap()[0].reason.contains("forgotten its identifier"));
    world.assert_conserved();
}

#[tokio::test]
async fn tables_become_objects_that_are_never_replaced_the_manifest_last() {
    let world = World::new().await;
    let id = world.ask(Profile::FocusCsv, &events(4)).await;
    let secret = world.directory.path().join("secret");
    std::fs::write(&secret, "the-secret-key\n").unwrap();
    let access = target::Access {
        endpoint: Some(world.url.join("/").unwrap()),
        access_key: Some("KEY".to_owned()),
        secret_key_file: Some(secret),
        ..target::Access::default()
    };
    let target = Target::new("t", "focus-1.2-csv", None, &"s3://bills/a".parse().unwrap(), access).unwrap();
    let deliverer = world.deliverer("a");
    // The second file is there already, the same; then the third fails once.
    *world.server.answers.lock() = vec![(503, Value::Null), (404, Value::Null), (412, Value::Null), (200, Value::Null)];
    assert!(matches!(deliverer.deliver_next(&target).await.unwrap(), Outcome::Later { .. }));
    let own = world.now(&id).await;
    assert_eq!(own.done, 1, "what is there could not be looked at: {own:?}");
    assert!(!format!("{own:?}{target:?}").contains("the-secret-key"));
    world.server.answers.lock().clear();
    world.server.requests.lock().clear();
    world.clock.advance(Duration::from_secs(60));
    assert!(is_delivered(&deliverer.deliver_next(&target).await.unwrap()));
    let run = world.outbox.find(&id).await.unwrap().unwrap().run_id;
    let requests = world.server.requests.lock();
    let names: Vec<&str> = requests.iter().map(|(_, path, ..)| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["part-00002.ndjson", SIGNATURE, MANIFEST]);
    for (method, path, headers, body) in requests.iter() {
        assert_eq!(method, "PUT");
        assert!(path.starts_with(&format!("/bills/a/focus-1.2-csv-{run}/")), "{path}");
        assert_eq!(headers["if-none-match"], "*");
        assert_eq!(headers["content-length"], body.len().to_string().as_str());
        assert_eq!(headers["x-amz-meta-sha256"].len(), 64);
    }
    drop(requests);
    world.assert_conserved();
}

#[tokio::test]
async fn a_directory_gets_the_run_whole_and_what_was_changed_goes_nowhere() {
    let world = World::new().await;
    let into = world.directory.path().join("into");
    let url = url::Url::from_file_path(&into).unwrap();
    let target = Target::new("t", "focus-1.2-csv", None, &url, target::Access::default()).unwrap();
    let id = world.ask(Profile::FocusCsv, &events(4)).await;
    let deliverer = world.deliverer("a");
    assert!(is_delivered(&deliverer.deliver_next(&target).await.unwrap()));
    let own = world.now(&id).await;
    let there = into.join(format!("focus-1.2-csv-{}", own.run_id));
    assert_eq!(orzo_export::check(&there, None).unwrap().lines, 4);
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1, "nothing but the run");
    // A cell that somebody changed after the run was signed.
    let id = world.ask(Profile::FocusCsv, &events(5)).await;
    let path = Path::new(&world.now(&id).await.directory).join("part-00001.ndjson");
    std::fs::write(&path, "{}\n").unwrap();
    let outcome = deliverer.deliver_next(&target).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::GivenUp { reason, .. } if reason.contains("not what was written")),
        "{outcome:?}"
    );
    world.assert_conserved();
}
