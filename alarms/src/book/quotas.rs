//! How many alarms a project or user may have. Reading never writes, and a project's alarms are counted by project, in
//! the transaction that adds one.

use orzo_database::{Migration, Transaction};

use super::{AlarmBook, BookError};

/// Steps of the table of quotas.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    name: "quotas",
    sql: "CREATE TABLE alarm_quotas (project_id TEXT PRIMARY KEY, alarms BIGINT NOT NULL);\n",
}];

/// Any number.
pub const UNLIMITED: i64 = -1;

/// What holds where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaDefaults {
    /// Alarms of a project; [`UNLIMITED`] for any number.
    pub project: i64,
    /// Alarms of a user, over all projects.
    pub user: i64,
}

impl Default for QuotaDefaults {
    /// As Aodh: none.
    fn default() -> Self {
        Self { project: UNLIMITED, user: UNLIMITED }
    }
}

impl AlarmBook {
    /// The same book with other defaults.
    pub fn with_quotas(self, quotas: QuotaDefaults) -> Self {
        Self { quotas, ..self }
    }

    /// How many alarms a project may have.
    pub async fn quota(&self, project_id: &str) -> Result<i64, BookError> {
        let sql = "SELECT alarms FROM alarm_quotas WHERE project_id = $1";
        let row = self.database.query_one(sql, &[project_id.into()]).await?;
        Ok(row.and_then(|row| row.int("alarms")).unwrap_or(self.quotas.project))
    }

    /// Sets it.
    pub async fn set_quota(&self, project_id: &str, alarms: i64) -> Result<(), BookError> {
        let sql = "INSERT INTO alarm_quotas (project_id, alarms) VALUES ($1, $2) \
                   ON CONFLICT (project_id) DO UPDATE SET alarms = excluded.alarms";
        self.database.execute(sql, &[project_id.into(), alarms.into()]).await?;
        Ok(())
    }

    /// The default holds again; `false` if it did already.
    pub async fn forget_quota(&self, project_id: &str) -> Result<bool, BookError> {
        let sql = "DELETE FROM alarm_quotas WHERE project_id = $1";
        Ok(self.database.execute(sql, &[project_id.into()]).await? > 0)
    }
}

/// Whether there is room for one more alarm; in the transaction that adds it.
pub(super) async fn check(
    tx: &mut Transaction<'_>,
    defaults: QuotaDefaults,
    user_id: &str,
    project_id: &str,
) -> Result<(), BookError> {
    let sql = "SELECT alarms FROM alarm_quotas WHERE project_id = $1";
    let row = tx.query_one(sql, &[project_id.into()]).await?;
    let project = row.and_then(|row| row.int("alarms")).unwrap_or(defaults.project);
    for (column, id, quota) in [("project_id", project_id, project), ("user_id", user_id, defaults.user)] {
        if quota < 0 {
            continue;
        }
        let sql = format!("SELECT count(*) AS n FROM alarms WHERE {column} = $1");
        let row = tx.query_one(&sql, &[id.into()]).await?;
        if row.and_then(|row| row.int("n")).unwrap_or(0) >= quota {
            return Err(BookError::OverQuota { user_id: user_id.to_owned(), project_id: project_id.to_owned() });
        }
    }
    Ok(())
}
