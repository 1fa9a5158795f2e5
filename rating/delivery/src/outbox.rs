//! The outbox: one row for each run and target, written before anything goes out; how far each is; what was parked.
//!
//! A row is taken under a lease with a number that only rises: who lost the lease cannot write any more. Rows of one target go in
//! the order in which they were made, because corrections follow what they correct.

use std::time::Duration;

use orzo_database::{Database, Migration, Row};
use orzo_model::{SharedClock, Timestamp};
use uuid::Uuid;

use crate::error::DeliveryError;

/// Rows that wait at once; a target that takes nothing for a year of hours has fewer.
const WAITING_MAX: i64 = 10_000;
/// Rows that a list has.
const LISTED_MAX: u32 = 1000;
/// Events that a list of what was parked has.
const PARKED_LISTED_MAX: u32 = 1000;
/// What was delivered is remembered for so long: over a year of accounts.
const DELIVERED_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// What ids of deliveries are made within.
const DELIVERIES: Uuid = Uuid::from_u128(0x6f72_7a6f_6465_4c69_9e21_5b0d_77c1_0a42);

const MIGRATIONS: &[Migration] = &[Migration {
    name: "deliveries of exports, what was parked, how far schedules are",
    sql: "CREATE TABLE export_deliveries (
        delivery_id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, run_id TEXT NOT NULL, directory TEXT NOT NULL,
        profile TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, created_at BIGINT NOT NULL, next_at BIGINT NOT NULL,
        began_at BIGINT NOT NULL, attempts BIGINT NOT NULL, leased_until BIGINT NOT NULL, holder TEXT NOT NULL,
        fence BIGINT NOT NULL, done BIGINT NOT NULL, taken BIGINT NOT NULL, parked BIGINT NOT NULL, tried_until BIGINT NOT NULL,
        tried_at BIGINT, failure TEXT, ended_at BIGINT);
      CREATE INDEX export_deliveries_target ON export_deliveries (target, number) WHERE state = 'waiting';
      CREATE TABLE export_parked (
        delivery_id TEXT NOT NULL, place BIGINT NOT NULL, reason TEXT NOT NULL, parked_at BIGINT NOT NULL,
        PRIMARY KEY (delivery_id, place));
      CREATE TABLE export_schedules (target TEXT PRIMARY KEY, exported_until BIGINT NOT NULL);\n",
}];

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be sent, or sent on.
    Waiting,
    /// All of it has an answer.
    Delivered,
    /// Given up; kept to be looked at and begun again.
    Parked,
}

impl DeliveryState {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Parked => "parked",
        }
    }

    /// From the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Delivered, Self::Parked].into_iter().find(|state| state.as_str() == text)
    }
}

/// A run on its way to a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Follows from run and target.
    pub delivery_id: String,
    /// Which run.
    pub run_id: String,
    /// Where the run lies.
    pub directory: String,
    /// Its format.
    pub profile: String,
    /// Name of the target.
    pub target: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the next try is.
    pub next_at: Timestamp,
    /// When it was begun, or begun again; after some days without success it is given up.
    pub began_at: Timestamp,
    /// Tries since it last came further.
    pub attempts: u32,
    /// Events (or files) that have an answer, from the first one on.
    pub done: u64,
    /// Of those: taken.
    pub taken: u64,
    /// Of those: parked.
    pub parked: u64,
    /// Events before this one were tried, and those after `done` have no answer yet.
    pub tried_until: u64,
    /// When the first of those was tried.
    pub tried_at: Option<Timestamp>,
    /// What went wrong last.
    pub failure: Option<String>,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
    /// Number of the lease under which it was taken.
    pub(crate) fence: i64,
}

/// A delivery that is asked for.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Which run.
    pub run: Uuid,
    /// Where it lies.
    pub directory: String,
    /// Its format.
    pub profile: String,
    /// Name of the target.
    pub target: String,
}

/// An event that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its place in the run, from 0 on.
    pub place: u64,
    /// Why.
    pub reason: String,
}

/// The outbox. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    database: Database,
    clock: SharedClock,
}

