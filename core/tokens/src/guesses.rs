//! Against guessing: after some wrong secrets in a minute nobody may try this id from this address before it is over.
//! The right holder elsewhere notices nothing.

use std::{collections::HashMap, time::Duration};

use orzo_model::SharedClock;
use parking_lot::Mutex;

/// Wrong tries in a window without consequence: a data source that was set up wrongly asks several times a second, and
/// five tell as much as a thousand.
const FREE_TRIES: u32 = 5;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);
/// Ids and addresses remembered at most; beyond that those of past windows are forgotten, then the oldest.
const REMEMBERED_MAX: usize = 10_000;

pub(crate) struct Guesses {
    clock: SharedClock,
    tries: Mutex<HashMap<(String, String), Tries>>,
}

#[derive(Clone, Copy)]
struct Tries {
    count: u32,
    since: Duration,
}

impl Guesses {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, tries: Mutex::default() }
    }

    /// How long this id may not be tried from this address; zero if it may.
    pub(crate) fn wait(&self, id: &str, address: &str) -> Duration {
        let now = self.clock.monotonic();
        let tries = self.tries.lock();
        match tries.get(&(id.to_owned(), address.to_owned())) {
            Some(tries) if tries.count >= FREE_TRIES => (tries.since + WINDOW).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn failed(&self, id: &str, address: &str) {
        let now = self.clock.monotonic();
        let mut tries = self.tries.lock();
        if tries.len() >= REMEMBERED_MAX {
            tries.retain(|_, tries| now.saturating_sub(tries.since) < WINDOW);
        }
        if tries.len() >= REMEMBERED_MAX
            && let Some(oldest) = tries.iter().min_by_key(|(_, tries)| tries.since).map(|(key, _)| key.clone())
        {
            tries.remove(&oldest);
        }
        let own = tries.entry((id.to_owned(), address.to_owned())).or_insert(Tries { count: 0, since: now });
        if now.saturating_sub(own.since) >= WINDOW {
            *own = Tries { count: 0, since: now };
        }
        own.count = own.count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn five_tries_a_minute_from_an_address_and_no_more_memory_than_agreed() {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let guesses = Guesses::new(clock.clone());
        for _ in 0..4 {
            guesses.failed("a", "1.2.3.4");
        }
        assert_eq!(guesses.wait("a", "1.2.3.4"), Duration::ZERO);
        clock.advance(Duration::from_secs(10));
        guesses.failed("a", "1.2.3.4");
        assert_eq!(guesses.wait("a", "1.2.3.4"), Duration::from_secs(50));
        assert_eq!(guesses.wait("a", "4.3.2.1"), Duration::ZERO);
        assert_eq!(guesses.wait("b", "1.2.3.4"), Duration::ZERO);
        clock.advance(Duration::from_secs(50));
        assert_eq!(guesses.wait("a", "1.2.3.4"), Duration::ZERO);
        for number in 0..REMEMBERED_MAX + 3 {
            guesses.failed(&number.to_string(), "a");
        }
        assert_eq!(guesses.tries.lock().len(), REMEMBERED_MAX);
    }
}
