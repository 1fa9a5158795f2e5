//! The judge of every fault run: what was sent, what was acknowledged, what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use orzo_model::{Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{Store, StoreSettings};
use serde_json::{Value, json};

use crate::support::{
    has_real_parts,
    orzo::{Orzo, runtime},
};

/// The seconds that senders use: before any that an agent of today does.
const SECONDS: std::ops::Range<i64> = 1_700_000_000..1_790_000_000;
/// More series than a run makes.
const SERIES_MAX: u64 = 20_000;
/// Prints microsecond and value of each row that senders may have made, as another engine reads the table.
const READER: &str = r#"
import sys
import duckdb
from deltalake import DeltaTable
points = DeltaTable(sys.argv[1]).to_pyarrow_table()
own = duckdb.connect()
own.register("points", points)
rows = own.execute("select epoch_us(timestamp), coalesce(other_value, number / divisor) from points "
                   "where epoch(timestamp) >= ? and epoch(timestamp) < ?", [int(sys.argv[2]), int(sys.argv[3])])
for micros, value in rows.fetchall():
    print(micros, repr(value))
"#;

/// (metric id, second) → value.
type Points = BTreeMap<(String, i64), f64>;

/// Everything that was sent, and how it ended.
#[derive(Clone, Default)]
pub struct Ledger {
    acknowledged: Points,
    /// Sent without an answer: may be there or not, but not twice and not wrong.
    unknown: Points,
    refused: usize,
}

/// What came out, in the words of a queue's test report.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: usize,
    pub unknown: usize,
    pub recovered: usize,
    pub lost: usize,
    pub doubled: usize,
    pub phantom: usize,
    pub wrong: usize,
}

impl Ledger {
    pub fn acknowledged(&mut self, points: Points) {
        self.unknown.retain(|key, _| !points.contains_key(key));
        self.acknowledged.extend(points);
    }

    pub fn unknown(&mut self, points: Points) {
        self.unknown.extend(points);
    }

    pub fn refused(&mut self) {
        self.refused += 1;
    }

    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// With what another one has besides.
    pub fn and(mut self, other: &Self) -> Self {
        self.merge(other.clone());
        self
    }

    /// What is in `later` and not in this one may be there or not.
    pub fn perhaps(mut self, later: &Self) -> Self {
        let new = |points: &Points, known: &Points| {
            let new = points.iter().filter(|(key, _)| !known.contains_key(*key));
            new.map(|(key, value)| (key.clone(), *value)).collect::<Points>()
        };
        self.unknown.extend(new(&later.acknowledged, &self.acknowledged));
        self.unknown.extend(new(&later.unknown, &self.acknowledged));
        self
    }

    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.refused += other.refused;
    }

    /// Reads every metric back by the API and compares.
    pub fn judge(&self, orzo: &Orzo, token: &str, metrics: &[String]) -> Verdict {
        let mut verdict = Verdict {
            acknowledged: self.acknowledged.len(),
            unknown: self.unknown.len(),
            recovered: 0,
            lost: 0,
            doubled: 0,
            phantom: 0,
            wrong: 0,
        };
        let mut present = BTreeSet::new();
        for metric in metrics {
            let counts = read(orzo, token, metric, "count");
            let sums = read(orzo, token, metric, "sum");
            for (second, count) in counts {
                let key = (metric.clone(), second);
                let sum = sums.get(&second).copied().unwrap_or(f64::NAN);
                if count != 1.0 {
                    verdict.doubled += 1;
                }
                match self.acknowledged.get(&key).or_else(|| self.unknown.get(&key)) {
                    None => verdict.phantom += 1,
                    Some(value) if *value != sum => verdict.wrong += 1,
                    Some(_) if self.unknown.contains_key(&key) => verdict.recovered += 1,
                    Some(_) => {}
                }
                present.insert(key);
            }
        }
        verdict.lost = self.acknowledged.keys().filter(|key| !present.contains(*key)).count();
        verdict
    }
}

