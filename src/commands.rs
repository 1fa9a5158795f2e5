//! What the command line can do; one file per command.

pub(crate) mod alarm;
pub(crate) mod backup;
pub(crate) mod bill;
pub(crate) mod config;
pub(crate) mod dashboards;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod measures;
pub(crate) mod meters;
pub(crate) mod output;
pub(crate) mod plot;
pub(crate) mod prometheus;
pub(crate) mod query;
pub(crate) mod rating;
mod screen;
pub(crate) mod serve;
pub(crate) mod sql;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod top;
