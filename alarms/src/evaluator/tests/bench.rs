//! The world of a script: a store, events, pools and a Prometheus in memory, a manual clock, one or more evaluators.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    Arrivals, Event, EventFeed, InstantQueries, ManualClock, Measure, NumberedEvent, Point, ReadError, Room, Rooms,
    Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader,
};
use parking_lot::Mutex;
use serde_json::Value;

use super::super::{Evaluator, EvaluatorParts, EvaluatorSettings, PoolMembers};
use crate::{
    alarm::{Alarm, AlarmRequest},
    arrivals::ArrivalBox,
    book::AlarmBook,
};

/// A resource with its attributes (`project_id` among them) and the series of its metrics.
#[derive(Default)]
struct Resource {
    attributes: BTreeMap<String, String>,
    metrics: BTreeMap<String, SeriesId>,
}

/// What the evaluators read, in memory.
#[derive(Default)]
pub(crate) struct World {
    resources: Mutex<BTreeMap<String, Resource>>,
    points: Mutex<HashMap<SeriesId, BTreeMap<Timestamp, f64>>>,
    events: Mutex<Vec<NumberedEvent>>,
    pools: Mutex<HashMap<String, Vec<Value>>>,
    queries: Mutex<HashMap<String, Vec<f64>>>,
    asked: Mutex<Vec<String>>,
    is_down: Mutex<bool>,
    reads: Mutex<u64>,
}

/// An evaluator with its letter box; a paused one stands still, as a stopped process does.
struct Worker {
    evaluator: Arc<Evaluator>,
    arrivals: Arc<ArrivalBox>,
    is_paused: bool,
}

/// Everything that a script acts on.
pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) world: Arc<World>,
    pub(crate) book: AlarmBook,
    pub(crate) room: Room,
    workers: Vec<Worker>,
    /// An evaluator that never looks: for showing that scripts notice.
    is_idle: bool,
}

impl Bench {
    pub(crate) async fn new(start: Timestamp, is_idle: bool) -> Self {
        let clock = ManualClock::new(start);
        let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
        let book = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
        let room = Rooms::new(&prometheus::Registry::new()).room("alarms");
        let mut bench = Self { clock, world: Arc::new(World::default()), book, room, workers: Vec::new(), is_idle };
        bench.add_worker();
        bench
    }

    pub(crate) fn add_worker(&mut self) {
        let arrivals = Arc::new(ArrivalBox::default());
        let parts = EvaluatorParts {
            book: self.book.clone(),
            reader: self.world.clone(),
            events: Some(self.world.clone()),
            prometheus: Some(self.world.clone()),
            members: Some(self.world.clone()),
            arrivals: Some(arrivals.clone()),
            clock: self.clock.clone(),
            room: self.room.clone(),
            notices: Arc::default(),
        };
        let settings = EvaluatorSettings { interval_ms: 1_000, lag_ms: 5_000, lease_ms: 15_000 };
        self.workers.push(Worker { evaluator: Evaluator::new(parts, settings), arrivals, is_paused: false });
    }

    /// The process dies: nothing is given back. Another is started.
    pub(crate) fn restart(&mut self) {
        self.workers.clear();
        self.add_worker();
    }

    /// The process ends as it should. Another is started.
    pub(crate) async fn stop(&mut self) {
        for worker in std::mem::take(&mut self.workers) {
            worker.evaluator.release().await.expect("released");
        }
        self.add_worker();
    }

    pub(crate) fn pause(&mut self, worker: usize, is_paused: bool) {
        self.workers[worker].is_paused = is_paused;
    }

    /// All evaluators that are not paused look once.
    pub(crate) async fn tick(&self) {
        if self.is_idle {
            return;
        }
        for worker in self.workers.iter().filter(|worker| !worker.is_paused) {
            worker.evaluator.tick().await.expect("evaluated");
        }
        assert!(self.room.balance().is_conserved(), "{:?}", self.room.balance());
    }

    /// Moves the clock to a time, an evaluation each five seconds, as the leases need it.
    pub(crate) async fn run_to(&self, time: Timestamp) {
        use orzo_model::Clock;
        while self.clock.now().plus(Duration::from_secs(5)) < time {
            let next = self.clock.now().plus(Duration::from_secs(5));
            self.clock.set(next);
            self.tick().await;
        }
        self.clock.set(time);
        self.tick().await;
    }

    pub(crate) async fn create(&self, body: &Value, project: &str, is_operators: bool) -> Alarm {
        let request = AlarmRequest::parse(body, true).unwrap_or_else(|error| panic!("{error}"));
        self.book.create(&request, "u", project, is_operators).await.expect("created")
    }

