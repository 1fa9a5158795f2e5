//! Series with labels through the engine, on one simulated disk under label index and store, broken at every one of its
//! operations: whatever was acknowledged is found by its labels with its points, and no point is without labels.

use std::collections::BTreeMap;

use orzo_labels::{LabelIndex, LabelSets, LabelSettings, Matcher, SetLimits};
use orzo_model::{Point, Scope, SeriesId};
use orzo_store::faults::{Fault, Restart, SimulatedDisk};

use super::*;
use crate::{IndexNumbers, LabelledPoints};

/// What survives a crash: the disk, and the database with the count of numbers.
struct World {
    disk: SimulatedDisk,
    index: Arc<Index>,
    clock: Arc<ManualClock>,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new(at(3600));
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        let settings = IndexSettings { create_defaults: false, ..IndexSettings::default() };
        let index = Index::open(database, clock.clone(), settings).await.expect("the index opens");
        Self { disk: SimulatedDisk::default(), index: Arc::new(index), clock }
    }

    /// `None` if the disk lets nothing be opened.
    async fn open(&self) -> Option<(Engine, Arc<Store>)> {
        let rooms = Rooms::new(&prometheus::Registry::new());
        let settings = StoreSettings {
            directory: "/store".into(),
            wal_segment_bytes: 1 << 16,
            disk_reserve_bytes: 0,
            ..StoreSettings::default()
        };
        let disk = Arc::new(self.disk.booted());
        let store = Store::open_on(disk.clone(), settings, rooms.room("store"), self.clock.clone()).await.ok()?;
        let settings = LabelSettings { directory: "/labels".into(), disk_reserve_bytes: 0, ..Default::default() };
        let numbers = Arc::new(IndexNumbers(self.index.clone()));
        let labels = LabelIndex::open_on(disk, settings, numbers, self.clock.clone()).await.ok()?;
        let definitions = ResourceDefinitions::parse("empty.yaml", "resources: []\n").expect("definitions");
        let (room, clock) = (rooms.room("engine"), self.clock.clone());
        let engine =
            Engine::new(self.index.clone(), store.clone(), definitions, room, clock, EngineSettings::default()).await;
        Some((engine.expect("the engine starts").with_labels(Arc::new(labels)), store))
    }
}

fn p1() -> Scope {
    Scope::Project("p1".into())
}

/// Writes one point of each host, as a request would: known series are looked up first.
async fn write(engine: &Engine, hosts: std::ops::Range<usize>, second: i64) -> bool {
    let mut labelled = LabelledPoints::default();
    {
        let project = engine.labels().expect("labels").project("p1");
        let known = project.known();
        for host in hosts {
            let host = format!("h{host}");
            let mut one = LabelSets::default();
            let mut labels = vec![("__name__", "up"), ("host", host.as_str())];
            one.push(&mut labels, &SetLimits::default()).expect("a set");
            match known.look_up(one.get(0)) {
                Some(series) => labelled.known.push(Point { series, timestamp: at(second), value: 1.0 }),
                None => {
                    labelled.new.push(&mut labels, &SetLimits::default()).expect("a set");
                    labelled.new_points.push((labelled.new.len() - 1, at(second), 1.0));
                }
            }
        }
    }
    engine.write_labelled("p1", labelled).await.is_ok()
}

/// Two lives with new and known series; gives what was acknowledged, as (host, second).
async fn live(world: &World) -> Vec<(String, i64)> {
    let mut acknowledged = Vec::new();
    for life in 0..2 {
        let Some((engine, store)) = world.open().await else { return acknowledged };
        for (round, hosts) in [0..3, 2..5, 0..5].into_iter().enumerate() {
            let second = life * 100 + round as i64;
            let hosts = hosts.start + life as usize * 2..hosts.end + life as usize * 2;
            if write(&engine, hosts.clone(), second).await {
                acknowledged.extend(hosts.map(|host| (format!("h{host}"), second)));
            }
        }
        let _ = store.flush().await;
        let _ = engine.labels().expect("labels").close().await;
        let _ = store.close().await;
    }
    acknowledged
}

async fn judge(world: &World, acknowledged: &[(String, i64)], what: &str) {
    let (engine, store) = world.open().await.unwrap_or_else(|| panic!("{what}: it does not open"));
    let matchers = [Matcher::equal("__name__", "up")];
    let found = engine.read_labelled(&p1(), &matchers, Timestamp::MIN, Timestamp::MAX, 100).await.expect(what);
    let mut by_host: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut labelled = Vec::new();
    for (series, measures) in found {
        labelled.push(series.series);
        let host = series.labels[1].1.clone();
        let seconds = measures.iter().map(|measure| measure.timestamp.secs() - START).collect();
        assert!(by_host.insert(host, seconds).is_none(), "{what}: a label set has two series");
    }
    for (host, second) in acknowledged {
        let is_there = by_host.get(host).is_some_and(|seconds| seconds.contains(second));
        assert!(is_there, "{what}: {host} at {second} was acknowledged");
    }
    let numbers: Vec<SeriesId> = (0..60_000).map(SeriesId).collect();
    for (series, _) in store.scan(&numbers, Timestamp::MIN, Timestamp::MAX).await.expect(what) {
        assert!(labelled.contains(&series), "{what}: points of {series:?} have no labels");
    }
    assert!(write(&engine, 90..91, 999).await, "{what}");
    engine.labels().expect("labels").close().await.expect(what);
    store.close().await.expect(what);
}

