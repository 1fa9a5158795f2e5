//! The table `series` gives every engine the names of the points, while both are written: sums per meter by DuckDB, Polars, ClickHouse and
//! delta-rs are those of the API.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{has_real_parts, orzo::Orzo, wait_for};

/// Joins both tables with every engine that is installed: for each, sums by meter of the meters `t.*`, and how many series there are.
/// delta-rs names the versions; Polars reads the table of names as a Delta table, the others its files.
const JOIN: &str = r#"
import json, sys
import duckdb
from deltalake import DeltaTable
store = sys.argv[1]
points = DeltaTable(store + "/samples")
names = DeltaTable(store + "/series")
p, n = points.file_uris(), names.file_uris()
answers = {"version": names.version(), "files": len(n)}
value = "coalesce(other_value, number / divisor)"
own = duckdb.connect()
if n:
    total, distinct = own.execute(f"select count(*), count(distinct series) from read_parquet({n!r})").fetchone()
    answers["series"], answers["distinct"] = total, distinct
    answers["projects"] = [row[0] for row in own.execute(
        f"select distinct project_id from read_parquet({n!r}) where meter like 't.%' or meter like 't_%' order by 1").fetchall()]
    answers["originals"] = [row[0] for row in own.execute(
        f"select original_resource_id from read_parquet({n!r}) where meter = 't.cpu' order by 1").fetchall()]
    answers["host"] = own.execute(f"select labels->>'$.host' from read_parquet({n!r}) where meter = 't_load' order by 1 limit 1").fetchall()
if n and p:
    where = "n.meter in ('t.cpu', 't.memory', 't_load')"
    rows = own.execute(f"select n.meter, sum({value}) from read_parquet({p!r}, union_by_name=true) s join read_parquet({n!r}) n using (series) where {where} group by 1").fetchall()
    answers["duckdb"] = dict(rows)
    a, b = points.to_pyarrow_table(), names.to_pyarrow_table()
    rows = own.execute(f"select n.meter, sum({value}) from a s join b n using (series) where {where} group by 1").fetchall()
    answers["delta-rs"] = dict(rows)
    import polars as pl
    named = pl.scan_delta(store + "/series", version=names.version()).select("series", "meter")
    read = pl.scan_parquet(p).select("series", v=pl.coalesce("other_value", pl.col("number") / pl.col("divisor")))
    sums = read.join(named, on="series").filter(pl.col("meter").is_in(["t.cpu", "t.memory", "t_load"])).group_by("meter").agg(pl.col("v").sum())
    answers["polars"] = dict(sums.collect().rows())
    import chdb
    s = "(" + " union all ".join(f"select series, other_value, number, divisor from file('{f}', Parquet)" for f in p) + ")"
    t = "(" + " union all ".join(f"select series, meter from file('{f}', Parquet)" for f in n) + ")"
    answer = chdb.query(f"select n.meter, sum({value}) from {s} s join {t} n on s.series = n.series where {where} group by 1", "JSONCompact")
    answers["clickhouse"] = {meter: float(sum) for meter, sum in json.loads(str(answer))["data"]}
print(json.dumps(answers))
"#;
const ENGINES: [&str; 4] = ["duckdb", "delta-rs", "polars", "clickhouse"];

