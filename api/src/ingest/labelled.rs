//! From series on the wire to points of the store: known series by one look-up, new ones with their labels in order.
//!
//! Comes in: one series after the other, borrowed. Goes out: [`Labelled`], ready to be written, and what was refused,
//! with reasons. A series that is refused takes no other with it.

use std::collections::{BTreeMap, HashMap};

use orzo_labels::{KnownSeries, LabelSets, SetLimits};
use orzo_model::{Exemplar, MetricMetadata, SeriesId, Timestamp};
use orzo_promql::Histogram;
use orzo_query::{LabelledPoints, LabelledTarget};

use super::{
    EXEMPLARS_MAX, IngestError, SAMPLES_MAX,
    remote_write::{Incoming, RawExemplar, RawSample, labels_of},
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
    /// Exemplars that came.
    pub(crate) exemplars: u64,
    /// Those that are not kept, by reason; a sender is not told, as by Prometheus, since nothing is counted by them.
    pub(crate) exemplars_refused: BTreeMap<&'static str, u64>,
    /// Samples and histograms refused, by reason.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Why the first of them was, for people.
    pub(crate) first_refusal: Option<String>,
    /// Beginnings of known series, and of new ones by their set.
    pub(crate) begun: Vec<(SeriesId, i64)>,
    pub(crate) new_begun: Vec<(usize, i64)>,
    /// Where each new set stands: a body has many samples of a series, and its labels are written once.
    new_places: HashMap<Box<[u8]>, usize>,
    /// The same as `new_places`, of histograms.
    new_native: HashMap<Box<[u8]>, usize>,
}

impl Labelled {
    /// Takes one series; gives where its points go, if there are any that are taken.
    pub(crate) fn take(
        &mut self,
        mut incoming: Incoming<'_>,
        known: &KnownSeries<'_>,
        native: &KnownSeries<'_>,
        limits: &SetLimits,
        beginnings: &Beginnings,
    ) -> Result<Option<LabelledTarget>, IngestError> {
        if let (Some(series), true) = (incoming.series, incoming.is_plain()) {
            let target = LabelledTarget::Known(series);
            self.samples += incoming.samples.len() as u64;
            self.push_all(target, incoming.samples);
            return Ok(Some(target));
        }
        self.exemplars += incoming.exemplars.len() as u64 + incoming.exemplars_beyond;
        self.leave_out_exemplars("too many exemplars", incoming.exemplars_beyond);
        if let Some((name, about)) = incoming.metadata.take() {
            self.describe(name, about);
        }
        self.samples += incoming.samples.len() as u64;
        if !incoming.histograms.is_empty() {
            self.take_histograms(&incoming, native, limits)?;
        }
        if incoming.samples.is_empty() && incoming.exemplars.is_empty() {
            return Ok(None);
        }
        let by_bytes = incoming.series.or_else(|| known.look_up(incoming.labels)).map(LabelledTarget::Known);
        let target = match by_bytes.or_else(|| self.met(incoming.labels).filter(|_| !incoming.samples.is_empty())) {
            Some(target) => target,
            None => {
                let mut labels = labels_of(incoming.labels)?;
                if incoming.samples.is_empty() {
                    self.attach_to_found(&mut labels, &incoming, known, native, limits);
                    return Ok(None);
                }
                match self.place(&mut labels, known, limits) {
                    Ok(target) => target,
                    Err(refusal) => {
                        self.leave_out_exemplars("no such series", incoming.exemplars.len() as u64);
                        self.refuse(refusal.reason(), incoming.samples.len() as u64, || refusal.to_string());
                        return Ok(None);
                    }
                }
            }
        };
        self.begin(target, &incoming, beginnings);
        self.push_all(target, incoming.samples);
        for raw in incoming.exemplars {
            self.attach(Some(target), exemplar_of(raw), false);
        }
        Ok(Some(target))
    }

    /// The target of a new set that stood in this body before, in the bytes that it is kept in: a body may have many
    /// samples of a series, and its labels are read once.
    fn met(&self, labels: &[u8]) -> Option<LabelledTarget> {
        self.new_places.get(labels).map(|place| LabelledTarget::New(*place))
    }

