//! Values over a grid of times: what nodes hand to each other.

use crate::Labels;

/// The bits of Prometheus' stale marker. It never is the result of anything, so it also marks "no value" in a column.
pub(crate) const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// No value at this time.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_BITS);

/// Whether there is a value.
pub(crate) fn is_present(value: f64) -> bool {
    value.to_bits() != STALE_BITS
}

/// A value, or none, at each time of a grid.
#[derive(Clone, Debug, Default)]
pub struct Column(pub(crate) Vec<f64>);

impl Column {
    /// Nothing at `count` times.
    pub(crate) fn absent(count: usize) -> Self {
        Self(vec![ABSENT; count])
    }

    /// The value at one time.
    pub fn get(&self, at: usize) -> Option<f64> {
        self.0.get(at).copied().filter(|value| is_present(*value))
    }

    /// The times' numbers and values, where there are any.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        self.0.iter().copied().enumerate().filter(|(_, value)| is_present(*value))
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        !self.0.iter().any(|value| is_present(*value))
    }
}

/// A series of a result.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its values.
    pub column: Column,
}

/// What a node gives.
#[derive(Clone, Debug)]
pub enum Value {
    /// One number at each time.
    Scalar(Vec<f64>),
    /// Series; those without any value are left out.
    Vector(Vec<Series>),
    /// A text.
    Text(String),
    /// The points of an instant query for a range: labels, times in milliseconds, values.
    Matrix(Vec<(Labels, Vec<i64>, Vec<f64>)>),
}
