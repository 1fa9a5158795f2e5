//! The outbox: notices are written in the transaction of their transition, taken under a lease, and kept until they are
//! delivered or parked. What is known of their receivers is kept with them, so that a restart does not forget who is
//! down, and two deliverers do not both try.

use std::time::Duration;

use orzo_database::{Migration, Row, Transaction, Value};
use orzo_model::{Scope, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::{AlarmBook, BookError, PAGE_MAX, announcements, rows::notice_of};
use crate::{
    alarm::Alarm,
    notify::{
        Failure,
        action::{Action, scrubbed},
        outcome::{FAILURES_MAX, open_until},
    },
    verdict::Judgement,
};

/// Tries under way at once to one receiver of one project, so that a slow one does not hold the others' places.
const PER_RECEIVER_MAX: u32 = 4;
/// Tries under way at once for one project, so that its receivers do not hold the other projects' places.
const PER_PROJECT_MAX: u32 = 16;

/// Steps of the tables around notices; those of the notices themselves are among the book's.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "receivers, leases, replays, trusts",
        sql: "ALTER TABLE alarm_notices ADD COLUMN receiver TEXT NOT NULL DEFAULT '';
          ALTER TABLE alarm_notices ADD COLUMN leased BIGINT NOT NULL DEFAULT 0;
          ALTER TABLE alarm_notices ADD COLUMN failure TEXT;
          ALTER TABLE alarm_notices ADD COLUMN replayed_at BIGINT;
          CREATE INDEX alarm_notices_project ON alarm_notices (project_id, created_at);
          CREATE TABLE alarm_receivers (
            project_id TEXT NOT NULL, receiver TEXT NOT NULL, failures BIGINT NOT NULL, open_until BIGINT NOT NULL,
            gone_at BIGINT, PRIMARY KEY (project_id, receiver));
          CREATE TABLE alarm_trusts (trust_id TEXT PRIMARY KEY, made_at BIGINT NOT NULL);\n",
    },
    Migration {
        name: "who has a notice under way",
        sql: "ALTER TABLE alarm_notices ADD COLUMN holder TEXT NOT NULL DEFAULT '';\n",
    },
];

/// Where a notice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeState {
    /// To be sent, or sent again.
    Waiting,
    /// A 2xx was received.
    Delivered,
    /// Given up; kept to be looked at and replayed.
    Parked,
}

impl NoticeState {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Parked => "parked",
        }
    }

    /// From the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Delivered, Self::Parked].into_iter().find(|state| state.as_str() == text)
    }
}

/// A message to be delivered about a transition.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The same on every try: the receiver's key against repeats.
    pub notice_id: String,
    /// About which alarm.
    pub alarm_id: String,
    /// Of which project.
    pub project_id: String,
    /// Where to; may hold the id of a trust, so show it only [`scrubbed`].
    pub action: String,
    /// The receiver under whose name failures are counted.
    pub receiver: String,
    /// What is sent, byte for byte on every try.
    pub body: String,
    /// Where it stands.
    pub state: NoticeState,
    /// When the transition was.
    pub created_at: Timestamp,
    /// When it was last given a new start.
    pub replayed_at: Option<Timestamp>,
    /// Tries so far, since the last start.
    pub attempts: u32,
    /// When the next try is.
    pub next_at: Timestamp,
    /// What went wrong last, for the owner.
    pub failure: Option<Failure>,
    /// What went wrong last, for the operator.
    pub last_error: Option<String>,
    /// The receiver has told an earlier notice that it is gone for good.
    pub is_receiver_gone: bool,
    /// Until when nobody else sends it, if it was taken.
    pub leased_until: Option<Timestamp>,
}

impl Notice {
    /// The action as anybody may read it.
    pub fn shown_action(&self) -> String {
        scrubbed(&self.action)
    }
}

/// A try that failed.
#[derive(Debug)]
pub struct Setback<'a> {
    /// For the owner.
    pub failure: Failure,
    /// For the operator.
    pub reason: &'a str,
    /// When the next try is; `None`: never.
    pub next_at: Option<Timestamp>,
    /// What the receiver asked for.
    pub retry_after: Option<Duration>,
}

