//! Events: kept once, listed by project.

use orzo_model::{Event, Trait, TraitValue};

use super::*;

fn event(id: &str, at: i64, project: &str, size: i64) -> Event {
    let fact = |name: &str, value: TraitValue| Trait { name: name.into(), value };
    Event {
        message_id: id.into(),
        event_type: if at % 2 == 0 { "even".into() } else { "odd".into() },
        generated_at: Timestamp::from_secs(at),
        traits: vec![fact("project_id", TraitValue::Text(project.into())), fact("size", TraitValue::Integer(size))],
        raw: None,
    }
}

#[tokio::test]
async fn events_are_kept_once_and_listed_newest_first_within_their_project() {
    for f in fixtures().await {
        let events: Vec<Event> =
            (0..10).map(|n| event(&format!("m{n}"), n / 2, if n < 8 { "p1" } else { "p2" }, n)).collect();
        assert_eq!(f.index.insert_events(&events).await.expect("kept"), 10);
        assert_eq!(f.index.insert_events(&events).await.expect("again"), 0);
        assert_eq!(f.index.known_events(&["m1", "nope"]).await.expect("asked").len(), 1);
        let ids = async |query: EventQuery| {
            let found = f.index.events(&query).await.expect("listed");
            found.into_iter().map(|event| event.message_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(EventQuery::new(project("p2"))).await, ["m9", "m8"]);
        assert_eq!(ids(EventQuery::new(Scope::Nothing)).await.len(), 0);
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = EventQuery { limit: Some(3), marker: paged.last().cloned(), ..EventQuery::new(Scope::All) };
            let page = ids(page).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, ["m9", "m8", "m7", "m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
        let sized = |operator, size| EventQuery {
            traits: vec![TraitFilter { name: "size".into(), operator, value: TraitValue::Integer(size) }],
            ..EventQuery::new(Scope::All)
        };
        assert_eq!(ids(sized(TraitOperator::Equal, 3)).await, ["m3"]);
        assert_eq!(ids(sized(TraitOperator::Less, 2)).await, ["m1", "m0"]);
        let window = EventQuery {
            start: Some(Timestamp::from_secs(1)),
            end: Some(Timestamp::from_secs(2)),
            event_type: Some("odd".into()),
            ..EventQuery::new(Scope::All)
        };
        assert_eq!(ids(window).await, ["m3", "m2"]);
        assert_eq!(f.index.event_types(&project("p2")).await.expect("types"), ["even"]);
        assert_eq!(f.index.event_type_traits(&Scope::All, "odd").await.expect("traits").len(), 2);
        assert_eq!(f.index.event(&project("p1"), "m0").await.expect("there"), events[0]);
        assert!(f.index.event(&project("p2"), "m0").await.is_err());
        assert_eq!(f.index.expire_events(Timestamp::from_secs(4)).await.expect("expired"), 8);
    }
}

#[tokio::test]
async fn events_are_followed_in_the_order_of_their_commits() {
    for f in fixtures().await {
        let keep = async |events: &[Event]| f.index.insert_events(events).await.expect("kept");
        assert_eq!(keep(&[event("b", 5, "p1", 1), event("a", 4, "p2", 1)]).await, 2);
        // What is kept already gets no second number.
        assert_eq!(keep(&[event("a", 4, "p2", 1), event("c", 1, "p1", 1)]).await, 1);
        let after = async |number: i64, limit: usize| {
            let found = f.index.events_after(number, limit).await.expect("followed");
            found.into_iter().map(|numbered| (numbered.number, numbered.event.message_id)).collect::<Vec<_>>()
        };
        let all = [(1, "b".to_owned()), (2, "a".to_owned()), (3, "c".to_owned())];
        assert_eq!(after(0, 10).await, all);
        assert_eq!(after(1, 1).await, all[1..2]);
        assert!(after(3, 10).await.is_empty());
        assert_eq!(f.index.newest_event().await.expect("asked"), 3);
        let between = async |start: i64, stop: i64| {
            let (start, stop) = (Timestamp::from_secs(start), Timestamp::from_secs(stop));
            let found = f.index.events_between("p1", start, stop, 10).await.expect("found");
            found.into_iter().map(|event| event.message_id).collect::<Vec<_>>()
        };
        assert_eq!(between(0, 10).await, ["c", "b"]);
        assert!(between(2, 5).await.is_empty());
    }
}
