//! Small tools for SQL texts: numbered parameters, lists, and transactions that borrow.

use orzo_database::Value;

/// Parameters of one insert at most. The limits are 32,766 (SQLite) and 65,535 (PostgreSQL), but SQLite finds a `$n` by
/// walking through all before it: 20,000 metrics took 16 s in statements of 30,000 parameters, 1 s in these (debug build).
pub(crate) const PARAMETERS_MAX: usize = 200;
/// A transaction that lost against another one is run again so often, each time after a little longer.
pub(crate) const CONFLICT_RETRIES: u32 = 8;

/// A statement that grows together with its parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
}

impl Sql {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new() }
    }

    /// Adds a parameter and gives its placeholder.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// Adds text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds `($1, $2, ...)` for the given values; `(NULL)` for none, which matches nothing.
    pub(crate) fn push_list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        let places: Vec<String> = values.into_iter().map(|value| self.bind(value)).collect();
        let list = if places.is_empty() { "NULL".to_owned() } else { places.join(", ") };
        self.text.push_str(&format!("({list})"));
        self
    }

    /// Adds `(...)` for many texts, which travel as one JSON parameter: the statement stays the same, however many there
    /// are, and neither database has to look through hundreds of parameters for each.
    pub(crate) fn push_texts(&mut self, is_sqlite: bool, texts: impl IntoIterator<Item = String>) -> &mut Self {
        let list: Vec<serde_json::Value> = texts.into_iter().map(Into::into).collect();
        let place = self.bind(serde_json::Value::from(list).to_string());
        self.text.push_str(&match is_sqlite {
            true => format!("(SELECT value FROM json_each({place}))"),
            false => format!("(SELECT json_array_elements_text(CAST({place} AS json)))"),
        });
        self
    }
}

/// `INSERT INTO table (columns) VALUES (...), (...)` in as few statements as the parameter limit allows.
pub(crate) fn inserts(table: &str, columns: &[&str], suffix: &str, rows: Vec<Vec<Value>>) -> Vec<Sql> {
    let per_statement = (PARAMETERS_MAX / columns.len().max(1)).max(1);
    let mut statements = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut sql = Sql::new(format!("INSERT INTO {table} ({}) VALUES ", columns.join(", ")));
        for (place, row) in rows.by_ref().take(per_statement).enumerate() {
            if place > 0 {
                sql.push(", ");
            }
            sql.push_list(row);
        }
        sql.push(" ").push(suffix);
        statements.push(sql);
    }
    statements
}

/// Runs a block in a transaction and commits it; when it loses against another transaction, runs it again. The block
/// may borrow its surroundings, which `Database::transact` cannot allow; it must have no effect outside.
macro_rules! transact {
    ($database:expr, |$tx:ident| $body:block) => {{
        let mut attempt: u32 = 0;
        loop {
            let outcome: Result<_, $crate::IndexError> = match $database.begin_again(attempt).await {
                Err(error) => Err(error.into()),
                Ok(mut transaction) => {
                    let done: Result<_, $crate::IndexError> = async {
                        let $tx = &mut transaction;
                        $body
                    }
                    .await;
                    match done {
                        Ok(value) => transaction.commit().await.map(|()| value).map_err($crate::IndexError::from),
                        Err(error) => {
                            transaction.rollback().await;
                            Err(error)
                        }
                    }
                }
            };
            match outcome {
                Err(error)
                    if orzo_database::AsConflict::is_conflict(&error) && attempt < $crate::sql::CONFLICT_RETRIES =>
                {
                    attempt += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(u64::from(attempt) * 7)).await;
                }
                outcome => break outcome,
            }
        }
    }};
}
pub(crate) use transact;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_stay_below_the_parameter_limit_and_lose_no_row() {
        let rows: Vec<Vec<Value>> = (0..40_000i64).map(|n| vec![n.into(), n.into()]).collect();
        let statements = inserts("t", &["a", "b"], "", rows);
        assert!(statements.iter().all(|sql| sql.values.len() <= PARAMETERS_MAX));
        assert_eq!(statements.iter().map(|sql| sql.values.len()).sum::<usize>(), 80_000);
        assert!(statements[0].text.starts_with("INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)"));
    }
}
