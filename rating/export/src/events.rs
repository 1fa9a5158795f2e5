//! Lines as events for billing systems, a JSON object each. Pure.
//!
//! The line's id is each event's key, so that a receiver that looks at keys takes an event once however often it comes.

use orzo_rating::{BigDecimal, LineKind, RatedLine, RoundingMode, currency::coin_places};
use serde_json::{Value, json};

use crate::{catalogue::Catalogue, error::ExportError};

/// Most significant digits that Stripe takes; it refuses values that have more.
const STRIPE_DIGITS: u64 = 15;

fn number(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// With as many digits as Stripe takes, the last one rounded half to even.
fn stripe_number(exact: &BigDecimal) -> String {
    let digits = std::num::NonZeroU64::new(STRIPE_DIGITS).expect("there are some");
    number(&exact.with_precision_round(digits, RoundingMode::HalfEven))
}

/// A text as a URI reference, which CloudEvents demands of a source: what may not stand in one is written in percent.
fn reference(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => written.push(char::from(byte)),
            _ if b"-._~:/?#@!$&'()*+,;=".contains(&byte) => written.push(char::from(byte)),
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

/// A CloudEvent of usage as OpenMeter takes it (it looks at `id` with `source`): `None` for what is no usage.
pub(crate) fn cloud_event(line: &RatedLine, catalogue: &Catalogue) -> Option<Value> {
    if line.kind != LineKind::Usage {
        return None;
    }
    Some(json!({
        "specversion": "1.0",
        "id": line.id,
        "source": reference(&catalogue.provider),
        "type": format!("usage.{}", line.service),
        "subject": line.scope,
        "time": line.begin.zulu_secs(),
        "datacontenttype": "application/json",
        "data": {
            "quantity": number(&line.quantity),
            "unit": line.unit,
            "cost": number(&line.cost),
            "currency": line.currency,
            "begin": line.begin.zulu_secs(),
            "end": line.end.zulu_secs(),
            "resource": line.resource,
            "corrects": line.corrects,
            "metadata": *line.metadata,
        },
    }))
}

/// Stripe's: usage is a meter event; what takes a line back cancels that line's event. `None` for what is no usage.
/// (Stripe looks at `identifier` for a day at least, takes events of the last 35 days with values of [`STRIPE_DIGITS`] digits, and
/// cancels those of the last day.)
pub(crate) fn stripe_event(line: &RatedLine, catalogue: &Catalogue) -> Result<Option<Value>, ExportError> {
    if line.kind != LineKind::Usage {
        return Ok(None);
    }
    if let (Some(corrects), true) = (line.corrects, line.reverses) {
        return Ok(Some(json!({
            "object": "billing.meter_event_adjustment",
            "event_name": line.service,
            "type": "cancel",
            "cancel": {"identifier": corrects},
        })));
    }
    if line.quantity < BigDecimal::default() {
        return Err(ExportError::Line { line: line.id, reason: "Stripe takes no negative quantity".to_owned() });
    }
    let customer = catalogue.project(&line.scope).map(|project| project.stripe_customer.as_str());
    Ok(Some(json!({
        "object": "billing.meter_event",
        "event_name": line.service,
        "identifier": line.id,
        "timestamp": line.begin.secs(),
        "payload": {
            "stripe_customer_id": customer.filter(|id| !id.is_empty()).unwrap_or(&line.scope),
            "value": stripe_number(&line.quantity),
        },
    })))
}

/// So many of a currency's smallest coins are one of it.
pub(crate) fn coins_of_one(currency: &str) -> BigDecimal {
    BigDecimal::new(1.into(), -coin_places(currency))
}

/// Lago's: `transaction_id` is looked at for ever; corrections are events with negative values.
pub(crate) fn lago_event(line: &RatedLine, catalogue: &Catalogue) -> Option<Value> {
    if line.kind != LineKind::Usage {
        return None;
    }
    let subscription = catalogue.project(&line.scope).map(|project| project.lago_subscription.as_str());
    // The smallest coin: of some currencies no hundredth.
    let cents = &line.cost * coins_of_one(&line.currency);
    Some(json!({"event": {
        "transaction_id": line.id,
        "external_subscription_id": subscription.filter(|id| !id.is_empty()).unwrap_or(&line.scope),
        "code": line.service,
        "timestamp": line.begin.secs().to_string(),
        "properties": {
            "value": number(&line.quantity),
            "unit": line.unit,
            "resource": line.resource,
            "currency": line.currency,
        },
        "precise_total_amount_cents": number(&cents),
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_digits_that_stripe_takes_and_sources_are_references() {
        for (exact, written) in [
            ("0.8333333333", "0.8333333333"),
            ("123456789012345", "123456789012345"),
            ("12345678.0123456789", "12345678.0123457"),
            ("1000000000000.005", "1000000000000"),
            ("1000000000000.015", "1000000000000.02"),
            ("2e20", "200000000000000000000"),
            ("0", "0"),
        ] {
            assert_eq!(stripe_number(&exact.parse().expect("a number")), written);
        }
        for (text, written) in [
            ("Orzo", "Orzo"),
            ("https://cloud.example/a?b=c", "https://cloud.example/a?b=c"),
            ("Wolke & Söhne 100%", "Wolke%20&%20S%C3%B6hne%20100%25"),
        ] {
            assert_eq!(reference(text), written);
        }
    }
}
