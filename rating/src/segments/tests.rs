//! Lives of resources, told and seen, with the segments that they must make.

use std::collections::BTreeMap;

use orzo_model::{Event, Measure, Timestamp, Trait, TraitValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    doors::{Evidence, Revision},
    metrics::Metrics,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

fn event(number: i64, kind: &str, second: i64, traits: &[(&str, &str)]) -> Event {
    let text = |(name, value): &(&str, &str)| Trait {
        name: (*name).to_owned(),
        value: match value.strip_prefix('@') {
            Some(second) => TraitValue::Datetime(at(second.parse().expect("a second"))),
            None => TraitValue::Text((*value).to_owned()),
        },
    };
    Event {
        message_id: format!("m{number}"),
        event_type: format!("compute.instance.{kind}"),
        generated_at: at(second),
        traits: traits.iter().map(text).collect(),
        raw: None,
    }
}

fn server(events: Vec<Event>, revisions: Vec<Revision>, points: &[i64]) -> Evidence {
    let points = points.iter().map(|second| Measure { timestamp: at(*second), value: 1.0 }).collect();
    Evidence {
        resource: "s".to_owned(),
        resource_type: "instance".to_owned(),
        started_at: at(1010),
        ended_at: None,
        revisions,
        events,
        measures: BTreeMap::from([("cpu".to_owned(), points)]),
    }
}

fn revision(from: i64, flavor: &str) -> Revision {
    Revision {
        from: at(from),
        until: None,
        project_id: Some("p".to_owned()),
        user_id: Some("u".to_owned()),
        attributes: json!({"flavor_name": flavor}).as_object().expect("an object").clone(),
    }
}

const BASE: [(&str, &str); 3] = [("project_id", "p"), ("instance_type", "tiny"), ("state", "active")];

fn cut(evidence: &Evidence, until: i64) -> Vec<(i64, i64, String)> {
    let metrics = Metrics::shipped();
    let life = timeline(evidence, at(until));
    segments(&life, &metrics.definitions[0])
        .into_iter()
        .map(|own| {
            let fact = |name: &str| own.metadata.get(name).cloned().unwrap_or_default();
            let project = own.project_id.clone().unwrap_or_default();
            (own.begin.secs(), own.end.secs(), format!("{project} {} {}", fact("flavor_name"), fact("state")))
        })
        .collect()
}

#[test]
fn a_life_is_cut_exactly_where_something_rated_changes() {
    let big = [("project_id", "p"), ("instance_type", "big"), ("state", "active")];
    let stopped = [("project_id", "p"), ("instance_type", "big"), ("state", "stopped")];
    let moved = [("project_id", "q"), ("instance_type", "big"), ("state", "stopped"), ("host", "other")];
    let events = vec![
        event(1, "create.end", 1003, &[&BASE[..], &[("launched_at", "@1001")]].concat()),
        event(2, "resize.confirm.end", 1500, &big),
        event(3, "power_off.end", 1600, &stopped),
        event(4, "live_migration._post.end", 1650, &[&stopped[..], &[("host", "other")]].concat()),
        event(5, "update", 1700, &moved),
        event(6, "delete.start", 1799, &moved),
        event(7, "delete.end", 1803, &[&moved[..], &[("deleted_at", "@1800")]].concat()),
    ];
    let expected = [
        (1001, 1500, "p tiny active"),
        (1500, 1600, "p big active"),
        (1600, 1700, "p big stopped"),
        (1700, 1800, "q big stopped"),
    ]
    .map(|(from, until, text)| (from, until, text.to_owned()));
    let evidence = server(events.clone(), Vec::new(), &[1020, 1320, 1620]);
    assert_eq!(cut(&evidence, 5000), expected);
    assert_eq!(timeline(&evidence, at(5000)).findings, Vec::new());
    // In any order, twice, and with the index a little behind.
    let mut late: Vec<Event> = events.iter().rev().cloned().collect();
    late.extend(events);
    let revisions = vec![revision(1010, "tiny"), revision(1507, "big")];
    assert_eq!(cut(&server(late, revisions, &[]), 5000), expected);
}

#[test]
fn what_any_event_says_of_its_beginning_makes_up_for_the_one_that_was_lost() {
    let exists = event(1, "exists", 4000, &[&BASE[..], &[("launched_at", "@1001")]].concat());
    assert_eq!(cut(&server(vec![exists], Vec::new(), &[]), 3600), [(1001, 3600, "p tiny active".to_owned())]);
    let late = event(2, "exists", 9000, &[&BASE[..], &[("launched_at", "@1001"), ("deleted_at", "@2000")]].concat());
    assert_eq!(cut(&server(vec![late], Vec::new(), &[]), 3600), [(1001, 2000, "p tiny active".to_owned())]);
}

#[test]
fn where_polling_and_events_disagree_the_rule_decides_and_it_is_told() {
    let create = event(1, "create.end", 1000, &[&BASE[..], &[("launched_at", "@1000")]].concat());
    let big = [("project_id", "p"), ("instance_type", "big"), ("state", "active")];
    let told = |evidence: &Evidence| {
        timeline(evidence, at(5000)).findings.iter().map(|own| own.detail.clone()).collect::<Vec<_>>()
    };
    // The event of a resize was lost; the next one confirms what polling saw.
    let lost = server(vec![create.clone(), event(2, "update", 3000, &big)], vec![revision(2000, "big")], &[]);
    let seen = |text: &str| text.to_owned();
    assert_eq!(cut(&lost, 5000), [(1000, 2000, seen("p tiny active")), (2000, 5000, seen("p big active"))]);
    assert_eq!(told(&lost), ["an event was lost: polling saw flavor_name `big`, not `tiny`"]);
    // An old event that came late made the index go back: events are taken.
    let resize = event(2, "resize.confirm.end", 1500, &big);
    let stale = server(vec![create.clone(), resize], vec![revision(2000, "tiny")], &[]);
    assert_eq!(cut(&stale, 5000), [(1000, 1500, seen("p tiny active")), (1500, 5000, seen("p big active"))]);
    assert_eq!(told(&stale), ["events are taken: polling saw flavor_name `tiny`, not `big`"]);
    // It is measured long after it was deleted.
    let delete = event(3, "delete.end", 2000, &[&BASE[..], &[("deleted_at", "@2000")]].concat());
    let ghost = server(vec![create, delete], Vec::new(), &[2100, 4000]);
    assert_eq!(timeline(&ghost, at(5000)).findings[0].reason, "seen after its end");
    assert_eq!(cut(&ghost, 5000).last().expect("a life").1, 2000);
}

#[test]
fn without_events_polling_tells_all() {
    let revisions = vec![revision(1010, "tiny"), revision(2000, "big")];
    let polled = server(Vec::new(), revisions, &[1010, 1310, 3000]);
    let seen = |text: &str| text.to_owned();
    assert_eq!(cut(&polled, 9000), [(1010, 2000, seen("p tiny ")), (2000, 3300, seen("p big "))], "a sign lasts 300 s");
    assert_eq!(cut(&polled, 3100).last().expect("a life").1, 3100);
    let ended = Evidence { ended_at: Some(at(2500)), ..polled };
    assert_eq!(cut(&ended, 9000).last().expect("a life").1, 2500);
}

#[test]
fn what_was_measured_before_anybody_told_of_it_was_there() {
    let seen = server(Vec::new(), vec![revision(1012, "tiny")], &[900, 1200, 1500]);
    assert_eq!(cut(&seen, 1600), [(900, 1600, "p tiny ".to_owned())], "from the first point on");
    let told = server(
        vec![event(1, "create.end", 1003, &[&BASE[..], &[("launched_at", "@1001")]].concat())],
        Vec::new(),
        &[900],
    );
    assert_eq!(cut(&told, 1600), [(1001, 1600, "p tiny active".to_owned())], "but an event tells exactly");
}

#[test]
fn slots_without_a_point_are_told() {
    let create = event(1, "create.end", 1100, &[&BASE[..], &[("launched_at", "@1100")]].concat());
    let evidence = server(vec![create], Vec::new(), &[1210, 1501, 2400]);
    let life = timeline(&evidence, at(5000));
    let slot = std::time::Duration::from_secs(300);
    let found = completeness(&evidence, &life, "cpu", (at(900), at(3000)), slot);
    assert_eq!((found.expected, found.present), (6, 3), "from 1200 to 3000");
    assert_eq!(found.missing, [(at(1800), at(2400)), (at(2700), at(3000))]);
}

#[test]
fn counters_grow_across_restarts_and_levels_are_weighed_by_time() {
    let points = |list: &[(i64, f64)]| -> Vec<Measure> {
        list.iter().map(|(second, value)| Measure { timestamp: at(*second), value: *value }).collect()
    };
    let counter = points(&[(0, 10.0), (100, 15.0), (200, 2.0), (300, 2.5)]);
    let number = |text: &str| crate::decimal::decimal(text).expect("a number");
    assert_eq!(increase(&counter, at(50), at(400), false), Some((number("7.5"), 3)), "5 + 2 + 0.5");
    assert_eq!(increase(&counter, at(0), at(100), false), Some((number("0"), 1)));
    assert_eq!(increase(&counter, at(0), at(100), true), Some((number("10"), 1)));
    assert_eq!(increase(&counter, at(400), at(500), true), None);
    let size = points(&[(0, 10.0), (100, 20.0)]);
    let mean =
        |from: i64, until: i64| level(&size, at(from), at(until)).map(|(sum, whole, _)| sum / BigDecimal::from(whole));
    assert_eq!(mean(50, 150), Some(number("15")));
    assert_eq!(mean(200, 300), Some(number("20")), "the last one holds");
    assert_eq!(mean(-100, 100), Some(number("10")), "the first one held before");
    assert_eq!(mean(-200, -100), None);
    assert_eq!(exact(0.1), Some(number("0.1")));
    assert_eq!(exact(1e300).map(|big| big > number("1e299")), Some(true));
    assert_eq!(exact(f64::NAN), None);
    for (method, expected) in [
        ("max", "15"),
        ("min", "2"),
        ("sum", "29.5"),
        ("last", "2.5"),
        ("count", "4"),
        ("rate:max", "5"),
        ("median", "6.25"),
    ] {
        assert_eq!(collected(&counter, at(0), at(400), method).map(|own| own.0), Some(number(expected)), "{method}");
    }
}

proptest! {
    /// Whatever happens in whatever order it is told: segments tile the life, and cutting it into periods loses nothing.
    #[test]
    fn segments_tile_the_life(
        mut times in prop::collection::vec(1_000_i64..50_000, 1..12),
        flavors in prop::collection::vec(0_usize..3, 12),
        order in any::<u64>(),
    ) {
        times.sort_unstable();
        let names = ["tiny", "small", "big"];
        let mut events: Vec<Event> = times.iter().zip(&flavors).enumerate().map(|(number, (time, flavor))| {
            event(number as i64, "update", *time, &[("project_id", "p"), ("instance_type", names[*flavor]), ("state", "active"), ("launched_at", "@500")])
        }).collect();
        let straight = cut(&server(events.clone(), Vec::new(), &[]), 60_000);
        let turn = usize::try_from(order % events.len() as u64).unwrap_or(0);
        events.rotate_left(turn);
        prop_assert_eq!(&straight, &cut(&server(events, Vec::new(), &[]), 60_000));
        prop_assert_eq!(straight[0].0, 500);
        prop_assert_eq!(straight[straight.len() - 1].1, 60_000);
        prop_assert!(straight.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2));
        for second in (500..60_000).step_by(977) {
            let held = straight.iter().find(|own| own.0 <= second && second < own.1).expect("tiled");
            let last = times.iter().rposition(|time| *time <= second).unwrap_or(0);
            prop_assert_eq!(&held.2, &format!("p {} active", names[flavors[last]]), "at {}", second);
        }
    }

    /// The increases of parts sum to the increase of the whole.
    #[test]
    fn increases_of_parts_sum_to_the_whole(values in prop::collection::vec(0_u32..1000, 2..40), cut_at in 1_i64..39) {
        let points: Vec<Measure> = values.iter().enumerate()
            .map(|(number, value)| Measure { timestamp: at(number as i64), value: f64::from(*value) / 8.0 }).collect();
        let sum = |from: i64, until: i64| increase(&points, at(from), at(until), false).map_or_else(BigDecimal::default, |own| own.0);
        prop_assert_eq!(sum(0, 100), sum(0, cut_at) + sum(cut_at, 100));
    }
}
