//! Prices for usage. In: rules as an operator writes them, and usage (a service, a quantity, what is known of the
//! resource). Out: a price, in decimals; nothing here is ever a binary fraction.
//!
//! [`HashMap`] is CloudKitty's rating module of that name, with its arithmetic to the last digit (`tests/differential/rating`
//! compares the two). Rated usage is a [`RatedLine`]; where lines are kept, rules come from and usage is read are
//! [`doors`]. [`RatingBook`] keeps the rules, with all their versions, and what rating has to remember, in a database.
//! This crate knows no store of samples and no API.
#![forbid(unsafe_code)]

mod book;
pub mod currency;
mod decimal;
pub mod doors;
pub mod expression;
pub mod forecast;
mod hashmap;
pub mod line;
pub mod metrics;
pub mod price;
pub mod processor;
mod quantity;
mod quote;
pub mod segments;
mod usage;

pub use bigdecimal::{BigDecimal, RoundingMode};
pub use book::{
    BookError, COLLECTOR_DEFAULT, COST_PLACES, ClosedPeriod, CollectorMapping, Held, LEVEL_PLACES, MODULES, Mapping,
    MappingChange, MappingFilter, ModuleState, NewMapping, NewScope, NewThreshold, RatingBook, RuleChange,
    RuleDocument, RuleField, RuleGroup, RuleService, RuleSet, SCOPE_KEY, ScopeChange, ScopeFilter, ScopeState, Task,
    TaskFilter, Threshold, ThresholdChange, ThresholdFilter,
};
pub use currency::Totals;
pub use decimal::{DecimalError, decimal};
pub use doors::{
    Ledger, LedgerError, LineFilter, LineStream, MemoryLedger, RuleSource, RuleSourceError, Rules, UsageReader,
};
pub use hashmap::{HashMap, Kind, PriceList, RuleError};
pub use line::{COST_SCALE, LineKind, RatedLine, cost_of};
pub use metrics::{MetricDefinition, Metrics, MetricsError, UsageKind};
pub use price::{Bill, Earlier, KINDS, PriceError, Prices};
pub use processor::{Explanation, Mode, Processor, ProcessorError, RatingSettings, Report, RulesOf};
pub use quantity::{Conversion, Mutation};
pub use quote::{Quote, quote};
pub use usage::{Usage, UsageError};
