//! Rated lines in the formats that finance and billing systems import.
//!
//! `ledger → lines in order → profile (FOCUS, CloudKitty, CloudEvents, Stripe, Lago) → files, manifest, signature`
//!
//! Comes in: a [`Ledger`](orzo_rating::Ledger), what lines are wanted, and a [`Catalogue`] with what the ledger does not know
//! (names, categories, customers of other systems). Goes out: a [`Run`]: files with their SHA-256, a manifest, a signature.
//! The same lines make the same bytes: nothing of a run depends on the clock, on chance or on the machine. It does no
//! network.
#![forbid(unsafe_code)]

mod catalogue;
mod cell;
mod cloudkitty;
mod columns;
mod error;
mod events;
mod focus;
mod invoice;
mod profile;
mod readback;
mod run;
mod sheet;
mod signature;

pub use catalogue::{Catalogue, Category, Project};
pub use error::ExportError;
pub use invoice::{Invoice, InvoiceTotals, Language, Position, invoices, preview};
pub use profile::Profile;
pub use readback::totals_of;
pub use run::{FileEntry, MANIFEST, Manifest, Request, Run, SIGNATURE, check, digest_of, export, sweep};
pub use signature::{SigningKey, is_signed_by};

#[cfg(test)]
mod tests;
