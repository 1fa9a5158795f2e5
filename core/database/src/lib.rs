//! One database for rooms that need transactions: SQLite by default, PostgreSQL by URL, the same SQL on both.
//!
//! Both take `$1` parameters, `ON CONFLICT`, `RETURNING` and window functions, so one text serves both; what differs
//! (dialect types) is written with the [`Value`]s below: text, 64-bit integers, doubles and bytes, nothing else.
//! Booleans are integers 0/1, times are integers (microseconds UTC), ids are text, JSON is text.
//!
//! The rooms own their tables and bring their migrations; this crate knows no table of theirs.
#![forbid(unsafe_code)]

mod migrate;
mod value;

use std::{
    future::Future,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    pin::Pin,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use sqlx::{
    AssertSqlSafe, Column, PgPool, Postgres, Row as _, Sqlite, SqlitePool, Transaction as SqlxTransaction,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

pub use migrate::Migration;
use value::Names;
pub use value::{Row, Value};

/// Connections at most; SQLite has one writer anyway, PostgreSQL's default limit is 100 for everyone.
const CONNECTIONS_MAX: u32 = 8;
/// How long to wait for a free connection, or for SQLite's writer, before saying so.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// A transaction that lost against another is tried again so often; each try waits a little longer.
const CONFLICT_RETRIES: u32 = 8;
/// Tries of a transaction beside others; the next ones are made alone.
const ATTEMPTS_SHARED: u32 = 2;
/// SQLite's page cache of the connection that writes, in KiB. As nobody else writes, it stays true from one
/// transaction to the next; with SQLite's own 2 MiB, an index of a million random ids is read anew for each.
const WRITER_CACHE_KIB: u32 = 48 * 1024;
/// The page cache of each connection that reads. It is dropped after every write by another, so more is of no use.
const READER_CACHE_KIB: u32 = 4 * 1024;
/// Pages in SQLite's write-ahead journal after which they are put into the file: 32 MiB. Pages that many transactions
/// touch are put there once; with SQLite's own 1000 pages, creating a million metrics writes them eight times as often.
const JOURNAL_PAGES: u32 = 8000;

/// A pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    /// Statements so far.
    asked: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Pool {
    /// `writing` has one connection, whose turn `writer` is; in memory it is the same as `pool`.
    Sqlite { pool: SqlitePool, writing: SqlitePool, writer: Arc<tokio::sync::Mutex<()>> },
    /// `turns`: transactions share it; one that has lost too often has it alone.
    Postgres { pool: PgPool, turns: Arc<tokio::sync::RwLock<()>> },
}

/// Several statements that happen together or not at all. Dropped without `commit`: not at all.
pub struct Transaction<'a> {
    inner: TransactionKind<'a>,
    asked: Arc<AtomicU64>,
}

enum TransactionKind<'a> {
    // The guard is only held: while it lives, no other transaction writes.
    Sqlite(SqlxTransaction<'static, Sqlite>, #[allow(dead_code)] tokio::sync::MutexGuard<'a, ()>),
    // The guard is only held: while it lives, who has lost too often waits, or everybody else does.
    Postgres(SqlxTransaction<'static, Postgres>, #[allow(dead_code)] PostgresTurn<'a>),
}

