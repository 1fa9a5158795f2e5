//! What alarms read: the same as the reader's answers, found once within a scope; and word of what was written.

use std::time::Duration;

use orzo_model::{
    Arrivals, EventFeed, GroupRead, MeasureReader, Point, ReadError, ResourceRead, SampleSink, Scope, Target,
    WindowRead, WindowReader,
};
use parking_lot::Mutex;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn own() -> Scope {
    Scope::Project("p1".into())
}

#[tokio::test]
async fn windows_are_the_same_as_the_readers_answers() {
    let f = fixture().await;
    let samples = (0..40).flat_map(|n| {
        [sample("a", "cpu_util", 10 * n, f64::from(n as i32)), sample("b", "cpu_util", 20 * n, f64::from(3 * n as i32))]
    });
    f.engine.accept(batch(samples.collect(), Vec::new())).await.expect("kept");
    let resource = Target::Resource { resource_id: "a".into(), metric: "cpu_util".into() };
    let search = r#"{"=": {"project_id": "p1"}}"#;
    let group = Target::Group { metric: "cpu_util".into(), resource_type: "generic".into(), search: search.into() };
    let one = f.engine.find_series(&own(), &resource).await.expect("found");
    let both = f.engine.find_series(&own(), &group).await.expect("found");
    assert_eq!((one.len(), both.len()), (1, 2));
    let reads: Vec<WindowRead> = ["mean", "max", "rate:mean", "95pct"]
        .iter()
        .flat_map(|method| {
            let read = |series: &Arc<[orzo_model::SeriesId]>, over: Option<&str>| WindowRead {
                series: series.clone(),
                aggregation: (*method).into(),
                reaggregation: over.map(str::to_owned),
                granularity: MINUTE,
                start: at(60),
                stop: at(300),
            };
            [read(&one, None), read(&both, Some("mean")), read(&both, Some("rate:sum"))]
        })
        .collect();
    let answers = f.engine.read_windows(&reads).await;
    assert_eq!(answers.len(), reads.len());
    for (read, answer) in reads.iter().zip(answers) {
        let expected = match &read.reaggregation {
            None => {
                let question = ResourceRead {
                    resource_id: "a".into(),
                    metric: "cpu_util".into(),
                    aggregation: read.aggregation.clone(),
                    granularity: MINUTE,
                    start: read.start,
                    stop: read.stop,
                };
                f.engine.read_resource(&own(), &question).await
            }
            Some(over) => {
                let question = GroupRead {
                    metric: "cpu_util".into(),
                    resource_type: "generic".into(),
                    search: serde_json::from_str(search).expect("JSON"),
                    aggregation: read.aggregation.clone(),
                    reaggregation: over.clone(),
                    granularity: MINUTE,
                    start: read.start,
                    stop: read.stop,
                };
                f.engine.read_group(&own(), &question).await
            }
        };
        let expected = expected.expect("answered");
        assert!(expected.len() >= 3, "{read:?}");
        assert_eq!(answer.expect("answered"), expected, "{read:?}");
    }
}

#[tokio::test]
async fn what_the_scope_does_not_see_is_not_found() {
    let f = fixture().await;
    f.engine.accept(batch(vec![sample_of("p2", "a", "cpu_util", 0, 1.0)], Vec::new())).await.expect("kept");
    let resource = Target::Resource { resource_id: "a".into(), metric: "cpu_util".into() };
    let group = Target::Group { metric: "cpu_util".into(), resource_type: "generic".into(), search: "{}".into() };
    let series = f.engine.find_series(&Scope::All, &resource).await.expect("found");
    let found = f.engine.index().all_metrics(&orzo_index::MetricQuery::new(Scope::All), 10).await.expect("listed");
    let metric = found.iter().find(|metric| metric.series == series[0]).expect("its metric");
    let by_id = Target::Metrics(vec![metric.id.to_string()]);
    for target in [resource, group, by_id] {
        assert!(f.engine.find_series(&Scope::All, &target).await.is_ok(), "{target:?}");
        for scope in [own(), Scope::Nothing] {
            let refused = f.engine.find_series(&scope, &target).await;
            assert!(matches!(refused, Err(ReadError::NotFound { .. })), "{target:?} {refused:?}");
        }
    }
}

#[derive(Default)]
struct Heard {
    points: Mutex<Vec<Point>>,
    events: Mutex<u32>,
}

impl Arrivals for Heard {
    fn points(&self, points: &[Point]) {
        self.points.lock().extend(points);
    }

    fn events(&self) {
        *self.events.lock() += 1;
    }
}

#[tokio::test]
async fn who_listens_hears_of_what_can_be_read_once_for_events_and_always_for_samples() {
    let f = fixture().await;
    let heard = Arc::new(Heard::default());
    f.engine.listen(heard.clone());
    let batch = batch(vec![sample("a", "cpu_util", 0, 1.0)], vec![event("m", "compute.instance.x", 0, Uuid::new_v4())]);
    f.engine.accept(batch.clone()).await.expect("kept");
    assert_eq!(heard.points.lock().iter().map(|point| point.value).collect::<Vec<_>>(), [1.0]);
    assert_eq!(*heard.events.lock(), 1);
    let followed = f.engine.events_after(0, 10).await.expect("followed");
    assert_eq!(followed.iter().map(|numbered| numbered.event.message_id.as_str()).collect::<Vec<_>>(), ["m"]);
    // A repeat may have corrected a sample, which cannot be told here; an event is what it was.
    f.engine.accept(batch).await.expect("kept");
    assert_eq!((heard.points.lock().len(), *heard.events.lock()), (2, 1));
}
