//! What is written is there, once, however often it is sent.

use orzo_index::{EventQuery, MetricQuery, NewMetric, NewResource, ResourceQuery};
use orzo_model::{SampleSink, Scope, SeriesId};
use proptest::prelude::*;

use super::*;
use crate::{MeasuresColumn, NamedMetric, PostedMeasures};

const INSTANCE: Uuid = Uuid::from_u128(0x2d5a1d4e_3bb9_4d9e_8e2a_7c0d9b1f2a3c);

/// Everything that is stored, for comparing.
async fn stored(f: &Fixture) -> Vec<(String, String, String, Vec<Measure>)> {
    let index = f.engine.index();
    let mut found = Vec::new();
    for metric in index.all_metrics(&MetricQuery::new(Scope::All), usize::MAX).await.expect("listed") {
        let id = metric.resource_id.expect("of a resource");
        let resource = index.resource(&Scope::All, "generic", id).await.expect("there");
        let points = f.store.scan(&[metric.series], Timestamp::MIN, Timestamp::MAX).await.expect("scanned");
        let points = points.into_iter().next().map(|(_, points)| points).unwrap_or_default();
        found.push((resource.resource_type, resource.original_resource_id, metric.name.unwrap_or_default(), points));
    }
    found.sort_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
    found
}

/// Every revision of every resource.
async fn history(f: &Fixture) -> Vec<orzo_index::Resource> {
    let query = ResourceQuery {
        scope: Scope::All,
        resource_type: "generic".into(),
        filter: orzo_index::Filter::Everything,
        creator: None,
        history: true,
        page: Default::default(),
    };
    f.engine.index().resources(&query).await.expect("listed")
}

#[tokio::test]
async fn samples_are_placed_by_definitions_and_unknown_meters_are_kept_too() {
    let f = fixture().await;
    let samples = vec![
        sample("vm1", "cpu_util", 0, 10.0),
        sample("vm1", "cpu_util", 60, 20.0),
        sample("vm1-vda", "disk.device.read.bytes", 0, 1e6),
        sample("vm1", "what/nobody.knows", 0, 1.0),
        sample("a/b", "odd.thing", 0, 2.0),
        sample("", "cpu_util", 0, 1.0),
        sample("vm1", "", 0, 1.0),
    ];
    let receipt = f.engine.accept(batch(samples, vec![])).await.expect("accepted");
    assert_eq!((receipt.stored, receipt.repeated, receipt.refused), (5, 0, 2));
    let found = stored(&f).await;
    let names: Vec<_> =
        found.iter().map(|(t, id, name, points)| (t.as_str(), id.as_str(), name.as_str(), points.len())).collect();
    assert_eq!(
        names,
        [
            ("generic", "a_b", "odd.thing", 1),
            ("instance", "vm1", "cpu_util", 2),
            ("instance", "vm1", "what_nobody.knows", 1),
            ("instance_disk", "vm1-vda", "disk.device.read.bytes", 1),
        ]
    );
    let vm =
        f.engine.index().find_resource(&Scope::Project("p1".into()), "instance", "x:p1", "vm1").await.expect("found");
    assert_eq!(vm.attributes["display_name"], "name of vm1");
    assert_eq!(vm.attributes["host"], "node1");
    assert_eq!((vm.project_id.as_deref(), vm.user_id.as_deref()), (Some("p1"), Some("u1")));
    assert_eq!(vm.started_at, at(0));
    assert!(f.room.balance().is_conserved());
    assert_eq!(f.room.balance().waiting, 0);
}

#[tokio::test]
async fn the_same_batch_again_changes_nothing() {
    let f = fixture().await;
    let samples: Vec<Sample> = (0..50).map(|n| sample(&format!("vm{}", n % 5), "cpu_util", n * 10, n as f64)).collect();
    let events = vec![event("m1", "compute.instance.create.end", 0, INSTANCE)];
    let batch = batch(samples, events);
    let first = f.engine.accept(batch.clone()).await.expect("accepted");
    assert_eq!((first.stored, first.repeated), (51, 0));
    let before = stored(&f).await;
    let again = f.engine.accept(batch.clone()).await.expect("accepted");
    assert_eq!((again.stored, again.repeated), (0, 51));
    f.store.flush().await.expect("flushed");
    f.engine.accept(batch).await.expect("accepted");
    assert_eq!(stored(&f).await, before);
    assert_eq!(f.engine.index().events(&EventQuery::new(Scope::All)).await.expect("listed").len(), 1);
    assert!(f.room.balance().is_conserved());
}

