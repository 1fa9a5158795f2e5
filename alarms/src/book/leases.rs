//! Who evaluates which alarms: sixteen partitions (by the first digit of the alarm's id), each held under a lease with a
//! fencing token. What was written under a token that is no longer the newest does not commit.

use std::time::Duration;

use orzo_model::Timestamp;

use super::{AlarmBook, BookError, rows::alarm_of};
use crate::alarm::Alarm;

/// One for each hexadecimal digit; enough for as many evaluators as an installation could need.
pub(crate) const PARTITIONS: usize = 16;

/// Alarms read by their ids in one statement.
const IDS_AT_ONCE: usize = 200;

/// The right to evaluate a partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lease {
    pub(crate) partition: usize,
    /// Grows with every change of hands.
    pub(crate) token: i64,
    /// All windows that ended by then have been judged.
    pub(crate) evaluated_until: Timestamp,
    /// All events up to this number have been looked at.
    pub(crate) events_until: i64,
}

/// Which partition an alarm is in.
pub(crate) fn partition_of(alarm_id: &str) -> usize {
    alarm_id.chars().next().and_then(|digit| digit.to_digit(16)).map_or(0, |digit| digit as usize)
}

impl AlarmBook {
    /// Renews the leases that are held (with how far they have come), takes free ones up to a fair share, and gives
    /// back what is more. The answer is everything that `owner` holds now.
    pub(crate) async fn claim(&self, owner: &str, held: &[Lease], duration: Duration) -> Result<Vec<Lease>, BookError> {
        let now = self.clock.now();
        self.in_transaction(|tx| {
            let (owner, held) = (owner.to_owned(), held.to_vec());
            Box::pin(async move {
                let until = now.plus(duration);
                tx.execute(
                    "INSERT INTO alarm_evaluators (owner, seen_at) VALUES ($1, $2) \
                     ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at",
                    &[owner.as_str().into(), now.into()],
                )
                .await?;
                let forgotten = now.minus(duration * 10);
                tx.execute("DELETE FROM alarm_evaluators WHERE seen_at < $1", &[forgotten.into()]).await?;
                let row = tx
                    .query_one(
                        "SELECT count(*) AS n FROM alarm_evaluators WHERE seen_at > $1",
                        &[now.minus(duration).into()],
                    )
                    .await?;
                let alive = row.and_then(|row| row.int("n")).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
                let share = PARTITIONS.div_ceil(alive.max(1));
                let rows = tx.query("SELECT * FROM alarm_partitions ORDER BY partition", &[]).await?;
                let mut mine = Vec::new();
                let mut free = Vec::new();
                for row in &rows {
                    let lease = Lease {
                        partition: row.int("partition").and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
                        token: row.int("token").unwrap_or(0),
                        evaluated_until: row.time("evaluated_until").unwrap_or(Timestamp::EPOCH),
                        events_until: row.int("events_until").unwrap_or(0),
                    };
                    let is_mine = |known: &&Lease| known.partition == lease.partition && known.token == lease.token;
                    if row.string("owner") == owner
                        && let Some(known) = held.iter().find(is_mine)
                    {
                        mine.push(Lease {
                            evaluated_until: known.evaluated_until.max(lease.evaluated_until),
                            events_until: known.events_until.max(lease.events_until),
                            ..lease
                        });
                    } else if row.string("owner").is_empty()
                        || row.string("owner") == owner
                        || row.time("lease_until").is_none_or(|until| until <= now)
                    {
                        free.push(lease);
                    }
                }
                let surplus = mine.split_off(mine.len().min(share));
                for lease in &surplus {
                    let sql = "UPDATE alarm_partitions SET owner = '', lease_until = 0, evaluated_until = $1, \
                               events_until = $2 WHERE partition = $3 AND token = $4";
                    let values =
                        [lease.evaluated_until.into(), lease.events_until.into(), number(lease), lease.token.into()];
                    tx.execute(sql, &values).await?;
                }
                for lease in &mine {
                    let sql = "UPDATE alarm_partitions SET lease_until = $1, evaluated_until = $2, events_until = $3 \
                               WHERE partition = $4 AND token = $5";
                    let values = [
                        until.into(),
                        lease.evaluated_until.into(),
                        lease.events_until.into(),
                        number(lease),
                        lease.token.into(),
                    ];
                    tx.execute(sql, &values).await?;
                }
                let wanted = share - mine.len();
                for lease in free.into_iter().take(wanted) {
                    let sql = "UPDATE alarm_partitions SET owner = $1, token = $2, lease_until = $3 \
                               WHERE partition = $4 AND token = $5";
                    let values = [
                        owner.as_str().into(),
                        (lease.token + 1).into(),
                        until.into(),
                        number(&lease),
                        lease.token.into(),
                    ];
                    if tx.execute(sql, &values).await? == 1 {
                        mine.push(Lease { token: lease.token + 1, ..lease });
                    }
                }
                Ok(mine)
            })
        })
        .await
    }