    pub(crate) fn resource(&self, id: &str, attributes: BTreeMap<String, String>) {
        self.world.resources.lock().entry(id.to_owned()).or_default().attributes.extend(attributes);
    }

    /// Writes samples; the evaluators are told.
    pub(crate) fn write(&self, resource: &str, metric: &str, samples: &[(Timestamp, f64)]) {
        let series = {
            let mut resources = self.world.resources.lock();
            let next = resources.values().map(|resource| resource.metrics.len() as u64).sum::<u64>() + 1;
            let resource = resources.entry(resource.to_owned()).or_default();
            *resource.metrics.entry(metric.to_owned()).or_insert(SeriesId(next))
        };
        let points: Vec<Point> = samples.iter().map(|&(timestamp, value)| Point { series, timestamp, value }).collect();
        self.world.points.lock().entry(series).or_default().extend(samples.iter().copied());
        for worker in &self.workers {
            worker.arrivals.points(&points);
        }
    }

    pub(crate) fn event(&self, event: Event, stored_at: Timestamp) {
        let mut events = self.world.events.lock();
        let number = events.len() as i64 + 1;
        events.push(NumberedEvent { number, stored_at, event });
        drop(events);
        for worker in &self.workers {
            worker.arrivals.events();
        }
    }

    pub(crate) fn set_pool(&self, pool: &str, members: Option<Vec<Value>>) {
        let mut pools = self.world.pools.lock();
        match members {
            Some(members) => pools.insert(pool.to_owned(), members),
            None => pools.remove(pool),
        };
    }

    pub(crate) fn set_query(&self, query: &str, values: Option<Vec<f64>>) {
        let mut queries = self.world.queries.lock();
        match values {
            Some(values) => queries.insert(query.to_owned(), values),
            None => queries.remove(query),
        };
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        *self.world.is_down.lock() = is_down;
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.world.asked.lock().clone()
    }

    pub(crate) fn reads(&self) -> u64 {
        *self.world.reads.lock()
    }
}

impl World {
    fn sees(scope: &Scope, resource: &Resource) -> bool {
        match scope {
            Scope::All => true,
            Scope::Project(project) => resource.attributes.get("project_id").is_none_or(|owner| owner == project),
            Scope::Owner(_) | Scope::Maker(_) | Scope::Creator(_) | Scope::Nothing => false,
        }
    }

    fn up(&self) -> Result<(), ReadError> {
        if *self.is_down.lock() { Err(ReadError::Unavailable { reason: "down".into() }) } else { Ok(()) }
    }
}

/// `{}`, `{"=": {name: value}}` and `and` of these.
fn finds(search: &Value, resource: &Resource, id: &str) -> bool {
    let Some((operator, of)) = search.as_object().and_then(|fields| fields.iter().next()) else { return true };
    match (operator.as_str(), of) {
        ("and", Value::Array(parts)) => parts.iter().all(|part| finds(part, resource, id)),
        ("or", Value::Array(parts)) => parts.iter().any(|part| finds(part, resource, id)),
        ("=", Value::Object(pair)) => pair.iter().all(|(name, value)| {
            let own = if name == "id" { Some(id) } else { resource.attributes.get(name).map(String::as_str) };
            own == value.as_str()
        }),
        _ => panic!("the script's store does not know {search}"),
    }
}

fn statistic(method: &str, values: &[f64]) -> f64 {
    let count = values.len() as f64;
    match method {
        "mean" => values.iter().sum::<f64>() / count,
        "sum" => values.iter().sum(),
        "count" => count,
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "last" => values[values.len() - 1],
        "first" => values[0],
        other => panic!("the script's store does not know {other}"),
    }
}

fn windowed(points: &[(Timestamp, f64)], read: &WindowRead) -> Vec<Measure> {
    let (points, method): (Vec<(Timestamp, f64)>, &str) = match read.aggregation.strip_prefix("rate:") {
        None => (points.to_vec(), &read.aggregation),
        Some(method) => (points.windows(2).map(|pair| (pair[1].0, pair[1].1 - pair[0].1)).collect(), method),
    };
    let mut buckets: BTreeMap<Timestamp, Vec<f64>> = BTreeMap::new();
    for (time, value) in points {
        let start = time.floor(read.granularity);
        if start >= read.start.floor(read.granularity) && start < read.stop {
            buckets.entry(start).or_default().push(value);
        }
    }
    buckets.into_iter().map(|(timestamp, values)| Measure { timestamp, value: statistic(method, &values) }).collect()
}