#[tokio::test]
async fn events_make_and_end_resources_and_their_parts() {
    let f = fixture().await;
    let index = f.engine.index().clone();
    let instance = async || index.resource(&Scope::All, "instance", INSTANCE).await;
    f.engine.accept(batch(vec![], vec![event("u0", "compute.instance.update", 0, INSTANCE)])).await.expect("accepted");
    assert!(instance().await.is_err(), "an update alone makes nothing");
    f.engine
        .accept(batch(vec![], vec![event("m1", "compute.instance.create.end", 1, INSTANCE)]))
        .await
        .expect("accepted");
    let made = instance().await.expect("made");
    assert_eq!(
        (made.attributes["display_name"].as_str(), made.attributes["host"].as_str()),
        (Some("web"), Some("node2"))
    );
    assert_eq!((made.project_id.as_deref(), made.started_at, made.ended_at), (Some("p1"), at(1), None));
    let mut disk = sample(&format!("{INSTANCE}-vda"), "disk.device.read.bytes", 10, 1.0);
    let mut metadata = (*disk.metadata).clone();
    metadata.insert("instance_id".into(), json!(INSTANCE.to_string()));
    disk.metadata = Arc::new(metadata);
    f.engine
        .accept(batch(vec![disk, sample(&INSTANCE.to_string(), "cpu_util", 10, 1.0)], vec![]))
        .await
        .expect("accepted");
    let end = batch(vec![], vec![event("m2", "compute.instance.delete.start", 100, INSTANCE)]);
    f.engine.accept(end.clone()).await.expect("accepted");
    assert_eq!(instance().await.expect("there").ended_at, Some(at(100)));
    let disk =
        index.find_resource(&Scope::All, "instance_disk", "orzo", &format!("{INSTANCE}-vda")).await.expect("there");
    assert_eq!(disk.ended_at, Some(at(100)));
    // What follows the deletion does not wake it: a repeat, Nova's updates, the last polls.
    f.engine.accept(end).await.expect("accepted");
    f.engine
        .accept(batch(vec![], vec![event("u1", "compute.instance.update", 101, INSTANCE)]))
        .await
        .expect("accepted");
    f.engine.accept(batch(vec![sample(&INSTANCE.to_string(), "cpu_util", 130, 1.0)], vec![])).await.expect("accepted");
    assert_eq!(instance().await.expect("there").ended_at, Some(at(100)));
    // A sample from long after does: somebody runs it again.
    f.engine.accept(batch(vec![sample(&INSTANCE.to_string(), "cpu_util", 200, 1.0)], vec![])).await.expect("accepted");
    assert_eq!(instance().await.expect("there").ended_at, None);
}

#[tokio::test]
async fn measures_are_posted_all_or_none_and_wake_their_resource() {
    let f = fixture().await;
    let index = f.engine.index().clone();
    let new = NewMetric { creator: "u:p1".into(), name: Some("free".into()), ..NewMetric::default() };
    let metric = index.create_metric(&new).await.expect("made");
    let scope = Scope::Project("p1".into());
    let column = |posted: &[&[Measure]]| {
        let mut column = MeasuresColumn::default();
        for measures in posted {
            column.measures.extend_from_slice(measures);
            column.end_metric();
        }
        column
    };
    let both = column(&[&[measure(0, 1.0)], &[measure(0, 1.0)]]);
    let ids = [metric.id, Uuid::nil()];
    let text = f.engine.post_by_metric(&scope, &ids, &both, |_| true).await.expect_err("one is unknown").to_string();
    assert_eq!(text, format!("Unknown metrics: {}", Uuid::nil()));
    assert_eq!(f.store.last(metric.series).await.expect("asked"), None);
    let one = column(&[&[measure(0, 1.0), measure(1, 2.0)]]);
    let ids = [metric.id];
    assert!(f.engine.post_by_metric(&scope, &ids, &one, |_| false).await.is_err());
    assert!(f.engine.post_by_metric(&Scope::Project("p2".into()), &ids, &one, |_| true).await.is_err());
    f.engine.post_by_metric(&scope, &ids, &one, |_| true).await.expect("kept");
    assert_eq!(f.store.last(metric.series).await.expect("asked"), Some(measure(1, 2.0)));
    index.delete_metric(&scope, metric.id).await.expect("deleted");
    assert!(f.engine.post_by_metric(&scope, &ids, &one, |_| true).await.is_err(), "memory knows of the deletion");

    let named = [NamedMetric { resource: "host1".into(), name: "load".into(), ..NamedMetric::default() }];
    let given = column(&[&[measure(500, 5.0)]]);
    let post = async |create| f.engine.post_by_resource(&scope, "u:p1", &named, &given, create, |_| true).await;
    let id = orzo_index::resource_uuid("host1", "u:p1").expect("an id");
    assert_eq!(post(false).await.expect_err("unknown").to_string(), format!("Unknown metrics: {id}/load"));
    let text = format!("{:?}", post(true).await.expect_err("unknown"));
    assert!(text.contains("Unknown resources") && text.contains("original_resource_id"), "{text}");
    let new = NewResource {
        id: "host1".into(),
        resource_type: "host".into(),
        creator: "u:p1".into(),
        project_id: None,
        user_id: None,
        started_at: Some(at(0)),
        ended_at: Some(at(400)),
        attributes: serde_json::Map::new(),
        metrics: Vec::new(),
    };
    let host = index.create_resource(&new).await.expect("made");
    assert!(post(false).await.is_err());
    post(true).await.expect("made and kept");
    post(false).await.expect("kept again");
    let host = index.resource(&scope, "host", host.id).await.expect("there");
    assert_eq!((host.ended_at, host.metrics.len()), (None, 1));
    let load = index.metric_of_resource(&scope, host.id, "load").await.expect("there");
    assert_eq!(f.store.last(load.series).await.expect("asked"), Some(measure(500, 5.0)));
    f.engine.post_measures(&[PostedMeasures { metric: load, measures: vec![] }]).await.expect("nothing to do");
    assert!(f.room.balance().is_conserved());
}

