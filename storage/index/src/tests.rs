//! Behaviour of the index; on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names a database.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orzo_database::Database;
use orzo_model::{Clock, Event, ManualClock, Scope, Timestamp, Trait, TraitValue};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::*;

struct Fixture {
    index: Index,
    clock: Arc<ManualClock>,
    database: Database,
    _directory: Option<tempfile::TempDir>,
}

const START: i64 = 1_800_000_000;

async fn on(database: Database, directory: Option<tempfile::TempDir>) -> Fixture {
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let index = Index::open(database.clone(), clock.clone(), IndexSettings::default()).await.expect("opens");
    Fixture { index, clock, database, _directory: directory }
}

/// An empty index on each database there is. Each PostgreSQL test gets a schema of its own.
async fn fixtures() -> Vec<Fixture> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = Database::open_file(&directory.path().join("index.db")).await.expect("sqlite opens");
    let mut found = vec![on(file, Some(directory)).await];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        let schema = format!("t{}", Uuid::new_v4().simple());
        let admin = Database::open(&url).await.expect("postgresql opens");
        admin.execute(&format!("CREATE SCHEMA {schema}"), &[]).await.expect("a schema");
        admin.close().await;
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}options[search_path]={schema}");
        found.push(on(Database::open(&url).await.expect("postgresql opens"), None).await);
    }
    found
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn project(name: &str) -> Scope {
    Scope::Project(name.to_owned())
}

fn new_resource(id: &str, resource_type: &str, creator: &str, attributes: Value) -> NewResource {
    NewResource {
        id: id.to_owned(),
        resource_type: resource_type.to_owned(),
        creator: creator.to_owned(),
        project_id: None,
        user_id: None,
        started_at: None,
        ended_at: None,
        attributes: object(attributes),
        metrics: Vec::new(),
    }
}

fn wanted(id: &str, attributes: Value, metrics: &[&str]) -> ResourceWanted {
    ResourceWanted {
        creator: "orzo".into(),
        id: id.to_owned(),
        resource_type: "instance".into(),
        project_id: Some("p1".into()),
        user_id: None,
        attributes: object(attributes),
        first_at: Timestamp::from_secs(START - 60),
        last_at: Timestamp::from_secs(START - 60),
        metrics: metrics
            .iter()
            .map(|&name| MetricWanted {
                name: name.into(),
                archive_policy_name: Some("ceilometer-low".into()),
                unit: None,
            })
            .collect(),
    }
}

fn query(resource_type: &str, filter: Value) -> ResourceQuery {
    ResourceQuery {
        scope: Scope::All,
        resource_type: resource_type.into(),
        filter: Filter::parse(&filter).expect("a filter"),
        creator: Some("u:p".into()),
        history: false,
        page: Page::default(),
    }
}

