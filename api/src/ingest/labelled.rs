//! From series on the wire to points of the store: known series by one look-up, new ones with their labels in order.
//!
//! Comes in: one series after the other, borrowed. Goes out: [`Labelled`], ready to be written, and what was refused,
//! with reasons. A series that is refused takes no other with it.

use std::collections::{BTreeMap, HashMap};

use orzo_labels::{KnownSeries, LabelSets, SetLimits};
use orzo_model::{Point, SeriesId, Timestamp};
use orzo_query::LabelledPoints;

use super::{
    IngestError,
    remote_write::{Incoming, labels_of},
};

/// Series whose beginnings are remembered, so that a counter's zero is written once and not with every sample.
const BEGINNINGS_MAX: usize = 1_000_000;

/// When counters began, as their senders last said.
#[derive(Default)]
pub(crate) struct Beginnings(HashMap<SeriesId, i64>);

impl Beginnings {
    /// Whether this beginning is already in the store.
    fn knows(&self, series: SeriesId, created_ms: i64) -> bool {
        self.0.get(&series) == Some(&created_ms)
    }

    /// It is in the store now.
    pub(crate) fn learn(&mut self, begun: impl Iterator<Item = (SeriesId, i64)>) {
        for (series, created_ms) in begun {
            // Forgetting costs a few repeated zeros, which change nothing.
            if self.0.len() >= BEGINNINGS_MAX {
                self.0.clear();
            }
            self.0.insert(series, created_ms);
        }
    }
}

/// What a request brings.
#[derive(Default)]
pub(crate) struct Labelled {
    pub(crate) points: LabelledPoints,
    /// Samples that came.
    pub(crate) samples: u64,
    /// Points that a counter's beginning made, which no sender counts.
    pub(crate) zeros: u64,
    pub(crate) exemplars: u64,
    /// Samples and histograms refused, by reason.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Why the first of them was, for people.
    pub(crate) first_refusal: Option<String>,
    /// Beginnings of known series, and of new ones by their set.
    pub(crate) begun: Vec<(SeriesId, i64)>,
    pub(crate) new_begun: Vec<(usize, i64)>,
}

/// Where the points of a series go.
#[derive(Clone, Copy)]
enum Target {
    Known(SeriesId),
    New(usize),
}

impl Labelled {
    /// Takes one series.
    pub(crate) fn take(
        &mut self,
        incoming: Incoming<'_>,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
        beginnings: &Beginnings,
    ) -> Result<(), IngestError> {
        self.exemplars += incoming.exemplars;
        if incoming.histograms > 0 {
            self.refuse("native histogram", incoming.histograms, || "native histograms are not kept".to_owned());
        }
        self.samples += incoming.samples.len() as u64 + incoming.histograms;
        if incoming.samples.is_empty() {
            return Ok(());
        }
        let target = match known.look_up(incoming.labels) {
            Some(series) => Target::Known(series),
            None => {
                let mut labels = labels_of(incoming.labels)?;
                match self.place(&mut labels, known, limits) {
                    Ok(target) => target,
                    Err(refusal) => {
                        self.refuse(refusal.reason(), incoming.samples.len() as u64, || refusal.to_string());
                        return Ok(());
                    }
                }
            }
        };
        self.begin(target, &incoming, beginnings);
        for sample in incoming.samples {
            match at_millis(sample.at_ms) {
                Some(at) => self.push(target, at, sample.value),
                None => self.refuse("time out of range", 1, || format!("{} ms is not a time", sample.at_ms)),
            }
        }
        Ok(())
    }

    /// Takes one point of a series whose labels are text already.
    pub(crate) fn take_point(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        at_micros: Option<i64>,
        value: f64,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
    ) {
        self.samples += 1;
        let at = at_micros.filter(|at| (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).contains(at));
        let Some(at) = at else {
            return self.refuse("time out of range", 1, || "a line's time is out of range".to_owned());
        };
        match self.place(labels, known, limits) {
            Ok(target) => self.push(target, Timestamp::from_micros(at), value),
            Err(refusal) => self.refuse(refusal.reason(), 1, || refusal.to_string()),
        }
    }

    /// Something that is not taken.
    pub(crate) fn refuse(&mut self, reason: &'static str, count: u64, text: impl FnOnce() -> String) {
        *self.refused.entry(reason).or_default() += count;
        self.first_refusal.get_or_insert_with(text);
    }

    /// Finds a set by its labels, whatever their order, or puts it among the new ones.
    fn place(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Result<Target, orzo_labels::Refusal> {
        let new: &mut LabelSets = &mut self.points.new;
        new.push(labels, limits)?;
        let place = new.len() - 1;
        Ok(match known.look_up(new.get(place)) {
            Some(series) => {
                new.pop();
                Target::Known(series)
            }
            None => Target::New(place),
        })
    }

    fn push(&mut self, target: Target, timestamp: Timestamp, value: f64) {
        match target {
            Target::Known(series) => self.points.known.push(Point { series, timestamp, value }),
            Target::New(place) => self.points.new_points.push((place, timestamp, value)),
        }
    }

    /// A counter that says when it began was 0 then.
    fn begin(&mut self, target: Target, incoming: &Incoming<'_>, beginnings: &Beginnings) {
        let Some(created_ms) = incoming.created_ms else { return };
        let is_before = incoming.samples.iter().all(|sample| created_ms < sample.at_ms);
        let Some(at) = at_millis(created_ms).filter(|_| is_before) else { return };
        match target {
            Target::Known(series) if beginnings.knows(series, created_ms) => return,
            Target::Known(series) => self.begun.push((series, created_ms)),
            Target::New(place) => self.new_begun.push((place, created_ms)),
        }
        self.zeros += 1;
        self.push(target, at, 0.0);
    }
}

/// A time of the wire; `None` if no store can hold it.
fn at_millis(at_ms: i64) -> Option<Timestamp> {
    let micros = at_ms.checked_mul(1000)?;
    let is_time = (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).contains(&micros);
    is_time.then(|| Timestamp::from_micros(micros))
}
