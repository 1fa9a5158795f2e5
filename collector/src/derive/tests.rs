//! Rates: one beside each counter, never negative, the same however samples fall into batches.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;

fn sample(meter: &str, second: i64, value: f64) -> Sample {
    let timestamp = Timestamp::from_secs(second);
    Sample {
        id: sample_id("test", "guest", meter, timestamp),
        meter: meter.to_owned(),
        kind: SampleKind::Cumulative,
        unit: "ns".to_owned(),
        value,
        timestamp,
        resource_id: "guest".to_owned(),
        project_id: Some("p".to_owned()),
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Default::default(),
    }
}

fn with_processors(mut sample: Sample, processors: Value) -> Sample {
    sample.metadata = Arc::new(BTreeMap::from([("cpu_number".to_owned(), processors)]));
    sample
}

fn known(meter: &str, second: i64, value: f64) -> HashMap<Counter, Measure> {
    let counter = Counter { resource_id: "guest".to_owned(), meter: meter.to_owned() };
    HashMap::from([(counter, Measure { timestamp: Timestamp::from_secs(second), value })])
}

fn values(samples: &[Sample], previous: &HashMap<Counter, Measure>) -> Vec<f64> {
    derive(samples, previous).samples.iter().map(|sample| sample.value).collect()
}

#[test]
fn cpu_util_is_percent_of_all_processors_and_at_most_100() {
    let second = 1e9;
    // Half a second of processor time in ten seconds.
    assert_eq!(values(&[sample("cpu", 10, 0.5 * second)], &known("cpu", 0, 0.0)), [5.0]);
    for processors in [json!(4), json!("4")] {
        let busy = with_processors(sample("cpu", 10, 20.0 * second), processors);
        assert_eq!(values(&[busy], &known("cpu", 0, 0.0)), [50.0]);
    }
    // Statistics that come a little late or early must not show more than everything.
    assert_eq!(values(&[sample("cpu", 10, 11.0 * second)], &known("cpu", 0, 0.0)), [100.0]);
    let zero = with_processors(sample("cpu", 10, second), json!(0));
    assert_eq!(values(&[zero], &known("cpu", 0, 0.0)), [10.0]);
}

#[test]
fn a_rate_is_a_sample_of_its_own_beside_its_counter() {
    let counter = sample("network.incoming.bytes", 20, 3000.0);
    let derived = derive(std::slice::from_ref(&counter), &known("network.incoming.bytes", 10, 1000.0));
    let [rate] = derived.samples.as_slice() else { panic!("{derived:?}") };
    assert_eq!((rate.meter.as_str(), rate.unit.as_str(), rate.value), ("network.incoming.bytes.rate", "B/s", 200.0));
    assert_eq!(rate.kind, SampleKind::Gauge);
    assert_eq!(
        (rate.timestamp, &rate.resource_id, &rate.project_id),
        (counter.timestamp, &counter.resource_id, &counter.project_id)
    );
    assert_ne!(rate.id, counter.id);
    assert_eq!(
        derive(std::slice::from_ref(&counter), &known("network.incoming.bytes", 10, 1000.0)).samples[0].id,
        rate.id
    );
}

#[test]
fn a_counter_that_went_back_is_a_restart() {
    let after = sample("disk.device.read.bytes", 20, 500.0);
    assert_eq!(values(&[after], &known("disk.device.read.bytes", 10, 1_000_000.0)), [50.0]);
}

#[test]
fn without_a_value_before_there_is_no_rate() {
    assert!(values(&[sample("cpu", 10, 1.0)], &HashMap::new()).is_empty());
    // Nor over a gap of more than a day, nor between two values at one time.
    assert!(values(&[sample("cpu", 90_000, 1e9)], &known("cpu", 0, 0.0)).is_empty());
    assert!(values(&[sample("cpu", 10, 2.0)], &known("cpu", 10, 1.0)).is_empty());
    // Nor of anything but the listed counters.
    assert!(values(&[sample("memory.usage", 10, 1.0)], &known("memory.usage", 0, 0.0)).is_empty());
    let gauge = Sample { kind: SampleKind::Gauge, ..sample("cpu", 10, 1.0) };
    assert!(values(&[gauge], &known("cpu", 0, 0.0)).is_empty());
}

#[test]
fn several_values_in_one_batch_follow_each_other_in_time() {
    let samples = [30, 10, 20].map(|second| sample("network.outgoing.packets", second, second as f64 * second as f64));
    let derived = derive(&samples, &known("network.outgoing.packets", 0, 0.0));
    assert_eq!(values(&samples, &known("network.outgoing.packets", 0, 0.0)), [10.0, 30.0, 50.0]);
    assert_eq!(derived.newest[0].1, Measure { timestamp: Timestamp::from_secs(30), value: 900.0 });
    assert_eq!(earliest(&samples).values().next(), Some(&Timestamp::from_secs(10)));
}

proptest! {
    /// However the counter jumps, no rate is negative or not finite, and what grew is never more than was counted.
    #[test]
    fn no_rate_is_ever_negative(course in proptest::collection::vec((1i64..100, 0.0..1e18f64), 1..20)) {
        let mut second = 0;
        let samples: Vec<Sample> = course.iter().map(|(step, value)| {
            second += step;
            sample("disk.device.write.bytes", second, *value)
        }).collect();
        let derived = derive(&samples, &HashMap::new());
        prop_assert_eq!(derived.samples.len(), samples.len() - 1);
        for rate in &derived.samples {
            prop_assert!(rate.value.is_finite() && rate.value >= 0.0 && rate.value <= 1e18);
        }
        let ids: std::collections::HashSet<Uuid> = derived.samples.iter().map(|sample| sample.id).collect();
        prop_assert_eq!(ids.len(), derived.samples.len());
    }

    /// Cut into batches anywhere, the same samples make the same rates.
    #[test]
    fn batches_do_not_change_the_rates(values in proptest::collection::vec(0.0..1e9f64, 2..20), cut in 1usize..19) {
        let samples: Vec<Sample> =
            values.iter().enumerate().map(|(at, value)| sample("cpu", at as i64 * 10, *value)).collect();
        let cut = cut.min(samples.len() - 1);
        let whole = derive(&samples, &HashMap::new());
        let first = derive(&samples[..cut], &HashMap::new());
        let second = derive(&samples[cut..], &first.newest.iter().cloned().collect());
        prop_assert_eq!(whole.samples, [first.samples, second.samples].concat());
        prop_assert_eq!(whole.newest, second.newest);
    }
}
