//! Every action's way, with doors that remember what went through them.

use orzo_model::{ManualClock, Timestamp};
use parking_lot::Mutex;

use super::*;
use crate::notify::delivery_tests::{Does, Receiver, webhook};

type Request = (String, String, String, Option<String>, Option<Value>);

/// A cloud that remembers requests and knows one trust, `good`.
#[derive(Default)]
struct Cloud {
    requests: Mutex<Vec<Request>>,
    says_no: bool,
    ended: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl CloudDoor for Cloud {
    async fn make_trust(&self, _: &SecretString) -> Result<String, DoorError> {
        Ok("good".to_owned())
    }

    async fn end_trust(&self, trust_id: &str) -> Result<(), DoorError> {
        if self.says_no {
            return Err(DoorError::Unavailable { reason: "away".to_owned() });
        }
        self.ended.lock().push(trust_id.to_owned());
        Ok(())
    }

    async fn token_of_trust(&self, trust_id: &str) -> Result<SecretString, DoorError> {
        match trust_id {
            "good" => Ok("the-token".to_owned().into()),
            "later" => Err(DoorError::Unavailable { reason: "away".to_owned() }),
            _ => Err(DoorError::Refused { reason: "no such trust".to_owned() }),
        }
    }

    async fn request(&self, request: &CloudRequest<'_>) -> Result<Value, DoorError> {
        if self.says_no {
            return Err(DoorError::Unavailable { reason: "away".to_owned() });
        }
        self.requests.lock().push((
            request.method.to_owned(),
            request.service_type.to_owned(),
            request.path.clone(),
            request.trust_id.map(str::to_owned),
            request.body.clone(),
        ));
        Ok(json!({"resources": [{"parent_resource": "member-1"}]}))
    }
}

#[derive(Default)]
struct Topics(Mutex<Vec<(String, String, String)>>);

#[async_trait::async_trait]
impl TopicDoor for Topics {
    async fn publish(&self, topic: &str, message_id: &str, body: &str) -> Result<(), DoorError> {
        self.0.lock().push((topic.to_owned(), message_id.to_owned(), body.to_owned()));
        Ok(())
    }

    async fn announce(&self, message_id: &str, body: &str) -> Result<(), DoorError> {
        self.0.lock().push(("aodh".to_owned(), message_id.to_owned(), body.to_owned()));
        Ok(())
    }
}

fn notice(action: &str) -> Notice {
    let body = json!({
        "alarm_name": "hot", "alarm_id": "a-1", "severity": "low", "previous": "ok", "current": "alarm", "reason": "so",
        "reason_data": {"stack_id": "stack", "asg_id": "group", "unhealthy_members": [{"id": "m1"}, {"id": "m2"},
            {"id": "../../escape"}]}
    });
    Notice::new("n-1".into(), "a-1", "p", action, body.to_string(), Timestamp::from_secs(1_800_000_000))
}

async fn deliver(cloud: &Arc<Cloud>, topics: &Arc<Topics>, action: &str) -> Outcome {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let webhook = webhook(&["127.0.0.0/8"], clock.clone());
    Deliverer::new(webhook, Some(cloud.clone()), Some(topics.clone()), clock).deliver(&notice(action)).await
}

#[tokio::test]
async fn a_trusted_webhook_carries_a_token_of_the_trust() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 200 OK")]).await;
    let plain = receiver.url.replace("http://", "trust+http://");
    assert_eq!(deliver(&cloud, &topics, &crate::with_trust(&plain, "good")).await, Outcome::Delivered);
    assert_eq!(receiver.seen()[0].header("x-auth-token"), Some("the-token"));
    assert!(!receiver.seen()[0].head.contains("good"), "the trust's id is nobody else's");
    // No token, no request.
    let no = deliver(&cloud, &topics, &crate::with_trust(&plain, "ended")).await;
    assert!(matches!(no, Outcome::Hopeless { failure: Failure::NoTrust, .. }), "{no:?}");
    let later = deliver(&cloud, &topics, &crate::with_trust(&plain, "later")).await;
    assert!(matches!(later, Outcome::Failed { failure: Failure::NoTrust, .. }), "{later:?}");
    let none = deliver(&cloud, &topics, &plain).await;
    assert!(matches!(none, Outcome::Hopeless { failure: Failure::NoTrust, .. }), "{none:?}");
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn a_plain_webhook_carries_no_token() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 200 OK")]).await;
    assert_eq!(deliver(&cloud, &topics, &receiver.url).await, Outcome::Delivered);
    assert_eq!(receiver.seen()[0].header("x-auth-token"), None);
}

