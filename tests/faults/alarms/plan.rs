//! The ledger of expected transitions: alarms over series whose values the test makes itself, and a model of Aodh's
//! rules that is small enough to be seen right.
//!
//! Each series has one sample a second, each window is a second, so that what must happen at which window is known
//! before it happens. A value tells its second: no two transitions of an alarm have the same reason.

use orzo_model::{Batch, Clock, Event, SystemClock, Timestamp, Trait, TraitValue};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{faulty_receiver::FaultyReceiver, orzo::Orzo};

/// Series of values; the last two are of the group's user.
const SERIES: usize = 8;
/// Where the group's series begin.
const GROUP: std::ops::Range<usize> = 6..8;
/// Between low values and high ones.
const THRESHOLD: f64 = 500_000.0;
/// Low at first, so that no alarm begins with values on both sides.
const QUIET_SECONDS: i64 = 4;
/// Seconds posted at once at most, after a time without an answer.
const SECONDS_AT_ONCE: i64 = 60;

/// What an alarm looks at.
#[derive(Clone, Debug)]
enum Kind {
    /// One series, over some windows.
    Resource { series: usize, periods: usize },
    /// The largest value of some series, by their metrics' ids.
    Metrics(Vec<usize>),
    /// The smallest value of the group, by a search.
    Group,
    /// Both series.
    Both(usize, usize),
    /// The first series, or both of the others.
    Either(usize, (usize, usize)),
    /// Each event of a type.
    Event,
}

/// What an alarm must tell. An empty reason: only the state is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub state: String,
    pub reason: String,
}

/// An alarm with all that must have happened to it.
pub struct Expected {
    pub alarm_id: String,
    pub name: String,
    pub receiver: usize,
    kind: Kind,
    is_repeated: bool,
    state: &'static str,
    pub transitions: Vec<Told>,
    pub notices: Vec<Told>,
}

/// The alarms, and how far the samples are.
pub struct Plan {
    clock: SystemClock,
    metrics: Vec<String>,
    pub alarms: Vec<Expected>,
    first: i64,
    next: i64,
    project_id: String,
    event: Option<(Uuid, i64)>,
    event_at: i64,
    /// A window by lag that was acknowledged later than this may have been judged without its samples.
    lag: i64,
    pub windows: usize,
    pub events: usize,
}

impl Plan {
    /// Makes series and alarms; each alarm tells one of the receivers. `lag`: `alarms.lag` in seconds.
    pub fn make(orzo: &Orzo, token: &str, receivers: &[FaultyReceiver], lag: i64) -> Self {
        let policy = json!({"name": "every-second", "aggregation_methods": ["mean", "max", "min"],
                            "definition": [{"granularity": "1s"}]});
        orzo.request("POST", "/metric/v1/archive_policy", token, Some(&policy), 201);
        let mut resources = Vec::new();
        let mut metrics = Vec::new();
        for series in 0..SERIES {
            let id = Uuid::new_v4().to_string();
            let user = if GROUP.contains(&series) { "the group" } else { "alone" };
            let body = json!({"id": id, "user_id": user, "metrics": {"load": {"archive_policy_name": "every-second"}}});
            let made = orzo.request("POST", "/metric/v1/resource/generic", token, Some(&body), 201);
            metrics.push(made["metrics"]["load"].as_str().unwrap().to_owned());
            resources.push(id);
        }
        let mut kinds = Vec::new();
        for (series, periods) in [(0, 1), (1, 2), (2, 3), (3, 1), (4, 1), (5, 2)] {
            kinds.push((Kind::Resource { series, periods }, false));
        }
        kinds.push((Kind::Resource { series: 3, periods: 1 }, true));
        kinds.push((Kind::Resource { series: 0, periods: 2 }, true));
        kinds.push((Kind::Metrics(vec![1, 4]), false));
        kinds.push((Kind::Group, false));
        kinds.push((Kind::Both(0, 5), false));
        kinds.push((Kind::Either(2, (3, 4)), false));
        kinds.push((Kind::Event, true));
        kinds.push((Kind::Event, true));
        let mut alarms = Vec::new();
        let mut project_id = String::new();
        for (place, (kind, is_repeated)) in kinds.into_iter().enumerate() {
            let receiver = place % receivers.len();
            let name = format!("{place} {kind:?}");
            let mut body = body_of(&kind, &resources, &metrics);
            body["name"] = json!(name);
            body["repeat_actions"] = json!(is_repeated);
            body["alarm_actions"] = json!([receivers[receiver].url]);
            body["ok_actions"] = json!([receivers[receiver].url]);
            let made = orzo.request("POST", "/alarming/v2/alarms", token, Some(&body), 201);
            project_id = made["project_id"].as_str().unwrap().to_owned();
            alarms.push(Expected {
                alarm_id: made["alarm_id"].as_str().unwrap().to_owned(),
                name,
                receiver,
                kind,
                is_repeated,
                state: "insufficient data",
                transitions: Vec::new(),
                notices: Vec::new(),
            });
        }
        let clock = SystemClock::new();
        let first = clock.now().secs() + 1;
        Self {
            clock,
            metrics,
            alarms,
            first,
            next: first,
            project_id,
            event: None,
            event_at: first,
            lag,
            windows: 0,
            events: 0,
        }
    }

