//! All metrics with what is said of their resources, page by page: the names beside the points, for whoever reads points as
//! tables. Narrowed by what an index can find; for operators, so without a scope.

use std::collections::VecDeque;

use orzo_model::SeriesId;
use serde::Deserialize;

use crate::{Index, IndexError, sql::Sql};

/// Rows of one page: their JSON comes in one cell. In tests a few are many.
const PAGE_ROWS: usize = if cfg!(test) { 4 } else { 4096 };
/// Resources whose metrics are read by one statement, some ten each.
const RESOURCES_AT_ONCE: usize = if cfg!(test) { 3 } else { 200 };
/// Metrics that one statement names.
const LISTED_AT_ONCE: usize = 500;

/// A metric and what is said of its resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CatalogRow {
    /// Its number in the store.
    pub series: SeriesId,
    /// Its UUID.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// The policy by which it is aggregated.
    pub archive_policy: String,
    /// The UUID of its resource.
    pub resource_id: Option<String>,
    /// The text that the resource was created with.
    pub original_resource_id: Option<String>,
    /// The type of the resource.
    pub resource_type: Option<String>,
    /// Who owns the resource.
    pub project_id: Option<String>,
    /// Whose resource it is within the project.
    pub user_id: Option<String>,
    /// The resource's attributes, as a JSON object.
    pub attributes: Option<String>,
    /// Since when the resource exists, microseconds.
    pub started_at: Option<i64>,
    /// Until when it existed, microseconds.
    pub ended_at: Option<i64>,
}

/// Which metrics are wanted; of several lists a metric must be in all. Others may be given as well: whoever asks looks again.
#[derive(Clone, Debug, Default)]
pub struct CatalogWanted {
    /// Series numbers.
    pub series: Option<Vec<i64>>,
    /// UUIDs of metrics.
    pub ids: Option<Vec<String>>,
    /// UUIDs of resources.
    pub resource_ids: Option<Vec<String>>,
    /// Texts that resources were created with.
    pub original_resource_ids: Option<Vec<String>>,
    /// Names of metrics.
    pub names: Option<Vec<String>>,
    /// Owners of resources.
    pub project_ids: Option<Vec<String>>,
}

/// What is still to be read.
#[derive(Debug)]
enum Stretch {
    /// Metrics whose column is one of these.
    Listed { column: &'static str, values: Vec<orzo_database::Value> },
    /// Metrics of this name, after this id.
    Named { name: String, after: String },
    /// Metrics with any name, after this name and id.
    AnyName { after: (String, String) },
    /// Metrics without a name, after this id.
    Nameless { after: String },
    /// Resources of this owner, after this id.
    Owned { project: String, after: String },
    /// Resources that were created with these texts.
    Originals { texts: Vec<String> },
}

/// A walk through the catalog.
pub struct Catalog<'i> {
    index: &'i Index,
    left: VecDeque<Stretch>,
}

const COLUMNS: [&str; 13] = [
    "series",
    "id",
    "name",
    "unit",
    "archive_policy",
    "resource_id",
    "original_resource_id",
    "resource_type",
    "project_id",
    "user_id",
    "attributes",
    "started_at",
    "ended_at",
];

const SELECT: &str = "SELECT m.series AS series, m.id AS id, m.name AS name, m.unit AS unit, \
     m.archive_policy_name AS archive_policy, m.resource_id AS resource_id, \
     r.original_resource_id AS original_resource_id, r.type AS resource_type, r.project_id AS project_id, \
     r.user_id AS user_id, r.attributes AS attributes, r.started_at AS started_at, r.ended_at AS ended_at \
     FROM index_metrics m LEFT JOIN index_resources r ON r.id = m.resource_id WHERE m.status = 'active'";

impl Index {
    /// Begins a walk through the active metrics that are wanted, by the shortest way that an index knows.
    pub fn catalog(&self, wanted: &CatalogWanted) -> Catalog<'_> {
        let listed = |column, values: Vec<orzo_database::Value>| -> VecDeque<Stretch> {
            values.chunks(LISTED_AT_ONCE).map(|values| Stretch::Listed { column, values: values.to_vec() }).collect()
        };
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let left = match wanted {
            CatalogWanted { series: Some(series), .. } => {
                listed("m.series", series.iter().map(|series| (*series).into()).collect())
            }
            CatalogWanted { ids: Some(ids), .. } => listed("m.id", texts(ids)),
            CatalogWanted { resource_ids: Some(ids), .. } => of_resources(ids.clone()).into(),
            CatalogWanted { original_resource_ids: Some(all), .. } => {
                all.chunks(LISTED_AT_ONCE).map(|texts| Stretch::Originals { texts: texts.to_vec() }).collect()
            }
            CatalogWanted { names: Some(names), .. } => {
                names.iter().map(|name| Stretch::Named { name: name.clone(), after: String::new() }).collect()
            }
            CatalogWanted { project_ids: Some(projects), .. } => {
                let owned = |project: &String| Stretch::Owned { project: project.clone(), after: String::new() };
                projects.iter().map(owned).collect()
            }
            _ => {
                [Stretch::AnyName { after: (String::new(), String::new()) }, Stretch::Nameless { after: String::new() }]
                    .into()
            }
        };
        Catalog { index: self, left }
    }
}

