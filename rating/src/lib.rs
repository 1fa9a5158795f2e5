//! Prices for usage. In: rules as an operator writes them, and usage (a service, a quantity, what is known of the
//! resource). Out: a price, in decimals; nothing here is ever a binary fraction.
//!
//! [`HashMap`] is CloudKitty's rating module of that name, with its arithmetic to the last digit (`tests/differential/rating`
//! compares the two). This crate does no input or output and knows no clock, no store and no API.
#![forbid(unsafe_code)]

mod decimal;
mod hashmap;
mod quantity;
mod usage;

pub use bigdecimal::BigDecimal;
pub use decimal::{DecimalError, decimal};
pub use hashmap::{HashMap, Kind, PriceList, RuleError};
pub use quantity::{Conversion, Mutation};
pub use usage::{Usage, UsageError};
