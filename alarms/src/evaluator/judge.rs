//! One round of judging: read what all need, then for each alarm window after window until one is worth writing; write
//! these together; go on.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use futures::{StreamExt, stream};
use orzo_model::{ReadError, Timestamp};

use super::{Evaluator, RETRY, State, alarms::Key, commit::Writing, last_end};
use crate::{
    alarm::AlarmState,
    book::BookError,
    constraints,
    readings::{Reading, finding_of, leaves_of, own_end, query_scope, reach_of, scope_of},
    rule::Rule,
    verdict::{self, Judgement, composite, others},
    windows::Place,
};

/// Windows judged at most after a pause; what is older is skipped and counted: nobody wants yesterday's alarms now.
const CATCH_UP_WINDOWS_MAX: u64 = 240;
/// The same for rules that ask in PromQL: each window is a query.
const CATCH_UP_QUERIES_MAX: u64 = 10;
/// No further query is begun after this, so that the leases are kept and alarms of other kinds do not wait; what was not asked
/// is asked in the next round.
const QUERIES_SPAN: Duration = Duration::from_secs(5);
/// Requests to other services under way at once.
const REQUESTS_MAX: usize = 8;

/// An alarm with the ends of its windows that are still to be judged.
struct Task {
    key: Key,
    ends: VecDeque<Timestamp>,
    /// The first of them was judged before: it is told only if the state changes.
    is_again: bool,
}

/// What other services answered.
#[derive(Default)]
struct Answers {
    /// Of instant queries: alarm, part, time.
    values: HashMap<(Key, usize, Timestamp), Result<Vec<f64>, ReadError>>,
    /// Members of pools.
    members: HashMap<Key, Result<Vec<serde_json::Value>, String>>,
    /// States of other alarms.
    states: HashMap<Key, Vec<Option<AlarmState>>>,
}

/// What judging one window gave.
enum Outcome {
    Nothing,
    Worth(Judgement),
    /// It could not be read.
    Later,
}

impl Evaluator {
    /// Judges alarms; how many could not be and are tried again later.
    pub(super) async fn judge_all(&self, state: &mut State, due: Vec<Key>) -> Result<u64, BookError> {
        self.hear(state, &due).await;
        let mut tasks: Vec<Task> = Vec::new();
        let mut later = 0;
        for key in due {
            match self.task(state, key) {
                Some(task) => tasks.push(task),
                None => self.reschedule(state, key),
            }
        }
        self.read(state, &tasks).await;
        let answers = self.ask(state, &tasks).await?;
        while !tasks.is_empty() {
            let mut writings: Vec<Writing> = Vec::new();
            let mut unfinished: Vec<Task> = Vec::new();
            for mut task in tasks {
                match self.advance(state, &mut task, &answers) {
                    Ok(None) => self.finish(state, task.key),
                    Ok(Some(writing)) => {
                        writings.push(writing);
                        unfinished.push(task);
                    }
                    Err(reason) => {
                        tracing::debug!(reason, "an alarm will be evaluated later");
                        later += 1;
                        let at = self.parts.clock.now().plus(RETRY);
                        state.alarms.schedule(task.key, at);
                    }
                }
            }
            let keys: Vec<Key> = unfinished.iter().map(|task| task.key).collect();
            if let Err(error) = self.commit(state, writings).await {
                let at = self.parts.clock.now().plus(RETRY);
                for key in keys {
                    state.alarms.schedule(key, at);
                }
                return Err(error);
            }
            tasks = unfinished.into_iter().filter(|task| state.alarms.get(task.key).is_some()).collect();
        }
        Ok(later)
    }

    /// Samples of alarms that are new here are heard from now on, and not only from their first window on: the sample that
    /// turns an alarm may come before.
    async fn hear(&self, state: &mut State, due: &[Key]) {
        let watched = due.iter().filter_map(|key| state.alarms.get(*key));
        let places = watched.flat_map(|watched| watched.leaves.iter().flatten().copied());
        let unknown: HashSet<Place> = places.filter(|place| !state.windows.is_known(*place)).collect();
        if !unknown.is_empty() {
            let now = self.parts.clock.monotonic();
            let arrivals = self.parts.arrivals.as_deref();
            state.windows.hear(self.parts.reader.as_ref(), unknown.into_iter(), now, arrivals).await;
        }
    }

    fn finish(&self, state: &mut State, key: Key) {
        if let Some(watched) = state.alarms.get_mut(key) {
            watched.is_stale = false;
        }
        self.reschedule(state, key);
    }