fn names(resources: &[Resource]) -> Vec<&str> {
    let mut names: Vec<&str> = resources.iter().map(|resource| resource.original_resource_id.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn an_empty_database_is_filled_once_and_what_is_deleted_stays_deleted() {
    for f in fixtures().await {
        let policies = f.index.archive_policies().await.expect("policies");
        assert_eq!(policies.len(), 8);
        let low = f.index.archive_policy("low").await.expect("low");
        assert_eq!(low.definition[0].points, Some(8640));
        assert_eq!(f.index.policy_for_metric("anything").await.expect("the default rule").name, "low");
        assert_eq!(f.index.resource_types().await.expect("types").len(), 23);
        f.index.delete_archive_policy("bool").await.expect("not in use");
        let again =
            Index::open(f.database.clone(), f.clock.clone(), IndexSettings::default()).await.expect("opens again");
        assert!(matches!(again.archive_policy("bool").await, Err(IndexError::NotFound { .. })));
    }
}

#[tokio::test]
async fn policies_and_rules_refuse_with_gnocchis_words() {
    for f in fixtures().await {
        let low = f.index.archive_policy("low").await.expect("low");
        let text = f.index.create_archive_policy(&low).await.expect_err("exists").to_string();
        assert_eq!(text, "Archive policy low already exists");
        let text = f.index.delete_archive_policy("low").await.expect_err("a rule uses it").to_string();
        assert_eq!(text, "Archive policy low is still in use");
        let text = f.index.archive_policy("nope").await.expect_err("missing").to_string();
        assert_eq!(text, "Archive policy nope does not exist");
        f.index.delete_archive_policy_rule("default").await.expect("deleted");
        let new = NewMetric { creator: "u:p".into(), name: Some("x".into()), ..NewMetric::default() };
        let text = f.index.create_metric(&new).await.expect_err("no rule").to_string();
        assert_eq!(
            text,
            "No archive policy name specified and no archive policy rule found matching the metric name x"
        );
    }
}

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

#[tokio::test]
async fn searches_find_what_sql_would() {
    for f in fixtures().await {
        let kind: BTreeMap<String, Attribute> = serde_json::from_value(json!({
            "color": {"type": "string", "required": false}, "size": {"type": "number", "required": false},
            "good": {"type": "bool", "required": false}, "parent": {"type": "uuid", "required": false},
            "seen": {"type": "datetime", "required": false},
        }))
        .expect("attributes");
        f.index.create_resource_type(&ResourceType::new("thing", kind).expect("valid")).await.expect("made");
        let parent = "2d5a1d4e-3bb9-4d9e-8e2a-7c0d9b1f2a3c";
        for (name, attributes) in [
            ("a", json!({"color": "red", "size": 1, "good": true, "seen": "2026-01-01T00:00:00"})),
            ("b", json!({"color": "Red", "size": 10, "good": false, "parent": parent})),
            ("c", json!({"color": "blue", "size": 2.5})),
            ("d", json!({})),
        ] {
            let mut new = new_resource(name, "thing", "u:p", attributes);
            new.project_id = (name != "d").then(|| "p1".to_owned());
            f.index.create_resource(&new).await.expect("made");
        }
        for (filter, expected) in [
            (json!({}), vec!["a", "b", "c", "d"]),
            (json!({"=": {"color": "red"}}), vec!["a"]),
            (json!({"!=": {"color": "red"}}), vec!["b", "c", "d"]),
            (json!({"=": {"color": null}}), vec!["d"]),
            (json!({"!=": {"color": null}}), vec!["a", "b", "c"]),
            (json!({"not": {"=": {"color": "red"}}}), vec!["b", "c"]),
            (json!({"like": {"color": "r%"}}), vec!["a"]),
            (json!({"like": {"color": "_ed"}}), vec!["a", "b"]),
            (json!({"in": {"color": ["red", "blue", "green"]}}), vec!["a", "c"]),
            (json!({">": {"size": 2}}), vec!["b", "c"]),
            (json!({"<=": {"size": "2.5"}}), vec!["a", "c"]),
            (json!({"and": [{">=": {"size": 1}}, {"<": {"size": 10}}]}), vec!["a", "c"]),
            (json!({"or": [{"=": {"good": true}}, {"=": {"parent": parent.to_uppercase()}}]}), vec!["a", "b"]),
            (json!({"=": {"good": false}}), vec!["b"]),
            (json!({"<": {"seen": "2026-06-01"}}), vec!["a"]),
            (json!({"=": {"id": "c"}}), vec!["c"]),
            (json!({"in": {"id": ["a", "b"]}}), vec!["a", "b"]),
            (json!({"=": {"project_id": "p1"}}), vec!["a", "b", "c"]),
            (json!({"!=": {"project_id": "p1"}}), vec!["d"]),
            (json!({"=": {"created_by_project_id": "p"}}), vec!["a", "b", "c", "d"]),
            (json!({"not": {"<": {"size": null}}}), vec![]),
            (json!({">": {"lifespan": "1 minute"}}), vec![]),
            (json!({"=": {"original_resource_id": "a"}}), vec!["a"]),
        ] {
            let found = f.index.resources(&query("thing", filter.clone())).await.expect("searched");
            assert_eq!(names(&found), expected, "{filter} on {}", f.database.kind());
        }
        let text =
            f.index.resources(&query("thing", json!({"=": {"nope": 1}}))).await.expect_err("unknown").to_string();
        assert_eq!(text, "Resource type thing has no nope attribute");
        let text =
            f.index.resources(&query("thing", json!({"=": {"parent": "x"}}))).await.expect_err("not one").to_string();
        assert_eq!(text, "Invalid value: `x' for field `parent'");
        assert!(f.index.resources(&query("generic", json!({"=": {"color": "red"}}))).await.is_err());
    }
}

#[tokio::test]
async fn pages_are_complete_in_every_order_also_with_missing_values() {
    for f in fixtures().await {
        for n in 0..25 {
            let host = if n % 3 == 0 { json!({}) } else { json!({"host": format!("h{}", n % 4)}) };
            let mut new = new_resource(&format!("r{n:02}"), "instance", "u:p", host);
            new.project_id = (n % 2 == 0).then(|| format!("p{}", n % 5));
            f.index.create_resource(&new).await.expect("made");
        }
        for sort in [
            vec![],
            vec!["host:asc"],
            vec!["host:desc"],
            vec!["host:asc-nullsfirst", "project_id:desc-nullslast"],
            vec!["project_id:desc-nullsfirst", "original_resource_id:desc"],
            vec!["ended_at:asc"],
        ] {
            let sort: Vec<Sort> = sort.iter().map(|text| Sort::parse(text).expect("a key")).collect();
            let whole = Page { limit: None, marker: None, sort: sort.clone() };
            let whole =
                f.index.resources(&ResourceQuery { page: whole, ..query("instance", json!({})) }).await.expect("all");
            assert_eq!(whole.len(), 25);
            let mut paged: Vec<Resource> = Vec::new();
            loop {
                let marker = paged.last().map(|resource| resource.id.to_string());
                let page = Page { limit: Some(4), marker, sort: sort.clone() };
                let page =
                    f.index.resources(&ResourceQuery { page, ..query("instance", json!({})) }).await.expect("a page");
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
                assert!(paged.len() <= 25, "a page repeats: {sort:?}");
            }
            assert_eq!(paged, whole, "{sort:?} on {}", f.database.kind());
        }
        let bad = Page { sort: vec![Sort::parse("bogus").expect("reads")], ..Page::default() };
        let text =
            f.index.resources(&ResourceQuery { page: bad, ..query("instance", json!({})) }).await.expect_err("bogus");
        assert_eq!(text.to_string(), "Invalid pagination: `Sort key supplied is invalid: bogus'");
        let bad = Page { marker: Some(Uuid::nil().to_string()), ..Page::default() };
        let text =
            f.index.resources(&ResourceQuery { page: bad, ..query("instance", json!({})) }).await.expect_err("bogus");
        assert_eq!(text.to_string(), "Invalid pagination: `Invalid marker: `00000000-0000-0000-0000-000000000000''");
    }
}

#[tokio::test]
async fn a_project_sees_what_it_owns_or_made_and_nothing_else() {
    for f in fixtures().await {
        for (name, creator, owner) in
            [("owned", "u:x", Some("p1")), ("made", "u:p1", None), ("foreign", "u:p2", Some("p2"))]
        {
            let mut new = new_resource(name, "instance", creator, json!({}));
            new.project_id = owner.map(str::to_owned);
            new.metrics = vec![("cpu".into(), MetricSource::New { archive_policy_name: None, unit: None })];
            f.index.create_resource(&new).await.expect("made");
        }
        let seen = |scope: Scope| ResourceQuery { scope, ..query("generic", json!({})) };
        let list = f.index.resources(&seen(project("p1"))).await.expect("list");
        assert_eq!(names(&list), ["made", "owned"]);
        assert!(f.index.resources(&seen(Scope::Nothing)).await.expect("list").is_empty());
        assert_eq!(f.index.metrics(&MetricQuery::new(project("p1"))).await.expect("list").len(), 2);
        let foreign = resource_uuid("foreign", "u:p2").expect("an id");
        let hidden = f.index.resource(&project("p1"), "instance", foreign).await.expect_err("hidden").to_string();
        let missing = f.index.resource(&project("p1"), "instance", Uuid::nil()).await.expect_err("missing").to_string();
        assert_eq!(hidden.replace(&foreign.to_string(), "X"), missing.replace(&Uuid::nil().to_string(), "X"));
        let metric = f.index.metric_of_resource(&Scope::All, foreign, "cpu").await.expect("all see it");
        assert!(matches!(f.index.metric(&project("p1"), metric.id).await, Err(IndexError::NotFound { .. })));
        assert!(f.index.delete_metric(&project("p1"), metric.id).await.is_err());
        assert!(f.index.delete_resource(&project("p1"), "instance", foreign).await.is_err());
        let change = ResourceChange { user_id: Some(Some("me".into())), ..ResourceChange::default() };
        assert!(f.index.update_resource(&project("p1"), "instance", foreign, &change).await.is_err());
        // A marker of a foreign resource tells nothing.
        let page = Page { marker: Some(foreign.to_string()), ..Page::default() };
        assert!(f.index.resources(&ResourceQuery { page, ..seen(project("p1")) }).await.is_err());
        // The text that somebody else created it with finds it, if it may be seen.
        let found = f.index.find_resource(&project("p1"), "generic", "someone:p1", "owned").await.expect("found");
        assert_eq!(found.original_resource_id, "owned");
        assert!(f.index.find_resource(&project("p1"), "generic", "someone:p1", "foreign").await.is_err());
    }
}

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

fn event(id: &str, at: i64, project: &str, size: i64) -> Event {
    let fact = |name: &str, value: TraitValue| Trait { name: name.into(), value };
    Event {
        message_id: id.into(),
        event_type: if at % 2 == 0 { "even".into() } else { "odd".into() },
        generated_at: Timestamp::from_secs(at),
        traits: vec![fact("project_id", TraitValue::Text(project.into())), fact("size", TraitValue::Integer(size))],
        raw: None,
    }
}

#[tokio::test]
async fn events_are_kept_once_and_listed_newest_first_within_their_project() {
    for f in fixtures().await {
        let events: Vec<Event> =
            (0..10).map(|n| event(&format!("m{n}"), n / 2, if n < 8 { "p1" } else { "p2" }, n)).collect();
        assert_eq!(f.index.insert_events(&events).await.expect("kept"), 10);
        assert_eq!(f.index.insert_events(&events).await.expect("again"), 0);
        assert_eq!(f.index.known_events(&["m1", "nope"]).await.expect("asked").len(), 1);
        let ids = async |query: EventQuery| {
            let found = f.index.events(&query).await.expect("listed");
            found.into_iter().map(|event| event.message_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(EventQuery::new(project("p2"))).await, ["m9", "m8"]);
        assert_eq!(ids(EventQuery::new(Scope::Nothing)).await.len(), 0);
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = EventQuery { limit: Some(3), marker: paged.last().cloned(), ..EventQuery::new(Scope::All) };
            let page = ids(page).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, ["m9", "m8", "m7", "m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
        let sized = |operator, size| EventQuery {
            traits: vec![TraitFilter { name: "size".into(), operator, value: TraitValue::Integer(size) }],
            ..EventQuery::new(Scope::All)
        };
        assert_eq!(ids(sized(TraitOperator::Equal, 3)).await, ["m3"]);
        assert_eq!(ids(sized(TraitOperator::Less, 2)).await, ["m1", "m0"]);
        let window = EventQuery {
            start: Some(Timestamp::from_secs(1)),
            end: Some(Timestamp::from_secs(2)),
            event_type: Some("odd".into()),
            ..EventQuery::new(Scope::All)
        };
        assert_eq!(ids(window).await, ["m3", "m2"]);
        assert_eq!(f.index.event_types(&project("p2")).await.expect("types"), ["even"]);
        assert_eq!(f.index.event_type_traits(&Scope::All, "odd").await.expect("traits").len(), 2);
        assert_eq!(f.index.event(&project("p1"), "m0").await.expect("there"), events[0]);
        assert!(f.index.event(&project("p2"), "m0").await.is_err());
        assert_eq!(f.index.expire_events(Timestamp::from_secs(4)).await.expect("expired"), 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever two projects make, neither sees, by any list or search, what the other owns or made.
    #[test]
    fn no_scope_leaks(things in prop::collection::vec((0..3u8, prop::option::of(0..3u8), any::<bool>()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let f = on(Database::open("sqlite::memory:").await.expect("opens"), None).await;
            for (n, (creator, owner, has_metric)) in things.iter().enumerate() {
                let mut new = new_resource(&format!("r{n}"), "instance", &format!("u:p{creator}"), json!({}));
                new.project_id = owner.map(|owner| format!("p{owner}"));
                if *has_metric {
                    new.metrics = vec![("cpu".into(), MetricSource::New { archive_policy_name: None, unit: None })];
                }
                f.index.create_resource(&new).await.expect("made");
            }
            for viewer in 0..3u8 {
                let may = |&(creator, owner, _): &(u8, Option<u8>, bool)| creator == viewer || owner == Some(viewer);
                let scope = project(&format!("p{viewer}"));
                for filter in [json!({}), json!({"not": {"=": {"user_id": "x"}}}), json!({"or": [{"!=": {"host": "x"}}, {"=": {"host": null}}]})] {
                    let found = f.index.resources(&ResourceQuery { scope: scope.clone(), ..query("instance", filter.clone()) }).await.expect("searched");
                    let is_fine = found.iter().all(|resource| {
                        resource.project_id.as_deref() == Some(&format!("p{viewer}"))
                            || created_by_project(&resource.creator) == format!("p{viewer}")
                    });
                    prop_assert!(is_fine);
                    if filter == json!({}) {
                        prop_assert_eq!(found.len(), things.iter().filter(|thing| may(thing)).count());
                    }
                }
                let metrics = f.index.metrics(&MetricQuery::new(scope)).await.expect("listed");
                prop_assert_eq!(metrics.len(), things.iter().filter(|thing| may(thing) && thing.2).count());
            }
            Ok(())
        })?;
    }
}
