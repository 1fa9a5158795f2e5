//! The table's log: one file's entry, a version of the table, and the actions of commits. Pure.

use std::{collections::BTreeMap, path::Path};

use orzo_model::Timestamp;
use orzo_rating::RatedLine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::columns::{arrow_schema, delta_schema};

/// Layout of what Delta leaves to us; a higher one is refused.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "orzo.ledger.format";

/// What a file holds, as the log says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the table.
    pub path: String,
    /// Month of its periods, such as `2026-11`.
    pub month: String,
    /// Lines.
    pub rows: u64,
    /// Length.
    pub bytes: u64,
    /// First and last period, microseconds.
    pub periods: (i64, i64),
    /// First and last begin of use, microseconds.
    pub begins: (i64, i64),
    /// First and last time of rating, microseconds; files of before 2026-11-22 do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rated: Option<(i64, i64)>,
    /// First and last project.
    pub scopes: (String, String),
    /// xxh3-128 of the whole file, hexadecimal.
    pub checksum: String,
    /// Wrapping sum over its lines of the hash of their ids, hexadecimal: the same lines in other files have the same sum.
    pub ids: String,
    /// Sum of costs in the smallest step that the table keeps.
    pub cost: String,
}

/// What files conserve when they are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    pub(crate) ids: u128,
    pub(crate) cost: i128,
}

impl Sum {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            ids: self.ids.wrapping_add(other.ids),
            cost: self.cost.wrapping_add(other.cost),
        }
    }
}

/// A line's share of [`FileEntry::ids`].
fn id_hash(id: Uuid) -> u128 {
    xxh3_128(id.as_bytes())
}

/// Month of a period.
pub(crate) fn month_of(period: Timestamp) -> String {
    period.to_chrono().format("%Y-%m").to_string()
}

impl FileEntry {
    /// Describes a file of sorted lines of one month.
    pub(crate) fn describe(
        path: String,
        lines: &[&RatedLine],
        costs: impl Iterator<Item = i128>,
        bytes: &[u8],
    ) -> Self {
        let range = |times: &mut dyn Iterator<Item = i64>| {
            times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)))
        };
        let scope = |scope: Option<&str>| scope.map(str::to_owned).unwrap_or_default();
        let scopes = || lines.iter().map(|line| line.scope.as_str());
        let ids = lines.iter().fold(0_u128, |sum, line| sum.wrapping_add(id_hash(line.id)));
        Self {
            month: lines.first().map(|line| month_of(line.period)).unwrap_or_default(),
            rows: lines.len() as u64,
            bytes: bytes.len() as u64,
            periods: range(&mut lines.iter().map(|line| line.period.micros())),
            begins: range(&mut lines.iter().map(|line| line.begin.micros())),
            rated: Some(range(&mut lines.iter().map(|line| line.rated_at.micros()))),
            scopes: (scope(scopes().min()), scope(scopes().max())),
            checksum: format!("{:032x}", xxh3_128(bytes)),
            ids: format!("{ids:032x}"),
            cost: costs.fold(0_i128, i128::wrapping_add).to_string(),
            path,
        }
    }

    /// What it must conserve; `None` if the entry is not whole.
    pub(crate) fn sum(&self) -> Option<Sum> {
        let ids = u128::from_str_radix(&self.ids, 16).ok()?;
        Some(Sum { rows: self.rows, ids, cost: self.cost.parse().ok()? })
    }

    fn to_add(&self, at_ms: i64, data_change: bool) -> Value {
        let time = |micros: i64| Timestamp::from_micros(micros).zulu_micros();
        let nulls: BTreeMap<String, u64> = arrow_schema()
            .fields()
            .iter()
            .filter(|field| !field.is_nullable())
            .map(|field| (field.name().clone(), 0))
            .collect();
        let stats = json!({
            "numRecords": self.rows,
            "minValues": {"period": time(self.periods.0), "begin": time(self.begins.0), "scope": self.scopes.0},
            "maxValues": {"period": time(self.periods.1), "begin": time(self.begins.1), "scope": self.scopes.1},
            "nullCount": nulls,
        });
        json!({"add": {
            "path": self.path,
            "partitionValues": {"month": self.month},
            "size": self.bytes,
            "modificationTime": at_ms,
            "dataChange": data_change,
            "stats": stats.to_string(),
            // Only texts are allowed here.
            "tags": {"orzo.ledger": serde_json::to_string(self).expect("plain data")},
        }})
    }

    fn from_add(add: &Value) -> Option<Self> {
        let entry: Self = serde_json::from_str(add["tags"]["orzo.ledger"].as_str()?).ok()?;
        entry.sum()?;
        (add["path"] == entry.path.as_str() && add["size"] == entry.bytes).then_some(entry)
    }

    fn to_remove(&self, at_ms: i64) -> Value {
        json!({"remove": {
            "path": self.path,
            "deletionTimestamp": at_ms,
            "dataChange": false,
            "extendedFileMetadata": true,
            "partitionValues": {"month": self.month},
            "size": self.bytes,
        }})
    }
}

