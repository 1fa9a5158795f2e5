//! What changes resources, their types and their metrics.

use std::{collections::BTreeMap, time::Duration};

use super::*;

#[tokio::test]
async fn a_revision_is_made_only_by_a_real_change() {
    for f in fixtures().await {
        let new = new_resource("vm-1", "instance", "u:p", json!({"host": "a", "created_at": "2026-01-01"}));
        let made = f.index.create_resource(&new).await.expect("made");
        assert_eq!(made.id, resource_uuid("vm-1", "u:p").expect("an id"));
        assert!(matches!(f.index.create_resource(&new).await, Err(IndexError::Exists { .. })));
        f.clock.advance(Duration::from_secs(10));
        let change = |attributes: Value| ResourceChange { attributes: object(attributes), ..ResourceChange::default() };
        let same = f.index.update_resource(&Scope::All, "instance", made.id, &change(json!({"host": "a"}))).await;
        assert!(!same.expect("accepted").1);
        let (changed, is_new) = f
            .index
            .update_resource(&Scope::All, "instance", made.id, &change(json!({"host": "b"})))
            .await
            .expect("changed");
        assert!(is_new);
        assert_eq!(changed.revision_start, Timestamp::from_secs(START + 10));
        let history =
            f.index.resource_history(&Scope::All, "instance", made.id, Page::default()).await.expect("history");
        assert_eq!(history.len(), 2);
        assert_eq!(history[0].attributes["host"], "a");
        assert_eq!(history[0].revision_end, Some(Timestamp::from_secs(START + 10)));
        assert_eq!((history[1].attributes["host"].as_str(), history[1].revision_end), (Some("b"), None));
        // Each revision is found by its own attributes.
        for (host, revision) in [("a", 1), ("b", -1)] {
            let every = ResourceQuery { history: true, ..query("instance", json!({"=": {"host": host}})) };
            let found = f.index.resources(&every).await.expect("found");
            assert_eq!(found.iter().map(|r| r.revision).collect::<Vec<_>>(), [revision]);
        }
        let bad = ResourceChange { ended_at: Some(Some(Timestamp::EPOCH)), ..ResourceChange::default() };
        let text =
            f.index.update_resource(&Scope::All, "instance", made.id, &bad).await.expect_err("ends before").to_string();
        assert_eq!(text, "Start timestamp cannot be after end timestamp");
    }
}

/// 409 was told of a body that could not have been taken anyway.
#[tokio::test]
async fn what_is_wrong_with_a_resource_is_told_before_that_it_exists() {
    for f in fixtures().await {
        let good = new_resource("vm-1", "instance", "u:p", json!({"host": "a", "created_at": "2026-01-01"}));
        f.index.create_resource(&good).await.expect("made");
        let unknown = new_resource("vm-1", "instance", "u:p", json!({"no_such": 1}));
        let ends_before = NewResource { ended_at: Some(Timestamp::EPOCH), ..good.clone() };
        for (new, expected) in [(unknown, "extra keys not allowed"), (ends_before, "Start timestamp cannot be after")] {
            let error = f.index.create_resource(&new).await.expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!(f.index.create_resource(&good).await, Err(IndexError::Exists { .. })));
    }
}

#[tokio::test]
async fn samples_change_attributes_with_a_revision_and_wake_what_has_ended() {
    for f in fixtures().await {
        let id = f.index.resolve(&[wanted("vm", json!({"host": "a", "odd": 1}), &["cpu"])]).await.expect("made")[0].id;
        let history =
            async || f.index.resource_history(&Scope::All, "instance", id, Page::default()).await.expect("there");
        f.index.resolve(&[wanted("vm", json!({"host": "a"}), &["cpu"])]).await.expect("known");
        assert_eq!(history().await.len(), 1);
        assert!(!history().await[0].attributes.contains_key("odd"), "the type has no such attribute");
        f.index
            .resolve(&[wanted("vm", json!({"host": "b", "flavor_name": "x".repeat(300)}), &["cpu"])])
            .await
            .expect("changed");
        let now = history().await.pop().expect("current");
        assert_eq!((history().await.len(), now.attributes["host"].as_str()), (2, Some("b")));
        assert_eq!(now.attributes["flavor_name"].as_str().map(str::len), Some(255), "cut, not lost");
        assert_eq!(now.started_at, Timestamp::from_secs(START - 60));
        let ended = Timestamp::from_secs(START);
        assert_eq!(f.index.end_resources(&[id, Uuid::nil()], ended).await.expect("ended"), 1);
        assert_eq!(f.index.end_resources(&[id], ended).await.expect("again"), 0);
        let mut late = wanted("vm", json!({"host": "b"}), &["cpu"]);
        f.index.resolve(&[late.clone()]).await.expect("an older sample");
        assert_eq!(history().await.pop().expect("current").ended_at, Some(ended));
        late.last_at = Timestamp::from_secs(START + 1);
        f.index.resolve(&[late]).await.expect("a newer sample");
        assert_eq!(history().await.pop().expect("current").ended_at, None);
        // A meter that no definition knows comes first; then one that places the resource.
        let mut first = wanted("later", json!({}), &["odd"]);
        first.resource_type = "generic".into();
        f.index.resolve(&[first.clone()]).await.expect("made");
        f.index.resolve(&[wanted("later", json!({"host": "a"}), &["cpu"])]).await.expect("placed");
        f.index.resolve(&[first]).await.expect("known");
        let placed = f.index.find_resource(&Scope::All, "instance", "orzo", "later").await.expect("there");
        assert_eq!((placed.attributes["host"].as_str(), placed.metrics.len()), (Some("a"), 2));
        // What was said, unsaid and said again is what holds.
        for host in ["b", "a", "b"] {
            f.index.resolve(&[wanted("later", json!({"host": host}), &["cpu"])]).await.expect("changed");
            let placed = f.index.find_resource(&Scope::All, "instance", "orzo", "later").await.expect("there");
            assert_eq!(placed.attributes["host"].as_str(), Some(host));
        }
        let woken = f.index.end_resources(&[placed.id], Timestamp::from_secs(START + 9)).await.expect("ended");
        assert_eq!(woken, 1);
        let newest = [(placed.id, Timestamp::from_secs(START + 9)), (Uuid::nil(), Timestamp::MAX)];
        assert_eq!(f.index.wake_resources(&newest).await.expect("not newer"), 0);
        assert_eq!(f.index.wake_resources(&[(placed.id, Timestamp::from_secs(START + 10))]).await.expect("newer"), 1);
        // The same resource twice in one call, and a type that nobody made.
        let mut unknown = wanted("odd", json!({"shape": "round"}), &["x"]);
        unknown.resource_type = "novelty".into();
        let mut twice = unknown.clone();
        twice.metrics[0].name = "y".into();
        let answers = f.index.resolve(&[unknown, twice]).await.expect("made");
        assert_eq!(answers[0].id, answers[1].id);
        assert_ne!(answers[0].series, answers[1].series);
        let found = f.index.resources(&query("novelty", json!({"=": {"shape": "round"}}))).await.expect("found");
        assert_eq!(found[0].metrics.len(), 2);
    }
}

