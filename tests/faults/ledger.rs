//! The judge of every fault run: what was sent, what was acknowledged, what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::orzo::Orzo;

/// (metric id, second) → value.
type Points = BTreeMap<(String, i64), f64>;

/// Everything that was sent, and how it ended.
#[derive(Default)]
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
