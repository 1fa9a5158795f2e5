//! Verdicts about other people's credentials, used again for a few seconds. Keys are salted hashes: the cache holds
//! nobody's secret. Many callers with the same question cause one request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;
use orzo_model::{Caller, SharedClock};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::SessionError;

/// Different credentials remembered at most; beyond that the least used are asked about again.
const VERDICTS_MAX: u64 = 10_000;

/// Key: hash of the credential, the number of the time slice it was asked in, and the identity service's revision
/// before it was asked. A verdict is never used in another slice, so it lives for one slice at most, by the clock that
/// tests move; and never after the revision was raised.
type Key = ([u8; 32], u128, u64);

pub(crate) struct Verdicts {
    cache: Cache<Key, Option<Caller>>,
    salt: [u8; 32],
    clock: SharedClock,
    ttl: Duration,
    revision: Arc<AtomicU64>,
}

impl Verdicts {
    pub(crate) fn new(clock: SharedClock, ttl: Duration, revision: Arc<AtomicU64>) -> Self {
        let mut salt = [0; 32];
        salt[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        salt[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        let cache = Cache::builder()
            .max_capacity(VERDICTS_MAX)
            // Only to give memory back; the slice in the key decides.
            .time_to_live(ttl.saturating_mul(2).max(Duration::from_secs(1)))
            .build();
        Self { cache, salt, clock, ttl, revision }
    }

    /// The verdict on a credential made of `parts`, remembered or asked for. Errors are not remembered.
    pub(crate) async fn get(
        &self,
        parts: &[&[u8]],
        ask: impl AsyncFnOnce() -> Result<Option<Caller>, SessionError>,
    ) -> Result<Option<Caller>, SessionError> {
        let slice = self.clock.monotonic().as_nanos() / self.ttl.as_nanos();
        let revision = self.revision.load(Ordering::Acquire);
        let outcome = self.cache.try_get_with((self.hash(parts), slice, revision), ask()).await;
        outcome.map_err(|error| (*error).clone())
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        for part in parts {
            // With its length, so that no two lists of parts look the same.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}
