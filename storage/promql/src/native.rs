//! Native histograms: one sample is a whole histogram, with buckets whose bounds grow by a constant factor (schemas -4 to 8)
//! or are its own (schema -53).
//!
//! Values of a column are doubles. A histogram stands in a column as a NaN with a mark and its number in the evaluation's
//! [`Natives`], so that everything that only moves values (grids, windows, matching, groups) moves histograms too; what
//! computes with values asks first. Where a query selects no histogram there are no `Natives`, and nobody asks.

use std::{cell::RefCell, sync::Arc};

use crate::notes::Notes;

mod buckets;
pub(crate) mod over_time;
mod quantile;
mod sums;
mod text;

pub(crate) use buckets::Bucket;
pub(crate) use quantile::{deviation, fraction, quantile};
pub use text::Listed;

/// Whose bounds are its own.
pub const CUSTOM_SCHEMA: i32 = -53;
/// Schemas of bounds that grow by a constant factor, 2 to the power of 2 to the power of minus the schema.
pub const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// What a histogram's source says of the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing: whoever wants to know compares.
    #[default]
    Unknown,
    /// It began anew.
    Reset,
    /// It is no counter.
    Gauge,
}

/// Counts by buckets. A bucket with number `i` of an exponential schema is above `base^(i-1)` and not above `base^i`; of a
/// custom one it is not above `bounds[i]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How fine its buckets are.
    pub schema: i32,
    /// What its source says of the one before.
    pub hint: ResetHint,
    /// Values not farther from zero than this are in the zero bucket.
    pub zero_threshold: f64,
    /// How many those are.
    pub zero_count: f64,
    /// How many values there are.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Numbers and counts of the buckets above zero, by number, none twice.
    pub positive: Vec<(i32, f64)>,
    /// Of those below zero; numbers grow away from zero.
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds of custom buckets but the last, which has none.
    pub bounds: Vec<f64>,
}

/// Why two histograms have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// One has bounds of its own and the other has not.
    Schemas,
    /// Both have, and they are not the same.
    Bounds,
}

impl Histogram {
    /// Whether its bounds are its own.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Without buckets that are empty.
    pub(crate) fn compact(mut self) -> Self {
        self.positive.retain(|(_, count)| *count != 0.0);
        self.negative.retain(|(_, count)| *count != 0.0);
        self
    }

    /// Everything times a number.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        self.each(|count| count * factor);
        self
    }

    /// Everything divided by a number; by zero no bucket is left.
    pub(crate) fn divided(mut self, divisor: f64) -> Self {
        self.each(|count| count / divisor);
        if divisor == 0.0 {
            (self.positive, self.negative) = (Vec::new(), Vec::new());
        }
        self
    }

    fn each(&mut self, change: impl Fn(f64) -> f64) {
        let buckets = self.positive.iter_mut().chain(&mut self.negative).map(|(_, count)| count);
        for count in buckets.chain([&mut self.zero_count, &mut self.count, &mut self.sum]) {
            *count = change(*count);
        }
    }

    /// Whether both count the same by the same buckets, to the bit; hints say nothing.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let zero = |one: &Self| if one.is_custom() { (0.0, 0.0) } else { (one.zero_threshold, one.zero_count) };
        let ((threshold, zeros), (other_threshold, other_zeros)) = (zero(self), zero(other));
        let same = |a: &[(i32, f64)], b: &[(i32, f64)]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && bits(a.1, b.1))
        };
        self.schema == other.schema
            && bits(self.count, other.count)
            && bits(self.sum, other.sum)
            && threshold == other_threshold
            && bits(zeros, other_zeros)
            && self.bounds == other.bounds
            && same(&self.positive, &other.positive)
            && same(&self.negative, &other.negative)
    }
}

/// The upper half of a double that stands for a histogram; no arithmetic makes such a NaN.
const MARK: u64 = 0x7ff9_0000_0000_0000;
const NUMBER: u64 = 0x0000_ffff_ffff_ffff;

/// A double that stands for histogram `number` of its series.
pub fn marked(number: usize) -> f64 {
    f64::from_bits(MARK | number as u64 & NUMBER)
}

/// The number of the histogram that a double stands for.
pub fn number_of(value: f64) -> Option<usize> {
    let bits = value.to_bits();
    (bits & !NUMBER == MARK).then_some((bits & NUMBER) as usize)
}

/// What operators and aggregations need where there are histograms.
#[derive(Clone, Copy)]
pub(crate) struct Context<'e> {
    pub(crate) natives: &'e Natives,
    pub(crate) notes: &'e Notes,
}

/// The histograms of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Natives(RefCell<Vec<Arc<Histogram>>>);

impl Natives {
    /// Takes a histogram; what stands for it.
    pub(crate) fn keep(&self, histogram: impl Into<Arc<Histogram>>) -> f64 {
        let mut all = self.0.borrow_mut();
        all.push(histogram.into());
        marked(all.len() - 1)
    }

    /// The histogram that a value stands for, if it does.
    pub(crate) fn get(&self, value: f64) -> Option<Arc<Histogram>> {
        self.0.borrow().get(number_of(value)?).cloned()
    }

    /// Whether a value stands for a histogram.
    pub(crate) fn is_one(value: f64) -> bool {
        number_of(value).is_some()
    }

    pub(crate) fn into_all(self) -> Vec<Arc<Histogram>> {
        self.0.into_inner()
    }
}
