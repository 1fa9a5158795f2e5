//! Lines as events for billing systems, a JSON object each. Pure.
//!
//! The line's id is each event's key, so that a receiver that looks at keys takes an event once however often it comes.

use orzo_rating::{BigDecimal, LineKind, RatedLine};
use serde_json::{Value, json};

use crate::{catalogue::Catalogue, error::ExportError};

fn number(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// A CloudEvent of usage as OpenMeter takes it (it looks at `id` with `source`): `None` for what is no usage.
pub(crate) fn cloud_event(line: &RatedLine, catalogue: &Catalogue) -> Option<Value> {
    if line.kind != LineKind::Usage {
        return None;
    }
    Some(json!({
        "specversion": "1.0",
        "id": line.id,
        "source": catalogue.provider,
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
/// (Stripe looks at `identifier` for a day at least, takes events of the last 35 days, and cancels those of the last day.)
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
            "value": number(&line.quantity),
        },
    })))
}

/// Lago's: `transaction_id` is looked at for ever; corrections are events with negative values.
pub(crate) fn lago_event(line: &RatedLine, catalogue: &Catalogue) -> Option<Value> {
    if line.kind != LineKind::Usage {
        return None;
    }
    let subscription = catalogue.project(&line.scope).map(|project| project.lago_subscription.as_str());
    let cents = &line.cost * BigDecimal::from(100);
    Some(json!({"event": {
        "transaction_id": line.id,
        "external_subscription_id": subscription.filter(|id| !id.is_empty()).unwrap_or(&line.scope),
        "code": line.service,
        "timestamp": line.begin.secs().to_string(),
        "properties": {
            "value": number(&line.quantity),
            "unit": line.unit,
            "resource": line.resource,
        },
        "precise_total_amount_cents": number(&cents),
    }}))
}
