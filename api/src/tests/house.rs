//! A house for one test: an empty index in memory, a store in a folder of its own, callers with known tokens.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use orzo_database::Database;
use orzo_definitions::ResourceDefinitions;
use orzo_index::{Index, IndexSettings};
use orzo_labels::{LabelIndex, LabelSettings};
use orzo_model::{
    Batch, Caller, Event, ManualClock, MetricMetadata, Receipt, Room, Rooms, SampleSink, SharedClock, SinkError,
    Timestamp, Trait, TraitValue,
};
use orzo_query::{Engine, EngineSettings, IndexNumbers};
use orzo_rating::doors::{Evidence, UsageReadError};
use orzo_store::{Store, StoreSettings};
use prometheus::Registry;

use crate::{
    ApiParts, ApiSettings, AuthenticationUnavailable, Authenticator, BackupMaker, BackupState, BatchDoor, Readiness,
    RoomState, router,
};

/// A server of p1 that lives since 2026-11-20T18:00:00Z, and was polled for an hour.
struct OneServer;

#[async_trait]
impl orzo_rating::UsageReader for OneServer {
    async fn scopes(&self, _: Timestamp, _: Timestamp) -> Result<Vec<String>, UsageReadError> {
        Ok(vec!["p1".to_owned()])
    }

