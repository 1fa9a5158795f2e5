//! Writing what was judged: many transitions in one commit, each under its partition's token and its alarm's revision.

use super::{Evaluator, State, alarms::Key, follow::forget};
use crate::{
    book::{BookError, Transition, Written},
    verdict::Judgement,
};
use orzo_model::Timestamp;

/// Transitions in one commit: one flush to disk for all of them, and none waits long for the others.
const TRANSITIONS_AT_ONCE: usize = 256;

/// What is to be written about an alarm.
pub(super) struct Writing {
    pub(super) key: Key,
    pub(super) judgement: Judgement,
    /// The end of the window that was judged, if it was one.
    pub(super) until: Option<Timestamp>,
    /// The event that was looked at, if it was one.
    pub(super) events_until: Option<i64>,
    /// Whether it stands in the history although the state stays (Aodh's event alarms).
    pub(super) is_recorded: bool,
}

impl Evaluator {
    /// Writes, and takes the new state into memory. Alarms that were changed by others meanwhile are read again and
    /// judged again; partitions that others hold are forgotten.
    pub(super) async fn commit(&self, state: &mut State, writings: Vec<Writing>) -> Result<(), BookError> {
        for writings in writings.chunks(TRANSITIONS_AT_ONCE) {
            let mut transitions = Vec::with_capacity(writings.len());
            let mut keys = Vec::with_capacity(writings.len());
            for writing in writings {
                let Some(watched) = state.alarms.get(writing.key) else { continue };
                let Some(held) = state.leases.get(&watched.partition) else { continue };
                transitions.push(Transition {
                    before: watched.alarm.clone(),
                    judgement: writing.judgement.clone(),
                    until: writing.until,
                    events_until: writing.events_until,
                    is_recorded: writing.is_recorded,
                    token: Some(held.lease.token),
                });
                keys.push(writing.key);
            }
            if transitions.is_empty() {
                continue;
            }
            let written = self.parts.book.write_transitions(&transitions).await?;
            let mut lost = Vec::new();
            for ((key, transition), written) in keys.into_iter().zip(&transitions).zip(written) {
                match written {
                    Written::Done(after) => {
                        if after.state != transition.before.state {
                            let dependents = state.alarms.dependents(&after.alarm_id).to_vec();
                            state.awaiting.extend(dependents);
                        }
                        if let Some(watched) = state.alarms.get_mut(key) {
                            watched.alarm = *after;
                            if let Some(until) = transition.until {
                                watched.judged_until = watched.judged_until.max(until);
                            }
                        }
                    }
                    Written::Lost => lost.push(transition.before.alarm_id.clone()),
                }
            }
            self.parts.notices.notify_one();
            for alarm_id in lost {
                self.read_again(state, &alarm_id).await?;
            }
        }
        Ok(())
    }

    /// An alarm could not be written: it was changed or deleted, or its partition has gone to somebody else.
    async fn read_again(&self, state: &mut State, alarm_id: &str) -> Result<(), BookError> {
        let Some(key) = state.alarms.key(alarm_id) else { return Ok(()) };
        let partition = crate::book::partition_of(alarm_id);
        let held = state.leases.get(&partition).map(|held| held.lease.token);
        if held.is_none() || self.parts.book.token(partition).await? != held {
            tracing::info!(partition, "another evaluator has taken this partition over");
            forget(state, partition);
            return Ok(());
        }
        match self.parts.book.get(&orzo_model::Scope::All, alarm_id).await {
            Ok(alarm) => self.take_over(state, alarm),
            Err(BookError::NotFound { .. }) => state.alarms.leave(key, &mut state.windows),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
