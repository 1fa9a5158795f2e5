//! The rating book: rules, scopes, tasks, closed periods and exports, in one database.
//!
//! Rules are CloudKitty's hashmap (services, fields, groups, mappings, thresholds) and documents of our own kinds. Every
//! change of rules is one transaction that raises the rules' version by one and says who changed what; rows are never
//! overwritten but closed, so that the rules of any version can be had again (`book/versions.rs`). What was rated is not
//! here: that is the ledger's.

mod catalog;
mod documents;
mod mappings;
mod modules;
mod periods;
mod schema;
mod scopes;
mod source;
mod tasks;
mod thresholds;
mod versions;

use bigdecimal::BigDecimal;
use orzo_database::{AsConflict, Database, DatabaseError, Row, Transaction};
use orzo_model::{SharedClock, Timestamp};

pub use catalog::{RuleField, RuleGroup, RuleService};
pub use documents::RuleDocument;
pub use mappings::{Mapping, MappingChange, MappingFilter, NewMapping};
pub use modules::{COLLECTOR_DEFAULT, CollectorMapping, MODULES, ModuleState};
pub use periods::ClosedPeriod;
pub use scopes::{Held, NewScope, SCOPE_KEY, ScopeChange, ScopeFilter, ScopeState};
pub use tasks::{Task, TaskFilter};
pub use thresholds::{NewThreshold, Threshold, ThresholdChange, ThresholdFilter};
pub use versions::{RuleChange, RuleSet};

use crate::{Kind, decimal::decimal};

/// Longest name of a service, field, group or value (CloudKitty's columns end there).
const NAME_CHARACTERS_MAX: usize = 255;
/// Decimal places that a cost is kept with, as CloudKitty keeps it.
pub const COST_PLACES: i64 = 28;
/// Decimal places that a threshold's level is kept with, as CloudKitty keeps it.
pub const LEVEL_PLACES: i64 = 8;
/// Digits before the point of a cost or level: CloudKitty's columns end there.
const WHOLE_DIGITS_MAX: i64 = 12;

/// What can go wrong in the book. The texts are what CloudKitty's users know.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// There is none.
    #[error("{what}")]
    NotFound {
        /// Which, in words.
        what: String,
    },
    /// Another one is in the way.
    #[error("{what}")]
    Exists {
        /// Which, in words.
        what: String,
    },
    /// What was asked for makes no sense.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// A row cannot be read: damaged, or written by a newer program.
    #[error("row {id} of the rating book cannot be read: {column}")]
    Damaged {
        /// Which.
        id: String,
        /// Where.
        column: &'static str,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl AsConflict for BookError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

impl BookError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}

/// Keeps rules and what rating has to remember. Cheap to clone.
#[derive(Clone)]
pub struct RatingBook {
    database: Database,
    clock: SharedClock,
}

impl RatingBook {
    /// Opens the book, making its tables if needed.
    pub async fn open(database: Database, clock: SharedClock) -> Result<Self, BookError> {
        database.migrate("rating", schema::MIGRATIONS).await?;
        Ok(Self { database, clock })
    }

    /// The time by which the book goes.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Begins a change of rules: the version that it makes.
async fn begin_change(tx: &mut Transaction<'_>, now: Timestamp, author: &str, change: &str) -> Result<i64, BookError> {
    let row = tx.query_one("SELECT coalesce(max(version), 0) AS version FROM rating_versions", &[]).await?;
    let version = row.and_then(|row| row.int("version")).unwrap_or(0) + 1;
    let sql = "INSERT INTO rating_versions (version, changed_at, changed_by, change) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, &[version.into(), now.into(), author.into(), change.into()]).await?;
    Ok(version)
}

fn check_name(what: &str, name: &str) -> Result<(), BookError> {
    match name.chars().count() {
        0 => Err(BookError::refused(format!("the {what} is empty"))),
        1..=NAME_CHARACTERS_MAX => Ok(()),
        _ => Err(BookError::refused(format!("the {what} is longer than {NAME_CHARACTERS_MAX} characters"))),
    }
}

fn check_decimal(what: &str, number: &BigDecimal, places: i64) -> Result<(), BookError> {
    let bare = number.normalized();
    let (_, scale) = bare.as_bigint_and_exponent();
    let whole = i64::try_from(bare.digits()).unwrap_or(i64::MAX) - scale;
    if scale > places {
        return Err(BookError::refused(format!("the {what} has more than {places} decimal places")));
    }
    if whole > WHOLE_DIGITS_MAX {
        return Err(BookError::refused(format!("the {what} has more than {WHOLE_DIGITS_MAX} digits before the point")));
    }
    Ok(())
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Flat => "flat",
        Kind::Rate => "rate",
    }
}

fn kind_of(row: &Row, id: &str) -> Result<Kind, BookError> {
    match row.string("map_type").as_str() {
        "flat" => Ok(Kind::Flat),
        "rate" => Ok(Kind::Rate),
        _ => Err(BookError::Damaged { id: row.string(id), column: "map_type" }),
    }
}

fn decimal_of(row: &Row, id: &str, column: &'static str) -> Result<BigDecimal, BookError> {
    decimal(&row.string(column)).map_err(|_| BookError::Damaged { id: row.string(id), column })
}

fn time_of(row: &Row, id: &str, column: &'static str) -> Result<Timestamp, BookError> {
    row.time(column).ok_or_else(|| BookError::Damaged { id: row.string(id), column })
}

fn or_none(value: Option<&str>) -> &str {
    value.unwrap_or("None")
}

/// The parent of a mapping or threshold, checked: exactly one, and there.
async fn check_parent(
    tx: &mut Transaction<'_>,
    service_id: Option<&str>,
    field_id: Option<&str>,
    group_id: Option<&str>,
) -> Result<(), BookError> {
    match (service_id, field_id) {
        (Some(_), Some(_)) => return Err(BookError::refused("You can only specify one parent.")),
        (None, None) => return Err(BookError::refused("You must specify one parent.")),
        (Some(service), None) => catalog::find_service(tx, service).await.map(|_| ())?,
        (None, Some(field)) => catalog::find_field(tx, field).await.map(|_| ())?,
    }
    if let Some(group) = group_id {
        catalog::find_group(tx, group).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
