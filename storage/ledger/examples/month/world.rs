//! A cloud for a month, and what is true of it. The truth knows nothing of the rating's code: whole numbers only.
//!
//! Servers are created, resized, stopped, started, migrated, handed to other projects and deleted at whole seconds. What the
//! rating is told of it is worse: events come late, twice, in any order, some never; polling fails for hours, and for some
//! hours a poller's clock is wrong. What a lost event leaves knowable is part of the truth: a change that only polling saw
//! happened, for all that anybody can know, when polling saw it.

use std::collections::{BTreeMap, BTreeSet};

use orzo_model::{Event, Measure, Timestamp, Trait, TraitValue};
use orzo_rating::doors::{Evidence, Revision};

/// A small generator of numbers (SplitMix64), so that a seed says everything.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound.
    pub fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.max(1) as u64) as i64
    }

    /// True once in so many.
    pub fn once_in(&mut self, many: i64) -> bool {
        self.below(many) == 0
    }
}

/// Flavors and what an hour of each costs, in steps of 10⁻¹⁰.
pub const FLAVORS: [(&str, i128); 4] =
    [("tiny", 71_234_567), ("small", 203_000_001), ("big", 1_000_000_007), ("huge", 33_333_333_333)];
/// What a stopped server costs, in thousandths of the same running.
pub const STOPPED_PER_MILLE: i128 = 250;
/// How long after its birth a server's creation has ended.
const CREATED_AFTER: i64 = 3;
/// Polling interval.
pub const SLOT: i64 = 300;

/// What a server truly is from a moment on.
#[derive(Clone, PartialEq)]
struct Truth {
    from: i64,
    flavor: usize,
    is_running: bool,
    project: usize,
}

/// A server: the truth, and what is told of it with the moment at which it arrives.
pub struct Server {
    name: String,
    born: i64,
    died: Option<i64>,
    knowable: Vec<Truth>,
    told: Vec<(i64, Event)>,
    seen: Vec<(i64, Revision)>,
    points: Vec<Measure>,
    /// Slots that were not polled.
    missed: Vec<i64>,
}

/// All servers.
pub struct World {
    pub servers: Vec<Server>,
    pub projects: usize,
    pub begin: i64,
    pub end: i64,
    /// Servers that a project owned at any time.
    owned: BTreeMap<String, BTreeSet<usize>>,
    /// Events that were lost for ever, came late, twice.
    pub lost: u64,
    pub late: u64,
    pub twice: u64,
    /// Slots that were not polled.
    pub unpolled: u64,
}

