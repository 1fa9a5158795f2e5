//! What CloudKitty lacks: tiers by volume, included quantities, minimums, discounts, credits, taxes, and a currency; each
//! valid for a time and, if it says so, for some projects or domains only. A domain is a list of projects, and one of the
//! rules, so that a past bill is made again with the domains of its time. An expression changes the price of each line of a
//! service.
//!
//! Usage is rated hour by hour at its list price. What depends on a whole bill is settled when the bill is closed: from the
//! sums of its lines come further lines (purchases, adjustments, credits, taxes) that say which rule made them. Pure.
//!
//! The order is fixed: purchases, tiers, included quantities, minimums, discounts, credits, taxes; each sees what those before
//! it made. What a purchase covers has left its service when the others look; its fee is in the whole bill (minimums, discounts
//! and taxes of all) and in no service's.

mod purchase;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bigdecimal::{BigDecimal, Zero};
use orzo_model::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    book::RuleDocument,
    decimal::decimal,
    expression::Expression,
    line::{Facts, LineKind, RatedLine, cost_of},
};
use purchase::{Purchase, Span};

pub use purchase::Taken;

/// Steps of one tier.
const STEPS_MAX: usize = 100;
/// Rules of one version.
const RULES_MAX: usize = 10_000;
/// Currency where none is said.
const CURRENCY_DEFAULT: &str = "USD";

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{id}`: {reason}")]
pub struct PriceError {
    /// Kind of the document.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What is wrong.
    pub reason: String,
}

/// A decimal as it is written: a text or a number.
#[derive(Clone, Debug, PartialEq)]
struct Number(BigDecimal);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(serde::de::Error::custom(format!("`{other}` is no decimal number"))),
        };
        decimal(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// For whom and when a rule holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Reach {
    valid_from: Option<Timestamp>,
    valid_until: Option<Timestamp>,
    projects: Option<Vec<String>>,
    domains: Option<Vec<String>>,
}

/// Projects of each domain.
type Domains = BTreeMap<String, BTreeSet<String>>;

impl Reach {
    /// Whether it is for a project, at whatever time.
    fn names(&self, domains: &Domains, scope: &str) -> bool {
        let is_in = |domain: &String| domains.get(domain).is_some_and(|projects| projects.contains(scope));
        match (&self.projects, &self.domains) {
            (None, None) => true,
            (projects, named) => projects.iter().flatten().any(|own| own == scope) || named.iter().flatten().any(is_in),
        }
    }

    fn takes(&self, domains: &Domains, scope: &str, at: Timestamp) -> bool {
        let is_valid = self.valid_from.is_none_or(|from| at >= from) && self.valid_until.is_none_or(|until| at < until);
        is_valid && self.names(domains, scope)
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    above: Number,
    unit_price: Number,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// Each part of a service's volume has its own price, instead of the list price.
    Tiers { service: String, steps: Vec<Step> },
    /// So much of a service is free.
    Included { service: String, quantity: BigDecimal },
    /// At least so much is charged, for a service or in all.
    Minimum { service: Option<String>, amount: BigDecimal },
    /// Per cent off a service or off all.
    Discount { service: Option<String>, percent: BigDecimal },
    /// So much is given, as far as something is owed.
    Credit { amount: BigDecimal },
    /// Per cent on all.
    Tax { percent: BigDecimal },
    /// The price of each line of a service, from what the hashmap says.
    Expression { service: String, expression: Expression },
    /// Bought in advance, used or not.
    Purchase(Purchase),
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    kind: String,
    id: String,
    reach: Reach,
    term: Term,
}

/// Prices beyond the hashmap.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// ISO 4217 code of all costs.
    pub currency: String,
    /// In the order in which they are applied.
    rules: Vec<Rule>,
    domains: Domains,
}

impl Default for Prices {
    fn default() -> Self {
        Self { currency: CURRENCY_DEFAULT.to_owned(), rules: Vec::new(), domains: Domains::new() }
    }
}

/// Fields of a rule's document, of all kinds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    valid_from: Option<Timestamp>,
    valid_until: Option<Timestamp>,
    projects: Option<Vec<String>>,
    domains: Option<Vec<String>>,
    #[serde(rename = "description")]
    _description: Option<String>,
    service: Option<String>,
    steps: Option<Vec<Step>>,
    quantity: Option<Number>,
    amount: Option<Number>,
    percent: Option<Number>,
    code: Option<String>,
    expression: Option<String>,
    name: Option<String>,
    frequency: Option<String>,
}

/// Kinds of documents, in the order in which they are applied.
pub const KINDS: [&str; 10] =
    ["currency", "domain", "expression", "purchase", "tiers", "included", "minimum", "discount", "credit", "tax"];

impl Prices {
    /// Reads the documents of a version; kinds that are not ours are left to others.
    pub fn from_documents(documents: &[RuleDocument]) -> Result<Self, PriceError> {
        let mut prices = Self::default();
        for document in documents {
            if !KINDS.contains(&document.kind.as_str()) {
                continue;
            }
            let wrong = |reason: String| PriceError { kind: document.kind.clone(), id: document.id.clone(), reason };
            let written: Written =
                serde_json::from_value(document.body.clone()).map_err(|error| wrong(error.to_string()))?;
            if document.kind == "domain" {
                let projects = written.projects.ok_or_else(|| wrong("projects are missing".to_owned()))?;
                prices.domains.entry(document.id.clone()).or_default().extend(projects);
                continue;
            }
            if document.kind == "currency" {
                let code = written.code.unwrap_or_default();
                if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
                    return Err(wrong(format!("`{code}` is no ISO 4217 code, such as EUR")));
                }
                prices.currency = code;
                continue;
            }
            let term = term(&document.kind, &written).map_err(wrong)?;
            let Written { valid_from, valid_until, projects, domains, .. } = written;
            let reach = Reach { valid_from, valid_until, projects, domains };
            prices.rules.push(Rule { kind: document.kind.clone(), id: document.id.clone(), reach, term });
            if prices.rules.len() > RULES_MAX {
                return Err(wrong(format!("there are more than {RULES_MAX} rules")));
            }
        }
        let order = |rule: &Rule| KINDS.iter().position(|kind| *kind == rule.kind).unwrap_or(KINDS.len());
        prices.rules.sort_by(|a, b| (order(a), &a.id).cmp(&(order(b), &b.id)));
        Ok(prices)
    }

    /// The expression that makes the price of a service's lines for a project at a moment, with its id: of several the first
    /// one by id.
    pub fn expression(&self, service: &str, scope: &str, at: Timestamp) -> Option<(&str, &Expression)> {
        self.rules.iter().find_map(|rule| match &rule.term {
            Term::Expression { service: own, expression }
                if own == service && rule.reach.takes(&self.domains, scope, at) =>
            {
                Some((rule.id.as_str(), expression))
            }
            _ => None,
        })
    }

    /// The lines that a bill's own lines make it need. `lines` are all of the scope's lines of usage in the bill, corrections
    /// among them; the new ones belong to its last period.
    pub fn settle(
        &self,
        bill: &Bill<'_>,
        lines: &[RatedLine],
        (rule_version, rated_at): (u64, Timestamp),
    ) -> Vec<RatedLine> {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for line in lines {
            let sum = sums.entry(line.service.clone()).or_default();
            sum.quantity += &line.quantity;
            sum.cost += &line.cost;
        }
        let mut charges = Vec::new();
        for purchased in purchase::charges(&self.spans(bill), lines, bill) {
            let sum = sums.entry(purchased.sum.clone()).or_default();
            sum.quantity -= &purchased.covered;
            sum.cost += &purchased.charge.cost;
            charges.push(purchased.charge);
        }
        for rule in self.rules.iter().filter(|rule| rule.reach.takes(&self.domains, bill.scope, bill.holds_at)) {
            for (service, kind, cost) in rule.term.made_of(&sums) {
                let cost = cost_of(&cost);
                if cost.is_zero() {
                    continue;
                }
                sums.entry(service.clone()).or_default().cost += &cost;
                let facts = BTreeMap::from([("rule".to_owned(), rule.id.clone())]);
                let time = (bill.begin, bill.end);
                charges.push(Charge { rule: rule.name(), service, kind, time, cost, unit: rule.kind.clone(), facts });
            }
        }
        let facts: Facts = Arc::new(BTreeMap::from([("project_id".to_owned(), bill.scope.to_owned())]));
        let line = |charge: Charge| RatedLine {
            id: Uuid::nil(),
            scope: bill.scope.to_owned(),
            service: charge.service,
            resource: String::new(),
            begin: charge.time.0,
            end: charge.time.1,
            period: bill.period,
            unit: charge.unit,
            quantity: BigDecimal::from(1),
            unit_price: charge.cost.clone(),
            cost: charge.cost,
            currency: self.currency.clone(),
            kind: charge.kind,
            corrects: None,
            reverses: false,
            rule: charge.rule,
            rule_version,
            sequence: 0,
            groupby: facts.clone(),
            metadata: Arc::new(charge.facts),
            samples: 0,
            rated_at,
        };
        charges.into_iter().map(|charge| line(charge).identified()).collect()
    }

    /// The terms of purchases for the bill's project that it touches: those that end first come first, as they are used up.
    fn spans(&self, bill: &Bill<'_>) -> Vec<Span<'_>> {
        let mut spans = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.reach.names(&self.domains, bill.scope)) {
            if let Term::Purchase(purchase) = &rule.term {
                spans.extend(purchase.spans(&rule.id, bill.begin, bill.end));
            }
        }
        spans.sort_by(|a, b| (a.until, a.id, a.from).cmp(&(b.until, b.id, b.from)));
        spans
    }

    /// Since when earlier bills may have taken of packages that a bill takes of: their lines say how much ([`Taken::of`]). `None`:
    /// no such package is older than the bill.
    pub fn packages_since(&self, bill: &Bill<'_>) -> Option<Timestamp> {
        let spans = self.spans(bill);
        let older = spans.iter().filter(|span| span.purchase.package.is_some() && span.from < bill.begin);
        older.map(|span| span.from).min()
    }
}

/// What is settled: a project's time, and what of earlier times matters.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'b> {
    /// Project.
    pub scope: &'b str,
    /// From when on.
    pub begin: Timestamp,
    /// Until before when.
    pub end: Timestamp,
    /// Its last rating period, to which all that is settled belongs.
    pub period: Timestamp,
    /// Rules other than purchases are those that hold at this moment: its begin.
    pub holds_at: Timestamp,
    /// What earlier bills have taken of packages.
    pub taken: &'b Taken,
}

/// A line that is made when a bill is settled.
struct Charge {
    rule: String,
    service: String,
    kind: LineKind,
    time: (Timestamp, Timestamp),
    cost: BigDecimal,
    unit: String,
    facts: BTreeMap<String, String>,
}

impl Rule {
    /// As its lines name it.
    fn name(&self) -> String {
        format!("price/{}/{}", self.kind, self.id)
    }
}

/// What a service comes to so far.
#[derive(Clone, Debug, Default)]
struct Sum {
    quantity: BigDecimal,
    cost: BigDecimal,
}

/// The service under which a tax is shown.
const TAX_SERVICE: &str = "tax";
/// The service under which is shown what is for all.
const BILL_SERVICE: &str = "bill";

impl Term {
    /// Services, kinds and costs of the lines that a rule makes of sums.
    fn made_of(&self, sums: &BTreeMap<String, Sum>) -> Vec<(String, LineKind, BigDecimal)> {
        let total = || sums.values().fold(BigDecimal::zero(), |total, sum| total + &sum.cost);
        let of = |service: &Option<String>| match service {
            Some(service) => sums.get(service).map(|sum| sum.cost.clone()).unwrap_or_default(),
            None => total(),
        };
        let name = |service: &Option<String>| service.clone().unwrap_or_else(|| BILL_SERVICE.to_owned());
        let hundred = BigDecimal::from(100);
        match self {
            Self::Tiers { service, steps } => {
                let Some(sum) = sums.get(service) else { return Vec::new() };
                let tiered = tiered(steps, &sum.quantity);
                vec![(service.clone(), LineKind::Adjustment, tiered - &sum.cost)]
            }
            Self::Included { service, quantity } => {
                let Some(sum) = sums.get(service).filter(|sum| sum.quantity > BigDecimal::zero()) else {
                    return Vec::new();
                };
                let free = quantity.min(&sum.quantity);
                vec![(service.clone(), LineKind::Credit, -share(&sum.cost, free, &sum.quantity))]
            }
            Self::Minimum { service, amount } => {
                let missing = amount - of(service);
                let cost = missing.max(BigDecimal::zero());
                vec![(name(service), LineKind::Adjustment, cost)]
            }
            Self::Discount { service, percent } => {
                vec![(name(service), LineKind::Credit, -(of(service) * percent / hundred))]
            }
            Self::Credit { amount } => {
                let given = amount.clone().min(total().max(BigDecimal::zero()));
                vec![(BILL_SERVICE.to_owned(), LineKind::Credit, -given)]
            }
            Self::Tax { percent } => {
                // No tax on tax: those that came before are not in it.
                let taxed = total() - sums.get(TAX_SERVICE).map(|sum| sum.cost.clone()).unwrap_or_default();
                vec![(TAX_SERVICE.to_owned(), LineKind::Tax, taxed * percent / hundred)]
            }
            // The one made the lines' own prices already; the other is charged before all that looks at sums.
            Self::Expression { .. } | Self::Purchase(_) => Vec::new(),
        }
    }
}

/// What a part of a quantity costs of what all of it costs: of a mixture of prices, their mean.
fn share(cost: &BigDecimal, part: &BigDecimal, quantity: &BigDecimal) -> BigDecimal {
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

fn term(kind: &str, written: &Written) -> Result<Term, String> {
    let service = || written.service.clone().ok_or_else(|| "service is missing".to_owned());
    let number = |name: &str, number: &Option<Number>| {
        let number = number.as_ref().ok_or_else(|| format!("{name} is missing"))?;
        match number.0 < BigDecimal::zero() {
            true => Err(format!("{name} is below zero")),
            false => Ok(number.0.clone()),
        }
    };
    Ok(match kind {
        "tiers" => {
            let steps = written.steps.clone().ok_or("steps are missing")?;
            if steps.is_empty() || steps.len() > STEPS_MAX {
                return Err(format!("1 to {STEPS_MAX} steps are expected"));
            }
            if !steps[0].above.0.is_zero() || steps.windows(2).any(|pair| pair[0].above.0 >= pair[1].above.0) {
                return Err("steps begin above 0, and each is above the one before".to_owned());
            }
            Term::Tiers { service: service()?, steps }
        }
        "included" => Term::Included { service: service()?, quantity: number("quantity", &written.quantity)? },
        "minimum" => Term::Minimum { service: written.service.clone(), amount: number("amount", &written.amount)? },
        "discount" => {
            let (percent, whole) = (number("percent", &written.percent)?, BigDecimal::from(100));
            if percent > whole {
                return Err("percent is above 100".to_owned());
            }
            Term::Discount { service: written.service.clone(), percent }
        }
        "expression" => {
            let text = written.expression.as_deref().ok_or("expression is missing")?;
            let expression = Expression::parse(text).map_err(|error| error.to_string())?;
            Term::Expression { service: service()?, expression }
        }
        "purchase" => Term::Purchase(Purchase::read(written, &number)?),
        "credit" => Term::Credit { amount: number("amount", &written.amount)? },
        _ => Term::Tax { percent: number("percent", &written.percent)? },
    })
}

#[cfg(test)]
mod tests;
