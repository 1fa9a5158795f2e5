//! Rollups: buckets of points that were aggregated once, so that a question about months does not read every point again.
//!
//! `a day that is over → its raw points, series by series → whoever knows policies makes buckets of them → files of a Delta
//! table of their own`, and back: `layers, series, times → the days of which the buckets are still true → their rows`.
//!
//! They are derived: nothing is lost with them. What is damaged or missing is told in the log, dropped and made again, and
//! meanwhile raw points answer. A day's buckets count only while the raw files of that day are the ones that they were made of
//! ([`version::Source`]), and of a series only while neither the head nor a later file has points of it on that day and it
//! was not deleted; so an answer is the same with and without them. It does not know metrics, policies or methods.

mod make;
mod merge;
mod read;
mod table;
mod version;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orzo_model::{Point, Timestamp};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::Shared;
use crate::table::{Table, data_file::DataFile, day::Day, snapshot::Snapshot};

use self::version::Version;
pub use self::{
    read::LayerWanted,
    version::{Aggregate, Layer},
};

/// What is made of the points of each series of a day.
pub struct RollPlan {
    /// Layers that may get rows.
    pub layers: Vec<Layer>,
    /// Gets all points of a series on the day, in the order of their times, and adds rows to each layer's list: the same
    /// series, the beginning of a bucket, the value. A layer gets all buckets of the series on that day or none.
    pub make: Box<RollMaker>,
}

/// Makes rows of one series' points.
pub type RollMaker = dyn FnMut(&[Point], &mut [Vec<Point>]) + Send;

/// What became of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayRolled {
    /// Points read.
    pub points: u64,
    /// Rows written.
    pub rows: u64,
    /// How long it took.
    pub took: Duration,
}

/// What rollups have of one series in one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rolled {
    /// Whole days for which the rows are all that there is: first moment, and first moment of the day behind. In order.
    pub days: Vec<(Timestamp, Timestamp)>,
    /// Beginnings of buckets, microseconds, in order.
    pub times: Vec<i64>,
    /// As many values.
    pub values: Vec<f64>,
}

/// The table of rollups, and what is known of it.
pub(super) struct Rollups {
    table: Table,
    version: RwLock<Arc<Version>>,
    /// Held by whoever makes a version.
    rolling: Mutex<()>,
    /// Why there are none in this life of the store.
    off: RwLock<Option<String>>,
    /// Files that could not be read, until they were dropped.
    broken: Mutex<std::collections::BTreeSet<String>>,
    /// Days that could not be made, and when that was tried.
    failed: Mutex<BTreeMap<Day, Duration>>,
    /// When parts with days that do not count any more were last written anew.
    cleaned_at: Mutex<Duration>,
}

impl Rollups {
    /// Waits until nobody makes rollups, and keeps others from it.
    pub(super) fn waited(&self) -> MutexGuard<'_, ()> {
        self.rolling.lock()
    }
}

/// The files of each day, by generation.
fn by_day(snapshot: &Snapshot) -> BTreeMap<Day, Vec<Arc<DataFile>>> {
    let mut days: BTreeMap<Day, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in &snapshot.files {
        days.entry(file.day).or_default().push(file.clone());
    }
    days
}

/// Figures about rollups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RollupStats {
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Days that were looked at and have not changed.
    pub(super) days: u64,
    /// Days that are over and are to be made, or made again.
    pub(super) behind: u64,
}

impl Shared {
    pub(super) fn rollup_stats(&self, snapshot: &Snapshot) -> RollupStats {
        let version = self.rollups.version.read().clone();
        let mut stats = RollupStats {
            files: version.files.len() as u64,
            rows: version.files.iter().map(|file| file.file.rows).sum(),
            bytes: version.files.iter().map(|file| file.file.bytes).sum(),
            ..RollupStats::default()
        };
        let now = self.clock.now();
        for (day, files) in by_day(snapshot) {
            let source = version::Source::of(&files).number();
            if version.rolled.get(&day) == Some(&source) {
                stats.days += 1;
            } else if day.is_over(now) {
                stats.behind += 1;
            }
        }
        stats
    }
}
