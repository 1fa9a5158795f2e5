//! Usage and sums, counted once more by SQL: from the raw tables of events and points, in a process of its own, by none of
//! the rating's code. The questions are the files of `recount/`; here they are filled in, asked, and their answers compared.
//!
//! `events → seconds of each period with the same facts`, `points → means of levels, increases of counters`,
//! `rated lines → sums`, each beside what the ledger says.
//!
//! What SQL gives are whole seconds, decimals of values times microseconds, and sums. The metric's conversion is applied here,
//! in decimals. A quantity may differ by [`ROUNDING`] for each line, where points are read by [`READING`] besides, and by nothing else.
//!
//! Left to the rating itself are resources of which no event tells, or polling something else than their events; and whether
//! a line is missing where only points tell of usage. [`Recount::left`] counts all lines that are left, by why.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use orzo_model::{Rooms, SystemClock, Timestamp};
use orzo_rating::{BigDecimal, MetricDefinition, Mutation, UsageKind};
use orzo_sql::{Form, Queries, Source, SqlSettings, Worker};

use super::{Open, plain, verify::Sums};

mod questions;
pub(super) use questions::Stretch;
use questions::{Part, chunks, filled, level_trait, outside, quoted};

/// Periods of one question at least: a month of hours.
const PERIODS_AT_ONCE: u64 = 744;
/// Resources times periods of one question: what a process holds easily, and far more than what starting it costs.
const CHARGES_AT_ONCE: u64 = 600_000;
/// What rounding to the last of the ledger's ten digits makes at most, as digits and places.
const ROUNDING: (i64, i64) = (5, 11);
/// What reading the values of levels and counters with twelve digits makes at most, and the two of an increase together.
const READING: (i64, i64) = (1, 12);
/// Digits of a mean.
const MEAN_DIGITS: u64 = 28;

/// Asks by SQL.
pub(super) struct Recounter(Queries);

/// What the count came to.
#[derive(Default)]
pub(super) struct Recount {
    /// Resources, periods and facts that were counted again from events, and the lines that charge them.
    pub(super) lasting: u64,
    pub(super) lasting_lines: u64,
    /// Lines that were counted again from points.
    pub(super) measured_lines: u64,
    /// Lines that this count does not look at, by why.
    pub(super) left: BTreeMap<String, u64>,
    /// In words.
    pub(super) problems: Vec<String>,
}

/// A row of `lasting.sql`.
struct Lasting {
    resource: String,
    used_in: Timestamp,
    facts: String,
    seconds: i64,
    amount: BigDecimal,
    charged_seconds: i64,
    quantity: BigDecimal,
    lines: u64,
    doubt: String,
    tells_level: bool,
}

/// A row of `levels.sql` and `counters.sql`.
struct Measured {
    id: String,
    resource: String,
    begin: i64,
    end: i64,
    quantity: BigDecimal,
    amount: Option<BigDecimal>,
}

impl Lasting {
    /// What the events make the quantity, after the metric's conversion; `None` where that cannot be told of a sum.
    fn counted(&self, definition: &MetricDefinition, period: Duration) -> Option<BigDecimal> {
        let (whole, seconds) = (BigDecimal::from(period.as_secs()), BigDecimal::from(self.seconds));
        let conversion = &definition.conversion;
        let amount = match (definition.usage, &conversion.mutation) {
            (UsageKind::Existence, _) => conversion.apply(&BigDecimal::from(1)) * seconds,
            (_, Mutation::None) => &self.amount * &conversion.factor + &conversion.offset * seconds,
            _ => return None,
        };
        Some(amount / whole)
    }
}

impl Measured {
    /// What the points make the quantity.
    fn counted(&self, definition: &MetricDefinition, period: Duration) -> Option<BigDecimal> {
        let amount = self.amount.as_ref()?;
        if definition.usage == UsageKind::Increase {
            return Some(definition.conversion.apply(amount));
        }
        let seconds = BigDecimal::from(self.end - self.begin);
        let mean = (amount / (&seconds * BigDecimal::from(1_000_000))).with_prec(MEAN_DIGITS);
        Some(definition.conversion.apply(&mean) * seconds / BigDecimal::from(period.as_secs()))
    }
}