    /// Exemplars that came alone make no series: they belong to one of numbers or of histograms that there is.
    fn attach_to_found(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        incoming: &Incoming<'_>,
        known: &KnownSeries<'_>,
        native: &KnownSeries<'_>,
        limits: &SetLimits,
    ) {
        let numbers = found_in(&self.new_places, labels, known, limits);
        let (target, is_native) = match numbers {
            Some(target) => (Some(target), false),
            None => (found_in(&self.new_native, labels, native, limits), true),
        };
        for raw in incoming.exemplars {
            self.attach(target, exemplar_of(raw), is_native);
        }
    }

    fn take_histograms(
        &mut self,
        incoming: &Incoming<'_>,
        native: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Result<(), IngestError> {
        let mut labels = labels_of(incoming.labels)?;
        for raw in incoming.histograms {
            let at = at_millis(raw.at_ms).map(|at| at.micros());
            self.take_histogram(&mut labels, at, raw.histogram.clone(), native, limits)?;
        }
        Ok(())
    }

    /// Takes a native histogram; labels as of any series, the time in microseconds and a whole millisecond.
    pub(crate) fn take_histogram(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        at_micros: Option<i64>,
        histogram: Result<Histogram, &'static str>,
        native: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Result<Option<LabelledTarget>, IngestError> {
        let words = histogram.and_then(|one| orzo_query::words(&one).ok_or("a histogram has too many buckets"));
        let taken = match (words, at_micros) {
            (Err(reason), _) => Err(("native histogram", reason.to_owned())),
            (_, None) => Err(("time out of range", "a histogram's time is out of range".to_owned())),
            (Ok(words), Some(at)) => {
                let place = place_in(&mut self.points.native.new, &mut self.new_native, labels, native, limits);
                place.map(|target| (target, at, words)).map_err(|refusal| (refusal.reason(), refusal.to_string()))
            }
        };
        match taken {
            Ok((target, at, words)) => {
                self.points.native.push(target, Timestamp::from_micros(at), &words);
                // Each word is a point of the log's one record.
                if self.points.native.words() + self.samples > SAMPLES_MAX as u64 {
                    return Err(IngestError::TooManySamples);
                }
                Ok(Some(target))
            }
            Err((reason, text)) => {
                self.samples += 1;
                self.refuse(reason, 1, || text);
                Ok(None)
            }
        }
    }

    /// Takes an exemplar of a series, or says why not: `None` is a time that is none, `Some(None)` labels too long.
    /// `is_native` says that the target is one of the series of histograms.
    pub(crate) fn attach(
        &mut self,
        target: Option<LabelledTarget>,
        exemplar: Option<Option<Exemplar>>,
        is_native: bool,
    ) {
        let list = if is_native { &mut self.points.native.exemplars } else { &mut self.points.exemplars };
        match (target, exemplar) {
            (None, _) => self.leave_out_exemplars("no such series", 1),
            (_, None) => self.leave_out_exemplars("exemplar without a time", 1),
            (_, Some(None)) => self.leave_out_exemplars("exemplar too long", 1),
            (Some(_), _) if list.len() >= EXEMPLARS_MAX => {
                self.leave_out_exemplars("too many exemplars", 1);
            }
            (Some(target), Some(Some(exemplar))) => list.push((target, exemplar)),
        }
    }

    fn leave_out_exemplars(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.exemplars_refused.entry(reason).or_default() += count;
        }
    }

    /// Takes what a series' or a family's name means.
    pub(crate) fn describe(&mut self, name: &str, about: MetricMetadata) {
        let family = about.family(name);
        // Each series of a family says the same.
        if self.points.metadata.get(family) != Some(&about) && !family.is_empty() {
            self.points.metadata.insert(family.to_owned(), about);
        }
    }

    /// Takes one point of a series whose labels are text already.
    pub(crate) fn take_point(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        at_micros: Option<i64>,
        value: f64,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Option<LabelledTarget> {
        let (target, at) = self.target_of(labels, at_micros, known, limits)?;
        self.push(target, at, value);
        Some(target)
    }

    /// Takes what was added to a series since its last point.
    pub(crate) fn take_delta(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        at_micros: Option<i64>,
        value: f64,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Option<LabelledTarget> {
        let (target, at) = self.target_of(labels, at_micros, known, limits)?;
        self.points.deltas.push((target, at, value));
        Some(target)
    }

    fn target_of(
        &mut self,
        labels: &mut Vec<(&str, &str)>,
        at_micros: Option<i64>,
        known: &KnownSeries<'_>,
        limits: &SetLimits,
    ) -> Option<(LabelledTarget, Timestamp)> {
        self.samples += 1;
        let at = at_micros.filter(|at| (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).contains(at));
        let Some(at) = at else {
            self.refuse("time out of range", 1, || "a line's time is out of range".to_owned());
            return None;
        };
        match self.place(labels, known, limits) {
            Ok(target) => Some((target, Timestamp::from_micros(at))),
            Err(refusal) => {
                self.refuse(refusal.reason(), 1, || refusal.to_string());
                None
            }
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
    ) -> Result<LabelledTarget, orzo_labels::Refusal> {
        place_in(&mut self.points.new, &mut self.new_places, labels, known, limits)
    }

    #[inline]
    fn push_all(&mut self, target: LabelledTarget, samples: &[RawSample]) {
        for sample in samples {
            match at_millis(sample.at_ms) {
                Some(at) => self.push(target, at, sample.value),
                None => self.refuse("time out of range", 1, || format!("{} ms is not a time", sample.at_ms)),
            }
        }
    }

    fn push(&mut self, target: LabelledTarget, timestamp: Timestamp, value: f64) {
        self.points.push(target, timestamp, value);
    }

    /// A counter that says when it began was 0 then.
    fn begin(&mut self, target: LabelledTarget, incoming: &Incoming<'_>, beginnings: &Beginnings) {
        let Some(created_ms) = incoming.created_ms else { return };
        let is_before = incoming.samples.iter().all(|sample| created_ms < sample.at_ms);
        let Some(at) = at_millis(created_ms).filter(|_| is_before) else { return };
        match target {
            LabelledTarget::Known(series) if beginnings.knows(series, created_ms) => return,
            LabelledTarget::Known(series) => self.begun.push((series, created_ms)),
            LabelledTarget::New(place) => self.new_begun.push((place, created_ms)),
        }
        self.zeros += 1;
        self.push(target, at, 0.0);
    }
}

/// Finds a set by its labels, whatever their order, or puts it among new ones.
fn place_in(
    new: &mut LabelSets,
    places: &mut HashMap<Box<[u8]>, usize>,
    labels: &mut Vec<(&str, &str)>,
    known: &KnownSeries<'_>,
    limits: &SetLimits,
) -> Result<LabelledTarget, orzo_labels::Refusal> {
    new.push(labels, limits)?;
    let place = new.len() - 1;
    let target = match known.look_up(new.get(place)) {
        Some(series) => LabelledTarget::Known(series),
        None => match places.get(new.get(place)) {
            Some(earlier) => LabelledTarget::New(*earlier),
            None => {
                places.insert(new.get(place).into(), place);
                return Ok(LabelledTarget::New(place));
            }
        },
    };
    new.pop();
    Ok(target)
}

/// Where a set stands already, if it does.
fn found_in(
    places: &HashMap<Box<[u8]>, usize>,
    labels: &mut Vec<(&str, &str)>,
    known: &KnownSeries<'_>,
    limits: &SetLimits,
) -> Option<LabelledTarget> {
    let mut set = LabelSets::default();
    set.push(labels, limits).ok()?;
    let own = known.look_up(set.get(0)).map(LabelledTarget::Known);
    own.or_else(|| places.get(set.get(0)).map(|place| LabelledTarget::New(*place)))
}

/// An exemplar as it is kept; see [`Labelled::attach`].
fn exemplar_of(raw: &RawExemplar) -> Option<Option<Exemplar>> {
    at_millis(raw.at_ms).map(|at| Exemplar::new(raw.labels.clone(), raw.value, at))
}

/// A time of the wire; `None` if no store can hold it.
fn at_millis(at_ms: i64) -> Option<Timestamp> {
    let micros = at_ms.checked_mul(1000)?;
    let is_time = (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).contains(&micros);
    is_time.then(|| Timestamp::from_micros(micros))
}
