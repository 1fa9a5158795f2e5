//! The log of the table `series`: one file's entry, a version of the table, and the actions of commits. Pure.

use std::{collections::BTreeMap, path::Path};

use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::columns::delta_schema;

/// Layout of what Delta leaves to us; another one is made anew.
const FORMAT: &str = "1";
const FORMAT_KEY: &str = "orzo.series.format";
const TAG: &str = "orzo.series";
/// What left the table is named by copies of it for so long: readers that began before may still want to know.
const REMOVED_NAMED_MS: i64 = 7 * 24 * 3_600_000;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name; it lies in the table's directory.
    pub(crate) path: String,
    /// Series.
    pub(crate) rows: u64,
    /// Length.
    pub(crate) bytes: u64,
    /// First and last series.
    pub(crate) series: (i64, i64),
    /// xxh3-128 of the whole file, hexadecimal.
    pub(crate) checksum: String,
    /// What identifies its rows ([`super::columns::Rows::content`]).
    pub(crate) content: String,
}

impl Entry {
    fn to_add(&self, at_ms: i64, data_change: bool) -> Value {
        let stats = json!({
            "numRecords": self.rows,
            "minValues": {"series": self.series.0},
            "maxValues": {"series": self.series.1},
            "nullCount": {"series": 0, "labels": 0},
        });
        json!({"add": {
            "path": self.path,
            "partitionValues": {},
            "size": self.bytes,
            "modificationTime": at_ms,
            "dataChange": data_change,
            "stats": stats.to_string(),
            // Only texts are allowed here.
            "tags": {TAG: serde_json::to_string(self).expect("plain data")},
        }})
    }

    fn from_add(add: &Value) -> Option<Self> {
        let entry: Self = serde_json::from_str(add["tags"][TAG].as_str()?).ok()?;
        let is_name = !entry.path.contains('/') && entry.path.ends_with(".parquet");
        (is_name && add["path"] == entry.path.as_str() && add["size"] == entry.bytes).then_some(entry)
    }
}

/// A version of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    /// What the table is: its protocol and its metadata.
    head: Vec<Value>,
    /// Live files by path.
    pub(crate) files: BTreeMap<String, Entry>,
    /// Files that left the table, and when (milliseconds).
    pub(crate) removed: BTreeMap<String, i64>,
}

/// The actions of a new table's first commit.
pub(crate) fn first_actions(now: Timestamp) -> Vec<Value> {
    vec![
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": Uuid::new_v4().to_string(),
            "name": "series",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": delta_schema(),
            "partitionColumns": [],
            "configuration": {FORMAT_KEY: FORMAT},
            "createdTime": now.micros() / 1000,
        }}),
    ]
}

/// The actions that put files in and take others out.
pub(crate) fn change(added: &[Entry], removed: &[Entry], now: Timestamp) -> Vec<Value> {
    let at_ms = now.micros() / 1000;
    let out = removed.iter().map(|file| {
        json!({"remove": {
            "path": file.path,
            "deletionTimestamp": at_ms,
            "dataChange": true,
            "extendedFileMetadata": true,
            "partitionValues": {},
            "size": file.bytes,
        }})
    });
    out.chain(added.iter().map(|file| file.to_add(at_ms, true))).collect()
}

impl Version {
    /// The version that a commit makes of this one; the error says what is wrong with it.
    pub(crate) fn apply(mut self, path: &Path, number: u64, actions: &[Value]) -> Result<Self, String> {
        let wrong = |reason: &str| format!("{}: {reason}", path.display());
        self.number = number;
        for action in actions {
            if let Some(add) = action.get("add") {
                let entry = Entry::from_add(add).ok_or_else(|| wrong("the entry of a file is not whole"))?;
                self.files.insert(entry.path.clone(), entry);
            } else if let Some(remove) = action.get("remove") {
                let (path, at) = (remove["path"].as_str(), remove["deletionTimestamp"].as_i64());
                let (Some(path), Some(at)) = (path, at) else {
                    return Err(wrong("the removal of a file is not whole"));
                };
                self.files.remove(path);
                self.removed.insert(path.to_owned(), at);
            } else if let Some(metadata) = action.get("metaData") {
                if metadata["configuration"][FORMAT_KEY] != FORMAT {
                    return Err(wrong("it was written by another version of Orzo"));
                }
                self.head.push(action.clone());
            } else if action.get("protocol").is_some() {
                self.head.push(action.clone());
            } else {
                return Err(wrong("the table was changed by another program"));
            }
        }
        match self.head.len() {
            2 => Ok(self),
            _ => Err(wrong("it does not say what the table is")),
        }
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
}
