//! The outbox delivers: at least once, in order per exchange, with the same id, also over broken buses and restarts.
//! The bus and the databases here serve the tests of images and servers too.

use orzo_bus::Subscription;
use orzo_model::{ManualClock, SystemClock};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;

/// A bus that remembers, and that can be told to fail.
pub(crate) struct RecordingBus {
    published: watch::Sender<Vec<Message>>,
    declared: Mutex<Vec<QueueSpec>>,
    /// Errors for the next publishes to this exchange, in order.
    failures: Mutex<Vec<(String, BusError)>>,
}

impl RecordingBus {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            published: watch::Sender::new(Vec::new()),
            declared: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    fn fail(&self, exchange: &str, error: BusError) {
        self.failures.lock().push((exchange.to_owned(), error));
    }

    /// Inner messages so far: (event type, payload). Each once: a database that lost the mark "sent" has a message sent
    /// again, with the same id, which every consumer drops.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let mut seen = std::collections::HashSet::new();
        self.published
            .borrow()
            .iter()
            .map(inner)
            .filter(|m| seen.insert(m["message_id"].to_string()))
            .map(|m| (m["event_type"].as_str().unwrap_or_default().to_owned(), m["payload"].clone()))
            .collect()
    }

    /// Waits until the messages satisfy `condition`; a minute at most.
    pub(crate) async fn wait_for(&self, what: &str, mut condition: impl FnMut(&[(String, Value)]) -> bool) {
        let mut seen = self.published.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !condition(&self.events()) {
                seen.changed().await.expect("the sender lives in self");
            }
        });
        assert!(waited.await.is_ok(), "no {what} among {:?}", self.events().iter().map(|(e, _)| e).collect::<Vec<_>>());
    }

    pub(crate) async fn wait_for_event(&self, event_type: &str, count: usize) {
        self.wait_for(event_type, |events| events.iter().filter(|(e, _)| e == event_type).count() >= count).await;
    }
}

fn inner(message: &Message) -> Value {
    let envelope: Value = serde_json::from_slice(&message.body).expect("json");
    assert_eq!(envelope["oslo.version"], "2.0");
    serde_json::from_str(envelope["oslo.message"].as_str().expect("text")).expect("json in json")
}

#[async_trait::async_trait]
impl Bus for RecordingBus {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BusError> {
        self.declared.lock().push(queue.clone());
        Ok(())
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        let mut failures = self.failures.lock();
        if let Some(place) = failures.iter().position(|(exchange, _)| *exchange == message.exchange) {
            return Err(failures.remove(place).1);
        }
        self.published.send_modify(|published| published.push(message));
        Ok(())
    }

    async fn subscribe(&self, _: &QueueSpec, _: u16) -> Result<Box<dyn Subscription>, BusError> {
        Err(BusError::Closed)
    }

    async fn close(&self) {}

    fn kind(&self) -> &'static str {
        "recording"
    }

    async fn is_connected(&self) -> bool {
        true
    }
}

/// SQLite always, PostgreSQL too when `ORZO_TEST_POSTGRES` names one.
pub(crate) async fn databases() -> Vec<(Database, Option<tempfile::TempDir>)> {
    let directory = tempfile::tempdir().expect("a directory");
    let sqlite = Database::open_file(&directory.path().join("cloud.db")).await.expect("sqlite opens");
    let mut found = vec![(sqlite, Some(directory))];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        let schema = format!("test_{}", Uuid::new_v4().simple());
        found.push((Database::open_in_schema(&url, &schema).await.expect("postgresql opens"), None));
    }
    found
}

pub(crate) fn rooms() -> Rooms {
    Rooms::new(&prometheus::Registry::new())
}

fn note(exchange: &'static str, number: usize) -> Notification {
    Notification {
        exchange,
        publisher_id: "test.host".into(),
        event_type: format!("{exchange}.{number}"),
        priority: if number == 3 { "ERROR" } else { "INFO" },
        payload: json!({"number": number}),
        context: NotificationContext { request_id: Some("req-1".into()), project_id: None, user_id: Some("u".into()) },
    }
}

async fn recorded(database: &Database, notes: &[Notification]) {
    let mut tx = database.begin().await.expect("begin");
    for note in notes {
        record(&mut tx, Timestamp::from_micros(1_795_291_459_088_633), note).await.expect("record");
    }
    tx.commit().await.expect("commit");
}

fn unreachable_bus() -> BusError {
    BusError::Unreachable { reason: "away".into() }
}