fn count(row: &Row, column: &str) -> u64 {
    row.int(column).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn delivery_of(row: &Row) -> Delivery {
    let time = |column: &str| row.time(column).unwrap_or(Timestamp::EPOCH);
    Delivery {
        delivery_id: row.string("delivery_id"),
        run_id: row.string("run_id"),
        directory: row.string("directory"),
        profile: row.string("profile"),
        target: row.string("target"),
        // An unknown word was written by a newer program: it is not touched.
        state: DeliveryState::parse(&row.string("state")).unwrap_or(DeliveryState::Parked),
        created_at: time("created_at"),
        next_at: time("next_at"),
        began_at: time("began_at"),
        attempts: u32::try_from(count(row, "attempts")).unwrap_or(u32::MAX),
        done: count(row, "done"),
        taken: count(row, "taken"),
        parked: count(row, "parked"),
        tried_until: count(row, "tried_until"),
        tried_at: row.time("tried_at"),
        failure: row.text("failure"),
        ended_at: row.time("ended_at"),
        fence: row.int("fence").unwrap_or(0),
    }
}

impl Outbox {
    /// Opens the outbox, making its tables if needed.
    pub async fn open(database: Database, clock: SharedClock) -> Result<Self, DeliveryError> {
        database.migrate("exports", MIGRATIONS).await?;
        Ok(Self { database, clock })
    }

    /// Asks for deliveries, all or none. A run that is on its way to a target, or was delivered there, is not sent again. With
    /// `schedule` it is remembered in the same transaction how far the schedule of the first target is. Gives the ids.
    pub async fn ask(&self, new: &[NewDelivery], schedule: Option<Timestamp>) -> Result<Vec<String>, DeliveryError> {
        let now = self.clock.now();
        self.database
            .transact(|tx| {
                let new = new.to_vec();
                Box::pin(async move {
                    let sql = "SELECT count(*) AS waiting FROM export_deliveries WHERE state = 'waiting'";
                    let waiting = tx.query_one(sql, &[]).await?.and_then(|row| row.int("waiting")).unwrap_or(0);
                    if waiting >= WAITING_MAX {
                        let reason = format!("{WAITING_MAX} deliveries wait already");
                        return Err(DeliveryError::Refused(reason));
                    }
                    let sql = "SELECT coalesce(max(number), 0) AS number FROM export_deliveries";
                    let last = tx.query_one(sql, &[]).await?.and_then(|row| row.int("number")).unwrap_or(0);
                    let mut ids = Vec::with_capacity(new.len());
                    for (number, own) in (last + 1..).zip(&new) {
                        let name = format!("{}/{}", own.run, own.target);
                        let id = Uuid::new_v5(&DELIVERIES, name.as_bytes()).to_string();
                        let sql = "INSERT INTO export_deliveries (delivery_id, number, run_id, directory, profile, target, \
                                   state, created_at, next_at, began_at, attempts, leased_until, holder, fence, done, taken, \
                                   parked, tried_until) VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $7, $7, $7, 0, 0, '', 0, 0, \
                                   0, 0, 0) ON CONFLICT (delivery_id) DO NOTHING";
                        let values = [
                            id.as_str().into(),
                            number.into(),
                            own.run.to_string().into(),
                            own.directory.as_str().into(),
                            own.profile.as_str().into(),
                            own.target.as_str().into(),
                            now.into(),
                        ];
                        tx.execute(sql, &values).await?;
                        ids.push(id);
                    }
                    if let (Some(until), Some(own)) = (schedule, new.first()) {
                        remember(tx, &own.target, until).await?;
                    }
                    Ok(ids)
                })
            })
            .await
    }

    /// How far a target's schedule is.
    pub async fn exported_until(&self, target: &str) -> Result<Option<Timestamp>, DeliveryError> {
        let sql = "SELECT exported_until FROM export_schedules WHERE target = $1";
        Ok(self.database.query_one(sql, &[target.into()]).await?.and_then(|row| row.time("exported_until")))
    }

    /// There was nothing to send until then.
    pub async fn nothing_until(&self, target: &str, until: Timestamp) -> Result<(), DeliveryError> {
        self.database
            .transact(|tx| {
                let target = target.to_owned();
                Box::pin(async move { remember(tx, &target, until).await })
            })
            .await
    }

    /// The oldest delivery that waits for a target, if its time has come and nobody else has it; nobody else gets it within
    /// `lease`. Who had it before under the same name takes it up at once.
    pub async fn take(&self, target: &str, holder: &str, lease: Duration) -> Result<Option<Delivery>, DeliveryError> {
        let now = self.clock.now();
        self.database
            .transact(|tx| {
                let (target, holder) = (target.to_owned(), holder.to_owned());
                Box::pin(async move {
                    let sql = "SELECT * FROM export_deliveries WHERE target = $1 AND state = 'waiting' ORDER BY number LIMIT 1";
                    let Some(row) = tx.query_one(sql, &[target.as_str().into()]).await? else { return Ok(None) };
                    let is_held = row.time("leased_until").is_some_and(|until| until > now);
                    if row.time("next_at").is_some_and(|at| at > now) || (is_held && row.string("holder") != holder) {
                        return Ok(None);
                    }
                    let mut delivery = delivery_of(&row);
                    delivery.fence += 1;
                    let sql = "UPDATE export_deliveries SET leased_until = $1, holder = $2, fence = $3 \
                               WHERE delivery_id = $4 AND fence = $3 - 1";
                    let id = delivery.delivery_id.as_str();
                    let values = [now.plus(lease).into(), holder.into(), delivery.fence.into(), id.into()];
                    Ok((tx.execute(sql, &values).await? == 1).then_some(delivery))
                })
            })
            .await
    }

    /// Events up to `until` are about to be sent: on disk before they are, so that who comes after a crash knows since when
    /// they may have been taken. Extends the lease.
    pub async fn trying(&self, own: &mut Delivery, until: u64, lease: Duration) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        own.tried_at = own.tried_at.or(Some(now));
        own.tried_until = own.tried_until.max(until);
        let sql = "UPDATE export_deliveries SET tried_until = $1, tried_at = $2, leased_until = $3 \
                   WHERE delivery_id = $4 AND fence = $5 AND state = 'waiting'";
        let values = [
            stored(own.tried_until).into(),
            own.tried_at.into(),
            now.plus(lease).into(),
            own.delivery_id.as_str().into(),
            own.fence.into(),
        ];
        self.held(own, self.database.execute(sql, &values).await?)
    }

    /// Events up to `done` have an answer; some of them were parked.
    pub async fn came_to(
        &self,
        own: &mut Delivery,
        done: u64,
        taken: u64,
        parked: &[Parked],
        lease: Duration,
    ) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let mut next = own.clone();
        (next.done, next.attempts, next.failure) = (done, 0, None);
        next.taken += taken;
        next.parked += parked.len() as u64;
        if next.done >= next.tried_until {
            next.tried_at = None;
        }
        let changed = self
            .database
            .transact(|tx| {
                let (own, parked) = (next.clone(), parked.to_vec());
                Box::pin(async move {
                    let sql = "UPDATE export_deliveries SET done = $1, taken = $2, parked = $3, tried_at = $4, attempts = 0, \
                               failure = NULL, began_at = $5, leased_until = $6 \
                               WHERE delivery_id = $7 AND fence = $8 AND state = 'waiting'";
                    let values = [
                        stored(own.done).into(),
                        stored(own.taken).into(),
                        stored(own.parked).into(),
                        own.tried_at.into(),
                        now.into(),
                        now.plus(lease).into(),
                        own.delivery_id.as_str().into(),
                        own.fence.into(),
                    ];
                    let changed = tx.execute(sql, &values).await?;
                    for event in parked.iter().filter(|_| changed == 1) {
                        let sql = "INSERT INTO export_parked (delivery_id, place, reason, parked_at) VALUES ($1, $2, $3, $4) \
                                   ON CONFLICT (delivery_id, place) DO UPDATE SET reason = excluded.reason";
                        let id = own.delivery_id.as_str();
                        let values =
                            [id.into(), stored(event.place).into(), event.reason.as_str().into(), now.into()];
                        tx.execute(sql, &values).await?;
                    }
                    Ok::<_, DeliveryError>(changed)
                })
            })
            .await?;
        self.held(own, changed)?;
        *own = next;
        Ok(())
    }

    /// It did not work; `next_at`: when it is tried again, `None`: it is given up.
    pub async fn failed(&self, own: &Delivery, reason: &str, next_at: Option<Timestamp>) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let state = if next_at.is_some() { DeliveryState::Waiting } else { DeliveryState::Parked };
        let sql = "UPDATE export_deliveries SET state = $1, next_at = $2, attempts = attempts + 1, failure = $3, leased_until = 0, \
                   ended_at = $4 WHERE delivery_id = $5 AND fence = $6 AND state = 'waiting'";
        let values = [
            state.as_str().into(),
            next_at.unwrap_or(now).into(),
            reason.into(),
            next_at.is_none().then_some(now).into(),
            own.delivery_id.as_str().into(),
            own.fence.into(),
        ];
        self.held(own, self.database.execute(sql, &values).await?)
    }

    /// All of it has an answer.
    pub async fn delivered(&self, own: &Delivery) -> Result<(), DeliveryError> {
        let sql = "UPDATE export_deliveries SET state = 'delivered', leased_until = 0, failure = NULL, ended_at = $1 \
                   WHERE delivery_id = $2 AND fence = $3 AND state = 'waiting'";
        let values = [self.clock.now().into(), own.delivery_id.as_str().into(), own.fence.into()];
        self.held(own, self.database.execute(sql, &values).await?)?;
        let sql = "DELETE FROM export_deliveries WHERE state = 'delivered' AND parked = 0 AND ended_at < $1";
        self.database.execute(sql, &[self.clock.now().minus(DELIVERED_KEPT).into()]).await?;
        Ok(())
    }

    fn held(&self, own: &Delivery, changed: u64) -> Result<(), DeliveryError> {
        if changed == 1 { Ok(()) } else { Err(DeliveryError::TakenOver(own.delivery_id.clone())) }
    }

    /// Deliveries, the newest first.
    pub async fn list(
        &self,
        state: Option<DeliveryState>,
        target: Option<&str>,
    ) -> Result<Vec<Delivery>, DeliveryError> {
        let sql = format!(
            "SELECT * FROM export_deliveries WHERE ($1 = '' OR state = $1) AND ($2 = '' OR target = $2) \
             ORDER BY number DESC LIMIT {LISTED_MAX}"
        );
        let values = [state.map_or("", DeliveryState::as_str).into(), target.unwrap_or_default().into()];
        Ok(self.database.query(&sql, &values).await?.iter().map(delivery_of).collect())
    }

    /// One delivery.
    pub async fn find(&self, id: &str) -> Result<Option<Delivery>, DeliveryError> {
        let sql = "SELECT * FROM export_deliveries WHERE delivery_id = $1";
        Ok(self.database.query_one(sql, &[id.into()]).await?.as_ref().map(delivery_of))
    }

    /// Its events that were parked, the first of them.
    pub async fn parked(&self, id: &str) -> Result<Vec<Parked>, DeliveryError> {
        let sql =
            format!("SELECT * FROM export_parked WHERE delivery_id = $1 ORDER BY place LIMIT {PARKED_LISTED_MAX}");
        let rows = self.database.query(&sql, &[id.into()]).await?;
        Ok(rows.iter().map(|row| Parked { place: count(row, "place"), reason: row.string("reason") }).collect())
    }

    /// Gives a delivery that was given up a new start where it was. An event that may have been taken keeps the time of its
    /// first try.
    pub async fn replay(&self, id: &str) -> Result<Delivery, DeliveryError> {
        let sql = "UPDATE export_deliveries SET state = 'waiting', next_at = $1, began_at = $1, attempts = 0, ended_at = NULL \
                   WHERE delivery_id = $2 AND state = 'parked'";
        let changed = self.database.execute(sql, &[self.clock.now().into(), id.into()]).await?;
        match self.find(id).await? {
            None => Err(DeliveryError::NotFound(format!("there is no delivery {id}"))),
            Some(own) if changed == 0 => {
                Err(DeliveryError::Refused(format!("delivery {id} is {}, not parked", own.state.as_str())))
            }
            Some(own) => Ok(own),
        }
    }
}

async fn remember(
    tx: &mut orzo_database::Transaction<'_>,
    target: &str,
    until: Timestamp,
) -> Result<(), DeliveryError> {
    let sql = "INSERT INTO export_schedules (target, exported_until) VALUES ($1, $2) \
               ON CONFLICT (target) DO UPDATE SET exported_until = excluded.exported_until";
    tx.execute(sql, &[target.into(), until.into()]).await?;
    Ok(())
}
