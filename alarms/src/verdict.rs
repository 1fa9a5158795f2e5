//! The decision, as pure functions: what a rule's readings say, and what becomes of an alarm in its present state.
//!
//! Aodh's rules, word for word: fewer values than periods is `insufficient data`; all beyond the threshold is `alarm`;
//! all within is `ok`; mixed keeps the state, unless it was unknown, then the newest value decides. What is repeated on
//! demand, and with which words, is in [`decide`].

pub(crate) mod composite;
pub(crate) mod others;

use orzo_model::Measure;
use serde_json::{Value, json};

use crate::{
    alarm::AlarmState,
    python,
    rule::{Condition, MeterRule, MeterStatistic, Threshold},
};

/// What was decided about an alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The state from now on.
    pub state: AlarmState,
    /// In words, as Aodh writes it.
    pub reason: String,
    /// In data, as Aodh writes it.
    pub reason_data: Value,
}

/// What the readings of one rule say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) side: Side,
    /// How many values were looked at.
    pub(crate) count: usize,
    /// How many of them meet the condition.
    pub(crate) outside: usize,
    /// The newest value.
    pub(crate) most_recent: Option<f64>,
}

/// On which side of the threshold the values are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Side {
    /// All beyond it.
    Outside,
    /// None beyond it.
    Inside,
    /// Some; the newest is or is not.
    Mixed { newest_is_outside: bool },
    /// Too few values: why, and the number that Aodh tells.
    Unknown { reason: String, told: usize },
}

impl Finding {
    pub(crate) fn unknown(reason: impl Into<String>, told: usize, most_recent: Option<f64>) -> Self {
        Self { side: Side::Unknown { reason: reason.into(), told }, count: 0, outside: 0, most_recent }
    }

    /// The state that the values agree on.
    pub(crate) fn state(&self) -> Option<AlarmState> {
        match self.side {
            Side::Outside => Some(AlarmState::Alarm),
            Side::Inside => Some(AlarmState::Ok),
            Side::Unknown { .. } => Some(AlarmState::InsufficientData),
            Side::Mixed { .. } => None,
        }
    }

    /// The state that the newest value means, if the values disagree.
    pub(crate) fn trend(&self) -> Option<AlarmState> {
        match self.side {
            Side::Mixed { newest_is_outside: true } => Some(AlarmState::Alarm),
            Side::Mixed { newest_is_outside: false } => Some(AlarmState::Ok),
            _ => None,
        }
    }
}

/// Compares values (oldest first) with a condition.
pub(crate) fn compare(condition: &Condition, state: AlarmState, values: &[f64]) -> Finding {
    // Hysteresis: an alarm that is on is kept on by the weaker threshold.
    let threshold = match condition.clear_threshold {
        Some(clear) if state == AlarmState::Alarm => clear,
        _ => condition.threshold,
    };
    let is_outside = |value: &f64| condition.comparison_operator.holds(*value, threshold);
    let outside = values.iter().filter(|value| is_outside(value)).count();
    let side = match outside {
        outside if outside == values.len() => Side::Outside,
        0 => Side::Inside,
        _ => Side::Mixed { newest_is_outside: values.last().is_some_and(is_outside) },
    };
    Finding { side, count: values.len(), outside, most_recent: values.last().copied() }
}

/// Judges the windows (oldest first) that a threshold rule over Gnocchi's aggregates looks at.
pub(crate) fn examine(threshold: &Threshold, state: AlarmState, windows: &[Measure]) -> Finding {
    let periods = threshold.evaluation_periods as usize;
    if windows.is_empty() {
        let reason = format!("No datapoint for granularity {}", threshold.granularity);
        return Finding::unknown(reason, periods, None);
    }
    let counted = &windows[windows.len().saturating_sub(periods)..];
    if counted.len() < periods {
        let reason = format!("{periods} datapoints are unknown");
        return Finding::unknown(reason, periods, counted.last().map(|measure| measure.value));
    }
    let mut few = [0.0; 8];
    let values: &[f64] = if periods <= few.len() {
        for (value, measure) in few.iter_mut().zip(counted) {
            *value = measure.value;
        }
        &few[..periods]
    } else {
        &counted.iter().map(|measure| measure.value).collect::<Vec<_>>()
    };
    let mut finding = compare(&threshold.condition, state, values);
    // `for`: the condition must have been met for longer before the alarm goes on.
    let needed = threshold.alarm_periods() as usize;
    if finding.side == Side::Outside && needed > periods && state != AlarmState::Alarm {
        let held = windows.len() >= needed && {
            let longer: Vec<f64> = windows[windows.len() - needed..].iter().map(|measure| measure.value).collect();
            compare(&threshold.condition, state, &longer).side == Side::Outside
        };
        if !held {
            finding.side = Side::Inside;
        }
    }
    finding
}

