//! Resources with their history, and metrics, as another Gnocchi has them: with its ids, creators and times. For operators, so without a
//! scope. What is there already stays as it is, so that an import that is repeated changes nothing.

use orzo_database::Transaction;
use orzo_model::{SeriesId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use uuid::Uuid;

use super::{
    ATTRIBUTE_COLUMNS, Index, IndexError, Resource, attribute_rows, check_lifespan, created_by_project,
    created_by_user, insert_resources, insert_rows, read_type, to_json,
};
use crate::{
    repository::{
        advance,
        metrics::{METRIC_COLUMNS, check_names, metric_row},
    },
    sql::transact,
};

/// What a resource was for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedRevision {
    /// Owning project.
    pub project_id: Option<String>,
    /// Owning user.
    pub user_id: Option<String>,
    /// Since when it exists.
    pub started_at: Timestamp,
    /// Until when it existed.
    pub ended_at: Option<Timestamp>,
    /// Since when it was so. Until the next revision begins.
    pub revision_start: Timestamp,
    /// Values of the type's attributes.
    pub attributes: Map<String, serde_json::Value>,
}

/// A resource of another Gnocchi.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedResource {
    /// Its UUID there, and here.
    pub id: Uuid,
    /// Its type.
    pub resource_type: String,
    /// The text that it was created with.
    pub original_resource_id: String,
    /// Who created it.
    pub creator: String,
    /// Oldest first; the last is the current one.
    pub revisions: Vec<ImportedRevision>,
}

/// A metric of another Gnocchi.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedMetric {
    /// Its UUID there, and here.
    pub id: Uuid,
    /// Its name.
    pub name: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// Who created it.
    pub creator: String,
    /// The resource that it belongs to, which must be here.
    pub resource_id: Option<Uuid>,
    /// Its policy, which must be here.
    pub archive_policy_name: String,
}

impl Index {
    /// Makes resources that are not here yet, all or none; says how many. One that is here under the same UUID must be the same one:
    /// of the same type, text and creator.
    pub async fn import_resources(&self, resources: &[ImportedResource]) -> Result<u64, IndexError> {
        let _change = self.change();
        let made = transact!(self.database, |tx| {
            let mut made = 0;
            for resource in resources {
                made += u64::from(import_resource(tx, resource).await?);
            }
            Ok(made)
        })?;
        for resource in resources {
            self.forget(resource.id).await;
        }
        Ok(made)
    }

    /// Makes metrics that are not here yet, all or none; says how many. One that is here under the same UUID must have the same name and
    /// resource.
    pub async fn import_metrics(&self, metrics: &[ImportedMetric]) -> Result<u64, IndexError> {
        let _change = self.change();
        let first = self.next_series(metrics.len() as u64).await?;
        let made = transact!(self.database, |tx| {
            let mut made = 0;
            for (number, metric) in (first..).zip(metrics) {
                made += u64::from(import_metric(tx, metric, number).await?);
            }
            // Who remembers a resource's metrics reads them again.
            advance(tx, "deletions", 1).await?;
            Ok(made)
        })
        .map_err(|error: IndexError| match error.is_constraint() {
            true => IndexError::refused("a resource has two active metrics of one name"),
            false => error,
        })?;
        for id in metrics.iter().filter_map(|metric| metric.resource_id) {
            self.forget(id).await;
        }
        self.count_deletions_again();
        Ok(made)
    }
}

