//! Closed periods: what was billed never changes; what comes later is a correction.

use bigdecimal::BigDecimal;
use orzo_database::Row;
use orzo_model::Timestamp;

use super::{BookError, RatingBook, decimal_of, time_of};

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
    /// Their sum.
    pub total: BigDecimal,
    /// The sum's currency.
    pub currency: String,
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
        total: decimal_of(row, id, "total")?,
        currency: row.string("currency"),
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
                               rule_version, lines, total, currency) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
                    let values = [
                        period.scope_id.as_str().into(),
                        period.begin.into(),
                        period.end.into(),
                        period.closed_at.into(),
                        period.closed_by.as_str().into(),
                        i64::try_from(period.rule_version).unwrap_or(i64::MAX).into(),
                        i64::try_from(period.lines).unwrap_or(i64::MAX).into(),
                        period.total.to_plain_string().into(),
                        period.currency.as_str().into(),
                    ];
                    tx.execute(sql, &values).await?;
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
        let mut sql = "SELECT * FROM rating_periods WHERE begin_at < $1 AND end_at > $2".to_owned();
        let mut values = vec![end.into(), begin.into()];
        if let Some(scope_id) = scope_id {
            sql.push_str(" AND scope_id = $3");
            values.push(scope_id.into());
        }
        sql.push_str(" ORDER BY scope_id, begin_at");
        self.database.query(&sql, &values).await?.iter().map(period_of).collect()
    }
}
