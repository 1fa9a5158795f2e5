//! Notifications of the cloud's services: from the bus to samples and events.
//!
//! `bus → decode (oslo) → translate (definitions) → Batch → SampleSink → ack`
//!
//! A delivery is acknowledged after the sink said `Ok`, never before. A sink that is busy makes the listener hold what
//! it has, so that the broker holds the rest. What cannot be decoded, or is rejected for good, goes to a [`Poison`]
//! handler that keeps it durably, and is then acknowledged. All ids are made from the message's, so a redelivered
//! notification makes the same samples and the same event.
//!
//! This room knows no broker by name, no store, and no definition.

mod listen;
mod oslo;
mod polled;
mod settings;
#[cfg(test)]
mod tests;
mod translate;

use std::sync::Arc;

use async_trait::async_trait;
use orzo_bus::{Bus, Message};
use orzo_definitions::Definitions;
use orzo_model::{Room, SampleSink, SharedClock, SinkError};
use tokio_util::sync::CancellationToken;

pub use oslo::{MESSAGE_BYTES_MAX, OsloError, decode};
pub use settings::{EXCHANGES, NotificationSettings};
pub use translate::{Translated, translate};

/// Keeps what can never be accepted, with the reason.
#[async_trait]
pub trait Poison: Send + Sync {
    /// `Ok` means durable. An error that is retryable is tried again; the delivery is not acknowledged before.
    async fn keep(&self, reason: &str, message: &Message) -> Result<(), SinkError>;
}

/// What the listener works with.
pub struct ListenerParts {
    /// Where notifications come from.
    pub bus: Arc<dyn Bus>,
    /// Where samples and events go.
    pub sink: Arc<dyn SampleSink>,
    /// Where goes what cannot be understood.
    pub poison: Arc<dyn Poison>,
    /// What is made of what.
    pub definitions: Arc<Definitions>,
    /// Tells the time.
    pub clock: SharedClock,
    /// Counts samples and events; a notification that makes none counts as one.
    pub room: Room,
}

/// Consumes notifications until told to stop.
pub struct NotificationListener {
    settings: NotificationSettings,
    parts: ListenerParts,
}

impl NotificationListener {
    /// A listener; nothing happens before [`Self::run`].
    pub fn new(settings: NotificationSettings, parts: ListenerParts) -> Self {
        Self { settings, parts }
    }

    /// Listens until `stop`, or until the bus is closed. Deliveries that are not settled then are delivered again.
    pub async fn run(&self, stop: CancellationToken) {
        listen::listen(&self.settings, &self.parts, &stop).await;
    }
}
