//! What is said about series besides their points: what a metric's name means, and single observations behind a value.
//!
//! Both are Prometheus' words. They explain and never count: no answer of a query depends on them.

use crate::Timestamp;

/// Characters of all names and values of an exemplar's labels together (OpenMetrics 1.0; Prometheus refuses more).
pub const EXEMPLAR_CHARS_MAX: usize = 128;
/// Characters of a help or unit that are kept; what is longer is cut, since it is read by people only.
pub const ABOUT_CHARS_MAX: usize = 1_024;

/// One observation behind a value: often a trace's id.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Names and values, by name.
    pub labels: Vec<(String, String)>,
    /// What was observed.
    pub value: f64,
    /// When.
    pub at: Timestamp,
}

impl Exemplar {
    /// From labels in any order; `None` if they are longer than an exemplar's may be.
    pub fn new(mut labels: Vec<(String, String)>, value: f64, at: Timestamp) -> Option<Self> {
        let chars: usize = labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        labels.sort_unstable();
        labels.dedup_by(|a, b| a.0 == b.0);
        (chars <= EXEMPLAR_CHARS_MAX).then_some(Self { labels, value, at })
    }
}

/// What a metric's name means.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricMetadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

/// Kinds of metrics, in the order of their numbers in remote write.
const KINDS: [&str; 8] = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

impl MetricMetadata {
    /// From its parts, texts cut where they are too long. A kind that nobody knows is `unknown`.
    pub fn new(kind: &str, help: &str, unit: &str) -> Self {
        let cut = |text: &str| text.chars().filter(|c| *c != '\0').take(ABOUT_CHARS_MAX).collect();
        let kind = KINDS.iter().find(|known| **known == kind).unwrap_or(&KINDS[0]);
        Self { kind: (*kind).to_owned(), help: cut(help), unit: cut(unit) }
    }

    /// The kind of a number in remote write.
    pub fn kind_of(number: u64) -> &'static str {
        usize::try_from(number).ok().and_then(|at| KINDS.get(at)).unwrap_or(&KINDS[0])
    }

    /// The name of the metric that a series of this kind belongs to: a histogram's buckets, count and sum are parts of it.
    pub fn family<'a>(&self, series: &'a str) -> &'a str {
        let parts: &[&str] = match self.kind.as_str() {
            "histogram" => &["_bucket", "_count", "_sum"],
            "gaugehistogram" => &["_bucket", "_gcount", "_gsum"],
            "summary" => &["_count", "_sum"],
            _ => &[],
        };
        parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_are_bounded_by_their_characters_and_texts_are_cut() {
        let labels = |length: usize| vec![("t".to_owned(), "é".repeat(length))];
        assert!(Exemplar::new(labels(127), 1.0, Timestamp::EPOCH).is_some());
        assert!(Exemplar::new(labels(128), 1.0, Timestamp::EPOCH).is_none());
        let about = MetricMetadata::new("counter", &"é".repeat(ABOUT_CHARS_MAX + 1), "a\0b");
        assert_eq!((about.help.chars().count(), about.unit.as_str()), (ABOUT_CHARS_MAX, "ab"));
        assert_eq!(MetricMetadata::new("thing", "", "").kind, "unknown");
        assert_eq!((MetricMetadata::kind_of(3), MetricMetadata::kind_of(99)), ("histogram", "unknown"));
        let family = |kind: &str, name| MetricMetadata::new(kind, "", "").family(name);
        assert_eq!(family("histogram", "took_bucket"), "took");
        assert_eq!(family("summary", "took_bucket"), "took_bucket");
        assert_eq!(family("counter", "hits_count"), "hits_count");
    }
}
