//! `orzo bill verify` over a small cloud that was really rated: nothing is wrong with it; then something false is planted, one thing
//! at a time, and found. Queries run in processes of this test program.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::TryStreamExt;
use orzo_database::Database;
use orzo_export::{Profile, Request};
use orzo_index::{Index, IndexSettings, NewMetric, NewResource, ResourceChange};
use orzo_ledger::LedgerTable;
use orzo_model::{Event, ManualClock, Point, Rooms, Scope, SeriesId, Timestamp, Trait, TraitValue};
use orzo_rating::{BigDecimal, Kind, Ledger, LineFilter, NewMapping, RatedLine, RatingBook};
use orzo_sql::Worker;
use orzo_store::{Store, StoreSettings, files::real::RealDisk};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Open,
    recount::{Recount, Recounter, Stretch},
    verify::{unlike, verify},
};
use crate::{
    rating::{self, Parts},
    settings::Settings,
};

/// 2026-11-01, where a month begins.
const START: i64 = 1_793_491_200;
/// Hours that are rated.
const HOURS: i64 = 12;
/// What is charged: what is there by events, a size that events tell, one that is measured, and a counter.
const METRICS: &str = "metrics:
  cpu:
    unit: instance
    alt_name: instance
    groupby: [id, user_id, project_id]
    metadata: [flavor_name, state, vcpus]
    mutate: NUMBOOL
    extra_args: {resource_type: instance, usage: existence}
  volume.size:
    unit: GiB
    groupby: [id, project_id]
    metadata: [volume_type]
    extra_args: {resource_type: volume, usage: level}
  memory.usage:
    unit: GiB
    factor: 1/1024
    groupby: [id, project_id]
    extra_args: {resource_type: instance, usage: level}
  network.incoming.bytes:
    unit: MB
    factor: 1/1000000
    groupby: [id, project_id]
    extra_args: {resource_type: instance_network_interface, usage: increase}
";
const FLAVORS: [(&str, &str); 3] = [("tiny", "0.0071234567"), ("small", "0.0203000001"), ("it's big", "0.1000000007")];

/// Not a test by itself: what the process of a query runs. Whoever has an environment is no such process.
#[test]
fn worker_of_the_other_tests() {
    if std::env::vars_os().next().is_none() {
        orzo_sql::worker::main().expect("the query ends");
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START + second)
}

/// Small numbers, the same for the same seed (Knuth's constants for 64 bits).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as i64
    }
}

fn event(resource: &str, number: i64, second: i64, kind: &str, traits: &[(&str, &str)]) -> Event {
    let text = |name: &str, value: &str| Trait { name: name.to_owned(), value: TraitValue::Text(value.to_owned()) };
    let traits = traits.iter().map(|(name, value)| text(name, value));
    Event {
        message_id: format!("{resource}-{number}"),
        event_type: kind.to_owned(),
        generated_at: at(second).plus(Duration::from_millis(number as u64)),
        traits: traits.chain([text("resource_id", resource), text("user_id", "alice")]).collect(),
        raw: None,
    }
}

/// A server's life: created, resized, stopped, handed over, deleted, at random.
fn life(chance: &mut Chance, name: &str) -> Vec<Event> {
    let born = chance.below(20_000) - 9000;
    let (mut flavor, mut state, mut project) = (chance.below(3) as usize, "active", "p1");
    let mut events = Vec::new();
    let mut second = born + 3;
    let launched = at(born).naive();
    let told = |number: i64, second: i64, kind: &str, flavor: usize, state: &str, project: &str| {
        let traits = [
            ("project_id", project),
            ("instance_type", FLAVORS[flavor].0),
            ("state", state),
            ("launched_at", &launched),
        ];
        event(name, number, second, &format!("compute.instance.{kind}"), &traits)
    };
    events.push(told(0, second, "create.end", flavor, state, project));
    for number in 1.. {
        second += 1 + chance.below(9000);
        if second > HOURS * 3600 {
            break;
        }
        let kind = match chance.below(6) {
            0 => {
                flavor = chance.below(3) as usize;
                "resize.confirm.end"
            }
            1 => {
                state = if state == "active" { "stopped" } else { "active" };
                "power_off.end"
            }
            2 => {
                project = if project == "p1" { "p2" } else { "p1" };
                "update"
            }
            3 => "resize.start",
            4 if number > 3 => "delete.end",
            _ => "exists",
        };
        let mut own = told(number, second, kind, flavor, state, project);
        // Who lets a thing be done tells it before it is.
        if kind == "resize.start" {
            own = told(number, second, kind, (flavor + 1) % 3, state, project);
        }
        if kind == "delete.end" {
            let died = TraitValue::Datetime(at(second - 2));
            own.traits.push(Trait { name: "deleted_at".to_owned(), value: died });
            events.push(own);
            break;
        }
        events.push(own);
    }
    events
}

/// A cloud, rated.
struct World {
    folder: tempfile::TempDir,
    settings: Settings,
    clock: Arc<ManualClock>,
    database: Database,
    index: Arc<Index>,
    points: Vec<Point>,
    /// By resource, of what is measured.
    series: BTreeMap<String, SeriesId>,
}

