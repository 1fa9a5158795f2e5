//! Histograms as texts and as rows of an answer.

use std::fmt::Write;

use super::Histogram;
use crate::notes::short;

/// A bucket as an answer lists it: which of its bounds are in it (0 the upper, 1 the lower, 2 none, 3 both), lower and upper
/// bound, count.
pub type Listed = (u8, f64, f64, f64);

impl Histogram {
    /// Buckets that are not empty, from the least values to the greatest.
    pub fn listed(&self) -> Vec<Listed> {
        let filled = self.buckets().into_iter().filter(|bucket| bucket.count != 0.0);
        filled.map(|bucket| (bucket.inclusion(), bucket.lower, bucket.upper, bucket.count)).collect()
    }

    /// As `count_values` names it.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{{count:{}, sum:{}", short(self.count), short(self.sum));
        // Buckets as they are, also where the zero bucket reaches into them.
        let zero = self.zero_bucket();
        for bucket in self.below().rev().chain([zero]).chain(self.above()).filter(|bucket| bucket.count != 0.0) {
            let open = if matches!(bucket.inclusion(), 1 | 3) { '[' } else { '(' };
            let close = if matches!(bucket.inclusion(), 0 | 3) { ']' } else { ')' };
            let (lower, upper, count) = (short(bucket.lower), short(bucket.upper), short(bucket.count));
            let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
        }
        out.push('}');
        out
    }
}
