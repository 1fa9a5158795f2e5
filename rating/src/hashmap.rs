//! CloudKitty's `hashmap`: costs by service, and by the values of fields, in groups, with thresholds.
//!
//! For each group: the costs of `rate` mappings are multiplied, of `flat` ones only the largest counts; of the thresholds
//! that are reached only the highest. Then `rate * flat * quantity`, where a field's threshold changes the flat part
//! (by addition) or the rate (by multiplication), and a service's threshold the product. The price is the sum over groups.
//! What is written for a tenant replaces what is written for all under the same value or level.

mod rules;

use bigdecimal::{BigDecimal, One, Zero};
pub use rules::{HashMap, Kind, RuleError};

use crate::{
    decimal::{add, multiply},
    usage::{Usage, UsageError, number_of, text_of},
};

/// The group of entries without one.
const GROUP_DEFAULT: &str = "_DEFAULT_";

/// A list that keeps the order in which keys first came: sums are rounded, so their order is part of the result.
pub(crate) type Ordered<K, V> = Vec<(K, V)>;

fn put<K: PartialEq, V>(list: &mut Ordered<K, V>, key: K, value: V) {
    match list.iter_mut().find(|(own, _)| *own == key) {
        Some((_, own)) => *own = value,
        None => list.push((key, value)),
    }
}

fn at<K: PartialEq, V: Default>(list: &mut Ordered<K, V>, key: K) -> &mut V {
    let place = list.iter().position(|(own, _)| *own == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[place].1
}

/// A cost and how it counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) cost: BigDecimal,
}

/// Thresholds of a group by their level.
type Levels = Ordered<BigDecimal, Entry>;

#[derive(Clone, Debug, Default)]
pub(crate) struct FieldPrices {
    /// By group, then by the field's value.
    pub(crate) mappings: Ordered<String, Ordered<String, Entry>>,
    pub(crate) thresholds: Ordered<String, Levels>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ServicePrices {
    /// By group.
    pub(crate) mappings: Ordered<String, Entry>,
    pub(crate) thresholds: Ordered<String, Levels>,
    pub(crate) fields: Ordered<String, FieldPrices>,
}

/// The rules as they are for one tenant.
#[derive(Clone, Debug, Default)]
pub struct PriceList {
    pub(crate) services: std::collections::HashMap<String, ServicePrices>,
}

/// Where a threshold stands decides when it counts.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Service,
    Field,
}

/// What a group comes to.
struct Group<'a> {
    flat: BigDecimal,
    rate: BigDecimal,
    threshold: Option<(&'a BigDecimal, &'a Entry, Place)>,
}

impl Default for Group<'_> {
    fn default() -> Self {
        Self { flat: BigDecimal::zero(), rate: BigDecimal::one(), threshold: None }
    }
}

impl<'a> Group<'a> {
    fn map(&mut self, entry: &Entry) {
        match entry.kind {
            Kind::Rate => self.rate = multiply(&self.rate, &entry.cost),
            Kind::Flat if entry.cost > self.flat => self.flat = entry.cost.clone(),
            Kind::Flat => {}
        }
    }

    fn reach(&mut self, level: &'a BigDecimal, entry: &'a Entry, place: Place) {
        // Levels down to minus one are never reached, as in CloudKitty.
        let best = self.threshold.map_or_else(|| -BigDecimal::one(), |(level, ..)| level.clone());
        if *level > best {
            self.threshold = Some((level, entry, place));
        }
    }

    fn price(self, quantity: &BigDecimal) -> BigDecimal {
        let (mut flat, mut rate) = (self.flat, self.rate);
        match self.threshold {
            Some((_, entry, Place::Field)) if entry.kind == Kind::Flat => flat = add(&flat, &entry.cost),
            Some((_, entry, Place::Field)) => rate = multiply(&rate, &entry.cost),
            Some((_, _, Place::Service)) => {}
            // CloudKitty adds a threshold of nothing, which rounds a price of more digits.
            None => flat = add(&flat, &BigDecimal::zero()),
        }
        let price = multiply(&multiply(&rate, &flat), quantity);
        match self.threshold {
            Some((_, entry, Place::Service)) if entry.kind == Kind::Flat => add(&price, &entry.cost),
            Some((_, entry, Place::Service)) => multiply(&price, &entry.cost),
            _ => price,
        }
    }
}

impl PriceList {
    /// The price of a usage; zero for a service that no rule names.
    pub fn price(&self, usage: &Usage) -> Result<BigDecimal, UsageError> {
        let Some(service) = self.services.get(&usage.service) else { return Ok(BigDecimal::zero()) };
        let mut groups: Ordered<&str, Group<'_>> = Vec::new();
        for (group, entry) in &service.mappings {
            at(&mut groups, group).map(entry);
        }
        reach(&mut groups, &service.thresholds, &usage.quantity, Place::Service);
        for (field, prices) in &service.fields {
            let Some(value) = usage.description.get(field) else { continue };
            let text = text_of(value);
            for (group, mappings) in &prices.mappings {
                if let Some((_, entry)) = mappings.iter().find(|(own, _)| *own == text) {
                    at(&mut groups, group).map(entry);
                }
            }
            if !prices.thresholds.is_empty() {
                let number = number_of(value).map_err(|source| UsageError::NoNumber {
                    service: usage.service.clone(),
                    field: field.clone(),
                    source,
                })?;
                reach(&mut groups, &prices.thresholds, &number, Place::Field);
            }
        }
        let prices = groups.into_iter().map(|(_, group)| group.price(&usage.quantity));
        Ok(prices.fold(BigDecimal::zero(), |sum, price| add(&sum, &price)))
    }
}

fn reach<'a>(
    groups: &mut Ordered<&'a str, Group<'a>>,
    thresholds: &'a Ordered<String, Levels>,
    number: &BigDecimal,
    place: Place,
) {
    for (group, levels) in thresholds {
        for (level, entry) in levels.iter().filter(|(level, _)| number >= level) {
            at(groups, group).reach(level, entry, place);
        }
    }
}

#[cfg(test)]
mod tests;
