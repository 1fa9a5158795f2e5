//! Points of a page of series, in parts that the store takes and memory holds.

use orzo_model::{SeriesId, Timestamp};
use orzo_store::{Columns, Store, StoreError};

use crate::Named;

/// Series whose points are read at once, at most.
const SERIES_AT_ONCE: usize = 1024;
/// As many as a walk begins with: nobody knows yet how many points they have.
const SERIES_FIRST: usize = 64;
/// A read of fewer points than these takes more series the next time, one of four times as many fewer.
const POINTS_FEW: usize = 250_000;

/// Series of a part, and the columns of those that have points; both sorted by number.
pub type Part<'p> = (&'p [Named], Vec<(SeriesId, Columns)>);

/// A walk through points: how many series are read at once is learned on the way.
pub struct Points<'s> {
    store: &'s Store,
    /// First and last microsecond, both included.
    times: (i64, i64),
    at_once: usize,
}

/// What is left of a page.
pub struct PagePoints<'w, 's, 'p> {
    walk: &'w mut Points<'s>,
    rest: &'p [Named],
    /// Parts of the series at hand; more than one where they were too many for one read.
    left: Vec<(&'p [Named], i64, i64)>,
    /// Points of the series at hand.
    count: usize,
}

impl<'s> Points<'s> {
    /// Of these microseconds, both included.
    pub fn new(store: &'s Store, first: i64, last: i64) -> Self {
        Self { store, times: (first, last), at_once: SERIES_FIRST }
    }

    /// Points of a page of names, which must be sorted by number.
    pub fn of<'w, 'p>(&'w mut self, page: &'p [Named]) -> PagePoints<'w, 's, 'p> {
        debug_assert!(page.is_sorted_by_key(Named::series), "pages are sorted by series");
        PagePoints { walk: self, rest: page, left: Vec::new(), count: 0 }
    }

    async fn scan(&self, series: &[SeriesId], first: i64, last: i64) -> Result<Vec<(SeriesId, Columns)>, StoreError> {
        let (earliest, latest) = (Timestamp::MIN.micros(), Timestamp::MAX.micros());
        if first > latest || last < earliest {
            return Ok(Vec::new());
        }
        // The end of a scan is not included, but for the last time of all.
        let from = Timestamp::from_micros(first.max(earliest));
        let to = if last >= latest { Timestamp::MAX } else { Timestamp::from_micros(last + 1) };
        self.store.scan_columns(series, from, to).await
    }
}

impl<'p> PagePoints<'_, '_, 'p> {
    /// The next part; `None` after the last. Of a series that has very many points there are several parts, in the order of time.
    pub async fn next(&mut self) -> Result<Option<Part<'p>>, StoreError> {
        loop {
            let Some((some, first, last)) = self.left.pop() else {
                self.learn();
                if self.rest.is_empty() {
                    return Ok(None);
                }
                let (some, others) = self.rest.split_at(self.walk.at_once.min(self.rest.len()));
                self.rest = others;
                self.left.push((some, self.walk.times.0, self.walk.times.1));
                continue;
            };
            let series: Vec<SeriesId> = some.iter().map(Named::series).collect();
            match self.walk.scan(&series, first, last).await {
                Err(StoreError::TooManyPoints { .. }) if some.len() > 1 => {
                    let (one, other) = some.split_at(some.len() / 2);
                    self.left.extend([(other, first, last), (one, first, last)]);
                }
                Err(StoreError::TooManyPoints { .. }) if first < last => {
                    let middle = first.midpoint(last);
                    self.left.extend([(some, middle + 1, last), (some, first, middle)]);
                }
                other => {
                    let found = other?;
                    self.count += found.iter().map(|(_, columns)| columns.times.len()).sum::<usize>();
                    return Ok(Some((some, found)));
                }
            }
        }
    }

    /// More series at once where they had few points, fewer where they had many.
    fn learn(&mut self) {
        let at_once = self.walk.at_once;
        self.walk.at_once = match std::mem::take(&mut self.count) {
            few if few < POINTS_FEW => (at_once * 2).min(SERIES_AT_ONCE),
            many if many > 4 * POINTS_FEW => (at_once / 2).max(1),
            _ => at_once,
        };
    }
}
