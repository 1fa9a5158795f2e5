//! Queries over a small world: series of one sample each 10 s from time zero, written as texts.

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;

use crate::{
    Labels, Limits, Plan, QueryError, RawSeries, Selected, Selection, SeriesSource, Value, Window, evaluate,
    number_text, run,
};

mod steps;

/// Series in memory.
struct World(Vec<RawSeries>);

#[async_trait]
impl SeriesSource for World {
    async fn select(&self, selection: &Selection, _: usize, _: usize) -> Result<Vec<RawSeries>, QueryError> {
        let is_in = |series: &&RawSeries| {
            selection.groups.iter().any(|group| group.iter().all(|one| one.is_match(series.labels.get(&one.name))))
        };
        let cut = |series: &RawSeries| {
            let low = series.times.partition_point(|time| *time <= selection.after_ms);
            let high = series.times.partition_point(|time| *time <= selection.until_ms);
            RawSeries {
                labels: series.labels.clone(),
                times: series.times[low..high].into(),
                values: series.values[low..high].into(),
                histograms: series.histograms.clone(),
            }
        };
        Ok(self.0.iter().filter(is_in).map(cut).filter(|series| !series.times.is_empty()).collect())
    }
}

/// `name a=b c=d | 1 2 _ stale 4`: a sample each 10 s, `_` none, `stale` the end of the series.
fn world(lines: &[&str]) -> World {
    let series = lines.iter().map(|line| {
        let (head, samples) = line.split_once('|').expect("labels | samples");
        let mut words = head.split_whitespace();
        let name = words.next().expect("a name");
        let labels = words.map(|word| word.split_once('=').expect("label=value")).chain([("__name__", name)]);
        let labels = Labels::new(labels);
        let samples: Vec<(i64, f64)> = samples
            .split_whitespace()
            .enumerate()
            .filter(|(_, text)| *text != "_")
            .map(|(at, text)| {
                let value = match text {
                    "stale" => crate::column::ABSENT,
                    text => text.parse().expect("a number"),
                };
                (at as i64 * 10_000, value)
            })
            .collect();
        RawSeries {
            labels,
            times: samples.iter().map(|(time, _)| *time).collect(),
            values: samples.iter().map(|(_, value)| *value).collect(),
            histograms: Vec::new(),
        }
    });
    World(series.collect())
}

async fn ask(world: &World, query: &str, window: Window) -> Result<Value, QueryError> {
    let limits = Limits::default();
    let plan = Plan::new(query, window, &limits)?;
    Ok(run(&plan, world, &limits, Arc::new(AtomicBool::new(false))).await?.value)
}

