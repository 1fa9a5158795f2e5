//! What a histogram says of its values: quantiles, fractions, deviation. As Prometheus 3.5 interpolates: exponentially within
//! a bucket, linearly within custom buckets and the one around zero.

use super::{Bucket, Histogram};
use crate::range::Compensated;

/// A bucket around zero of a histogram that has values on one side only reaches from zero.
fn one_sided(mut bucket: Bucket, histogram: &Histogram) -> Bucket {
    match (histogram.negative.is_empty(), histogram.positive.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
    bucket
}

/// `histogram_quantile`
pub(crate) fn quantile(q: f64, histogram: &Histogram) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    let buckets = histogram.buckets();
    // Values that are NaN are in no bucket, so that counting from above would miss them.
    let from_below = histogram.sum.is_nan() || q < 0.5;
    let mut rank = if from_below { q * histogram.count } else { (1.0 - q) * histogram.count };
    let (mut count, mut last) = (0.0, None);
    let mut ordered: Box<dyn Iterator<Item = &Bucket>> =
        if from_below { Box::new(buckets.iter()) } else { Box::new(buckets.iter().rev()) };
    for bucket in ordered.by_ref().filter(|bucket| bucket.count != 0.0) {
        count += bucket.count;
        last = Some(*bucket);
        if count >= rank {
            break;
        }
    }
    // Without any bucket it is as if there was an empty one at zero.
    let nothing = Bucket { lower: 0.0, upper: 0.0, count: 0.0, is_zero: false, is_custom: false };
    let mut bucket = last.unwrap_or(nothing);
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        bucket = one_sided(bucket, histogram);
    }
    count = count.min(histogram.count);
    if count < rank {
        return bucket.upper;
    }
    rank = if from_below { rank - (count - bucket.count) } else { count - rank };
    let share = rank / bucket.count;
    if histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    match bucket.lower > 0.0 {
        true => (lower + (upper - lower) * share).exp2(),
        false => -(upper + (lower - upper) * (1.0 - share)).exp2(),
    }
}

/// `histogram_fraction`
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, histogram) - rank_of(lower, histogram)) / histogram.count
}

/// How many values are below one.
fn rank_of(value: f64, histogram: &Histogram) -> f64 {
    let mut rank = 0.0_f64;
    for mut bucket in histogram.buckets() {
        let around_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        // Also of custom buckets, as with Prometheus: the one that reaches over zero begins there.
        if around_zero {
            bucket = one_sided(bucket, histogram);
        }
        if bucket.lower >= value {
            return rank.min(histogram.count);
        }
        if bucket.upper > value {
            let share = match histogram.is_custom() || around_zero {
                true => linear_share(value, &bucket),
                false => {
                    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
                    let at = value.abs().log2();
                    if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
                }
            };
            let rank = rank + bucket.count * share;
            return if rank > histogram.count { histogram.count } else { rank };
        }
        rank += bucket.count;
    }
    histogram.count
}

fn linear_share(value: f64, bucket: &Bucket) -> f64 {
    (value - bucket.lower) / (bucket.upper - bucket.lower)
}

/// `histogram_stdvar`: the variance as far as buckets tell it, each value taken for the middle of its bucket.
pub(crate) fn deviation(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut squares = Compensated::default();
    for bucket in histogram.buckets().iter().filter(|bucket| bucket.count != 0.0) {
        let middle = if histogram.is_custom() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = middle - mean;
        squares.add(bucket.count * delta * delta);
    }
    squares.value() / histogram.count
}