/// Which notices are meant. `None` does not narrow.
#[derive(Clone, Debug, Default)]
pub struct NoticeFilter {
    /// Where they stand.
    pub state: Option<NoticeState>,
    /// About this alarm.
    pub alarm_id: Option<String>,
    /// Of this project.
    pub project_id: Option<String>,
    /// This one.
    pub notice_id: Option<String>,
    /// What follows this one.
    pub marker: Option<String>,
    /// At most so many; 1000 at most.
    pub limit: Option<u32>,
}

impl AlarmBook {
    /// Notices whose time has come, fairly over projects and receivers; each is leased for `lease`, so that no other
    /// deliverer sends it meanwhile. A receiver that is left alone gives none until its time is over, and then one.
    pub async fn take_notices(&self, limit: u32, lease: Duration) -> Result<Vec<Notice>, BookError> {
        self.settle_and_take(&[], limit, lease).await
    }

    /// Marks notices as delivered and takes others, in one commit: many deliveries share one flush to disk.
    pub async fn settle_and_take(
        &self,
        delivered: &[Notice],
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Notice>, BookError> {
        let now = self.clock.now();
        let holder = self.holder().unwrap_or_default().to_owned();
        self.in_transaction(|tx| {
            let (delivered, holder) = (delivered.to_vec(), holder.clone());
            Box::pin(async move {
                for notice in &delivered {
                    mark_delivered(tx, notice, now).await?;
                }
                match limit {
                    0 => Ok(Vec::new()),
                    limit => take(tx, &holder, limit, lease, now).await,
                }
            })
        })
        .await
    }

    /// Notices that a former life of this process had under way when it died are to be sent now, not when their leases
    /// run out; gives how many. Nothing without a holder's name.
    pub async fn regain_notices(&self) -> Result<u64, BookError> {
        let Some(holder) = self.holder() else { return Ok(0) };
        let sql = "UPDATE alarm_notices SET next_at = $1, leased = 0 \
                   WHERE state = 'waiting' AND leased = 1 AND holder = $2";
        Ok(self.database.execute(sql, &[self.clock.now().into(), holder.into()]).await?)
    }

    /// When the next waiting notice is to be tried.
    pub async fn next_notice_at(&self) -> Result<Option<Timestamp>, BookError> {
        let sql = "SELECT min(next_at) AS next_at FROM alarm_notices WHERE state = 'waiting'";
        Ok(self.database.query_one(sql, &[]).await?.and_then(|row| row.time("next_at")))
    }

    /// A 2xx was received: the notice is done, and its receiver is well.
    pub async fn delivered(&self, notice: &Notice) -> Result<(), BookError> {
        self.settle_and_take(std::slice::from_ref(notice), 0, Duration::ZERO).await.map(|_| ())
    }

    /// A try failed. A receiver that fails too often, or asks for it, is left alone for a while.
    pub async fn failed(&self, notice: &Notice, setback: Setback<'_>) -> Result<(), BookError> {
        let Setback { failure, reason, next_at, retry_after } = setback;
        let now = self.clock.now();
        let state = if next_at.is_some() { NoticeState::Waiting } else { NoticeState::Parked };
        self.in_transaction(|tx| {
            let (notice, reason) = (notice.clone(), reason.to_owned());
            Box::pin(async move {
                let failures = count_failure(tx, &notice).await?;
                let open_until = open_until(failures, retry_after, now);
                let next_at = next_at.unwrap_or(notice.next_at).max(open_until.unwrap_or(Timestamp::EPOCH));
                write_setback(tx, &notice, state, failure, &reason, next_at).await?;
                if let Some(until) = open_until {
                    leave_alone(tx, &notice, until).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// It will never be accepted. If the receiver is gone, all that waits for it is parked as its turn comes.
    pub async fn parked(&self, notice: &Notice, failure: Failure, reason: &str) -> Result<(), BookError> {
        let now = self.clock.now();
        self.in_transaction(|tx| {
            let (notice, reason) = (notice.clone(), reason.to_owned());
            Box::pin(async move {
                write_setback(tx, &notice, NoticeState::Parked, failure, &reason, notice.next_at).await?;
                if failure == Failure::Gone {
                    let sql = "INSERT INTO alarm_receivers (project_id, receiver, failures, open_until, gone_at) \
                               VALUES ($1, $2, 0, 0, $3) ON CONFLICT (project_id, receiver) \
                               DO UPDATE SET gone_at = excluded.gone_at";
                    let values = [notice.project_id.as_str().into(), notice.receiver.as_str().into(), now.into()];
                    tx.execute(sql, &values).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The notices of a scope, newest first.
    pub async fn find_notices(&self, scope: &Scope, filter: &NoticeFilter) -> Result<Vec<Notice>, BookError> {
        let Some((mut condition, mut values)) = condition_of(scope, filter) else { return Ok(Vec::new()) };
        if let Some(marker) = &filter.marker {
            let at = NoticeFilter { notice_id: Some(marker.clone()), ..NoticeFilter::default() };
            let Some((same, own)) = condition_of(scope, &at) else { return Ok(Vec::new()) };
            let sql = format!("SELECT created_at, notice_id FROM alarm_notices WHERE {same}");
            let row = self.database.query_one(&sql, &own).await?;
            let row = row.ok_or_else(|| BookError::BadMarker { marker: marker.clone() })?;
            values.push(row.time("created_at").into());
            values.push(row.string("notice_id").into());
            let (time, id) = (values.len() - 1, values.len());
            condition.push_str(&format!(" AND (created_at < ${time} OR (created_at = ${time} AND notice_id > ${id}))"));
        }
        let limit = filter.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let sql =
            format!("SELECT * FROM alarm_notices WHERE {condition} ORDER BY created_at DESC, notice_id LIMIT {limit}");
        Ok(self.database.query(&sql, &values).await?.iter().map(notice_of).collect())
    }

    /// Notices in a state, newest first; for operators.
    pub async fn notices(&self, state: NoticeState, limit: u32) -> Result<Vec<Notice>, BookError> {
        let filter = NoticeFilter { state: Some(state), limit: Some(limit), ..NoticeFilter::default() };
        self.find_notices(&Scope::All, &filter).await
    }

    /// Gives parked notices a new start, with the same id, and forgets what is held against their receivers. Gives how
    /// many; those that are not parked, or not of this scope, stay as they are.
    pub async fn replay_notices(&self, scope: &Scope, filter: &NoticeFilter) -> Result<u64, BookError> {
        let filter = NoticeFilter { state: Some(NoticeState::Parked), ..filter.clone() };
        let Some((condition, values)) = condition_of(scope, &filter) else { return Ok(0) };
        let now = self.clock.now();
        self.in_transaction(|tx| {
            let (condition, mut values) = (condition.clone(), values.clone());
            Box::pin(async move {
                let forget = format!(
                    "DELETE FROM alarm_receivers WHERE EXISTS (SELECT 1 FROM alarm_notices n WHERE {condition} \
                     AND n.project_id = alarm_receivers.project_id AND n.receiver = alarm_receivers.receiver)"
                );
                tx.execute(&forget, &values).await?;
                values.push(now.into());
                let place = values.len();
                let start = format!(
                    "UPDATE alarm_notices SET state = 'waiting', leased = 0, attempts = 0, next_at = ${place}, \
                     replayed_at = ${place} WHERE {condition}"
                );
                Ok(tx.execute(&start, &values).await?)
            })
        })
        .await
    }

    /// How many notices wait, were delivered and are parked, for assertions and health.
    pub async fn notice_counts(&self) -> Result<(u64, u64, u64), BookError> {
        let rows = self.database.query("SELECT state, count(*) AS n FROM alarm_notices GROUP BY state", &[]).await?;
        let count = |state: NoticeState| {
            let row = rows.iter().find(|row| row.string("state") == state.as_str());
            row.and_then(|row| row.int("n")).map_or(0, |n| n as u64)
        };
        Ok((count(NoticeState::Waiting), count(NoticeState::Delivered), count(NoticeState::Parked)))
    }

    /// Forgets notices that were delivered before the one time or parked before the other.
    pub async fn forget_notices(&self, delivered: Timestamp, parked: Timestamp) -> Result<u64, BookError> {
        let sql = "DELETE FROM alarm_notices WHERE (state = 'delivered' AND delivered_at < $1) \
                   OR (state = 'parked' AND next_at < $2)";
        Ok(self.database.execute(sql, &[delivered.into(), parked.into()]).await?)
    }

    /// Remembers a trust that was made for an alarm's actions, before the alarm is written: it is ended when no alarm
    /// and no waiting notice names it.
    pub async fn remember_trust(&self, trust_id: &str) -> Result<(), BookError> {
        let sql = "INSERT INTO alarm_trusts (trust_id, made_at) VALUES ($1, $2) ON CONFLICT (trust_id) DO NOTHING";
        self.database.execute(sql, &[trust_id.into(), self.clock.now().into()]).await?;
        Ok(())
    }

    /// Trusts made before `before` that nothing names any more.
    pub async fn unused_trusts(&self, before: Timestamp, limit: u32) -> Result<Vec<String>, BookError> {
        let named = |column: &str| format!("{column} LIKE '%//' || t.trust_id || ':delete@%'");
        let sql = format!(
            "SELECT trust_id FROM alarm_trusts t WHERE made_at < $1 AND NOT EXISTS (SELECT 1 FROM alarms WHERE {} OR {} \
             OR {}) AND NOT EXISTS (SELECT 1 FROM alarm_notices WHERE state = 'waiting' AND {}) \
             ORDER BY made_at LIMIT {limit}",
            named("ok_actions"),
            named("alarm_actions"),
            named("insufficient_data_actions"),
            named("action")
        );
        let rows = self.database.query(&sql, &[before.into()]).await?;
        Ok(rows.iter().map(|row| row.string("trust_id")).collect())
    }

    /// A trust has ended.
    pub async fn forget_trust(&self, trust_id: &str) -> Result<(), BookError> {
        self.database.execute("DELETE FROM alarm_trusts WHERE trust_id = $1", &[trust_id.into()]).await?;
        Ok(())
    }
}

/// What is due at `$1`: at most [`PER_RECEIVER_MAX`] for a receiver and [`PER_PROJECT_MAX`] for a project, those under
/// way included, and one for a receiver that has failed too often. Each project's first goes before any project's second.
fn due_sql(limit: u32) -> String {
    format!(
        "WITH busy AS (
           SELECT project_id, receiver, count(*) AS sending FROM alarm_notices
           WHERE state = 'waiting' AND leased = 1 AND next_at > $1 GROUP BY project_id, receiver),
         due AS (
           SELECT n.*, r.gone_at, COALESCE(r.failures, 0) AS failures, COALESCE(b.sending, 0) AS sending,
             ROW_NUMBER() OVER (PARTITION BY n.project_id, n.receiver ORDER BY n.created_at, n.notice_id) AS place
           FROM alarm_notices n
           LEFT JOIN alarm_receivers r ON r.project_id = n.project_id AND r.receiver = n.receiver
           LEFT JOIN busy b ON b.project_id = n.project_id AND b.receiver = n.receiver
           WHERE n.state = 'waiting' AND n.next_at <= $1 AND COALESCE(r.open_until, 0) <= $1),
         fair AS (
           SELECT due.*,
             ROW_NUMBER() OVER (PARTITION BY project_id ORDER BY place, created_at, notice_id) AS turn,
             (SELECT CAST(COALESCE(sum(busy.sending), 0) AS BIGINT) FROM busy
              WHERE busy.project_id = due.project_id) AS under_way
           FROM due
           WHERE place + sending <= CASE WHEN failures >= {FAILURES_MAX} THEN 1 ELSE {PER_RECEIVER_MAX} END)
         SELECT * FROM fair WHERE turn + under_way <= {PER_PROJECT_MAX}
         ORDER BY turn, created_at, notice_id LIMIT {limit}"
    )
}

/// Leases what is due.
async fn take(
    tx: &mut Transaction<'_>,
    holder: &str,
    limit: u32,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Notice>, BookError> {
    let mut taken = Vec::new();
    for row in tx.query(&due_sql(limit), &[now.into()]).await? {
        let mut notice = notice_of(&row);
        notice.is_receiver_gone = row.time("gone_at").is_some();
        let sql = "UPDATE alarm_notices SET next_at = $1, leased = 1, holder = $4 \
                   WHERE notice_id = $2 AND state = 'waiting' AND next_at <= $3";
        let values = [now.plus(lease).into(), notice.notice_id.as_str().into(), now.into(), holder.into()];
        if tx.execute(sql, &values).await? > 0 {
            notice.leased_until = Some(now.plus(lease));
            taken.push(notice);
        }
    }
    Ok(taken)
}

async fn mark_delivered(tx: &mut Transaction<'_>, notice: &Notice, now: Timestamp) -> Result<(), BookError> {
    let sql = "UPDATE alarm_notices SET state = 'delivered', leased = 0, attempts = attempts + 1, \
               delivered_at = $1, failure = NULL, last_error = NULL WHERE notice_id = $2";
    tx.execute(sql, &[now.into(), notice.notice_id.as_str().into()]).await?;
    forget_receiver(tx, notice, now).await
}

/// SQL and its values; `None`: nothing can be meant.
fn condition_of(scope: &Scope, filter: &NoticeFilter) -> Option<(String, Vec<Value>)> {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut narrow = |column: &str, value: Option<&str>| {
        if let Some(value) = value {
            values.push(value.into());
            conditions.push(format!("{column} = ${}", values.len()));
        }
    };
    match scope {
        Scope::All => {}
        Scope::Project(project) | Scope::Owner(project) => narrow("project_id", Some(project)),
        Scope::Maker(_) | Scope::Creator(_) | Scope::Nothing => return None,
    }
    narrow("state", filter.state.map(NoticeState::as_str));
    narrow("alarm_id", filter.alarm_id.as_deref());
    narrow("project_id", filter.project_id.as_deref());
    narrow("notice_id", filter.notice_id.as_deref());
    Some((conditions.join(" AND "), values))
}

async fn write_setback(
    tx: &mut Transaction<'_>,
    notice: &Notice,
    state: NoticeState,
    failure: Failure,
    reason: &str,
    next_at: Timestamp,
) -> Result<(), BookError> {
    tx.execute(
        "UPDATE alarm_notices SET state = $1, leased = 0, attempts = attempts + 1, next_at = $2, failure = $3, \
         last_error = $4 WHERE notice_id = $5 AND state = 'waiting'",
        &[
            state.as_str().into(),
            next_at.into(),
            failure.as_str().into(),
            reason.into(),
            notice.notice_id.as_str().into(),
        ],
    )
    .await?;
    Ok(())
}

/// One more failure in a row of this receiver; gives how many.
async fn count_failure(tx: &mut Transaction<'_>, notice: &Notice) -> Result<u32, BookError> {
    let key = [notice.project_id.as_str().into(), notice.receiver.as_str().into()];
    tx.execute(
        "INSERT INTO alarm_receivers (project_id, receiver, failures, open_until) VALUES ($1, $2, 1, 0) \
         ON CONFLICT (project_id, receiver) DO UPDATE SET failures = alarm_receivers.failures + 1",
        &key,
    )
    .await?;
    let sql = "SELECT failures FROM alarm_receivers WHERE project_id = $1 AND receiver = $2";
    let row: Option<Row> = tx.query_one(sql, &key).await?;
    Ok(row.and_then(|row| row.int("failures")).and_then(|n| u32::try_from(n).ok()).unwrap_or(1))
}

/// Nothing for this receiver until then; what waits for it is put off at once, so that it is not looked at each time.
async fn leave_alone(tx: &mut Transaction<'_>, notice: &Notice, until: Timestamp) -> Result<(), BookError> {
    let values = [until.into(), notice.project_id.as_str().into(), notice.receiver.as_str().into()];
    let receiver = "UPDATE alarm_receivers SET open_until = $1 WHERE project_id = $2 AND receiver = $3 \
                    AND open_until < $1";
    tx.execute(receiver, &values).await?;
    let others = "UPDATE alarm_notices SET next_at = $1 WHERE project_id = $2 AND receiver = $3 AND state = 'waiting' \
                  AND leased = 0 AND next_at < $1";
    tx.execute(others, &values).await?;
    Ok(())
}

/// Nothing is held against this receiver any more, and what was put off for it may go now.
async fn forget_receiver(tx: &mut Transaction<'_>, notice: &Notice, now: Timestamp) -> Result<(), BookError> {
    let key = [notice.project_id.as_str().into(), notice.receiver.as_str().into()];
    let found =
        tx.query_one("SELECT open_until FROM alarm_receivers WHERE project_id = $1 AND receiver = $2", &key).await?;
    let Some(found) = found else { return Ok(()) };
    tx.execute("DELETE FROM alarm_receivers WHERE project_id = $1 AND receiver = $2", &key).await?;
    if found.int("open_until").unwrap_or(0) > 0 {
        let sql = "UPDATE alarm_notices SET next_at = $3 WHERE project_id = $1 AND receiver = $2 AND state = 'waiting' \
                   AND leased = 0 AND next_at > $3";
        let [project, receiver] = key;
        tx.execute(sql, &[project, receiver, now.into()]).await?;
    }
    Ok(())
}

/// Namespace of notice ids: a random UUID that never changes.
const NOTICE_NAMESPACE: Uuid = Uuid::from_u128(0x0c4d_5c8e_6f0b_4b0e_8d57_3f2a_9b61_7aa3);

/// The id follows from alarm, revision, window and place, so that the same notice can never be two.
pub(super) fn notice(
    before: &Alarm,
    judgement: &Judgement,
    action: &str,
    place: usize,
    until: Timestamp,
    now: Timestamp,
) -> Notice {
    let name = format!("{}/{}/{}/{place}", before.alarm_id, before.revision, until.micros());
    let body = json!({
        "alarm_name": before.name,
        "alarm_id": before.alarm_id,
        "severity": before.severity,
        "previous": before.state,
        "current": judgement.state,
        "reason": judgement.reason,
        "reason_data": judgement.reason_data,
    });
    let notice_id = Uuid::new_v5(&NOTICE_NAMESPACE, name.as_bytes()).to_string();
    Notice::new(notice_id, &before.alarm_id, &before.project_id, action, body.to_string(), now)
}

impl Notice {
    /// A notice that was not tried yet.
    pub fn new(
        notice_id: String,
        alarm_id: &str,
        project_id: &str,
        action: &str,
        body: String,
        now: Timestamp,
    ) -> Self {
        Self {
            notice_id,
            alarm_id: alarm_id.to_owned(),
            project_id: project_id.to_owned(),
            action: action.to_owned(),
            receiver: receiver_of(action),
            body,
            state: NoticeState::Waiting,
            created_at: now,
            replayed_at: None,
            attempts: 0,
            next_at: now,
            failure: None,
            last_error: None,
            is_receiver_gone: false,
            leased_until: None,
        }
    }
}

/// The name under which an action's receiver is known.
pub(super) fn receiver_of(action: &str) -> String {
    if action == announcements::ACTION {
        return "announcements".to_owned();
    }
    Action::parse(action).map_or_else(|_| "unreadable".to_owned(), |action| action.receiver())
}

pub(super) async fn write_notice(tx: &mut Transaction<'_>, notice: &Notice) -> Result<(), BookError> {
    tx.execute(
        "INSERT INTO alarm_notices (notice_id, alarm_id, project_id, action, body, state, created_at, attempts, \
         next_at, receiver) VALUES ($1, $2, $3, $4, $5, 'waiting', $6, 0, $7, $8)",
        &[
            notice.notice_id.as_str().into(),
            notice.alarm_id.as_str().into(),
            notice.project_id.as_str().into(),
            notice.action.as_str().into(),
            notice.body.as_str().into(),
            notice.created_at.into(),
            notice.next_at.into(),
            notice.receiver.as_str().into(),
        ],
    )
    .await?;
    Ok(())
}