enum PostgresTurn<'a> {
    Shared(#[allow(dead_code)] tokio::sync::RwLockReadGuard<'a, ()>),
    Alone(#[allow(dead_code)] tokio::sync::RwLockWriteGuard<'a, ()>),
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is not one we understand.
    #[error("cannot use database URL `{url}`: {reason}")]
    BadUrl {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A unique or foreign key said no.
    #[error("the database refuses the change: constraint {constraint}")]
    Constraint {
        /// Name of the constraint, or the database's words.
        constraint: String,
    },
    /// Not reachable, restarting, or busy beyond the wait.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction won; the whole transaction may be tried again.
    #[error("the transaction lost against another one")]
    Conflict(#[source] sqlx::Error),
    /// A migration of a newer program was applied already.
    #[error("table set `{room}` has format {found}, this program knows up to {known}: use a newer program")]
    TooNew {
        /// Whose tables.
        room: String,
        /// In the database.
        found: i64,
        /// In the program.
        known: i64,
    },
    /// A text with the character NUL, which PostgreSQL cannot store; refused for both, so that they behave the same.
    #[error("a text holds the character NUL (U+0000), which cannot be stored")]
    Nul,
    /// Anything else.
    #[error("the database failed")]
    Failed(#[source] sqlx::Error),
}

impl DatabaseError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }

    /// What was given can never be stored: whoever gave it is to be told.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Nul)
    }

    /// A unique or foreign key said no.
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Constraint { .. })
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) => {
                let code = inner.code().unwrap_or_default().into_owned();
                if inner.is_unique_violation() || inner.is_foreign_key_violation() || inner.is_check_violation() {
                    let constraint = inner.constraint().map_or_else(|| inner.message().to_owned(), str::to_owned);
                    return Self::Constraint { constraint };
                }
                match code.as_str() {
                    // serialization failure, deadlock; SQLITE_BUSY and its kin
                    "40001" | "40P01" | "5" | "261" | "517" => Self::Conflict(error),
                    // admin shutdown, crash shutdown, cannot connect now, read-only standby, too many connections
                    "57P01" | "57P02" | "57P03" | "25006" | "53300" => Self::Unavailable(error),
                    code if code.starts_with("08") => Self::Unavailable(error),
                    _ => Self::Failed(error),
                }
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(error)
            }
            _ => Self::Failed(error),
        }
    }
}

