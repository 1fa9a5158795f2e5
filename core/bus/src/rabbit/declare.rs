//! Queues, exchanges and bindings. What exists with other arguments than ours is used as it is, and told once: an
//! operator's policy, or a real cloud's declarations, win.

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{BusError, Shared, answered, link::Link, unreachable};
use crate::{QueueKind, QueueSpec, topic::dead_queue};

/// Dead letters that are kept at most; beyond it the broker keeps them in the queue they come from.
const DEAD_LETTERS_MAX: u32 = 100_000;
/// AMQP reply codes that leave a way out: not allowed to declare, locked by another, exists with other arguments.
const NOT_ALLOWED: [u16; 3] = [403, 405, 406];
/// AMQP reply code of something that does not exist.
const NOT_FOUND: u16 = 404;

/// Declares the queue, its dead-letter queue, its exchanges and bindings.
pub(super) async fn declare(shared: &Shared, link: &Link, spec: &QueueSpec) -> Result<(), BusError> {
    if let Some(dead) = dead_queue(&spec.name).filter(|_| spec.kind.is_quorum()) {
        declare_queue(shared, link, &dead, QueueKind::Quorum, quorum_arguments(DEAD_LETTERS_MAX)).await?;
    }
    declare_queue(shared, link, &spec.name, spec.kind, arguments(spec)).await?;
    for (exchange, routing_key) in &spec.bindings {
        declare_exchange(shared, link, exchange, spec.kind).await?;
        let channel = link.channel().await?;
        let bound = answered(channel.queue_bind(
            short(&spec.name)?,
            short(exchange)?,
            short(routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        ));
        bound.await.map_err(refusal)?;
    }
    Ok(())
}

/// Whether the exchange exists; asked once per link. Publishing to one that does not would cost the channel.
pub(super) async fn exchange_exists(link: &Link, exchange: &str) -> Result<bool, BusError> {
    // The default exchange has no name and always exists.
    if exchange.is_empty() || link.exchanges.lock().contains(exchange) {
        return Ok(true);
    }
    match passive_exchange(link, exchange).await? {
        Ok(()) => {
            link.exchanges.lock().insert(exchange.to_owned());
            Ok(true)
        }
        Err(error) if reply_code(&error) == Some(NOT_FOUND) => Ok(false),
        Err(error) => Err(refusal(error)),
    }
}

/// A quorum queue that never drops: it refuses when full, and hands dead letters on only when they are safe.
fn arguments(spec: &QueueSpec) -> FieldTable {
    if !spec.kind.is_quorum() {
        // As oslo.messaging declares: no arguments.
        return FieldTable::default();
    }
    let mut table = quorum_arguments(spec.length_max);
    if spec.kind == QueueKind::QuorumSingleActive {
        table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    if let Some(dead) = dead_queue(&spec.name) {
        // RabbitMQ counts failed deliveries and acts when they exceed the limit, so a limit of n - 1 means n deliveries
        // in all.
        table.insert("x-delivery-limit".into(), AMQPValue::LongUInt(spec.delivery_limit.saturating_sub(1)));
        table.insert("x-dead-letter-exchange".into(), text(""));
        table.insert("x-dead-letter-routing-key".into(), text(&dead));
        table.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    table
}

fn quorum_arguments(length_max: u32) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    table.insert("x-max-length".into(), AMQPValue::LongUInt(length_max));
    table.insert("x-overflow".into(), text("reject-publish"));
    table
}

async fn declare_queue(
    shared: &Shared,
    link: &Link,
    name: &str,
    kind: QueueKind,
    arguments: FieldTable,
) -> Result<(), BusError> {
    // A refused declaration closes its channel, so each has one of its own.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { durable: kind.is_quorum(), ..Default::default() };
    match answered(channel.queue_declare(short(name)?, options, arguments)).await {
        Ok(_) => Ok(()),
        Err(error) if reply_code(&error).is_some_and(|code| NOT_ALLOWED.contains(&code)) => {
            let channel = link.channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            answered(channel.queue_declare(short(name)?, passive, FieldTable::default())).await.map_err(refusal)?;
            shared.tell_once(&format!("queue `{name}` exists with other arguments than ours; using it as it is"));
            Ok(())
        }
        Err(error) => Err(refusal(error)),
    }
}

async fn declare_exchange(shared: &Shared, link: &Link, name: &str, kind: QueueKind) -> Result<(), BusError> {
    if link.exchanges.lock().contains(name) {
        return Ok(());
    }
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions { durable: kind.is_quorum(), ..Default::default() };
    let declared =
        answered(channel.exchange_declare(short(name)?, ExchangeKind::Topic, options, FieldTable::default())).await;
    match declared {
        Ok(()) => {}
        Err(error) if reply_code(&error).is_some_and(|code| NOT_ALLOWED.contains(&code)) => {
            passive_exchange(link, name).await?.map_err(refusal)?;
            shared.tell_once(&format!("exchange `{name}` exists with other arguments than ours; using it as it is"));
        }
        Err(error) => return Err(refusal(error)),
    }
    link.exchanges.lock().insert(name.to_owned());
    Ok(())
}

async fn passive_exchange(link: &Link, name: &str) -> Result<Result<(), lapin::Error>, BusError> {
    let channel = link.channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    Ok(answered(channel.exchange_declare(short(name)?, ExchangeKind::Topic, passive, FieldTable::default())).await)
}

/// The broker's no, or no broker.
fn refusal(error: lapin::Error) -> BusError {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(protocol) if error.is_amqp_soft_error() => {
            BusError::Refused { reason: protocol.get_message().to_string() }
        }
        _ => unreachable(error),
    }
}

fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(protocol) => Some(protocol.get_id()),
        _ => None,
    }
}

/// A name in AMQP's short form, at most 255 bytes.
pub(super) fn short(name: &str) -> Result<ShortString, BusError> {
    ShortString::try_new(name)
        .map_err(|_| BusError::Refused { reason: "a name on the bus may have 255 bytes at most".to_owned() })
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{self, samples_queue};

    #[test]
    fn a_shards_queue_drops_nothing_and_has_one_active_consumer() {
        let spec = samples_queue(3);
        let table = arguments(&spec);
        let found = |name: &str| table.inner().get(name).cloned();
        for (name, value) in [
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            // Both are needed for dead letters that are never lost; the default strategy can lose them.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("orzo.samples.3.dead")),
            ("x-delivery-limit", AMQPValue::LongUInt(topic::SAMPLE_DELIVERIES_MAX - 1)),
            ("x-max-length", AMQPValue::LongUInt(topic::SAMPLE_BATCHES_MAX)),
        ] {
            assert_eq!(found(name), Some(value), "{name}");
        }
        let shared = arguments(&QueueSpec { kind: QueueKind::Quorum, ..spec.clone() });
        assert!(!shared.inner().contains_key("x-single-active-consumer"));
        // Dead letters are for people: no limit on looking at them, and nowhere further to go.
        let dead = arguments(&QueueSpec { name: "q.dead".to_owned(), kind: QueueKind::Quorum, ..spec.clone() });
        assert!(!dead.inner().contains_key("x-delivery-limit"));
        let oslo = arguments(&QueueSpec { kind: QueueKind::OsloClassic, ..spec });
        assert!(oslo.inner().is_empty());
    }
}
