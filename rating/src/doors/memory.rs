//! A ledger that keeps nothing beyond the process: for tests, and for rating that is only looked at (difference reports).

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Ledger, LedgerError, LineFilter, LineStream};
use crate::line::RatedLine;

/// Lines in memory.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    lines: Mutex<BTreeMap<Uuid, RatedLine>>,
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn append(&self, lines: Vec<RatedLine>) -> Result<u64, LedgerError> {
        let mut kept = self.lines.lock();
        let before = kept.len();
        for line in lines {
            kept.entry(line.id).or_insert(line);
        }
        Ok((kept.len() - before) as u64)
    }

    async fn read(&self, filter: &LineFilter) -> Result<LineStream, LedgerError> {
        let mut found: Vec<RatedLine> = self.lines.lock().values().filter(|line| filter.takes(line)).cloned().collect();
        found.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(stream::iter(found.into_iter().map(Ok)).boxed())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use orzo_model::Timestamp;

    use super::*;
    use crate::line::example;

    #[tokio::test]
    async fn a_line_is_kept_once_and_found_by_what_it_says() {
        let ledger = MemoryLedger::default();
        let line = example();
        assert_eq!(ledger.append(vec![line.clone(), line.clone()]).await.expect("kept"), 1);
        assert_eq!(ledger.append(vec![line.clone()]).await.expect("kept"), 0);
        let found = async |filter: LineFilter| {
            ledger.read(&filter).await.expect("read").try_collect::<Vec<_>>().await.expect("lines").len()
        };
        assert_eq!(found(LineFilter::default()).await, 1);
        let says = |name: &str, value: &str| LineFilter {
            equals: [(name.to_owned(), value.to_owned())].into(),
            ..LineFilter::default()
        };
        for (name, value, count) in [
            ("flavor_name", "tiny", 1),
            ("flavor_name", "big", 0),
            ("project_id", "p", 1),
            ("type", "volume", 0),
            ("unknown", "", 0),
        ] {
            assert_eq!(found(says(name, value)).await, count, "{name}={value}");
        }
        let filter = LineFilter { scopes: Some(Vec::new()), ..LineFilter::default() };
        assert_eq!(found(filter).await, 0, "no project, nothing");
        let filter = LineFilter { end: Some(Timestamp::from_secs(3600)), ..LineFilter::default() };
        assert_eq!(found(filter).await, 0, "the end is not in it");
    }
}
