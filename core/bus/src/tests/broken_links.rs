//! What happens to messages when connections and brokers die: nothing is lost, and nothing is acknowledged by mistake.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use orzo_model::SystemClock;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::*;

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

/// A publisher that sends `count` messages until each is confirmed, and a consumer that counts how often each came.
async fn every_message_survives(bus: Arc<dyn Bus>, count: usize, trouble: impl Future<Output = ()> + Send + 'static) {
    let names = Arc::new(Names::new());
    let queue = QueueSpec { delivery_limit: 1000, length_max: 100_000, ..names.queue("q", "k") };
    let mut subscription = bus.subscribe(&queue, 20).await.unwrap();
    while bus.declare(&queue).await.is_err() {}
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let done = CancellationToken::new();
    let consumer = tokio::spawn({
        let (seen, done) = (seen.clone(), done.clone());
        async move {
            while let Some(delivery) = subscription.next().await {
                *seen.lock().unwrap().entry(body(&delivery)).or_default() += 1;
                let acknowledged = delivery.receipt.ack().await.is_ok();
                if acknowledged && seen.lock().unwrap().len() == count {
                    done.cancel();
                }
            }
        }
    });
    let trouble = tokio::spawn(trouble);
    let mut publishers = Vec::new();
    for part in 0..4 {
        let (bus, names) = (bus.clone(), names.clone());
        publishers.push(tokio::spawn(async move {
            let mut retries = 0;
            for number in (part..count).step_by(4) {
                while let Err(error) = bus.publish(names.message("k", &number.to_string())).await {
                    assert!(error.is_retryable(), "{error:?}");
                    retries += 1;
                    assert!(retries < 10_000, "{error:?}");
                }
            }
            retries
        }));
    }
    let mut retries = 0;
    for publisher in publishers {
        retries += publisher.await.unwrap();
    }
    trouble.await.unwrap();
    tokio::time::timeout(WAIT * 4, done.cancelled()).await.expect("every confirmed message arrives");
    let repeated = seen.lock().unwrap().values().filter(|times| **times > 1).count();
    println!("{count} messages, {retries} sent again, {repeated} delivered again, none lost");
    bus.close().await;
    consumer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_wires_lose_nothing() {
    let Ok(url) = std::env::var("ORZO_TEST_AMQP") else { return };
    let _alive = BROKER.read().await;
    let mut url = url::Url::parse(&url).unwrap();
    let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let wire = Wire::to(broker).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(wire.address.port())).unwrap();
    let bus = RabbitBus::connect_with(url.as_str(), settings(WAIT), SystemClock::shared()).unwrap();
    let bus: Arc<dyn Bus> = Arc::new(bus);
    every_message_survives(bus, 2000, async move {
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
    every_message_survives(Arc::new(bus), 4000, async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = tokio::process::Command::new("sh").arg("-c").arg(restart).status().await.unwrap();
        assert!(status.success(), "the restart command failed");
    })
    .await;
}
