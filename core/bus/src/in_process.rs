//! The bus inside one process: the semantics of RabbitMQ as far as our rooms use them, without a broker.
//!
//! Topic exchanges, bounded queues, competing consumers with prefetch, redelivery, a delivery limit with a dead-letter
//! queue. Nothing here is durable, and that is why `publish` returns `Ok` only when a consumer of every routed queue
//! has acknowledged: the message is then durable on the other side, and until then it is the publisher's.
//!
//! A publisher that stops waiting ([`BusError::Timeout`], or its future dropped) does not take the message back: it
//! stays in the queue and may still be consumed. The publisher must send it again, with the same message id, and
//! consumers drop what they have seen. While the first copy still waits, the second joins it instead of being queued.
//! So nothing is lost and nothing doubles silently.
//!
//! This room does not know what travels.

mod queue;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_model::SharedClock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    Bus, BusError, Delivery, DeliveryReceipt, Message, QueueKind, QueueSpec, Subscription,
    topic::{self, dead_queue},
};
use queue::{Confirmation, Outcome, Queue, Taken};

/// How long a publisher waits for room in the queues and for the acknowledgements: longer than a slow fsync or a
/// collector's short pause, shorter than an agent's polling interval times a few.
pub const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(30);

/// A bus in memory. Clones share it.
#[derive(Clone)]
pub struct InProcessBus {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    clock: SharedClock,
    confirm_wait: Duration,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Queue>,
    closed: bool,
}

impl InProcessBus {
    /// An empty bus.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_confirm_wait(clock, CONFIRM_WAIT_MAX)
    }

    /// An empty bus whose publishers wait so long.
    pub fn with_confirm_wait(clock: SharedClock, confirm_wait: Duration) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Notify::new(), clock, confirm_wait };
        Self { shared: Arc::new(shared) }
    }

    /// Messages in a queue, delivered but unacknowledged ones included; for health and tests.
    pub fn waiting(&self, queue: &str) -> usize {
        self.shared.state.lock().queues.get(queue).map_or(0, Queue::len)
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn declare(&self, spec: &QueueSpec) -> Result<(), BusError> {
        self.shared.state.lock().declare(spec)
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        let wait = self.shared.confirm_wait;
        let late = self.shared.clock.sleep(wait);
        tokio::pin!(late);
        let confirmation = tokio::select! {
            confirmation = self.shared.enqueue(&message) => confirmation?,
            () = &mut late => return Err(self.shared.full(&message)),
        };
        tokio::select! {
            outcome = confirmation.settled() => match outcome {
                Outcome::Acknowledged => Ok(()),
                Outcome::DeadLettered { queue } => Err(BusError::Refused {
                    reason: format!("the message was dead-lettered from queue `{queue}`"),
                }),
                Outcome::Closed => Err(BusError::Closed),
            },
            () = late => Err(BusError::Timeout { waited: wait }),
        }
    }

    async fn subscribe(&self, queue: &QueueSpec, prefetch: u16) -> Result<Box<dyn Subscription>, BusError> {
        let consumer = {
            let mut state = self.shared.state.lock();
            state.declare(queue)?;
            state.queues.get_mut(&queue.name).map(Queue::join).unwrap_or_default()
        };
        Ok(Box::new(InProcessSubscription {
            shared: self.shared.clone(),
            queue: queue.name.clone(),
            consumer,
            prefetch: usize::from(prefetch.max(1)),
            unacknowledged: Arc::default(),
        }))
    }

    async fn close(&self) {
        self.shared.state.lock().close();
        self.shared.changed.notify_waiters();
    }

    fn kind(&self) -> &'static str {
        "in-process"
    }

    async fn is_connected(&self) -> bool {
        !self.shared.state.lock().closed
    }
}

impl Shared {
    /// Puts the message into every queue that takes it, once all have room.
    async fn enqueue(&self, message: &Message) -> Result<Arc<Confirmation>, BusError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(confirmation) = self.state.lock().enqueue(message)? {
                self.changed.notify_waiters();
                return Ok(confirmation);
            }
            changed.await;
        }
    }

    fn full(&self, message: &Message) -> BusError {
        let state = self.state.lock();
        match state.routes(message).find(|queue| queue.refuses(message)) {
            Some(queue) => BusError::Full { queue: queue.spec.name.clone(), length_max: queue.spec.length_max },
            None => BusError::Timeout { waited: self.confirm_wait },
        }
    }
}

impl State {
    fn declare(&mut self, spec: &QueueSpec) -> Result<(), BusError> {
        if self.closed {
            return Err(BusError::Closed);
        }
        match self.queues.get_mut(&spec.name) {
            // As in RabbitMQ, bindings add up and the first declaration's limits stay.
            Some(queue) => queue.bind(&spec.bindings),
            None => {
                self.queues.insert(spec.name.clone(), Queue::new(spec.clone()));
            }
        }
        if let Some(dead) = dead_queue(&spec.name).filter(|_| spec.kind.is_quorum()) {
            let spec = QueueSpec { name: dead.clone(), kind: QueueKind::Quorum, bindings: vec![], ..spec.clone() };
            self.queues.entry(dead).or_insert_with(|| Queue::new(spec));
        }
        Ok(())
    }

