//! Bits flip, files are cut and vanish: always an error, never another answer (contract C3).

use super::*;
use crate::faults::Restart;

/// A store with every kind of file on its disk, stopped without closing.
async fn furnished() -> (World, Vec<(u64, i64, u64)>) {
    let world = World::new();
    let store = world.open().await.expect("opens");
    for series in 1..4 {
        store.append((0..40).map(|i| point(series, i, i as f64)).collect()).await.expect("stored");
    }
    store.flush().await.expect("flushed");
    store.delete_series(&[SeriesId(2)]).await.expect("deleted");
    store.append(vec![point(1, 100, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    store.checkpoint().await.expect("written");
    store.append(vec![point(3, 86_400, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    for second in 0..3 {
        store.append(vec![point(4, second, 1.0)]).await.expect("stored");
    }
    let found = everything(&store, &[1, 2, 3, 4]).await.expect("read");
    drop(store);
    world.disk.restart(Restart::Killed);
    (world, found)
}

/// What a damaged disk says: an error, or the same as before.
async fn answer(world: &World) -> Result<Vec<(u64, i64, u64)>, StoreError> {
    let store = world.open().await?;
    let report = store.verify().await?;
    if let Some(problem) = report.problems.first() {
        return Err(StoreError::Invalid { reason: problem.clone() });
    }
    everything(&store, &[1, 2, 3, 4]).await
}

/// The last group of the log can be torn; a flipped bit in it cannot be told from that, and is no damage in the middle.
fn is_last_group(path: &std::path::Path, contents: &[u8], byte: usize) -> bool {
    let is_log = path.extension() == Some("wal".as_ref());
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let record = crate::wal::record::RECORD_HEADER_BYTES + 24;
    is_log && byte + record > end
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_an_error_or_changes_nothing() {
    let (whole, expected) = furnished().await;
    let mut detected = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for (path, contents) in whole.files() {
        // Every byte of small files, a sample of large ones.
        let step = (contents.len() / 150).max(1);
        for byte in (0..contents.len()).step_by(step) {
            if is_last_group(&path, &contents, byte) {
                continue;
            }
            let world = whole.copy();
            let mut damaged = contents.clone();
            damaged[byte] ^= 1 << (byte % 8);
            world.put(&path, damaged);
            let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            let counts = detected.entry(kind).or_default();
            counts.0 += 1;
            match answer(&world).await {
                Ok(found) => assert_eq!(found, expected, "bit in byte {byte} of {}", path.display()),
                Err(_) => counts.1 += 1,
            }
        }
    }
    for kind in ["json", "parquet"] {
        let (_, noticed) = detected[kind];
        assert!(noticed > 0, "{kind}: {detected:?}");
    }
}

#[tokio::test]
async fn every_flipped_bit_of_a_live_data_file_is_named() {
    let (whole, _) = furnished().await;
    let is_data = |path: &std::path::Path| path.to_string_lossy().contains("day=");
    for (path, contents) in whole.files().into_iter().filter(|(path, _)| is_data(path)) {
        for byte in (0..contents.len()).step_by(7) {
            let world = whole.copy();
            let mut damaged = contents.clone();
            damaged[byte] ^= 0x10;
            world.put(&path, damaged);
            let store = world.open().await.expect("the length is right");
            let error = everything(&store, &[1, 2, 3, 4]).await.expect_err("damaged");
            assert!(matches!(&error, StoreError::Damaged { path: named, .. } if *named == path), "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_or_missing_is_an_error_or_changes_nothing() {
    let (whole, expected) = furnished().await;
    for (path, contents) in whole.files() {
        for cut in [None, Some(0), Some(contents.len() / 2), Some(contents.len().saturating_sub(1))] {
            // Without a last group the log cannot know that it was there; see FORMAT.md.
            if path.extension() == Some("wal".as_ref()) && cut.is_some() {
                continue;
            }
            let world = whole.copy();
            match cut {
                Some(length) => world.put(&path, contents[..length].to_vec()),
                None => world.take_away(&path),
            }
            if let Ok(found) = answer(&world).await {
                assert_eq!(found, expected, "{} cut to {cut:?}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn another_programs_commit_is_refused() {
    let (world, _) = furnished().await;
    let newest = world
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().contains("_delta_log/0") && path.extension() == Some("json".as_ref()))
        .max()
        .expect("a commit");
    let number: u64 =
        newest.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).expect("a number");
    let foreign = newest.with_file_name(crate::table::commit_name(number + 1));
    world.put(&foreign, b"{\"commitInfo\":{\"operation\":\"OPTIMIZE\"}}\n".to_vec());
    let error = world.open().await.err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_others_are_merged() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    for round in 0..7 {
        store.append((0..20).map(|i| point(round + 1, i, 1.5)).collect()).await.expect("stored");
        store.flush().await.expect("flushed");
    }
    let is_data = |path: &std::path::Path| path.to_string_lossy().contains("day=");
    let (path, mut contents) = world.files().into_iter().filter(|(path, _)| is_data(path)).nth(3).expect("seven");
    let whole = contents.clone();
    contents[40] ^= 1;
    world.put(&path, contents);
    assert_eq!(store.compact().await.expect("the others are merged"), 6);
    let stats = store.stats();
    assert_eq!((stats.files, stats.quarantined, stats.rows), (3, 1, 140), "nothing left the table");
    assert_eq!(everything(&store, &[1, 2, 3, 5, 6, 7]).await.expect("read").len(), 120);
    let error = everything(&store, &[4]).await.expect_err("its rows are not left out silently");
    assert!(matches!(&error, StoreError::Damaged { path: named, .. } if *named == path), "{error}");
    assert!(!store.verify().await.expect("read").is_sound());
    // Restored from a backup, it is merged after the next start.
    world.put(&path, whole);
    store.close().await.expect("closed");
    let store = world.open().await.expect("opens");
    assert_eq!(everything(&store, &[4]).await.expect("read").len(), 20);
    assert!(store.verify().await.expect("read").is_sound());
}

#[tokio::test]
async fn deleted_rows_leave_the_files_and_then_the_disk() {
    let mut world = World::new();
    world.settings.removed_grace = Duration::from_secs(3600);
    let store = world.open().await.expect("opens");
    // Values that can be found in a file: nothing else has these bits.
    let secret = f64::from_bits(0x3ff1_2345_6789_abcd);
    store.append((0..50).map(|i| point(2, i, secret)).collect()).await.expect("stored");
    store.append((0..50).flat_map(|i| [point(1, i, 1.0), point(3, i, 1.0)]).collect()).await.expect("stored");
    store.flush().await.expect("flushed");
    store.delete_series(&[SeriesId(2)]).await.expect("deleted");
    store.flush().await.expect("flushed");
    assert_eq!((store.stats().rows, store.stats().tombstones), (150, 1));
    assert_eq!(store.apply_deletions().await.expect("rewritten"), 1);
    assert_eq!(store.apply_deletions().await.expect("looked"), 0, "once is enough");
    assert_eq!((store.stats().rows, store.stats().double_rows), (100, 0));
    assert_eq!(everything(&store, &[1, 2, 3]).await.expect("read").len(), 100);
    let files = || world.files().iter().filter(|(path, _)| path.extension() == Some("parquet".as_ref())).count();
    assert_eq!(files(), 2, "the old file stays for readers that have an older version");
    world.clock.advance(Duration::from_secs(3600));
    store.vacuum().await.expect("removed");
    assert_eq!(files(), 1);
    store.append(vec![point(4, 0, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    assert_eq!(store.stats().tombstones, 0, "nothing has such rows any more");
    assert!(store.verify().await.expect("read").is_sound());
}
