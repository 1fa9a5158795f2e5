//! Figures about the store.

use std::sync::atomic::Ordering;

use orzo_model::Timestamp;

use super::Shared;

/// How much there is, and where.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct StoreStats {
    /// Bytes of log segments, allocated.
    pub wal_bytes: u64,
    /// Log segments.
    pub wal_segments: u64,
    /// Points that are not in files yet.
    pub head_points: u64,
    /// Memory that they take, about.
    pub head_bytes: u64,
    /// Files of the table.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// The last record of the log.
    pub sequence: u64,
    /// The last record that is in the table.
    pub covered_sequence: u64,
    /// The table's version.
    pub table_version: u64,
    /// Deleted series whose rows may still be in files.
    pub tombstones: u64,
    /// Values that were replaced by a later one since the start.
    pub replaced: u64,
    /// Upkeep that failed since the start, and was or will be tried again.
    pub upkeep_failures: u64,
    /// The first point's time.
    pub oldest: Option<Timestamp>,
    /// The last point's time.
    pub newest: Option<Timestamp>,
}

impl Shared {
    pub(super) fn stats(&self) -> StoreStats {
        let (wal_segments, wal_bytes) = {
            let segments = self.segments.lock();
            (segments.len() as u64, segments.iter().map(|segment| segment.bytes).sum())
        };
        let state = self.state.read();
        let frozen = state.frozen.as_deref().map(|frozen| &frozen.head);
        let heads = || std::iter::once(&state.active).chain(frozen);
        let files = &state.snapshot.files;
        let oldest = files.iter().map(|file| file.time_min).chain(heads().filter_map(|head| Some(head.times()?.0)));
        let newest = files.iter().map(|file| file.time_max).chain(heads().filter_map(|head| Some(head.times()?.1)));
        StoreStats {
            wal_bytes,
            wal_segments,
            head_points: heads().map(|head| head.len() as u64).sum(),
            head_bytes: heads().map(|head| head.bytes() as u64).sum(),
            files: files.len() as u64,
            rows: files.iter().map(|file| file.rows).sum(),
            file_bytes: files.iter().map(|file| file.bytes).sum(),
            sequence: state.last_sequence,
            covered_sequence: state.snapshot.covered,
            table_version: state.snapshot.version,
            tombstones: state.tombstones.len() as u64,
            replaced: self.replaced.load(Ordering::Relaxed),
            upkeep_failures: self.failures.load(Ordering::Relaxed),
            oldest: oldest.min(),
            newest: newest.max(),
        }
    }
}
