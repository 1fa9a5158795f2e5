//! The doors of [`super`] between two processes: an evaluator asks the process that has the store, in JSON.
//!
//! Requests and answers only; who sends them, and who may, is others' matter. A value travels as the bits of its `f64`,
//! because JSON has no infinity.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Measure, ReadError, Scope, SeriesId, Target, Timestamp, WindowRead};

/// Questions in one request at most; whoever has more sends several.
pub const READS_MAX: usize = 4096;
/// Events in one answer at most.
pub const EVENTS_MAX: usize = 1000;

/// [`super::WindowReader::find_series`]; the answer is `Result<Vec<SeriesId>, ReadError>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesAsked {
    /// How far it may look.
    pub scope: Scope,
    /// Which series.
    pub target: Target,
}

/// [`super::WindowReader::read_windows`]; the answer is a [`WindowsRead`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsAsked {
    /// The questions.
    pub reads: Vec<Read>,
}

/// A [`WindowRead`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    series: Vec<SeriesId>,
    aggregation: String,
    reaggregation: Option<String>,
    granularity_us: u64,
    start_us: i64,
    stop_us: i64,
}

/// An answer for each question, in their order: times in microseconds and the bits of the values.
pub type WindowsRead = Vec<Result<Vec<(i64, u64)>, ReadError>>;

/// [`super::EventFeed`]; the answer is `Result<Vec<NumberedEvent>, ReadError>`, `Result<i64, ReadError>` or
/// `Result<Vec<Event>, ReadError>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EventsAsked {
    /// Events with a larger number.
    After {
        /// The number.
        number: i64,
        /// At most so many, [`EVENTS_MAX`] at most.
        limit: usize,
    },
    /// The largest number.
    Newest,
    /// A project's events of a time.
    Between {
        /// Whose.
        project_id: String,
        /// From when on.
        start: Timestamp,
        /// Until when.
        stop: Timestamp,
        /// At most so many, [`EVENTS_MAX`] at most.
        limit: usize,
    },
}

/// [`super::InstantQueries`]; the answer is `Result<Vec<u64>, ReadError>`: the bits of the values.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantAsked {
    /// How far it may look.
    pub scope: Scope,
    /// PromQL.
    pub query: String,
    /// When, in microseconds.
    pub at_us: i64,
}

impl From<&WindowRead> for Read {
    fn from(read: &WindowRead) -> Self {
        Self {
            series: read.series.to_vec(),
            aggregation: read.aggregation.clone(),
            reaggregation: read.reaggregation.clone(),
            granularity_us: u64::try_from(read.granularity.as_micros()).unwrap_or(u64::MAX),
            start_us: read.start.micros(),
            stop_us: read.stop.micros(),
        }
    }
}

impl From<Read> for WindowRead {
    fn from(read: Read) -> Self {
        Self {
            series: read.series.into(),
            aggregation: read.aggregation,
            reaggregation: read.reaggregation,
            granularity: Duration::from_micros(read.granularity_us),
            start: Timestamp::from_micros(read.start_us),
            stop: Timestamp::from_micros(read.stop_us),
        }
    }
}

/// Measures as they travel.
pub fn packed(measures: &[Measure]) -> Vec<(i64, u64)> {
    measures.iter().map(|measure| (measure.timestamp.micros(), measure.value.to_bits())).collect()
}

/// Measures as they came.
pub fn unpacked(rows: Vec<(i64, u64)>) -> Vec<Measure> {
    let measure = |(at, bits)| Measure { timestamp: Timestamp::from_micros(at), value: f64::from_bits(bits) };
    rows.into_iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_way() {
        let read = WindowRead {
            series: [SeriesId(7), SeriesId(u64::MAX)].into(),
            aggregation: "rate:mean".into(),
            reaggregation: Some("max".into()),
            granularity: Duration::from_millis(1500),
            start: Timestamp::from_micros(1),
            stop: Timestamp::MAX,
        };
        let text = serde_json::to_string(&WindowsAsked { reads: vec![Read::from(&read)] }).expect("written");
        let asked: WindowsAsked = serde_json::from_str(&text).expect("read");
        let came: Vec<WindowRead> = asked.reads.into_iter().map(WindowRead::from).collect();
        assert_eq!(format!("{came:?}"), format!("{:?}", [read]));

        let measures: Vec<Measure> = [1.5, f64::INFINITY, -0.0]
            .into_iter()
            .map(|value| Measure { timestamp: Timestamp::from_micros(-3), value })
            .collect();
        let answer: WindowsRead = vec![Ok(packed(&measures)), Err(ReadError::NotFound { what: "Metric x".into() })];
        let text = serde_json::to_string(&answer).expect("written");
        let mut came: WindowsRead = serde_json::from_str(&text).expect("read");
        assert!(matches!(came.pop(), Some(Err(ReadError::NotFound { what })) if what == "Metric x"));
        let came = unpacked(came.remove(0).expect("measures"));
        assert!(came.iter().zip(&measures).all(|(a, b)| a.value.to_bits() == b.value.to_bits()));

        let asked = SeriesAsked { scope: Scope::Project("p".into()), target: Target::Metrics(vec!["m".into()]) };
        let text = serde_json::to_string(&asked).expect("written");
        let came: SeriesAsked = serde_json::from_str(&text).expect("read");
        assert_eq!((came.scope, came.target), (asked.scope, asked.target));
        let asked = InstantAsked { scope: Scope::All, query: "up{a=\"b\"}".into(), at_us: -3 };
        let text = serde_json::to_string(&asked).expect("written");
        let came: InstantAsked = serde_json::from_str(&text).expect("read");
        assert_eq!((came.scope, came.query, came.at_us), (asked.scope, asked.query, asked.at_us));
        // A scope that is misspelt must not become a wider one.
        assert!(serde_json::from_str::<SeriesAsked>(r#"{"scope":"every","target":{"metrics":[]}}"#).is_err());
    }
}