impl World {
    async fn build(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).expect("made");
        let mut settings = Settings::default();
        settings.server.data_directory = data.clone();
        settings.rating.metrics_file = Some(folder.path().join("metrics.yml"));
        std::fs::write(folder.path().join("metrics.yml"), METRICS).expect("written");
        let clock = ManualClock::new(at(60));
        let database = Database::open_file(&data.join("orzo.db")).await.expect("a database");
        let index = Index::open(database.clone(), clock.clone(), IndexSettings::default()).await.expect("an index");
        let (index, points, series) = (Arc::new(index), Vec::new(), BTreeMap::new());
        let mut world = Self { folder, settings, clock, database, index, points, series };
        world.live(seed).await;
        world.price().await;
        world.clock.set(at((HOURS + 2) * 3600 + 60));
        let open = world.open("points", &world.points).await;
        open.rating.processor.advance(|_, _| ()).await.expect("rated");
        open.store.close().await.expect("closed");
        world
    }

    /// A resource of one metric.
    async fn resource(&mut self, name: &str, (kind, meter): (&str, &str), project: &str, attributes: Value) -> Uuid {
        let new = NewResource {
            id: name.to_owned(),
            resource_type: kind.to_owned(),
            creator: "agent".to_owned(),
            project_id: Some(project.to_owned()),
            user_id: Some("alice".to_owned()),
            started_at: Some(at(0)),
            ended_at: None,
            attributes: attributes.as_object().cloned().unwrap_or_default(),
            metrics: Vec::new(),
        };
        let resource = self.index.create_resource(&new).await.expect("a resource");
        let metric = NewMetric {
            creator: "agent".to_owned(),
            name: Some(meter.to_owned()),
            unit: None,
            resource_id: Some(resource.id),
            archive_policy_name: Some("low".to_owned()),
        };
        self.series.insert(name.to_owned(), self.index.create_metric(&metric).await.expect("a metric").series);
        resource.id
    }

    fn measure(&mut self, name: &str, first: i64, value: impl Fn(i64) -> f64) {
        let series = self.series[name];
        let seconds = (first..HOURS * 3600).step_by(300);
        self.points.extend(seconds.map(|second| Point { series, timestamp: at(second), value: value(second) }));
    }

    async fn live(&mut self, seed: u64) {
        let mut chance = Chance(seed);
        let mut events = Vec::new();
        for number in 0..6 {
            let name = format!("server-{number}");
            let own = life(&mut chance, &name);
            // Polling sees it, and whose it is, in the second of the event.
            let (mut owner, mut id) = (String::new(), None);
            for event in &own {
                let project = event.text("project_id").expect("a project");
                match id {
                    None => {
                        self.clock.set(event.generated_at);
                        id = Some(self.resource(&name, ("instance", "memory.usage"), &project, json!({})).await);
                    }
                    Some(id) if project != owner => {
                        self.clock.set(event.generated_at);
                        let change = ResourceChange { project_id: Some(Some(project.clone())), ..Default::default() };
                        self.index.update_resource(&Scope::All, "instance", id, &change).await.expect("handed over");
                    }
                    Some(_) => {}
                }
                owner = project;
            }
            events.extend(own);
            self.measure(&name, 100 + number * 7, |second| 500.0 + (second % 1700) as f64 / 7.0);
        }
        let volume = |number: i64, second: i64, kind: &str, size: &str| {
            event("volume-0", number, second, kind, &[("project_id", "p1"), ("size", size), ("type", "ssd")])
        };
        events.push(volume(0, 50, "volume.create.end", "10"));
        events.push(volume(1, 8000, "volume.resize.end", "25"));
        self.clock.set(at(60));
        self.resource("volume-0", ("volume", "volume.size"), "p1", json!({})).await;
        // Nobody tells of these two but polling: one with a counter that begins again, and a server.
        self.resource("port-0", ("instance_network_interface", "network.incoming.bytes"), "p2", json!({})).await;
        self.measure("port-0", 30, |second| if second < 20_000 { second as f64 * 1e7 + 0.5 } else { second as f64 });
        self.resource("silent", ("instance", "memory.usage"), "p1", json!({"flavor_name": "tiny"})).await;
        self.measure("silent", 45, |_| 2048.0);
        // Of this one an event was lost: polling saw at some time what its next event confirms.
        let traits = [("project_id", "p1"), ("state", "active"), ("launched_at", &*at(600).naive())];
        for (number, second, kind, flavor) in [(0, 603, "create.end", "tiny"), (1, 9000, "exists", "small")] {
            let traits = [&traits[..], &[("instance_type", flavor)]].concat();
            events.push(event("unheard", number, second, &format!("compute.instance.{kind}"), &traits));
        }
        self.clock.set(at(700));
        let tiny = json!({"flavor_name": "tiny"});
        let id = self.resource("unheard", ("instance", "memory.usage"), "p1", tiny).await;
        self.clock.set(at(4000));
        let small = json!({"flavor_name": "small"}).as_object().cloned().unwrap_or_default();
        let change = ResourceChange { attributes: small, ..Default::default() };
        self.index.update_resource(&Scope::All, "instance", id, &change).await.expect("seen");
        self.index.insert_events(&events).await.expect("kept");
    }

    async fn price(&self) {
        let book = RatingBook::open(self.database.clone(), self.clock.clone()).await.expect("a book");
        let mapping = |cost: &str, kind: Kind| NewMapping {
            value: None,
            cost: cost.parse().expect("a number"),
            kind,
            service_id: None,
            field_id: None,
            group_id: None,
            tenant_id: None,
            start: Some(at(-1)),
            end: None,
            name: None,
            description: None,
            force: true,
        };
        let service = book.create_service("test", "instance").await.expect("made").service_id;
        let flavor = book.create_field("test", &service, "flavor_name").await.expect("made").field_id;
        let state = book.create_field("test", &service, "state").await.expect("made").field_id;
        let mut mappings: Vec<NewMapping> = Vec::new();
        for (name, cost) in FLAVORS {
            let field_id = Some(flavor.clone());
            mappings.push(NewMapping { value: Some(name.to_owned()), field_id, ..mapping(cost, Kind::Flat) });
        }
        let stopped =
            NewMapping { value: Some("stopped".to_owned()), field_id: Some(state), ..mapping("0.37", Kind::Rate) };
        mappings.push(stopped);
        for (name, cost) in
            [("volume.size", "0.000123"), ("memory.usage", "0.01"), ("network.incoming.bytes", "0.0003")]
        {
            let service = book.create_service("test", name).await.expect("made").service_id;
            mappings.push(NewMapping { service_id: Some(service), ..mapping(cost, Kind::Flat) });
        }
        for own in &mappings {
            book.create_mapping("test", own).await.expect("made");
        }
    }

    /// All rooms, with the store of this name, which has these points.
    async fn open(&self, name: &str, points: &[Point]) -> Open {
        let rooms = Rooms::new(&prometheus::Registry::new());
        let directory = self.folder.path().join(name);
        let is_new = !directory.exists();
        let settings = StoreSettings { directory, disk_reserve_bytes: 0, ..StoreSettings::default() };
        let store = Store::open(settings, rooms.room("store"), self.clock.clone()).await.expect("a store");
        if is_new {
            store.append(points.to_vec()).await.expect("stored");
        }
        let parts = Parts {
            settings: &self.settings,
            database: self.database.clone(),
            index: self.index.clone(),
            store: store.clone(),
            clock: self.clock.clone(),
            rooms: &rooms,
        };
        Open { store: store.clone(), index: self.index.clone(), rating: rating::open(parts).await.expect("the rating") }
    }

    fn worker(&self) -> Worker {
        let own = "commands::bill::tests::worker_of_the_other_tests";
        Worker {
            program: std::env::current_exe().expect("this program"),
            arguments: [own, "--exact", "--nocapture", "--test-threads=1"].map(Into::into).into(),
            directory: self.folder.path().join("sql"),
        }
    }

    async fn lines(&self) -> Vec<RatedLine> {
        let directory = rating::ledger_directory(&self.settings.server.data_directory);
        let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
        let ledger =
            LedgerTable::open_to_read(Arc::new(RealDisk), &directory, self.clock.clone(), room).expect("opens");
        ledger.read(&LineFilter::default()).await.expect("read").try_collect().await.expect("lines")
    }

    /// Another ledger with these lines in the place of the one that is there.
    async fn replace(&self, lines: Vec<RatedLine>) {
        let directory = rating::ledger_directory(&self.settings.server.data_directory);
        std::fs::remove_dir_all(&directory).expect("removed");
        let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
        let ledger = LedgerTable::open(Arc::new(RealDisk), &directory, self.clock.clone(), room).expect("opens");
        ledger.append(lines).await.expect("kept");
    }

    async fn verified(&self) -> Vec<String> {
        self.verified_with("points", &self.points).await
    }

    async fn verified_with(&self, name: &str, points: &[Point]) -> Vec<String> {
        let open = self.open(name, points).await;
        let problems = verify(&open, &self.settings, self.worker()).await.expect("verified");
        open.store.close().await.expect("closed");
        problems
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
            let own = recounter.usage(&stretch, &metrics.definitions).await.expect("counted");
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

#[test]
fn a_sum_that_is_another_is_named() {
    let sums = |cost: i64| {
        let key = ("2026-11".to_owned(), "p1".to_owned(), "instance".to_owned());
        BTreeMap::from([(key, BigDecimal::from(cost))])
    };
    assert_eq!(unlike("the summary", &sums(1), &sums(1)), <[String; 0]>::default());
    let told = unlike("the summary", &sums(2), &sums(1));
    assert_eq!(told, ["p1 instance in 2026-11: the summary says Some(\"2\"), the lines Some(\"1\")"]);
    assert_eq!(unlike("the summary", &sums(2), &Default::default()).len(), 1);
    assert_eq!(unlike("the summary", &Default::default(), &sums(2)).len(), 1);
}
