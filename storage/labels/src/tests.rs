//! Behaviours of the whole index on the simulated disk, which is broken at every one of its operations.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::atomic::AtomicBool,
};

use orzo_model::{Clock, ManualClock};
use orzo_store::faults::{Fault, Restart, SimulatedDisk};

use super::*;

/// Numbers from a count that survives restarts, as the database does.
#[derive(Default)]
struct Numbers {
    next: AtomicU64,
    is_away: AtomicBool,
}

#[async_trait]
impl SeriesNumbers for Numbers {
    async fn reserve(&self, count: u64) -> Result<u64, String> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err("away".to_owned()),
            false => Ok(self.next.fetch_add(count, Ordering::Relaxed)),
        }
    }
}

struct World {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    numbers: Arc<Numbers>,
    settings: LabelSettings,
}

impl World {
    fn new() -> Self {
        Self {
            disk: SimulatedDisk::default(),
            clock: ManualClock::new(Timestamp::from_secs(1_767_225_600)),
            numbers: Arc::new(Numbers::default()),
            settings: LabelSettings { directory: "/labels".into(), disk_reserve_bytes: 1000, ..Default::default() },
        }
    }

    async fn open(&self) -> Result<LabelIndex, LabelError> {
        let disk = Arc::new(self.disk.booted());
        LabelIndex::open_on(disk, self.settings.clone(), self.numbers.clone(), self.clock.clone()).await
    }
}

fn sets(labels: &[&[(&str, &str)]]) -> LabelSets {
    let mut sets = LabelSets::default();
    for labels in labels {
        sets.push(&mut labels.to_vec(), &SetLimits::default()).expect("a set");
    }
    sets
}

fn p(project: &str) -> Scope {
    Scope::Project(project.to_owned())
}

fn host(number: usize) -> String {
    format!("host{number}")
}

async fn make(index: &LabelIndex, project: &str, hosts: std::ops::Range<usize>) -> Result<Created, LabelError> {
    let names: Vec<String> = hosts.map(host).collect();
    let labels: Vec<Vec<(&str, &str)>> =
        names.iter().map(|host| vec![("__name__", "up"), ("host", host), ("zone", "a")]).collect();
    let labels: Vec<&[(&str, &str)]> = labels.iter().map(Vec::as_slice).collect();
    index.create(project, sets(&labels)).await
}

fn hosts(index: &LabelIndex, project: &str) -> BTreeMap<String, SeriesId> {
    let found = index.find(&p(project), &[Matcher::equal("__name__", "up")], usize::MAX);
    let host = |labels: &[(String, String)]| labels.iter().find(|(name, _)| name == "host").expect("a host").1.clone();
    let map: BTreeMap<_, _> = found.iter().map(|found| (host(&found.labels), found.series)).collect();
    assert_eq!(map.len(), found.len(), "a label set has two series");
    map
}

#[tokio::test]
async fn series_are_made_once_and_found_again_after_a_restart() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    let first = make(&index, "p1", 0..3).await.expect("made");
    let again = make(&index, "p1", 1..4).await.expect("made");
    assert_eq!(first.series[1..], again.series[..2]);
    let twice = index.create("p1", sets(&[&[("__name__", "x")], &[("__name__", "x")]])).await.expect("made");
    assert_eq!(twice.series[0], twice.series[1]);
    let found = hosts(&index, "p1");
    assert_eq!(found.len(), 4);
    let set = sets(&[&[("zone", "a"), ("__name__", "up"), ("host", "host2")]]);
    assert_eq!(index.project("p1").known().look_up(set.get(0)), Some(found["host2"]));
    assert_eq!(index.project("p2").known().look_up(set.get(0)), None);
    // The same in other bytes is found once it was met, and nobody else's.
    let (project, mut met) = (index.project("p1"), Met::default());
    let known = project.known();
    let other = [set.get(0), b"\x0a\x05\x0a\x01x\x12\x00"].concat();
    assert_eq!(known.look_up_or_met(&other, &mut met), None);
    known.meet(&other, found["host2"], &mut met);
    known.meet(set.get(0), SeriesId(999), &mut met);
    assert_eq!(known.look_up_or_met(&other, &mut met), Some(found["host2"]));
    assert_eq!(known.look_up_or_met(set.get(0), &mut met), Some(found["host2"]));
    assert_eq!(known.look_up_or_met(&other[1..], &mut met), None);
    drop(known);
    index.close().await.expect("closed");
    let index = world.open().await.expect("opens");
    assert_eq!(hosts(&index, "p1"), found);
    assert_eq!(index.project("p1").known().look_up(set.get(0)), Some(found["host2"]));
    assert_eq!(index.stats().series, 5);
    // New ones get new numbers.
    let more = make(&index, "p1", 4..5).await.expect("made");
    assert!(more.series[0].expect("made") > *found.values().max().expect("some"));
}

