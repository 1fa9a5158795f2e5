//! How a list is read: through a short list of ids that everything found must be in, or along the order, page by page.
//! Asked are the indexes themselves, because neither database knows at the start how common a value is.

use super::Index;
use crate::{IndexError, filter::needed::Needed, sql::Sql};

/// A list of ids up to this long is read and sorted whole. Of a longer one so many things are found along the order,
/// that few others are met between them: a page of a thousand out of a million meets 100,000 at most.
const SHORT_MAX: i64 = 10_000;
/// A list this short needs no shorter one.
const SHORT_ENOUGH: i64 = 1000;
/// Lists asked about; each costs up to [`SHORT_MAX`] steps through an index.
const LISTS_MAX: usize = 4;

impl Index {
    /// The shortest of the lists, if one is short.
    pub(crate) async fn short_list(&self, lists: Vec<Needed>) -> Result<Option<Sql>, IndexError> {
        let mut shortest: Option<(i64, Sql)> = None;
        for needed in lists.into_iter().take(LISTS_MAX) {
            if needed.is_short {
                return Ok(Some(needed.ids));
            }
            let mut sql = Sql {
                text: format!("SELECT count(*) AS n FROM (SELECT x.id FROM ({}", needed.ids.text),
                ..needed.ids.clone()
            };
            sql.push(&format!(") x LIMIT {}) y", SHORT_MAX + 1));
            let row = self.database.query_one(&sql.text, &sql.values).await?;
            let count = row.and_then(|row| row.int("n")).unwrap_or(i64::MAX);
            if count <= SHORT_MAX && shortest.as_ref().is_none_or(|(least, _)| count < *least) {
                shortest = Some((count, needed.ids));
            }
            if shortest.as_ref().is_some_and(|(least, _)| *least <= SHORT_ENOUGH) {
                break;
            }
        }
        Ok(shortest.map(|(_, ids)| ids))
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.database.kind() == "sqlite"
    }
}
