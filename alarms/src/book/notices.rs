//! The outbox: notices are written in the transaction of their transition, taken under a lease, and kept until they are
//! delivered or parked.

use std::time::Duration;

use orzo_database::Transaction;
use orzo_model::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{AlarmBook, BookError, PAGE_MAX, rows::notice_of};
use crate::{alarm::Alarm, judge::Judgement};

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
    /// Where to.
    pub action: String,
    /// What is sent, byte for byte on every try.
    pub body: String,
    /// When the transition was.
    pub created_at: Timestamp,
    /// Tries so far.
    pub attempts: u32,
    /// When the next try is.
    pub next_at: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl AlarmBook {
    /// Notices whose time has come, oldest first; each is leased until `lease_until`, so that no other deliverer sends
    /// it meanwhile.
    pub async fn take_notices(&self, limit: u32, lease: Duration) -> Result<Vec<Notice>, BookError> {
        let now = self.clock.now();
        self.in_transaction(|tx| {
            Box::pin(async move {
                let sql = format!(
                    "SELECT * FROM alarm_notices WHERE state = 'waiting' AND next_at <= $1 \
                     ORDER BY created_at, notice_id LIMIT {limit}"
                );
                let notices: Vec<Notice> = tx.query(&sql, &[now.into()]).await?.iter().map(notice_of).collect();
                for notice in &notices {
                    tx.execute(
                        "UPDATE alarm_notices SET next_at = $1 WHERE notice_id = $2",
                        &[now.plus(lease).into(), notice.notice_id.as_str().into()],
                    )
                    .await?;
                }
                Ok(notices)
            })
        })
        .await
    }

    /// When the next waiting notice is to be tried.
    pub async fn next_notice_at(&self) -> Result<Option<Timestamp>, BookError> {
        let sql = "SELECT min(next_at) AS next_at FROM alarm_notices WHERE state = 'waiting'";
        Ok(self.database.query_one(sql, &[]).await?.and_then(|row| row.time("next_at")))
    }

    /// A 2xx was received.
    pub async fn delivered(&self, notice: &Notice) -> Result<(), BookError> {
        let sql = "UPDATE alarm_notices SET state = 'delivered', attempts = attempts + 1, delivered_at = $1, \
                   last_error = NULL WHERE notice_id = $2";
        self.database.execute(sql, &[self.clock.now().into(), notice.notice_id.as_str().into()]).await?;
        Ok(())
    }

    /// A try failed: the next is at `next_at`, or never, if it is `None`.
    pub async fn failed(&self, notice: &Notice, error: &str, next_at: Option<Timestamp>) -> Result<(), BookError> {
        let state = if next_at.is_some() { NoticeState::Waiting } else { NoticeState::Parked };
        let sql = "UPDATE alarm_notices SET state = $1, attempts = attempts + 1, next_at = $2, last_error = $3 \
                   WHERE notice_id = $4";
        let values = [
            state.as_str().into(),
            next_at.unwrap_or(notice.next_at).into(),
            error.into(),
            notice.notice_id.as_str().into(),
        ];
        self.database.execute(sql, &values).await?;
        Ok(())
    }

    /// Notices in a state, newest first; for operators.
    pub async fn notices(&self, state: NoticeState, limit: u32) -> Result<Vec<Notice>, BookError> {
        let sql = format!(
            "SELECT * FROM alarm_notices WHERE state = $1 ORDER BY created_at DESC, notice_id LIMIT {}",
            limit.min(PAGE_MAX)
        );
        Ok(self.database.query(&sql, &[state.as_str().into()]).await?.iter().map(notice_of).collect())
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

    /// Forgets delivered notices that are older than `before`.
    pub async fn forget_delivered(&self, before: Timestamp) -> Result<u64, BookError> {
        let sql = "DELETE FROM alarm_notices WHERE state = 'delivered' AND delivered_at < $1";
        Ok(self.database.execute(sql, &[before.into()]).await?)
    }
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
    Notice {
        notice_id: Uuid::new_v5(&NOTICE_NAMESPACE, name.as_bytes()).to_string(),
        alarm_id: before.alarm_id.clone(),
        project_id: before.project_id.clone(),
        action: action.to_owned(),
        body: body.to_string(),
        created_at: now,
        attempts: 0,
        next_at: now,
        last_error: None,
    }
}

pub(super) async fn write_notice(tx: &mut Transaction<'_>, notice: &Notice) -> Result<(), BookError> {
    tx.execute(
        "INSERT INTO alarm_notices (notice_id, alarm_id, project_id, action, body, state, created_at, attempts, \
         next_at) VALUES ($1, $2, $3, $4, $5, 'waiting', $6, 0, $7)",
        &[
            notice.notice_id.as_str().into(),
            notice.alarm_id.as_str().into(),
            notice.project_id.as_str().into(),
            notice.action.as_str().into(),
            notice.body.as_str().into(),
            notice.created_at.into(),
            notice.next_at.into(),
        ],
    )
    .await?;
    Ok(())
}
