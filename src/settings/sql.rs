//! How far SQL queries may go.

use anyhow::bail;
use orzo_sql::SqlSettings as QuerySettings;
use serde::Deserialize;

use super::Span;

/// Below this a process has hardly begun.
const DEADLINE_MIN: Span = Span(std::time::Duration::from_millis(100));
/// A request is given up after a minute, whatever it is.
const DEADLINE_MAX: Span = Span::secs(55);
/// What the engine needs for itself, and a little.
const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// Each holds a process and an answer.
const AT_ONCE_MAX: usize = 64;

/// SQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SqlSettings {
    pub(crate) enabled: bool,
    pub(crate) deadline: Span,
    pub(crate) memory_bytes_max: u64,
    pub(crate) rows_max: u64,
    pub(crate) answer_bytes_max: u64,
    pub(crate) at_once_max: usize,
}

impl Default for SqlSettings {
    fn default() -> Self {
        let defaults = QuerySettings::default();
        Self {
            enabled: true,
            deadline: Span(defaults.deadline),
            memory_bytes_max: defaults.memory_bytes_max,
            rows_max: defaults.rows_max,
            answer_bytes_max: defaults.answer_bytes_max,
            at_once_max: defaults.at_once_max,
        }
    }
}

impl SqlSettings {
    /// As queries take them.
    pub(crate) fn query_settings(&self) -> QuerySettings {
        QuerySettings {
            deadline: self.deadline.0,
            memory_bytes_max: self.memory_bytes_max,
            rows_max: self.rows_max,
            answer_bytes_max: self.answer_bytes_max,
            at_once_max: self.at_once_max,
            ..QuerySettings::default()
        }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.deadline.0 < DEADLINE_MIN.0 || self.deadline.0 > DEADLINE_MAX.0 {
            bail!("sql.deadline is {}, must be between {DEADLINE_MIN} and {DEADLINE_MAX}", self.deadline);
        }
        if self.memory_bytes_max < MEMORY_BYTES_MIN {
            bail!("sql.memory_bytes_max is {}, must be at least {MEMORY_BYTES_MIN}", self.memory_bytes_max);
        }
        if self.at_once_max == 0 || self.at_once_max > AT_ONCE_MAX {
            bail!("sql.at_once_max is {}, must be between 1 and {AT_ONCE_MAX}", self.at_once_max);
        }
        if self.rows_max == 0 || self.answer_bytes_max == 0 {
            bail!("sql.rows_max and sql.answer_bytes_max must be above zero: no query would ever be answered");
        }
        Ok(())
    }
}
