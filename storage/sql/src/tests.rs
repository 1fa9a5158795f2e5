//! Queries over a real index (SQLite in memory), real label sets, a real store and a real ledger, each in a process of its
//! own: this test program, started again with one test's name.

mod answers;
mod equality;
mod kills;
mod ledger_and_events;

use std::{sync::Arc, time::Duration};

use orzo_database::Database;
use orzo_index::{Index, IndexSettings, NewMetric, NewResource};
use orzo_labels::{LabelIndex, LabelSets, LabelSettings, SeriesNumbers};
use orzo_ledger::LedgerTable;
use orzo_model::{Point, Room, Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{Store, StoreSettings, files::real::RealDisk};
use serde_json::Value;

use crate::{Form, Queries, Source, SqlError, SqlSettings, Worker};

/// Where the tests' time begins: a full day.
pub(crate) const START: i64 = 1_799_971_200;

/// Only a bug is waited for so long. A machine may be busy, and queries have the lowest place on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// For tests that are about something else than time.
pub(crate) fn patient() -> SqlSettings {
    SqlSettings { deadline: PATIENCE, ..SqlSettings::default() }
}

/// Not a test by itself: what the process of a query runs. Whoever has an environment is no such process.
#[test]
fn worker_of_the_other_tests() {
    if std::env::vars_os().next().is_none() {
        crate::worker::main().expect("the query ends");
    }
}

pub(crate) struct House {
    pub(crate) source: Source,
    pub(crate) room: Room,
    pub(crate) folder: tempfile::TempDir,
}

struct Numbers(Arc<Index>);

#[async_trait::async_trait]
impl SeriesNumbers for Numbers {
    async fn reserve(&self, count: u64) -> Result<u64, String> {
        self.0.reserve_series(count).await.map_err(|error| error.to_string())
    }
}

impl House {
    pub(crate) async fn build() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = SystemClock::shared();
        let rooms = Rooms::new(&prometheus::Registry::new());
        let settings = StoreSettings {
            directory: folder.path().join("store"),
            disk_reserve_bytes: 0,
            scan_points_max: 5000,
            ..StoreSettings::default()
        };
        let store = Store::open(settings, rooms.room("store"), clock.clone()).await.expect("the store opens");
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        let index = Index::open(database, clock.clone(), IndexSettings::default()).await.expect("the index opens");
        let index = Arc::new(index);
        let settings = LabelSettings { directory: folder.path().join("labels"), ..LabelSettings::default() };
        let labels =
            LabelIndex::open(settings, Arc::new(Numbers(index.clone())), clock.clone()).await.expect("labels open");
        let root = folder.path().join("ledger");
        let ledger =
            LedgerTable::open(Arc::new(RealDisk), &root, clock, rooms.room("ledger")).expect("the ledger opens");
        let source = Source { index, labels: Some(Arc::new(labels)), store, ledger: Some(Arc::new(ledger)) };
        Self { source, room: rooms.room("sql"), folder }
    }

    /// Queries by processes of this program.
    pub(crate) fn queries(&self, settings: SqlSettings) -> Queries {
        let arguments = ["tests::worker_of_the_other_tests", "--exact", "--nocapture", "--test-threads=1"];
        let worker = Worker {
            program: std::env::current_exe().expect("this program"),
            arguments: arguments.map(Into::into).into(),
            directory: self.folder.path().join("sql"),
        };
        Queries::new(self.source.clone(), worker, settings, self.room.clone(), SystemClock::shared())
    }

    /// A resource with metrics of these names; gives their series.
    pub(crate) async fn resource(&self, project: &str, name: &str, meters: &[&str]) -> Vec<SeriesId> {
        let creator = "u:service".to_owned();
        let new = NewResource {
            id: name.to_owned(),
            resource_type: "generic".to_owned(),
            creator: creator.clone(),
            project_id: Some(project.to_owned()),
            user_id: Some("alice".to_owned()),
            started_at: Some(Timestamp::from_secs(START)),
            ended_at: None,
            attributes: serde_json::Map::new(),
            metrics: Vec::new(),
        };
        let resource = self.source.index.create_resource(&new).await.expect("a resource");
        let mut series = Vec::new();
        for meter in meters {
            let new = NewMetric {
                creator: creator.clone(),
                name: Some((*meter).to_owned()),
                unit: Some("%".to_owned()),
                resource_id: Some(resource.id),
                archive_policy_name: Some("low".to_owned()),
            };
            series.push(self.source.index.create_metric(&new).await.expect("a metric").series);
        }
        series
    }

    /// A label set's series.
    pub(crate) async fn labelled(&self, project: &str, labels: &[(&str, &str)]) -> SeriesId {
        let mut sets = LabelSets::default();
        sets.push(&mut labels.to_vec(), &Default::default()).expect("a good set");
        let index = self.source.labels.as_ref().expect("labels");
        index.create(project, sets).await.expect("created").series[0].expect("a series")
    }

    /// Writes points, as (second, value).
    pub(crate) async fn write(&self, series: SeriesId, points: impl IntoIterator<Item = (i64, f64)>) {
        let point = |(second, value)| Point { series, timestamp: Timestamp::from_secs(START + second), value };
        self.source.store.append(points.into_iter().map(point).collect()).await.expect("stored");
    }
}

/// The rows of a query, as JSON.
pub(crate) async fn rows(queries: &Queries, query: &str) -> Vec<Value> {
    let answer = queries.run(query, Form::Json).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    let read: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let rows = read["rows"].as_array().cloned().expect("rows");
    assert_eq!(answer.rows, rows.len() as u64);
    rows
}

/// Why a query is refused.
pub(crate) async fn refused(queries: &Queries, query: &str) -> SqlError {
    match queries.run(query, Form::Json).await {
        Err(error) => error,
        Ok(answer) => panic!("{query} was answered: {}", String::from_utf8_lossy(&answer.body)),
    }
}