/// `false`: it is here already.
async fn import_resource(tx: &mut Transaction<'_>, imported: &ImportedResource) -> Result<bool, IndexError> {
    let ImportedResource { id, original_resource_id, creator, .. } = imported;
    let sql = "SELECT type, original_resource_id, creator FROM index_resources WHERE id = $1";
    if let Some(row) = tx.query_one(sql, &[id.to_string().into()]).await? {
        let is_same = row.string("type") == imported.resource_type
            && row.string("original_resource_id") == *original_resource_id
            && row.string("creator") == *creator;
        return if is_same { Ok(false) } else { Err(IndexError::Exists { what: format!("Resource {id}") }) };
    }
    let kind = read_type(tx, &imported.resource_type).await?;
    let [past @ .., current] = imported.revisions.as_slice() else {
        return Err(IndexError::refused(format!("resource {id} has no revision")));
    };
    if !imported.revisions.is_sorted_by(|one, next| one.revision_start < next.revision_start) {
        return Err(IndexError::refused(format!("the revisions of resource {id} are not in the order of time")));
    }
    let resource = |revision: &ImportedRevision, number: i64, end: Option<Timestamp>| -> Result<Resource, IndexError> {
        check_lifespan(revision.started_at, revision.ended_at)?;
        Ok(Resource {
            id: *id,
            resource_type: kind.name.clone(),
            original_resource_id: original_resource_id.clone(),
            creator: creator.clone(),
            project_id: revision.project_id.clone(),
            user_id: revision.user_id.clone(),
            started_at: revision.started_at,
            ended_at: revision.ended_at,
            revision_start: revision.revision_start,
            revision_end: end,
            revision: number,
            // Of what an earlier revision had not, its type may have required something since.
            attributes: kind.check_attributes(&revision.attributes, true)?,
            metrics: Default::default(),
        })
    };
    let (mut rows, mut attributes) = (Vec::new(), Vec::new());
    let ends = imported.revisions.iter().skip(1).map(|next| next.revision_start);
    for ((revision, number), end) in past.iter().zip(1..).zip(ends) {
        let old = resource(revision, number, Some(end))?;
        attributes.extend(attribute_rows(&old, &kind));
        rows.push(vec![
            id.to_string().into(),
            number.into(),
            old.resource_type.as_str().into(),
            original_resource_id.as_str().into(),
            creator.as_str().into(),
            created_by_user(creator).into(),
            created_by_project(creator).into(),
            old.project_id.clone().into(),
            old.user_id.clone().into(),
            old.started_at.into(),
            old.ended_at.into(),
            old.revision_start.into(),
            to_json(&old.attributes)?.into(),
            end.into(),
        ]);
    }
    let columns = &[
        "id",
        "revision",
        "type",
        "original_resource_id",
        "creator",
        "created_by_user_id",
        "created_by_project_id",
        "project_id",
        "user_id",
        "started_at",
        "ended_at",
        "revision_start",
        "attributes",
        "revision_end",
    ];
    insert_rows(tx, "index_resource_history", columns, rows).await?;
    insert_rows(tx, "index_attributes", ATTRIBUTE_COLUMNS, attributes).await?;
    insert_resources(tx, &[(&resource(current, -1, None)?, &kind)]).await?;
    Ok(true)
}

/// `false`: it is here already.
async fn import_metric(tx: &mut Transaction<'_>, imported: &ImportedMetric, number: u64) -> Result<bool, IndexError> {
    let ImportedMetric { id, name, unit, creator, resource_id, archive_policy_name } = imported;
    check_names(name.as_deref(), unit.as_deref())?;
    let of_resource = resource_id.map(|id| id.to_string());
    let sql = "SELECT name, resource_id, status FROM index_metrics WHERE id = $1";
    if let Some(row) = tx.query_one(sql, &[id.to_string().into()]).await? {
        let is_same =
            row.text("name") == *name && row.text("resource_id") == of_resource && row.string("status") == "active";
        return if is_same { Ok(false) } else { Err(IndexError::Exists { what: format!("Metric {id}") }) };
    }
    if let Some(resource) = &of_resource {
        if name.is_none() {
            return Err(IndexError::refused(format!("metric {id} belongs to a resource and has no name")));
        }
        let known = "SELECT id FROM index_resources WHERE id = $1";
        if tx.query_one(known, &[resource.as_str().into()]).await?.is_none() {
            return Err(IndexError::not_found(format!("Resource {resource}")));
        }
    }
    let known = "SELECT name FROM index_archive_policies WHERE name = $1";
    if tx.query_one(known, &[archive_policy_name.as_str().into()]).await?.is_none() {
        return Err(IndexError::refused(format!("Archive policy {archive_policy_name} does not exist")));
    }
    let series = SeriesId::of_meter(number, name.as_deref().unwrap_or_default().as_bytes());
    let row = metric_row(*id, series, name.as_deref(), unit.as_deref(), creator, *resource_id, archive_policy_name);
    insert_rows(tx, "index_metrics", METRIC_COLUMNS, vec![row]).await?;
    Ok(true)
}
