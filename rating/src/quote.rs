//! What usages would cost a project as a whole bill: the hashmap, the expression on it, and everything that is settled when a
//! bill is closed (purchases, tiers, included quantities, minimums, discounts, credits, taxes). Pure.
//!
//! The bill is that of the month: purchases that are due in it are charged, and packages are as if nothing had been taken of them.

use std::{sync::Arc, time::Duration};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;
use uuid::Uuid;

use crate::{
    currency::Totals,
    doors::Rules,
    forecast::month,
    line::{LineKind, RatedLine, cost_of},
    price::{Bill, Earlier},
    usage::{Usage, text_of},
};

/// Length of a rating period: nobody looks at which one a quote's lines belong to.
const PERIOD: Duration = Duration::from_secs(3600);

/// A bill that nobody has to pay.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// One line for each usage, in their order.
    pub usage: Vec<RatedLine>,
    /// What the sum of them makes the bill need.
    pub settled: Vec<RatedLine>,
    /// The sum of all of each currency.
    pub totals: Totals,
    /// The project's currency: that of usage.
    pub currency: String,
}

/// The bill of usages, by rules, for a project (or everybody) at a moment. The error says which usage has no price, and why.
pub fn quote(rules: &Rules, scope: Option<&str>, at: Timestamp, usages: &[Usage]) -> Result<Quote, String> {
    let list = rules.hashmap.for_tenant(scope);
    let name = scope.unwrap_or_default();
    let currency = rules.prices.currency(name, at);
    let mut usage = Vec::with_capacity(usages.len());
    for (place, own) in usages.iter().enumerate() {
        let wrong = |reason: String| format!("resources[{place}]: {reason}");
        let listed = list.price(own).map_err(|error| wrong(error.to_string()))?;
        let (price, rule) = match rules.prices.expression(&own.service, name, at) {
            None => (listed, format!("hashmap/{}/0", own.service)),
            Some((id, expression)) => {
                let known = |fact: &str| own.description.get(fact).map(text_of);
                let price = expression.price(&listed, &own.quantity, &known);
                let price = price.map_err(|error| wrong(format!("expression `{id}`: {error}")))?;
                (price, format!("hashmap/{}/0/expression/{id}", own.service))
            }
        };
        usage.push(RatedLine {
            id: Uuid::nil(),
            scope: name.to_owned(),
            service: own.service.clone(),
            resource: String::new(),
            begin: at,
            end: at,
            period: at,
            unit: String::new(),
            quantity: own.quantity.clone(),
            unit_price: BigDecimal::default(),
            cost: cost_of(&price),
            currency: currency.to_owned(),
            kind: LineKind::Usage,
            corrects: None,
            reverses: false,
            rule,
            rule_version: rules.version,
            sequence: u32::try_from(place).unwrap_or(u32::MAX),
            groupby: Arc::default(),
            metadata: Arc::default(),
            samples: 0,
            rated_at: at,
        });
    }
    let earlier = Earlier::default();
    let bill = Bill { scope: name, begin: month(at, 0), end: month(at, 1), period: PERIOD, earlier: &earlier };
    let settled = rules.prices.settle(&bill, &usage, (rules.version, at));
    let mut totals = Totals::new();
    for line in usage.iter().chain(&settled) {
        *totals.entry(line.currency.clone()).or_default() += &line.cost;
    }
    Ok(Quote { usage, settled, totals, currency: currency.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{HashMap, RuleDocument, price::Prices};

    #[test]
    fn a_quote_is_the_whole_bill() {
        let document =
            |kind: &str, body: serde_json::Value| RuleDocument { kind: kind.to_owned(), id: "x".to_owned(), body };
        let documents = [
            document("expression", json!({"service": "instance", "projects": ["p"], "expression": "price * 2"})),
            document("discount", json!({"percent": 10})),
            document("tax", json!({"percent": 20})),
            document("currency", json!({"code": "EUR"})),
        ];
        let hashmap = json!({"services": [{"name": "instance", "fields": [], "thresholds": [],
            "mappings": [{"type": "flat", "cost": "0.5"}]}]});
        let rules = Rules {
            version: 3,
            hashmap: HashMap::from_json(&hashmap).expect("rules"),
            prices: Prices::from_documents(&documents).expect("rules"),
        };
        let usage = Usage { service: "instance".to_owned(), quantity: BigDecimal::from(10), description: [].into() };
        let total = |scope| {
            let quote = quote(&rules, scope, Timestamp::EPOCH, std::slice::from_ref(&usage)).expect("a quote");
            assert_eq!((quote.usage.len(), quote.settled.len(), quote.currency.as_str()), (1, 2, "EUR"));
            quote.totals["EUR"].normalized().to_plain_string()
        };
        assert_eq!(total(None), "5.4", "5, a tenth off, a fifth on it");
        assert_eq!(total(Some("p")), "10.8");
        let purchase = json!({"name": "n", "service": "instance", "quantity": 4, "amount": 1, "frequency": "monthly",
            "valid_from": Timestamp::EPOCH});
        let prices = Prices::from_documents(&[document("purchase", purchase)]).expect("rules");
        let quote = quote(&Rules { prices, ..rules }, None, Timestamp::EPOCH, &[usage]).expect("a quote");
        assert_eq!(quote.totals["USD"].normalized().to_plain_string(), "4", "1 for four tenths of 5");
    }
}