/// The answer at one time as text: `{labels} value` sorted and joined with `; `.
async fn at(world: &World, seconds: i64, query: &str) -> String {
    let window = Window { start_ms: seconds * 1000, end_ms: seconds * 1000, step_ms: 0 };
    match ask(world, query, window).await {
        Err(error) => format!("error: {error}"),
        Ok(Value::Scalar(numbers)) => number_text(numbers[0]),
        Ok(Value::Text(text)) => text,
        Ok(Value::Vector(series)) => {
            let mut rows: Vec<String> = series
                .iter()
                .map(|one| format!("{} {}", one.labels, number_text(one.column.get(0).expect("a value"))))
                .collect();
            if !query.starts_with("sort") && !query.starts_with("topk") {
                rows.sort();
            }
            rows.join("; ")
        }
        Ok(Value::Matrix(rows)) => rows
            .iter()
            .map(|(labels, times, values)| format!("{labels} {times:?} {values:?}"))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// The values of the only series at each step.
async fn over(world: &World, start: i64, end: i64, step: i64, query: &str) -> Vec<Option<f64>> {
    let window = Window { start_ms: start * 1000, end_ms: end * 1000, step_ms: step * 1000 };
    match ask(world, query, window).await.expect("an answer") {
        Value::Scalar(numbers) => numbers.into_iter().map(Some).collect(),
        Value::Vector(series) => {
            assert_eq!(series.len(), 1, "{series:?}");
            (0..series[0].column.0.len()).map(|at| series[0].column.get(at)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn hosts() -> World {
    world(&[
        "load host=a zone=x | 1 2 3 4 5 6 7",
        "load host=b zone=x | 10 20 30 40 50 60 70",
        "load host=c zone=y | 5 5 5 5 5 5 nan",
        "requests_total host=a code=200 | 0 10 20 30 40 50 60",
        "requests_total host=a code=500 | 0 1 2 3 1 2 3",
        "capacity host=a zone=x | 2 2 2 2 2 2 2",
        "capacity host=b zone=x | 4 4 4 4 4 4 4",
        "owner zone=x team=red | 1 1 1 1 1 1 1",
        "gone host=a | 1 2 stale",
    ])
}

#[tokio::test]
async fn selectors_find_the_last_sample_within_the_lookback() {
    let world = hosts();
    assert_eq!(at(&world, 25, "load{host=\"a\"}").await, "load{host=\"a\", zone=\"x\"} 3");
    assert_eq!(at(&world, 25, "load{host=~\"a|c\",zone!=\"y\"}").await, "load{host=\"a\", zone=\"x\"} 3");
    assert_eq!(at(&world, 25, "{__name__=~\"cap.*\",host!~\"b\"}").await, "capacity{host=\"a\", zone=\"x\"} 2");
    assert_eq!(at(&world, 359, "load{host=\"a\"}").await, "load{host=\"a\", zone=\"x\"} 7");
    // The lookback is open on its left: a sample of exactly five minutes ago is too old.
    assert_eq!(at(&world, 360, "load{host=\"a\"}").await, "");
    assert_eq!(at(&world, 15, "gone").await, "gone{host=\"a\"} 2");
    assert_eq!(at(&world, 20, "gone").await, "", "a stale marker ends a series at once");
    assert_eq!(at(&world, 60, "load{host=\"a\"} offset 30s").await, "load{host=\"a\", zone=\"x\"} 4");
    assert_eq!(at(&world, 60, "load{host=\"a\"} @ 10").await, "load{host=\"a\", zone=\"x\"} 2");
    assert_eq!(at(&world, 10, "load{host=\"a\"} offset -20s").await, "load{host=\"a\", zone=\"x\"} 4");
    assert_eq!(at(&world, 30, "load{host=\"a\"}[20s]").await, "load{host=\"a\", zone=\"x\"} [20000, 30000] [3.0, 4.0]");
    assert_eq!(over(&world, 0, 40, 20, "load{host=\"a\"} @ end()").await, [Some(5.0), Some(5.0), Some(5.0)],);
    assert!(at(&world, 0, "{host=~\".*\"}").await.starts_with("error: invalid parameter"));
}

#[tokio::test]
async fn rates_are_extrapolated_to_the_ends_of_their_range() {
    let world = hosts();
    // Samples at 10 … 60 of (0, 60]: a change of 50 over 50 s. The start is one distance away, closer than 1.1 distances,
    // but the counter would be zero there, 10 s before its first sample.
    assert_eq!(at(&world, 60, "rate(requests_total{code=\"200\"}[1m])").await, "{code=\"200\", host=\"a\"} 1");
    assert_eq!(at(&world, 60, "increase(requests_total{code=\"200\"}[1m])").await, "{code=\"200\", host=\"a\"} 60");
    // 1 2 3 1 2 3: a restart after 3, so the change is 2 + 1 + 2 = 5 over 50 s, and zero is 10 s before.
    assert_eq!(at(&world, 60, "increase(requests_total{code=\"500\"}[1m])").await, "{code=\"500\", host=\"a\"} 6");
    assert_eq!(at(&world, 60, "delta(requests_total{code=\"500\"}[1m])").await, "{code=\"500\", host=\"a\"} 2.4");
    assert_eq!(at(&world, 40, "irate(requests_total{code=\"500\"}[1m])").await, "{code=\"500\", host=\"a\"} 0.1");
    assert_eq!(at(&world, 40, "idelta(requests_total{code=\"500\"}[1m])").await, "{code=\"500\", host=\"a\"} -2");
    assert_eq!(at(&world, 60, "resets(requests_total{code=\"500\"}[1m])").await, "{code=\"500\", host=\"a\"} 1");
    assert_eq!(at(&world, 60, "changes(load{host=\"c\"}[1m])").await, "{host=\"c\", zone=\"y\"} 1");
    assert_eq!(at(&world, 60, "rate(requests_total{code=\"200\"}[10s])").await, "", "one sample has no rate");
    assert_eq!(at(&world, 60, "deriv(load{host=\"b\"}[1m])").await, "{host=\"b\", zone=\"x\"} 1");
    assert_eq!(at(&world, 60, "predict_linear(load{host=\"b\"}[1m], 100)").await, "{host=\"b\", zone=\"x\"} 170");
    assert_eq!(
        over(&world, 20, 60, 20, "rate(requests_total{code=\"200\"}[20s])").await,
        [Some(1.0), Some(1.0), Some(1.0)],
    );
}

#[tokio::test]
async fn statistics_over_time() {
    let world = hosts();
    for (query, wanted) in [
        ("avg_over_time(load{host=\"a\"}[1m])", "4.5"),
        ("sum_over_time(load{host=\"a\"}[1m])", "27"),
        ("count_over_time(load{host=\"a\"}[1m])", "6"),
        ("min_over_time(load{host=\"a\"}[1m])", "2"),
        ("max_over_time(load{host=\"a\"}[1m])", "7"),
        ("present_over_time(load{host=\"a\"}[1m])", "1"),
        ("quantile_over_time(0.5, load{host=\"a\"}[1m])", "4.5"),
        ("quantile_over_time(2, load{host=\"a\"}[1m])", "+Inf"),
        ("stdvar_over_time(load{host=\"a\"}[30s])", "0.6666666666666666"),
        ("mad_over_time(load{host=\"a\"}[30s])", "1"),
    ] {
        assert_eq!(at(&world, 60, query).await, format!("{{host=\"a\", zone=\"x\"}} {wanted}"), "{query}");
    }
    assert_eq!(at(&world, 60, "last_over_time(load{host=\"a\"}[1m])").await, "load{host=\"a\", zone=\"x\"} 7");
    assert_eq!(at(&world, 60, "max_over_time(load{host=\"c\"}[1m])").await, "{host=\"c\", zone=\"y\"} 5");
    // A subquery's times are multiples of its step: 20 and 40 of (10, 50].
    assert_eq!(at(&world, 50, "sum_over_time(load{host=\"a\"}[40s:20s])").await, "{host=\"a\", zone=\"x\"} 8");
    assert_eq!(at(&world, 60, "max_over_time(sum(load)[30s:10s])").await, "{} NaN".replace("NaN", "71"));
    assert!(
        at(&world, 60, "double_exponential_smoothing(load[1m], 2, 0.5)").await.contains("invalid smoothing factor")
    );
    // 1 2 3 with both factors 1/2 is a straight line.
    assert_eq!(
        at(&world, 20, "double_exponential_smoothing(load{host=\"a\"}[1m], 0.5, 0.5)").await,
        "{host=\"a\", zone=\"x\"} 3"
    );
}

#[tokio::test]
async fn aggregations() {
    let world = hosts();
    assert_eq!(at(&world, 50, "sum by (zone) (load)").await, "{zone=\"x\"} 66; {zone=\"y\"} 5");
    assert_eq!(at(&world, 50, "sum without (host) (load)").await, "{zone=\"x\"} 66; {zone=\"y\"} 5");
    assert_eq!(at(&world, 50, "avg(load)").await, "{} 23.666666666666668");
    assert_eq!(at(&world, 50, "count(load)").await, "{} 3");
    assert_eq!(at(&world, 50, "group(load)").await, "{} 1");
    assert_eq!(at(&world, 60, "max(load)").await, "{} 70", "NaN is not the greatest");
    assert_eq!(at(&world, 60, "min(load{host=\"c\"})").await, "{} NaN");
    assert_eq!(at(&world, 50, "stddev(load{zone=\"x\"})").await, "{} 27");
    assert_eq!(at(&world, 50, "quantile(0.5, load)").await, "{} 6");
    assert_eq!(
        at(&world, 50, "topk(2, load)").await,
        "load{host=\"b\", zone=\"x\"} 60; load{host=\"a\", zone=\"x\"} 6"
    );
    assert_eq!(at(&world, 60, "bottomk(1, load)").await, "load{host=\"a\", zone=\"x\"} 7");
    assert_eq!(at(&world, 50, "topk(0, load)").await, "");
    assert_eq!(at(&world, 50, "limitk(1, load)").await, "load{host=\"a\", zone=\"x\"} 6");
    assert_eq!(at(&world, 50, "count_values(\"value\", capacity)").await, "{value=\"2\"} 1; {value=\"4\"} 1");
    let both = [at(&world, 50, "limit_ratio(0.3, load)").await, at(&world, 50, "limit_ratio(-0.7, load)").await];
    let rows: usize = both.iter().map(|rows| rows.split("; ").filter(|row| !row.is_empty()).count()).sum();
    assert_eq!(rows, 3, "a ratio and what it leaves are the whole: {both:?}");
}

#[tokio::test]
async fn sides_are_matched_by_their_labels() {
    let world = hosts();
    assert_eq!(at(&world, 10, "load / capacity").await, "{host=\"a\", zone=\"x\"} 1; {host=\"b\", zone=\"x\"} 5");
    assert_eq!(at(&world, 10, "load > 5").await, "load{host=\"b\", zone=\"x\"} 20");
    assert_eq!(at(&world, 10, "5 < load").await, "load{host=\"b\", zone=\"x\"} 20");
    assert_eq!(
        at(&world, 10, "load{zone=\"x\"} > bool 5").await,
        "{host=\"a\", zone=\"x\"} 0; {host=\"b\", zone=\"x\"} 1"
    );
    assert_eq!(
        at(&world, 10, "capacity * on(zone) group_left(team) owner").await,
        "{host=\"a\", team=\"red\", zone=\"x\"} 2; {host=\"b\", team=\"red\", zone=\"x\"} 4"
    );
    assert_eq!(
        at(&world, 10, "owner * on(zone) group_right(team) capacity").await,
        "{host=\"a\", team=\"red\", zone=\"x\"} 2; {host=\"b\", team=\"red\", zone=\"x\"} 4"
    );
    assert_eq!(at(&world, 10, "capacity - ignoring(zone) load").await, "{host=\"a\"} 0; {host=\"b\"} -16");
    assert!(at(&world, 10, "owner + on(zone) capacity").await.contains("many-to-many matching not allowed"));
    assert!(at(&world, 10, "capacity + on(zone) owner").await.contains("must be explicit (group_left/group_right)"));
    assert_eq!(at(&world, 10, "load and on(host) capacity{host=\"a\"}").await, "load{host=\"a\", zone=\"x\"} 2");
    assert_eq!(at(&world, 10, "load unless on(host) capacity").await, "load{host=\"c\", zone=\"y\"} 5");
    assert_eq!(
        at(&world, 10, "capacity{host=\"a\"} or capacity").await,
        "capacity{host=\"a\", zone=\"x\"} 2; capacity{host=\"b\", zone=\"x\"} 4"
    );
    assert_eq!(at(&world, 10, "1 + 2 * 3 ^ 2 % 4").await, "3");
    assert_eq!(at(&world, 10, "-2 ^ 2").await, "-4");
    assert_eq!(at(&world, 10, "1 == bool 1").await, "1");
    assert_eq!(at(&world, 10, "{__name__=~\"load|capacity\",host=\"a\"} * 2").await.split(':').next(), Some("error"));
}

#[tokio::test]
async fn functions_of_values_labels_and_time() {
    let world = hosts();
    assert_eq!(at(&world, 10, "1 + 1").await, "2");
    assert_eq!(at(&world, 10, "time()").await, "10");
    assert_eq!(at(&world, 15, "timestamp(load{host=\"a\"})").await, "{host=\"a\", zone=\"x\"} 10");
    assert_eq!(at(&world, 15, "timestamp(load{host=\"a\"} + 0)").await, "{host=\"a\", zone=\"x\"} 15");
    assert_eq!(at(&world, 10, "clamp(load, 3, 6)").await.matches(' ').count(), 5 + 3);
    assert_eq!(at(&world, 10, "clamp(load{host=\"b\"}, 3, 6)").await, "{host=\"b\", zone=\"x\"} 6");
    assert_eq!(at(&world, 10, "round(vector(2.25), 0.5)").await, "{} 2.5");
    assert_eq!(at(&world, 10, "scalar(load)").await, "NaN");
    assert_eq!(at(&world, 10, "scalar(load{host=\"b\"})").await, "20");
    assert_eq!(at(&world, 10, "absent(load{host=\"z\",zone=~\".*\"})").await, "{host=\"z\"} 1");
    assert_eq!(at(&world, 10, "absent(load{host=~\"z\",host=\"y\"})").await, "{host=\"y\"} 1");
    assert_eq!(at(&world, 10, "absent(load{host!=\"y\",host=\"z\"})").await, "{} 1");
    assert_eq!(at(&world, 10, "absent(load{host=\"z\",host=~\"z\"})").await, "{} 1");
    assert_eq!(at(&world, 10, "absent(load{host=\"z\",host=\"y\"})").await, "{} 1");
    assert_eq!(at(&world, 10, "absent(load)").await, "");
    assert_eq!(at(&world, 10, "absent_over_time(nothing{a=\"b\"}[1m])").await, "{a=\"b\"} 1");
    assert_eq!(
        at(&world, 10, "label_replace(capacity{host=\"a\"}, \"rack\", \"r-$1\", \"host\", \"(.)\")").await,
        "capacity{host=\"a\", rack=\"r-a\", zone=\"x\"} 2"
    );
    assert_eq!(
        at(&world, 10, "label_join(capacity{host=\"a\"}, \"both\", \"/\", \"zone\", \"host\")").await,
        "capacity{both=\"x/a\", host=\"a\", zone=\"x\"} 2"
    );
    assert_eq!(
        at(&world, 10, "sort_desc(load)").await,
        "load{host=\"b\", zone=\"x\"} 20; load{host=\"c\", zone=\"y\"} 5; load{host=\"a\", zone=\"x\"} 2"
    );
    assert_eq!(at(&world, 86_400 * 59, "month()").await, "{} 3");
    assert_eq!(at(&world, 0, "day_of_week()").await, "{} 4");
    assert_eq!(at(&world, 0, "days_in_month(vector(86400 * 40))").await, "{} 28");
    assert_eq!(at(&world, 0, "sgn(vector(-3))").await, "{} -1");
}

#[tokio::test]
async fn info_adds_the_labels_of_what_describes_a_series() {
    let world = world(&[
        "up instance=a job=j | 1 1 1 1 1 1 1",
        "up instance=b job=j | 1 1 1 1 1 1 1",
        "load host=x | 1 1 1 1 1 1 1",
        "target_info instance=a job=j version=1 zone=z | 1 1 1 stale",
        "target_info instance=a job=j version=2 zone=z | _ _ _ 1 1 1 1",
        "build_info instance=a job=j go=1.2 | 1 1 1 1 1 1 1",
    ]);
    assert_eq!(
        at(&world, 10, "info(up)").await,
        "up{instance=\"a\", job=\"j\", version=\"1\", zone=\"z\"} 1; up{instance=\"b\", job=\"j\"} 1"
    );
    assert_eq!(at(&world, 10, "info(load)").await, "load{host=\"x\"} 1");
    assert_eq!(at(&world, 10, "info(target_info)").await, at(&world, 10, "target_info").await);
    // Only what is named is added; what must not be empty takes away what has none.
    assert_eq!(at(&world, 50, "info(up, {version=~\".+\"})").await, "up{instance=\"a\", job=\"j\", version=\"2\"} 1");
    assert_eq!(at(&world, 50, "info(up, {version=\"3\"})").await, "");
    assert_eq!(
        at(&world, 50, "info(up{instance=\"a\"}, {__name__=~\"(target|build)_info\",go=~\".*\",zone=~\".*\"})").await,
        "up{go=\"1.2\", instance=\"a\", job=\"j\", zone=\"z\"} 1"
    );
    // What describes a series may change.
    let window = Window { start_ms: 10_000, end_ms: 40_000, step_ms: 30_000 };
    let Value::Vector(series) = ask(&world, "info(up{instance=\"a\"})", window).await.expect("evaluated") else {
        panic!("series");
    };
    let versions: Vec<_> =
        series.iter().map(|one| (one.labels.get("version"), one.column.get(0), one.column.get(1))).collect();
    assert_eq!(versions, [("1", Some(1.0), None), ("2", None, Some(1.0))]);
    assert!(at(&world, 10, "info(up, up offset 5m)").await.contains("label selector"));
}

#[tokio::test]
async fn what_describes_a_series_twice_is_refused() {
    let twice = world(&[
        "up instance=a job=j | 1 1",
        "target_info instance=a job=j version=1 | 1 1",
        "target_info instance=a job=j version=2 | 1 _",
        "build_info instance=a job=j version=3 | 1 1",
    ]);
    assert!(at(&twice, 0, "info(up)").await.contains("found duplicate series for info metric"));
    assert_eq!(at(&twice, 10, "info(up)").await, "up{instance=\"a\", job=\"j\", version=\"1\"} 1", "the newest counts");
    let both = "info(up, {__name__=~\".*_info\",version=~\".+\"})";
    assert!(at(&twice, 10, both).await.contains("conflicting label: version"));
}

#[tokio::test]
async fn labels_that_a_query_writes_tell_series_apart_at_all_times() {
    let world = hosts();
    let window = Window { start_ms: 0, end_ms: 60_000, step_ms: 10_000 };
    // One has values below 3 only, the other above 40 only.
    for function in ["label_replace(X, \"host\", \"\", \"\", \"\")", "label_join(X, \"host\", \"\")"] {
        let both = function.replace('X', "load{host=\"a\"} < 3 or load{host=\"b\"} > 40");
        let error = ask(&world, &both, window).await.expect_err("the same labels").to_string();
        assert_eq!(error, "vector cannot contain metrics with the same labelset", "{both}");
        let one = function.replace('X', "load{host=\"a\"} < 3 or load{zone=\"y\"}");
        assert!(ask(&world, &one, window).await.is_ok(), "{one}");
    }
}

#[tokio::test]
async fn classic_histograms() {
    let world = world(&[
        "took_bucket job=x le=0.1 | 10 10",
        "took_bucket job=x le=1 | 30 30",
        "took_bucket job=x le=+Inf | 40 40",
        "took_bucket job=y le=1 | 1 1",
    ]);
    assert_eq!(at(&world, 0, "histogram_quantile(0.5, took_bucket{job=\"x\"})").await, "{job=\"x\"} 0.55");
    assert_eq!(at(&world, 0, "histogram_quantile(0.9, took_bucket{job=\"x\"})").await, "{job=\"x\"} 1");
    assert_eq!(at(&world, 0, "histogram_quantile(0.5, took_bucket{job=\"y\"})").await, "{job=\"y\"} NaN");
    assert_eq!(at(&world, 0, "histogram_fraction(0, 1, took_bucket{job=\"x\"})").await, "{job=\"x\"} 0.75");
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let world = hosts();
    let refused = |query: &'static str, window| {
        let world = &world;
        async move { ask(world, query, window).await.expect_err("refused").to_string() }
    };
    let instant = Window { start_ms: 0, end_ms: 0, step_ms: 0 };
    let range = Window { start_ms: 0, end_ms: 10_000, step_ms: 1000 };
    assert!(refused("load{", instant).await.starts_with("invalid parameter"));
    assert!(refused("load[1m]", range).await.contains("must be Scalar or instant Vector"));
    assert!(refused("load", Window { end_ms: 12_000_000, ..range }).await.contains("exceeded maximum resolution"));
    let deep: &'static str = String::leak("(".repeat(100_000));
    assert!(refused(deep, instant).await.contains("longer than"));
    let deep: &'static str = String::leak(format!("{}1{}", "(".repeat(1000), ")".repeat(1000)));
    assert!(refused(deep, instant).await.contains("nested deeper"));
    for chain in [format!("{}load", "-".repeat(60_000)), vec!["1"; 30_000].join("+"), vec!["a"; 10_000].join(" or ")] {
        let chain: &'static str = String::leak(chain);
        assert!(refused(chain, instant).await.contains("more than 500 operators"));
    }
    let chain: &'static str = String::leak(vec!["load"; 300].join("+"));
    assert!(refused(chain, instant).await.contains("nested deeper"), "a flat chain is a deep tree");
    let limits = Limits { series_max: 2, ..Limits::default() };
    let plan = Plan::new("load", instant, &limits).expect("a plan");
    let error = run(&plan, &world, &limits, Arc::new(AtomicBool::new(false))).await.expect_err("too many");
    assert!(error.to_string().contains("more than 2 series"), "{error}");
    let plan = Plan::new("load", instant, &Limits::default()).expect("a plan");
    let error = run(&plan, &world, &Limits::default(), Arc::new(AtomicBool::new(true))).await.expect_err("cancelled");
    assert!(matches!(error, QueryError::Cancelled));
}

/// A range query gives at each step what an instant query gives at that time.
#[tokio::test]
async fn a_range_is_its_instants() {
    let world = hosts();
    for query in [
        "sum(rate(requests_total[30s]))",
        "sum(load) / count(load)",
        "max_over_time(sum(load)[30s:10s])",
        "sum(topk(1, load))",
        "sum(load) > 40",
        "sum(load offset 10s)",
        "quantile(0.9, load)",
    ] {
        let range = over(&world, 0, 60, 10, query).await;
        for (step, value) in range.iter().enumerate() {
            let instant = at(&world, step as i64 * 10, query).await;
            let wanted = value.map(|value| format!("{{}} {}", number_text(value))).unwrap_or_default();
            assert_eq!(instant, wanted, "{query} at step {step}");
        }
    }
}

/// Differences from a real Prometheus 3.5 that a differential run found.
#[tokio::test]
async fn sides_that_are_empty_are_not_looked_at_for_duplicates() {
    let world = hosts();
    assert_eq!(at(&world, 10, "load{host=\"nobody\"} + on (zone) load").await, "");
    assert!(at(&world, 10, "load{host=\"a\"} + on (zone) load").await.starts_with("error: found duplicate series"));
}

#[tokio::test]
async fn a_value_becomes_a_label_before_series_are_grouped() {
    let world = world(&["m a=x b=1 | 1", "m a=y b=1 | 1", "m a=z b=2 | -0", "m a=w b=2 | 0"]);
    assert_eq!(
        at(&world, 0, "count_values by (a) (\"a\", m)").await,
        "{a=\"-0\"} 1; {a=\"0\"} 1; {a=\"1\"} 2",
        "zeros are told apart"
    );
    assert_eq!(at(&world, 0, "count_values without (a) (\"a\", m)").await, "{b=\"1\"} 2; {b=\"2\"} 2");
    assert!(at(&world, 0, "count_values(\"\", nothing)").await.starts_with("error: invalid label name"));
}

#[tokio::test]
async fn parameters_that_choose_nothing_are_refused_if_there_is_a_choice() {
    let world = hosts();
    for (query, part) in [
        ("topk(NaN, load)", "overflows"),
        ("topk(1e20, load)", "overflows"),
        ("limit_ratio(NaN, load)", "NaN"),
        ("double_exponential_smoothing(load[1m], 1.5, 0.5)", "smoothing factor"),
        ("histogram_sum(double_exponential_smoothing(load[1m], 1.5, 0.5))", "smoothing factor"),
    ] {
        let answer = at(&world, 10, query).await;
        assert!(answer.starts_with("error") && answer.contains(part), "{query}: {answer}");
        assert_eq!(at(&world, 10, &query.replace("load", "nothing")).await, "", "{query}");
    }
    assert_eq!(at(&world, 10, "bottomk(-1e300, load)").await, "");
}

#[tokio::test]
async fn numbers_may_have_underscores_and_names_too() {
    let world = world(&["a_1 x=1_0 | 7"]);
    assert_eq!(at(&world, 0, "1_000 + 0x_f_f + 1_0.5e1_0 # 1_0").await, "105000001255");
    assert_eq!(at(&world, 0, "a_1{x=\"1_0\"}").await, "a_1{x=\"1_0\"} 7");
    assert_eq!(at(&world, 0, "'\\'1_0'").await, "'1_0");
    for wrong in ["1__0", "1_", "_1"] {
        let answer = at(&world, 0, wrong).await;
        assert!(answer.is_empty() || answer.starts_with("error"), "{wrong}: {answer}");
    }
}

#[tokio::test]
async fn clamps_know_what_is_greater_than_every_number() {
    let world = world(&["m a=x | +Inf", "m a=y | NaN", "m a=z | -Inf"]);
    let answer = at(&world, 0, "clamp_min(m, NaN)").await;
    assert_eq!(answer, "{a=\"x\"} +Inf; {a=\"y\"} NaN; {a=\"z\"} NaN");
    assert_eq!(at(&world, 0, "clamp(m, 0, NaN)").await, "{a=\"x\"} NaN; {a=\"y\"} NaN; {a=\"z\"} 0");
}

#[tokio::test]
async fn labels_are_sorted_as_people_count() {
    let world = world(&["m a=x10 | 1", "m a=x9 | 2", "m a=x9b | 3", "m a=y | 4"]);
    assert_eq!(
        at(&world, 0, "sort_by_label(m, \"a\")").await,
        "m{a=\"x9\"} 2; m{a=\"x9b\"} 3; m{a=\"x10\"} 1; m{a=\"y\"} 4"
    );
    assert!(at(&world, 0, "sort_by_label_desc(m, \"a\")").await.starts_with("m{a=\"y\"} 4; m{a=\"x10\"} 1"));
}

#[tokio::test]
async fn what_is_absent_may_have_had_several_names() {
    let world = world(&["m a=x | 1", "n a=x | 1"]);
    assert_eq!(at(&world, 0, "absent_over_time({__name__=~\"m|n\"}[1m])").await, "");
}

#[tokio::test]
async fn fractions_and_quantiles_of_odd_buckets() {
    let world = world(&[
        "took_bucket le=-1 | 2",
        "took_bucket le=3 | 1",
        "took_bucket le=+Inf | 4",
        "took_bucket le=wrong | 4",
        "none_bucket le=1 | 4",
    ]);
    // Without a beginning of the first bucket nothing can be interpolated in it.
    assert_eq!(at(&world, 0, "histogram_fraction(-Inf, -2, took_bucket)").await, "{} NaN");
    // A fraction takes counts as they are, a quantile makes them rise.
    assert_eq!(at(&world, 0, "histogram_fraction(-1, 3, took_bucket)").await, "{} -0.25");
    assert_eq!(at(&world, 0, "histogram_quantile(0.6, took_bucket)").await, "{} 3");
    assert_eq!(at(&world, 0, "histogram_quantile(-1, none_bucket)").await, "{} -Inf");
    assert_eq!(at(&world, 0, "cosh(vector(710))").await, "{} +Inf");
    assert_eq!(at(&world, 0, "sinh(vector(-710))").await, "{} -Inf");
    assert_eq!(at(&world, 0, "acosh(vector(1.7e308))").await, "{} 710.4199840737881");
    let window = Window { start_ms: 0, end_ms: 0, step_ms: 0 };
    let plan = Plan::new("histogram_quantile(0.6, took_bucket)", window, &Limits::default()).expect("a plan");
    let answer = run(&plan, &world, &Limits::default(), Arc::new(AtomicBool::new(false))).await.expect("an answer");
    assert_eq!(
        answer.warnings,
        ["PromQL warning: bucket label \"le\" is missing or has a malformed value of \"wrong\" for metric name \
          \"took_bucket\""]
    );
    assert!(answer.infos[0].contains("needed to be fixed for monotonicity"), "{:?}", answer.infos);
    let name_of = |answer: &crate::Answer| answer.infos[0].rsplit(' ').next().map(str::to_owned);
    assert_eq!(name_of(&answer), Some("\"took_bucket\"".to_owned()));
}

#[test]
fn what_a_query_says_twice_is_read_once() {
    let selections = |text: &str| {
        let window = Window { start_ms: 0, end_ms: 60_000, step_ms: 10_000 };
        Plan::new(text, window, &Limits::default()).expect("a plan").selections().len()
    };
    assert_eq!(selections("sum(load{a=~\"x|y\"}) / count(load{a=~\"x|y\"})"), 1);
    assert_eq!(selections("load{a=\"x\"} / load{a!=\"x\"}"), 2);
    assert_eq!(selections("load / load offset 1m"), 2);
    assert_eq!(selections("rate(load[5m]) / rate(load[1m])"), 2);
}

/// The series that Prometheus 3.5 chooses: those whose labels' hash lies below the ratio.
#[test]
fn labels_have_the_hash_that_prometheus_gives_them() {
    let place =
        |labels: &[(&str, &str)]| Labels::new(labels.iter().copied()).prometheus_hash() as f64 / u64::MAX as f64;
    let own = place(&[("__name__", "m"), ("a", "x")]);
    assert!((0.0..1.0).contains(&own));
    // The hash of nothing is that of XXH64.
    assert_eq!(Labels::default().prometheus_hash(), 0xef46_db37_51d8_e999);
}

/// Names are matchers, labels of a matching stand beside its kind, and nothing newer than Prometheus 3.5 is told.
#[test]
fn a_tree_has_the_form_of_prometheus() {
    let tree = crate::tree("a == bool (1)").expect("a tree");
    assert!(tree["matching"].is_null(), "nothing is matched with a number: {tree}");
    assert_eq!(crate::tree("a[1h:]").expect("a tree")["step"], 0);
    let tree = crate::tree("rate(a[5m]) * on(job) group_left(version) {__name__=\"b\"}").expect("a tree");
    let matching = serde_json::json!({"card": "many-to-one", "include": ["version"], "labels": ["job"], "on": true});
    assert_eq!(tree["matching"], matching);
    let name = |of: &str| serde_json::json!([{"name": "__name__", "type": "=", "value": of}]);
    assert_eq!(tree["lhs"]["args"][0]["matchers"], name("a"));
    assert_eq!(tree["rhs"]["matchers"], name("b"));
    assert!(tree["lhs"]["func"].get("experimental").is_none());
}

#[tokio::test]
async fn what_is_folded_while_it_is_read_is_what_the_points_give() {
    let world = hosts();
    let (limits, cancelled) = (Limits::default(), Arc::new(AtomicBool::new(false)));
    let mut folded = 0;
    for query in [
        "load",
        "load offset 20s",
        "load + load",
        "rate(requests_total[30s])",
        "sum by (code) (rate(requests_total[30s])) / rate(requests_total[30s] offset 10s)",
        "max_over_time(load[25s]) - min_over_time(load[25s])",
        "max_over_time(load[25s]) - max_over_time(load[25s])",
        "last_over_time(gone[1m])",
        "gone or avg_over_time(gone[20s])",
        "timestamp(load) - load",
        "quantile_over_time(0.5, load[30s])",
        "absent_over_time(gone[20s])",
        "max_over_time(load[30s:10s]) + load",
        "max_over_time(load[30s:10s]) + max_over_time(load[30s])",
        "avg_over_time(load[1m] @ 40)",
        "topk(1, sum_over_time(load[1m]))",
    ] {
        let window = Window { start_ms: 0, end_ms: 90_000, step_ms: 15_000 };
        let plan = Plan::new(query, window, &limits).expect("a plan");
        let selected = world.select_all(&plan, &limits, &cancelled).await.expect("all");
        folded += selected.iter().filter(|one| matches!(one, Selected::Folded(_))).count();
        let mut points = Vec::new();
        for selection in plan.selections() {
            points.push(Selected::Points(world.select(selection, usize::MAX, usize::MAX).await.expect("points")));
        }
        // Notes as well: a load is no counter.
        let answers = [selected, points].map(|selected| {
            let answer = evaluate(&plan, selected, &limits, &cancelled).expect("an answer");
            format!("{:?} {:?} {:?}", answer.value, answer.warnings, answer.infos)
        });
        assert_eq!(answers[0], answers[1], "{query}");
    }
    assert!(folded >= 12, "{folded}");
    // Whoever has had enough ends it while it is read, and so does a limit.
    cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    let plan = Plan::new("load", Window { start_ms: 0, end_ms: 9000, step_ms: 1000 }, &limits).expect("a plan");
    let error = world.select_all(&plan, &limits, &cancelled).await.expect_err("cancelled");
    assert!(matches!(error, QueryError::Cancelled), "{error}");
    let few = Limits { cells_max: 25, ..limits };
    let error = world.select_all(&plan, &few, &Arc::new(AtomicBool::new(false))).await.expect_err("three times ten");
    assert!(matches!(error, QueryError::TooMuch { what: "values", limit: 25 }), "{error}");
}
