//! The decisions, case by case.

use AlarmState::{Alarm, InsufficientData, Ok};
use orzo_model::Timestamp;

use super::*;
use crate::rule::Comparison;

fn above_80(periods: u32) -> Threshold {
    Threshold {
        condition: Condition { comparison_operator: Comparison::Gt, threshold: 80.0, clear_threshold: None },
        aggregation_method: "mean".into(),
        evaluation_periods: periods,
        granularity: 60,
        hold: None,
    }
}

fn windows(values: &[f64]) -> Vec<Measure> {
    let at = |place: usize| Timestamp::from_secs(60 * place as i64);
    values.iter().enumerate().map(|(place, value)| Measure { timestamp: at(place), value: *value }).collect()
}

fn judge(state: AlarmState, values: &[f64], threshold: &Threshold) -> Option<Judgement> {
    decide(state, false, &examine(threshold, state, &windows(values)))
}

#[test]
fn judges_as_aodh_does() {
    let cases: [(AlarmState, &[f64], Option<AlarmState>); 9] = [
        (Ok, &[], Some(InsufficientData)),
        (Ok, &[90.0], Some(InsufficientData)),
        (Ok, &[90.0, 95.0], Some(Alarm)),
        (Alarm, &[90.0, 95.0], None),
        (Alarm, &[10.0, 80.0], Some(Ok)),
        (Alarm, &[10.0, 95.0], None),
        (Ok, &[10.0, 95.0], None),
        (InsufficientData, &[10.0, 95.0], Some(Alarm)),
        (InsufficientData, &[95.0, 10.0], Some(Ok)),
    ];
    for (state, values, expected) in cases {
        assert_eq!(judge(state, values, &above_80(2)).map(|j| j.state), expected, "{state} {values:?}");
    }
    // More than the few that fit on the stack.
    assert_eq!(judge(Ok, &[90.0; 12], &above_80(12)).map(|j| j.state), Some(Alarm));
    assert_eq!(judge(Ok, &[1.0, 90.0, 95.0], &above_80(2)).map(|j| j.state), Some(Alarm));
}

#[test]
fn reasons_are_word_for_word() {
    let told = |state, repeats, values: &[f64], periods| {
        let threshold = above_80(periods);
        let judgement = decide(state, repeats, &examine(&threshold, state, &windows(values))).expect("a judgement");
        (judgement.reason, judgement.reason_data.to_string())
    };
    let data = |disposition: &str, count: usize, newest: &str| {
        format!(r#"{{"count":{count},"disposition":"{disposition}","most_recent":{newest},"type":"threshold"}}"#)
    };
    for (state, repeats, values, periods, reason, expected) in [
        (
            InsufficientData,
            false,
            &[90.0, 95.0][..],
            2,
            "Transition to alarm due to 2 samples outside threshold, most recent: 95.0",
            data("outside", 2, "95.0"),
        ),
        (
            Alarm,
            true,
            &[90.0, 95.0][..],
            2,
            "Remaining as alarm due to 2 samples outside threshold, most recent: 95.0",
            data("outside", 2, "95.0"),
        ),
        (
            Alarm,
            false,
            &[9.0, 5.5][..],
            2,
            "Transition to ok due to 2 samples inside threshold, most recent: 5.5",
            data("inside", 2, "5.5"),
        ),
        (
            Alarm,
            true,
            &[90.0, 5.0][..],
            2,
            "Remaining as alarm due to 1 samples outside threshold, most recent: 5.0",
            data("outside", 1, "5.0"),
        ),
        (
            Ok,
            true,
            &[90.0, 95.0, 5.0][..],
            3,
            "Remaining as ok due to 1 samples inside threshold, most recent: 5.0",
            data("inside", 1, "5.0"),
        ),
        (
            InsufficientData,
            false,
            &[90.0, 5.0][..],
            2,
            "Transition to ok due to 1 samples inside threshold, most recent: 5.0",
            data("inside", 1, "5.0"),
        ),
        (Ok, false, &[90.0][..], 3, "3 datapoints are unknown", data("unknown", 3, "90.0")),
        (Ok, false, &[][..], 3, "No datapoint for granularity 60", data("unknown", 3, "null")),
        (
            InsufficientData,
            true,
            &[][..],
            3,
            "Remaining as insufficient data due to 0 samples outside threshold, most recent: None",
            data("outside", 0, "null"),
        ),
    ] {
        assert_eq!(told(state, repeats, values, periods), (reason.to_owned(), expected));
    }
}

#[test]
fn a_nan_is_never_outside_and_never_printed_as_json() {
    let judgement = judge(InsufficientData, &[f64::NAN], &above_80(1)).expect("a judgement");
    assert_eq!((judgement.state, &judgement.reason_data["most_recent"]), (Ok, &Value::Null));
    assert!(judgement.reason.ends_with("most recent: nan"));
}

#[test]
fn hysteresis_keeps_an_alarm_on_until_the_weaker_threshold_is_passed() {
    let mut threshold = above_80(1);
    threshold.condition.clear_threshold = Some(60.0);
    for (state, value, expected) in [
        (Ok, 81.0, Some(Alarm)),
        (Alarm, 70.0, None),
        (Alarm, 60.5, None),
        (Alarm, 60.0, Some(Ok)),
        (Ok, 70.0, None),
        (InsufficientData, 70.0, Some(Ok)),
    ] {
        assert_eq!(judge(state, &[value], &threshold).map(|j| j.state), expected, "{state} {value}");
    }
}

#[test]
fn with_for_the_condition_must_have_been_met_so_long() {
    let mut threshold = above_80(1);
    threshold.hold = Some(170);
    for (state, values, expected) in [
        (Ok, &[90.0, 90.0][..], None),
        (Ok, &[1.0, 90.0, 90.0][..], None),
        (Ok, &[90.0, 90.0, 90.0][..], Some(Alarm)),
        (InsufficientData, &[90.0][..], Some(Ok)),
        (Alarm, &[90.0][..], None),
        (Alarm, &[90.0, 90.0, 1.0][..], Some(Ok)),
    ] {
        assert_eq!(judge(state, values, &threshold).map(|j| j.state), expected, "{state} {values:?}");
    }
}

#[test]
fn patterns_are_those_of_a_shell() {
    use super::others::matches_pattern;
    for (pattern, text, expected) in [
        ("*", "", true),
        ("*", "compute.instance.create.end", true),
        ("compute.*", "compute.instance", true),
        ("compute.*", "computer", false),
        ("compute.instance.*.end", "compute.instance.create.end", true),
        ("compute.instance.*.end", "compute.instance.create.start", false),
        ("?.b", "a.b", true),
        ("?.b", ".b", false),
        ("[ab].x", "b.x", true),
        ("[!ab].x", "b.x", false),
        ("[!ab].x", "c.x", true),
        ("[a-c]", "b", true),
        ("[]]", "]", true),
        ("[a", "[a", true),
        ("", "", true),
        ("", "a", false),
        ("a*b*c", "aXbXbc", true),
        ("a*b*c", "aXbXb", false),
    ] {
        assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
    }
    // No time bomb.
    assert!(!matches_pattern(&"*a".repeat(60), &"a".repeat(59)));
}