impl Ledger {
    /// Of rows that have lost their metric's name. No second is sent twice, so it names the point.
    fn judge_rows(&self, rows: &[(i64, f64)]) -> Verdict {
        let by_second = |points: &Points| points.iter().map(|((_, second), value)| (*second, *value)).collect();
        let (acknowledged, unknown): (BTreeMap<i64, f64>, BTreeMap<i64, f64>) =
            (by_second(&self.acknowledged), by_second(&self.unknown));
        let mut present = BTreeSet::new();
        let mut verdict = Verdict {
            acknowledged: acknowledged.len(),
            unknown: unknown.len(),
            recovered: 0,
            lost: 0,
            doubled: 0,
            phantom: 0,
            wrong: 0,
        };
        for (micros, value) in rows {
            let second = micros.div_euclid(1_000_000);
            verdict.doubled += usize::from(!present.insert(second));
            match acknowledged.get(&second).or_else(|| unknown.get(&second)) {
                None => verdict.phantom += 1,
                Some(own) if own != value => verdict.wrong += 1,
                Some(_) => verdict.recovered += usize::from(unknown.contains_key(&second)),
            }
        }
        verdict.lost = acknowledged.keys().filter(|second| !present.contains(second)).count();
        verdict
    }

    /// Reads the store itself, which nobody else has open.
    pub fn judge_store(&self, directory: &Path) -> Verdict {
        let settings = StoreSettings { directory: directory.to_owned(), ..StoreSettings::default() };
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        let rows = runtime().block_on(async {
            let store = Store::open(settings, room, SystemClock::shared()).await.unwrap();
            let series: Vec<SeriesId> = (0..SERIES_MAX).map(SeriesId).collect();
            let (from, to) = (Timestamp::from_secs(SECONDS.start), Timestamp::from_secs(SECONDS.end));
            let found = store.scan(&series, from, to).await.unwrap();
            store.close().await.unwrap();
            let rows = found.into_iter().flat_map(|(_, measures)| measures);
            rows.map(|measure| (measure.timestamp.micros(), measure.value)).collect::<Vec<_>>()
        });
        self.judge_rows(&rows)
    }

