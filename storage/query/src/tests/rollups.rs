//! Answers have the same bits with rollups and without: whatever policies, points, upkeep and questions there are. And
//! rollups are used: it is counted what answers are made from.

use std::time::Duration;

use async_trait::async_trait;
use orzo_index::{ArchivePolicy, Metric, NewMetric, PolicyItem};
use orzo_model::{Point, Scope, SeriesId};
use orzo_store::{AppendReceipt, StoreError, StoreStats};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    AggregatesAnswer, AggregatesQuery, MeasuredSeries, MeasuresQuery, PointStore, PostedMeasures,
    operations::{Operation, Reference},
};

const DAY: i64 = 86_400;

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

    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        self.0.delete_series(series).await
    }

    async fn settle(&self) -> Result<StoreStats, StoreError> {
        self.0.settle().await
    }
}

/// One store under two engines, one of which knows no rollups.
struct House {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    index: Arc<Index>,
    store: Arc<Store>,
    rolled: Engine,
    raw: Engine,
}

impl House {
    /// It is so many seconds after the start.
    async fn new(now: i64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = ManualClock::new(Timestamp::from_secs(START + now));
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        // No policies and types: they would be made anew for each case.
        let settings = IndexSettings { create_defaults: false, ..IndexSettings::default() };
        let index = Arc::new(Index::open(database, clock.clone(), settings).await.expect("the index opens"));
        let store = Self::store(directory.path(), &clock).await;
        let (rolled, raw) = Self::engines(&index, &store, &clock).await;
        Self { directory, clock, index, store, rolled, raw }
    }

    async fn store(directory: &std::path::Path, clock: &Arc<ManualClock>) -> Arc<Store> {
        let settings = StoreSettings {
            directory: directory.to_owned(),
            disk_reserve_bytes: 0,
            compact_files_min: 2,
            wal_segment_bytes: 1 << 20,
            removed_grace: Duration::ZERO,
            // Some questions are too large for one read.
            scan_points_max: 1000,
            ..StoreSettings::default()
        };
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        Store::open(settings, room, clock.clone()).await.expect("the store opens")
    }

    async fn engines(index: &Arc<Index>, store: &Arc<Store>, clock: &Arc<ManualClock>) -> (Engine, Engine) {
        let engine = async |store: Arc<dyn PointStore>| {
            let room = Rooms::new(&prometheus::Registry::new()).room("engine");
            let definitions = ResourceDefinitions::shipped();
            Engine::new(index.clone(), store, definitions, room, clock.clone(), EngineSettings::default())
                .await
                .expect("the engine starts")
        };
        (engine(store.clone()).await, engine(Arc::new(Unrolled(store.clone()))).await)
    }

    async fn open_again(&mut self) {
        self.store.close().await.expect("closed");
        self.store = Self::store(self.directory.path(), &self.clock).await;
        (self.rolled, self.raw) = Self::engines(&self.index, &self.store, &self.clock).await;
    }

    async fn metric(&self, name: &str, items: &[(u64, Option<i64>)], methods: &[&str]) -> Metric {
        let item = |(width, points): &(u64, Option<i64>)| {
            PolicyItem::new(Some(Duration::from_secs(*width)), *points, None).expect("an item")
        };
        let methods = methods.iter().map(|&method| method.to_owned()).collect();
        let items = items.iter().map(item).collect();
        let policy = ArchivePolicy::new(name, 0, items, Some(methods), &[]).expect("a policy");
        self.index.create_archive_policy(&policy).await.expect("made");
        let new = NewMetric { creator: "u:p".into(), archive_policy_name: Some(name.into()), ..NewMetric::default() };
        self.index.create_metric(&new).await.expect("made")
    }

    async fn post(&self, metric: &Metric, measures: Vec<Measure>) {
        self.rolled.post_measures(&[PostedMeasures { metric: metric.clone(), measures }]).await.expect("kept");
    }

    /// All that is due, and merged.
    async fn roll(&self) {
        while self.rolled.roll_up().await.expect("made").is_some() {}
    }

