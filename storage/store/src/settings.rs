//! What an operator may set, with its defaults. Durations are texts such as `"30s"`, `"10m"`, `"7d"`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::files::s3::BucketSettings;

/// Settings of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// Where everything lies; made if it is not there.
    pub directory: PathBuf,
    /// The head is written to files when its points take this many bytes of memory. Twice as much is the most that
    /// the head can take, because the next one fills while this one is written.
    pub head_bytes_max: usize,
    /// The head is written to files when its oldest point has waited this long; until then outside readers of the
    /// table do not see it.
    #[serde(with = "duration")]
    pub flush_after: Duration,
    /// Size of a log segment, allocated at once so that an accepted write cannot meet a full disk.
    pub wal_segment_bytes: u64,
    /// Files whose newest point is older than this are removed; without it everything is kept.
    #[serde(with = "optional_duration")]
    pub retention: Option<Duration>,
    /// Rows of the largest file. While it is made it is in memory, at about 1 byte for each row.
    pub file_rows_max: usize,
    /// Compaction begins when this many files of a day can be merged.
    pub compact_files_min: usize,
    /// Appends stop while less than this is free; the rest is for files and recovery.
    pub disk_reserve_bytes: u64,
    /// Bytes of appends that may wait for the log at one time.
    pub waiting_bytes_max: usize,
    /// How long an append waits for room before it is refused as busy.
    #[serde(with = "duration")]
    pub append_wait: Duration,
    /// The most points of one answer.
    pub scan_points_max: usize,
    /// Rows of a deleted series leave the table's files within this time; from disk they go `removed_grace` later.
    #[serde(with = "duration")]
    pub deleted_within: Duration,
    /// How long a file that left the table stays on disk, for outside readers that still have an old version.
    #[serde(with = "duration")]
    pub removed_grace: Duration,
    /// Commits between two checkpoints of the table's log.
    pub checkpoint_commits: u64,
    /// Where the table is, if not on this machine.
    pub bucket: Option<BucketSettings>,
    /// Goes on with a table in a bucket that another directory had and did not leave: what only its log has is not in
    /// the table. Never set by a file.
    #[serde(skip)]
    pub adopts: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("./orzo-data/store"),
            head_bytes_max: 64 << 20,
            flush_after: Duration::from_secs(600),
            wal_segment_bytes: 64 << 20,
            retention: None,
            file_rows_max: 16_000_000,
            compact_files_min: 8,
            disk_reserve_bytes: 512 << 20,
            waiting_bytes_max: 32 << 20,
            append_wait: Duration::from_secs(5),
            scan_points_max: 5_000_000,
            deleted_within: Duration::from_secs(3600),
            removed_grace: Duration::from_secs(3600),
            checkpoint_commits: 100,
            bucket: None,
            adopts: false,
        }
    }
}

/// A segment must hold its header and a useful record.
const SEGMENT_BYTES_MIN: u64 = 4096;

impl StoreSettings {
    /// What is wrong with these settings, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.wal_segment_bytes < SEGMENT_BYTES_MIN || self.wal_segment_bytes > 1 << 31 {
            return Some(format!("wal_segment_bytes must be between {SEGMENT_BYTES_MIN} and 2 GiB"));
        }
        if self.file_rows_max > 1 << 31 {
            return Some("file_rows_max must be at most 2147483648".to_owned());
        }
        if self.file_rows_max == 0 || self.scan_points_max == 0 || self.checkpoint_commits == 0 {
            return Some("file_rows_max, scan_points_max and checkpoint_commits must be above zero".to_owned());
        }
        if self.compact_files_min < 2 {
            return Some("compact_files_min must be at least 2".to_owned());
        }
        self.bucket.as_ref().and_then(BucketSettings::problem)
    }
}

/// `"1500ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`; in whole numbers.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    match &text[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

/// In the largest unit that says it exactly.
fn print_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if !ms.is_multiple_of(1000) || ms == 0 => format!("{ms}ms"),
        _ if !ms.is_multiple_of(60_000) => format!("{}s", ms / 1000),
        _ if !ms.is_multiple_of(3_600_000) => format!("{}m", ms / 60_000),
        _ if !ms.is_multiple_of(86_400_000) => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::print_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a duration such as \"30s\", \"10m\" or \"7d\"")))
    }
}

mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_printed() {
        for text in ["0ms", "1500ms", "30s", "10m", "5h", "7d"] {
            assert_eq!(print_duration(parse_duration(text).expect(text)), text);
        }
        for text in ["", "30", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn settings_are_strict_and_round_trip() {
        let settings = StoreSettings { retention: Some(Duration::from_secs(86_400)), ..StoreSettings::default() };
        let text = toml::to_string(&settings).expect("settings are text");
        assert_eq!(toml::from_str::<StoreSettings>(&text).expect(&text), settings);
        assert_eq!(toml::from_str::<StoreSettings>("").expect("nothing is needed"), StoreSettings::default());
        assert!(toml::from_str::<StoreSettings>("direktory = 'x'").is_err());
        assert!(toml::from_str::<StoreSettings>("flush_after = 'soon'").is_err());
    }
}
