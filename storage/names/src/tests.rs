//! The table `series` over a real index and real label sets, on a disk that can break: what an outside reader sees are the names, each
//! living series once, in every version.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{array::AsArray, datatypes::Int64Type};
use orzo_database::Database;
use orzo_index::{Index, IndexSettings, NewMetric, NewResource, ResourceChange};
use orzo_labels::{LabelIndex, LabelSets, LabelSettings, Matcher, SeriesNumbers};
use orzo_model::{ManualClock, Scope, Timestamp};
use orzo_store::{
    delta::decode_commit,
    faults::{Fault, Restart, SimulatedDisk},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{NamesError, Refreshed, SeriesTable, TableSettings};

const ROOT: &str = "/store/series";
const START: i64 = 1_800_000_000;

struct Numbers(AtomicU64);

#[async_trait::async_trait]
impl SeriesNumbers for Numbers {
    async fn reserve(&self, count: u64) -> Result<u64, String> {
        Ok(self.0.fetch_add(count, Ordering::Relaxed))
    }
}

struct House {
    index: Arc<Index>,
    labels: Arc<LabelIndex>,
    clock: Arc<ManualClock>,
    settings: TableSettings,
}

impl House {
    async fn build() -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(START));
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        let index = Index::open(database, clock.clone(), IndexSettings::default()).await.expect("the index opens");
        let settings = LabelSettings { directory: "/labels".into(), disk_reserve_bytes: 0, ..LabelSettings::default() };
        // Far from the metrics' numbers.
        let numbers = Arc::new(Numbers(AtomicU64::new(1 << 30)));
        let labels = LabelIndex::open_on(Arc::new(SimulatedDisk::default()), settings, numbers, clock.clone());
        let labels = Arc::new(labels.await.expect("labels open"));
        let settings = TableSettings {
            directory: ROOT.into(),
            disk_reserve_bytes: 1000,
            // Files of four rows: some dozen series are many files.
            file_rows: 4,
            ..TableSettings::default()
        };
        Self { index: Arc::new(index), labels, clock, settings }
    }

    fn table(&self, disk: &SimulatedDisk) -> SeriesTable {
        let disk = Arc::new(disk.booted());
        let labels = Some(self.labels.clone());
        SeriesTable::new(disk, self.index.clone(), labels, self.clock.clone(), self.settings.clone())
    }

    async fn resource(&self, project: &str, name: &str, meters: &[&str]) -> Uuid {
        let new = NewResource {
            id: name.to_owned(),
            resource_type: "instance".to_owned(),
            creator: "u:service".to_owned(),
            project_id: Some(project.to_owned()),
            user_id: None,
            started_at: Some(Timestamp::from_secs(START)),
            ended_at: None,
            attributes: attributes(name),
            metrics: Vec::new(),
        };
        let resource = self.index.create_resource(&new).await.expect("a resource");
        for meter in meters {
            self.metric(Some(resource.id), Some(meter)).await;
        }
        resource.id
    }

    async fn metric(&self, resource_id: Option<Uuid>, name: Option<&str>) -> Uuid {
        let new = NewMetric {
            creator: "u:service".to_owned(),
            name: name.map(str::to_owned),
            unit: Some("%".to_owned()),
            resource_id,
            archive_policy_name: Some("low".to_owned()),
        };
        self.index.create_metric(&new).await.expect("a metric").id
    }

    async fn labelled(&self, project: &str, numbers: std::ops::Range<usize>) {
        let mut sets = LabelSets::default();
        for number in numbers {
            let job = format!("job \"{number}\"");
            sets.push(&mut vec![("__name__", "up"), ("job", &job)], &Default::default()).expect("a good set");
        }
        self.labels.create(project, sets).await.expect("created");
    }

    /// Some of everything.
    async fn furnish(&self) -> Uuid {
        for number in 0..5 {
            self.resource("p1", &format!("vm-{number}"), &["cpu", "memory.usage", "disk"]).await;
        }
        self.metric(None, None).await;
        self.labelled("prom", 0..12).await;
        // Histograms' words are not series of numbers.
        self.labelled("prom\u{1}native", 0..2).await;
        self.resource("p2", "vm-x", &["cpu", "memory.usage"]).await
    }

    /// What must be in the table: rows by series.
    async fn names(&self) -> BTreeMap<i64, Value> {
        let wanted = crate::NamesWanted::default();
        let mut names = crate::Names::new(&self.index, Some(&self.labels), &wanted);
        let mut rows = BTreeMap::new();
        while let Some(page) = names.next().await.expect("a page") {
            for named in page {
                let text = |name| named.text(name);
                let mut labels = serde_json::Map::new();
                named.each_label(|name, value| drop(labels.insert(name.to_owned(), json!(value))));
                let row = json!([
                    text(crate::Name::MetricId),
                    text(crate::Name::Meter),
                    text(crate::Name::ProjectId),
                    text(crate::Name::OriginalResourceId),
                    labels,
                    named.life().1
                ]);
                assert!(rows.insert(named.series().0.cast_signed(), row).is_none(), "a series twice in the walk");
            }
        }
        rows
    }
}