#[tokio::test]
async fn projects_see_nothing_of_each_other() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    make(&index, "p1", 0..2).await.expect("made");
    make(&index, "p2", 1..5).await.expect("made");
    assert_eq!((hosts(&index, "p1").len(), hosts(&index, "p2").len(), hosts(&index, "p3").len()), (2, 4, 0));
    assert_ne!(hosts(&index, "p1")["host1"], hosts(&index, "p2")["host1"]);
    assert_eq!(index.label_values(&p("p1"), "host", &[]), BTreeSet::from([host(0), host(1)]));
    assert!(index.label_names(&Scope::Nothing, &[]).is_empty());
    assert_eq!(index.find(&Scope::All, &[], usize::MAX).len(), 6);
    assert_eq!(index.find(&Scope::All, &[], 3).len(), 3);
    index.delete(&p("p2"), &[]).await.expect("deleted");
    assert_eq!((hosts(&index, "p1").len(), hosts(&index, "p2").len()), (2, 0));
}

#[tokio::test]
async fn limits_refuse_what_is_beyond_and_nobody_else() {
    let mut world = World::new();
    world.settings.project_series_max = 3;
    world.settings.new_series_per_minute_max = 2;
    world.settings.series_max = 5;
    let index = world.open().await.expect("opens");
    let made = make(&index, "p1", 0..4).await.expect("made");
    assert_eq!(made.series.iter().flatten().count(), 2);
    let refusal = made.refusal.expect("refused");
    assert!(refusal.is_retryable(), "{refusal}");
    // Known ones are taken all the same, and others are not touched.
    let known = make(&index, "p1", 0..1).await.expect("made");
    assert_eq!((known.series[0], known.refusal), (made.series[0], None));
    assert_eq!(make(&index, "p2", 0..2).await.expect("made").refusal, None);
    world.clock.advance(Duration::from_secs(60));
    let made = make(&index, "p1", 2..4).await.expect("made");
    assert_eq!((made.series[1], made.refusal), (None, Some(Refusal::TooManySeries { max: 3 })));
    assert_eq!(make(&index, "p2", 2..3).await.expect("made").refusal, Some(Refusal::Full { max: 5 }));
    // What is deleted makes room.
    assert_eq!(index.delete(&p("p1"), &[Matcher::equal("host", "host0")]).await.expect("deleted"), 1);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(make(&index, "p2", 2..3).await.expect("made").refusal, None);
}

#[tokio::test]
async fn deleted_series_are_gone_until_their_points_are_and_come_back_as_new_ones() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    make(&index, "p1", 0..4).await.expect("made");
    let before = hosts(&index, "p1");
    let some = Matcher::matching("host", "host[12]").expect("an expression");
    assert_eq!(index.delete(&p("p1"), &[some]).await.expect("deleted"), 2);
    assert_eq!(index.label_values(&p("p1"), "host", &[]), BTreeSet::from([host(0), host(3)]));
    let gone = vec![before["host1"], before["host2"]];
    assert!(index.deleted(world.clock.now(), 10).is_empty());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(index.deleted(world.clock.now(), 10), gone);
    let made = make(&index, "p1", 1..2).await.expect("made");
    assert!(!gone.contains(&made.series[0].expect("made")));
    for _ in 0..10 {
        // The log is written anew in between.
        drop(index.close().await);
        let index = world.open().await.expect("opens");
        assert_eq!(index.deleted(world.clock.now(), 10), gone);
        assert_eq!(hosts(&index, "p1").len(), 3);
        index.close().await.expect("closed");
    }
    let index = world.open().await.expect("opens");
    index.purged(gone).await.expect("purged");
    assert!(index.deleted(world.clock.now(), 10).is_empty());
    index.close().await.expect("closed");
    let index = world.open().await.expect("opens");
    assert!(index.deleted(world.clock.now(), 10).is_empty());
    assert_eq!(hosts(&index, "p1").len(), 3);
}

