//! Answers are Gnocchi's where Gnocchi answers. The numbers of the aggregates are those that a Gnocchi 4.7 gave.

use std::time::Duration;

use orzo_index::{ArchivePolicy, Filter, Metric, MetricSource, NewMetric, NewResource, PolicyItem};
use orzo_model::{GroupRead, MeasureReader, ReadError, ResourceRead, SampleSink, Scope};

use super::*;
use crate::{
    AggregatesAnswer, AggregatesQuery, Fill, MeasuredSeries, MeasuresQuery, PostedMeasures, QueryError, References,
    Search, Top, TopBy, operations::Operation,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn policy(f: &Fixture, name: &str, items: &[(u64, i64)], methods: &[&str]) {
    let items = items.iter().map(|&(width, points)| {
        PolicyItem::new(Some(Duration::from_secs(width)), Some(points), None).expect("an item")
    });
    let methods = methods.iter().map(|&m| m.to_owned()).collect();
    let policy = ArchivePolicy::new(name, 0, items.collect(), Some(methods), &[]).expect("a policy");
    f.engine.index().create_archive_policy(&policy).await.expect("made");
}

async fn metric(f: &Fixture, policy: &str, measures: &[(i64, f64)]) -> Metric {
    let new = NewMetric { creator: "u:p".into(), archive_policy_name: Some(policy.into()), ..NewMetric::default() };
    let metric = f.engine.index().create_metric(&new).await.expect("made");
    let measures = measures.iter().map(|&(second, value)| measure(second, value)).collect();
    f.engine.post_measures(&[PostedMeasures { metric: metric.clone(), measures }]).await.expect("kept");
    metric
}

fn asked(aggregation: &str) -> MeasuresQuery {
    MeasuresQuery { aggregation: aggregation.into(), ..MeasuresQuery::default() }
}

#[tokio::test]
async fn one_metric_at_all_its_granularities() {
    let f = fixture().await;
    policy(&f, "two", &[(1, 3), (60, 100)], &["mean", "max", "std", "rate:mean", "count"]).await;
    let points = [(0, 1.0), (1, 3.0), (59, 5.0), (61, 9.0), (120, 2.0)];
    let metric = metric(&f, "two", &points).await;
    let read = async |query: MeasuresQuery| plain(&f.engine.measures(&metric, &query).await.expect("answered"));
    // Coarse first; the fine ones go back three seconds from the newest.
    assert_eq!(read(asked("mean")).await, [(0, 60, 3.0), (60, 60, 9.0), (120, 60, 2.0), (120, 1, 2.0)]);
    // A bucket of one point has no deviation.
    assert_eq!(read(asked("std")).await, [(0, 60, 2.0)]);
    // No name is no name of a method: once it meant the mean.
    assert!(matches!(f.engine.measures(&metric, &asked("")).await, Err(QueryError::Missing { .. })));
    // Rates are over successive points, across buckets.
    assert_eq!(read(asked("rate:mean")).await, [(0, 60, 2.0), (60, 60, 4.0), (120, 60, -7.0), (120, 1, -7.0)]);
    let from = |start, stop| MeasuresQuery {
        granularity: Some(MINUTE),
        start: Some(at(start)),
        stop: Some(at(stop)),
        ..asked("rate:mean")
    };
    assert_eq!(read(from(61, 121)).await, [(60, 60, 4.0), (120, 60, -7.0)], "start is rounded down");
    assert_eq!(read(from(60, 120)).await, [(60, 60, 4.0)], "stop is exclusive");
    let resampled =
        MeasuresQuery { granularity: Some(MINUTE), resample: Some(Duration::from_secs(120).into()), ..asked("max") };
    assert_eq!(read(resampled).await, [(0, 120, 9.0), (120, 120, 2.0)]);
    let missing = f.engine.measures(&metric, &asked("sum")).await.expect_err("not in the policy").to_string();
    assert!(missing.starts_with("Aggregation method does not exist for this metric"), "{missing}");
    let odd = MeasuresQuery { granularity: Some(Duration::from_secs(42)), ..asked("mean") };
    assert_eq!(
        f.engine.measures(&metric, &odd).await.expect_err("not in the policy").to_string(),
        format!("Aggregation method 'mean' at granularity '42.0' for metric {} does not exist", metric.id)
    );
    // Late points count, and survive the way to the files.
    f.engine
        .post_measures(&[PostedMeasures { metric: metric.clone(), measures: vec![measure(30, 100.0)] }])
        .await
        .expect("kept");
    f.store.flush().await.expect("flushed");
    assert_eq!(read(MeasuresQuery { granularity: Some(MINUTE), ..asked("max") }).await[0], (0, 60, 100.0));
}

/// Three resources as in the recorded run: vmA and vmB of projects P1 and P2, and one without points.
async fn resources(f: &Fixture) {
    policy(f, "ap", &[(1, 3600), (60, 60)], &["mean", "sum", "max"]).await;
    for (name, project, cpu, mem) in [
        ("vmA", "P1", vec![(0, 1.0), (1, 2.0), (60, 10.0)], vec![(0, 5.0)]),
        ("vmB", "P2", vec![(0, 3.0), (60, 4.0)], vec![]),
        ("other", "P1", vec![], vec![]),
    ] {
        let source = || MetricSource::New { archive_policy_name: Some("ap".into()), unit: None };
        let new = NewResource {
            id: name.into(),
            resource_type: "generic".into(),
            creator: "u:p".into(),
            project_id: Some(project.into()),
            user_id: None,
            started_at: None,
            ended_at: None,
            attributes: serde_json::Map::new(),
            metrics: vec![("cpu".into(), source()), ("mem".into(), source())],
        };
        let made = f.engine.index().create_resource(&new).await.expect("made");
        for (metric, points) in [("cpu", cpu), ("mem", mem)] {
            let metric = f.engine.index().metric_of_resource(&Scope::All, made.id, metric).await.expect("there");
            let measures = points.into_iter().map(|(second, value)| measure(second, value)).collect();
            f.engine.post_measures(&[PostedMeasures { metric, measures }]).await.expect("kept");
        }
    }
}

fn question(operations: &str, search: Value) -> AggregatesQuery {
    AggregatesQuery {
        scope: Scope::All,
        creator: Some("u:p".into()),
        operation: Operation::parse(&json!(operations)).expect(operations),
        search: Some(Search { resource_type: "generic".into(), filter: Filter::parse(&search).expect("a filter") }),
        granularity: Some(MINUTE),
        ..AggregatesQuery::default()
    }
}

async fn single(f: &Fixture, query: AggregatesQuery) -> Vec<(i64, u64, f64)> {
    match f.engine.aggregates(&query).await.expect("answered") {
        AggregatesAnswer::Single(answer) => match answer.measures {
            MeasuredSeries::Aggregated(measures) => plain(&measures),
            MeasuredSeries::ByResource(series) => {
                series.iter().flat_map(|(_, _, _, measures)| plain(measures)).collect()
            }
            MeasuredSeries::ByMetric(series) => series.iter().flat_map(|(_, _, measures)| plain(measures)).collect(),
        },
        AggregatesAnswer::Groups(_) => panic!("no groups were asked for"),
    }
}

#[tokio::test]
async fn aggregates_give_the_recorded_answers() {
    let f = fixture().await;
    resources(&f).await;
    let vms = || json!({"like": {"original_resource_id": "vm%"}});
    let vm_a = || json!({"=": {"original_resource_id": "vmA"}});
    for (operations, search, expected) in [
        ("(aggregate mean (metric cpu mean))", vms(), vec![(0, 60, 2.25), (60, 60, 7.0)]),
        ("(> (metric cpu mean) 1.5)", vm_a(), vec![(0, 60, 0.0), (60, 60, 1.0)]),
        ("(aggregate rate:mean (metric cpu mean))", vm_a(), vec![(60, 60, 8.5)]),
        ("(rolling mean 2 (metric cpu mean))", vm_a(), vec![(60, 60, 5.75)]),
        ("(resample mean 3600 (metric cpu mean))", vm_a(), vec![(0, 3600, 5.75)]),
        ("(metric c* mean)", vms(), vec![]),
    ] {
        if !expected.is_empty() {
            assert_eq!(single(&f, question(operations, search)).await, expected, "{operations}");
        }
    }
    let mut both = single(&f, question("(metric c* mean)", vms())).await;
    both.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    assert_eq!(both, [(0, 60, 1.5), (0, 60, 3.0), (60, 60, 4.0), (60, 60, 10.0)]);
    let ratio =
        AggregatesQuery { fill: Some(Fill::Value(0.0)), ..question("(/ (metric cpu mean) (metric mem mean))", vm_a()) };
    assert_eq!(single(&f, ratio).await, [(0, 60, 0.3), (60, 60, f64::INFINITY)]);
    let kept = AggregatesQuery { fill: Some(Fill::Null), ..question("(metric cpu mean)", json!({})) };
    let kept = single(&f, kept).await;
    assert_eq!((kept.len(), kept.iter().filter(|(_, _, value)| value.is_nan()).count()), (6, 2));
    let fine = AggregatesQuery { granularity: None, ..question("(aggregate sum (metric cpu sum))", vm_a()) };
    assert_eq!(single(&f, fine).await, [(0, 60, 3.0), (60, 60, 10.0), (0, 1, 1.0), (1, 1, 2.0), (60, 1, 10.0)]);
}

#[tokio::test]
async fn groups_overlaps_and_references() {
    let f = fixture().await;
    resources(&f).await;
    let vms = || json!({"like": {"original_resource_id": "vm%"}});
    let grouped =
        AggregatesQuery { groupby: vec!["project_id".into()], ..question("(aggregate sum (metric cpu sum))", vms()) };
    let AggregatesAnswer::Groups(groups) = f.engine.aggregates(&grouped).await.expect("answered") else {
        panic!("groups were asked for")
    };
    let groups: Vec<_> = groups
        .iter()
        .map(|(group, answer)| match (&answer.measures, &answer.references) {
            (MeasuredSeries::Aggregated(measures), References::Resources(resources)) => {
                (group["project_id"].clone(), plain(measures), resources.len())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        groups,
        [(json!("P1"), vec![(0, 60, 3.0), (60, 60, 10.0)], 1), (json!("P2"), vec![(0, 60, 3.0), (60, 60, 4.0)], 1)]
    );
    let refused = async |query: AggregatesQuery| f.engine.aggregates(&query).await.expect_err("refused").to_string();
    let all = || json!({});
    let strict =
        AggregatesQuery { needed_overlap: Some(100.0), ..question("(aggregate mean (metric cpu mean))", all()) };
    assert_eq!(refused(strict).await, "Metrics cannot be aggregated: No overlap");
    // vmA has three seconds, vmB two of them; with the ends cut to the overlap the middle one is missing.
    let partly = AggregatesQuery {
        needed_overlap: Some(100.0),
        granularity: Some(Duration::from_secs(1)),
        ..question("(aggregate mean (metric cpu mean))", vms())
    };
    assert_eq!(
        refused(partly.clone()).await,
        "Metrics cannot be aggregated: Less than 100.000000% of datapoints overlap in this timespan (66.67%)"
    );
    let enough = AggregatesQuery { needed_overlap: Some(50.0), ..partly };
    assert_eq!(single(&f, enough).await, [(0, 1, 2.0), (1, 1, 2.0), (60, 1, 7.0)]);
    assert_eq!(refused(question("(metric nope mean)", all())).await, "Metric ['nope'] does not exist");
    assert!(refused(question("(metric cpu last)", all())).await.starts_with("Metrics with unknown aggregation"));
    let odd = AggregatesQuery { granularity: Some(Duration::from_secs(61)), ..question("(metric cpu mean)", all()) };
    assert_eq!(refused(odd).await, "Metrics cannot be aggregated: Granularities are missing");
    let long = question("(rolling mean 20 (metric cpu mean))", vms());
    assert!(refused(long).await.contains("Rolling window '20' is greater than serie length '2'"));
    let bogus = AggregatesQuery { groupby: vec!["bogus".into()], ..question("(metric cpu mean)", all()) };
    assert_eq!(refused(bogus).await, "Invalid pagination: `Sort key supplied is invalid: bogus'");
    let id = Uuid::from_u128(0x4000_8000_0000_0000_0000);
    let unknown = AggregatesQuery { search: None, ..question(&format!("(metric {id} mean)"), all()) };
    assert!(refused(unknown).await.starts_with("Unknown metrics"));
    let bad = AggregatesQuery { search: None, ..question("(metric foo mean)", all()) };
    assert_eq!(refused(bad).await, "Invalid metric references: badly formed hexadecimal UUID string");
}

#[tokio::test]
async fn fills_carry_values_where_they_are_missing() {
    let f = fixture().await;
    policy(&f, "minutes", &[(60, 100)], &["mean"]).await;
    let a = metric(&f, "minutes", &[(0, 1.0), (60, 2.0), (120, 3.0), (180, 4.0)]).await;
    let b = metric(&f, "minutes", &[(60, 10.0), (120, 20.0)]).await;
    let text = format!("(aggregate sum (metric ({} mean) ({} mean)))", a.id, b.id);
    for (fill, expected) in [
        (Fill::Forward, [1.0, 12.0, 23.0, 24.0]),
        (Fill::Backward, [11.0, 12.0, 23.0, 4.0]),
        (Fill::FullForward, [11.0, 12.0, 23.0, 24.0]),
        (Fill::FullBackward, [11.0, 12.0, 23.0, 24.0]),
        (Fill::Value(100.0), [101.0, 12.0, 23.0, 104.0]),
        (Fill::DropMissing, [1.0, 12.0, 23.0, 4.0]),
    ] {
        let query = AggregatesQuery { search: None, fill: Some(fill), ..question(&text, json!({})) };
        let values: Vec<f64> = single(&f, query).await.into_iter().map(|(_, _, value)| value).collect();
        assert_eq!(values, expected, "{fill:?}");
    }
}

#[tokio::test]
async fn alarms_and_the_collector_get_their_answers() {
    let f = fixture().await;
    let samples: Vec<Sample> = (0..10)
        .flat_map(|minute| {
            [
                sample("vm1", "cpu", minute * 60, (minute * 600) as f64),
                sample("vm2", "cpu", minute * 60, (minute * 1200) as f64),
            ]
        })
        .collect();
    f.engine.accept(batch(samples, vec![])).await.expect("accepted");
    let project = Scope::Project("p1".into());
    let one = ResourceRead {
        resource_id: "vm1".into(),
        metric: "cpu".into(),
        aggregation: "rate:mean".into(),
        granularity: Duration::from_secs(120),
        start: at(120),
        stop: at(360),
    };
    // No policy has 120 s; the raw points have.
    let found = f.engine.read_resource(&project, &one).await.expect("answered");
    assert_eq!(found, [measure(120, 600.0), measure(240, 600.0)]);
    let group = GroupRead {
        metric: "cpu".into(),
        resource_type: "instance".into(),
        search: json!({"=": {"host": "node1"}}),
        aggregation: "mean".into(),
        reaggregation: "rate:mean".into(),
        granularity: MINUTE,
        start: at(60),
        stop: at(240),
    };
    let found = f.engine.read_group(&project, &group).await.expect("answered");
    assert_eq!(found, [measure(120, 900.0), measure(180, 900.0)]);
    let inner = GroupRead { aggregation: "rate:mean".into(), reaggregation: "mean".into(), ..group.clone() };
    let found = f.engine.read_group(&project, &inner).await.expect("answered");
    assert_eq!(found, [measure(60, 900.0), measure(120, 900.0), measure(180, 900.0)]);
    let stranger = Scope::Project("p2".into());
    assert!(matches!(f.engine.read_resource(&stranger, &one).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(f.engine.read_group(&stranger, &group).await, Err(ReadError::NotFound { .. })));
    let wrong = ResourceRead { aggregation: "bogus".into(), ..one };
    assert!(matches!(f.engine.read_resource(&project, &wrong).await, Err(ReadError::Invalid { .. })));
    let last =
        async |id: &str, metric: &str, second| f.engine.last_before(id, metric, at(second)).await.expect("answered");
    assert_eq!(last("vm1", "cpu", 120).await, Some(measure(60, 600.0)));
    assert_eq!(last("vm1", "cpu", 0).await, None);
    assert_eq!(last("vm9", "cpu", 120).await, None);
    assert_eq!(last("vm1", "nope", 120).await, None);
}

#[tokio::test]
async fn beyond_the_policy_raw_points_answer_what_it_did_not_foresee() {
    let f = fixture().await;
    policy(&f, "short", &[(60, 2)], &["mean"]).await;
    let metric = metric(&f, "short", &[(0, 1.0), (10, 2.0), (60, 10.0), (120, 20.0), (180, 5.0)]).await;
    let read = async |query: MeasuresQuery| plain(&f.engine.measures(&metric, &query).await.expect("answered"));
    let ten = MeasuresQuery { granularity: Some(Duration::from_secs(10)), ..asked("max") };
    assert!(f.engine.measures(&metric, &ten).await.is_err(), "a client that did not opt in gets Gnocchi's answer");
    let beyond = MeasuresQuery { beyond_policy: true, ..ten };
    assert_eq!(
        read(beyond).await,
        [(0, 10, 1.0), (10, 10, 2.0), (60, 10, 10.0), (120, 10, 20.0), (180, 10, 5.0)],
        "another method, a finer granularity, and older than two minutes"
    );
    let own = MeasuresQuery { granularity: Some(MINUTE), ..asked("increase:sum") };
    assert_eq!(read(own.clone()).await, [(120, 60, 10.0), (180, 60, 5.0)], "a reset counter increases from zero");
    let rate = MeasuresQuery { aggregation: "rate:sum".into(), beyond_policy: true, ..own };
    assert_eq!(read(rate).await, [(0, 60, 1.0), (60, 60, 8.0), (120, 60, 10.0), (180, 60, -15.0)]);
    let text = format!("(aggregate mean (metric {} 90pct))", metric.id);
    let query = AggregatesQuery { search: None, beyond_policy: true, ..question(&text, json!({})) };
    let query = AggregatesQuery { granularity: Some(Duration::from_secs(240)), ..query };
    assert_eq!(single(&f, query).await, [(0, 240, 16.0)]);
}

#[tokio::test]
async fn calendar_buckets_are_made_of_whole_ones_and_start_and_stop_are_rounded_to_them() {
    let f = fixture().await;
    policy(&f, "days", &[(86_400, 10_000)], &["mean", "sum"]).await;
    let day = 86_400;
    let metric = metric(&f, "days", &[(0, 1.0), (day, 3.0), (40 * day, 5.0), (41 * day, 6.0), (80 * day, 7.0)]).await;
    let month = Width::Calendar(crate::Calendar::Month);
    let query = |start: Option<i64>, stop: Option<i64>| MeasuresQuery {
        granularity: Some(Duration::from_secs(86_400)),
        resample: Some(month),
        start: start.map(at),
        stop: stop.map(at),
        ..asked("sum")
    };
    let read = async |query| -> Vec<(Timestamp, f64)> {
        let found = f.engine.measures(&metric, &query).await.expect("answered");
        assert!(found.iter().all(|measure| measure.granularity == month));
        found.iter().map(|measure| (measure.timestamp, measure.value)).collect()
    };
    let all = read(query(None, None)).await;
    assert_eq!(all.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [4.0, 11.0, 7.0]);
    assert_eq!(read(query(Some(41 * day), None)).await, all[1..], "the month of the start is whole");
    assert_eq!(read(query(Some(41 * day), Some(41 * day + 1))).await, all[1..2], "and that of the stop");
}

#[tokio::test]
async fn aodhs_aggregate_of_two_metrics_is_taken() {
    let f = fixture().await;
    policy(&f, "minutes", &[(60, 100)], &["mean"]).await;
    let a = metric(&f, "minutes", &[(0, 1.0), (60, 2.0)]).await;
    let b = metric(&f, "minutes", &[(0, 3.0), (60, 6.0)]).await;
    let (a, b) = (a.id.to_string(), b.id.to_string());
    let query = AggregatesQuery {
        search: None,
        operation: Operation::parse(&json!(["aggregate", "mean", ["metric", a, "mean"], ["metric", b, "mean"]]))
            .expect("taken"),
        ..question("(metric x mean)", json!({}))
    };
    assert_eq!(single(&f, query).await, [(0, 60, 2.0), (60, 60, 4.0)]);
}

#[tokio::test]
async fn the_largest_of_many_are_kept() {
    let f = fixture().await;
    resources(&f).await;
    let top = |count, smallest, by| Some(Top { count, smallest, by });
    let ask = async |top| {
        let query = AggregatesQuery { top, ..question("(metric cpu sum)", json!({})) };
        single(&f, query).await
    };
    assert_eq!(ask(top(1, false, TopBy::Max)).await, [(0, 60, 3.0), (60, 60, 10.0)], "vmA");
    assert_eq!(ask(top(1, true, TopBy::Last)).await, [(0, 60, 3.0), (60, 60, 4.0)], "vmB");
    let grouped = AggregatesQuery {
        groupby: vec!["project_id".into()],
        top: top(1, true, TopBy::Mean),
        ..question("(aggregate sum (metric cpu sum))", json!({}))
    };
    let AggregatesAnswer::Groups(groups) = f.engine.aggregates(&grouped).await.expect("answered") else {
        panic!("groups were asked for")
    };
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].0["project_id"], json!("P2"));
}

/// The bill of a guest that was resized in the middle of an hour: each flavor gets its share.
#[tokio::test]
async fn history_gives_each_revision_its_share_of_a_bucket() {
    let f = fixture().await;
    policy(&f, "hours", &[(3600, 1000)], &["mean"]).await;
    let index = f.engine.index().clone();
    let flavor = |name: &str| serde_json::Map::from_iter([("flavor_name".to_owned(), json!(name))]);
    let mut made = Vec::new();
    for name in ["vm1", "vm2"] {
        let source = MetricSource::New { archive_policy_name: Some("hours".into()), unit: None };
        let new = NewResource {
            id: name.into(),
            resource_type: "instance".into(),
            creator: "u:p".into(),
            project_id: Some("P1".into()),
            user_id: None,
            started_at: Some(at(0)),
            ended_at: None,
            attributes: flavor("small"),
            metrics: vec![("cpu".into(), source)],
        };
        made.push(index.create_resource(&new).await.expect("made"));
    }
    // The clock stands at one hour after the start; a quarter later vm1 becomes large.
    f.clock.set(at(3600 + 900));
    let change = orzo_index::ResourceChange { attributes: flavor("large"), ..orzo_index::ResourceChange::default() };
    index.update_resource(&Scope::All, "instance", made[0].id, &change).await.expect("changed");
    for resource in &made {
        let metric = index.metric_of_resource(&Scope::All, resource.id, "cpu").await.expect("there");
        let measures = vec![measure(0, 8.0), measure(3600, 8.0), measure(7200, 8.0)];
        f.engine.post_measures(&[PostedMeasures { metric, measures }]).await.expect("kept");
    }
    type Rows = Vec<(i64, u64, f64)>;
    let ask = async |groupby: &str, start: i64, stop: i64| -> Vec<(Value, Rows)> {
        let query = AggregatesQuery {
            search: Some(Search { resource_type: "instance".into(), filter: Filter::Everything }),
            granularity: None,
            groupby: vec![groupby.into()],
            use_history: true,
            start: Some(at(start)),
            stop: Some(at(stop)),
            ..question("(aggregate mean (metric cpu mean))", json!({}))
        };
        let AggregatesAnswer::Groups(groups) = f.engine.aggregates(&query).await.expect("answered") else {
            panic!("groups were asked for")
        };
        let group = |(group, answer): (serde_json::Map<String, Value>, crate::Aggregated)| match answer.measures {
            MeasuredSeries::Aggregated(measures) => (group[groupby].clone(), plain(&measures)),
            other => panic!("{other:?}"),
        };
        groups.into_iter().map(group).collect()
    };
    assert_eq!(
        ask("flavor_name", 0, 10_800).await,
        [
            (json!("large"), vec![(3600, 3600, 6.0), (7200, 3600, 8.0)]),
            (json!("small"), vec![(0, 3600, 16.0), (3600, 3600, 10.0), (7200, 3600, 8.0)]),
        ],
        "both guests count in the group of small ones"
    );
    assert_eq!(
        ask("original_resource_id", 3600, 5400).await,
        [(json!("vm1"), vec![(3600, 3600, 4.0)]), (json!("vm2"), vec![(3600, 3600, 4.0)])],
        "the window ends in the middle of the bucket"
    );
}
