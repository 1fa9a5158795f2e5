//! The files are for everybody: delta-rs, DuckDB, Polars and ClickHouse read the table while Orzo writes it, to the sums
//! of the API. (Polars and ClickHouse where they are installed.) The ledger of rated lines, too.

mod names;

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
value = "coalesce(other_value, number / divisor)"
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
        rows = pl.scan_parquet(files).select("series", "timestamp", v=pl.coalesce("other_value", pl.col("number") / pl.col("divisor")))
        rows = rows.filter(pl.col("v") <= -1000000).collect()
        answers["polars"] = {"rows": rows.height, "sum": rows["v"].sum(), "keys": rows.n_unique(["series", "timestamp"])}
    except ImportError:
        pass
    try:
        import chdb
        columns = "series, timestamp, other_value, number, divisor"
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
                // Below every value that the agents make, so that the readers can tell; steps of any size, which have the
                // narrowest widths.
                let value = -1_000_000.0 - (n * 7000 + n * n * 2_654_435_761 % 4_294_967_296 % 5000) as f64;
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
    read_by(READER, table)
}

fn read_by(reader: &str, table: &Path) -> Option<Value> {
    if !table.join("_delta_log").is_dir() {
        return None;
    }
    let clients = std::env::var_os("ORZO_TEST_CLIENTS").expect("checked before");
    let output = Command::new(Path::new(&clients).join("python")).args(["-c", reader]).arg(table).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Days of the month that is billed below, and lines of each hour.
const LEDGER_DAYS: i64 = 31;
const LEDGER_SERVERS: i64 = 3;

/// Reads the ledger of rated lines: delta-rs names the version, Polars reads the Delta table itself, DuckDB its files. Sums are
/// decimals and printed as texts.
const LEDGER_READER: &str = r#"
import json, sys
import duckdb, polars as pl
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1])
files = table.file_uris()
answers = {"version": table.version(), "files": len(files)}
if files:
    own = duckdb.connect()
    rows, ids, total, kind = own.execute(
        f"select count(*), count(distinct id), sum(cost), typeof(sum(cost)) from read_parquet({files!r}, hive_partitioning=false)").fetchone()
    services = own.execute(f"select service, sum(cost) from read_parquet({files!r}, hive_partitioning=false) group by 1 order by 1").fetchall()
    assert kind == "DECIMAL(38,10)", kind
    answers["duckdb"] = {"rows": rows, "ids": ids, "total": str(total), "services": [[name, str(cost)] for name, cost in services]}
    lines = pl.scan_delta(sys.argv[1], version=table.version())
    whole = lines.select(rows=pl.len(), ids=pl.col("id").n_unique(), total=pl.col("cost").sum()).collect().row(0, named=True)
    services = lines.group_by("service").agg(pl.col("cost").sum()).sort("service").collect().rows()
    assert str(lines.collect_schema()["cost"]) == "Decimal(precision=38, scale=10)", lines.collect_schema()["cost"]
    answers["polars"] = {"rows": whole["rows"], "ids": whole["ids"], "total": str(whole["total"]),
                         "services": [[name, str(cost)] for name, cost in services]}
print(json.dumps(answers))
"#;

/// Steps of 10⁻¹⁰ as the engines print them.
fn money(steps: i64) -> String {
    format!("{}.{:010}", steps / 10_000_000_000, steps % 10_000_000_000)
}

#[test]
fn other_engines_reach_the_totals_of_bills_while_lines_are_written() {
    if !has_real_parts("readers") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut orzo = Orzo::start(directory.path(), "[cloud]\nhypervisor = \"simulated\"\n");
    let token = orzo.token();
    let ledger = orzo.data().join("store").join("ledger");
    let (mut instances, mut volumes, mut lines, mut seen_while_writing) = (0, 0, 0, 0);
    for day in 1..=LEDGER_DAYS {
        let mut frames = Vec::new();
        for hour in 0..24 {
            let mut usage = json!({"instance": [], "volume.size": []});
            for server in 0..LEDGER_SERVERS {
                // Costs that no binary fraction says.
                let (instance, volume) = (1_234_567 * (server + 1) + hour, 10_000_000_001 + day);
                instances += instance;
                volumes += volume;
                lines += 2;
                for (service, cost) in [("instance", instance), ("volume.size", volume)] {
                    let point = json!({"vol": {"unit": "unit", "qty": 1}, "rating": {"price": money(cost)},
                        "groupby": {"id": format!("{service}-{server}"), "project_id": format!("project-{server}")},
                        "metadata": {}});
                    usage[service].as_array_mut().unwrap().push(point);
                }
            }
            let time = |hour: i64| match hour {
                24 => format!("2026-08-{day:02}T23:59:59+00:00"),
                hour => format!("2026-08-{day:02}T{hour:02}:00:00+00:00"),
            };
            frames.push(json!({"period": {"begin": time(hour), "end": time(hour + 1)}, "usage": usage}));
        }
        // Four commits a day, so that the month has a checkpoint.
        for part in frames.chunks(6) {
            orzo.request("POST", "/rating/v2/dataframes", &token, Some(&json!({"dataframes": part})), 204);
        }
        if day % 6 == 0 {
            let answer = read_by(LEDGER_READER, &ledger).unwrap();
            assert_eq!(answer["duckdb"], answer["polars"], "{answer}");
            assert_eq!(answer["duckdb"]["total"], money(instances + volumes), "all that was acknowledged: {answer}");
            assert_eq!(answer["duckdb"]["rows"], answer["duckdb"]["ids"], "a line twice: {answer}");
            seen_while_writing += 1;
        }
    }
    assert_eq!(seen_while_writing, 5);
    let expected = json!({"rows": lines, "ids": lines, "total": money(instances + volumes),
        "services": [["instance", money(instances)], ["volume.size", money(volumes)]]});
    let answer = read_by(LEDGER_READER, &ledger).unwrap();
    assert_eq!((&answer["duckdb"], &answer["polars"]), (&expected, &expected), "{answer}");
    // The API says the same.
    let path = "/rating/v2/summary?begin=2026-08-01&end=2026-09-01&groupby=type&response_format=object";
    let summary = orzo.request("GET", path, &token, None, 200);
    let results = summary["results"].as_array().unwrap();
    for (row, cost) in results.iter().zip([instances, volumes]) {
        assert_eq!(row["rate"].as_f64(), money(cost).parse().ok(), "{summary}");
    }
    assert_eq!(results.len(), 2, "{summary}");
    assert_eq!(orzo.stop(), Some(0));
    assert_eq!(read_by(LEDGER_READER, &ledger).unwrap()["polars"], expected);
    // The same without the commits that the checkpoint stands for.
    let log = ledger.join("_delta_log");
    let pointer = std::fs::read_to_string(log.join("_last_checkpoint")).expect("a checkpoint");
    let pointer: serde_json::Value = serde_json::from_str(&pointer).unwrap();
    let version = pointer["version"].as_u64().unwrap();
    for number in 0..=version {
        std::fs::remove_file(log.join(format!("{number:020}.json"))).unwrap();
    }
    let answer = read_by(LEDGER_READER, &ledger).unwrap();
    assert_eq!((&answer["duckdb"], &answer["polars"]), (&expected, &expected), "by the checkpoint: {answer}");
    eprintln!("readers: DuckDB and Polars read {lines} lines, {} in all", money(instances + volumes));
}
