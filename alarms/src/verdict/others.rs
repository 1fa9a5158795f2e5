//! The decisions that are not about thresholds: members of a pool, other alarms' states, events.

use orzo_model::{Event, Timestamp, Trait, TraitValue};
use serde_json::{Value, json};

use super::Judgement;
use crate::{
    alarm::AlarmState,
    python,
    rule::{CombinationRule, Comparison, EventQuery, EventRule, MemberHealthRule, Operator},
};

/// A member that was made less than this ago may still be starting: Aodh's `member_creation_time`.
const MEMBER_CREATION_S: u64 = 120;

/// What the members of a pool (as Octavia lists them) do to an alarm. `Err`: Octavia does not answer.
pub(crate) fn member_health(
    state: AlarmState,
    repeats: bool,
    rule: &MemberHealthRule,
    members: Result<&[Value], &str>,
    now: Timestamp,
) -> Option<Judgement> {
    let (new, unhealthy, unknown) = match members {
        Err(reason) => (AlarmState::InsufficientData, Vec::new(), Some(reason.to_owned())),
        Ok(members) => {
            let unhealthy: Vec<Value> = members.iter().filter(|member| is_unhealthy(member, now)).cloned().collect();
            let new = if unhealthy.is_empty() { AlarmState::Ok } else { AlarmState::Alarm };
            (new, unhealthy, None)
        }
    };
    if new == state && !repeats {
        return None;
    }
    let count = unhealthy.len();
    let last = unhealthy.last().cloned().unwrap_or(Value::Null);
    let reason = match unknown {
        Some(reason) => reason,
        None if new == state => format!("Remaining as {new}"),
        None => format!("Transition to {new} due to {count} members unhealthy, most recent: {}", python::text(&last)),
    };
    let reason_data = json!({
        "type": "loadbalancer_member_health", "count": count, "most_recent": last, "unhealthy_members": unhealthy,
        "pool_id": rule.pool_id, "stack_id": rule.stack_id, "asg_id": rule.autoscaling_group_id,
    });
    Some(Judgement { state: new, reason, reason_data })
}

fn is_unhealthy(member: &Value, now: Timestamp) -> bool {
    let Some(created_at) = member["created_at"].as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
        return false;
    };
    now.since(created_at).as_secs() >= MEMBER_CREATION_S
        && member["admin_state_up"] == json!(true)
        && member["operating_status"] == json!("ERROR")
}

/// What other alarms' states (in the order of the rule; `None`: there is no such alarm) do to a combination alarm.
pub(crate) fn combination(
    state: AlarmState,
    repeats: bool,
    rule: &CombinationRule,
    states: &[Option<AlarmState>],
) -> Option<Judgement> {
    let named = |wanted: &dyn Fn(Option<AlarmState>) -> bool| -> Vec<&str> {
        let ids = rule.alarm_ids.iter().zip(states);
        ids.filter(|(_, state)| wanted(**state)).map(|(id, _)| id.as_str()).collect()
    };
    let judgement = |state: AlarmState, reason: String, ids: &[&str]| Judgement {
        state,
        reason,
        reason_data: json!({"type": "combination", "alarm_ids": ids}),
    };
    let missing = named(&|state| matches!(state, None | Some(AlarmState::InsufficientData)));
    let on = named(&|state| state == Some(AlarmState::Alarm));
    let is_sufficient = missing.is_empty() || (rule.operator == Operator::Or && !on.is_empty());
    if !is_sufficient {
        let reason = format!("Alarms {} are in unknown state", missing.join(","));
        return (state != AlarmState::InsufficientData)
            .then(|| judgement(AlarmState::InsufficientData, reason, &missing));
    }
    let is_on = match rule.operator {
        Operator::And => on.len() == states.len(),
        Operator::Or => !on.is_empty(),
    };
    let new = if is_on { AlarmState::Alarm } else { AlarmState::Ok };
    if new == state && !repeats {
        return None;
    }
    let ids = named(&|state| state == Some(new));
    let verb = if new == state { "Remaining as" } else { "Transition to" };
    let reason = format!("{verb} {new} due to alarms {} in state {new}", ids.join(","));
    Some(judgement(new, reason, &ids))
}

/// Whether an event turns an alarm on.
pub(crate) fn hits(rule: &EventRule, event: &Event) -> bool {
    matches_pattern(&rule.event_type, &event.event_type) && rule.query.iter().all(|query| holds(query, event))
}

/// Whether an event turns an alarm off again.
pub(crate) fn resolves(rule: &EventRule, event: &Event) -> bool {
    rule.resolve_event_type.as_ref().is_some_and(|pattern| matches_pattern(pattern, &event.event_type))
        && rule.resolve_query.iter().all(|query| holds(query, event))
}

/// An event's project as Aodh reads it: the last trait that names one.
pub(crate) fn project_of(event: &Event) -> Option<String> {
    let named = event.traits.iter().rev().find(|fact| fact.name == "project_id" || fact.name == "tenant_id");
    named.map(|fact| fact.value.to_text())
}

