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
    /// Rows whose value is not a decimal number.
    pub double_rows: u64,
    /// Series whose newest point in files is in memory.
    pub newest_series: u64,
    /// Files that cannot be read and are not merged.
    pub quarantined: u64,
    /// Upkeep that failed since the start, and was or will be tried again.
    pub upkeep_failures: u64,
    /// Files of rollups.
    pub rollup_files: u64,
    /// Their rows: buckets, for each thing that is kept of them.
    pub rollup_rows: u64,
    /// Their bytes.
    pub rollup_bytes: u64,
    /// Days whose rollups are up to date.
    pub rollup_days: u64,
    /// Days that are over and whose rollups are still to be made, or made again.
    pub rollup_days_behind: u64,
    /// The first point's time.
    pub oldest: Option<Timestamp>,
    /// The last point's time.
    pub newest: Option<Timestamp>,
}

/// One file of the table.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FileStats {
    /// Relative to the table.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Rows whose value is not a decimal number.
    pub double_rows: u64,
    /// The lowest series in it.
    pub series_first: u64,
    /// The highest series in it.
    pub series_last: u64,
    /// Its first point's time.
    pub oldest: Timestamp,
    /// Its last point's time.
    pub newest: Timestamp,
    /// Its layout: 1 (without an index), 2 or 3.
    pub format: u32,
}

impl Shared {
    pub(super) fn files(&self) -> Vec<FileStats> {
        let snapshot = self.state.read().snapshot.clone();
        let stats = |file: &std::sync::Arc<crate::table::data_file::DataFile>| FileStats {
            path: file.path.clone(),
            rows: file.rows,
            bytes: file.bytes,
            double_rows: file.doubles,
            series_first: file.series_min,
            series_last: file.series_max,
            oldest: file.time_min,
            newest: file.time_max,
            format: file.format,
        };
        snapshot.files.iter().map(stats).collect()
    }

    pub(super) fn stats(&self) -> StoreStats {
        let (wal_segments, wal_bytes) = {
            let segments = self.segments.lock();
            (segments.len() as u64, segments.iter().map(|segment| segment.bytes).sum())
        };
        let snapshot = self.state.read().snapshot.clone();
        let rollups = self.rollup_stats(&snapshot);
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
            double_rows: files.iter().map(|file| file.doubles).sum(),
            newest_series: state.newest.len() as u64,
            quarantined: self.quarantined.lock().len() as u64,
            upkeep_failures: self.failures.load(Ordering::Relaxed),
            rollup_files: rollups.files,
            rollup_rows: rollups.rows,
            rollup_bytes: rollups.bytes,
            rollup_days: rollups.days,
            rollup_days_behind: rollups.behind,
            oldest: oldest.min(),
            newest: newest.max(),
        }
    }
}
