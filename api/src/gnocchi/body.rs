//! What several bodies have in common. Pure.

use super::fields::Fields;
use crate::problem::Problem;

/// Longest unit, as in Gnocchi's database.
pub(super) const UNIT_CHARACTERS_MAX: usize = 31;

/// The unit of a metric, if it is not too long.
pub(super) fn unit(fields: &Fields<'_>) -> Result<Option<String>, Problem> {
    match fields.text_or_null("unit")? {
        Some(Some(unit)) if unit.chars().count() > UNIT_CHARACTERS_MAX => {
            Err(fields.value_problem(&format!("length of value must be at most {UNIT_CHARACTERS_MAX}"), "unit"))
        }
        other => Ok(other.flatten().map(str::to_owned)),
    }
}

/// Whether a metric may have this name.
pub(super) fn metric_name(name: &str) -> Result<(), &'static str> {
    if name.contains('/') { Err("'/' is not supported in metric name") } else { Ok(()) }
}