    /// Gives everything back, with how far it has come, so that nobody has to wait for the leases to run out.
    pub(crate) async fn release(&self, owner: &str, held: &[Lease]) -> Result<(), BookError> {
        self.in_transaction(|tx| {
            let (owner, held) = (owner.to_owned(), held.to_vec());
            Box::pin(async move {
                for lease in &held {
                    let sql = "UPDATE alarm_partitions SET owner = '', lease_until = 0, evaluated_until = $1, \
                               events_until = $2 WHERE partition = $3 AND token = $4";
                    let values =
                        [lease.evaluated_until.into(), lease.events_until.into(), number(lease), lease.token.into()];
                    tx.execute(sql, &values).await?;
                }
                tx.execute("DELETE FROM alarm_evaluators WHERE owner = $1", &[owner.as_str().into()]).await?;
                Ok(())
            })
        })
        .await
    }

    /// The token under which a partition is held now.
    pub(crate) async fn token(&self, partition: usize) -> Result<Option<i64>, BookError> {
        let sql = "SELECT token FROM alarm_partitions WHERE partition = $1";
        let row = self.database.query_one(sql, &[i64::try_from(partition).unwrap_or(0).into()]).await?;
        Ok(row.and_then(|row| row.int("token")))
    }

    /// The enabled alarms of a partition. What cannot be read is told and left out: it must not keep the others from
    /// being evaluated.
    pub(crate) async fn partition(&self, partition: usize) -> Result<Vec<Alarm>, BookError> {
        let digit = |place: usize| char::from_digit(place as u32, 16).unwrap_or('f').to_string();
        let (sql, values) = match partition {
            0 => ("SELECT * FROM alarms WHERE enabled = 1 AND alarm_id < $1", vec![digit(1).into()]),
            15 => ("SELECT * FROM alarms WHERE enabled = 1 AND alarm_id >= $1", vec![digit(15).into()]),
            other => (
                "SELECT * FROM alarms WHERE enabled = 1 AND alarm_id >= $1 AND alarm_id < $2",
                vec![digit(other).into(), digit(other + 1).into()],
            ),
        };
        let mut alarms = Vec::new();
        self.database
            .query_each(sql, &values, |row| match alarm_of(&row) {
                Ok(alarm) => alarms.push(alarm),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "an alarm is not evaluated");
                }
            })
            .await?;
        Ok(alarms)
    }

    /// Ids and revisions of alarms whose definition or state was changed through the API since then, and the ids of
    /// deleted ones.
    pub(crate) async fn changed_since(&self, since: Timestamp) -> Result<(Vec<(String, i64)>, Vec<String>), BookError> {
        let sql = "SELECT alarm_id, revision FROM alarms WHERE touched_at >= $1";
        let rows = self.database.query(sql, &[since.into()]).await?;
        let changed = rows.iter().map(|row| (row.string("alarm_id"), row.int("revision").unwrap_or(i64::MAX)));
        let sql = "SELECT alarm_id FROM alarm_removals WHERE removed_at >= $1";
        let removed = self.database.query(sql, &[since.into()]).await?;
        Ok((changed.collect(), removed.iter().map(|row| row.string("alarm_id")).collect()))
    }

    /// The same of event alarms; deleted ones are not told, they can be written no more.
    pub(crate) async fn event_alarms_changed_since(&self, since: Timestamp) -> Result<Vec<(String, i64)>, BookError> {
        let sql = "SELECT alarm_id, revision FROM alarms WHERE type = 'event' AND touched_at >= $1";
        let rows = self.database.query(sql, &[since.into()]).await?;
        Ok(rows.iter().map(|row| (row.string("alarm_id"), row.int("revision").unwrap_or(i64::MAX))).collect())
    }

    /// Alarms by their ids; those that are not there, or cannot be read, are left out (the latter are told).
    pub(crate) async fn alarms(&self, ids: &[String]) -> Result<Vec<Alarm>, BookError> {
        let mut alarms = Vec::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
            let sql = format!("SELECT * FROM alarms WHERE alarm_id IN ({})", places.join(", "));
            let values: Vec<orzo_database::Value> = ids.iter().map(Into::into).collect();
            for row in &self.database.query(&sql, &values).await? {
                match alarm_of(row) {
                    Ok(alarm) => alarms.push(alarm),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "an alarm is not evaluated");
                    }
                }
            }
        }
        Ok(alarms)
    }
}

fn number(lease: &Lease) -> orzo_database::Value {
    i64::try_from(lease.partition).unwrap_or(0).into()
}
