//! The one test binary: what holds the house together, and the stories that walk through all of it.
//!
//! - `tidy`: arrows between crates, one version of what must be one, the order of the house
//! - `journeys`: a sample's way from a guest to a webhook, embedded and with the real parts
//! - `faults`: what is acknowledged survives kill -9, a dead broker, a dead database
//! - `readers`: other engines read the files while they are written
//! - `clients`: the real command-line clients against a running Orzo
//! - `page`: Orzo's page in a real browser
#![allow(clippy::unwrap_used)] // a test that stops is a test that fails

mod clients;
mod faults;
mod journeys;
mod page;
mod readers;
mod support;
mod tidy;
