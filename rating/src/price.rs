//! What CloudKitty lacks: tiers by volume, included quantities, minimums, discounts, credits, taxes, and a currency; each
//! valid for a time and, if it says so, for some projects or domains only. A domain is a list of projects, and one of the
//! rules, so that a past bill is made again with the domains of its time. An expression changes the price of each line of a
//! service.
//!
//! Usage is rated hour by hour at its list price. What depends on a whole bill is settled when the bill is closed: from the
//! sums of its lines come further lines (adjustments, credits, taxes) that say which rule made them. Pure.
//!
//! The order is fixed: tiers, included quantities, minimums, discounts, credits, taxes; each sees what those before it made.

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
    fn takes(&self, domains: &Domains, scope: &str, at: Timestamp) -> bool {
        let is_in = |domain: &String| domains.get(domain).is_some_and(|projects| projects.contains(scope));
        let is_named = match (&self.projects, &self.domains) {
            (None, None) => true,
            (projects, named) => projects.iter().flatten().any(|own| own == scope) || named.iter().flatten().any(is_in),
        };
        is_named && self.valid_from.is_none_or(|from| at >= from) && self.valid_until.is_none_or(|until| at < until)
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
}

/// Kinds of documents, in the order in which they are applied.
pub const KINDS: [&str; 9] =
    ["currency", "domain", "expression", "tiers", "included", "minimum", "discount", "credit", "tax"];

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
    /// among them; the new ones belong to `period`, the bill's last, and are for all of it.
    pub fn settle<'l>(
        &self,
        scope: &str,
        lines: impl Iterator<Item = &'l RatedLine>,
        (begin, end): (Timestamp, Timestamp),
        period: Timestamp,
        (rule_version, rated_at): (u64, Timestamp),
    ) -> Vec<RatedLine> {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for line in lines {
            let sum = sums.entry(line.service.clone()).or_default();
            sum.quantity += &line.quantity;
            sum.cost += &line.cost;
            sum.unit.clone_from(&line.unit);
        }
        let mut settled = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.reach.takes(&self.domains, scope, begin)) {
            for (service, kind, cost) in rule.term.made_of(&sums) {
                let cost = cost_of(&cost);
                if cost.is_zero() {
                    continue;
                }
                sums.entry(service.clone()).or_default().cost += &cost;
                let facts: Facts = Arc::new(BTreeMap::from([("project_id".to_owned(), scope.to_owned())]));
                let metadata = BTreeMap::from([("rule".to_owned(), rule.id.clone())]);
                let line = RatedLine {
                    id: Uuid::nil(),
                    scope: scope.to_owned(),
                    service,
                    resource: String::new(),
                    begin,
                    end,
                    period,
                    unit: rule.kind.clone(),
                    quantity: BigDecimal::from(1),
                    unit_price: cost.clone(),
                    cost,
                    currency: self.currency.clone(),
                    kind,
                    corrects: None,
                    reverses: false,
                    rule: format!("price/{}/{}", rule.kind, rule.id),
                    rule_version,
                    sequence: 0,
                    groupby: facts,
                    metadata: Arc::new(metadata),
                    samples: 0,
                    rated_at,
                };
                settled.push(line.identified());
            }
        }
        settled
    }
}

