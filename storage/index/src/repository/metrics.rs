//! Metrics: made, attached to resources, listed, marked deleted, and forgotten once their points are gone.

pub(crate) mod catalog;
pub(crate) mod known;
pub(crate) mod listing;

use std::{collections::HashMap, sync::Arc};

use orzo_database::{Row, Transaction, Value};
use orzo_model::{Scope, SeriesId, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    advance, counter, insert_rows,
    paging::{Page, Sort, SortKey, bad_page, stretches},
    policies::{PolicyChoice, no_policy_named},
    push_scope,
    resources::{MetricSource, created_by_project, created_by_user},
};
use listing::Listing;

use crate::{
    ArchivePolicy, Index, IndexError,
    filter::Column,
    sql::{Sql, transact},
};

/// Longest unit (Gnocchi's column).
const UNIT_CHARACTERS_MAX: usize = 31;
/// Different names that one question gives; meters are some hundred.
const NAMES_MAX: i64 = 100_000;
/// Longest name of a metric.
const NAME_CHARACTERS_MAX: usize = 255;

pub(crate) const METRIC_COLUMNS: &[&str] = &[
    "id",
    "series",
    "name",
    "unit",
    "creator",
    "created_by_user_id",
    "created_by_project_id",
    "resource_id",
    "archive_policy_name",
    "status",
];
/// A series under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its UUID.
    pub id: Uuid,
    /// Its number in the store.
    pub series: SeriesId,
    /// Its name; always there if it has a resource.
    pub name: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// Who created it.
    pub creator: String,
    /// How it is aggregated.
    pub archive_policy: Arc<ArchivePolicy>,
    /// The resource that it belongs to.
    pub resource_id: Option<Uuid>,
    /// The project that owns that resource.
    pub resource_project_id: Option<String>,
}

/// A metric to be made.
#[derive(Clone, Debug, Default)]
pub struct NewMetric {
    /// Who makes it.
    pub creator: String,
    /// Its name.
    pub name: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// The resource that it belongs to.
    pub resource_id: Option<Uuid>,
    /// Its policy; `None`: the rules choose.
    pub archive_policy_name: Option<String>,
}

/// A question about metrics; what is `None` does not matter.
#[derive(Clone, Debug)]
pub struct MetricQuery {
    /// How far it may look.
    pub scope: Scope,
    /// One of these.
    pub ids: Option<Vec<Uuid>>,
    /// Of one of these resources.
    pub resource_ids: Option<Vec<Uuid>>,
    /// Has this name.
    pub name: Option<String>,
    /// Has this unit.
    pub unit: Option<String>,
    /// Was made by this creator.
    pub creator: Option<String>,
    /// Was made by this user.
    pub user_id: Option<String>,
    /// Was made by this project.
    pub project_id: Option<String>,
    /// Has this policy.
    pub archive_policy_name: Option<String>,
    /// Marked deleted instead of active.
    pub deleted: bool,
    /// Which page.
    pub page: Page,
}

/// How many metrics have this project, type and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricCount {
    /// Owner of their resources.
    pub project_id: Option<String>,
    /// Type of their resources; `None` of metrics without one.
    pub resource_type: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// How many.
    pub count: u64,
}

impl MetricQuery {
    /// All active metrics within a scope.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            ids: None,
            resource_ids: None,
            name: None,
            unit: None,
            creator: None,
            user_id: None,
            project_id: None,
            archive_policy_name: None,
            deleted: false,
            page: Page::default(),
        }
    }
}

