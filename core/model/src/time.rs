//! Timestamps: microseconds since the Unix epoch, UTC, the finest unit that the table format knows.
//!
//! What is finer is cut (towards the past), which the user documentation says.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds since 1970-01-01T00:00:00Z. Serialised as RFC 3339 text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is not a time.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a time; expected ISO 8601 such as 2026-11-21T20:04:19Z")]
pub struct TimeError {
    /// What was given, at most 64 characters of it.
    pub text: String,
}

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The first and last representable times (years -9999 and 9999 are what chrono prints; ours are inside).
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// From microseconds; clamped to [`Self::MIN`] ..= [`Self::MAX`].
    #[inline]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// From whole seconds.
    pub fn from_secs(seconds: i64) -> Self {
        Self::from_micros(seconds.saturating_mul(1_000_000))
    }

    /// From seconds with a fraction, cut to microseconds; `None` if not finite.
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        let micros = seconds * 1e6;
        // A cast of a float to i64 saturates, and `from_micros` clamps.
        micros.is_finite().then(|| Self::from_micros(micros.floor() as i64))
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, with the fraction.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Whole seconds since the epoch, rounded towards the past.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The start of the bucket of width `granularity` that holds this time; buckets are aligned to the epoch.
    pub fn floor(self, granularity: Duration) -> Self {
        let width = i64::try_from(granularity.as_micros()).unwrap_or(i64::MAX).max(1);
        Self::from_micros(self.0.div_euclid(width).saturating_mul(width))
    }

    /// This time plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This time minus `duration`, saturating.
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As chrono's type.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Python's `isoformat()` as Gnocchi prints resource dates: the fraction only when it is not zero, `+00:00`.
    pub fn isoformat(self) -> String {
        let time = self.to_chrono();
        let format = if self.0.rem_euclid(1_000_000) == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
        time.to_rfc3339_opts(format, false)
    }

    /// As [`Self::isoformat`] but with `Z`, as Keystone, Glance and Nova print (whole seconds).
    pub fn zulu_secs(self) -> String {
        self.to_chrono().to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// `2026-11-21T20:04:19.088633Z`: always six digits, as Keystone prints token times.
    pub fn zulu_micros(self) -> String {
        self.to_chrono().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// `2026-11-21T20:04:19.088633`: naive UTC, as Aodh and Ceilometer's pollsters print.
    pub fn naive(self) -> String {
        let text = self.isoformat();
        text.strip_suffix("+00:00").unwrap_or(&text).to_owned()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self::from_micros(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.isoformat())
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    /// ISO 8601 with `T` or a space, with or without fraction, with `Z`, an offset, or nothing (then UTC): all that
    /// oslo and Ceilometer send. A bare date is its midnight.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let trimmed = text.trim();
        for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"] {
            if let Ok(time) = DateTime::parse_from_str(trimmed, format) {
                return Ok(time.with_timezone(&Utc).into());
            }
        }
        let naive = trimmed.strip_suffix(['Z', 'z']).unwrap_or(trimmed);
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
            if let Ok(time) = NaiveDateTime::parse_from_str(naive, format) {
                return Ok(time.and_utc().into());
            }
        }
        if let Ok(day) = chrono::NaiveDate::parse_from_str(naive, "%Y-%m-%d") {
            return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc().into());
        }
        Err(TimeError { text: trimmed.chars().take(64).collect() })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.isoformat())
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_that_services_send() {
        let expected = Timestamp::from_micros(1_795_291_459_088_633);
        for text in [
            "2026-11-21T20:04:19.088633Z",
            "2026-11-21 20:04:19.088633",
            "2026-11-21T20:04:19.088633+00:00",
            "2026-11-21T20:04:19.088633+0000",
            "2026-11-21T22:04:19.088633+02:00",
            "2026-11-21T20:04:19.088633",
        ] {
            assert_eq!(text.parse::<Timestamp>().expect(text), expected, "{text}");
        }
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!("".parse::<Timestamp>().is_err());
    }

    #[test]
    fn prints_as_each_service_prints() {
        let whole = Timestamp::from_secs(1_795_291_459);
        assert_eq!(whole.isoformat(), "2026-11-21T20:04:19+00:00");
        assert_eq!(whole.zulu_secs(), "2026-11-21T20:04:19Z");
        assert_eq!(whole.zulu_micros(), "2026-11-21T20:04:19.000000Z");
        assert_eq!(whole.naive(), "2026-11-21T20:04:19");
    }

    #[test]
    fn floors_to_buckets_aligned_to_the_epoch_also_before_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(Timestamp::from_secs(119).floor(minute), Timestamp::from_secs(60));
        assert_eq!(Timestamp::from_secs(-1).floor(minute), Timestamp::from_secs(-60));
    }

    #[test]
    fn extremes_are_clamped_and_not_a_number_is_refused() {
        assert_eq!(Timestamp::from_micros(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_secs_f64(1e300), Some(Timestamp::MAX));
        assert_eq!(Timestamp::from_secs_f64(f64::NAN), None);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
    }
}
