//! A notice as Alertmanager's API v2 takes it (`POST /api/v2/alerts`): pure.
//!
//! `alarm` fires; `ok` and `insufficient data` resolve, as Prometheus does when a series is absent. One alarm is one
//! alert: its labels are the same in every state.

use std::time::Duration;

use orzo_model::Timestamp;
use serde_json::{Value, json};
use url::Url;

/// Alertmanager ends an alert that nobody repeats within minutes; a transition is told once, so its alert is given an
/// end that the next transition comes before.
const FIRES_FOR: Duration = Duration::from_secs(366 * 86_400);

/// Where alerts go, below the URL of the action.
pub(crate) fn url_of(base: &Url) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/api/v2/alerts", base.path().trim_end_matches('/')));
    url
}

/// The alerts of one notice, from the body that a webhook would get; the same on every try.
pub(crate) fn alerts(body: &Value, project_id: &str, created_at: Timestamp) -> Value {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    let fires = text("current") == "alarm";
    let ends_at = if fires { created_at.plus(FIRES_FOR) } else { created_at };
    json!([{
        "labels": {
            "alertname": text("alarm_name"),
            "alarm_id": text("alarm_id"),
            "severity": text("severity"),
            "project_id": project_id,
        },
        "annotations": {
            "summary": format!("{}: {} -> {}", text("alarm_name"), text("previous"), text("current")),
            "description": text("reason"),
        },
        "startsAt": created_at.zulu_micros(),
        "endsAt": ends_at.zulu_micros(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_fires_and_anything_else_resolves_the_same_alert() {
        let body = |current: &str| {
            json!({"alarm_name": "hot", "alarm_id": "a", "severity": "low", "previous": "ok", "current": current,
                   "reason": "because", "reason_data": {}})
        };
        let now = Timestamp::from_secs(1_800_000_000);
        let fired = alerts(&body("alarm"), "p", now);
        let resolved = alerts(&body("insufficient data"), "p", now);
        assert_eq!(fired[0]["labels"], resolved[0]["labels"]);
        assert_eq!(fired[0]["labels"]["alertname"], "hot");
        assert_ne!(fired[0]["endsAt"], fired[0]["startsAt"]);
        assert_eq!(resolved[0]["endsAt"], resolved[0]["startsAt"]);
        assert_eq!(fired[0]["startsAt"], "2027-01-15T08:00:00.000000Z");
        assert_eq!(fired[0]["annotations"]["description"], "because");
    }

    #[test]
    fn the_api_is_below_the_url() {
        for (base, url) in [
            ("http://h:9093", "http://h:9093/api/v2/alerts"),
            ("http://h/prefix/", "http://h/prefix/api/v2/alerts"),
            ("https://h/?a=1", "https://h/api/v2/alerts?a=1"),
        ] {
            assert_eq!(url_of(&Url::parse(base).expect(base)).as_str(), url);
        }
    }
}
