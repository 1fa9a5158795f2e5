//! The judge: the history in the database and what the receivers were sent, against what must have happened.

use std::{collections::BTreeMap, time::Duration};

use orzo_model::Timestamp;
use serde_json::Value;

use super::plan::{Expected, Plan, Told};
use crate::support::{
    faulty_receiver::{FaultyReceiver, Receipt},
    orzo::Orzo,
};

/// A process that was killed so soon after a 2xx may not have written it down; loaded disks included.
const NOTE_LIMIT: Duration = Duration::from_secs(3);

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub windows: usize,
    pub transitions: usize,
    pub missed: usize,
    pub duplicate: usize,
    /// Transitions that must not be, or not in this place.
    pub wrong: usize,
    pub notices: usize,
    pub undelivered: usize,
    /// Notices that must not be, or that changed between two tries.
    pub unexpected: usize,
    /// Delivered again because the receiver had not answered with a 2xx.
    pub again_unanswered: usize,
    /// Delivered again because the process was killed before it had written the 2xx down.
    pub again_killed: usize,
    /// Delivered again for no reason.
    pub again_unexplained: usize,
}

impl Verdict {
    pub fn assert_clean(&self) {
        let bad = [self.missed, self.duplicate, self.wrong, self.undelivered, self.unexpected, self.again_unexplained];
        assert_eq!(bad, [0; 6], "missed, duplicate, wrong, undelivered, unexpected, unexplained: {self:?}");
        assert!(self.transitions > 0 && self.notices > 0, "nothing happened: the run shows nothing");
    }
}

/// Reads histories and receipts and compares. `interruptions`: when a process was killed or stopped.
pub fn judge(
    plan: &Plan,
    orzo: &Orzo,
    token: &str,
    receivers: &[FaultyReceiver],
    interruptions: &[Timestamp],
) -> Verdict {
    let mut verdict = Verdict { windows: plan.windows, ..Verdict::default() };
    for alarm in &plan.alarms {
        let history = history(orzo, token, &alarm.alarm_id);
        compare_history(&mut verdict, alarm, history);
        let receipts = receivers[alarm.receiver].receipts();
        let own = receipts.into_iter().filter(|receipt| receipt.body["alarm_id"] == alarm.alarm_id.as_str());
        compare_notices(&mut verdict, alarm, own.collect(), interruptions, |told| plan.is_echo(alarm, told));
    }
    verdict
}

/// All state transitions of an alarm, oldest first.
pub fn history(orzo: &Orzo, token: &str, alarm_id: &str) -> Vec<Told> {
    let mut told = Vec::new();
    let mut marker = String::new();
    loop {
        let path = format!("/alarming/v2/alarms/{alarm_id}/history?sort=timestamp:asc&limit=500{marker}");
        let page = orzo.request("GET", &path, token, None, 200);
        let rows = page.as_array().expect("a list");
        for row in rows.iter().filter(|row| row["type"] == "state transition") {
            let detail: Value = serde_json::from_str(row["detail"].as_str().unwrap()).unwrap();
            let text = |key: &str| detail[key].as_str().unwrap_or_default().to_owned();
            told.push(Told { state: text("state"), reason: text("transition_reason") });
        }
        match rows.last() {
            Some(last) if rows.len() == 500 => marker = format!("&marker={}", last["event_id"].as_str().unwrap()),
            _ => return told,
        }
    }
}

/// Whether something that was told is what was expected: events are known by the beginning of their reason.
fn is_same(expected: &Told, told: &Told) -> bool {
    expected.state == told.state && told.reason.starts_with(&expected.reason)
}

fn compare_history(verdict: &mut Verdict, alarm: &Expected, mut told: Vec<Told>) {
    verdict.transitions += alarm.transitions.len();
    // When no samples come any more, there is no data; nothing after that.
    if told.last().is_some_and(|last| last.state == "insufficient data") {
        told.pop();
    }
    let mut left: Vec<&Told> = alarm.transitions.iter().collect();
    let before = (verdict.missed, verdict.duplicate, verdict.wrong);
    for one in &told {
        if let Some(place) = left.iter().position(|expected| is_same(expected, one)) {
            // In order: each must be the next.
            verdict.wrong += usize::from(place != 0 && !one.reason.starts_with("Composite"));
            left.remove(place);
        } else if alarm.transitions.iter().any(|expected| is_same(expected, one)) {
            verdict.duplicate += 1;
        } else {
            verdict.wrong += 1;
        }
    }
    verdict.missed += left.len();
    if before != (verdict.missed, verdict.duplicate, verdict.wrong) {
        let place = told.iter().zip(&alarm.transitions).position(|(told, expected)| !is_same(expected, told));
        let place = place.unwrap_or(told.len().min(alarm.transitions.len()));
        let near = |list: &[Told]| format!("{:#?}", &list[place.saturating_sub(2)..list.len().min(place + 4)]);
        eprintln!(
            "{}: {} expected, {} there; from number {place} on expected {}, there {}",
            alarm.name,
            alarm.transitions.len(),
            told.len(),
            near(&alarm.transitions),
            near(&told)
        );
    }
}

