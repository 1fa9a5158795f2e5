//! SQL over everything that is kept, for operators, each query in a process of its own.
//!
//! `query → Queries → a process → plan → scans asked back over one socket → index and store → batches → answer`. In come
//! a query and the form of its answer; out goes the whole answer, or an error that says what is wrong and where.
//!
//! Why a process: DataFusion can overflow its stack over a flat chain of operators, its joins do not look whether they
//! were cancelled, and its memory pool counts what operators tell it. So a query has a process that is killed at its
//! deadline, at its limit of memory, and when nobody waits for it any more; the server notices and goes on.
//!
//! That process has nothing: no environment, no files, no descriptors but one socket. It reads by asking this side, which
//! answers from the same index and the same scan as every API. It knows no HTTP and no tokens.
#![forbid(unsafe_code)]

mod answer;
mod error;
mod message;
mod pushed;
mod queries;
mod source;
mod tables;
#[cfg(test)]
mod tests;
pub mod worker;

pub use answer::Form;
pub use error::SqlError;
pub use queries::{Answer, Queries, SqlSettings, Worker};
pub use source::Source;