impl Index {
    /// Makes a metric, free or of a resource.
    pub async fn create_metric(&self, new: &NewMetric) -> Result<Metric, IndexError> {
        let _change = self.change();
        let id = Uuid::new_v4();
        check_names(new.name.as_deref(), new.unit.as_deref())?;
        if new.resource_id.is_some() && new.name.is_none() {
            return Err(IndexError::Invalid {
                cause: "Attribute value error".into(),
                reason: "Name cannot be null if resource_id is not null".into(),
                detail: "name".into(),
            });
        }
        let taken = || IndexError::Invalid {
            cause: "Named metric already exists".into(),
            reason: String::new(),
            detail: new.name.clone().unwrap_or_default().into(),
        };
        let meter = new.name.as_deref().unwrap_or_default();
        let series = SeriesId::of_meter(self.next_series(1).await?, meter.as_bytes());
        transact!(self.database, |tx| {
            let mut resource_project_id = None;
            if let (Some(resource), Some(name)) = (new.resource_id, &new.name) {
                let known = "SELECT project_id FROM index_resources WHERE id = $1";
                let row = tx.query_one(known, &[resource.to_string().into()]).await?;
                let row = row.ok_or_else(|| IndexError::not_found(format!("Resource {resource}")))?;
                resource_project_id = row.text("project_id");
                if has_metric(tx, resource, name).await? {
                    return Err(taken());
                }
            }
            let policy = match &new.archive_policy_name {
                Some(asked) => asked.clone(),
                None => PolicyChoice::read(tx).await?.strict(None, new.name.as_deref())?,
            };
            let known = "SELECT * FROM index_archive_policies WHERE name = $1";
            let archive_policy = match tx.query_one(known, &[policy.as_str().into()]).await? {
                Some(row) => self.known_policy_of(&row)?,
                None => return Err(no_policy_named(&policy)),
            };
            let (name, unit) = (new.name.as_deref(), new.unit.as_deref());
            let row = metric_row(id, series, name, unit, &new.creator, new.resource_id, &policy);
            insert_rows(tx, "index_metrics", METRIC_COLUMNS, vec![row]).await?;
            Ok(Metric {
                id,
                series,
                name: new.name.clone(),
                unit: new.unit.clone(),
                creator: new.creator.clone(),
                archive_policy,
                resource_id: new.resource_id,
                resource_project_id,
            })
        })
        .map_err(|error: IndexError| if error.is_constraint() { taken() } else { error })
    }

    /// One active metric.
    pub async fn metric(&self, scope: &Scope, id: Uuid) -> Result<Metric, IndexError> {
        let query = MetricQuery { ids: Some(vec![id]), ..MetricQuery::new(scope.clone()) };
        self.metrics(&query).await?.pop().ok_or_else(|| no_metric(id))
    }

    /// The active metric of this name of a resource.
    pub async fn metric_of_resource(&self, scope: &Scope, resource_id: Uuid, name: &str) -> Result<Metric, IndexError> {
        let query = MetricQuery {
            resource_ids: Some(vec![resource_id]),
            name: Some(name.to_owned()),
            ..MetricQuery::new(scope.clone())
        };
        self.metrics(&query).await?.pop().ok_or_else(|| IndexError::not_found(format!("Metric {name}")))
    }

    /// One page of metrics, by id unless the page says otherwise.
    pub async fn metrics(&self, query: &MetricQuery) -> Result<Vec<Metric>, IndexError> {
        let limit = query.page.limit.unwrap_or(usize::MAX).min(self.settings.page_max);
        self.find_metrics(query, limit).await
    }

    /// Metrics beyond the page limit, at most `limit`; for aggregation over groups.
    pub async fn all_metrics(&self, query: &MetricQuery, limit: usize) -> Result<Vec<Metric>, IndexError> {
        self.find_metrics(query, limit).await
    }

    async fn find_metrics(&self, query: &MetricQuery, limit: usize) -> Result<Vec<Metric>, IndexError> {
        let keys = sort_keys(&query.page.sort)?;
        let mut after = None;
        if let Some(marker) = &query.page.marker {
            let invalid = || bad_page(&format!("Invalid marker: `{marker}'"));
            let id = Uuid::parse_str(marker).map_err(|_| invalid())?;
            let mut found = Sql::new("SELECT ");
            for (place, key) in keys.iter().enumerate() {
                let text = key.expression(&mut found);
                found.push(&format!("{}{text} AS k{place}", if place > 0 { ", " } else { "" }));
            }
            let place = found.bind(id.to_string());
            found
                .push(" FROM index_metrics m LEFT JOIN index_resources r ON r.id = m.resource_id WHERE m.id = ")
                .push(&place);
            push_scope(&query.scope, "m", &mut found);
            let row = self.database.query_one(&found.text, &found.values).await?.ok_or_else(invalid)?;
            let cells = keys.iter().enumerate().map(|(place, key)| key.cell(&row, &format!("k{place}")));
            after = Some(cells.collect::<Vec<Value>>());
        }
        let listing = Listing { query, keys, marker: after, is_sqlite: self.is_sqlite() };
        if let Some(sql) = listing.named(limit) {
            return self.read_metrics(sql, limit).await;
        }
        if let Some(ids) = self.short_list(listing.needed()).await? {
            return self.read_metrics(listing.among(ids, limit), limit).await;
        }
        let mut found = Vec::new();
        let first = listing.marker.as_ref().map(|marker| &marker[0]);
        for (stretch, at_marker) in stretches(&listing.keys[0], first) {
            let rest = limit - found.len();
            if rest > 0 {
                found.extend(self.read_metrics(listing.stretch(stretch, at_marker, rest), rest).await?);
            }
        }
        Ok(found)
    }

