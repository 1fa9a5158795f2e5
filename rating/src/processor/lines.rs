//! Lines of a scope's usage. Pure: the same evidence and rules make the same lines, with the same ids.
//!
//! What lasts is priced as if it had lasted the whole period, and the price is cut by the second: a threshold looks at a
//! size and not at how long the size was there. What is counted is priced as it is.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bigdecimal::{BigDecimal, One, Zero};
use orzo_model::{Measure, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Mode, RatingSettings, SharedRules,
    unpriced::{Charge, Unpriced},
};
use crate::{
    doors::Evidence,
    hashmap::PriceList,
    line::{COST_SCALE, LineKind, RatedLine, WHOLE_DIGITS_MAX, cost_of},
    metrics::{MetricDefinition, Metrics, UsageKind},
    segments::{Completeness, Finding, Segment, collected, completeness, increase, level, segments, timeline},
    usage::Usage,
};

/// Digits of a mean, and of a price of one unit before it is rounded.
const MEAN_DIGITS: u64 = 28;

/// The rules of a period as they are for one scope.
#[derive(Clone)]
pub struct PeriodRules {
    /// From.
    pub begin: Timestamp,
    /// Until.
    pub end: Timestamp,
    /// In force at its begin.
    pub rules: SharedRules,
    /// For the scope; shared while nothing changes.
    pub list: Arc<PriceList>,
}

/// What a scope's evidence comes to.
#[derive(Debug, Default)]
pub struct Rated {
    /// The lines.
    pub lines: Vec<RatedLine>,
    /// Charges that have no price, and so no line.
    pub unpriced: Vec<Unpriced>,
    /// What does not fit together.
    pub findings: Vec<Finding>,
    /// Of resources that polling missed.
    pub incomplete: Vec<Completeness>,
}

/// What is priced, before the time is taken into account.
struct Priced {
    quantity: BigDecimal,
    price: BigDecimal,
    unit_price: BigDecimal,
    /// Id of the rule.
    rule: String,
}

/// Prices of one segment; the last one is remembered, because a resource is mostly the same from hour to hour.
struct Pricing<'a> {
    definition: &'a MetricDefinition,
    description: BTreeMap<String, Value>,
    last: Option<(Arc<PriceList>, BigDecimal, Priced)>,
    scope: &'a str,
}

impl<'a> Pricing<'a> {
    fn new(definition: &'a MetricDefinition, scope: &'a str, segment: &Segment) -> Self {
        let facts = segment.groupby.iter().chain(segment.metadata.iter());
        let description = facts.map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
        Self { definition, description, last: None, scope }
    }

    fn of(&mut self, rules: &PeriodRules, measured: &BigDecimal) -> Result<&Priced, String> {
        let list = &rules.list;
        let expression = rules.rules.prices.expression(&self.definition.service, self.scope, rules.begin);
        let rule = rule_of(self.definition, expression.map(|(id, _)| id));
        let is_known = self
            .last
            .as_ref()
            .is_some_and(|(own, last, priced)| Arc::ptr_eq(own, list) && last == measured && priced.rule == rule);
        if !is_known {
            let quantity = self.definition.conversion.apply(measured);
            let usage = Usage {
                service: self.definition.service.clone(),
                quantity: quantity.clone(),
                description: self.description.clone(),
            };
            let listed = list.price(&usage).map_err(|error| error.to_string())?;
            let price = match expression {
                None => listed,
                Some((id, expression)) => {
                    let known = |name: &str| usage.description.get(name).map(crate::usage::text_of);
                    let priced = expression.price(&listed, &quantity, &known);
                    priced.map_err(|error| format!("expression `{id}`: {error}"))?
                }
            };
            let unit_price = match quantity.is_zero() {
                true => BigDecimal::zero(),
                false if quantity.is_one() => price.clone(),
                false => (&price / &quantity).with_prec(MEAN_DIGITS),
            };
            if [&quantity, &price, &unit_price].into_iter().any(is_too_large) {
                return Err(format!("it has more than {WHOLE_DIGITS_MAX} digits before the point"));
            }
            let priced = Priced { quantity, price, unit_price: cost_of(&unit_price), rule };
            self.last = Some((list.clone(), measured.clone(), priced));
        }
        Ok(&self.last.as_ref().expect("it was set above").2)
    }
}

/// Whether a number has more digits than a line holds.
fn is_too_large(number: &BigDecimal) -> bool {
    i64::try_from(number.digits()).unwrap_or(i64::MAX) - number.fractional_digit_count() > WHOLE_DIGITS_MAX
}

