//! The newest point in files of every live series, in memory: so that asking for it reads no file.
//!
//! An entry is what the files say, or there is none. Entries are made when a head is written to files whose points are
//! all newer than what was there, or when somebody asked and files were read.

use orzo_model::{Measure, SeriesId, Timestamp};

use crate::{
    head::{BySeries, Head},
    tombstones::Tombstones,
};

/// Series remembered, at about 40 bytes each; those beyond are looked up in files.
const SERIES_MAX: usize = 2_000_000;

/// The newest point in files, by series.
#[derive(Debug, Default)]
pub(super) struct Newest(BySeries<(i64, f64)>);

impl Newest {
    pub(super) fn get(&self, series: SeriesId) -> Option<Measure> {
        let (micros, value) = *self.0.get(&series.0)?;
        Some(Measure { timestamp: Timestamp::from_micros(micros), value })
    }

    /// Files were read: this is the newest that they have.
    pub(super) fn learn(&mut self, series: SeriesId, newest: Measure) {
        if self.0.len() < SERIES_MAX || self.0.contains_key(&series.0) {
            self.0.insert(series.0, (newest.timestamp.micros(), newest.value));
        }
    }

    /// A head is in files now. `before` is the newest time that any file had before.
    pub(super) fn flushed(&mut self, head: &Head, generation: u64, tombstones: &Tombstones, before: Option<Timestamp>) {
        for (series, micros, value) in head.last_of_each() {
            if tombstones.hides(SeriesId(series), generation) {
                continue;
            }
            let has_room = self.0.len() < SERIES_MAX;
            match self.0.get_mut(&series) {
                Some(known) if known.0 <= micros => *known = (micros, value),
                Some(_) => {}
                None if before.is_none_or(|before| before.micros() < micros) && has_room => {
                    self.0.insert(series, (micros, value));
                }
                None => {}
            }
        }
    }

    /// The series was deleted.
    pub(super) fn forget(&mut self, series: SeriesId) {
        self.0.remove(&series.0);
    }

    /// Files whose points are all before this may be gone.
    pub(super) fn forget_before(&mut self, before: Timestamp) {
        self.0.retain(|_, (micros, _)| *micros >= before.micros());
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
