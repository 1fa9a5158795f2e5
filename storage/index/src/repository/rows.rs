//! Many rows of a list in one cell, as JSON. Of each cell of each row the databases' drivers make a value of its own, and
//! hand it from one thread to another: for a page that costs more than finding its rows.
//!
//! A statement, its columns → each row as a struct with these fields, or a tuple, in the statement's order.

use serde::de::DeserializeOwned;

use super::Index;
use crate::{IndexError, sql::Sql};

/// Rows that may come in one cell; of more each comes in a cell of its own, so that no text has more than some megabytes.
const TOGETHER_MAX: usize = 5000;

impl Index {
    /// The rows of a statement that gives at most `limit`. `what` they are is for the error if one cannot be read.
    pub(crate) async fn rows<T: DeserializeOwned + Send>(
        &self,
        what: &str,
        sql: &Sql,
        columns: &[&str],
        limit: usize,
    ) -> Result<Vec<T>, IndexError> {
        let damaged = |error: serde_json::Error| IndexError::damaged(what, error);
        let together = limit <= TOGETHER_MAX;
        let text = as_json(&sql.text, columns, self.is_sqlite(), together);
        if together {
            let row = self.database.query_one(&text, &sql.values).await?;
            return match row.and_then(|row| row.text("found")) {
                Some(found) => serde_json::from_str(&found).map_err(damaged),
                None => Ok(Vec::new()),
            };
        }
        let mut found = Ok(Vec::new());
        self.database
            .query_each(&text, &sql.values, |row| {
                if let Ok(rows) = &mut found {
                    match serde_json::from_str(&row.string("found")) {
                        Ok(row) => rows.push(row),
                        Err(error) => found = Err(error),
                    }
                }
            })
            .await?;
        found.map_err(damaged)
    }
}

/// The statement that gives the rows of another as JSON, all of them together or each alone.
pub(crate) fn as_json(text: &str, columns: &[&str], is_sqlite: bool, together: bool) -> String {
    let columns: Vec<String> = columns.iter().map(|column| format!("p.{column}")).collect();
    let columns = columns.join(", ");
    let cell = match (is_sqlite, together) {
        (true, true) => format!("json_group_array(json_array({columns}))"),
        (true, false) => format!("json_array({columns})"),
        (false, true) => format!("CAST(json_agg(json_build_array({columns})) AS TEXT)"),
        (false, false) => format!("CAST(json_build_array({columns}) AS TEXT)"),
    };
    format!("SELECT {cell} AS found FROM ({text}) p")
}
