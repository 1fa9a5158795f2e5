//! What is said about label sets besides their points: metadata of metrics' names, and exemplars of series.
//!
//! Both belong to a project and are bounded for each: metadata by names, exemplars by number, of which the newest stay
//! (Prometheus keeps a ring of as many). What was kept is durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use orzo_database::{Row, Value};
use orzo_model::{Exemplar, MetricMetadata, Scope, SeriesId, Timestamp};
use parking_lot::Mutex;

use crate::{
    Index, IndexError,
    sql::{Sql, inserts, transact},
};

/// Names with metadata of one project; Prometheus' own targets have some hundreds.
pub const METADATA_NAMES_MAX: usize = 10_000;
/// Bytes of a name with metadata: as long as a label's name may be.
const NAME_BYTES_MAX: usize = 1_024;
/// Projects whose metadata is remembered, to tell what is new without asking the database; with more, all are forgotten.
const PROJECTS_KNOWN_MAX: usize = 100;
/// Exemplars of one project; Prometheus' own default is the same.
pub const EXEMPLARS_MAX: usize = 100_000;
/// So many more are there before the oldest are removed, so that not each request removes some.
const EXEMPLARS_BEYOND_MAX: u64 = 1_000;

/// What is remembered of metadata and exemplars.
#[derive(Default)]
pub(crate) struct Annotations {
    /// Metadata as it was last written or read, by project and name.
    known: Mutex<HashMap<String, Arc<HashMap<String, MetricMetadata>>>>,
    /// Exemplars that came since the oldest were removed.
    unswept: Mutex<HashMap<String, u64>>,
}

impl Index {
    /// Keeps what names of a project mean; what is kept already changes nothing. Gives how many names there was no room
    /// for.
    pub async fn keep_metadata(
        &self,
        project: &str,
        metadata: &BTreeMap<String, MetricMetadata>,
    ) -> Result<u64, IndexError> {
        if metadata.is_empty() {
            return Ok(0);
        }
        let known = self.known_metadata(project).await?;
        let (mut left, mut refused) = (METADATA_NAMES_MAX.saturating_sub(known.len()), 0);
        let mut changed = Vec::new();
        for (name, one) in metadata {
            match known.get(name) {
                Some(same) if same == one => continue,
                Some(_) => {}
                None if left == 0 || name.len() > NAME_BYTES_MAX || name.contains('\0') => {
                    refused += 1;
                    continue;
                }
                None => left -= 1,
            }
            changed.push((name, one));
        }
        if changed.is_empty() {
            return Ok(refused);
        }
        let row = |(name, one): &(&String, &MetricMetadata)| {
            vec![
                project.into(),
                (*name).into(),
                one.kind.as_str().into(),
                one.help.as_str().into(),
                one.unit.as_str().into(),
            ]
        };
        let rows: Vec<Vec<Value>> = changed.iter().map(row).collect();
        let suffix = "ON CONFLICT (project, name) DO UPDATE SET kind = excluded.kind, help = excluded.help, \
                      unit = excluded.unit";
        transact!(self.database, |tx| {
            for sql in inserts("index_metadata", &["project", "name", "kind", "help", "unit"], suffix, rows.clone()) {
                tx.execute(&sql.text, &sql.values).await?;
            }
            Ok(())
        })?;
        let mut merged = (*known).clone();
        merged.extend(changed.into_iter().map(|(name, one)| (name.clone(), one.clone())));
        self.annotations.known.lock().insert(project.to_owned(), Arc::new(merged));
        Ok(refused)
    }

    /// What names mean within a scope; in several projects one name may mean several things.
    pub async fn metadata(
        &self,
        scope: &Scope,
        name: Option<&str>,
    ) -> Result<BTreeMap<String, BTreeSet<MetricMetadata>>, IndexError> {
        let mut found: BTreeMap<String, BTreeSet<MetricMetadata>> = BTreeMap::new();
        let mut sql = Sql::new("SELECT name, kind, help, unit FROM index_metadata WHERE 1 = 1");
        if !push_owner(scope, &mut sql) {
            return Ok(found);
        }
        if let Some(name) = name {
            let place = sql.bind(name.replace('\0', ""));
            sql.push(&format!(" AND name = {place}"));
        }
        sql.push(&format!(" ORDER BY name LIMIT {METADATA_NAMES_MAX}"));
        for row in self.database.query(&sql.text, &sql.values).await? {
            found.entry(row.string("name")).or_default().insert(metadata_of(&row));
        }
        Ok(found)
    }

    async fn known_metadata(&self, project: &str) -> Result<Arc<HashMap<String, MetricMetadata>>, IndexError> {
        if let Some(known) = self.annotations.known.lock().get(project) {
            return Ok(known.clone());
        }
        let sql = "SELECT name, kind, help, unit FROM index_metadata WHERE project = $1";
        let rows = self.database.query(sql, &[project.into()]).await?;
        let read: HashMap<_, _> = rows.iter().map(|row| (row.string("name"), metadata_of(row))).collect();
        let read = Arc::new(read);
        let mut known = self.annotations.known.lock();
        if known.len() >= PROJECTS_KNOWN_MAX {
            known.clear();
        }
        known.insert(project.to_owned(), read.clone());
        Ok(read)
    }

