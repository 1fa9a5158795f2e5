//! Where parcels go: the bus, or Orzo's API for agents that cannot reach the bus.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use orzo_bus::{Bus, BusError, Message, batch::CONTENT_TYPE, topic};
use orzo_session::{Session, joined};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::Parcel;

/// HTTP's word for a token that is not valid (any more).
const UNAUTHORIZED: u16 = 401;
/// What is kept of an answer's body for the log: a sentence, not a proxy's whole page.
const WORDS_BYTES_MAX: usize = 512;

/// Takes parcels. `Ok` means safe on the other side.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// Sends one parcel; sending it again changes nothing.
    async fn send(&self, parcel: &Parcel) -> Result<(), OutletError>;
}

/// Why a parcel was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// Not now; the same parcel may go later.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// Never: the other side says that the parcel itself is wrong.
    #[error("the batch was rejected: {reason}")]
    Rejected {
        /// Its words.
        reason: String,
    },
}

/// The bus.
pub struct BusOutlet {
    bus: Arc<dyn Bus>,
    shards: u16,
    declared: AtomicBool,
}

impl BusOutlet {
    /// Publishes to the queues of `shards` shards.
    pub fn new(bus: Arc<dyn Bus>, shards: u16) -> Self {
        Self { bus, shards: shards.max(1), declared: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Outlet for BusOutlet {
    async fn send(&self, parcel: &Parcel) -> Result<(), OutletError> {
        // So that batches wait in the queue and not in spools when no collector has started yet.
        if !self.declared.load(Ordering::Relaxed) {
            for shard in 0..self.shards {
                self.bus.declare(&topic::samples_queue(shard)).await.map_err(unavailable)?;
            }
            self.declared.store(true, Ordering::Relaxed);
        }
        let message = Message {
            exchange: topic::ORZO_EXCHANGE.to_owned(),
            // The number of shards may have changed since the parcel was spooled.
            routing_key: topic::samples_key(parcel.shard % self.shards),
            message_id: parcel.id.to_string(),
            content_type: CONTENT_TYPE.to_owned(),
            headers: BTreeMap::from([("origin".to_owned(), parcel.origin.clone())]),
            body: parcel.body.clone(),
        };
        self.bus.publish(message).await.map_err(|error| {
            if matches!(error, BusError::Unroutable { .. }) {
                self.declared.store(false, Ordering::Relaxed);
            }
            unavailable(error)
        })
    }
}

/// Also a refusal is not the parcel's fault on the bus: it is encoded by us and within all limits.
fn unavailable(error: BusError) -> OutletError {
    OutletError::Unavailable { reason: error.to_string() }
}

/// Orzo's API: `POST <url>/collector/v1/batches` with a token.
pub struct HttpOutlet {
    client: reqwest::Client,
    url: Url,
    session: Arc<Session>,
}

impl HttpOutlet {
    /// Posts to the Orzo at `url`. The client's own timeouts apply, and the publisher's; it should not follow
    /// redirects, which would take the token elsewhere.
    pub fn new(client: reqwest::Client, url: &Url, session: Arc<Session>) -> Self {
        Self { client, url: joined(url, "collector/v1/batches"), session }
    }

    async fn token(&self) -> Result<SecretString, OutletError> {
        self.session.token().await.map_err(|error| unreachable(&error))
    }

    /// One try: the status, and what was said with it.
    async fn post(&self, parcel: &Parcel, token: &SecretString) -> Result<(u16, String), OutletError> {
        let answer = self
            .client
            .post(self.url.clone())
            .header("x-auth-token", token.expose_secret())
            .header("content-type", CONTENT_TYPE)
            .body(parcel.body.clone())
            .send()
            .await
            .map_err(|error| unreachable(&error.without_url()))?;
        Ok((answer.status().as_u16(), words_of(answer).await))
    }
}

#[async_trait]
impl Outlet for HttpOutlet {
    async fn send(&self, parcel: &Parcel) -> Result<(), OutletError> {
        let token = self.token().await?;
        let (mut status, mut words) = self.post(parcel, &token).await?;
        if status == UNAUTHORIZED {
            // It may have been revoked, or Orzo's keys have changed.
            self.session.forget(&token);
            (status, words) = self.post(parcel, &self.token().await?).await?;
        }
        let reason = || format!("HTTP status {status} from {}: {words}", self.url.path());
        match status {
            200..=299 => Ok(()),
            // The batch itself is wrong. Anything else (credentials, overload, a proxy) may be mended.
            400 | 413 | 415 | 422 => Err(OutletError::Rejected { reason: reason() }),
            _ => Err(OutletError::Unavailable { reason: reason() }),
        }
    }
}

/// The start of an answer's body. Read also when nobody wants it, so that the connection can be used again.
async fn words_of(mut answer: reqwest::Response) -> String {
    let mut words = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        words.extend_from_slice(&chunk[..chunk.len().min(WORDS_BYTES_MAX - words.len())]);
        if words.len() == WORDS_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&words).trim().to_owned()
}

/// With all causes, as the error itself does not travel on.
fn unreachable(error: &dyn std::error::Error) -> OutletError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    OutletError::Unavailable { reason }
}

#[cfg(test)]
mod tests;
