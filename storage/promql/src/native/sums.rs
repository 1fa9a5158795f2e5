//! Sums and differences of histograms, and whether one began anew after another.

use super::{Histogram, Mismatch, ResetHint, buckets::bound};

impl Histogram {
    /// Both together.
    pub(crate) fn plus(self, other: &Self) -> Result<Self, Mismatch> {
        self.combined(other, 1.0)
    }

    /// What is left of it without the other.
    pub(crate) fn minus(self, other: &Self) -> Result<Self, Mismatch> {
        self.combined(other, -1.0)
    }

    /// What all together add up to.
    pub(crate) fn sum<'h>(mut all: impl Iterator<Item = &'h Self>) -> Result<Option<Self>, Mismatch> {
        let Some(first) = all.next() else { return Ok(None) };
        all.try_fold(first.clone(), Self::plus).map(Some)
    }

    /// The mean of all.
    pub(crate) fn mean<'h>(mut all: impl Iterator<Item = &'h Self>) -> Result<Option<Self>, Mismatch> {
        let Some(first) = all.next() else { return Ok(None) };
        let mut counted = (2_u32..).map(f64::from).zip(all);
        counted.try_fold(first.clone(), |mean, (count, one)| mean.towards(one, count)).map(Some)
    }

    /// The mean of `count`, after one more than it is of now. It is moved as Prometheus 3.5 moves it: the same digits, and
    /// no sum on the way that is too large.
    pub(crate) fn towards(self, one: &Self, count: f64) -> Result<Self, Mismatch> {
        let step = one.clone().divided(count).minus(&self.clone().divided(count))?;
        self.plus(&step)
    }

    fn combined(mut self, other: &Self, sign: f64) -> Result<Self, Mismatch> {
        if self.is_custom() != other.is_custom() {
            return Err(Mismatch::Schemas);
        }
        if self.is_custom() && self.bounds != other.bounds {
            return Err(Mismatch::Bounds);
        }
        self.hint = match (self.hint, other.hint) {
            (own, its) if own == its => own,
            (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        };
        let mut other_zeros = 0.0;
        if !self.is_custom() {
            other_zeros = self.widen_zero_bucket(other);
        }
        self.zero_count += sign * other_zeros;
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        let schema = self.schema.min(other.schema);
        let mut whole = self.coarser(schema);
        // What lies within the zero bucket was counted there, before buckets are merged into coarser ones.
        let threshold = whole.zero_threshold;
        let is_outside = |(number, _): &(i32, f64)| other.is_custom() || bound(*number, other.schema) > threshold;
        let mut its = other.clone();
        its.positive.retain(is_outside);
        its.negative.retain(is_outside);
        let mut its = its.coarser(schema);
        for (side, its) in [(&mut whole.positive, &mut its.positive), (&mut whole.negative, &mut its.negative)] {
            its.iter_mut().for_each(|(_, count)| *count *= sign);
            *side = merged(side, its);
        }
        Ok(whole)
    }

    /// Makes the zero buckets of both equally wide; gives how much is in the other's then.
    fn widen_zero_bucket(&mut self, other: &Self) -> f64 {
        let (mut zeros, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (zeros, threshold) = other.zeros_within(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (own, wider) = self.zeros_within(threshold);
                (self.zero_count, self.zero_threshold) = (own, wider);
                let outside = |schema: i32| move |(number, _): &(i32, f64)| bound(number - 1, schema) >= wider;
                self.positive.retain(outside(self.schema));
                self.negative.retain(outside(self.schema));
            }
        }
        zeros
    }

    /// How much is in a zero bucket of at least this width, and how wide it is: no bucket with something in it is cut.
    fn zeros_within(&self, wanted: f64) -> (f64, f64) {
        let mut threshold = wanted;
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        loop {
            let (mut count, mut is_cut) = (self.zero_count, false);
            for bucket in self.above() {
                if bucket.lower >= threshold {
                    break;
                }
                count += bucket.count;
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for bucket in self.below() {
                if bucket.upper <= -threshold {
                    break;
                }
                count += bucket.count;
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        // Wider than before: buckets above zero may be in it now.
                        (threshold, is_cut) = (-bucket.lower, true);
                    }
                    break;
                }
            }
            if !is_cut {
                return (count, threshold);
            }
        }
    }

    /// Whether it began anew after the other: something that only grows is less.
    pub(crate) fn began_anew(&self, before: &Self) -> bool {
        if self.hint == ResetHint::Reset {
            return true;
        }
        if self.count < before.count || self.is_custom() != before.is_custom() {
            return true;
        }
        if self.is_custom() && self.bounds != before.bounds {
            return true;
        }
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        if !self.is_custom() {
            let (zeros, threshold) = before.zeros_within(self.zero_threshold);
            if threshold != self.zero_threshold || self.zero_count < zeros {
                return true;
            }
        }
        let threshold = self.zero_threshold;
        let before = before.clone().coarser(self.schema);
        let is_less = |own: &[(i32, f64)], its: &[(i32, f64)]| {
            its.iter().any(|(number, count)| {
                let is_outside = self.is_custom() || bound(*number, self.schema) > threshold;
                // A bucket that is gone: differences may have had less than nothing in it.
                let is_less = match own.binary_search_by_key(number, |own| own.0) {
                    Ok(at) => own[at].1 < *count,
                    Err(_) => *count != 0.0,
                };
                is_outside && is_less
            })
        };
        is_less(&self.positive, &before.positive) || is_less(&self.negative, &before.negative)
    }
}

