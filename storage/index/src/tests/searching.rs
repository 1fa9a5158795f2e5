//! Searches, pages, and who sees what.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

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
