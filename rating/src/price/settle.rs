//! What a bill's sums make it need, month by month and currency by currency. Pure.
//!
//! `lines of the month that are billed, and the bill's own → sums → each rule in its order → what is not settled yet → lines`
//!
//! Everything counts per calendar month (UTC): a month that is closed in pieces comes to what it would have at once. A rule over
//! sums (tiers, included quantities, minimums, credits) is applied to the month so far, and a bill has what earlier bills of
//! the month lack of it. A percentage is taken of what the bill adds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bigdecimal::{BigDecimal, Zero};
use orzo_model::Timestamp;
use uuid::Uuid;

use super::{
    Frequency, KINDS, Prices, Rule, Taken, Term,
    purchase::{self, PURCHASE_SERVICE},
    written::Step,
};
use crate::{
    forecast::month,
    line::{Facts, LineKind, RatedLine, cost_of},
};

/// Rules of what is settled begin so.
pub(crate) const SETTLED: &str = "price/";
const PURCHASES: &str = "price/purchase/";
/// The service under which a tax is shown.
const TAX_SERVICE: &str = "tax";
/// The service under which is shown what is for all.
pub(super) const BILL_SERVICE: &str = "bill";

/// What is settled: a project's time, and what of earlier bills matters.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'b> {
    /// Project.
    pub scope: &'b str,
    /// From when on.
    pub begin: Timestamp,
    /// Until before when.
    pub end: Timestamp,
    /// Length of a rating period: what is settled belongs to the last one that a month has in the bill.
    pub period: Duration,
    /// What was billed before.
    pub earlier: &'b Earlier,
}

/// What bills that are closed say, as far as a new one of the project looks at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Earlier {
    /// All their lines of the months that the new bill touches.
    pub lines: Vec<RatedLine>,
    /// What they settled before these months, by what lasts longer than a month ([`Prices::looks_back`]).
    pub settled: Vec<RatedLine>,
}

/// What of a bill is of one month.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'b> {
    pub(super) scope: &'b str,
    /// At which rules hold or do not.
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    /// The month's first moment.
    pub(super) month: Timestamp,
    /// To which its lines belong.
    period: Timestamp,
}

/// A line that is made when a bill is settled.
pub(super) struct Charge {
    pub(super) rule: String,
    pub(super) service: String,
    pub(super) kind: LineKind,
    pub(super) time: (Timestamp, Timestamp),
    pub(super) cost: BigDecimal,
    pub(super) currency: String,
    pub(super) unit: String,
    pub(super) facts: BTreeMap<String, String>,
}

impl<'b> Bill<'b> {
    fn parts(&self) -> Vec<Part<'b>> {
        let (mut parts, mut begin) = (Vec::new(), self.begin);
        while begin < self.end {
            let (first, next) = (month(begin, 0), month(begin, 1));
            let end = if next > begin { next.min(self.end) } else { self.end };
            let period = Timestamp::from_micros(end.micros() - 1).floor(self.period).max(begin);
            parts.push(Part { scope: self.scope, begin, end, month: first, period });
            begin = end;
        }
        parts
    }
}

