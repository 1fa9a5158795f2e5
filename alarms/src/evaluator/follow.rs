//! What the evaluator follows: its leases, the alarms that others change, samples and events that arrive.

use std::{collections::HashMap, sync::Arc, time::Duration};

use orzo_model::{ReadError, Timestamp};
use tokio::sync::broadcast::error::TryRecvError;

use super::{Evaluator, FOLLOW_INTERVAL, FOLLOW_OVERLAP, Held, RETRY, State, alarms::Key, commit::Writing};
use crate::{
    alarm::{Alarm, AlarmState},
    book::{BookError, Lease, Told, partition_of},
    constraints,
    rule::Rule,
    verdict::others,
};

/// Events taken from the feed at once.
const EVENTS_AT_ONCE: usize = 1000;

impl Evaluator {
    fn lease(&self) -> Duration {
        Duration::from_millis(self.settings.lease_ms.max(1))
    }

    /// Whether a third of the leases is over.
    pub(super) fn is_renewal_due(&self, state: &State) -> bool {
        let now = self.parts.clock.now();
        state.renewed_at.is_none_or(|at| now.since(at) >= self.lease() / 3)
            || state.leases.values().any(|held| held.until <= now)
    }

    /// Renews the leases in time, takes free partitions with their alarms, and forgets those that are lost.
    pub(super) async fn renew(&self, state: &mut State) -> Result<(), BookError> {
        if !self.is_renewal_due(state) {
            return Ok(());
        }
        let now = self.parts.clock.now();
        let lease = self.lease();
        let until = now.plus(lease);
        let marks = self.marks(state);
        let granted = match self.parts.book.claim(&self.owner, &marks, lease).await {
            Ok(granted) => granted,
            Err(error) => {
                // Without a lease nothing is judged: somebody else may be doing it.
                let lost: Vec<usize> =
                    state.leases.iter().filter(|(_, held)| held.until <= now).map(|(place, _)| *place).collect();
                lost.into_iter().for_each(|partition| forget(state, partition));
                return Err(error);
            }
        };
        state.renewed_at = Some(now);
        let lost: Vec<usize> = state
            .leases
            .iter()
            .filter(|(place, held)| {
                !granted.iter().any(|lease| lease.partition == **place && lease.token == held.lease.token)
            })
            .map(|(place, _)| *place)
            .collect();
        lost.into_iter().for_each(|partition| forget(state, partition));
        let mut is_new = false;
        for lease in granted {
            match state.leases.get_mut(&lease.partition) {
                Some(held) => held.until = until,
                None => {
                    is_new = true;
                    self.adopt(state, lease, until).await?;
                }
            }
        }
        if is_new {
            // Where events are followed from is kept before the first of them is looked at.
            let marks = self.marks(state);
            self.parts.book.claim(&self.owner, &marks, lease).await?;
        }
        Ok(())
    }

    async fn adopt(&self, state: &mut State, lease: Lease, until: Timestamp) -> Result<(), BookError> {
        let mut lease = lease;
        let partition = lease.partition;
        // Asked before the alarms are read: what comes later is after this number.
        let newest = match &self.parts.events {
            Some(events) if lease.events_until == 0 => events.newest_event().await,
            _ => Ok(0),
        };
        let alarms = self.parts.book.partition(partition).await?;
        if lease.events_until == 0 {
            // Nobody has followed events for this partition yet. They count from now on; from the alarm on if there is
            // one that waits for them, and then all are looked at.
            let is_waited_for = alarms.iter().any(|alarm| matches!(alarm.rule, Rule::Event(_)));
            lease.events_until = match newest {
                Ok(number) if lease.evaluated_until == Timestamp::EPOCH && !is_waited_for => number,
                Ok(_) => 0,
                Err(error) => {
                    tracing::debug!(%error, "events are followed later");
                    0
                }
            };
        }
        let mark = lease.evaluated_until;
        state.events_after = Some(state.events_after.map_or(lease.events_until, |after| after.min(lease.events_until)));
        state.leases.insert(partition, Held { lease, until });
        for alarm in alarms {
            // A young alarm may have been made while the mark went past it.
            let is_young = alarm.timestamp >= mark.minus(FOLLOW_OVERLAP);
            let judged = if is_young { alarm.evaluated_until } else { alarm.evaluated_until.max(mark) };
            // A sample may have come for the newest window that was judged, and nobody has looked since.
            let was_judged = judged >= alarm.timestamp.floor(alarm.rule.granularity());
            let key = self.watch_alarm(state, alarm, judged);
            if let Some(watched) = state.alarms.get_mut(key) {
                watched.is_stale = was_judged;
            }
        }
        Ok(())
    }