    /// Posts what is due by now to each of these; what all have acknowledged stands in the ledger. False if there was no
    /// answer: the same is posted again.
    pub fn post(&mut self, orzos: &[&Orzo], token: &str) -> bool {
        let now = self.clock.now().secs();
        if self.next <= now {
            let last = now.min(self.next + SECONDS_AT_ONCE);
            let mut body = serde_json::Map::new();
            for (series, metric) in self.metrics.iter().enumerate() {
                let rows = (self.next..=last).map(|at| json!({"timestamp": at, "value": self.value(series, at)}));
                body.insert(metric.clone(), rows.collect());
            }
            let body = Value::Object(body);
            for orzo in orzos {
                match orzo.try_request("POST", "/metric/v1/batch/metrics/measures", token, Some(&body)) {
                    Some((202, _)) => {}
                    Some((503, _)) => return true,
                    Some((status, answer)) => panic!("{status}: {answer}"),
                    None => return false,
                }
            }
            let late = self.clock.now().secs() - self.next;
            assert!(late < self.lag, "this machine stood still for {late} s: what must happen is not known any more");
            for at in self.next..=last {
                self.see(at);
            }
            self.next = last + 1;
            return true;
        }
        if self.event_at <= now {
            return self.post_event(orzos, token, now);
        }
        // Until the next second; nothing waits for this.
        std::thread::sleep(std::time::Duration::from_millis(20));
        true
    }

    /// Posts until everything up to now is acknowledged.
    pub fn catch_up(&mut self, orzos: &[&Orzo], token: &str) {
        let until = self.clock.now().secs();
        crate::support::wait_for("the last samples to be acknowledged", std::time::Duration::from_secs(30), || {
            self.post(orzos, token);
            (self.next > until && self.event.is_none()).then_some(())
        });
    }

    /// Whether this repeats the last value once more after its window: a rule looks one window further back than it needs,
    /// so the first window without a sample still has a value to repeat.
    pub fn is_echo(&self, alarm: &Expected, told: &Told) -> bool {
        let Kind::Resource { series, .. } = alarm.kind else { return false };
        let last = format!("most recent: {}", self.value(series, self.next - 1));
        alarm.is_repeated && told.reason.starts_with("Remaining as") && told.reason.ends_with(&last)
    }

    fn post_event(&mut self, orzos: &[&Orzo], token: &str, now: i64) -> bool {
        let (id, at) = *self.event.get_or_insert_with(|| (Uuid::new_v4(), now));
        let event = Event {
            message_id: id.to_string(),
            event_type: "ledger.tick".to_owned(),
            generated_at: Timestamp::from_secs(at),
            traits: vec![Trait { name: "project_id".into(), value: TraitValue::Text(self.project_id.clone()) }],
            raw: None,
        };
        let batch = Batch { id, origin: "ledger".to_owned(), samples: Vec::new(), events: vec![event] };
        let bytes = orzo_bus::batch::encode(&batch).unwrap();
        // Events are in the database, which all share.
        match orzos[0].try_post_bytes("/collector/v1/batches", token, bytes.to_vec()) {
            Some(200) => {}
            Some(503) => return true,
            Some(status) => panic!("an event: {status}\n{}", orzos[0].log_tail()),
            None => return false,
        }
        for alarm in self.alarms.iter_mut().filter(|alarm| matches!(alarm.kind, Kind::Event)) {
            let told = Told { state: "alarm".into(), reason: format!("Event <id={id},") };
            alarm.transitions.push(told.clone());
            alarm.notices.push(told);
        }
        self.events += 1;
        self.event = None;
        self.event_at = now + 1;
        true
    }

    /// Low or high by chance, for one, two or three seconds; never a round number.
    fn value(&self, series: usize, at: i64) -> f64 {
        let run = at / (1 + series as i64 % 3);
        let is_high = at >= self.first + QUIET_SECONDS && mixed(series as u64, run as u64).is_multiple_of(2);
        (if is_high { 1_000_000.0 } else { 0.0 }) + (at % 100_000) as f64 + 0.5
    }

