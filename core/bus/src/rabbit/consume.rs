//! Consuming: a subscription that outlives connections, and receipts that do not.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery as RabbitDelivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable},
};

use super::{ANSWER_MAX, BusError, RECONNECT_FIRST, RECONNECT_MAX, Shared, answered, declare, link::Link, unreachable};
use crate::{Delivery, DeliveryReceipt, Message, QueueSpec, Subscription, backoff::Backoff};

/// A queue's deliveries, over as many connections as it takes.
pub(super) struct RabbitSubscription {
    shared: Arc<Shared>,
    queue: QueueSpec,
    prefetch: u16,
    open: Option<Open>,
    backoff: Backoff,
}

/// A consumer on a channel of its own.
struct Open {
    consumer: Consumer,
    channel: Channel,
    link: Arc<Link>,
}

impl RabbitSubscription {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueSpec, prefetch: u16) -> Self {
        let backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
        Self { shared, queue, prefetch: prefetch.max(1), open: None, backoff }
    }

    async fn open(&self) -> Result<Open, BusError> {
        let link = self.shared.link_within(ANSWER_MAX).await?;
        declare::declare(&self.shared, &link, &self.queue).await?;
        let channel = link.channel().await?;
        answered(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await.map_err(unreachable)?;
        let consumer = answered(channel.basic_consume(
            declare::short(&self.queue.name)?,
            // The broker makes a unique tag.
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ));
        let consumer = consumer.await.map_err(unreachable)?;
        Ok(Open { consumer, channel, link })
    }
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.shared.stop.is_cancelled() {
                return None;
            }
            let Some(open) = &mut self.open else {
                match self.open().await {
                    Ok(open) => {
                        self.backoff.succeeded();
                        self.open = Some(open);
                    }
                    Err(BusError::Closed) => return None,
                    Err(error) => {
                        if self.backoff.failures() == 0 {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(queue = self.queue.name, error, "cannot consume, trying on");
                        }
                        let wait = self.backoff.next_wait();
                        tokio::select! {
                            () = self.shared.clock.sleep(wait) => {}
                            () = self.shared.stop.cancelled() => return None,
                        }
                    }
                }
                continue;
            };
            let ended = tokio::select! {
                delivery = open.consumer.next() => match delivery {
                    Some(Ok(delivery)) => return Some(received(delivery, open)),
                    // The channel or the connection is gone, or the queue was deleted: open a new one.
                    Some(Err(_)) | None => true,
                },
                () = open.link.ended() => true,
                () = self.shared.stop.cancelled() => return None,
            };
            if ended {
                self.open = None;
                // So that a queue that is deleted again and again is not a hot loop.
                let wait = self.backoff.next_wait();
                tokio::select! {
                    () = self.shared.clock.sleep(wait) => {}
                    () = self.shared.stop.cancelled() => return None,
                }
            }
        }
    }
}

fn received(mut delivery: RabbitDelivery, open: &Open) -> Delivery {
    let body = std::mem::take(&mut delivery.data).into();
    let properties = &delivery.properties;
    let mut headers = std::collections::BTreeMap::new();
    let mut counted = None;
    for (name, value) in properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten() {
        match value {
            AMQPValue::LongString(text) => {
                headers.insert(name.to_string(), String::from_utf8_lossy(text.as_bytes()).into_owned());
            }
            AMQPValue::ShortString(text) => {
                headers.insert(name.to_string(), text.to_string());
            }
            // Quorum queues count; classic ones only say "again".
            value if name.as_str() == "x-delivery-count" => counted = integer(value),
            _ => {}
        }
    }
    let redeliveries = counted.unwrap_or(u32::from(delivery.redelivered));
    let message = Message {
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        message_id: properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        content_type: properties.content_type().as_ref().map(ToString::to_string).unwrap_or_default(),
        headers,
        body,
    };
    Delivery {
        message,
        redeliveries,
        receipt: Box::new(RabbitReceipt {
            delivery: Some(delivery),
            channel: open.channel.clone(),
            link: open.link.clone(),
            runtime: tokio::runtime::Handle::current(),
        }),
    }
}

fn integer(value: &AMQPValue) -> Option<u32> {
    let number = match value {
        AMQPValue::LongLongInt(number) => *number,
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        _ => return None,
    };
    u32::try_from(number).ok()
}

/// Belongs to one channel of one link. It keeps the channel open, and it does nothing once that is gone.
struct RabbitReceipt {
    delivery: Option<RabbitDelivery>,
    channel: Channel,
    link: Arc<Link>,
    runtime: tokio::runtime::Handle,
}

impl RabbitReceipt {
    /// The delivery, unless its channel has ended: a delivery tag means something else on another channel.
    fn usable(&mut self) -> Option<RabbitDelivery> {
        let delivery = self.delivery.take()?;
        (self.link.is_alive() && self.channel.status().connected() && delivery.acker.usable()).then_some(delivery)
    }
}

#[async_trait]
impl DeliveryReceipt for RabbitReceipt {
    async fn ack(mut self: Box<Self>) -> Result<(), BusError> {
        match self.usable() {
            Some(delivery) => {
                answered(delivery.acker.ack(BasicAckOptions::default())).await.map(|_| ()).map_err(unreachable)
            }
            None => Ok(()),
        }
    }

    async fn reject(mut self: Box<Self>, requeue: bool) -> Result<(), BusError> {
        match self.usable() {
            Some(delivery) => {
                answered(delivery.acker.reject(BasicRejectOptions { requeue })).await.map(|_| ()).map_err(unreachable)
            }
            None => Ok(()),
        }
    }
}

impl Drop for RabbitReceipt {
    /// Dropped without an answer: given back at once, not when the channel ends.
    fn drop(&mut self) {
        if let Some(delivery) = self.usable() {
            let channel = self.channel.clone();
            self.runtime.spawn(async move {
                // Without an answer the broker delivers again when the channel ends; nothing is lost by ignoring it.
                let _ = answered(delivery.acker.reject(BasicRejectOptions { requeue: true })).await;
                drop(channel);
            });
        }
    }
}
