//! Several processes on one database: numbers given once, the same made twice, deletions seen.

use std::time::Duration;

use orzo_model::Clock;

use super::*;

#[tokio::test]
async fn series_are_given_once_and_never_again() {
    for f in fixtures().await {
        let first = f.index.resolve(&[wanted("vm", json!({"host": "a"}), &["cpu", "memory"])]).await.expect("made");
        let again = f.index.resolve(&[wanted("vm", json!({"host": "a"}), &["memory", "cpu"])]).await.expect("known");
        assert_eq!(first[0].series, [again[0].series[1], again[0].series[0]]);
        let cpu = f.index.metric_of_resource(&Scope::All, first[0].id, "cpu").await.expect("there");
        assert_eq!((cpu.series, cpu.archive_policy.name.as_str()), (first[0].series[0], "ceilometer-low"));
        f.index.delete_metric(&Scope::All, cpu.id).await.expect("deleted");
        let new = f.index.resolve(&[wanted("vm", json!({"host": "a"}), &["cpu"])]).await.expect("made again");
        assert!(!first[0].series.contains(&new[0].series[0]), "a deleted metric was resurrected");
        f.clock.advance(Duration::from_secs(60));
        let deleted = f.index.deleted_metrics(f.clock.now(), 10).await.expect("listed");
        assert_eq!(deleted, [first[0].series[0]]);
        f.index.purge_metrics(&deleted).await.expect("purged");
        f.index.delete_resource(&Scope::All, "instance", first[0].id).await.expect("deleted");
        let fresh = f.index.resolve(&[wanted("vm", json!({"host": "a"}), &["cpu"])]).await.expect("made again");
        assert!(fresh[0].series[0] > new[0].series[0], "a number was given twice");
        assert!(
            f.index.resource_history(&Scope::All, "instance", fresh[0].id, Page::default()).await.expect("new").len()
                == 1
        );
    }
}

#[tokio::test]
async fn a_deletion_by_another_process_is_seen_within_a_second() {
    for f in fixtures().await {
        let other = Index::open(f.database.clone(), f.clock.clone(), IndexSettings::default()).await.expect("opens");
        let want = [wanted("vm", json!({}), &["cpu"])];
        let first = f.index.resolve(&want).await.expect("made");
        assert_eq!(other.resolve(&want).await.expect("read"), first);
        let cpu = f.index.metric_of_resource(&Scope::All, first[0].id, "cpu").await.expect("there");
        other.delete_metric(&Scope::All, cpu.id).await.expect("deleted");
        f.clock.advance(Duration::from_secs(1));
        assert_ne!(f.index.resolve(&want).await.expect("made again"), first);
    }
}

#[tokio::test]
async fn several_processes_that_make_the_same_agree() {
    for f in fixtures().await {
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let index =
                Index::open(f.database.clone(), f.clock.clone(), IndexSettings::default()).await.expect("opens");
            tasks.push(tokio::spawn(async move {
                let want: Vec<_> =
                    (0..20).map(|n| wanted(&format!("vm{n}"), json!({"host": "a"}), &["cpu", "memory"])).collect();
                index.resolve(&want).await.expect("resolved")
            }));
        }
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("no panic"));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "on {}", f.database.kind());
        assert_eq!(f.index.count_metrics().await.expect("counted"), 40);
    }
}

/// What a metric is, who sees it and whether its resource has ended is remembered; every change of it must be seen.
#[tokio::test]
async fn remembered_metrics_follow_every_change() {
    for f in fixtures().await {
        let found = f.index.resolve(&[wanted("vm", json!({}), &["cpu"])]).await.expect("made");
        let resource = found[0].id;
        let cpu = f.index.metric_of_resource(&Scope::All, resource, "cpu").await.expect("there");
        let by_id = async |scope: &Scope| f.index.known_metrics(scope, &[cpu.id]).await.expect("asked").pop().flatten();
        let by_name = async |scope: &Scope, name: &str| {
            f.index.known_metrics_of(scope, &[(resource, name)]).await.expect("asked").pop().flatten()
        };
        assert_eq!(by_id(&Scope::All).await.expect("there").series, cpu.series);
        assert_eq!(by_name(&Scope::All, "cpu").await.expect("there").id, cpu.id);
        assert!(by_id(&Scope::Nothing).await.is_none() && by_id(&project("p9")).await.is_none());
        assert!(by_name(&project("p9"), "cpu").await.is_none(), "memory keeps tenants apart");

        let change = ResourceChange { project_id: Some(Some("p9".into())), ..ResourceChange::default() };
        f.index.update_resource(&Scope::All, "generic", resource, &change).await.expect("changed");
        assert!(by_id(&project("p9")).await.is_some(), "the new owner sees it");
        assert!(by_name(&project("p9"), "cpu").await.is_some());

        let policy = f.index.archive_policy(&cpu.archive_policy.name).await.expect("there");
        let definition = policy.definition.iter().map(|item| PolicyItem::new(Some(item.granularity()), Some(7), None));
        let definition = definition.collect::<Result<_, _>>().expect("a definition");
        f.index.update_archive_policy(&policy.name, definition, None, None).await.expect("changed");
        assert_eq!(by_id(&Scope::All).await.expect("there").archive_policy.definition[0].points, Some(7));

        assert!(by_name(&Scope::All, "load").await.is_none());
        f.index.resolve(&[wanted("vm", json!({}), &["load"])]).await.expect("made");
        assert!(by_name(&Scope::All, "load").await.is_some(), "what is not remembered is looked up");

        let later = Timestamp::from_secs(START + 1000);
        assert_eq!(f.index.wake_resources(&[(resource, later)]).await.expect("alive"), 0);
        f.index.end_resources(&[resource], Timestamp::from_secs(START + 500)).await.expect("ended");
        assert_eq!(f.index.wake_resources(&[(resource, later)]).await.expect("asked"), 1, "its end is seen");
        assert_eq!(f.index.wake_resources(&[(resource, later)]).await.expect("asked"), 0);

        f.index.delete_resource(&Scope::All, "generic", resource).await.expect("deleted");
        assert!(by_id(&Scope::All).await.is_none() && by_name(&Scope::All, "cpu").await.is_none());
    }
}

#[tokio::test]
async fn many_resources_made_at_once_lose_none_to_conflicts() {
    for f in fixtures().await {
        let index = Arc::new(f.index);
        let make = |n: usize| {
            let index = index.clone();
            tokio::spawn(async move {
                for part in 0..5 {
                    let mut new = new_resource(&format!("r{n}-{part}"), "instance", "u:p", json!({"host": "h"}));
                    let source = MetricSource::New { archive_policy_name: None, unit: None };
                    new.metrics = ["cpu", "memory", "disk"].map(|name| (name.to_owned(), source.clone())).into();
                    index.create_resource(&new).await.expect("made");
                }
            })
        };
        for task in (0..12).map(make).collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        let metrics = index.all_metrics(&MetricQuery::new(Scope::All), 1000).await.expect("metrics");
        let series: std::collections::HashSet<_> = metrics.iter().map(|metric| metric.series).collect();
        assert_eq!((metrics.len(), series.len()), (180, 180), "each has a number of its own on {}", f.database.kind());
    }
}
