//! Where rows come from: names from the index and the label sets, points from the one scan that every API reads (head and
//! files, of one time the newest, nothing that was deleted).
//!
//! `Wanted → pages of names → those that fit → their points, some thousand at a time → blocks`. What a series is called and
//! what it has are read in pages, so that a scan of everything takes some MiB. A query sees each page as it is when it is read.
//! Events and revisions of resources come from the index in pages, too, rated lines from the ledger one after the other.

use std::sync::Arc;

use orzo_index::Index;
use orzo_labels::LabelIndex;
use orzo_names::{Named, Names, Points};
use orzo_rating::Ledger;
use orzo_store::Store;

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
use rows::Rows;

/// Series that are named in one block, at most.
const SERIES_AT_ONCE: usize = 1024;
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
        let names_wanted = names::wanted_of(wanted);
        let mut names = Names::new(&self.index, self.labels.as_deref(), &names_wanted);
        let mut blocks = Blocks::new(scan, wanted, to);
        let (first, last) = wanted.time_of(Column::Timestamp);
        let mut points = Points::new(&self.store, first, last);
        while let Some(mut page) = names.next().await.map_err(SqlError::of_names)? {
            page.sort_by_key(Named::series);
            if !wanted.table.has_points() {
                for some in page.chunks(SERIES_AT_ONCE) {
                    if !blocks.names(some).await? {
                        return Ok(());
                    }
                }
                continue;
            }
            let mut parts = points.of(&page);
            while let Some((some, found)) = parts.next().await.map_err(SqlError::unavailable)? {
                if !blocks.points(some, found).await? {
                    return Ok(());
                }
            }
        }
        blocks.end().await
    }
}
