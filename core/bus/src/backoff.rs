//! How long to wait before trying again: exponential with full jitter, so that many clients of a restarted server do
//! not come back in step (the scheme is described in AWS's architecture blog, "Exponential Backoff And Jitter").

use std::time::Duration;

use rand::Rng;

/// Grows with each failure up to a cap; starts over after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between nothing and `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The ceiling of the next wait.
    pub fn ceiling(&self) -> Duration {
        // 2^20 times anything sensible is beyond `most`.
        self.first.saturating_mul(1 << self.failures.min(20)).min(self.most)
    }

    /// The next wait: anything up to the ceiling, which doubles.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// It worked.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut ceilings = Vec::new();
        for _ in 0..12 {
            let ceiling = backoff.ceiling();
            assert!(backoff.next_wait() <= ceiling);
            ceilings.push(ceiling.as_millis());
        }
        assert_eq!(ceilings[..4], [100, 200, 400, 800]);
        assert_eq!(ceilings[11], 30_000);
        backoff.succeeded();
        assert_eq!(backoff.ceiling().as_millis(), 100);
    }
}
