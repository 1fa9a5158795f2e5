//! What queries see and what they may not do.

use serde_json::json;

use super::{House, START, patient, refused, rows};
use crate::{Form, SqlError, SqlSettings};

#[tokio::test]
async fn tables_show_what_is_alive_with_its_names() {
    let house = House::build().await;
    let queries = house.queries(patient());
    let cpu = house.resource("p1", "server1", &["cpu", "memory.usage"]).await[0];
    let other = house.resource("p2", "server2", &["cpu"]).await[0];
    let up = house.labelled("p3", &[("__name__", "up"), ("job", "node"), ("instance", "a")]).await;
    house.write(cpu, [(0, 1.0), (60, 2.0)]).await;
    house.source.store.flush().await.expect("flushed");
    // A later value for the same time, in the head; and points of others.
    house.write(cpu, [(60, 5.0), (120, 7.5)]).await;
    house.write(other, [(60, 100.0)]).await;
    house.write(up, [(30, 1.0), (90, 0.0)]).await;

    let all = rows(
        &queries,
        "SELECT meter, original_resource_id, project_id, unit, archive_policy FROM series ORDER BY series",
    )
    .await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.contains(&json!(["memory.usage", "server1", "p1", "%", "low"])));
    assert!(all.contains(&json!(["up", null, "p3", null, null])));
    let labels = rows(&queries, "SELECT labels['job'], labels['none'] FROM series WHERE meter = 'up'").await;
    assert_eq!(labels, [json!(["node", null])]);

    let query = "SELECT timestamp, value FROM measures WHERE meter = 'cpu' AND project_id = 'p1' ORDER BY timestamp";
    let at = |second: i64| orzo_model::Timestamp::from_secs(START + second).to_string();
    let points = rows(&queries, query).await;
    let values: Vec<_> = points.iter().map(|row| row[1].clone()).collect();
    assert_eq!(values, [json!(1.0), json!(5.0), json!(7.5)]);
    assert_eq!(&points[1][0].as_str().expect("a time")[..19], &at(60)[..19]);
    let sums = "SELECT project_id, count(*), sum(value) FROM measures GROUP BY project_id ORDER BY project_id";
    assert_eq!(rows(&queries, sums).await, [json!(["p1", 3, 13.5]), json!(["p2", 1, 100.0]), json!(["p3", 2, 1.0])]);
    let joined = "SELECT s.meter, max(p.value) FROM samples p JOIN series s ON s.series = p.series \
                  GROUP BY s.meter ORDER BY 1";
    assert_eq!(rows(&queries, joined).await, [json!(["cpu", 100.0]), json!(["up", 1.0])]);
    assert_eq!(rows(&queries, "SELECT count(*) FROM samples").await, [json!([6])]);
    let recent = format!("SELECT value FROM samples WHERE timestamp > '{}' ORDER BY value", at(60));
    assert_eq!(rows(&queries, &recent).await, [json!([0.0]), json!([7.5])]);
    assert_eq!(rows(&queries, "SELECT value FROM samples LIMIT 1").await.len(), 1);
    assert_eq!(
        rows(&queries, "SELECT count(*) FROM measures WHERE timestamp > now() - INTERVAL '100000 days'").await,
        [json!([6])]
    );
    assert_eq!(
        rows(&queries, "SELECT count(*) FROM measures WHERE timestamp < now() - INTERVAL '100000 days'").await,
        [json!([0])]
    );

    house.source.store.delete_series(&[cpu]).await.expect("deleted");
    assert_eq!(rows(&queries, "SELECT count(*), sum(value) FROM samples WHERE value > 2").await, [json!([1, 100.0])]);
    assert!(house.room.balance().is_conserved());
}

