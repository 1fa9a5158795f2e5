//! What Keystone tells about identity, in CADF, the format of its `notification_format = cadf` default. Pure.

use orzo_model::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    http::RequestContext,
    notify::{Notification, NotificationContext},
};

/// Who did something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actor {
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
    pub(crate) project_id: Option<String>,
    pub(crate) context: RequestContext,
}

/// Makes notifications in the name of one host.
#[derive(Clone, Debug)]
pub(crate) struct Notices {
    publisher_id: String,
    observer_id: String,
}

impl Notices {
    pub(crate) fn new(host: &str) -> Self {
        let observer_id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, host.as_bytes()).simple().to_string();
        Self { publisher_id: format!("identity.{host}"), observer_id }
    }

    /// A login, or a refused one.
    pub(crate) fn authenticated(&self, now: Timestamp, actor: &Actor, succeeded: bool) -> Notification {
        let target = json!({"id": Uuid::new_v4().to_string(), "typeURI": "service/security/account/user"});
        let outcome = if succeeded { "success" } else { "failure" };
        let mut payload = self.payload(now, actor, "authenticate", target);
        payload["outcome"] = json!(outcome);
        self.notification("identity.authenticate".to_owned(), actor, payload)
    }

    /// `operation` is `created`, `updated` or `deleted`; `kind` is `project`, `user`, `role` or
    /// `application_credential`.
    pub(crate) fn changed(&self, now: Timestamp, actor: &Actor, operation: &str, kind: &str, id: &str) -> Notification {
        let type_uri = match kind {
            "user" => "data/security/account/user".to_owned(),
            kind => format!("data/security/{kind}"),
        };
        let target = json!({"id": id, "typeURI": type_uri});
        let mut payload = self.payload(now, actor, &format!("{operation}.{kind}"), target);
        payload["resource_info"] = json!(id);
        self.notification(format!("identity.{kind}.{operation}"), actor, payload)
    }

    /// A role given (`created`) or taken (`deleted`).
    pub(crate) fn assignment(
        &self,
        now: Timestamp,
        actor: &Actor,
        operation: &str,
        [user_id, target_id, role_id]: [&str; 3],
    ) -> Notification {
        let target = json!({"id": Uuid::new_v4().to_string(), "typeURI": "service/security/account/user"});
        let mut payload = self.payload(now, actor, &format!("{operation}.role_assignment"), target);
        let on = if target_id == super::tables::DOMAIN_ID { "domain" } else { "project" };
        payload["role"] = json!(role_id);
        payload["user"] = json!(user_id);
        payload[on] = json!(target_id);
        payload["inherited_to_projects"] = json!(false);
        self.notification(format!("identity.role_assignment.{operation}"), actor, payload)
    }

    fn payload(&self, now: Timestamp, actor: &Actor, action: &str, target: Value) -> Value {
        let mut initiator = json!({"id": actor.user_id, "typeURI": "service/security/account/user",
                                   "request_id": actor.context.request_id});
        for (key, value) in [
            ("user_id", &actor.user_id),
            ("name", &actor.user_name),
            ("username", &actor.user_name),
            ("project_id", &actor.project_id),
        ] {
            if let Some(value) = value {
                initiator[key] = json!(value);
            }
        }
        if actor.context.address.is_some() || actor.context.agent.is_some() {
            initiator["host"] = json!({"address": actor.context.address, "agent": actor.context.agent});
        }
        json!({
            "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
            "eventType": "activity",
            "id": Uuid::new_v4().to_string(),
            "eventTime": now.to_chrono().format("%Y-%m-%dT%H:%M:%S%.6f+0000").to_string(),
            "action": action,
            "outcome": "success",
            "observer": {"id": self.observer_id, "typeURI": "service/security"},
            "initiator": initiator,
            "target": target,
        })
    }

    fn notification(&self, event_type: String, actor: &Actor, payload: Value) -> Notification {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Notification {
            exchange: "keystone",
            publisher_id: self.publisher_id.clone(),
            event_type,
            priority: "INFO",
            payload,
            context: NotificationContext {
                request_id: some(&actor.context.request_id),
                project_id: actor.project_id.clone(),
                user_id: actor.user_id.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_looks_as_keystone_sends_it() {
        let actor = Actor {
            user_id: Some("u".into()),
            user_name: Some("ann".into()),
            project_id: None,
            context: RequestContext {
                request_id: "req-1".into(),
                address: Some("127.0.0.1".into()),
                agent: Some("openstacksdk".into()),
            },
        };
        let now = Timestamp::from_micros(1_795_291_459_088_633);
        let told = Notices::new("vm").authenticated(now, &actor, true);
        assert_eq!((told.exchange, told.publisher_id.as_str()), ("keystone", "identity.vm"));
        assert_eq!(told.event_type, "identity.authenticate");
        assert_eq!(told.payload["eventTime"], "2026-11-21T20:04:19.088633+0000");
        assert_eq!(told.payload["outcome"], "success");
        let initiator = &told.payload["initiator"];
        assert_eq!(initiator["host"], json!({"address": "127.0.0.1", "agent": "openstacksdk"}));
        assert_eq!((&initiator["id"], &initiator["username"]), (&json!("u"), &json!("ann")));
        let told = Notices::new("vm").changed(now, &actor, "created", "project", "p");
        assert_eq!(told.event_type, "identity.project.created");
        assert_eq!((&told.payload["resource_info"], &told.payload["action"]), (&json!("p"), &json!("created.project")));
        assert_eq!(told.payload["target"]["typeURI"], "data/security/project");
    }
}
