//! One try to deliver one notice, whatever its action: the same code for the deliverer's loop and for a test call.
//!
//! `action → URL, queue, alert or topic → one exchange with a deadline → outcome`

use std::sync::Arc;

use orzo_model::SharedClock;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    action::{Action, Trust, ZaqarQueue},
    alertmanager,
    doors::{CloudDoor, CloudRequest, DoorError, TopicDoor},
    heat,
    outcome::{Failure, Outcome},
};
use crate::{
    book::{Notice, announcements},
    webhook::{Letter, Webhook},
};

/// Delivers notices, one try at a time.
pub struct Deliverer {
    webhook: Webhook,
    cloud: Option<Arc<dyn CloudDoor>>,
    topics: Option<Arc<dyn TopicDoor>>,
    clock: SharedClock,
}

impl Deliverer {
    /// Without a door, actions that need it cannot be done.
    pub fn new(
        webhook: Webhook,
        cloud: Option<Arc<dyn CloudDoor>>,
        topics: Option<Arc<dyn TopicDoor>>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self { webhook, cloud, topics, clock })
    }

    /// The webhooks' sender, for its keys.
    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// The way to trusts, if there is one.
    pub fn cloud(&self) -> Option<&Arc<dyn CloudDoor>> {
        self.cloud.as_ref()
    }

    /// One try. The tokens it needs are asked for now and are not kept.
    pub async fn deliver(&self, notice: &Notice) -> Outcome {
        if notice.action == announcements::ACTION {
            return match &self.topics {
                None => no_topics(),
                Some(door) => outcome_of(door.announce(&notice.notice_id, &notice.body).await),
            };
        }
        let action = match Action::parse(&notice.action) {
            Ok(action) => action,
            Err(error) => return Outcome::hopeless(Failure::NotServed, error),
        };
        match action {
            Action::Log => {
                tracing::info!(alarm = notice.alarm_id, body = notice.body, "alarm notice");
                Outcome::Delivered
            }
            Action::Test => Outcome::Delivered,
            Action::Webhook { url, trust } => match self.token(&trust).await {
                Ok(token) => self.webhook.send(&url, &letter(notice, &notice.body, token.as_ref())).await,
                Err(outcome) => outcome,
            },
            Action::Alertmanager(url) => {
                let body: Value = serde_json::from_str(&notice.body).unwrap_or_default();
                let alerts = alertmanager::alerts(&body, &notice.project_id, notice.created_at).to_string();
                self.webhook.send(&alertmanager::url_of(&url), &letter(notice, &alerts, None)).await
            }
            Action::Zaqar { queue, subscribers, ttl_s, trust } => match self.cloud_for(&trust) {
                Ok((cloud, trust_id)) => outcome_of(zaqar(cloud, trust_id, notice, &queue, &subscribers, ttl_s).await),
                Err(outcome) => outcome,
            },
            Action::Heat { trust } => match self.cloud_for(&trust) {
                Ok((cloud, trust_id)) => outcome_of(heat::mark_unhealthy(cloud, trust_id, notice).await),
                Err(outcome) => outcome,
            },
            Action::Topic(topic) => match &self.topics {
                None => no_topics(),
                Some(door) => outcome_of(door.publish(&topic, &notice.notice_id, &notice.body).await),
            },
        }
    }

    async fn token(&self, trust: &Trust) -> Result<Option<SecretString>, Outcome> {
        let id = match trust {
            Trust::None => return Ok(None),
            Trust::Wanted => return Err(Outcome::hopeless(Failure::NoTrust, "the action has no trust")),
            Trust::Made(id) => id,
        };
        let Some(cloud) = &self.cloud else {
            return Err(Outcome::hopeless(Failure::NotServed, "trusts are not served here"));
        };
        match cloud.token_of_trust(id).await {
            Ok(token) => Ok(Some(token)),
            Err(DoorError::Refused { reason }) => Err(Outcome::hopeless(Failure::NoTrust, reason)),
            Err(DoorError::Unavailable { reason }) => Err(Outcome::failed(Failure::NoTrust, reason)),
        }
    }

    /// The cloud, and the trust in whose name it is asked.
    fn cloud_for<'a>(&'a self, trust: &'a Trust) -> Result<(&'a dyn CloudDoor, Option<&'a str>), Outcome> {
        let trust_id = match trust {
            Trust::None => None,
            Trust::Made(id) => Some(id.as_str()),
            Trust::Wanted => return Err(Outcome::hopeless(Failure::NoTrust, "the action has no trust")),
        };
        match &self.cloud {
            Some(cloud) => Ok((cloud.as_ref(), trust_id)),
            None => Err(Outcome::hopeless(Failure::NotServed, "the cloud's services are not reached from here")),
        }
    }

    /// The clock of the tries.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

fn letter<'a>(notice: &'a Notice, body: &'a str, token: Option<&'a SecretString>) -> Letter<'a> {
    Letter { id: &notice.notice_id, project_id: &notice.project_id, body, token }
}

fn no_topics() -> Outcome {
    Outcome::hopeless(Failure::NotServed, "there is no message bus for topics here")
}

fn outcome_of(result: Result<(), DoorError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Delivered,
        Err(DoorError::Refused { reason }) => Outcome::hopeless(Failure::NotAccepted, reason),
        Err(DoorError::Unavailable { reason }) => Outcome::failed(Failure::NoAnswer, reason),
    }
}

/// Aodh's way with Zaqar (API v2): the queue is made, its subscribers are told to it, then the message is posted. The
/// first two change nothing when they are repeated.
async fn zaqar(
    cloud: &dyn CloudDoor,
    trust_id: Option<&str>,
    notice: &Notice,
    queue: &ZaqarQueue,
    subscribers: &[String],
    ttl_s: u64,
) -> Result<(), DoorError> {
    let request = |method, path, body| CloudRequest {
        service_type: "messaging",
        method,
        path,
        trust_id,
        client_id: &notice.notice_id,
        body,
    };
    let name = match queue {
        ZaqarQueue::Named(name) => name.clone(),
        ZaqarQueue::Topic(topic) => {
            let name = format!("{}-{topic}", notice.alarm_id);
            cloud.request(&request("PUT", format!("v2/queues/{name}"), Some(json!({})))).await?;
            name
        }
    };
    for subscriber in subscribers {
        let body = json!({"subscriber": subscriber, "ttl": ttl_s, "options": {}});
        match cloud.request(&request("POST", format!("v2/queues/{name}/subscriptions"), Some(body))).await {
            // It is subscribed already.
            Err(DoorError::Refused { reason }) if reason.contains("409") => {}
            other => {
                other?;
            }
        }
    }
    let message: Value = serde_json::from_str(&notice.body).unwrap_or_default();
    let body = json!({"messages": [{"ttl": ttl_s, "body": {"body": message}}]});
    cloud.request(&request("POST", format!("v2/queues/{name}/messages"), Some(body))).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
