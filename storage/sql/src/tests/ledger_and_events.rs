//! Events, revisions of resources and rated lines: as the index and the ledger give them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use orzo_index::ResourceChange;
use orzo_model::{Event, Scope, Timestamp, Trait, TraitValue};
use orzo_rating::{BigDecimal, LineFilter, LineKind, RatedLine, cost_of, line::Facts};
use serde_json::json;
use uuid::Uuid;

use super::{House, START, patient, rows};
use crate::{
    error::SqlError,
    source::Takes,
    tables::{Column, Table, Wanted},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START + second)
}

fn event(id: &str, second: i64, kind: &str, resource: &str, project: &str, note: &str) -> Event {
    let text = |name: &str, value: &str| Trait { name: name.to_owned(), value: TraitValue::Text(value.to_owned()) };
    Event {
        message_id: id.to_owned(),
        event_type: kind.to_owned(),
        generated_at: at(second),
        traits: vec![
            text("resource_id", resource),
            text("tenant_id", project),
            text("note", note),
            text("note", "a second time"),
            Trait { name: "memory_mb".to_owned(), value: TraitValue::Integer(512) },
            Trait { name: "launched_at".to_owned(), value: TraitValue::Datetime(at(1)) },
        ],
        raw: Some("{}".to_owned()),
    }
}

#[tokio::test]
async fn events_are_shown_with_their_traits() {
    let house = House::build().await;
    let queries = house.queries(patient());
    let events = [
        event("m1", 10, "compute.instance.create.end", "s1", "p1", "first"),
        event("m2", 20, "compute.instance.delete.end", "s1", "p2", ""),
        event("m3", 20, "volume.create.end", "v1", "p1", "it's"),
    ];
    house.source.index.insert_events(&events).await.expect("kept");
    let all = "SELECT message_id, event_type, resource_id, project_id, user_id, traits['note'], traits['memory_mb'], \
               traits['none'] FROM events ORDER BY generated_at, message_id";
    let all = rows(&queries, all).await;
    assert_eq!(
        all[0],
        json!(["m1", "compute.instance.create.end", "s1", "p1", null, "first", "512", null]),
        "of two traits of one name the first"
    );
    assert_eq!(all.len(), 3);
    let seconds = "SELECT to_unixtime(generated_at) - to_unixtime(CAST(traits['launched_at'] AS TIMESTAMP)) \
                   FROM events WHERE message_id = 'm1'";
    assert_eq!(rows(&queries, seconds).await, [json!([9])]);
    for (condition, count) in [
        ("TRUE".to_owned(), 3),
        (format!("generated_at > '{}'", at(10)), 2),
        (format!("generated_at BETWEEN '{}' AND '{}'", at(0), at(10)), 1),
        (format!("generated_at < '{}'", at(20)), 1),
        ("resource_id = 's1'".to_owned(), 2),
        ("resource_id IN ('s1', 'v1') AND project_id = 'p1'".to_owned(), 2),
        ("event_type = 'volume.create.end' OR event_type = 'none'".to_owned(), 1),
        ("event_type LIKE '%.end' AND traits['note'] = 'it''s'".to_owned(), 1),
        ("user_id = 'u'".to_owned(), 0),
    ] {
        let found = rows(&queries, &format!("SELECT count(*) FROM events WHERE {condition}")).await;
        assert_eq!(found, [json!([count])], "{condition}");
    }
}

