//! The loop: take what is there, translate, hand on as one batch, acknowledge.

use std::time::Duration;

use orzo_bus::{Backoff, Delivery, QueueSpec, Subscription};
use orzo_model::{Batch, Receipt, SinkError, by_meter};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{ListenerParts, NotificationSettings, decode, translate, translate::Translated};

/// Unacknowledged deliveries per queue; oslo.messaging's own default for its rabbit driver.
const PREFETCH: u16 = 100;
/// Notifications in one batch: what one fsync can settle together without making anybody wait for more.
const NOTIFICATIONS_MAX: usize = 100;
/// Samples and events in one batch; a polling agent's messages have 50 each.
const THINGS_MAX: usize = 5000;
/// First wait after the sink, the bus or the quarantine said "not now".
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between tries: a sink that is back is noticed within this time.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Namespace of batch ids: a random UUID that never changes.
const BATCH_NAMESPACE: Uuid = Uuid::from_u128(0x8f3e_41c6_0d1b_4b7a_a9f2_63d5_7c1e_9044);

/// A delivery with what came of it.
struct Item {
    delivery: Delivery,
    message_id: String,
    translated: Translated,
}

/// We are told to stop; what is in hand is not settled.
struct Stopped;

/// Listens until `stop` or until the bus is closed.
pub(super) async fn listen(settings: &NotificationSettings, parts: &ListenerParts, stop: &CancellationToken) {
    // Deliveries are bounded by the prefetch; the channel only has to hold as many as make a batch.
    let (sender, mut receiver) = mpsc::channel(NOTIFICATIONS_MAX);
    // Dropping the set ends the pumps; what they hold is then delivered again.
    let mut pumps = JoinSet::new();
    for queue in settings.queues() {
        let Ok(subscription) = subscribe(parts, &queue, stop).await else { return };
        pumps.spawn(pump(subscription, sender.clone()));
    }
    drop(sender);
    info!(bus = parts.bus.kind(), exchanges = settings.exchanges.len(), "listening to notifications");
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => break,
            delivery = receiver.recv() => delivery,
        };
        let Some(first) = first else { break };
        if settle(settings, parts, stop, first, &mut receiver).await.is_err() {
            break;
        }
    }
    info!("no longer listening to notifications");
}

async fn subscribe(
    parts: &ListenerParts,
    queue: &QueueSpec,
    stop: &CancellationToken,
) -> Result<Box<dyn Subscription>, Stopped> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match parts.bus.subscribe(queue, PREFETCH).await {
            Ok(subscription) => return Ok(subscription),
            Err(refused) if !refused.is_retryable() => {
                error!(queue = queue.name, error = %refused, "cannot listen to notifications");
                return Err(Stopped);
            }
            Err(unreachable) => {
                if backoff.failures() == 0 {
                    warn!(queue = queue.name, error = %unreachable, "cannot listen to notifications yet");
                }
                wait(parts, stop, backoff.next_wait()).await?;
            }
        }
    }
}

async fn pump(mut subscription: Box<dyn Subscription>, sender: mpsc::Sender<Delivery>) {
    while let Some(delivery) = subscription.next().await {
        if sender.send(delivery).await.is_err() {
            break;
        }
    }
}

/// Settles `first` and what else is there without waiting.
async fn settle(
    settings: &NotificationSettings,
    parts: &ListenerParts,
    stop: &CancellationToken,
    first: Delivery,
    receiver: &mut mpsc::Receiver<Delivery>,
) -> Result<(), Stopped> {
    let mut items: Vec<Item> = Vec::new();
    let mut things = 0;
    let mut next = Some(first);
    while let Some(delivery) = next {
        match decode(&delivery.message.body) {
            Ok(notification) => {
                let translated = translate(&parts.definitions, settings, &notification);
                parts.room.note_passed(by_meter(&translated.samples), parts.clock.now());
                things += translated.len();
                parts.room.received(translated.len() as u64);
                for reason in &translated.dropped {
                    parts.room.dropped(reason, 1);
                }
                items.push(Item { delivery, message_id: notification.message_id, translated });
            }
            Err(undecodable) => {
                parts.room.received(1);
                let reason = with_causes(&undecodable);
                if poison(parts, stop, delivery, &reason, "undecodable", 1).await.is_err() {
                    parts.room.returned(count_of(&items));
                    return Err(Stopped);
                }
            }
        }
        let full = items.len() >= NOTIFICATIONS_MAX || things >= THINGS_MAX;
        next = if full { None } else { receiver.try_recv().ok() };
    }
    accept(settings, parts, stop, items).await
}

