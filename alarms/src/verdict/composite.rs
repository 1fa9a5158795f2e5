//! The decision about a composite rule, as Aodh makes it: its parts are asked from left to right and only as far as
//! needed, and only parts that were asked are named as causes.

use serde_json::{Map, Value, json};

use super::{Finding, Judgement};
use crate::{
    alarm::AlarmState,
    rule::{Composite, composite_leaf_json},
};

/// A part and what is known of it.
struct Part<'a> {
    finding: &'a Finding,
    is_asked: bool,
    state: Option<AlarmState>,
}

/// What the findings of its parts (in the order of its leaves) do to a composite alarm in `state`.
pub(crate) fn decide(state: AlarmState, repeats: bool, rule: &Composite, findings: &[Finding]) -> Option<Judgement> {
    let mut parts: Vec<Part<'_>> =
        findings.iter().map(|finding| Part { finding, is_asked: false, state: None }).collect();
    let mut new = settled(rule, &mut parts);
    if new.is_none() {
        for part in &mut parts {
            part.ask();
        }
        for part in &mut parts {
            if let Some(trend) = part.finding.trend() {
                // A part whose values are turning has been on the other side until now, and stays there.
                part.state = Some(match (state, trend) {
                    (AlarmState::InsufficientData, trend) => trend,
                    (_, AlarmState::Alarm) => AlarmState::Ok,
                    (_, _) => AlarmState::Alarm,
                });
            }
        }
        new = settled(rule, &mut parts);
    }
    match new {
        Some(new) => (new != state || repeats).then(|| told(state, new, rule, &parts)),
        None if state == AlarmState::InsufficientData => None,
        None => Some(told(state, AlarmState::InsufficientData, rule, &parts)),
    }
}

impl Part<'_> {
    fn ask(&mut self) {
        if !self.is_asked {
            self.is_asked = true;
            self.state = self.finding.state();
        }
    }
}

/// `alarm` or `ok`, if the parts say so.
fn settled(rule: &Composite, parts: &mut [Part<'_>]) -> Option<AlarmState> {
    if holds(rule, AlarmState::Alarm, parts, &mut 0) {
        Some(AlarmState::Alarm)
    } else if holds(rule, AlarmState::Ok, parts, &mut 0) {
        Some(AlarmState::Ok)
    } else {
        None
    }
}

/// Whether the rule is in `wanted`; for `ok`, `and` and `or` change places. Asks no more parts than needed.
fn holds(rule: &Composite, wanted: AlarmState, parts: &mut [Part<'_>], place: &mut usize) -> bool {
    let (children, needs_all) = match rule {
        Composite::Leaf(_) => {
            let part = &mut parts[*place];
            *place += 1;
            part.ask();
            return part.state == Some(wanted);
        }
        Composite::And(children) => (children, wanted == AlarmState::Alarm),
        Composite::Or(children) => (children, wanted == AlarmState::Ok),
    };
    for (at, child) in children.iter().enumerate() {
        if holds(child, wanted, parts, place) != needs_all {
            // The rest is not asked, but has its numbers.
            *place += children[at + 1..].iter().map(|child| child.leaves().len()).sum::<usize>();
            return !needs_all;
        }
    }
    needs_all
}

fn told(before: AlarmState, new: AlarmState, rule: &Composite, parts: &[Part<'_>]) -> Judgement {
    let leaves = rule.leaves();
    let mut causes = Map::new();
    for (place, (part, leaf)) in parts.iter().zip(leaves).enumerate() {
        if part.state == Some(new) {
            causes.insert(format!("rule{}", place + 1), composite_leaf_json(leaf));
        }
    }
    let mut names: Vec<&str> = causes.keys().map(String::as_str).collect();
    names.sort_unstable();
    let form = form(rule, &mut 0);
    let verb = if new == before { "remaining as" } else { "transition to" };
    let description = match new {
        AlarmState::Alarm => "outside their threshold.",
        AlarmState::Ok => "inside their threshold.",
        AlarmState::InsufficientData => "state evaluated to unknown.",
    };
    let rules = names.join(", ");
    let reason =
        format!("Composite rule alarm with composition form: {form} {verb} {new}, due to rules: {rules} {description}");
    let reason_data = json!({"type": "composite", "composition_form": form, "causative_rules": Value::Object(causes)});
    Judgement { state: new, reason, reason_data }
}

/// `(rule1 and (rule2 or rule3))`
fn form(rule: &Composite, place: &mut usize) -> String {
    let (children, joiner) = match rule {
        Composite::Leaf(_) => {
            *place += 1;
            return format!("rule{place}");
        }
        Composite::And(children) => (children, " and "),
        Composite::Or(children) => (children, " or "),
    };
    let children: Vec<String> = children.iter().map(|child| form(child, place)).collect();
    format!("({})", children.join(joiner))
}
