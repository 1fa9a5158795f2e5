//! When to poll: slots aligned to the interval, offset by host, so that not all agents ask at the same instant. Pure.

use std::time::Duration;

use orzo_model::Timestamp;
use uuid::Uuid;

/// Namespace for hashing host names: any constant does.
const HOST_NAMESPACE: Uuid = Uuid::from_u128(0x60aa_1b7f_9c53_4d0e_b8d6_0f7e_55a2_4c19);
/// The offset is at most this share of the interval, so that a slot's data is there well before the next.
const OFFSET_SHARE: u128 = 2;

/// The slots of one agent.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    interval: Duration,
    offset: Duration,
}

impl Slots {
    /// Slots of this width, for an agent on this host. Offsets are whole seconds, so that timestamps look tidy.
    pub fn new(interval: Duration, host: &str) -> Self {
        let interval = interval.max(Duration::from_secs(1));
        let hash = Uuid::new_v5(&HOST_NAMESPACE, host.as_bytes()).as_u128();
        let seconds = u128::from(interval.as_secs()) / OFFSET_SHARE;
        let offset = if seconds == 0 { 0 } else { hash % seconds };
        Self { interval, offset: Duration::from_secs(u64::try_from(offset).unwrap_or(0)) }
    }

    /// The first slot that is not before `now` and after `last`.
    pub fn next(&self, now: Timestamp, last: Option<Timestamp>) -> Timestamp {
        let base = now.minus(self.offset).floor(self.interval).plus(self.offset);
        let slot = if base < now { base.plus(self.interval) } else { base };
        match last {
            // The wall clock went back: do not poll a slot twice.
            Some(last) if slot <= last => last.plus(self.interval),
            _ => slot,
        }
    }

    /// How many slots lie between two.
    pub fn between(&self, earlier: Timestamp, later: Timestamp) -> u64 {
        let slots = later.since(earlier).as_micros() / self.interval.as_micros();
        u64::try_from(slots).unwrap_or(u64::MAX).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_and_never_polled_twice() {
        let slots = Slots { interval: Duration::from_secs(60), offset: Duration::from_secs(7) };
        let at = Timestamp::from_secs;
        assert_eq!(slots.next(at(0), None), at(7));
        assert_eq!(slots.next(at(7), None), at(7));
        assert_eq!(slots.next(at(7), Some(at(7))), at(67));
        assert_eq!(slots.next(at(8), None), at(67));
        assert_eq!(slots.next(at(200), Some(at(67))), at(247));
        assert_eq!(slots.next(at(10), Some(at(247))), at(307), "the clock went back");
        assert_eq!(slots.between(at(67), at(247)), 2);
        assert_eq!(slots.between(at(67), at(127)), 0);
    }

    #[test]
    fn offsets_differ_by_host_and_are_less_than_the_interval() {
        let offsets: std::collections::BTreeSet<_> =
            (0..20).map(|n| Slots::new(Duration::from_secs(300), &format!("host{n}")).offset).collect();
        assert!(offsets.len() > 10, "{offsets:?}");
        assert!(offsets.iter().all(|offset| *offset < Duration::from_secs(150)));
        assert_eq!(Slots::new(Duration::from_secs(1), "h").offset, Duration::ZERO);
    }
}