impl Database {
    /// Opens `sqlite:PATH` (made if missing), `sqlite::memory:` or `postgres://...`.
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        if is_postgres(url) {
            return Self::open_postgres(postgres_options(url)?).await;
        }
        if !url.starts_with("sqlite:") {
            return Err(bad_url(url, "expected sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME"));
        }
        let in_memory = url.contains(":memory:");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|e| bad_url(url, e))?
            .create_if_missing(true)
            .journal_mode(if in_memory { SqliteJournalMode::Memory } else { SqliteJournalMode::Wal })
            // FULL: a commit is on disk when it returns, also with the write-ahead journal.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT_MAX)
            .pragma("wal_autocheckpoint", JOURNAL_PAGES.to_string());
        let connect = |connections, cache_kib: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(WAIT_MAX)
                .connect_with(options.clone().pragma("cache_size", format!("-{cache_kib}")))
        };
        // Each connection to :memory: is a database of its own.
        let writing = connect(1, WRITER_CACHE_KIB).await?;
        let pool = if in_memory { writing.clone() } else { connect(CONNECTIONS_MAX - 1, READER_CACHE_KIB).await? };
        Ok(Self { pool: Pool::Sqlite { pool, writing, writer: Default::default() }, asked: Arc::default() })
    }

    /// Opens PostgreSQL with all tables in `schema` (made if missing), so that several installations, or tests, share
    /// one database without meeting. The name must be a plain identifier.
    pub async fn open_in_schema(url: &str, schema: &str) -> Result<Self, DatabaseError> {
        let is_plain = schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_postgres(url) || !is_plain || schema.is_empty() {
            return Err(bad_url(url, format!("schema `{schema}` needs postgres:// and a plain lower-case name")));
        }
        let first = Self::open(url).await?;
        first.execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"), &[]).await?;
        first.close().await;
        Self::open_postgres(postgres_options(url)?.options([("search_path", schema)])).await
    }

    async fn open_postgres(options: PgConnectOptions) -> Result<Self, DatabaseError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(WAIT_MAX)
            .connect_with(options)
            .await?;
        Ok(Self { pool: Pool::Postgres { pool, turns: Arc::default() }, asked: Arc::default() })
    }

    /// Opens an SQLite file. A new one is for its owner only, and so are the files that SQLite puts beside it: the
    /// embedded cloud's token keys and password hashes are in it.
    pub async fn open_file(path: &Path) -> Result<Self, DatabaseError> {
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        file.map_err(sqlx::Error::Io)?;
        Self::open(&format!("sqlite:{}", path.display())).await
    }

    /// `sqlite` or `postgresql`.
    pub fn kind(&self) -> &'static str {
        match &self.pool {
            Pool::Sqlite { .. } => "sqlite",
            Pool::Postgres { .. } => "postgresql",
        }
    }

    /// Brings the tables of `room` to the newest of `migrations` (see [`Migration`]).
    pub async fn migrate(&self, room: &str, migrations: &[Migration]) -> Result<(), DatabaseError> {
        migrate::migrate(self, room, migrations).await
    }

    /// All rows of a query.
    pub async fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        check_texts(values)?;
        self.count();
        match &self.pool {
            Pool::Sqlite { pool, .. } => {
                let rows = bind_sqlite(sql, values).fetch_all(pool).await?;
                rows_of_sqlite(&rows)
            }
            Pool::Postgres { pool, .. } => {
                let rows = bind_postgres(sql, values).fetch_all(pool).await?;
                rows_of_postgres(&rows)
            }
        }
    }

    /// The first row, if any.
    pub async fn query_one(&self, sql: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Streams rows to `each`, for tables that do not fit in memory comfortably.
    pub async fn query_each(
        &self,
        sql: &str,
        values: &[Value],
        mut each: impl FnMut(Row) + Send,
    ) -> Result<(), DatabaseError> {
        check_texts(values)?;
        self.count();
        match &self.pool {
            Pool::Sqlite { pool, .. } => {
                let mut rows = bind_sqlite(sql, values).fetch(pool);
                let mut names = None;
                while let Some(row) = rows.next().await {
                    let row = row?;
                    each(row_of_sqlite(names.get_or_insert_with(|| names_of(row.columns())), &row)?);
                }
            }
            Pool::Postgres { pool, .. } => {
                let mut rows = bind_postgres(sql, values).fetch(pool);
                let mut names = None;
                while let Some(row) = rows.next().await {
                    let row = row?;
                    each(row_of_postgres(names.get_or_insert_with(|| names_of(row.columns())), &row)?);
                }
            }
        }
        Ok(())
    }

    /// One statement in a transaction of its own; how many rows it changed.
    pub async fn execute(&self, sql: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        check_texts(values)?;
        self.count();
        match &self.pool {
            Pool::Sqlite { writing, writer, .. } => {
                let _turn = writer.lock().await;
                Ok(bind_sqlite(sql, values).execute(writing).await?.rows_affected())
            }
            Pool::Postgres { pool, .. } => Ok(bind_postgres(sql, values).execute(pool).await?.rows_affected()),
        }
    }

    /// Begins a writing transaction. SQLite: takes its only writer's turn at once (`BEGIN IMMEDIATE`), so that reads
    /// in it stay true until the commit. PostgreSQL: `SERIALIZABLE`, for the same promise; it may end in
    /// [`DatabaseError::Conflict`], so prefer [`Self::transact`].
    pub async fn begin(&self) -> Result<Transaction<'_>, DatabaseError> {
        self.begin_again(0).await
    }

    /// The same for a transaction that has lost `attempt` times. After the second time it waits until it is the only
    /// one of this process, so that many that want the same at the same time all get through in the end.
    pub async fn begin_again(&self, attempt: u32) -> Result<Transaction<'_>, DatabaseError> {
        let inner = match &self.pool {
            Pool::Sqlite { writing, writer, .. } => {
                let turn = writer.lock().await;
                TransactionKind::Sqlite(writing.begin_with("BEGIN IMMEDIATE").await?, turn)
            }
            Pool::Postgres { pool, turns } => {
                let turn = match attempt {
                    0..ATTEMPTS_SHARED => PostgresTurn::Shared(turns.read().await),
                    _ => PostgresTurn::Alone(turns.write().await),
                };
                TransactionKind::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?, turn)
            }
        };
        self.count();
        Ok(Transaction { inner, asked: self.asked.clone() })
    }

    /// Runs `body` in a transaction and commits it; when it loses against another one, runs it again. The body must
    /// have no effect outside the transaction.
    ///
    /// ```ignore
    /// let id = database.transact(|tx| Box::pin(async move { tx.execute("...", &[]).await })).await?;
    /// ```
    pub async fn transact<T, E, F>(&self, mut body: F) -> Result<T, E>
    where
        E: From<DatabaseError> + AsConflict,
        F: for<'t> FnMut(&'t mut Transaction<'_>) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 't>>,
    {
        let mut attempt = 0;
        loop {
            let mut transaction = self.begin_again(attempt).await?;
            let outcome = match body(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|()| value).map_err(E::from),
                Err(error) => {
                    transaction.rollback().await;
                    Err(error)
                }
            };
            match outcome {
                Err(error) if error.is_conflict() && attempt < CONFLICT_RETRIES => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 7)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// How often the database was asked so far, by this pool and its transactions: statements, begins and commits.
    pub fn statements(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes all of an SQLite database as it is now into a new file for its owner only, durably, while others write.
    /// `false`: this is PostgreSQL, which has tools of its own for that.
    pub async fn back_up(&self, file: &Path) -> Result<bool, DatabaseError> {
        let Pool::Sqlite { pool, .. } = &self.pool else { return Ok(false) };
        let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file);
        let made = made.map_err(sqlx::Error::Io)?;
        let path = file.to_string_lossy().into_owned();
        self.count();
        sqlx::query("VACUUM INTO $1").bind(path).execute(pool).await?;
        made.sync_all().map_err(sqlx::Error::Io)?;
        Ok(true)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite { pool, writing, .. } => {
                writing.close().await;
                pool.close().await;
            }
            Pool::Postgres { pool, .. } => pool.close().await,
        }
    }
}

