//! Label sets, in the one form that is hashed, compared and kept.
//!
//! The form is that of Prometheus' `Label` messages, sorted by name: the bytes that a sender of remote write puts on the
//! wire are then usually the form already, and a known series is found by hashing them where they stand. Pure.

use serde::{Deserialize, Serialize};

/// Key bytes of a label in its list, of its name and of its value.
const LABEL_KEY: u8 = 0x0a;
const NAME_KEY: u8 = 0x0a;
const VALUE_KEY: u8 = 0x12;

/// The label that holds a series' name.
pub const METRIC_NAME: &str = "__name__";

/// How large one label set may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetLimits {
    /// Labels of one series.
    pub labels_max: usize,
    /// Bytes of a label's name.
    pub name_bytes_max: usize,
    /// Bytes of a label's value.
    pub value_bytes_max: usize,
}

impl Default for SetLimits {
    fn default() -> Self {
        Self { labels_max: 64, name_bytes_max: 1024, value_bytes_max: 4096 }
    }
}

/// Lengths are kept in 16 bits.
pub(crate) const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// Why a series is not taken. Others of the same request are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no name.
    #[error("a series has no label `__name__`")]
    NoMetricName,
    /// A label's name is empty.
    #[error("a label has an empty name")]
    EmptyName,
    /// Two labels have the same name.
    #[error("the label `{name}` stands twice in one series")]
    RepeatedName {
        /// The start of the name.
        name: String,
    },
    /// It has too many labels.
    #[error("a series has {count} labels, at most {max} are taken")]
    TooManyLabels {
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// A name or value is too long.
    #[error("the label `{name}` takes {bytes} bytes, at most {max} are taken")]
    TooLong {
        /// The start of the label's name.
        name: String,
        /// How long the name or the value is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The project has as many series as it may have.
    #[error("the project has {max} series, more are not taken")]
    TooManySeries {
        /// How many it may have.
        max: u64,
    },
    /// The project made too many series within a minute.
    #[error("the project made {max} new series within a minute; try again later")]
    TooFast {
        /// How many it may make.
        max: u64,
    },
    /// All projects together have as many series as this process can hold.
    #[error("all projects together have {max} series, more are not taken")]
    Full {
        /// How many there may be.
        max: u64,
    },
}

impl Refusal {
    /// The reason under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoMetricName | Self::EmptyName | Self::RepeatedName { .. } => "invalid labels",
            Self::TooManyLabels { .. } | Self::TooLong { .. } => "labels too large",
            Self::TooManySeries { .. } | Self::Full { .. } => "too many series",
            Self::TooFast { .. } => "too many new series",
        }
    }

    /// Whether the same series may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TooFast { .. })
    }
}

/// Label sets one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl LabelSets {
    /// Adds a set from its labels in any order. Labels with an empty value are as good as not there.
    pub fn push(&mut self, labels: &mut Vec<(&str, &str)>, limits: &SetLimits) -> Result<(), Refusal> {
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_unstable();
        check(labels, limits)?;
        for (name, value) in labels.iter() {
            write_label(&mut self.bytes, name.as_bytes(), value.as_bytes());
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Takes the last one back.
    pub fn pop(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The set at a place.
    pub fn get(&self, place: usize) -> &[u8] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[start..self.ends[place]]
    }

    /// The sets in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|place| self.get(place))
    }
}

fn check(labels: &[(&str, &str)], limits: &SetLimits) -> Result<(), Refusal> {
    if labels.len() > limits.labels_max {
        return Err(Refusal::TooManyLabels { count: labels.len(), max: limits.labels_max });
    }
    let short = |name: &str| name.chars().take(64).collect::<String>();
    for (name, value) in labels {
        let parts = [(name.len(), limits.name_bytes_max), (value.len(), limits.value_bytes_max)];
        for (bytes, max) in parts.map(|(bytes, max)| (bytes, max.min(TEXT_BYTES_MAX))) {
            if bytes > max {
                return Err(Refusal::TooLong { name: short(name), bytes, max });
            }
        }
    }
    if labels.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err(Refusal::EmptyName);
    }
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Refusal::RepeatedName { name: short(pair[0].0) });
    }
    if labels.binary_search_by_key(&METRIC_NAME, |(name, _)| name).is_err() {
        return Err(Refusal::NoMetricName);
    }
    Ok(())
}

