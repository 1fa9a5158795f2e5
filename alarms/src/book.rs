//! The alarm book: alarms, their history, and the outbox of notices, in one database.
//!
//! A transition, its history entry and its notices are one commit (contract C5). Every change names the revision it
//! saw; of two changes at once one loses with [`BookError::Changed`] and nothing of it is kept. The history is in
//! `book/history.rs`, the outbox in `book/notices.rs`.

mod history;
mod notices;
mod quotas;
mod rows;
mod search;

use std::time::Duration;

use orzo_database::{AsConflict, Database, DatabaseError, Migration, Transaction, Value};
use orzo_model::{Scope, SharedClock, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::{
    alarm::{Alarm, AlarmRequest, AlarmState},
    evaluations::Evaluations,
    judge::Judgement,
};

use history::{Author, change, difference, write_change};
pub use history::{Change, ChangeKind};
pub use notices::{Notice, NoticeFilter, NoticeState, Setback};
use notices::{notice, write_notice};
pub use quotas::{QuotaDefaults, UNLIMITED};
use rows::{COLUMNS, alarm_of, values_of};
pub use search::{Page, ROWS_MAX};

const MIGRATIONS: &[Migration] = &[Migration {
    name: "alarms, history, notices",
    sql: "CREATE TABLE alarms (
            alarm_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, enabled BIGINT NOT NULL,
            type TEXT NOT NULL, rule TEXT NOT NULL, ok_actions TEXT NOT NULL, alarm_actions TEXT NOT NULL,
            insufficient_data_actions TEXT NOT NULL, repeat_actions BIGINT NOT NULL, time_constraints TEXT NOT NULL,
            project_id TEXT NOT NULL, user_id TEXT NOT NULL, changed_at BIGINT NOT NULL, state TEXT NOT NULL,
            state_at BIGINT NOT NULL, state_reason TEXT NOT NULL, severity TEXT NOT NULL,
            evaluate_at BIGINT NOT NULL, operators BIGINT NOT NULL, revision BIGINT NOT NULL,
            evaluated_until BIGINT NOT NULL, due_at BIGINT NOT NULL);
          CREATE INDEX alarms_due ON alarms (enabled, due_at);
          CREATE INDEX alarms_project ON alarms (project_id, name);
          CREATE TABLE alarm_history (
            event_id TEXT PRIMARY KEY, alarm_id TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
            user_id TEXT, project_id TEXT, on_behalf_of TEXT NOT NULL, happened_at BIGINT NOT NULL,
            severity TEXT NOT NULL);
          CREATE INDEX alarm_history_alarm ON alarm_history (alarm_id, happened_at);
          CREATE TABLE alarm_notices (
            notice_id TEXT PRIMARY KEY, alarm_id TEXT NOT NULL, project_id TEXT NOT NULL, action TEXT NOT NULL,
            body TEXT NOT NULL, state TEXT NOT NULL, created_at BIGINT NOT NULL, attempts BIGINT NOT NULL,
            next_at BIGINT NOT NULL, last_error TEXT, delivered_at BIGINT);
          CREATE INDEX alarm_notices_due ON alarm_notices (state, next_at);\n",
}];

/// Aodh shows as much without a limit; a page of more is not read by anyone.
pub(crate) const PAGE_MAX: u32 = 1000;

/// An alarm that cannot be read is looked at again, and told again, after this.
const UNREADABLE_WAIT: Duration = Duration::from_secs(600);

