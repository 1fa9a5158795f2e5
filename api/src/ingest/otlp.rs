//! OpenTelemetry's metrics (OTLP 1) as series with labels, as Prometheus' own OTLP receiver writes them.
//!
//! `body → resource and metrics (protobuf or JSON) → series → Labelled`. Gauges, sums, histograms with explicit bounds and
//! summaries are taken, and exemplars and descriptions with them; deltas are added to their series' last point by the
//! engine, exponential histograms are native ones. Not taken, each with a reason: deltas of those, points without a time. Points that are refused take no others
//! with them. This file knows no transport.

use std::collections::BTreeMap;

use orzo_labels::{KnownSeries, METRIC_NAME, SetLimits};
use orzo_model::{Exemplar, MetricMetadata, Timestamp};
use orzo_query::LabelledTarget;

use self::names::{Suffix, label_name, metric_name};
use super::{
    DECODED_BYTES_MAX, IngestError, SAMPLES_MAX,
    histograms::{Exponential, stale},
    labelled::Labelled,
    remote_write::RawExemplar,
};

pub(crate) mod json;
pub(crate) mod names;
pub(crate) mod protobuf;

/// The NaN that says in Prometheus that a series has ended.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// Data point flag: nothing was recorded.
const NOTHING_RECORDED: u64 = 1;

/// Names and values, as they were sent; values that are no text are written out.
pub(crate) type Attributes = Vec<(String, String)>;

/// Whether a point says what was added since the last one, or since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Temporality {
    #[default]
    Unspecified,
    Delta,
    Cumulative,
}

impl Temporality {
    pub(crate) fn of(number: u64) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// How a number becomes a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is one.
    Gauge,
    /// It is one of a whole that grows.
    Whole,
    /// It is added to its series' last point.
    Added,
}

impl Way {
    /// `None` without a temporality.
    fn of(temporality: Temporality) -> Option<Self> {
        match temporality {
            Temporality::Unspecified => None,
            Temporality::Delta => Some(Self::Added),
            Temporality::Cumulative => Some(Self::Whole),
        }
    }
}

/// One metric with its points.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    pub(crate) data: Data,
}

/// What kind of metric it is.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Data {
    /// None that we know.
    #[default]
    Nothing,
    Gauge(Vec<Number>),
    Sum {
        points: Vec<Number>,
        temporality: Temporality,
        monotonic: bool,
    },
    Histogram {
        points: Vec<Histogram>,
        temporality: Temporality,
    },
    Exponential {
        points: Vec<ExponentialPoint>,
        temporality: Temporality,
    },
    Summary(Vec<Summary>),
}

/// What all kinds of points have.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Head {
    pub(crate) attributes: Attributes,
    pub(crate) time_ns: u64,
    pub(crate) flags: u64,
    pub(crate) exemplars: Vec<RawExemplar>,
}

/// A number at a time; one without a value is invalid, unless its flags say that nothing was recorded
/// (`NumberDataPoint` in OTLP's `metrics.proto`).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Number {
    pub(crate) head: Head,
    pub(crate) value: Option<f64>,
}

/// Counts of values up to bounds; one more count than bounds, or none of both.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) head: Head,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) bounds: Vec<f64>,
    pub(crate) counts: Vec<u64>,
}

/// A histogram whose bounds grow by a factor.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ExponentialPoint {
    pub(crate) head: Head,
    pub(crate) histogram: Exponential,
}

/// Quantiles that the sender has computed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) head: Head,
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) quantiles: Vec<(f64, f64)>,
}

/// Puts points among the series of a project.
pub(crate) struct Translator<'a> {
    known: &'a KnownSeries<'a>,
    /// Series of native histograms.
    native: &'a KnownSeries<'a>,
    limits: &'a SetLimits,
    labelled: Labelled,
    /// Points of the sender's that were refused; each may be several samples.
    rejected: u64,
    /// Bytes of all series' labels. A histogram's labels come once and are written for each bucket, so that a small body
    /// could become a large memory.
    label_bytes: usize,
    target: Target,
}

