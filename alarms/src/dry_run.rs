//! A dry run: when would a rule have fired, had there been an alarm with it? Nothing is kept and nobody is told.
//!
//! `rule, from, to → windows (one read for all) → judge each in order → timeline`. The same judgement as the
//! evaluator's, on the same windows.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use orzo_model::{EventFeed, InstantQueries, ReadError, Scope, Timestamp, WindowReader};
use serde_json::{Value, json};

use crate::{
    alarm::{AlarmState, TimeConstraint},
    constraints,
    readings::{Reading, finding_of, leaves_of, own_end, query_scope, questions_of, reach_of},
    rule::{PrometheusRule, Rule},
    verdict::{self, Judgement, composite, others},
    windows::{Place, Windows},
};

/// Windows of one dry run: a week of minutes.
const WINDOWS_MAX: u64 = 10_080;
/// The same for rules that ask in PromQL: each window is a query.
const QUERIES_MAX: u64 = 360;
/// Events looked at in one dry run.
const EVENTS_MAX: usize = 10_000;

/// What is tried out.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The rule.
    pub rule: Rule,
    /// When it would have been evaluated.
    pub time_constraints: Vec<TimeConstraint>,
    /// Whether notices would have been repeated.
    pub repeat_actions: bool,
    /// How far its reads may look.
    pub scope: Scope,
    /// Whose alarm it would be: whose events.
    pub project_id: String,
    /// The first window is the one that ends then or next.
    pub start: Timestamp,
    /// The last window ends at the latest then.
    pub stop: Timestamp,
}

/// What a dry run reads from.
#[derive(Clone, Copy)]
pub struct DryRunReaders<'a> {
    /// Windows of samples.
    pub windows: &'a dyn WindowReader,
    /// Events, for event rules.
    pub events: Option<&'a dyn EventFeed>,
    /// Answers `prometheus` rules; without it they are refused.
    pub prometheus: Option<&'a dyn InstantQueries>,
}

/// What would have been.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// For each window: its end, the newest value (of a rule that is no composite) and the state after it.
    pub windows: Vec<TriedWindow>,
    /// Every change of state, and every repetition.
    pub turns: Vec<Turn>,
}

/// A window of a dry run.
#[derive(Clone, Debug, PartialEq)]
pub struct TriedWindow {
    /// Its end.
    pub end: Timestamp,
    /// The newest value that was compared.
    pub value: Option<f64>,
    /// The state after it.
    pub state: AlarmState,
}

/// A notice that would have been sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The end of the window, or when the event was generated.
    pub at: Timestamp,
    /// The state before.
    pub previous: AlarmState,
    /// The judgement.
    pub judgement: Judgement,
}

/// Why there is no timeline.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DryRunError {
    /// The question is wrong (400).
    #[error("{0}")]
    Refused(String),
    /// It cannot be read now (503).
    #[error("cannot read now: {0}")]
    Unavailable(String),
}

impl Timeline {
    /// As the API shows it.
    pub fn to_json(&self) -> Value {
        let windows: Vec<Value> = self
            .windows
            .iter()
            .map(|window| {
                let value = window.value.filter(|value| value.is_finite());
                json!({"end": window.end.naive(), "value": value, "state": window.state})
            })
            .collect();
        let turns: Vec<Value> = self
            .turns
            .iter()
            .map(|turn| {
                json!({
                    "timestamp": turn.at.naive(), "previous": turn.previous, "current": turn.judgement.state,
                    "reason": turn.judgement.reason, "reason_data": turn.judgement.reason_data,
                })
            })
            .collect();
        json!({"windows": windows, "transitions": turns})
    }
}

/// Says when an alarm with this rule would have fired.
pub async fn test_rule(readers: DryRunReaders<'_>, run: &DryRun) -> Result<Timeline, DryRunError> {
    if run.stop <= run.start {
        return Err(DryRunError::Refused("the stop must be after the start".into()));
    }
    match &run.rule {
        Rule::Event(_) => by_events(readers, run).await,
        Rule::MemberHealth(_) | Rule::Combination(_) => Err(DryRunError::Refused(format!(
            "a rule of type {} asks about now; there is no past to try it on",
            run.rule.type_name()
        ))),
        _ => by_windows(readers, run).await,
    }
}