    /// Rows of rollups and raw points that were read since the start.
    fn read(&self) -> (u64, u64) {
        let count = |source| self.rolled.rows_read().with_label_values(&[source]).get();
        (count("rollups"), count("raw"))
    }
}

/// Bits, so that minus zero is not zero; a NaN is a NaN.
fn bits(measures: &[AggregatedMeasure]) -> Vec<(i64, Width, u64)> {
    let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    measures.iter().map(|m| (m.timestamp.micros(), m.granularity, bits(m.value))).collect()
}

#[derive(Clone, Debug)]
struct Burst {
    metric: usize,
    start: i64,
    step: i64,
    values: Vec<f64>,
}

#[derive(Clone, Debug)]
enum Step {
    Post(Vec<Burst>),
    Delete(usize),
    Flush,
    Settle,
    Retain(i64),
    Roll,
    Advance(u64),
    OpenAgain,
}

#[derive(Clone, Debug)]
struct Question {
    metric: usize,
    method: &'static str,
    granularity: Option<u64>,
    start: Option<i64>,
    stop: Option<i64>,
    resample: bool,
    beyond_policy: bool,
}

const METHODS: &[&str] =
    &["mean", "sum", "last", "max", "min", "std", "median", "first", "count", "90pct", "rate:mean"];
const WIDTHS: &[u64] = &[600, 3600, 7000, 21_600, 86_400, 172_800];
const METRICS: usize = 3;

fn burst() -> impl Strategy<Value = Burst> {
    let value = prop_oneof![
        6 => (-500..500i32).prop_map(|n| f64::from(n) / 100.0),
        2 => any::<f64>(),
        1 => select(&[f64::NAN, -0.0, f64::INFINITY, 1e300, 0.1]),
    ];
    // Half an hour apart or less, so that hours have enough points to be kept; some alone.
    (
        0..METRICS,
        -3 * 288..3 * 288i64,
        select(&[60i64, 300, 900]),
        prop_oneof![1 => vec(value.clone(), 1..3), 3 => vec(value, 20..90)],
    )
        .prop_map(|(metric, start, step, values)| Burst { metric, start: start * 300, step, values })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(burst(), 1..4).prop_map(Step::Post),
        1 => (0..METRICS).prop_map(Step::Delete),
        4 => Just(Step::Flush),
        1 => Just(Step::Settle),
        1 => (-3 * DAY..3 * DAY).prop_map(Step::Retain),
        5 => Just(Step::Roll),
        3 => (1..200_000u64).prop_map(Step::Advance),
        1 => Just(Step::OpenAgain),
    ]
}

fn question() -> impl Strategy<Value = Question> {
    let time = || prop::option::of(-4 * DAY..4 * DAY);
    (0..METRICS, select(METHODS), prop::option::of(select(WIDTHS)), time(), time(), any::<bool>(), any::<bool>())
        .prop_map(|(metric, method, granularity, start, stop, resample, beyond_policy)| Question {
            metric,
            method,
            granularity,
            start,
            stop,
            resample: resample && granularity.is_some(),
            beyond_policy,
        })
}