fn project(number: usize) -> String {
    format!("project-{number:03}")
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

impl World {
    /// A world by its seed.
    pub fn new(seed: u64, servers: usize, begin: i64, days: i64) -> Self {
        let mut dice = Dice(seed);
        let mut world = Self {
            servers: Vec::new(),
            projects: (servers / 20).max(2),
            begin,
            end: begin + days * 86_400,
            owned: BTreeMap::new(),
            lost: 0,
            late: 0,
            twice: 0,
            unpolled: 0,
        };
        // Agents of a host fail together.
        let hosts = (servers / 50).max(2);
        let outages: Vec<Vec<(i64, i64)>> = (0..hosts)
            .map(|_| {
                (0..days / 5 + 1)
                    .map(|_| {
                        let from = begin + dice.below(days * 86_400);
                        (from, from + 1800 + dice.below(6 * 3600))
                    })
                    .collect()
            })
            .collect();
        for number in 0..servers {
            let server = world.server(&mut dice, number, &outages[number % hosts]);
            for truth in &server.knowable {
                world.owned.entry(project(truth.project)).or_default().insert(number);
            }
            world.servers.push(server);
        }
        world
    }

    fn server(&mut self, dice: &mut Dice, number: usize, outages: &[(i64, i64)]) -> Server {
        let name = format!("server-{number:05}");
        let length = self.end - self.begin;
        let born = match dice.once_in(3) {
            true => self.begin + dice.below(length),
            false => self.begin - 1 - dice.below(86_400),
        };
        let mut now = Truth {
            from: born,
            flavor: dice.below(4) as usize,
            is_running: true,
            project: dice.below(self.projects as i64) as usize,
        };
        let mut knowable = vec![now.clone()];
        let mut told = Vec::new();
        let mut seen = vec![(born + 60, revision(&now, born + 60))];
        let mut sequence = 0;
        self.tell(dice, &mut told, &mut sequence, &name, "create.end", born + CREATED_AFTER, born, &now, None, true);
        // At most one event of a server is lost at a time, or nothing would be knowable.
        let mut may_lose = false;
        // Nothing happens to a server before its creation has ended.
        let mut at = born + CREATED_AFTER;
        let mut died = None;
        loop {
            at += 1 + if dice.once_in(4) { dice.below(900) } else { dice.below(9 * 86_400) };
            if at >= self.end {
                break;
            }
            let mut next = Truth { from: at, ..now.clone() };
            let kind = match dice.below(10) {
                0..=2 => {
                    next.flavor = dice.below(4) as usize;
                    "resize.confirm.end"
                }
                3..=6 => {
                    next.is_running = !next.is_running;
                    if next.is_running { "power_on.end" } else { "power_off.end" }
                }
                7 => "live_migration._post.end",
                8 => {
                    next.project = dice.below(self.projects as i64) as usize;
                    "update"
                }
                _ if dice.once_in(2) => {
                    died = Some(at);
                    break;
                }
                _ => "rebuild.end",
            };
            let is_change = Truth { from: 0, ..next.clone() } != Truth { from: 0, ..now.clone() };
            if may_lose && is_change && kind == "resize.confirm.end" && dice.once_in(6) {
                // Only polling saw it, at its next slot; the next event will confirm it.
                self.lost += 1;
                let slot = at.div_euclid(SLOT) * SLOT + SLOT;
                let after = slot + 30;
                if after >= self.end {
                    break;
                }
                next.from = slot;
                seen.push((slot + 5, revision(&next, slot)));
                knowable.push(next.clone());
                self.tell(dice, &mut told, &mut sequence, &name, "exists", after, born, &next, None, false);
                now = next;
                at = after;
                may_lose = false;
                continue;
            }
            self.tell(dice, &mut told, &mut sequence, &name, kind, at, born, &next, None, true);
            if is_change {
                knowable.push(next.clone());
                seen.push((at + 40, revision(&next, at + 40)));
            }
            now = next;
            may_lose = true;
        }
        if let Some(died) = died {
            self.tell(dice, &mut told, &mut sequence, &name, "delete.end", died + 4, born, &now, Some(died), true);
        }
        let (mut points, mut missed) = (Vec::new(), Vec::new());
        // The first slot that begins in its life, also where it begins with it.
        let mut slot = (born.max(self.begin - 3600) + SLOT - 1).div_euclid(SLOT) * SLOT;
        // A poller whose clock is wrong for a while: points come at wrong times, and twice.
        let wrong = self.begin + dice.below(length);
        while slot < died.unwrap_or(self.end).min(self.end) {
            let is_out = outages.iter().any(|(from, until)| *from <= slot && slot < *until);
            let jump = if (wrong..wrong + 7200).contains(&slot) && number.is_multiple_of(7) { 137 } else { 0 };
            if is_out {
                self.unpolled += 1;
                missed.push(slot);
            } else {
                points.push(Measure { timestamp: time(slot + jump), value: (slot - born) as f64 * 1e9 });
            }
            slot += SLOT;
        }
        points.sort_by_key(|point| point.timestamp);
        Server { name, born, died, knowable, told, seen, points, missed }
    }

    #[allow(clippy::too_many_arguments)] // all of it is one notification
    fn tell(
        &mut self,
        dice: &mut Dice,
        told: &mut Vec<(i64, Event)>,
        sequence: &mut u32,
        name: &str,
        kind: &str,
        at: i64,
        born: i64,
        truth: &Truth,
        died: Option<i64>,
        may_be_late: bool,
    ) {
        *sequence += 1;
        let text = |name: &str, value: &str| Trait { name: name.to_owned(), value: TraitValue::Text(value.to_owned()) };
        let mut traits = vec![
            text("resource_id", name),
            text("project_id", &project(truth.project)),
            text("user_id", "user"),
            text("instance_type", FLAVORS[truth.flavor].0),
            text("state", if truth.is_running { "active" } else { "stopped" }),
            text("host", &format!("host-{}", dice.below(50))),
            Trait { name: "launched_at".to_owned(), value: TraitValue::Datetime(time(born)) },
        ];
        if let Some(died) = died {
            traits.push(Trait { name: "deleted_at".to_owned(), value: TraitValue::Datetime(time(died)) });
        }
        let event = Event {
            message_id: format!("{name}-{sequence:04}"),
            event_type: format!("compute.instance.{kind}"),
            generated_at: time(at),
            traits,
            raw: None,
        };
        let mut arrives = at + 1;
        if may_be_late && dice.once_in(12) {
            self.late += 1;
            arrives = at + 600 + dice.below(40 * 3600);
        }
        if dice.once_in(15) {
            self.twice += 1;
            let again = Event { message_id: format!("{name}-{sequence:04}-again"), ..event.clone() };
            told.push((arrives + 5 + dice.below(7200), again));
        }
        told.push((arrives, event));
    }

    /// What is known of a project's servers at a moment.
    pub fn evidence(&self, scope: &str, begin: i64, end: i64, known_at: i64) -> Vec<Evidence> {
        let lives = |server: &&Server| server.born < end && server.died.is_none_or(|died| died >= begin);
        let owned = self.owned.get(scope).into_iter().flatten().map(|number| &self.servers[*number]);
        owned.filter(lives).map(|server| server.evidence(begin, end, known_at)).collect()
    }

    /// Slots of the month that were not polled while a server was there for all of them, by server.
    pub fn unpolled_slots(&self) -> BTreeSet<(String, i64)> {
        let lives = |server: &Server, slot: i64| {
            slot >= server.born && slot >= self.begin && slot + SLOT <= server.died.unwrap_or(self.end).min(self.end)
        };
        let of_server = |server: &Server| {
            let missed = server.missed.iter().filter(|slot| lives(server, **slot));
            missed.map(|slot| (server.name.clone(), *slot)).collect::<Vec<_>>()
        };
        self.servers.iter().flat_map(of_server).collect()
    }

    /// Projects to which events came between two moments, with the time of the earliest.
    pub fn came(&self, after: i64, until: i64) -> Vec<(String, i64)> {
        let mut found: BTreeMap<String, i64> = BTreeMap::new();
        for server in &self.servers {
            for (arrived, event) in &server.told {
                if after < *arrived && *arrived <= until {
                    // An event tells whose it is, and the one before may have been another's.
                    for truth in &server.knowable {
                        let earliest = found.entry(project(truth.project)).or_insert(i64::MAX);
                        *earliest = (*earliest)
                            .min(event.generated_at.secs())
                            .min(if event.event_type.ends_with("create.end") { server.born } else { i64::MAX });
                    }
                }
            }
        }
        found.into_iter().collect()
    }

    /// What each project truly owes for `[begin, end)`, in steps of 10⁻¹⁰: each stretch within an hour rounded half-even.
    pub fn owed(&self, begin: i64, end: i64) -> BTreeMap<String, i128> {
        let mut owed = BTreeMap::new();
        for server in &self.servers {
            let died = server.died.unwrap_or(i64::MAX);
            // What is the same before and after is one stretch.
            let mut stretches: Vec<(i64, i64, &Truth)> = Vec::new();
            for (number, truth) in server.knowable.iter().enumerate() {
                let until = server.knowable.get(number + 1).map_or(died, |next| next.from).min(died);
                match stretches.last_mut() {
                    Some((_, last, own))
                        if (own.flavor, own.is_running, own.project)
                            == (truth.flavor, truth.is_running, truth.project) =>
                    {
                        *last = until;
                    }
                    _ => stretches.push((truth.from, until, truth)),
                }
            }
            for (from, until, truth) in stretches {
                let (from, until) = (from.max(begin), until.min(end));
                let mut hour = from.div_euclid(3600) * 3600;
                while hour < until {
                    let seconds = i128::from((hour + 3600).min(until) - hour.max(from));
                    let state = if truth.is_running { 1000 } else { STOPPED_PER_MILLE };
                    let (above, below) = (FLAVORS[truth.flavor].1 * state * seconds, 1000 * 3600);
                    *owed.entry(project(truth.project)).or_insert(0) += half_even(above, below);
                    hour += 3600;
                }
            }
        }
        owed
    }
}

fn half_even(above: i128, below: i128) -> i128 {
    let (whole, rest) = (above.div_euclid(below), above.rem_euclid(below));
    match (2 * rest).cmp(&below) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole.rem_euclid(2),
    }
}

fn revision(truth: &Truth, from: i64) -> Revision {
    let attributes = serde_json::json!({"flavor_name": FLAVORS[truth.flavor].0});
    Revision {
        from: time(from),
        until: None,
        project_id: Some(project(truth.project)),
        user_id: Some("user".to_owned()),
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    }
}

impl Server {
    fn evidence(&self, begin: i64, end: i64, known_at: i64) -> Evidence {
        let events = self.told.iter().filter(|(arrives, _)| *arrives <= known_at).map(|(_, event)| event.clone());
        let revisions = self.seen.iter().filter(|(at, _)| *at <= known_at).map(|(_, own)| own.clone());
        let first = self.points.partition_point(|point| point.timestamp < time(begin));
        let last = self.points.partition_point(|point| point.timestamp < time((end + 7200).min(known_at)));
        let points = self.points[first.saturating_sub(1).min(last)..last].to_vec();
        Evidence {
            resource: self.name.clone(),
            resource_type: "instance".to_owned(),
            started_at: time(self.born + 60),
            ended_at: None,
            revisions: revisions.collect(),
            events: events.collect(),
            measures: BTreeMap::from([("cpu".to_owned(), points)]),
        }
    }
}