#[tokio::test]
async fn metrics_have_unique_names_and_can_be_attached_and_detached() {
    for f in fixtures().await {
        let free =
            f.index.create_metric(&NewMetric { creator: "u:p".into(), ..NewMetric::default() }).await.expect("free");
        let mut new = new_resource("vm", "instance", "u:p", json!({}));
        new.metrics = vec![("free".into(), MetricSource::Existing(free.id))];
        let resource = f.index.create_resource(&new).await.expect("made");
        assert_eq!(resource.metrics["free"], free.id);
        let more = |name: &str| vec![(name.to_owned(), MetricSource::New { archive_policy_name: None, unit: None })];
        let all = f.index.add_resource_metrics(&Scope::All, resource.id, "u:p", &more("cpu")).await.expect("added");
        assert_eq!(all.metrics.len(), 2);
        let text =
            f.index.add_resource_metrics(&Scope::All, resource.id, "u:p", &more("cpu")).await.expect_err("taken");
        assert_eq!(text.to_string(), "Named metric cpu already exists");
        let stranger = vec![("x".to_owned(), MetricSource::Existing(free.id))];
        assert!(f.index.add_resource_metrics(&Scope::All, resource.id, "other:p", &stranger).await.is_err());
        let change = ResourceChange { metrics: Some(more("only")), ..ResourceChange::default() };
        let (resource, is_new) =
            f.index.update_resource(&Scope::All, "instance", resource.id, &change).await.expect("replaced");
        assert_eq!((resource.metrics.len(), is_new), (1, false));
        assert_eq!(f.index.metric(&Scope::All, free.id).await.expect("still there").resource_id, None);
        let bad = NewMetric { creator: "u:p".into(), name: Some("a/b".into()), ..NewMetric::default() };
        let text = f.index.create_metric(&bad).await.expect_err("a slash").to_string();
        assert_eq!(text, "'/' is not supported in metric name");
        // Pages of metrics are complete.
        let mut seen = Vec::new();
        loop {
            let page = Page {
                limit: Some(1),
                marker: seen.last().map(Uuid::to_string),
                sort: vec![Sort::parse("name:desc").expect("a key")],
            };
            let page = f.index.metrics(&MetricQuery { page, ..MetricQuery::new(Scope::All) }).await.expect("a page");
            let Some(metric) = page.first() else { break };
            assert!(!seen.contains(&metric.id));
            seen.push(metric.id);
        }
        assert_eq!(seen.len() as u64, f.index.count_metrics().await.expect("counted"));
    }
}

#[tokio::test]
async fn a_type_can_gain_and_lose_attributes() {
    for f in fixtures().await {
        f.index.create_resource(&new_resource("vm", "instance", "u:p", json!({"host": "a"}))).await.expect("made");
        let attribute: Attribute = serde_json::from_value(json!({"type": "number"})).expect("an attribute");
        let added = |fill: Option<Value>| {
            BTreeMap::from([("rank".to_owned(), AddedAttribute { attribute: attribute.clone(), fill })])
        };
        assert!(f.index.update_resource_type("instance", &added(None), &[]).await.is_err(), "required without fill");
        f.index.update_resource_type("instance", &added(Some(json!(3))), &["host".into()]).await.expect("changed");
        let found = f.index.resources(&query("instance", json!({"=": {"rank": 3}}))).await.expect("found");
        assert_eq!(found[0].attributes, object(json!({"rank": 3})));
        let text =
            f.index.update_resource_type("instance", &BTreeMap::new(), &["nope".into()]).await.expect_err("missing");
        assert!(text.to_string().contains("can't remove a non-existent object 'nope'"));
        let text = f.index.delete_resource_type("instance").await.expect_err("in use").to_string();
        assert_eq!(text, "Resource type instance is still in use");
        let empty = ResourceQuery { filter: Filter::Everything, ..query("instance", json!({})) };
        assert!(f.index.delete_resources(&empty).await.is_err(), "an empty search deletes nothing");
        let all = query("instance", json!({"=": {"rank": 3}}));
        assert_eq!(f.index.delete_resources(&all).await.expect("deleted"), 1);
        f.index.delete_resource_type("instance").await.expect("no longer in use");
    }
}
