//! Passwords and secrets: Argon2id, on blocking threads, a few at a time, and as slow for who does not exist.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

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
        let dummy = on_a_blocking_thread(|| hash_now(b"nobody has this password")).await?;
        Ok(Self { turns: Semaphore::new(HASHES_MAX), waiting: Semaphore::new(WAITING_MAX), dummy })
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
        let equal = on_a_blocking_thread(move || verify_now(password.expose_secret().as_bytes(), &hash)).await?;
        Ok(equal && exists)
    }

    /// A hash to keep.
    pub(crate) async fn hash(&self, password: &SecretString) -> Result<String, ApiError> {
        let _turn = self.turn().await?;
        let password = password.clone();
        on_a_blocking_thread(move || hash_now(password.expose_secret().as_bytes())).await
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

async fn on_a_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?
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
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let turn = passwords.turn().await.expect("free");
        assert!(passwords.verify(&turn, &right, Some(hash.clone())).await.expect("compares"));
        assert!(!passwords.verify(&turn, &"wrong horse".into(), Some(hash)).await.expect("compares"));
        let dummy = SecretString::from("nobody has this password");
        assert!(!passwords.verify(&turn, &dummy, None).await.expect("compares"));
    }

    #[test]
    fn lengths_are_bounded_in_bytes() {
        assert!(check_length("1234567").is_err());
        assert!(check_length("12345678").is_ok());
        assert!(check_length(&"x".repeat(1024)).is_ok());
        assert!(check_length(&"ä".repeat(513)).is_err());
    }
}
