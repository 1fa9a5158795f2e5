//! Closed periods: what was billed never changes; what comes later is a correction.

use orzo_database::Row;
use orzo_model::Timestamp;

use super::{BookError, RatingBook, decimal_of, time_of};
use crate::currency::Totals;

/// A period of a scope that is closed.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedPeriod {
    /// Whose.
    pub scope_id: String,
    /// From when on.
    pub begin: Timestamp,
    /// Until before when.
    pub end: Timestamp,
    /// When it was closed.
    pub closed_at: Timestamp,
    /// By whom.
    pub closed_by: String,
    /// The rules that were in force then.
    pub rule_version: u64,
    /// Lines that it has.
    pub lines: u64,
    /// Their sums.
    pub totals: Totals,
}

fn period_of(row: &Row) -> Result<ClosedPeriod, BookError> {
    let id = "scope_id";
    let count = |column: &str| row.int(column).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    Ok(ClosedPeriod {
        scope_id: row.string(id),
        begin: time_of(row, id, "begin_at")?,
        end: time_of(row, id, "end_at")?,
        closed_at: time_of(row, id, "closed_at")?,
        closed_by: row.string("closed_by"),
        rule_version: count("rule_version"),
        lines: count("lines"),
        totals: Totals::new(),
    })
}

impl RatingBook {
    /// Closes a period for ever. `false`: a period of the scope that overlaps is closed already.
    pub async fn close_period(&self, period: &ClosedPeriod) -> Result<bool, BookError> {
        self.database
            .transact(|tx| {
                let period = period.clone();
                Box::pin(async move {
                    let sql =
                        "SELECT 1 AS one FROM rating_periods WHERE scope_id = $1 AND begin_at < $2 AND end_at > $3";
                    let values = [period.scope_id.as_str().into(), period.end.into(), period.begin.into()];
                    if tx.query_one(sql, &values).await?.is_some() {
                        return Ok(false);
                    }
                    let sql = "INSERT INTO rating_periods (scope_id, begin_at, end_at, closed_at, closed_by, \
                               rule_version, lines) VALUES ($1, $2, $3, $4, $5, $6, $7)";
                    let values = [
                        period.scope_id.as_str().into(),
                        period.begin.into(),
                        period.end.into(),
                        period.closed_at.into(),
                        period.closed_by.as_str().into(),
                        i64::try_from(period.rule_version).unwrap_or(i64::MAX).into(),
                        i64::try_from(period.lines).unwrap_or(i64::MAX).into(),
                    ];
                    tx.execute(sql, &values).await?;
                    for (currency, total) in &period.totals {
                        let sql = "INSERT INTO rating_period_totals (scope_id, begin_at, currency, total) \
                                   VALUES ($1, $2, $3, $4)";
                        let values = [
                            period.scope_id.as_str().into(),
                            period.begin.into(),
                            currency.as_str().into(),
                            total.to_plain_string().into(),
                        ];
                        tx.execute(sql, &values).await?;
                    }
                    Ok(true)
                })
            })
            .await
    }

    /// Closed periods of a scope (or all) that overlap a range, by scope and begin.
    pub async fn closed_periods(
        &self,
        scope_id: Option<&str>,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<ClosedPeriod>, BookError> {
        let mut sql = "SELECT rating_periods.*, rating_period_totals.currency, rating_period_totals.total \
                       FROM rating_periods LEFT JOIN rating_period_totals \
                       ON rating_period_totals.scope_id = rating_periods.scope_id \
                       AND rating_period_totals.begin_at = rating_periods.begin_at \
                       WHERE rating_periods.begin_at < $1 AND rating_periods.end_at > $2"
            .to_owned();
        let mut values = vec![end.into(), begin.into()];
        if let Some(scope_id) = scope_id {
            sql.push_str(" AND rating_periods.scope_id = $3");
            values.push(scope_id.into());
        }
        sql.push_str(" ORDER BY rating_periods.scope_id, rating_periods.begin_at, rating_period_totals.currency");
        let mut periods: Vec<ClosedPeriod> = Vec::new();
        for row in self.database.query(&sql, &values).await? {
            let own = period_of(&row)?;
            if periods.last().is_none_or(|last| (&last.scope_id, last.begin) != (&own.scope_id, own.begin)) {
                periods.push(own);
            }
            // A period without a line has no sum.
            let currency = row.string("currency");
            if let Some(last) = periods.last_mut().filter(|_| !currency.is_empty()) {
                last.totals.insert(currency, decimal_of(&row, "scope_id", "total")?);
            }
        }
        Ok(periods)
    }
}
