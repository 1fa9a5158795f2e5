//! The bus over RabbitMQ (AMQP 0-9-1, by lapin, which only this room knows).
//!
//! One connection at a time, kept by a task of its own that reconnects for ever with full jitter. Each connection is a
//! `Link` with an epoch; channels, deliveries and receipts belong to one link and die with it: a receipt of an old
//! link does nothing, because a delivery tag means something else on a new channel. lapin's own recovery is off.
//!
//! `publish` uses publisher confirms and `mandatory`. A channel carries one unconfirmed message at a time, because
//! lapin 4.12 hands a returned message to whichever confirmation comes next on the channel: with two in flight, an
//! unroutable message could look confirmed. Many publishes run at once on a pool of channels instead.
//!
//! This room does not know what travels.

mod consume;
mod declare;
mod link;
mod publish;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lapin::uri::AMQPUri;
use orzo_model::SharedClock;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{Bus, BusError, Message, QueueSpec, Subscription};
use link::Link;

/// First ceiling of the wait before connecting again.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Largest wait before connecting again: a restarted broker is found within half a minute.
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Connecting (TCP, TLS, handshake) takes at most this long.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Anything the broker is asked for (declare, bind, consume) is answered within this time, or the link is bad.
pub const ANSWER_MAX: Duration = Duration::from_secs(15);
/// A publish ends within this time, waiting for a connection and for a full queue included.
pub const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(30);
/// Publishes under way at once; RabbitMQ's default limit is 2,047 channels a connection.
pub const PUBLISHES_MAX: usize = 32;
/// Largest message body: RabbitMQ's own default limit is 128 MiB, and nothing of ours is near either.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Seconds between heartbeats if the URL does not say: a dead peer is noticed within twice that.
const HEARTBEAT_SECONDS: u16 = 10;

/// What can be chosen about the connection.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// How the broker's operators see us.
    pub connection_name: String,
    /// For `amqps://`: certificates (PEM) of authorities to trust besides the system's, such as a cloud's own.
    pub authorities_pem: Option<String>,
    /// A publish ends within this time.
    pub confirm_wait: Duration,
}

impl Default for RabbitSettings {
    fn default() -> Self {
        Self { connection_name: "orzo".to_owned(), authorities_pem: None, confirm_wait: CONFIRM_WAIT_MAX }
    }
}

/// RabbitMQ. Clones share the connection.
#[derive(Clone)]
pub struct RabbitBus {
    shared: Arc<Shared>,
}

struct Shared {
    uri: AMQPUri,
    /// For logs: without the password.
    place: String,
    settings: RabbitSettings,
    clock: SharedClock,
    link: watch::Sender<Option<Arc<Link>>>,
    stop: CancellationToken,
    publishes: Semaphore,
    /// What was declared, to say it again after a reconnect: the broker may have forgotten (oslo's are not durable).
    declared: Mutex<BTreeMap<String, QueueSpec>>,
    /// Queues and exchanges found with other arguments than ours, told once each.
    told: Mutex<BTreeSet<String>>,
}

impl RabbitBus {
    /// A bus that connects by `amqp://user:password@host:port/vhost` or `amqps://...` in the background, and again
    /// whenever the connection breaks. Fails only for a URL that cannot be understood; until a connection stands,
    /// calls wait a little and then say [`BusError::Unreachable`].
    pub fn connect(url: &str, connection_name: &str, clock: SharedClock) -> Result<Self, BusError> {
        let settings = RabbitSettings { connection_name: connection_name.to_owned(), ..RabbitSettings::default() };
        Self::connect_with(url, settings, clock)
    }

    /// As [`Self::connect`], with all that can be chosen.
    pub fn connect_with(url: &str, settings: RabbitSettings, clock: SharedClock) -> Result<Self, BusError> {
        // The URL may hold a password: neither it nor the parser's words about it are repeated.
        let refused =
            || BusError::Refused { reason: "the message bus URL is not amqp://... or amqps://...".to_owned() };
        let parsed = url::Url::parse(url).map_err(|_| refused())?;
        let mut uri: AMQPUri = url.parse().map_err(|_: String| refused())?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        // A path of "/" means the default virtual host to people and to oslo.messaging.
        if matches!(parsed.path(), "" | "/") {
            uri.vhost = "/".to_owned();
        }
        let place = format!("{}:{}", uri.authority.host, uri.authority.port);
        let shared = Arc::new(Shared {
            uri,
            place,
            settings,
            clock,
            link: watch::Sender::new(None),
            stop: CancellationToken::new(),
            publishes: Semaphore::new(PUBLISHES_MAX),
            declared: Mutex::default(),
            told: Mutex::default(),
        });
        tokio::spawn(link::keep(shared.clone()));
        Ok(Self { shared })
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BusError> {
        self.shared.declared.lock().insert(queue.name.clone(), queue.clone());
        let link = self.shared.link_within(ANSWER_MAX).await?;
        declare::declare(&self.shared, &link, queue).await
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        publish::publish(&self.shared, message).await
    }

    async fn subscribe(&self, queue: &QueueSpec, prefetch: u16) -> Result<Box<dyn Subscription>, BusError> {
        if self.shared.stop.is_cancelled() {
            return Err(BusError::Closed);
        }
        self.shared.declared.lock().insert(queue.name.clone(), queue.clone());
        Ok(Box::new(consume::RabbitSubscription::new(self.shared.clone(), queue.clone(), prefetch)))
    }

    async fn close(&self) {
        self.shared.stop.cancel();
        let link = self.shared.link.send_replace(None);
        if let Some(link) = link {
            link.close().await;
        }
    }

    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    async fn is_connected(&self) -> bool {
        self.shared.link.borrow().as_ref().is_some_and(|link| link.is_usable())
    }
}

impl Shared {
    /// The present link, or the next one if it comes in time.
    async fn link_within(&self, wait: Duration) -> Result<Arc<Link>, BusError> {
        let mut seen = self.link.subscribe();
        let link = seen.wait_for(|link| link.as_ref().is_some_and(|link| link.is_alive()));
        tokio::select! {
            link = tokio::time::timeout(wait, link) => match link {
                Ok(Ok(link)) => Ok(link.clone().expect("waited for one")),
                Ok(Err(_)) | Err(_) => Err(BusError::Unreachable { reason: format!("no connection to {}", self.place) }),
            },
            () = self.stop.cancelled() => Err(BusError::Closed),
        }
    }

    /// Says it once.
    fn tell_once(&self, what: &str) {
        if self.told.lock().insert(what.to_owned()) {
            tracing::warn!(broker = self.place, "{what}");
        }
    }
}

/// lapin's words as ours. They hold no credentials: lapin names hosts and channels only.
fn unreachable(error: lapin::Error) -> BusError {
    BusError::Unreachable { reason: error.to_string() }
}

/// Waits for an answer of the broker, but not for ever.
async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T, lapin::Error> {
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(lapin::ErrorKind::MissingHeartbeatError.into()),
    }
}
