//! Numbers for series that the index itself does not know: label sets share one count with metrics, so that no two
//! series of the store ever have the same.

use crate::{Index, IndexError, repository::advance, sql::transact};

impl Index {
    /// The first of `count` series numbers in a row that nobody else gets, ever.
    pub async fn reserve_series(&self, count: u64) -> Result<u64, IndexError> {
        transact!(self.database, |tx| { advance(tx, "series", count).await })
    }
}
