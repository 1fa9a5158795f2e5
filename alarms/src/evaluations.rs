//! How often each alarm was evaluated to which state, since this process started (Aodh's `/v2/metrics`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use orzo_model::Timestamp;
use parking_lot::Mutex;

use crate::alarm::AlarmState;

/// Alarms counted at most; further ones are not, so that nobody's alarms fill the memory.
const ALARMS_MAX: usize = 1_000_000;

/// The counters of one alarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvaluationCount {
    /// Whose alarm.
    pub project_id: String,
    /// Evaluations that ended in `alarm`.
    pub alarm: u64,
    /// Evaluations that ended in `ok`.
    pub ok: u64,
    /// Evaluations that ended in `insufficient data`.
    pub insufficient_data: u64,
}

/// How the newest evaluation of an alarm went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// When it was.
    pub at: Timestamp,
    /// What could not be asked or read.
    pub error: Option<String>,
}

impl EvaluationCount {
    fn add(&mut self, state: AlarmState) {
        match state {
            AlarmState::Alarm => self.alarm += 1,
            AlarmState::Ok => self.ok += 1,
            AlarmState::InsufficientData => self.insufficient_data += 1,
        }
    }
}

/// The counters of all alarms, and how the newest evaluation of each went. Cheap to clone.
#[derive(Clone, Default)]
pub struct Evaluations {
    counts: Arc<Mutex<BTreeMap<String, EvaluationCount>>>,
    newest: Arc<Mutex<HashMap<String, Evaluated>>>,
}

impl Evaluations {
    /// An alarm was evaluated.
    pub fn count(&self, alarm_id: &str, project_id: &str, state: AlarmState) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(alarm_id) {
            count.add(state);
            return;
        }
        if counts.len() >= ALARMS_MAX && !counts.contains_key(alarm_id) {
            return;
        }
        let count = counts.entry(alarm_id.to_owned()).or_default();
        if count.project_id.is_empty() {
            count.project_id = project_id.to_owned();
        }
        count.add(state);
    }

    /// An evaluation of an alarm has ended, well or not.
    pub fn ended(&self, alarm_id: &str, at: Timestamp, error: Option<&str>) {
        let evaluated = Evaluated { at, error: error.map(str::to_owned) };
        let mut newest = self.newest.lock();
        if let Some(known) = newest.get_mut(alarm_id) {
            *known = evaluated;
        } else if newest.len() < ALARMS_MAX {
            newest.insert(alarm_id.to_owned(), evaluated);
        }
    }

    /// How the newest evaluation of an alarm went; `None` if this process has not evaluated it.
    pub fn newest(&self, alarm_id: &str) -> Option<Evaluated> {
        self.newest.lock().get(alarm_id).cloned()
    }

    /// An alarm is gone.
    pub fn forget(&self, alarm_id: &str) {
        self.counts.lock().remove(alarm_id);
        self.newest.lock().remove(alarm_id);
    }

    /// The counters of a project's alarms, or of all.
    pub fn of(&self, project_id: Option<&str>) -> Vec<(String, EvaluationCount)> {
        let counts = self.counts.lock();
        let own = counts.iter().filter(|(_, count)| project_id.is_none_or(|project| count.project_id == project));
        own.map(|(id, count)| (id.clone(), count.clone())).collect()
    }
}
