//! Walks: every event and every revision that is wanted comes once, over many pages.

use std::collections::BTreeMap;

use orzo_model::{Event, Trait, TraitValue};

use super::*;

fn event(number: i64) -> Event {
    let text = |name: &str, value: String| Trait { name: name.into(), value: TraitValue::Text(value) };
    Event {
        // Several happen in the same microsecond, and come in another order.
        message_id: format!("m{:02}", 20 - number),
        event_type: if number % 2 == 0 { "even".into() } else { "odd".into() },
        generated_at: Timestamp::from_secs(number / 4),
        traits: vec![text("project_id", format!("p{}", number % 3)), text("resource_id", format!("r{}", number % 5))],
        raw: Some("{}".to_owned()),
    }
}

async fn walked(index: &Index, wanted: &EventsWanted) -> Vec<Event> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (events, next) = index.events_page(wanted, after.as_ref()).await.expect("a page");
        found.extend(events);
        if next.is_none() {
            return found;
        }
        after = next;
    }
}

#[tokio::test]
async fn every_event_that_is_wanted_comes_once_and_in_order() {
    for f in fixtures().await {
        let all: Vec<Event> = (0..20).map(event).collect();
        f.index.insert_events(&all).await.expect("kept");
        let expected = |keep: &dyn Fn(&Event) -> bool| {
            let mut kept: Vec<Event> =
                all.iter().filter(|own| keep(own)).map(|own| Event { raw: None, ..own.clone() }).collect();
            kept.sort_by(|a, b| (a.generated_at, &a.message_id).cmp(&(b.generated_at, &b.message_id)));
            kept
        };
        let every = EventsWanted::default();
        assert_eq!(walked(&f.index, &every).await, expected(&|_| true));
        let (first, last) = (Timestamp::from_secs(1), Timestamp::from_secs(3));
        let some = EventsWanted { first: Some(first), last: Some(last), ..every.clone() };
        assert_eq!(walked(&f.index, &some).await, expected(&|own| (first..=last).contains(&own.generated_at)));
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let odd = EventsWanted { event_types: texts(&["odd"]), project_ids: texts(&["p1", "p2"]), ..every.clone() };
        let is_odd = |own: &Event| own.event_type == "odd" && own.text("project_id").as_deref() != Some("p0");
        assert_eq!(walked(&f.index, &odd).await, expected(&is_odd));
        let about = EventsWanted { resource_ids: texts(&["r1", "r4", "none"]), ..every.clone() };
        let is_about = |own: &Event| matches!(own.text("resource_id").as_deref(), Some("r1" | "r4"));
        assert_eq!(walked(&f.index, &about).await, expected(&is_about));
        let one = EventsWanted { message_ids: texts(&["m07"]), ..every.clone() };
        assert_eq!(walked(&f.index, &one).await, expected(&|own| own.message_id == "m07"));
        assert_eq!(walked(&f.index, &EventsWanted { message_ids: Some(Vec::new()), ..every }).await, []);
    }
}

/// How many revisions each resource has, all pages together.
async fn revisions(index: &Index, wanted: &RevisionsWanted) -> BTreeMap<String, usize> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let (resources, next) = index.revisions_page(wanted, after.as_deref()).await.expect("a page");
        for revisions in resources {
            let name = revisions.last().expect("one at least").original_resource_id.clone();
            assert!(found.insert(name, revisions.len()).is_none(), "it came twice");
        }
        if next.is_none() {
            return found;
        }
        after = next;
    }
}

#[tokio::test]
async fn every_resource_that_is_wanted_comes_once_with_its_revisions() {
    for f in fixtures().await {
        for number in 0..7 {
            let mut new = new_resource(&format!("r{number}"), "generic", "u:p", json!({}));
            new.project_id = Some(if number < 4 { "p1" } else { "p2" }.to_owned());
            let resource = f.index.create_resource(&new).await.expect("a resource");
            if number == 1 {
                f.clock.advance(std::time::Duration::from_secs(5));
                let change = ResourceChange { project_id: Some(Some("p3".to_owned())), ..ResourceChange::default() };
                f.index.update_resource(&Scope::All, "generic", resource.id, &change).await.expect("handed over");
            }
        }
        let named = |list: &[(&str, usize)]| {
            list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>()
        };
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let every = RevisionsWanted::default();
        let all = [("r0", 1), ("r1", 2), ("r2", 1), ("r3", 1), ("r4", 1), ("r5", 1), ("r6", 1)];
        assert_eq!(revisions(&f.index, &every).await, named(&all));
        let owned = RevisionsWanted { project_ids: texts(&["p1"]), ..every.clone() };
        assert_eq!(revisions(&f.index, &owned).await, named(&all[..4]), "also what it had before");
        let some = RevisionsWanted { original_resource_ids: texts(&["r1", "r6"]), ..every.clone() };
        assert_eq!(revisions(&f.index, &some).await, named(&[("r1", 2), ("r6", 1)]));
        let both = RevisionsWanted { project_ids: texts(&["p3"]), ..some };
        assert_eq!(revisions(&f.index, &both).await, named(&[("r1", 2)]));
    }
}
