//! When runs are made by themselves, and of what. Pure.
//!
//! Tables are of a whole month, once all of it was rated. Events are increments: what was rated since the last run for that
//! target, so that each line goes out once, corrections of what went out before among them.

use std::time::Duration;

use orzo_export::{Profile, Request};
use orzo_model::Timestamp;
use serde::Deserialize;

use crate::receiver::Receiver;

/// Lines rated less long ago wait for the next run: an append that began before may still be under way.
const SETTLES: Duration = Duration::from_secs(600);

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// At each full hour (UTC).
    Hourly,
    /// At each midnight (UTC).
    Daily,
    /// When a month (UTC) is rated.
    Monthly,
}

/// A run that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// What is to be exported.
    pub request: Request,
    /// What is remembered when it is in the outbox.
    pub until: Timestamp,
}

/// The month (UTC) that begins so many months after that of a moment.
fn month(at: Timestamp, later: i64) -> Timestamp {
    let text = at.zulu_secs();
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|text| text.parse::<i64>().ok());
    let (Some(year), Some(number)) = (part(0..4), part(5..7)) else { return at };
    let months = year * 12 + number - 1 + later;
    let text = format!("{:04}-{:02}-01T00:00:00Z", months.div_euclid(12), months.rem_euclid(12) + 1);
    text.parse().unwrap_or(at)
}

impl Schedule {
    /// The run that is due now. `until` is what the last one has said; without one it begins with this month. `ready`: usage is
    /// rated until then.
    pub fn due(self, profile: Profile, until: Option<Timestamp>, now: Timestamp, ready: Timestamp) -> Option<Due> {
        if Receiver::of(profile).is_none() {
            let end = month(ready, 0);
            let begin = month(end, -1);
            let request = Request { profile, begin, end, scopes: None, as_of: None, rated_after: None };
            return (until.is_none_or(|until| until < end)).then_some(Due { request, until: end });
        }
        let settled = now.minus(SETTLES);
        let as_of = match self {
            Self::Hourly => settled.floor(Duration::from_secs(3600)),
            Self::Daily => settled.floor(Duration::from_secs(24 * 3600)),
            Self::Monthly => month(settled, 0),
        };
        let after = until.unwrap_or_else(|| month(settled, 0));
        if as_of <= after {
            return None;
        }
        let (begin, end) = (Timestamp::EPOCH, month(now, 1));
        let request = Request { profile, begin, end, scopes: None, as_of: Some(as_of), rated_after: Some(after) };
        Some(Due { request, until: as_of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn tables_are_of_the_month_that_is_rated() {
        let due = |until: Option<&str>, now: &str, ready: &str| {
            let due = Schedule::Monthly.due(Profile::FocusCsv, until.map(at), at(now), at(ready))?;
            Some((due.request.begin.zulu_secs(), due.request.end.zulu_secs()))
        };
        let december = Some(("2026-12-01T00:00:00Z".to_owned(), "2027-01-01T00:00:00Z".to_owned()));
        assert_eq!(due(Some("2026-12-01T00:00:00Z"), "2027-01-01T01:00:00Z", "2026-12-31T23:00:00Z"), None);
        assert_eq!(due(Some("2026-12-01T00:00:00Z"), "2027-01-01T02:00:00Z", "2027-01-01T00:00:00Z"), december);
        assert_eq!(due(None, "2027-01-15T02:00:00Z", "2027-01-15T00:00:00Z"), december);
        assert_eq!(due(Some("2027-01-01T00:00:00Z"), "2027-01-15T02:00:00Z", "2027-01-15T00:00:00Z"), None);
    }

    #[test]
    fn increments_follow_each_other_without_a_gap_and_without_overlapping() {
        for (schedule, every) in [(Schedule::Hourly, 1), (Schedule::Daily, 24)] {
            let (mut until, mut runs) = (None, 0);
            let mut now = at("2026-11-10T00:03:00Z");
            while now < at("2026-11-14T00:00:00Z") {
                if let Some(due) = schedule.due(Profile::LagoEvents, until, now, now) {
                    let after = due.request.rated_after.expect("an increment");
                    assert_eq!(after, until.unwrap_or_else(|| at("2026-11-01T00:00:00Z")));
                    assert!(due.request.as_of == Some(due.until) && due.until > after);
                    assert!(now.since(due.until) >= SETTLES, "{now}");
                    until = Some(due.until);
                    runs += 1;
                }
                now = now.plus(Duration::from_secs(60));
            }
            // One more: the first one has all since the month began.
            assert_eq!(runs, 96 / every + 1, "{schedule:?}");
        }
    }
}