/// Hands the items on as one batch; if that batch can never be accepted, one by one, so that only the bad one is set
/// aside.
async fn accept(
    settings: &NotificationSettings,
    parts: &ListenerParts,
    stop: &CancellationToken,
    items: Vec<Item>,
) -> Result<(), Stopped> {
    let count = count_of(&items);
    match offer(parts, stop, batch_of(settings, &items)).await {
        Offer::Accepted(receipt) => {
            parts.room.dropped("repeat", receipt.repeated);
            parts.room.refused("by the sink", receipt.refused);
            parts.room.stored(count.saturating_sub(receipt.repeated + receipt.refused));
            acknowledge(items).await;
            Ok(())
        }
        Offer::Stopped => {
            parts.room.returned(count);
            Err(Stopped)
        }
        Offer::Rejected(reason) if items.len() == 1 => {
            for item in items {
                poison(parts, stop, item.delivery, &reason, "rejected", count).await?;
            }
            Ok(())
        }
        Offer::Rejected(_) => {
            let mut left = items.into_iter();
            while let Some(item) = left.next() {
                if Box::pin(accept(settings, parts, stop, vec![item])).await.is_err() {
                    parts.room.returned(count_of(left.as_slice()));
                    return Err(Stopped);
                }
            }
            Ok(())
        }
    }
}

enum Offer {
    Accepted(Receipt),
    Rejected(String),
    Stopped,
}

/// Offers until the sink takes the batch or rejects it.
async fn offer(parts: &ListenerParts, stop: &CancellationToken, batch: Batch) -> Offer {
    if batch.is_empty() {
        return Offer::Accepted(Receipt::default());
    }
    let started = parts.clock.monotonic();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match parts.sink.accept(batch.clone()).await {
            Ok(receipt) => {
                if backoff.failures() > 0 {
                    info!("notifications are accepted again");
                }
                parts.room.took("accept", parts.clock.monotonic().saturating_sub(started));
                return Offer::Accepted(receipt);
            }
            Err(SinkError::Rejected { reason }) => return Offer::Rejected(reason),
            Err(SinkError::Unavailable { reason, retry_after }) => {
                if backoff.failures() == 0 {
                    warn!(reason, "holding notifications until they are accepted");
                }
                let pause = backoff.next_wait().max(retry_after.unwrap_or_default().min(RETRY_MAX));
                if wait(parts, stop, pause).await.is_err() {
                    return Offer::Stopped;
                }
            }
        }
    }
}

/// Keeps a delivery durably aside, then acknowledges it. `count` things of it are counted as refused.
async fn poison(
    parts: &ListenerParts,
    stop: &CancellationToken,
    delivery: Delivery,
    reason: &str,
    counter: &'static str,
    count: u64,
) -> Result<(), Stopped> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    while let Err(failure) = parts.poison.keep(reason, &delivery.message).await {
        if backoff.failures() == 0 {
            error!(error = %failure, "cannot set a notification aside; holding it");
        }
        if wait(parts, stop, backoff.next_wait()).await.is_err() {
            parts.room.returned(count);
            return Err(Stopped);
        }
    }
    let exchange = &delivery.message.exchange;
    warn!(exchange, message_id = delivery.message.message_id, reason, "a notification was set aside");
    parts.room.refused(counter, count);
    ack(delivery).await;
    Ok(())
}

async fn acknowledge(items: Vec<Item>) {
    for item in items {
        ack(item.delivery).await;
    }
}

/// An acknowledgement that does not arrive means a redelivery, which changes nothing.
async fn ack(delivery: Delivery) {
    if let Err(error) = delivery.receipt.ack().await {
        debug!(error = %error, "an acknowledgement was lost; the notification will come again");
    }
}

async fn wait(parts: &ListenerParts, stop: &CancellationToken, pause: Duration) -> Result<(), Stopped> {
    tokio::select! {
        () = stop.cancelled() => Err(Stopped),
        () = parts.clock.sleep(pause) => Ok(()),
    }
}

fn batch_of(settings: &NotificationSettings, items: &[Item]) -> Batch {
    let mut name = Vec::new();
    for item in items {
        name.extend_from_slice(&(item.message_id.len() as u64).to_le_bytes());
        name.extend_from_slice(item.message_id.as_bytes());
    }
    Batch {
        id: Uuid::new_v5(&BATCH_NAMESPACE, &name),
        origin: format!("notifications@{}", settings.host),
        samples: items.iter().flat_map(|item| item.translated.samples.iter().cloned()).collect(),
        events: items.iter().flat_map(|item| item.translated.events.iter().cloned()).collect(),
    }
}

/// Samples and events; what was dropped is counted already.
fn count_of(items: &[Item]) -> u64 {
    items.iter().map(|item| (item.translated.samples.len() + item.translated.events.len()) as u64).sum()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
