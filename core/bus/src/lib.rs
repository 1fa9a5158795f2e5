//! Messages in, messages out, acknowledgements: RabbitMQ and an in-process twin with the same semantics.
//!
//! `publish` returning `Ok` means that the message is safe: RabbitMQ has confirmed it, or (in process) every queue it
//! was routed to has had it acknowledged by a consumer. A message that no queue takes is an error, never silence.
//!
//! This room knows nothing of samples but their encoding ([`batch`]).
#![forbid(unsafe_code)]

pub mod backoff;
pub mod batch;
pub mod in_process;
pub mod rabbit;
pub mod records;
pub mod topic;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use backoff::Backoff;
pub use in_process::InProcessBus;
pub use rabbit::{RabbitBus, RabbitSettings};
pub use records::{RecordError, RecordId, Records};

/// A message as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Topic exchange, such as `nova` or `orzo`.
    pub exchange: String,
    /// Routing key, such as `notifications.info`.
    pub routing_key: String,
    /// Same id when the same message is sent again.
    pub message_id: String,
    /// `application/json` for notifications.
    pub content_type: String,
    /// Text headers.
    pub headers: BTreeMap<String, String>,
    /// Payload.
    pub body: Bytes,
}

/// How durable a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated and fsynced before the confirm; durable exchange. All of our own queues.
    Quorum,
    /// As [`Self::Quorum`], for one consumer at a time: of several the broker chooses one, and another one when that is
    /// gone (RabbitMQ's single active consumer). For shards: who dies hands over, and no two work on one series.
    QuorumSingleActive,
    /// What oslo.messaging declares by default: classic, not durable, exchange not durable. Only for compatibility
    /// with real services' `notifications.*` queues.
    OsloClassic,
}

impl QueueKind {
    /// Durable, with a delivery limit and a dead-letter queue.
    pub fn is_quorum(self) -> bool {
        matches!(self, Self::Quorum | Self::QuorumSingleActive)
    }
}

/// A queue and what is routed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Queue name.
    pub name: String,
    /// Durability.
    pub kind: QueueKind,
    /// (exchange, routing key) pairs; exchanges are topic exchanges and are declared as well.
    pub bindings: Vec<(String, String)>,
    /// After so many deliveries the broker dead-letters the message to `<name>.dead` (quorum only).
    pub delivery_limit: u32,
    /// Messages held at most; a publisher beyond that waits, then gets [`BusError::Full`].
    pub length_max: u32,
}

/// A message that was delivered; it must be acknowledged, or rejected, or it is delivered again when this is dropped.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// How often it was delivered before (0 the first time), as far as the broker tells.
    pub redeliveries: u32,
    /// Acknowledges or rejects.
    pub receipt: Box<dyn DeliveryReceipt>,
}

/// What a consumer answers for one delivery. A receipt of a connection that is gone does nothing: the broker will
/// deliver the message again.
#[async_trait]
pub trait DeliveryReceipt: Send + Sync {
    /// Done: durable on this side.
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
    /// Not done. With `requeue` it is delivered again (to anyone), without it is dead-lettered.
    async fn reject(self: Box<Self>, requeue: bool) -> Result<(), BusError>;
}

/// A stream of deliveries. Survives broker restarts by itself.
#[async_trait]
pub trait Subscription: Send {
    /// The next delivery; `None` once the bus is closed.
    async fn next(&mut self) -> Option<Delivery>;
}

/// A message bus. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Declares the queue, its exchanges and bindings. Idempotent.
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BusError>;
    /// Publishes; `Ok` means safe (see the crate's page).
    async fn publish(&self, message: Message) -> Result<(), BusError>;
    /// Consumes with at most `prefetch` unacknowledged deliveries. Declares the queue first.
    async fn subscribe(&self, queue: &QueueSpec, prefetch: u16) -> Result<Box<dyn Subscription>, BusError>;
    /// Stops: consumers end, publishers fail.
    async fn close(&self);
    /// `in-process` or `rabbitmq`, for logs and health.
    fn kind(&self) -> &'static str;
    /// Whether messages can flow now; for `/readyz`.
    async fn is_connected(&self) -> bool;
}

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No connection, or it broke before the confirm: the message may or may not have arrived. Send again.
    #[error("the message bus is not reachable: {reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// No queue is bound for it.
    #[error("no queue takes messages of exchange `{exchange}` with routing key `{routing_key}`")]
    Unroutable {
        /// Exchange published to.
        exchange: String,
        /// Routing key used.
        routing_key: String,
    },
    /// A queue is full; try again later.
    #[error("queue `{queue}` is full ({length_max} messages)")]
    Full {
        /// Which queue.
        queue: String,
        /// Its limit.
        length_max: u32,
    },
    /// The broker refused the message or the declaration.
    #[error("the broker refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// Nobody confirmed in time: the message may or may not have arrived. Send again.
    #[error("no confirmation within {waited:?}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
    },
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
}

impl BusError {
    /// Whether sending again later may help.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Closed)
    }
}

#[cfg(test)]
mod tests;
