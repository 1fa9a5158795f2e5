//! The hot path: names of samples → series. What is known costs no database access; what is missing is made, for the
//! whole batch in one transaction.
//!
//! Memory is trusted only while nothing was deleted: each deletion (of metrics, resources, or a type's attributes)
//! adds to a counter in the database, and what is remembered carries the count at which it was read. This process
//! sees its own deletions at once and those of others within [`DELETIONS_READ_EVERY`], so that a deleted metric is
//! never resurrected from memory.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use moka::future::Cache as MokaCache;
use orzo_database::Transaction;
use orzo_model::{SeriesId, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Attribute, AttributeKind, Index, IndexError, Resource, ResourceType,
    attribute::TEXT_CHARACTERS_MAX,
    repository::{
        advance, change_row, counter, insert_rows,
        metrics::{METRIC_COLUMNS, metric_row},
        policies::{PolicyChoice, to_json},
        resources::{CURRENT, RESOURCE_COLUMNS, insert_resources, is_same, resource_of, resource_uuid, set_attribute},
        types::read_types,
    },
    sql::{CONFLICT_RETRIES, Sql, transact},
};

/// How old the count of deletions by other processes may be.
const DELETIONS_READ_EVERY: Duration = Duration::from_secs(1);
/// Different sayings remembered for one resource; a few definitions share a resource at most.
const HASHES_MAX: usize = 4;
/// Resources read or made in one transaction, so that it stays short.
const RESOURCES_AT_ONCE: usize = 500;

/// A resource that samples name, with their metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceWanted {
    /// Who makes it if it is not there.
    pub creator: String,
    /// UUID or free text, as the samples say.
    pub id: String,
    /// Type it is made with. An existing resource keeps its own, unless that is `generic` (made for a meter that no
    /// definition knew). A type that is not there is made, with the attributes below as optional texts.
    pub resource_type: String,
    /// Owning project; filled in on a resource that has none.
    pub project_id: Option<String>,
    /// Owning user; filled in on a resource that has none.
    pub user_id: Option<String>,
    /// What the samples say about it; merged into what is known. Values that the type does not allow are brought into
    /// its form or left out, so that no sample is lost over an attribute.
    pub attributes: Map<String, Value>,
    /// The oldest time of its samples: a new resource starts at it, if it is past.
    pub first_at: Timestamp,
    /// The newest time of its samples: a resource that ended before it is alive again.
    pub last_at: Timestamp,
    /// Whose series are wanted.
    pub metrics: Vec<MetricWanted>,
}

/// A metric of a wanted resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricWanted {
    /// Name.
    pub name: String,
    /// Policy if it is made; `None`, and one that is not there: the rules choose.
    pub archive_policy_name: Option<String>,
    /// Unit if it is made.
    pub unit: Option<String>,
}

/// A wanted resource, found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The resource.
    pub id: Uuid,
    /// Series in the order of its `metrics`.
    pub series: Vec<SeriesId>,
}

/// What is remembered about a resource.
#[derive(Debug)]
pub(crate) struct Known {
    deletions: u64,
    /// Hashes of what samples said about it that its current state holds already: different meters say different things.
    hashes: Vec<u64>,
    ended_at: Option<Timestamp>,
    metrics: HashMap<Box<str>, SeriesId>,
    /// Whether reading it changed it, so that what was said before may not hold any more.
    changed: bool,
}

pub(crate) type Cache = MokaCache<Uuid, Arc<Known>>;

pub(crate) fn new_cache(resources_max: u64) -> Cache {
    MokaCache::builder().max_capacity(resources_max).build()
}

impl Known {
    /// The series wanted, if nothing about the resource has to be read or changed.
    fn answer(&self, wanted: &ResourceWanted, hash: u64, deletions: u64) -> Option<Vec<SeriesId>> {
        let alive = self.ended_at.is_none_or(|ended_at| wanted.last_at <= ended_at);
        if self.deletions != deletions || !self.hashes.contains(&hash) || !alive {
            return None;
        }
        wanted.metrics.iter().map(|metric| self.metrics.get(metric.name.as_str()).copied()).collect()
    }
}

