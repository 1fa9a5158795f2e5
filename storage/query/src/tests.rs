//! Behaviour of the engine: on a real index (SQLite in memory) and a real store in a temporary directory; and on a
//! store that fails when told to.

mod failing;
mod instant;
mod labelled;
mod reading;
mod retention;
mod rollups;
mod scopes;
mod windows;
mod writing;

use std::{collections::BTreeMap, sync::Arc};

use orzo_database::Database;
use orzo_definitions::ResourceDefinitions;
use orzo_index::{Index, IndexSettings};
use orzo_model::{
    Batch, Event, ManualClock, Measure, Room, Rooms, Sample, SampleKind, Timestamp, Trait, TraitValue, sample_id,
};
use orzo_store::{Store, StoreSettings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{AggregatedMeasure, Engine, EngineSettings, Width};

/// Where the tests' time begins: a full hour, and a full day.
const START: i64 = 1_799_971_200;

struct Fixture {
    engine: Engine,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    room: Room,
    _directory: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::new(Timestamp::from_secs(START + 3600));
    let rooms = Rooms::new(&prometheus::Registry::new());
    let settings =
        StoreSettings { directory: directory.path().to_owned(), disk_reserve_bytes: 0, ..StoreSettings::default() };
    let store = Store::open(settings, rooms.room("store"), clock.clone()).await.expect("the store opens");
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let index = Index::open(database, clock.clone(), IndexSettings::default()).await.expect("the index opens");
    let room = rooms.room("engine");
    let definitions = ResourceDefinitions::shipped();
    let engine = Engine::new(
        Arc::new(index),
        store.clone(),
        definitions,
        room.clone(),
        clock.clone(),
        EngineSettings::default(),
    )
    .await
    .expect("the engine starts");
    Fixture { engine, store, clock, room, _directory: directory }
}

fn sample(resource_id: &str, meter: &str, second: i64, value: f64) -> Sample {
    sample_of("p1", resource_id, meter, second, value)
}

fn sample_of(project: &str, resource_id: &str, meter: &str, second: i64, value: f64) -> Sample {
    let timestamp = Timestamp::from_secs(START + second);
    let metadata: BTreeMap<String, Value> =
        [("display_name", json!(format!("name of {resource_id}"))), ("instance_host", json!("node1"))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
    Sample {
        id: sample_id("test", resource_id, meter, timestamp),
        meter: meter.into(),
        kind: SampleKind::Gauge,
        unit: "%".into(),
        value,
        timestamp,
        resource_id: resource_id.into(),
        project_id: Some(project.into()),
        user_id: Some("u1".into()),
        source: "openstack".into(),
        metadata: Arc::new(metadata),
    }
}

fn batch(samples: Vec<Sample>, events: Vec<Event>) -> Batch {
    Batch { id: Uuid::new_v4(), origin: "test".into(), samples, events }
}

fn event(message_id: &str, event_type: &str, second: i64, instance: Uuid) -> Event {
    let fact = |name: &str, value: &str| Trait { name: name.into(), value: TraitValue::Text(value.into()) };
    Event {
        message_id: message_id.into(),
        event_type: event_type.into(),
        generated_at: Timestamp::from_secs(START + second),
        traits: vec![
            fact("instance_id", &instance.to_string()),
            fact("project_id", "p1"),
            fact("display_name", "web"),
            fact("host", "node2"),
        ],
        raw: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START + second)
}

fn measure(second: i64, value: f64) -> Measure {
    Measure { timestamp: at(second), value }
}

/// Measures as (second, granularity in seconds, value).
fn plain(measures: &[AggregatedMeasure]) -> Vec<(i64, u64, f64)> {
    let seconds = |width: Width| match width {
        Width::Span(span) => span.as_secs(),
        Width::Calendar(part) => panic!("{part:?} is no span"),
    };
    measures.iter().map(|m| (m.timestamp.secs() - START, seconds(m.granularity), m.value)).collect()
}
