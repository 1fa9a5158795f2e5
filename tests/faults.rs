//! What is acknowledged survives: kill -9 of Orzo, of the broker, of the database; and comes back from a backup.
//!
//! Each run keeps a ledger outside the system and reads everything back by the API: every acknowledged point exactly
//! once, with its value; nothing that was never sent.

mod alarms;
mod backup;
mod broker;
mod database;
mod evaluators;
mod kill;
mod ledger;
