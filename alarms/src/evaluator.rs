//! The evaluator: judges every window that has closed, once, in order.
//!
//! It goes by window ends, not by its own clock ticks: after a pause or a take-over it judges each window that was
//! missed, so that a short spike in between still fires (contract C5).

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use orzo_model::{GroupRead, Measure, MeasureReader, ReadError, ResourceRead, Room, Scope, SharedClock, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    alarm::{Alarm, AlarmState},
    book::{AlarmBook, BookError},
    constraints,
    judge::judge,
    rule::{Rule, Threshold},
};

/// Alarms taken from the book at once.
const DUE_MAX: u32 = 1000;
/// Reads under way at once.
const READS_MAX: usize = 16;
/// Windows judged at most after a pause; what is older is skipped and counted: nobody wants yesterday's alarms now.
const CATCH_UP_WINDOWS_MAX: u64 = 240;

/// How often, and how late.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluatorSettings {
    /// How often closed windows are looked for, in milliseconds.
    pub interval_ms: u64,
    /// A window is judged so long after its end, in milliseconds: time for its last samples to arrive.
    pub lag_ms: u64,
}

impl Default for EvaluatorSettings {
    fn default() -> Self {
        Self { interval_ms: 1_000, lag_ms: 5_000 }
    }
}

/// Judges alarms.
pub struct Evaluator {
    book: AlarmBook,
    reader: Arc<dyn MeasureReader>,
    settings: EvaluatorSettings,
    clock: SharedClock,
    room: Room,
    notices: Arc<Notify>,
}

/// What became of one alarm.
enum Evaluated {
    /// Nothing to tell; these windows are done.
    Passed(Box<Alarm>, Timestamp),
    /// Written already.
    Written,
    /// To be tried again at the next tick.
    Later,
}

