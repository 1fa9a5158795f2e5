//! How much processor time it takes to evaluate threshold alarms: `cargo run --release -p orzo-alarms --example evaluate
//! [alarms] [minutes] [turning per million]`.
//!
//! Each alarm looks at a metric of its own that gets a sample every 60 s. The reader is in this process and costs next to
//! nothing, so that the figures are the evaluator's: being told of samples, reading, judging, and writing the few alarms
//! that turn. The clock is moved by hand; processor time is the process's own, from the kernel.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_alarms::{AlarmBook, AlarmRequest, ArrivalBox, Evaluator, EvaluatorParts, EvaluatorSettings};
use orzo_database::Database;
use orzo_model::{
    Arrivals, Clock, ManualClock, Measure, Point, ReadError, Rooms, Scope, SeriesId, SystemClock, Target, Timestamp,
    WindowRead, WindowReader,
};
use serde_json::json;

const MINUTE: Duration = Duration::from_secs(60);
/// Samples that are written together.
const BATCH: u64 = 1000;

/// A store that knows every sample without keeping it: the value follows from the series and the minute.
struct Computed {
    turning_per_million: u64,
}

impl Computed {
    fn value(&self, series: SeriesId, at: Timestamp) -> f64 {
        let minute = at.secs() as u64 / 60;
        // Some series are beyond the threshold every second minute.
        let turns = series.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let is_high = turns % 1_000_000 < self.turning_per_million && minute.is_multiple_of(2);
        if is_high { 95.0 } else { 10.0 + (series.0 % 50) as f64 }
    }
}

#[async_trait]
impl WindowReader for Computed {
    async fn find_series(&self, _: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        match target {
            Target::Resource { resource_id, .. } => match resource_id.parse() {
                Ok(number) => Ok(Arc::from([SeriesId(number)])),
                Err(_) => Err(ReadError::NotFound { what: format!("Resource {resource_id}") }),
            },
            _ => Err(ReadError::NotFound { what: "Metric".into() }),
        }
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        let windows = |read: &WindowRead| {
            let mut measures = Vec::new();
            let mut at = read.start.floor(read.granularity);
            while at < read.stop {
                measures.push(Measure { timestamp: at, value: self.value(read.series[0], at) });
                at = at.plus(read.granularity);
            }
            measures
        };
        reads.iter().map(|read| Ok(windows(read))).collect()
    }
}

/// Processor time of this process so far, in seconds: user and system, from the kernel's counters.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("this runs on Linux");
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("numbers"));
    let alarms = arguments.next().unwrap_or(100_000);
    let minutes = arguments.next().unwrap_or(10);
    let turning_per_million = arguments.next().unwrap_or(100);
    let start = Timestamp::from_secs(1_800_000_000);
    let clock = ManualClock::new(start);
    let wall = SystemClock::new();
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
    for number in 1..=alarms {
        let body = json!({
            "name": format!("alarm {number}"), "type": "gnocchi_resources_threshold",
            "alarm_actions": ["http://203.0.113.7/alarm"],
            "gnocchi_resources_threshold_rule": {
                "metric": "cpu", "resource_id": number.to_string(), "resource_type": "instance", "threshold": 80.0,
                "aggregation_method": "mean", "comparison_operator": "gt", "granularity": 60, "evaluation_periods": 3}
        });
        let request = AlarmRequest::parse(&body, false).expect("a good request");
        book.create(&request, "user", "project", false).await.expect("created");
    }
    println!("{alarms} alarms over {alarms} metrics, {turning_per_million} per million of them turning each minute");
    let arrivals = Arc::new(ArrivalBox::default());
    let parts = EvaluatorParts {
        book,
        reader: Arc::new(Computed { turning_per_million }),
        events: None,
        prometheus: None,
        members: None,
        arrivals: Some(arrivals.clone()),
        clock: clock.clone(),
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    let evaluator = Evaluator::new(parts, EvaluatorSettings::default());
    // The first look loads everything and judges what is there already.
    clock.set(start.plus(Duration::from_secs(10)));
    let first = evaluator.tick().await.expect("evaluated");
    println!("loaded and judged for the first time: {first} alarms, {:.2} s of processor", processor_seconds());
    let mut worst = Duration::ZERO;
    let mut judged = 0;
    let mut busy = Duration::ZERO;
    let before = processor_seconds();
    for minute in 1..=minutes {
        let slot = start.plus(MINUTE * u32::try_from(minute).expect("few minutes"));
        clock.set(slot.plus(Duration::from_millis(300)));
        let begun = wall.monotonic();
        let mut points = Vec::with_capacity(BATCH as usize);
        for series in 1..=alarms {
            points.push(Point { series: SeriesId(series), timestamp: slot, value: 0.0 });
            if points.len() as u64 == BATCH || series == alarms {
                arrivals.points(&points);
                points.clear();
            }
        }
        judged += evaluator.tick().await.expect("evaluated");
        let took = wall.monotonic() - begun;
        worst = worst.max(took);
        busy += took;
    }
    let used = processor_seconds() - before;
    println!("{judged} evaluations in {minutes} minutes of the manual clock");
    println!("{:.2} s of processor, {:.2} s by the wall", used, busy.as_secs_f64());
    println!("{:.0} alarms per processor second", judged as f64 / used.max(0.01));
    println!("{:.2} % of one core, each alarm once a minute", used / (minutes as f64 * 60.0) * 100.0);
    println!(
        "{:.0} ms from the first sample of a minute to the last alarm judged, at worst",
        worst.as_secs_f64() * 1e3
    );
}