#[tokio::test]
async fn without_numbers_or_room_new_series_wait_and_known_ones_are_found() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    make(&index, "p1", 0..1).await.expect("made");
    world.disk.set_free_bytes(999);
    let error = make(&index, "p1", 1..2).await.expect_err("the disk is full");
    assert!(matches!(error, LabelError::DiskFull) && error.is_retryable());
    assert_eq!(hosts(&index, "p1").len(), 1);
    world.disk.set_free_bytes(u64::MAX);
    make(&index, "p1", 1..2).await.expect("made");
    world.numbers.is_away.store(true, Ordering::Relaxed);
    let big: Vec<String> = (0..20_000).map(host).collect();
    let mut many = LabelSets::default();
    for host in &big {
        many.push(&mut vec![("__name__", "up"), ("host", host)], &SetLimits::default()).expect("a set");
    }
    assert!(matches!(index.create("p1", many).await, Err(LabelError::NoNumbers { .. })));
    assert_eq!(index.closed_because(), None);
}

#[tokio::test]
async fn a_directory_is_opened_once() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    assert!(matches!(world.open().await, Err(LabelError::Locked { .. })));
    index.close().await.expect("closed");
    world.open().await.expect("opens");
}

/// What must and what may be there.
#[derive(Default)]
struct Ledger {
    /// Acknowledged: host → number.
    must: BTreeMap<String, SeriesId>,
    /// Asked for, deleted or not answered: may be there or not.
    may: BTreeSet<String>,
}

impl Ledger {
    async fn make(&mut self, index: &LabelIndex, hosts: std::ops::Range<usize>) {
        let names: Vec<String> = hosts.clone().map(host).collect();
        match make(index, "p1", hosts).await {
            Ok(created) => {
                for (name, series) in names.into_iter().zip(created.series) {
                    self.may.remove(&name);
                    self.must.insert(name, series.expect("within the limits"));
                }
            }
            Err(_) => self.may.extend(names.into_iter().filter(|name| !self.must.contains_key(name))),
        }
    }

    async fn delete(&mut self, index: &LabelIndex, number: usize) {
        let name = host(number);
        let known = self.must.remove(&name);
        let gone = index.delete(&p("p1"), &[Matcher::equal("host", name.as_str())]).await;
        if gone.is_err() && known.is_some() {
            self.may.insert(name);
        }
    }

    fn check(&self, index: &LabelIndex, what: &str) {
        let found = hosts(index, "p1");
        for (name, series) in &self.must {
            assert_eq!(found.get(name), Some(series), "{what}: {name} was acknowledged");
        }
        for name in found.keys() {
            assert!(self.must.contains_key(name) || self.may.contains(name), "{what}: {name} was never asked for");
        }
        let numbers: BTreeSet<_> = found.values().collect();
        assert_eq!(numbers.len(), found.len(), "{what}: two label sets share a number");
    }
}

/// A life: series are made and deleted, with more bytes than one segment holds.
async fn live(world: &World, ledger: &mut Ledger) {
    for round in 0..3 {
        let Ok(index) = world.open().await else { return };
        ledger.make(&index, round * 50..round * 50 + 20).await;
        ledger.make(&index, round * 50 + 10..round * 50 + 30).await;
        ledger.delete(&index, round * 50 + 5).await;
        world.clock.advance(Duration::from_secs(1));
        let gone = index.deleted(world.clock.now(), 100);
        let _ = index.purged(gone).await;
        ledger.make(&index, round * 50 + 30..round * 50 + 40).await;
        let _ = index.close().await;
    }
}

