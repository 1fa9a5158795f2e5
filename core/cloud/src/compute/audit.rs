//! `compute.instance.exists`: once per period for every server that existed in it, which bills are made from.
//!
//! How far the audit has come is kept in the database and moves in the transaction that records the notifications, so
//! that a period is told exactly once, also over restarts.

use std::{error::Error, sync::Arc, time::Duration};

use orzo_model::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Compute, Edit,
    error::ComputeError,
    server::{SELECT, Server},
};

/// Periods that are made up for after a long stop; older ones are skipped, with a warning.
const CATCH_UP_MAX: i64 = 48;
/// The clock is looked at so often; a period ends at most this much before it is told.
const LOOK_PERIOD: Duration = Duration::from_secs(30);
/// Rows of deleted servers are kept for so long.
const DELETED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What `exists` adds to a payload: Python's `str()` of naive datetimes.
pub(super) fn extra(beginning: Timestamp, ending: Timestamp) -> Value {
    let text = |time: Timestamp| time.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string();
    json!({"audit_period_beginning": text(beginning), "audit_period_ending": text(ending), "bandwidth": {}})
}

/// The next period to audit, if it is over; `until` is where the audit stands.
fn next_period(until: Timestamp, now: Timestamp, period: Duration) -> Option<(Timestamp, Timestamp)> {
    let earliest = now.floor(period).minus(period.saturating_mul(CATCH_UP_MAX as u32));
    let beginning = until.max(earliest);
    let ending = beginning.plus(period);
    (ending <= now).then_some((beginning, ending))
}

impl Compute {
    pub(super) async fn run_audit(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pass = async {
                while self.audit_one().await? {}
                self.forget_deleted().await
            };
            tokio::select! {
                () = stop.cancelled() => return,
                outcome = pass => if let Err(error) = outcome {
                    tracing::warn!(error = &error as &dyn Error, "the audit could not be made, trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(LOOK_PERIOD) => {}
            }
        }
    }

    /// Tells of one period that is over; false if there is none.
    pub(super) async fn audit_one(self: &Arc<Self>) -> Result<bool, ComputeError> {
        let (this, now, period) = (self.clone(), self.clock.now(), self.settings.audit_period);
        let told = self
            .database
            .transact(move |tx| {
                let this = this.clone();
                Box::pin(async move {
                    let row =
                        tx.query_one("SELECT value FROM compute_counters WHERE name = 'audited until'", &[]).await?;
                    let until = row.and_then(|row| row.time("value"));
                    // On the first start there is nothing to make up for.
                    let Some(until) = until else {
                        set_audited(tx, now.floor(period)).await?;
                        return Ok(false);
                    };
                    let Some((beginning, ending)) = next_period(until, now, period) else { return Ok(false) };
                    if beginning > until {
                        tracing::warn!(%until, %beginning, "audit periods were skipped");
                    }
                    let sql = format!(
                        "{SELECT} WHERE s.created_at < $2 AND (s.deleted_at IS NULL OR s.deleted_at > $1) \
                         AND s.host IS NOT NULL ORDER BY s.created_at, s.id"
                    );
                    for row in tx.query(&sql, &[beginning.into(), ending.into()]).await? {
                        let server = Server::from_row(&row)?;
                        let edit = Edit::for_owner(&server).note("exists", extra(beginning, ending));
                        this.tell(tx, now, Some(&server), &server, edit).await?;
                    }
                    set_audited(tx, ending).await?;
                    Ok::<_, ComputeError>(true)
                })
            })
            .await?;
        if told {
            self.outbox.wake();
        }
        Ok(told)
    }

    async fn forget_deleted(&self) -> Result<(), ComputeError> {
        let before = self.clock.now().minus(DELETED_KEPT);
        self.database.execute("DELETE FROM compute_servers WHERE deleted_at < $1", &[before.into()]).await?;
        Ok(())
    }
}

async fn set_audited(tx: &mut orzo_database::Transaction<'_>, until: Timestamp) -> Result<(), ComputeError> {
    tx.execute(
        "INSERT INTO compute_counters (name, value) VALUES ('audited until', $1) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[until.into()],
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_due_when_it_is_over_and_old_ones_are_skipped() {
        let hour = Duration::from_secs(3600);
        let at = Timestamp::from_secs;
        assert_eq!(next_period(at(3600), at(7199), hour), None);
        assert_eq!(next_period(at(3600), at(7200), hour), Some((at(3600), at(7200))));
        let year = 365 * 24 * 3600;
        assert_eq!(next_period(at(0), at(year), hour), Some((at(year - 48 * 3600), at(year - 47 * 3600))));
    }
}
