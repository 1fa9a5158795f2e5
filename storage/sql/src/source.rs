//! Where rows come from: names from the index and the label sets, points from the one scan that every API reads (head and
//! files, of one time the newest, nothing that was deleted).
//!
//! `Wanted → pages of names → those that fit → their points, some thousand at a time → blocks`. What a series is called and
//! what it has are read in pages, so that a scan of everything takes some MiB. A query sees each page as it is when it is read.
//! Events and revisions of resources come from the index in pages, too, rated lines from the ledger one after the other.

use std::sync::Arc;

use orzo_index::Index;
use orzo_labels::LabelIndex;
use orzo_model::{SeriesId, Timestamp};
use orzo_rating::Ledger;
use orzo_store::{Columns, Store, StoreError};

use crate::{
    error::SqlError,
    tables::{Column, Table, Wanted},
};

mod blocks;
mod events;
mod lines;
mod names;
mod rows;
use blocks::Blocks;
use names::Names;
use rows::Rows;

/// Series whose points are read at once, and named in one block, at most.
const SERIES_AT_ONCE: usize = 1024;
/// As many as a scan begins with: nobody knows yet how many points they have.
const SERIES_FIRST: usize = 64;
/// A read of fewer points than these takes more series the next time, one of four times as many fewer.
const POINTS_FEW: usize = 250_000;
/// Rows of a block.
const BLOCK_ROWS: usize = 32_768;

/// The index, the label sets, the store and the ledger.
#[derive(Clone)]
pub struct Source {
    /// Metrics, resources and events.
    pub index: Arc<Index>,
    /// Label sets; `None`: there are none.
    pub labels: Option<Arc<LabelIndex>>,
    /// Points.
    pub store: Arc<Store>,
    /// Rated lines; `None`: there are none.
    pub ledger: Option<Arc<dyn Ledger>>,
}

/// Takes blocks of rows; waits until one more may come. `false`: no more are wanted.
pub(crate) trait Takes: Send {
    /// The next block.
    fn take(&mut self, block: Vec<u8>) -> impl Future<Output = Result<bool, SqlError>> + Send;
}

impl Source {
    /// Reads what is wanted.
    pub(crate) async fn read(&self, scan: u32, wanted: &Wanted, to: &mut impl Takes) -> Result<(), SqlError> {
        if wanted.is_nothing() {
            return Ok(());
        }
        match wanted.table {
            Table::Series | Table::Samples | Table::Measures => self.read_series(scan, wanted, to).await,
            Table::Events | Table::Revisions | Table::RatedLines => self.read_rows(scan, wanted, to).await,
        }
    }

    async fn read_rows(&self, scan: u32, wanted: &Wanted, to: &mut impl Takes) -> Result<(), SqlError> {
        let mut rows = Rows::new(scan, wanted, to);
        let goes_on = match (wanted.table, &self.ledger) {
            (Table::Events, _) => events::events(&self.index, wanted, &mut rows).await?,
            (Table::Revisions, _) => events::revisions(&self.index, wanted, &mut rows).await?,
            (_, Some(ledger)) => lines::lines(&**ledger, wanted, &mut rows).await?,
            (_, None) => true,
        };
        if goes_on { rows.end().await } else { Ok(()) }
    }

    async fn read_series(&self, scan: u32, wanted: &Wanted, to: &mut impl Takes) -> Result<(), SqlError> {
        let mut names = Names::new(self, wanted);
        let mut blocks = Blocks::new(scan, wanted, to);
        let mut at_once = SERIES_FIRST;
        while let Some(mut page) = names.next().await? {
            page.sort_by_key(names::Named::series);
            if !wanted.table.has_points() {
                for some in page.chunks(SERIES_AT_ONCE) {
                    if !blocks.names(some).await? {
                        return Ok(());
                    }
                }
                continue;
            }
            let mut rest = page.as_slice();
            while !rest.is_empty() {
                let (some, others) = rest.split_at(at_once.min(rest.len()));
                rest = others;
                let points = match self.read_points(some, wanted, &mut blocks).await? {
                    Some(points) => points,
                    None => return Ok(()),
                };
                at_once = match points {
                    few if few < POINTS_FEW => (at_once * 2).min(SERIES_AT_ONCE),
                    many if many > 4 * POINTS_FEW => (at_once / 2).max(1),
                    _ => at_once,
                };
            }
        }
        blocks.end().await
    }

    /// Points of some series; those that are too many for one read are read in parts. `None`: no more are wanted.
    async fn read_points<T: Takes>(
        &self,
        some: &[names::Named],
        wanted: &Wanted,
        blocks: &mut Blocks<'_, T>,
    ) -> Result<Option<usize>, SqlError> {
        let (first, last) = wanted.time_of(Column::Timestamp);
        let mut left = vec![(some, first, last)];
        let mut count = 0;
        while let Some((some, first, last)) = left.pop() {
            let series: Vec<SeriesId> = some.iter().map(names::Named::series).collect();
            let found = match self.scan(&series, first, last).await {
                Err(StoreError::TooManyPoints { .. }) if some.len() > 1 => {
                    let (one, other) = some.split_at(some.len() / 2);
                    left.extend([(other, first, last), (one, first, last)]);
                    continue;
                }
                Err(StoreError::TooManyPoints { .. }) if first < last => {
                    let middle = first.midpoint(last);
                    left.extend([(some, middle + 1, last), (some, first, middle)]);
                    continue;
                }
                other => other.map_err(SqlError::unavailable)?,
            };
            count += found.iter().map(|(_, columns)| columns.times.len()).sum::<usize>();
            if !blocks.points(some, found).await? {
                return Ok(None);
            }
        }
        Ok(Some(count))
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