#[tokio::test]
async fn revisions_are_shown_with_their_times() {
    let house = House::build().await;
    let queries = house.queries(patient());
    house.resource("p1", "server1", &[]).await;
    house.resource("p1", "server2", &[]).await;
    let found = rows(&queries, "SELECT resource_id FROM revisions WHERE original_resource_id = 'server1'").await;
    let id: Uuid = found[0][0].as_str().expect("a text").parse().expect("an id");
    let change = ResourceChange { project_id: Some(Some("p2".to_owned())), ..ResourceChange::default() };
    house.source.index.update_resource(&Scope::All, "generic", id, &change).await.expect("handed over");
    let revisions = "SELECT project_id, user_id, resource_type, revision_end IS NULL, ended_at, \
                     to_unixtime(started_at), cardinality(attributes) \
                     FROM revisions WHERE original_resource_id = 'server1' ORDER BY revision_start";
    let start = START;
    assert_eq!(
        rows(&queries, revisions).await,
        [
            json!(["p1", "alice", "generic", false, null, start, 0]),
            json!(["p2", "alice", "generic", true, null, start, 0])
        ]
    );
    for (condition, count) in [("project_id = 'p1'", 2), ("project_id IN ('p2')", 1), ("resource_type = 'instance'", 0)]
    {
        let found = rows(&queries, &format!("SELECT count(*) FROM revisions WHERE {condition}")).await;
        assert_eq!(found, [json!([count])], "{condition}");
    }
    let ended = "SELECT count(*) FROM revisions WHERE revision_end < now() + INTERVAL '1 day'";
    assert_eq!(rows(&queries, ended).await, [json!([1])], "what goes on has no end");
}

