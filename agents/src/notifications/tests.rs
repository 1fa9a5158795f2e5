//! Decoding and translating by table; the loop over the in-process bus with a sink that a test can switch.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use orzo_bus::{Bus, InProcessBus, Message};
use orzo_definitions::{Definitions, Priority};
use orzo_model::{Batch, Clock, Receipt, Room, Rooms, SampleKind, SampleSink, SinkError, SystemClock, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ListenerParts, NotificationListener, NotificationSettings, OsloError, Poison, decode, translate};

/// Longest any of these tests waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

fn inner(message_id: &str, event_type: &str, priority: &str, payload: Value) -> Value {
    json!({
        "message_id": message_id, "publisher_id": "image.host", "event_type": event_type, "priority": priority,
        "payload": payload, "timestamp": "2026-11-21 20:04:20.355991", "_unique_id": "0123",
        "_context_request_id": "req-1", "_context_project_id": "p1", "_context_user_id": "u1"
    })
}

fn envelope(inner: &Value) -> Vec<u8> {
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string().into_bytes()
}

fn image(id: &str, size: Value) -> Value {
    json!({"id": id, "name": "n", "owner": "p2", "size": size, "status": "active", "disk_format": "raw"})
}

fn meter_message(meter: &str, volume: Value) -> Value {
    json!({
        "source": "openstack", "counter_name": meter, "counter_type": "cumulative", "counter_unit": "ns",
        "counter_volume": volume, "user_id": "u", "user_name": null, "project_id": "p", "project_name": null,
        "resource_id": "r", "timestamp": "2026-11-21T19:49:49.831633", "resource_metadata": {"cpu_number": 2},
        "message_id": "5f0c31a2-c712-11f0-8de9-0242ac120002", "monotonic_time": null, "message_signature": ""
    })
}

#[test]
fn both_wrappings_are_read() {
    let inner = inner("m-1", "image.upload", "INFO", image("i", json!(5)));
    let enveloped = decode(&envelope(&inner)).expect("an envelope");
    let bare = decode(inner.to_string().as_bytes()).expect("a bare dictionary");
    assert_eq!(enveloped, bare);
    assert_eq!(enveloped.message_id, "m-1");
    assert_eq!(enveloped.event_type, "image.upload");
    assert_eq!(enveloped.publisher_id, "image.host");
    assert_eq!(enveloped.priority, Priority::Info);
    assert_eq!(enveloped.timestamp.isoformat(), "2026-11-21T20:04:20.355991+00:00");
    assert_eq!(enveloped.context(), &json!({"request_id": "req-1", "project_id": "p1", "user_id": "u1"}));
}

