//! Days, the table's partitions: `day=2026-11-21`.

use std::{fmt, str::FromStr, time::Duration};

use orzo_model::Timestamp;

const DAY_MICROS: i64 = 86_400_000_000;

/// Days since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(i64);

impl Day {
    /// The day that holds this time.
    pub(crate) fn of(time: Timestamp) -> Self {
        Self(time.micros().div_euclid(DAY_MICROS))
    }

    /// Its first moment.
    pub(crate) fn start(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(DAY_MICROS))
    }

    /// Its last moment.
    pub(crate) fn end(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(1).saturating_mul(DAY_MICROS).saturating_sub(1))
    }

    /// Its number, counted from the Unix epoch.
    pub(crate) fn number(self) -> i64 {
        self.0
    }

    /// The day of this number.
    pub(crate) fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// Whether the whole day lies before `time`.
    pub(crate) fn is_over(self, time: Timestamp) -> bool {
        self < Self::of(time)
    }

    /// Name of the partition's directory.
    pub(crate) fn directory(self) -> String {
        format!("day={self}")
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start().to_chrono().format("%Y-%m-%d"))
    }
}

impl FromStr for Day {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let midnight: Timestamp = text.parse().map_err(|_| ())?;
        if midnight.floor(Duration::from_secs(86_400)) == midnight && text.len() == 10 {
            Ok(Self::of(midnight))
        } else {
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_printed_to_the_ends_of_time() {
        for time in [Timestamp::MIN, Timestamp::from_secs(-1), Timestamp::EPOCH, Timestamp::MAX] {
            let day = Day::of(time);
            assert_eq!(day.to_string().parse(), Ok(day), "{day}");
        }
        assert_eq!(Day::of(Timestamp::MIN).to_string(), "0001-01-01");
        assert_eq!(Day::of(Timestamp::from_secs(-1)).directory(), "day=1969-12-31");
        assert_eq!(Day::of(Timestamp::MAX).to_string(), "9999-12-31");
        assert!("2026-11".parse::<Day>().is_err());
    }
}
