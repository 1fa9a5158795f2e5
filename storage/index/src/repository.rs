//! Reading and writing each kind of thing; one file each. All SQL of the index is here and in `resolve.rs`.

pub(crate) mod annotations;
pub(crate) mod events;
pub(crate) mod metrics;
pub(crate) mod paging;
pub(crate) mod policies;
mod reach;
pub(crate) mod resources;
mod revisions;
pub(crate) mod rows;
pub(crate) mod types;
mod usage;
pub(crate) mod walks;

pub(crate) use revisions::{attribute_rows, change_row, insert_rows};

use orzo_database::Transaction;
use orzo_model::Scope;

use crate::{Index, IndexError, sql::Sql};

/// The value of a counter.
pub(crate) async fn counter(transaction: &mut Transaction<'_>, name: &str) -> Result<u64, IndexError> {
    let row = transaction.query_one("SELECT next FROM index_counters WHERE name = $1", &[name.into()]).await?;
    let value = row.and_then(|row| row.int("next")).and_then(|next| u64::try_from(next).ok());
    value.ok_or_else(|| IndexError::damaged(format!("index_counters `{name}`"), "the row is missing or negative"))
}

/// Adds to a counter and gives its value from before.
pub(crate) async fn advance(transaction: &mut Transaction<'_>, name: &str, by: u64) -> Result<u64, IndexError> {
    let before = counter(transaction, name).await?;
    let after = i64::try_from(before.saturating_add(by)).unwrap_or(i64::MAX);
    transaction.execute("UPDATE index_counters SET next = $1 WHERE name = $2", &[after.into(), name.into()]).await?;
    Ok(before)
}

/// Adds ` AND ...` so that only what `scope` may see is left: what its project owns (`r.project_id`) or has created
/// (Gnocchi's rule). `table` has the columns of the creator.
pub(crate) fn push_scope(scope: &Scope, table: &str, sql: &mut Sql) {
    match scope {
        Scope::All => {}
        Scope::Project(project) => {
            let place = sql.bind(project.as_str());
            sql.push(&format!(" AND ({table}.created_by_project_id = {place} OR r.project_id = {place})"));
        }
        Scope::Owner(project) => {
            let place = sql.bind(project.as_str());
            sql.push(&format!(" AND r.project_id = {place}"));
        }
        Scope::Maker(project) => {
            let place = sql.bind(project.as_str());
            sql.push(&format!(" AND {table}.created_by_project_id = {place}"));
        }
        Scope::Creator(name) => {
            let place = sql.bind(name.as_str());
            sql.push(&format!(" AND {table}.creator = {place}"));
        }
        Scope::Nothing => {
            sql.push(" AND 1 = 0");
        }
    }
}