    /// Watches an alarm and has it judged as soon as its next window closes.
    fn watch_alarm(&self, state: &mut State, alarm: Alarm, judged_until: Timestamp) -> Key {
        let key = state.alarms.enter(alarm, judged_until, &mut state.windows);
        self.reschedule(state, key);
        let places = state.alarms.get(key).into_iter().flat_map(|watched| watched.leaves.iter().flatten());
        if places.copied().any(|place| !state.windows.is_known(place)) {
            // Its series are looked for at once, so that the sample that closes its next window is heard.
            state.hurried.insert(key);
        }
        key
    }

    /// The time at which an alarm is to be judged next.
    pub(super) fn reschedule(&self, state: &mut State, key: Key) {
        let Some(watched) = state.alarms.get(key) else { return };
        let at = if watched.is_event() { watched.resolves_at() } else { Some(watched.next_end().plus(self.lag())) };
        if let Some(at) = at {
            state.alarms.schedule(key, at);
        }
    }

    /// How far each partition has come.
    pub(super) fn marks(&self, state: &State) -> Vec<Lease> {
        let by_lag = self.parts.clock.now().minus(self.lag());
        let mut marks: HashMap<usize, Timestamp> = state.leases.keys().map(|place| (*place, by_lag)).collect();
        for watched in state.alarms.iter().filter(|watched| !watched.is_event()) {
            if let Some(mark) = marks.get_mut(&watched.partition) {
                // Just before the end of the first window that is not judged.
                *mark = (*mark).min(watched.next_end().minus(Duration::from_micros(1)));
            }
        }
        let marked = |held: &Held| Lease {
            evaluated_until: marks[&held.lease.partition].max(held.lease.evaluated_until),
            ..held.lease.clone()
        };
        state.leases.values().map(marked).collect()
    }

    /// Takes over what was changed through the API: of this process as it is told, of others by looking for it.
    pub(super) async fn follow_changes(&self, state: &mut State) -> Result<(), BookError> {
        if state.leases.is_empty() {
            return Ok(());
        }
        let is_behind = self.follow_told(state);
        let now = self.parts.clock.now();
        let is_due = state.followed_at.is_none_or(|at| now.since(at) >= FOLLOW_INTERVAL);
        if !(is_behind || is_due) {
            return Ok(());
        }
        // What this process changed has the time of its clock; others' clocks may be behind.
        let overlap = if is_due { FOLLOW_OVERLAP } else { FOLLOW_INTERVAL };
        let since = state.followed_at.unwrap_or(now).minus(overlap);
        let (changed, removed) = self.parts.book.changed_since(since).await?;
        for id in removed {
            if let Some(key) = state.alarms.key(&id) {
                state.alarms.leave(key, &mut state.windows);
            }
        }
        let wanted = unknown(state, changed);
        for alarm in self.parts.book.alarms(&wanted).await? {
            self.take_over(state, alarm);
        }
        if is_due {
            state.followed_at = Some(now);
        }
        Ok(())
    }

    /// Takes over event alarms that other processes have changed: events that came after such a change are judged by it.
    async fn follow_event_alarms(&self, state: &mut State) -> Result<(), BookError> {
        let since = self.parts.clock.now().minus(FOLLOW_OVERLAP);
        let changed = self.parts.book.event_alarms_changed_since(since).await?;
        let wanted = unknown(state, changed);
        for alarm in self.parts.book.alarms(&wanted).await? {
            self.take_over(state, alarm);
        }
        Ok(())
    }

    /// Takes over what this process was told; whether there was more than could be kept, so that it must be read.
    fn follow_told(&self, state: &mut State) -> bool {
        let mut is_behind = false;
        loop {
            match state.told.try_recv() {
                Ok(Told::Written(alarm)) => self.take_over(state, Arc::unwrap_or_clone(alarm)),
                Ok(Told::Removed(alarm_id)) => {
                    if let Some(key) = state.alarms.key(&alarm_id) {
                        state.alarms.leave(key, &mut state.windows);
                    }
                }
                Err(TryRecvError::Lagged(_)) => is_behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return is_behind,
            }
        }
    }

    /// Replaces the alarm in memory by a newer one.
    pub(super) fn take_over(&self, state: &mut State, alarm: Alarm) {
        if !state.leases.contains_key(&partition_of(&alarm.alarm_id)) {
            return;
        }
        let known = state.alarms.key(&alarm.alarm_id);
        let before = known.and_then(|key| state.alarms.get(key));
        if before.is_some_and(|watched| watched.alarm.revision >= alarm.revision) {
            return;
        }
        if !alarm.enabled {
            if let Some(key) = known {
                state.alarms.leave(key, &mut state.windows);
            }
            return;
        }
        let judged = match before {
            // The row is written when something changes; memory knows better how far it has come.
            Some(watched) if watched.width == alarm.rule.granularity() && watched.alarm.rule == alarm.rule => {
                watched.judged_until.max(alarm.evaluated_until)
            }
            _ => alarm.evaluated_until,
        };
        let dependents = state.alarms.dependents(&alarm.alarm_id).to_vec();
        self.watch_alarm(state, alarm, judged);
        state.awaiting.extend(dependents);
    }