async fn by_windows(readers: DryRunReaders<'_>, run: &DryRun) -> Result<Timeline, DryRunError> {
    let width = run.rule.granularity();
    let leaves = leaves_of(&run.rule);
    let asks = leaves.iter().any(|leaf| matches!(leaf, Rule::Prometheus(_)));
    let ends = ends_of(run, width, if asks { QUERIES_MAX } else { WINDOWS_MAX })?;
    let (Some(first), Some(last)) = (ends.front().copied(), ends.back().copied()) else {
        return Ok(Timeline::default());
    };
    let mut windows = Windows::default();
    let mut places: Vec<Vec<Place>> = Vec::new();
    let mut wanted = HashMap::new();
    for leaf in &leaves {
        let own: Vec<Place> =
            questions_of(leaf, &run.scope).into_iter().map(|question| windows.enter(question)).collect();
        for place in &own {
            wanted.insert(*place, (own_end(leaf, first).minus(reach_of(leaf)), own_end(leaf, last)));
        }
        places.push(own);
    }
    windows.read(readers.windows, &wanted, Duration::ZERO, None).await;
    let mut timeline = Timeline::default();
    let mut state = AlarmState::InsufficientData;
    for end in ends {
        if !constraints::are_open(&run.time_constraints, end) {
            continue;
        }
        let mut findings = Vec::new();
        for (leaf, places) in leaves.iter().zip(&places) {
            let values;
            let reading = match leaf {
                Rule::Prometheus(rule) => {
                    values = ask(readers, run, rule, end).await?;
                    Reading::Values(Ok(&values))
                }
                leaf => {
                    let end = own_end(leaf, end);
                    let of = |place: &Place| windows.between(*place, end.minus(reach_of(leaf)), end);
                    Reading::Windows(places.iter().map(of).collect())
                }
            };
            findings.push(finding_of(leaf, state, &reading).map_err(DryRunError::Unavailable)?);
        }
        let judgement = match (&run.rule, findings.as_slice()) {
            (Rule::Composite(rule), findings) => composite::decide(state, run.repeat_actions, rule, findings),
            (_, [finding]) => verdict::decide(state, run.repeat_actions, finding),
            _ => None,
        };
        let value = match findings.as_slice() {
            [finding] => finding.most_recent,
            _ => None,
        };
        if let Some(judgement) = judgement {
            let previous = std::mem::replace(&mut state, judgement.state);
            timeline.turns.push(Turn { at: end, previous, judgement });
        }
        timeline.windows.push(TriedWindow { end, value, state });
    }
    Ok(timeline)
}

/// The ends of the windows, first to last.
fn ends_of(run: &DryRun, width: Duration, most: u64) -> Result<VecDeque<Timestamp>, DryRunError> {
    let last = run.stop.floor(width);
    let first = run.start.floor(width);
    let first = if first < run.start { first.plus(width) } else { first };
    let count = last.since(first).as_micros() / width.as_micros().max(1) + 1;
    if first <= last && count > u128::from(most) {
        return Err(DryRunError::Refused(format!(
            "{count} windows of {} seconds are too many for one dry run; at most {most}",
            width.as_secs()
        )));
    }
    let mut ends = VecDeque::new();
    let mut end = first;
    while end <= last {
        ends.push_back(end);
        end = end.plus(width);
    }
    Ok(ends)
}

async fn ask(
    readers: DryRunReaders<'_>,
    run: &DryRun,
    rule: &PrometheusRule,
    at: Timestamp,
) -> Result<Vec<f64>, DryRunError> {
    let Some(queries) = readers.prometheus else {
        return Err(DryRunError::Refused("nobody answers PromQL here".into()));
    };
    let answer = queries.instant(&query_scope(rule, &run.scope), &rule.query, at).await;
    answer.map_err(|error| match error {
        ReadError::Unavailable { reason } => DryRunError::Unavailable(reason),
        ReadError::NotFound { .. } | ReadError::Invalid { .. } => DryRunError::Refused(error.to_string()),
    })
}

async fn by_events(readers: DryRunReaders<'_>, run: &DryRun) -> Result<Timeline, DryRunError> {
    let Rule::Event(rule) = &run.rule else { return Ok(Timeline::default()) };
    let Some(feed) = readers.events else {
        return Err(DryRunError::Refused("this process has no events".into()));
    };
    let found = feed.events_between(&run.project_id, run.start, run.stop, EVENTS_MAX + 1).await;
    let events = found.map_err(|error| DryRunError::Unavailable(error.to_string()))?;
    if events.len() > EVENTS_MAX {
        return Err(DryRunError::Refused(format!(
            "more than {EVENTS_MAX} events are too many for one dry run; try a shorter time"
        )));
    }
    let mut timeline = Timeline::default();
    let mut state = AlarmState::InsufficientData;
    let mut fired_at = run.start;
    let turn = |timeline: &mut Timeline, state: &mut AlarmState, at: Timestamp, judgement: Judgement| {
        let previous = std::mem::replace(state, judgement.state);
        timeline.turns.push(Turn { at, previous, judgement });
        timeline.windows.push(TriedWindow { end: at, value: None, state: *state });
    };
    for event in &events {
        let at = event.generated_at;
        resolve_by_time(rule.resolve_after, fired_at, at, state, |seconds, when| {
            turn(&mut timeline, &mut state, when, others::resolved_by_time(seconds));
        });
        if !constraints::are_open(&run.time_constraints, at) {
            continue;
        }
        let is_on = state == AlarmState::Alarm;
        if (!is_on || run.repeat_actions) && others::hits(rule, event) {
            turn(&mut timeline, &mut state, at, others::event(rule, AlarmState::Alarm, event));
            fired_at = at;
        } else if is_on && others::resolves(rule, event) {
            turn(&mut timeline, &mut state, at, others::event(rule, AlarmState::Ok, event));
        }
    }
    resolve_by_time(rule.resolve_after, fired_at, run.stop, state, |seconds, when| {
        turn(&mut timeline, &mut state, when, others::resolved_by_time(seconds));
    });
    Ok(timeline)
}

/// An alarm that is on goes off by itself, if its time is over by then.
fn resolve_by_time(
    after: Option<u32>,
    fired_at: Timestamp,
    now: Timestamp,
    state: AlarmState,
    off: impl FnOnce(u32, Timestamp),
) {
    if let (Some(seconds), AlarmState::Alarm) = (after, state) {
        let when = fired_at.plus(Duration::from_secs(u64::from(seconds)));
        if when <= now {
            off(seconds, when);
        }
    }
}