#[tokio::test]
async fn alertmanager_gets_alerts() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 200 OK")]).await;
    let base = receiver.url.replace("http://", "alertmanager+http://").replace("/hook", "/am/");
    assert_eq!(deliver(&cloud, &topics, &base).await, Outcome::Delivered);
    let seen = receiver.seen();
    assert!(seen[0].head.starts_with("POST /am/api/v2/alerts HTTP/1.1"), "{}", seen[0].head);
    let body: Value = serde_json::from_str(&seen[0].body).expect("JSON");
    assert_eq!(body[0]["labels"]["alertname"], "hot");
}

#[tokio::test]
async fn zaqar_gets_queue_subscribers_and_message_in_whose_name_it_was_asked_for() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    let action = "zaqar://?topic=critical&subscriber=http://203.0.113.7/&ttl=60";
    assert_eq!(deliver(&cloud, &topics, action).await, Outcome::Delivered);
    let asked: Vec<_> = cloud.requests.lock().drain(..).collect();
    let lines: Vec<_> = asked.iter().map(|(method, service, path, ..)| format!("{method} {service} {path}")).collect();
    assert_eq!(
        lines,
        [
            "PUT messaging v2/queues/a-1-critical",
            "POST messaging v2/queues/a-1-critical/subscriptions",
            "POST messaging v2/queues/a-1-critical/messages"
        ]
    );
    assert_eq!(asked[1].4, Some(json!({"subscriber": "http://203.0.113.7/", "ttl": 60, "options": {}})));
    let message = asked[2].4.clone().expect("a body");
    assert_eq!(message["messages"][0]["body"]["body"]["current"], "alarm");
    assert!(asked.iter().all(|request| request.3.is_none()));
    let mine = crate::with_trust("trust+zaqar://?queue_name=mine", "good");
    assert_eq!(deliver(&cloud, &topics, &mine).await, Outcome::Delivered);
    let asked: Vec<_> = cloud.requests.lock().drain(..).collect();
    assert_eq!((asked.len(), asked[0].2.as_str()), (1, "v2/queues/mine/messages"));
    assert_eq!(asked[0].3.as_deref(), Some("good"));
    let away = Arc::new(Cloud { says_no: true, ..Cloud::default() });
    assert!(matches!(deliver(&away, &topics, action).await, Outcome::Failed { .. }));
}

#[tokio::test]
async fn heat_is_told_of_members_and_only_of_names_that_are_names() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    let action = crate::with_trust("trust+heat://", "good");
    assert_eq!(deliver(&cloud, &topics, &action).await, Outcome::Delivered);
    let asked = cloud.requests.lock().clone();
    let lines: Vec<_> = asked.iter().map(|(method, _, path, ..)| format!("{method} {path}")).collect();
    assert_eq!(
        lines,
        [
            "GET stacks/stack/resources?nested_depth=3&physical_resource_id=m1",
            "GET stacks/stack/resources?nested_depth=3&physical_resource_id=m2",
            "PATCH stacks/group/resources/member-1",
            "PATCH stacks/stack"
        ]
    );
    assert!(asked.iter().all(|request| request.1 == "orchestration" && request.3.as_deref() == Some("good")));
}

