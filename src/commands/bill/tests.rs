//! `orzo bill verify` over a small cloud that was really rated: nothing is wrong with it; then something false is planted, one thing
//! at a time, and found. Queries run in processes of this test program.

mod world;

use std::{collections::BTreeMap, path::Path, time::Duration};

use orzo_export::{Profile, Request};
use orzo_model::Point;
use orzo_rating::{BigDecimal, RatedLine};

use super::{
    recount::{Recount, Recounter, Stretch},
    verify::unlike,
};
use world::{HOURS, World, at};

/// Not a test by itself: what the process of a query runs. Whoever has an environment is no such process.
#[test]
fn worker_of_the_other_tests() {
    if std::env::vars_os().next().is_none() {
        orzo_sql::worker::main().expect("the query ends");
    }
}

/// Plants something false in the ledger's lines.
async fn with_lines(seed: u64, plant: impl FnOnce(&mut Vec<RatedLine>)) -> Vec<String> {
    let world = World::build(seed).await;
    let mut lines = world.lines().await;
    plant(&mut lines);
    world.replace(lines).await;
    world.verified().await
}

fn find(lines: &mut [RatedLine], is_wanted: impl Fn(&RatedLine) -> bool) -> &mut RatedLine {
    lines.iter_mut().find(|own| is_wanted(own)).expect("such a line")
}

/// Whether events tell all of it, or polling alone is asked for it.
fn is_told(line: &RatedLine) -> bool {
    !matches!(line.resource.as_str(), "silent" | "unheard")
}

