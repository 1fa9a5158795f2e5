//! How time is cut into buckets: spans aligned to the epoch, and calendar parts as Gnocchi's `resample` knows them. Pure.

use std::time::Duration;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use orzo_model::Timestamp;

/// The width of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// So long; aligned to the epoch.
    Span(Duration),
    /// A part of the calendar, in UTC.
    Calendar(Calendar),
}

/// Parts of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// `Y`
    Year,
    /// `H`: January to June, July to December.
    Half,
    /// `Q`
    Quarter,
    /// `M`
    Month,
    /// `W`: Sunday to Saturday.
    Week,
}

impl Calendar {
    /// Reads `Y`, `H`, `Q`, `M`, `W`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Y" => Self::Year,
            "H" => Self::Half,
            "Q" => Self::Quarter,
            "M" => Self::Month,
            "W" => Self::Week,
            _ => return None,
        })
    }

    /// The letter that answers carry in place of a number of seconds.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Year => "Y",
            Self::Half => "H",
            Self::Quarter => "Q",
            Self::Month => "M",
            Self::Week => "W",
        }
    }

    /// The first day of the part that holds a day, and the first day of the next one.
    fn days(self, day: NaiveDate) -> Option<(NaiveDate, NaiveDate)> {
        let months = match self {
            Self::Week => {
                let back = u64::from(day.weekday().num_days_from_sunday());
                let first = day.checked_sub_days(Days::new(back))?;
                return Some((first, first.checked_add_days(Days::new(7))?));
            }
            Self::Year => 12,
            Self::Half => 6,
            Self::Quarter => 3,
            Self::Month => 1,
        };
        let first = NaiveDate::from_ymd_opt(day.year(), day.month0() / months * months + 1, 1)?;
        Some((first, first.checked_add_months(chrono::Months::new(months))?))
    }
}

impl Width {
    /// The bucket that holds a time: its start, and the start of the next one.
    pub fn bucket(self, time: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Span(span) => {
                let start = time.floor(span);
                (start, start.plus(span))
            }
            Self::Calendar(part) => {
                let midnight = |day: NaiveDate| Timestamp::from(day.and_time(NaiveTime::MIN).and_utc());
                // Outside the calendar's years everything is one bucket; no time that Orzo keeps is there.
                let days = DateTime::<Utc>::date_naive(&time.to_chrono());
                part.days(days)
                    .map_or((Timestamp::MIN, Timestamp::MAX), |(first, next)| (midnight(first), midnight(next)))
            }
        }
    }

    /// The start of the bucket that holds a time.
    pub fn floor(self, time: Timestamp) -> Timestamp {
        self.bucket(time).0
    }

    /// The start of the first bucket that does not start before a time.
    pub fn ceiling(self, time: Timestamp) -> Timestamp {
        let (start, next) = self.bucket(time);
        if start == time { time } else { next }
    }
}

impl From<Duration> for Width {
    fn from(span: Duration) -> Self {
        Self::Span(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_parts_start_where_people_expect_them() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        for (letter, time, start, next) in [
            ("Y", "2016-02-29T12:00:00", "2016-01-01", "2017-01-01"),
            ("H", "2015-06-30T23:59:59", "2015-01-01", "2015-07-01"),
            ("H", "2015-10-06T14:34:12", "2015-07-01", "2016-01-01"),
            ("Q", "2015-10-06T14:34:12", "2015-10-01", "2016-01-01"),
            ("M", "2015-12-31T14:34:12", "2015-12-01", "2016-01-01"),
            ("W", "2015-03-06T14:34:12", "2015-03-01", "2015-03-08"),
            ("W", "2015-03-01T00:00:00", "2015-03-01", "2015-03-08"),
            ("W", "2015-04-04T14:34:12", "2015-03-29", "2015-04-05"),
        ] {
            let width = Width::Calendar(Calendar::parse(letter).expect("a letter"));
            assert_eq!(width.bucket(at(time)), (at(start), at(next)), "{letter} {time}");
            assert_eq!(width.ceiling(at(start)), at(start));
            assert_eq!(width.ceiling(at(time)), if time == "2015-03-01T00:00:00" { at(start) } else { at(next) });
        }
        assert!(Calendar::parse("D").is_none());
    }
}
