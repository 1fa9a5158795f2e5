//! One suite for both buses: whatever holds for RabbitMQ holds for its twin. The twin is always tested; RabbitMQ when
//! `ORZO_TEST_AMQP` holds its URL, and its restart when `ORZO_TEST_AMQP_RESTART` holds a command that kills and starts
//! it.

mod broken_links;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use orzo_model::SystemClock;
use uuid::Uuid;

use crate::*;

/// Long enough for a slow broker, short enough for a test that fails.
const WAIT: Duration = Duration::from_secs(30);
/// How long nothing must happen to believe that it does not.
const QUIET: Duration = Duration::from_millis(300);

/// Held by whoever needs the broker alive; taken whole by the test that kills it.
static BROKER: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

type MakeBus = fn(Duration) -> Option<Arc<dyn Bus>>;

fn in_process(wait: Duration) -> Option<Arc<dyn Bus>> {
    Some(Arc::new(InProcessBus::with_confirm_wait(SystemClock::shared(), wait)))
}

/// `ORZO_TEST_AMQP_CA` names a file with the authority that an `amqps://` URL needs.
fn settings(confirm_wait: Duration) -> RabbitSettings {
    let authorities_pem = std::env::var("ORZO_TEST_AMQP_CA").ok().map(|file| std::fs::read_to_string(file).unwrap());
    RabbitSettings { connection_name: "orzo-test".to_owned(), authorities_pem, confirm_wait }
}

fn rabbit(wait: Duration) -> Option<Arc<dyn Bus>> {
    let url = std::env::var("ORZO_TEST_AMQP").ok()?;
    Some(Arc::new(RabbitBus::connect_with(&url, settings(wait), SystemClock::shared()).unwrap()))
}

/// Names of its own for each test, so that tests and runs do not meet on one broker.
struct Names {
    unique: String,
}

impl Names {
    fn new() -> Self {
        Self { unique: format!("test-{}", Uuid::new_v4().simple()) }
    }

    fn queue(&self, name: &str, key: &str) -> QueueSpec {
        QueueSpec {
            name: format!("{}-{name}", self.unique),
            kind: QueueKind::Quorum,
            bindings: vec![(self.unique.clone(), key.to_owned())],
            delivery_limit: 5,
            length_max: 1000,
        }
    }

    fn message(&self, key: &str, body: &str) -> Message {
        Message {
            exchange: self.unique.clone(),
            routing_key: key.to_owned(),
            message_id: format!("id-{body}"),
            content_type: "text/plain".to_owned(),
            headers: BTreeMap::from([("origin".to_owned(), "test".to_owned())]),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }
}

fn publish(bus: &Arc<dyn Bus>, message: Message) -> tokio::task::JoinHandle<Result<(), BusError>> {
    let bus = bus.clone();
    tokio::spawn(async move { bus.publish(message).await })
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    tokio::time::timeout(WAIT, subscription.next()).await.expect("a delivery in time").expect("the bus is open")
}

async fn nothing_comes(subscription: &mut Box<dyn Subscription>) -> bool {
    tokio::time::timeout(QUIET, subscription.next()).await.is_err()
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

async fn what_is_published_is_delivered_as_it_was(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let mut wide = bus.subscribe(&names.queue("wide", "notifications.*"), 10).await.unwrap();
    let mut narrow = bus.subscribe(&names.queue("narrow", "notifications.error"), 10).await.unwrap();
    bus.declare(&names.queue("wide", "notifications.*")).await.unwrap();
    bus.declare(&names.queue("narrow", "notifications.error")).await.unwrap();
    let sent = names.message("notifications.error", "a");
    let published = publish(&bus, sent.clone());
    for subscription in [&mut wide, &mut narrow] {
        let delivery = next(subscription).await;
        assert_eq!(delivery.message, sent);
        assert_eq!(delivery.redeliveries, 0);
        delivery.receipt.ack().await.unwrap();
    }
    published.await.unwrap().unwrap();
    let published = publish(&bus, names.message("notifications.info", "b"));
    let delivery = next(&mut wide).await;
    assert_eq!(body(&delivery), "b");
    delivery.receipt.ack().await.unwrap();
    published.await.unwrap().unwrap();
    assert!(nothing_comes(&mut narrow).await);
    assert!(nothing_comes(&mut wide).await, "acknowledged is not delivered again");
    bus.close().await;
}

async fn what_is_not_acknowledged_comes_again(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 10).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published = publish(&bus, names.message("k", "a"));
    drop(next(&mut subscription).await);
    let again = next(&mut subscription).await;
    assert_eq!((body(&again).as_str(), again.redeliveries), ("a", 1));
    again.receipt.reject(true).await.unwrap();
    let again = next(&mut subscription).await;
    assert_eq!((body(&again).as_str(), again.redeliveries), ("a", 2));
    again.receipt.ack().await.unwrap();
    published.await.unwrap().unwrap();
    assert!(nothing_comes(&mut subscription).await);
    bus.close().await;
}

async fn a_vanished_consumers_messages_go_to_another(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut first = bus.subscribe(&queue, 10).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published = publish(&bus, names.message("k", "a"));
    let delivery = next(&mut first).await;
    drop(first);
    drop(delivery);
    let mut second = bus.subscribe(&queue, 10).await.unwrap();
    let delivery = next(&mut second).await;
    assert_eq!(body(&delivery), "a");
    delivery.receipt.ack().await.unwrap();
    published.await.unwrap().unwrap();
    bus.close().await;
}

async fn beyond_the_limit_a_message_is_set_aside(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 10).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published = publish(&bus, names.message("k", "poison"));
    for delivery_number in 0..queue.delivery_limit {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.redeliveries, delivery_number);
        delivery.receipt.reject(true).await.unwrap();
    }
    let dead = QueueSpec { name: format!("{}.dead", queue.name), bindings: vec![], ..queue };
    let mut dead = bus.subscribe(&dead, 10).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(body(&delivery), "poison");
    delivery.receipt.ack().await.unwrap();
    assert!(nothing_comes(&mut subscription).await);
    // RabbitMQ had it safe long before; the twin says that nobody took it.
    match (bus.kind(), published.await.unwrap()) {
        ("rabbitmq", Ok(())) | ("in-process", Err(BusError::Refused { .. })) => {}
        (kind, outcome) => panic!("{kind}: {outcome:?}"),
    }
    bus.close().await;
}

