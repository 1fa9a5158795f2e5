//! Notifications: what the cloud's services tell the world, kept in the same transaction as the change they tell of.
//!
//! ```text
//! change + record → cloud_outbox → Outbox::run → Bus (exchange per service, notifications.info | .error)
//! ```
//!
//! A notification is in the outbox exactly when its change is in the database. It is delivered at least once, in order
//! per exchange, always with the same message id, in oslo.messaging's envelope 2.0. This room knows no payloads.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use orzo_bus::{Bus, BusError, Message, QueueKind, QueueSpec};
use orzo_database::{Database, DatabaseError, Migration, Row, Transaction};
use orzo_model::{Room, Rooms, SharedClock, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Rows read at once: enough to keep the bus busy, little enough to hold in memory whatever the payloads.
const BATCH_MAX: i64 = 100;
/// How long the deliverer sleeps when nobody wakes it: the bound on lateness if a wake is forgotten.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// First wait after a failed delivery.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between tries: a broker that came back is noticed within this time.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long one publish may take; longer than the bus's own deadline, in case it has none.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(60);
/// Sent rows are kept for so long, for people who look into the table.
const SENT_KEPT: Duration = Duration::from_secs(3600);
/// How often old rows are removed.
const CLEANING_PERIOD: Duration = Duration::from_secs(60);
/// Unsent rows at most, about 2 GB: with nobody listening for weeks the oldest go first, counted.
const WAITING_MAX: i64 = 1_000_000;
/// Length of the `notifications.*` queues that we declare for the in-process bus; oslo's own have no limit.
const QUEUE_LENGTH_MAX: u32 = 100_000;

/// The outbox's table.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "outbox",
    sql: "CREATE TABLE cloud_outbox (
            id TEXT PRIMARY KEY,
            position BIGINT NOT NULL,
            exchange TEXT NOT NULL,
            routing_key TEXT NOT NULL,
            event_type TEXT NOT NULL,
            body TEXT NOT NULL,
            recorded_at BIGINT NOT NULL,
            sent_at BIGINT,
            failure TEXT);
          CREATE INDEX cloud_outbox_waiting ON cloud_outbox (position) WHERE sent_at IS NULL;
          CREATE INDEX cloud_outbox_sent ON cloud_outbox (sent_at) WHERE sent_at IS NOT NULL;
         ",
}];

/// Who caused a notification; becomes oslo's `_context_*` keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationContext {
    /// `req-<uuid>` of the request.
    pub request_id: Option<String>,
    /// Project of the caller.
    pub project_id: Option<String>,
    /// User of the caller.
    pub user_id: Option<String>,
}

/// Something that happened, to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Control exchange of the service: `keystone`, `glance`, `nova`.
    pub exchange: &'static str,
    /// `compute.<host>`, `image.<host>`, `identity.<host>`.
    pub publisher_id: String,
    /// `compute.instance.create.end` and the like.
    pub event_type: String,
    /// `INFO` or `ERROR`.
    pub priority: &'static str,
    /// As the real service makes it.
    pub payload: Value,
    /// Who caused it.
    pub context: NotificationContext,
}

/// Writes a notification into the outbox, in the caller's transaction. Wake the [`Outbox`] after the commit, or it is
/// noticed a second later.
pub async fn record(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    notification: &Notification,
) -> Result<(), DatabaseError> {
    let id = Uuid::new_v4();
    let routing_key = format!("notifications.{}", notification.priority.to_ascii_lowercase());
    let body = envelope(id, now, notification);
    tx.execute(
        "INSERT INTO cloud_outbox (id, position, exchange, routing_key, event_type, body, recorded_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            id.to_string().into(),
            next_position(now).into(),
            notification.exchange.into(),
            routing_key.into(),
            notification.event_type.as_str().into(),
            body.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// A place in the order of delivery: the time, but always after the place given out before.
///
/// A counter in the database would make every pair of transactions collide. Transactions that touch the same thing
/// run one after the other anyway, so for one resource the order of these places is the order of its changes.
fn next_position(now: Timestamp) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let next = |last: i64| last.saturating_add(1).max(now.micros());
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or_default())
}