impl Prices {
    /// The lines that a bill's own lines make it need. `lines` are all of the scope's lines of usage in the bill, corrections
    /// among them. What a month's sums make belongs to the month's last period in the bill.
    pub fn settle(
        &self,
        bill: &Bill<'_>,
        lines: &[RatedLine],
        (version, rated_at): (u64, Timestamp),
    ) -> Vec<RatedLine> {
        let facts: Facts = Arc::new(BTreeMap::from([("project_id".to_owned(), bill.scope.to_owned())]));
        let earlier = bill.earlier;
        let mut settled: Vec<RatedLine> = earlier.settled.clone();
        settled.extend(earlier.lines.iter().filter(|line| is_settled(line)).cloned());
        let before = settled.len();
        let parts = bill.parts();
        for (place, part) in parts.iter().enumerate() {
            let (is_first, is_last) = (place == 0, place + 1 == parts.len());
            let is_own =
                |line: &&RatedLine| (is_first || line.period >= part.begin) && (is_last || line.period < part.end);
            let own: Vec<&RatedLine> = lines.iter().filter(is_own).collect();
            let of_month = |line: &&RatedLine| month(line.period, 0) == part.month;
            let billed: Vec<&RatedLine> = earlier.lines.iter().filter(of_month).collect();
            let charges = self.settle_part(part, &billed, &own, &settled);
            let mut twins: HashMap<(String, String, LineKind, Timestamp), u32> = HashMap::new();
            for charge in charges {
                // Of one rule's lines in several currencies each has its number.
                let key = (charge.rule.clone(), charge.service.clone(), charge.kind, charge.time.0);
                let twin = twins.entry(key).or_default();
                let line = RatedLine {
                    id: Uuid::nil(),
                    scope: bill.scope.to_owned(),
                    service: charge.service,
                    resource: String::new(),
                    begin: charge.time.0,
                    end: charge.time.1,
                    period: part.period,
                    unit: charge.unit,
                    quantity: BigDecimal::from(1),
                    unit_price: charge.cost.clone(),
                    cost: charge.cost,
                    currency: charge.currency,
                    kind: charge.kind,
                    corrects: None,
                    reverses: false,
                    rule: charge.rule,
                    rule_version: version,
                    sequence: *twin,
                    groupby: facts.clone(),
                    metadata: Arc::new(charge.facts),
                    samples: 0,
                    rated_at,
                };
                *twin += 1;
                settled.push(line.identified());
            }
        }
        settled.split_off(before)
    }

    /// What a month's part of a bill is charged. `billed`: the lines of closed bills of the month; `settled`: all that was
    /// settled before, in any month.
    fn settle_part(
        &self,
        part: &Part<'_>,
        billed: &[&RatedLine],
        own: &[&RatedLine],
        settled: &[RatedLine],
    ) -> Vec<Charge> {
        let (mut before, mut given) = (Sums::default(), Given::new());
        for line in billed {
            match is_settled(line) && !line.rule.starts_with(PURCHASES) {
                false => before.add_line(line),
                true => {
                    let key = (line.service.clone(), line.kind, line.currency.clone());
                    *given.entry(line.rule.clone()).or_default().entry(key).or_default() += &line.cost;
                }
            }
        }
        let mut now = before.clone();
        own.iter().for_each(|line| now.add_line(line));
        let mut charges = Vec::new();
        let taken = Taken::of(settled);
        for purchased in purchase::charges(&self.spans(part.scope, part.begin, part.end), own, part, &taken) {
            let sum = now.of(&purchased.charge.currency, &purchased.sum);
            sum.quantity -= &purchased.covered;
            sum.cost += &purchased.charge.cost;
            charges.push(purchased.charge);
        }
        let own_currency = self.currency(part.scope, part.begin);
        for (name, rule) in self.steps(part, &given) {
            let given = given.remove(&name).unwrap_or_default();
            let charged = match rule {
                // What a rule has made that is no longer one stays as it is.
                None => BTreeMap::new(),
                Some(rule) => {
                    let currency = rule.currency.as_deref().unwrap_or(own_currency);
                    match &rule.term {
                        Term::Discount { .. } | Term::Tax { .. } => {
                            less(rule.term.made_of(&now, currency, None), &rule.term.made_of(&before, currency, None))
                        }
                        Term::Credit { frequency: Frequency::Once, amount } => {
                            let left = amount - credited(settled, part.month, &name, currency);
                            less(rule.term.made_of(&now, currency, Some(left)), &given)
                        }
                        term => less(term.made_of(&now, currency, None), &given),
                    }
                }
            };
            for ((service, _, currency), cost) in &given {
                before.of(currency, service).cost += cost;
                now.of(currency, service).cost += cost;
            }
            for ((service, kind, currency), cost) in charged {
                now.of(&currency, &service).cost += &cost;
                let Some(rule) = rule.filter(|_| !cost.is_zero()) else { continue };
                let facts = BTreeMap::from([("rule".to_owned(), rule.id.clone())]);
                let (time, unit) = ((part.begin, part.end), rule.kind.clone());
                charges.push(Charge { rule: name.clone(), service, kind, time, cost, currency, unit, facts });
            }
        }
        charges
    }

