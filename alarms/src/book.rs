//! The alarm book: alarms, their history, and the outbox of notices, in one database.
//!
//! A transition, its history entry and its notices are one commit (contract C5). Every change names the revision it
//! saw; of two changes at once one loses with [`BookError::Changed`] and nothing of it is kept. The history is in
//! `book/history.rs`, the outbox in `book/notices.rs`.

pub(crate) mod announcements;
mod history;
mod leases;
mod notices;
mod quotas;
mod rows;
mod search;

use std::{sync::Arc, time::Duration};

use orzo_database::{AsConflict, Database, DatabaseError, Migration, Transaction, Value};
use orzo_model::{Scope, SharedClock, Timestamp};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use crate::{
    alarm::{Alarm, AlarmRequest, AlarmState},
    evaluations::Evaluations,
    verdict::Judgement,
};

use announcements::Origin;
use history::{Author, change, difference, write_change};
pub use history::{Change, ChangeKind};
pub(crate) use leases::{Lease, partition_of};
pub use notices::{Notice, NoticeFilter, NoticeState, Setback};
use notices::{notice, write_notice};
pub use quotas::{QuotaDefaults, UNLIMITED};
use rows::{COLUMNS, alarm_of, values_of};
pub use search::{Page, ROWS_MAX};

const MIGRATIONS: &[Migration] = &[
    Migration {
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
    },
    Migration {
        name: "partitions under lease, changes to follow, events looked at",
        sql: "ALTER TABLE alarms ADD COLUMN events_until BIGINT NOT NULL DEFAULT 0;
          ALTER TABLE alarms ADD COLUMN touched_at BIGINT NOT NULL DEFAULT 0;
          CREATE INDEX alarms_touched ON alarms (touched_at);
          CREATE TABLE alarm_removals (alarm_id TEXT PRIMARY KEY, removed_at BIGINT NOT NULL);
          CREATE TABLE alarm_evaluators (owner TEXT PRIMARY KEY, seen_at BIGINT NOT NULL);
          CREATE TABLE alarm_partitions (
            partition BIGINT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '', token BIGINT NOT NULL DEFAULT 0,
            lease_until BIGINT NOT NULL DEFAULT 0, evaluated_until BIGINT NOT NULL DEFAULT 0,
            events_until BIGINT NOT NULL DEFAULT 0);
          INSERT INTO alarm_partitions (partition) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11),
            (12), (13), (14), (15);\n",
    },
    Migration {
        name: "event alarms that were changed",
        sql: "CREATE INDEX alarms_touched_events ON alarms (touched_at) WHERE type = 'event';\n",
    },
];

/// Aodh shows as much without a limit; a page of more is not read by anyone.
pub(crate) const PAGE_MAX: u32 = 1000;

/// Deleted alarms are remembered so long, for evaluators that hear of it late.
const REMOVALS_KEPT: Duration = Duration::from_secs(3600);

/// Changes that an evaluator of this process may be behind before it reads them from the database instead.
pub(crate) const TOLD_MAX: usize = 1024;

/// What was changed through the API of this process.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// Made or changed: the alarm as it is now.
    Written(Arc<Alarm>),
    /// Deleted, by its id.
    Removed(String),
}

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
    /// Under which name leases are held; a new one for each start if there is none.
    holder: Option<Arc<str>>,
    /// Whether changes are announced on the bus.
    announces: bool,
    /// Counts changes through the API in this process.
    changes: Arc<watch::Sender<u64>>,
    /// The changes themselves.
    told: broadcast::Sender<Told>,
}

/// What was judged of an alarm and is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Transition {
    /// The alarm as it was when it was judged.
    pub(crate) before: Alarm,
    /// What was judged.
    pub(crate) judgement: Judgement,
    /// The end of the window that was judged, if it was one.
    pub(crate) until: Option<Timestamp>,
    /// The number of the event that was looked at, if it was one.
    pub(crate) events_until: Option<i64>,
    /// Whether it stands in the history although the state stays.
    pub(crate) is_recorded: bool,
    /// The token of the partition's lease; `None` where there is none (tests).
    pub(crate) token: Option<i64>,
}