    /// The windows of an alarm that can be judged now.
    fn task(&self, state: &State, key: Key) -> Option<Task> {
        let watched = state.alarms.get(key)?;
        let now = self.parts.clock.now();
        if let Some(at) = watched.resolves_at()
            && at <= now
        {
            return Some(Task { key, ends: VecDeque::from([now]), is_again: false });
        }
        if watched.is_event() {
            return None;
        }
        let last = last_end(watched, &state.windows, now, self.lag());
        let width = watched.width;
        let mut ends = VecDeque::new();
        let is_windowed = !watched.leaves.iter().all(Vec::is_empty);
        if watched.is_stale && is_windowed {
            ends.push_back(watched.judged_until.floor(width));
        }
        let is_again = !ends.is_empty();
        let mut next = watched.next_end();
        let asks_now = matches!(watched.alarm.rule, Rule::MemberHealth(_) | Rule::Combination(_));
        if asks_now {
            // They know only how things are now.
            let is_hurried = matches!(watched.alarm.rule, Rule::Combination(_));
            return (is_hurried || next <= last).then(|| Task {
                key,
                ends: VecDeque::from([last.max(watched.judged_until)]),
                is_again: next > last,
            });
        }
        let most = if leaves_of(&watched.alarm.rule).iter().any(|leaf| matches!(leaf, Rule::Prometheus(_))) {
            CATCH_UP_QUERIES_MAX
        } else {
            CATCH_UP_WINDOWS_MAX
        };
        let missed = last.since(next).as_micros() / width.as_micros().max(1);
        if missed > u128::from(most) {
            tracing::warn!(
                alarm = watched.alarm.alarm_id, windows = %missed,
                "too many windows were missed; the oldest are skipped"
            );
            next = last.minus(width * (most as u32));
        }
        while next <= last {
            ends.push_back(next);
            next = next.plus(width);
        }
        (!ends.is_empty()).then_some(Task { key, ends, is_again })
    }

