//! A histogram's buckets with their bounds, and coarser schemas.

use std::sync::LazyLock;

use super::Histogram;

/// A bucket: its bounds, and how much is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: f64,
    /// Whether it is the one around zero, which holds both its bounds.
    pub(crate) is_zero: bool,
    /// Whether it ends at a bound of its own, which it holds.
    pub(crate) is_custom: bool,
}

impl Bucket {
    /// Which of its bounds are in it, as Prometheus numbers it: 0 the upper, 1 the lower, 2 none, 3 both.
    pub(crate) fn inclusion(&self) -> u8 {
        if self.is_custom {
            return if self.lower == f64::NEG_INFINITY { 3 } else { 0 };
        }
        match (self.is_zero || self.lower < 0.0, self.is_zero || self.upper > 0.0) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }
}

/// The upper bound of bucket `number` of an exponential schema.
pub(crate) fn bound(number: i32, schema: i32) -> f64 {
    if schema < 0 {
        // 2 to the power of so many: beyond the largest number its bucket ends at that.
        let exponent = i64::from(number) << -schema;
        return power_of_two(1.0, exponent);
    }
    let parts = 1_i64 << schema;
    let (whole, part) = (i64::from(number).div_euclid(parts), i64::from(number).rem_euclid(parts));
    power_of_two(FACTORS[(part << (FINEST - schema)) as usize], whole)
}

/// The finest schema.
const FINEST: i32 = 8;

/// 2 to the power of 0/256, 1/256 … 255/256, each the nearest double: bounds are shown, and must be the same everywhere.
static FACTORS: LazyLock<[f64; 256]> = LazyLock::new(|| {
    // Roots of two, as sums of two doubles.
    let mut roots = [(2.0_f64, 0.0_f64); 9];
    for at in 1..roots.len() {
        let (high, low) = roots[at - 1];
        let root = high.sqrt();
        let rest = (root.mul_add(-root, high) + low) / (2.0 * root);
        roots[at] = (root, rest);
    }
    std::array::from_fn(|number| {
        let product = |(high, low): (f64, f64), (its_high, its_low): (f64, f64)| {
            let whole = high * its_high;
            let rest = high.mul_add(its_high, -whole) + high * its_low + low * its_high;
            let sum = whole + rest;
            (sum, rest - (sum - whole))
        };
        // The bits of the number say which roots are in it.
        let parts = (1..roots.len()).filter(|at| number >> (8 - at) & 1 == 1).map(|at| roots[at]);
        let (high, low) = parts.fold((1.0, 0.0), product);
        high + low
    })
});

/// `factor` times 2 to the power of `exponent`; the last bucket below infinity ends at the largest number.
fn power_of_two(factor: f64, exponent: i64) -> f64 {
    if exponent == 1024 && factor == 1.0 {
        return f64::MAX;
    }
    let exponent = exponent.clamp(-2200, 2200) as i32;
    // In two steps, since half of the way may be out of range.
    factor * 2_f64.powi(exponent / 2) * 2_f64.powi(exponent - exponent / 2)
}

impl Histogram {
    /// The bounds of a bucket above zero.
    fn bounds_of(&self, number: i32) -> (f64, f64) {
        if !self.is_custom() {
            return (bound(number - 1, self.schema), bound(number, self.schema));
        }
        let of = |number: i32| usize::try_from(number).ok().and_then(|at| self.bounds.get(at)).copied();
        let lower = if number <= 0 { f64::NEG_INFINITY } else { of(number - 1).unwrap_or(f64::INFINITY) };
        (lower, of(number).unwrap_or(f64::INFINITY))
    }

    /// Buckets above zero, from zero on.
    pub(super) fn above(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        self.positive.iter().map(|(number, count)| {
            let (lower, upper) = self.bounds_of(*number);
            Bucket { lower, upper, count: *count, is_zero: false, is_custom: self.is_custom() }
        })
    }

    /// Buckets below zero, away from zero.
    pub(super) fn below(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        self.negative.iter().map(|(number, count)| {
            let (lower, upper) = self.bounds_of(*number);
            Bucket { lower: -upper, upper: -lower, count: *count, is_zero: false, is_custom: false }
        })
    }

    pub(super) fn zero_bucket(&self) -> Bucket {
        let (threshold, count) = (self.zero_threshold, self.zero_count);
        Bucket { lower: -threshold, upper: threshold, count, is_zero: true, is_custom: false }
    }

    /// All buckets, from the least values to the greatest. What is nearer to zero than the threshold is the zero bucket's.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let threshold = self.zero_threshold;
        let mut all: Vec<Bucket> = self.below().rev().collect();
        if self.zero_count > 0.0 && !self.is_custom() {
            all.push(self.zero_bucket());
        }
        all.extend(self.above());
        if !self.is_custom() {
            for bucket in all.iter_mut().filter(|bucket| !bucket.is_zero) {
                if bucket.upper < 0.0 && bucket.upper > -threshold {
                    bucket.upper = -threshold;
                } else if bucket.lower > 0.0 && bucket.lower < threshold {
                    bucket.lower = threshold;
                }
            }
        }
        all
    }

    /// With the buckets of a coarser schema.
    pub(super) fn coarser(mut self, schema: i32) -> Self {
        if self.is_custom() || schema >= self.schema {
            return self;
        }
        let by = (self.schema - schema) as u32;
        for side in [&mut self.positive, &mut self.negative] {
            let mut merged: Vec<(i32, f64)> = Vec::with_capacity(side.len());
            for (number, count) in side.iter() {
                // A bucket ends where the coarser one ends that holds it.
                let number = ((number - 1) >> by) + 1;
                match merged.last_mut() {
                    Some(last) if last.0 == number => last.1 += count,
                    _ => merged.push((number, *count)),
                }
            }
            *side = merged;
        }
        self.schema = schema;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_and_the_last_is_the_largest_number() {
        assert_eq!((bound(0, 0), bound(3, 0), bound(-1, 0)), (1.0, 8.0, 0.5));
        assert_eq!((bound(1, -1), bound(-2, -2)), (4.0, 2_f64.powi(-8)));
        assert!((bound(1, 3) - 2_f64.powf(0.125)).abs() < 1e-15);
        assert_eq!((bound(8, 3), bound(-8, 3)), (2.0, 0.5));
        assert_eq!((bound(1024, 0), bound(1025, 0), bound(8192, 3)), (f64::MAX, f64::INFINITY, f64::MAX));
        assert_eq!((bound(64, -4), bound(-1074, 0)), (f64::MAX, 5e-324));
    }

    #[test]
    fn buckets_are_merged_into_coarser_ones() {
        let fine = Histogram {
            schema: 1,
            positive: vec![(-1, 1.0), (0, 2.0), (1, 4.0), (2, 8.0), (3, 16.0)],
            ..Default::default()
        };
        assert_eq!(fine.coarser(0).positive, [(0, 3.0), (1, 12.0), (2, 16.0)]);
    }
}
