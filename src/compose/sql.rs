//! SQL for the API: each query in a process of this very program, which is started again with one hidden word.

use async_trait::async_trait;
use orzo_api::{SqlAnswer, SqlForm, SqlRefusal, SqlRefusalKind, SqlRunner};
use orzo_sql::{Form, Queries, Source, SqlError, Worker};

use super::Ground;
use crate::settings::Settings;

/// The subcommand that runs one query; people do not see it.
pub(crate) const WORKER_COMMAND: &str = "sql-worker";
/// This program, also when another has taken its place on the disk.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What runs one query: this program, in a directory of its own below the data directory.
pub(crate) fn worker(settings: &Settings) -> Worker {
    Worker {
        program: OWN_PROGRAM.into(),
        arguments: vec![WORKER_COMMAND.into()],
        directory: settings.server.data_directory.join("sql"),
    }
}

/// Runs them.
pub(super) struct Sql(Queries);

impl Sql {
    /// Over what this process keeps.
    pub(super) fn new(ground: &Ground, source: Source) -> Self {
        let settings = ground.settings.sql.query_settings();
        Self(Queries::new(source, worker(&ground.settings), settings, ground.rooms.room("sql"), ground.clock.clone()))
    }
}

#[async_trait]
impl SqlRunner for Sql {
    async fn run(&self, query: &str, form: SqlForm) -> Result<SqlAnswer, SqlRefusal> {
        let form = match form {
            SqlForm::Json => Form::Json,
            SqlForm::Csv => Form::Csv,
            SqlForm::Arrow => Form::Arrow,
        };
        match self.0.run(query, form).await {
            Ok(answer) => Ok(SqlAnswer { body: answer.body, rows: answer.rows }),
            Err(error) => Err(refusal(&error)),
        }
    }
}

fn refusal(error: &SqlError) -> SqlRefusal {
    let (kind, place) = match error {
        SqlError::Invalid { line, column, .. } => (SqlRefusalKind::Invalid, line.zip(*column)),
        SqlError::TooLong { .. } => (SqlRefusalKind::TooLong, None),
        SqlError::TooMuch { .. }
        | SqlError::Failed { .. }
        | SqlError::Deadline { .. }
        | SqlError::Memory { .. }
        | SqlError::Died { .. } => (SqlRefusalKind::NotComputed, None),
        SqlError::Busy { .. } => (SqlRefusalKind::Busy, None),
        SqlError::Unavailable { .. } => (SqlRefusalKind::Unavailable, None),
    };
    SqlRefusal { kind, reason: error.to_string(), place }
}