impl Index {
    /// Finds or makes resources and their metrics; answers in the order of `wanted`.
    pub async fn resolve(&self, wanted: &[ResourceWanted]) -> Result<Vec<Resolved>, IndexError> {
        let deletions = self.deletions().await?;
        let mut answers: Vec<Option<Resolved>> = vec![None; wanted.len()];
        let mut missing = Vec::new();
        for (place, resource) in wanted.iter().enumerate() {
            let id = resource_uuid(&resource.id, &resource.creator)?;
            let hash = hash_of(resource);
            let series = match self.known.get(&id).await {
                Some(known) => known.answer(resource, hash, deletions),
                None => None,
            };
            match series {
                Some(series) => answers[place] = Some(Resolved { id, series }),
                None => missing.push((place, id, hash)),
            }
        }
        while !missing.is_empty() {
            // The same resource twice in one call is seen to in the next round, when its first is in the database.
            let mut ids = HashSet::new();
            let (round, later): (Vec<_>, Vec<_>) =
                missing.into_iter().partition(|(_, id, _)| ids.len() < RESOURCES_AT_ONCE && ids.insert(*id));
            missing = later;
            let asked: Vec<Asked<'_>> =
                round.iter().map(|&(place, id, hash)| Asked { id, hash, wanted: &wanted[place] }).collect();
            let found = self.read_or_make(&asked).await?;
            for ((place, id, _), mut known) in round.into_iter().zip(found) {
                let metrics = wanted[place].metrics.iter();
                let series =
                    metrics.map(|metric| known.metrics.get(metric.name.as_str()).copied()).collect::<Option<_>>();
                let series =
                    series.ok_or_else(|| IndexError::damaged(format!("resource `{id}`"), "a metric is missing"))?;
                if !known.changed
                    && let Some(before) = self.known.get(&id).await
                    && before.deletions == known.deletions
                {
                    let older = before.hashes.iter().filter(|&&hash| hash != known.hashes[0]);
                    let older: Vec<u64> = older.copied().take(HASHES_MAX - 1).collect();
                    known.hashes.extend(older);
                }
                self.known.insert(id, Arc::new(known)).await;
                answers[place] = Some(Resolved { id, series });
            }
        }
        Ok(answers.into_iter().map(|answer| answer.expect("every place was answered or missing")).collect())
    }

    /// Forgets what is remembered about a resource.
    pub(crate) async fn forget(&self, id: Uuid) {
        self.known.invalidate(&id).await;
        self.metrics_known.forget_resource(id);
        self.count_deletions_again();
    }

    /// Something that is remembered may have changed: the count is read again before it is next used.
    pub(crate) fn count_deletions_again(&self) {
        *self.deletions_read_at.lock() = None;
    }

    /// The count of deletions, read from the database now and then.
    pub(crate) async fn deletions(&self) -> Result<u64, IndexError> {
        let now = self.clock.monotonic();
        let is_due =
            self.deletions_read_at.lock().is_none_or(|read_at| now.saturating_sub(read_at) >= DELETIONS_READ_EVERY);
        if is_due {
            let row = self.database.query_one("SELECT next FROM index_counters WHERE name = 'deletions'", &[]).await?;
            let count = row.and_then(|row| row.int("next")).and_then(|count| u64::try_from(count).ok());
            self.saw_deletions(count.ok_or_else(|| IndexError::damaged("index_counters", "`deletions` is missing"))?);
            *self.deletions_read_at.lock() = Some(now);
        }
        Ok(self.deletions_seen.load(Ordering::Acquire))
    }

    async fn read_or_make(&self, asked: &[Asked<'_>]) -> Result<Vec<Known>, IndexError> {
        let _change = self.change();
        let now = self.clock.now();
        let mut attempt = 0;
        loop {
            let outcome = transact!(self.database, |tx| { Attempt::read(tx, asked).await?.make(tx, asked, now).await });
            match outcome {
                // Another process made the same resource or metric at the same time: now it is there to be read.
                Err(error) if error.is_constraint() && attempt < CONFLICT_RETRIES => attempt += 1,
                outcome => return outcome,
            }
        }
    }
}

struct Asked<'a> {
    id: Uuid,
    hash: u64,
    wanted: &'a ResourceWanted,
}

