//! Behaviour of the index; on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names a database.

mod annotations;
mod catalog;
mod changing;
mod events;
mod imports;
mod plans;
mod searching;
mod sharing;
mod walks;

use std::sync::Arc;

use orzo_database::Database;
use orzo_model::{ManualClock, Scope, Timestamp};
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
