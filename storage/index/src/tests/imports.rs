//! Resources and metrics of another Gnocchi: with their ids, creators and history, once.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START - 100_000 + second)
}

fn revision(start: i64, project: &str, host: &str) -> ImportedRevision {
    ImportedRevision {
        project_id: Some(project.to_owned()),
        user_id: None,
        started_at: at(0),
        ended_at: None,
        revision_start: at(start),
        attributes: object(json!({"display_name": "vm", "host": host, "image_ref": "i", "flavor_id": "f"})),
    }
}

fn resource() -> ImportedResource {
    ImportedResource {
        id: Uuid::from_u128(7),
        resource_type: "instance".to_owned(),
        original_resource_id: Uuid::from_u128(7).to_string(),
        creator: "u:service".to_owned(),
        revisions: vec![revision(0, "p1", "h1"), revision(60, "p1", "h2"), revision(90, "p2", "h2")],
    }
}

fn metric(id: u128, name: &str) -> ImportedMetric {
    ImportedMetric {
        id: Uuid::from_u128(id),
        name: Some(name.to_owned()),
        unit: Some("%".to_owned()),
        creator: "u:service".to_owned(),
        resource_id: Some(Uuid::from_u128(7)),
        archive_policy_name: "low".to_owned(),
    }
}

#[tokio::test]
async fn what_is_imported_has_its_ids_its_creator_and_its_history_once() {
    for f in fixtures().await {
        let changes = f.index.changes();
        assert_eq!(f.index.import_resources(&[resource()]).await.expect("made"), 1);
        assert_eq!(f.index.import_metrics(&[metric(1, "cpu"), metric(2, "disk")]).await.expect("made"), 2);
        assert!(f.index.changes() > changes, "whoever remembers names reads them again");
        let found = f.index.resource(&project("p2"), "instance", Uuid::from_u128(7)).await.expect("its owner sees it");
        assert_eq!((found.creator.as_str(), found.revision_start, found.started_at), ("u:service", at(90), at(0)));
        assert_eq!(found.metrics["cpu"], Uuid::from_u128(1));
        let mut history = query("instance", json!({"=": {"id": Uuid::from_u128(7).to_string()}}));
        history.history = true;
        let history = f.index.resources(&history).await.expect("history");
        let told: Vec<_> = history
            .iter()
            .map(|old| (old.revision_start, old.revision_end, old.project_id.as_deref(), &old.attributes["host"]))
            .collect();
        let hosts = (json!("h1"), json!("h2"));
        assert_eq!(
            told,
            [
                (at(0), Some(at(60)), Some("p1"), &hosts.0),
                (at(60), Some(at(90)), Some("p1"), &hosts.1),
                (at(90), None, Some("p2"), &hosts.1)
            ]
        );
        // Again: nothing changes, and what was made since stays.
        let change = ResourceChange { project_id: Some(Some("p3".to_owned())), ..ResourceChange::default() };
        f.index.update_resource(&Scope::All, "instance", Uuid::from_u128(7), &change).await.expect("moved");
        assert_eq!(f.index.import_resources(&[resource()]).await.expect("there"), 0);
        assert_eq!(f.index.import_metrics(&[metric(1, "cpu"), metric(3, "net")]).await.expect("one is there"), 1);
        let found = f.index.resource(&Scope::All, "instance", Uuid::from_u128(7)).await.expect("there");
        assert_eq!((found.project_id.as_deref(), found.metrics.len()), (Some("p3"), 3));
    }
}

#[tokio::test]
async fn an_import_that_contradicts_what_is_here_makes_nothing() {
    for f in fixtures().await {
        f.index.import_resources(&[resource()]).await.expect("made");
        f.index.import_metrics(&[metric(1, "cpu")]).await.expect("made");
        let other = ImportedResource { creator: "somebody".to_owned(), ..resource() };
        let new = ImportedResource { id: Uuid::from_u128(8), ..resource() };
        assert!(matches!(f.index.import_resources(&[new, other]).await, Err(IndexError::Exists { .. })));
        let missing = f.index.resource(&Scope::All, "instance", Uuid::from_u128(8)).await;
        assert!(matches!(missing, Err(IndexError::NotFound { .. })), "all or none");
        for wrong in [
            metric(1, "disk"),
            metric(2, "cpu"),
            ImportedMetric { resource_id: Some(Uuid::from_u128(9)), ..metric(2, "disk") },
            ImportedMetric { name: None, ..metric(2, "disk") },
            ImportedMetric { archive_policy_name: "nope".to_owned(), ..metric(2, "disk") },
        ] {
            f.index.import_metrics(&[metric(3, "net"), wrong]).await.expect_err("refused");
        }
        assert_eq!(f.index.count_metrics().await.expect("a count"), 1);
        let mut disorder = ImportedResource { id: Uuid::from_u128(8), ..resource() };
        disorder.revisions.swap(0, 1);
        f.index.import_resources(&[disorder]).await.expect_err("not in the order of time");
        let none = ImportedResource { id: Uuid::from_u128(8), revisions: Vec::new(), ..resource() };
        f.index.import_resources(&[none]).await.expect_err("no revision");
    }
}