    /// What the window that begins at `at` does to every alarm.
    fn see(&mut self, at: i64) {
        self.windows += 1;
        let mut alarms = std::mem::take(&mut self.alarms);
        for alarm in &mut alarms {
            let value = |series: usize| self.value(series, at);
            let is_high = |series: usize| value(series) > THRESHOLD;
            match alarm.kind.clone() {
                Kind::Resource { series, periods } => {
                    if at - self.first + 1 < periods as i64 {
                        continue;
                    }
                    let values: Vec<f64> = (0..periods as i64).map(|back| self.value(series, at - back)).collect();
                    let high = values.iter().filter(|value| **value > THRESHOLD).count();
                    alarm.turn(high, periods, values[0]);
                }
                Kind::Metrics(all) => {
                    let largest = all.iter().map(|series| value(*series)).fold(f64::MIN, f64::max);
                    alarm.turn(usize::from(largest > THRESHOLD), 1, largest);
                }
                Kind::Group => {
                    let smallest = GROUP.map(value).fold(f64::MAX, f64::min);
                    alarm.turn(usize::from(smallest > THRESHOLD), 1, smallest);
                }
                Kind::Both(a, b) => alarm.turn_to(if is_high(a) && is_high(b) { "alarm" } else { "ok" }),
                Kind::Either(a, (b, c)) => {
                    alarm.turn_to(if is_high(a) || (is_high(b) && is_high(c)) { "alarm" } else { "ok" });
                }
                Kind::Event => {}
            }
        }
        self.alarms = alarms;
    }
}

impl Expected {
    /// An alarm to which only this must have happened; for the judge's own tests.
    pub fn of(transitions: Vec<Told>) -> Self {
        Self {
            alarm_id: String::new(),
            name: "an alarm".into(),
            receiver: 0,
            kind: Kind::Event,
            is_repeated: false,
            state: "ok",
            transitions,
            notices: Vec::new(),
        }
    }

    /// Aodh's rule: all beyond the threshold is `alarm`, none is `ok`, some keep the state.
    fn turn(&mut self, high: usize, of: usize, newest: f64) {
        let is_mixed = high != 0 && high != of;
        let new = match high {
            0 => "ok",
            _ if is_mixed => self.state,
            _ => "alarm",
        };
        assert_ne!(new, "insufficient data", "the first windows are all low");
        let is_turned = new != self.state;
        let (count, side) = if new == "ok" { (of - high, "inside") } else { (high, "outside") };
        let verb = if is_turned { "Transition to" } else { "Remaining as" };
        let reason = format!("{verb} {new} due to {count} samples {side} threshold, most recent: {newest}");
        let told = Told { state: new.to_owned(), reason };
        if is_turned {
            self.transitions.push(told.clone());
            self.state = new;
        }
        if is_turned || self.is_repeated {
            self.notices.push(told);
        }
    }

    fn turn_to(&mut self, new: &'static str) {
        if new != self.state {
            self.state = new;
            let told = Told { state: new.to_owned(), reason: String::new() };
            self.transitions.push(told.clone());
            self.notices.push(told);
        }
    }
}

fn body_of(kind: &Kind, resources: &[String], metrics: &[String]) -> Value {
    let rule = |more: Value, periods: usize, method: &str| {
        let mut rule = json!({"comparison_operator": "gt", "threshold": THRESHOLD, "granularity": 1,
                              "aggregation_method": method, "evaluation_periods": periods});
        for (key, value) in more.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    };
    let resource = |series: usize, periods: usize| {
        let more = json!({"metric": "load", "resource_id": resources[series], "resource_type": "generic"});
        rule(more, periods, "mean")
    };
    let leaf = |series: usize| {
        let mut leaf = resource(series, 1);
        leaf["type"] = json!("gnocchi_resources_threshold");
        leaf
    };
    match kind {
        Kind::Resource { series, periods } => json!({
            "type": "gnocchi_resources_threshold",
            "gnocchi_resources_threshold_rule": resource(*series, *periods)}),
        Kind::Metrics(all) => {
            let all: Vec<&String> = all.iter().map(|series| &metrics[*series]).collect();
            json!({"type": "gnocchi_aggregation_by_metrics_threshold",
                   "gnocchi_aggregation_by_metrics_threshold_rule": rule(json!({"metrics": all}), 1, "max")})
        }
        Kind::Group => {
            let query = json!({"=": {"user_id": "the group"}}).to_string();
            let more = json!({"metric": "load", "resource_type": "generic", "query": query});
            json!({"type": "gnocchi_aggregation_by_resources_threshold",
                   "gnocchi_aggregation_by_resources_threshold_rule": rule(more, 1, "min")})
        }
        Kind::Both(a, b) => json!({"type": "composite", "composite_rule": {"and": [leaf(*a), leaf(*b)]}}),
        Kind::Either(a, (b, c)) => json!({
            "type": "composite",
            "composite_rule": {"or": [leaf(*a), {"and": [leaf(*b), leaf(*c)]}]}}),
        Kind::Event => json!({"type": "event", "event_rule": {"event_type": "ledger.*"}}),
    }
}

/// Two numbers well mixed (SplitMix64's last step): chance that is the same in every run.
fn mixed(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