/// The resource whose metrics come.
#[derive(Default)]
struct Target {
    own: BTreeMap<String, String>,
    info: BTreeMap<String, String>,
    /// When it was last heard of.
    last_ns: u64,
}

impl<'a> Translator<'a> {
    pub(crate) fn new(known: &'a KnownSeries<'a>, native: &'a KnownSeries<'a>, limits: &'a SetLimits) -> Self {
        let (labelled, target) = (Labelled::default(), Target::default());
        Self { known, native, limits, labelled, rejected: 0, label_bytes: 0, target }
    }

    /// What was read, and how many points were refused.
    pub(crate) fn finish(mut self) -> Result<(Labelled, u64), IngestError> {
        self.tell_target()?;
        Ok((self.labelled, self.rejected))
    }

    /// The resource of the metrics that come next: `job` and `instance` name it, the rest is told by `target_info`.
    pub(crate) fn resource(&mut self, attributes: &Attributes) -> Result<(), IngestError> {
        self.tell_target()?;
        let value = |name: &str| attributes.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value);
        let job = match (value("service.namespace"), value("service.name")) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        let own = [("job", job), ("instance", value("service.instance.id").to_owned())];
        let own: BTreeMap<String, String> = own
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let rest = attributes
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "service.namespace" | "service.name" | "service.instance.id"));
        let mut info = labels_of(rest);
        // Without a name nothing could be joined with it, and without more there is nothing to tell.
        if info.is_empty() || own.is_empty() {
            info.clear();
        } else {
            info.extend(own.clone());
        }
        self.target = Target { own, info, last_ns: 0 };
        Ok(())
    }

    fn tell_target(&mut self) -> Result<(), IngestError> {
        let Target { info, last_ns, .. } = std::mem::take(&mut self.target);
        if info.is_empty() || last_ns == 0 {
            return Ok(());
        }
        let head = Head { time_ns: last_ns, ..Head::default() };
        self.push("target_info", &info, None, &head, 1.0, Way::Whole).map(drop)
    }

    /// Takes a metric of the resource.
    pub(crate) fn metric(&mut self, metric: Metric) -> Result<(), IngestError> {
        let Metric { name, unit, description, data } = metric;
        let (suffix, kind) = match &data {
            Data::Gauge(_) => (Suffix::Gauge, "gauge"),
            Data::Sum { monotonic: true, .. } => (Suffix::Total, "counter"),
            Data::Sum { .. } => (Suffix::Plain, "gauge"),
            Data::Histogram { .. } | Data::Exponential { .. } => (Suffix::Plain, "histogram"),
            Data::Summary(_) => (Suffix::Plain, "summary"),
            // A metric without points, or of a kind from a later version, whose points nobody can count.
            Data::Nothing => return Ok(()),
        };
        let own = metric_name(&name, &unit, suffix);
        let (before, before_native) = (self.labelled.samples, self.labelled.points.native.histograms);
        match data {
            Data::Nothing => {}
            Data::Gauge(points) => self.numbers(&own, points, Way::Gauge)?,
            Data::Sum { points, temporality, .. } => match Way::of(temporality) {
                Some(way) => self.numbers(&own, points, way)?,
                None => self.refuse_unspecified(&name, points.len() as u64),
            },
            Data::Histogram { points, temporality } => match Way::of(temporality) {
                Some(way) => points.into_iter().try_for_each(|point| self.histogram(&own, point, way))?,
                None => self.refuse_unspecified(&name, points.len() as u64),
            },
            Data::Exponential { points, temporality: Temporality::Cumulative } => {
                points.into_iter().try_for_each(|point| self.exponential(&own, point))?;
            }
            Data::Exponential { points, temporality: Temporality::Delta } => {
                self.refuse("delta of an exponential histogram", points.len() as u64, || {
                    format!("deltas of exponential histograms are not kept: {name:?}; send cumulative ones")
                });
            }
            Data::Exponential { points, .. } => self.refuse_unspecified(&name, points.len() as u64),
            Data::Summary(points) => points.into_iter().try_for_each(|point| self.summary(&own, point))?,
        }
        let came = self.labelled.samples > before || self.labelled.points.native.histograms > before_native;
        if came && !own.is_empty() {
            self.labelled.describe(&own, MetricMetadata::new(kind, &description, &unit));
        }
        Ok(())
    }

    fn numbers(&mut self, name: &str, points: Vec<Number>, way: Way) -> Result<(), IngestError> {
        for Number { head, value } in points {
            if value.is_none() && head.flags & NOTHING_RECORDED == 0 {
                self.refuse("no value", 1, || format!("a point of {name:?} has neither asDouble nor asInt"));
                continue;
            }
            let Some(labels) = self.checked(name, &head) else { continue };
            let target = self.push(name, &labels, None, &head, value.unwrap_or(f64::NAN), way)?;
            // As in Prometheus' receiver, a gauge's exemplars say nothing that its value does not.
            let exemplars = if way == Way::Gauge { &[] } else { head.exemplars.as_slice() };
            exemplars.iter().for_each(|exemplar| self.attach(target, exemplar, false));
        }
        Ok(())
    }

    fn attach(&mut self, target: Option<LabelledTarget>, raw: &RawExemplar, is_native: bool) {
        self.labelled.exemplars += 1;
        let at =
            Some(raw.at_ms).filter(|at_ms| *at_ms > 0).map(|at_ms| Timestamp::from_micros(at_ms.saturating_mul(1000)));
        self.labelled.attach(target, at.map(|at| Exemplar::new(raw.labels.clone(), raw.value, at)), is_native);
    }

    fn histogram(&mut self, name: &str, point: Histogram, way: Way) -> Result<(), IngestError> {
        let Histogram { head, count, sum, bounds, counts } = point;
        let Some(labels) = self.checked(name, &head) else { return Ok(()) };
        let fits = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
        let is_sorted = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| !bound.is_nan());
        if !fits || !is_sorted {
            self.refuse("malformed", 1, || format!("{name:?} has buckets that do not fit their bounds"));
            return Ok(());
        }
        if let Some(sum) = sum {
            self.push(&format!("{name}_sum"), &labels, None, &head, sum, way)?;
        }
        self.push(&format!("{name}_count"), &labels, None, &head, count as f64, way)?;
        let bucket = format!("{name}_bucket");
        let (mut below, mut lower) = (0_u64, f64::NEG_INFINITY);
        let last = (f64::INFINITY, count);
        for (bound, below) in bounds
            .iter()
            .zip(&counts)
            .map(|(bound, own)| {
                below = below.saturating_add(*own);
                (*bound, below)
            })
            .chain([last])
        {
            let le = orzo_promql::number_text(bound);
            let target = self.push(&bucket, &labels, Some(("le", &le)), &head, below as f64, way)?;
            // An exemplar belongs to the bucket that its value falls into.
            let own = head.exemplars.iter().filter(|one| one.value > lower && one.value <= bound);
            own.for_each(|exemplar| self.attach(target, exemplar, false));
            lower = bound;
        }
        Ok(())
    }

    fn exponential(&mut self, name: &str, point: ExponentialPoint) -> Result<(), IngestError> {
        let ExponentialPoint { head, histogram } = point;
        let Some(labels) = self.checked(name, &head) else { return Ok(()) };
        let is_recorded = head.flags & NOTHING_RECORDED == 0;
        let histogram = if is_recorded { histogram.histogram() } else { Ok(stale()) };
        let at_micros = i64::try_from(head.time_ns / 1_000_000).ok().map(|millis| millis * 1000);
        let mut pairs = self.pairs(name, &labels, None)?;
        let before = self.labelled.samples;
        let (native, limits) = (self.native, self.limits);
        let target = self.labelled.take_histogram(&mut pairs, at_micros, histogram, native, limits)?;
        self.rejected += self.labelled.samples - before;
        head.exemplars.iter().for_each(|exemplar| self.attach(target, exemplar, true));
        Ok(())
    }

    fn summary(&mut self, name: &str, point: Summary) -> Result<(), IngestError> {
        let Summary { head, count, sum, quantiles } = point;
        let Some(labels) = self.checked(name, &head) else { return Ok(()) };
        self.push(&format!("{name}_sum"), &labels, None, &head, sum, Way::Whole)?;
        self.push(&format!("{name}_count"), &labels, None, &head, count as f64, Way::Whole)?;
        for (quantile, value) in quantiles {
            let text = orzo_promql::number_text(quantile);
            self.push(name, &labels, Some(("quantile", &text)), &head, value, Way::Whole)?;
        }
        Ok(())
    }

    /// The labels of a point that can be kept.
    fn checked(&mut self, name: &str, head: &Head) -> Option<BTreeMap<String, String>> {
        if name.is_empty() {
            self.refuse("malformed", 1, || "a metric has no name".to_owned());
            return None;
        }
        if head.time_ns == 0 {
            self.refuse("time out of range", 1, || format!("a point of {name:?} has no time"));
            return None;
        }
        self.target.last_ns = self.target.last_ns.max(head.time_ns);
        let mut labels = labels_of(head.attributes.iter());
        labels.extend(self.target.own.iter().map(|(name, value)| (name.clone(), value.clone())));
        Some(labels)
    }

    /// Names and values of a series, within what one request may bring.
    fn pairs<'n>(
        &mut self,
        name: &'n str,
        labels: &'n BTreeMap<String, String>,
        further: Option<(&'n str, &'n str)>,
    ) -> Result<Vec<(&'n str, &'n str)>, IngestError> {
        if self.labelled.samples >= SAMPLES_MAX as u64 {
            return Err(IngestError::TooManySamples);
        }
        let own = [(METRIC_NAME, name)];
        let is_own = |label: &str| label == METRIC_NAME || further.is_some_and(|(further, _)| further == label);
        let rest = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| !is_own(name));
        let pairs: Vec<(&str, &str)> = own.into_iter().chain(further).chain(rest).collect();
        self.label_bytes += pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.label_bytes > DECODED_BYTES_MAX {
            return Err(IngestError::ClaimsTooMuch { claimed: self.label_bytes });
        }
        Ok(pairs)
    }

    fn push(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        further: Option<(&str, &str)>,
        head: &Head,
        value: f64,
        way: Way,
    ) -> Result<Option<LabelledTarget>, IngestError> {
        let mut pairs = self.pairs(name, labels, further)?;
        // Prometheus' time has milliseconds: a sender that gives more must not get two points where it has one.
        let at_micros = i64::try_from(head.time_ns / 1_000_000).ok().map(|millis| millis * 1000);
        let is_recorded = head.flags & NOTHING_RECORDED == 0;
        let (known, limits) = (self.known, self.limits);
        Ok(match way {
            Way::Added if is_recorded => self.labelled.take_delta(&mut pairs, at_micros, value, known, limits),
            _ => {
                let value = if is_recorded { value } else { STALE };
                self.labelled.take_point(&mut pairs, at_micros, value, known, limits)
            }
        })
    }

    fn refuse_unspecified(&mut self, name: &str, points: u64) {
        self.refuse("malformed", points, || format!("{name:?} has no temporality"));
    }

    fn refuse(&mut self, reason: &'static str, points: u64, text: impl FnOnce() -> String) {
        if points > 0 {
            self.rejected += points;
            self.labelled.samples += points;
            self.labelled.refuse(reason, points, text);
        }
    }
}

/// Labels by their plain names; those that become alike are put together, in the order of their own names.
fn labels_of<'a>(attributes: impl Iterator<Item = &'a (String, String)>) -> BTreeMap<String, String> {
    let mut sorted: Vec<&(String, String)> = attributes.collect();
    sorted.sort();
    let mut labels = BTreeMap::<String, String>::new();
    for (name, value) in sorted {
        let own = labels.entry(label_name(name)).or_default();
        if !own.is_empty() && !value.is_empty() {
            own.push(';');
        }
        own.push_str(value);
    }
    labels.retain(|name, value| !name.is_empty() && !value.is_empty());
    labels
}

#[cfg(test)]
pub(crate) mod tests;
