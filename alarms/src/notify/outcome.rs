//! How a try to deliver ended, and what follows from it: pure.

use std::time::Duration;

use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::book::Notice;

/// Failures in a row after which a receiver is left alone for a while.
pub(crate) const FAILURES_MAX: u32 = 5;
/// How long it is left alone the first time; doubles with each failed probe.
const OPEN_FIRST: Duration = Duration::from_secs(30);
/// A receiver that is back is found again within this time.
const OPEN_MAX: Duration = Duration::from_secs(600);
/// Longer waits that a receiver asks for are cut: a day of silence is as good as gone.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// What kind of failure it was: all that a tenant is told, because more would describe the network behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer other than a 2xx.
    NotAccepted,
    /// No address that may be used, no connection, no valid certificate.
    NoConnection,
    /// No answer in time.
    NoAnswer,
    /// The receiver says that it is gone for good.
    Gone,
    /// No token in the name of the alarm's owner.
    NoTrust,
    /// The action cannot be done here at all.
    NotServed,
}

impl Failure {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAccepted => "not accepted",
            Self::NoConnection => "no connection",
            Self::NoAnswer => "no answer",
            Self::Gone => "gone",
            Self::NoTrust => "no trust",
            Self::NotServed => "not served",
        }
    }

    /// In words, for who owns the alarm.
    pub fn told(self) -> &'static str {
        match self {
            Self::NotAccepted => "the receiver did not accept the notice",
            Self::NoConnection => "the receiver cannot be reached, or its address is not allowed for notices",
            Self::NoAnswer => "the receiver did not answer in time",
            Self::Gone => "the receiver answered that it is gone for good",
            Self::NoTrust => "the trust in the name of the alarm's owner gives no token (any more)",
            Self::NotServed => "this action is not served here",
        }
    }

    /// From the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::NotAccepted, Self::NoConnection, Self::NoAnswer, Self::Gone, Self::NoTrust, Self::NotServed]
            .into_iter()
            .find(|failure| failure.as_str() == text)
    }
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// 2xx.
    Delivered,
    /// Anything that may be better later.
    Failed {
        /// What the owner is told.
        failure: Failure,
        /// For the operator, without the URL's query, which may hold a secret.
        reason: String,
        /// What the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// It will never be better: 410, an address that is refused, an action that cannot be done.
    Hopeless {
        /// What the owner is told.
        failure: Failure,
        /// For the operator.
        reason: String,
    },
}

impl Outcome {
    pub(crate) fn failed(failure: Failure, reason: impl ToString) -> Self {
        Self::Failed { failure, reason: reason.to_string(), retry_after: None }
    }

    pub(crate) fn hopeless(failure: Failure, reason: impl ToString) -> Self {
        Self::Hopeless { failure, reason: reason.to_string() }
    }
}

/// Deadlines and patience.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifierSettings {
    /// First wait after a failure, in milliseconds; doubles with each, with full jitter.
    pub backoff_first_ms: u64,
    /// Longest wait, in milliseconds.
    pub backoff_max_ms: u64,
    /// After so long without success a notice is parked, in seconds.
    pub give_up_after_s: u64,
    /// How often the outbox is looked at when nothing says that there is something, in milliseconds.
    pub poll_ms: u64,
}

impl Default for NotifierSettings {
    /// 5 s doubling to 2 h, for 27 h: a weekend night is survived, a dead receiver is noticed on Monday.
    fn default() -> Self {
        Self { backoff_first_ms: 5_000, backoff_max_ms: 7_200_000, give_up_after_s: 97_200, poll_ms: 1_000 }
    }
}

/// When to try again; `None` when patience is over. Full jitter: anywhere between now and the doubled wait, so that
/// notices that failed together do not come back together.
pub(crate) fn next_try(
    settings: &NotifierSettings,
    notice: &Notice,
    retry_after: Option<Duration>,
    now: Timestamp,
    jitter: f64,
) -> Option<Timestamp> {
    let since = notice.replayed_at.unwrap_or(notice.created_at);
    if now.since(since) >= Duration::from_secs(settings.give_up_after_s) {
        return None;
    }
    let doubled =
        settings.backoff_first_ms.saturating_mul(1u64.checked_shl(notice.attempts.min(40)).unwrap_or(u64::MAX));
    let wait = Duration::from_millis(doubled.min(settings.backoff_max_ms)).mul_f64(jitter);
    Some(now.plus(wait.max(retry_after.unwrap_or_default())))
}

/// Until when a receiver is left alone after `failures` in a row; what it asked for itself counts at once.
pub(crate) fn open_until(failures: u32, retry_after: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
    let by_itself = (failures >= FAILURES_MAX).then(|| {
        let doublings = (failures - FAILURES_MAX).min(16);
        OPEN_FIRST.saturating_mul(1 << doublings).min(OPEN_MAX)
    });
    by_itself.max(retry_after).map(|wait| now.plus(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(attempts: u32) -> Notice {
        Notice {
            notice_id: "n".into(),
            alarm_id: "a".into(),
            project_id: "p".into(),
            action: "http://h/".into(),
            receiver: "http://h/".into(),
            body: "{}".into(),
            state: crate::book::NoticeState::Waiting,
            created_at: Timestamp::from_secs(1000),
            replayed_at: None,
            attempts,
            next_at: Timestamp::from_secs(1000),
            failure: None,
            last_error: None,
            is_receiver_gone: false,
            leased_until: None,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_honour_retry_after() {
        let settings = NotifierSettings::default();
        let now = Timestamp::from_secs(1000);
        let wait = |attempts, retry_after, jitter| {
            next_try(&settings, &notice(attempts), retry_after, now, jitter).expect("patient").since(now).as_secs()
        };
        assert_eq!(wait(0, None, 1.0), 5);
        assert_eq!(wait(1, None, 1.0), 10);
        assert_eq!(wait(1, None, 0.0), 0);
        assert_eq!(wait(60, None, 1.0), 7200);
        assert_eq!(wait(0, Some(Duration::from_secs(90)), 1.0), 90);
    }

    #[test]
    fn patience_ends_and_begins_again_with_a_replay() {
        let settings = NotifierSettings::default();
        let late = Timestamp::from_secs(1000 + 97_200);
        assert_eq!(next_try(&settings, &notice(3), None, late, 0.5), None);
        let replayed = Notice { replayed_at: Some(late), ..notice(3) };
        assert!(next_try(&settings, &replayed, None, late, 0.5).is_some());
    }

    #[test]
    fn a_receiver_is_left_alone_after_five_failures_and_longer_each_time() {
        let now = Timestamp::from_secs(1000);
        let seconds = |failures, asked: Option<u64>| {
            open_until(failures, asked.map(Duration::from_secs), now).map(|until| until.since(now).as_secs())
        };
        assert_eq!(seconds(4, None), None);
        assert_eq!(seconds(5, None), Some(30));
        assert_eq!(seconds(6, None), Some(60));
        assert_eq!(seconds(60, None), Some(600));
        assert_eq!(seconds(1, Some(7)), Some(7));
        assert_eq!(seconds(5, Some(7)), Some(30));
    }

    #[test]
    fn failures_survive_the_book() {
        for failure in [Failure::NotAccepted, Failure::NoConnection, Failure::NoAnswer, Failure::Gone] {
            assert_eq!(Failure::parse(failure.as_str()), Some(failure));
        }
        assert_eq!(Failure::parse("else"), None);
    }
}
