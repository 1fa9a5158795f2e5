//! The doors through which notices leave the alarms' room: trusts and services by way of the session, topics by way of
//! the bus.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orzo_alarms::{CloudDoor, CloudRequest, DoorError, TopicDoor};
use orzo_bus::{Bus, Message, QueueKind, QueueSpec, topic::ORZO_EXCHANGE};
use orzo_session::{ServiceRequest, Session, SessionError};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// After so many deliveries that nobody acknowledged, the broker sets a notice aside.
const DELIVERIES_MAX: u32 = 200;
/// Notices that wait for a consumer of a topic; more of them wait in the outbox.
const WAITING_MAX: u32 = 100_000;

/// The exchange and the queue of Aodh's notifications, as oslo.messaging declares them.
const AODH_EXCHANGE: &str = "aodh";
const NOTIFICATIONS: &str = "notifications.info";

/// Trusts and the cloud's services.
pub(super) struct CloudServices(pub(super) Arc<Session>);

#[async_trait]
impl CloudDoor for CloudServices {
    async fn make_trust(&self, token: &SecretString) -> Result<String, DoorError> {
        self.0.make_trust(token.expose_secret()).await.map_err(told)
    }

    async fn end_trust(&self, trust_id: &str) -> Result<(), DoorError> {
        self.0.end_trust(trust_id).await.map_err(told)
    }

    async fn token_of_trust(&self, trust_id: &str) -> Result<SecretString, DoorError> {
        let token = self.0.token_of_trust(trust_id).await.map_err(told)?;
        token.ok_or_else(|| DoorError::Refused { reason: "the identity service gives no token for the trust".into() })
    }

    async fn request(&self, request: &CloudRequest<'_>) -> Result<Value, DoorError> {
        let token = match request.trust_id {
            Some(trust_id) => Some(self.token_of_trust(trust_id).await?),
            None => None,
        };
        let headers = [("Client-ID", request.client_id)];
        let asked = ServiceRequest {
            service_type: request.service_type,
            method: request
                .method
                .parse()
                .map_err(|_| DoorError::Refused { reason: format!("`{}` is no method", request.method) })?,
            path: &request.path,
            headers: &headers,
            body: request.body.as_ref(),
        };
        self.0.request(&asked, token.as_ref()).await.map_err(told)
    }
}

/// Whether it may be better later, and the whole chain of causes.
fn told(error: SessionError) -> DoorError {
    let is_ours = matches!(error, SessionError::Credentials { .. });
    let is_retryable = error.is_retryable() || is_ours;
    let reason = format!("{:#}", anyhow::Error::new(error));
    if is_retryable { DoorError::Unavailable { reason } } else { DoorError::Refused { reason } }
}

/// Topics on RabbitMQ: each has a durable queue `orzo.alarms.<topic>` that keeps its notices until somebody reads them.
pub(super) struct Topics(pub(super) Arc<dyn Bus>);

#[async_trait]
impl TopicDoor for Topics {
    async fn publish(&self, topic: &str, message_id: &str, body: &str) -> Result<(), DoorError> {
        if self.0.kind() == "in-process" {
            let reason = "topics need RabbitMQ (bus.url): nobody outside this process could read them".to_owned();
            return Err(DoorError::Refused { reason });
        }
        let key = format!("alarms.{topic}");
        let queue = QueueSpec {
            name: format!("orzo.{key}"),
            kind: QueueKind::Quorum,
            bindings: vec![(ORZO_EXCHANGE.to_owned(), key.clone())],
            delivery_limit: DELIVERIES_MAX,
            length_max: WAITING_MAX,
        };
        self.0.declare(&queue).await.map_err(unavailable)?;
        let message = Message {
            exchange: ORZO_EXCHANGE.to_owned(),
            routing_key: key,
            message_id: message_id.to_owned(),
            content_type: "application/json".to_owned(),
            headers: BTreeMap::new(),
            body: body.to_owned().into(),
        };
        self.0.publish(message).await.map_err(unavailable)
    }

    async fn announce(&self, message_id: &str, body: &str) -> Result<(), DoorError> {
        // Declared as every oslo.messaging service does that publishes: what nobody reads yet waits in the queue.
        let queue = QueueSpec {
            name: NOTIFICATIONS.to_owned(),
            kind: QueueKind::OsloClassic,
            bindings: vec![(AODH_EXCHANGE.to_owned(), NOTIFICATIONS.to_owned())],
            delivery_limit: DELIVERIES_MAX,
            length_max: WAITING_MAX,
        };
        self.0.declare(&queue).await.map_err(unavailable)?;
        let message = Message {
            exchange: AODH_EXCHANGE.to_owned(),
            routing_key: NOTIFICATIONS.to_owned(),
            message_id: message_id.to_owned(),
            content_type: "application/json".to_owned(),
            headers: BTreeMap::new(),
            body: body.to_owned().into(),
        };
        self.0.publish(message).await.map_err(unavailable)
    }
}

fn unavailable(error: orzo_bus::BusError) -> DoorError {
    DoorError::Unavailable { reason: error.to_string() }
}
