//! A version of the table: what the actions of all commits up to it mean together. Pure.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use orzo_model::Timestamp;
use uuid::Uuid;

use super::{
    action::{Action, Format, MetaData, Protocol, Txn},
    data_file::DataFile,
};
use crate::error::StoreError;

/// `txn` of the log's sequence that the table covers.
pub(crate) const WAL_APP: &str = "orzo.wal";
/// `txn` of the newest file of tombstones.
pub(crate) const TOMBSTONES_APP: &str = "orzo.tombstones";
/// `txn` of the directory that the table's one writer has, and whether it left it for another ([`Home`]).
pub(crate) const HOME_APP: &str = "orzo.home";
/// Layout of what the protocol leaves to us; a higher one is refused.
pub(crate) const FORMAT: u32 = 5;
/// Since this layout files have the columns that they have today.
const FORMAT_OF_COLUMNS: u32 = 3;
/// The oldest layout that is still read.
const FORMAT_MIN: u32 = 1;
const FORMAT_KEY: &str = "orzo.format";

const READER_VERSION: u32 = 1;
const WRITER_VERSION: u32 = 2;

/// Which directory a table in a bucket is written from. Its log is there, and what is not in the table yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Home {
    /// The directory's own number; 0 for a table that was never in a bucket.
    pub(crate) id: u64,
    /// It was closed with everything in the table: another directory may go on with it.
    pub(crate) is_left: bool,
}

/// Numbers of directories are below it: with a bit for [`Home::is_left`] they are still a `long` of Delta's.
pub(crate) const HOME_ID_MAX: u64 = 1 << 62;

impl Home {
    fn from_version(version: u64) -> Self {
        Self { id: version >> 1, is_left: version & 1 == 1 }
    }

    /// As the log says it.
    pub(crate) fn version(self) -> u64 {
        self.id << 1 | u64::from(self.is_left)
    }
}

/// A version of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    pub(crate) store_id: Uuid,
    /// Which columns the table has; files of earlier formats may be in it.
    pub(crate) format: u32,
    /// Whether it has the column that only files of formats 1 and 2 have.
    pub(crate) has_old_value: bool,
    /// The last sequence of the log that is in the files.
    pub(crate) covered: u64,
    /// Number of the file of tombstones; 0 is none.
    pub(crate) tombstones: u64,
    /// Who writes it.
    pub(crate) home: Home,
    /// Live files by generation, then path.
    pub(crate) files: Vec<Arc<DataFile>>,
    /// Files that left the table and may still be on disk: path and when.
    pub(crate) removed: BTreeMap<String, Timestamp>,
    /// The first commit, kept as it is.
    head: Vec<Action>,
}

/// The actions of a new table's first commit.
pub(crate) fn first_actions(store_id: Uuid, now: Timestamp) -> Vec<Action> {
    vec![
        Action::Protocol(Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION }),
        Action::MetaData(metadata(store_id, now, false)),
    ]
}

/// The column that files of formats 1 and 2 have for what [`OTHER_VALUE`] is now.
pub(crate) const OLD_VALUE: &str = "value";
/// Values that are no decimal number. Not called a value as such: a sum of it alone would be a wrong answer.
pub(crate) const OTHER_VALUE: &str = "other_value";

/// What readers are told about the table; with the column of old files if it has some.
pub(crate) fn metadata(store_id: Uuid, now: Timestamp, has_old_files: bool) -> MetaData {
    let field = |name: &str, kind: &str, nullable: bool, comment: &str| {
        let metadata = if comment.is_empty() { serde_json::json!({}) } else { serde_json::json!({"comment": comment}) };
        serde_json::json!({"name": name, "type": kind, "nullable": nullable, "metadata": metadata})
    };
    let mut fields = vec![
        field("series", "long", false, ""),
        field("timestamp", "timestamp", false, ""),
        field(OTHER_VALUE, "double", true, "null where number has it: read coalesce(other_value, number / divisor)"),
        field("number", "long", true, "the value times divisor, exactly"),
        field("divisor", "double", true, "a power of ten"),
        field("day", "date", true, ""),
    ];
    if has_old_files {
        let comment = "what old files have as other_value: read coalesce(value, other_value, number / divisor)";
        fields.insert(2, field(OLD_VALUE, "double", true, comment));
    }
    let schema = serde_json::json!({"type": "struct", "fields": fields});
    MetaData {
        id: store_id.to_string(),
        name: "samples".to_owned(),
        format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
        schema_string: schema.to_string(),
        partition_columns: vec!["day".to_owned()],
        configuration: [(FORMAT_KEY.to_owned(), FORMAT.to_string())].into(),
        created_time: now.micros() / 1000,
    }
}

/// Whether readers are told of the column that only old files have.
fn has_old_value(metadata: &MetaData) -> bool {
    let schema: serde_json::Value = serde_json::from_str(&metadata.schema_string).unwrap_or_default();
    let fields = schema["fields"].as_array();
    fields.is_some_and(|fields| fields.iter().any(|field| field["name"] == OLD_VALUE))
}

