//! Directories that earlier builds wrote are opened by every later one, to the same points.
//!
//! `golden/format-1` and its successors were written on purpose with everything that a directory can have: several files of a day and a merged
//! one, a checkpoint, tombstones, replaced values, and a log that holds what is in no file.

use std::path::Path;

use orzo_model::Rooms;

use super::*;

/// Rows that they hold: series, microseconds, bits of the value.
const FORMAT_1: &str = include_str!("golden/format-1.rows");
const FORMAT_2: &str = include_str!("golden/format-2.rows");
const FORMAT_3: &str = include_str!("golden/format-3.rows");
const FORMAT_4: &str = include_str!("golden/format-4.rows");
const FORMAT_5: &str = include_str!("golden/format-5.rows");

fn golden_rows(text: &str) -> Vec<(u64, i64, u64)> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), u64::from_str_radix(fields[2], 16).unwrap())
    };
    text.lines().map(row).collect()
}

/// The columns that readers of the newest version are told of.
fn columns(directory: &Path) -> Vec<String> {
    let mut commits: Vec<_> =
        std::fs::read_dir(directory.join("samples/_delta_log")).unwrap().map(|e| e.unwrap().path()).collect();
    commits.extend(std::fs::read_dir(directory.join("snapshots")).unwrap().map(|e| e.unwrap().path()));
    commits.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    commits.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let of = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let schema =
            lines.filter_map(|line| Some(line["metaData"]["schemaString"].as_str()?.to_owned())).next_back()?;
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        Some(schema["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect())
    };
    commits.iter().rev().find_map(of).expect("a schema")
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
    open_read_write_and_merge("format-1", golden_rows(FORMAT_1)).await;
}

#[tokio::test]
async fn a_directory_of_format_2_is_opened_read_written_and_merged() {
    open_read_write_and_merge("format-2", golden_rows(FORMAT_2)).await;
}

#[tokio::test]
async fn a_directory_of_format_3_is_opened_read_written_and_merged() {
    open_read_write_and_merge("format-3", golden_rows(FORMAT_3)).await;
}

#[tokio::test]
async fn a_directory_of_format_4_is_opened_read_written_and_merged() {
    open_read_write_and_merge("format-4", golden_rows(FORMAT_4)).await;
}

#[tokio::test]
async fn a_directory_of_format_5_is_opened_read_written_and_merged() {
    open_read_write_and_merge("format-5", golden_rows(FORMAT_5)).await;
}

async fn open_read_write_and_merge(name: &str, expected: Vec<(u64, i64, u64)>) {
    open_read_write_and_merge_at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden").join(name), expected)
        .await;
}

async fn open_read_write_and_merge_at(golden: &Path, mut expected: Vec<(u64, i64, u64)>) {
    let directory = tempfile::tempdir().unwrap();
    copy(golden, directory.path());
    let settings = StoreSettings {
        directory: directory.path().to_owned(),
        disk_reserve_bytes: 0,
        compact_files_min: 3,
        ..StoreSettings::default()
    };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let clock = ManualClock::new(Timestamp::from_secs(START + 7200));
    let open = || Store::open(settings.clone(), room.clone(), clock.clone());
    assert!(expected.len() > 20, "the fixture has rows");
    let series = [1, 2, 3, 4, 5, 6, 7];

    let store = open().await.expect("opens");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    assert!(store.verify().await.expect("read").is_sound());
    // Where files of both kinds are there readers are told of both columns.
    let mut told = vec!["series", "timestamp", "other_value", "number", "divisor", "day"];
    if golden.ends_with("format-1") || golden.ends_with("format-2") {
        told.insert(2, "value");
    }
    assert_eq!(columns(directory.path()), told);
    let new = [point(7, 60, 0.1), point(7, 70, 1.0 / 3.0)];
    store.append(new.to_vec()).await.expect("stored");
    expected.extend(rows(&new));
    expected.sort_unstable();
    store.close().await.expect("closed");

    let store = open().await.expect("opens again");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    let apart = store.files().len();
    // From here on upkeep may merge them as well, before or after.
    clock.advance(Duration::from_secs(10 * 86_400));
    store.compact().await.expect("merged");
    assert!(store.files().len() < apart, "old and new files become one: {:?}", store.files());
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    store.checkpoint().await.expect("written");
    let report = store.verify().await.expect("read");
    assert!(report.is_sound(), "{:?}", report.problems);
    store.close().await.expect("closed");
    let store = open().await.expect("opens from the checkpoint");
    assert_eq!(everything(&store, &series).await.expect("read"), expected);
    // A single file of a day stays as it is; where none of the old ones is left the column goes with them.
    let is_old = |file: &crate::FileStats| file.format < 3;
    let has_old = store.files().iter().any(is_old);
    let named_value = columns(directory.path()).contains(&"value".to_owned());
    assert_eq!(named_value, has_old, "{:?}", store.files());
    store.close().await.expect("closed");
}

/// Makes such a directory of today's format. With `ORZO_TEST_GOLDEN=src/tests/golden/format-N` it stays there, and its rows
/// beside it: once for a format.
#[tokio::test]
async fn a_directory_of_today_is_opened_read_written_and_merged() {
    let (directory, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kept = std::env::var("ORZO_TEST_GOLDEN").ok().map(PathBuf::from);
    let target = kept.clone().unwrap_or_else(|| copied.path().join("store"));
    let settings = StoreSettings {
        directory: directory.path().to_owned(),
        disk_reserve_bytes: 0,
        compact_files_min: 3,
        wal_segment_bytes: 8192,
        removed_grace: Duration::ZERO,
        ..StoreSettings::default()
    };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let clock = ManualClock::new(Timestamp::from_secs(START + 7200));
    let store = Store::open(settings, room, clock.clone()).await.unwrap();
    // Steady steps, decimals, doubles, some of both, noise; times that are shared and others.
    let random = |at: i64| at * at * 2_654_435_761 % 4_294_967_296 % 50_003;
    let values: [fn(i64) -> f64; 6] = [
        |at| at as f64,
        |at| (at * at % 97) as f64 / 100.0,
        |at| 1.0 / (at + 1) as f64,
        |at| if at % 9 == 4 { f64::NAN } else { 0.5 * at as f64 },
        |at| ((at * 2_654_435_761) % 4_294_967_296 % 1_000_003) as f64 / 1e9,
        |_| -0.0,
    ];
    let batch = |day: i64, from: i64, to: i64| {
        let mut points = Vec::new();
        for (at, value) in values.iter().enumerate() {
            for step in from..to {
                let shift = if at % 2 == 0 { 0 } else { step * 7 % 3 };
                points.push(point(at as u64 + 1, day * 86_400 + step * 10 + shift, value(step)));
            }
        }
        points
    };
    for (day, from, to) in [(0, 0, 40), (0, 40, 60), (0, 30, 35), (1, 0, 30), (1, 20, 50)] {
        store.append(batch(day, from, to)).await.unwrap();
        store.flush().await.unwrap();
        if (day, from) == (0, 30) {
            store.compact().await.unwrap();
        }
    }
    store.delete_series(&[SeriesId(6)]).await.unwrap();
    store.append(batch(2, 0, 5)).await.unwrap();
    store.flush().await.unwrap();
    let steps = (0..200).map(|at| point(1, 3 * 86_400 + at * 10, (at * 70_000 + random(at)) as f64));
    store.append(steps.collect()).await.unwrap();
    store.flush().await.unwrap();
    store.checkpoint().await.unwrap();
    // A value that is replaced and a series that is deleted, both in the log only.
    store.append(vec![point(1, 10, 42.5), point(7, 5, 1.25)]).await.unwrap();
    store.delete_series(&[SeriesId(2)]).await.unwrap();
    copy(directory.path(), &target);
    let found = everything(&store, &[1, 2, 3, 4, 5, 6, 7]).await.unwrap();
    store.close().await.unwrap();
    if kept.is_some() {
        let text: String = found.iter().map(|(series, at, bits)| format!("{series} {at} {bits:016x}\n")).collect();
        std::fs::write(target.with_extension("rows"), text).unwrap();
    }
    open_read_write_and_merge_at(&target, found).await;
}
