//! What rollups cost and what they save: `cargo run --release -p orzo-query --example rollups -- [series] [days]`.
//!
//! Series with a point a minute for so many days go in through the engine's store; then rollups of an hour are made, and
//! questions over 30 and 90 days are asked of two engines over the same store, one of which knows no rollups. Told is the
//! processor's time of the whole process; every answer is compared.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_database::Database;
use orzo_definitions::ResourceDefinitions;
use orzo_index::{ArchivePolicy, Index, IndexSettings, Metric, NewMetric, PolicyItem};
use orzo_model::{ManualClock, Measure, Point, Rooms, Scope, SeriesId, Timestamp};
use orzo_query::{
    AggregatedMeasure, AggregatesAnswer, AggregatesQuery, Engine, EngineSettings, MeasuresQuery, PointStore,
    operations::{Operation, Reference},
};
use orzo_store::{AppendReceipt, Store, StoreError, StoreSettings, StoreStats};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The beginning of a day.
const START: i64 = 1_799_971_200;
const DAY: i64 = 86_400;
/// Points of a day: one a minute.
const MINUTES: i64 = 1440;
/// How often each question is asked: ticks of the processor's time are long.
const TIMES: usize = 20;

/// The same store, as if it had no rollups.
struct Unrolled(Arc<Store>);

