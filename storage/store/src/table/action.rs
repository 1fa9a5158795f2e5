//! The lines of the table's log, as Delta's protocol names them.
//!
//! Pure: bytes to actions and back. What the actions mean together is [`super::snapshot`].

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Action {
    Protocol(Protocol),
    MetaData(MetaData),
    Add(Add),
    Remove(Remove),
    Txn(Txn),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: u32,
    pub(crate) min_writer_version: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaData {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) created_time: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    pub(crate) partition_values: BTreeMap<String, String>,
    pub(crate) size: u64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    pub(crate) stats: String,
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    pub(crate) deletion_timestamp: i64,
    pub(crate) data_change: bool,
    pub(crate) extended_file_metadata: bool,
    pub(crate) partition_values: BTreeMap<String, String>,
    pub(crate) size: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: u64,
    pub(crate) last_updated: i64,
}

/// Why a commit was made; told to whoever reads the table's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Flush,
    Compact,
    Retain,
    Snapshot,
    Upgrade,
    Claim,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE TABLE",
            Self::Flush => "WRITE",
            Self::Compact => "OPTIMIZE",
            Self::Retain => "DELETE",
            Self::Snapshot => "SNAPSHOT",
            Self::Upgrade => "SET TBLPROPERTIES",
            Self::Claim => "CLAIM",
        }
    }
}

/// A commit's bytes.
pub(crate) fn encode_commit(actions: &[Action], operation: Operation, at_ms: i64) -> Vec<u8> {
    crate::delta::encode_commit(actions, operation.name(), at_ms)
}

/// Reads a commit.
pub(crate) fn decode_commit(path: &Path, bytes: &[u8]) -> Result<Vec<Action>, StoreError> {
    crate::delta::decode_commit(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_come_back_and_every_flipped_bit_is_noticed() {
        let actions = vec![
            Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 }),
            Action::Txn(Txn { app_id: "orzo.wal".to_owned(), version: 9, last_updated: 5 }),
        ];
        let bytes = encode_commit(&actions, Operation::Flush, 7);
        let path = Path::new("00000000000000000003.json");
        assert_eq!(decode_commit(path, &bytes).expect("whole"), actions);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            serde_json::from_slice::<serde_json::Value>(line).expect("each line is JSON");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_commit(path, &damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode_commit(path, &bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