fn attributes(name: &str) -> serde_json::Map<String, Value> {
    let all = json!({"display_name": name, "host": "h", "image_ref": "i", "flavor_id": "f", "flavor_name": "n",
        "server_group": "g"});
    all.as_object().cloned().expect("an object")
}

/// Every version of the table by its commits, as an outside reader sees them: rows by series. Fails where a series is there twice or a
/// file is missing.
fn versions(disk: &SimulatedDisk) -> Vec<BTreeMap<i64, Value>> {
    since(disk, 0)
}

/// The versions from this one on, and the newest in any case.
fn since(disk: &SimulatedDisk, first: usize) -> Vec<BTreeMap<i64, Value>> {
    let files: BTreeMap<PathBuf, Vec<u8>> = disk.files().into_iter().collect();
    let (log, mut live, mut versions) = (Path::new(ROOT).join("_delta_log"), BTreeMap::new(), Vec::new());
    let is_commit = |path: &Path| path.starts_with(&log) && path.extension().is_some_and(|end| end == "json");
    let commits: Vec<_> = files.iter().filter(|(path, _)| is_commit(path)).collect();
    for (number, (path, bytes)) in commits.iter().enumerate() {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let actions: Vec<Value> = decode_commit(path, bytes).expect("a commit is whole");
        for action in actions {
            if let Some(path) = action["add"]["path"].as_str() {
                live.insert(path.to_owned(), ());
            } else if let Some(path) = action["remove"]["path"].as_str() {
                assert!(live.remove(path).is_some(), "{name} removes what is not there");
            }
        }
        if number < first && number + 1 < commits.len() {
            continue;
        }
        let mut rows = BTreeMap::new();
        for path in live.keys() {
            for (series, row) in read(&files[&Path::new(ROOT).join(path)]) {
                assert!(rows.insert(series, row).is_none(), "{name}: series {series} is there twice");
            }
        }
        versions.push(rows);
    }
    versions
}

fn read(bytes: &[u8]) -> Vec<(i64, Value)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).expect("Parquet");
    let mut rows = Vec::new();
    for batch in reader.build().expect("a reader") {
        let batch = batch.expect("a batch");
        let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
        let texts = ["metric_id", "meter", "project_id", "original_resource_id", "labels"].map(column);
        let ended = column("ended_at");
        let ended = ended.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        for (place, series) in column("series").as_primitive::<Int64Type>().iter().enumerate() {
            let [id, meter, project, original, labels] = texts
                .each_ref()
                .map(|column| Some(column.as_string::<i32>().value(place)).filter(|_| column.is_valid(place)));
            let labels: Value = serde_json::from_str(labels.expect("labels")).expect("JSON");
            let ended = ended.iter().nth(place).expect("a row");
            rows.push((series.expect("a number"), json!([id, meter, project, original, labels, ended])));
        }
    }
    rows
}

/// The newest version: files that only earlier ones had may be gone.
fn last(disk: &SimulatedDisk) -> BTreeMap<i64, Value> {
    since(disk, usize::MAX).pop().expect("a version")
}

