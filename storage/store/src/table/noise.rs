//! Which numbers are noise: better kept as they are, byte by byte, than as differences. Pure.
//!
//! How long something took, how much is free: such numbers do not go up step by step, and the difference of two of them is
//! wider than either. What each way would cost is estimated by the entropy of the bytes that it makes, on a few values for
//! each stretch of rows; series of one meter lie beside each other and are decided together.

use orzo_model::SeriesId;

use super::packing;

/// Rows that are decided together, at least, unless the meter ends.
const STRETCH_ROWS: usize = 4096;
/// Numbers that are looked at.
const TRIED: usize = 1024;
/// Fewer numbers say nothing.
const TRIED_MIN: usize = 64;
/// Differences within this are cheap; where all but one in [`WIDE_SHARE`] are, nothing is tried.
const NARROW: u64 = 128;
pub(super) const WIDE_SHARE: usize = 4;
/// Noise must be smaller by one part in so many: differences are what pages are read fastest by.
const GAIN_SHARE: f64 = 32.0;

/// A run of rows of one series, as far as it matters here.
pub(super) struct Numbers {
    pub(super) series: SeriesId,
    pub(super) rows: usize,
    /// Rows that have a number.
    pub(super) count: usize,
}

/// For each run whether its numbers are noise. `numbers` are those of all runs, one after the other.
pub(super) fn find(runs: &[Numbers], numbers: &[i64]) -> Vec<bool> {
    let (mut found, mut at, mut is_noise) = (Vec::with_capacity(runs.len()), 0, false);
    let (mut body, mut from) = (Vec::new(), 0);
    while from < runs.len() {
        let (mut to, mut rows, mut count) = (from, 0, 0);
        while to < runs.len() && rows < STRETCH_ROWS && runs[to].series.meter() == runs[from].series.meter() {
            rows += runs[to].rows;
            count += runs[to].count;
            to += 1;
        }
        // What has no numbers, or few, goes with what is before it, so that no page ends there.
        if count >= TRIED_MIN {
            is_noise = are_noise(&numbers[at..at + count.min(TRIED)], &mut body);
        }
        found.resize(to, is_noise);
        (at, from) = (at + count, to);
    }
    found
}

fn are_noise(numbers: &[i64], body: &mut Vec<u8>) -> bool {
    let wide = numbers.windows(2).filter(is_wide).count();
    if wide * WIDE_SHARE < numbers.len() {
        return false;
    }
    body.clear();
    packing::put_deltas(numbers, body);
    let deltas = bits(body.iter().copied());
    let split: f64 = (0..8).map(|byte| bits(numbers.iter().map(|number| number.to_le_bytes()[byte]))).sum();
    split < deltas - deltas / GAIN_SHARE
}

/// Whether a difference costs more than a byte.
pub(super) fn is_wide(pair: &&[i64]) -> bool {
    pair[1].abs_diff(pair[0]) >= NARROW
}

/// Bits that a code for these bytes takes at least.
pub(super) fn bits(bytes: impl Iterator<Item = u8>) -> f64 {
    let (mut counts, mut total) = ([0u32; 256], 0u32);
    for byte in bytes {
        counts[usize::from(byte)] += 1;
        total += 1;
    }
    let all = f64::from(total);
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) * (all / f64::from(*count)).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(series: u64, numbers: &[i64]) -> Numbers {
        Numbers { series: SeriesId(series), rows: numbers.len(), count: numbers.len() }
    }

    fn random(count: usize, width: u64) -> Vec<i64> {
        let mut state = 9u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % width
        };
        (0..count).map(|_| next() as i64).collect()
    }

    #[test]
    fn noise_is_told_from_counters_and_small_steps() {
        let noise = random(2000, 40_000);
        let mut sum = 1_000_000_000;
        let counter: Vec<i64> = random(2000, 40_000)
            .iter()
            .map(|step| {
                sum += step;
                sum
            })
            .collect();
        let walk: Vec<i64> = random(2000, 9)
            .iter()
            .map(|step| {
                sum += step - 4;
                sum
            })
            .collect();
        let still = vec![1_234_567; 2000];
        assert!(are_noise(&noise[..TRIED], &mut Vec::new()));
        for (name, numbers) in [("a counter", counter), ("a walk", walk), ("what stands still", still)] {
            assert!(!are_noise(&numbers[..TRIED], &mut Vec::new()), "{name}");
        }
    }

    #[test]
    fn a_meter_is_decided_by_itself_and_what_has_no_numbers_goes_with_what_is_before() {
        let (noise, steps) = (random(5000, 1 << 20), (0..5000).collect::<Vec<i64>>());
        let meter = |number: u64| number << 40;
        let runs = [
            of(meter(1), &noise),
            Numbers { series: SeriesId(meter(2)), rows: 5000, count: 0 },
            of(meter(3), &steps),
            of(meter(3) + 1, &noise),
            of(meter(4), &steps[..10]),
        ];
        let numbers = [noise.clone(), steps.clone(), noise, steps[..10].to_vec()].concat();
        assert_eq!(find(&runs, &numbers), [true, true, false, true, true]);
    }
}