/// Whether two quantities are the same but for the rounding of so many lines, and of values where points are read.
fn is_same(counted: &BigDecimal, said: &BigDecimal, lines: u64, value_factor: Option<&BigDecimal>) -> bool {
    let step = |(digit, places): (i64, i64)| BigDecimal::new(digit.into(), places);
    let of_values = value_factor.map(|factor| factor.abs() * step(READING)).unwrap_or_default();
    (counted - said).abs() <= step(ROUNDING) * BigDecimal::from(lines.max(1)) + of_values
}

impl Recounter {
    /// Over what this process has open; each question has a process of its own.
    pub(super) fn new(open: &Open, worker: Worker) -> Self {
        let source = Source {
            index: open.index.clone(),
            labels: None,
            store: open.store.clone(),
            ledger: Some(Arc::new(open.rating.ledger.clone())),
        };
        // Nobody else waits for this process, and its questions are its own.
        let settings = SqlSettings {
            deadline: Duration::from_secs(1800),
            memory_bytes_max: 2 << 30,
            rows_max: 5_000_000,
            answer_bytes_max: 512 << 20,
            operators_max: 20_000,
            ..SqlSettings::default()
        };
        let room = Rooms::new(&prometheus::Registry::new()).room("sql");
        Self(Queries::new(source, worker, settings, room, SystemClock::shared()))
    }

    /// The rows of an answer, each with the texts of its cells.
    async fn ask(&self, question: &str) -> anyhow::Result<Vec<csv::StringRecord>> {
        let answer = self.0.run(question, Form::Csv).await.with_context(|| {
            let first = question.lines().next().unwrap_or_default();
            format!("cannot ask by SQL: {}", first.trim_start_matches("-- "))
        })?;
        let rows = csv::Reader::from_reader(&answer.body[..]).into_records().collect::<Result<Vec<_>, _>>();
        rows.context("an answer by SQL cannot be read")
    }

    /// What projects were charged by month and service.
    pub(super) async fn sums(&self) -> anyhow::Result<Sums> {
        let mut sums = Sums::new();
        for row in self.ask(include_str!("recount/sums.sql")).await? {
            let key = (text(&row, 0), text(&row, 1), text(&row, 2), text(&row, 3));
            sums.insert(key, number(&row, 4)?);
        }
        Ok(sums)
    }

    /// Lines whose cost is not their quantity times their price.
    pub(super) async fn priced(&self) -> anyhow::Result<Vec<String>> {
        let rows = self.ask(include_str!("recount/priced.sql")).await?;
        let told = |row: &csv::StringRecord| {
            let [id, scope, service, quantity, price, cost] = [0, 1, 2, 3, 4, 5].map(|place| text(row, place));
            format!("{scope} {service}: line {id} costs {cost}, and {quantity} times {price} is something else")
        };
        Ok(rows.iter().map(told).collect())
    }

