//! A backup is a whole store of one moment, whatever goes on meanwhile.

use orzo_model::SystemClock;

use super::*;
use crate::{BackupReport, faults::Fault};

impl World {
    async fn open_copy(&self, directory: &str) -> Result<Arc<Store>, StoreError> {
        let settings = StoreSettings { directory: PathBuf::from(directory), ..self.settings.clone() };
        let room = Rooms::new(&prometheus::Registry::new()).room("copy");
        self.open_in(settings, room).await
    }
}

#[tokio::test]
async fn a_backup_holds_what_was_appended_before_and_opens_as_a_store() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    let mut points: Vec<_> = (0..50).map(|i| point(i % 5, i as i64 * 7000, i as f64)).collect();
    store.append(points.clone()).await.expect("stored");
    store.flush().await.expect("flushed");
    store.delete_series(&[SeriesId(3)]).await.expect("deleted");
    points.retain(|point| point.series.0 != 3);
    let late = vec![point(1, 0, 99.0), point(9, 5, 0.25)];
    store.append(late.clone()).await.expect("stored");
    points.extend(late);

    let report = store.back_up(Path::new("/copy"), None, |_| {}).await.expect("copied");
    assert_eq!((&report.hash, report.rows), (&store.contents().hash, store.contents().rows));
    let expected = everything(&store, &[0, 1, 2, 3, 4, 9]).await.expect("read");
    store.append(vec![point(1, 1, 7.0)]).await.expect("stored");
    store.compact().await.expect("merged");

    let copy = world.open_copy("/copy").await.expect("opens");
    assert_eq!(everything(&copy, &[0, 1, 2, 3, 4, 9]).await.expect("read"), expected);
    assert!(copy.verify().await.expect("read").is_sound());
    assert_eq!(BackupReport { linked_bytes: 0, ..copy.contents() }, report);
    // It goes on as a store of its own.
    copy.append(vec![point(2, 77, 1.5)]).await.expect("stored");
    copy.close().await.expect("closed");
    let copy = world.open_copy("/copy").await.expect("opens again");
    assert_eq!(copy.last(SeriesId(2)).await.expect("read").map(|m| m.value), expected_last(&copy).await);
}

async fn expected_last(store: &Store) -> Option<f64> {
    let found = store.scan(&[SeriesId(2)], Timestamp::MIN, Timestamp::MAX).await.expect("read");
    found.first()?.1.last().map(|measure| measure.value)
}

#[tokio::test]
async fn files_stay_on_disk_until_a_backup_has_them() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    for day in 0..4 {
        store.append(vec![point(1, day * 10, day as f64)]).await.expect("stored");
        store.flush().await.expect("flushed");
    }
    // Between the first file and the second everything is merged and vacuumed.
    let (ask, asked) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let mut first = true;
    let copying = tokio::spawn({
        let store = store.clone();
        async move {
            let wait = move |_| {
                if std::mem::take(&mut first) {
                    ask.send(()).expect("somebody waits");
                    gone.recv().expect("somebody says so");
                }
            };
            store.back_up(Path::new("/copy"), None, wait).await
        }
    });
    tokio::task::spawn_blocking(move || asked.recv()).await.expect("runs").expect("asked");
    assert_eq!(store.compact().await.expect("merged"), 4);
    store.vacuum().await.expect("vacuumed");
    store.checkpoint().await.expect("done");
    go.send(()).expect("it waits");
    let report = copying.await.expect("runs").expect("copied");
    assert_eq!((report.files, report.rows), (4, 4));
    let copy = world.open_copy("/copy").await.expect("opens");
    assert_eq!(everything(&copy, &[1]).await.expect("read").len(), 4);
    // Afterwards they go.
    store.vacuum().await.expect("vacuumed");
    assert_eq!(store.stats().files, 1);
    assert!(store.verify().await.expect("read").is_sound());
}

#[tokio::test]
async fn a_directory_with_anything_in_it_is_refused() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    store.back_up(Path::new("/copy"), None, |_| {}).await.expect("copied");
    let again = store.back_up(Path::new("/copy"), None, |_| {}).await;
    assert!(matches!(again, Err(StoreError::Invalid { reason }) if reason.contains("/copy is not empty")));
}

#[tokio::test]
async fn a_damaged_file_is_not_backed_up_in_silence() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append((0..100).map(|i| point(1, i, i as f64 / 8.0)).collect()).await.expect("stored");
    store.flush().await.expect("flushed");
    let path = PathBuf::from("/store/samples").join(&store.files()[0].path);
    let (_, mut bytes) = world.files().into_iter().find(|(there, _)| *there == path).expect("it is there");
    bytes[30] ^= 1;
    world.put(&path, bytes);
    let outcome = store.back_up(Path::new("/copy"), None, |_| {}).await;
    assert!(matches!(outcome, Err(StoreError::Damaged { path: named, .. }) if named == path));
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_harms_nothing() {
    let mut failed = 0;
    for after in 0.. {
        let world = World::new();
        let store = world.open().await.expect("opens");
        let points = vec![point(1, 0, 1.0), point(2, 90_000, 2.0)];
        store.append(points.clone()).await.expect("stored");
        store.flush().await.expect("flushed");
        let operation = world.disk.operations() + after;
        world.disk.set_fault(Fault::FailOnce { operation, kind: std::io::ErrorKind::StorageFull, applied: false });
        let outcome = store.back_up(Path::new("/copy"), None, |_| {}).await;
        let was_reached = world.disk.operations() > operation;
        world.disk.set_fault(Fault::None);
        assert_eq!(everything(&store, &[1, 2]).await.expect("read"), rows(&points), "{after}");
        store.append(vec![point(3, 0, 3.0)]).await.expect("takes more");
        match (outcome, was_reached) {
            (Err(_), _) => failed += 1,
            // Nothing that was asked of the disk is left to fail.
            (Ok(_), false) => break,
            (Ok(_), true) => {}
        }
        assert!(after < 1000, "a backup of two files ends");
    }
    assert!(failed > 20, "{failed}");
}

#[tokio::test]
async fn the_second_backup_links_what_the_first_one_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let settings = StoreSettings { directory: at("store"), disk_reserve_bytes: 0, ..StoreSettings::default() };
    let open = |settings: StoreSettings| {
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        Store::open(settings, room, SystemClock::shared())
    };
    let store = open(settings.clone()).await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(2, 90_000, 2.0)]).await.expect("stored");
    let first = store.back_up(&at("one"), None, |_| {}).await.expect("copied");
    assert_eq!((first.files, first.linked_bytes), (2, 0));
    // A copy that somebody damaged is not linked.
    let path = at("one").join("samples").join(&store.files()[0].path);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    store.append(vec![point(3, 0, 3.0)]).await.expect("stored");
    let second = store.back_up(&at("two"), Some(&at("one")), |_| {}).await.expect("copied");
    assert_eq!(second.files, 3);
    assert_eq!(second.linked_bytes, store.files()[1].bytes);
    let copy = open(StoreSettings { directory: at("two"), ..settings }).await.expect("opens");
    assert!(copy.verify().await.expect("read").is_sound());
    assert_eq!(copy.contents().hash, store.contents().hash);
}