    /// Keeps exemplars of a project's series; those that are kept already change nothing. Of more than [`EXEMPLARS_MAX`]
    /// the oldest go.
    pub async fn keep_exemplars(&self, project: &str, exemplars: &[(SeriesId, Exemplar)]) -> Result<(), IndexError> {
        if exemplars.is_empty() {
            return Ok(());
        }
        // One statement must not name a key twice.
        let mut rows: BTreeMap<(i64, i64, String), Vec<Value>> = BTreeMap::new();
        for (series, one) in exemplars {
            let labels: serde_json::Map<String, serde_json::Value> =
                one.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let labels = serde_json::Value::from(labels).to_string();
            let (number, at) = (series.0.cast_signed(), one.at.micros());
            let bits = one.value.to_bits().cast_signed();
            let row = vec![project.into(), number.into(), at.into(), labels.as_str().into(), bits.into()];
            rows.insert((number, at, labels), row);
        }
        let rows: Vec<Vec<Value>> = rows.into_values().collect();
        let is_to_sweep = {
            let mut unswept = self.annotations.unswept.lock();
            // Nobody knows what was there at the start.
            let count = unswept.entry(project.to_owned()).or_insert(EXEMPLARS_BEYOND_MAX);
            *count += rows.len() as u64;
            *count > EXEMPLARS_BEYOND_MAX
        };
        let suffix = "ON CONFLICT (series, at, labels) DO UPDATE SET value_bits = excluded.value_bits";
        let columns = ["project", "series", "at", "labels", "value_bits"];
        transact!(self.database, |tx| {
            for sql in inserts("index_exemplars", &columns, suffix, rows.clone()) {
                tx.execute(&sql.text, &sql.values).await?;
            }
            if is_to_sweep {
                let oldest = format!(
                    "SELECT at FROM index_exemplars WHERE project = $1 ORDER BY at DESC LIMIT 1 OFFSET {EXEMPLARS_MAX}"
                );
                if let Some(at) = tx.query_one(&oldest, &[project.into()]).await?.and_then(|row| row.int("at")) {
                    let sql = "DELETE FROM index_exemplars WHERE project = $1 AND at <= $2";
                    tx.execute(sql, &[project.into(), at.into()]).await?;
                }
            }
            Ok(())
        })?;
        if is_to_sweep {
            self.annotations.unswept.lock().insert(project.to_owned(), 0);
        }
        Ok(())
    }

    /// Exemplars within a scope and from one time to another, both inclusive, by series and time; of more than
    /// [`EXEMPLARS_MAX`] the newest.
    pub async fn exemplars(
        &self,
        scope: &Scope,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Exemplar)>, IndexError> {
        let mut sql = Sql::new("SELECT series, at, labels, value_bits FROM index_exemplars WHERE 1 = 1");
        if !push_owner(scope, &mut sql) {
            return Ok(Vec::new());
        }
        let (from, to) = (sql.bind(from), sql.bind(to));
        sql.push(&format!(" AND at >= {from} AND at <= {to} ORDER BY at DESC LIMIT {EXEMPLARS_MAX}"));
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let mut found = rows.iter().map(exemplar_of).collect::<Result<Vec<_>, _>>()?;
        found.sort_by_key(|(series, one)| (*series, one.at));
        Ok(found)
    }
}

/// Adds ` AND project = ...`; `false` if nothing is seen at all.
fn push_owner(scope: &Scope, sql: &mut Sql) -> bool {
    match scope {
        Scope::All => true,
        Scope::Project(project) | Scope::Owner(project) | Scope::Maker(project) => {
            let place = sql.bind(project.as_str());
            sql.push(&format!(" AND project = {place}"));
            true
        }
        // Label sets belong to projects, and to nobody else.
        Scope::Creator(_) | Scope::Nothing => false,
    }
}

fn metadata_of(row: &Row) -> MetricMetadata {
    MetricMetadata { kind: row.string("kind"), help: row.string("help"), unit: row.string("unit") }
}

fn exemplar_of(row: &Row) -> Result<(SeriesId, Exemplar), IndexError> {
    let damaged = || IndexError::damaged("index_exemplars", "a row cannot be read");
    let labels: BTreeMap<String, String> = serde_json::from_str(&row.string("labels")).map_err(|_| damaged())?;
    let number = |column: &str| row.int(column).ok_or_else(damaged);
    let exemplar = Exemplar {
        labels: labels.into_iter().collect(),
        value: f64::from_bits(number("value_bits")?.cast_unsigned()),
        at: Timestamp::from_micros(number("at")?),
    };
    Ok((SeriesId(number("series")?.cast_unsigned()), exemplar))
}
