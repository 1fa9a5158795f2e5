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
use orzo_session::Session;
use secrecy::ExposeSecret;
use url::Url;

use super::Parcel;

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
    /// Posts to the Orzo at `url`. The client's own timeouts apply, and the publisher's.
    pub fn new(client: reqwest::Client, url: &Url, session: Arc<Session>) -> Self {
        let mut url = url.clone();
        let path = format!("{}/collector/v1/batches", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Self { client, url, session }
    }
}

#[async_trait]
impl Outlet for HttpOutlet {
    async fn send(&self, parcel: &Parcel) -> Result<(), OutletError> {
        let unavailable = |reason: String| OutletError::Unavailable { reason };
        let token = self.session.token().await.map_err(|error| unavailable(error.to_string()))?;
        let answer = self
            .client
            .post(self.url.clone())
            .header("x-auth-token", token.expose_secret())
            .header("content-type", CONTENT_TYPE)
            .body(parcel.body.clone())
            .send()
            .await
            .map_err(|error| unavailable(error.without_url().to_string()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            // The batch itself is wrong. Anything else (credentials, overload, a proxy) may be mended.
            status @ (400 | 413 | 415 | 422) => Err(OutletError::Rejected { reason: format!("HTTP status {status}") }),
            status => Err(unavailable(format!("HTTP status {status} from {}", self.url.path()))),
        }
    }
}
