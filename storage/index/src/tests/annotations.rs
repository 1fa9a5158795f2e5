//! Metadata and exemplars: kept once, bounded, and by project.

use std::collections::BTreeMap;

use orzo_model::{Exemplar, MetricMetadata, Scope, SeriesId, Timestamp};

use super::{fixtures, on, project};
use crate::{EXEMPLARS_MAX, METADATA_NAMES_MAX};

fn exemplar(trace: &str, value: f64, at: i64) -> Exemplar {
    Exemplar::new(vec![("trace_id".to_owned(), trace.to_owned())], value, Timestamp::from_secs(at)).expect("short")
}

fn about(names: &[(&str, &str)]) -> BTreeMap<String, MetricMetadata> {
    names.iter().map(|(name, help)| ((*name).to_owned(), MetricMetadata::new("gauge", help, "B"))).collect()
}

#[tokio::test]
async fn exemplars_are_kept_once_and_seen_by_their_project() {
    for fixture in fixtures().await {
        let own = [(SeriesId(1), exemplar("a\0\"", f64::NAN, 10)), (SeriesId(2), exemplar("b", -0.0, 20))];
        for _ in 0..2 {
            fixture.index.keep_exemplars("p1", &own).await.expect("kept");
        }
        // The same one twice in a request: the later value holds.
        let twice = [(SeriesId(3), exemplar("c", 1.0, 5)), (SeriesId(3), exemplar("c", 2.0, 5))];
        fixture.index.keep_exemplars("p2", &twice).await.expect("kept");
        let read = |scope: Scope, from, to| {
            let index = &fixture.index;
            async move {
                let found = index.exemplars(&scope, Timestamp::from_secs(from), Timestamp::from_secs(to)).await;
                let shown = found
                    .expect("read")
                    .into_iter()
                    .map(|(series, one)| (series.0, one.labels[0].1.clone(), one.value.to_bits(), one.at.secs()));
                shown.collect::<Vec<_>>()
            }
        };
        let first = (1, "a\0\"".to_owned(), f64::NAN.to_bits(), 10);
        let second = (2, "b".to_owned(), (-0.0_f64).to_bits(), 20);
        assert_eq!(read(project("p1"), 10, 20).await, [first.clone(), second.clone()]);
        assert_eq!(read(project("p1"), 11, 20).await, [second]);
        assert_eq!(read(project("p2"), 0, 99).await, [(3, "c".to_owned(), 2.0_f64.to_bits(), 5)]);
        assert_eq!(read(Scope::All, 0, 99).await.len(), 3);
        assert_eq!(read(Scope::Nothing, 0, 99).await, []);
        assert_eq!(read(project("p1"), 10, 10).await, [first]);
    }
}

#[tokio::test]
async fn of_too_many_exemplars_the_oldest_go_and_the_bound_outlives_a_restart() {
    let fixture = fixtures().await.remove(0);
    let many: Vec<_> = (0..EXEMPLARS_MAX as i64).map(|at| (SeriesId(1), exemplar("t", 1.0, at))).collect();
    fixture.index.keep_exemplars("p1", &many).await.expect("kept");
    fixture.index.keep_exemplars("p2", &[(SeriesId(9), exemplar("old", 1.0, 0))]).await.expect("kept");
    let later = on(fixture.database.clone(), None).await;
    let newer: Vec<_> = (0..5).map(|at| (SeriesId(1), exemplar("t", 1.0, 200_000 + at))).collect();
    later.index.keep_exemplars("p1", &newer).await.expect("kept");
    let count = |project: &'static str| {
        let database = &fixture.database;
        async move {
            let sql = "SELECT count(*) AS count, min(at) AS first FROM index_exemplars WHERE project = $1";
            let row = database.query_one(sql, &[project.into()]).await.expect("counted").expect("a row");
            (row.int("count"), row.int("first"))
        }
    };
    assert_eq!(count("p1").await, (Some(EXEMPLARS_MAX as i64), Some(5_000_000)));
    assert_eq!(count("p2").await.0, Some(1));
}

#[tokio::test]
async fn metadata_is_kept_by_project_changed_and_bounded() {
    for fixture in fixtures().await {
        let index = &fixture.index;
        assert_eq!(index.keep_metadata("p1", &about(&[("up", "old"), ("cpu", "of it")])).await.expect("kept"), 0);
        let before = fixture.database.statements();
        index.keep_metadata("p1", &about(&[("up", "old")])).await.expect("kept");
        assert_eq!(fixture.database.statements(), before, "what is known asks nothing of the database");
        index.keep_metadata("p1", &about(&[("up", "new")])).await.expect("kept");
        index.keep_metadata("p2", &about(&[("up", "theirs")])).await.expect("kept");
        let helps = |scope: Scope| async move {
            let found = index.metadata(&scope, Some("up")).await.expect("read");
            found.into_values().flatten().map(|one| one.help).collect::<Vec<_>>()
        };
        assert_eq!(helps(project("p1")).await, ["new"]);
        assert_eq!(helps(Scope::All).await, ["new", "theirs"]);
        assert_eq!(helps(Scope::Nothing).await, Vec::<String>::new());
        assert_eq!(index.metadata(&project("p1"), None).await.expect("read").len(), 2);
        let many: BTreeMap<_, _> = (0..METADATA_NAMES_MAX)
            .map(|number| (format!("m{number:05}"), MetricMetadata::new("counter", "", "")))
            .collect();
        assert_eq!(index.keep_metadata("p1", &many).await.expect("kept"), 2);
        assert_eq!(index.metadata(&project("p1"), None).await.expect("read").len(), METADATA_NAMES_MAX);
    }
}