/// Judges the windows of a retired `threshold` rule: its statistic, and how many samples each window has.
pub(crate) fn examine_meter(rule: &MeterRule, state: AlarmState, windows: &[Measure], counts: &[Measure]) -> Finding {
    let periods = rule.evaluation_periods as usize;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for window in windows {
        let count = counts.iter().find(|count| count.timestamp == window.timestamp).map_or(0.0, |count| count.value);
        let value = match rule.statistic {
            // Ceilometer's average is over all samples of the window, whatever resource they are of.
            MeterStatistic::Avg if count > 0.0 => window.value / count,
            MeterStatistic::Avg => continue,
            _ => window.value,
        };
        kept.push((value, count));
    }
    if rule.exclude_outliers && !kept.is_empty() {
        let size = kept.len() as f64;
        let mean = kept.iter().map(|(_, count)| count).sum::<f64>() / size;
        let deviation = (kept.iter().map(|(_, count)| (count - mean) * (count - mean)).sum::<f64>() / size).sqrt();
        kept.retain(|(_, count)| (mean - 2.0 * deviation..=mean + 2.0 * deviation).contains(count));
    }
    let values: Vec<f64> = kept[kept.len().saturating_sub(periods)..].iter().map(|(value, _)| *value).collect();
    if values.len() < periods {
        return Finding::unknown(format!("{periods} datapoints are unknown"), periods, values.last().copied());
    }
    compare(&rule.condition, state, &values)
}

/// What a finding does to an alarm in `state`. `None`: nothing changes and nothing is told.
pub(crate) fn decide(state: AlarmState, repeats: bool, finding: &Finding) -> Option<Judgement> {
    let is_unknown = state == AlarmState::InsufficientData;
    if let Some(trend) = finding.trend() {
        return match (is_unknown, repeats) {
            (true, _) => Some(told(state, trend, finding)),
            (false, true) => Some(told(state, state, finding)),
            (false, false) => None,
        };
    }
    let new = finding.state()?;
    if let (Side::Unknown { reason, told }, false) = (&finding.side, is_unknown) {
        return Some(Judgement {
            state: new,
            reason: reason.clone(),
            reason_data: reason_data("unknown", *told, finding.most_recent),
        });
    }
    (new != state || repeats).then(|| told(state, new, finding))
}

/// Aodh's words. A repeated `insufficient data` gets the words of an alarm with no values: that is what Aodh sends.
fn told(before: AlarmState, new: AlarmState, finding: &Finding) -> Judgement {
    let (disposition, count) = match new {
        AlarmState::Ok => ("inside", finding.count - finding.outside),
        _ => ("outside", finding.outside),
    };
    let verb = if new == before { "Remaining as" } else { "Transition to" };
    let newest = finding.most_recent.map_or_else(|| "None".to_owned(), python::float);
    Judgement {
        state: new,
        reason: format!("{verb} {new} due to {count} samples {disposition} threshold, most recent: {newest}"),
        reason_data: reason_data(disposition, count, finding.most_recent),
    }
}

fn reason_data(disposition: &str, count: usize, most_recent: Option<f64>) -> Value {
    // NaN and infinities have no JSON.
    let most_recent = most_recent.filter(|value| value.is_finite());
    json!({"type": "threshold", "disposition": disposition, "count": count, "most_recent": most_recent})
}

#[cfg(test)]
mod tests;
