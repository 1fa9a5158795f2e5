//! One connection and its channels, and the task that always keeps one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use lapin::{Channel, Connection, ConnectionProperties, Event, options::ConfirmSelectOptions, tcp::OwnedTLSConfig};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    ANSWER_MAX, BusError, CONNECT_MAX, PUBLISHES_MAX, RECONNECT_FIRST, RECONNECT_MAX, Shared, answered, declare,
    unreachable,
};
use crate::backoff::Backoff;

/// Between two looks at the connection's state, besides its events: a belt to the braces.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One connection, from its handshake to its end. Everything made on it ends with it.
pub(super) struct Link {
    connection: Connection,
    /// Set for good once the connection is found broken; deliveries of this link then answer nothing.
    broken: CancellationToken,
    blocked: AtomicBool,
    /// Idle channels in confirm mode.
    idle: Mutex<Vec<Channel>>,
    /// Exchanges known to exist on this broker: publishing to a missing one would cost the channel.
    pub(super) exchanges: Mutex<BTreeSet<String>>,
}

impl Link {
    /// The connection has not been found broken.
    pub(super) fn is_alive(&self) -> bool {
        !self.broken.is_cancelled() && self.connection.status().connected()
    }

    /// Alive, and the broker takes messages (it blocks publishers when short of memory or disk).
    pub(super) fn is_usable(&self) -> bool {
        self.is_alive() && !self.blocked.load(Ordering::Relaxed)
    }

    /// Ends this link: the keeper makes a new one.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Resolves when the link is given up.
    pub(super) async fn ended(&self) {
        self.broken.cancelled().await;
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, BusError> {
        match answered(self.connection.create_channel()).await {
            Ok(channel) => Ok(channel),
            Err(error) => {
                // A connection that opens no channel is of no use.
                self.give_up();
                Err(unreachable(error))
            }
        }
    }

    /// A channel in confirm mode with nothing unconfirmed on it.
    pub(super) async fn publishing_channel(&self) -> Result<Channel, BusError> {
        let idle = self.idle.lock().pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.channel().await?;
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await.map_err(unreachable)?;
        Ok(channel)
    }

    /// Gives a publishing channel back; only when its last message was confirmed.
    pub(super) fn give_channel_back(&self, channel: Channel) {
        let mut idle = self.idle.lock();
        if idle.len() < PUBLISHES_MAX {
            idle.push(channel);
        }
    }

    pub(super) async fn close(&self) {
        self.give_up();
        // Whether the goodbye arrives does not matter: the broker notices either way.
        let _ = tokio::time::timeout(ANSWER_MAX, self.connection.close(200, "closing".into())).await;
    }
}

/// Connects, watches, connects again, until the bus is closed.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
    loop {
        let connected = tokio::select! {
            connected = connect(&shared) => connected,
            () = shared.stop.cancelled() => return,
        };
        match connected {
            Ok(link) => {
                tracing::info!(broker = shared.place, "connected to the message bus");
                backoff.succeeded();
                declare_again(&shared, &link).await;
                shared.link.send_replace(Some(link.clone()));
                let reason = watch(&shared, &link).await;
                shared.link.send_replace(None);
                link.give_up();
                if shared.stop.is_cancelled() {
                    return;
                }
                tracing::warn!(broker = shared.place, reason, "lost the message bus, connecting again");
            }
            // Each outage is told once; its end is told by "connected".
            Err(error) if backoff.failures() == 0 => {
                tracing::warn!(
                    broker = shared.place,
                    error = &error as &dyn std::error::Error,
                    "cannot reach the message bus, trying on"
                );
            }
            Err(error) => {
                tracing::debug!(
                    broker = shared.place,
                    error = &error as &dyn std::error::Error,
                    "still no message bus"
                );
            }
        }
        let wait = backoff.next_wait();
        tokio::select! {
            () = shared.clock.sleep(wait) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn connect(shared: &Shared) -> Result<Arc<Link>, BusError> {
    let settings = &shared.settings;
    let properties = ConnectionProperties::default().with_connection_name(settings.connection_name.clone().into());
    let trust = OwnedTLSConfig { identity: None, cert_chain: settings.authorities_pem.clone() };
    let runtime = lapin::runtime::default_runtime().map_err(unreachable)?;
    let connecting = Connection::connect_uri_with_config(shared.uri.clone(), properties, trust, runtime);
    let connection = match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(connection) => connection.map_err(unreachable)?,
        Err(_) => return Err(BusError::Timeout { waited: CONNECT_MAX }),
    };
    Ok(Arc::new(Link {
        connection,
        broken: CancellationToken::new(),
        blocked: AtomicBool::new(false),
        idle: Mutex::default(),
        exchanges: Mutex::default(),
    }))
}

/// A broker that restarted has forgotten what is not durable. A failure is not final: whoever needs the queue declares
/// it again and is told.
async fn declare_again(shared: &Shared, link: &Link) {
    let declared: Vec<_> = shared.declared.lock().values().cloned().collect();
    for queue in declared {
        if let Err(error) = declare::declare(shared, link, &queue).await {
            tracing::warn!(
                queue = queue.name,
                error = &error as &dyn std::error::Error,
                "cannot declare a queue again"
            );
        }
    }
}

/// Returns, with the reason, when the link has ended.
async fn watch(shared: &Shared, link: &Link) -> String {
    let mut events = Box::pin(link.connection.events_listener());
    loop {
        if !link.connection.status().connected() {
            return "the connection is closed".to_owned();
        }
        tokio::select! {
            event = events.next() => match event {
                // A refused declaration ends its channel only, and its caller knows.
                Some(Event::Error(error)) if error.is_amqp_soft_error() => {}
                Some(Event::Error(error)) => return error.to_string(),
                Some(Event::ConnectionBlocked(reason)) => {
                    link.blocked.store(true, Ordering::Relaxed);
                    tracing::warn!(broker = shared.place, reason, "the broker takes no messages for now");
                }
                Some(Event::ConnectionUnblocked) => {
                    link.blocked.store(false, Ordering::Relaxed);
                    tracing::info!(broker = shared.place, "the broker takes messages again");
                }
                Some(_) => {}
                None => return "the connection is gone".to_owned(),
            },
            () = link.ended() => return "the connection does not answer".to_owned(),
            () = shared.stop.cancelled() => return "closing".to_owned(),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
