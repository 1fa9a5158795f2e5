//! A small cloud, told of and measured, and rated.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use orzo_database::Database;
use orzo_index::{Index, IndexSettings, NewMetric, NewResource, ResourceChange};
use orzo_ledger::LedgerTable;
use orzo_model::{Event, ManualClock, Point, Rooms, Scope, SeriesId, Timestamp, Trait, TraitValue};
use orzo_rating::{Kind, Ledger, LineFilter, NewMapping, RatedLine, RatingBook};
use orzo_sql::Worker;
use orzo_store::{Store, StoreSettings, files::real::RealDisk};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{Open, verify::verify};
use crate::{
    rating::{self, Parts},
    settings::Settings,
};

/// 2026-11-01, where a month begins.
pub(super) const START: i64 = 1_793_491_200;
/// Hours that are rated.
pub(super) const HOURS: i64 = 12;
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

pub(super) fn at(second: i64) -> Timestamp {
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
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) settings: Settings,
    pub(super) clock: Arc<ManualClock>,
    pub(super) database: Database,
    pub(super) index: Arc<Index>,
    pub(super) points: Vec<Point>,
    /// By resource, of what is measured.
    pub(super) series: BTreeMap<String, SeriesId>,
}

impl World {
    pub(super) async fn build(seed: u64) -> Self {
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
    pub(super) async fn open(&self, name: &str, points: &[Point]) -> Open {
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

    pub(super) fn worker(&self) -> Worker {
        let own = "commands::bill::tests::worker_of_the_other_tests";
        Worker {
            program: std::env::current_exe().expect("this program"),
            arguments: [own, "--exact", "--nocapture", "--test-threads=1"].map(Into::into).into(),
            directory: self.folder.path().join("sql"),
        }
    }

    pub(super) async fn lines(&self) -> Vec<RatedLine> {
        let directory = rating::ledger_directory(&self.settings.server.data_directory);
        let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
        let ledger =
            LedgerTable::open_to_read(Arc::new(RealDisk), &directory, self.clock.clone(), room).expect("opens");
        ledger.read(&LineFilter::default()).await.expect("read").try_collect().await.expect("lines")
    }

    /// Another ledger with these lines in the place of the one that is there.
    pub(super) async fn replace(&self, lines: Vec<RatedLine>) {
        let directory = rating::ledger_directory(&self.settings.server.data_directory);
        std::fs::remove_dir_all(&directory).expect("removed");
        let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
        let ledger = LedgerTable::open(Arc::new(RealDisk), &directory, self.clock.clone(), room).expect("opens");
        ledger.append(lines).await.expect("kept");
    }

    pub(super) async fn verified(&self) -> Vec<String> {
        self.verified_with("points", &self.points).await
    }

    pub(super) async fn verified_with(&self, name: &str, points: &[Point]) -> Vec<String> {
        let open = self.open(name, points).await;
        let problems = verify(&open, &self.settings, self.worker()).await.expect("verified");
        open.store.close().await.expect("closed");
        problems
    }
}
