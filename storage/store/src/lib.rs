//! Keeps points: durable when acknowledged, never lost, never doubled, readable by any engine that reads Delta.
//!
//! `append → write-ahead log (one fdatasync for a group) → head → sorted Parquet files in a Delta table → compaction`
//!
//! Comes in: batches of points, questions for series and time ranges. Goes out: receipts that mean "durable", measures
//! sorted by time with one value per (series, timestamp). It knows series by number only: names, metrics, policies and
//! projects are the index's. Every byte that it writes is described in `storage/FORMAT.md`.
#![forbid(unsafe_code)]

pub mod delta;
pub mod error;
pub mod faults;
pub mod files;
pub mod settings;
pub mod store;

mod head;
mod table;
mod tombstones;
mod wal;

pub use error::StoreError;
pub use files::s3::BucketSettings;
pub use settings::StoreSettings;
pub use store::{
    Aggregate, AppendReceipt, BackupReport, Columns, DayRolled, Layer, LayerWanted, Progress, Reduce, Reduced, Reducer,
    RollMaker, RollPlan, Rolled, Store,
    stats::{FileStats, StoreStats},
    verify::VerifyReport,
};

#[cfg(test)]
mod tests;
