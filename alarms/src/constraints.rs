//! Time constraints: an alarm is evaluated only while one of them is open, by the clock of its time zone.

use chrono::{LocalResult, NaiveDateTime, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;
use croner::{Cron, parser::CronParser};
use orzo_model::Timestamp;

use crate::alarm::{AlarmError, TimeConstraint};

/// A year; a window that is longer is always open.
pub(crate) const DURATION_MAX_S: u32 = 366 * 86_400;

/// Says what is wrong with a constraint.
pub(crate) fn check(constraint: &TimeConstraint) -> Result<(), AlarmError> {
    parser()
        .parse(&constraint.start)
        .map_err(|error| AlarmError::invalid("start", &constraint.start.as_str().into(), &error.to_string()))?;
    zone(constraint).ok_or_else(|| AlarmError::Refused(format!("Timezone {} is not valid", constraint.timezone)))?;
    Ok(())
}

/// Whether an alarm with these constraints is evaluated at `now`: any is open, or there are none.
pub(crate) fn are_open(constraints: &[TimeConstraint], now: Timestamp) -> bool {
    constraints.is_empty() || constraints.iter().any(|constraint| is_open(constraint, now))
}

fn is_open(constraint: &TimeConstraint, now: Timestamp) -> bool {
    let (Some(zone), Ok(cron)) = (zone(constraint), parser().parse(&constraint.start)) else {
        // Checked when it was written; a zone that a later program no longer knows is closed, not open.
        return false;
    };
    let local = now.to_chrono().with_timezone(&zone);
    let wall = local.naive_local();
    let starts = Starts { cron, zone, is_any_hour: constraint.start.split_whitespace().nth(1) == Some("*") };
    // Aodh has minute precision: within the minute before a start it is open already.
    if starts.is_start(wall.with_second(0).and_then(|t| t.with_nanosecond(0)).unwrap_or(wall), wall) {
        return true;
    }
    // By the wall: an hour that is there twice, or not at all, is no reason to end at another time of the day.
    let duration = TimeDelta::seconds(i64::try_from(constraint.duration).unwrap_or(i64::MAX / 1000));
    let is_repeated = matches!(zone.from_local_datetime(&wall), LocalResult::Ambiguous(_, later) if later == local);
    let latest = if is_repeated { starts.latest_before_repeated(wall) } else { starts.latest_before(wall) };
    latest.is_some_and(|start| start <= wall && wall <= start + duration)
}

/// The starts of a constraint by the wall clock of its zone, as croniter gives them to Aodh. A time that the clock jumps
/// over begins when the clock has jumped; where every hour has a start it is left out.
struct Starts {
    cron: Cron,
    zone: Tz,
    is_any_hour: bool,
}

/// Longer than any jump of a clock: zones have skipped a whole day.
const GAP_MINUTES_MAX: usize = 2 * 1440;

impl Starts {
    /// Whether `minute`, or if it is over the next one, is a start.
    fn is_start(&self, minute: NaiveDateTime, wall: NaiveDateTime) -> bool {
        let minute = if minute < wall { minute + TimeDelta::minutes(1) } else { minute };
        if !self.exists(minute) {
            return false;
        }
        if self.cron.is_time_matching(&minute.and_utc()).unwrap_or(false) {
            return true;
        }
        let before = minute - TimeDelta::minutes(1);
        !self.is_any_hour
            && !self.exists(before)
            && self.previous(minute).is_some_and(|start| start >= self.gap_start(before))
    }

    /// The latest start before a time.
    fn latest_before(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut before = wall;
        // Once for the gap, once for what is before it; two gaps within one search do not happen.
        for _ in 0..4 {
            let start = self.previous(before)?;
            if self.exists(start) {
                return Some(start);
            }
            let end = self.gap_end(start);
            if !self.is_any_hour && end < wall {
                return Some(end);
            }
            before = self.gap_start(start);
        }
        None
    }

    /// The same in an hour that the clock shows for the second time: what began when it was shown for the first time is
    /// later than what began before, although the wall may not be there yet.
    fn latest_before_repeated(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let latest = self.latest_before(wall)?;
        let (mut first, mut end) = (wall, wall);
        for _ in 0..GAP_MINUTES_MAX {
            if !self.is_ambiguous(first - TimeDelta::minutes(1)) {
                break;
            }
            first -= TimeDelta::minutes(1);
        }
        for _ in 0..GAP_MINUTES_MAX {
            if !self.is_ambiguous(end) {
                break;
            }
            end += TimeDelta::minutes(1);
        }
        // In whole minutes, as starts are.
        let whole = |time: NaiveDateTime| time.with_second(0).and_then(|time| time.with_nanosecond(0)).unwrap_or(time);
        if latest >= whole(first) { Some(latest) } else { self.latest_before(whole(end)) }
    }

    fn is_ambiguous(&self, wall: NaiveDateTime) -> bool {
        matches!(self.zone.from_local_datetime(&wall), LocalResult::Ambiguous(_, _))
    }

    fn previous(&self, before: NaiveDateTime) -> Option<NaiveDateTime> {
        // As if it were UTC: the pattern is about the wall clock.
        self.cron.find_previous_occurrence(&before.and_utc(), false).ok().map(|start| start.naive_utc())
    }

    fn exists(&self, wall: NaiveDateTime) -> bool {
        !matches!(self.zone.from_local_datetime(&wall), LocalResult::None)
    }

    /// The first minute of the gap that a time is in.
    fn gap_start(&self, mut wall: NaiveDateTime) -> NaiveDateTime {
        for _ in 0..GAP_MINUTES_MAX {
            let before = wall - TimeDelta::minutes(1);
            if self.exists(before) {
                break;
            }
            wall = before;
        }
        wall
    }

    /// The first minute after the gap that a time is in.
    fn gap_end(&self, mut wall: NaiveDateTime) -> NaiveDateTime {
        for _ in 0..GAP_MINUTES_MAX {
            if self.exists(wall) {
                break;
            }
            wall += TimeDelta::minutes(1);
        }
        wall
    }
}

fn zone(constraint: &TimeConstraint) -> Option<Tz> {
    if constraint.timezone.is_empty() { Some(Tz::UTC) } else { constraint.timezone.parse().ok() }
}

fn parser() -> CronParser {
    // Five fields, as croniter reads them.
    CronParser::builder().seconds(croner::parser::Seconds::Disallowed).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(start: &str, hours: u64, timezone: &str) -> TimeConstraint {
        TimeConstraint {
            name: "n".into(),
            description: None,
            start: start.into(),
            duration: hours * 3600,
            timezone: timezone.into(),
        }
    }

    #[test]
    fn open_from_its_start_for_its_duration_in_its_zone() {
        // 9 to 17 on weekdays; 2026-11-20 is a Friday.
        let office = constraint("0 9 * * 1-5", 8, "Europe/Berlin");
        assert_eq!(check(&office), Ok(()));
        for (time, expected) in [
            ("2026-11-20T07:59:00Z", false),
            ("2026-11-20T07:59:59Z", true), // minute precision
            ("2026-11-20T08:00:00Z", true), // 9:00 in Berlin
            ("2026-11-20T16:00:00Z", true), // the end belongs to it
            ("2026-11-20T16:00:01Z", false),
            ("2026-11-21T10:00:00Z", false), // Saturday
            ("2026-07-10T07:00:00Z", true),  // summer time
        ] {
            let now = time.parse().expect("a time");
            assert_eq!(are_open(std::slice::from_ref(&office), now), expected, "{time}");
        }
        assert!(are_open(&[], Timestamp::EPOCH));
    }

    /// Random cases over two years, half of them within hours of a change of the clocks, as croniter 7 within Aodh's
    /// rule decides them. `constraints/make_croniter.py` makes them.
    #[test]
    fn no_difference_to_croniter_over_two_years() {
        let mut count = 0;
        let mut differences = Vec::new();
        for line in include_str!("constraints/croniter.txt").lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let [start, duration, zone, at, expected] = fields.as_slice() else { panic!("{line}") };
            let constraint = TimeConstraint {
                name: "n".into(),
                description: None,
                start: (*start).into(),
                duration: duration.parse().expect("seconds"),
                timezone: (*zone).into(),
            };
            assert_eq!(check(&constraint), Ok(()), "{line}");
            count += 1;
            if is_open(&constraint, Timestamp::from_secs(at.parse().expect("seconds"))) != (*expected == "1") {
                differences.push(line);
            }
        }
        assert!(count >= 4000, "{count}");
        assert!(differences.is_empty(), "{} of {count}:\n{}", differences.len(), differences.join("\n"));
    }

    #[test]
    fn wrong_constraints_say_what_is_wrong() {
        assert!(check(&constraint("0 25 * * *", 1, "")).expect_err("hour").to_string().contains("0 25 * * *"));
        assert!(check(&constraint("0 9 * * *", 1, "Mars/Base")).expect_err("zone").to_string().contains("Mars/Base"));
    }
}