/// What a service comes to so far.
#[derive(Clone, Debug, Default)]
struct Sum {
    quantity: BigDecimal,
    cost: BigDecimal,
    unit: String,
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
                vec![(service.clone(), LineKind::Credit, -(&sum.cost * free / &sum.quantity))]
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
            // It made the lines' own prices already.
            Self::Expression { .. } => Vec::new(),
        }
    }
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
        "credit" => Term::Credit { amount: number("amount", &written.amount)? },
        _ => Term::Tax { percent: number("percent", &written.percent)? },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::line::example;

    fn documents(list: &[(&str, &str, Value)]) -> Vec<RuleDocument> {
        let document = |(kind, id, body): &(&str, &str, Value)| RuleDocument {
            kind: (*kind).to_owned(),
            id: (*id).to_owned(),
            body: body.clone(),
        };
        list.iter().map(document).collect()
    }

    /// Two services: 10 instances at 2, and 1500 MB at 0.1.
    fn usage() -> Vec<RatedLine> {
        let number = |text: &str| text.parse::<BigDecimal>().expect("a number");
        let mut lines = vec![example(); 10];
        let traffic = RatedLine {
            service: "traffic".to_owned(),
            quantity: number("1500"),
            cost: number("150"),
            unit: "MB".to_owned(),
            ..example()
        };
        lines.push(traffic);
        lines
    }

    fn settled(list: &[(&str, &str, Value)]) -> Vec<(String, String, String)> {
        let prices = Prices::from_documents(&documents(list)).expect("rules");
        let lines = usage();
        let at = Timestamp::from_secs;
        let made = prices.settle("p", lines.iter(), (at(0), at(7200)), at(3600), (3, at(9000)));
        assert!(made.iter().all(|line| line.identity() == line.id && line.period == at(3600)));
        made.iter()
            .map(|line| (line.service.clone(), line.kind.name().to_owned(), line.cost.normalized().to_plain_string()))
            .collect()
    }

    fn row(service: &str, kind: &str, cost: &str) -> (String, String, String) {
        (service.to_owned(), kind.to_owned(), cost.to_owned())
    }

    #[test]
    fn a_bill_is_settled_in_a_fixed_order() {
        let steps = json!([{"above": 0, "unit_price": "0.1"}, {"above": "1000", "unit_price": "0.05"}]);
        let made = settled(&[
            ("tax", "vat", json!({"percent": "19"})),
            ("credit", "welcome", json!({"amount": "30"})),
            ("discount", "partner", json!({"percent": 10})),
            ("minimum", "least", json!({"service": "instance", "amount": 25})),
            ("included", "free", json!({"service": "traffic", "quantity": "500"})),
            ("tiers", "volume", json!({"service": "traffic", "steps": steps})),
        ]);
        // 150 → 125 by tiers, a third of it free: 83.33...; 20 → 25; a tenth off; 30 given; 19 % on the rest.
        assert_eq!(
            made,
            [
                row("traffic", "Adjustment", "-25"),
                row("traffic", "Credit", "-41.6666666667"),
                row("instance", "Adjustment", "5"),
                row("bill", "Credit", "-10.8333333333"),
                row("bill", "Credit", "-30"),
                row("tax", "Tax", "12.825"),
            ]
        );
    }

    #[test]
    fn rules_hold_for_their_projects_and_times_only() {
        let hour = "1970-01-01T01:00:00Z";
        assert_eq!(settled(&[("tax", "t", json!({"percent": 10, "valid_from": hour}))]), []);
        assert_eq!(settled(&[("tax", "t", json!({"percent": 10, "projects": ["q"]}))]), []);
        let own = json!({"percent": 10, "projects": ["p"], "valid_until": hour});
        assert_eq!(settled(&[("tax", "t", own)]), [row("tax", "Tax", "17")]);
        assert_eq!(settled(&[("credit", "c", json!({"amount": 1000}))]), [row("bill", "Credit", "-170")]);
        let tax = |domains: Value| ("tax", "d", json!({"percent": 10, "domains": domains, "projects": ["q"]}));
        let domain = ("domain", "acme", json!({"projects": ["o", "p"]}));
        assert_eq!(settled(&[tax(json!(["acme"])), domain.clone()]), [row("tax", "Tax", "17")]);
        assert_eq!(settled(&[tax(json!(["other"])), domain]), []);
        assert_eq!(settled(&[tax(json!(["acme"]))]), [], "nobody is in a domain that no rule names");
        let two = [("tax", "a", json!({"percent": 10})), ("tax", "b", json!({"percent": 10}))];
        assert_eq!(settled(&two), [row("tax", "Tax", "17"), row("tax", "Tax", "17")], "no tax on tax");
        let currency = documents(&[("currency", "c", json!({"code": "EUR"}))]);
        assert_eq!(Prices::from_documents(&currency).expect("rules").currency, "EUR");
    }

    #[test]
    fn wrong_rules_are_named() {
        for (kind, body, told) in [
            ("tax", json!({}), "tax `x`: percent is missing"),
            ("tax", json!({"percent": "ten"}), "tax `x`: `ten` is no decimal number: digits are expected"),
            ("tax", json!({"percent": -1}), "tax `x`: percent is below zero"),
            ("discount", json!({"percent": 101}), "discount `x`: percent is above 100"),
            ("tiers", json!({"service": "s", "steps": []}), "tiers `x`: 1 to 100 steps are expected"),
            (
                "tiers",
                json!({"service": "s", "steps": [{"above": 1, "unit_price": 1}]}),
                "tiers `x`: steps begin above 0, and each is above the one before",
            ),
            ("included", json!({"quantity": 1}), "included `x`: service is missing"),
            ("currency", json!({"code": "euro"}), "currency `x`: `euro` is no ISO 4217 code, such as EUR"),
            ("credit", json!({"amount": 1, "size": 2}), "credit `x`: unknown field `size`"),
            ("domain", json!({}), "domain `x`: projects are missing"),
            ("expression", json!({"service": "s"}), "expression `x`: expression is missing"),
            (
                "expression",
                json!({"service": "s", "expression": "price *"}),
                "expression `x`: at character 8: a value is expected",
            ),
        ] {
            let error = Prices::from_documents(&documents(&[(kind, "x", body)])).expect_err(told).to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
