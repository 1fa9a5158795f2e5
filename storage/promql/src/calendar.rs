//! Calendar functions: what a time in seconds is in UTC.

use chrono::{DateTime, Datelike, Timelike, Utc};

/// The function of a name, if it is one of the calendar.
pub(crate) fn of(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |seconds| part(seconds, |time| time.minute()),
        "hour" => |seconds| part(seconds, |time| time.hour()),
        "day_of_week" => |seconds| part(seconds, |time| time.weekday().num_days_from_sunday()),
        "day_of_month" => |seconds| part(seconds, |time| time.day()),
        "day_of_year" => |seconds| part(seconds, |time| time.ordinal()),
        "days_in_month" => |seconds| part(seconds, |time| u32::from(time.num_days_in_month())),
        "month" => |seconds| part(seconds, |time| time.month()),
        "year" => |seconds| at(seconds).map_or(f64::NAN, |time| f64::from(time.year())),
        _ => return None,
    })
}

fn at(seconds: f64) -> Option<DateTime<Utc>> {
    // The cast cuts what is out of range, and such times are none.
    DateTime::from_timestamp(seconds as i64, 0).filter(|_| !seconds.is_nan())
}

fn part(seconds: f64, part: impl Fn(DateTime<Utc>) -> u32) -> f64 {
    at(seconds).map_or(f64::NAN, |time| f64::from(part(time)))
}
