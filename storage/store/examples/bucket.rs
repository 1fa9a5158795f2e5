//! What a flush, a cold read and a warm read cost with the table in a bucket, beside the same on this machine's disk.
//!
//! `cargo run --release -p orzo-store --example bucket -- s3://bucket/prefix http://127.0.0.1:9000`, with credentials in the
//! environment. The prefix must be empty. Without arguments only the disk is measured.

use std::time::Duration;

use orzo_model::{Point, Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{BucketSettings, Store, StoreSettings};

/// Flushes that are measured; the median is told.
const ROUNDS: i64 = 9;
const SERIES: u64 = 1000;
/// Of each series in each round: a million points make a file of about 3 MB.
const POINTS: i64 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bucket =
        arguments.next().map(|url| BucketSettings { url, endpoint: arguments.next(), ..BucketSettings::default() });
    measure("disk", None).await?;
    if let Some(bucket) = bucket {
        measure("bucket", Some(bucket)).await?;
    }
    Ok(())
}

async fn measure(name: &str, bucket: Option<BucketSettings>) -> Result<(), Box<dyn std::error::Error>> {
    let clock = SystemClock::shared();
    let directory = std::env::temp_dir().join(format!("orzo-bucket-example-{}-{name}", std::process::id()));
    let settings = StoreSettings { directory: directory.clone(), bucket, ..StoreSettings::default() };
    let open = || {
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        Store::open(settings.clone(), room, clock.clone())
    };
    let store = open().await?;
    let mut flushes = Vec::new();
    for round in 0..ROUNDS {
        for series in 0..SERIES {
            let points = (0..POINTS).map(|n| Point {
                series: SeriesId(series),
                timestamp: Timestamp::from_secs(1_767_225_600 + round * 90_000 + n * 10),
                value: ((n * 37 + series as i64) % 1000) as f64 / 10.0,
            });
            store.append(points.collect()).await?;
        }
        let began = clock.monotonic();
        store.flush().await?;
        flushes.push(clock.monotonic() - began);
    }
    store.close().await?;
    let bytes = store.stats().file_bytes;
    for below in std::fs::read_dir(directory.join("samples"))? {
        let below = below?;
        if settings.bucket.is_some() && below.file_name().to_string_lossy().starts_with("day=") {
            std::fs::remove_dir_all(below.path())?;
        }
    }
    let began = clock.monotonic();
    let store = open().await?;
    let opened = clock.monotonic() - began;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let from = Timestamp::from_secs(1_767_225_600 + round * 90_000);
        for (series, times) in [(7, &mut cold), (8, &mut warm)] {
            let began = clock.monotonic();
            store.scan(&[SeriesId(series)], from, Timestamp::from_micros(from.micros() + 3_600_000_000)).await?;
            times.push(clock.monotonic() - began);
        }
    }
    store.close().await?;
    std::fs::remove_dir_all(&directory)?;
    println!(
        "{name}: {ROUNDS} flushes of {} points, {bytes} bytes in all; medians: flush {:?}, first read of a file {:?}, \
         next read {:?}; opened in {opened:?}",
        SERIES as i64 * POINTS,
        median(flushes),
        median(cold),
        median(warm)
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