/// Writes one label.
pub fn write_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let length = 2 + length_bytes(name.len()) + name.len() + length_bytes(value.len()) + value.len();
    out.push(LABEL_KEY);
    write_number(out, length as u64);
    out.push(NAME_KEY);
    write_number(out, name.len() as u64);
    out.extend_from_slice(name);
    out.push(VALUE_KEY);
    write_number(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn length_bytes(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

/// A number of 7 bits a byte, the low ones first.
pub(crate) fn write_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number and moves `bytes` behind it; `None` if there is none.
pub(crate) fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Reads a text with its length before it.
pub(crate) fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(text)
}

/// The labels of a set in the form that [`LabelSets::push`] writes.
pub(crate) fn labels_of(mut set: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        if set.is_empty() {
            return None;
        }
        let mut key = |key: u8| {
            let (&first, rest) = set.split_first()?;
            set = rest;
            (first == key).then_some(())
        };
        key(LABEL_KEY)?;
        read_number(&mut set)?;
        let mut part = |key: u8| {
            let (&first, rest) = set.split_first()?;
            set = rest;
            if first == key { read_text(&mut set) } else { None }
        };
        Some((part(NAME_KEY)?, part(VALUE_KEY)?))
    })
}

/// The metric's name in a set; empty if it has none.
pub(crate) fn name_of(set: &[u8]) -> &[u8] {
    labels_of(set).find(|(name, _)| *name == METRIC_NAME.as_bytes()).map_or(&[], |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(labels: &[(&str, &str)]) -> Result<LabelSets, Refusal> {
        let mut sets = LabelSets::default();
        sets.push(&mut labels.to_vec(), &SetLimits::default()).map(|()| sets)
    }

    #[test]
    fn order_and_empty_values_make_no_difference() {
        let sorted = push(&[("__name__", "up"), ("a", "1"), ("b", "2")]).expect("a set");
        assert_eq!(push(&[("b", "2"), ("empty", ""), ("__name__", "up"), ("a", "1")]), Ok(sorted.clone()));
        let labels: Vec<_> = labels_of(sorted.get(0)).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"__name__", b"up"), (b"a", b"1"), (b"b", b"2")];
        assert_eq!(labels, expected);
    }

    #[test]
    fn long_labels_keep_their_lengths() {
        let long = "x".repeat(300);
        let sets = push(&[("__name__", &long), (&long, "v")]).expect("a set");
        let labels: Vec<_> = labels_of(sets.get(0)).collect();
        assert_eq!(labels, [(b"__name__".as_slice(), long.as_bytes()), (long.as_bytes(), b"v".as_slice())]);
    }

    #[test]
    fn what_is_no_label_set_is_refused_with_its_reason() {
        let long = "x".repeat(5000);
        let names: Vec<String> = (0..65).map(|place| format!("n{place}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        for (labels, reason) in [
            (&[("a", "b")][..], "invalid labels"),
            (&[("__name__", "up"), ("a", "1"), ("a", "2")], "invalid labels"),
            (&[("__name__", "up"), ("", "1")], "invalid labels"),
            (&[("__name__", "")], "invalid labels"),
            (&[("__name__", &long)], "labels too large"),
            (&[("__name__", "up"), (&long, "v")], "labels too large"),
            (&many, "labels too large"),
        ] {
            let refusal = push(labels).expect_err("refused");
            assert_eq!(refusal.reason(), reason, "{refusal}");
            assert!(refusal.to_string().len() < 200);
        }
    }

    #[test]
    fn bytes_that_are_no_set_end_the_reading() {
        let set = push(&[("__name__", "up"), ("a", "1")]).expect("a set");
        for end in 0..set.get(0).len() {
            assert!(labels_of(&set.get(0)[..end]).count() < 2);
        }
        assert_eq!(labels_of(&[0x0a, 0xff, 0xff]).count(), 0);
    }
}
