//! Agents: what looks at hypervisors, hosts and services, and hands on what it saw.
//!
//! ```text
//! Hypervisor → pollsters → Sample → Batch → SampleSink       (compute, by the slots of polling)
//! /proc, /sys → host meters ─────┘
//! image API   → central ─────────┘
//! bus         → notifications ───┘       publish: the sink that sends to the bus, or to a spool on disk
//! ```
//!
//! An agent knows no store, no index and no API: it is handed a [`orzo_model::SampleSink`].
#![forbid(unsafe_code)]

pub mod central;
pub mod compute;
pub mod host;
pub mod metrics;
pub mod notifications;
pub mod polling;
pub mod pollsters;
pub mod publish;
pub mod settings;