async fn a_message_rejected_for_good_is_set_aside_at_once(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 10).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published = publish(&bus, names.message("k", "poison"));
    next(&mut subscription).await.receipt.reject(false).await.unwrap();
    let _ = published.await.unwrap();
    let dead = QueueSpec { name: format!("{}.dead", queue.name), bindings: vec![], ..queue };
    let mut dead = bus.subscribe(&dead, 10).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(body(&delivery), "poison");
    delivery.receipt.ack().await.unwrap();
    bus.close().await;
}

async fn what_no_queue_takes_is_an_error_also_among_many(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let unknown = bus.publish(names.message("k", "a")).await;
    assert!(matches!(unknown, Err(BusError::Unroutable { .. })), "{unknown:?}");
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 200).await.unwrap();
    bus.declare(&queue).await.unwrap();
    // Routable and unroutable ones mixed and at once: each publisher must get its own answer.
    let mut outcomes = FuturesUnordered::new();
    for number in 0..200 {
        let key = if number % 3 == 0 { "nobody" } else { "k" };
        let published = publish(&bus, names.message(key, &number.to_string()));
        outcomes.push(async move { (number, published.await.unwrap()) });
    }
    let consumer = tokio::spawn(async move {
        for _ in 0..(0..200).filter(|number| number % 3 != 0).count() {
            next(&mut subscription).await.receipt.ack().await.unwrap();
        }
    });
    while let Some((number, outcome)) = outcomes.next().await {
        if number % 3 == 0 {
            assert!(matches!(outcome, Err(BusError::Unroutable { .. })), "{number}: {outcome:?}");
        } else {
            outcome.unwrap();
        }
    }
    consumer.await.unwrap();
    bus.close().await;
}

async fn consumers_compete(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let (seen, mut all) = tokio::sync::mpsc::unbounded_channel();
    for consumer in 0..2 {
        let mut subscription = bus.subscribe(&queue, 2).await.unwrap();
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(delivery) = subscription.next().await {
                let body = body(&delivery);
                delivery.receipt.ack().await.unwrap();
                let _ = seen.send((consumer, body));
            }
        });
    }
    bus.declare(&queue).await.unwrap();
    let published: Vec<_> = (0..100).map(|number| publish(&bus, names.message("k", &number.to_string()))).collect();
    for published in published {
        published.await.unwrap().unwrap();
    }
    let mut got: Vec<(i32, String)> = Vec::new();
    while got.len() < 100 {
        got.push(tokio::time::timeout(WAIT, all.recv()).await.expect("all arrive").unwrap());
    }
    let mut numbers: Vec<u32> = got.iter().map(|(_, body)| body.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "each exactly once");
    bus.close().await;
}

