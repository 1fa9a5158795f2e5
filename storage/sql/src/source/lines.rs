//! Rated lines, from the ledger's own reader, one after the other.

use futures::TryStreamExt;
use orzo_model::Timestamp;
use orzo_rating::{Ledger, LineFilter, RatedLine, line::Facts};

use super::{
    Takes,
    rows::{Cell, Row, Rows},
};
use crate::{
    error::SqlError,
    tables::{Column, Wanted},
};

fn facts(facts: &Facts) -> Cell<'_> {
    Cell::Map(facts.iter().map(|(name, value)| (name.as_str(), value.as_str().into())).collect())
}

impl Row for RatedLine {
    fn cell(&self, column: Column) -> Option<Cell<'_>> {
        let time = |time: Timestamp| Some(Cell::Time(time.micros()));
        match column {
            Column::Id => Some(self.id.to_string().into()),
            Column::Scope => Some(self.scope.as_str().into()),
            Column::Service => Some(self.service.as_str().into()),
            Column::Resource => Some(self.resource.as_str().into()),
            Column::Begin => time(self.begin),
            Column::End => time(self.end),
            Column::Period => time(self.period),
            Column::Unit => Some(self.unit.as_str().into()),
            Column::Quantity => Some(Cell::Decimal(&self.quantity)),
            Column::UnitPrice => Some(Cell::Decimal(&self.unit_price)),
            Column::Cost => Some(Cell::Decimal(&self.cost)),
            Column::Currency => Some(self.currency.as_str().into()),
            Column::LineKind => Some(self.kind.name().into()),
            Column::Corrects => self.corrects.map(|id| id.to_string().into()),
            Column::Reverses => Some(Cell::Flag(self.reverses)),
            Column::Rule => Some(self.rule.as_str().into()),
            Column::RuleVersion => Some(Cell::Long(i64::try_from(self.rule_version).unwrap_or(i64::MAX))),
            Column::Sequence => Some(Cell::Int(i32::try_from(self.sequence).unwrap_or(i32::MAX))),
            Column::Groupby => Some(facts(&self.groupby)),
            Column::Metadata => Some(facts(&self.metadata)),
            Column::Samples => Some(Cell::Long(i64::try_from(self.samples).unwrap_or(i64::MAX))),
            Column::RatedAt => time(self.rated_at),
            _ => None,
        }
    }
}

/// What the ledger can leave out by itself.
fn filter(wanted: &Wanted) -> LineFilter {
    let from = |micros: i64| (micros > i64::MIN).then(|| Timestamp::from_micros(micros));
    // An end is not in it, but for the last time of all.
    let until = |micros: i64| (micros < Timestamp::MAX.micros()).then(|| Timestamp::from_micros(micros + 1));
    let (first_begin, last_begin) = wanted.time_of(Column::Begin);
    let (first_period, last_period) = wanted.time_of(Column::Period);
    let (first_rated, _) = wanted.time_of(Column::RatedAt);
    // What is no id is no line's.
    let ids = |texts: Vec<String>| texts.iter().filter_map(|text| text.parse().ok()).collect();
    LineFilter {
        scopes: wanted.texts_of(Column::Scope),
        begin: from(first_period),
        end: until(last_period),
        used_from: from(first_begin),
        used_before: until(last_begin),
        rated_after: from(first_rated).map(|first| Timestamp::from_micros(first.micros().saturating_sub(1))),
        services: wanted.texts_of(Column::Service),
        ids: wanted.texts_of(Column::Id).map(ids),
        ..LineFilter::default()
    }
}

/// Reads the lines that are wanted.
pub(super) async fn lines<T: Takes>(
    ledger: &dyn Ledger,
    wanted: &Wanted,
    rows: &mut Rows<'_, T>,
) -> Result<bool, SqlError> {
    let mut lines = ledger.read(&filter(wanted)).await.map_err(SqlError::unavailable)?;
    while let Some(line) = lines.try_next().await.map_err(SqlError::unavailable)? {
        if !rows.add(&line).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
