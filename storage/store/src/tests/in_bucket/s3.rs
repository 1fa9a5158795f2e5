//! Against a server that speaks S3, where there is one (`tests/run` has it): the same table is read by other engines from
//! there while it is written, and by a store on another machine afterwards.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use orzo_model::SystemClock;

use super::*;
use crate::{BucketSettings, files::real::RealDisk};

/// How long a server of Python's takes to answer on a busy machine, in tries of a client that each take their time.
const START_TRIES: usize = 60;

/// Makes the bucket.
const MAKE: &str = r#"
import sys, boto3
from botocore.config import Config
once = Config(retries={"max_attempts": 1}, connect_timeout=1, read_timeout=10)
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="KEY",
             aws_secret_access_key="canary-4711", config=once).create_bucket(Bucket="tables")
"#;

/// Reads the table with delta-rs, DuckDB and Polars from the server, and prints rows and sum of each.
const READ: &str = r#"
import json, sys
import duckdb, polars as pl
from deltalake import DeltaTable
options = {"AWS_ENDPOINT_URL": sys.argv[1], "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "canary-4711",
           "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
table = DeltaTable("s3://tables/west/orzo/samples", storage_options=options)
points = table.to_pyarrow_table()
rows, total, keys = duckdb.connect().execute("select count(*), sum(coalesce(other_value, number / divisor)), "
    "count(distinct (series, timestamp)) from points").fetchone()
assert rows == keys, (rows, keys)
lines = pl.scan_delta("s3://tables/west/orzo/samples", version=table.version(), storage_options=options)
value = pl.coalesce("other_value", pl.col("number") / pl.col("divisor"))
polars = lines.select(rows=pl.len(), total=value.sum()).collect().row(0)
print(json.dumps({"version": table.version(), "delta-rs": [rows, total], "polars": list(polars)}))
"#;

struct Server {
    child: Child,
    endpoint: String,
    clients: PathBuf,
}

impl Server {
    fn start(directory: &Path) -> Option<Self> {
        let Some(clients) = std::env::var_os("ORZO_TEST_CLIENTS").map(PathBuf::from) else {
            eprintln!("s3: the real parts are not here; run tests/run for them");
            return None;
        };
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers/s3");
        let log = std::fs::File::create(directory.join("s3.log")).unwrap();
        let child = Command::new(script)
            .arg(&clients)
            .arg(free.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, endpoint: format!("http://127.0.0.1:{free}"), clients };
        let mut told = String::new();
        for _ in 0..START_TRIES {
            match server.python(MAKE) {
                Ok(_) => return Some(server),
                Err(error) => told = error,
            }
        }
        panic!("{told}\n{}", std::fs::read_to_string(directory.join("s3.log")).unwrap_or_default());
    }

    fn python(&self, script: &str) -> Result<String, String> {
        let output = Command::new(self.clients.join("python")).args(["-c", script, &self.endpoint]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_s3_is_read_by_other_engines_while_it_is_written_and_opened_on_another_machine() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(directory.path()) else { return };
    let secret = directory.path().join("s3.secret");
    std::fs::write(&secret, "canary-4711").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let bucket = BucketSettings {
        url: "s3://tables/west/orzo".into(),
        endpoint: Some(server.endpoint.clone()),
        access_key: Some("KEY".into()),
        secret_key_file: Some(secret),
        ..BucketSettings::default()
    };
    let settings = |name: &str| StoreSettings {
        directory: directory.path().join(name),
        disk_reserve_bytes: 0,
        bucket: Some(bucket.clone()),
        ..StoreSettings::default()
    };
    let open = |settings: StoreSettings| {
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        Store::open(settings, room, SystemClock::shared())
    };
    let store = open(settings("first")).await.expect("opens");
    let (mut count, mut sum) = (0, 0.0);
    for round in 0..4 {
        let points: Vec<_> =
            (0..500).map(|n| point(n % 7, i64::from(round) * 1000 + n as i64, n as f64 / 4.0 + 1e-7)).collect();
        count += points.len() as u64;
        sum += points.iter().map(|point| point.value).sum::<f64>();
        store.append(points).await.expect("stored");
        store.flush().await.expect("flushed");
        if round == 2 {
            store.compact().await.expect("merged");
            store.checkpoint().await.expect("written");
        }
        let read: serde_json::Value = serde_json::from_str(&server.python(READ).expect("read")).unwrap();
        for engine in ["delta-rs", "polars"] {
            assert_eq!(read[engine][0], count, "{read}");
            assert!((read[engine][1].as_f64().unwrap() - sum).abs() < 1e-6, "{read}, not {sum}");
        }
        eprintln!("s3: {read}");
    }
    let refused = open(settings("second")).await.err().expect("another directory has it").to_string();
    assert!(refused.contains("orzo store adopt") && !refused.contains("canary"), "{refused}");
    let all = everything(&store, &Vec::from_iter(0..7)).await.expect("read");
    assert_eq!(all.len() as u64, count);
    assert!(store.verify().await.expect("read").is_sound());
    store.close().await.expect("closed");

    let store = open(settings("second")).await.expect("it was left");
    assert_eq!(everything(&store, &Vec::from_iter(0..7)).await.expect("read"), all);
    store.settle().await.expect("settled");
    let report = store.back_up(&directory.path().join("backup"), None, |_| {}).await.expect("copied");
    assert_eq!(report.rows, count);
    store.close().await.expect("closed");
    let copy = StoreSettings { bucket: None, ..settings("backup") };
    assert_eq!(everything(&open(copy).await.expect("opens"), &Vec::from_iter(0..7)).await.expect("read"), all);

    // In pieces, and only where nothing is.
    let large = directory.path().join("large");
    let contents: Vec<u8> = (0..20 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&large, &contents).unwrap();
    let back = tokio::task::spawn_blocking(move || {
        let bucket = bucket.open().expect("opens");
        let file = RealDisk.open(&large).expect("opens");
        bucket.put_file("large", &*file).expect("put");
        bucket.put_new("small", b"one"[..].into()).expect("put");
        let taken = bucket.put_new("small", b"two"[..].into()).expect_err("taken");
        assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(bucket.get("small").expect("got"), &b"one"[..]);
        bucket.get("large").expect("got")
    });
    assert!(back.await.unwrap() == contents);
}