async fn of_a_shards_consumers_one_is_active_and_the_next_takes_over(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = QueueSpec { kind: QueueKind::QuorumSingleActive, ..names.queue("shard", "k") };
    let mut first = bus.subscribe(&queue, 2).await.unwrap();
    while bus.declare(&queue).await.is_err() {}
    let published = publish(&bus, names.message("k", "a"));
    // Now it is the active one: a subscription consumes from its first wait on.
    next(&mut first).await.receipt.ack().await.unwrap();
    published.await.unwrap().unwrap();
    let mut second = bus.subscribe(&queue, 2).await.unwrap();
    assert!(nothing_comes(&mut second).await);
    let mut published = Vec::new();
    for name in ["b", "c", "d", "e"] {
        published.push(publish(&bus, names.message("k", name)));
    }
    let in_hand = [next(&mut first).await, next(&mut first).await];
    // Its hands are full, two more wait: still they are not another's.
    assert!(nothing_comes(&mut second).await);
    // It dies with both; the other has all four.
    drop(first);
    drop(in_hand);
    let mut bodies = std::collections::BTreeSet::new();
    while bodies.len() < 4 {
        let delivery = next(&mut second).await;
        bodies.insert(body(&delivery));
        delivery.receipt.ack().await.unwrap();
    }
    assert_eq!(bodies, ["b", "c", "d", "e"].map(str::to_owned).into());
    for published in published {
        published.await.unwrap().unwrap();
    }
    bus.close().await;
}

async fn prefetch_bounds_what_is_in_hand(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 2).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published: Vec<_> = (0..3).map(|number| publish(&bus, names.message("k", &number.to_string()))).collect();
    let first = next(&mut subscription).await;
    let second = next(&mut subscription).await;
    assert!(nothing_comes(&mut subscription).await, "two in hand, no third");
    first.receipt.ack().await.unwrap();
    let third = next(&mut subscription).await;
    for delivery in [second, third] {
        delivery.receipt.ack().await.unwrap();
    }
    for published in published {
        published.await.unwrap().unwrap();
    }
    bus.close().await;
}

async fn a_full_queue_says_so(make: MakeBus) {
    let Some(bus) = make(Duration::from_secs(3)) else { return };
    let names = Names::new();
    let queue = QueueSpec { length_max: 2, ..names.queue("q", "k") };
    bus.declare(&queue).await.unwrap();
    let mut full = 0;
    // RabbitMQ looks at the limit now and then only, so the first rounds may all be taken.
    for _round in 0..20 {
        let published: Vec<_> = (0..20).map(|number| publish(&bus, names.message("k", &number.to_string()))).collect();
        for published in published {
            match published.await.unwrap() {
                Err(BusError::Full { queue: name, length_max: 2 }) if name == queue.name => full += 1,
                // Confirmed by the broker, or in the twin's queue without a consumer.
                Ok(()) | Err(BusError::Timeout { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        if full > 0 {
            break;
        }
    }
    assert!(full > 0);
    bus.close().await;
}

async fn a_closed_bus_says_so(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = names.queue("q", "k");
    let mut subscription = bus.subscribe(&queue, 2).await.unwrap();
    bus.declare(&queue).await.unwrap();
    assert!(bus.is_connected().await);
    let waiting = tokio::spawn(async move { subscription.next().await.is_none() });
    tokio::task::yield_now().await;
    bus.close().await;
    assert!(tokio::time::timeout(WAIT, waiting).await.expect("the consumer ends").unwrap());
    assert!(matches!(bus.publish(names.message("k", "a")).await, Err(BusError::Closed)));
    assert!(matches!(bus.declare(&queue).await, Err(BusError::Closed)));
    assert!(!bus.is_connected().await);
}

async fn oslos_queues_work_too(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let queue = QueueSpec { kind: QueueKind::OsloClassic, ..names.queue("notifications.info", "notifications.info") };
    let mut subscription = bus.subscribe(&queue, 2).await.unwrap();
    bus.declare(&queue).await.unwrap();
    let published = publish(&bus, names.message("notifications.info", "a"));
    let delivery = next(&mut subscription).await;
    assert_eq!(body(&delivery), "a");
    drop(delivery);
    let again = next(&mut subscription).await;
    assert_eq!((body(&again).as_str(), again.redeliveries), ("a", 1));
    again.receipt.ack().await.unwrap();
    published.await.unwrap().unwrap();
    bus.close().await;
}

async fn ok_means_that_every_queue_has_it(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    let mut first = bus.subscribe(&names.queue("first", "k"), 10).await.unwrap();
    let mut second = bus.subscribe(&names.queue("second", "k"), 10).await.unwrap();
    bus.declare(&names.queue("first", "k")).await.unwrap();
    bus.declare(&names.queue("second", "k")).await.unwrap();
    let mut published = publish(&bus, names.message("k", "a"));
    next(&mut first).await.receipt.ack().await.unwrap();
    // RabbitMQ's own disk is what makes it safe there; in the twin only a consumer can.
    let early = tokio::time::timeout(QUIET, &mut published).await;
    assert_eq!(early.is_ok(), bus.kind() == "rabbitmq");
    next(&mut second).await.receipt.ack().await.unwrap();
    if let Err(_still_waiting) = early {
        published.await.unwrap().unwrap();
    }
    bus.close().await;
}

async fn what_exists_with_other_arguments_is_used_as_it_is(make: MakeBus) {
    let Some(bus) = make(WAIT) else { return };
    let names = Names::new();
    bus.declare(&names.queue("q", "k")).await.unwrap();
    // Another length, another kind on the same exchange, as a real cloud's services may have declared them.
    let other = QueueSpec { length_max: 7, ..names.queue("q", "k") };
    let oslo = QueueSpec { kind: QueueKind::OsloClassic, ..names.queue("oslo", "k") };
    let mut subscription = bus.subscribe(&other, 10).await.unwrap();
    let mut oslos = bus.subscribe(&oslo, 10).await.unwrap();
    bus.declare(&other).await.unwrap();
    bus.declare(&oslo).await.unwrap();
    let published = publish(&bus, names.message("k", "a"));
    for subscription in [&mut subscription, &mut oslos] {
        let delivery = next(subscription).await;
        assert_eq!(body(&delivery), "a");
        delivery.receipt.ack().await.unwrap();
    }
    published.await.unwrap().unwrap();
    bus.close().await;
}

macro_rules! on_both_buses {
    ($($test:ident),* $(,)?) => {
        mod the_twin {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::in_process).await; })*
        }
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let _alive = super::BROKER.read().await;
                super::$test(super::rabbit).await;
            })*
        }
    };
}

