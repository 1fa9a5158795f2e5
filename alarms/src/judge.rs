//! The decision, as a pure function: windows' values and the present state in, new state and its reason out.
//!
//! Aodh's rules: fewer values than periods is `insufficient data`; all beyond the threshold is `alarm`; all within is
//! `ok`; mixed keeps the state, unless it was unknown, then the newest value decides.

use serde::{Deserialize, Serialize};

use crate::{alarm::AlarmState, rule::Threshold};

/// On which side of the threshold the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Does not meet the condition.
    Inside,
    /// Meets the condition.
    Outside,
    /// Not enough values.
    Unknown,
}

/// The `reason_data` of Aodh's webhook body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonData {
    /// Always `threshold`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Side of the threshold.
    pub disposition: Disposition,
    /// How many values were counted, or are missing.
    pub count: usize,
    /// The newest value, if any.
    pub most_recent: Option<f64>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The state from now on.
    pub state: AlarmState,
    /// In words, as Aodh writes it.
    pub reason: String,
    /// In data, as Aodh writes it.
    pub reason_data: ReasonData,
}

/// Judges `values` (oldest first; the newest `evaluation_periods` count). `None`: the values disagree, so nothing
/// changes and nothing is said.
pub fn judge(state: AlarmState, values: &[f64], threshold: &Threshold) -> Option<Judgement> {
    let periods = threshold.evaluation_periods as usize;
    let counted = &values[values.len().saturating_sub(periods)..];
    let most_recent = counted.last().copied();
    if counted.len() < periods {
        let missing = periods - counted.len();
        return Some(Judgement {
            state: AlarmState::InsufficientData,
            reason: format!("{missing} datapoints are unknown"),
            reason_data: reason_data(Disposition::Unknown, missing, most_recent),
        });
    }
    let outside = |value: &f64| threshold.condition.comparison_operator.holds(*value, threshold.condition.threshold);
    let all_outside = counted.iter().all(outside);
    let all_inside = !counted.iter().any(outside);
    let unknown = state == AlarmState::InsufficientData;
    let is_outside = match (all_outside, all_inside) {
        (true, _) => true,
        (_, true) => false,
        _ if unknown => most_recent.as_ref().is_some_and(outside),
        _ => return None,
    };
    let (new_state, disposition, side) = if is_outside {
        (AlarmState::Alarm, Disposition::Outside, "outside")
    } else {
        (AlarmState::Ok, Disposition::Inside, "inside")
    };
    let verb = if new_state == state { "Remaining as" } else { "Transition to" };
    let newest = most_recent.map_or_else(|| "None".to_owned(), python_float);
    Some(Judgement {
        state: new_state,
        reason: format!("{verb} {new_state} due to {periods} samples {side} threshold, most recent: {newest}"),
        reason_data: reason_data(disposition, periods, most_recent),
    })
}

fn reason_data(disposition: Disposition, count: usize, most_recent: Option<f64>) -> ReasonData {
    // NaN and infinities have no JSON.
    ReasonData { kind: "threshold".into(), disposition, count, most_recent: most_recent.filter(|v| v.is_finite()) }
}

/// As Python prints a float in Aodh's reasons: `95.0`, not `95`.
fn python_float(value: f64) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use AlarmState::{Alarm, InsufficientData, Ok};

    use super::*;
    use crate::rule::{Comparison, Condition};

    fn above_80(periods: u32) -> Threshold {
        Threshold {
            condition: Condition { comparison_operator: Comparison::Gt, threshold: 80.0, clear_threshold: None },
            aggregation_method: "mean".into(),
            evaluation_periods: periods,
            granularity: 60,
            hold: None,
        }
    }

    #[test]
    fn judges_as_aodh_does() {
        let cases: [(AlarmState, &[f64], Option<AlarmState>); 9] = [
            (Ok, &[], Some(InsufficientData)),
            (Ok, &[90.0], Some(InsufficientData)),
            (Ok, &[90.0, 95.0], Some(Alarm)),
            (Alarm, &[90.0, 95.0], Some(Alarm)),
            (Alarm, &[10.0, 80.0], Some(Ok)),
            (Alarm, &[10.0, 95.0], None),
            (Ok, &[10.0, 95.0], None),
            (InsufficientData, &[10.0, 95.0], Some(Alarm)),
            (InsufficientData, &[95.0, 10.0], Some(Ok)),
        ];
        for (state, values, expected) in cases {
            let judgement = judge(state, values, &above_80(2));
            assert_eq!(judgement.map(|j| j.state), expected, "{state} {values:?}");
        }
    }

    #[test]
    fn only_the_newest_periods_count() {
        assert_eq!(judge(Ok, &[1.0, 90.0, 95.0], &above_80(2)).map(|j| j.state), Some(Alarm));
    }

    #[test]
    fn reasons_are_word_for_word() {
        let judgement = judge(InsufficientData, &[90.0, 95.0], &above_80(2)).expect("a judgement");
        assert_eq!(judgement.reason, "Transition to alarm due to 2 samples outside threshold, most recent: 95.0");
        let again = judge(Alarm, &[90.0, 95.0], &above_80(2)).expect("a judgement");
        assert_eq!(again.reason, "Remaining as alarm due to 2 samples outside threshold, most recent: 95.0");
        let unknown = judge(Ok, &[90.0], &above_80(3)).expect("a judgement");
        assert_eq!(unknown.reason, "2 datapoints are unknown");
        assert_eq!(unknown.reason_data.most_recent, Some(90.0));
    }

    #[test]
    fn a_nan_is_never_outside_and_never_printed_as_json() {
        let judgement = judge(Ok, &[f64::NAN], &above_80(1)).expect("a judgement");
        assert_eq!((judgement.state, judgement.reason_data.most_recent), (Ok, None));
    }
}