    async fn read_metrics(&self, sql: Sql, limit: usize) -> Result<Vec<Metric>, IndexError> {
        let stored: Vec<Stored> = self.rows("a list of metrics", &sql, &STORED, limit).await?;
        let policies = self.policies_named(stored.iter().map(|stored| stored.archive_policy_name.as_str())).await?;
        stored.into_iter().map(|stored| stored.metric(&policies)).collect()
    }

    /// Names that active metrics of resources have within a scope, each once, in their order. Of many metrics the names
    /// are few: each is found by one step through the index of names, from the one before.
    pub async fn metric_names(&self, scope: &Scope) -> Result<Vec<String>, IndexError> {
        let short = match listing::visible(scope) {
            Some(visible) => self.short_list(vec![visible]).await?,
            None => None,
        };
        let sql = match short {
            Some(ids) => names_among(ids),
            None => names_by_steps(scope),
        };
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let mut names: Vec<String> = rows.iter().filter_map(|row| row.text("metric_name")).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// How many active metrics a scope sees, by project, type of resource and name; at most `limit` rows, the largest.
    ///
    /// Reads every metric that the scope sees: for people who look, not for every request.
    pub async fn metric_counts(&self, scope: &Scope, limit: usize) -> Result<Vec<MetricCount>, IndexError> {
        let mut sql = Sql::new(
            "SELECT r.project_id AS project, r.type AS type, m.name AS name, count(*) AS n FROM index_metrics m \
             LEFT JOIN index_resources r ON r.id = m.resource_id WHERE m.status = 'active'",
        );
        push_scope(scope, "m", &mut sql);
        let place = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(" GROUP BY r.project_id, r.type, m.name ORDER BY count(*) DESC LIMIT ").push(&place);
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let read = |row: &Row| MetricCount {
            project_id: row.text("project"),
            resource_type: row.text("type"),
            name: row.text("name"),
            count: row.int("n").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Marks a metric deleted. Its points are removed later ([`Index::deleted_metrics`]).
    pub async fn delete_metric(&self, scope: &Scope, id: Uuid) -> Result<(), IndexError> {
        let _change = self.change();
        self.metric(scope, id).await?;
        let now = self.clock.now();
        let deletions = transact!(self.database, |tx| {
            let sql = "UPDATE index_metrics SET status = 'delete', deleted_at = $1 WHERE id = $2 AND status = 'active'";
            if tx.execute(sql, &[now.into(), id.to_string().into()]).await? == 0 {
                return Err(no_metric(id));
            }
            advance(tx, "deletions", 1).await?;
            counter(tx, "deletions").await
        })?;
        self.saw_deletions(deletions);
        Ok(())
    }

    /// Series of metrics that were marked deleted before a time, at most `limit`.
    pub async fn deleted_metrics(&self, before: Timestamp, limit: usize) -> Result<Vec<SeriesId>, IndexError> {
        let sql =
            "SELECT series FROM index_metrics WHERE status = 'delete' AND deleted_at < $1 ORDER BY deleted_at LIMIT $2";
        let rows = self.database.query(sql, &[before.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()]).await?;
        Ok(rows.iter().filter_map(|row| row.int("series")).map(|series| SeriesId(series as u64)).collect())
    }

    /// Forgets deleted metrics whose points are gone.
    pub async fn purge_metrics(&self, series: &[SeriesId]) -> Result<(), IndexError> {
        let _change = self.change();
        for chunk in series.chunks(1000) {
            let mut sql = Sql::new("DELETE FROM index_metrics WHERE status = 'delete' AND series IN ");
            sql.push_list(chunk.iter().map(|series| i64::try_from(series.0).unwrap_or(i64::MAX)));
            self.database.execute(&sql.text, &sql.values).await?;
        }
        Ok(())
    }

    /// How many active metrics there are.
    pub async fn count_metrics(&self) -> Result<u64, IndexError> {
        let row =
            self.database.query_one("SELECT count(*) AS n FROM index_metrics WHERE status = 'active'", &[]).await?;
        Ok(row.and_then(|row| row.int("n")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    }
}

/// What is read of a metric, in the order of [`Stored`].
const STORED: [&str; 8] =
    ["id", "series", "name", "unit", "creator", "resource_id", "resource_project_id", "archive_policy_name"];

/// A metric as its table has it.
#[derive(Debug, Deserialize)]
struct Stored {
    id: String,
    series: u64,
    name: Option<String>,
    unit: Option<String>,
    creator: String,
    resource_id: Option<String>,
    resource_project_id: Option<String>,
    archive_policy_name: String,
}

impl Stored {
    fn metric(self, policies: &HashMap<String, Arc<ArchivePolicy>>) -> Result<Metric, IndexError> {
        let damaged = |reason: String| IndexError::damaged(format!("metric `{}`", self.id), reason);
        let uuid = |text: &str| Uuid::parse_str(text).map_err(|error| damaged(error.to_string()));
        let policy = policies.get(&self.archive_policy_name);
        Ok(Metric {
            id: uuid(&self.id)?,
            series: SeriesId(self.series),
            resource_id: self.resource_id.as_deref().map(uuid).transpose()?,
            archive_policy: policy.cloned().ok_or_else(|| damaged("its archive policy is missing".into()))?,
            name: self.name,
            unit: self.unit,
            creator: self.creator,
            resource_project_id: self.resource_project_id,
        })
    }
}

/// The names of the metrics with these ids.
pub(crate) fn names_among(ids: Sql) -> Sql {
    let text = format!(
        "SELECT DISTINCT m.name AS metric_name FROM (SELECT DISTINCT x.id FROM ({}) x) s CROSS JOIN index_metrics m \
         WHERE m.id = s.id AND m.status = 'active' AND m.resource_id IS NOT NULL AND m.name IS NOT NULL LIMIT {NAMES_MAX}",
        ids.text
    );
    Sql { text, ..ids }
}

/// All names that a scope sees: the first, and from each the next.
pub(crate) fn names_by_steps(scope: &Scope) -> Sql {
    let mut sql = Sql::new("WITH RECURSIVE n (name) AS (");
    for after in ["", " AND m.name > n.name"] {
        let is_first = after.is_empty();
        sql.push(if is_first { "SELECT " } else { " UNION ALL SELECT " });
        sql.push(
            "(SELECT m.name FROM index_metrics m LEFT JOIN index_resources r ON r.id = m.resource_id \
             WHERE m.status = 'active' AND m.name IS NOT NULL AND m.resource_id IS NOT NULL",
        );
        sql.push(after);
        push_scope(scope, "m", &mut sql);
        sql.push(" ORDER BY m.name LIMIT 1)");
        sql.push(if is_first { "" } else { " FROM n WHERE n.name IS NOT NULL" });
    }
    sql.push(&format!(") SELECT n.name AS metric_name FROM n WHERE n.name IS NOT NULL LIMIT {NAMES_MAX}"));
    sql
}

pub(crate) fn sort_keys(sort: &[Sort]) -> Result<Vec<SortKey>, IndexError> {
    let mut keys = Vec::new();
    for key in sort {
        let column = match key.key.as_str() {
            "id" => "m.id",
            "name" => "m.name",
            "unit" => "m.unit",
            "creator" => "m.creator",
            "created_by_user_id" => "m.created_by_user_id",
            "created_by_project_id" => "m.created_by_project_id",
            "resource_id" => "m.resource_id",
            "archive_policy_name" => "m.archive_policy_name",
            "status" => "m.status",
            other => return Err(bad_page(&format!("Sort key supplied is invalid: {other}"))),
        };
        keys.push(SortKey::new(Column::Text(column), key));
    }
    keys.push(SortKey::new(Column::Text("m.id"), &Sort { key: "id".into(), descending: false, nulls_first: None }));
    Ok(keys)
}

pub(crate) fn no_metric(id: Uuid) -> IndexError {
    IndexError::not_found(format!("Metric {id}"))
}

pub(crate) fn check_names(name: Option<&str>, unit: Option<&str>) -> Result<(), IndexError> {
    if name.is_some_and(|name| name.contains('/')) {
        return Err(IndexError::refused("'/' is not supported in metric name"));
    }
    if name.is_some_and(|name| name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX) {
        return Err(IndexError::invalid_input("not a valid value for dictionary value @ data['name']", &["name"]));
    }
    if unit.is_some_and(|unit| unit.chars().count() > UNIT_CHARACTERS_MAX) {
        let reason =
            format!("length of value must be at most {UNIT_CHARACTERS_MAX} for dictionary value @ data['unit']");
        return Err(IndexError::invalid_input(reason, &["unit"]));
    }
    Ok(())
}

pub(crate) fn metric_row(
    id: Uuid,
    series: SeriesId,
    name: Option<&str>,
    unit: Option<&str>,
    creator: &str,
    resource_id: Option<Uuid>,
    policy: &str,
) -> Vec<Value> {
    vec![
        id.to_string().into(),
        i64::try_from(series.0).unwrap_or(i64::MAX).into(),
        name.map(str::to_owned).into(),
        unit.map(|unit| unit.chars().take(UNIT_CHARACTERS_MAX).collect::<String>()).into(),
        creator.into(),
        created_by_user(creator).into(),
        created_by_project(creator).into(),
        resource_id.map(|id| id.to_string()).into(),
        policy.into(),
        "active".into(),
    ]
}

async fn has_metric(tx: &mut Transaction<'_>, resource_id: Uuid, name: &str) -> Result<bool, IndexError> {
    let sql = "SELECT id FROM index_metrics WHERE status = 'active' AND resource_id = $1 AND name = $2";
    Ok(tx.query_one(sql, &[resource_id.to_string().into(), name.into()]).await?.is_some())
}

/// How many of them are to be made.
pub(crate) fn count_new(metrics: &[(String, MetricSource)]) -> u64 {
    metrics.iter().filter(|(_, source)| matches!(source, MetricSource::New { .. })).count() as u64
}

/// Makes or attaches metrics of a resource. `count`: the first of [`count_new`] counts for the new ones.
pub(crate) async fn attach_metrics(
    tx: &mut Transaction<'_>,
    resource_id: Uuid,
    creator: &str,
    metrics: &[(String, MetricSource)],
    mut count: u64,
) -> Result<(), IndexError> {
    if metrics.is_empty() {
        return Ok(());
    }
    let choice = PolicyChoice::read(tx).await?;
    let mut rows = Vec::new();
    for (name, source) in metrics {
        check_names(Some(name), None)?;
        if has_metric(tx, resource_id, name).await? {
            return Err(IndexError::NamedMetricExists { name: name.clone() });
        }
        match source {
            MetricSource::New { archive_policy_name, unit } => {
                check_names(None, unit.as_deref())?;
                let policy = choice.strict(archive_policy_name.as_deref(), Some(name))?;
                let id = Uuid::new_v4();
                rows.push(metric_row(
                    id,
                    SeriesId::of_meter(count, name.as_bytes()),
                    Some(name),
                    unit.as_deref(),
                    creator,
                    Some(resource_id),
                    &policy,
                ));
                count += 1;
            }
            MetricSource::Existing(id) => {
                let sql = "UPDATE index_metrics SET resource_id = $1, name = $2 \
                           WHERE id = $3 AND creator = $4 AND status = 'active'";
                let values = [resource_id.to_string().into(), name.into(), id.to_string().into(), creator.into()];
                if tx.execute(sql, &values).await? == 0 {
                    // The request is about the resource, which is there: its body is wrong.
                    return Err(IndexError::refused(no_metric(*id).to_string()));
                }
                // Somebody else sees it now.
                advance(tx, "deletions", 1).await?;
            }
        }
    }
    insert_rows(tx, "index_metrics", METRIC_COLUMNS, rows).await
}

/// Frees all metrics of a resource.
pub(crate) async fn detach_metrics(tx: &mut Transaction<'_>, resource_id: Uuid) -> Result<(), IndexError> {
    tx.execute(
        "UPDATE index_metrics SET resource_id = NULL WHERE resource_id = $1 AND status = 'active'",
        &[resource_id.to_string().into()],
    )
    .await?;
    Ok(())
}