/// What a transaction has read.
struct Attempt {
    deletions: u64,
    types: HashMap<String, ResourceType>,
    resources: HashMap<Uuid, Resource>,
    metrics: HashMap<Uuid, HashMap<Box<str>, SeriesId>>,
}

impl Attempt {
    async fn read(tx: &mut Transaction<'_>, asked: &[Asked<'_>]) -> Result<Self, IndexError> {
        let deletions = counter(tx, "deletions").await?;
        let types = read_types(tx).await?;
        let ids = || asked.iter().map(|asked| asked.id.to_string());
        let mut sql = Sql::new(format!("SELECT {RESOURCE_COLUMNS} FROM {CURRENT} r WHERE r.id IN "));
        sql.push_list(ids());
        let mut resources = HashMap::new();
        for row in tx.query(&sql.text, &sql.values).await? {
            let resource = resource_of(&row)?;
            resources.insert(resource.id, resource);
        }
        let mut sql =
            Sql::new("SELECT resource_id, name, series FROM index_metrics WHERE status = 'active' AND resource_id IN ");
        sql.push_list(ids());
        let mut metrics: HashMap<Uuid, HashMap<Box<str>, SeriesId>> = HashMap::new();
        for row in tx.query(&sql.text, &sql.values).await? {
            if let (Ok(id), Some(series)) = (Uuid::parse_str(&row.string("resource_id")), row.int("series")) {
                let name = row.string("name").into_boxed_str();
                metrics.entry(id).or_default().insert(name, SeriesId(series as u64));
            }
        }
        Ok(Self { deletions, types, resources, metrics })
    }

    /// Writes what is missing or has changed.
    async fn make(
        mut self,
        tx: &mut Transaction<'_>,
        asked: &[Asked<'_>],
        now: Timestamp,
    ) -> Result<Vec<Known>, IndexError> {
        for asked in asked {
            if self.resources.get(&asked.id).is_none_or(|resource| resource.resource_type == "generic") {
                self.make_type(tx, asked.wanted).await?;
            }
        }
        let mut created = Vec::new();
        let mut ended = Vec::new();
        for asked in asked {
            match self.resources.get(&asked.id) {
                None => {
                    let resource = new_resource(asked, &self.types[&asked.wanted.resource_type], now);
                    ended.push((resource.ended_at, true));
                    created.push(resource);
                }
                Some(old) => {
                    let is_generic = old.resource_type == "generic";
                    let name = if is_generic { &asked.wanted.resource_type } else { &old.resource_type };
                    let damaged = || IndexError::damaged(format!("resource `{}`", old.id), "its type is missing");
                    let kind = self.types.get(name).ok_or_else(damaged)?;
                    let mut new = merged(old, asked.wanted, kind);
                    let changed = !is_same(old, &new);
                    if changed {
                        change_row(tx, old, &mut new, kind, now).await?;
                    }
                    ended.push((new.ended_at, changed));
                }
            }
        }
        let with_types: Vec<(&Resource, &ResourceType)> =
            created.iter().map(|resource| (resource, &self.types[&resource.resource_type])).collect();
        insert_resources(tx, &with_types).await?;
        self.make_metrics(tx, asked).await?;
        Ok(asked
            .iter()
            .zip(ended)
            .map(|(asked, (ended_at, changed))| Known {
                deletions: self.deletions,
                hashes: vec![asked.hash],
                ended_at,
                changed,
                metrics: self.metrics.remove(&asked.id).unwrap_or_default(),
            })
            .collect())
    }

    /// Makes a type that is not there, with the attributes that samples bring as optional texts.
    async fn make_type(&mut self, tx: &mut Transaction<'_>, wanted: &ResourceWanted) -> Result<(), IndexError> {
        if self.types.contains_key(&wanted.resource_type) {
            return Ok(());
        }
        let text = AttributeKind::String { min_length: 0, max_length: TEXT_CHARACTERS_MAX };
        let attributes = wanted
            .attributes
            .keys()
            .map(|name| (name.clone(), Attribute { kind: text.clone(), required: false }))
            .collect();
        let kind = ResourceType::new(&wanted.resource_type, attributes)?;
        let sql = "INSERT INTO index_resource_types (name, attributes) VALUES ($1, $2)";
        tx.execute(sql, &[kind.name.as_str().into(), to_json(&kind.attributes)?.into()]).await?;
        tracing::info!(resource_type = kind.name, "made a resource type that definitions name");
        self.types.insert(kind.name.clone(), kind);
        Ok(())
    }

    async fn make_metrics(&mut self, tx: &mut Transaction<'_>, asked: &[Asked<'_>]) -> Result<(), IndexError> {
        let mut missing = Vec::new();
        for asked in asked {
            let known = self.metrics.entry(asked.id).or_default();
            let mut new = HashSet::new();
            for metric in &asked.wanted.metrics {
                if !known.contains_key(metric.name.as_str()) && new.insert(metric.name.as_str()) {
                    missing.push((asked, metric));
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut choice = PolicyChoice::read(tx).await?;
        let first = advance(tx, "series", missing.len() as u64).await?;
        let mut rows = Vec::with_capacity(missing.len());
        for (count, (asked, metric)) in (first..).zip(missing) {
            let series = SeriesId::of_meter(count, metric.name.as_bytes());
            let policy = choice.lenient(metric.archive_policy_name.as_deref(), &metric.name)?;
            let (name, unit) = (Some(metric.name.as_str()), metric.unit.as_deref());
            let creator = &asked.wanted.creator;
            rows.push(metric_row(Uuid::new_v4(), series, name, unit, creator, Some(asked.id), &policy));
            self.metrics.entry(asked.id).or_default().insert(metric.name.as_str().into(), series);
        }
        insert_rows(tx, "index_metrics", METRIC_COLUMNS, rows).await
    }
}

fn new_resource(asked: &Asked<'_>, kind: &ResourceType, now: Timestamp) -> Resource {
    let wanted = asked.wanted;
    let mut attributes = Map::new();
    merge_attributes(&mut attributes, wanted, kind);
    Resource {
        id: asked.id,
        resource_type: kind.name.clone(),
        original_resource_id: wanted.id.clone(),
        creator: wanted.creator.clone(),
        project_id: wanted.project_id.clone(),
        user_id: wanted.user_id.clone(),
        started_at: now.min(wanted.first_at),
        ended_at: None,
        revision_start: now,
        revision_end: None,
        revision: -1,
        attributes,
        metrics: Default::default(),
    }
}

fn merged(old: &Resource, wanted: &ResourceWanted, kind: &ResourceType) -> Resource {
    let mut new = old.clone();
    new.resource_type.clone_from(&kind.name);
    merge_attributes(&mut new.attributes, wanted, kind);
    if new.project_id.is_none() {
        new.project_id.clone_from(&wanted.project_id);
    }
    if new.user_id.is_none() {
        new.user_id.clone_from(&wanted.user_id);
    }
    if new.ended_at.is_some_and(|ended_at| wanted.last_at > ended_at) {
        new.ended_at = None;
    }
    new
}

fn merge_attributes(attributes: &mut Map<String, Value>, wanted: &ResourceWanted, kind: &ResourceType) {
    for (name, value) in &wanted.attributes {
        if let Some(value) = kind.attributes.get(name).and_then(|attribute| attribute.kind.coerce(value)) {
            set_attribute(attributes, name.clone(), value);
        }
    }
}

/// A hash of everything that samples say about a resource. It lives in this process only.
fn hash_of(wanted: &ResourceWanted) -> u64 {
    let mut hasher = DefaultHasher::new();
    wanted.resource_type.hash(&mut hasher);
    wanted.project_id.hash(&mut hasher);
    wanted.user_id.hash(&mut hasher);
    for (name, value) in &wanted.attributes {
        name.hash(&mut hasher);
        value.hash(&mut hasher);
    }
    hasher.finish()
}
