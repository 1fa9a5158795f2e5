//! Rated lines, kept for ever: the door [`Ledger`](orzo_rating::Ledger) on an append-only Delta table.
//!
//! `lines → one sorted Parquet file for each month → one commit, durable before it is answered`
//!
//! Comes in: batches of lines with ids. Goes out: lines in order, in bounded memory. It knows neither prices nor usage nor
//! who asks. Nothing is ever changed: merging files conserves rows, ids and costs, and refuses to commit if it did not.
#![forbid(unsafe_code)]

mod columns;
mod known;
mod log;
mod merge;
mod table;

pub use log::FileEntry;
pub use table::{LedgerStats, LedgerTable};

#[cfg(test)]
mod tests;
