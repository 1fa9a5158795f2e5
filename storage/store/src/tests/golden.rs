//! Directories that earlier builds wrote are opened by every later one, to the same points.
//!
//! `golden/format-1` was written on purpose with everything that a directory can have: several files of a day and a merged
//! one, a checkpoint, tombstones, replaced values, and a log that holds what is in no file.

use std::path::Path;

use orzo_model::Rooms;

use super::*;

/// Rows that `format-1` holds: series, microseconds, bits of the value.
const FORMAT_1: &str = include_str!("golden/format-1.rows");

fn golden_rows() -> Vec<(u64, i64, u64)> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), u64::from_str_radix(fields[2], 16).unwrap())
    };
    FORMAT_1.lines().map(row).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_directory_of_format_1_is_opened_read_written_and_merged() {
    let directory = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/format-1"), directory.path());
    let settings = StoreSettings {
        directory: directory.path().to_owned(),
        disk_reserve_bytes: 0,
        compact_files_min: 3,
        ..StoreSettings::default()
    };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let clock = ManualClock::new(Timestamp::from_secs(START + 7200));
    let open = || Store::open(settings.clone(), room.clone(), clock.clone());
    let mut expected = golden_rows();
    assert!(expected.len() > 20, "the fixture has rows");
    let series = [1, 2, 3, 4, 5, 6, 7];

    let store = open().await.expect("opens");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    assert!(store.verify().await.expect("read").is_sound());
    store.append(vec![point(7, 60, 0.1)]).await.expect("stored");
    expected.extend(rows(&[point(7, 60, 0.1)]));
    store.close().await.expect("closed");

    let store = open().await.expect("opens again");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    clock.advance(Duration::from_secs(10 * 86_400));
    assert!(store.compact().await.expect("merged") > 1, "old and new files become one");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    store.checkpoint().await.expect("written");
    let report = store.verify().await.expect("read");
    assert!(report.is_sound(), "{:?}", report.problems);
    store.close().await.expect("closed");
    let store = open().await.expect("opens from the checkpoint");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
}