    /// The rules over sums that hold for a part of a bill, and those that have settled something in it, in their order.
    fn steps(&self, part: &Part<'_>, given: &Given) -> Vec<(String, Option<&Rule>)> {
        let holds = |rule: &&Rule| {
            !matches!(rule.term, Term::Purchase(_) | Term::Expression { .. })
                && rule.reach.takes(&self.domains, part.scope, part.begin)
        };
        let mut steps: BTreeMap<(usize, String), (String, Option<&Rule>)> = BTreeMap::new();
        for name in given.keys() {
            let (kind, id) = name.strip_prefix(SETTLED).and_then(|rest| rest.split_once('/')).unwrap_or_default();
            steps.insert((order(kind), id.to_owned()), (name.clone(), None));
        }
        for rule in self.rules.iter().filter(holds) {
            steps.insert((order(&rule.kind), rule.id.clone()), (rule.name(), Some(rule)));
        }
        steps.into_values().collect()
    }

    /// Since when, and under which services, lines of earlier months say what a bill of these months goes on with: what is left of
    /// packages and of credits that are given once. `None`: there is no such rule.
    pub fn looks_back(&self, scope: &str, begin: Timestamp, end: Timestamp) -> Option<(Timestamp, Vec<String>)> {
        let first = month(begin, 0);
        let packages = self.spans(scope, begin, end).into_iter().filter(|span| span.from < first);
        let packages = packages.filter_map(|span| Some((span.from, span.purchase.package.as_ref()?.service.clone())));
        let credits = self.rules.iter().filter_map(|rule| match rule.term {
            Term::Credit { frequency: Frequency::Once, .. } if rule.reach.names(&self.domains, scope) => {
                let from = rule.reach.valid_from.unwrap_or(Timestamp::EPOCH);
                (from < first).then(|| (from, BILL_SERVICE.to_owned()))
            }
            _ => None,
        });
        let (times, mut services): (Vec<Timestamp>, Vec<String>) = packages.chain(credits).unzip();
        services.sort_unstable();
        services.dedup();
        Some((month(times.into_iter().min()?, 0), services))
    }
}

/// Place of a kind in the order in which rules are applied.
pub(super) fn order(kind: &str) -> usize {
    KINDS.iter().position(|own| *own == kind).unwrap_or(KINDS.len())
}

/// Whether a line was made when a bill was settled.
pub(crate) fn is_settled(line: &RatedLine) -> bool {
    line.rule.starts_with(SETTLED)
}

/// What a credit has given before a month.
fn credited(settled: &[RatedLine], before: Timestamp, rule: &str, currency: &str) -> BigDecimal {
    let own = settled.iter().filter(|line| line.rule == rule && line.currency == currency && line.period < before);
    -own.map(|line| &line.cost).sum::<BigDecimal>()
}

/// Costs by service, kind and currency: what a rule makes of sums.
type Made = BTreeMap<(String, LineKind, String), BigDecimal>;

/// What bills of the month have settled, by rule.
type Given = BTreeMap<String, Made>;

/// What is made less what was made.
fn less(mut made: Made, before: &Made) -> Made {
    for (key, cost) in before {
        *made.entry(key.clone()).or_default() -= cost;
    }
    made
}

/// What a service comes to so far.
#[derive(Clone, Debug, Default)]
struct Sum {
    quantity: BigDecimal,
    cost: BigDecimal,
}

/// What a currency's services come to.
#[derive(Clone, Debug, Default)]
struct Services {
    /// When it was first used for.
    first: Option<Timestamp>,
    sums: BTreeMap<String, Sum>,
}

impl Services {
    fn total(&self) -> BigDecimal {
        self.sums.values().map(|sum| &sum.cost).sum()
    }

    fn cost(&self, service: Option<&String>) -> BigDecimal {
        match service {
            Some(service) => self.sums.get(service).map(|sum| sum.cost.clone()).unwrap_or_default(),
            None => self.total(),
        }
    }
}

/// Sums by currency.
#[derive(Clone, Debug, Default)]
struct Sums(BTreeMap<String, Services>);

impl Sums {
    fn of(&mut self, currency: &str, service: &str) -> &mut Sum {
        let services = self.0.entry(currency.to_owned()).or_default();
        services.sums.entry(service.to_owned()).or_default()
    }

