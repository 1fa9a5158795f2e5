//! Publishing with confirms: one unconfirmed message a channel, many channels.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Confirmation,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

use super::{
    BODY_BYTES_MAX, BusError, Shared,
    declare::{exchange_exists, short},
    link::Link,
    unreachable,
};
use crate::{Message, backoff::Backoff, topic};

/// First wait after a queue said that it is full.
const FULL_WAIT_FIRST: Duration = Duration::from_millis(50);
/// Largest wait before asking a full queue again.
const FULL_WAIT_MAX: Duration = Duration::from_secs(2);
/// AMQP's persistent delivery mode.
const PERSISTENT: u8 = 2;

/// `Ok` when the broker has confirmed.
pub(super) async fn publish(shared: &Arc<Shared>, message: Message) -> Result<(), BusError> {
    if message.body.len() > BODY_BYTES_MAX {
        let reason = format!("a message of {} bytes; at most {BODY_BYTES_MAX} are sent", message.body.len());
        return Err(BusError::Refused { reason });
    }
    let wait = shared.settings.confirm_wait;
    match tokio::time::timeout(wait, publish_until_confirmed(shared, &message)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BusError::Timeout { waited: wait }),
    }
}

async fn publish_until_confirmed(shared: &Arc<Shared>, message: &Message) -> Result<(), BusError> {
    let _turn = shared.publishes.acquire().await.map_err(|_| BusError::Closed)?;
    let properties = properties(message)?;
    // Leaves time to say "full" before the caller's deadline says "timeout".
    let full_until = shared.clock.monotonic() + shared.settings.confirm_wait.mul_f64(0.8);
    let mut backoff = Backoff::new(FULL_WAIT_FIRST, FULL_WAIT_MAX);
    loop {
        let link = shared.link_within(shared.settings.confirm_wait.mul_f64(0.8)).await?;
        match publish_once(&link, message, properties.clone()).await? {
            Answer::Confirmed => return Ok(()),
            Answer::Unroutable => {
                let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
                return Err(BusError::Unroutable { exchange, routing_key });
            }
            Answer::Full if shared.clock.monotonic() < full_until => shared.clock.sleep(backoff.next_wait()).await,
            Answer::Full => return Err(full(shared, message)),
        }
    }
}

enum Answer {
    Confirmed,
    Unroutable,
    Full,
}

/// If the future is dropped on the way, its channel is dropped with it: the channel's next confirmation would be that
/// of the lost message.
async fn publish_once(link: &Link, message: &Message, properties: BasicProperties) -> Result<Answer, BusError> {
    if !exchange_exists(link, &message.exchange).await? {
        return Ok(Answer::Unroutable);
    }
    let channel = link.publishing_channel().await?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let sent = channel.basic_publish(
        short(&message.exchange)?,
        short(&message.routing_key)?,
        options,
        &message.body,
        properties,
    );
    let confirmation = tokio::select! {
        confirmation = async { sent.await?.await } => confirmation.map_err(unreachable)?,
        () = link.ended() => return Err(BusError::Unreachable { reason: "the connection broke before the confirmation".to_owned() }),
    };
    let answer = match confirmation {
        Confirmation::Ack(None) => Answer::Confirmed,
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Answer::Unroutable,
        Confirmation::Nack(None) => Answer::Full,
        Confirmation::NotRequested => {
            return Err(BusError::Unreachable { reason: "the broker does not confirm".to_owned() });
        }
    };
    link.give_channel_back(channel);
    Ok(answer)
}

/// The queue that is probably meant: a confirm does not say which one refused.
fn full(shared: &Shared, message: &Message) -> BusError {
    let declared = shared.declared.lock();
    let routed = declared.values().find(|queue| {
        queue
            .bindings
            .iter()
            .any(|(exchange, pattern)| *exchange == message.exchange && topic::matches(pattern, &message.routing_key))
    });
    match routed {
        Some(queue) => BusError::Full { queue: queue.name.clone(), length_max: queue.length_max },
        None => BusError::Full { queue: format!("{}/{}", message.exchange, message.routing_key), length_max: 0 },
    }
}

fn properties(message: &Message) -> Result<BasicProperties, BusError> {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short(name)?, AMQPValue::LongString(value.as_str().into()));
    }
    Ok(BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&message.message_id)?)
        .with_content_type(short(&message.content_type)?)
        .with_content_encoding(if message.content_type.ends_with("json") { "utf-8".into() } else { "binary".into() })
        .with_headers(headers))
}