/// What became of a transition.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// It is written; the alarm as it is now.
    Done(Box<Alarm>),
    /// Somebody else was faster: nothing of it is written.
    Lost,
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
        Ok(Self {
            database,
            clock,
            quotas: QuotaDefaults::default(),
            evaluations: Evaluations::default(),
            holder: None,
            announces: false,
            changes: Arc::new(watch::Sender::new(0)),
            told: broadcast::Sender::new(TOLD_MAX),
        })
    }

    /// The same book with a name under which leases are held over restarts, so that whoever comes back does not wait for
    /// those of its former life to run out. Only one process at a time may use the name.
    pub fn with_holder(self, holder: &str) -> Self {
        Self { holder: Some(holder.into()), ..self }
    }

    /// The name under which leases are held over restarts.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
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
            // The window that has just closed is judged at once, as Aodh does.
            evaluated_until: now.floor(request.rule.granularity()).minus(request.rule.granularity()),
            events_until: 0,
        };
        let author = Author { user_id: Some(user_id), project_id: Some(project_id) };
        let change = change(&alarm, ChangeKind::Creation, alarm.to_json().to_string(), &author, now);
        let announcement = self.announcement(&change, Origin::Api);
        let quotas = self.quotas;
        self.in_transaction(|tx| {
            let (alarm, change, announcement) = (alarm.clone(), change.clone(), announcement.clone());
            Box::pin(async move {
                quotas::check(tx, quotas, &alarm.user_id, &alarm.project_id).await?;
                let places: Vec<_> = (1..=COLUMNS.len() + 1).map(|place| format!("${place}")).collect();
                let columns = COLUMNS.join(", ");
                let sql = format!("INSERT INTO alarms ({columns}, touched_at) VALUES ({})", places.join(", "));
                let mut values = values_of(&alarm);
                values.push(now.into());
                tx.execute(&sql, &values).await?;
                announcements::write(tx, announcement.as_ref()).await?;
                write_change(tx, &change).await
            })
        })
        .await?;
        self.tell(Told::Written(Arc::new(alarm.clone())));
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
            Scope::Project(project) | Scope::Owner(project) => narrow("project_id", Some(project.into())),
            Scope::Creator(user) => narrow("user_id", Some(user.into())),
            Scope::Maker(_) | Scope::Nothing => return Ok(Vec::new()),
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
        if before.rule != after.rule || (after.enabled && !before.enabled) {
            after.evaluated_until = now.floor(after.rule.granularity()).minus(after.rule.granularity());
        }
        if let Some(state) = request.state.filter(|state| *state != before.state) {
            after.state = state;
            after.state_timestamp = now;
            after.state_reason = "Manually set via API".into();
        }
        let author = Author { user_id: Some(user_id), project_id: Some(project_id) };
        let detail = difference(before, &after);
        let change = change(&after, ChangeKind::RuleChange, detail, &author, now);
        self.replace(before, after, change).await
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
        self.replace(before, after, change).await
    }

    /// Removes an alarm with its history. Notices that wait are still delivered: what they tell has happened.
    pub async fn delete(&self, scope: &Scope, alarm_id: &str) -> Result<(), BookError> {
        self.remove(scope, alarm_id, &Author { user_id: None, project_id: None }).await
    }

    /// The same, and tells who did it.
    pub async fn delete_by(
        &self,
        scope: &Scope,
        alarm_id: &str,
        user_id: &str,
        project_id: &str,
    ) -> Result<(), BookError> {
        self.remove(scope, alarm_id, &Author { user_id: Some(user_id), project_id: Some(project_id) }).await
    }

    async fn remove(&self, scope: &Scope, alarm_id: &str, author: &Author<'_>) -> Result<(), BookError> {
        let alarm = self.get(scope, alarm_id).await?;
        self.evaluations.forget(alarm_id);
        let now = self.clock.now();
        let detail = json!({"state": alarm.state}).to_string();
        let change = change(&alarm, ChangeKind::Deletion, detail, author, now);
        let announcement = self.announcement(&change, Origin::Api);
        self.in_transaction(|tx| {
            let (alarm_id, announcement) = (alarm_id.to_owned(), announcement.clone());
            Box::pin(async move {
                tx.execute("DELETE FROM alarm_history WHERE alarm_id = $1", &[alarm_id.as_str().into()]).await?;
                let removed = tx.execute("DELETE FROM alarms WHERE alarm_id = $1", &[alarm_id.as_str().into()]).await?;
                let sql = "INSERT INTO alarm_removals (alarm_id, removed_at) VALUES ($1, $2) \
                           ON CONFLICT (alarm_id) DO NOTHING";
                tx.execute(sql, &[alarm_id.as_str().into(), now.into()]).await?;
                let old = now.minus(REMOVALS_KEPT);
                tx.execute("DELETE FROM alarm_removals WHERE removed_at < $1", &[old.into()]).await?;
                // Of two that delete it at once, one has.
                announcements::write(tx, announcement.as_ref().filter(|_| removed > 0)).await
            })
        })
        .await?;
        self.tell(Told::Removed(alarm_id.to_owned()));
        Ok(())
    }

    /// Counts changes through the API in this process; for who follows them.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is changed from now on; for who follows it.
    pub(crate) fn told(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    fn tell(&self, told: Told) {
        // Where nobody listens there is no evaluator in this process.
        let _ = self.told.send(told);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The states of alarms, in the order of their ids; `None` for those that are not there, or not of the project.
    pub(crate) async fn states(
        &self,
        alarm_ids: &[String],
        project_id: Option<&str>,
    ) -> Result<Vec<Option<AlarmState>>, BookError> {
        let places: Vec<String> = (1..=alarm_ids.len()).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT alarm_id, project_id, state FROM alarms WHERE alarm_id IN ({})", places.join(", "));
        let values: Vec<Value> = alarm_ids.iter().map(Value::from).collect();
        let rows = self.database.query(&sql, &values).await?;
        let state = |id: &String| {
            let row = rows.iter().find(|row| row.string("alarm_id") == *id)?;
            let is_seen = project_id.is_none_or(|project| row.string("project_id") == project);
            AlarmState::parse(&row.string("state")).filter(|_| is_seen)
        };
        Ok(alarm_ids.iter().map(state).collect())
    }

    /// Writes what was judged of the window that ends at `until`: the transition (if it is one), its history entry and
    /// its notices, in one commit.
    pub async fn transition(
        &self,
        before: &Alarm,
        judgement: &Judgement,
        until: Timestamp,
    ) -> Result<Alarm, BookError> {
        let transition = Transition {
            before: before.clone(),
            judgement: judgement.clone(),
            until: Some(until),
            events_until: None,
            is_recorded: false,
            token: None,
        };
        match self.write_transitions(&[transition]).await?.pop() {
            Some(Written::Done(after)) => Ok(*after),
            _ => Err(BookError::Changed { alarm_id: before.alarm_id.clone() }),
        }
    }

    /// Writes what was judged of several alarms in one commit. Each stands for itself: one that lost against somebody
    /// else's change, or whose partition has gone to another evaluator, leaves nothing, and the others are written.
    pub(crate) async fn write_transitions(&self, transitions: &[Transition]) -> Result<Vec<Written>, BookError> {
        let now = self.clock.now();
        let prepare = |transition| {
            let mut prepared = prepare(transition, now);
            let announce = |change| self.announcement(change, Origin::Evaluator);
            prepared.notices.extend(prepared.change.as_ref().and_then(announce));
            prepared
        };
        let prepared: Vec<Prepared> = transitions.iter().map(prepare).collect();
        self.in_transaction(|tx| {
            let prepared = prepared.clone();
            Box::pin(async move {
                let mut written = Vec::with_capacity(prepared.len());
                for Prepared { after, seen, token, change, notices } in prepared {
                    if !set_row(tx, &after, seen, token).await? {
                        written.push(Written::Lost);
                        continue;
                    }
                    if let Some(change) = &change {
                        write_change(tx, change).await?;
                    }
                    for notice in &notices {
                        write_notice(tx, notice).await?;
                    }
                    written.push(Written::Done(Box::new(after)));
                }
                Ok(written)
            })
        })
        .await
    }

    /// Compare-and-set on the revision, with the history entry of the change.
    async fn replace(&self, before: &Alarm, mut after: Alarm, change: Change) -> Result<Alarm, BookError> {
        after.revision = before.revision + 1;
        let seen = before.revision;
        let now = self.clock.now();
        let announcement = self.announcement(&change, Origin::Api);
        self.in_transaction(|tx| {
            let (after, change, announcement) = (after.clone(), change.clone(), announcement.clone());
            Box::pin(async move {
                if !set_row(tx, &after, seen, None).await? {
                    return Err(BookError::Changed { alarm_id: after.alarm_id });
                }
                touch(tx, &after.alarm_id, now).await?;
                announcements::write(tx, announcement.as_ref()).await?;
                write_change(tx, &change).await
            })
        })
        .await?;
        self.tell(Told::Written(Arc::new(after.clone())));
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

/// A transition with everything that is written together with it.
#[derive(Clone)]
struct Prepared {
    after: Alarm,
    seen: i64,
    token: Option<i64>,
    change: Option<Change>,
    notices: Vec<Notice>,
}

fn prepare(transition: &Transition, now: Timestamp) -> Prepared {
    let Transition { before, judgement, .. } = transition;
    let is_turned = before.state != judgement.state;
    let mut after = before.clone();
    after.revision = before.revision + 1;
    after.evaluated_until = transition.until.map_or(before.evaluated_until, |until| until.max(before.evaluated_until));
    after.events_until = transition.events_until.unwrap_or(before.events_until);
    after.evaluate_timestamp = now;
    after.state = judgement.state;
    let mut entry = None;
    if is_turned {
        after.state_timestamp = now;
    }
    if is_turned || transition.is_recorded {
        after.state_reason.clone_from(&judgement.reason);
        let detail = json!({"state": judgement.state, "transition_reason": judgement.reason}).to_string();
        let author = Author { user_id: None, project_id: None };
        entry = Some(change(&after, ChangeKind::StateTransition, detail, &author, now));
    }
    let mut notices = Vec::new();
    if is_turned || before.repeat_actions {
        let until = transition.until.unwrap_or(now);
        for (place, action) in after.actions(judgement.state).iter().enumerate() {
            notices.push(notice(before, judgement, action, place, until, now));
        }
    }
    Prepared { after, seen: before.revision, token: transition.token, change: entry, notices }
}

/// Writes an alarm's row if it is as it was seen, and the partition still under this token.
async fn set_row(tx: &mut Transaction<'_>, after: &Alarm, seen: i64, token: Option<i64>) -> Result<bool, BookError> {
    let sets: Vec<_> = COLUMNS.iter().enumerate().map(|(place, column)| format!("{column} = ${}", place + 1)).collect();
    let (id, revision) = (COLUMNS.len() + 1, COLUMNS.len() + 2);
    let mut sql = format!("UPDATE alarms SET {} WHERE alarm_id = ${id} AND revision = ${revision}", sets.join(", "));
    let mut values = values_of(after);
    values.push(after.alarm_id.as_str().into());
    values.push(seen.into());
    if let Some(token) = token {
        let (partition, place) = (revision + 1, revision + 2);
        sql.push_str(&format!(
            " AND EXISTS (SELECT 1 FROM alarm_partitions WHERE partition = ${partition} AND token = ${place})"
        ));
        values.push(i64::try_from(partition_of(&after.alarm_id)).unwrap_or(0).into());
        values.push(token.into());
    }
    Ok(tx.execute(&sql, &values).await? == 1)
}

/// Tells evaluators in other processes that an alarm is not what they know.
async fn touch(tx: &mut Transaction<'_>, alarm_id: &str, now: Timestamp) -> Result<(), BookError> {
    tx.execute("UPDATE alarms SET touched_at = $1 WHERE alarm_id = $2", &[now.into(), alarm_id.into()]).await?;
    Ok(())
}

fn is_visible(scope: &Scope, alarm: &Alarm) -> bool {
    match scope {
        Scope::All => true,
        Scope::Project(project) | Scope::Owner(project) => *project == alarm.project_id,
        Scope::Creator(user) => *user == alarm.user_id,
        Scope::Maker(_) | Scope::Nothing => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
