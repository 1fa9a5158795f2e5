//! Slots: the times at which a host polls, and a ticker that waits for them.
//!
//! Slots are multiples of the interval since the epoch, moved by a small offset that depends on the host's name, so
//! that a thousand hosts do not all call at the same moment. The slot is the samples' timestamp: two polls of a slot
//! make the same samples. A slot that cannot be kept is counted and told, never made up for by a later reading.

use std::time::Duration;

use orzo_model::{Room, SharedClock, Timestamp};

/// Hosts are spread over this much: enough for thousands, and nobody waits for it.
const OFFSET_MAX: Duration = Duration::from_secs(5);
/// A poll may start this share of the interval after its slot; later readings would carry a wrong time.
const LATE_DIVISOR: u32 = 4;
/// While waiting, the wall clock is looked at this often, so that a clock that was set does not stop the polling.
const LOOK: Duration = Duration::from_secs(60);

/// When a host polls at an interval. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    offset: Duration,
}

impl Schedule {
    /// The schedule of `host` for `interval` (at least a millisecond).
    pub fn new(host: &str, interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let within = OFFSET_MAX.min(interval / 2).as_millis().max(1);
        // FNV-1a (Fowler, Noll, Vo): the same on every machine and in every version.
        let hash = host
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let offset = u128::from(hash ^ (hash >> 32)) % within;
        Self { interval, offset: Duration::from_millis(u64::try_from(offset).unwrap_or(0)) }
    }

    /// Time between slots.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The last slot at or before `now`.
    pub fn at_or_before(&self, now: Timestamp) -> Timestamp {
        now.minus(self.offset).floor(self.interval).plus(self.offset)
    }

    /// The first slot after `now`.
    pub fn after(&self, now: Timestamp) -> Timestamp {
        self.at_or_before(now).plus(self.interval)
    }

    /// Looking at the clock at `now` while waiting for `next`: what to do.
    fn look(&self, next: Timestamp, now: Timestamp) -> Look {
        if now < next {
            let wait = next.since(now);
            // Waiting longer than an interval means that the clock was set back.
            return if wait > self.interval { Look::Reset { next: self.after(now) } } else { Look::Wait(wait) };
        }
        let last = self.at_or_before(now);
        let passed = last.since(next).as_micros() / self.interval.as_micros();
        let missed = u64::try_from(passed).unwrap_or(u64::MAX);
        if now.since(last) <= self.interval / LATE_DIVISOR {
            Look::Due { slot: last, missed }
        } else {
            Look::Missed { next: self.after(now), missed: missed + 1 }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Wait(Duration),
    Due { slot: Timestamp, missed: u64 },
    Missed { next: Timestamp, missed: u64 },
    Reset { next: Timestamp },
}

/// Waits for slots. `slots` counts them: received when due or missed, dropped when missed; who polls says what became
/// of a due one.
pub struct Ticker {
    name: String,
    schedule: Schedule,
    clock: SharedClock,
    slots: Room,
    next: Timestamp,
}

impl Ticker {
    /// Starts with the next slot.
    pub fn new(name: impl Into<String>, schedule: Schedule, clock: SharedClock, slots: Room) -> Self {
        let next = schedule.after(clock.now());
        Self { name: name.into(), schedule, clock, slots, next }
    }

    /// Its schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Waits for the next slot that can be kept. Dropping the future loses nothing.
    pub async fn tick(&mut self) -> Timestamp {
        loop {
            match self.schedule.look(self.next, self.clock.now()) {
                Look::Wait(wait) => self.clock.sleep(wait.min(LOOK)).await,
                Look::Due { slot, missed } => {
                    self.tell_missed(missed);
                    self.slots.received(1);
                    self.next = slot.plus(self.schedule.interval);
                    return slot;
                }
                Look::Missed { next, missed } => {
                    self.tell_missed(missed);
                    self.next = next;
                }
                Look::Reset { next } => {
                    tracing::warn!(polling = self.name, "the clock was set back; polling goes on by the new time");
                    self.next = next;
                }
            }
        }
    }

    fn tell_missed(&self, missed: u64) {
        if missed > 0 {
            self.slots.received(missed);
            self.slots.dropped("slot missed", missed);
            tracing::warn!(polling = self.name, missed, interval = ?self.schedule.interval, "polling is late; slots were missed");
        }
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::{ManualClock, Rooms};

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn without_offset() -> Schedule {
        Schedule { interval: TEN, offset: Duration::ZERO }
    }

    #[test]
    fn slots_are_multiples_moved_by_the_host() {
        let schedule = Schedule { interval: TEN, offset: Duration::from_secs(3) };
        assert_eq!(schedule.after(at(100)), at(103));
        assert_eq!(schedule.after(at(103)), at(113));
        assert_eq!(schedule.at_or_before(at(102)), at(93));
    }

    #[test]
    fn hosts_are_spread_and_each_keeps_its_place() {
        let offset = |host: &str| Schedule::new(host, Duration::from_secs(300)).offset;
        assert_eq!(offset("node-1"), offset("node-1"));
        let offsets: std::collections::HashSet<_> = (0..1000).map(|n| offset(&format!("node-{n}"))).collect();
        assert!(offsets.len() > 800, "{} different offsets of 1000", offsets.len());
        assert!(offsets.iter().all(|offset| *offset < OFFSET_MAX));
        let thirds =
            |from: u64, to: u64| offsets.iter().filter(|o| (from..to).contains(&(o.as_millis() as u64))).count();
        assert!(thirds(0, 1667) > 200 && thirds(1667, 3333) > 200 && thirds(3333, 5000) > 200);
        assert!(Schedule::new("x", Duration::from_secs(1)).offset < Duration::from_millis(500));
    }

    #[test]
    fn what_to_do_at_a_look_on_the_clock() {
        let schedule = without_offset();
        assert_eq!(schedule.look(at(100), at(97)), Look::Wait(Duration::from_secs(3)));
        assert_eq!(schedule.look(at(100), at(100)), Look::Due { slot: at(100), missed: 0 });
        assert_eq!(schedule.look(at(100), at(102)), Look::Due { slot: at(100), missed: 0 });
        assert_eq!(schedule.look(at(100), at(105)), Look::Missed { next: at(110), missed: 1 });
        assert_eq!(schedule.look(at(100), at(131)), Look::Due { slot: at(130), missed: 3 });
        assert_eq!(schedule.look(at(100), at(50)), Look::Reset { next: at(60) });
    }

    #[tokio::test]
    async fn missed_slots_are_counted_and_a_slow_poll_does_not_pile_up() {
        let clock = ManualClock::new(at(95));
        let slots = Rooms::new(&prometheus::Registry::new()).room("test");
        let mut ticker = Ticker::new("test", without_offset(), clock.clone(), slots.clone());
        let wait = tokio::spawn(async move {
            let first = ticker.tick().await;
            (first, ticker)
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(5));
        let (first, mut ticker) = wait.await.unwrap();
        assert_eq!(first, at(100));
        slots.stored(1);
        // The poll took 35 s: 110 and 120 are gone; 130 is five seconds old and gone as well.
        clock.advance(Duration::from_secs(35));
        let wait = tokio::spawn(async move { ticker.tick().await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(5));
        assert_eq!(wait.await.unwrap(), at(140));
        let balance = slots.balance();
        assert_eq!((balance.received, balance.dropped, balance.waiting), (5, 3, 1));
        assert!(balance.is_conserved());
    }
}
