//! How much memory a series takes: `cargo run --release -p orzo-store --example series -- [SERIES] [POINTS OF EACH]`.
//!
//! Appends so many points to each of so many series (1,000,000 and 3), durably, to a store in a temporary directory, and
//! prints what the process' memory grew by, at its largest and at the end, the log's pages not counted.

use std::error::Error;

use orzo_model::{Point, Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{Store, StoreSettings};

/// Points of one append.
const BATCH: u64 = 2000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (series, points) = (number(1_000_000)?, number(3)?);
    let directory = tempfile::tempdir()?;
    let settings = StoreSettings { directory: directory.path().join("store"), ..StoreSettings::default() };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let store = Store::open(settings, room, SystemClock::shared()).await?;
    let before = memory("VmRSS")?;
    for step in 0..points {
        for first in (1..=series).step_by(BATCH as usize) {
            let timestamp = Timestamp::from_secs(1_767_225_600 + step as i64 * 60);
            let point = |series| Point { series: SeriesId(series), timestamp, value: (series % 1000) as f64 };
            store.append((first..(first + BATCH).min(series + 1)).map(point).collect()).await?;
        }
    }
    let per = |bytes: u64| bytes.saturating_sub(before) as f64 / series as f64;
    println!("{series} series, {points} points each: {:.0} bytes a series at the end", per(memory("VmRSS")?));
    println!("{:.0} bytes a series at the most", per(memory("VmHWM")?));
    let stats = store.stats();
    println!("head {} bytes, {} series with their newest point in memory", stats.head_bytes, stats.newest_series);
    store.flush().await?;
    println!("{:.0} bytes a series once all is in files", per(memory("VmRSS")?));
    store.close().await?;
    Ok(())
}

/// A figure of the process' memory, in bytes.
fn memory(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such figure")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1024)
}
