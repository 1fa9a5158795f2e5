//! Every list that the API can ask for is read through an index, whatever the database holds: SQLite's own plan says so.
//! And it gives the same rows whichever way it is read.

use orzo_database::Database;

use super::*;
use crate::{
    repository::{
        metrics::{self, listing as metric_listing},
        paging::{Stretch, stretches},
        resources::{STORED, listing, search},
        rows,
    },
    sql::Sql,
};

async fn memory() -> Fixture {
    on(Database::open("sqlite::memory:").await.expect("opens"), None).await
}

/// SQLite's words of how it would run a statement.
async fn plan(f: &Fixture, sql: &Sql) -> String {
    let rows = f.database.query(&format!("EXPLAIN QUERY PLAN {}", sql.text), &sql.values).await.expect("a plan");
    rows.iter().map(|row| row.string("detail")).collect::<Vec<_>>().join("; ")
}

/// A statement that lists resources as it is asked: its rows in one cell.
fn asked(sql: Sql) -> Sql {
    Sql { text: rows::as_json(&sql.text, &STORED, true, true), ..sql }
}

fn sorted(texts: &[&str]) -> Page {
    let sort = texts.iter().map(|text| Sort::parse(text).expect("a key")).collect();
    Page { limit: Some(10), marker: None, sort }
}

/// The statements along the order, each from its beginning and from a marker on.
async fn along_the_order(f: &Fixture, query: &ResourceQuery) -> Vec<(Stretch, Sql)> {
    let kind = f.index.resource_type(&query.resource_type).await.expect("a type");
    let keys = search::sort_keys(&query.page.sort, &kind, false).expect("keys");
    let marker = Some(keys.iter().map(|_| orzo_database::Value::from("x")).collect());
    let listing = listing::Listing { query, kind: &kind, context: f.index.context(query, &kind), keys, marker };
    let mut found = Vec::new();
    for (stretch, _) in stretches(&listing.keys[0], None) {
        for at_marker in [false, true] {
            found.push((stretch, asked(listing.stretch(stretch, at_marker, 10).expect("a statement"))));
        }
    }
    found
}