#[tokio::test]
async fn an_answer_comes_in_three_forms() {
    let house = House::build().await;
    let queries = house.queries(patient());
    let query = "SELECT 1 AS n, 'a,b' AS t";
    let csv = queries.run(query, Form::Csv).await.expect("answered");
    assert_eq!(&csv.body[..], b"n,t\r\n1,\"a,b\"\r\n");
    let arrow = queries.run(query, Form::Arrow).await.expect("answered");
    let reader = arrow::ipc::reader::StreamReader::try_new(&arrow.body[..], None).expect("a stream");
    assert_eq!(reader.map(|batch| batch.expect("a batch").num_rows()).sum::<usize>(), 1);
}

#[tokio::test]
async fn queries_read_and_do_nothing_else() {
    let house = House::build().await;
    let queries = house.queries(patient());
    for query in [
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE series",
        "INSERT INTO series VALUES (1)",
        "DELETE FROM samples",
        "UPDATE samples SET value = 0",
        "COPY (SELECT 1) TO 'orzo-sql-test' STORED AS CSV",
        "COPY series TO 'orzo-sql-test.csv'",
        "EXPLAIN ANALYZE COPY series TO 'orzo-sql-test.csv'",
        "SET datafusion.execution.batch_size = 1",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "SHOW ALL",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT 1; SELECT 2",
        "",
        " \n",
        "-- nothing",
    ] {
        let error = refused(&queries, query).await;
        assert!(matches!(error, SqlError::Invalid { .. } | SqlError::Failed { .. }), "{query}: {error:?}");
    }
    assert!(!std::path::Path::new("orzo-sql-test.csv").exists());
    let balance = house.room.balance();
    assert!(balance.is_conserved() && balance.waiting == 0 && balance.stored == 0, "{balance:?}");
}

#[tokio::test]
async fn errors_name_the_place() {
    let house = House::build().await;
    let queries = house.queries(patient());
    for (query, place, word) in [
        ("SELECT 1\nFROM series ORDER ORDER", Some((2, 13)), "ORDER"),
        ("SELECT nothing FROM series", Some((1, 8)), "nothing"),
        ("SELECT 1 FROM\n  absent", Some((2, 3)), "absent"),
        ("SELECT 'abc", Some((1, 8)), "nterminated"),
    ] {
        let SqlError::Invalid { reason, line, column } = refused(&queries, query).await else { panic!("{query}") };
        assert!(reason.contains(word), "{query}: {reason}");
        assert_eq!(line.zip(column), place, "{query}: {reason}");
    }
    let divided = refused(&queries, "SELECT 1 / (SELECT count(*) FROM series)").await;
    assert!(matches!(&divided, SqlError::Failed { reason } if reason.contains("ivide")), "{divided:?}");
}

#[tokio::test]
async fn limits_of_text_and_answer_hold() {
    let house = House::build().await;
    let queries = house.queries(SqlSettings { rows_max: 10, answer_bytes_max: 10_000, ..patient() });
    let long = format!("SELECT '{}'", "x".repeat(64 << 10));
    assert!(matches!(refused(&queries, &long).await, SqlError::TooLong { bytes_max: 65_536 }));
    let rows_error = refused(&queries, "SELECT * FROM generate_series(1, 11)").await;
    assert!(matches!(&rows_error, SqlError::TooMuch { what, limit: 10 } if what.contains("rows")), "{rows_error:?}");
    assert_eq!(rows(&queries, "SELECT * FROM generate_series(1, 10)").await.len(), 10);
    let bytes = refused(&queries, "SELECT repeat('x', 20000)").await;
    assert!(matches!(&bytes, SqlError::TooMuch { what, limit: 10_000 } if what.contains("bytes")), "{bytes:?}");
    let nested = format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400));
    let nested = refused(&queries, &nested).await;
    assert!(matches!(&nested, SqlError::TooMuch { what, limit: 50 } if what.contains("nesting")), "{nested:?}");
    let chain = format!("SELECT 1{}", "+1".repeat(3000));
    let chain = refused(&queries, &chain).await;
    assert!(matches!(&chain, SqlError::TooMuch { what, limit: 500 } if what.contains("operators")), "{chain:?}");
    assert_eq!(rows(&queries, &format!("SELECT 1{}", "+1".repeat(100))).await, [json!([101])]);
}
