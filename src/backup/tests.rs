//! A backup comes back whole, and what is not whole is refused.

use std::fs;

use futures::TryStreamExt;
use orzo_ledger::LedgerTable;
use orzo_model::{ManualClock, Point, Rooms, SeriesId};
use orzo_rating::{BigDecimal, Ledger, LineFilter, LineKind, RatedLine, cost_of};
use orzo_store::{StoreSettings, files::real::RealDisk};

use super::{restore::Restored, *};

struct Here {
    folder: tempfile::TempDir,
    source: Source,
}

async fn here() -> Here {
    let folder = tempfile::tempdir().expect("a directory");
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("images")).expect("made");
    fs::create_dir_all(data.join("instances")).expect("made");
    fs::write(data.join("images/one"), b"a disk").expect("written");
    fs::write(data.join("images/.tmp-two"), b"not whole").expect("written");
    fs::write(data.join("instances/disk"), b"a guest's").expect("written");
    fs::write(data.join("service.secret"), b"s3cret").expect("written");
    fs::write(data.join("alarms.holder"), b"1234").expect("written");
    let clock = ManualClock::new("2026-11-22T10:45:00Z".parse().expect("a time"));
    let settings = StoreSettings { directory: data.join("store"), disk_reserve_bytes: 0, ..StoreSettings::default() };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let store = Store::open(settings, room, clock.clone()).await.expect("opens");
    let point = |series, second| Point {
        series: SeriesId(series),
        timestamp: Timestamp::from_secs(1_795_287_600 + second),
        value: second as f64 / 8.0,
    };
    store.append((0..500).map(|i| point(i % 7, i as i64 * 600)).collect()).await.expect("stored");
    let database = Database::open_file(&data.join("orzo.db")).await.expect("opens");
    database.execute("CREATE TABLE names (series BIGINT, name TEXT)", &[]).await.expect("made");
    database.execute("INSERT INTO names VALUES (3, 'cpu')", &[]).await.expect("written");
    let source = Source {
        store,
        labels: Labels::Closed(data.join("labels")),
        database,
        purging: Arc::default(),
        data_directory: data,
        backups: folder.path().join("backups"),
        clock,
    };
    Here { folder, source }
}

async fn again(backup: &Path, target: &Path) -> anyhow::Result<Restored> {
    restore(backup, target, |_, _, _| {}).await
}

#[tokio::test]
async fn a_backup_comes_back() {
    let Here { folder, source } = here().await;
    let name = name_of(source.clock.now());
    assert_eq!(name, "20261122T104500Z");
    fs::create_dir_all(source.backups.join(".unfinished-20261121T000000Z/store")).expect("made");
    let (backup, manifest) = make(&source, &name, |_| {}).await.expect("made");
    assert_eq!(fs::read_dir(&source.backups).expect("listed").count(), 1);
    assert_eq!(manifest.notes.len(), 1, "{:?}", manifest.notes);
    let target = folder.path().join("elsewhere/data");
    fs::create_dir_all(target.parent().expect("a parent")).expect("made");
    let restored = again(&backup, &target).await.expect("restored");
    assert_eq!((restored.rows_verified, &restored.manifest), (500, &manifest));
    assert_eq!(fs::read(target.join("images/one")).expect("read"), b"a disk");
    assert_eq!(fs::read(target.join("service.secret")).expect("read"), b"s3cret");
    for absent in ["images/.tmp-two", "instances", "alarms.holder", "manifest.json"] {
        assert!(!target.join(absent).exists(), "{absent}");
    }
    let database = Database::open_file(&target.join("orzo.db")).await.expect("opens");
    let row = database.query_one("SELECT name FROM names WHERE series = 3", &[]).await.expect("read").expect("a row");
    assert_eq!(row.text("name").as_deref(), Some("cpu"));
    let refused = again(&backup, &target).await.expect_err("it is there already");
    assert!(refused.to_string().contains("not empty"), "{refused}");
}