    async fn evidence(
        &self,
        scope: &str,
        _: Timestamp,
        _: Timestamp,
        _: &[orzo_rating::doors::Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError> {
        if scope != "p1" {
            return Ok(Vec::new());
        }
        let born: Timestamp = "2026-11-20T18:00:00Z".parse().expect("a time");
        let text = |name: &str, text: &str| Trait { name: name.to_owned(), value: TraitValue::Text(text.to_owned()) };
        let event = Event {
            message_id: "m1".to_owned(),
            event_type: "compute.instance.create.end".to_owned(),
            generated_at: born,
            traits: vec![text("project_id", "p1"), text("instance_type", "small"), text("state", "active")],
            raw: None,
        };
        let point = |slot: u64| orzo_model::Measure {
            timestamp: born.plus(std::time::Duration::from_secs(300 * slot)),
            value: slot as f64,
        };
        Ok(vec![Evidence {
            resource: "server1".to_owned(),
            resource_type: "instance".to_owned(),
            started_at: born,
            ended_at: None,
            revisions: Vec::new(),
            events: vec![event],
            measures: [("cpu".to_owned(), (0..12).map(point).collect())].into(),
        }])
    }

    async fn first(&self, _: &str) -> Result<Option<Timestamp>, UsageReadError> {
        Ok("2026-11-20T18:00:00Z".parse().ok())
    }

    async fn late(&self, _: Option<i64>, _: Timestamp) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError> {
        Ok((Vec::new(), 0))
    }
}

/// Everything that a scenario needs.
pub(super) struct House {
    pub(super) router: Router,
    pub(super) engine: Arc<Engine>,
    pub(super) clock: Arc<ManualClock>,
    alarms: orzo_alarms::AlarmBook,
    pub(super) processor: Arc<orzo_rating::Processor>,
    /// Of exports.
    pub(super) outbox: orzo_delivery::Outbox,
    pub(super) room: Room,
    _folder: tempfile::TempDir,
}

impl House {
    pub(super) async fn build() -> Self {
        Self::build_with(|_| {}).await
    }

    pub(super) async fn build_with(change: impl FnOnce(&mut ApiSettings)) -> Self {
        Self::build_on(Database::open("sqlite::memory:").await.expect("a database"), change).await
    }

    /// One on SQLite, and one on PostgreSQL when `ORZO_TEST_POSTGRES` names one.
    pub(super) async fn on_every_database(change: impl Fn(&mut ApiSettings)) -> Vec<Self> {
        let mut houses = vec![Self::build_with(&change).await];
        if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
            let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
            let database = Database::open_in_schema(&url, &schema).await.expect("postgresql opens");
            houses.push(Self::build_on(database, &change).await);
        }
        houses
    }

    /// Whether an alarm's reads may look everywhere.
    pub(super) async fn is_operators(&self, alarm_id: &str) -> bool {
        self.alarms.get(&orzo_model::Scope::All, alarm_id).await.expect("the alarm").is_operators
    }

    async fn build_on(database: Database, change: impl FnOnce(&mut ApiSettings)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let manual = ManualClock::new("2026-11-21T20:00:00Z".parse().expect("a time"));
        let clock: SharedClock = manual.clone();
        let rooms = Rooms::new(&Registry::new());
        let folder = tempfile::tempdir().expect("a folder");
        let settings = IndexSettings { create_defaults: false, ..IndexSettings::default() };
        let alarms = orzo_alarms::AlarmBook::open(database.clone(), clock.clone()).await.expect("an alarm book");
        let rules = orzo_rating::RatingBook::open(database.clone(), clock.clone()).await.expect("a rating book");
        let ledger: Arc<dyn orzo_rating::Ledger> = Arc::new(orzo_rating::MemoryLedger::default());
        let key = orzo_export::SigningKey::open(&folder.path().join("export.key")).expect("a key");
        let exports = folder.path().join("exports");
        let outbox = orzo_delivery::Outbox::open(database.clone(), clock.clone()).await.expect("an outbox");
        let exports = crate::Exports::new(exports, key, orzo_export::Catalogue::default(), ledger.clone())
            .with_deliveries(outbox.clone(), Vec::new());
        let processor = orzo_rating::Processor::new(
            ledger.clone(),
            Arc::new(rules.clone()),
            Arc::new(OneServer),
            orzo_rating::Metrics::shipped(),
            clock.clone(),
            rooms.room("rating"),
            orzo_rating::RatingSettings::default(),
        );
        let processor = Arc::new(processor);
        let rating = crate::RatingParts {
            processor: Some(processor.clone()),
            book: rules,
            ledger,
            period: std::time::Duration::from_secs(3600),
            metrics: serde_json::json!({"metrics": {
                "cpu": {"unit": "instance", "alt_name": "instance", "metadata": ["flavor_name", "flavor_id"]},
                "volume.size": [{"unit": "GiB", "metadata": ["volume_type"]}]}}),
            catalogue: orzo_export::Catalogue::default(),
            exports: Some(Arc::new(exports)),
        };
        let tokens = orzo_tokens::TokenBook::open(database.clone(), clock.clone()).await.expect("a book of tokens");
        let index = Arc::new(Index::open(database, clock.clone(), settings).await.expect("an index"));
        index.insert_events(&events()).await.expect("events");
        let settings = StoreSettings {
            directory: folder.path().join("store"),
            wal_segment_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(settings, rooms.room("store"), clock.clone()).await.expect("a store");
        let definitions = ResourceDefinitions::parse("empty.yaml", "resources: []\n").expect("definitions");
        let label_settings = LabelSettings {
            directory: folder.path().join("labels"),
            disk_reserve_bytes: 0,
            project_series_max: 1000,
            ..LabelSettings::default()
        };
        let labels = LabelIndex::open(label_settings, Arc::new(IndexNumbers(index.clone())), clock.clone()).await;
        let labels = Arc::new(labels.expect("a label index"));
        let engine =
            Engine::new(index, store, definitions, rooms.room("engine"), clock.clone(), EngineSettings::default())
                .await
                .expect("an engine");
        let engine = Arc::new(engine.with_labels(labels).with_meters(meters()));
        let wait = std::time::Duration::from_millis(300);
        let keys = orzo_alarms::SigningKeys::new("a-test-key".to_owned().into(), None);
        let webhook = orzo_alarms::Webhook::new(orzo_alarms::AllowList::default(), keys, wait, wait, clock.clone());
        let deliverer = orzo_alarms::Deliverer::new(webhook.expect("a sender"), None, None, clock.clone());
        let mut settings = ApiSettings::default();
        change(&mut settings);
        let room = rooms.room("api");
        let router = router(ApiParts {
            engine: engine.clone(),
            alarms: Some(alarms.clone()),
            deliverer: Some(deliverer),
            prometheus: Arc::new(orzo_query::InstantReader::new(engine.clone())),
            session: Arc::new(Guests),
            tokens: Some(Arc::new(tokens)),
            targets: Some(Arc::new(super::scraped::TwoTargets)),
            rooms,
            clock,
            settings,
            readiness: Arc::new(HalfReady),
            batches: Some(BatchDoor { sink: Arc::new(Guests), decode }),
            backups: Some(Arc::new(NeverEnding::default())),
            pipeline: None,
            rating: Some(rating),
            sql: Some(Arc::new(super::sql::OneAnswer)),
            points: None,
        });
        Self { router, engine, clock: manual, alarms, processor, outbox, room, _folder: folder }
    }

    /// An evaluator over the house's engine.
    pub(super) fn evaluator(&self) -> Arc<orzo_alarms::Evaluator> {
        let parts = orzo_alarms::EvaluatorParts {
            book: self.alarms.clone(),
            reader: self.engine.clone(),
            events: Some(self.engine.clone()),
            prometheus: Some(Arc::new(orzo_query::InstantReader::new(self.engine.clone()))),
            members: None,
            arrivals: None,
            clock: self.clock.clone(),
            room: Rooms::new(&Registry::new()).room("alarms"),
            notices: Arc::default(),
        };
        orzo_alarms::Evaluator::new(parts, orzo_alarms::EvaluatorSettings::default())
    }

    /// What came in over HTTP is stored, refused, dropped or waiting, and nothing is waiting.
    pub(super) fn assert_conserved(&self) {
        let balance = self.room.balance();
        assert!(balance.is_conserved() && balance.waiting == 0, "{balance:?}");
    }
}

/// What a meter means that the installation makes by itself.
fn meters() -> std::collections::BTreeMap<String, MetricMetadata> {
    let about = MetricMetadata::new("counter", "Bytes read from the device", "B");
    [("disk.device.read.bytes".to_owned(), about)].into()
}

fn events() -> Vec<Event> {
    let event = |id: &str, minute: i64, kind: &str, project: &str, raw: Option<&str>| Event {
        message_id: id.to_owned(),
        event_type: kind.to_owned(),
        generated_at: Timestamp::from_secs(1_795_287_600 + minute * 60),
        traits: vec![Trait { name: "project_id".to_owned(), value: TraitValue::Text(project.to_owned()) }],
        raw: raw.map(str::to_owned),
    };
    let mut events = vec![
        event("e1", 1, "compute.instance.create.end", "p1", None),
        event("e2", 2, "image.update", "p2", None),
        event("e3", 3, "compute.instance.create.end", "p1", Some("{\"a\": 1}")),
    ];
    events[2].traits.push(Trait { name: "memory_mb".to_owned(), value: TraitValue::Integer(512) });
    events
}

/// Tokens are names; everyone's password is `secret`.
struct Guests;

fn guest(name: &str) -> Option<Caller> {
    let (project, roles): (Option<&str>, &[&str]) = match name {
        "admin" => (Some("p0"), &["admin", "member", "reader"]),
        "service" => (Some("ps"), &["service"]),
        "alice" | "anna" => (Some("p1"), &["member", "reader"]),
        "rita" => (Some("p1"), &["reader"]),
        "olga" => (Some("p0"), &["member", "reader"]),
        "rick" => (Some("p3"), &["reader"]),
        "bob" => (Some("p2"), &["member", "reader"]),
        "unscoped" => (None, &[]),
        _ => return None,
    };
    Some(Caller {
        user_id: format!("u-{name}"),
        user_name: name.to_owned(),
        project_id: project.map(str::to_owned),
        project_name: project.map(str::to_owned),
        user_domain_id: Some("default".to_owned()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        standing: orzo_model::Standing::Project,
    })
}

#[async_trait]
impl Authenticator for Guests {
    async fn by_token(&self, token: &str) -> Result<Option<Caller>, AuthenticationUnavailable> {
        match token {
            "unreachable" => Err(AuthenticationUnavailable { reason: "away".to_owned() }),
            token => Ok(guest(token)),
        }
    }

    async fn by_password(&self, user: &str, password: &str) -> Result<Option<Caller>, AuthenticationUnavailable> {
        Ok(guest(user).filter(|_| password == "secret"))
    }

    async fn has_project(&self, id: &str) -> Result<Option<bool>, AuthenticationUnavailable> {
        match id {
            "unreachable" => Err(AuthenticationUnavailable { reason: "away".to_owned() }),
            "untold" => Ok(None),
            id => Ok(Some(matches!(id, "p0" | "p1" | "p2" | "p3" | "ps"))),
        }
    }
}

/// A decoder of three words.
fn decode(bytes: &[u8]) -> Result<Batch, String> {
    let batch =
        |origin: &str| Batch { id: uuid::Uuid::nil(), origin: origin.to_owned(), samples: vec![], events: events() };
    match bytes {
        b"three samples" => Ok(batch("a test")),
        b"busy" => Ok(batch("busy")),
        b"panic" => panic!("a decoder that breaks"),
        _ => Err("not a batch".to_owned()),
    }
}

#[async_trait]
impl SampleSink for Guests {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        assert_eq!(batch.len(), 3);
        match batch.origin.as_str() {
            "busy" => Err(SinkError::Unavailable {
                reason: "the store is full".to_owned(),
                retry_after: Some(std::time::Duration::from_secs(7)),
            }),
            _ => Ok(Receipt { stored: 1, repeated: 1, refused: 1 }),
        }
    }
}

struct HalfReady;

#[async_trait]
impl Readiness for HalfReady {
    async fn rooms(&self) -> Vec<RoomState> {
        let state = |room: &str, ready, reason: &str| RoomState { room: room.into(), ready, reason: reason.into() };
        vec![state("store", true, "open"), state("bus", false, "not connected")]
    }
}

/// Begins one backup and is never done with it.
#[derive(Default)]
struct NeverEnding(parking_lot::Mutex<Vec<BackupState>>);

#[async_trait]
impl BackupMaker for NeverEnding {
    async fn begin(&self) -> Result<BackupState, Box<BackupState>> {
        let mut states = self.0.lock();
        if let Some(running) = states.first() {
            return Err(Box::new(running.clone()));
        }
        let state = BackupState { name: "20261122T104500Z".into(), state: "running".into(), ..Default::default() };
        states.push(state.clone());
        Ok(state)
    }

    fn states(&self) -> Vec<BackupState> {
        self.0.lock().clone()
    }
}
