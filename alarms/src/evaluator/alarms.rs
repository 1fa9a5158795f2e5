//! The alarms in memory, with the time at which each is to be judged next.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use orzo_model::Timestamp;

use crate::{
    alarm::{Alarm, AlarmState},
    book::partition_of,
    readings::{leaves_of, questions_of, scope_of},
    rule::Rule,
    windows::{Place, Windows},
};

/// Number of an alarm in memory.
pub(super) type Key = usize;

/// An alarm that is watched.
pub(super) struct Watched {
    pub(super) alarm: Alarm,
    pub(super) partition: usize,
    /// For each part of the rule the places of its questions.
    pub(super) leaves: Vec<Vec<Place>>,
    /// How far apart its windows end.
    pub(super) width: Duration,
    /// The end of the newest window that was judged.
    pub(super) judged_until: Timestamp,
    /// A sample came for a window that was judged: judge the newest of them again.
    pub(super) is_stale: bool,
    /// Distinguishes the entry in the schedule that counts from older ones.
    ticket: u64,
}

/// All of them.
#[derive(Default)]
pub(super) struct Alarms {
    slots: Vec<Option<Watched>>,
    free: Vec<Key>,
    keys: HashMap<String, Key>,
    schedule: BinaryHeap<Reverse<(Timestamp, Key, u64)>>,
    tickets: u64,
    /// Who asks a question.
    users: HashMap<Place, Vec<Key>>,
    /// Event alarms by project.
    by_project: HashMap<String, Vec<Key>>,
    /// Combination alarms by the alarms that they combine.
    dependents: HashMap<String, Vec<Key>>,
}

impl Watched {
    /// Its one question, if it has one.
    pub(super) fn only_place(&self) -> Option<Place> {
        match self.leaves.as_slice() {
            [places] if places.len() == 1 => places.first().copied(),
            _ => None,
        }
    }

    pub(super) fn is_event(&self) -> bool {
        matches!(self.alarm.rule, Rule::Event(_))
    }

    /// The end of the first window that is not judged yet.
    pub(super) fn next_end(&self) -> Timestamp {
        self.judged_until.floor(self.width).plus(self.width)
    }

    /// When an event alarm goes off by itself.
    pub(super) fn resolves_at(&self) -> Option<Timestamp> {
        match &self.alarm.rule {
            Rule::Event(rule) if self.alarm.state == AlarmState::Alarm => {
                let since = self.alarm.state_timestamp.max(self.alarm.evaluate_timestamp);
                rule.resolve_after.map(|after| since.plus(Duration::from_secs(u64::from(after))))
            }
            _ => None,
        }
    }
}

impl Alarms {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Watched> {
        self.slots.get(key).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Watched> {
        self.slots.get_mut(key).and_then(Option::as_mut)
    }

    pub(super) fn key(&self, alarm_id: &str) -> Option<Key> {
        self.keys.get(alarm_id).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.slots.iter().flatten()
    }

    /// Who asks a question.
    pub(super) fn users(&self, place: Place) -> &[Key] {
        self.users.get(&place).map_or(&[], Vec::as_slice)
    }

    /// A project's event alarms.
    pub(super) fn of_project(&self, project_id: &str) -> &[Key] {
        self.by_project.get(project_id).map_or(&[], Vec::as_slice)
    }

    /// Combination alarms that look at an alarm.
    pub(super) fn dependents(&self, alarm_id: &str) -> &[Key] {
        self.dependents.get(alarm_id).map_or(&[], Vec::as_slice)
    }

    /// Watches an alarm from `judged_until` on; it replaces an older one of the same id.
    pub(super) fn enter(&mut self, alarm: Alarm, judged_until: Timestamp, windows: &mut Windows) -> Key {
        let old = self.key(&alarm.alarm_id);
        let scope = scope_of(&alarm);
        let leaves: Vec<Vec<Place>> = leaves_of(&alarm.rule)
            .into_iter()
            .map(|leaf| questions_of(leaf, &scope).into_iter().map(|question| windows.enter(question)).collect())
            .collect();
        // After the new one has taken its places, so that windows in memory are kept when only a threshold changes.
        if let Some(old) = old {
            self.leave(old, windows);
        }
        let watched = Watched {
            partition: partition_of(&alarm.alarm_id),
            width: alarm.rule.granularity(),
            leaves,
            judged_until,
            is_stale: false,
            ticket: 0,
            alarm,
        };
        let key = match self.free.pop() {
            Some(key) => key,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        for place in watched.leaves.iter().flatten() {
            self.users.entry(*place).or_default().push(key);
        }
        match &watched.alarm.rule {
            Rule::Event(_) => self.by_project.entry(watched.alarm.project_id.clone()).or_default().push(key),
            Rule::Combination(rule) => {
                for id in &rule.alarm_ids {
                    self.dependents.entry(id.clone()).or_default().push(key);
                }
            }
            _ => {}
        }
        self.keys.insert(watched.alarm.alarm_id.clone(), key);
        self.slots[key] = Some(watched);
        key
    }

    /// Forgets an alarm.
    pub(super) fn leave(&mut self, key: Key, windows: &mut Windows) {
        let Some(watched) = self.slots.get_mut(key).and_then(Option::take) else { return };
        for place in watched.leaves.iter().flatten() {
            remove(&mut self.users, place, key);
            windows.leave(*place);
        }
        match &watched.alarm.rule {
            Rule::Event(_) => remove(&mut self.by_project, &watched.alarm.project_id, key),
            Rule::Combination(rule) => rule.alarm_ids.iter().for_each(|id| remove(&mut self.dependents, id, key)),
            _ => {}
        }
        self.keys.remove(&watched.alarm.alarm_id);
        self.free.push(key);
    }

    /// Forgets all alarms of a partition.
    pub(super) fn leave_partition(&mut self, partition: usize, windows: &mut Windows) {
        let keys: Vec<Key> = (0..self.slots.len())
            .filter(|key| self.get(*key).is_some_and(|watched| watched.partition == partition))
            .collect();
        for key in keys {
            self.leave(key, windows);
        }
    }

    /// An alarm is to be judged at this time and not earlier, unless it is hurried.
    pub(super) fn schedule(&mut self, key: Key, at: Timestamp) {
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(watched) = self.get_mut(key) {
            watched.ticket = ticket;
            self.schedule.push(Reverse((at, key, ticket)));
        }
    }

    /// When the next alarm is to be judged, or earlier: an entry that counts no more is a pause cut short.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.schedule.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next alarm whose time has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Key> {
        while let Some(Reverse((at, key, ticket))) = self.schedule.peek().copied() {
            if at > now {
                return None;
            }
            self.schedule.pop();
            if self.get(key).is_some_and(|watched| watched.ticket == ticket) {
                return Some(key);
            }
        }
        None
    }
}

fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Key>>, at: &K, key: Key) {
    if let Some(keys) = map.get_mut(at) {
        if let Some(place) = keys.iter().position(|other| *other == key) {
            keys.swap_remove(place);
        }
        if keys.is_empty() {
            map.remove(at);
        }
    }
}
