//! What the author of a query should know of its answer, though it is one: warnings and infos, in Prometheus' words.
//!
//! The place in the query's text, which Prometheus adds in brackets, is not known here.

use std::{cell::RefCell, collections::BTreeSet};

use crate::text::with_exponent;

/// Notes of each kind in an answer, as many as Prometheus shows; the others are counted.
const NOTES_MAX: usize = 10;
/// Different notes of each kind that are remembered at all.
const NOTES_REMEMBERED_MAX: usize = 1_000;

/// Notes of one evaluation, each text once.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: RefCell<BTreeSet<String>>,
    infos: RefCell<BTreeSet<String>>,
}

impl Notes {
    fn warn(&self, text: String) {
        add(&self.warnings, format!("PromQL warning: {text}"));
    }

    fn inform(&self, text: String) {
        add(&self.infos, format!("PromQL info: {text}"));
    }

    /// A quantile that is none.
    pub(crate) fn check_quantile(&self, q: f64) {
        if !(0.0..=1.0).contains(&q) {
            self.warn(format!("quantile value should be between 0 and 1, got {}", short(q)));
        }
    }

    /// The greatest and least quantile of all times: of a parameter one note suffices. A NaN is neither, and hides both.
    pub(crate) fn check_quantiles(&self, quantiles: &[f64]) {
        if quantiles.iter().any(|q| q.is_nan()) {
            return self.check_quantile(f64::NAN);
        }
        let (least, greatest) = extremes(quantiles);
        self.check_quantile(least.min(0.0));
        self.check_quantile(greatest.max(1.0));
    }

    /// Ratios of `limit_ratio` beyond one.
    pub(crate) fn check_ratios(&self, ratios: &[f64]) {
        let (least, greatest) = extremes(ratios);
        for (ratio, capped) in [(greatest, 1.0), (least, -1.0)] {
            if ratio.abs() > 1.0 && (ratio > 0.0) == (capped > 0.0) {
                let (ratio, capped) = (short(ratio), short(capped));
                self.warn(format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
            }
        }
    }

    /// A bucket whose bound cannot be read.
    pub(crate) fn bad_bucket(&self, metric: &str, bound: &str) {
        self.warn(format!(
            "bucket label \"le\" is missing or has a malformed value of {bound:?} for metric name {metric:?}"
        ));
    }

    /// Buckets whose counts went down.
    pub(crate) fn forced_monotonic(&self, metric: &str) {
        self.inform(format!(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {metric:?}"
        ));
    }

    /// A rate of something whose name is not a counter's.
    pub(crate) fn check_counter(&self, metric: &str) {
        let ends = ["_total", "_sum", "_count", "_bucket"];
        if !metric.is_empty() && !ends.iter().any(|end| metric.ends_with(end)) {
            self.inform(format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric:?}"
            ));
        }
    }

    /// Histograms and numbers of one series in one range.
    pub(crate) fn mixed_floats(&self, metric: &str) {
        self.warn(format!("encountered a mix of histograms and floats for metric name {metric:?}"));
    }

    /// Histograms and numbers in one group.
    pub(crate) fn mixed_floats_in_aggregation(&self) {
        self.warn("encountered a mix of histograms and floats for aggregation".to_owned());
    }

    /// Histograms with bounds of their own beside others.
    pub(crate) fn mixed_schemas(&self, metric: &str) {
        self.warn(format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {metric:?}"
        ));
    }

    /// Histograms with different bounds of their own.
    pub(crate) fn other_bounds(&self, metric: &str) {
        self.warn(format!("vector contains histograms with incompatible custom buckets for metric name {metric:?}"));
    }

    /// A rate of a histogram that is no counter.
    pub(crate) fn not_a_counter(&self, metric: &str) {
        self.warn(format!("this native histogram metric is not a counter: {metric:?}"));
    }

    /// A difference of a histogram that is a counter.
    pub(crate) fn not_a_gauge(&self, metric: &str) {
        self.warn(format!("this native histogram metric is not a gauge: {metric:?}"));
    }

    /// Histograms that a function of numbers does not see.
    pub(crate) fn ignored_in_range(&self, metric: &str) {
        self.inform(format!(
            "ignored histograms in a range containing both floats and histograms for metric name {metric:?}"
        ));
    }

    /// Histograms that an aggregation of numbers does not see.
    pub(crate) fn ignored_in_aggregation(&self, aggregation: &str) {
        self.inform(format!("ignored histogram in {aggregation} aggregation"));
    }

    /// An operator between histograms whose buckets have nothing to do with each other.
    pub(crate) fn unlike_buckets(&self, operator: &str) {
        self.warn(format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    /// An operator between what it is not for.
    pub(crate) fn incompatible(&self, left: &str, operator: &str, right: &str) {
        self.inform(format!(
            "incompatible sample types encountered for binary operator {operator:?}: {left} {operator} {right}"
        ));
    }

    /// Warnings, then infos, as an answer has them.
    pub(crate) fn into_texts(self) -> (Vec<String>, Vec<String>) {
        (cut(self.warnings.into_inner(), "warning"), cut(self.infos.into_inner(), "info"))
    }
}

fn add(notes: &RefCell<BTreeSet<String>>, text: String) {
    let mut notes = notes.borrow_mut();
    if notes.len() < NOTES_REMEMBERED_MAX {
        notes.insert(text);
    }
}

fn cut(notes: BTreeSet<String>, kind: &str) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES_MAX);
    let mut texts: Vec<String> = notes.into_iter().take(NOTES_MAX).collect();
    if more > 0 {
        texts.push(format!("{more} more {kind} annotations omitted"));
    }
    texts
}

/// The least and greatest, without NaN; zeros of nothing.
fn extremes(numbers: &[f64]) -> (f64, f64) {
    let real = || numbers.iter().copied().filter(|number| !number.is_nan());
    (real().reduce(f64::min).unwrap_or(0.0), real().reduce(f64::max).unwrap_or(0.0))
}

/// A number as Go's `%g` writes it.
pub(crate) fn short(number: f64) -> String {
    if number.is_nan() || number.is_infinite() {
        return crate::number_text(number);
    }
    let exponent = number.abs().log10().floor();
    match number == 0.0 || (-4.0..6.0).contains(&exponent) {
        true => crate::number_text(number),
        false => with_exponent(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_told_once_and_not_without_end() {
        let notes = Notes::default();
        for at in 0..30 {
            notes.check_counter(&format!("metric_{}", at % 15));
            notes.check_counter("requests_total");
        }
        notes.check_quantiles(&[0.5, 3.0, 2.0, -1e-7]);
        notes.check_quantiles(&[5.0, f64::NAN]);
        notes.check_ratios(&[2.0, -0.5]);
        let (warnings, infos) = notes.into_texts();
        assert_eq!(infos.len(), NOTES_MAX + 1);
        assert_eq!(infos[NOTES_MAX], "5 more info annotations omitted");
        assert_eq!(
            warnings,
            [
                "PromQL warning: quantile value should be between 0 and 1, got -1e-07",
                "PromQL warning: quantile value should be between 0 and 1, got 3",
                "PromQL warning: quantile value should be between 0 and 1, got NaN",
                "PromQL warning: ratio value should be between -1 and 1, got 2, capping to 1",
            ]
        );
    }
}