fn counted(points: &[Measure], begin: Timestamp, end: Timestamp) -> u64 {
    let first = points.partition_point(|point| point.timestamp < begin);
    (points.partition_point(|point| point.timestamp < end) - first) as u64
}

/// A part of a whole, exact but for 100 digits.
fn share<'n>(number: &'n BigDecimal, part: i64, whole: i64) -> Cow<'n, BigDecimal> {
    match part == whole {
        true => Cow::Borrowed(number),
        false => Cow::Owned(number * BigDecimal::from(part) / BigDecimal::from(whole)),
    }
}

/// Where a line comes from.
struct Origin<'a> {
    scope: &'a str,
    resource: &'a str,
    definition: &'a MetricDefinition,
    segment: &'a Segment,
    rules: &'a PeriodRules,
    rated_at: Timestamp,
}

impl Origin<'_> {
    fn line(
        &self,
        (begin, end): (Timestamp, Timestamp),
        priced: &Priced,
        part: i64,
        whole: i64,
        samples: u64,
    ) -> RatedLine {
        let rounded = |number: &BigDecimal| -> BigDecimal {
            let share = share(number, part, whole);
            // Most are short already; rounding is what costs.
            if share.fractional_digit_count() <= COST_SCALE { share.into_owned() } else { cost_of(&share) }
        };
        RatedLine {
            id: Uuid::nil(),
            scope: self.scope.to_owned(),
            service: self.definition.service.clone(),
            resource: self.resource.to_owned(),
            begin,
            end,
            period: self.rules.begin,
            unit: self.definition.unit.clone(),
            quantity: rounded(&priced.quantity),
            unit_price: priced.unit_price.clone(),
            cost: rounded(&priced.price),
            currency: self.rules.rules.prices.currency(self.scope, self.rules.begin).to_owned(),
            kind: LineKind::Usage,
            corrects: None,
            reverses: false,
            rule: priced.rule.clone(),
            rule_version: self.rules.rules.version,
            sequence: 0,
            groupby: self.segment.groupby.clone(),
            metadata: self.segment.metadata.clone(),
            samples,
            rated_at: self.rated_at,
        }
        .identified()
    }
}

/// The id of the rule that prices a metric: the hashmap's service and, where a metric has several ratings, which; and the
/// expression on it.
pub(super) fn rule_of(definition: &MetricDefinition, expression: Option<&str>) -> String {
    let MetricDefinition { service, number, .. } = definition;
    match expression {
        None => format!("hashmap/{service}/{number}"),
        Some(id) => format!("hashmap/{service}/{number}/expression/{id}"),
    }
}

/// Lines of one resource and metric, and the periods that have no price: until when, and why.
#[derive(Default)]
struct Charged {
    lines: Vec<RatedLine>,
    unpriced: BTreeMap<Timestamp, (Timestamp, String)>,
}

impl Charged {
    fn take(&mut self, rules: &PeriodRules, line: Result<RatedLine, String>) {
        match line {
            Ok(line) => self.lines.push(line),
            Err(reason) => {
                self.unpriced.entry(rules.begin).or_insert((rules.end, reason));
            }
        }
    }

    /// A period is charged as a whole or not at all: half of it beside a line that stands would be charged twice.
    fn whole(mut self) -> Self {
        if !self.unpriced.is_empty() {
            self.lines.retain(|line| !self.unpriced.contains_key(&line.period));
        }
        self
    }
}

/// The lines of a scope in periods that follow each other. What has no price makes none, and is told; it keeps nothing else from
/// being rated.
pub fn rate<'e>(
    scope: &str,
    evidence: impl IntoIterator<Item = &'e Evidence>,
    periods: &[PeriodRules],
    metrics: &Metrics,
    settings: &RatingSettings,
    rated_at: Timestamp,
) -> Rated {
    let mut rated = Rated::default();
    let (Some(first), Some(last)) = (periods.first(), periods.last()) else { return rated };
    let time = (first.begin, last.end);
    for own in evidence {
        let life = timeline(own, last.end);
        rated.findings.extend(life.findings.iter().filter(|found| time.0 <= found.at && found.at < time.1).cloned());
        for definition in &metrics.definitions {
            if definition.collecting.resource_type != own.resource_type {
                continue;
            }
            let points = own.measures.get(&definition.metric).map(Vec::as_slice).unwrap_or_default();
            let stretches = segments(&life, definition);
            let ours = stretches.iter().filter(|segment| segment.project_id.as_deref() == Some(scope));
            let ours: Vec<&Segment> = ours.filter(|segment| segment.within(time.0, time.1).is_some()).collect();
            if ours.is_empty() {
                continue;
            }
            let origin =
                |segment, rules| Origin { scope, resource: &own.resource, definition, segment, rules, rated_at };
            let outcome = match settings.mode {
                Mode::Exact => exact_lines(&ours, points, periods, life.has_known_birth, definition, &origin),
                Mode::CloudKitty => whole_lines(&ours, points, periods, definition, &origin),
            };
            let Charged { lines, unpriced } = outcome.whole();
            rated.lines.extend(lines);
            rated.unpriced.extend(unpriced.into_iter().map(|(period, (until, reason))| {
                let (resource, service) = (own.resource.clone(), definition.service.clone());
                Unpriced { charge: Charge { resource, service, period }, until, reason }
            }));
            if own.measures.contains_key(&definition.metric) {
                let found = completeness(own, &life, &definition.metric, time, settings.slot);
                if !found.missing.is_empty() {
                    rated.incomplete.push(found);
                }
            }
        }
    }
    rated
}