fn line(number: i64, project: &str, cost: i64) -> RatedLine {
    let begin = at(number * 3600);
    let facts = |pairs: &[(&str, &str)]| -> Facts {
        Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    RatedLine {
        id: Uuid::nil(),
        scope: project.to_owned(),
        service: if number % 3 == 0 { "volume" } else { "instance" }.to_owned(),
        resource: format!("r{}", number % 5),
        begin,
        end: begin.plus(Duration::from_secs(3600)),
        period: begin,
        unit: "one".to_owned(),
        quantity: BigDecimal::from(1),
        unit_price: BigDecimal::new(cost.into(), 10),
        cost: cost_of(&BigDecimal::new(cost.into(), 10)),
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "hashmap/instance/0".to_owned(),
        rule_version: 3,
        sequence: 0,
        groupby: facts(&[("id", "r")]),
        metadata: facts(&[("flavor_name", "tiny")]),
        samples: 12,
        rated_at: begin.plus(Duration::from_secs(7200)),
    }
    .identified()
}

#[tokio::test]
async fn rated_lines_are_the_ledgers_own() {
    let house = House::build().await;
    let queries = house.queries(patient());
    let ledger = house.source.ledger.clone().expect("a ledger");
    let lines: Vec<RatedLine> =
        (0..200).map(|number| line(number, ["p1", "p2"][number as usize % 2], number * 12_345 + 1)).collect();
    for part in lines.chunks(70) {
        ledger.append(part.to_vec()).await.expect("kept");
    }
    let back = lines[7].reversal(at(300 * 3600), at(310 * 3600));
    let other = RatedLine { corrects: Some(lines[7].id), cost: cost_of(&BigDecimal::from(2)), ..lines[7].clone() };
    ledger.append(vec![back.clone(), other.identified()]).await.expect("kept");

    let columns = "id, scope, service, resource, to_unixtime(begin), to_unixtime(\"end\"), unit, CAST(quantity AS VARCHAR), \
                   CAST(unit_price AS VARCHAR), CAST(cost AS VARCHAR), currency, kind, corrects, reverses, rule, \
                   rule_version, sequence, groupby['id'], metadata['flavor_name'], samples";
    let query = format!("SELECT {columns} FROM rated_lines WHERE id = '{}'", back.id);
    let seconds = START + 7 * 3600;
    let cost = "-0.0000086416";
    assert_eq!(
        rows(&queries, &query).await,
        [json!([
            back.id.to_string(),
            "p2",
            "instance",
            "r2",
            seconds,
            seconds + 3600,
            "one",
            "-1.0000000000",
            "0.0000086416",
            cost,
            "EUR",
            "Usage",
            lines[7].id.to_string(),
            true,
            "hashmap/instance/0",
            3,
            0,
            "r",
            "tiny",
            12
        ])]
    );
    // Sums by SQL are the reader's own, however much of the condition the ledger takes.
    let from_hour = |hour: i64| at(hour * 3600);
    let everything = LineFilter::default();
    let of = |projects: &[&str]| Some(projects.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>());
    let cases = [
        ("TRUE".to_owned(), everything.clone()),
        ("scope = 'p1'".to_owned(), LineFilter { scopes: of(&["p1"]), ..everything.clone() }),
        ("scope IN ('p1', 'none') AND scope = 'none'".to_owned(), LineFilter { scopes: of(&[]), ..everything.clone() }),
        ("service = 'volume'".to_owned(), LineFilter { services: of(&["volume"]), ..everything.clone() }),
        (
            format!("begin >= '{}' AND begin < '{}'", from_hour(20), from_hour(90)),
            LineFilter { used_from: Some(from_hour(20)), used_before: Some(from_hour(90)), ..everything.clone() },
        ),
        (
            format!("period >= '{}' AND scope = 'p2'", from_hour(150)),
            LineFilter { begin: Some(from_hour(150)), scopes: of(&["p2"]), ..everything.clone() },
        ),
        (
            format!("period BETWEEN '{}' AND '{}'", from_hour(3), from_hour(9)),
            LineFilter { begin: Some(from_hour(3)), end: Some(from_hour(10)), ..everything.clone() },
        ),
        (
            format!("rated_at > '{}'", from_hour(180)),
            LineFilter { rated_after: Some(from_hour(180)), ..everything.clone() },
        ),
        (format!("id = '{}' OR id = 'no id'", back.id), LineFilter { ids: Some(vec![back.id]), ..everything.clone() }),
    ];
    for (condition, filter) in cases {
        let expected: Vec<RatedLine> = ledger.read(&filter).await.expect("read").try_collect().await.expect("lines");
        let mut sums: BTreeMap<String, BigDecimal> = BTreeMap::new();
        for own in &expected {
            *sums.entry(own.resource.clone()).or_default() += &own.cost;
        }
        let query = format!(
            "SELECT resource, CAST(sum(cost) AS VARCHAR) FROM rated_lines WHERE {condition} GROUP BY resource ORDER BY 1"
        );
        let found = rows(&queries, &query).await;
        let found: BTreeMap<String, BigDecimal> = found
            .iter()
            .filter_map(|row| Some((row[0].as_str()?.to_owned(), row[1].as_str()?.parse().ok()?)))
            .collect();
        assert_eq!(found, sums, "{condition}");
        let count = rows(&queries, &format!("SELECT count(*) FROM rated_lines WHERE {condition}")).await;
        assert_eq!(count, [json!([expected.len()])], "{condition}");
    }
    // What the ledger does not know of is held on this side of the socket, or in the query's process.
    let found = rows(&queries, "SELECT count(*) FROM rated_lines WHERE resource = 'r2' AND cost > 0.0001").await;
    let expected = lines.iter().filter(|own| own.resource == "r2" && own.cost > BigDecimal::new(1.into(), 4));
    assert_eq!(found, [json!([expected.count() + 1])]);
    let effective = "SELECT count(*) FROM rated_lines l WHERE NOT reverses AND NOT EXISTS \
                     (SELECT 1 FROM rated_lines r WHERE r.reverses AND r.corrects = l.id)";
    assert_eq!(rows(&queries, effective).await, [json!([200])]);
    assert!(house.room.balance().is_conserved());
}

/// The blocks of a scan, and how long each is.
#[derive(Default)]
struct Lengths(Vec<usize>);

impl Takes for Lengths {
    async fn take(&mut self, block: Vec<u8>) -> Result<bool, SqlError> {
        self.0.push(block.len());
        Ok(true)
    }
}

#[tokio::test]
async fn rows_come_in_blocks_of_bounded_size() {
    let house = House::build().await;
    let note = "x".repeat(60 << 10);
    let events: Vec<Event> =
        (0..300).map(|number| event(&format!("m{number}"), number, "a.b", "s", "p", &note)).collect();
    house.source.index.insert_events(&events).await.expect("kept");
    let mut lengths = Lengths::default();
    let wanted = Wanted::all(Table::Events, Table::Events.columns());
    house.source.read(0, &wanted, &mut lengths).await.expect("read");
    assert!(lengths.0.len() > 3 && lengths.0.iter().all(|length| *length < 6 << 20), "{:?}", lengths.0);
    let mut lengths = Lengths::default();
    let wanted = Wanted::all(Table::Events, vec![Column::MessageId]);
    house.source.read(0, &wanted, &mut lengths).await.expect("read");
    assert!(lengths.0.len() == 1 && lengths.0[0] < 30_000, "only what is asked for is sent: {:?}", lengths.0);
}
