//! One queue of the in-process bus, and what a publisher waits for. No waiting happens here but on a confirmation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::topic;
use crate::{Message, QueueSpec};

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
    pub(super) confirmation: Arc<Confirmation>,
}

impl Taken {
    pub(super) fn settle(&self, outcome: Outcome) {
        self.confirmation.settle(outcome);
    }
}

/// Messages in order of arrival, those in consumers' hands apart.
pub(super) struct Queue {
    pub(super) spec: QueueSpec,
    ready: BTreeMap<u64, Taken>,
    in_hand: BTreeSet<u64>,
    next_number: u64,
}

impl Queue {
    pub(super) fn new(spec: QueueSpec) -> Self {
        Self { spec, ready: BTreeMap::new(), in_hand: BTreeSet::new(), next_number: 0 }
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
        self.ready.len() + self.in_hand.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.spec.length_max as usize
    }

    pub(super) fn push(&mut self, message: Message, confirmation: Arc<Confirmation>) {
        let number = self.next_number;
        self.next_number += 1;
        self.ready.insert(number, Taken { number, message, redeliveries: 0, confirmation });
    }

    pub(super) fn take(&mut self) -> Option<Taken> {
        let (number, taken) = self.ready.pop_first()?;
        self.in_hand.insert(number);
        Some(taken)
    }

    /// Back to its place; its number is its place.
    pub(super) fn put_back(&mut self, taken: Taken) {
        self.in_hand.remove(&taken.number);
        self.ready.insert(taken.number, taken);
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.in_hand.remove(&number);
    }

    pub(super) fn close(&mut self) {
        for taken in std::mem::take(&mut self.ready).into_values() {
            taken.settle(Outcome::Closed);
        }
    }
}