impl Evaluator {
    /// An evaluator of the alarms in `book`; `notices` is notified when there may be new ones.
    pub fn new(
        book: AlarmBook,
        reader: Arc<dyn MeasureReader>,
        settings: EvaluatorSettings,
        clock: SharedClock,
        room: Room,
        notices: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self { book, reader, settings, clock, room, notices })
    }

    /// Runs until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let interval = Duration::from_millis(self.settings.interval_ms.max(10));
        while !stop.is_cancelled() {
            if let Err(error) = self.tick().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "alarms were not evaluated");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(interval) => {}
            }
        }
    }

    /// Judges all windows that have closed by now; returns how many alarms had one.
    pub async fn tick(&self) -> Result<usize, BookError> {
        let until = self.clock.now().minus(Duration::from_millis(self.settings.lag_ms));
        let mut total = 0;
        loop {
            let due = self.book.due(until, DUE_MAX).await?;
            let count = due.len();
            total += count;
            self.room.received(count as u64);
            let started = self.clock.monotonic();
            let results: Vec<_> = futures::stream::iter(due.into_iter().map(|alarm| self.evaluate(alarm, until)))
                .buffer_unordered(READS_MAX)
                .collect()
                .await;
            let mut passed = Vec::new();
            let mut later = 0;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(Evaluated::Passed(alarm, until)) => passed.push((*alarm, until)),
                    Ok(Evaluated::Written) => self.room.stored(1),
                    Ok(Evaluated::Later) => later += 1,
                    Err(error) => {
                        later += 1;
                        failed = Some(error);
                    }
                }
            }
            self.room.returned(later);
            match self.book.passed(&passed).await {
                Ok(()) => self.room.stored(passed.len() as u64),
                Err(error) => {
                    self.room.returned(passed.len() as u64);
                    return Err(error);
                }
            }
            self.room.took("evaluate", self.clock.monotonic().saturating_sub(started));
            if let Some(error) = failed {
                return Err(error);
            }
            if count < DUE_MAX as usize || later > 0 {
                return Ok(total);
            }
        }
    }

    async fn evaluate(&self, mut alarm: Alarm, until: Timestamp) -> Result<Evaluated, BookError> {
        let width = alarm.rule.granularity();
        let last_end = until.floor(width);
        let first_end = self.first_end(&alarm, last_end);
        // One window more than needed: a metric that is polled once a window may have its point just before it.
        let reach = width * (threshold_of(&alarm.rule).map_or(1, |threshold| threshold.alarm_periods()) + 1);
        let measures = match self.read(&alarm.rule, scope_of(&alarm), first_end.minus(reach), last_end).await {
            Ok(measures) => measures,
            Err(ReadError::Unavailable { reason }) => {
                tracing::debug!(alarm = alarm.alarm_id, reason, "alarm will be evaluated later");
                return Ok(Evaluated::Later);
            }
            // Aodh: what cannot be found or asked is no data.
            Err(ReadError::NotFound { .. } | ReadError::Invalid { .. }) => Vec::new(),
        };
        let mut end = first_end;
        let mut is_written = false;
        while end <= last_end {
            if constraints::are_open(&alarm.time_constraints, end) {
                let values: Vec<f64> = measures
                    .iter()
                    .filter(|measure| measure.timestamp >= end.minus(reach) && measure.timestamp < end)
                    .map(|measure| measure.value)
                    .collect();
                let judgement = threshold_of(&alarm.rule).and_then(|threshold| judge(alarm.state, &values, threshold));
                if let Some(judgement) = judgement
                    && is_worth_writing(&alarm, judgement.state)
                {
                    alarm = match self.book.transition(&alarm, &judgement, end).await {
                        // Changed or deleted by hand meanwhile: the next tick sees the new one.
                        Err(BookError::Changed { .. }) => return Ok(Evaluated::Later),
                        other => other?,
                    };
                    is_written = true;
                    self.notices.notify_one();
                }
            }
            end = end.plus(width);
        }
        if is_written && alarm.evaluated_until == last_end {
            return Ok(Evaluated::Written);
        }
        Ok(Evaluated::Passed(Box::new(alarm), last_end))
    }

    /// The end of the first window that is not judged yet.
    fn first_end(&self, alarm: &Alarm, last_end: Timestamp) -> Timestamp {
        let width = alarm.rule.granularity();
        let next = alarm.evaluated_until.floor(width).plus(width);
        let missed = last_end.since(next).as_micros() / width.as_micros().max(1);
        if missed <= u128::from(CATCH_UP_WINDOWS_MAX) {
            return next;
        }
        tracing::warn!(alarm = alarm.alarm_id, windows = %missed, "too many windows were missed; the oldest are skipped");
        last_end.minus(width * (CATCH_UP_WINDOWS_MAX as u32))
    }

    async fn read(
        &self,
        rule: &Rule,
        scope: Scope,
        start: Timestamp,
        stop: Timestamp,
    ) -> Result<Vec<Measure>, ReadError> {
        let Some(threshold) = threshold_of(rule) else { return Ok(Vec::new()) };
        match rule {
            Rule::Resource(resource) => {
                let read = ResourceRead {
                    resource_id: resource.resource_id.clone(),
                    metric: resource.metric.clone(),
                    aggregation: threshold.aggregation_method.clone(),
                    granularity: rule.granularity(),
                    start,
                    stop,
                };
                self.reader.read_resource(&scope, &read).await
            }
            Rule::Group(group) => {
                let (within, over) = group.methods();
                let read = GroupRead {
                    metric: group.metric.clone(),
                    resource_type: group.resource_type.clone(),
                    search: group.search().map_err(|error| ReadError::Invalid { reason: error.to_string() })?,
                    aggregation: within.to_owned(),
                    reaggregation: over.to_owned(),
                    granularity: rule.granularity(),
                    start,
                    stop,
                };
                self.reader.read_group(&scope, &read).await
            }
            _ => Ok(Vec::new()),
        }
    }
}

fn threshold_of(rule: &Rule) -> Option<&Threshold> {
    match rule {
        Rule::Resource(rule) => Some(&rule.threshold),
        Rule::Metrics(rule) => Some(&rule.threshold),
        Rule::Group(rule) => Some(&rule.threshold),
        _ => None,
    }
}

/// A change of state, or a repetition that was asked for.
fn is_worth_writing(alarm: &Alarm, state: AlarmState) -> bool {
    state != alarm.state || (alarm.repeat_actions && state != AlarmState::InsufficientData)
}

/// An alarm sees what its project sees; an operator's sees everything.
fn scope_of(alarm: &Alarm) -> Scope {
    if alarm.is_operators { Scope::All } else { Scope::Project(alarm.project_id.clone()) }
}

#[cfg(test)]
mod tests;