/// The message as oslo.messaging 2.0 writes it: an envelope around JSON in a string.
fn envelope(id: Uuid, now: Timestamp, notification: &Notification) -> String {
    let mut inner = json!({
        "message_id": id.to_string(),
        "publisher_id": notification.publisher_id,
        "event_type": notification.event_type,
        "priority": notification.priority,
        "payload": notification.payload,
        "timestamp": oslo_time(now),
        "_unique_id": id.simple().to_string(),
    });
    let context = &notification.context;
    for (key, value) in [
        ("_context_request_id", &context.request_id),
        ("_context_project_id", &context.project_id),
        ("_context_user_id", &context.user_id),
    ] {
        if let Some(value) = value {
            inner[key] = json!(value);
        }
    }
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string()
}

/// `2026-11-21 20:04:20.355991`: a space, six digits and no zone, as Python's `str(datetime)`.
pub(crate) fn oslo_time(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Delivers what was recorded.
pub struct Outbox {
    database: Database,
    bus: Arc<dyn Bus>,
    clock: SharedClock,
    room: Room,
    woken: Notify,
}

/// What the deliverer remembers between passes.
#[derive(Default)]
struct Progress {
    declared: HashSet<(String, String)>,
    counted: u64,
    wait: Option<Duration>,
    cleaned_at: Option<Duration>,
}

impl Outbox {
    /// Makes the table if it is missing.
    pub async fn open(
        database: Database,
        bus: Arc<dyn Bus>,
        clock: SharedClock,
        rooms: &Rooms,
    ) -> Result<Arc<Self>, DatabaseError> {
        database.migrate("cloud.outbox", MIGRATIONS).await?;
        Ok(Arc::new(Self { database, bus, clock, room: rooms.room("cloud.outbox"), woken: Notify::new() }))
    }

    /// Something was recorded and committed: deliver it now.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Delivers until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut progress = Progress::default();
        loop {
            if stop.is_cancelled() {
                return;
            }
            let more = match self.deliver(&mut progress, &stop).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be read, trying again");
                    progress.back_off();
                    false
                }
            };
            if more && progress.wait.is_none() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(progress.wait.unwrap_or(IDLE_WAIT)) => {}
                // A wake does not shorten the wait for a broker that is away.
                () = self.woken.notified(), if progress.wait.is_none() => {}
            }
        }
    }

    /// One pass over what waits; true if there was a full batch, so that there may be more. A stop ends it between two
    /// messages: what the bus has taken is also marked.
    async fn deliver(&self, progress: &mut Progress, stop: &CancellationToken) -> Result<bool, DatabaseError> {
        self.clean(progress).await?;
        let rows = self
            .database
            .query(
                "SELECT id, exchange, routing_key, event_type, body FROM cloud_outbox WHERE sent_at IS NULL \
                 ORDER BY position, id LIMIT $1",
                &[BATCH_MAX.into()],
            )
            .await?;
        // After the rows were read: what is recorded in between must not leave before it has come in.
        self.count_waiting(progress).await?;
        let full = rows.len() as i64 == BATCH_MAX;
        let mut stuck: HashMap<String, BusError> = HashMap::new();
        let mut published = false;
        for row in rows {
            let exchange = row.string("exchange");
            // Order per exchange: nothing overtakes what could not be sent.
            if stuck.contains_key(&exchange) {
                continue;
            }
            let outcome = tokio::select! {
                // First the message: it may be through already.
                biased;
                outcome = self.publish(&row, progress) => outcome,
                () = stop.cancelled() => return Ok(false),
            };
            match outcome {
                Ok(()) => {
                    published = true;
                    self.mark(&row.string("id"), None).await?;
                    self.room.stored(1);
                    progress.counted = progress.counted.saturating_sub(1);
                }
                Err(BusError::Closed) => {
                    stuck.insert(exchange, BusError::Closed);
                }
                Err(error) if error.is_retryable() => {
                    progress.declared.retain(|(declared, _)| *declared != exchange);
                    stuck.insert(exchange, error);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        event_type = row.string("event_type"),
                        "a notification can never be delivered and is set aside in cloud_outbox"
                    );
                    self.mark(&row.string("id"), Some(&error.to_string())).await?;
                    self.room.refused("refused by the bus", 1);
                    progress.counted = progress.counted.saturating_sub(1);
                }
            }
        }
        match stuck.values().next() {
            Some(error) => {
                if progress.wait.is_none() {
                    tracing::warn!(error = error as &dyn std::error::Error, "notifications wait for the bus");
                }
                progress.back_off();
            }
            None => {
                if published && progress.wait.is_some() {
                    tracing::info!("notifications flow again");
                }
                progress.wait = None;
            }
        }
        Ok(full)
    }

    async fn publish(&self, row: &Row, progress: &mut Progress) -> Result<(), BusError> {
        let route = (row.string("exchange"), row.string("routing_key"));
        if !progress.declared.contains(&route) {
            self.bus.declare(&oslo_queue(&route.0, &route.1)).await?;
            progress.declared.insert(route.clone());
        }
        let message = Message {
            exchange: route.0,
            routing_key: route.1,
            message_id: row.string("id"),
            content_type: "application/json".to_owned(),
            headers: Default::default(),
            body: Bytes::from(row.string("body")),
        };
        let started = self.clock.monotonic();
        let outcome = tokio::time::timeout(PUBLISH_DEADLINE, self.bus.publish(message)).await;
        self.room.took("publish", self.clock.monotonic().saturating_sub(started));
        outcome.unwrap_or(Err(BusError::Timeout { waited: PUBLISH_DEADLINE }))
    }

    /// Done with a row: sent, or set aside for the reason given.
    async fn mark(&self, id: &str, failure: Option<&str>) -> Result<(), DatabaseError> {
        self.database
            .execute(
                "UPDATE cloud_outbox SET sent_at = $2, failure = $3 WHERE id = $1",
                &[id.into(), self.clock.now().into(), failure.into()],
            )
            .await?;
        Ok(())
    }

    /// Makes the room's `waiting` equal to the unsent rows, so that it is true also after a restart.
    async fn count_waiting(&self, progress: &mut Progress) -> Result<(), DatabaseError> {
        let row = self.database.query_one("SELECT count(*) AS n FROM cloud_outbox WHERE sent_at IS NULL", &[]).await?;
        let waiting = row.and_then(|row| row.int("n")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        self.room.received(waiting.saturating_sub(progress.counted));
        self.room.dropped("sent by another process", progress.counted.saturating_sub(waiting));
        progress.counted = waiting;
        Ok(())
    }

    /// Removes what was sent long ago, and the oldest of what waits beyond the limit.
    async fn clean(&self, progress: &mut Progress) -> Result<(), DatabaseError> {
        let monotonic = self.clock.monotonic();
        if progress.cleaned_at.is_some_and(|at| monotonic.saturating_sub(at) < CLEANING_PERIOD) {
            return Ok(());
        }
        progress.cleaned_at = Some(monotonic);
        let before = self.clock.now().minus(SENT_KEPT);
        self.database
            .execute("DELETE FROM cloud_outbox WHERE sent_at < $1 AND failure IS NULL", &[before.into()])
            .await?;
        self.count_waiting(progress).await?;
        let excess = i64::try_from(progress.counted).unwrap_or(i64::MAX).saturating_sub(WAITING_MAX);
        if excess > 0 {
            let dropped = self
                .database
                .execute(
                    "DELETE FROM cloud_outbox WHERE id IN \
                     (SELECT id FROM cloud_outbox WHERE sent_at IS NULL ORDER BY position, id LIMIT $1)",
                    &[excess.into()],
                )
                .await?;
            tracing::error!(dropped, "nobody takes notifications: the oldest were dropped");
            self.room.dropped("outbox full", dropped);
            progress.counted = progress.counted.saturating_sub(dropped);
        }
        Ok(())
    }
}

impl Progress {
    fn back_off(&mut self) {
        self.wait = Some(self.wait.map_or(RETRY_FIRST, |wait| (wait * 2).min(RETRY_MAX)));
    }
}

/// The queue that oslo.messaging's publisher declares before it publishes: named like the routing key.
pub fn oslo_queue(exchange: &str, routing_key: &str) -> QueueSpec {
    QueueSpec {
        name: routing_key.to_owned(),
        kind: QueueKind::OsloClassic,
        bindings: vec![(exchange.to_owned(), routing_key.to_owned())],
        delivery_limit: 0,
        length_max: QUEUE_LENGTH_MAX,
    }
}

#[cfg(test)]
pub(crate) mod tests;