/// For each metric widths with how many points are answered, and methods.
type Policies = Vec<(Vec<(u64, Option<i64>)>, Vec<&'static str>)>;

fn policies() -> impl Strategy<Value = Policies> {
    let items = prop::sample::subsequence(WIDTHS.to_vec(), 1..4).prop_flat_map(|widths| {
        let count = widths.len();
        vec(prop::option::of(1..400i64), count).prop_map(move |points| widths.iter().copied().zip(points).collect())
    });
    vec((items, prop::sample::subsequence(METHODS.to_vec(), 1..6)), METRICS)
}

async fn same_answers(house: &House, metrics: &[Metric], question: &Question) {
    let at = |second: i64| Timestamp::from_secs(START + second);
    let metric = &metrics[question.metric];
    let query = MeasuresQuery {
        aggregation: question.method.into(),
        granularity: question.granularity.map(Duration::from_secs),
        start: question.start.map(at),
        stop: question.stop.map(at),
        resample: question.resample.then_some(Width::Span(Duration::from_secs(43_200))),
        beyond_policy: question.beyond_policy,
    };
    match (house.rolled.measures(metric, &query).await, house.raw.measures(metric, &query).await) {
        (Ok(rolled), Ok(raw)) => assert_eq!(bits(&rolled), bits(&raw), "{question:?}"),
        (Err(rolled), Err(raw)) => assert_eq!(rolled.to_string(), raw.to_string()),
        (rolled, raw) => panic!("{question:?}: {rolled:?} {raw:?}"),
    }
    let reference = |metric: &Metric| Reference { name: metric.id.to_string(), aggregation: question.method.into() };
    let query = AggregatesQuery {
        scope: Scope::All,
        operation: Operation::Metric(metrics.iter().map(reference).collect()),
        start: query.start,
        stop: query.stop,
        granularity: query.granularity,
        needed_overlap: Some(0.0),
        beyond_policy: true,
        ..AggregatesQuery::default()
    };
    let flat = |answer| match answer {
        Ok(AggregatesAnswer::Single(one)) => match one.measures {
            MeasuredSeries::ByMetric(all) => {
                Ok(all.into_iter().map(|(id, _, own)| (id, bits(&own))).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        },
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(crate::QueryError::to_string(&error)),
    };
    assert_eq!(
        flat(house.rolled.aggregates(&query).await),
        flat(house.raw.aggregates(&query).await),
        "together: {question:?}"
    );
}

async fn run(policies: Policies, steps: Vec<(Step, Vec<Question>)>) {
    // Most bursts are in days that are over.
    let mut house = House::new(2 * DAY).await;
    let mut metrics = Vec::new();
    for (number, (items, methods)) in policies.iter().enumerate() {
        metrics.push(house.metric(&format!("policy{number}"), items, methods).await);
    }
    for (step, questions) in steps {
        match step {
            Step::Post(bursts) => {
                for Burst { metric, start, step, values } in bursts {
                    let measures = values.iter().zip(0..).map(|(value, n)| measure(start + n * step, *value)).collect();
                    house.post(&metrics[metric], measures).await;
                }
            }
            Step::Delete(metric) => house.store.delete_series(&[metrics[metric].series]).await.expect("deleted"),
            Step::Flush => house.store.flush().await.expect("flushed"),
            Step::Settle => {
                house.store.settle().await.expect("done");
            }
            Step::Retain(second) => {
                house.store.retain(Timestamp::from_secs(START + second)).await.expect("removed");
            }
            Step::Roll => {
                // Days are made when they got no points for a while.
                house.store.flush().await.expect("flushed");
                house.clock.advance(Duration::from_secs(3700));
                house.roll().await;
            }
            Step::Advance(seconds) => house.clock.advance(Duration::from_secs(seconds)),
            Step::OpenAgain => house.open_again().await,
        }
        for question in questions {
            same_answers(&house, &metrics, &question).await;
        }
        // What is kept for sure, of all time.
        for (metric, (items, methods)) in policies.iter().enumerate() {
            for (method, (width, _)) in methods.iter().zip(items.iter().cycle()) {
                let granularity = Some(*width);
                let (start, stop, resample, beyond_policy) = (None, None, false, true);
                let question = Question { metric, method, granularity, start, stop, resample, beyond_policy };
                same_answers(&house, &metrics, &question).await;
            }
        }
    }
    house.store.flush().await.expect("flushed");
    house.clock.advance(Duration::from_secs(9 * DAY as u64));
    house.roll().await;
    for number in 0..WIDTHS.len() * METRICS {
        for method in METHODS {
            let granularity = Some(WIDTHS[number / METRICS]);
            let (metric, start, stop) = (number % METRICS, None, None);
            let question =
                Question { metric, method, granularity, start, stop, resample: false, beyond_policy: number % 2 == 0 };
            same_answers(&house, &metrics, &question).await;
        }
    }
    house.store.close().await.expect("closed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn answers_have_the_same_bits_with_rollups_and_without(
        policies in policies(),
        steps in vec((step(), vec(question(), 0..4)), 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(policies, steps));
    }
}

/// A metric with a point a minute for so many days, all over and in files.
async fn minutes(house: &House, days: i64) -> Metric {
    let metric = house.metric("hours", &[(60, Some(1440)), (3600, None)], &["mean", "max", "95pct"]).await;
    for day in 0..days {
        let measures = (0..1440).map(|minute| measure(day * DAY + minute * 60, ((day + minute) % 97) as f64 / 10.0));
        house.post(&metric, measures.collect()).await;
        house.store.flush().await.expect("flushed");
    }
    house.clock.advance(Duration::from_secs((days as u64 + 1) * DAY as u64));
    metric
}

#[tokio::test]
async fn days_that_are_over_are_read_from_rollups_and_the_rest_from_points() {
    let house = House::new(0).await;
    let metric = minutes(&house, 5).await;
    let hourly = |method: &str, start: i64, stop: i64| MeasuresQuery {
        aggregation: method.into(),
        granularity: Some(Duration::from_secs(3600)),
        start: Some(Timestamp::from_secs(START + start)),
        stop: Some(Timestamp::from_secs(START + stop)),
        ..MeasuresQuery::default()
    };
    let asked = async |query: &MeasuresQuery| {
        let before = house.read();
        let answer = house.rolled.measures(&metric, query).await.expect("answered");
        assert_eq!(bits(&answer), bits(&house.raw.measures(&metric, query).await.expect("answered")));
        let after = house.read();
        (answer.len(), after.0 - before.0, after.1 - before.1)
    };
    assert_eq!(asked(&hourly("mean", 0, 5 * DAY)).await, (120, 0, 7200), "none are made yet");
    house.roll().await;
    // Sum and count of each hour.
    assert_eq!(asked(&hourly("mean", 0, 5 * DAY)).await, (120, 240, 0));
    assert_eq!(asked(&hourly("max", 0, 5 * DAY)).await, (120, 120, 0));
    assert_eq!(asked(&hourly("95pct", DAY, 2 * DAY + 7200)).await, (26, 26, 0), "parts of days, too");
    let minutely = MeasuresQuery { granularity: Some(Duration::from_secs(60)), ..hourly("mean", 4 * DAY, 5 * DAY) };
    assert_eq!(asked(&minutely).await, (1440, 0, 1440), "one point a bucket is not kept");
    // All granularities at once: the last day is read for its minutes anyway, and it gives its hours, too.
    let all = MeasuresQuery { aggregation: "mean".into(), ..MeasuresQuery::default() };
    assert_eq!(asked(&all).await, (120 + 1440, 2 * 24 * 4, 1440));
    // A late point: that day comes from points, whether it is in the head, in a file, or merged; then it is made again.
    house.post(&metric, vec![measure(2 * DAY + 5, 1000.0)]).await;
    assert_eq!(asked(&hourly("mean", 0, 5 * DAY)).await, (120, 2 * 24 * 4, 1441));
    house.store.flush().await.expect("flushed");
    assert_eq!(asked(&hourly("mean", 0, 5 * DAY)).await, (120, 2 * 24 * 4, 1441));
    house.clock.advance(Duration::from_secs(3600));
    house.roll().await;
    assert_eq!(asked(&hourly("mean", 0, 5 * DAY)).await, (120, 240, 0));
    // What is open is read from points.
    house.post(&metric, (0..90).map(|minute| measure(6 * DAY + minute * 60, 1.0)).collect()).await;
    assert_eq!(asked(&hourly("mean", 4 * DAY, 8 * DAY)).await, (26, 48, 90));
    // Changes need the point before, and are not kept.
    let changes = MeasuresQuery { beyond_policy: true, ..hourly("rate:mean", 0, DAY) };
    assert_eq!(asked(&changes).await, (24, 0, 1440));
    house.store.delete_series(&[metric.series]).await.expect("deleted");
    assert_eq!(asked(&hourly("mean", 0, 8 * DAY)).await, (0, 0, 0));
}