#[test]
fn what_is_not_a_notification_is_refused_with_the_reason() {
    let good = inner("m-1", "image.upload", "INFO", image("i", json!(5)));
    let without = |key: &str| {
        let mut message = good.clone();
        message.as_object_mut().expect("an object").remove(key);
        decode(&envelope(&message))
    };
    assert_eq!(without("message_id").expect("it has a unique id").message_id, "0123");
    for key in ["event_type", "payload", "timestamp", "priority"] {
        let error = without(key).expect_err(key);
        assert!(matches!(error, OsloError::Field { field, problem: "missing" } if field == key), "{error}");
    }
    let error = |body: &[u8]| decode(body).expect_err("not a notification").to_string();
    assert_eq!(error(b"\x00\x01"), "the message is not JSON");
    assert_eq!(error(b"[]"), "`message` is not an object");
    assert_eq!(error(br#"{"oslo.version": "3.0"}"#), "the envelope has version `3.0`, known is 2");
    assert_eq!(error(br#"{"oslo.version": "2.0"}"#), "`oslo.message` is missing");
    assert_eq!(error(br#"{"oslo.version": "2.0", "oslo.message": "{"}"#), "the message is not JSON");
    assert!(error(&vec![b' '; super::oslo::MESSAGE_BYTES_MAX + 1]).contains("more than"));
    assert!(error("[".repeat(100_000).as_bytes()).contains("not JSON"), "deep nesting does not overflow the stack");
    let mut late = good.clone();
    late["timestamp"] = json!("tomorrow");
    assert_eq!(error(&envelope(&late)), "`timestamp` is not a time");
}

#[test]
fn priorities_decide_what_is_made() {
    let definitions = Definitions::shipped();
    let settings = NotificationSettings { store_raw: vec!["error".to_owned()], ..NotificationSettings::default() };
    let made = |priority: &str| {
        let message = inner("m-1", "image.upload", priority, image("i", json!(5)));
        translate(&definitions, &settings, &decode(&envelope(&message)).expect("a notification"))
    };
    let info = made("INFO");
    assert_eq!((info.samples.len(), info.events.len()), (1, 1));
    assert!(info.events[0].raw.is_none());
    let error = made("ERROR");
    assert_eq!((error.samples.len(), error.events.len()), (0, 1));
    assert!(error.events[0].raw.is_some(), "errors are kept whole by these settings");
    let sample = made("SAMPLE");
    assert_eq!(
        (sample.samples.len(), sample.events.len(), sample.dropped.as_slice()),
        (0, 0, ["no definition"].as_slice())
    );
}

#[test]
fn samples_of_polling_agents_pass_through() {
    let definitions = Definitions::shipped();
    let settings = NotificationSettings::default();
    let messages = [
        meter_message("cpu", json!(123)),
        meter_message("cpu", json!("4.5")),
        meter_message("cpu", json!(null)),
        meter_message("cpu", json!("many")),
        meter_message("", json!(1)),
        json!("nonsense"),
    ];
    for payload in [json!({"samples": messages.clone()}), json!(messages)] {
        let event_type = if payload.is_array() { "metering" } else { "telemetry.polling" };
        let message = inner("m-1", event_type, "SAMPLE", payload);
        let translated = translate(&definitions, &settings, &decode(&envelope(&message)).expect("a notification"));
        assert_eq!(translated.samples.iter().map(|s| s.value).collect::<Vec<_>>(), [123.0, 4.5]);
        let sample = &translated.samples[0];
        assert_eq!(sample.id.to_string(), "5f0c31a2-c712-11f0-8de9-0242ac120002");
        assert_eq!((sample.kind, sample.unit.as_str()), (SampleKind::Cumulative, "ns"));
        assert_eq!(sample.timestamp.isoformat(), "2026-11-21T19:49:49.831633+00:00");
        assert_eq!(sample.metadata["cpu_number"], 2);
        assert_eq!(translated.dropped, ["no volume", "volume is not a number", "no meter name", "no meter name"]);
        assert!(translated.events.is_empty());
    }
}

#[test]
fn queues_are_oslos_own_or_one_pool() {
    let settings = NotificationSettings { exchanges: vec!["nova".into(), "glance".into()], ..Default::default() };
    let names: Vec<_> = settings.queues().into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["notifications.info", "notifications.error", "notifications.sample"]);
    let pool = NotificationSettings { queue: Some("orzo".to_owned()), ..settings };
    let queues = pool.queues();
    assert_eq!(queues.len(), 1);
    assert_eq!(queues[0].bindings.len(), 6);
    assert!(queues[0].bindings.contains(&("glance".to_owned(), "notifications.sample".to_owned())));
}

/// A sink that says what a test wants it to say, and remembers what it took.
struct Sink {
    mood: Mutex<Mood>,
    taken: watch::Sender<Vec<Batch>>,
    asked: watch::Sender<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Accepting,
    Busy,
    /// Rejects batches that have a sample of the resource `bad`.
    Choosy,
}

#[async_trait]
impl SampleSink for Sink {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        self.asked.send_modify(|asked| *asked += 1);
        let mood = *self.mood.lock();
        match mood {
            Mood::Busy => Err(SinkError::unavailable("busy")),
            Mood::Choosy if batch.samples.iter().any(|s| s.resource_id == "bad") => {
                Err(SinkError::Rejected { reason: "bad".to_owned() })
            }
            Mood::Accepting | Mood::Choosy => {
                let stored = batch.len() as u64;
                self.taken.send_modify(|taken| taken.push(batch));
                Ok(Receipt { stored, ..Receipt::default() })
            }
        }
    }
}

#[derive(Default)]
struct Aside {
    kept: Mutex<Vec<(String, Message)>>,
    failures: Mutex<u32>,
}

#[async_trait]
impl Poison for Aside {
    async fn keep(&self, reason: &str, message: &Message) -> Result<(), SinkError> {
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Err(SinkError::unavailable("disk full"));
        }
        self.kept.lock().push((reason.to_owned(), message.clone()));
        Ok(())
    }
}

struct Bench {
    bus: InProcessBus,
    sink: Arc<Sink>,
    aside: Arc<Aside>,
    room: Room,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Bench {
    /// A running listener with a clock that does not make it wait.
    async fn start(mood: Mood) -> Self {
        let clock = Arc::new(HastyClock(SystemClock::new()));
        let bus = InProcessBus::new(SystemClock::shared());
        let sink = Arc::new(Sink {
            mood: Mutex::new(mood),
            taken: watch::Sender::new(Vec::new()),
            asked: watch::Sender::new(0),
        });
        let aside = Arc::new(Aside::default());
        let room = Rooms::new(&prometheus::Registry::new()).room("notifications");
        let settings = NotificationSettings { exchanges: vec!["glance".to_owned()], ..Default::default() };
        for queue in settings.queues() {
            bus.declare(&queue).await.expect("declared");
        }
        let parts = ListenerParts {
            bus: Arc::new(bus.clone()),
            sink: sink.clone(),
            poison: aside.clone(),
            definitions: Arc::new(Definitions::shipped()),
            clock,
            room: room.clone(),
        };
        let stop = CancellationToken::new();
        let listener = NotificationListener::new(settings, parts);
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { listener.run(stop).await }
        });
        Self { bus, sink, aside, room, stop, running }
    }

    /// Publishes; resolves when the listener has acknowledged.
    fn publish(&self, message_id: &str, body: Vec<u8>) -> tokio::task::JoinHandle<Result<(), orzo_bus::BusError>> {
        let bus = self.bus.clone();
        let message = Message {
            exchange: "glance".to_owned(),
            routing_key: "notifications.info".to_owned(),
            message_id: message_id.to_owned(),
            content_type: "application/json".to_owned(),
            headers: BTreeMap::new(),
            body: Bytes::from(body),
        };
        tokio::spawn(async move { bus.publish(message).await })
    }

    async fn finish(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("it stops").expect("it does not panic");
        let balance = self.room.balance();
        assert!(balance.is_conserved(), "{balance:?}");
        assert_eq!(balance.waiting, 0, "{balance:?}");
    }
}

/// The system's clock, but waits are over at once: the listener's pauses are not what these tests test.
struct HastyClock(SystemClock);

#[async_trait]
impl Clock for HastyClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

fn upload(id: &str, resource: &str) -> Vec<u8> {
    envelope(&inner(id, "image.upload", "INFO", image(resource, json!(5))))
}

async fn acknowledged(publishing: tokio::task::JoinHandle<Result<(), orzo_bus::BusError>>) {
    tokio::time::timeout(PATIENCE, publishing).await.expect("acknowledged").expect("no panic").expect("published");
}

#[tokio::test]
async fn a_notification_is_acknowledged_when_the_sink_has_it() {
    let bench = Bench::start(Mood::Accepting).await;
    acknowledged(bench.publish("m-1", upload("m-1", "i"))).await;
    let taken = bench.sink.taken.borrow().clone();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].samples[0].meter, "image.size");
    assert_eq!(taken[0].events[0].message_id, "m-1");
    assert_eq!(taken[0].origin, "notifications@localhost");

    acknowledged(bench.publish("m-1", upload("m-1", "i"))).await;
    let again = bench.sink.taken.borrow()[1].clone();
    assert_eq!(again, taken[0], "a redelivery makes the same batch, down to the ids");
    bench.finish().await;
}