/// Tells whether an error of a transaction's body is a lost race, after which the body may run again.
pub trait AsConflict {
    /// Lost against another transaction.
    fn is_conflict(&self) -> bool;
}

impl AsConflict for DatabaseError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

impl Transaction<'_> {
    /// All rows of a query.
    pub async fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        check_texts(values)?;
        self.count();
        match &mut self.inner {
            TransactionKind::Sqlite(transaction, _) => {
                let rows = bind_sqlite(sql, values).fetch_all(&mut **transaction).await?;
                rows_of_sqlite(&rows)
            }
            TransactionKind::Postgres(transaction, _turn) => {
                let rows = bind_postgres(sql, values).fetch_all(&mut **transaction).await?;
                rows_of_postgres(&rows)
            }
        }
    }

    /// The first row, if any.
    pub async fn query_one(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// One statement; how many rows it changed.
    pub async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        check_texts(values)?;
        self.count();
        match &mut self.inner {
            TransactionKind::Sqlite(transaction, _) => {
                Ok(bind_sqlite(sql, values).execute(&mut **transaction).await?.rows_affected())
            }
            TransactionKind::Postgres(transaction, _turn) => {
                Ok(bind_postgres(sql, values).execute(&mut **transaction).await?.rows_affected())
            }
        }
    }

    /// Makes it happen, durably.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        self.count();
        match self.inner {
            TransactionKind::Sqlite(transaction, _turn) => transaction.commit().await?,
            TransactionKind::Postgres(transaction, _turn) => transaction.commit().await?,
        }
        Ok(())
    }

    fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes everything back. A failure to do so is the same as a lost connection: taken back by the server.
    pub async fn rollback(self) {
        let outcome = match self.inner {
            TransactionKind::Sqlite(transaction, _turn) => transaction.rollback().await,
            TransactionKind::Postgres(transaction, _turn) => transaction.rollback().await,
        };
        if let Err(error) = outcome {
            tracing::debug!(error = &error as &dyn std::error::Error, "rollback did not reach the database");
        }
    }
}

