//! What the log of any of our Delta tables is made of: commits with a checksum as their last value, under numbered names.
//!
//! Comes in: actions as Delta's protocol names them, anything that serialises. Goes out: a commit's bytes, and actions again; and a
//! checkpoint for outside readers.
//! It does not know what the actions mean; each table has its own.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::StoreError;
pub use crate::table::checkpoint::{LAST_CHECKPOINT, checkpoint_name, checkpoint_pointer, encode_checkpoint};

/// Directory of a table's log.
pub const LOG: &str = "_delta_log";

const CHECKSUM_KEY: &str = ",\"orzoChecksum\":\"";
const CHECKSUM_END: &str = "\"}}\n";
/// 128 bits in hexadecimal digits.
const CHECKSUM_DIGITS: usize = 32;

/// Name of a commit's file.
pub fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

/// A commit's bytes: a line for each action, then `commitInfo`, whose last value is the checksum of all before it.
pub fn encode_commit<A: Serialize>(actions: &[A], operation: &str, at_ms: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action).expect("actions are plain data");
        bytes.push(b'\n');
    }
    let line = serde_json::json!({"commitInfo": {
        "timestamp": at_ms,
        "operation": operation,
        "operationParameters": {},
        "engineInfo": concat!("orzo/", env!("CARGO_PKG_VERSION")),
    }})
    .to_string();
    let open = line.strip_suffix("}}").expect("an object in an object");
    bytes.extend_from_slice(open.as_bytes());
    bytes.extend_from_slice(CHECKSUM_KEY.as_bytes());
    let checksum = xxh3_128(&bytes);
    bytes.extend_from_slice(format!("{checksum:032x}").as_bytes());
    bytes.extend_from_slice(CHECKSUM_END.as_bytes());
    bytes
}

/// Reads a commit. Anything that is not exactly what was written, or was written by somebody else, is refused.
pub fn decode_commit<A: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<A>, StoreError> {
    let damaged = |reason: &str| StoreError::damaged(path, 0, reason);
    let checked = bytes
        .strip_suffix(CHECKSUM_END.as_bytes())
        .and_then(|bytes| bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_DIGITS)?))
        .filter(|(checked, _)| checked.ends_with(CHECKSUM_KEY.as_bytes()));
    let Some((checked, digits)) = checked else {
        return Err(damaged(
            "it does not end as Orzo's commits do: it is damaged, or another program wrote to the table",
        ));
    };
    if digits != format!("{:032x}", xxh3_128(checked)).as_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    let mut lines: Vec<_> = checked.split(|byte| *byte == b'\n').collect();
    // The last is `commitInfo`, for people.
    lines.pop();
    let action = |line: &[u8]| {
        serde_json::from_slice(line)
            .map_err(|error| StoreError::Format { path: path.to_owned(), reason: error.to_string() })
    };
    lines.into_iter().map(action).collect()
}
