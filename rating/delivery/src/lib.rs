//! Exports on their way: runs to billing systems, object stores and directories, at least once each and always under the same keys.
//!
//! `run on disk → outbox (one row for each run and target) → taken under a lease → events or files, batch by batch → how far it is,
//! in the outbox → delivered, or parked with the reason`
//!
//! Comes in: runs (directories with a signed manifest, checked before anything of them goes out) and [`Target`]s. Goes out:
//! HTTP requests, objects, copies of directories; what became of them is in the [`Outbox`]. A process that dies sends again what had
//! no answer, under the same key (the line's id); where a receiver may have forgotten that key by then, the event is parked for
//! somebody to look, and not sent blindly. It does not know the ledger, prices, or who asks.
#![forbid(unsafe_code)]

mod copy;
mod deliver;
mod error;
mod objects;
mod outbox;
mod post;
mod receiver;
mod schedule;
mod target;

pub use deliver::{Deliverer, Outcome};
pub use error::DeliveryError;
pub use outbox::{Delivery, DeliveryState, NewDelivery, Outbox, Parked};
pub use post::{Answer, Poster};
pub use receiver::{Receiver, Verdict};
pub use schedule::{Due, Schedule};
pub use target::{Access, Place, S3, Target};

#[cfg(test)]
mod tests;