#[tokio::test]
async fn the_table_has_every_living_series_once_in_every_version() {
    let (house, disk) = (House::build().await, SimulatedDisk::default());
    let mut table = house.table(&disk);
    assert_eq!(table.refresh().await.expect("made"), Refreshed { is_walked: true, ..Refreshed::default() });
    let ended = house.furnish().await;
    let whole = table.refresh().await.expect("filled");
    assert_eq!((whole.series, last(&disk)), (30, house.names().await));
    assert!(whole.added > 4, "{whole:?}");
    // Nothing new: nothing is read, nothing is written.
    let operations = disk.operations();
    let idle = table.refresh().await.expect("idle");
    assert_eq!(idle, Refreshed { added: 0, removed: 0, is_walked: false, ..whole });
    assert_eq!(disk.operations(), operations, "an idle refresh does nothing");
    // A resource that ends changes its own rows, a file each at most.
    house.index.end_resources(&[ended], Timestamp::from_secs(START + 60)).await.expect("ended");
    let refreshed = table.refresh().await.expect("changed");
    assert!(refreshed.added <= 2 && refreshed.removed == refreshed.added, "{refreshed:?}");
    assert_eq!(last(&disk), house.names().await);
    // An owner changes.
    let change = ResourceChange { project_id: Some(Some("p3".to_owned())), ..ResourceChange::default() };
    house.index.update_resource(&Scope::All, "instance", ended, &change).await.expect("moved");
    table.refresh().await.expect("changed");
    assert_eq!(last(&disk), house.names().await);
    // Label sets come and go.
    house.labelled("prom", 12..15).await;
    let refreshed = table.refresh().await.expect("more");
    assert!(refreshed.added <= 4, "the files before stay: {refreshed:?}");
    assert_eq!(last(&disk), house.names().await);
    let gone = [Matcher::equal("job", "job \"3\"")];
    assert_eq!(house.labels.delete(&Scope::All, &gone).await.expect("deleted"), 1);
    table.refresh().await.expect("fewer");
    assert_eq!(last(&disk), house.names().await);
    house.index.delete_resource(&Scope::All, "instance", ended).await.expect("deleted");
    let refreshed = table.refresh().await.expect("fewer");
    assert_eq!((refreshed.series, last(&disk)), (30, house.names().await));
    assert_eq!(versions(&disk).len() as u64, refreshed.version + 1);
}

#[tokio::test]
async fn what_was_deleted_leaves_the_disk_after_the_grace() {
    let (house, disk) = (House::build().await, SimulatedDisk::default());
    let deleted = house.furnish().await;
    let mut table = house.table(&disk);
    table.refresh().await.expect("filled");
    let is_on_disk = || {
        let files = disk.files();
        let mut parquet = files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "parquet"));
        parquet.any(|(_, bytes)| read(bytes).iter().any(|(_, row)| row[3] == "vm-x"))
    };
    house.index.delete_resource(&Scope::All, "instance", deleted).await.expect("deleted");
    table.refresh().await.expect("fewer");
    assert!(last(&disk).values().all(|row| row[3] != "vm-x"));
    house.clock.advance(house.settings.removed_grace - Duration::from_secs(1));
    table.refresh().await.expect("idle");
    assert!(is_on_disk(), "readers of the version before have their time");
    house.clock.advance(Duration::from_secs(2));
    table.refresh().await.expect("idle");
    assert!(!is_on_disk());
    // Also where the process began again in between.
    let gone = [Matcher::equal("job", "job \"3\"")];
    assert_eq!(house.labels.delete(&Scope::All, &gone).await.expect("deleted"), 1);
    table.refresh().await.expect("fewer");
    let count = || disk.files().iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "parquet")).count();
    let before = count();
    drop(table);
    house.clock.advance(house.settings.removed_grace * 2);
    house.table(&disk).refresh().await.expect("opened again");
    assert!(count() < before, "{} of {before} files", count());
    assert_eq!(last(&disk), house.names().await);
}

