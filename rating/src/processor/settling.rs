//! What closing a scope's time adds to its usage: reads the bill's lines and what earlier bills say, and asks the prices.

use futures::TryStreamExt;
use orzo_model::Timestamp;

use super::{Processor, ProcessorError, corrections::corrections, run::month_begin};
use crate::{
    doors::LineFilter,
    forecast::month,
    line::RatedLine,
    price::{Bill, Earlier, is_settled},
};

impl Processor {
    /// Appends what a bill's sums make it need, held against what an earlier try has appended.
    pub(super) async fn settle(&self, scope: &str, begin: Timestamp, end: Timestamp) -> Result<(), ProcessorError> {
        let lines = self.expected(scope, begin, end).await?;
        self.append(lines).await.map(|_| ())
    }

    /// The lines that closing a scope's time would append: what its sums make a bill need, by the rules and the usage of now.
    /// Nothing is written. A bill from the epoch on, which is the first one of a project, begins with the month of its first line:
    /// rules that hold for a time are not asked about 1970, and no month is bought before there was anything.
    pub async fn expected(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<RatedLine>, ProcessorError> {
        let (now, version) = (self.clock.now(), self.book.rule_version().await?);
        let (mut usage, mut left) = (Vec::new(), Vec::new());
        let mut stream = self.ledger.read(&bill_of(scope, begin, end)).await?;
        while let Some(line) = stream.try_next().await? {
            // Of time that is not closed: what a try has left that got no further, whenever its bill began.
            if is_settled(&line) { left.push(line) } else { usage.push(line) }
        }
        let last = Timestamp::from_micros(end.micros() - 1);
        let begin = match begin {
            Timestamp::EPOCH => month_begin(usage.first().map_or(last, |line| line.period)),
            begin => begin,
        };
        let rules = self.rules_at(version, begin).await?;
        let months = (month(begin, 0), month(last, 1));
        let mut earlier = Earlier { lines: self.billed(scope, months, None).await?, settled: Vec::new() };
        // What was closed meanwhile is not settled twice.
        earlier.lines.retain(|line| line.period < begin || line.period >= end);
        if let Some((since, services)) = rules.prices.looks_back(scope, begin, end) {
            earlier.settled = self.billed(scope, (since, months.0), Some(services)).await?;
            earlier.settled.retain(is_settled);
        }
        let bill = Bill { scope, begin, end, period: self.settings.period, earlier: &earlier };
        let wanted = rules.prices.settle(&bill, &usage, (version, now));
        Ok(corrections(&left, wanted, |period| period, now).0)
    }

    /// The lines of a time that are in closed bills, of all services or of these.
    async fn billed(
        &self,
        scope: &str,
        (since, until): (Timestamp, Timestamp),
        services: Option<Vec<String>>,
    ) -> Result<Vec<RatedLine>, ProcessorError> {
        let closed = self.book.closed_periods(Some(scope), since, until).await?;
        let mut found = Vec::new();
        if closed.is_empty() {
            return Ok(found);
        }
        let mut stream = self.ledger.read(&LineFilter { services, ..bill_of(scope, since, until) }).await?;
        while let Some(line) = stream.try_next().await? {
            if closed.iter().any(|own| own.begin <= line.period && line.period < own.end) {
                found.push(line);
            }
        }
        Ok(found)
    }
}

/// All lines of a scope's periods of a time.
pub(super) fn bill_of(scope: &str, begin: Timestamp, end: Timestamp) -> LineFilter {
    let scopes = Some(vec![scope.to_owned()]);
    LineFilter { scopes, begin: Some(begin), end: Some(end), ..LineFilter::default() }
}
