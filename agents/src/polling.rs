//! When to ask for what: `polling.yaml` as Ceilometer writes it, slots, and the way from a poll to the sink.
//!
//! `polling.yaml → Polling → one Ticker per interval → slot → (a pollster's samples) → HandOver → SampleSink`
//!
//! Knows no hypervisor and no service. What is polled is called by its meter name only.

mod definition;
mod hand_over;
mod schedule;
mod selection;

pub use definition::{Polling, PollingError, Source};
pub use hand_over::HandOver;
pub use schedule::{Schedule, Ticker};
pub use selection::MeterSelection;
