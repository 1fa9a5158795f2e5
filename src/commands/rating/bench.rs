//! `orzo rating bench`: rates a made-up month, to tell how fast this machine rates. Everything is real but the usage: book,
//! rules, processor, and a ledger on disk.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use async_trait::async_trait;
use futures::TryStreamExt;
use orzo_database::Database;
use orzo_ledger::LedgerTable;
use orzo_model::{Clock, Event, ManualClock, Measure, Rooms, SystemClock, Timestamp, Trait, TraitValue};
use orzo_rating::{
    BigDecimal, Kind, Ledger, LineFilter, Metrics, NewMapping, Processor, RatingBook, RatingSettings,
    doors::{Evidence, UsageReadError, UsageReader, Wanted},
};
use orzo_store::files::real::RealDisk;
use serde_json::json;

/// 2026-11-01.
const BEGIN: i64 = 1_793_491_200;
const DAY: i64 = 86_400;
/// Resources of one project.
const PROJECT_RESOURCES: usize = 100;
const FLAVORS: usize = 20;
/// Of `/proc/self/stat`; Linux has no other on any machine that it runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(clap::Args)]
pub(super) struct Bench {
    /// How many resources.
    #[arg(long, default_value_t = 10_000)]
    resources: usize,
    /// How many days, in periods of an hour.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// Where the ledger is made; a directory that is not there, and is left there.
    #[arg(long, value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Servers that are resized once in a while.
struct MadeUp {
    resources: usize,
}

fn project_of(number: usize) -> String {
    format!("{:032x}", number / PROJECT_RESOURCES)
}

fn flavor(number: usize) -> String {
    format!("flavor-{}", number % FLAVORS)
}

fn event(number: usize, what: u32, at: i64, flavor: String) -> Event {
    let text = |name: &str, value: String| Trait { name: name.to_owned(), value: TraitValue::Text(value) };
    Event {
        message_id: format!("{number}-{what}"),
        event_type: "compute.instance.update".to_owned(),
        generated_at: Timestamp::from_secs(at),
        traits: vec![
            text("project_id", project_of(number)),
            text("user_id", format!("{:032x}", 7)),
            text("instance_type", flavor),
            text("state", "active".to_owned()),
            Trait { name: "launched_at".to_owned(), value: TraitValue::Datetime(Timestamp::from_secs(BEGIN - DAY)) },
        ],
        raw: None,
    }
}

#[async_trait]
impl UsageReader for MadeUp {
    async fn scopes(&self, _: Timestamp, _: Timestamp) -> Result<Vec<String>, UsageReadError> {
        Ok((0..self.resources).step_by(PROJECT_RESOURCES).map(project_of).collect())
    }

    async fn first(&self, _: &str) -> Result<Option<Timestamp>, UsageReadError> {
        Ok(Some(Timestamp::from_secs(BEGIN - DAY)))
    }

    async fn late(&self, _: Option<i64>, _: Timestamp) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError> {
        Ok((Vec::new(), 0))
    }

    async fn evidence(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        _: &[Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError> {
        let project = usize::from_str_radix(scope, 16)
            .map_err(|error| UsageReadError::Unavailable { reason: error.to_string() })?;
        let first = project * PROJECT_RESOURCES;
        let server = |number: usize| {
            let resized_at = BEGIN + (number as i64 * 7919) % (30 * DAY);
            // Polled every five minutes.
            let points = (begin.secs()..end.secs()).step_by(300);
            let points = points.map(|at| Measure { timestamp: Timestamp::from_secs(at), value: at as f64 });
            Evidence {
                resource: format!("{number:08x}-0000-4000-8000-000000000000"),
                resource_type: "instance".to_owned(),
                started_at: Timestamp::from_secs(BEGIN - DAY),
                ended_at: None,
                revisions: Vec::new(),
                events: vec![
                    event(number, 1, BEGIN - DAY, flavor(number)),
                    event(number, 2, resized_at, flavor(number + 1)),
                ],
                measures: BTreeMap::from([("cpu".to_owned(), points.collect())]),
            }
        };
        Ok((first..self.resources.min(first + PROJECT_RESOURCES)).map(server).collect())
    }
}

/// Processor time of this process so far, in seconds.
fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

async fn rules(book: &RatingBook) -> anyhow::Result<()> {
    let service = book.create_service("bench", "instance").await?.service_id;
    let field = book.create_field("bench", &service, "flavor_name").await?.field_id;
    for number in 0..FLAVORS {
        let mapping = NewMapping {
            value: Some(flavor(number)),
            cost: BigDecimal::new((12_345_678 + number * 1_000_003).into(), 9),
            kind: Kind::Flat,
            service_id: None,
            field_id: Some(field.clone()),
            group_id: None,
            tenant_id: None,
            start: Some(Timestamp::from_secs(BEGIN - DAY)),
            end: None,
            name: None,
            description: None,
            force: true,
        };
        book.create_mapping("bench", &mapping).await?;
    }
    Ok(())
}

pub(super) async fn run(bench: Bench) -> anyhow::Result<()> {
    std::fs::create_dir(&bench.directory).with_context(|| format!("cannot make {}", bench.directory.display()))?;
    let end = BEGIN + i64::from(bench.days) * DAY;
    // The month is over, so that all of it can be rated at once.
    let settings = RatingSettings::default();
    let clock = ManualClock::new(Timestamp::from_secs(BEGIN));
    let database = Database::open_file(&bench.directory.join("orzo.db")).await?;
    let book = Arc::new(RatingBook::open(database, clock.clone()).await?);
    rules(&book).await?;
    let rooms = Rooms::new(&prometheus::Registry::new());
    let root = bench.directory.join("ledger");
    let ledger = LedgerTable::open(Arc::new(RealDisk), &root, clock.clone(), rooms.room("ledger"))?;
    let usage = Arc::new(MadeUp { resources: bench.resources });
    let door = Arc::new(ledger.clone());
    let processor =
        Processor::new(door, book, usage, Metrics::shipped(), clock.clone(), rooms.room("rating"), settings.clone());
    processor.discover().await?;
    clock.set(Timestamp::from_secs(end).plus(settings.period.saturating_mul(settings.wait_periods)));
    let wall = SystemClock::new();
    let (begun, processor_before) = (wall.monotonic(), processor_seconds()?);
    // Scopes were found at the begin of the month; the clock is a manual one and now after its end.
    let report = processor.advance(|_, _| ()).await?;
    let (took, used) = ((wall.monotonic() - begun).as_secs_f64(), processor_seconds()? - processor_before);
    let begun = wall.monotonic();
    let merged = ledger.compact().await?;
    let merging = (wall.monotonic() - begun).as_secs_f64();
    let (begun, mut read, mut sum) = (wall.monotonic(), 0_u64, BigDecimal::default());
    let mut lines = ledger.read(&LineFilter::default()).await?;
    while let Some(line) = lines.try_next().await? {
        read += 1;
        sum += line.cost;
    }
    let reading = (wall.monotonic() - begun).as_secs_f64();
    let stats = ledger.stats();
    println!(
        "{}",
        json!({
            "resources": bench.resources,
            "days": bench.days,
            "lines": report.lines,
            "appended": report.appended,
            "seconds": took,
            "processor_seconds": used,
            "lines_per_processor_second": report.lines as f64 / used.max(0.01),
            "bytes_per_line": stats.bytes as f64 / stats.lines.max(1) as f64,
            "merged_files": merged,
            "merging_seconds": merging,
            "read_lines": read,
            "reading_seconds": reading,
            "total": sum.normalized().to_plain_string(),
        })
    );
    Ok(())
}
