//! Times and timespans as users of Gnocchi write them, and as its answers print them. Pure.

use std::time::Duration;

use orzo_model::Timestamp;
use serde_json::Value;

const SECOND: f64 = 1.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;
const WEEK: f64 = 604_800.0;

/// Why a text is not a time or timespan; the texts are Gnocchi's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not understood.
    #[error("Unable to parse timespan")]
    Unreadable,
    /// Zero or negative.
    #[error("Timespan must be positive")]
    NotPositive,
    /// Longer than numpy's 64 bits of nanoseconds.
    #[error("Timespan must be at most 9223372036.854775 seconds")]
    TooLong,
    /// Not a time.
    #[error("Must be a datetime or a timestamp")]
    NotATime,
    /// Later than numpy's 64 bits of nanoseconds.
    #[error("Timestamp must be at most 2262-04-11T23:47:16.854775Z")]
    TooLate,
    /// A time before 1970.
    #[error("Timestamp must be after Epoch")]
    BeforeEpoch,
}

/// The longest timespan, in microseconds: Gnocchi counts in `timedelta64[ns]`.
pub const SPAN_MICROS_MAX: u64 = (i64::MAX / 1000) as u64;
/// The time of the latest measure, in microseconds: Gnocchi counts in `datetime64[ns]`.
pub const MEASURE_MICROS_MAX: i64 = i64::MAX / 1000;

/// A timespan: a number of seconds, or `1m`, `60s`, `1m30s`, `1:00`, `1 day, 0:00:00` and so on. Cut to microseconds.
pub fn parse_timespan(value: &Value) -> Result<Duration, SpanError> {
    let seconds = match value {
        Value::Number(number) => number.as_f64().ok_or(SpanError::Unreadable)?,
        Value::String(text) => parse_seconds(text).ok_or(SpanError::Unreadable)?,
        _ => return Err(SpanError::Unreadable),
    };
    if seconds.is_nan() {
        return Err(SpanError::Unreadable);
    }
    let micros = seconds * 1e6;
    if micros < 1.0 {
        return Err(SpanError::NotPositive);
    }
    // A cast saturates.
    match micros.round() as u64 {
        micros if micros > SPAN_MICROS_MAX => Err(SpanError::TooLong),
        micros => Ok(Duration::from_micros(micros)),
    }
}

/// Seconds of a timespan text, with its sign.
fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest.trim_start()),
        None => (1.0, text.strip_prefix('+').unwrap_or(text).trim_start()),
    };
    let mut total = 0.0;
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return None;
        }
        if number.contains(':') {
            total += parse_clock(number)?;
            rest = after.trim_start();
            if !rest.is_empty() {
                return None;
            }
        } else {
            let after = after.trim_start();
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            total += number.parse::<f64>().ok()? * unit_seconds(&unit.to_ascii_lowercase())?;
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        parts += 1;
    }
    (parts > 0).then_some(sign * total)
}

/// `1:00` is minutes and seconds, `0:01:00` hours, minutes and seconds, `1:0:0:0` starts with days.
fn parse_clock(text: &str) -> Option<f64> {
    let fields: Vec<f64> = text.split(':').map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let units = [SECOND, MINUTE, HOUR, DAY];
    if fields.len() > units.len() {
        return None;
    }
    Some(fields.iter().rev().zip(units).map(|(field, unit)| field * unit).sum())
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "week" | "weeks" => WEEK,
        _ => return None,
    })
}

/// Seconds since the epoch; what is too late to be a time is refused and not cut to the latest one: most often it is
/// milliseconds, and would be stored in the year 9999.
fn of_seconds(seconds: f64) -> Result<Timestamp, SpanError> {
    let time = Timestamp::from_secs_f64(seconds).ok_or(SpanError::NotATime)?;
    if seconds > Timestamp::MAX.secs_f64() { Err(SpanError::NotATime) } else { Ok(time) }
}

/// A time that is given as a number of seconds since the epoch.
pub fn time_of_seconds(seconds: f64) -> Result<Timestamp, SpanError> {
    let time = of_seconds(seconds)?;
    if time < Timestamp::EPOCH { Err(SpanError::BeforeEpoch) } else { Ok(time) }
}

/// How a time is written; the times of one list are all written in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// A number, or a text that is one: seconds since the epoch.
    Seconds,
    /// ISO 8601, `now` or `today`.
    Date,
    /// A timespan from now: `-5 minutes`.
    Relative,
}

impl TimeForm {
    /// The form of a value, whether it is a time or not.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(_) => Some(Self::Seconds),
            Value::String(text) => {
                let text = text.trim();
                let is_word = text.eq_ignore_ascii_case("now") || text.eq_ignore_ascii_case("today");
                Some(match () {
                    () if text.parse::<f64>().is_ok() => Self::Seconds,
                    () if is_word || parse_iso(text).is_some() => Self::Date,
                    () => Self::Relative,
                })
            }
            _ => None,
        }
    }
}