/// What can go wrong in the book.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Not there, or not for this scope.
    #[error("Alarm {alarm_id} not found")]
    NotFound {
        /// Which.
        alarm_id: String,
    },
    /// Somebody else changed it in between.
    #[error("alarm {alarm_id} was changed at the same time")]
    Changed {
        /// Which.
        alarm_id: String,
    },
    /// A page marker that names nothing.
    #[error("marker {marker} not found")]
    BadMarker {
        /// What was given.
        marker: String,
    },
    /// Its row cannot be read: damaged, or written by a newer program.
    #[error("alarm {alarm_id} cannot be read: {column}: {reason}")]
    Damaged {
        /// Which.
        alarm_id: String,
        /// Where.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// The project, or the user, has as many alarms as it may have.
    #[error("Alarm quota exceeded for user {user_id} on project {project_id}")]
    OverQuota {
        /// Whose.
        user_id: String,
        /// In which project.
        project_id: String,
    },
    /// A query that would look at too much.
    #[error("the query asks for too much: {reason}")]
    TooMuch {
        /// What is too much.
        reason: String,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl AsConflict for BookError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

impl BookError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

/// What a list is narrowed to. `None` does not narrow.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names are Aodh's
pub struct AlarmFilter {
    pub name: Option<String>,
    pub type_name: Option<String>,
    pub state: Option<AlarmState>,
    pub enabled: Option<bool>,
    pub severity: Option<String>,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub repeat_actions: Option<bool>,
    /// Show what follows this alarm.
    pub marker: Option<String>,
    /// At most so many; 1000 at most.
    pub limit: Option<u32>,
}

/// Keeps alarms. Cheap to clone.
#[derive(Clone)]
pub struct AlarmBook {
    database: Database,
    clock: SharedClock,
    quotas: QuotaDefaults,
    evaluations: Evaluations,
}

impl AlarmBook {
    /// How often alarms were evaluated to which state.
    pub fn evaluations(&self) -> &Evaluations {
        &self.evaluations
    }

    /// Opens the book, making its tables if needed.
    pub async fn open(database: Database, clock: SharedClock) -> Result<Self, BookError> {
        database.migrate("alarms", MIGRATIONS).await?;
        database.migrate("alarms.notices", notices::MIGRATIONS).await?;
        database.migrate("alarms.quotas", quotas::MIGRATIONS).await?;
        Ok(Self { database, clock, quotas: QuotaDefaults::default(), evaluations: Evaluations::default() })
    }

    /// Writes a new alarm. It belongs to `user_id` and `project_id`; `is_operators`: its reads may look everywhere.
    pub async fn create(
        &self,
        request: &AlarmRequest,
        user_id: &str,
        project_id: &str,
        is_operators: bool,
    ) -> Result<Alarm, BookError> {
        let now = self.clock.now();
        let alarm = Alarm {
            alarm_id: Uuid::new_v4().to_string(),
            name: request.name.clone(),
            description: request.description.clone().unwrap_or_else(|| request.rule.default_description()),
            enabled: request.enabled,
            rule: request.rule.clone(),
            ok_actions: request.ok_actions.clone(),
            alarm_actions: request.alarm_actions.clone(),
            insufficient_data_actions: request.insufficient_data_actions.clone(),
            repeat_actions: request.repeat_actions,
            time_constraints: request.time_constraints.clone(),
            project_id: project_id.to_owned(),
            user_id: user_id.to_owned(),
            timestamp: now,
            state: request.state.unwrap_or(AlarmState::InsufficientData),
            state_timestamp: now,
            state_reason: "Not evaluated yet".into(),
            severity: request.severity,
            evaluate_timestamp: now,
            is_operators,
            revision: 1,
            evaluated_until: now.floor(request.rule.granularity()),
        };
        let author = Author { user_id: Some(user_id), project_id: Some(project_id) };
        let change = change(&alarm, ChangeKind::Creation, alarm.to_json().to_string(), &author, now);
        let quotas = self.quotas;
        self.in_transaction(|tx| {
            let (alarm, change) = (alarm.clone(), change.clone());
            Box::pin(async move {
                quotas::check(tx, quotas, &alarm.user_id, &alarm.project_id).await?;
                let places: Vec<_> = (1..=COLUMNS.len()).map(|place| format!("${place}")).collect();
                let sql = format!("INSERT INTO alarms ({}) VALUES ({})", COLUMNS.join(", "), places.join(", "));
                tx.execute(&sql, &values_of(&alarm)).await?;
                write_change(tx, &change).await
            })
        })
        .await?;
        Ok(alarm)
    }

    /// One alarm.
    pub async fn get(&self, scope: &Scope, alarm_id: &str) -> Result<Alarm, BookError> {
        let row = self.database.query_one("SELECT * FROM alarms WHERE alarm_id = $1", &[alarm_id.into()]).await?;
        row.map(|row| alarm_of(&row))
            .transpose()?
            .filter(|alarm| is_visible(scope, alarm))
            .ok_or_else(|| BookError::NotFound { alarm_id: alarm_id.to_owned() })
    }

    /// Alarms, newest change first.
    pub async fn list(&self, scope: &Scope, filter: &AlarmFilter) -> Result<Vec<Alarm>, BookError> {
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut narrow = |column: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                conditions.push(format!("{column} = ${}", values.len()));
            }
        };
        match scope {
            Scope::All => {}
            Scope::Project(project) => narrow("project_id", Some(project.into())),
            Scope::Creator(user) => narrow("user_id", Some(user.into())),
            Scope::Nothing => return Ok(Vec::new()),
        }
        narrow("name", filter.name.as_ref().map(Value::from));
        narrow("type", filter.type_name.as_ref().map(Value::from));
        narrow("state", filter.state.map(|state| state.as_str().into()));
        narrow("enabled", filter.enabled.map(Value::from));
        narrow("severity", filter.severity.as_ref().map(Value::from));
        narrow("user_id", filter.user_id.as_ref().map(Value::from));
        narrow("project_id", filter.project_id.as_ref().map(Value::from));
        narrow("repeat_actions", filter.repeat_actions.map(Value::from));
        if let Some(marker) = &filter.marker {
            let after = match self.get(scope, marker).await {
                Err(BookError::NotFound { alarm_id }) => return Err(BookError::BadMarker { marker: alarm_id }),
                other => other?,
            };
            values.push(after.timestamp.into());
            values.push(after.alarm_id.into());
            let (time, id) = (values.len() - 1, values.len());
            conditions.push(format!("(changed_at < ${time} OR (changed_at = ${time} AND alarm_id > ${id}))"));
        }
        let limit = filter.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let sql = format!(
            "SELECT * FROM alarms WHERE {} ORDER BY changed_at DESC, alarm_id LIMIT {limit}",
            conditions.join(" AND ")
        );
        self.database.query(&sql, &values).await?.iter().map(alarm_of).collect()
    }

    /// Replaces an alarm's definition; state and owner stay, unless the request names a state.
    pub async fn update(
        &self,
        before: &Alarm,
        request: &AlarmRequest,
        user_id: &str,
        project_id: &str,
    ) -> Result<Alarm, BookError> {
        let now = self.clock.now();
        let mut after = before.clone();
        after.name.clone_from(&request.name);
        after.description = request.description.clone().unwrap_or_else(|| request.rule.default_description());
        after.enabled = request.enabled;
        after.rule = request.rule.clone();
        after.ok_actions.clone_from(&request.ok_actions);
        after.alarm_actions.clone_from(&request.alarm_actions);
        after.insufficient_data_actions.clone_from(&request.insufficient_data_actions);
        after.repeat_actions = request.repeat_actions;
        after.time_constraints.clone_from(&request.time_constraints);
        after.severity = request.severity;
        after.timestamp = now;
        if before.rule.granularity() != after.rule.granularity() || (after.enabled && !before.enabled) {
            after.evaluated_until = now.floor(after.rule.granularity());
        }
        if let Some(state) = request.state.filter(|state| *state != before.state) {
            after.state = state;
            after.state_timestamp = now;
            after.state_reason = "Manually set via API".into();
        }
        let author = Author { user_id: Some(user_id), project_id: Some(project_id) };
        let detail = difference(before, &after);
        let change = change(&after, ChangeKind::RuleChange, detail, &author, now);
        self.replace(before, after, Some(change), Vec::new()).await
    }

    /// Sets the state by hand. No notices: the caller knows.
    pub async fn set_state(
        &self,
        before: &Alarm,
        state: AlarmState,
        user_id: &str,
        project_id: &str,
    ) -> Result<Alarm, BookError> {
        let now = self.clock.now();
        let mut after = before.clone();
        after.state = state;
        after.state_timestamp = now;
        after.state_reason = "Manually set via API".into();
        let author = Author { user_id: Some(user_id), project_id: Some(project_id) };
        let detail = json!({"state": state, "state_reason": after.state_reason}).to_string();
        let change = change(&after, ChangeKind::StateTransition, detail, &author, now);
        self.replace(before, after, Some(change), Vec::new()).await
    }

    /// Removes an alarm with its history. Notices that wait are still delivered: what they tell has happened.
    pub async fn delete(&self, scope: &Scope, alarm_id: &str) -> Result<(), BookError> {
        self.get(scope, alarm_id).await?;
        self.evaluations.forget(alarm_id);
        self.in_transaction(|tx| {
            let alarm_id = alarm_id.to_owned();
            Box::pin(async move {
                tx.execute("DELETE FROM alarm_history WHERE alarm_id = $1", &[alarm_id.as_str().into()]).await?;
                tx.execute("DELETE FROM alarms WHERE alarm_id = $1", &[alarm_id.as_str().into()]).await?;
                Ok(())
            })
        })
        .await
    }

    /// Enabled alarms with a window that closed at or before `until` and is not evaluated yet; longest overdue first.
    pub async fn due(&self, until: Timestamp, limit: u32) -> Result<Vec<Alarm>, BookError> {
        let sql = format!("SELECT * FROM alarms WHERE enabled = 1 AND due_at <= $1 ORDER BY due_at LIMIT {limit}");
        let mut alarms = Vec::new();
        for row in self.database.query(&sql, &[until.into()]).await? {
            match alarm_of(&row) {
                Ok(alarm) => alarms.push(alarm),
                Err(error) => self.put_off(&row.string("alarm_id"), &error).await?,
            }
        }
        Ok(alarms)
    }

    /// An alarm that cannot be read must not keep the others from being evaluated; it is told, now and then again.
    async fn put_off(&self, alarm_id: &str, error: &BookError) -> Result<(), BookError> {
        tracing::error!(error = error as &dyn std::error::Error, "an alarm is not evaluated");
        let next = self.clock.now().plus(UNREADABLE_WAIT);
        let sql = "UPDATE alarms SET due_at = $1 WHERE alarm_id = $2";
        self.database.execute(sql, &[next.into(), alarm_id.into()]).await?;
        Ok(())
    }

    /// When the next window of an enabled alarm closes.
    pub async fn next_due_at(&self) -> Result<Option<Timestamp>, BookError> {
        let row = self.database.query_one("SELECT min(due_at) AS due FROM alarms WHERE enabled = 1", &[]).await?;
        Ok(row.and_then(|row| row.time("due")))
    }

    /// Windows up to `until` are evaluated for these alarms and nothing changed. One commit for all of them. An alarm
    /// that was changed meanwhile is left as it is: it will be evaluated again.
    pub async fn passed(&self, alarms: &[(Alarm, Timestamp)]) -> Result<(), BookError> {
        if alarms.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        self.in_transaction(|tx| {
            let alarms = alarms.to_vec();
            Box::pin(async move {
                for (alarm, until) in alarms {
                    let due_at = until.plus(alarm.rule.granularity());
                    tx.execute(
                        "UPDATE alarms SET evaluated_until = $1, due_at = $2, evaluate_at = $3 \
                         WHERE alarm_id = $4 AND revision = $5",
                        &[
                            until.into(),
                            due_at.into(),
                            now.into(),
                            alarm.alarm_id.as_str().into(),
                            alarm.revision.into(),
                        ],
                    )
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Writes what was judged of the window that ends at `until`: the transition (if it is one), its history entry and
    /// its notices, in one commit.
    pub async fn transition(
        &self,
        before: &Alarm,
        judgement: &Judgement,
        until: Timestamp,
    ) -> Result<Alarm, BookError> {
        let now = self.clock.now();
        let is_transition = before.state != judgement.state;
        let mut after = before.clone();
        after.evaluated_until = until;
        after.evaluate_timestamp = now;
        after.state = judgement.state;
        after.state_reason.clone_from(&judgement.reason);
        let mut entry = None;
        if is_transition {
            after.state_timestamp = now;
            let detail = json!({"state": judgement.state, "transition_reason": judgement.reason}).to_string();
            let author = Author { user_id: None, project_id: None };
            entry = Some(change(&after, ChangeKind::StateTransition, detail, &author, now));
        }
        let mut notices = Vec::new();
        if is_transition || before.repeat_actions {
            for (place, action) in after.actions(judgement.state).iter().enumerate() {
                notices.push(notice(before, judgement, action, place, until, now));
            }
        }
        self.replace(before, after, entry, notices).await
    }

    /// Compare-and-set on the revision, with everything that belongs to the change.
    async fn replace(
        &self,
        before: &Alarm,
        mut after: Alarm,
        change: Option<Change>,
        notices: Vec<Notice>,
    ) -> Result<Alarm, BookError> {
        after.revision = before.revision + 1;
        let seen = before.revision;
        self.in_transaction(|tx| {
            let (after, change, notices) = (after.clone(), change.clone(), notices.clone());
            Box::pin(async move {
                let sets: Vec<_> =
                    COLUMNS.iter().enumerate().map(|(place, column)| format!("{column} = ${}", place + 1)).collect();
                let (id, revision) = (COLUMNS.len() + 1, COLUMNS.len() + 2);
                let sql =
                    format!("UPDATE alarms SET {} WHERE alarm_id = ${id} AND revision = ${revision}", sets.join(", "));
                let mut values = values_of(&after);
                values.push(after.alarm_id.as_str().into());
                values.push(seen.into());
                if tx.execute(&sql, &values).await? == 0 {
                    return Err(BookError::Changed { alarm_id: after.alarm_id });
                }
                if let Some(change) = &change {
                    write_change(tx, change).await?;
                }
                for notice in &notices {
                    write_notice(tx, notice).await?;
                }
                Ok(())
            })
        })
        .await?;
        Ok(after)
    }

    async fn in_transaction<T, F>(&self, body: F) -> Result<T, BookError>
    where
        F: for<'t> FnMut(
            &'t mut Transaction<'_>,
        )
            -> std::pin::Pin<Box<dyn std::future::Future<Output = Result<T, BookError>> + Send + 't>>,
    {
        self.database.transact(body).await
    }
}

fn is_visible(scope: &Scope, alarm: &Alarm) -> bool {
    match scope {
        Scope::All => true,
        Scope::Project(project) => *project == alarm.project_id,
        Scope::Creator(user) => *user == alarm.user_id,
        Scope::Nothing => false,
    }
}

#[cfg(test)]
mod tests;