#[async_trait]
impl PointStore for Unrolled {
    async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
        self.0.append(points).await
    }

    async fn scan(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        self.0.scan(series, from, to).await
    }

    async fn last_before(&self, series: SeriesId, before: Timestamp) -> Result<Option<Measure>, StoreError> {
        self.0.last_before(series, before).await
    }

    async fn last(&self, series: SeriesId) -> Result<Option<Measure>, StoreError> {
        self.0.last(series).await
    }

    async fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        self.0.last_of(series).await
    }

    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        self.0.delete_series(series).await
    }

    async fn settle(&self) -> Result<StoreStats, StoreError> {
        self.0.settle().await
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<i64>());
    let series = numbers.next().transpose()?.unwrap_or(200);
    let days = numbers.next().transpose()?.unwrap_or(92);
    let directory = tempfile::tempdir()?;
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let rooms = Rooms::new(&prometheus::Registry::new());
    let settings = StoreSettings {
        directory: directory.path().to_owned(),
        disk_reserve_bytes: 0,
        scan_points_max: 200_000_000,
        ..StoreSettings::default()
    };
    let store = Store::open(settings, rooms.room("store"), clock.clone()).await?;
    let index = Index::open(Database::open("sqlite::memory:").await?, clock.clone(), IndexSettings::default()).await?;
    let index = Arc::new(index);
    let mut engines = Vec::new();
    for points in [store.clone() as Arc<dyn PointStore>, Arc::new(Unrolled(store.clone()))] {
        let room = Rooms::new(&prometheus::Registry::new()).room("engine");
        let definitions = ResourceDefinitions::shipped();
        let settings = EngineSettings::default();
        engines.push(Engine::new(index.clone(), points, definitions, room, clock.clone(), settings).await?);
    }
    let item = |width, points| PolicyItem::new(Some(Duration::from_secs(width)), points, None);
    let methods = ["mean", "max", "min", "count"].map(str::to_owned).to_vec();
    let items = vec![item(60, Some(7 * MINUTES))?, item(3600, None)?];
    index.create_archive_policy(&ArchivePolicy::new("months", 0, items, Some(methods), &[])?).await?;
    let mut metrics = Vec::new();
    for _ in 0..series {
        let new =
            NewMetric { creator: "u:p".into(), archive_policy_name: Some("months".into()), ..NewMetric::default() };
        metrics.push(index.create_metric(&new).await?);
    }

    let begun = cpu_seconds()?;
    for day in 0..days {
        for metrics in metrics.chunks(100) {
            let mut points = Vec::with_capacity(metrics.len() * MINUTES as usize);
            for minute in 0..MINUTES {
                let timestamp = Timestamp::from_secs(START + day * DAY + minute * 60);
                points.extend(metrics.iter().zip(0..).map(|(metric, n)| {
                    // A load that goes up and down with the day, with noise, in hundredths of a percent.
                    let load = 4000.0 + 3000.0 * (minute as f64 / 230.0).sin();
                    let noise = ((day * 7919 + minute * 104_729 + n * 1299) % 1000) as f64;
                    Point { series: metric.series, timestamp, value: (load + noise).round() / 100.0 }
                }));
            }
            store.append(points).await?;
        }
        store.flush().await?;
    }
    let ingested = cpu_seconds()? - begun;
    clock.advance(Duration::from_secs((days + 1) as u64 * DAY as u64));
    store.settle().await?;
    let begun = cpu_seconds()?;
    while engines[0].roll_up().await?.is_some() {}
    let rolled = cpu_seconds()? - begun;
    let (points, stats) = ((series * days * MINUTES) as f64, store.stats());
    println!("{series} series, {days} days, {points} points");
    println!("ingest and flush: {ingested:.1} s of processor, {:.0} ns a point", ingested / points * 1e9);
    println!(
        "rollups: {rolled:.1} s of processor, {:.0} ns a point, {:.1} % of ingest; {} rows in {} files, {} bytes ({:.1} % of the points')",
        rolled / points * 1e9,
        rolled / ingested * 100.0,
        stats.rollup_rows,
        stats.rollup_files,
        stats.rollup_bytes,
        stats.rollup_bytes as f64 / stats.file_bytes as f64 * 100.0,
    );
    println!("{:>7} {:>5} {:>6} {:>12} {:>12} {:>6}", "series", "days", "method", "raw ms", "rollups ms", "ratio");
    for count in [1, 20, metrics.len()] {
        for span in [30, 90] {
            for method in ["mean", "max"] {
                let mut took = Vec::new();
                let mut answers = Vec::new();
                // The second engine knows no rollups.
                for engine in engines.iter().rev() {
                    let mut answer =
                        ask(engine, &metrics[..count.min(metrics.len())], method, days - span, days).await?;
                    let begun = cpu_seconds()?;
                    for _ in 0..TIMES {
                        answer = ask(engine, &metrics[..count.min(metrics.len())], method, days - span, days).await?;
                    }
                    took.push((cpu_seconds()? - begun) / TIMES as f64 * 1000.0);
                    answers.push(answer);
                }
                if answers[0] != answers[1] {
                    return Err("answers differ".into());
                }
                let ratio = took[0] / took[1];
                println!("{count:>7} {span:>5} {method:>6} {:>12.2} {:>12.2} {ratio:>6.1}", took[0], took[1]);
            }
        }
    }
    store.close().await?;
    Ok(())
}

#[derive(PartialEq)]
enum Answer {
    One(Vec<AggregatedMeasure>),
    Many(AggregatesAnswer),
}

/// The hours of these metrics between two days: one metric's measures, or all of them beside each other.
async fn ask(engine: &Engine, metrics: &[Metric], method: &str, from: i64, to: i64) -> Outcome<Answer> {
    let (start, stop) = (Timestamp::from_secs(START + from * DAY), Timestamp::from_secs(START + to * DAY));
    let granularity = Some(Duration::from_secs(3600));
    if let [metric] = metrics {
        let query = MeasuresQuery {
            aggregation: method.into(),
            granularity,
            start: Some(start),
            stop: Some(stop),
            ..MeasuresQuery::default()
        };
        return Ok(Answer::One(engine.measures(metric, &query).await?));
    }
    let reference = |metric: &Metric| Reference { name: metric.id.to_string(), aggregation: method.into() };
    let query = AggregatesQuery {
        scope: Scope::All,
        operation: Operation::Metric(metrics.iter().map(reference).collect()),
        start: Some(start),
        stop: Some(stop),
        granularity,
        ..AggregatesQuery::default()
    };
    Ok(Answer::Many(engine.aggregates(&query).await?))
}

fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
