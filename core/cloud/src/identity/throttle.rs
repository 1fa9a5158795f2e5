//! Against guessing: after some failures an account must wait longer and longer, seen from one address. Names that do
//! not exist wait just the same, so that waiting tells nothing (OSSA-2021-003); and so does the right password of who is
//! disabled or asks for a project that is not theirs. Never a hard lock: that would let
//! anyone lock out anyone.

use std::{collections::HashMap, time::Duration};

use orzo_model::SharedClock;
use parking_lot::Mutex;

/// Failures without consequence: people mistype.
const FREE_FAILURES: u32 = 5;
/// The first wait; it doubles with each further failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait: 1,440 guesses a day are nothing against eight characters.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Failures are forgotten when the account was quiet for so long.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// Accounts remembered at most; the one that was quiet longest goes first.
const ACCOUNTS_MAX: usize = 10_000;

/// Remembers failures.
pub(crate) struct Throttle {
    clock: SharedClock,
    failures: Mutex<HashMap<(String, String), Failures>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last_at: Duration,
}

impl Throttle {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, failures: Mutex::default() }
    }

    /// How long this account must still wait from this address; zero if it may try.
    pub(crate) fn wait(&self, account: &str, address: &str) -> Duration {
        let now = self.clock.monotonic();
        let failures = self.failures.lock();
        let Some(failures) = failures.get(&(account.to_owned(), address.to_owned())) else { return Duration::ZERO };
        (failures.last_at + delay(failures.count)).saturating_sub(now)
    }

    /// A wrong guess.
    pub(crate) fn failed(&self, account: &str, address: &str) {
        let now = self.clock.monotonic();
        let mut failures = self.failures.lock();
        let key = (account.to_owned(), address.to_owned());
        if failures.len() >= ACCOUNTS_MAX && !failures.contains_key(&key) {
            failures.retain(|_, failure| now.saturating_sub(failure.last_at) < FORGET_AFTER);
            if failures.len() >= ACCOUNTS_MAX {
                let oldest = failures.iter().min_by_key(|(_, failure)| failure.last_at).map(|(key, _)| key.clone());
                oldest.and_then(|oldest| failures.remove(&oldest));
            }
        }
        let failure = failures.entry(key).or_insert(Failures { count: 0, last_at: now });
        if now.saturating_sub(failure.last_at) >= FORGET_AFTER {
            failure.count = 0;
        }
        *failure = Failures { count: failure.count.saturating_add(1), last_at: now };
    }

    /// The right password: the account starts afresh.
    pub(crate) fn succeeded(&self, account: &str, address: &str) {
        self.failures.lock().remove(&(account.to_owned(), address.to_owned()));
    }

    /// Failures remembered.
    #[cfg(test)]
    pub(crate) fn count(&self, account: &str, address: &str) -> u32 {
        self.failures.lock().get(&(account.to_owned(), address.to_owned())).map_or(0, |failures| failures.count)
    }
}

fn delay(failures: u32) -> Duration {
    match failures.checked_sub(FREE_FAILURES) {
        None => Duration::ZERO,
        Some(beyond) => FIRST_WAIT.saturating_mul(1 << beyond.min(16)).min(WAIT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn waits_grow_from_the_fifth_failure_to_a_minute() {
        let seconds: Vec<u64> = (0..13).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(u32::MAX), WAIT_MAX);
    }

    #[test]
    fn one_account_and_address_wait_and_others_do_not() {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let throttle = Throttle::new(clock.clone());
        for _ in 0..6 {
            throttle.failed("ann", "1.2.3.4");
        }
        assert_eq!(throttle.wait("ann", "1.2.3.4"), Duration::from_secs(2));
        assert_eq!(throttle.wait("ann", "5.6.7.8"), Duration::ZERO);
        assert_eq!(throttle.wait("bob", "1.2.3.4"), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        assert_eq!(throttle.wait("ann", "1.2.3.4"), Duration::ZERO);
        throttle.succeeded("ann", "1.2.3.4");
        throttle.failed("ann", "1.2.3.4");
        assert_eq!(throttle.wait("ann", "1.2.3.4"), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_the_quietest_account_goes_first() {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let throttle = Throttle::new(clock.clone());
        for _ in 0..9 {
            throttle.failed("target", "a");
        }
        clock.advance(Duration::from_millis(1));
        for number in 0..ACCOUNTS_MAX + 5 {
            throttle.failed(&number.to_string(), "a");
        }
        assert_eq!(throttle.failures.lock().len(), ACCOUNTS_MAX);
    }
}
