//! Label sets: sorted by name, without empty values, cheap to copy and to compare.
//!
//! A set's hash is made once, with a seed of this process that nobody outside knows, so that nobody can choose labels
//! that meet in a map. What a set is without its name is made once as well, for whoever keeps sets.

use std::{
    cmp::Ordering,
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock, OnceLock},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The label that holds a series' metric name.
pub const NAME: &str = "__name__";

/// One label: name, then value.
pub type Label = (Arc<str>, Arc<str>);

/// A set of labels. An empty value means that there is no such label.
#[derive(Clone)]
pub struct Labels(Arc<Set>);

struct Set {
    hash: u64,
    labels: Arc<[Label]>,
    /// The same without the metric's name, once somebody wanted it.
    nameless: OnceLock<Labels>,
}

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

impl Labels {
    /// From labels that are sorted by name, no name twice, no value empty.
    pub fn from_sorted(labels: Arc<[Label]>) -> Self {
        debug_assert!(labels.is_sorted_by(|a, b| a.0 < b.0) && labels.iter().all(|(_, value)| !value.is_empty()));
        let texts = labels.iter().flat_map(|(name, value)| [name, value]);
        let hash = texts.fold(*SEED, |hash, text| xxh3_64_with_seed(text.as_bytes(), hash));
        Self(Arc::new(Set { hash, labels, nameless: OnceLock::new() }))
    }

    /// From pairs in any order; of a repeated name the last counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut labels: Vec<Label> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.reverse();
        labels.dedup_by(|a, b| a.0 == b.0);
        labels.reverse();
        labels.retain(|(_, value)| !value.is_empty());
        Self::from_sorted(labels.into())
    }

    /// All labels, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.labels.iter()
    }

    /// The value of a label; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.labels.binary_search_by(|(own, _)| (**own).cmp(name)).map_or("", |at| &self.0.labels[at].1)
    }

    /// Without the metric's name.
    pub(crate) fn without_name(&self) -> Self {
        match self.get(NAME) {
            "" => self.clone(),
            _ => self.0.nameless.get_or_init(|| self.filter(|name| name != NAME)).clone(),
        }
    }

    /// Only the labels whose name passes.
    pub(crate) fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.0.labels.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Self::from_sorted(self.0.labels.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// With one label set, or removed by an empty value.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut labels: Vec<Label> = self.0.labels.iter().filter(|(own, _)| **own != *name).cloned().collect();
        if !value.is_empty() {
            let at = labels.partition_point(|(own, _)| **own < *name);
            labels.insert(at, (name.into(), value.into()));
        }
        Self::from_sorted(labels.into())
    }

    /// The hash that Prometheus 3 gives them: XXH64 of all texts, each after its length.
    pub(crate) fn prometheus_hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(128);
        for text in self.0.labels.iter().flat_map(|(name, value)| [name, value]) {
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

    /// The hash of this process: equal sets have the same, and nobody outside can choose sets that have.
    pub fn hash_here(&self) -> u64 {
        self.0.hash
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.labels.is_empty()
    }
}

impl Default for Labels {
    fn default() -> Self {
        static NONE: LazyLock<Labels> = LazyLock::new(|| Labels::from_sorted(Arc::new([])));
        NONE.clone()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.hash == other.0.hash && self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        // Series of one question share most of their texts.
        let text = |a: &Arc<str>, b: &Arc<str>| if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) };
        let both = self.0.labels.iter().zip(other.0.labels.iter());
        let first = both.map(|(a, b)| text(&a.0, &b.0).then_with(|| text(&a.1, &b.1))).find(|order| order.is_ne());
        first.unwrap_or_else(|| self.0.labels.len().cmp(&other.0.labels.len()))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get(NAME))?;
        f.write_str("{")?;
        for (at, (name, value)) in self.0.labels.iter().filter(|(name, _)| &**name != NAME).enumerate() {
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
