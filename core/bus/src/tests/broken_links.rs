//! What happens to messages when connections and brokers die: nothing is lost, and nothing is acknowledged by mistake.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use orzo_model::SystemClock;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Publishing at once.
const PUBLISHERS: u32 = 4;

/// A wire that a test can cut.
struct Wire {
    address: SocketAddr,
    cut: watch::Sender<u64>,
}

impl Wire {
    async fn to(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(0);
        let cuts = cut.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = TcpStream::connect(&broker).await else { continue };
                let mut cuts = cuts.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

/// Publishers that send until the trouble is over and each message is confirmed, and a consumer that counts how often
/// each came.
async fn every_message_survives(bus: Arc<dyn Bus>, trouble: impl Future<Output = ()> + Send + 'static) {
    let names = Arc::new(Names::new());
    let queue = QueueSpec { delivery_limit: 1000, length_max: 1_000_000, ..names.queue("q", "k") };
    let mut subscription = bus.subscribe(&queue, 20).await.unwrap();
    while bus.declare(&queue).await.is_err() {}
    let (seen, mut all) = tokio::sync::mpsc::unbounded_channel();
    let consumer = tokio::spawn(async move {
        while let Some(delivery) = subscription.next().await {
            let body = body(&delivery);
            // An acknowledgement that does not arrive means that the message comes again.
            let _ = delivery.receipt.ack().await;
            let _ = seen.send(body);
        }
    });
    let over = CancellationToken::new();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (bus, names, over) = (bus.clone(), names.clone(), over.clone());
            tokio::spawn(async move {
                let (mut sent, mut again) = (Vec::new(), 0);
                while !over.is_cancelled() {
                    let body = format!("{publisher}-{}", sent.len());
                    while let Err(error) = bus.publish(names.message("k", &body)).await {
                        assert!(error.is_retryable(), "{error:?}");
                        again += 1;
                    }
                    sent.push(body);
                }
                (sent, again)
            })
        })
        .collect();
    trouble.await;
    over.cancel();
    let (mut waiting, mut again) = (BTreeSet::new(), 0);
    for publisher in publishers {
        let (sent, sent_again) = tokio::time::timeout(WAIT * 2, publisher).await.expect("publishing goes on").unwrap();
        waiting.extend(sent);
        again += sent_again;
    }
    let (confirmed, mut delivered) = (waiting.len(), 0);
    while !waiting.is_empty() {
        let body = tokio::time::timeout(WAIT * 2, all.recv()).await.expect("every confirmed message arrives").unwrap();
        delivered += 1;
        waiting.remove(&body);
    }
    println!("{confirmed} messages confirmed, {again} sent again, {delivered} deliveries, none lost");
    bus.close().await;
    consumer.await.unwrap();
}

/// A bus whose wire can be cut.
async fn wired(url: &str) -> (Arc<dyn Bus>, Wire) {
    let mut url = url::Url::parse(url).unwrap();
    let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let wire = Wire::to(broker).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(wire.address.port())).unwrap();
    let bus = RabbitBus::connect_with(url.as_str(), settings(WAIT), SystemClock::shared()).unwrap();
    (Arc::new(bus), wire)
}

/// A delivery tag counts from one on every channel: an acknowledgement by an old one would hit another message, or
/// cost the new channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_of_a_broken_connection_acknowledges_nothing_on_the_next_one() {
    let Ok(url) = std::env::var("ORZO_TEST_AMQP") else { return };
    let _alive = BROKER.read().await;
    let (bus, wire) = wired(&url).await;
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 10).await.unwrap();
    while bus.declare(&queue).await.is_err() {}
    for name in ["a", "b"] {
        bus.publish(names.message("k", name)).await.unwrap();
    }
    let (first, second) = (next(&mut subscription).await, next(&mut subscription).await);
    wire.cut();
    // Both come again, on another channel, with the same tags.
    let again = [next(&mut subscription).await, next(&mut subscription).await];
    first.receipt.ack().await.unwrap();
    second.receipt.reject(false).await.unwrap();
    assert!(again.iter().all(|delivery| delivery.redeliveries > 0));
    // The old answers took nothing away: unanswered, both come once more, and the channel still stands.
    drop(again);
    let mut bodies = BTreeSet::new();
    while bodies.len() < 2 {
        let delivery = next(&mut subscription).await;
        bodies.insert(body(&delivery));
        delivery.receipt.ack().await.unwrap();
    }
    assert!(nothing_comes(&mut subscription).await);
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_its_consumer_is_declared_again_and_nobody_else_notices() {
    let Ok(url) = std::env::var("ORZO_TEST_AMQP") else { return };
    let _alive = BROKER.read().await;
    let bus = rabbit(WAIT).unwrap();
    let names = Names::new();
    let (deleted, other) = (names.queue("deleted", "k"), names.queue("other", "o"));
    let mut subscriptions = Vec::new();
    for queue in [&deleted, &other] {
        subscriptions.push(bus.subscribe(queue, 10).await.unwrap());
        while bus.declare(queue).await.is_err() {}
    }
    for (subscription, key) in subscriptions.iter_mut().zip(["k", "o"]) {
        let published = publish(&bus, names.message(key, "before"));
        next(subscription).await.receipt.ack().await.unwrap();
        published.await.unwrap().unwrap();
    }
    let in_hand = {
        bus.publish(names.message("o", "held")).await.unwrap();
        next(&mut subscriptions[1]).await
    };
    let mut url = url::Url::parse(&url).unwrap();
    if matches!(url.path(), "" | "/") {
        url.set_path("/%2f");
    }
    let operator = lapin::Connection::connect(url.as_str(), Default::default()).await.unwrap();
    let channel = operator.create_channel().await.unwrap();
    channel.queue_delete(deleted.name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    let sending = tokio::spawn({
        let (bus, message) = (bus.clone(), names.message("k", "after"));
        async move { while bus.publish(message.clone()).await.is_err() {} }
    });
    let delivery = next(&mut subscriptions[0]).await;
    assert_eq!(body(&delivery), "after");
    delivery.receipt.ack().await.unwrap();
    sending.await.unwrap();
    // The other consumer's channel was not touched: what it holds is still its own.
    in_hand.receipt.ack().await.unwrap();
    assert!(nothing_comes(&mut subscriptions[1]).await);
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_wires_lose_nothing() {
    let Ok(url) = std::env::var("ORZO_TEST_AMQP") else { return };
    let _alive = BROKER.read().await;
    let (bus, wire) = wired(&url).await;
    every_message_survives(bus, async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            wire.cut();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing() {
    let (Ok(url), Ok(restart)) = (std::env::var("ORZO_TEST_AMQP"), std::env::var("ORZO_TEST_AMQP_RESTART")) else {
        return;
    };
    let _dying = BROKER.write().await;
    let bus = RabbitBus::connect_with(&url, settings(WAIT), SystemClock::shared()).unwrap();
    every_message_survives(Arc::new(bus), async move {
        // A queue that was declared a moment before a kill may come back without its member (RabbitMQ 3.10).
        tokio::time::sleep(Duration::from_secs(5)).await;
        let status = tokio::process::Command::new("sh").arg("-c").arg(restart).status().await.unwrap();
        assert!(status.success(), "the restart command failed");
    })
    .await;
}