/// Counts of both by number.
fn merged(own: &[(i32, f64)], its: &[(i32, f64)]) -> Vec<(i32, f64)> {
    let mut out = Vec::with_capacity(own.len() + its.len());
    let (mut own, mut its) = (own.iter().peekable(), its.iter().peekable());
    loop {
        match (own.peek(), its.peek()) {
            (Some(a), Some(b)) if a.0 == b.0 => {
                out.push((a.0, a.1 + b.1));
                own.next();
                its.next();
            }
            (Some(a), Some(b)) if a.0 > b.0 => {
                out.push(**b);
                its.next();
            }
            (Some(a), _) => {
                out.push(**a);
                own.next();
            }
            (None, Some(b)) => {
                out.push(**b);
                its.next();
            }
            (None, None) => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(schema: i32, zero: (f64, f64), positive: &[(i32, f64)]) -> Histogram {
        let count = zero.1 + positive.iter().map(|(_, count)| count).sum::<f64>();
        let (zero_threshold, zero_count) = zero;
        Histogram {
            schema,
            zero_threshold,
            zero_count,
            count,
            sum: 1.0,
            positive: positive.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn sums_have_the_coarser_schema_and_the_wider_zero_bucket() {
        let fine = one(1, (0.0, 1.0), &[(-3, 1.0), (1, 2.0), (2, 3.0)]);
        let coarse = one(0, (0.25, 5.0), &[(1, 10.0), (3, 1.0)]);
        let sum = fine.clone().plus(&coarse).expect("a sum");
        // Bucket -3 of schema 1 is (0.25, 0.354]: outside of the zero bucket.
        assert_eq!((sum.schema, sum.zero_threshold, sum.zero_count, sum.count), (0, 0.25, 6.0, 23.0));
        assert_eq!(sum.positive, [(-1, 1.0), (1, 15.0), (3, 1.0)]);
        // A threshold within a bucket that has something widens the zero bucket to that bucket's end.
        let within = one(0, (0.3, 0.0), &[]).plus(&fine).expect("a sum");
        assert!((within.zero_threshold - 2_f64.powf(-1.5)).abs() < 1e-12, "{within:?}");
        assert_eq!((within.zero_count, within.positive.as_slice()), (2.0, &[(1, 5.0)][..]));
        let custom = Histogram { schema: super::super::CUSTOM_SCHEMA, bounds: vec![1.0], ..Default::default() };
        assert_eq!(custom.clone().plus(&fine), Err(Mismatch::Schemas));
        let other = Histogram { bounds: vec![2.0], ..custom.clone() };
        assert_eq!(custom.plus(&other), Err(Mismatch::Bounds));
    }

    #[test]
    fn a_mean_of_what_is_almost_too_large_is_no_infinity() {
        let large = one(0, (0.0, 0.0), &[(1, 1.5e308)]);
        let mean = Histogram::mean([&large, &large, &large].into_iter()).expect("a mean").expect("of three");
        assert_eq!((mean.count, mean.positive.as_slice()), (1.5e308, &[(1, 1.5e308)][..]));
        let sum = Histogram::sum([&large, &large].into_iter()).expect("a sum").expect("of two");
        assert_eq!(sum.count, f64::INFINITY);
        assert_eq!(Histogram::mean(std::iter::empty()), Ok(None));
    }

    #[test]
    fn what_is_less_anywhere_began_anew() {
        let before = one(1, (0.0, 1.0), &[(1, 2.0), (2, 3.0)]);
        assert!(!before.began_anew(&before));
        assert!(!one(0, (0.0, 1.0), &[(1, 5.0)]).began_anew(&before), "only coarser");
        assert!(one(2, (0.0, 1.0), &[(1, 5.0)]).began_anew(&before), "finer");
        assert!(one(1, (0.0, 1.0), &[(1, 1.0), (2, 9.0)]).began_anew(&before), "a bucket is less");
        assert!(one(1, (0.0, 0.0), &[(1, 2.0), (2, 9.0)]).began_anew(&before), "fewer zeros");
        assert!(one(1, (0.0, 1.0), &[(2, 9.0)]).began_anew(&before), "a bucket is gone");
        let owed = one(1, (0.0, 1.0), &[(1, 2.0), (2, 3.0), (3, -1.0)]);
        assert!(before.began_anew(&owed), "one with less than nothing is gone");
        let told = Histogram { hint: ResetHint::Reset, ..one(1, (0.0, 9.0), &[(1, 9.0), (2, 9.0)]) };
        assert!(told.began_anew(&before));
    }
}