    /// Reads the table's files by delta-rs and DuckDB, where they are installed. Everything must be in files.
    pub fn judge_table(&self, table: &Path) -> Option<Verdict> {
        if !has_real_parts("reading by another engine") {
            return None;
        }
        let clients = std::env::var_os("ORZO_TEST_CLIENTS").expect("checked before");
        let output = Command::new(Path::new(&clients).join("python"))
            .args(["-c", READER])
            .arg(table)
            .args([SECONDS.start.to_string(), SECONDS.end.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let row =
            |line: &str| line.split_once(' ').map(|(micros, value)| (micros.parse().unwrap(), value.parse().unwrap()));
        Some(self.judge_rows(&text.lines().filter_map(row).collect::<Vec<_>>()))
    }
}

impl Verdict {
    /// Nothing lost, doubled, invented or wrong.
    pub fn assert_clean(&self) {
        eprintln!("{self:?}");
        let bad = (self.lost, self.doubled, self.phantom, self.wrong);
        assert_eq!(bad, (0, 0, 0, 0), "lost, doubled, phantom, wrong: {self:?}");
        assert!(self.acknowledged > 0, "nothing was acknowledged: the run shows nothing");
    }
}

/// Second → aggregate of that second.
fn read(orzo: &Orzo, token: &str, metric: &str, aggregation: &str) -> BTreeMap<i64, f64> {
    let path = format!("/metric/v1/metric/{metric}/measures?aggregation={aggregation}&granularity=1");
    let answer = orzo.request("GET", &path, token, None, 200);
    let rows = answer.as_array().expect("a list of measures");
    rows.iter()
        .map(|row| {
            let time: orzo_model::Timestamp = row[0].as_str().unwrap().parse().unwrap();
            (time.secs(), row[2].as_f64().unwrap())
        })
        .collect()
}

/// A policy that keeps every second for ever, and metrics with it.
pub fn make_metrics(orzo: &Orzo, token: &str, count: usize) -> Vec<String> {
    let policy = json!({"name": "every-second", "aggregation_methods": ["count", "sum"],
                        "definition": [{"granularity": "1s"}]});
    orzo.request("POST", "/metric/v1/archive_policy", token, Some(&policy), 201);
    (0..count)
        .map(|_| {
            let body = json!({"archive_policy_name": "every-second"});
            let metric = orzo.request("POST", "/metric/v1/metric", token, Some(&body), 201);
            metric["id"].as_str().expect("an id").to_owned()
        })
        .collect()
}

/// The body of a batch of measures.
pub fn body_of(points: &Points) -> Value {
    let mut body: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for ((metric, second), value) in points {
        body.entry(metric).or_default().push(json!({"timestamp": second, "value": value}));
    }
    json!(body)
}

/// Sends batches of points of its own seconds until told to stop, and keeps the ledger.
pub struct Sender {
    pub next_second: i64,
    pub ledger: Ledger,
}

impl Sender {
    pub fn new(first_second: i64) -> Self {
        Self { next_second: first_second, ledger: Ledger::default() }
    }

    /// One batch over all metrics; false if there was no answer.
    pub fn send(&mut self, orzo: &Orzo, token: &str, metrics: &[String]) -> bool {
        let mut points = Points::new();
        for metric in metrics {
            for _ in 0..3 {
                // Not a round number, so that a wrong byte shows.
                points.insert((metric.clone(), self.next_second), self.next_second as f64 * 1.1);
                self.next_second += 1;
            }
        }
        let path = "/metric/v1/batch/metrics/measures";
        match orzo.try_request("POST", path, token, Some(&body_of(&points))) {
            Some((202, _)) => {
                self.ledger.acknowledged(points);
                true
            }
            Some((status, answer)) => {
                // 503 says that nothing was taken; it may have been, as after a lost answer.
                assert!(matches!(status, 503 | 507), "{status}: {answer}");
                self.ledger.refused();
                self.ledger.unknown(points);
                true
            }
            None => {
                self.ledger.unknown(points);
                false
            }
        }
    }
}

/// A judge that finds nothing must be one that could.
#[test]
fn a_row_that_is_lost_doubled_invented_or_wrong_is_seen() {
    let mut ledger = Ledger::default();
    let second = |n: i64| SECONDS.start + n;
    let point = |n: i64| (("m".to_owned(), second(n)), n as f64);
    ledger.acknowledged([point(1), point(2)].into());
    ledger.unknown([point(3)].into());
    let judge = |rows: &[(i64, f64)]| {
        let rows: Vec<_> = rows.iter().map(|(n, value)| (second(*n) * 1_000_000, *value)).collect();
        let verdict = ledger.judge_rows(&rows);
        (verdict.lost, verdict.doubled, verdict.phantom, verdict.wrong, verdict.recovered)
    };
    assert_eq!(judge(&[(1, 1.0), (2, 2.0)]), (0, 0, 0, 0, 0));
    assert_eq!(judge(&[(1, 1.0), (2, 2.0), (3, 3.0)]), (0, 0, 0, 0, 1));
    assert_eq!(judge(&[(2, 2.0)]), (1, 0, 0, 0, 0));
    assert_eq!(judge(&[(1, 1.0), (1, 1.0), (2, 2.0)]), (0, 1, 0, 0, 0));
    assert_eq!(judge(&[(1, 1.0), (2, 2.5)]), (0, 0, 0, 1, 0));
    assert_eq!(judge(&[(1, 1.0), (2, 2.0), (4, 4.0)]), (0, 0, 1, 0, 0));
}