    /// Counts the usage of a project again; `told` hears of each definition that is done.
    pub(super) async fn usage(
        &self,
        stretch: &Stretch<'_>,
        definitions: &[MetricDefinition],
        told: impl Fn(),
    ) -> anyhow::Result<Recount> {
        let mut found = Recount::default();
        let scope = [("scope", quoted(stretch.scope))];
        let known = self.ask(&filled(include_str!("recount/resources.sql"), &scope)).await?;
        for definition in definitions {
            let all = of_definition(&known, definition);
            for resources in chunks(&all) {
                let width = stretch.period.saturating_mul(periods_at_once(resources.len()));
                let mut from = stretch.from;
                while from < stretch.until {
                    let until = from.plus(width).min(stretch.until);
                    let part = Part { stretch, definition, resources, from, until };
                    self.count(&part, &mut found).await?;
                    from = until;
                }
            }
            told();
        }
        let looked_at = found.lasting_lines + found.measured_lines + found.left.values().sum::<u64>();
        let mut to_count = 0;
        for row in self.ask(&outside(stretch, definitions)).await? {
            let lines = row.get(1).unwrap_or_default().parse().context("a count")?;
            match row.get(0).unwrap_or_default() {
                "" => to_count = lines,
                why => *found.left.entry(why.to_owned()).or_default() += lines,
            }
        }
        if looked_at != to_count {
            let scope = stretch.scope;
            found
                .problems
                .push(format!("{scope}: {to_count} lines were to be counted again, {looked_at} were looked at"));
        }
        Ok(found)
    }

    async fn count(&self, part: &Part<'_>, found: &mut Recount) -> anyhow::Result<()> {
        let lines_before = found.lasting_lines + found.measured_lines;
        match (part.definition.usage, level_trait(part.definition)) {
            (UsageKind::Increase, _) => self.measured(part, include_str!("recount/counters.sql"), found).await?,
            (UsageKind::Level, None) => self.measured(part, include_str!("recount/levels.sql"), found).await?,
            (UsageKind::Existence | UsageKind::Level, _) => {
                let measured = self.lasting(part, found).await?;
                let part = Part { resources: &measured, ..*part };
                if !measured.is_empty() {
                    self.measured(&part, include_str!("recount/levels.sql"), found).await?;
                }
            }
        }
        if found.lasting_lines + found.measured_lines == lines_before {
            return Ok(());
        }
        for row in self.ask(&filled(include_str!("recount/twice.sql"), &part.values())).await? {
            let [id, service, resource, begin] = [0, 1, 2, 3].map(|place| text(&row, place));
            let (scope, begin) = (part.stretch.scope, second(&begin)?);
            found.problems.push(format!(
                "{scope} {service} {resource}: line {id} from {} charges a time that another line charges",
                begin.zulu_secs()
            ));
        }
        Ok(())
    }

    /// What lasts, by events; gives the resources whose size they do not tell.
    async fn lasting(&self, part: &Part<'_>, found: &mut Recount) -> anyhow::Result<Vec<String>> {
        let (definition, period) = (part.definition, part.stretch.period);
        let mut measured: Vec<String> = Vec::new();
        for row in self.ask(&part.lasting()).await? {
            let own = Lasting::read(&row)?;
            if definition.usage == UsageKind::Level && !own.tells_level {
                if measured.last() != Some(&own.resource) {
                    measured.push(own.resource);
                }
                continue;
            }
            let left = |why: &str| (why.to_owned(), own.lines);
            let counted = match (own.doubt.as_str(), own.counted(definition, period)) {
                ("", Some(counted)) => Ok(counted),
                ("", None) => Err(left("a size that is rounded before it is charged")),
                (doubt, _) => Err(left(doubt)),
            };
            match counted {
                // What is not charged leaves no line.
                Err((_, 0)) => {}
                Err((why, lines)) => *found.left.entry(why).or_default() += lines,
                Ok(counted) => {
                    found.lasting += 1;
                    found.lasting_lines += own.lines;
                    let is_right =
                        own.seconds == own.charged_seconds && is_same(&counted, &own.quantity, own.lines, None);
                    if !is_right {
                        found.problems.push(format!(
                            "{} {} {} in the period from {} ({}): by its events {} s, which makes {}; in the ledger {} lines \
                             with {} s and {}",
                            part.stretch.scope,
                            definition.service,
                            own.resource,
                            own.used_in.zulu_secs(),
                            own.facts,
                            own.seconds,
                            plain(&counted.with_prec(MEAN_DIGITS)),
                            own.lines,
                            own.charged_seconds,
                            plain(&own.quantity)
                        ));
                    }
                }
            }
        }
        Ok(measured)
    }

