//! What the log of the rollups' table says: which files count, of which days, and what those days were made of. Pure.
//!
//! A file has the buckets of one layer (a width and what is kept of each bucket) of some days. Files that were made in one
//! commit are a *part*. Of a layer and a day the newest part that has the day counts, and only if the day's raw files are
//! still those that it was made of ([`Source`]).

use std::{collections::BTreeMap, path::Path, sync::Arc};

use orzo_model::Timestamp;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::StoreError,
    table::{
        action::{Action, Add, Format, MetaData, Protocol, Txn},
        data_file::DataFile,
        day::Day,
    },
};

/// How rollups are made, and what the protocol leaves to us. Of another number everything is dropped and made again.
pub(super) const RECIPE: &str = "1";
const RECIPE_KEY: &str = "orzo.rollups";
/// `txn` of a day that was looked at: its version is what the day was made of, as a number.
const ROLLED_APP: &str = "orzo.rolled.";
const DAYS_TAG: &str = "orzo.days";
const PART_TAG: &str = "orzo.part";
const GRANULARITY: &str = "granularity";
const STATISTIC: &str = "statistic";

/// What is kept of the values of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregate {
    /// How many there are.
    Count,
    /// Their sum, in the order of their times.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The oldest.
    First,
    /// The newest.
    Last,
    /// Standard deviation of the sample.
    Std,
    /// The middle one.
    Median,
    /// A percentile.
    Percentile(u8),
}

impl Aggregate {
    fn name(self) -> String {
        match self {
            Self::Count => "count".to_owned(),
            Self::Sum => "sum".to_owned(),
            Self::Min => "min".to_owned(),
            Self::Max => "max".to_owned(),
            Self::First => "first".to_owned(),
            Self::Last => "last".to_owned(),
            Self::Std => "std".to_owned(),
            Self::Median => "median".to_owned(),
            Self::Percentile(percentage) => format!("{percentage}pct"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "first" => Self::First,
            "last" => Self::Last,
            "std" => Self::Std,
            "median" => Self::Median,
            other => Self::Percentile(other.strip_suffix("pct")?.parse().ok()?),
        })
    }
}

/// Buckets of one width, and what is kept of each. A width divides a day, so that no bucket has points of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// Width of a bucket in seconds.
    pub width_secs: u32,
    /// What is kept.
    pub aggregate: Aggregate,
}

impl Layer {
    /// Directory of its files below the table.
    pub(super) fn directory(self) -> String {
        format!("{GRANULARITY}={}/{STATISTIC}={}", self.width_secs, self.aggregate.name())
    }
}

/// The raw files of a day at a moment: every row that they had, and the last record of the log that was in them.
///
/// What changes a day's answers changes this. New points are files of a higher generation. Merging conserves rows and takes
/// the highest generation; if it leaves out what was replaced or deleted, the rows are fewer. And what once went never comes
/// back under the same generation, so equal sources have equal rows and equal answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) rows: u64,
    pub(super) hash: u128,
    pub(super) generation: u64,
}

impl Source {
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Arc<DataFile>>) -> Self {
        let mut source = Self::default();
        for file in files {
            source.rows += file.rows;
            source.hash = source.hash.wrapping_add(file.hash);
            source.generation = source.generation.max(file.generation);
        }
        source
    }

    /// Whether a day's files are these still; those that came later do not count.
    pub(super) fn is_met_by(&self, files: &[Arc<DataFile>]) -> bool {
        Self::of(files.iter().filter(|file| file.generation <= self.generation)) == *self
    }

    /// The same as one number, as the log's `txn` can have it.
    pub(super) fn number(&self) -> u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.rows.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.hash.to_le_bytes());
        bytes[24..].copy_from_slice(&self.generation.to_le_bytes());
        // Delta's versions are signed.
        xxh3_64(&bytes) >> 1
    }
}

/// One live file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RolledFile {
    pub(super) layer: Layer,
    /// The version of the table that it came with.
    pub(super) part: u64,
    /// Its days, in order, and what each was made of.
    pub(super) days: Arc<Vec<(Day, Source)>>,
    pub(super) file: Arc<DataFile>,
}

impl RolledFile {
    pub(super) fn to_add(&self, at_ms: i64) -> Add {
        let mut add = self.file.to_add(at_ms, true);
        add.partition_values = partition(self.layer);
        let day = |(day, source): &(Day, Source)| {
            format!("{}:{}:{}:{:032x}", day.number(), source.rows, source.generation, source.hash)
        };
        add.tags.insert(DAYS_TAG.to_owned(), self.days.iter().map(day).collect::<Vec<_>>().join(","));
        add.tags.insert(PART_TAG.to_owned(), self.part.to_string());
        add
    }

    fn from_add(add: &Add) -> Option<Self> {
        let layer = Layer {
            width_secs: add.partition_values.get(GRANULARITY)?.parse().ok().filter(|width| *width > 0)?,
            aggregate: Aggregate::parse(add.partition_values.get(STATISTIC)?)?,
        };
        let day = |text: &str| {
            let mut parts = text.split(':');
            let day = Day::from_number(parts.next()?.parse().ok()?);
            let (rows, generation) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let hash = u128::from_str_radix(parts.next()?, 16).ok()?;
            Some((day, Source { rows, hash, generation }))
        };
        let days = add.tags.get(DAYS_TAG)?.split(',').map(day).collect::<Option<Vec<_>>>()?;
        let first = days.first()?.0;
        let mut plain = add.clone();
        plain.partition_values = [("day".to_owned(), first.to_string())].into();
        let file = Arc::new(DataFile::from_add(&plain)?);
        Some(Self { layer, part: add.tags.get(PART_TAG)?.parse().ok()?, days: Arc::new(days), file })
    }
}

