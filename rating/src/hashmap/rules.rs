//! The rules as an operator writes them, checked; and as they are for one tenant.

use bigdecimal::BigDecimal;
use serde::Deserialize;
use serde_json::Value;

use super::{Entry, FieldPrices, GROUP_DEFAULT, Ordered, PriceList, ServicePrices, at, put};
use crate::decimal::decimal;

/// More entries than any price list has; each costs memory and is compared with every usage.
const ENTRIES_MAX: usize = 100_000;
/// Longest name of a service, field, group or value (CloudKitty's columns end at 255).
const NAME_CHARACTERS_MAX: usize = 255;

/// How a cost counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An amount of money for each unit.
    Flat,
    /// A factor.
    Rate,
}

/// What is wrong with the rules, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct RuleError {
    /// Such as `services[0].fields[1].mappings[2].cost`.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

/// The rules of all tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HashMap {
    services: Vec<Service>,
}

#[derive(Clone, Debug, PartialEq)]
struct Service {
    name: String,
    entries: Entries,
    fields: Vec<(String, Entries)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Entries {
    mappings: Vec<Mapping>,
    thresholds: Vec<Threshold>,
}

#[derive(Clone, Debug, PartialEq)]
struct Mapping {
    /// Of a field: the value that it is for.
    value: Option<String>,
    whose: Whose,
    entry: Entry,
}

#[derive(Clone, Debug, PartialEq)]
struct Threshold {
    level: BigDecimal,
    whose: Whose,
    entry: Entry,
}

#[derive(Clone, Debug, PartialEq)]
struct Whose {
    group: String,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: Vec<ServiceText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceText {
    name: String,
    #[serde(default)]
    mappings: Vec<EntryText>,
    #[serde(default)]
    thresholds: Vec<EntryText>,
    #[serde(default)]
    fields: Vec<FieldText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldText {
    name: String,
    #[serde(default)]
    mappings: Vec<EntryText>,
    #[serde(default)]
    thresholds: Vec<EntryText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    value: Option<String>,
    level: Option<Value>,
    #[serde(rename = "type")]
    kind: Kind,
    cost: Value,
    group: Option<String>,
    tenant_id: Option<String>,
}

impl HashMap {
    /// Reads rules: `{"services": [{"name", "mappings": [...], "thresholds": [...], "fields": [...]}]}`, where entries have
    /// CloudKitty's keys (`value`, `level`, `type`, `cost`, `group`, `tenant_id`). Costs and levels are numbers or, so that no
    /// digit is lost on the way, texts.
    pub fn from_json(document: &Value) -> Result<Self, RuleError> {
        let document: Document = Document::deserialize(document)
            .map_err(|error| RuleError { place: "rules".to_owned(), reason: error.to_string() })?;
        let mut left = ENTRIES_MAX;
        let mut services: Vec<Service> = Vec::new();
        for (place, service) in document.services.into_iter().enumerate() {
            let place = format!("services[{place}]");
            named(&place, &service.name, services.iter().any(|own| own.name == service.name))?;
            let entries = entries(&place, service.mappings, service.thresholds, false, &mut left)?;
            let mut fields: Vec<(String, Entries)> = Vec::new();
            for (number, field) in service.fields.into_iter().enumerate() {
                let place = format!("{place}.fields[{number}]");
                named(&place, &field.name, fields.iter().any(|(own, _)| *own == field.name))?;
                fields.push((field.name, self::entries(&place, field.mappings, field.thresholds, true, &mut left)?));
            }
            services.push(Service { name: service.name, entries, fields });
        }
        Ok(Self { services })
    }

    /// The rules as they are for one tenant: what is written for it goes before what is written for all.
    pub fn for_tenant(&self, tenant: Option<&str>) -> PriceList {
        let mut list = PriceList::default();
        for service in &self.services {
            let mut prices = ServicePrices::default();
            for whose in tenants(tenant) {
                for mapping in service.entries.mappings.iter().filter(|own| own.whose.tenant.as_deref() == whose) {
                    put(&mut prices.mappings, mapping.whose.group.clone(), mapping.entry.clone());
                }
                add_levels(&mut prices.thresholds, &service.entries.thresholds, whose);
            }
            for (name, entries) in &service.fields {
                let mut field = FieldPrices::default();
                for whose in tenants(tenant) {
                    for mapping in entries.mappings.iter().filter(|own| own.whose.tenant.as_deref() == whose) {
                        let values = at(&mut field.mappings, mapping.whose.group.clone());
                        put(values, mapping.value.clone().unwrap_or_default(), mapping.entry.clone());
                    }
                    add_levels(&mut field.thresholds, &entries.thresholds, whose);
                }
                prices.fields.push((name.clone(), field));
            }
            list.services.insert(service.name.clone(), prices);
        }
        list
    }
}

/// For all, then for the tenant.
fn tenants(tenant: Option<&str>) -> impl Iterator<Item = Option<&str>> {
    std::iter::once(None).chain(tenant.map(Some))
}

fn add_levels(levels: &mut Ordered<String, Ordered<BigDecimal, Entry>>, thresholds: &[Threshold], whose: Option<&str>) {
    for threshold in thresholds.iter().filter(|own| own.whose.tenant.as_deref() == whose) {
        let group = at(levels, threshold.whose.group.clone());
        put(group, threshold.level.clone(), threshold.entry.clone());
    }
}

fn named(place: &str, name: &str, is_there: bool) -> Result<(), RuleError> {
    let wrong = |reason: String| Err(RuleError { place: format!("{place}.name"), reason });
    match name.chars().count() {
        0 => wrong("it is empty".to_owned()),
        1..=NAME_CHARACTERS_MAX if is_there => wrong(format!("`{name}` is there twice")),
        1..=NAME_CHARACTERS_MAX => Ok(()),
        _ => wrong(format!("it is longer than {NAME_CHARACTERS_MAX} characters")),
    }
}

fn entries(
    place: &str,
    mappings: Vec<EntryText>,
    thresholds: Vec<EntryText>,
    of_field: bool,
    left: &mut usize,
) -> Result<Entries, RuleError> {
    let mut entries = Entries::default();
    for (number, text) in mappings.into_iter().enumerate() {
        let place = format!("{place}.mappings[{number}]");
        let wrong = |reason: &str| RuleError { place: place.clone(), reason: reason.to_owned() };
        if text.level.is_some() {
            return Err(wrong("a mapping has no level"));
        }
        match (&text.value, of_field) {
            (None, true) => return Err(wrong("a mapping of a field needs the value that it is for")),
            (Some(_), false) => return Err(wrong("a mapping of a service has no value; write it under a field")),
            (Some(value), true) => named(&place, value, false)?,
            (None, false) => {}
        }
        let (value, (whose, entry)) = (text.value.clone(), checked(&place, text, left)?);
        if entries.mappings.iter().any(|own| own.value == value && own.whose == whose) {
            return Err(wrong("another mapping is for the same value, group and tenant"));
        }
        entries.mappings.push(Mapping { value, whose, entry });
    }
    for (number, text) in thresholds.into_iter().enumerate() {
        let place = format!("{place}.thresholds[{number}]");
        let wrong = |reason: &str| RuleError { place: place.clone(), reason: reason.to_owned() };
        if text.value.is_some() {
            return Err(wrong("a threshold has a level, and no value"));
        }
        let level = number_at(&place, "level", text.level.as_ref().ok_or_else(|| wrong("the level is missing"))?)?;
        let (whose, entry) = checked(&place, text, left)?;
        if entries.thresholds.iter().any(|own| own.level == level && own.whose == whose) {
            return Err(wrong("another threshold is at the same level, group and tenant"));
        }
        entries.thresholds.push(Threshold { level, whose, entry });
    }
    Ok(entries)
}

fn checked(place: &str, text: EntryText, left: &mut usize) -> Result<(Whose, Entry), RuleError> {
    *left = left.checked_sub(1).ok_or_else(|| RuleError {
        place: place.to_owned(),
        reason: format!("there are more than {ENTRIES_MAX} entries"),
    })?;
    let cost = number_at(place, "cost", &text.cost)?;
    let group = match text.group {
        Some(group) => {
            named(&format!("{place}.group"), &group, false)?;
            group
        }
        None => GROUP_DEFAULT.to_owned(),
    };
    Ok((Whose { group, tenant: text.tenant_id }, Entry { kind: text.kind, cost }))
}

fn number_at(place: &str, field: &str, value: &Value) -> Result<BigDecimal, RuleError> {
    let wrong = |reason: String| RuleError { place: format!("{place}.{field}"), reason };
    match value {
        Value::String(text) => decimal(text).map_err(|error| wrong(error.to_string())),
        // As it is written: CloudKitty, too, goes by a number's text.
        Value::Number(number) => decimal(&number.to_string()).map_err(|error| wrong(error.to_string())),
        other => Err(wrong(format!("`{other}` is no decimal number"))),
    }
}
