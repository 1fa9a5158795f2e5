//! Label sets: sorted by name, without empty values, cheap to copy.

use std::{fmt, sync::Arc};

/// The label that holds a series' metric name.
pub const NAME: &str = "__name__";

/// One label: name, then value.
pub type Label = (Arc<str>, Arc<str>);

/// A set of labels. An empty value means that there is no such label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// From pairs in any order; of a repeated name the last counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut labels: Vec<Label> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.reverse();
        labels.dedup_by(|a, b| a.0 == b.0);
        labels.reverse();
        labels.retain(|(_, value)| !value.is_empty());
        Self(labels.into())
    }

    /// All labels, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter()
    }

    /// The value of a label; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name)).map_or("", |at| &self.0[at].1)
    }

    /// Without the metric's name.
    pub(crate) fn without_name(&self) -> Self {
        if self.get(NAME).is_empty() { self.clone() } else { self.filter(|name| name != NAME) }
    }

    /// Only the labels whose name passes.
    pub(crate) fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// With one label set, or removed by an empty value.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut labels: Vec<Label> = self.0.iter().filter(|(own, _)| **own != *name).cloned().collect();
        if !value.is_empty() {
            let at = labels.partition_point(|(own, _)| **own < *name);
            labels.insert(at, (name.into(), value.into()));
        }
        Self(labels.into())
    }

    /// The hash that Prometheus 3 gives them: XXH64 of all texts, each after its length.
    pub(crate) fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(128);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            match u8::try_from(text.len()) {
                Ok(length) if length < u8::MAX => bytes.push(length),
                // Longer ones have three bytes of length after a mark.
                _ => {
                    bytes.push(u8::MAX);
                    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        xxhash_rust::xxh64::xxh64(&bytes, 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get(NAME))?;
        f.write_str("{")?;
        for (at, (name, value)) in self.0.iter().filter(|(name, _)| &**name != NAME).enumerate() {
            write!(f, "{}{name}={value:?}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
