//! PromQL for alarms: whose series an answer is made of, what is no answer, and that its limits hold.

use std::time::Duration;

use orzo_model::{InstantQueries, ReadError, SampleSink, Scope};
use orzo_promql::Limits;

use super::*;
use crate::InstantReader;

/// A guest of each project; 1 % for p1's, 2 % for p2's.
async fn reader() -> (InstantReader, tempfile::TempDir) {
    let f = fixture().await;
    let samples = [("p1", "vm1", 1.0), ("p2", "vm2", 2.0)].map(|(p, vm, value)| sample_of(p, vm, "cpu_util", 0, value));
    f.engine.accept(batch(samples.into(), vec![])).await.expect("accepted");
    (InstantReader::new(Arc::new(f.engine)), f._directory)
}

fn project(name: &str) -> Scope {
    Scope::Project(name.to_owned())
}

#[tokio::test]
async fn a_projects_query_sees_its_own_series_only() {
    let (reader, _directory) = reader().await;
    for (scope, query, values) in [
        (project("p1"), "cpu_util", vec![1.0]),
        (project("p2"), "cpu_util", vec![2.0]),
        (project("p1"), "cpu_util{project_id=\"p2\"}", vec![]),
        (project("p1"), "sum({__name__=~\".+\"})", vec![1.0]),
        (project("p1"), "scalar(sum(cpu_util offset 0s)) + 1", vec![2.0]),
        (project("p9"), "cpu_util", vec![]),
        (Scope::Nothing, "cpu_util", vec![]),
        (Scope::All, "sort(cpu_util)", vec![1.0, 2.0]),
        (Scope::Nothing, "7", vec![7.0]),
    ] {
        let answer = reader.instant(&scope, query, at(60)).await;
        assert_eq!(answer.expect(query), values, "{scope:?} {query}");
    }
    // Five minutes later the guests have ended.
    let ended = reader.instant(&project("p1"), "cpu_util", at(360)).await.expect("an answer");
    assert!(ended.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn what_gives_no_numbers_is_refused() {
    let (reader, _directory) = reader().await;
    for query in ["", "sum(", "cpu_util[5m]", "\"text\"", "sum(cpu_util[5m])", "unheard_of(cpu_util)"] {
        let refused = reader.instant(&Scope::All, query, at(60)).await;
        assert!(matches!(refused, Err(ReadError::Invalid { .. })), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn an_alarms_query_has_limits_and_a_deadline() {
    let (reader, _directory) = reader().await;
    let reader = reader.with_limits(Limits { series_max: 1, ..Limits::default() }, Duration::from_secs(10));
    let much = reader.instant(&Scope::All, "cpu_util", at(60)).await;
    assert!(matches!(&much, Err(ReadError::Invalid { reason }) if reason.contains("1 series")), "{much:?}");
    assert_eq!(reader.instant(&project("p1"), "cpu_util", at(60)).await.expect("one series"), [1.0]);
    let reader = reader.with_limits(Limits::default(), Duration::ZERO);
    let late = reader.instant(&project("p2"), "cpu_util", at(60)).await;
    assert!(matches!(&late, Err(ReadError::Unavailable { reason }) if reason.contains("longer than")), "{late:?}");
}