    /// What points tell.
    async fn measured(&self, part: &Part<'_>, question: &str, found: &mut Recount) -> anyhow::Result<()> {
        let definition = part.definition;
        let factor = &definition.conversion.factor;
        for row in self.ask(&filled(question, &part.values())).await? {
            let own = Measured::read(&row)?;
            found.measured_lines += 1;
            let counted = own.counted(definition, part.stretch.period);
            if counted.as_ref().is_some_and(|counted| is_same(counted, &own.quantity, 1, Some(factor))) {
                continue;
            }
            let counted = counted.map_or("nothing".to_owned(), |counted| plain(&counted.with_prec(MEAN_DIGITS)));
            found.problems.push(format!(
                "{} {} {}: line {} from {}: by its points {counted}, in the ledger {}",
                part.stretch.scope,
                definition.service,
                own.resource,
                own.id,
                Timestamp::from_secs(own.begin).zulu_secs(),
                plain(&own.quantity)
            ));
        }
        Ok(())
    }
}

/// The resources that a definition may charge: those of its type, and those that its service was charged for. Of rows of
/// `resources.sql`.
fn of_definition(known: &[csv::StringRecord], definition: &MetricDefinition) -> Vec<String> {
    let wanted = [("service", definition.service.as_str()), ("type", definition.collecting.resource_type.as_str())];
    let is_one =
        |row: &&csv::StringRecord| wanted.iter().any(|(what, name)| text(row, 1) == *what && text(row, 2) == *name);
    let mut names: Vec<String> = known.iter().filter(is_one).map(|row| text(row, 0)).collect();
    names.dedup();
    names
}

/// Periods of one question about so many resources.
fn periods_at_once(resources: usize) -> u32 {
    let fitting = CHARGES_AT_ONCE / u64::try_from(resources).unwrap_or(u64::MAX).max(1);
    u32::try_from(fitting.max(PERIODS_AT_ONCE)).unwrap_or(u32::MAX)
}

fn text(row: &csv::StringRecord, place: usize) -> String {
    row.get(place).unwrap_or_default().to_owned()
}

fn number<N: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &csv::StringRecord,
    place: usize,
) -> anyhow::Result<N> {
    let text = row.get(place).unwrap_or_default();
    text.parse().with_context(|| format!("`{text}` is no number"))
}

fn second(text: &str) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_secs(text.parse().with_context(|| format!("`{text}` is no second"))?))
}

impl Lasting {
    fn read(row: &csv::StringRecord) -> anyhow::Result<Self> {
        Ok(Self {
            resource: text(row, 0),
            used_in: second(&text(row, 1))?,
            facts: text(row, 2),
            seconds: number(row, 3)?,
            amount: number(row, 4)?,
            charged_seconds: number(row, 5)?,
            quantity: number(row, 6)?,
            lines: number(row, 7)?,
            doubt: text(row, 8),
            tells_level: text(row, 9) == "true",
        })
    }
}

impl Measured {
    fn read(row: &csv::StringRecord) -> anyhow::Result<Self> {
        let amount = text(row, 6);
        Ok(Self {
            id: text(row, 0),
            resource: text(row, 1),
            begin: number(row, 3)?,
            end: number(row, 4)?,
            quantity: number(row, 5)?,
            amount: if amount.is_empty() { None } else { Some(number(row, 6)?) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_may_differ_by_the_last_digit_of_each_line_and_no_more() {
        let number = |text: &str| text.parse::<BigDecimal>().expect("a number");
        assert!(is_same(&number("0.83333333333333"), &number("0.8333333333"), 1, None));
        assert!(!is_same(&number("0.83333333333333"), &number("0.8333333334"), 1, None));
        assert!(is_same(&number("0.83333333333333"), &number("0.8333333334"), 2, None));
        assert!(!is_same(&number("1"), &number("0.9997222222"), 1, None), "a second of an hour");
    }
}
