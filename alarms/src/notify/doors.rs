//! The doors through which notices leave that are no plain webhooks. Whoever builds the rooms fills them: this room
//! knows neither the identity service nor the bus.

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::Value;

/// Why something on the other side of a door did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// It will not happen later either.
    #[error("{reason}")]
    Refused {
        /// In words, for the operator.
        reason: String,
    },
    /// Perhaps later.
    #[error("{reason}")]
    Unavailable {
        /// In words, for the operator.
        reason: String,
    },
}

/// Trusts, and the services of the cloud's catalog.
#[async_trait]
pub trait CloudDoor: Send + Sync {
    /// Makes a trust: whoever shows `token` lets this service act in their name. Gives its id.
    async fn make_trust(&self, token: &SecretString) -> Result<String, DoorError>;
    /// Ends a trust; one that is not there has ended.
    async fn end_trust(&self, trust_id: &str) -> Result<(), DoorError>;
    /// A token in the name of who made the trust.
    async fn token_of_trust(&self, trust_id: &str) -> Result<SecretString, DoorError>;
    /// A request to a service of the catalog, in the name of who made the trust, or in this service's own.
    async fn request(&self, request: &CloudRequest<'_>) -> Result<Value, DoorError>;
}

/// A request to a service of the catalog.
#[derive(Debug)]
pub struct CloudRequest<'a> {
    /// `messaging`, `orchestration`.
    pub service_type: &'a str,
    /// `GET`, `PUT` ...
    pub method: &'a str,
    /// Below the service's endpoint.
    pub path: String,
    /// In whose name; `None` is this service's own.
    pub trust_id: Option<&'a str>,
    /// `Client-ID`, which the messaging service demands: the notice's id.
    pub client_id: &'a str,
    /// JSON body.
    pub body: Option<Value>,
}

/// The bus.
#[async_trait]
pub trait TopicDoor: Send + Sync {
    /// Publishes a message to a topic; `Ok` means that the bus has it.
    async fn publish(&self, topic: &str, message_id: &str, body: &str) -> Result<(), DoorError>;
    /// Publishes a notification as Aodh does, to its exchange, for whoever listens to the cloud's notifications.
    async fn announce(&self, message_id: &str, body: &str) -> Result<(), DoorError>;
}
