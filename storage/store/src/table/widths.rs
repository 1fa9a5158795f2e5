//! How wide the differences of numbers are written: so that zstd finds them again, or as narrow as they are. Pure.
//!
//! Steps that come again are the same bytes wherever they stand if they have whole bytes, and zstd gets back what that
//! leaves free. The steps of a counter that grows at random do not come again. One code for all bytes of a block gets back
//! only part of the bits that stay free in the highest of each two or three; without them there is nothing left to pack,
//! and nothing to unpack for who reads. What each way would cost is estimated on a few numbers of each series.

use super::{
    noise::{Numbers, WIDE_SHARE, bits, is_wide},
    packing::{self, Widths},
};

/// Numbers that are decided together, at least, unless the meter ends: fewer, and a block for each of them costs more than
/// its widths gain (2 % of Ceilometer's samples, where with these there is 1 % less).
const STRETCH: usize = 1024;
/// Numbers that are looked at.
const TRIED: usize = 1024;
/// Fewer numbers say nothing.
const TRIED_MIN: usize = 64;
/// Exact widths must be smaller by one part in so many: whole bytes are read faster.
const GAIN_SHARE: f64 = 32.0;
/// Where exact widths can be packed by more than the rest of this, there is something in them that zstd would rather see.
const RANDOM_SHARE: f64 = 0.85;

/// How many numbers one after the other have which widths. `numbers` are those of all runs, one after the other; of what is
/// noise there are no differences.
pub(super) fn find(runs: &[Numbers], noise: &[bool], numbers: &[i64]) -> Vec<(usize, Widths)> {
    let (mut found, mut at, mut from): (Vec<(usize, Widths)>, _, _) = (Vec::new(), 0, 0);
    let mut body = Vec::new();
    while from < runs.len() {
        let (mut to, mut count) = (from, 0);
        while to < runs.len() && count < STRETCH && runs[to].series.meter() == runs[from].series.meter() {
            count += runs[to].count;
            to += 1;
        }
        let widths = match noise.get(from) {
            Some(true) => Widths::Whole,
            _ => widths_of(&numbers[at..at + count.min(TRIED)], &mut body),
        };
        match found.last_mut() {
            Some((of_before, before)) if *before == widths => *of_before += count,
            _ => found.push((count, widths)),
        }
        (at, from) = (at + count, to);
    }
    found
}

fn widths_of(numbers: &[i64], body: &mut Vec<u8>) -> Widths {
    let wide = numbers.windows(2).filter(is_wide).count();
    if numbers.len() < TRIED_MIN || wide * WIDE_SHARE < numbers.len() {
        return Widths::Whole;
    }
    // What a code for all bytes makes of them, and how many bits they are.
    let mut bits_with = |widths| {
        body.clear();
        packing::put_deltas_in([(numbers.len(), widths)], numbers, body);
        (bits(body.iter().copied()), body.len() as f64 * 8.0)
    };
    let ((whole, _), (exact, exact_plain)) = (bits_with(Widths::Whole), bits_with(Widths::Exact));
    let is_random = exact >= exact_plain * RANDOM_SHARE;
    if is_random && exact < whole - whole / GAIN_SHARE { Widths::Exact } else { Widths::Whole }
}

#[cfg(test)]
mod tests {
    use orzo_model::SeriesId;

    use super::*;

    fn counter(count: usize, rate: u64) -> Vec<i64> {
        let (mut state, mut sum) = (rate, 1_000_000_000i64);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % rate
        };
        (0..count)
            .map(|_| {
                sum += next() as i64;
                sum
            })
            .collect()
    }

    #[test]
    fn random_steps_are_told_from_steps_that_come_again() {
        let polled: Vec<i64> = counter(2000, 5).into_iter().map(|count| count * 65_536).collect();
        let mut body = Vec::new();
        for rate in [700, 5000, 1 << 20] {
            assert_eq!(widths_of(&counter(1000, rate), &mut body), Widths::Exact, "{rate}");
        }
        assert_eq!(widths_of(&counter(1000, 200), &mut body), Widths::Whole, "one byte");
        assert_eq!(widths_of(&polled[..1000], &mut body), Widths::Whole, "few steps");
        assert_eq!(widths_of(&vec![7; 1000], &mut body), Widths::Whole, "none");
    }

    #[test]
    fn each_series_has_its_own_and_short_ones_of_a_meter_go_together() {
        let meter = |number: u64| number << 40;
        let of = |series, numbers: &Vec<i64>| Numbers {
            series: SeriesId(series),
            rows: numbers.len(),
            count: numbers.len(),
        };
        let (wide, narrow, short) = (counter(1500, 5000), counter(1500, 50), counter(200, 5000));
        let runs = [
            of(meter(1), &wide),
            of(meter(1) + 1, &narrow),
            of(meter(2), &short),
            of(meter(2) + 1, &short),
            of(meter(3), &narrow),
            Numbers { series: SeriesId(meter(4)), rows: 90, count: 0 },
        ];
        let numbers = [wide, narrow.clone(), short.clone(), short, narrow].concat();
        let expected = [(1500, Widths::Exact), (1500, Widths::Whole), (400, Widths::Exact), (1500, Widths::Whole)];
        assert_eq!(find(&runs, &[false; 6], &numbers), expected);
        assert_eq!(find(&runs, &[true; 6], &numbers), [(4900, Widths::Whole)]);
    }
}
