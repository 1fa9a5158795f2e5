//! One queue of the in-process bus, and what a publisher waits for. No waiting happens here but on a confirmation.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::watch;

use super::topic;
use crate::{Message, QueueKind, QueueSpec};

/// How it ended for the publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every queue's consumer has acknowledged.
    Acknowledged,
    /// A queue has set it aside.
    DeadLettered { queue: String },
    /// The bus was closed first.
    Closed,
}

/// What one publisher waits for: an acknowledgement from every routed queue.
pub(super) struct Confirmation {
    state: watch::Sender<(usize, Option<Outcome>)>,
}

impl Confirmation {
    pub(super) fn of(queues: usize) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new((queues, None)) })
    }

    fn settle(&self, outcome: Outcome) {
        self.state.send_modify(|(open, settled)| {
            *open = open.saturating_sub(1);
            match outcome {
                // The worst outcome of any queue counts; acknowledged only when all have.
                Outcome::Acknowledged if *open > 0 || settled.is_some() => {}
                outcome => *settled = Some(outcome),
            }
        });
    }

    pub(super) async fn settled(&self) -> Outcome {
        let mut seen = self.state.subscribe();
        // The sender is `self`, so the wait ends only by the condition.
        match seen.wait_for(|(_, settled)| settled.is_some()).await {
            Ok(state) => state.1.clone().unwrap_or(Outcome::Closed),
            Err(_) => Outcome::Closed,
        }
    }
}

/// A message that a consumer has in hand.
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) message: Message,
    pub(super) redeliveries: u32,
}

/// Messages in order of arrival, those in consumers' hands apart.
pub(super) struct Queue {
    pub(super) spec: QueueSpec,
    ready: BTreeMap<u64, Taken>,
    /// Who waits for each message that is ready or in hand. A message sent again while its first copy is still here
    /// is not queued twice: its publisher joins the others. So an outage with retries does not fill the memory.
    waiting: HashMap<u64, Vec<Arc<Confirmation>>>,
    numbers: HashMap<String, u64>,
    next_number: u64,
    /// Consumers in the order in which they came; where only one is active, it is the first.
    consumers: VecDeque<u64>,
    next_consumer: u64,
}

impl Queue {
    pub(super) fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            ready: BTreeMap::new(),
            waiting: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            consumers: VecDeque::new(),
            next_consumer: 0,
        }
    }

    pub(super) fn bind(&mut self, bindings: &[(String, String)]) {
        for binding in bindings {
            if !self.spec.bindings.contains(binding) {
                self.spec.bindings.push(binding.clone());
            }
        }
    }

    pub(super) fn takes(&self, message: &Message) -> bool {
        let bound = |(exchange, pattern): &(String, String)| {
            *exchange == message.exchange && topic::matches(pattern, &message.routing_key)
        };
        self.spec.bindings.iter().any(bound)
            // The default exchange routes to the queue of that name.
            || (message.exchange.is_empty() && message.routing_key == self.spec.name)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// No room for this message; one that is here already needs none.
    pub(super) fn refuses(&self, message: &Message) -> bool {
        self.len() >= self.spec.length_max as usize && !self.numbers.contains_key(&message.message_id)
    }

    pub(super) fn push(&mut self, message: Message, confirmation: Option<Arc<Confirmation>>) {
        if let Some(number) = self.numbers.get(&message.message_id) {
            self.waiting.entry(*number).or_default().extend(confirmation);
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        // Without an id every message is its own.
        if !message.message_id.is_empty() {
            self.numbers.insert(message.message_id.clone(), number);
        }
        self.waiting.insert(number, confirmation.into_iter().collect());
        self.ready.insert(number, Taken { number, message, redeliveries: 0 });
    }

    /// A consumer comes; its number.
    pub(super) fn join(&mut self) -> u64 {
        let consumer = self.next_consumer;
        self.next_consumer += 1;
        self.consumers.push_back(consumer);
        consumer
    }

    /// A consumer goes; if it was the active one, the next is.
    pub(super) fn leave(&mut self, consumer: u64) {
        self.consumers.retain(|other| *other != consumer);
    }

    /// The next message, if this consumer may have it.
    pub(super) fn take(&mut self, consumer: u64) -> Option<Taken> {
        if self.spec.kind == QueueKind::QuorumSingleActive && self.consumers.front() != Some(&consumer) {
            return None;
        }
        self.ready.pop_first().map(|(_, taken)| taken)
    }

    /// Back to its place; its number is its place.
    pub(super) fn put_back(&mut self, taken: Taken) {
        self.ready.insert(taken.number, taken);
    }

    /// Done with it, one way or another.
    pub(super) fn finish(&mut self, taken: &Taken, outcome: &Outcome) {
        self.numbers.remove(&taken.message.message_id);
        for confirmation in self.waiting.remove(&taken.number).unwrap_or_default() {
            confirmation.settle(outcome.clone());
        }
    }

    pub(super) fn close(&mut self) {
        for taken in std::mem::take(&mut self.ready).into_values() {
            self.finish(&taken, &Outcome::Closed);
        }
    }
}
