//! What Aodh tells its own control exchange: `alarm.creation`, `alarm.rule_change`, `alarm.state_transition` and
//! `alarm.deletion`, for whoever listens to the cloud's notifications.
//!
//! `entry of the history → message in oslo.messaging's envelope 2.0 → outbox, in the transaction of the change`
//!
//! They wait among the notices, belong to no project, and are delivered to the bus as other notices are to webhooks. Off
//! unless [`AlarmBook::with_announcements`]: messages that nobody reads would gather in the broker.

use orzo_database::Transaction;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AlarmBook, BookError, Change, Notice, notices::write_notice};

/// The action of an announcement. No tenant can write it: it is no URL that [`crate::notify::action`] knows.
pub(crate) const ACTION: &str = "announcement:";

/// Where a change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// By somebody, through the API.
    Api,
    /// By the evaluator.
    Evaluator,
}

impl AlarmBook {
    /// The same book; its changes are announced on the bus.
    pub fn with_announcements(self) -> Self {
        Self { announces: true, ..self }
    }

    /// Announces a change, if changes are announced.
    pub(super) fn announcement(&self, change: &Change, origin: Origin) -> Option<Notice> {
        self.announces.then(|| {
            let id = Uuid::new_v5(&NAMESPACE, change.event_id.as_bytes());
            let body = envelope(id, change, origin);
            Notice::new(id.to_string(), &change.alarm_id, "", ACTION, body, change.timestamp)
        })
    }
}

/// Namespace of their message ids: a random UUID that never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b1e_8a53_6a0f_4a4e_9c38_70c5_d1f0_2b64);

pub(super) async fn write(tx: &mut Transaction<'_>, announcement: Option<&Notice>) -> Result<(), BookError> {
    match announcement {
        Some(notice) => write_notice(tx, notice).await,
        None => Ok(()),
    }
}

/// As oslo.messaging 2.0 writes it: an envelope around JSON in a string. The detail is an object if the API tells it, a
/// text if the evaluator does, as in Aodh.
fn envelope(id: Uuid, change: &Change, origin: Origin) -> String {
    let (publisher, detail) = match origin {
        Origin::Api => ("aodh.api", serde_json::from_str(&change.detail).unwrap_or(Value::Null)),
        Origin::Evaluator => ("aodh.evaluator", json!(change.detail)),
    };
    let inner = json!({
        "message_id": id.to_string(),
        "publisher_id": publisher,
        "event_type": format!("alarm.{}", change.kind.replace(' ', "_")),
        "priority": "INFO",
        "payload": {
            "event_id": change.event_id,
            "alarm_id": change.alarm_id,
            "type": change.kind,
            "detail": detail,
            "user_id": change.user_id,
            "project_id": change.project_id,
            "on_behalf_of": change.on_behalf_of,
            "timestamp": change.timestamp.naive(),
            "severity": change.severity,
        },
        "timestamp": change.timestamp.naive().replace('T', " "),
        "_unique_id": id.simple().to_string(),
    });
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orzo_database::Database;
    use orzo_model::{ManualClock, Scope, Timestamp};

    use super::*;
    use crate::{alarm::AlarmState, book::tests::request};

    fn told(notice: &Notice) -> Value {
        let outer: Value = serde_json::from_str(&notice.body).expect("JSON");
        assert_eq!(outer["oslo.version"], "2.0");
        serde_json::from_str(outer["oslo.message"].as_str().expect("text")).expect("JSON in the text")
    }

    #[tokio::test]
    async fn every_change_is_announced_once_to_no_project_and_only_if_it_is_asked_for() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        let silent = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
        silent.create(&request(80.0), "u", "p", false).await.expect("created");
        let lease = Duration::from_secs(60);
        assert!(silent.take_notices(10, lease).await.expect("taken").is_empty());
        let book = silent.with_announcements();
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        let alarm = book.update(&alarm, &request(90.0), "u2", "p").await.expect("updated");
        let alarm = book.set_state(&alarm, AlarmState::Ok, "u3", "p").await.expect("set");
        let judgement = crate::Judgement {
            state: AlarmState::Alarm,
            reason: "because".into(),
            reason_data: json!({"type": "threshold"}),
        };
        book.transition(&alarm, &judgement, Timestamp::from_secs(1_800_000_000)).await.expect("a transition");
        book.delete_by(&Scope::All, &alarm.alarm_id, "u4", "p").await.expect("deleted");
        let mut taken = Vec::new();
        loop {
            let more = book.settle_and_take(&taken[taken.len().saturating_sub(4)..], 10, lease).await.expect("taken");
            if more.is_empty() {
                break;
            }
            taken.extend(more);
        }
        let announced: Vec<Value> = taken.iter().filter(|notice| notice.action == ACTION).map(told).collect();
        // All of them are of one moment: their order is not told by it.
        let find = |event_type: &str, publisher: &str| {
            let is_it = |told: &&Value| told["event_type"] == event_type && told["publisher_id"] == publisher;
            let mut found = announced.iter().filter(is_it);
            let one = found.next().unwrap_or_else(|| panic!("no {event_type} of {publisher} in {announced:?}"));
            assert!(found.next().is_none(), "{event_type} of {publisher} twice");
            one["payload"].clone()
        };
        let created = find("alarm.creation", "aodh.api");
        assert_eq!(created["detail"]["gnocchi_resources_threshold_rule"]["threshold"], 80.0);
        assert_eq!((created["type"].clone(), created["user_id"].clone()), (json!("creation"), json!("u")));
        assert_eq!((created["on_behalf_of"].clone(), created["severity"].clone()), (json!("p"), json!("low")));
        assert_eq!(created["timestamp"], "2027-01-15T08:00:00");
        assert_eq!(find("alarm.rule_change", "aodh.api")["user_id"], "u2");
        assert_eq!(find("alarm.state_transition", "aodh.api")["detail"]["state"], "ok");
        let turned = find("alarm.state_transition", "aodh.evaluator");
        assert_eq!(turned["detail"], r#"{"state":"alarm","transition_reason":"because"}"#);
        let deleted = find("alarm.deletion", "aodh.api");
        assert_eq!((deleted["detail"].clone(), deleted["user_id"].clone()), (json!({"state": "alarm"}), json!("u4")));
        assert_eq!(announced.len(), 5);
        // The project sees its webhook's notice and nothing else.
        let seen = book.find_notices(&Scope::Project("p".into()), &Default::default()).await.expect("a list");
        assert!(seen.iter().all(|notice| notice.action != ACTION), "{seen:?}");
    }
}
