//! Notifications that nobody can read are kept where batches that nobody can read are kept.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_agents::notifications::Poison;
use orzo_bus::Message;
use orzo_collector::Quarantine;
use orzo_model::SinkError;

pub(super) struct QuarantinePoison(pub(super) Arc<Quarantine>);

#[async_trait]
impl Poison for QuarantinePoison {
    async fn keep(&self, reason: &str, message: &Message) -> Result<(), SinkError> {
        let origin = format!("{}/{}", message.exchange, message.routing_key);
        match self.0.keep(&origin, reason, &message.content_type, message.body.clone()).await {
            Ok(_) => Ok(()),
            // A full quarantine is no reason to lose what it cannot take: the bus holds it.
            Err(error) => Err(SinkError::unavailable(error)),
        }
    }
}