#[tokio::test]
async fn points_of_deleted_metrics_are_removed_after_a_while() {
    let f = fixture().await;
    f.engine.accept(batch(vec![sample("vm1", "cpu_util", 0, 1.0)], vec![])).await.expect("accepted");
    let index = f.engine.index().clone();
    let vm = index.find_resource(&Scope::All, "instance", "orzo", "vm1").await.expect("there");
    let metric = index.metric_of_resource(&Scope::All, vm.id, "cpu_util").await.expect("there");
    index.delete_metric(&Scope::All, metric.id).await.expect("deleted");
    assert_eq!(f.engine.purge_deleted().await.expect("too early"), 0);
    f.clock.advance(std::time::Duration::from_secs(120));
    assert_eq!(f.engine.purge_deleted().await.expect("purged"), 1);
    assert_eq!(f.store.last(metric.series).await.expect("asked"), None);
    f.engine.accept(batch(vec![sample("vm1", "cpu_util", 60, 2.0)], vec![])).await.expect("accepted");
    let again = index.metric_of_resource(&Scope::All, vm.id, "cpu_util").await.expect("there");
    assert!(again.series > metric.series, "{:?}", SeriesId(again.series.0));
    assert_eq!(f.store.last(again.series).await.expect("asked"), Some(measure(60, 2.0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Any batches, sent in any order and any number of times, leave every (resource, meter, time) once.
    #[test]
    fn accepting_twice_changes_nothing(
        sent in prop::collection::vec((0..3u8, 0..3u8, 0..40i64), 1..60),
        repeats in prop::collection::vec(0..6usize, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let f = fixture().await;
            let meters = ["cpu_util", "memory.usage", "nobody.knows"];
            let batches: Vec<Batch> = sent
                .chunks(12)
                .map(|chunk| {
                    let samples = chunk.iter().map(|&(vm, meter, second)| {
                        sample(&format!("vm{vm}"), meters[usize::from(meter)], second, (second * 7) as f64)
                    });
                    batch(samples.collect(), vec![event(&format!("m{}", chunk.len()), "compute.instance.create.end", 0, INSTANCE)])
                })
                .collect();
            for batch in &batches {
                f.engine.accept(batch.clone()).await.expect("accepted");
            }
            let once = stored(&f).await;
            let revisions = history(&f).await;
            let expected: std::collections::BTreeSet<_> = sent.iter().copied().collect();
            prop_assert_eq!(once.iter().map(|(_, _, _, points)| points.len()).sum::<usize>(), expected.len());
            for &place in &repeats {
                f.engine.accept(batches[place % batches.len()].clone()).await.expect("accepted");
            }
            prop_assert_eq!(stored(&f).await, once);
            prop_assert_eq!(history(&f).await, revisions, "nothing changed, so there is no new revision");
            prop_assert!(f.room.balance().is_conserved());
            Ok(())
        })?;
    }
}