#[tokio::test]
async fn topics_logs_and_what_nobody_serves() {
    let (cloud, topics) = (Arc::new(Cloud::default()), Arc::new(Topics::default()));
    assert_eq!(deliver(&cloud, &topics, "topic://pager").await, Outcome::Delivered);
    let published = topics.0.lock().clone();
    assert_eq!((published[0].0.as_str(), published[0].1.as_str()), ("pager", "n-1"));
    assert_eq!(published[0].2, notice("x").body);
    assert_eq!(deliver(&cloud, &topics, announcements::ACTION).await, Outcome::Delivered);
    assert_eq!(topics.0.lock()[1].0, "aodh");
    assert_eq!(deliver(&cloud, &topics, "log://").await, Outcome::Delivered);
    let odd = deliver(&cloud, &topics, "ftp://h/").await;
    assert!(matches!(odd, Outcome::Hopeless { failure: Failure::NotServed, .. }));
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let bare = Deliverer::new(webhook(&[], clock.clone()), None, None, clock);
    for action in ["topic://pager", "zaqar://?topic=a", "trust+http://good:delete@h/", "trust+heat://good:delete@"] {
        let outcome = bare.deliver(&notice(action)).await;
        assert!(matches!(outcome, Outcome::Hopeless { failure: Failure::NotServed, .. }), "{action}: {outcome:?}");
    }
}

/// A trust ends when no alarm and no waiting notice names it, and not before.
#[tokio::test]
async fn trusts_end_when_nothing_names_them_any_more() {
    use orzo_database::Database;
    use orzo_model::{Rooms, Scope};

    use crate::{
        AlarmBook, AlarmRequest,
        notify::{Notifier, NotifierSettings, TRUST_GRACE},
    };

    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let book = AlarmBook::open(Database::open("sqlite::memory:").await.expect("sqlite"), clock.clone()).await;
    let book = book.expect("the book opens");
    let cloud = Arc::new(Cloud::default());
    let notifier = |cloud: &Arc<Cloud>| {
        let deliverer = Deliverer::new(webhook(&[], clock.clone()), Some(cloud.clone()), None, clock.clone());
        let room = Rooms::new(&prometheus::Registry::new()).room("notices");
        Notifier::new(book.clone(), deliverer, NotifierSettings::default(), room, Arc::default())
    };
    let request = |trust: &str| {
        let body = json!({
            "name": "hot", "type": "gnocchi_resources_threshold",
            "gnocchi_resources_threshold_rule": {"metric": "cpu_util", "resource_id": "r",
                "resource_type": "instance", "threshold": 80.0, "aggregation_method": "mean"}
        });
        let mut request = AlarmRequest::parse(&body, false).expect("a good request");
        request.ok_actions = vec![crate::with_trust("trust+http://203.0.113.7/", trust)];
        request
    };
    for trust in ["first", "second", "orphan"] {
        book.remember_trust(trust).await.expect("remembered");
    }
    let alarm = book.create(&request("first"), "u", "p", false).await.expect("created");
    // One that was made a moment ago may belong to an alarm that is being written.
    assert_eq!(notifier(&cloud).end_trusts().await.expect("looked"), 0);
    clock.advance(TRUST_GRACE * 2);
    let away = Arc::new(Cloud { says_no: true, ..Cloud::default() });
    assert_eq!(notifier(&away).end_trusts().await.expect("looked"), 0);
    book.update(&alarm, &request("second"), "u", "p").await.expect("updated");
    notifier(&cloud).end_trusts().await.expect("looked");
    assert_eq!(*cloud.ended.lock(), ["first", "orphan"]);
    book.delete(&Scope::All, &alarm.alarm_id).await.expect("deleted");
    notifier(&cloud).end_trusts().await.expect("looked");
    notifier(&cloud).end_trusts().await.expect("looked");
    assert_eq!(*cloud.ended.lock(), ["first", "orphan", "second"]);
}