/// Cut to the second.
fn exact_lines<'a>(
    segments: &[&'a Segment],
    points: &[Measure],
    periods: &'a [PeriodRules],
    begins_at_zero: bool,
    definition: &'a MetricDefinition,
    origin: &impl Fn(&'a Segment, &'a PeriodRules) -> Origin<'a>,
) -> Charged {
    let mut charged = Charged::default();
    let one = BigDecimal::from(1);
    for segment in segments {
        let mut pricing = None;
        for rules in periods {
            let Some((begin, end)) = segment.within(rules.begin, rules.end) else { continue };
            let (part, whole) = (end.secs() - begin.secs(), rules.end.secs() - rules.begin.secs());
            let (measured, part, samples) = match definition.usage {
                UsageKind::Existence => (Cow::Borrowed(&one), part, counted(points, begin, end)),
                UsageKind::Level => match &segment.level {
                    Some(told) => (Cow::Borrowed(told), part, counted(points, begin, end)),
                    None => {
                        let Some((sum, micros, samples)) = level(points, begin, end) else { continue };
                        let mean = (sum / BigDecimal::from(micros)).with_prec(MEAN_DIGITS);
                        (Cow::Owned(mean), part, samples)
                    }
                },
                UsageKind::Increase => {
                    let Some((grown, samples)) = increase(points, begin, end, begins_at_zero) else { continue };
                    if grown.is_zero() {
                        continue;
                    }
                    (Cow::Owned(grown), whole, samples)
                }
            };
            let origin = origin(segment, rules);
            let pricing = pricing.get_or_insert_with(|| Pricing::new(definition, origin.scope, segment));
            let priced = pricing.of(rules, &measured);
            charged.take(rules, priced.map(|priced| origin.line((begin, end), priced, part, whole, samples)));
        }
    }
    charged
}

/// Whole periods, from the aggregates that CloudKitty's Gnocchi collector would fetch: a line for each stretch in which
/// attributes are the same, or one with the last attributes and the sum of all (`use_all_resource_revisions: false`).
fn whole_lines<'a>(
    segments: &[&'a Segment],
    points: &[Measure],
    periods: &'a [PeriodRules],
    definition: &'a MetricDefinition,
    origin: &impl Fn(&'a Segment, &'a PeriodRules) -> Origin<'a>,
) -> Charged {
    let mut charged = Charged::default();
    for rules in periods {
        let mut found: Vec<(&'a Segment, BigDecimal, u64)> = Vec::new();
        for segment in segments {
            let Some((begin, end)) = segment.within(rules.begin, rules.end) else { continue };
            if let Some((value, samples)) = collected(points, begin, end, &definition.collecting.aggregation_method) {
                found.push((segment, value, samples));
            }
        }
        if !definition.collecting.use_all_resource_revisions
            && let Some((last, ..)) = found.last()
        {
            let last = *last;
            let sum = found.iter().fold(BigDecimal::zero(), |sum, (_, value, _)| sum + value);
            let samples = found.iter().map(|(.., samples)| samples).sum();
            found = vec![(last, sum, samples)];
        }
        for (sequence, (segment, value, samples)) in found.into_iter().enumerate() {
            let origin = origin(segment, rules);
            let mut pricing = Pricing::new(definition, origin.scope, segment);
            let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
            let line = pricing.of(rules, &value).map(|priced| {
                let line = origin.line((rules.begin, rules.end), priced, 1, 1, samples);
                RatedLine { sequence, ..line }.identified()
            });
            charged.take(rules, line);
        }
    }
    charged
}
