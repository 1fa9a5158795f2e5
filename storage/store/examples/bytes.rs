//! How many bytes a sample takes on disk, column by column, and how many samples a CPU second writes.
//!
//! `cargo run --release -p orzo-store --example bytes -- [DIRECTORY] [--batch N] [--into DIRECTORY]`
//!
//! Comes in: a directory with three files of the same samples in the order of their arrival, `c_series.u32`, `c_ts.i64`
//! (milliseconds) and `c_val.f64`, little-endian; without one, samples as a hundred hosts would send them. Goes out: a
//! table of bytes for each sample, everything on disk counted, and of CPU time for each stage. It appends in batches of
//! `--batch` samples (2,000), durably, to a store in a temporary directory, or in `--into` to look at it afterwards.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_model::{Clock, Point, Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{Store, StoreSettings};
use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let (mut source, mut into, mut batch) = (None, None, 2000);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--batch" => batch = arguments.next().ok_or("--batch needs a number")?.parse()?,
            "--into" => into = Some(PathBuf::from(arguments.next().ok_or("--into needs a directory")?)),
            _ => source = Some(PathBuf::from(argument)),
        }
    }
    let points = match &source {
        Some(directory) => read_points(directory)?,
        None => made_points(100, 10, 8640),
    };
    let name =
        source.as_ref().map_or("100 hosts, 10 metrics, every 10 s for a day".into(), |path| path.display().to_string());
    let series = points.iter().map(|point| point.series).collect::<std::collections::HashSet<_>>().len();
    println!("{name}: {} samples, {series} series", points.len());

    let directory = tempfile::tempdir()?;
    let place = into.unwrap_or_else(|| directory.path().join("store"));
    let settings = StoreSettings { directory: place, ..StoreSettings::default() };
    let table = settings.directory.join("samples");
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let clock = Arc::new(SystemClock::new());
    let store = Store::open(settings.clone(), room.clone(), clock.clone()).await?;

    let cpu = cpu_seconds()?;
    let mut stages = Stages { begun: cpu, cpu, wall: clock.monotonic().as_secs_f64(), samples: points.len() };
    // Several callers at once, as connections are: their batches share syncs.
    let callers = 4;
    let points: Arc<Vec<Point>> = Arc::new(points);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, points) = (store.clone(), points.clone());
            tokio::spawn(async move {
                for batch in points.chunks(batch).skip(caller).step_by(callers) {
                    if let Err(error) = store.append(batch.to_vec()).await {
                        return Err(error.to_string());
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    stages.ended("append, with the flushes and merges that it caused", &clock)?;
    store.flush().await?;
    stages.ended("last flush", &clock)?;
    let merged = store.compact().await?;
    stages.ended(&format!("last merges ({merged} files)"), &clock)?;
    stages.all()?;
    store.checkpoint().await?;
    store.close().await?;
    drop(store);
    // What left the table is removed once outside readers have gone on; here there are none.
    let settings = StoreSettings { removed_grace: std::time::Duration::ZERO, ..settings };
    let store = Store::open(settings.clone(), room, clock.clone()).await?;
    store.vacuum().await?;
    store.close().await?;
    columns(&table, points.len())?;
    let all = bytes_below(&settings.directory)?;
    let wal = bytes_below(&settings.directory.join("wal"))?;
    println!(
        "{:>9.4} B/sample  everything on disk ({all} bytes), of which the empty log {:.4}",
        per(all, points.len()),
        per(wal, points.len())
    );
    Ok(())
}

/// CPU and wall time since the last stage.
struct Stages {
    begun: f64,
    cpu: f64,
    wall: f64,
    samples: usize,
}

impl Stages {
    fn all(&self) -> Outcome<()> {
        let spent = cpu_seconds()? - self.begun;
        println!("{spent:>9.2} CPU s  all of it: {:.2} M samples a CPU second", self.samples as f64 / spent / 1e6);
        Ok(())
    }

    fn ended(&mut self, what: &str, clock: &SystemClock) -> Outcome<()> {
        let (cpu, wall) = (cpu_seconds()?, clock.monotonic().as_secs_f64());
        let spent = cpu - self.cpu;
        let rate = if spent > 0.0 { self.samples as f64 / spent / 1e6 } else { 0.0 };
        println!("{spent:>9.2} CPU s, {:>6.2} s  {what}: {rate:.2} M samples a CPU second", wall - self.wall);
        (self.cpu, self.wall) = (cpu, wall);
        Ok(())
    }
}

fn per(bytes: u64, samples: usize) -> f64 {
    bytes as f64 / samples as f64
}

/// Of this process, all threads.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// What each column of the live files takes.
fn columns(table: &Path, samples: usize) -> Outcome<()> {
    let (mut by_column, mut all, mut count) = (std::collections::BTreeMap::<String, u64>::new(), 0, 0);
    for day in std::fs::read_dir(table)? {
        let day = day?.path();
        if !day.is_dir() || day.ends_with("_delta_log") {
            continue;
        }
        for file in std::fs::read_dir(day)? {
            let file = std::fs::File::open(file?.path())?;
            all += file.metadata()?.len();
            count += 1;
            let reader = SerializedFileReader::new(file)?;
            for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
                *by_column.entry(column.column_path().string()).or_default() += column.compressed_size() as u64;
            }
        }
    }
    for (column, bytes) in &by_column {
        println!("{:>9.4} B/sample  {column}", per(*bytes, samples));
    }
    let rest = all - by_column.values().sum::<u64>();
    println!("{:>9.4} B/sample  index and footers", per(rest, samples));
    println!("{:>9.4} B/sample  {count} data files", per(all, samples));
    Ok(())
}

fn bytes_below(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.metadata()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

fn read_points(directory: &Path) -> Outcome<Vec<Point>> {
    let series = std::fs::read(directory.join("c_series.u32"))?;
    let times = std::fs::read(directory.join("c_ts.i64"))?;
    let values = std::fs::read(directory.join("c_val.f64"))?;
    let rows = series.chunks_exact(4).zip(times.chunks_exact(8)).zip(values.chunks_exact(8));
    rows.map(|((series, time), value)| {
        Ok(Point {
            series: SeriesId(u64::from(u32::from_le_bytes(series.try_into()?))),
            timestamp: Timestamp::from_micros(i64::from_le_bytes(time.try_into()?) * 1000),
            value: f64::from_le_bytes(value.try_into()?),
        })
    })
    .collect()
}

/// Hosts whose metrics walk between 0 and 100 in whole steps.
fn made_points(hosts: u64, metrics: u64, steps: i64) -> Vec<Point> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut chance = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut now: Vec<f64> = (0..hosts * metrics).map(|_| (chance() % 101) as f64).collect();
    let mut points = Vec::with_capacity(now.len() * steps as usize);
    for step in 0..steps {
        for (series, value) in now.iter_mut().enumerate() {
            let walked = (0..4).map(|_| (chance() % 1000) as f64 / 500.0 - 1.0).sum::<f64>();
            *value = (*value + walked).clamp(0.0, 100.0);
            let timestamp = Timestamp::from_secs(1_767_225_600 + step * 10);
            points.push(Point { series: SeriesId(series as u64 + 1), timestamp, value: value.trunc() });
        }
    }
    points
}