fn compare_notices(
    verdict: &mut Verdict,
    alarm: &Expected,
    receipts: Vec<Receipt>,
    interruptions: &[Timestamp],
    is_echo: impl Fn(&Told) -> bool,
) {
    let mut echoes = 0;
    verdict.notices += alarm.notices.len();
    let mut by_id: BTreeMap<String, Vec<Receipt>> = BTreeMap::new();
    for receipt in receipts {
        by_id.entry(receipt.notice_id.clone()).or_default().push(receipt);
    }
    let mut left: Vec<&Told> = alarm.notices.iter().collect();
    for (id, tries) in &mut by_id {
        tries.sort_by_key(|receipt| receipt.at);
        let body = &tries[0].body;
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let told = Told { state: text("current"), reason: text("reason") };
        let is_changed = tries.iter().any(|other| other.body != *body);
        let place = left.iter().position(|expected| is_same(expected, &told));
        match place {
            Some(place) if !is_changed => {
                left.remove(place);
            }
            None if is_echo(&told) && !is_changed && echoes == 0 => echoes += 1,
            _ => {
                eprintln!("{}: unexpected notice {id}: {body}", alarm.name);
                verdict.unexpected += 1;
            }
        }
        if !tries.iter().any(|receipt| receipt.is_accepted) {
            verdict.undelivered += 1;
        }
        for pair in tries.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let is_near = |at: &Timestamp| {
                *at <= second.at && at.since(first.at) <= NOTE_LIMIT && first.at.since(*at) <= NOTE_LIMIT
            };
            if !first.is_accepted {
                verdict.again_unanswered += 1;
            } else if interruptions.iter().any(is_near) {
                verdict.again_killed += 1;
            } else {
                eprintln!("{}: notice {id} at {} and again at {}", alarm.name, first.at, second.at);
                verdict.again_unexplained += 1;
            }
        }
    }
    if !left.is_empty() {
        eprintln!("{}: not delivered: {:#?}", alarm.name, &left[..left.len().min(4)]);
    }
    verdict.undelivered += left.len();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(state: &str, reason: &str) -> Told {
        Told { state: state.into(), reason: reason.into() }
    }

    fn receipt(id: &str, state: &str, second: i64, is_accepted: bool) -> Receipt {
        let body = json!({"current": state, "reason": state});
        Receipt { notice_id: id.into(), body, at: Timestamp::from_secs(second), is_accepted }
    }

    #[test]
    fn each_kind_of_mistake_is_found_in_a_history() {
        let alarm = Expected::of(vec![told("alarm", "1"), told("ok", "2"), told("alarm", "3")]);
        let found = |history: &[(&str, &str)]| {
            let mut verdict = Verdict::default();
            let history = history.iter().map(|(state, reason)| told(state, reason)).collect();
            compare_history(&mut verdict, &alarm, history);
            (verdict.missed, verdict.duplicate, verdict.wrong)
        };
        let end = ("insufficient data", "none");
        assert_eq!(found(&[("alarm", "1"), ("ok", "2"), ("alarm", "3")]), (0, 0, 0));
        assert_eq!(found(&[("alarm", "1"), ("ok", "2"), ("alarm", "3"), end]), (0, 0, 0));
        assert_eq!(found(&[("alarm", "1"), ("ok", "2")]), (1, 0, 0));
        assert_eq!(found(&[("alarm", "1"), ("ok", "2"), ("ok", "2"), ("alarm", "3")]), (0, 1, 0));
        assert_eq!(found(&[("ok", "2"), ("alarm", "1"), ("alarm", "3")]), (0, 0, 1));
        assert_eq!(found(&[("alarm", "1"), end, ("ok", "2"), ("alarm", "3")]), (0, 0, 1));
    }

    #[test]
    fn a_second_delivery_needs_a_reason() {
        let mut alarm = Expected::of(Vec::new());
        alarm.notices = vec![told("alarm", "alarm"), told("ok", "ok")];
        let found = |receipts: Vec<Receipt>, kills: &[i64]| {
            let mut verdict = Verdict::default();
            let kills: Vec<Timestamp> = kills.iter().map(|second| Timestamp::from_secs(*second)).collect();
            compare_notices(&mut verdict, &alarm, receipts, &kills, |_| false);
            let again = (verdict.again_unanswered, verdict.again_killed, verdict.again_unexplained);
            (verdict.undelivered, verdict.unexpected, again)
        };
        let ok = receipt("b", "ok", 9, true);
        let first = receipt("a", "alarm", 10, true);
        let again = receipt("a", "alarm", 20, true);
        assert_eq!(found(vec![first.clone(), ok.clone()], &[]), (0, 0, (0, 0, 0)));
        assert_eq!(found(vec![first.clone()], &[]), (1, 0, (0, 0, 0)));
        assert_eq!(found(vec![first.clone(), ok.clone(), again.clone()], &[]), (0, 0, (0, 0, 1)));
        assert_eq!(found(vec![first.clone(), ok.clone(), again.clone()], &[11]), (0, 0, (0, 1, 0)));
        assert_eq!(found(vec![first.clone(), ok.clone(), again.clone()], &[5, 16, 21]), (0, 0, (0, 0, 1)));
        let unanswered = receipt("a", "alarm", 10, false);
        assert_eq!(found(vec![unanswered.clone(), ok.clone(), again], &[]), (0, 0, (1, 0, 0)));
        assert_eq!(found(vec![unanswered, ok.clone()], &[]), (1, 0, (0, 0, 0)));
        let other_id = receipt("c", "alarm", 11, true);
        assert_eq!(found(vec![first, ok, other_id], &[]), (0, 1, (0, 0, 0)));
    }
}