#[tokio::test]
async fn the_next_backup_shares_what_did_not_change() {
    use std::os::unix::fs::MetadataExt;
    let Here { folder: _folder, source } = here().await;
    let (first, _) = make(&source, "20261122T104500Z", |_| {}).await.expect("made");
    fs::write(source.data_directory.join("images/three"), b"another").expect("written");
    let (second, manifest) = make(&source, "20261122T104600Z", |_| {}).await.expect("made");
    assert_eq!(manifest.points.linked_bytes, manifest.points.bytes);
    let inode = |path: &Path| fs::metadata(path).expect("there").ino();
    assert_eq!(inode(&first.join("images/one")), inode(&second.join("images/one")));
    assert!(second.join("images/three").exists() && !first.join("images/three").exists());
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_found_before_anybody_starts_with_it() {
    let Here { folder, source } = here().await;
    let (backup, _) = make(&source, "20261122T104500Z", |_| {}).await.expect("made");
    let mut paths = Vec::new();
    collect(&backup, &mut paths);
    let mut tried = 0;
    for path in paths {
        let whole = fs::read(&path).expect("read");
        let name = path.strip_prefix(&backup).expect("below").display().to_string();
        // Copies for other engines and the empty log's zeros are not ours to read.
        if name.contains("checkpoint") || whole.is_empty() {
            continue;
        }
        let at = if name.contains("/wal/") { 20 } else { whole.len() / 2 };
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).expect("written");
        let target = folder.path().join("elsewhere");
        // The commit beside our own copy of its version is for other engines.
        if !name.contains("_delta_log") {
            let outcome = again(&backup, &target).await;
            assert!(outcome.is_err(), "{name} at {at}");
            assert!(!target.exists(), "{name}");
            tried += 1;
        }
        fs::write(&path, whole).expect("written");
    }
    assert!(tried >= 6, "{tried}");
    assert!(again(&backup, &folder.path().join("elsewhere")).await.is_ok());
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in files::entries(directory).expect("listed") {
        match entry.path().is_dir() {
            true => collect(&entry.path(), paths),
            false => paths.push(entry.path()),
        }
    }
}

#[tokio::test]
async fn a_manifest_that_names_what_is_not_its_own_is_refused() {
    let Here { folder, source } = here().await;
    let (backup, mut manifest) = make(&source, "20261122T104500Z", |_| {}).await.expect("made");
    fs::write(folder.path().join("outside"), b"x").expect("written");
    manifest.files[0].path = "../../outside".to_owned();
    fs::remove_file(backup.join("manifest.json")).expect("removed");
    manifest.write(&backup).expect("written");
    let refused = again(&backup, &folder.path().join("elsewhere")).await.expect_err("hostile");
    assert!(refused.to_string().contains("not below it"), "{refused}");
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_behind() {
    let Here { folder: _folder, source } = here().await;
    source.store.flush().await.expect("flushed");
    let path = source.data_directory.join("store/samples").join(&source.store.files()[0].path);
    let mut bytes = fs::read(&path).expect("read");
    bytes[20] ^= 1;
    fs::write(&path, bytes).expect("written");
    let error = make(&source, "20261122T104500Z", |_| {}).await.expect_err("a damaged file");
    assert!(format!("{error:#}").contains("checksum"), "{error:#}");
    assert_eq!(fs::read_dir(&source.backups).expect("listed").count(), 0);
}

fn rated(hour: i64) -> RatedLine {
    let begin = Timestamp::from_secs(1_795_287_600 + hour * 3600);
    let cost = cost_of(&BigDecimal::from(hour + 1));
    RatedLine {
        id: uuid::Uuid::nil(),
        scope: "p".to_owned(),
        service: "instance".to_owned(),
        resource: "r".to_owned(),
        begin,
        end: begin.plus(std::time::Duration::from_secs(3600)),
        period: begin,
        unit: "instance".to_owned(),
        quantity: 1.into(),
        unit_price: cost.clone(),
        cost,
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "r".to_owned(),
        rule_version: 1,
        sequence: 0,
        groupby: Arc::default(),
        metadata: Arc::default(),
        samples: 1,
        rated_at: begin,
    }
    .identified()
}

fn ledger(data: &Path, source: &Source) -> LedgerTable {
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    LedgerTable::open(Arc::new(RealDisk), &data.join(LEDGER), source.clock.clone(), room).expect("opens")
}

async fn lines(ledger: &LedgerTable) -> Vec<RatedLine> {
    ledger.read(&LineFilter::default()).await.expect("read").try_collect().await.expect("read")
}

#[tokio::test]
async fn a_backup_has_the_ledger_and_a_damaged_one_is_refused() {
    let Here { folder, source } = here().await;
    let own = ledger(&source.data_directory, &source);
    for hour in 0..3 {
        own.append(vec![rated(hour)]).await.expect("kept");
    }
    let kept = lines(&own).await;
    let (backup, _) = make(&source, "20261122T104500Z", |_| {}).await.expect("made");
    own.append(vec![rated(3)]).await.expect("kept");
    let target = folder.path().join("elsewhere");
    again(&backup, &target).await.expect("restored");
    let copy = ledger(&target, &source);
    assert_eq!(lines(&copy).await, kept);
    assert_eq!(copy.append(vec![rated(2), rated(3)]).await.expect("kept"), 1, "what is rated again is there already");
    let mut paths = Vec::new();
    collect(&backup.join(LEDGER), &mut paths);
    assert!(paths.len() > 6, "commits and files: {paths:?}");
    for path in paths {
        let whole = fs::read(&path).expect("read");
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 4;
        fs::write(&path, damaged).expect("written");
        assert!(again(&backup, &folder.path().join("another")).await.is_err(), "{}", path.display());
        fs::write(&path, whole).expect("written");
    }
    fs::remove_file(backup.join(LEDGER).join(LOG).join(orzo_store::delta::commit_name(2))).expect("removed");
    assert!(again(&backup, &folder.path().join("another")).await.is_err(), "a commit is missing");
}
