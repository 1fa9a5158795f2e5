//! What billing systems do with keys, times and batches. Pure.

use std::time::Duration;

use orzo_export::Profile;
use orzo_model::Timestamp;
use serde_json::{Value, json};
use url::Url;

/// Stripe remembers an identifier for a day at least,
const STRIPE_REMEMBERS: Duration = Duration::from_secs(24 * 3600);
/// and takes events of so long ago.
const STRIPE_TAKES: Duration = Duration::from_secs(35 * 24 * 3600);
/// The version of Stripe's second API that these requests are written for; it refuses requests without one.
const STRIPE_VERSION: &str = "2024-09-30.acacia";
/// Events of one request: what Lago takes (OpenMeter takes more, but a request that fails is sent whole again).
const BATCH_MAX: usize = 100;

/// What a receiver does with keys and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Looks at `id` with `source`.
    OpenMeter,
    /// Looks at `identifier`, for a day. Its `Idempotency-Key` is not sent: its first API answers a request with a key that it
    /// knows as it did before, a failure of its own included, so that an event that met one would fail for a day.
    Stripe,
    /// Looks at `transaction_id`, for ever; says 422 to a repeat, and to what is wrong in an event as well.
    Lago,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it, now or before.
    Taken,
    /// To be tried again: the receiver, or the way to it, is at fault.
    Again,
    /// This event is wrong and will be wrong again.
    Refused,
}

/// A request to be made.
#[derive(Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
}

impl Receiver {
    /// The receiver of a profile's events; `None`: its runs are tables.
    pub fn of(profile: Profile) -> Option<Self> {
        match profile {
            Profile::CloudEvents => Some(Self::OpenMeter),
            Profile::StripeMeterEvents => Some(Self::Stripe),
            Profile::LagoEvents => Some(Self::Lago),
            _ => None,
        }
    }

    /// Why an event may not be sent now; `tried_at`: it was, and nobody knows what became of it.
    pub fn objection(self, event: &Value, tried_at: Option<Timestamp>, now: Timestamp) -> Option<&'static str> {
        if self != Self::Stripe {
            return None;
        }
        if tried_at.is_some_and(|tried| now.since(tried) > STRIPE_REMEMBERS) {
            return Some(
                "it was tried more than a day ago without an answer, and Stripe may have forgotten its identifier",
            );
        }
        let at = event["timestamp"].as_i64().map(Timestamp::from_secs);
        match at {
            Some(at) if now.since(at) > STRIPE_TAKES => Some("it is older than the 35 days that Stripe takes"),
            _ => None,
        }
    }

    /// How many events it takes at once.
    pub fn batch_max(self) -> usize {
        match self {
            Self::OpenMeter | Self::Lago => BATCH_MAX,
            Self::Stripe => 1,
        }
    }

    /// The request that brings events; several only where it takes several.
    pub(crate) fn letter(self, url: &Url, events: &[Value]) -> Letter {
        let json_type = |kind| vec![("content-type", kind)];
        match (self, events) {
            (Self::Stripe, [event]) => stripe(url, event),
            (Self::Lago, [_, _, ..]) => {
                let mut url = url.clone();
                url.set_path(&format!("{}/batch", url.path().trim_end_matches('/')));
                let inner: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
                Letter { url, headers: json_type("application/json"), body: json!({"events": inner}).to_string() }
            }
            (Self::OpenMeter, [_, _, ..]) => Letter {
                url: url.clone(),
                headers: json_type("application/cloudevents-batch+json"),
                body: Value::from(events.to_vec()).to_string(),
            },
            (own, events) => {
                let kind = if own == Self::OpenMeter { "application/cloudevents+json" } else { "application/json" };
                let body = events.first().map(Value::to_string).unwrap_or_default();
                Letter { url: url.clone(), headers: json_type(kind), body }
            }
        }
    }

    /// What an answer to one event means. What is said with it tells a repeat from an event that is wrong.
    pub fn verdict(self, status: u16, said: &Value) -> Verdict {
        match status {
            200..=299 => Verdict::Taken,
            // It has the key already.
            409 => Verdict::Taken,
            400 | 422 if self.is_repeat(said) => Verdict::Taken,
            // Who asks, where and how is wrong, and not what: no event is to blame.
            300..=399 | 401 | 403 | 404 | 405 | 407 => Verdict::Again,
            408 | 425 | 429 | 500..=599 => Verdict::Again,
            _ => Verdict::Refused,
        }
    }
}

impl Receiver {
    /// Whether what is said is that the key is there already. Stripe says it with the status of a wrong event, in words, and in
    /// newer versions by a code.
    fn is_repeat(self, said: &Value) -> bool {
        match self {
            Self::OpenMeter => false,
            Self::Stripe => {
                let text = |name: &str| said["error"][name].as_str().unwrap_or_default();
                text("code") == "duplicate_meter_event"
                    || text("message").starts_with("An event already exists with identifier")
            }
            Self::Lago => said["error_details"]["transaction_id"].to_string().contains("value_already_exist"),
        }
    }
}