    /// Adds usage, or what a purchase made.
    fn add_line(&mut self, line: &RatedLine) {
        let is_fee = line.kind == LineKind::Purchase && line.rule.starts_with(PURCHASES);
        let service = if is_fee { PURCHASE_SERVICE } else { &line.service };
        let quantity = match line.rule.starts_with(PURCHASES) {
            true => -purchase::covered(line),
            false => line.quantity.clone(),
        };
        let sum = self.of(&line.currency, service);
        sum.quantity += quantity;
        sum.cost += &line.cost;
        if line.kind == LineKind::Usage
            && let Some(services) = self.0.get_mut(&line.currency)
        {
            services.first = Some(services.first.map_or(line.begin, |first| first.min(line.begin)));
        }
    }

    /// Currencies in the order in which they were used for.
    fn by_time(&self) -> Vec<(&String, &Services)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(code, services)| (services.first.unwrap_or(Timestamp::MAX), *code));
        all
    }
}

impl Term {
    /// What a rule makes of a month's sums; sums of money are in `currency`. `left`: so much of the amount, instead of all.
    fn made_of(&self, sums: &Sums, currency: &str, left: Option<BigDecimal>) -> Made {
        let none = Services::default();
        let owed = sums.0.get(currency).unwrap_or(&none);
        let name = |service: &Option<String>| service.clone().unwrap_or_else(|| BILL_SERVICE.to_owned());
        let one = |service: String, kind, cost: &BigDecimal| {
            Made::from([((service, kind, currency.to_owned()), cost_of(cost))])
        };
        let hundred = BigDecimal::from(100);
        match self {
            Self::Tiers { service, steps } => match owed.sums.get(service) {
                Some(sum) => {
                    let tiered = tiered(steps, &sum.quantity);
                    one(service.clone(), LineKind::Adjustment, &(tiered - &sum.cost))
                }
                None => Made::new(),
            },
            Self::Included { service, quantity } => {
                let (mut left, mut made) = (quantity.clone(), Made::new());
                for (currency, services) in sums.by_time() {
                    let used = services.sums.get(service).filter(|sum| sum.quantity > BigDecimal::zero());
                    let Some(sum) = used else { continue };
                    let free = left.clone().min(sum.quantity.clone());
                    let cost = cost_of(&-share(&sum.cost, &free, &sum.quantity));
                    made.insert((service.clone(), LineKind::Credit, currency.clone()), cost);
                    left -= free;
                }
                made
            }
            Self::Minimum { service, amount } => {
                let missing = amount - owed.cost(service.as_ref());
                one(name(service), LineKind::Adjustment, &missing.max(BigDecimal::zero()))
            }
            Self::Discount { service, percent } => {
                let of = |services: &Services| cost_of(&-(services.cost(service.as_ref()) * percent / &hundred));
                let each = sums.0.iter();
                each.map(|(code, own)| ((name(service), LineKind::Credit, code.clone()), of(own))).collect()
            }
            Self::Credit { amount, .. } => {
                let amount = left.as_ref().unwrap_or(amount);
                let given = amount.clone().min(owed.total()).max(BigDecimal::zero());
                one(BILL_SERVICE.to_owned(), LineKind::Credit, &-given)
            }
            Self::Tax { percent } => {
                // No tax on tax: those that came before are not in it.
                let tax = TAX_SERVICE.to_owned();
                let of = |own: &Services| cost_of(&((own.total() - own.cost(Some(&tax))) * percent / &hundred));
                sums.0.iter().map(|(code, own)| ((tax.clone(), LineKind::Tax, code.clone()), of(own))).collect()
            }
            // The one made the lines' own prices already; the other is charged before all that looks at sums.
            Self::Expression { .. } | Self::Purchase(_) => Made::new(),
        }
    }
}

/// What a part of a quantity costs of what all of it costs: of a mixture of prices, their mean.
pub(super) fn share(cost: &BigDecimal, part: &BigDecimal, quantity: &BigDecimal) -> BigDecimal {
    cost * part / quantity
}

/// What a volume costs where each step's price holds for what is above its bound.
fn tiered(steps: &[Step], quantity: &BigDecimal) -> BigDecimal {
    let mut cost = BigDecimal::zero();
    for (place, step) in steps.iter().enumerate() {
        let until = steps.get(place + 1).map_or(quantity, |next| (&next.above.0).min(quantity));
        if *until > step.above.0 {
            cost += (until - &step.above.0) * &step.unit_price.0;
        }
    }
    cost
}