/// A time: seconds since the epoch, ISO 8601, `now`, `today`, or a timespan relative to `now` such as `-1 day`.
pub fn parse_time(value: &Value, now: Timestamp) -> Result<Timestamp, SpanError> {
    let time = match value {
        Value::Number(number) => of_seconds(number.as_f64().ok_or(SpanError::NotATime)?)?,
        Value::String(text) => {
            let text = text.trim();
            if let Ok(seconds) = text.parse::<f64>() {
                of_seconds(seconds)?
            } else if text.eq_ignore_ascii_case("now") {
                now
            } else if text.eq_ignore_ascii_case("today") {
                now.floor(Duration::from_secs(86_400))
            } else if let Some(time) = parse_iso(text) {
                time
            } else {
                let seconds = parse_seconds(text).ok_or(SpanError::NotATime)?;
                of_seconds(now.secs_f64() + seconds)?
            }
        }
        _ => return Err(SpanError::NotATime),
    };
    if time < Timestamp::EPOCH { Err(SpanError::BeforeEpoch) } else { Ok(time) }
}

/// As [`Timestamp`]'s own reader, and also `2026-11` and `2026-11-21T20`, which numpy knows.
fn parse_iso(text: &str) -> Option<Timestamp> {
    if !text.as_bytes().get(..5).is_some_and(|head| head[..4].iter().all(u8::is_ascii_digit) && head[4] == b'-') {
        return None;
    }
    let completed = match text.len() {
        7 => format!("{text}-01"),
        13 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    completed.parse().ok()
}

/// A timespan as Python prints a `timedelta`: `0:05:00`, `30 days, 0:00:00`, `0:00:00.100000`.
pub fn python_timedelta(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut text = match days {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    text.push_str(&format!("{}:{:02}:{:02}", rest / 3600, rest % 3600 / 60, rest % 60));
    if span.subsec_micros() > 0 {
        text.push_str(&format!(".{:06}", span.subsec_micros()));
    }
    text
}

/// A number as Python prints a float: `60.0`, `0.5`.
pub fn python_float(number: f64) -> String {
    format!("{number:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_timespans_as_gnocchi_does() {
        for (text, seconds) in [
            (json!(60), 60.0),
            (json!(0.5), 0.5),
            (json!("60"), 60.0),
            (json!("1m"), 60.0),
            (json!("1min"), 60.0),
            (json!("1 minute"), 60.0),
            (json!("1m30s"), 90.0),
            (json!("1:00"), 60.0),
            (json!("0:01:00"), 60.0),
            (json!("1 day, 0:00:00"), 86_400.0),
            (json!("30 days, 0:00:00"), 2_592_000.0),
            (json!("0:00:00.100000"), 0.1),
            (json!("1w"), 604_800.0),
        ] {
            assert_eq!(parse_timespan(&text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["1month", "PT1M", "", "abc", "1:2:3:4:5", "1:00 foo"] {
            assert_eq!(parse_timespan(&json!(text)), Err(SpanError::Unreadable), "{text}");
        }
        assert_eq!(parse_timespan(&json!(0)), Err(SpanError::NotPositive));
        assert_eq!(parse_timespan(&json!("-1 day")), Err(SpanError::NotPositive));
        assert_eq!(parse_timespan(&json!(null)), Err(SpanError::Unreadable));
    }

    #[test]
    fn a_timespan_that_nanoseconds_cannot_count_is_refused_and_not_cut() {
        let longest = Duration::from_micros(SPAN_MICROS_MAX);
        assert!(parse_timespan(&json!(9_223_372_036.0)).is_ok_and(|span| span < longest));
        for late in [json!(1e308), json!(9_223_372_037_u64), json!("1e30"), json!("15251w"), json!("106752 days")] {
            assert_eq!(parse_timespan(&late), Err(SpanError::TooLong), "{late}");
        }
    }

    #[test]
    fn reads_times_absolute_and_relative() {
        let now = Timestamp::from_secs(1_000_000);
        for (text, seconds) in [
            (json!(12), 12),
            (json!("12"), 12),
            (json!("1970-01-01T00:01:00"), 60),
            (json!("1970-01-02"), 86_400),
            (json!("1970-02"), 31 * 86_400),
            (json!("1970-01-01T01"), 3600),
            (json!("now"), 1_000_000),
            (json!("today"), 950_400),
            (json!("-1 day"), 913_600),
            (json!("-10 minutes"), 999_400),
            (json!("1h"), 1_003_600),
        ] {
            assert_eq!(parse_time(&text, now), Ok(Timestamp::from_secs(seconds)), "{text}");
            // Milliseconds for seconds, and what is no time at all.
            for late in
                [json!(1_795_000_000_000_u64), json!("1795000000000"), json!(1e300), json!("+99999999999999 days")]
            {
                assert_eq!(parse_time(&late, now), Err(SpanError::NotATime), "{late}");
            }
        }
        assert_eq!(parse_time(&json!("tomorrow"), now), Err(SpanError::NotATime));
        assert_eq!(parse_time(&json!(-5), now), Err(SpanError::BeforeEpoch));
    }

    #[test]
    fn prints_as_python_does() {
        assert_eq!(python_timedelta(Duration::from_secs(300)), "0:05:00");
        assert_eq!(python_timedelta(Duration::from_secs(86_400)), "1 day, 0:00:00");
        assert_eq!(python_timedelta(Duration::from_secs(2_592_000)), "30 days, 0:00:00");
        assert_eq!(python_timedelta(Duration::from_millis(100)), "0:00:00.100000");
        assert_eq!(python_float(60.0), "60.0");
    }
}