#[tokio::test]
async fn no_page_of_resources_sorts_or_reads_them_all() {
    let f = memory().await;
    let hard =
        json!({"and": [{"!=": {"user_id": "u"}}, {"or": [{"=": {"project_id": "p"}}, {"not": {"=": {"host": "h"}}}]}]});
    for kind in ["generic", "instance"] {
        for sort in
            ["", "id", "started_at", "ended_at", "project_id", "user_id", "creator", "original_resource_id", "host"]
        {
            if (kind, sort) == ("generic", "host") {
                continue;
            }
            for scope in [Scope::All, project("p")] {
                for filter in [json!({}), hard.clone()] {
                    if kind == "generic" && filter != json!({}) {
                        continue;
                    }
                    let page = if sort.is_empty() { Page::default() } else { sorted(&[sort]) };
                    let query = ResourceQuery { page, scope: scope.clone(), ..query(kind, filter) };
                    for (stretch, sql) in along_the_order(&f, &query).await {
                        let plan = plan(&f, &sql).await;
                        // What has no such attribute is read in the order of ids.
                        assert!(
                            !plan.contains("TEMP B-TREE FOR ORDER BY"),
                            "{kind} {sort} {stretch:?}: {plan}\n{}",
                            sql.text
                        );
                        assert!(!plan.contains("SCAN r;"), "{kind} {sort} {stretch:?}: {plan}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_page_begins_where_the_page_before_ended() {
    let f = memory().await;
    for (kind, sort, index) in [
        ("generic", "id", "index_resources_1 (id>?"),
        ("generic", "", "index_resources_by_start (revision_start>?"),
        ("instance", "", "index_resources_by_type (type=? AND revision_start>?"),
        ("instance", "host", "index_attributes_by_text (name=? AND revision=? AND text>?"),
        ("instance", "host:desc", "index_attributes_by_text (name=? AND revision=? AND text>? AND text<?"),
        ("generic", "project_id", "index_resources_by_project (project_id>?"),
    ] {
        let page = if sort.is_empty() { Page::default() } else { sorted(&[sort]) };
        let query = ResourceQuery { page, ..query(kind, json!({})) };
        let statements = along_the_order(&f, &query).await;
        let mut present = statements.into_iter().filter(|(stretch, _)| *stretch != Stretch::Missing);
        let (_, sql) = present.nth(1).expect("from the marker on");
        let plan = plan(&f, &sql).await;
        assert!(plan.contains(index), "{kind} {sort}: {plan}");
    }
}

#[tokio::test]
async fn a_short_list_and_a_fixed_value_lead_the_way() {
    let f = memory().await;
    let kind = f.index.resource_type("instance").await.expect("a type");
    for (filter, scope, index) in [
        (json!({"=": {"project_id": "p"}}), Scope::All, "index_resources_by_project (project_id=?)"),
        (json!({"=": {"host": "h"}}), Scope::All, "index_attributes_by_text (name=? AND revision=? AND text=?)"),
        (
            json!({"like": {"original_resource_id": "vm-%"}}),
            Scope::All,
            "index_resources_by_original (original_resource_id>? AND original_resource_id<?)",
        ),
        (json!({}), project("p"), "index_resources_by_creating_project (created_by_project_id=?)"),
        (json!({}), project("p"), "index_resources_by_project (project_id=?)"),
    ] {
        let query = ResourceQuery { scope, ..query("instance", filter) };
        let keys = search::sort_keys(&[], &kind, false).expect("keys");
        let context = f.index.context(&query, &kind);
        let listing = listing::Listing { query: &query, kind: &kind, context, keys, marker: None };
        let needed = listing.needed().expect("lists").remove(0);
        let plan = plan(&f, &asked(listing.among(needed.ids, 10).expect("a statement"))).await;
        assert!(plan.contains(index), "{plan}");
        assert!(
            plan.contains("SEARCH index_resources USING INDEX sqlite_autoindex_index_resources_1 (id=?)"),
            "{plan}"
        );
    }
    for (attribute, index) in [
        ("project_id", "index_resources_by_project (project_id=? AND id>?)"),
        ("user_id", "index_resources_by_user (user_id=? AND id>?)"),
        ("host", "index_attributes_by_text (name=? AND revision=? AND text=? AND resource_id>?)"),
    ] {
        let page = sorted(&["id"]);
        let query = ResourceQuery { page, ..query("instance", json!({"=": {attribute: "x"}})) };
        let keys = search::sort_keys(&query.page.sort, &kind, false).expect("keys");
        let context = f.index.context(&query, &kind);
        let marker = Some(keys.iter().map(|_| "x".into()).collect());
        let listing = listing::Listing { query: &query, kind: &kind, context, keys, marker };
        let pinned = listing.pinned().expect("fine").expect("the value leads");
        let plan = plan(&f, &asked(listing.along(&pinned, 10).expect("a statement"))).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{attribute}: {plan}");
    }
}

#[tokio::test]
async fn no_page_of_metrics_sorts_or_reads_them_all() {
    let f = memory().await;
    let all = || MetricQuery::new(Scope::All);
    let mine = || MetricQuery::new(project("p"));
    let named = MetricQuery { name: Some("cpu".into()), ..all() };
    for (query, sort, index) in [
        (all(), "id", "index_metrics_1 (id>?)"),
        (mine(), "id", "index_metrics_1 (id>?)"),
        (named, "id", "index_metrics_named (name=? AND id>?)"),
        (all(), "name", "index_metrics_named (name>?)"),
        (all(), "resource_id", "index_metrics_by_name (resource_id>?)"),
    ] {
        let query = MetricQuery { page: sorted(&[sort]), ..query };
        let keys = metrics::sort_keys(&query.page.sort).expect("keys");
        let marker = Some(keys.iter().map(|_| "x".into()).collect());
        let listing = metric_listing::Listing { query: &query, keys, marker, is_sqlite: true };
        let (stretch, _) = stretches(&listing.keys[0], None)[0];
        let plan = plan(&f, &listing.stretch(stretch, true, 10)).await;
        assert!(plan.contains(index), "{sort}: {plan}");
        assert!(!plan.contains("TEMP B-TREE FOR ORDER BY"), "{sort}: {plan}");
    }
    let id = Uuid::nil();
    for (query, index) in [
        (MetricQuery { ids: Some(vec![id, id]), ..all() }, "index_metrics_1 (id=?)"),
        (MetricQuery { resource_ids: Some(vec![id, id]), ..all() }, "index_metrics_by_name (resource_id=?)"),
    ] {
        let keys = metrics::sort_keys(&[]).expect("keys");
        let listing = metric_listing::Listing { query: &query, keys, marker: None, is_sqlite: true };
        let plan = plan(&f, &listing.named(10).expect("it names some")).await;
        assert!(plan.contains(index), "{plan}");
    }
    for (query, index) in [
        (mine(), "index_metrics_by_creator (created_by_project_id=?)"),
        (mine(), "index_resources_by_project (project_id=?)"),
        (mine(), "index_metrics_by_name (resource_id=?)"),
        (
            MetricQuery { archive_policy_name: Some("low".into()), ..all() },
            "index_metrics_by_policy (archive_policy_name=?)",
        ),
        (MetricQuery { deleted: true, ..all() }, "index_metrics_deleted"),
    ] {
        let keys = metrics::sort_keys(&[]).expect("keys");
        let listing = metric_listing::Listing { query: &query, keys, marker: None, is_sqlite: true };
        let plan = plan(&f, &listing.among(listing.needed().remove(0).ids, 10)).await;
        assert!(plan.contains(index), "{plan}");
    }
    let steps = plan(&f, &metrics::names_by_steps(&Scope::All)).await;
    assert!(steps.contains("index_metrics_named (name>?)"), "{steps}");
}

#[tokio::test]
async fn names_are_those_of_visible_metrics_of_resources_each_once() {
    for f in fixtures().await {
        for (name, creator, metrics) in [("a", "u:p1", ["cpu", "memory"]), ("b", "u:p2", ["cpu", "disk"])] {
            let source = |name: &str| (name.to_owned(), MetricSource::New { archive_policy_name: None, unit: None });
            let new = new_resource(name, "instance", creator, json!({}));
            let new = NewResource { metrics: metrics.iter().map(|name| source(name)).collect(), ..new };
            f.index.create_resource(&new).await.expect("made");
        }
        let free = NewMetric { creator: "u:p1".into(), name: Some("free".into()), ..NewMetric::default() };
        f.index.create_metric(&free).await.expect("made");
        let names = async |scope| f.index.metric_names(&scope).await.expect("names");
        assert_eq!(names(Scope::All).await, ["cpu", "disk", "memory"]);
        assert_eq!(names(project("p1")).await, ["cpu", "memory"]);
        assert_eq!(names(project("p3")).await, [""; 0]);
        // The other way, as for a project with very many.
        let steps = metrics::names_by_steps(&project("p2"));
        let rows = f.database.query(&steps.text, &steps.values).await.expect("names");
        let steps: Vec<String> = rows.iter().map(|row| row.string("metric_name")).collect();
        assert_eq!(steps, ["cpu", "disk"]);
    }
}

/// Every way of reading gives the same pages.
#[tokio::test]
async fn a_page_is_the_same_whichever_way_it_is_read() {
    for f in fixtures().await {
        for n in 0..40 {
            let host = if n % 3 == 0 { json!({}) } else { json!({"host": format!("h{}", n % 4)}) };
            let mut new = new_resource(&format!("r{n:02}"), "instance", "u:p", host);
            new.project_id = (n % 2 == 0).then(|| format!("p{}", n % 6));
            f.index.create_resource(&new).await.expect("made");
        }
        let kind = f.index.resource_type("instance").await.expect("a type");
        for filter in [
            json!({"=": {"project_id": "p2"}}),
            json!({"and": [{"=": {"host": "h1"}}, {"like": {"original_resource_id": "r%"}}]}),
            json!({"or": [{"=": {"host": "h1"}}, {"in": {"project_id": ["p0", "p4"]}}]}),
        ] {
            for sort in [
                &["id"][..],
                &["host"],
                &["host:desc", "id:desc"],
                &["project_id:asc-nullsfirst", "host"],
                &["ended_at"],
            ] {
                for scope in [Scope::All, project("p0"), Scope::Owner("p0".into()), Scope::Maker("p".into())] {
                    let query = ResourceQuery { page: sorted(sort), scope, ..query("instance", filter.clone()) };
                    let keys = search::sort_keys(&query.page.sort, &kind, false).expect("keys");
                    let context = f.index.context(&query, &kind);
                    let listing = listing::Listing { query: &query, kind: &kind, context, keys, marker: None };
                    let read = async |sql: Sql| {
                        let rows = f.database.query(&sql.text, &sql.values).await.expect("rows");
                        rows.iter().map(|row| row.string("id")).collect::<Vec<_>>()
                    };
                    let mut along = Vec::new();
                    for (stretch, _) in stretches(&listing.keys[0], None) {
                        along.extend(read(listing.stretch(stretch, false, 100).expect("a statement")).await);
                    }
                    assert!(!along.is_empty() || query.scope != Scope::All);
                    for needed in listing.needed().expect("lists") {
                        let among = read(listing.among(needed.ids, 100).expect("a statement")).await;
                        assert_eq!(among, along, "{filter} {sort:?} on {}", f.database.kind());
                    }
                    if let Some(pinned) = listing.pinned().expect("fine") {
                        let fixed = read(listing.along(&pinned, 100).expect("a statement")).await;
                        assert_eq!(fixed, along, "{filter} {sort:?} on {}", f.database.kind());
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn rows_in_one_cell_are_the_same_as_rows_alone() {
    for f in fixtures().await {
        for (n, name) in ["plain", "\"quoted\" \\ \n\t\u{1}", "näme 😀 \u{2028}", "{\"a\": [1]}"].iter().enumerate()
        {
            let host = format!("{name} on {n}");
            let mut new = new_resource(name, "instance", "u:p", json!({"host": host}));
            new.user_id = Some((*name).to_owned());
            new.ended_at = (n % 2 == 0).then(|| Timestamp::from_micros(4_102_444_800_000_001));
            f.index.create_resource(&new).await.expect("made");
        }
        let query = ResourceQuery { page: sorted(&["id:desc"]), ..query("instance", json!({})) };
        let together = f.index.bare_resources(&query, 10).await.expect("a page");
        let alone = f.index.bare_resources(&query, 100_000).await.expect("all");
        assert_eq!(together.len(), 4);
        assert_eq!(together, alone, "on {}", f.database.kind());
        assert!(together.is_sorted_by_key(|one| std::cmp::Reverse(one.id)));
        for one in &together {
            assert_eq!(*one, f.index.resource(&Scope::All, "instance", one.id).await.expect("there"));
            let host = one.attributes["host"].as_str().expect("a host");
            assert!(host.starts_with(one.user_id.as_deref().expect("a user")));
        }
    }
}