on_both_buses!(
    what_is_published_is_delivered_as_it_was,
    what_is_not_acknowledged_comes_again,
    a_vanished_consumers_messages_go_to_another,
    beyond_the_limit_a_message_is_set_aside,
    a_message_rejected_for_good_is_set_aside_at_once,
    what_no_queue_takes_is_an_error_also_among_many,
    consumers_compete,
    of_a_shards_consumers_one_is_active_and_the_next_takes_over,
    prefetch_bounds_what_is_in_hand,
    a_full_queue_says_so,
    a_closed_bus_says_so,
    oslos_queues_work_too,
    ok_means_that_every_queue_has_it,
    what_exists_with_other_arguments_is_used_as_it_is,
);

#[tokio::test]
async fn a_twins_publisher_that_gives_up_loses_nothing() {
    let bus = in_process(Duration::from_millis(20)).unwrap();
    let names = Names::new();
    let queue = names.queue("q", "k");
    bus.declare(&queue).await.unwrap();
    assert!(matches!(bus.publish(names.message("k", "a")).await, Err(BusError::Timeout { .. })));
}

#[tokio::test]
async fn a_twins_message_sent_again_while_it_waits_is_one_message() {
    let twin = InProcessBus::new(SystemClock::shared());
    let bus: Arc<dyn Bus> = Arc::new(twin.clone());
    let names = Names::new();
    let queue = names.queue("q", "k");
    bus.declare(&queue).await.unwrap();
    let twice = [publish(&bus, names.message("k", "a")), publish(&bus, names.message("k", "a"))];
    // On one thread both tasks run to where they wait before this one goes on.
    tokio::task::yield_now().await;
    assert_eq!(twin.waiting(&queue.name), 1);
    let mut subscription = bus.subscribe(&queue, 2).await.unwrap();
    next(&mut subscription).await.receipt.ack().await.unwrap();
    for published in twice {
        published.await.unwrap().unwrap();
    }
    assert_eq!(twin.waiting(&queue.name), 0);
}

#[tokio::test]
async fn a_bad_url_is_refused_without_repeating_it() {
    let Err(error) = RabbitBus::connect("http://user:secret@host", "orzo-test", SystemClock::shared()) else {
        panic!("accepted")
    };
    assert!(matches!(error, BusError::Refused { .. }));
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn without_a_broker_calls_say_so() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("amqp://user:secret@127.0.0.1:{port}/");
    let bus = RabbitBus::connect_with(&url, settings(Duration::from_millis(200)), SystemClock::shared()).unwrap();
    let outcome = bus.publish(Names::new().message("k", "a")).await;
    let error = outcome.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(!error.to_string().contains("secret"));
    assert!(!bus.is_connected().await);
    bus.close().await;
}