#[track_caller]
fn assert_found(problems: &[String], words: &[&str]) {
    let is_it = |problem: &&String| words.iter().all(|word| problem.contains(word));
    assert!(problems.iter().any(|problem| is_it(&problem)), "nobody says {words:?}: {problems:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rated_is_counted_again_to_the_same() {
    for seed in [1, 2] {
        let world = World::build(seed).await;
        assert_eq!(world.verified().await, <[String; 0]>::default(), "seed {seed}");
        // And it was counted: all lines but those of what only polling tells of.
        let open = world.open("points", &world.points).await;
        let recounter = Recounter::new(&open, world.worker());
        let metrics = open.rating.processor.metrics();
        let lines = world.lines().await;
        let mut whole = Recount::default();
        for scope in ["p1", "p2"] {
            let (from, until) = (at(0), at(HOURS * 3600));
            let stretch = Stretch { scope, from, until, period: Duration::from_secs(3600) };
            let own = recounter.usage(&stretch, &metrics.definitions, || ()).await.expect("counted");
            whole.lasting_lines += own.lasting_lines;
            whole.measured_lines += own.measured_lines;
            for (why, lines) in own.left {
                *whole.left.entry(why).or_default() += lines;
            }
        }
        let of = |is_wanted: &dyn Fn(&RatedLine) -> bool| lines.iter().filter(|own| is_wanted(own)).count() as u64;
        let is_lasting = |own: &RatedLine| matches!(own.service.as_str(), "instance" | "volume.size");
        assert_eq!(whole.lasting_lines, of(&|own| is_lasting(own) && is_told(own)), "seed {seed}");
        assert_eq!(whole.measured_lines, of(&|own| !is_lasting(own)), "seed {seed}");
        let left = [("no event tells of it", "silent"), ("polling contradicts its events", "unheard")];
        let left = left.map(|(why, name)| (why.to_owned(), of(&|own| is_lasting(own) && own.resource == name)));
        assert_eq!(whole.left, BTreeMap::from(left), "seed {seed}");
        assert_eq!(whole.left.values().sum::<u64>(), 12 + 13, "twelve hours each, one of them cut by what polling saw");
        assert!(whole.lasting_lines > 60 && whole.measured_lines > 60, "seed {seed}: {} lines", lines.len());
        open.store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_falsified_cost_is_found() {
    let mut id = String::new();
    let problems = with_lines(1, |lines| {
        let line = find(lines, |own| own.service == "instance" && own.cost > 0);
        line.cost += "0.0000000001".parse::<BigDecimal>().expect("a number");
        id = line.id.to_string();
    })
    .await;
    assert_found(&problems, &[&id, "by its rules"]);
    let problems = with_lines(1, |lines| {
        let line = find(lines, |own| own.service == "memory.usage");
        line.cost = &line.cost * BigDecimal::from(2);
        id = line.id.to_string();
    })
    .await;
    assert_found(&problems, &[&id, "times", "is something else"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_falsified_quantity_is_found() {
    for (service, words) in [
        ("instance", "by its events"),
        ("volume.size", "by its events"),
        ("memory.usage", "by its points"),
        ("network.incoming.bytes", "by its points"),
    ] {
        let mut resource = String::new();
        let problems = with_lines(2, |lines| {
            let line = find(lines, |own| own.service == service && is_told(own));
            // So little that no sum of money is another.
            line.quantity += "0.0000000001".parse::<BigDecimal>().expect("a number");
            resource.clone_from(&line.resource);
        })
        .await;
        assert_found(&problems, &[service, &resource, words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_charged_twice_or_not_at_all_is_found() {
    let mut resource = String::new();
    let problems = with_lines(3, |lines| {
        let mut again = find(lines, |own| own.service == "instance" && is_told(own)).clone();
        again.sequence = 1;
        resource.clone_from(&again.resource);
        lines.push(again.identified());
    })
    .await;
    assert_found(&problems, &[&resource, "charges a time that another line charges"]);
    assert_found(&problems, &[&resource, "by its events", "in the ledger 2 lines"]);
    let problems = with_lines(3, |lines| {
        let place = lines.iter().position(|own| own.service == "instance" && is_told(own));
        resource = lines.remove(place.expect("such a line")).resource;
    })
    .await;
    assert_found(&problems, &[&resource, "by its events", "in the ledger 0 lines"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_event_and_a_lost_point_are_found() {
    let world = World::build(4).await;
    let sql = "DELETE FROM index_events WHERE message_id = $1";
    assert_eq!(world.database.execute(sql, &["volume-0-1".into()]).await.expect("deleted"), 1);
    assert_found(&world.verified().await, &["volume.size volume-0", "by its events"]);
    // Of a whole hour of each: the mean of a level is another then, and what a counter grew belongs to the next hour.
    for service in ["memory.usage", "network.incoming.bytes"] {
        let lines = world.lines().await;
        let is_whole = |own: &&RatedLine| own.service == service && is_told(own) && own.samples == 12;
        let line = lines.iter().filter(is_whole).min_by_key(|own| own.begin).expect("such a line");
        let mut points = world.points.clone();
        let series = world.series[&line.resource];
        let is_in = |own: &Point| own.series == series && own.timestamp >= line.begin && own.timestamp < line.end;
        points.remove(points.iter().rposition(is_in).expect("such a point"));
        let problems = world.verified_with(&format!("points without one of {service}"), &points).await;
        assert_found(&problems, &[service, &line.resource, &line.id.to_string(), "by its points"]);
    }
}

/// Changes the first digit of a file that is one.
fn alter(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let cell = bytes.windows(2).rposition(|pair| pair[0] == b'.' && pair[1].is_ascii_digit()).expect("a cost") + 1;
    bytes[cell] = if bytes[cell] == b'9' { b'1' } else { bytes[cell] + 1 };
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_export_is_found() {
    let world = World::build(5).await;
    let open = world.open("points", &world.points).await;
    let (begin, end) = (at(0), at(HOURS * 3600));
    let request = Request { profile: Profile::FocusCsv, begin, end, scopes: None, as_of: None, rated_after: None };
    let run = open.rating.exports.run(&request).await.expect("exported");
    open.store.close().await.expect("closed");
    drop(open);
    assert_eq!(world.verified().await, <[String; 0]>::default());
    let file = run.manifest.files.first().expect("a file");
    alter(&run.directory.join(&file.name));
    assert_found(&world.verified().await, &["export", &file.name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataframe_of_impossible_times_does_not_break_the_verification() {
    let problems = with_lines(6, |lines| {
        let own = find(lines, |own| own.service == "instance").clone();
        for (begin, end) in
            [("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"), ("2150-01-01T00:00:00Z", "2301-01-01T00:00:00Z")]
        {
            let (begin, end) = (begin.parse().expect("a time"), end.parse().expect("a time"));
            let rule = "pushed:1".to_owned();
            lines.push(RatedLine { begin, end, period: begin, rule, ..own.clone() }.identified());
        }
    })
    .await;
    assert_eq!(problems, <[String; 0]>::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_of_the_pen_in_a_projects_name_is_told() {
    let world = World::build(7).await;
    let open = world.open("points", &world.points).await;
    assert_eq!(super::chosen(&open.rating, &["p1".to_owned()]).await.expect("known"), ["p1"]);
    let told = super::chosen(&open.rating, &["p1".to_owned(), "typo".to_owned()]).await.expect_err("unknown");
    assert!(told.to_string().contains("`typo`"), "{told}");
    open.store.close().await.expect("closed");
}

#[test]
fn a_sum_that_is_another_is_named() {
    let sums = |cost: i64| {
        let key = ["2026-11", "p1", "instance", "EUR"].map(str::to_owned);
        BTreeMap::from([(key.into(), BigDecimal::from(cost))])
    };
    assert_eq!(unlike("the summary", &sums(1), &sums(1)), <[String; 0]>::default());
    let told = unlike("the summary", &sums(2), &sums(1));
    assert_eq!(told, ["p1 instance in 2026-11, EUR: the summary says Some(\"2\"), the lines Some(\"1\")"]);
    assert_eq!(unlike("the summary", &sums(2), &Default::default()).len(), 1);
    assert_eq!(unlike("the summary", &Default::default(), &sums(2)).len(), 1);
}
