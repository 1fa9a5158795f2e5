//! The evaluator: judges every window that has closed, once, in order, as soon as it can be known.
//!
//! `lease → alarms in memory → window closed, sample or event arrived → read (shared) → judge (pure) → commit`
//!
//! It goes by window ends, not by its own clock ticks: after a pause or a take-over each window that was missed is
//! judged, so that a short spike in between still fires (contract C5). Nothing is written while nothing changes; how
//! far each partition has come is kept with its lease, and judging a window again changes nothing.
//!
//! A window is judged when its lag has passed, or at once when a sample of the next window of the same series arrives;
//! a sample that comes later for a window that was judged has it judged again.

mod alarms;
mod commit;
mod follow;
mod judge;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orzo_model::{EventFeed, InstantQueries, Room, SharedClock, Timestamp, WindowReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    arrivals::ArrivalBox,
    book::{AlarmBook, BookError, Lease, Told},
    windows::Windows,
};

use alarms::{Key, Watched};

/// Alarms judged together: enough to share reads, few enough that an arrival does not wait long behind them.
const BATCH_MAX: usize = 10_000;
/// How often changes by other processes are looked for; those of this one are told at once.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);
/// Changes are looked for so far back again: another process's clock may be behind, its transaction may have been slow.
const FOLLOW_OVERLAP: Duration = Duration::from_secs(120);
/// Arrivals and changes are gathered so long before they are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// How deep combination alarms follow each other within a tick; two that look at each other would go on for ever.
const COMBINED_ROUNDS_MAX: u32 = 8;
/// What could not be read or written is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// How often, and how late.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluatorSettings {
    /// How often closed windows are looked for when nothing tells of them, in milliseconds.
    pub interval_ms: u64,
    /// A window is judged so long after its end, in milliseconds, if no newer sample says earlier that it is complete.
    pub lag_ms: u64,
    /// Another evaluator takes over when this one has not been heard of for so long, in milliseconds.
    pub lease_ms: u64,
}

impl Default for EvaluatorSettings {
    fn default() -> Self {
        Self { interval_ms: 1_000, lag_ms: 5_000, lease_ms: 15_000 }
    }
}

/// Lists the members of a load balancer's pool, as Octavia shows them.
#[async_trait]
pub trait PoolMembers: Send + Sync {
    /// All members; `Err` in words if they cannot be listed.
    async fn members(&self, pool_id: &str) -> Result<Vec<Value>, String>;
}

/// What an evaluator is made of.
#[derive(Clone)]
pub struct EvaluatorParts {
    /// The alarms.
    pub book: AlarmBook,
    /// Windows of samples.
    pub reader: Arc<dyn WindowReader>,
    /// Events, for event alarms.
    pub events: Option<Arc<dyn EventFeed>>,
    /// Answers `prometheus` rules; without it they are not evaluated.
    pub prometheus: Option<Arc<dyn InstantQueries>>,
    /// For `loadbalancer_member_health` rules.
    pub members: Option<Arc<dyn PoolMembers>>,
    /// Tells of new samples and events; without it they are looked for.
    pub arrivals: Option<Arc<ArrivalBox>>,
    /// The time.
    pub clock: SharedClock,
    /// Counts.
    pub room: Room,
    /// Notified when there may be new notices.
    pub notices: Arc<Notify>,
}

/// Judges alarms.
pub struct Evaluator {
    parts: EvaluatorParts,
    settings: EvaluatorSettings,
    /// The book's name for the holder of leases, or a new one: then leases of an earlier life are not ours.
    owner: String,
    state: Mutex<State>,
}

/// Everything in memory. Its truth is in the book.
struct State {
    /// What is changed through the API of this process, so that it need not be read.
    told: broadcast::Receiver<Told>,
    leases: HashMap<usize, Held>,
    renewed_at: Option<Timestamp>,
    followed_at: Option<Timestamp>,
    alarms: alarms::Alarms,
    windows: Windows,
    /// Alarms to be judged now, whatever their schedule says.
    hurried: HashSet<Key>,
    /// Combination alarms one of whose alarms has turned: to be judged in the next round.
    awaiting: HashSet<Key>,
    /// Events up to this number have been looked at for all partitions held.
    events_after: Option<i64>,
    events_read_at: Option<Timestamp>,
}

impl State {
    fn new(told: broadcast::Receiver<Told>) -> Self {
        Self {
            told,
            leases: HashMap::new(),
            renewed_at: None,
            followed_at: None,
            alarms: alarms::Alarms::default(),
            windows: Windows::default(),
            hurried: HashSet::new(),
            awaiting: HashSet::new(),
            events_after: None,
            events_read_at: None,
        }
    }
}

/// What a tick has done.
struct Done {
    judged: usize,
    is_more_due: bool,
    /// When the next alarm is to be judged.
    next_at: Option<Timestamp>,
}

/// A partition held.
struct Held {
    lease: Lease,
    until: Timestamp,
}

