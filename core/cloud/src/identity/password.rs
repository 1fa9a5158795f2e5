//! Passwords and secrets: Argon2id, on a few threads of their own, and as slow for who does not exist.

#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::Duration,
};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, oneshot};

use crate::http::ApiError;

/// Shortest password a person may choose.
pub(crate) const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password; without a limit a single request could keep a core busy (CVE-2012-1572).
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes computed at once; each takes 19 MiB and a core.
const HASHES_MAX: usize = 2;
/// Requests that wait for a turn; more are told to come back, so that memory and patience stay bounded.
const WAITING_MAX: usize = 128;
/// How long one waits for a turn.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Hashes and compares.
pub(crate) struct Passwords {
    hashers: Hashers,
    turns: Semaphore,
    waiting: Semaphore,
    /// Compared with when there is no such user, so that the answer takes as long.
    dummy: String,
}

/// The right to hash; given back when dropped.
pub(crate) struct Turn<'a> {
    _turn: tokio::sync::SemaphorePermit<'a>,
}

impl Passwords {
    pub(crate) async fn new() -> Result<Self, ApiError> {
        let hashers = Hashers::start()?;
        let dummy = hashers.run(|| hash_now(b"nobody has this password")).await?;
        Ok(Self { hashers, turns: Semaphore::new(HASHES_MAX), waiting: Semaphore::new(WAITING_MAX), dummy })
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, ApiError> {
        let busy = || ApiError {
            retry_after_s: Some(WAIT_MAX.as_secs()),
            ..ApiError::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "Too many logins at once; try again.")
        };
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        match tokio::time::timeout(WAIT_MAX, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(Turn { _turn: turn }),
            _ => Err(busy()),
        }
    }

    /// Whether the password is the one that was hashed; with no hash: no, after the same time.
    pub(crate) async fn verify(
        &self,
        _turn: &Turn<'_>,
        password: &SecretString,
        hash: Option<String>,
    ) -> Result<bool, ApiError> {
        if password.expose_secret().len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let password = password.clone();
        let equal = self.hashers.run(move || verify_now(password.expose_secret().as_bytes(), &hash)).await?;
        Ok(equal && exists)
    }

    /// Hashes computed so far, to keep or to compare.
    #[cfg(test)]
    pub(crate) fn hashes(&self) -> u64 {
        self.hashers.taken.load(Ordering::Relaxed)
    }

    /// A hash to keep.
    pub(crate) async fn hash(&self, password: &SecretString) -> Result<String, ApiError> {
        let _turn = self.turn().await?;
        let password = password.clone();
        self.hashers.run(move || hash_now(password.expose_secret().as_bytes())).await
    }
}

/// Refuses passwords that are too short or too long.
pub(crate) fn check_length(password: &str) -> Result<(), ApiError> {
    if (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        return Ok(());
    }
    let message = format!("A password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes.");
    Err(ApiError::bad_request(message))
}

/// A password for a first start or a service account: 128 bits.
pub(crate) fn generated() -> SecretString {
    let bytes: [u8; 16] = rand::random();
    SecretString::from(hex::encode(bytes))
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the constants above are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_now(password: &[u8]) -> Result<String, ApiError> {
    let hash: Result<PasswordHash, _> = hasher().hash_password(password);
    hash.map(|hash| hash.to_string()).map_err(failed)
}

fn verify_now(password: &[u8], hash: &str) -> Result<bool, ApiError> {
    let hash = PasswordHash::new(hash).map_err(failed)?;
    Ok(hasher().verify_password(password, &hash).is_ok())
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that do nothing else. The runtime's blocking threads are many, and the allocator keeps for each what a hash
/// has taken once: a storm of logins left gigabytes behind.
struct Hashers {
    jobs: mpsc::Sender<Job>,
    /// Jobs so far.
    #[cfg(test)]
    taken: AtomicU64,
}

impl Hashers {
    fn start() -> Result<Self, ApiError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..HASHES_MAX {
            let queue = queue.clone();
            let work = move || {
                loop {
                    // The lock is held while waiting: the others wait for the lock instead.
                    let job = queue.lock().recv();
                    let Ok(job) = job else { return };
                    // Who waits for the job is told by its channel.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            };
            std::thread::Builder::new().name("passwords".into()).spawn(work).map_err(failed)?;
        }
        Ok(Self {
            jobs,
            #[cfg(test)]
            taken: AtomicU64::new(0),
        })
    }

    /// Does the work on one of the threads, unless nobody waits for it any more when its turn comes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (done, result) = oneshot::channel();
        let job = move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        };
        #[cfg(test)]
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(Box::new(job)).map_err(failed)?;
        result.await.map_err(failed)?
    }
}

fn failed(reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("A password could not be hashed: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_only_and_nobody_has_the_dummy() {
        let passwords = Passwords::new().await.expect("hashes");
        let right = SecretString::from("correct horse");
        let hash = passwords.hash(&right).await.expect("hashes");
        for hash in [&hash, &passwords.dummy] {
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        }
        let turn = passwords.turn().await.expect("free");
        assert!(passwords.verify(&turn, &right, Some(hash.clone())).await.expect("compares"));
        assert!(!passwords.verify(&turn, &"wrong horse".into(), Some(hash)).await.expect("compares"));
        let dummy = SecretString::from("nobody has this password");
        assert!(!passwords.verify(&turn, &dummy, None).await.expect("compares"));
    }

    #[tokio::test]
    async fn a_storm_of_logins_uses_no_more_threads_than_may_hash() {
        let hashers = Arc::new(Hashers::start().expect("threads"));
        let here = || Ok(std::thread::current().id());
        let storm: Vec<_> = (0..64)
            .map(|_| {
                let hashers = hashers.clone();
                tokio::spawn(async move { hashers.run(here).await.expect("done") })
            })
            .collect();
        let mut threads = std::collections::HashSet::new();
        for one in storm {
            threads.insert(one.await.expect("no panic"));
        }
        assert!(threads.len() <= HASHES_MAX, "{threads:?}");
        // A hash that breaks costs one answer and not a thread.
        for _ in 0..=HASHES_MAX {
            assert!(hashers.run::<()>(|| panic!("a hash that breaks")).await.is_err());
        }
        // One thread may have done all of the storm; the other is new in the set then, but a third there is not.
        for _ in 0..16 {
            threads.insert(hashers.run(here).await.expect("still there"));
        }
        assert!(threads.len() <= HASHES_MAX, "{threads:?}");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_hashed() {
        let hashers = Hashers::start().expect("threads");
        let mut gates = Vec::new();
        let mut busy = Vec::new();
        for _ in 0..HASHES_MAX {
            let (gate, closed) = mpsc::channel::<()>();
            gates.push(gate);
            busy.push(Box::pin(hashers.run(move || Ok(closed.recv().is_err()))));
            assert!(futures::poll!(busy.last_mut().expect("just pushed")).is_pending());
        }
        let (told, heard) = mpsc::channel();
        let mut given_up = Box::pin(hashers.run(move || Ok(told.send(()).is_ok())));
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(gates);
        for one in busy {
            one.await.expect("done");
        }
        hashers.run(|| Ok(())).await.expect("done");
        assert!(heard.try_recv().is_err(), "the client had gone away");
    }

    #[test]
    fn lengths_are_bounded_in_bytes() {
        assert!(check_length("1234567").is_err());
        assert!(check_length("12345678").is_ok());
        assert!(check_length(&"x".repeat(1024)).is_ok());
        assert!(check_length(&"ä".repeat(513)).is_err());
    }
}