#[tokio::test]
async fn labels_and_points_survive_a_stop_at_every_operation() {
    let world = World::new().await;
    let acknowledged = live(&world).await;
    assert_eq!(acknowledged.len(), 22);
    let operations = world.disk.operations();
    assert!(operations > 60, "{operations}");
    judge(&world, &acknowledged, "nothing broken").await;
    for operation in 0..operations {
        for restart in [Restart::Killed, Restart::PowerCut { seed: operation }] {
            let world = World::new().await;
            world.disk.set_fault(Fault::Stop { operation });
            let acknowledged = live(&world).await;
            world.disk.restart(restart);
            judge(&world, &acknowledged, &format!("{restart:?} at operation {operation}")).await;
        }
    }
}

#[tokio::test]
async fn deleted_series_lose_their_points_a_minute_later() {
    let world = World::new().await;
    let (engine, store) = world.open().await.expect("opens");
    assert!(write(&engine, 0..3, 1).await);
    let first = engine.find_labelled(&p1(), &[Matcher::equal("host", "h1")], 10).expect("found")[0].series;
    assert_eq!(engine.delete_labelled(&p1(), &[Matcher::equal("host", "h1")]).await.expect("deleted"), 1);
    assert_eq!(
        engine.find_labelled(&p1(), &[Matcher::matching("host", ".+").expect("x")], 10).expect("found").len(),
        2
    );
    // What comes again is a new series, and the old points are not its.
    assert!(write(&engine, 1..2, 5).await);
    assert_eq!(engine.purge_labelled().await.expect("purged"), 0);
    world.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(engine.purge_labelled().await.expect("purged"), 1);
    assert!(store.scan(&[first], Timestamp::MIN, Timestamp::MAX).await.expect("scanned").is_empty());
    let h1 = [Matcher::equal("host", "h1")];
    let found = engine.read_labelled(&p1(), &h1, Timestamp::MIN, Timestamp::MAX, 10).await.expect("read");
    assert_eq!(found[0].1, [measure(5, 1.0)]);
    assert_eq!(engine.purge_labelled().await.expect("purged"), 0);
}

#[tokio::test]
async fn metrics_and_label_sets_never_share_a_number() {
    let world = World::new().await;
    let (engine, _store) = world.open().await.expect("opens");
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3 {
        assert!(seen.insert(world.index.reserve_series(1).await.expect("a number")));
        assert!(write(&engine, round * 10..round * 10 + 10, 1).await);
    }
    let found = engine.find_labelled(&p1(), &[Matcher::equal("__name__", "up")], 100).expect("found");
    assert_eq!(found.len(), 30);
    assert!(found.iter().all(|found| seen.insert(found.series.0)));
}

#[tokio::test]
async fn what_a_selector_found_before_hides_no_new_series_and_shows_no_deleted_one() {
    let world = World::new().await;
    let (engine, _store) = world.open().await.expect("opens");
    assert!(write(&engine, 0..2, 1).await);
    let engine = Arc::new(engine);
    let named = crate::NamedSeries::new(engine.clone(), Scope::Nothing, p1());
    let other = crate::NamedSeries::new(engine.clone(), Scope::Nothing, Scope::Project("p2".into()));
    let group = vec![orzo_promql::Matcher::new("host".into(), "=~", "h.*".into()).expect("a matcher")];
    let hosts = async |named: &crate::NamedSeries| -> Vec<String> {
        let found = named.find(std::slice::from_ref(&group), 100).await.expect("found");
        found.into_iter().map(|(_, labels)| labels.get("host").to_owned()).collect()
    };
    for _ in 0..2 {
        assert_eq!(hosts(&named).await, ["h0", "h1"]);
        assert!(hosts(&other).await.is_empty());
    }
    assert!(write(&engine, 2..3, 2).await);
    assert_eq!(hosts(&named).await, ["h0", "h1", "h2"]);
    assert_eq!(engine.delete_labelled(&p1(), &[Matcher::equal("host", "h1")]).await.expect("deleted"), 1);
    assert_eq!(hosts(&named).await, ["h0", "h2"]);
    // The other one's are its own, asked in the same words; and fewer than were found is no answer to keep.
    assert_eq!(named.find(std::slice::from_ref(&group), 1).await.expect("found").len(), 1);
    assert_eq!(hosts(&named).await, ["h0", "h2"]);
    assert!(hosts(&other).await.is_empty());
}
