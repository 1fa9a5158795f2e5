//! What lines cost, counted once more by other code than the rating's: from the rules' document as it was when they were made,
//! their facts and quantity, without rounding until the end.
//!
//! It knows mappings only. Lines that thresholds or expressions price are left to the rating anew, and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, LineKind, MetricDefinition, RatedLine, RatingBook, UsageKind, cost_of};
use serde_json::Value;

use super::plain;

/// Holds lines against the rules.
pub(super) struct Prices<'a> {
    book: &'a RatingBook,
    definitions: &'a [MetricDefinition],
    /// Length of a period in seconds; `None`: lines are not cut by the second.
    period: Option<i64>,
    /// What was read of the book: version, and from when until when it holds.
    documents: Vec<(u64, Timestamp, Timestamp, Arc<Value>)>,
    /// Lines that were compared, and those that are left to the rating.
    pub(super) compared: u64,
    pub(super) left: u64,
}

impl<'a> Prices<'a> {
    pub(super) fn new(book: &'a RatingBook, definitions: &'a [MetricDefinition], period: Option<i64>) -> Self {
        Self { book, definitions, period, documents: Vec::new(), compared: 0, left: 0 }
    }

    /// What is wrong with a line's cost, in words.
    pub(super) async fn look(&mut self, line: &RatedLine) -> anyhow::Result<Option<String>> {
        if line.kind != LineKind::Usage || line.reverses || !line.rule.starts_with("hashmap/") {
            return Ok(None);
        }
        let rule = |own: &&MetricDefinition| line.rule == format!("hashmap/{}/{}", own.service, own.number);
        let Some(definition) = self.definitions.iter().find(rule) else {
            // An expression on top of it has another rule's name.
            self.left += 1;
            return Ok(None);
        };
        let begin = match self.period {
            Some(seconds) => Timestamp::from_secs(line.begin.secs().div_euclid(seconds) * seconds),
            None => line.begin,
        };
        let services = self.services(line.rule_version, begin).await?;
        let facts: BTreeMap<String, String> = line
            .groupby
            .iter()
            .chain(line.metadata.iter())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut services = services.as_array().into_iter().flatten();
        let one = match services.find(|own| own["name"] == line.service.as_str()) {
            Some(rules) => price(rules, &line.scope, &facts),
            None => Some(BigDecimal::from(0)),
        };
        let Some(one) = one else {
            self.left += 1;
            return Ok(None);
        };
        self.compared += 1;
        let is_right = match (definition.usage, self.period) {
            (UsageKind::Existence, Some(whole)) => {
                let quantity = definition.conversion.apply(&BigDecimal::from(1));
                let seconds = BigDecimal::from(line.end.secs() - line.begin.secs());
                line.cost == cost_of(&(&one * quantity * seconds / BigDecimal::from(whole)))
            }
            // Of the quantity only what it was rounded to is known: a step of the last digit for it, and one for the cost.
            _ => (&line.cost - &one * &line.quantity).abs() <= (one.abs() + 1) * BigDecimal::new(1.into(), 10),
        };
        Ok((!is_right).then(|| {
            format!(
                "{} {} {}: line {} costs {}; by its rules one is {}, and it is {} from {} until {}",
                line.scope,
                line.service,
                line.resource,
                line.id,
                plain(&line.cost),
                plain(&one),
                plain(&line.quantity),
                line.begin.zulu_secs(),
                line.end.zulu_secs()
            )
        }))
    }

    /// The services' rules of a version at a moment.
    async fn services(&mut self, version: u64, at: Timestamp) -> anyhow::Result<Arc<Value>> {
        let known = self.documents.iter().find(|(own, from, until, _)| *own == version && *from <= at && at < *until);
        if let Some((.., services)) = known {
            return Ok(services.clone());
        }
        let set = self.book.rules_of(version, at).await?;
        let services = Arc::new(set.document["services"].clone());
        self.documents.push((version, set.valid_from, set.valid_until, services.clone()));
        Ok(services)
    }
}

/// The price of one, by a service's rules as they are written; `None`: there is more in them than mappings.
fn price(rules: &Value, scope: &str, known: &BTreeMap<String, String>) -> Option<BigDecimal> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |entry: &Value| entry["cost"].as_str().and_then(|text| text.parse::<BigDecimal>().ok());
    let mut groups: BTreeMap<String, (BigDecimal, BigDecimal)> = BTreeMap::new();
    let mut applied = |entries: Vec<Value>| {
        // What is written for a project replaces what is written for all, under the same value and group.
        let is_own = |entry: &Value| entry["tenant_id"] == scope;
        let key = |entry: &Value| (entry["group"].to_string(), entry["value"].to_string());
        let replaced: BTreeSet<_> = entries.iter().filter(|own| is_own(own)).map(key).collect();
        for entry in &entries {
            let is_general = entry["tenant_id"].is_null() && !replaced.contains(&key(entry));
            if !is_own(entry) && !is_general {
                continue;
            }
            let one = || (BigDecimal::from(0), BigDecimal::from(1));
            let (flat, rate) = groups.entry(entry["group"].to_string()).or_insert_with(one);
            let Some(cost) = number(entry) else { continue };
            match entry["type"].as_str() {
                Some("rate") => *rate *= cost,
                _ if cost > *flat => *flat = cost,
                _ => {}
            }
        }
    };
    if !list(&rules["thresholds"]).is_empty() {
        return None;
    }
    applied(list(&rules["mappings"]));
    for field in list(&rules["fields"]) {
        if !list(&field["thresholds"]).is_empty() {
            return None;
        }
        let Some(value) = field["name"].as_str().and_then(|name| known.get(name)) else { continue };
        applied(list(&field["mappings"]).into_iter().filter(|entry| entry["value"] == value.as_str()).collect());
    }
    Some(groups.into_values().map(|(flat, rate)| flat * rate).sum())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mappings_are_priced_and_nothing_else() {
        let rules = json!({"mappings": [{"type": "rate", "cost": "0.5", "group": "g"}], "thresholds": [],
            "fields": [{"name": "flavor_name", "thresholds": [], "mappings": [
                {"value": "tiny", "type": "flat", "cost": "1.2"}, {"value": "big", "type": "flat", "cost": "3.6"},
                {"value": "big", "type": "flat", "cost": "7.2", "tenant_id": "q"},
                {"value": "big", "type": "flat", "cost": "4", "group": "g"}]}]});
        let of = |scope: &str, flavor: &str| {
            let facts = BTreeMap::from([("flavor_name".to_owned(), flavor.to_owned())]);
            price(&rules, scope, &facts).map(|price| price.normalized().to_plain_string())
        };
        assert_eq!(of("p", "tiny").as_deref(), Some("1.2"));
        assert_eq!(of("p", "big").as_deref(), Some("5.6"), "3.6, and half of 4 in another group");
        assert_eq!(of("q", "big").as_deref(), Some("9.2"), "its own price, and the group's");
        assert_eq!(of("p", "none").as_deref(), Some("0"));
        let thresholds = json!({"thresholds": [{"level": "1", "type": "flat", "cost": "1"}]});
        assert_eq!(price(&thresholds, "p", &BTreeMap::new()), None, "not known here");
    }
}