/// What left the table is named by copies of it for so long: readers that began before may still want to know.
const REMOVED_NAMED_MS: i64 = 7 * 24 * 3_600_000;

/// A version of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    /// What the table is: its protocol and its metadata.
    head: Vec<Value>,
    /// Live files by path.
    pub(crate) files: BTreeMap<String, FileEntry>,
    /// Files that left the table, and when (milliseconds).
    pub(crate) removed: BTreeMap<String, i64>,
}

/// The actions of a new table's first commit.
pub(crate) fn first_actions(id: Uuid, now: Timestamp) -> Vec<Value> {
    vec![
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": id.to_string(),
            "name": "ledger",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": delta_schema(),
            "partitionColumns": ["month"],
            "configuration": {FORMAT_KEY: FORMAT.to_string(), "delta.appendOnly": "true"},
            "createdTime": now.micros() / 1000,
        }}),
    ]
}

/// The actions that put files in, and take out those that they replace.
pub(crate) fn change(added: &[FileEntry], replaced: &[FileEntry], now: Timestamp) -> Vec<Value> {
    let at_ms = now.micros() / 1000;
    let out = replaced.iter().map(|file| file.to_remove(at_ms));
    out.chain(added.iter().map(|file| file.to_add(at_ms, replaced.is_empty()))).collect()
}

impl Version {
    /// The version that a commit makes of this one; the error says what is wrong with it.
    pub(crate) fn apply(mut self, path: &Path, number: u64, actions: &[Value]) -> Result<Self, String> {
        let wrong = |reason: &str| format!("{}: {reason}", path.display());
        self.number = number;
        for action in actions {
            if let Some(add) = action.get("add") {
                let entry = FileEntry::from_add(add).ok_or_else(|| wrong("the entry of a file is not whole"))?;
                self.files.insert(entry.path.clone(), entry);
            } else if let Some(remove) = action.get("remove") {
                let (path, at) = (remove["path"].as_str(), remove["deletionTimestamp"].as_i64());
                let (Some(path), Some(at)) = (path, at) else {
                    return Err(wrong("the removal of a file is not whole"));
                };
                self.files.remove(path).ok_or_else(|| wrong("a file is removed that is not there"))?;
                self.removed.insert(path.to_owned(), at);
            } else if let Some(metadata) = action.get("metaData") {
                let format = metadata["configuration"][FORMAT_KEY].as_str().and_then(|text| text.parse::<u32>().ok());
                if format != Some(FORMAT) {
                    return Err(wrong("it was written by a newer version of Orzo"));
                }
                self.head.push(action.clone());
            } else if action.get("protocol").is_some() {
                self.head.push(action.clone());
            } else {
                return Err(wrong("the table was changed by another program"));
            }
        }
        Ok(self)
    }

    /// The actions that make this version of nothing: a checkpoint.
    pub(crate) fn actions(&self, now: Timestamp) -> Vec<Value> {
        let now_ms = now.micros() / 1000;
        let mut actions = self.head.clone();
        actions.extend(self.files.values().map(|file| file.to_add(now_ms, false)));
        let named = self.removed.iter().filter(|(_, at)| now_ms - **at <= REMOVED_NAMED_MS);
        actions.extend(named.map(|(path, at)| {
            json!({"remove": {"path": path, "deletionTimestamp": at, "dataChange": false, "extendedFileMetadata": false}})
        }));
        actions
    }

    /// The version that [`Self::actions`] came from.
    pub(crate) fn of(path: &Path, number: u64, actions: Vec<Value>) -> Result<Self, String> {
        let (removed, others): (Vec<Value>, Vec<Value>) =
            actions.into_iter().partition(|action| action.get("remove").is_some());
        let mut version = Self::default().apply(path, number, &others)?;
        for action in removed {
            let (removed, at) = (action["remove"]["path"].as_str(), action["remove"]["deletionTimestamp"].as_i64());
            let (Some(removed), Some(at)) = (removed, at) else {
                return Err(format!("{}: the removal of a file is not whole", path.display()));
            };
            version.removed.insert(removed.to_owned(), at);
        }
        match version.head.len() {
            2 => Ok(version),
            _ => Err(format!("{}: it does not say what the table is", path.display())),
        }
    }
}
