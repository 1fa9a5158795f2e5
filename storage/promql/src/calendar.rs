//! Calendar functions: what a time in seconds is in UTC.
//!
//! Every number has its date, however far away; what is no number, or beyond 64 bits of seconds, is where Go's time
//! begins, because Prometheus answers so.

/// The function of a name, if it is one of the calendar.
pub(crate) fn of(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |seconds| (since_midnight(seconds) / 60 % 60) as f64,
        "hour" => |seconds| (since_midnight(seconds) / 3600) as f64,
        // The first of January 1970 was a Thursday.
        "day_of_week" => |seconds| (days(seconds) + 4).rem_euclid(7) as f64,
        "day_of_month" => |seconds| Date::of(seconds).day as f64,
        "day_of_year" => |seconds| {
            let date = Date::of(seconds);
            let before: i64 = (1..date.month).map(|month| length(date.year, month)).sum();
            (before + date.day) as f64
        },
        "days_in_month" => |seconds| {
            let date = Date::of(seconds);
            length(date.year, date.month) as f64
        },
        "month" => |seconds| Date::of(seconds).month as f64,
        "year" => |seconds| Date::of(seconds).year as f64,
        _ => return None,
    })
}

const DAY_SECONDS: i64 = 86_400;

/// Whole seconds since 1970. Where Go's conversion and its 64-bit calendar wrap around, so does this.
fn whole(seconds: f64) -> i128 {
    /// From the beginning of Go's time to 1970.
    const BEFORE: i128 = 9_223_372_028_741_760_000;
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&seconds);
    let seconds = if fits { seconds as i64 } else { i64::MIN };
    (i128::from(seconds) + BEFORE).rem_euclid(1 << 64) - BEFORE
}

fn since_midnight(seconds: f64) -> i128 {
    whole(seconds).rem_euclid(i128::from(DAY_SECONDS))
}

fn days(seconds: f64) -> i64 {
    // At most 2^64 seconds: the days fit.
    whole(seconds).div_euclid(i128::from(DAY_SECONDS)) as i64
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// In the Gregorian calendar, which repeats itself after 400 years.
    fn of(seconds: f64) -> Self {
        const CYCLE_DAYS: i64 = 146_097;
        /// From the first of March of the year 0 to 1970: a year that begins in March ends with its leap day.
        const BEFORE: i64 = 719_468;
        let days = days(seconds) + BEFORE;
        let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
        // Leap days that lie before this one: each fourth year, not each hundredth, but the four hundredth.
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Months of 31, 30, 31, 30, 31 days, from March on.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
        Self { year: year + cycle * 400, month, day }
    }
}

fn length(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seconds: f64) -> Vec<f64> {
        let names = ["year", "month", "day_of_month", "hour", "minute", "day_of_week", "day_of_year", "days_in_month"];
        names.map(|name| of(name).expect("a function")(seconds)).to_vec()
    }

    #[test]
    fn every_number_has_its_date() {
        assert_eq!(all(0.0), [1970.0, 1.0, 1.0, 0.0, 0.0, 4.0, 1.0, 31.0]);
        // 29 February 2024, 23:59:59.9
        assert_eq!(all(1_709_251_199.9), [2024.0, 2.0, 29.0, 23.0, 59.0, 4.0, 60.0, 29.0]);
        // 31 December 1899
        assert_eq!(all(-2_208_988_801.0), [1899.0, 12.0, 31.0, 23.0, 59.0, 0.0, 365.0, 31.0]);
        assert_eq!(all(4_107_542_400.0)[..3], [2100.0, 3.0, 1.0]);
    }

    #[test]
    fn what_is_no_time_is_where_the_time_of_go_begins() {
        let beginning = all(f64::NAN);
        assert_eq!(beginning[2], 4.0);
        assert_eq!(beginning, all(f64::INFINITY));
        assert_eq!(beginning, all(-1e300));
    }
}