impl Evaluator {
    /// An evaluator. It takes its share of the partitions at its first tick.
    pub fn new(parts: EvaluatorParts, settings: EvaluatorSettings) -> Arc<Self> {
        let owner = parts.book.holder().map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let state = Mutex::new(State::new(parts.book.told()));
        Arc::new(Self { parts, settings, owner, state })
    }

    /// Runs until `stop`, then gives its partitions back.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let interval = Duration::from_millis(self.settings.interval_ms.max(10));
        let mut changes = self.parts.book.changes();
        while !stop.is_cancelled() {
            let mut pause = interval;
            match self.tick_for_a_while().await {
                Ok(done) if done.is_more_due => continue,
                // Nobody waits for the interval's end whose window closes before.
                Ok(Done { next_at: Some(at), .. }) => pause = pause.min(at.since(self.parts.clock.now())),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "alarms were not evaluated");
                }
            }
            let arrived = async {
                match &self.parts.arrivals {
                    Some(arrivals) => arrivals.wait().await,
                    None => std::future::pending().await,
                }
                self.parts.clock.sleep(GATHER).await;
            };
            let changed = async {
                // Without the book's sender there are no changes either.
                let _ = changes.changed().await;
                self.parts.clock.sleep(GATHER).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.parts.clock.sleep(pause) => {}
                () = arrived => {}
                () = changed => {}
            }
        }
        if let Err(error) = self.release().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the alarms' partitions run out by themselves");
        }
    }

    /// Judges everything that can be judged by now, or as much as the leases leave time for; returns how many alarms were.
    pub async fn tick(&self) -> Result<usize, BookError> {
        self.tick_for_a_while().await.map(|done| done.judged)
    }

    async fn tick_for_a_while(&self) -> Result<Done, BookError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        self.renew(state).await?;
        self.follow_changes(state).await?;
        self.follow_arrivals(state);
        self.follow_events(state).await?;
        let mut total = 0;
        let mut rounds = 0;
        loop {
            let mut due = self.due(state);
            if due.is_empty() && rounds < COMBINED_ROUNDS_MAX {
                rounds += 1;
                state.hurried.extend(std::mem::take(&mut state.awaiting));
                due = self.due(state);
            }
            if due.is_empty() {
                return Ok(Done { judged: total, is_more_due: false, next_at: state.alarms.next_at() });
            }
            if total > 0 && self.is_renewal_due(state) {
                // Whoever is behind, and falls further behind while it works, keeps its leases, hears of changes and of
                // events, and can be stopped.
                state.hurried.extend(due);
                return Ok(Done { judged: total, is_more_due: true, next_at: None });
            }
            total += due.len();
            let count = due.len() as u64;
            self.parts.room.received(count);
            let started = self.parts.clock.monotonic();
            let outcome = self.judge_all(state, due).await;
            self.parts.room.took("evaluate", self.parts.clock.monotonic().saturating_sub(started));
            match outcome {
                Ok(later) => {
                    self.parts.room.stored(count - later);
                    self.parts.room.returned(later);
                }
                Err(error) => {
                    self.parts.room.returned(count);
                    return Err(error);
                }
            }
        }
    }

    /// Gives all partitions back, with how far they have come.
    pub async fn release(&self) -> Result<(), BookError> {
        let mut state = self.state.lock().await;
        let held = self.marks(&state);
        state.leases.clear();
        self.parts.book.release(&self.owner, &held).await
    }

    /// How many alarms are in memory, and how many different questions they ask.
    pub async fn load(&self) -> (usize, usize) {
        let state = self.state.lock().await;
        (state.alarms.len(), state.windows.len())
    }

    /// Alarms whose time has come, at most a batch.
    fn due(&self, state: &mut State) -> Vec<Key> {
        let now = self.parts.clock.now();
        let mut due: Vec<Key> = Vec::new();
        let hurried: Vec<Key> = state.hurried.iter().copied().take(BATCH_MAX).collect();
        for key in hurried {
            state.hurried.remove(&key);
            if state.alarms.get(key).is_some() {
                due.push(key);
            }
        }
        while due.len() < BATCH_MAX
            && let Some(key) = state.alarms.pop_due(now)
        {
            due.push(key);
        }
        due.sort_unstable();
        due.dedup();
        due
    }

    fn lag(&self) -> Duration {
        Duration::from_millis(self.settings.lag_ms)
    }
}

/// The newest window end that may be judged for an alarm: its lag is over, or a newer sample has come.
fn last_end(watched: &Watched, windows: &Windows, now: Timestamp, lag: Duration) -> Timestamp {
    let by_lag = now.minus(lag).floor(watched.width);
    let single = watched.only_place().filter(|place| windows.is_single(*place));
    let newest = single.and_then(|place| windows.newest(place));
    newest.map_or(by_lag, |newest| newest.min(now).floor(watched.width).max(by_lag))
}

#[cfg(test)]
mod tests;