fn check_texts(values: &[Value]) -> Result<(), DatabaseError> {
    let holds_nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
    if values.iter().any(holds_nul) { Err(DatabaseError::Nul) } else { Ok(()) }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, DatabaseError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| bad_url(url, error))?;
    Ok(options.options([
        // A lost commit acknowledged as done would break C1 and C5.
        ("synchronous_commit", "on"),
        ("statement_timeout", "60000"),
        // No transaction of ours waits for anything but the database. A process that stands still in the middle of one
        // holds its rows, and whoever takes its work over waits for them.
        ("idle_in_transaction_session_timeout", "10000"),
    ]))
}

fn bad_url(url: &str, reason: impl ToString) -> DatabaseError {
    let url = match url::Url::parse(url) {
        Ok(mut parsed) => {
            // Fails only for URLs that cannot have a password.
            let _ = parsed.set_password(None);
            parsed.to_string()
        }
        Err(_) => url.split(':').next().unwrap_or_default().to_owned(),
    };
    DatabaseError::BadUrl { url, reason: reason.to_string() }
}

// The texts are assembled by our own repositories from constants; every value travels as a parameter.
fn bind_sqlite(sql: &str, values: &[Value]) -> Query<'static, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value.clone() {
            Value::Text(text) => query.bind(text),
            Value::Int(int) => query.bind(int),
            Value::Real(real) => query.bind(real),
            Value::Bytes(bytes) => query.bind(bytes),
        };
    }
    query
}

fn bind_postgres(sql: &str, values: &[Value]) -> Query<'static, Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value.clone() {
            Value::Text(text) => query.bind(text),
            Value::Int(int) => query.bind(int),
            Value::Real(real) => query.bind(real),
            Value::Bytes(bytes) => query.bind(bytes),
        };
    }
    query
}

fn names_of<C: Column>(columns: &[C]) -> Names {
    columns.iter().map(|column| column.name().into()).collect()
}

fn rows_of_sqlite(rows: &[SqliteRow]) -> Result<Vec<Row>, DatabaseError> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let names = names_of(first.columns());
    rows.iter().map(|row| row_of_sqlite(&names, row)).collect()
}

fn row_of_sqlite(names: &Names, row: &SqliteRow) -> Result<Row, DatabaseError> {
    use sqlx::{TypeInfo, ValueRef};
    let mut cells = Vec::with_capacity(row.columns().len());
    for place in 0..names.len() {
        let raw = row.try_get_raw(place)?;
        // The value's own type, not the column's: an expression such as count(*) has no declared type.
        let value = match raw.type_info().name() {
            _ if raw.is_null() => Value::Text(None),
            "INTEGER" | "BIGINT" | "BOOLEAN" => Value::Int(row.try_get_unchecked(place)?),
            "REAL" | "DOUBLE" => Value::Real(row.try_get_unchecked(place)?),
            "BLOB" | "BYTEA" => Value::Bytes(row.try_get_unchecked(place)?),
            _ => Value::Text(row.try_get_unchecked(place)?),
        };
        cells.push(value);
    }
    Ok(Row::new(names.clone(), cells))
}

fn rows_of_postgres(rows: &[PgRow]) -> Result<Vec<Row>, DatabaseError> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let names = names_of(first.columns());
    rows.iter().map(|row| row_of_postgres(&names, row)).collect()
}

fn row_of_postgres(names: &Names, row: &PgRow) -> Result<Row, DatabaseError> {
    use sqlx::{TypeInfo, ValueRef};
    let mut cells = Vec::with_capacity(row.columns().len());
    for place in 0..names.len() {
        let raw = row.try_get_raw(place)?;
        let value = match raw.type_info().name() {
            _ if raw.is_null() => Value::Text(None),
            "INT8" => Value::Int(row.try_get(place)?),
            "INT4" => Value::Int(Some(i64::from(row.try_get::<i32, _>(place)?))),
            "BOOL" => Value::Int(Some(i64::from(row.try_get::<bool, _>(place)?))),
            "FLOAT8" => Value::Real(row.try_get(place)?),
            "BYTEA" => Value::Bytes(row.try_get(place)?),
            _ => Value::Text(row.try_get(place)?),
        };
        cells.push(value);
    }
    Ok(Row::new(names.clone(), cells))
}

#[cfg(test)]
mod tests;