#[tokio::test]
async fn a_busy_sink_makes_the_listener_hold_and_nothing_is_acknowledged() {
    let bench = Bench::start(Mood::Busy).await;
    let publishing = bench.publish("m-1", upload("m-1", "i"));
    let mut asked = bench.sink.asked.subscribe();
    tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= 3)).await.expect("it tries again").expect("alive");
    assert!(!publishing.is_finished(), "not acknowledged");
    assert_eq!(bench.bus.waiting("notifications.info"), 1);
    *bench.sink.mood.lock() = Mood::Accepting;
    acknowledged(publishing).await;
    assert_eq!(bench.sink.taken.borrow().len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn what_is_held_at_the_stop_stays_in_the_queue() {
    let bench = Bench::start(Mood::Busy).await;
    let publishing = bench.publish("m-1", upload("m-1", "i"));
    let mut asked = bench.sink.asked.subscribe();
    tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= 1)).await.expect("it tries").expect("alive");
    let bus = bench.bus.clone();
    bench.finish().await;
    assert_eq!(bus.waiting("notifications.info"), 1);
    publishing.abort();
}

#[tokio::test]
async fn what_cannot_be_decoded_is_kept_aside_and_then_acknowledged() {
    let bench = Bench::start(Mood::Accepting).await;
    *bench.aside.failures.lock() = 2;
    acknowledged(bench.publish("m-1", b"nonsense".to_vec())).await;
    acknowledged(bench.publish("m-2", upload("m-2", "i"))).await;
    let kept = bench.aside.kept.lock().clone();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].0.starts_with("the message is not JSON: "), "{}", kept[0].0);
    assert_eq!(kept[0].1.body.as_ref(), b"nonsense");
    assert_eq!(bench.sink.taken.borrow().len(), 1);
    assert_eq!(bench.room.balance().refused, 1);
    bench.finish().await;
}

