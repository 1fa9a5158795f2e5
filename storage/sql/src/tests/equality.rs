//! What SQL counts is what the scan has: random points in head and files, replaced and deleted, asked in random ways.

use std::collections::BTreeMap;

use orzo_model::{SeriesId, Timestamp};
use serde_json::Value;

use super::{House, START, patient, rows};

/// Seconds in which points lie.
const SECONDS: i64 = 5000;
/// Lives that are lived; each asks some twenty questions.
const LIVES: u64 = 2;

/// A small generator: the same numbers for the same seed (Knuth's constants for 64 bits).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Count, sum, least and greatest of what the scan gives.
async fn of_scan(house: &House, series: &[SeriesId], first: i64, end: i64) -> Option<(u64, f64, f64, f64)> {
    let (from, to) = (Timestamp::from_secs(START + first), Timestamp::from_secs(START + end));
    let mut all = Vec::new();
    for one in series {
        let found = house.source.store.scan(&[*one], from, to).await.expect("a scan");
        all.extend(found.into_iter().flat_map(|(_, measures)| measures).map(|measure| measure.value));
    }
    let fold = |f: fn(f64, f64) -> f64| all.iter().copied().reduce(f);
    Some((all.len() as u64, fold(|a, b| a + b)?, fold(f64::min)?, fold(f64::max)?))
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

#[tokio::test]
async fn sums_by_sql_are_the_scans_own() {
    for seed in 0..LIVES {
        let mut chance = Chance(seed);
        let house = House::build().await;
        let queries = house.queries(patient());
        let mut by_meter: BTreeMap<String, Vec<SeriesId>> = BTreeMap::new();
        for project in ["p1", "p2"] {
            for server in 0..6 {
                let series = house.resource(project, &format!("{project}-{server}"), &["cpu", "disk.read"]).await;
                by_meter.entry("cpu".to_owned()).or_default().push(series[0]);
                by_meter.entry("disk.read".to_owned()).or_default().push(series[1]);
            }
            for instance in ["a", "b"] {
                let series = house.labelled(project, &[("__name__", "up"), ("instance", instance)]).await;
                by_meter.entry("up".to_owned()).or_default().push(series);
            }
        }
        let every: Vec<SeriesId> = by_meter.values().flatten().copied().collect();
        for _ in 0..60 {
            let series = every[chance.below(every.len() as u64) as usize];
            let (first, count) = (chance.below(SECONDS as u64) as i64, 1 + chance.below(900) as i64);
            // Whole numbers, so that the order of a sum does not matter.
            let points: Vec<_> = (first..first + count).map(|second| (second, chance.below(1000) as f64)).collect();
            house.write(series, points).await;
            match chance.below(12) {
                0 | 1 => house.source.store.flush().await.expect("flushed"),
                2 => {
                    house.source.store.compact().await.expect("merged");
                }
                3 => house.source.store.delete_series(&[series]).await.expect("deleted"),
                _ => {}
            }
        }
        for _ in 0..2 {
            let (first, length) = (chance.below(SECONDS as u64) as i64, 1 + chance.below(3000) as i64);
            let end = first + length;
            let at = |second: i64| Timestamp::from_secs(START + second).to_string();
            let time = format!("timestamp >= '{}' AND timestamp < '{}'", at(first), at(end));
            // The same times, said with both ends included: points lie on whole seconds.
            let within = format!("timestamp BETWEEN '{}' AND '{}'", at(first), at(end - 1));
            let aggregates = "count(*), sum(value), min(value), max(value)";
            for (meter, series) in &by_meter {
                let expected = of_scan(&house, series, first, end).await;
                let one = series[chance.below(series.len() as u64) as usize];
                let numbers: Vec<_> = series.iter().map(|series| series.0.to_string()).collect();
                let expected_of_one = of_scan(&house, &[one], first, end).await;
                for (query, expected) in [
                    (format!("SELECT {aggregates} FROM measures WHERE meter = '{meter}' AND {time}"), expected),
                    (
                        format!(
                            "SELECT {aggregates} FROM samples WHERE series IN ({}) AND {within}",
                            numbers.join(", ")
                        ),
                        expected,
                    ),
                    (format!("SELECT {aggregates} FROM samples WHERE series = {} AND {time}", one.0), expected_of_one),
                ] {
                    let row = rows(&queries, &query).await.remove(0);
                    let found = number(&row[1]).zip(number(&row[2])).zip(number(&row[3]));
                    let found = found.map(|((sum, least), most)| (row[0].as_u64().unwrap_or(0), sum, least, most));
                    assert_eq!(found, expected, "seed {seed}: {query}");
                }
            }
        }
        let total = of_scan(&house, &every, 0, SECONDS * 2).await.expect("points");
        let row = rows(&queries, "SELECT count(*), sum(value) FROM samples").await.remove(0);
        assert_eq!((row[0].as_u64(), row[1].as_f64()), (Some(total.0), Some(total.1)), "seed {seed}");
    }
}