/// As Delta names the partition of a layer.
pub(super) fn partition(layer: Layer) -> BTreeMap<String, String> {
    [(GRANULARITY, layer.width_secs.to_string()), (STATISTIC, layer.aggregate.name())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// A version of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Version {
    /// Its number; `None` before the first commit.
    pub(super) number: Option<u64>,
    /// Live files, by layer and part.
    pub(super) files: Vec<Arc<RolledFile>>,
    /// What each day was when it was last looked at, as a number.
    pub(super) rolled: BTreeMap<Day, u64>,
    /// Files that left the table and may still be on disk: path and when.
    pub(super) removed: BTreeMap<String, Timestamp>,
    /// The first commit, kept as it is.
    head: Vec<Action>,
}

/// The actions of a new table's first commit.
pub(super) fn first_actions(id: Uuid, now: Timestamp) -> Vec<Action> {
    let field = |name: &str, kind: &str, nullable: bool, comment: &str| {
        let metadata = if comment.is_empty() { serde_json::json!({}) } else { serde_json::json!({"comment": comment}) };
        serde_json::json!({"name": name, "type": kind, "nullable": nullable, "metadata": metadata})
    };
    let fields = [
        field("series", "long", false, ""),
        field("timestamp", "timestamp", false, "the beginning of the bucket"),
        field("other_value", "double", true, "null where number has it: read coalesce(other_value, number / divisor)"),
        field("number", "long", true, "the value times divisor, exactly"),
        field("divisor", "double", true, "a power of ten"),
        field(GRANULARITY, "long", true, "width of the bucket in seconds"),
        field(STATISTIC, "string", true, "what of the bucket's values the value is"),
    ];
    vec![
        Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 }),
        Action::MetaData(MetaData {
            id: id.to_string(),
            name: "rollups".to_owned(),
            format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
            schema_string: serde_json::json!({"type": "struct", "fields": fields}).to_string(),
            partition_columns: vec![GRANULARITY.to_owned(), STATISTIC.to_owned()],
            configuration: [(RECIPE_KEY.to_owned(), RECIPE.to_owned())].into(),
            created_time: now.micros() / 1000,
        }),
    ]
}

/// The action that notes what a day was when it was looked at.
pub(super) fn rolled(day: Day, source: u64, at_ms: i64) -> Action {
    Action::Txn(Txn { app_id: format!("{ROLLED_APP}{}", day.number()), version: source, last_updated: at_ms })
}

impl Version {
    /// The version that these actions make of this one.
    pub(super) fn apply(&self, path: &Path, number: u64, actions: &[Action]) -> Result<Self, StoreError> {
        let unknown = |reason: &str| StoreError::Format { path: path.to_owned(), reason: reason.to_owned() };
        let mut next = Self { number: Some(number), ..self.clone() };
        for action in actions {
            match action {
                Action::Protocol(_) => next.head.push(action.clone()),
                Action::MetaData(metadata) => {
                    if metadata.configuration.get(RECIPE_KEY).map(String::as_str) != Some(RECIPE) {
                        return Err(unknown("rollups are made in another way now"));
                    }
                    next.head.push(action.clone());
                }
                Action::Add(add) => {
                    let file = RolledFile::from_add(add).ok_or_else(|| {
                        StoreError::damaged(path, 0, format!("the entry of {} is not whole", add.path))
                    })?;
                    next.files.push(Arc::new(file));
                }
                Action::Remove(remove) => {
                    next.files.retain(|rolled| rolled.file.path != remove.path);
                    let at = Timestamp::from_micros(remove.deletion_timestamp.saturating_mul(1000));
                    next.removed.insert(remove.path.clone(), at);
                }
                Action::Txn(txn) => {
                    let day = txn.app_id.strip_prefix(ROLLED_APP).and_then(|day| day.parse().ok());
                    let day = day.ok_or_else(|| unknown("it has a day that is none"))?;
                    next.rolled.insert(Day::from_number(day), txn.version);
                }
            }
        }
        if next.head.len() != 2 {
            return Err(unknown("it does not begin as the rollups' log does"));
        }
        next.files.sort_by(|a, b| (a.layer, a.part, &a.file.path).cmp(&(b.layer, b.part, &b.file.path)));
        Ok(next)
    }

    /// Everything that a reader of this version needs, as one list.
    pub(super) fn actions(&self, now: Timestamp) -> Vec<Action> {
        let now_ms = now.micros() / 1000;
        let mut actions = self.head.clone();
        actions.extend(self.rolled.iter().map(|(day, source)| rolled(*day, *source, now_ms)));
        actions.extend(self.files.iter().map(|file| {
            let mut add = file.to_add(now_ms);
            add.data_change = false;
            Action::Add(add)
        }));
        actions
    }

    /// Of a layer, which part counts for each day, and what the day was made of.
    pub(super) fn days(&self, layer: Layer) -> BTreeMap<Day, (u64, Source)> {
        let mut days = BTreeMap::new();
        // They stand in the order of their parts.
        for file in self.files.iter().filter(|file| file.layer == layer) {
            days.extend(file.days.iter().map(|(day, source)| (*day, (file.part, *source))));
        }
        days
    }

    /// Layers that have files.
    pub(super) fn layers(&self) -> Vec<Layer> {
        let mut layers: Vec<Layer> = self.files.iter().map(|file| file.layer).collect();
        layers.dedup();
        layers
    }
}
