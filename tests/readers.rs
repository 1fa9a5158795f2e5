//! The files are for everybody: delta-rs, DuckDB, Polars and ClickHouse read the table while Orzo writes it, to the sums
//! of the API. (Polars and ClickHouse where they are installed.)

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{has_real_parts, orzo::Orzo, wait_for};

const POINTS: i64 = 5_000;
/// What may have read the table.
const ENGINES: [&str; 4] = ["delta-rs", "duckdb", "polars", "clickhouse"];

/// Reads the table with every engine that is installed and prints, for each, rows, sum and distinct keys as JSON. DuckDB,
/// Polars and ClickHouse read the files of the version that delta-rs names, each with its own reader of Parquet.
const READER: &str = r#"
import json, sys
import duckdb
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1])
files = table.file_uris()
value = "coalesce(value, number / divisor)"
answers = {"version": table.version(), "files": len(files)}
own = duckdb.connect()
points = table.to_pyarrow_table()
def ask(source):
    rows, total, keys = own.execute(
        f"select count(*), sum({value}), count(distinct (series, timestamp)) from {source} where {value} <= -1000000").fetchone()
    return {"rows": rows, "sum": total or 0.0, "keys": keys}
answers["delta-rs"] = ask("points")
if files:
    answers["duckdb"] = ask(f"read_parquet({files!r}, union_by_name=true)")
    try:
        import polars as pl
        rows = pl.scan_parquet(files).select("series", "timestamp", v=pl.coalesce("value", pl.col("number") / pl.col("divisor")))
        rows = rows.filter(pl.col("v") <= -1000000).collect()
        answers["polars"] = {"rows": rows.height, "sum": rows["v"].sum(), "keys": rows.n_unique(["series", "timestamp"])}
    except ImportError:
        pass
    try:
        import chdb
        columns = "series, timestamp, value, number, divisor"
        source = "(" + " union all ".join(f"select {columns} from file('{file}', Parquet)" for file in files) + ")"
        answer = chdb.query(
            f"select count(), sum({value}), uniqExact(series, timestamp) from {source} where {value} <= -1000000", "CSV")
        rows, total, keys = str(answer).strip().split(",")
        answers["clickhouse"] = {"rows": int(rows), "sum": float(total), "keys": int(keys)}
    except ImportError:
        pass
print(json.dumps(answers))
"#;

#[test]
fn other_engines_read_the_table_while_it_is_written() {
    if !has_real_parts("readers") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Small heads make many files and commits.
    let settings = "[cloud]\nhypervisor = \"simulated\"\n[store]\nhead_bytes_max = 65536\nflush_after = \"1s\"\n";
    let mut orzo = Orzo::start(directory.path(), settings);
    let token = orzo.token();
    let policy = json!({"name": "raw", "aggregation_methods": ["sum", "count"], "definition": [{"granularity": "1s"}]});
    orzo.request("POST", "/metric/v1/archive_policy", &token, Some(&policy), 201);
    let body = json!({"archive_policy_name": "raw"});
    let metric = orzo.request("POST", "/metric/v1/metric", &token, Some(&body), 201);
    let metric = metric["id"].as_str().unwrap();
    let path = format!("/metric/v1/metric/{metric}/measures");
    let table = orzo.data().join("store").join("samples");
    let mut sum = 0.0;
    let mut seen_while_writing = 0;
    for start in (0..POINTS).step_by(500) {
        let measures: Vec<Value> = (start..start + 500)
            .map(|n| {
                // Below every value that the agents make, so that the readers can tell.
                let value = -1_000_000.0 - n as f64;
                sum += value;
                json!({"timestamp": 1_700_000_000 + n, "value": value})
            })
            .collect();
        orzo.request("POST", &path, &token, Some(&json!(measures)), 202);
        if let Some(answer) = read(&table) {
            let seen = &answer["delta-rs"];
            assert_eq!(seen["rows"], seen["keys"], "a point twice: {answer}");
            assert!(seen["sum"].as_f64().unwrap() >= sum, "{answer}");
            for engine in ENGINES.iter().filter(|engine| answer.get(engine).is_some()) {
                assert_eq!(answer[engine], *seen, "{engine}: {answer}");
            }
            seen_while_writing = seen_while_writing.max(seen["rows"].as_i64().unwrap());
        }
    }
    assert!(seen_while_writing > 0, "nothing was seen while it was written");
    let answer = wait_for("all points in files", Duration::from_secs(30), || {
        read(&table).filter(|answer| answer["delta-rs"]["rows"] == POINTS)
    });
    for engine in ENGINES.iter().filter(|engine| answer.get(engine).is_some()) {
        assert_eq!(answer[engine]["sum"], sum, "{engine}: {answer}");
        assert_eq!(answer[engine]["rows"], POINTS, "{engine}: {answer}");
    }
    eprintln!("readers: {answer}, {seen_while_writing} rows seen while writing");
    // The API says the same.
    let rows = orzo.request("GET", &format!("{path}?aggregation=sum&granularity=1"), &token, None, 200);
    let by_api: f64 = rows.as_array().unwrap().iter().map(|row| row[2].as_f64().unwrap()).sum();
    assert_eq!(by_api, sum);
    assert_eq!(orzo.stop(), Some(0));
    assert_eq!(read(&table).unwrap()["delta-rs"]["sum"], sum);
}

/// `None` while there is no table yet.
fn read(table: &Path) -> Option<Value> {
    if !table.join("_delta_log").is_dir() {
        return None;
    }
    let clients = std::env::var_os("ORZO_TEST_CLIENTS").expect("checked before");
    let output = Command::new(Path::new(&clients).join("python")).args(["-c", READER]).arg(table).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
