//! Spans of time as archive policies write them: `5 minutes`, `1 day`, or seconds.

use std::time::Duration;

/// Reads `5 minutes`, `1.5 h`, `30 days`, `300` (seconds) ...; `None` if it is none or not positive.
pub fn timespan(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "microsecond" | "microseconds" => 1e-6,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        // 365.25 days.
        "y" | "year" | "years" => 31_557_600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok().filter(|span| !span.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_units() {
        for (text, seconds) in [
            ("5 minutes", 300.0),
            ("30 days", 2_592_000.0),
            ("1 second", 1.0),
            ("365 days", 31_536_000.0),
            ("300", 300.0),
            ("1.5h", 5400.0),
        ] {
            assert_eq!(timespan(text).map(|span| span.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "soon", "5 parsecs", "0 s", "-1 s", "1e400 s"] {
            assert_eq!(timespan(text), None, "{text}");
        }
    }
}
