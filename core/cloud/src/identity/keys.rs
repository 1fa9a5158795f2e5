//! The keys that seal tokens, in the database, so that all processes of a cloud share them. As Keystone rotates: key 0
//! is *staged* (known to everyone before anyone uses it), the highest is *primary* (seals), the others are *secondary*
//! (still open what they sealed).

use std::{collections::BTreeMap, time::Duration};

use fernet::Fernet;
use orzo_database::{Database, DatabaseError, Transaction};
use orzo_model::{SharedClock, Timestamp};
use parking_lot::RwLock;

use super::token::{TOKEN_BYTES_MAX, TokenPayload};
use crate::CloudError;

/// Staged, primary and one secondary: Keystone's default.
const KEYS_MAX: usize = 3;
/// After a token that no key opens, the keys are read again, but not more often than this: anyone can send garbage.
const RELOAD_PAUSE: Duration = Duration::from_secs(5);
/// A primary key older than this is replaced by the rotation loop.
pub(crate) const ROTATION_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Seals and opens tokens.
pub(crate) struct KeyRing {
    database: Database,
    clock: SharedClock,
    ring: RwLock<Ring>,
}

struct Ring {
    primary: Fernet,
    /// Primary first, then from new to old, staged last.
    all: Vec<Fernet>,
    primary_made_at: Timestamp,
    loaded_at: Duration,
}

#[derive(Clone)]
struct Key {
    text: String,
    made_at: Timestamp,
}

type Keys = BTreeMap<i64, Key>;

impl KeyRing {
    /// Reads the keys, makes the first two if there are none.
    pub(crate) async fn open(database: Database, clock: SharedClock) -> Result<Self, CloudError> {
        let now = clock.now();
        database
            .transact(|tx| {
                Box::pin(async move {
                    if read(tx).await?.is_empty() {
                        for id in [0, 1] {
                            write(tx, id, &Key { text: Fernet::generate_key(), made_at: now }).await?;
                        }
                    }
                    Ok::<(), DatabaseError>(())
                })
            })
            .await?;
        let ring = load(&database, &clock).await?;
        Ok(Self { database, clock, ring: RwLock::new(ring) })
    }

    /// The token's text.
    pub(crate) fn seal(&self, payload: &TokenPayload) -> String {
        let seconds = u64::try_from(payload.issued_at.secs()).unwrap_or(0);
        let token = self.ring.read().primary.encrypt_at_time(&payload.pack(), seconds);
        debug_assert!(token.len() <= TOKEN_BYTES_MAX, "{} bytes", token.len());
        token
    }

    /// What the token says; `None` if we did not seal it. Does not look at its expiry.
    pub(crate) async fn open_token(&self, token: &str) -> Result<Option<TokenPayload>, CloudError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        if let Some(payload) = self.open_now(token) {
            return Ok(Some(payload));
        }
        // Another process may have rotated.
        let due = self.ring.read().loaded_at + RELOAD_PAUSE;
        if self.clock.monotonic() < due {
            return Ok(None);
        }
        *self.ring.write() = load(&self.database, &self.clock).await?;
        Ok(self.open_now(token))
    }

    /// Staged becomes primary, a new one is staged, what is beyond [`KEYS_MAX`] goes.
    pub(crate) async fn rotate(&self) -> Result<(), CloudError> {
        let now = self.clock.now();
        let fresh = Fernet::generate_key();
        self.database
            .transact(|tx| {
                let fresh = fresh.clone();
                Box::pin(async move {
                    let keys = read(tx).await?;
                    tx.execute("DELETE FROM identity_keys", &[]).await?;
                    for (id, key) in &rotated(keys, fresh, now) {
                        write(tx, *id, key).await?;
                    }
                    Ok::<(), DatabaseError>(())
                })
            })
            .await?;
        *self.ring.write() = load(&self.database, &self.clock).await?;
        tracing::info!("token keys rotated");
        Ok(())
    }

    /// Rotates if the primary key is old.
    pub(crate) async fn rotate_if_due(&self) -> Result<bool, CloudError> {
        // Another process may have done it.
        let ring = load(&self.database, &self.clock).await?;
        let due = self.clock.now().since(ring.primary_made_at) >= ROTATION_PERIOD;
        *self.ring.write() = ring;
        if due {
            self.rotate().await?;
        }
        Ok(due)
    }

    fn open_now(&self, token: &str) -> Option<TokenPayload> {
        let ring = self.ring.read();
        // The seal's time is not judged: the payload has its own, by our clock.
        let bytes = ring.all.iter().find_map(|key| key.decrypt_at_time(token, None, u64::from(u32::MAX)).ok())?;
        TokenPayload::unpack(&bytes)
    }
}

fn rotated(mut keys: Keys, fresh: String, now: Timestamp) -> Keys {
    let staged = keys.remove(&0).unwrap_or_else(|| Key { text: Fernet::generate_key(), made_at: now });
    let next = keys.keys().next_back().map_or(1, |highest| highest + 1);
    // From now on it seals; its age as primary counts.
    keys.insert(next, Key { made_at: now, ..staged });
    while keys.len() > KEYS_MAX - 1 {
        keys.pop_first();
    }
    keys.insert(0, Key { text: fresh, made_at: now });
    keys
}

async fn read(tx: &mut Transaction<'_>) -> Result<Keys, DatabaseError> {
    Ok(keys_of(tx.query("SELECT id, sealing_key, made_at FROM identity_keys", &[]).await?))
}

async fn write(tx: &mut Transaction<'_>, id: i64, key: &Key) -> Result<(), DatabaseError> {
    tx.execute(
        "INSERT INTO identity_keys (id, sealing_key, made_at) VALUES ($1, $2, $3)",
        &[id.into(), key.text.as_str().into(), key.made_at.into()],
    )
    .await?;
    Ok(())
}

async fn load(database: &Database, clock: &SharedClock) -> Result<Ring, CloudError> {
    let keys = keys_of(database.query("SELECT id, sealing_key, made_at FROM identity_keys", &[]).await?);
    let mut all = Vec::new();
    for (id, key) in keys.iter().rev() {
        all.push(Fernet::new(&key.text).ok_or(CloudError::DamagedKey { id: *id })?);
    }
    let (Some(primary), Some((_, newest))) = (all.first().cloned(), keys.last_key_value()) else {
        return Err(CloudError::NoKey);
    };
    Ok(Ring { primary, all, primary_made_at: newest.made_at, loaded_at: clock.monotonic() })
}

fn keys_of(rows: Vec<orzo_database::Row>) -> Keys {
    rows.into_iter()
        .filter_map(|row| {
            let made_at = row.time("made_at").unwrap_or_default();
            Some((row.int("id")?, Key { text: row.string("sealing_key"), made_at }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_three_and_promotes_what_was_staged() {
        let key = |text: &str| Key { text: text.to_owned(), made_at: Timestamp::EPOCH };
        let now = Timestamp::from_secs(5);
        let texts = |keys: &Keys| keys.iter().map(|(id, key)| format!("{id}{}", key.text)).collect::<Vec<_>>();
        let mut keys: Keys = [(0, key("a")), (1, key("b"))].into();
        keys = rotated(keys, "c".to_owned(), now);
        assert_eq!(texts(&keys), ["0c", "1b", "2a"]);
        assert_eq!(keys[&2].made_at, now);
        keys = rotated(keys, "d".to_owned(), now);
        assert_eq!(texts(&keys), ["0d", "2a", "3c"]);
    }
}