    /// What samples have come, and what that means: windows to read again, alarms to judge now.
    pub(super) fn follow_arrivals(&self, state: &mut State) {
        let Some(arrivals) = &self.parts.arrivals else { return };
        let now = self.parts.clock.now();
        for (series, arrived) in arrivals.take() {
            for place in state.windows.of_series(series).to_vec() {
                let newest = state.windows.arrived(place, arrived.oldest, arrived.newest).min(now);
                let is_single = state.windows.is_single(place);
                for key in state.alarms.users(place).to_vec() {
                    let Some(watched) = state.alarms.get_mut(key) else { continue };
                    if arrived.oldest < watched.judged_until {
                        watched.is_stale = true;
                        state.hurried.insert(key);
                    }
                    if is_single && watched.leaves.len() == 1 && newest >= watched.next_end() {
                        state.hurried.insert(key);
                    }
                }
            }
        }
    }

    /// Looks at the events that were committed since; turns event alarms on and off.
    pub(super) async fn follow_events(&self, state: &mut State) -> Result<(), BookError> {
        let (Some(feed), Some(mut after)) = (&self.parts.events, state.events_after) else { return Ok(()) };
        let now = self.parts.clock.now();
        let is_told = self.parts.arrivals.as_ref().is_some_and(|arrivals| arrivals.take_events());
        let every = if self.parts.arrivals.is_some() { FOLLOW_INTERVAL } else { RETRY };
        let is_due = is_told || state.events_read_at.is_none_or(|at| now.since(at) >= every);
        if !is_due || state.leases.is_empty() {
            return Ok(());
        }
        loop {
            let events = match feed.events_after(after, EVENTS_AT_ONCE).await {
                Ok(events) => events,
                Err(ReadError::NotFound { what }) => {
                    tracing::warn!(what, "events cannot be followed");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "events are looked at later");
                    return Ok(());
                }
            };
            let count = events.len();
            if count > 0 {
                // After the events were read: an alarm that was made before one of them is there by now.
                self.follow_event_alarms(state).await?;
            }
            let mut writings: Vec<Writing> = Vec::new();
            for numbered in events {
                let Some(project) = others::project_of(&numbered.event) else {
                    after = numbered.number;
                    continue;
                };
                for key in state.alarms.of_project(&project).to_vec() {
                    // An alarm that was turned a moment ago is judged by its new state.
                    if writings.iter().any(|writing| writing.key == key) {
                        self.commit(state, std::mem::take(&mut writings)).await?;
                    }
                    let Some(watched) = state.alarms.get(key) else { continue };
                    let Rule::Event(rule) = &watched.alarm.rule else { continue };
                    let seen = state.leases.get(&watched.partition).map_or(i64::MAX, |held| held.lease.events_until);
                    let is_old = numbered.number <= seen.max(watched.alarm.events_until)
                        || numbered.stored_at < watched.alarm.timestamp;
                    if is_old || !constraints::are_open(&watched.alarm.time_constraints, numbered.stored_at) {
                        continue;
                    }
                    let (alarm, event) = (&watched.alarm, &numbered.event);
                    let is_on = alarm.state == AlarmState::Alarm;
                    let state_after = if (!is_on || alarm.repeat_actions) && others::hits(rule, event) {
                        AlarmState::Alarm
                    } else if is_on && others::resolves(rule, event) {
                        AlarmState::Ok
                    } else {
                        continue;
                    };
                    writings.push(Writing {
                        key,
                        judgement: others::event(rule, state_after, event),
                        until: None,
                        events_until: Some(numbered.number),
                        is_recorded: true,
                    });
                }
                after = numbered.number;
            }
            let turned: Vec<Key> = writings.iter().map(|writing| writing.key).collect();
            self.commit(state, writings).await?;
            for key in turned {
                self.reschedule(state, key);
            }
            state.events_after = Some(after);
            for held in state.leases.values_mut() {
                held.lease.events_until = held.lease.events_until.max(after);
            }
            if count < EVENTS_AT_ONCE {
                state.events_read_at = Some(now);
                return Ok(());
            }
        }
    }
}

/// Which of these are ours and not known in this revision.
fn unknown(state: &State, changed: Vec<(String, i64)>) -> Vec<String> {
    let is_new = |(id, revision): &(String, i64)| {
        let known = state.alarms.key(id).and_then(|key| state.alarms.get(key));
        state.leases.contains_key(&partition_of(id)) && known.is_none_or(|known| known.alarm.revision < *revision)
    };
    changed.into_iter().filter(is_new).map(|(id, _)| id).collect()
}

/// Forgets a partition that somebody else has, or may have.
pub(super) fn forget(state: &mut State, partition: usize) {
    state.leases.remove(&partition);
    state.alarms.leave_partition(partition, &mut state.windows);
}