/// What is told about an event that turned an alarm on (or off).
pub(crate) fn event(rule: &EventRule, state: AlarmState, event: &Event) -> Judgement {
    let json = rule.to_json();
    let query = if state == AlarmState::Ok { &json["resolve_query"] } else { &json["query"] };
    let query = python::json(query);
    let traits: Vec<Value> = event.traits.iter().map(wire_trait).collect();
    let raw = event.raw.as_deref().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_else(|| json!({}));
    Judgement {
        state,
        reason: format!(
            "Event <id={},event_type={}> hits the query <query={query}>.",
            event.message_id, event.event_type
        ),
        reason_data: json!({"type": "event", "event": {
            "message_id": event.message_id, "event_type": event.event_type, "generated": event.generated_at.naive(),
            "traits": traits, "raw": raw,
        }}),
    }
}

/// What is told when an event alarm goes off by itself.
pub(crate) fn resolved_by_time(seconds: u32) -> Judgement {
    Judgement {
        state: AlarmState::Ok,
        reason: format!("No event hit the query for {seconds} seconds."),
        reason_data: json!({"type": "event", "event": null}),
    }
}

/// `[name, type, value]`, as Ceilometer sends traits.
fn wire_trait(fact: &Trait) -> Value {
    match &fact.value {
        TraitValue::Text(text) => json!([fact.name, 1, text]),
        TraitValue::Integer(number) => json!([fact.name, 2, number]),
        TraitValue::Float(number) => json!([fact.name, 3, number]),
        TraitValue::Datetime(time) => json!([fact.name, 4, time.naive()]),
    }
}

/// Compares as Python does: texts with texts, numbers with numbers; of different kinds only `ne` holds.
fn holds(query: &EventQuery, event: &Event) -> bool {
    let Ok(wanted) = query.wanted() else { return false };
    let found = match query.field.as_str() {
        "event_type" => Some(TraitValue::Text(event.event_type.clone())),
        "message_id" => Some(TraitValue::Text(event.message_id.clone())),
        "generated" => Some(TraitValue::Datetime(event.generated_at)),
        field => {
            let name = field.strip_prefix("traits.").unwrap_or(field);
            // Of a trait that is there twice Aodh sees the last.
            event.traits.iter().rev().find(|fact| fact.name == name).map(|fact| fact.value.clone())
        }
    };
    let Some(found) = found else { return query.op == Comparison::Ne };
    if query.kind.as_deref() == Some("boolean") {
        let TraitValue::Text(wanted) = &wanted else { return false };
        let truth = match found.to_text().to_ascii_lowercase().as_str() {
            "1" | "true" => "true",
            "0" | "false" => "false",
            _ => return query.op == Comparison::Ne,
        };
        return compares(query.op, truth.cmp(wanted.as_str()));
    }
    match (&found, &wanted) {
        (TraitValue::Text(found), TraitValue::Text(wanted)) => compares(query.op, found.cmp(wanted)),
        (TraitValue::Integer(found), TraitValue::Integer(wanted)) => compares(query.op, found.cmp(wanted)),
        (TraitValue::Datetime(found), TraitValue::Datetime(wanted)) => compares(query.op, found.cmp(wanted)),
        (found, wanted) => match (number(found), number(wanted)) {
            (Some(found), Some(wanted)) => query.op.holds(found, wanted),
            _ => query.op == Comparison::Ne,
        },
    }
}

fn number(value: &TraitValue) -> Option<f64> {
    match value {
        TraitValue::Integer(number) => Some(*number as f64),
        TraitValue::Float(number) => Some(*number),
        TraitValue::Text(_) | TraitValue::Datetime(_) => None,
    }
}

fn compares(operator: Comparison, order: std::cmp::Ordering) -> bool {
    match operator {
        Comparison::Lt => order.is_lt(),
        Comparison::Le => order.is_le(),
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Ge => order.is_ge(),
        Comparison::Gt => order.is_gt(),
    }
}

/// Shell patterns as Python's `fnmatch`: `*`, `?`, `[abc]`, `[!a-z]`. Takes time in proportion to both lengths.
pub(crate) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => match class(&pattern[p..], text[t]) {
                Some((length, is_in)) => is_in.then_some(length),
                None => (text[t] == '[').then_some(1),
            },
            Some(letter) => (*letter == text[t]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

/// `[...]` at the start of a pattern: its length and whether the letter is in it; `None` if it does not end.
fn class(pattern: &[char], letter: char) -> Option<(usize, bool)> {
    let negated = pattern.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    // A bracket at the first place stands for itself.
    let end = (first + 1..pattern.len()).find(|at| pattern[*at] == ']')?;
    let mut at = first;
    let mut is_in = false;
    while at < end {
        if at + 2 < end && pattern[at + 1] == '-' {
            is_in |= (pattern[at]..=pattern[at + 2]).contains(&letter);
            at += 3;
        } else {
            is_in |= pattern[at] == letter;
            at += 1;
        }
    }
    Some((end + 1, is_in != negated))
}
