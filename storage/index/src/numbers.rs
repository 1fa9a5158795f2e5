//! Numbers for series that the index itself does not know: label sets share one count with metrics, so that no two
//! series of the store ever have the same.

use std::ops::Range;

use crate::{Index, IndexError, repository::advance, sql::transact};

/// Numbers taken from the count at once. Whoever makes metrics takes them before its transaction: on PostgreSQL all that
/// make metrics at the same time would otherwise lose against each other over the one row of the count. What is left at
/// the end of the process is never given to anyone.
const TAKEN_AT_ONCE: u64 = 256;

impl Index {
    /// The first of `count` numbers in a row, for metrics that are about to be made. Not used, they are lost.
    pub(crate) async fn next_series(&self, count: u64) -> Result<u64, IndexError> {
        if let Some(first) = take(&mut self.series_left.lock(), count) {
            return Ok(first);
        }
        let reserved = count.max(TAKEN_AT_ONCE);
        let first = self.reserve_series(reserved).await?;
        // Of what another request has left meanwhile, nothing is kept: numbers are many.
        *self.series_left.lock() = first + count..first + reserved;
        Ok(first)
    }

    /// The first of `count` series numbers in a row that nobody else gets, ever.
    pub async fn reserve_series(&self, count: u64) -> Result<u64, IndexError> {
        transact!(self.database, |tx| { advance(tx, "series", count).await })
    }
}

/// Takes from the front, if enough are left.
fn take(left: &mut Range<u64>, count: u64) -> Option<u64> {
    let first = left.start;
    (left.end.saturating_sub(first) >= count).then(|| {
        left.start += count;
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_once_and_only_if_enough_are_left() {
        let mut left = 10..15;
        assert_eq!(take(&mut left, 3), Some(10));
        assert_eq!(take(&mut left, 3), None);
        assert_eq!(take(&mut left, 2), Some(13));
        assert_eq!(take(&mut left, 1), None);
        assert_eq!(take(&mut left, 0), Some(15));
    }
}