#[tokio::test]
async fn notifications_arrive_in_oslos_envelope_and_in_order_per_exchange() {
    for (database, _guard) in databases().await {
        let (bus, rooms) = (RecordingBus::new(), rooms());
        let outbox = Outbox::open(database.clone(), bus.clone(), SystemClock::shared(), &rooms).await.expect("open");
        let notes: Vec<_> = (0..250).flat_map(|n| [note("nova", n), note("glance", n)]).collect();
        recorded(&database, &notes).await;
        // The first nova message fails three times: nothing of nova may overtake it.
        for _ in 0..3 {
            bus.fail("nova", unreachable_bus());
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(outbox.clone().run(stop.clone()));
        bus.wait_for("everything", |events| events.len() == 500).await;
        stop.cancel();
        running.await.expect("no panic");

        for exchange in ["nova", "glance"] {
            let published = bus.published.borrow().clone();
            let of_exchange: Vec<&Message> = published.iter().filter(|m| m.exchange == exchange).collect();
            let numbers: Vec<i64> = of_exchange.iter().filter_map(|m| inner(m)["payload"]["number"].as_i64()).collect();
            assert_eq!(numbers, (0..250).collect::<Vec<i64>>(), "{exchange}");
            assert_eq!(of_exchange[3].routing_key, "notifications.error");
            assert_eq!(of_exchange[4].routing_key, "notifications.info");
        }
        let first = inner(&bus.published.borrow()[0]);
        assert_eq!(first["timestamp"], "2026-11-21 20:04:19.088633");
        assert_eq!(first["_context_request_id"], "req-1");
        assert!(first.get("_context_project_id").is_none());
        assert_eq!(first["message_id"], bus.published.borrow()[0].message_id);
        assert!(bus.declared.lock().iter().all(|queue| queue.kind == QueueKind::OsloClassic));
        let balance = rooms.room("cloud.outbox").balance();
        assert_eq!((balance.stored, balance.waiting), (500, 0));
        assert!(balance.is_conserved());
    }
}

#[tokio::test]
async fn a_message_that_may_have_arrived_is_sent_again_with_the_same_id_also_after_a_restart() {
    for (database, _guard) in databases().await {
        let (bus, rooms) = (RecordingBus::new(), rooms());
        let clock = ManualClock::new(Timestamp::from_secs(1));
        let outbox = Outbox::open(database.clone(), bus.clone(), clock.clone(), &rooms).await.expect("open");
        recorded(&database, &[note("nova", 1), note("nova", 2)]).await;
        let ids: Vec<String> = database
            .query("SELECT id FROM cloud_outbox ORDER BY position", &[])
            .await
            .expect("rows")
            .iter()
            .map(|row| row.string("id"))
            .collect();
        bus.fail("nova", BusError::Timeout { waited: Duration::from_secs(1) });
        let mut progress = Progress::default();
        outbox.deliver(&mut progress, &CancellationToken::new()).await.expect("a pass");
        assert!(progress.wait.is_some() && bus.events().is_empty());
        // The process ends here; another one takes over.
        let outbox = Outbox::open(database.clone(), bus.clone(), clock.clone(), &rooms).await.expect("open");
        outbox.deliver(&mut Progress::default(), &CancellationToken::new()).await.expect("a pass");
        outbox.deliver(&mut Progress::default(), &CancellationToken::new()).await.expect("a pass with nothing to do");
        let sent: Vec<String> = bus.published.borrow().iter().map(|m| m.message_id.clone()).collect();
        assert_eq!(sent, ids);
    }
}

#[tokio::test]
async fn what_the_bus_refuses_for_ever_is_set_aside_and_counted_and_the_rest_flows() {
    for (database, _guard) in databases().await {
        let (bus, rooms) = (RecordingBus::new(), rooms());
        let clock = ManualClock::new(Timestamp::from_secs(1));
        let outbox = Outbox::open(database.clone(), bus.clone(), clock.clone(), &rooms).await.expect("open");
        recorded(&database, &[note("nova", 1), note("nova", 2)]).await;
        bus.fail("nova", BusError::Refused { reason: "too large".into() });
        let mut progress = Progress::default();
        outbox.deliver(&mut progress, &CancellationToken::new()).await.expect("a pass");
        assert_eq!(bus.events().len(), 1);
        let balance = rooms.room("cloud.outbox").balance();
        assert_eq!((balance.stored, balance.refused, balance.waiting), (1, 1, 0));
        // Sent rows go after a while, the one set aside stays to be looked at.
        clock.advance(SENT_KEPT + CLEANING_PERIOD * 2);
        outbox.deliver(&mut progress, &CancellationToken::new()).await.expect("a pass");
        let rows = database.query("SELECT failure FROM cloud_outbox", &[]).await.expect("rows");
        assert_eq!(rows.len(), 1);
        assert!(rows[0].string("failure").contains("too large"));
    }
}

#[tokio::test]
async fn a_notification_exists_exactly_when_its_change_does() {
    for (database, _guard) in databases().await {
        let outbox = Outbox::open(database.clone(), RecordingBus::new(), SystemClock::shared(), &rooms()).await;
        let _outbox = outbox.expect("open");
        let mut tx = database.begin().await.expect("begin");
        record(&mut tx, Timestamp::from_secs(1), &note("nova", 1)).await.expect("record");
        tx.rollback().await;
        assert!(database.query("SELECT id FROM cloud_outbox", &[]).await.expect("rows").is_empty());
    }
}
