//! The doors of the rating: where lines are kept, where rules come from, where usage is read. The rating knows none of the
//! rooms behind them.

mod memory;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::BoxStream;
use orzo_model::{Event, Measure, Timestamp};
use uuid::Uuid;

use crate::{HashMap, line::RatedLine};

pub use memory::MemoryLedger;

/// Which lines are asked for. What is not said does not restrict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineFilter {
    /// Of these projects only: the tenants' wall. `Some` of nothing finds nothing.
    pub scopes: Option<Vec<String>>,
    /// Periods from this one on.
    pub begin: Option<Timestamp>,
    /// Periods before this one.
    pub end: Option<Timestamp>,
    /// Used from then on (`begin` of the line), whatever period it belongs to.
    pub used_from: Option<Timestamp>,
    /// Used from before then (`begin` of the line).
    pub used_before: Option<Timestamp>,
    /// Rated later than that.
    pub rated_after: Option<Timestamp>,
    /// Of these services only.
    pub services: Option<Vec<String>>,
    /// Of these ids only.
    pub ids: Option<Vec<Uuid>>,
    /// What `groupby` or `metadata` must say. `project_id`, `type`, `id`, `currency` are answered by the line itself where they are not
    /// there.
    pub equals: BTreeMap<String, String>,
}

impl LineFilter {
    /// Whether a line is asked for.
    pub fn takes(&self, line: &RatedLine) -> bool {
        fn in_list<T: PartialEq<U>, U: ?Sized>(list: &Option<Vec<T>>, value: &U) -> bool {
            list.as_ref().is_none_or(|list| list.iter().any(|own| own == value))
        }
        in_list(&self.scopes, line.scope.as_str())
            && self.begin.is_none_or(|begin| line.period >= begin)
            && self.end.is_none_or(|end| line.period < end)
            && self.used_from.is_none_or(|begin| line.begin >= begin)
            && self.used_before.is_none_or(|end| line.begin < end)
            && self.rated_after.is_none_or(|after| line.rated_at > after)
            && in_list(&self.services, line.service.as_str())
            && in_list(&self.ids, &line.id)
            && self.equals.iter().all(|(name, value)| says(line, name) == Some(value.as_str()))
    }
}

/// What a line says under a name: its `groupby`, else its `metadata`, else itself.
pub fn says<'l>(line: &'l RatedLine, name: &str) -> Option<&'l str> {
    let fact = line.groupby.get(name).or_else(|| line.metadata.get(name));
    fact.map(String::as_str).or(match name {
        "project_id" | "scope_id" => Some(line.scope.as_str()),
        "type" => Some(line.service.as_str()),
        "id" => Some(line.resource.as_str()),
        "currency" => Some(line.currency.as_str()),
        _ => None,
    })
}

/// Why lines were not kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Broken or busy for now; nothing is known to be kept. The same call may be made again: what is there already is left
    /// out.
    #[error("the ledger cannot {action} now: {reason}")]
    Unavailable {
        /// `read`, `append` ...
        action: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What is on disk is not what was written.
    #[error("the ledger is damaged: {reason}")]
    Damaged {
        /// Where and what.
        reason: String,
    },
    /// A line that cannot be kept as it is; nothing of its batch is.
    #[error("line {id} cannot be kept: {reason}")]
    Invalid {
        /// Which.
        id: Uuid,
        /// What is wrong with it.
        reason: String,
    },
}

/// Lines as they are read.
pub type LineStream = BoxStream<'static, Result<RatedLine, LedgerError>>;

/// Where rated lines are kept for ever.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Durable when `Ok`; all of it or nothing. Lines whose id is there already are left out, so that the same call can be
    /// made again. Says how many were new.
    async fn append(&self, lines: Vec<RatedLine>) -> Result<u64, LedgerError>;

    /// Lines in the order of [`RatedLine::place`], in bounded memory.
    async fn read(&self, filter: &LineFilter) -> Result<LineStream, LedgerError>;
}

/// The rules that are in force at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Grows with every change of any rule.
    pub version: u64,
    /// CloudKitty's rules, those that are valid at the moment.
    pub hashmap: HashMap,
    /// What CloudKitty has not.
    pub prices: crate::price::Prices,
}

/// Why rules cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the rules cannot be read: {reason}")]
pub struct RuleSourceError {
    /// What is wrong.
    pub reason: String,
}

/// Where rules come from.
#[async_trait]
pub trait RuleSource: Send + Sync {
    /// The rules in force at a moment, with their version.
    async fn rules(&self, at: Timestamp) -> Result<Rules, RuleSourceError>;
}

/// What a resource was like for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None`: still.
    pub until: Option<Timestamp>,
    /// Owning project.
    pub project_id: Option<String>,
    /// Owning user.
    pub user_id: Option<String>,
    /// Values of its type's attributes.
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// All that is known of a resource in a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The text that services know it by.
    pub resource: String,
    /// Its type: `instance`, `volume` ...
    pub resource_type: String,
    /// Since when it exists.
    pub started_at: Timestamp,
    /// Until when it existed, if that is known.
    pub ended_at: Option<Timestamp>,
    /// Its history, oldest first.
    pub revisions: Vec<Revision>,
    /// What happened to it, oldest first: all of the time, and the last one before.
    pub events: Vec<Event>,
    /// Its points by metric name, oldest first: all of the time, and the last one before.
    pub measures: BTreeMap<String, Vec<Measure>>,
}

/// What is read of resources for rating.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Type of the resources.
    pub resource_type: String,
    /// Name of the metric whose points are read.
    pub metric: String,
}

/// Why usage cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UsageReadError {
    /// Broken or busy for now.
    #[error("usage cannot be read now: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
    },
    /// More than is taken on at once; ask for a shorter time.
    #[error("there is more usage than is read at once: {reason}")]
    TooMuch {
        /// What is too much.
        reason: String,
    },
}

/// Where usage is read: points, resources with their history, and events.
#[async_trait]
pub trait UsageReader: Send + Sync {
    /// The projects that owned something at any moment of a time.
    async fn scopes(&self, begin: Timestamp, end: Timestamp) -> Result<Vec<String>, UsageReadError>;

    /// All that is known of the resources that a project owned at any moment of a time.
    async fn evidence(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        wanted: &[Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError>;

    /// The first moment of which anything that a project owned or was told of is known; `None`: there is none.
    async fn first(&self, scope: &str) -> Result<Option<Timestamp>, UsageReadError>;

    /// Projects to which events came after the one with this number (without one: that happened since `begin`), each with
    /// the time of the earliest, and the number of the newest event.
    async fn late(
        &self,
        after: Option<i64>,
        begin: Timestamp,
    ) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError>;
}