fn of_resources(ids: Vec<String>) -> Vec<Stretch> {
    let listed = |ids: &[String]| Stretch::Listed {
        column: "m.resource_id",
        values: ids.iter().map(|id| id.as_str().into()).collect(),
    };
    ids.chunks(RESOURCES_AT_ONCE).map(listed).collect()
}

impl Catalog<'_> {
    /// The next rows, perhaps none; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<CatalogRow>>, IndexError> {
        let Some(stretch) = self.left.pop_front() else { return Ok(None) };
        let mut sql = Sql::new(SELECT);
        match stretch {
            Stretch::Listed { column, values } => {
                sql.push(&format!(" AND {column} IN ")).push_list(values);
                return self.rows(&sql, usize::MAX).await.map(Some);
            }
            Stretch::Named { name, after } => {
                let (of, from, limit) = (sql.bind(name.as_str()), sql.bind(after), sql.bind(PAGE_ROWS as i64));
                sql.push(&format!(" AND m.name = {of} AND m.id > {from} ORDER BY m.id LIMIT {limit}"));
                let rows = self.rows(&sql, PAGE_ROWS).await?;
                if let Some(last) = full(&rows) {
                    self.left.push_front(Stretch::Named { name, after: last.id.clone() });
                }
                Ok(Some(rows))
            }
            Stretch::AnyName { after } => {
                let (name, id, limit) = (sql.bind(after.0), sql.bind(after.1), sql.bind(PAGE_ROWS as i64));
                sql.push(&format!(" AND (m.name, m.id) > ({name}, {id}) ORDER BY m.name, m.id LIMIT {limit}"));
                let rows = self.rows(&sql, PAGE_ROWS).await?;
                if let Some(last) = full(&rows) {
                    let after = (last.name.clone().unwrap_or_default(), last.id.clone());
                    self.left.push_front(Stretch::AnyName { after });
                }
                Ok(Some(rows))
            }
            Stretch::Nameless { after } => {
                let (from, limit) = (sql.bind(after), sql.bind(PAGE_ROWS as i64));
                sql.push(&format!(" AND m.name IS NULL AND m.id > {from} ORDER BY m.id LIMIT {limit}"));
                let rows = self.rows(&sql, PAGE_ROWS).await?;
                if let Some(last) = full(&rows) {
                    self.left.push_front(Stretch::Nameless { after: last.id.clone() });
                }
                Ok(Some(rows))
            }
            Stretch::Owned { project, after } => {
                let mut sql = Sql::new("SELECT id FROM index_resources WHERE project_id = ");
                let (of, from, limit) = (sql.bind(project.as_str()), sql.bind(after), sql.bind(PAGE_ROWS as i64));
                sql.push(&format!("{of} AND id > {from} ORDER BY id LIMIT {limit}"));
                let ids = self.ids(&sql).await?;
                if ids.len() == PAGE_ROWS {
                    let after = ids.last().cloned().unwrap_or_default();
                    self.left.push_front(Stretch::Owned { project, after });
                }
                of_resources(ids).into_iter().rev().for_each(|stretch| self.left.push_front(stretch));
                Ok(Some(Vec::new()))
            }
            Stretch::Originals { texts } => {
                let mut sql = Sql::new("SELECT id FROM index_resources WHERE original_resource_id IN ");
                sql.push_texts(self.index.is_sqlite(), texts);
                let ids = self.ids(&sql).await?;
                of_resources(ids).into_iter().rev().for_each(|stretch| self.left.push_front(stretch));
                Ok(Some(Vec::new()))
            }
        }
    }

    async fn rows(&self, sql: &Sql, limit: usize) -> Result<Vec<CatalogRow>, IndexError> {
        self.index.rows("a page of the catalog", sql, &COLUMNS, limit).await
    }

    async fn ids(&self, sql: &Sql) -> Result<Vec<String>, IndexError> {
        let rows = self.index.database.query(&sql.text, &sql.values).await?;
        Ok(rows.iter().map(|row| row.string("id")).collect())
    }
}

/// The last row of a page after which there may be more.
fn full(rows: &[CatalogRow]) -> Option<&CatalogRow> {
    rows.last().filter(|_| rows.len() == PAGE_ROWS)
}