#[tokio::test]
async fn a_table_that_is_damaged_or_gone_is_made_again() {
    let house = House::build().await;
    house.furnish().await;
    let whole = SimulatedDisk::default();
    let mut table = house.table(&whole);
    table.refresh().await.expect("filled");
    house.labelled("prom", 12..30).await;
    table.refresh().await.expect("more");
    let names = house.names().await;
    let files = whole.files();
    assert!(files.len() > 8);
    for (path, bytes) in &files {
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            Some(bytes)
        };
        let changes = [None, Some(Vec::new()), flipped(0), flipped(bytes.len() / 2), flipped(bytes.len() - 1)];
        for change in changes {
            let disk = whole.copy();
            match change {
                None => disk.take_away(path),
                Some(bytes) => disk.put(path, bytes),
            }
            let what = path.display();
            let mut table = house.table(&disk);
            table.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            // Taking the newest commit away leaves the version before it, which is none the worse.
            assert_eq!(last(&disk), names, "{what}");
            assert!(!table.refresh().await.expect("idle").is_walked, "{what}: it is whole again");
        }
    }
    let disk = SimulatedDisk::default();
    house.table(&disk).refresh().await.expect("made");
    assert_eq!(last(&disk), names, "nothing was there");
}

#[tokio::test]
async fn opening_reads_a_copy_and_old_commits_go() {
    let mut house = House::build().await;
    house.settings.checkpoint_commits = 3;
    let disk = SimulatedDisk::default();
    let mut table = house.table(&disk);
    for number in 0..12 {
        house.labelled("prom", number * 3..number * 3 + 3).await;
        table.refresh().await.expect("more");
    }
    let names = |end: &str| -> Vec<String> {
        let files = disk.files();
        let names = files.iter().map(|(path, _)| path.display().to_string()).filter(|path| path.ends_with(end));
        names.map(|path| path.rsplit('/').next().expect("a name").to_owned()).collect()
    };
    let commits = || names(".json").iter().filter(|name| name.len() == 25).count();
    assert_eq!(names(".checkpoint.parquet").len(), 2);
    assert!(names(".json").len() < 10, "{:?}", names(".json"));
    let version = table.refresh().await.expect("idle").version;
    assert_eq!(version, 12);
    drop(table);
    let mut table = house.table(&disk);
    let opened = table.refresh().await.expect("opened again");
    assert_eq!((opened.version, opened.added, opened.series), (12, 0, 36));
    // The newest copy is damaged: the one before and the commits behind it say the same.
    let copies: Vec<PathBuf> = disk
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().contains("snapshots"))
        .collect();
    disk.put(copies.last().expect("a copy"), b"nonsense".to_vec());
    let opened = house.table(&disk).refresh().await.expect("opened again");
    assert_eq!((opened.version, opened.added, opened.series), (12, 0, 36));
    assert!(commits() > 0);
}

#[tokio::test]
async fn a_full_disk_is_left_to_the_points() {
    let (house, disk) = (House::build().await, SimulatedDisk::default());
    house.furnish().await;
    let mut table = house.table(&disk);
    disk.set_free_bytes(999);
    assert!(matches!(table.refresh().await, Err(NamesError::NoRoom { free: 999, reserve: 1000 })));
    disk.set_free_bytes(u64::MAX);
    table.refresh().await.expect("room again");
    assert_eq!(last(&disk), house.names().await);
}

/// What one life of the table does, over names that are there.
async fn life(house: &House, disk: &SimulatedDisk) {
    let mut table = house.table(disk);
    for _ in 0..2 {
        // A disk that fails is told; the next refresh opens the table again.
        let _ = table.refresh().await;
    }
}

#[tokio::test]
async fn broken_at_any_operation_every_version_is_whole_and_the_next_life_is_right() {
    let mut house = House::build().await;
    house.settings.checkpoint_commits = 2;
    house.furnish().await;
    // A table with a past, so that files come and go.
    let before = SimulatedDisk::default();
    house.table(&before).refresh().await.expect("made");
    house.labelled("prom", 12..20).await;
    let names = house.names().await;
    let whole = before.copy();
    life(&house, &whole).await;
    let count = whole.operations();
    assert!(count > 30, "{count} operations");
    for operation in 0..count {
        let faults = [
            Fault::Stop { operation },
            Fault::FailOnce { operation, kind: std::io::ErrorKind::Other, applied: operation % 2 == 0 },
        ];
        for fault in faults {
            let disk = before.copy();
            disk.set_fault(fault);
            life(&house, &disk).await;
            disk.restart(Restart::PowerCut { seed: operation });
            let what = format!("{fault:?}");
            versions(&disk);
            house.table(&disk).refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(last(&disk), names, "{what}");
        }
    }
}