    fn routes<'s>(&'s self, message: &'s Message) -> impl Iterator<Item = &'s Queue> {
        self.queues.values().filter(|queue| queue.takes(message))
    }

    /// `None`: a queue is full.
    fn enqueue(&mut self, message: &Message) -> Result<Option<Arc<Confirmation>>, BusError> {
        if self.closed {
            return Err(BusError::Closed);
        }
        let routes = self.routes(message).count();
        if routes == 0 {
            let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
            return Err(BusError::Unroutable { exchange, routing_key });
        }
        if self.routes(message).any(|queue| queue.refuses(message)) {
            return Ok(None);
        }
        let confirmation = Confirmation::of(routes);
        for queue in self.queues.values_mut().filter(|queue| queue.takes(message)) {
            queue.push(message.clone(), Some(confirmation.clone()));
        }
        Ok(Some(confirmation))
    }

    /// Takes a delivery back: to the front of its queue, or, beyond the limit or if it is not to be tried again, to
    /// the dead-letter queue. If that is full the message stays: at least once comes first.
    fn give_back(&mut self, name: &str, taken: Taken, again: bool) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        if self.closed {
            queue.finish(&taken, &Outcome::Closed);
            return;
        }
        let set_aside = Outcome::DeadLettered { queue: name.to_owned() };
        let deliveries = taken.redeliveries + 1;
        let limit = queue.spec.delivery_limit;
        let dead = match queue.spec.kind {
            kind if kind.is_quorum() && (!again || deliveries >= limit) => dead_queue(name),
            // A classic queue of oslo has no dead-letter exchange: what is rejected for good is gone.
            QueueKind::OsloClassic if !again => {
                queue.finish(&taken, &set_aside);
                return;
            }
            _ => None,
        };
        let dead = dead.filter(|dead| self.queues.get(dead).is_some_and(|dead| !dead.refuses(&taken.message)));
        let Some(dead) = dead else {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.put_back(Taken { redeliveries: deliveries, ..taken });
            }
            return;
        };
        if let Some(queue) = self.queues.get_mut(name) {
            queue.finish(&taken, &set_aside);
        }
        if let Some(dead) = self.queues.get_mut(&dead) {
            dead.push(taken.message, None);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.queues.values_mut().for_each(Queue::close);
    }
}

struct InProcessSubscription {
    shared: Arc<Shared>,
    queue: String,
    consumer: u64,
    prefetch: usize,
    unacknowledged: Arc<Mutex<usize>>,
}

#[async_trait]
impl Subscription for InProcessSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let shared = self.shared.clone();
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                let mut unacknowledged = self.unacknowledged.lock();
                if *unacknowledged < self.prefetch {
                    let taken = state.queues.get_mut(&self.queue).and_then(|queue| queue.take(self.consumer));
                    if let Some(taken) = taken {
                        *unacknowledged += 1;
                        drop(unacknowledged);
                        drop(state);
                        return Some(self.delivery(taken));
                    }
                }
            }
            changed.await;
        }
    }
}

impl Drop for InProcessSubscription {
    fn drop(&mut self) {
        if let Some(queue) = self.shared.state.lock().queues.get_mut(&self.queue) {
            queue.leave(self.consumer);
        }
        self.shared.changed.notify_waiters();
    }
}

impl InProcessSubscription {
    fn delivery(&self, taken: Taken) -> Delivery {
        Delivery {
            message: taken.message.clone(),
            redeliveries: taken.redeliveries,
            receipt: Box::new(InProcessReceipt {
                shared: self.shared.clone(),
                queue: self.queue.clone(),
                taken: Some(taken),
                unacknowledged: self.unacknowledged.clone(),
            }),
        }
    }
}

struct InProcessReceipt {
    shared: Arc<Shared>,
    queue: String,
    taken: Option<Taken>,
    unacknowledged: Arc<Mutex<usize>>,
}

impl InProcessReceipt {
    fn finish(&mut self, act: impl FnOnce(&mut State, &str, Taken)) {
        let Some(taken) = self.taken.take() else { return };
        let mut state = self.shared.state.lock();
        act(&mut state, &self.queue, taken);
        *self.unacknowledged.lock() -= 1;
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

#[async_trait]
impl DeliveryReceipt for InProcessReceipt {
    async fn ack(mut self: Box<Self>) -> Result<(), BusError> {
        self.finish(|state, name, taken| {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.finish(&taken, &Outcome::Acknowledged);
            }
        });
        Ok(())
    }

    async fn reject(mut self: Box<Self>, requeue: bool) -> Result<(), BusError> {
        self.finish(|state, name, taken| state.give_back(name, taken, requeue));
        Ok(())
    }
}

impl Drop for InProcessReceipt {
    /// A consumer that vanished: the message is delivered again.
    fn drop(&mut self) {
        self.finish(|state, name, taken| state.give_back(name, taken, true));
    }
}
