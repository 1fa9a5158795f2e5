//! Which series were deleted, and when: rows of a deleted series are hidden from reads at once and left out when their
//! file is rewritten. A tombstone hides what was written before it; series numbers are never used again.
//!
//! Each is first a record of the log; with the next flush all of them become one small file with a checksum, whose
//! number the table's commit names.

use std::{collections::BTreeMap, path::Path};

use orzo_model::SeriesId;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    error::{At, StoreError},
    files::{Disk, publish, read_all, stage},
    table::{commit_name, data_file::DataFile, snapshot::Snapshot},
};

/// Series and the sequence of their deletion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tombstones(BTreeMap<u64, u64>);

impl Tombstones {
    /// These series are gone, with everything before `sequence`.
    pub(crate) fn insert(&mut self, series: &[SeriesId], sequence: u64) {
        for series in series {
            let last = self.0.entry(series.0).or_default();
            *last = sequence.max(*last);
        }
    }

    /// Whether rows of this series in a file (or head) of this generation are gone.
    pub(crate) fn hides(&self, series: SeriesId, generation: u64) -> bool {
        self.0.get(&series.0).is_some_and(|sequence| generation < *sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Deleted series that may have rows in this file.
    pub(crate) fn hidden_in<'a>(&'a self, file: &'a DataFile) -> impl Iterator<Item = u64> + 'a {
        let hides = |sequence: u64| file.generation < sequence && file.cleared < sequence;
        self.0.range(file.series_min..=file.series_max).filter(move |(_, at)| hides(**at)).map(|(series, _)| *series)
    }

    /// Those that still hide something in this version of the table, or were made after it.
    pub(crate) fn needed(&self, snapshot: &Snapshot) -> Self {
        let hides = |series: u64, sequence: u64| {
            let may_hold = |file: &DataFile| {
                file.generation < sequence
                    && file.cleared < sequence
                    && (file.series_min..=file.series_max).contains(&series)
            };
            sequence > snapshot.covered || snapshot.files.iter().any(|file| may_hold(file))
        };
        Self(self.0.iter().filter(|(series, at)| hides(**series, **at)).map(|(series, at)| (*series, *at)).collect())
    }

    /// Writes all of them under this number, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, directory: &Path, number: u64) -> Result<(), StoreError> {
        let list: Vec<_> = self.0.iter().collect();
        let mut bytes = serde_json::to_vec(&list).expect("numbers are plain data");
        let checksum = xxh3_128(&bytes);
        bytes.extend_from_slice(format!("\n{checksum:032x}\n").as_bytes());
        let staged = stage(disk, directory, &bytes).at("write", directory)?;
        let name = commit_name(number);
        publish(disk, &staged, directory, &name).at("publish", &directory.join(name))
    }

    /// Reads the file of this number; 0 is none.
    pub(crate) fn read(disk: &dyn Disk, directory: &Path, number: u64) -> Result<Self, StoreError> {
        if number == 0 {
            return Ok(Self::default());
        }
        let path = directory.join(commit_name(number));
        let bytes = match read_all(disk, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::damaged(&path, 0, "it is missing"));
            }
            other => other.at("read", &path)?,
        };
        let damaged = |reason: &str| StoreError::damaged(&path, 0, reason);
        let line = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no checksum"))?;
        let (list, rest) = bytes.split_at(line);
        if rest != format!("\n{:032x}\n", xxh3_128(list)).as_bytes() {
            return Err(damaged("its checksum does not match"));
        }
        let list: Vec<(u64, u64)> = serde_json::from_slice(list).map_err(|error| damaged(&error.to_string()))?;
        Ok(Self(list.into_iter().collect()))
    }
}

/// A number above all that are taken, also by attempts that failed, and by other machines.
pub(crate) fn next_number(disk: &dyn Disk, directory: &Path, last: u64) -> Result<u64, StoreError> {
    let names = disk.list(directory).at("list", directory)?;
    Ok(names.iter().filter_map(|entry| number(&entry.name)).fold(last, u64::max) + 1)
}

/// Removes the files before this one; best effort, the next flush tries again. Higher ones are of attempts that failed, which
/// a later number passes, or of a machine that goes on with this table.
pub(crate) fn sweep(disk: &dyn Disk, directory: &Path, until: u64) {
    for entry in disk.list(directory).unwrap_or_default() {
        if number(&entry.name).is_some_and(|number| number < until) {
            let _ = disk.remove(&directory.join(entry.name));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}
