//! Functions of a window that has histograms in it. Windows may have numbers beside them; what cannot be told of both
//! together is a warning and has no value.

use std::sync::Arc;

use super::{Histogram, Mismatch, Natives, ResetHint};
use crate::{
    notes::Notes,
    range::{self, OverTime},
    select::RangeWindow,
};

/// What functions of windows need besides the window.
pub(crate) struct Over<'e> {
    pub(crate) natives: &'e Natives,
    pub(crate) notes: &'e Notes,
    /// The name of the series' metric.
    pub(crate) metric: &'e str,
}

/// A window taken apart.
struct Parts {
    times: Vec<i64>,
    values: Vec<f64>,
    histograms: Vec<(i64, Arc<Histogram>)>,
}

impl Over<'_> {
    /// The value of a function over a window that has at least one histogram.
    pub(crate) fn judge(
        &self,
        name: &str,
        function: OverTime,
        window: &RangeWindow<'_>,
        parameters: &[f64],
    ) -> Option<f64> {
        let parts = self.parts(window);
        match name {
            "rate" => self.extrapolated(window, &parts, true, true),
            "increase" => self.extrapolated(window, &parts, true, false),
            "delta" => self.extrapolated(window, &parts, false, false),
            "irate" => self.last_two(window, true),
            "idelta" => self.last_two(window, false),
            "sum_over_time" | "avg_over_time" => {
                if !parts.values.is_empty() {
                    self.notes.mixed_floats(self.metric);
                    return None;
                }
                let all = parts.histograms.iter().map(|(_, one)| &**one);
                let whole = if name == "sum_over_time" { Histogram::sum(all) } else { Histogram::mean(all) };
                Some(self.natives.keep(whole.map_err(|mismatch| self.told(mismatch)).ok()??))
            }
            "changes" => Some(self.pairs(window, |a, b| a != b && !(a.is_nan() && b.is_nan()), |a, b| !a.is_same(b))),
            "resets" => Some(self.pairs(window, |a, b| b < a, |a, b| b.began_anew(a))),
            // These only look at where samples are, or hand one on.
            "count_over_time"
            | "present_over_time"
            | "last_over_time"
            | "first_over_time"
            | "ts_of_first_over_time"
            | "ts_of_last_over_time"
            | "absent_over_time" => function(window, parameters),
            _ => {
                // Of numbers only, as if the histograms were not there.
                if parts.values.is_empty() {
                    return None;
                }
                self.notes.ignored_in_range(self.metric);
                function(&RangeWindow { times: &parts.times, values: &parts.values, ..*window }, parameters)
            }
        }
    }

    fn parts(&self, window: &RangeWindow<'_>) -> Parts {
        let mut parts = Parts { times: Vec::new(), values: Vec::new(), histograms: Vec::new() };
        for (time, value) in window.times.iter().zip(window.values) {
            match self.natives.get(*value) {
                Some(histogram) => parts.histograms.push((*time, histogram)),
                None => {
                    parts.times.push(*time);
                    parts.values.push(*value);
                }
            }
        }
        parts
    }

    fn told(&self, mismatch: Mismatch) {
        match mismatch {
            Mismatch::Schemas => self.notes.mixed_schemas(self.metric),
            Mismatch::Bounds => self.notes.other_bounds(self.metric),
        }
    }

    fn extrapolated(&self, window: &RangeWindow<'_>, parts: &Parts, is_counter: bool, is_rate: bool) -> Option<f64> {
        if !parts.values.is_empty() {
            self.notes.mixed_floats(self.metric);
            return None;
        }
        let [(first, _), .., (last, _)] = parts.histograms.as_slice() else { return None };
        let change = self.change(&parts.histograms, is_counter)?;
        // Prometheus 3.5 extends a histogram beyond the time at which it would have been empty.
        let factor = range::extrapolation(window, parts.histograms.len(), (*first, *last), None, is_rate);
        let mut change = change.times(factor);
        change.hint = ResetHint::Gauge;
        Some(self.natives.keep(change))
    }

    /// What was added between the first and the last.
    fn change(&self, points: &[(i64, Arc<Histogram>)], is_counter: bool) -> Option<Histogram> {
        let (first, last) = (&points.first()?.1, &points.last()?.1);
        let is_gauge = |one: &Histogram| one.hint == ResetHint::Gauge;
        let all: Vec<&Histogram> = points.iter().map(|(_, one)| &**one).collect();
        if is_counter && all.iter().any(|one| is_gauge(one)) {
            self.notes.not_a_counter(self.metric);
        }
        if !(is_counter || is_gauge(first) && is_gauge(last)) {
            self.notes.not_a_gauge(self.metric);
        }
        // What came before a new beginning does not matter, whatever its buckets are.
        let nothing;
        let mut before: &Histogram = first;
        if is_counter && all[1].began_anew(first) {
            nothing = Histogram { schema: all[1].schema, bounds: all[1].bounds.clone(), ..Histogram::default() };
            before = &nothing;
        }
        let looked_at: &[&Histogram] = if is_counter { &all[1..] } else { &all[all.len() - 1..] };
        if looked_at.iter().any(|one| one.is_custom() != before.is_custom()) {
            self.notes.mixed_schemas(self.metric);
            return None;
        }
        let minus = |one: Histogram, other: &Histogram| one.minus(other).map_err(|mismatch| self.told(mismatch)).ok();
        let schema = looked_at.iter().map(|one| one.schema).chain([before.schema]).min()?;
        let mut change = minus((**last).clone().coarser(schema), before)?;
        if is_counter {
            for one in &all[1..] {
                if one.began_anew(before) {
                    change = change.plus(before).map_err(|mismatch| self.told(mismatch)).ok()?;
                }
                before = one;
            }
        }
        change.hint = ResetHint::Gauge;
        Some(change.compact())
    }

    fn last_two(&self, window: &RangeWindow<'_>, is_rate: bool) -> Option<f64> {
        let count = window.values.len();
        let [before, last] = *window.values.get(count.checked_sub(2)?..)? else { return None };
        let took = (window.times[count - 1] - window.times[count - 2]) as f64 / 1000.0;
        if took == 0.0 {
            return None;
        }
        let (before, last) = match (self.natives.get(before), self.natives.get(last)) {
            (Some(before), Some(last)) => (before, last),
            // A histogram farther back does not matter.
            (None, None) => return range::last_two(window, is_rate),
            _ => {
                self.notes.mixed_floats(self.metric);
                return None;
            }
        };
        let gauges = [&before, &last].into_iter().filter(|one| one.hint == ResetHint::Gauge).count();
        if is_rate && gauges > 0 {
            self.notes.not_a_counter(self.metric);
        }
        if !is_rate && gauges < 2 {
            self.notes.not_a_gauge(self.metric);
        }
        let mut change = (*last).clone();
        if !is_rate || !last.began_anew(&before) {
            change = change.minus(&before).map_err(|mismatch| self.told(mismatch)).ok()?;
        }
        change.hint = ResetHint::Gauge;
        let change = change.compact();
        Some(self.natives.keep(if is_rate { change.divided(took) } else { change }))
    }

    /// Neighbours that differ; a number beside a histogram always does.
    fn pairs(
        &self,
        window: &RangeWindow<'_>,
        numbers_differ: impl Fn(f64, f64) -> bool,
        differ: impl Fn(&Histogram, &Histogram) -> bool,
    ) -> f64 {
        let pairs =
            window.values.windows(2).filter(|pair| match (self.natives.get(pair[0]), self.natives.get(pair[1])) {
                (Some(a), Some(b)) => differ(&a, &b),
                (None, None) => numbers_differ(pair[0], pair[1]),
                _ => true,
            });
        pairs.count() as f64
    }
}
