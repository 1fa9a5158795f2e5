//! Documents as an operator writes them: fields, numbers, and what is wrong with them.
//!
//! What is read from the book is taken as it is, so that no rule of old is lost; what is written anew is also [`checked`].

use bigdecimal::{BigDecimal, Zero};
use orzo_model::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Frequency, PriceError, Term, purchase::Purchase};
use crate::{book::RuleDocument, currency::is_currency, decimal::decimal, expression::Expression, line::COST_SCALE};

/// Steps of one tier.
const STEPS_MAX: usize = 100;
/// Whole digits of amounts and quantities, of unit prices, and of percentages: a quantity times a price, and a tax on a sum, have
/// fewer than the 28 that the ledger's decimals (38 digits, [`COST_SCALE`] of them after the point) have room for.
const AMOUNT_DIGITS_MAX: u32 = 16;
const PRICE_DIGITS_MAX: u32 = 10;
const PERCENT_DIGITS_MAX: u32 = 3;
/// Digits after the point of what is no sum of money: as many as CloudKitty's prices have.
const PLACES_MAX: i64 = 28;

/// A decimal as it is written: a text or a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number(pub(super) BigDecimal);

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

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) above: Number,
    pub(super) unit_price: Number,
}

/// Fields of a rule's document, of all kinds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) valid_from: Option<Timestamp>,
    pub(super) valid_until: Option<Timestamp>,
    pub(super) projects: Option<Vec<String>>,
    pub(super) domains: Option<Vec<String>>,
    #[serde(rename = "description")]
    _description: Option<String>,
    pub(super) service: Option<String>,
    steps: Option<Vec<Step>>,
    pub(super) quantity: Option<Number>,
    pub(super) amount: Option<Number>,
    percent: Option<Number>,
    pub(super) code: Option<String>,
    pub(super) currency: Option<String>,
    expression: Option<String>,
    pub(super) name: Option<String>,
    pub(super) frequency: Option<String>,
}

impl Written {
    pub(super) fn read(document: &RuleDocument) -> Result<Self, String> {
        serde_json::from_value(document.body.clone()).map_err(|error| error.to_string())
    }

    /// How often it counts.
    pub(super) fn frequency(&self) -> Result<Option<Frequency>, String> {
        Ok(match self.frequency.as_deref() {
            Some("once") => Some(Frequency::Once),
            Some("monthly") => Some(Frequency::Monthly),
            Some(_) => return Err("frequency is once or monthly".to_owned()),
            None => None,
        })
    }
}

/// What a rule that is no currency and no domain does.
pub(super) fn term(kind: &str, written: &Written) -> Result<Term, String> {
    let service = || written.service.clone().ok_or_else(|| "service is missing".to_owned());
    let number = |name: &str, number: &Option<Number>| {
        let number = number.as_ref().ok_or_else(|| format!("{name} is missing"))?;
        match number.0 < BigDecimal::zero() {
            true => Err(format!("{name} is below zero")),
            false => Ok(number.0.clone()),
        }
    };
    if written.currency.is_some() && !matches!(kind, "purchase" | "tiers" | "minimum" | "credit") {
        return Err("currency is for sums of money; this rule has none".to_owned());
    }
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
        "credit" => {
            let frequency = written.frequency()?.unwrap_or(Frequency::Monthly);
            Term::Credit { amount: number("amount", &written.amount)?, frequency }
        }
        _ => Term::Tax { percent: number("percent", &written.percent)? },
    })
}

/// Whether a document that is written now may be: its currency is one, and its numbers are such that all that is made of them has
/// room in the ledger.
pub(super) fn checked(document: &RuleDocument) -> Result<(), PriceError> {
    let wrong = |reason: String| PriceError { kind: document.kind.clone(), id: document.id.clone(), reason };
    let written = Written::read(document).map_err(wrong)?;
    for (field, code) in [("code", &written.code), ("currency", &written.currency)] {
        if let Some(code) = code.as_ref().filter(|code| !is_currency(code)) {
            let code: String = code.chars().take(40).collect();
            return Err(wrong(format!("{field}: `{code}` is no ISO 4217 code, such as EUR")));
        }
    }
    let fits = |field: &str, number: &BigDecimal, digits: u32, places: i64| {
        if number.abs() >= 10_u64.pow(digits) {
            return Err(wrong(format!("{field} has more than {digits} digits before the point")));
        }
        if number.normalized().fractional_digit_count() > places {
            return Err(wrong(format!("{field} has more than {places} digits after the point")));
        }
        Ok(())
    };
    for (field, number, digits, places) in [
        ("amount", &written.amount, AMOUNT_DIGITS_MAX, COST_SCALE),
        ("quantity", &written.quantity, AMOUNT_DIGITS_MAX, PLACES_MAX),
        ("percent", &written.percent, PERCENT_DIGITS_MAX, PLACES_MAX),
    ] {
        if let Some(Number(number)) = number {
            fits(field, number, digits, places)?;
        }
    }
    for (place, step) in written.steps.iter().flatten().enumerate() {
        fits(&format!("steps[{place}].above"), &step.above.0, AMOUNT_DIGITS_MAX, PLACES_MAX)?;
        fits(&format!("steps[{place}].unit_price"), &step.unit_price.0, PRICE_DIGITS_MAX, PLACES_MAX)?;
    }
    Ok(())
}
