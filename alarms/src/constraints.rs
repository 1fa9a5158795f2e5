//! Time constraints: an alarm is evaluated only while one of them is open, by the clock of its time zone.

use std::time::Duration;

use chrono_tz::Tz;
use croner::parser::CronParser;
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
    match cron.find_previous_occurrence(&local, true) {
        Ok(start) => {
            let since = now.since(start.with_timezone(&chrono::Utc).into());
            since < Duration::from_secs(constraint.duration)
        }
        Err(_) => false,
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
            ("2026-11-20T07:59:59Z", false),
            ("2026-11-20T08:00:00Z", true), // 9:00 in Berlin
            ("2026-11-20T15:59:59Z", true),
            ("2026-11-20T16:00:00Z", false),
            ("2026-11-21T10:00:00Z", false), // Saturday
            ("2026-07-10T07:00:00Z", true),  // summer time
        ] {
            let now = time.parse().expect("a time");
            assert_eq!(are_open(std::slice::from_ref(&office), now), expected, "{time}");
        }
        assert!(are_open(&[], Timestamp::EPOCH));
    }

    #[test]
    fn wrong_constraints_say_what_is_wrong() {
        assert!(check(&constraint("0 25 * * *", 1, "")).expect_err("hour").to_string().contains("0 25 * * *"));
        assert!(check(&constraint("0 9 * * *", 1, "Mars/Base")).expect_err("zone").to_string().contains("Mars/Base"));
    }
}