#[tokio::test]
async fn one_bad_notification_does_not_take_the_others_with_it() {
    let bench = Bench::start(Mood::Busy).await;
    // The first is held; the others gather behind it and come as one batch.
    let first = bench.publish("m-0", upload("m-0", "i0"));
    let mut asked = bench.sink.asked.subscribe();
    tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= 1)).await.expect("it tries").expect("alive");
    let rest: Vec<_> = [("m-1", "i1"), ("m-2", "bad"), ("m-3", "i3")]
        .into_iter()
        .map(|(id, resource)| bench.publish(id, upload(id, resource)))
        .collect();
    *bench.sink.mood.lock() = Mood::Choosy;
    acknowledged(first).await;
    for publishing in rest {
        acknowledged(publishing).await;
    }
    let stored: Vec<String> =
        bench.sink.taken.borrow().iter().flat_map(|b| b.samples.iter().map(|s| s.resource_id.clone())).collect();
    assert_eq!(stored.len(), 3, "{stored:?}");
    assert!(!stored.contains(&"bad".to_owned()));
    assert_eq!(bench.aside.kept.lock()[0].0, "bad");
    bench.finish().await;
}

#[tokio::test]
async fn what_a_notification_does_not_give_is_counted() {
    let bench = Bench::start(Mood::Accepting).await;
    acknowledged(bench.publish("m-1", envelope(&inner("m-1", "image.update", "INFO", image("i", json!(null)))))).await;
    let balance = bench.room.balance();
    assert_eq!(
        (balance.received, balance.stored, balance.dropped),
        (2, 1, 1),
        "an event is stored, a sample had no size"
    );
    bench.finish().await;
}

#[tokio::test]
async fn a_closed_bus_ends_the_listener() {
    let bench = Bench::start(Mood::Accepting).await;
    acknowledged(bench.publish("m-1", upload("m-1", "i"))).await;
    bench.bus.close().await;
    tokio::time::timeout(PATIENCE, bench.running).await.expect("it ends").expect("it does not panic");
}
