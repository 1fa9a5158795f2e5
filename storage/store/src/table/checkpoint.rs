//! Keeps the table's log short: every so many commits a copy of the whole version, so that neither we nor outside
//! readers replay everything from the beginning.
//!
//! Two copies, because they have different readers: ours is lines with a checksum like a commit, in `snapshots/`; the
//! one for outside readers is Delta's checkpoint, a Parquet file in `_delta_log`, which we never read.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use orzo_model::Timestamp;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use serde::Serialize;

use super::{
    Table,
    action::{Action, Operation, encode_commit},
    commit_name,
    snapshot::Snapshot,
};
use crate::{
    error::{At, StoreError},
    files::{publish, read_all, stage},
};

/// How many of our own copies are kept; one would do, the other is for people who repair.
const SNAPSHOTS_KEPT: usize = 2;
/// Name of the pointer that lets outside readers begin at the newest checkpoint.
pub const LAST_CHECKPOINT: &str = "_last_checkpoint";

impl Table {
    /// Writes both copies of this version, then removes commits older than `keep_from`.
    pub(crate) fn checkpoint(&self, snapshot: &Snapshot, now: Timestamp, keep_from: u64) -> Result<(), StoreError> {
        self.checkpoint_of(snapshot.version, &snapshot.actions(now), snapshot.files.len(), now, keep_from)
    }

    /// The same of a version with so many files, which these actions make.
    pub(crate) fn checkpoint_of(
        &self,
        version: u64,
        actions: &[Action],
        files: usize,
        now: Timestamp,
        keep_from: u64,
    ) -> Result<(), StoreError> {
        let log = self.log_directory();
        let name = checkpoint_name(version);
        let bytes = encode_checkpoint(actions).map_err(|error| StoreError::Io {
            action: "encode",
            path: log.join(&name),
            source: std::io::Error::other(error),
        })?;
        self.put_if_absent(&log, &name, &bytes)?;
        let pointer = checkpoint_pointer(version, actions.len(), bytes.len(), files);
        let staged = stage(&*self.disk, &log, pointer.as_bytes()).at("write", &log)?;
        let target = log.join(LAST_CHECKPOINT);
        self.disk.replace(&staged, &target).at("publish", &target)?;
        self.disk.sync_directory(&log).at("sync", &log)?;

        let own = encode_commit(actions, Operation::Snapshot, now.micros() / 1000);
        self.put_if_absent(&self.snapshots, &commit_name(version), &own)?;
        self.trim(keep_from.min(version))
    }

    /// The version of our newest copy; 0 without one.
    pub(crate) fn checkpoint_version(&self) -> Result<u64, StoreError> {
        let names = self.disk.list(&self.snapshots).at("list", &self.snapshots)?;
        let versions = names.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse::<u64>().ok());
        Ok(versions.max().unwrap_or(0))
    }

    fn put_if_absent(&self, directory: &std::path::Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = directory.join(name);
        match read_all(&*self.disk, &path) {
            // An attempt that failed later on left it; names are given to whole files only.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("read", &path),
        }
        let staged = stage(&*self.disk, directory, bytes).at("write", directory)?;
        publish(&*self.disk, &staged, directory, name).at("publish", &path)
    }

    /// Removes what the newest checkpoint makes superfluous, oldest first.
    fn trim(&self, keep_from: u64) -> Result<(), StoreError> {
        let log = self.log_directory();
        for entry in self.disk.list(&log).at("list", &log)? {
            let number = entry.name.split('.').next().and_then(|number| number.parse::<u64>().ok());
            if number.is_some_and(|number| number < keep_from) {
                let path = log.join(&entry.name);
                self.disk.remove(&path).at("remove", &path)?;
            }
        }
        let own = self.disk.list(&self.snapshots).at("list", &self.snapshots)?;
        for entry in own.iter().rev().skip(SNAPSHOTS_KEPT) {
            let path = self.snapshots.join(&entry.name);
            self.disk.remove(&path).at("remove", &path)?;
        }
        Ok(())
    }
}

/// Name of a checkpoint's file.
pub fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

/// What the pointer says of a checkpoint: its version, actions, bytes and live files.
pub fn checkpoint_pointer(version: u64, actions: usize, bytes: usize, files: usize) -> String {
    serde_json::json!({"version": version, "size": actions, "sizeInBytes": bytes, "numOfAddFiles": files}).to_string()
}

/// Delta's checkpoint of these actions, a Parquet file: one row for each, one column for each kind.
pub fn encode_checkpoint<A: Serialize>(actions: &[A]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let schema = Arc::new(checkpoint_schema());
    let mut decoder =
        arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(actions.len().max(1)).build_decoder()?;
    decoder.serialize(actions)?;
    let mut bytes = Vec::new();
    // A few rows of many columns: what is told of each column for pruning would be most of the file, and nobody prunes it.
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options)?;
    while let Some(batch) = decoder.flush()? {
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(bytes)
}

fn checkpoint_schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let map = |name: &str| {
        let entry =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
        let entries = Field::new("key_value", DataType::Struct(entry), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let record = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(fields)), true);
    let list =
        |name: &str| Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true);
    Schema::new(vec![
        record("protocol", vec![int("minReaderVersion"), int("minWriterVersion")]),
        record(
            "metaData",
            vec![
                text("id"),
                text("name"),
                record("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                list("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        record("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        record(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        record(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues"),
                long("size"),
            ],
        ),
    ])
}
