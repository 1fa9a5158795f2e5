//! The words everyone uses, and the doors between the rooms.
//!
//! This crate knows no network, no disk and no database. Every other crate may use it; it uses none of them.
//!
//! # Dictionary
//!
//! The field's own terms (Gnocchi's and Ceilometer's glossaries). One word, one thing.
//!
//! | word | meaning |
//! |---|---|
//! | *meter* | what is measured, by name: `cpu`, `disk.device.read.bytes`; in Gnocchi's words the name of a metric |
//! | *sample* | one value of one meter of one resource at one time, with unit, kind, owner and metadata |
//! | *event* | something that happened, with typed traits, made from a notification |
//! | *notification* | a message that a cloud service sends when something happens |
//! | *batch* | samples and events that travel, are accepted and are acknowledged together |
//! | *resource* | a thing that is measured: an instance, its disk, an image, a host |
//! | *metric* | a series attached to a resource under a name, or free; has a UUID |
//! | *measure* | (timestamp, value) of a metric, as posted; or (timestamp, granularity, value), as aggregated |
//! | *series* | a metric's points in the store, under a [`SeriesId`] |
//! | *point* | (series, timestamp, value), the store's only row |
//! | *exemplar* | one observation behind a value of a series, with labels of its own, such as a trace's id |
//! | *metadata* of a metric's name | what it means: type, help, unit, as Prometheus knows them |
//! | *archive policy* | granularities × timespans × aggregation methods |
//! | *pollster* | a pure function from what a hypervisor or service says to samples |
//! | *slot* | the scheduled time of a poll; the timestamp of all samples that it makes |
//! | *caller* | who asks: user, project and roles of a verified credential |
//! | *scope* | how far a read may look: one project, or all |
//! | *room* | a stage of the pipeline that counts what comes in and what becomes of it |
//! | *quarantine* | where what cannot be decoded is kept, durably, with the reason |
//! | *alarm*, *transition*, *notice* | a rule with a state; a change of that state; a message to be delivered about it |
#![forbid(unsafe_code)]

pub mod annotations;
pub mod caller;
pub mod clock;
pub mod doors;
pub mod event;
pub mod refusals;
pub mod rooms;
pub mod sample;
pub mod seen;
mod series;
pub mod time;
pub mod watch;

pub use annotations::{Exemplar, MetricMetadata};
pub use caller::{Caller, Scope, Standing};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use doors::{GroupRead, MeasureReader, ReadError, Receipt, ResourceRead, SampleSink, SinkError};
pub use event::{Event, Trait, TraitValue};
pub use refusals::{Refused, RefusedSample};
pub use rooms::{Room, Rooms};
pub use sample::{Batch, Metadata, Sample, SampleKind, sample_id};
pub use seen::{SeenMeter, by_meter};
pub use series::SeriesId;
pub use time::{TimeError, Timestamp};
pub use watch::{Arrivals, EventFeed, InstantQueries, NumberedEvent, Target, WindowRead, WindowReader};

/// One row of the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Which series.
    pub series: SeriesId,
    /// When, in microseconds UTC.
    pub timestamp: Timestamp,
    /// The value; any `f64`, NaN included (Gnocchi accepts it).
    pub value: f64,
}

/// A value at a time, without its series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// When: of a raw measure its own time, of an aggregate the start of its bucket.
    pub timestamp: Timestamp,
    /// The value.
    pub value: f64,
}