#[async_trait]
impl WindowReader for World {
    async fn find_series(&self, scope: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        self.up()?;
        let resources = self.resources.lock();
        let not_found = |what: String| Err(ReadError::NotFound { what });
        match target {
            Target::Resource { resource_id, metric } => {
                match resources.get(resource_id).filter(|resource| Self::sees(scope, resource)) {
                    None => not_found(format!("Resource {resource_id}")),
                    Some(resource) => match resource.metrics.get(metric) {
                        None => not_found(format!("Metric {metric}")),
                        Some(series) => Ok(Arc::from([*series])),
                    },
                }
            }
            // A metric's id is `<resource>/<name>` here.
            Target::Metrics(ids) => {
                let mut found = Vec::new();
                for id in ids {
                    let (resource, metric) = id.split_once('/').expect("resource/metric");
                    let resource = resources.get(resource).filter(|resource| Self::sees(scope, resource));
                    match resource.and_then(|resource| resource.metrics.get(metric)) {
                        Some(series) => found.push(*series),
                        None => return not_found(format!("Metric {id}")),
                    }
                }
                Ok(found.into())
            }
            Target::Group { metric, search, .. } => {
                let search: Value = serde_json::from_str(search).expect("JSON");
                if search.get("broken").is_some() {
                    return Err(ReadError::Invalid { reason: "bad search".into() });
                }
                let found: Vec<SeriesId> = resources
                    .iter()
                    .filter(|(id, resource)| Self::sees(scope, resource) && finds(&search, resource, id))
                    .filter_map(|(_, resource)| resource.metrics.get(metric).copied())
                    .collect();
                if found.is_empty() { not_found(format!("Metric [{metric}]")) } else { Ok(found.into()) }
            }
        }
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        *self.reads.lock() += reads.len() as u64;
        reads
            .iter()
            .map(|read| {
                self.up()?;
                let points = self.points.lock();
                let series: Vec<Vec<Measure>> = read
                    .series
                    .iter()
                    .map(|series| {
                        let points: Vec<(Timestamp, f64)> =
                            points.get(series).into_iter().flatten().map(|(time, value)| (*time, *value)).collect();
                        windowed(&points, read)
                    })
                    .collect();
                let Some(over) = &read.reaggregation else { return Ok(series.into_iter().next().unwrap_or_default()) };
                let mut rows: BTreeMap<Timestamp, Vec<f64>> = BTreeMap::new();
                for measure in series.into_iter().flatten() {
                    rows.entry(measure.timestamp).or_default().push(measure.value);
                }
                let method = over.strip_prefix("rate:").unwrap_or(over);
                let results: Vec<Measure> = rows
                    .into_iter()
                    .map(|(timestamp, values)| Measure { timestamp, value: statistic(method, &values) })
                    .collect();
                if !over.starts_with("rate:") {
                    return Ok(results);
                }
                let difference =
                    |pair: &[Measure]| Measure { timestamp: pair[1].timestamp, value: pair[1].value - pair[0].value };
                Ok(results.windows(2).map(difference).collect())
            })
            .collect()
    }
}

#[async_trait]
impl EventFeed for World {
    async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, ReadError> {
        self.up()?;
        let events = self.events.lock();
        Ok(events.iter().filter(|event| event.number > number).take(limit).cloned().collect())
    }

    async fn newest_event(&self) -> Result<i64, ReadError> {
        self.up()?;
        Ok(self.events.lock().len() as i64)
    }

    async fn events_between(
        &self,
        project_id: &str,
        start: Timestamp,
        stop: Timestamp,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError> {
        let events = self.events.lock();
        let mut found: Vec<Event> = events
            .iter()
            .map(|numbered| &numbered.event)
            .filter(|event| event.text("project_id").as_deref() == Some(project_id))
            .filter(|event| event.generated_at >= start && event.generated_at < stop)
            .take(limit)
            .cloned()
            .collect();
        found.sort_by_key(|event| event.generated_at);
        Ok(found)
    }
}

#[async_trait]
impl PoolMembers for World {
    async fn members(&self, pool_id: &str) -> Result<Vec<Value>, String> {
        self.pools.lock().get(pool_id).cloned().ok_or_else(|| "no such pool".to_owned())
    }
}

#[async_trait]
impl InstantQueries for World {
    async fn instant(&self, scope: &Scope, query: &str, _at: Timestamp) -> Result<Vec<f64>, ReadError> {
        let within = match scope {
            Scope::All => "all",
            Scope::Project(project) => project,
            other => panic!("an alarm that looks at {other:?}"),
        };
        self.asked.lock().push(format!("{within} {query}"));
        match query.contains("refused") {
            true => Err(ReadError::Invalid { reason: "it is refused".to_owned() }),
            false => self
                .queries
                .lock()
                .get(query)
                .cloned()
                .ok_or_else(|| ReadError::Unavailable { reason: "it is down".to_owned() }),
        }
    }
}