async fn judge(world: &World, ledger: &Ledger, what: &str) {
    let index = world.open().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    ledger.check(&index, what);
    make(&index, "p1", 900..901).await.expect(what);
    let found = hosts(&index, "p1");
    index.close().await.expect(what);
    let index = world.open().await.expect(what);
    assert_eq!(hosts(&index, "p1"), found, "{what}: another opening changes nothing");
    index.close().await.expect(what);
}

async fn operations_of_a_life() -> u64 {
    let world = World::new();
    let mut ledger = Ledger::default();
    live(&world, &mut ledger).await;
    assert!(ledger.may.is_empty());
    judge(&world, &ledger, "nothing broken").await;
    let operations = world.disk.operations();
    assert!(operations > 60, "{operations}");
    operations
}

#[tokio::test]
async fn killed_or_without_power_at_every_operation_nothing_acknowledged_is_lost() {
    for operation in 0..operations_of_a_life().await {
        for seed in 0..4 {
            let world = World::new();
            let mut ledger = Ledger::default();
            world.disk.set_fault(Fault::Stop { operation });
            live(&world, &mut ledger).await;
            world.disk.restart(if seed == 0 {
                Restart::Killed
            } else {
                Restart::PowerCut { seed: operation * 9 + seed }
            });
            judge(&world, &ledger, &format!("stopped at operation {operation}, seed {seed}")).await;
        }
    }
}