/// Stripe's first API takes forms, the second one JSON; both refuse what they do not know.
fn stripe(url: &Url, event: &Value) -> Letter {
    let is_adjustment = event["object"] == "billing.meter_event_adjustment";
    let mut url = url.clone();
    if is_adjustment {
        let path = url.path().trim_end_matches('/').replace("meter_events", "meter_event_adjustments");
        url.set_path(&path);
    }
    let mut fields = event.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("object");
    }
    if url.path().starts_with("/v2/") {
        if let Some(at) = event["timestamp"].as_i64() {
            fields["timestamp"] = Timestamp::from_secs(at).zulu_secs().into();
        }
        let headers = vec![("content-type", "application/json"), ("stripe-version", STRIPE_VERSION)];
        return Letter { url, headers, body: fields.to_string() };
    }
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => inner.iter().for_each(|(own, value)| {
                form.append_pair(&format!("{name}[{own}]"), &text(value));
            }),
            None => {
                form.append_pair(name, &text(value));
            }
        }
    }
    let headers = vec![("content-type", "application/x-www-form-urlencoded")];
    Letter { url, headers, body: form.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Url {
        text.parse().expect("an address")
    }

    #[test]
    fn stripes_windows_are_kept() {
        let now: Timestamp = "2026-11-10T00:00:00Z".parse().expect("a time");
        let ago = |hours: u64| now.minus(Duration::from_secs(3600 * hours));
        let event = |hours: u64| json!({"object": "billing.meter_event", "timestamp": ago(hours).secs()});
        let stripe = Receiver::Stripe;
        assert_eq!(stripe.objection(&event(34 * 24), None, now), None);
        assert!(stripe.objection(&event(36 * 24), None, now).is_some());
        assert_eq!(stripe.objection(&event(48), Some(ago(23)), now), None, "it still knows the identifier");
        assert!(stripe.objection(&event(48), Some(ago(25)), now).is_some());
        assert_eq!(Receiver::OpenMeter.objection(&event(36 * 24), Some(ago(25)), now), None);
    }

    #[test]
    fn stripes_requests_are_written_as_each_of_its_apis_reads_them() {
        let event = json!({"object": "billing.meter_event", "event_name": "instance", "identifier": "i 1", "timestamp": 1_760_000_000,
                           "payload": {"stripe_customer_id": "cus_1", "value": "0.5"}});
        let cancel = json!({"object": "billing.meter_event_adjustment", "event_name": "instance", "type": "cancel",
                            "cancel": {"identifier": "i 1"}});
        let first = at("https://api.stripe.com/v1/billing/meter_events");
        let letter = Receiver::Stripe.letter(&first, std::slice::from_ref(&event));
        assert_eq!(letter.url, first);
        assert_eq!(
            letter.body,
            "event_name=instance&identifier=i+1&payload%5Bstripe_customer_id%5D=cus_1&payload%5Bvalue%5D=0.5&timestamp=1760000000"
        );
        let letter = Receiver::Stripe.letter(&first, std::slice::from_ref(&cancel));
        assert_eq!(letter.url.path(), "/v1/billing/meter_event_adjustments");
        assert_eq!(letter.body, "cancel%5Bidentifier%5D=i+1&event_name=instance&type=cancel");
        let second = at("https://api.stripe.com/v2/billing/meter_events");
        let letter = Receiver::Stripe.letter(&second, &[event]);
        assert_eq!(letter.headers, [("content-type", "application/json"), ("stripe-version", STRIPE_VERSION)]);
        let body: Value = serde_json::from_str(&letter.body).expect("JSON");
        assert_eq!((&body["timestamp"], &body["object"]), (&json!("2025-10-09T08:53:20Z"), &Value::Null));
        assert_eq!(Receiver::Stripe.letter(&second, &[cancel]).url.path(), "/v2/billing/meter_event_adjustments");
    }

    #[test]
    fn several_events_go_as_each_receiver_takes_them() {
        let events = [json!({"event": {"transaction_id": "1"}}), json!({"event": {"transaction_id": "2"}})];
        let lago = at("https://lago.example/api/v1/events");
        let letter = Receiver::Lago.letter(&lago, &events);
        assert_eq!(letter.url.path(), "/api/v1/events/batch");
        assert_eq!(letter.body, r#"{"events":[{"transaction_id":"1"},{"transaction_id":"2"}]}"#);
        assert_eq!(Receiver::Lago.letter(&lago, &events[..1]).url, lago);
        let open = Receiver::OpenMeter.letter(&lago, &events);
        assert_eq!(open.headers, [("content-type", "application/cloudevents-batch+json")]);
        assert!(open.body.starts_with('[') && open.url == lago);
    }

    #[test]
    fn an_event_is_not_blamed_for_a_wrong_token() {
        let said = json!({"error_details": {"transaction_id": ["value_already_exist"]}});
        for receiver in [Receiver::OpenMeter, Receiver::Stripe, Receiver::Lago] {
            for status in [301, 401, 403, 404, 429, 500, 503] {
                assert_eq!(receiver.verdict(status, &Value::Null), Verdict::Again, "{receiver:?} {status}");
            }
            assert_eq!(receiver.verdict(400, &Value::Null), Verdict::Refused);
            assert_eq!(receiver.verdict(409, &Value::Null), Verdict::Taken);
        }
        assert_eq!(Receiver::Lago.verdict(422, &said), Verdict::Taken);
        assert_eq!(Receiver::Lago.verdict(422, &json!({"error_details": {"code": ["x"]}})), Verdict::Refused);
        assert_eq!(Receiver::OpenMeter.verdict(422, &said), Verdict::Refused);
        for error in [
            json!({"type": "invalid_request_error", "message": "An event already exists with identifier 1."}),
            json!({"code": "duplicate_meter_event", "message": "told otherwise"}),
        ] {
            assert_eq!(Receiver::Stripe.verdict(400, &json!({"error": error})), Verdict::Taken);
            assert_eq!(Receiver::Lago.verdict(400, &json!({"error": error})), Verdict::Refused);
        }
        let wrong = json!({"error": {"type": "invalid_request_error", "message": "Invalid value"}});
        assert_eq!(Receiver::Stripe.verdict(400, &wrong), Verdict::Refused);
    }
}