/// The format that a table says it has.
fn format_of(metadata: &MetaData) -> Option<u32> {
    let format = metadata.configuration.get(FORMAT_KEY)?.parse().ok()?;
    (FORMAT_MIN..=FORMAT).contains(&format).then_some(format)
}

impl Snapshot {
    /// The version that a first commit, or a file with everything in it, makes.
    pub(crate) fn first(path: &Path, version: u64, actions: Vec<Action>) -> Result<Self, StoreError> {
        let unknown = |reason: &str| StoreError::Format { path: path.to_owned(), reason: reason.to_owned() };
        let (mut head, mut rest) = (Vec::new(), Vec::new());
        let (mut store_id, mut format, mut old_value) = (None, FORMAT, false);
        for action in actions {
            match &action {
                Action::Protocol(protocol) => {
                    if (protocol.min_reader_version, protocol.min_writer_version) != (READER_VERSION, WRITER_VERSION) {
                        return Err(unknown("another version of Delta's protocol"));
                    }
                    head.push(action);
                }
                Action::MetaData(metadata) => {
                    format = format_of(metadata).ok_or_else(|| unknown("it was written by a newer version of Orzo"))?;
                    store_id = Uuid::parse_str(&metadata.id).ok();
                    old_value = has_old_value(metadata);
                    head.push(action);
                }
                _ => rest.push(action),
            }
        }
        let store_id = store_id.ok_or_else(|| unknown("the table has no id"))?;
        let (files, removed) = (Vec::new(), BTreeMap::new());
        let snapshot = Self {
            version,
            store_id,
            format,
            has_old_value: old_value,
            covered: 0,
            tombstones: 0,
            home: Home::default(),
            files,
            removed,
            head,
        };
        snapshot.apply(path, version, &rest)
    }

    /// The version that these actions make of this one.
    pub(crate) fn apply(&self, path: &Path, version: u64, actions: &[Action]) -> Result<Self, StoreError> {
        let mut next = Self { version, ..self.clone() };
        for action in actions {
            match action {
                Action::Add(add) => {
                    let file = DataFile::from_add(add).ok_or_else(|| {
                        StoreError::damaged(path, 0, format!("the entry of {} is not whole", add.path))
                    })?;
                    next.removed.remove(&file.path);
                    next.files.push(Arc::new(file));
                }
                Action::Remove(remove) => {
                    next.files.retain(|file| file.path != remove.path);
                    let at = Timestamp::from_micros(remove.deletion_timestamp.saturating_mul(1000));
                    next.removed.insert(remove.path.clone(), at);
                }
                Action::Txn(txn) if txn.app_id == WAL_APP => next.covered = txn.version,
                Action::Txn(txn) if txn.app_id == TOMBSTONES_APP => next.tombstones = txn.version,
                Action::Txn(txn) if txn.app_id == HOME_APP => next.home = Home::from_version(txn.version),
                Action::Txn(txn) => {
                    let reason = format!("an application `{}` is not known", txn.app_id);
                    return Err(StoreError::Format { path: path.to_owned(), reason });
                }
                Action::MetaData(metadata)
                    if metadata.id == self.store_id.to_string()
                        && format_of(metadata).is_some_and(|format| format >= next.format) =>
                {
                    next.format = format_of(metadata).unwrap_or(next.format);
                    next.has_old_value = has_old_value(metadata);
                    next.head.retain(|action| !matches!(action, Action::MetaData(_)));
                    next.head.push(action.clone());
                }
                Action::Protocol(_) | Action::MetaData(_) => {
                    let reason = "the table was changed by another program".to_owned();
                    return Err(StoreError::Format { path: path.to_owned(), reason });
                }
            }
        }
        next.files.sort_by(|a, b| (a.generation, &a.path).cmp(&(b.generation, &b.path)));
        Ok(next)
    }

    /// Whether a file with the columns of an earlier format is in it.
    pub(crate) fn has_old_files(&self) -> bool {
        self.files.iter().any(|file| file.format < FORMAT_OF_COLUMNS)
    }

    /// Everything that a reader of this version needs, as one list.
    pub(crate) fn actions(&self, now: Timestamp) -> Vec<Action> {
        let now_ms = now.micros() / 1000;
        let txn = |app_id: &str, version| Action::Txn(Txn { app_id: app_id.to_owned(), version, last_updated: now_ms });
        let mut actions = self.head.clone();
        actions.push(txn(WAL_APP, self.covered));
        actions.push(txn(TOMBSTONES_APP, self.tombstones));
        if self.home != Home::default() {
            actions.push(txn(HOME_APP, self.home.version()));
        }
        actions.extend(self.files.iter().map(|file| Action::Add(file.to_add(now_ms, false))));
        for (path, at) in &self.removed {
            let (partition_values, deletion_timestamp) = (BTreeMap::new(), at.micros() / 1000);
            let (data_change, extended_file_metadata) = (false, false);
            let (path, size) = (path.clone(), 0);
            actions.push(Action::Remove(super::action::Remove {
                path,
                deletion_timestamp,
                data_change,
                extended_file_metadata,
                partition_values,
                size,
            }));
        }
        actions
    }
}