#[tokio::test]
async fn every_operation_fails_once_and_the_power_goes_later() {
    for operation in 0..operations_of_a_life().await {
        for (applied, kind) in
            [(false, io::ErrorKind::Other), (true, io::ErrorKind::Other), (false, io::ErrorKind::StorageFull)]
        {
            let world = World::new();
            let mut ledger = Ledger::default();
            world.disk.set_fault(Fault::FailOnce { operation, kind, applied });
            live(&world, &mut ledger).await;
            world.disk.restart(Restart::PowerCut { seed: operation });
            judge(&world, &ledger, &format!("operation {operation} failed once with {kind}, applied: {applied}")).await;
        }
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_taking_and_nothing_unsynced_is_shown() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    make(&index, "p1", 0..1).await.expect("made");
    // Free bytes, write, sync.
    let operation = world.disk.operations() + 2;
    world.disk.set_fault(Fault::FailOnce { operation, kind: io::ErrorKind::Other, applied: false });
    let error = make(&index, "p1", 1..2).await.expect_err("the sync failed");
    assert!(matches!(error, LabelError::Closed { .. }) && error.to_string().contains("sync"), "{error}");
    assert!(make(&index, "p1", 2..3).await.is_err());
    assert!(index.closed_because().is_some());
    assert_eq!(hosts(&index, "p1").len(), 1);
}

#[tokio::test]
async fn damage_is_told_from_a_torn_tail() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    for round in 0..4 {
        make(&index, "p1", round..round + 1).await.expect("made");
    }
    index.close().await.expect("closed");
    let whole = world.disk.copy();
    let (path, bytes) = whole.files().into_iter().find(|(path, _)| path.extension().is_some()).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    let mut torn = 0;
    for at in 0..end {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let world = World { disk: whole.copy(), ..World::new() };
        world.disk.put(&path, damaged);
        match world.open().await {
            Err(LabelError::Damaged { .. }) => {}
            // Of the last record nobody knows whether it was synced.
            Ok(index) => {
                assert_eq!(hosts(&index, "p1").len(), 3, "byte {at}");
                torn += 1;
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(torn > 0 && torn < end / 3, "{torn} of {end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_while_series_come_holds_all_of_before() {
    let world = World::new();
    let index = Arc::new(world.open().await.expect("opens"));
    make(&index, "p1", 0..40).await.expect("made");
    index.delete(&p("p1"), &[Matcher::equal("host", "host7")]).await.expect("deleted");
    let making = tokio::spawn({
        let index = index.clone();
        async move {
            for round in 1..60 {
                make(&index, "p1", round * 40..(round + 1) * 40).await.expect("made");
            }
        }
    });
    for copy in 0..12 {
        let before = hosts(&index, "p1");
        let directory = PathBuf::from(format!("/copy{copy}"));
        assert!(index.back_up(&directory).await.expect("copied") > 0);
        assert!(index.back_up(&directory).await.is_err(), "it is not empty any more");
        let settings = LabelSettings { directory, ..world.settings.clone() };
        let disk = Arc::new(world.disk.booted());
        let copied = LabelIndex::open_on(disk, settings, world.numbers.clone(), world.clock.clone()).await;
        let found = hosts(&copied.expect("opens"), "p1");
        assert!(!found.contains_key("host7"));
        assert!(before.iter().all(|(host, series)| found.get(host) == Some(series)), "{copy}");
    }
    making.await.expect("made");
    let all = hosts(&index, "p1");
    let end = PathBuf::from("/end");
    index.back_up(&end).await.expect("copied");
    let settings = LabelSettings { directory: end, ..world.settings.clone() };
    let disk = Arc::new(world.disk.booted());
    let copied = LabelIndex::open_on(disk, settings, world.numbers.clone(), world.clock.clone()).await.expect("opens");
    assert_eq!(hosts(&copied, "p1"), all);
}

#[tokio::test]
async fn pages_of_series_are_all_of_them_once_also_while_some_are_deleted() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    make(&index, "p1", 0..11).await.expect("made");
    make(&index, "p2", 0..3).await.expect("made");
    let all: Vec<SeriesId> = hosts(&index, "p1").into_values().collect();
    let (mut from, mut found) = (0, Vec::new());
    loop {
        let (page, next) = index.find_page("p1", &[], |_| true, from, 3);
        assert!(page.len() <= 3);
        found.extend(page.into_iter().map(|(series, _)| series));
        match next {
            Some(next) => from = next,
            None => break,
        }
        // One of those that were given already; the next page is what it was.
        index.delete(&p("p1"), &[Matcher::equal("host", "host0")]).await.expect("deleted");
    }
    let sorted = |mut series: Vec<SeriesId>| {
        series.sort_unstable();
        series
    };
    assert_eq!(sorted(found), sorted(all.clone()));
    let one = all[5];
    let (page, next) = index.find_page("p1", &[Matcher::equal("__name__", "up")], |series| series == one, 0, 3);
    assert_eq!((page.len(), page[0].0, next), (1, one, None));
    assert_eq!(index.find_page("p3", &[], |_| true, 0, 3), (Vec::new(), None));
}

#[tokio::test]
async fn a_segment_grows_for_a_group_and_gives_the_rest_of_the_room_back() {
    let world = World::new();
    let index = world.open().await.expect("opens");
    let length = || {
        let files = world.disk.booted().list(Path::new("/labels")).expect("listed");
        let files: Vec<u64> = files.iter().filter(|file| file.name != "LOCK").map(|file| file.length).collect();
        assert_eq!(files.len(), 1, "one segment");
        files[0]
    };
    let empty = length();
    make(&index, "p1", 0..20).await.expect("made");
    let first = length();
    // Twenty hosts are 900 bytes before they are packed.
    assert!(empty < first && first < empty + 500, "{empty} and then {first}");
    make(&index, "p1", 20..22).await.expect("made");
    assert_eq!(length(), first, "a few find room");
    make(&index, "p1", 22..36).await.expect("made");
    assert!(first < length() && length() < first + 900, "{first} and then {}", length());
    let before = hosts(&index, "p1");
    index.close().await.expect("closed");
    assert_eq!(hosts(&world.open().await.expect("opens"), "p1"), before);
}

/// Everything that an index says: of each live series its project, number and labels, and which deleted ones are not
/// purged.
fn told(index: &LabelIndex) -> String {
    let mut lines = Vec::new();
    for project in index.projects() {
        for found in index.find(&p(&project), &[], usize::MAX) {
            let labels: Vec<String> = found.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            lines.push(format!("{project} {} {}\n", found.series.0, labels.join(",")));
        }
    }
    let deleted = index.deleted(Timestamp::from_secs(i64::from(u32::MAX)), usize::MAX);
    lines.extend(deleted.iter().map(|series| format!("deleted {}\n", series.0)));
    lines.sort_unstable();
    lines.concat()
}

async fn open_on_disk(directory: &Path, numbers: &Arc<Numbers>) -> LabelIndex {
    let settings = LabelSettings { directory: directory.to_owned(), disk_reserve_bytes: 0, ..LabelSettings::default() };
    let clock = ManualClock::new(Timestamp::from_secs(1_767_225_600));
    LabelIndex::open(settings, numbers.clone(), clock).await.expect("opens")
}

/// A log that an earlier build wrote is opened, to the same series, written to, and made anew.
async fn open_write_and_rewrite(golden: &Path, expected: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(golden).expect("is there") {
        let entry = entry.expect("is read");
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).expect("copied");
    }
    assert!(expected.lines().count() > 200 && expected.contains("deleted "), "there is something in it");
    let numbers = Arc::new(Numbers { next: AtomicU64::new(1_000_000), ..Numbers::default() });
    let index = open_on_disk(directory.path(), &numbers).await;
    assert_eq!(told(&index), expected);
    let known = make(&index, "p1", 0..3).await.expect("made");
    let is_told = |series: &SeriesId| expected.contains(&format!("p1 {} ", series.0));
    assert!(known.series.iter().flatten().all(is_told), "they are known");
    make(&index, "p3", 0..100).await.expect("made");
    let more = told(&index);
    assert_eq!(more.lines().count(), expected.lines().count() + 100);
    index.close().await.expect("closed");
    for _ in 0..10 {
        let index = open_on_disk(directory.path(), &numbers).await;
        assert_eq!(told(&index), more);
        index.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_log_of_format_1_is_opened_written_and_made_anew() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/format-1");
    open_write_and_rewrite(&golden, include_str!("tests/golden/format-1.told")).await;
}

#[tokio::test]
async fn a_log_of_format_2_is_opened_written_and_made_anew() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/format-2");
    open_write_and_rewrite(&golden, include_str!("tests/golden/format-2.told")).await;
}

/// Makes such a log of today's format. With `ORZO_TEST_GOLDEN=src/tests/golden/format-N` it stays there, and what it says
/// beside it: once for a format.
#[tokio::test]
async fn a_log_of_today_is_opened_written_and_made_anew() {
    let (directory, copied) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let kept = std::env::var("ORZO_TEST_GOLDEN").ok().map(PathBuf::from);
    let target = kept.clone().unwrap_or_else(|| copied.path().join("labels"));
    let numbers = Arc::new(Numbers::default());
    // So often that there is a base, with segments behind it.
    for round in 0..11 {
        let index = open_on_disk(directory.path(), &numbers).await;
        make(&index, "p1", round * 20..round * 20 + 30).await.expect("made");
        make(&index, "p2", round..round + 1).await.expect("made");
        let (one, name) = (host(round * 20 + 5), host(round * 20 + 6));
        index.delete(&p("p1"), &[Matcher::equal("host", one.as_str())]).await.expect("deleted");
        let purged = index.deleted(Timestamp::from_secs(i64::from(u32::MAX)), 1);
        index.delete(&p("p1"), &[Matcher::equal("host", name.as_str())]).await.expect("deleted");
        index.purged(purged).await.expect("purged");
        index.close().await.expect("closed");
    }
    let index = open_on_disk(directory.path(), &numbers).await;
    make(&index, "p1", 300..340).await.expect("made");
    let told = told(&index);
    index.close().await.expect("closed");
    std::fs::create_dir_all(&target).expect("made");
    for entry in std::fs::read_dir(directory.path()).expect("is there") {
        let entry = entry.expect("is read");
        std::fs::copy(entry.path(), target.join(entry.file_name())).expect("copied");
    }
    if kept.is_some() {
        std::fs::write(target.with_extension("told"), &told).expect("written");
    }
    open_write_and_rewrite(&target, &told).await;
}
