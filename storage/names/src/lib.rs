//! What every series is called, and the points beside the names: one walk over both indexes for all who read points as tables.
//!
//! `index's metrics, then label sets → pages of names → points of each page → SQL, exports, the Delta table `series``
//!
//! Comes in: which names are wanted. Goes out: pages of them, their points in parts of bounded size, and a Delta table with a row
//! for each series that is alive, which other engines join with `samples`. It knows no SQL, no HTTP, and nobody who asks: what a
//! scope may see is for whoever calls.
#![forbid(unsafe_code)]

mod error;
mod flat;
mod points;
mod table;
mod walk;

pub use error::NamesError;
pub use flat::{Flat, FlatFile, FlatForm, FlatWanted, Frames, Tally};
pub use points::Points;
pub use table::{Refreshed, SeriesTable, TableSettings};
pub use walk::{Name, Named, Names, NamesWanted, attribute_text};

#[cfg(test)]
mod tests;