    /// Reads the windows that the tasks look at, each question once.
    async fn read(&self, state: &mut State, tasks: &[Task]) {
        let mut wanted: HashMap<Place, (Timestamp, Timestamp)> = HashMap::new();
        for task in tasks {
            let (Some(watched), Some(first), Some(last)) =
                (state.alarms.get(task.key), task.ends.front(), task.ends.back())
            else {
                continue;
            };
            for (leaf, places) in leaves_of(&watched.alarm.rule).into_iter().zip(&watched.leaves) {
                let start = own_end(leaf, *first).minus(reach_of(leaf));
                let end = own_end(leaf, *last);
                for place in places {
                    let range = wanted.entry(*place).or_insert((start, end));
                    *range = (range.0.min(start), range.1.max(end));
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        let now = self.parts.clock.monotonic();
        state.windows.read(self.parts.reader.as_ref(), &wanted, now, self.parts.arrivals.as_deref()).await;
    }

    /// Asks other services, and the book for other alarms' states.
    async fn ask(&self, state: &State, tasks: &[Task]) -> Result<Answers, BookError> {
        let mut answers = Answers::default();
        let mut queries = Vec::new();
        let mut asked: HashMap<&str, usize> = HashMap::new();
        let mut pools = Vec::new();
        for task in tasks {
            let Some(watched) = state.alarms.get(task.key) else { continue };
            let alarm = &watched.alarm;
            match &alarm.rule {
                Rule::MemberHealth(rule) => pools.push((task.key, rule.pool_id.clone())),
                Rule::Combination(rule) => {
                    let project = (!alarm.is_operators).then_some(alarm.project_id.as_str());
                    let states = self.parts.book.states(&rule.alarm_ids, project).await?;
                    answers.states.insert(task.key, states);
                }
                rule => {
                    for (place, leaf) in leaves_of(rule).into_iter().enumerate() {
                        let Rule::Prometheus(rule) = leaf else { continue };
                        let scope = query_scope(rule, &scope_of(alarm));
                        for end in &task.ends {
                            let turn = asked.entry(&alarm.project_id).or_default();
                            queries.push((*turn, (task.key, place, *end), scope.clone(), rule.query.clone()));
                            *turn += 1;
                        }
                    }
                }
            }
        }
        // The first of each project, then the second of each: whose queries are many or slow waits for itself.
        queries.sort_by_key(|(turn, ..)| *turn);
        let until = self.parts.clock.monotonic() + QUERIES_SPAN;
        answers.values = stream::iter(queries)
            .map(|(_, at, scope, query)| async move {
                if self.parts.clock.monotonic() > until {
                    return None;
                }
                let answer = match &self.parts.prometheus {
                    None => Err(ReadError::Unavailable { reason: "nobody answers PromQL".to_owned() }),
                    Some(queries) => queries.instant(&scope, &query, at.2).await,
                };
                Some((at, answer))
            })
            .buffer_unordered(REQUESTS_MAX)
            .filter_map(std::future::ready)
            .collect()
            .await;
        answers.members = stream::iter(pools)
            .map(|(key, pool)| async move {
                let answer = match &self.parts.members {
                    None => Err("there is no load balancing service".to_owned()),
                    Some(members) => members.members(&pool).await,
                };
                (key, answer)
            })
            .buffer_unordered(REQUESTS_MAX)
            .collect()
            .await;
        Ok(answers)
    }

    /// Judges the windows of a task until one is worth writing; `None` when all are judged.
    fn advance(&self, state: &mut State, task: &mut Task, answers: &Answers) -> Result<Option<Writing>, String> {
        while let Some(end) = task.ends.front().copied() {
            let is_again = std::mem::take(&mut task.is_again);
            let outcome = self.judge_one(state, task.key, end, is_again, answers);
            let outcome = match outcome {
                Outcome::Later => return Err(format!("window {end} cannot be read")),
                other => other,
            };
            task.ends.pop_front();
            let Some(watched) = state.alarms.get_mut(task.key) else { return Ok(None) };
            if matches!(outcome, Outcome::Nothing) {
                watched.judged_until = watched.judged_until.max(end);
            }
            // What is worth writing counts as judged when it is written.
            if let Outcome::Worth(judgement) = outcome {
                return Ok(Some(Writing {
                    key: task.key,
                    judgement,
                    until: Some(end),
                    events_until: None,
                    is_recorded: false,
                }));
            }
        }
        Ok(None)
    }

    fn judge_one(&self, state: &State, key: Key, end: Timestamp, is_again: bool, answers: &Answers) -> Outcome {
        let Some(watched) = state.alarms.get(key) else { return Outcome::Nothing };
        let alarm = &watched.alarm;
        if let Rule::Event(rule) = &alarm.rule {
            return Outcome::Worth(others::resolved_by_time(rule.resolve_after.unwrap_or(0)));
        }
        if !constraints::are_open(&alarm.time_constraints, end) {
            return Outcome::Nothing;
        }
        // What is judged again is not told again.
        let repeats = alarm.repeat_actions && !is_again;
        let judgement = match &alarm.rule {
            Rule::MemberHealth(rule) => {
                let members = match answers.members.get(&key) {
                    Some(Ok(members)) => Ok(members.as_slice()),
                    Some(Err(reason)) => {
                        tracing::debug!(reason, "members of a pool cannot be listed");
                        Err("failed to communicate with load balancing service")
                    }
                    None => return Outcome::Later,
                };
                others::member_health(alarm.state, repeats, rule, members, end)
            }
            Rule::Combination(rule) => match answers.states.get(&key) {
                Some(states) => others::combination(alarm.state, repeats, rule, states),
                None => return Outcome::Later,
            },
            rule => {
                let mut findings = Vec::new();
                let mut error = None;
                let evaluations = self.parts.book.evaluations();
                let ended = |error: Option<&str>| evaluations.ended(&alarm.alarm_id, self.parts.clock.now(), error);
                for (place, (leaf, places)) in leaves_of(rule).into_iter().zip(&watched.leaves).enumerate() {
                    let reading = match leaf {
                        Rule::Prometheus(_) => match answers.values.get(&(key, place, end)) {
                            Some(Err(ReadError::Unavailable { reason })) => {
                                tracing::warn!(alarm = alarm.alarm_id, reason, "a Prometheus rule is not evaluated");
                                ended(Some(reason));
                                return Outcome::Nothing;
                            }
                            Some(answer) => {
                                error = error.or(answer.as_ref().err().map(ReadError::to_string));
                                Reading::Values(answer.as_deref())
                            }
                            None => return Outcome::Later,
                        },
                        leaf => {
                            let end = own_end(leaf, end);
                            let start = end.minus(reach_of(leaf));
                            let of = |place: &Place| state.windows.between(*place, start, end);
                            Reading::Windows(places.iter().map(of).collect())
                        }
                    };
                    match finding_of(leaf, alarm.state, &reading) {
                        Ok(finding) => findings.push(finding),
                        Err(reason) => {
                            tracing::debug!(alarm = alarm.alarm_id, reason, "a window cannot be read");
                            ended(Some(&reason));
                            return Outcome::Later;
                        }
                    }
                }
                ended(error.as_deref());
                match (rule, findings.as_slice()) {
                    (Rule::Composite(rule), findings) => composite::decide(alarm.state, repeats, rule, findings),
                    (_, [finding]) => {
                        // Aodh counts what the values agree on.
                        if let Some(found) = finding.state().filter(|_| !is_again) {
                            evaluations.count(&alarm.alarm_id, &alarm.project_id, found);
                        }
                        verdict::decide(alarm.state, repeats, finding)
                    }
                    _ => None,
                }
            }
        };
        match judgement {
            // Also where Aodh's rules would tell something again: only a change counts the second time.
            Some(judgement) if is_again && judgement.state == alarm.state => Outcome::Nothing,
            Some(judgement) => Outcome::Worth(judgement),
            None => Outcome::Nothing,
        }
    }
}