fn join(store: &Path) -> Option<Value> {
    if !store.join("series/_delta_log").is_dir() || !store.join("samples/_delta_log").is_dir() {
        return None;
    }
    let clients = std::env::var_os("ORZO_TEST_CLIENTS").expect("checked before");
    let output = Command::new(Path::new(&clients).join("python")).args(["-c", JOIN]).arg(store).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn sums(answer: &Value, engine: &str) -> BTreeMap<String, f64> {
    serde_json::from_value(answer[engine].clone()).unwrap_or_default()
}

#[test]
fn other_engines_join_names_and_points_while_both_are_written() {
    if !has_real_parts("readers") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\n[metrics]\npurge_after = \"1s\"\n\
                    [store]\nhead_bytes_max = 65536\nflush_after = \"1s\"\nseries_table_every = \"1s\"\nremoved_grace = \"2s\"\n";
    let mut orzo = Orzo::start(directory.path(), settings);
    let token = orzo.token();
    let store = orzo.data().join("store");
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    let resource = |orzo: &Orzo, number: i64, project: &str| {
        let body = json!({"id": format!("vm {number}"), "project_id": project, "metrics": {
            "t.cpu": {"archive_policy_name": "low"}, "t.memory": {"archive_policy_name": "low"}}});
        orzo.request("POST", "/metric/v1/resource/generic", &token, Some(&body), 201)
    };
    let post = |orzo: &Orzo, metric: &str, first: i64| -> f64 {
        let value = |n: i64| (first * 37 + n) as f64 * 0.25;
        let measures: Vec<Value> =
            (0..200).map(|n| json!({"timestamp": 1_700_000_000 + n * 60, "value": value(n)})).collect();
        orzo.request("POST", &format!("/metric/v1/metric/{metric}/measures"), &token, Some(&json!(measures)), 202);
        (0..200).map(value).sum()
    };
    let mut kept = Vec::new();
    let mut seen_while_writing = 0;
    for number in 0..8 {
        // Resources and label sets come while others' points are written.
        let made = resource(&orzo, number, "t-project");
        for meter in ["t.cpu", "t.memory"] {
            let metric = made["metrics"][meter].as_str().unwrap();
            *expected.entry(meter.to_owned()).or_default() += post(&orzo, metric, number + meter.len() as i64);
        }
        kept.push(made["id"].as_str().unwrap().to_owned());
        let lines: String = (0..50)
            .map(|n| format!("t,host=h{number} load={} {}\n", n as f64 * 0.5, (1_700_000_000 + n) * 1_000_000_000_i64))
            .collect();
        assert_eq!(orzo.try_post_bytes("/influxdb/write?db=x", &token, lines.into_bytes()), Some(204));
        *expected.entry("t_load".to_owned()).or_default() += (0..50).map(|n| n as f64 * 0.5).sum::<f64>();
        let Some(answer) = join(&store) else { continue };
        assert_eq!(answer["series"], answer["distinct"], "a series twice: {answer}");
        for engine in ENGINES {
            assert_eq!(sums(&answer, engine), sums(&answer, "duckdb"), "{engine}: {answer}");
            for (meter, sum) in sums(&answer, engine) {
                assert!(sum <= expected[&meter], "{engine} {meter}: {answer}");
                seen_while_writing += 1;
            }
        }
    }
    let whole = |what: &str, expected: &BTreeMap<String, f64>| {
        wait_for(what, Duration::from_secs(60), || join(&store).filter(|answer| sums(answer, "duckdb") == *expected))
    };
    let answer = whole("all points with their names", &expected);
    for engine in ENGINES {
        assert_eq!(sums(&answer, engine), expected, "{engine}: {answer}");
    }
    assert_eq!(answer["host"], json!([["h0"]]), "labels are JSON: {answer}");
    // SQL says the same.
    let query = "SELECT meter, sum(value) FROM measures WHERE meter IN ('t.cpu', 't.memory', 't_load') GROUP BY meter";
    let by_sql = orzo.request("POST", "/v1/sql", &token, Some(&json!({ "query": query })), 200);
    let row = |row: &Value| (row[0].as_str().unwrap().to_owned(), row[1].as_f64().unwrap());
    let by_sql: BTreeMap<String, f64> = by_sql["rows"].as_array().unwrap().iter().map(row).collect();
    assert_eq!(by_sql, expected);
    eprintln!("readers: {answer}, {seen_while_writing} sums seen while writing");
    // What is deleted has no name any more, and after the grace no file has it.
    let gone = kept.pop().unwrap();
    orzo.request("DELETE", &format!("/metric/v1/resource/generic/{gone}"), &token, None, 204);
    assert!(answer["originals"].as_array().unwrap().contains(&json!("vm 7")), "{answer}");
    wait_for("a name less", Duration::from_secs(60), || {
        join(&store).filter(|answer| !answer["originals"].as_array().unwrap().contains(&json!("vm 7")))
    });
    // A death in the middle leaves a table that is right again at once.
    orzo.kill();
    orzo.restart();
    resource(&orzo, 99, "t-other");
    wait_for("the other project", Duration::from_secs(60), || {
        join(&store).filter(|answer| answer["projects"].as_array().is_some_and(|all| all.contains(&json!("t-other"))))
    });
    assert_eq!(orzo.stop(), Some(0));
    let answer = join(&store).unwrap();
    assert_eq!(answer["series"], answer["distinct"], "{answer}");
    // Where it is lost it is made again.
    std::fs::remove_dir_all(store.join("series")).unwrap();
    orzo.restart();
    wait_for("the table again", Duration::from_secs(60), || {
        join(&store).filter(|again| again["series"].as_i64() >= answer["series"].as_i64())
    });
    assert_eq!(orzo.stop(), Some(0));
}
