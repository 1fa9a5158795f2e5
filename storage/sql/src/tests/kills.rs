//! What would take a server down takes one process down.

use std::time::Duration;

use serde_json::json;

use super::{House, patient, refused, rows};
use crate::{Form, SqlError, SqlSettings};

/// Long enough for everything here, short enough to wait for once.
const SOON: Duration = Duration::from_millis(1500);
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 3000000) a CROSS JOIN generate_series(1, 3000000) b \
                       WHERE a.value * b.value % 7 = 8";

/// Processes below this one that run a query.
fn processes(house: &House) -> usize {
    let directory = house.folder.path().join("sql");
    let of = |entry: std::fs::DirEntry| std::fs::read_link(entry.path().join("cwd")).ok();
    let all = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(of);
    all.filter(|stands_in| *stands_in == directory).count()
}

#[tokio::test]
async fn a_flat_chain_of_operators_takes_one_process_down() {
    let house = House::build().await;
    // The check of the number of operators is what keeps such chains away; here it is not there.
    let queries = house.queries(SqlSettings { operators_max: usize::MAX, ..patient() });
    let chain = format!("SELECT 1{}", "+1".repeat(30_000));
    let error = refused(&queries, &chain).await;
    assert!(matches!(error, SqlError::Died { .. } | SqlError::Memory { .. } | SqlError::Deadline { .. }), "{error:?}");
    assert_eq!(rows(&queries, "SELECT 1").await, [json!([1])]);
    assert_eq!(processes(&house), 0);
}

#[tokio::test]
async fn a_query_without_end_is_killed_at_its_deadline() {
    let house = House::build().await;
    let queries = house.queries(SqlSettings { deadline: SOON, ..patient() });
    let error = refused(&queries, ENDLESS).await;
    assert_eq!(error, SqlError::Deadline { limit: SOON });
    assert_eq!(processes(&house), 0);
    let balance = house.room.balance();
    assert!(balance.is_conserved() && balance.refused == 1, "{balance:?}");
}

#[tokio::test]
async fn memory_that_operators_take_is_limited() {
    let house = House::build().await;
    let settings = SqlSettings { memory_bytes_max: 96 << 20, ..patient() };
    let queries = house.queries(settings);
    for query in [
        // What the engine counts, and what it does not.
        "SELECT count(*) FROM (SELECT value * 7919 % 1000000007 FROM generate_series(1, 100000000) GROUP BY 1)",
        "SELECT length(repeat('orzo', 500000000))",
    ] {
        let error = refused(&queries, query).await;
        assert!(matches!(error, SqlError::Memory { bytes_max: 100_663_296 }), "{query}: {error:?}");
    }
    assert_eq!(processes(&house), 0);
}

#[tokio::test]
async fn when_nobody_waits_any_more_the_process_is_gone_and_its_place_is_free() {
    let house = House::build().await;
    let queries = house.queries(SqlSettings { at_once_max: 1, ..patient() });
    {
        let endless = queries.run(ENDLESS, Form::Json);
        tokio::pin!(endless);
        // Until its process is there, and a second query finds no place.
        loop {
            tokio::select! {
                biased;
                outcome = &mut endless => panic!("it has no end: {outcome:?}"),
                () = tokio::task::yield_now() => {}
            }
            if processes(&house) == 1 {
                break;
            }
        }
        assert_eq!(refused(&queries, "SELECT 1").await, SqlError::Busy { at_once_max: 1 });
    }
    // The runtime reaps what was killed.
    while processes(&house) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&queries, "SELECT 1").await, [json!([1])]);
    let balance = house.room.balance();
    assert_eq!((balance.received, balance.stored, balance.refused, balance.dropped), (3, 1, 1, 1));
}

#[tokio::test]
async fn a_process_has_one_socket_and_no_environment() {
    let house = House::build().await;
    let queries = house.queries(patient());
    let directory = house.folder.path().join("sql");
    let endless = queries.run(ENDLESS, Form::Json);
    tokio::pin!(endless);
    let (environment, files) = loop {
        tokio::select! {
            biased;
            outcome = &mut endless => panic!("it has no end: {outcome:?}"),
            () = tokio::task::yield_now() => {}
        }
        let own = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        let mut own = own.filter(|path| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == directory));
        if let Some(seen) = own.find_map(|path| look(&path)) {
            break seen;
        }
    };
    assert_eq!(environment, "");
    let foreign: Vec<_> = files
        .iter()
        .filter(|file| !["socket:", "pipe:", "anon_inode:", "/dev/null"].iter().any(|own| file.starts_with(own)))
        .collect();
    assert!(foreign.is_empty() && !files.is_empty(), "{files:?}");
}

/// The environment of a process and what its descriptors are; `None` if it is gone, or has not set its limits yet.
fn look(process: &std::path::Path) -> Option<(String, Vec<String>)> {
    let limits = std::fs::read_to_string(process.join("limits")).ok()?;
    let is_limited = limits.lines().any(|line| line.starts_with("Max file size") && line.contains(" 0  "));
    let environment = std::fs::read_to_string(process.join("environ")).ok()?;
    let files = std::fs::read_dir(process.join("fd")).ok()?.flatten();
    let files = files.filter_map(|file| std::fs::read_link(file.path()).ok()).map(|file| file.display().to_string());
    is_limited.then(|| (environment, files.collect()))
}
