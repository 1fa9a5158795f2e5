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
mod settle;
mod written;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;

use crate::{book::RuleDocument, currency::CURRENCY_DEFAULT, expression::Expression};
use purchase::{Frequency, Purchase, Span, Taken};
use written::{Step, Written};

pub(crate) use settle::is_settled;
pub use settle::{Bill, Earlier};

/// Rules of one version.
const RULES_MAX: usize = 10_000;

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

/// For whom and when a rule holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reach {
    valid_from: Option<Timestamp>,
    valid_until: Option<Timestamp>,
    projects: Option<Vec<String>>,
    domains: Option<Vec<String>>,
}

/// How closely a rule names a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// It is for all.
    All,
    /// It names its domain.
    Domain,
    /// It names it.
    Project,
}

/// Projects of each domain.
type Domains = BTreeMap<String, BTreeSet<String>>;

impl Reach {
    /// How closely it names a project, at whatever time.
    fn closeness(&self, domains: &Domains, scope: &str) -> Option<Closeness> {
        let is_in = |domain: &String| domains.get(domain).is_some_and(|projects| projects.contains(scope));
        match (&self.projects, &self.domains) {
            (None, None) => Some(Closeness::All),
            (Some(projects), _) if projects.iter().any(|own| own == scope) => Some(Closeness::Project),
            (_, named) => named.iter().flatten().any(is_in).then_some(Closeness::Domain),
        }
    }

    /// Whether it is for a project, at whatever time.
    fn names(&self, domains: &Domains, scope: &str) -> bool {
        self.closeness(domains, scope).is_some()
    }

    fn takes(&self, domains: &Domains, scope: &str, at: Timestamp) -> bool {
        let is_valid = self.valid_from.is_none_or(|from| at >= from) && self.valid_until.is_none_or(|until| at < until);
        is_valid && self.names(domains, scope)
    }
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
    /// So much is given, as far as something is owed: each month, or over the months until it is used up.
    Credit { amount: BigDecimal, frequency: Frequency },
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
    /// Of its sums of money; `None`: the project's.
    currency: Option<String>,
    term: Term,
}

impl Rule {
    /// As its lines name it.
    fn name(&self) -> String {
        format!("price/{}/{}", self.kind, self.id)
    }
}

/// The currency of costs, for whom and when.
#[derive(Clone, Debug, PartialEq)]
struct Currency {
    id: String,
    reach: Reach,
    code: String,
}

/// Prices beyond the hashmap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    currencies: Vec<Currency>,
    /// In the order in which they are applied.
    rules: Vec<Rule>,
    domains: Domains,
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
            let written = Written::read(document).map_err(wrong)?;
            if document.kind == "domain" {
                let projects = written.projects.ok_or_else(|| wrong("projects are missing".to_owned()))?;
                prices.domains.entry(document.id.clone()).or_default().extend(projects);
                continue;
            }
            let term = match document.kind.as_str() {
                "currency" => None,
                kind => Some(written::term(kind, &written).map_err(wrong)?),
            };
            let id = document.id.clone();
            let Written { valid_from, valid_until, projects, domains, currency, code, .. } = written;
            let reach = Reach { valid_from, valid_until, projects, domains };
            let Some(term) = term else {
                let code = code.unwrap_or_default();
                if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
                    return Err(wrong(format!("`{code}` is no ISO 4217 code, such as EUR")));
                }
                prices.currencies.push(Currency { id, reach, code });
                continue;
            };
            prices.rules.push(Rule { kind: document.kind.clone(), id, reach, currency, term });
            if prices.rules.len() > RULES_MAX {
                return Err(wrong(format!("there are more than {RULES_MAX} rules")));
            }
        }
        prices.rules.sort_by(|a, b| (settle::order(&a.kind), &a.id).cmp(&(settle::order(&b.kind), &b.id)));
        Ok(prices)
    }

    /// Whether a document may be written beside those of a version. What was written before these checks holds on.
    pub fn check(documents: &[RuleDocument], new: &RuleDocument) -> Result<(), PriceError> {
        let others = documents.iter().filter(|own| (&own.kind, &own.id) != (&new.kind, &new.id));
        let all: Vec<RuleDocument> = others.chain([new]).cloned().collect();
        Self::from_documents(&all)?;
        written::checked(new)
    }

    /// The currency of a project's costs at a moment, as ISO 4217 writes it. A rule that names the project is before one that
    /// names its domain, and that before one for all; of several the one that is valid since last, then the first one by id.
    pub fn currency(&self, scope: &str, at: Timestamp) -> &str {
        let holding = self.currencies.iter().filter(|own| own.reach.takes(&self.domains, scope, at));
        let place = |own: &&Currency| {
            (own.reach.closeness(&self.domains, scope), own.reach.valid_from, Reverse(own.id.clone()))
        };
        holding.max_by_key(place).map_or(CURRENCY_DEFAULT, |own| own.code.as_str())
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

    /// The terms of purchases for a project that a time touches: those that end first come first, as they are used up.
    fn spans(&self, scope: &str, begin: Timestamp, end: Timestamp) -> Vec<Span<'_>> {
        let mut spans = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.reach.names(&self.domains, scope)) {
            if let Term::Purchase(purchase) = &rule.term {
                let currency_at = |at| rule.currency.as_deref().unwrap_or_else(|| self.currency(scope, at));
                spans.extend(purchase.spans(&rule.id, (begin, end), currency_at));
            }
        }
        spans.sort_by(|a, b| (a.until, a.id, a.from).cmp(&(b.until, b.id, b.from)));
        spans
    }
}

#[cfg(test)]
mod tests;
