//! Resources: made, found by id. What searches them is in `resources/search.rs`, what changes them in
//! `resources/changes.rs`.

mod changes;
pub(crate) mod imports;
pub(crate) mod listing;
pub(crate) mod search;

use std::collections::BTreeMap;

use orzo_database::{Row, Transaction};
use orzo_model::{Scope, Timestamp};
use serde::Deserialize;
use serde_json::Map;
use uuid::Uuid;

use super::{
    attribute_rows, insert_rows,
    metrics::{attach_metrics, count_new},
    paging::Page,
    policies::to_json,
    push_scope,
    revisions::ATTRIBUTE_COLUMNS,
    types::type_of,
};
use crate::{
    Filter, Index, IndexError, ResourceType,
    sql::{Sql, transact},
};

pub use search::ResourceQuery;

/// Gnocchi's namespace for ids made from free text.
const RESOURCE_NAMESPACE: Uuid = Uuid::from_u128(0x0a7a15ff_aa13_4ac2_897c_9bdf30ce175b);
/// Longest free text that becomes an id (Gnocchi: 255 and what its own transformation needs).
const RESOURCE_ID_CHARACTERS_MAX: usize = 289;
/// Resources that one statement names; both databases limit its parameters.
const NAMED_AT_ONCE: usize = 1000;

/// What is read of a resource, in the order of [`Stored`].
pub(crate) const STORED: [&str; 12] = [
    "id",
    "type",
    "original_resource_id",
    "creator",
    "project_id",
    "user_id",
    "started_at",
    "ended_at",
    "revision_start",
    "revision_end",
    "revision",
    "attributes",
];
/// The same for statements that call the resource `r`.
pub(crate) const RESOURCE_COLUMNS: &str = "r.id, r.type, r.original_resource_id, r.creator, r.project_id, r.user_id, \
     r.started_at, r.ended_at, r.revision_start, r.revision_end, r.revision, r.attributes";
/// Current resources as a table with the columns of history.
pub(crate) const CURRENT: &str = "(SELECT id, type, original_resource_id, creator, created_by_user_id, \
     created_by_project_id, project_id, user_id, started_at, ended_at, revision_start, attributes, \
     -1 AS revision, CAST(NULL AS BIGINT) AS revision_end FROM index_resources)";

/// Past revisions as a table with the same columns.
pub(crate) const PAST: &str = "(SELECT id, type, original_resource_id, creator, created_by_user_id, \
     created_by_project_id, project_id, user_id, started_at, ended_at, revision_start, attributes, \
     revision, revision_end FROM index_resource_history)";

/// A thing that is measured, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its UUID.
    pub id: Uuid,
    /// Its type's name.
    pub resource_type: String,
    /// The text that it was created with.
    pub original_resource_id: String,
    /// Who created it: `<user>:<project>`, or a user's name.
    pub creator: String,
    /// Owning project.
    pub project_id: Option<String>,
    /// Owning user.
    pub user_id: Option<String>,
    /// Since when it exists.
    pub started_at: Timestamp,
    /// Until when it existed; `None`: it still does.
    pub ended_at: Option<Timestamp>,
    /// Since when it is as this revision says.
    pub revision_start: Timestamp,
    /// Until when it was so; `None` for the current revision.
    pub revision_end: Option<Timestamp>,
    /// -1 for the current revision, else its number.
    pub revision: i64,
    /// Values of the type's attributes; what is missing is null.
    pub attributes: Map<String, serde_json::Value>,
    /// Its active metrics by name.
    pub metrics: BTreeMap<String, Uuid>,
}

/// User part of a creator.
pub fn created_by_user(creator: &str) -> &str {
    creator.split_once(':').map_or(creator, |(user, _)| user)
}

/// Project part of a creator; empty if it has none.
pub fn created_by_project(creator: &str) -> &str {
    creator.split_once(':').map_or("", |(_, project)| project)
}

/// The UUID that a text means as a resource's id: itself if it is a UUID, else made from the text and its creator.
pub fn resource_uuid(text: &str, creator: &str) -> Result<Uuid, IndexError> {
    if let Ok(id) = Uuid::parse_str(text) {
        return Ok(id);
    }
    if text.contains('/') {
        return Err(IndexError::refused("'/' is not supported in resource id"));
    }
    if text.chars().count() > RESOURCE_ID_CHARACTERS_MAX {
        let reason = format!(
            "transformable resource id >{RESOURCE_ID_CHARACTERS_MAX} max allowed characters for dictionary value @ \
             data['id']"
        );
        return Err(IndexError::invalid_input(reason, &["id"]));
    }
    if text.is_empty() {
        return Err(IndexError::refused("a resource id may not be empty"));
    }
    Ok(Uuid::new_v5(&RESOURCE_NAMESPACE, format!("{text}\x00{creator}").as_bytes()))
}

/// Where a resource's metric comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// A new one.
    New {
        /// Its policy; `None`: the rules choose.
        archive_policy_name: Option<String>,
        /// Its unit.
        unit: Option<String>,
    },
    /// One that exists and was made by the same creator.
    Existing(Uuid),
}

/// A resource to be made.
#[derive(Clone, Debug)]
pub struct NewResource {
    /// UUID or free text.
    pub id: String,
    /// Type's name.
    pub resource_type: String,
    /// Who makes it.
    pub creator: String,
    /// Owning project.
    pub project_id: Option<String>,
    /// Owning user.
    pub user_id: Option<String>,
    /// Since when it exists; `None`: now.
    pub started_at: Option<Timestamp>,
    /// Until when it existed.
    pub ended_at: Option<Timestamp>,
    /// Values of the type's attributes.
    pub attributes: Map<String, serde_json::Value>,
    /// Metrics made or attached with it.
    pub metrics: Vec<(String, MetricSource)>,
}

/// What changes about a resource; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct ResourceChange {
    /// Owning project.
    pub project_id: Option<Option<String>>,
    /// Owning user.
    pub user_id: Option<Option<String>>,
    /// Since when it exists.
    pub started_at: Option<Timestamp>,
    /// Until when it existed.
    pub ended_at: Option<Option<Timestamp>>,
    /// Attributes that change.
    pub attributes: Map<String, serde_json::Value>,
    /// The new set of metrics; those that are not in it are detached.
    pub metrics: Option<Vec<(String, MetricSource)>>,
}

impl Index {
    /// Makes a resource, strictly checked.
    pub async fn create_resource(&self, new: &NewResource) -> Result<Resource, IndexError> {
        let _change = self.change();
        let id = resource_uuid(&new.id, &new.creator)?;
        let now = self.clock.now();
        let series = self.next_series(count_new(&new.metrics)).await?;
        let made = transact!(self.database, |tx| {
            let kind = read_type(tx, &new.resource_type).await?;
            // What is wrong with the question is said before what is there.
            let attributes = kind.check_attributes(&new.attributes, false)?;
            let started_at = new.started_at.unwrap_or(now);
            check_lifespan(started_at, new.ended_at)?;
            let exists = "SELECT id FROM index_resources WHERE id = $1";
            if tx.query_one(exists, &[id.to_string().into()]).await?.is_some() {
                return Err(IndexError::Exists { what: format!("Resource {id}") });
            }
            let mut resource = Resource {
                id,
                resource_type: kind.name.clone(),
                original_resource_id: new.id.clone(),
                creator: new.creator.clone(),
                project_id: new.project_id.clone(),
                user_id: new.user_id.clone(),
                started_at,
                ended_at: new.ended_at,
                revision_start: now,
                revision_end: None,
                revision: -1,
                attributes,
                metrics: BTreeMap::new(),
            };
            insert_resources(tx, &[(&resource, &kind)]).await?;
            attach_metrics(tx, id, &new.creator, &new.metrics, series).await?;
            fill_own_metrics(tx, &mut resource).await?;
            Ok(resource)
        })
        .map_err(|error: IndexError| match error {
            error if error.is_constraint() => IndexError::Exists { what: format!("Resource {id}") },
            error => error,
        })?;
        // Metrics that were attached belong to it now.
        self.forget(id).await;
        Ok(made)
    }

    /// One resource by its UUID. `resource_type` `generic` finds every type.
    pub async fn resource(&self, scope: &Scope, resource_type: &str, id: Uuid) -> Result<Resource, IndexError> {
        let query = self.query_for(scope, resource_type, Filter::equal("id", id.to_string())).await?;
        query.into_iter().next().ok_or_else(|| no_resource(id))
    }

    /// One resource by UUID or by the text that it was created with. The text is first transformed for `creator`, as
    /// Gnocchi does; if there is no such resource, the newest visible one with this text is taken, so that users find
    /// what the collector created for them.
    pub async fn find_resource(
        &self,
        scope: &Scope,
        resource_type: &str,
        creator: &str,
        text: &str,
    ) -> Result<Resource, IndexError> {
        let id = resource_uuid(text, creator).map_err(|_| IndexError::not_found(format!("Resource {text}")))?;
        let not_found = || no_resource(id);
        match self.resource(scope, resource_type, id).await {
            Err(IndexError::NotFound { what }) if what == format!("Resource {id}") => {}
            outcome => return outcome,
        }
        if Uuid::parse_str(text).is_ok() {
            return Err(not_found());
        }
        let found = self.query_for(scope, resource_type, Filter::equal("original_resource_id", text)).await?;
        found.into_iter().max_by_key(|resource| (resource.revision_start, resource.id)).ok_or_else(not_found)
    }

    async fn query_for(&self, scope: &Scope, resource_type: &str, filter: Filter) -> Result<Vec<Resource>, IndexError> {
        self.resources(&ResourceQuery {
            scope: scope.clone(),
            resource_type: resource_type.to_owned(),
            filter,
            creator: None,
            history: false,
            page: Page::default(),
        })
        .await
    }
}

/// Null and missing are the same; null is not kept.
pub(crate) fn set_attribute(attributes: &mut Map<String, serde_json::Value>, name: String, value: serde_json::Value) {
    if value.is_null() {
        attributes.remove(&name);
    } else {
        attributes.insert(name, value);
    }
}

/// Whether nothing changed that makes a revision.
pub(crate) fn is_same(old: &Resource, new: &Resource) -> bool {
    old.resource_type == new.resource_type
        && old.project_id == new.project_id
        && old.user_id == new.user_id
        && old.started_at == new.started_at
        && old.ended_at == new.ended_at
        && old.attributes == new.attributes
}

fn check_lifespan(started_at: Timestamp, ended_at: Option<Timestamp>) -> Result<(), IndexError> {
    match ended_at {
        Some(ended_at) if started_at > ended_at => {
            Err(IndexError::refused("Start timestamp cannot be after end timestamp"))
        }
        _ => Ok(()),
    }
}

fn no_resource(id: Uuid) -> IndexError {
    IndexError::not_found(format!("Resource {id}"))
}

async fn read_type(tx: &mut Transaction<'_>, name: &str) -> Result<ResourceType, IndexError> {
    let row = tx.query_one("SELECT * FROM index_resource_types WHERE name = $1", &[name.into()]).await?;
    type_of(&row.ok_or_else(|| IndexError::not_found(format!("Resource type {name}")))?)
}

/// A resource (without its metrics) and its own type.
async fn read_resource(
    tx: &mut Transaction<'_>,
    scope: &Scope,
    resource_type: &str,
    id: Uuid,
) -> Result<(Resource, ResourceType), IndexError> {
    let mut sql = Sql::new(format!("SELECT {RESOURCE_COLUMNS} FROM {CURRENT} r WHERE r.id = "));
    let place = sql.bind(id.to_string());
    sql.push(&place);
    push_scope(scope, "r", &mut sql);
    let row = tx.query_one(&sql.text, &sql.values).await?.ok_or_else(|| no_resource(id))?;
    let resource = resource_of(&row)?;
    if resource_type != "generic" {
        read_type(tx, resource_type).await?;
        if resource.resource_type != resource_type {
            return Err(no_resource(id));
        }
    }
    let kind = read_type(tx, &resource.resource_type).await?;
    Ok((resource, kind))
}

pub(crate) async fn insert_resources(
    tx: &mut Transaction<'_>,
    resources: &[(&Resource, &ResourceType)],
) -> Result<(), IndexError> {
    let columns = &[
        "id",
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
    ];
    let mut rows = Vec::new();
    let mut attributes = Vec::new();
    for (resource, kind) in resources {
        rows.push(vec![
            resource.id.to_string().into(),
            resource.resource_type.as_str().into(),
            resource.original_resource_id.as_str().into(),
            resource.creator.as_str().into(),
            created_by_user(&resource.creator).into(),
            created_by_project(&resource.creator).into(),
            resource.project_id.clone().into(),
            resource.user_id.clone().into(),
            resource.started_at.into(),
            resource.ended_at.into(),
            resource.revision_start.into(),
            to_json(&resource.attributes)?.into(),
        ]);
        attributes.extend(attribute_rows(resource, kind));
    }
    insert_rows(tx, "index_resources", columns, rows).await?;
    insert_rows(tx, "index_attributes", ATTRIBUTE_COLUMNS, attributes).await
}

/// Puts its active metrics into a resource.
async fn fill_own_metrics(tx: &mut Transaction<'_>, resource: &mut Resource) -> Result<(), IndexError> {
    let sql = "SELECT id, name FROM index_metrics WHERE status = 'active' AND resource_id = $1";
    let rows = tx.query(sql, &[resource.id.to_string().into()]).await?;
    let metric = |row: &Row| Some((row.text("name")?, Uuid::parse_str(&row.string("id")).ok()?));
    resource.metrics = rows.iter().filter_map(metric).collect();
    Ok(())
}

pub(crate) fn resource_of(row: &Row) -> Result<Resource, IndexError> {
    let id = row.string("id");
    let time = |column: &str| {
        let damaged = || IndexError::damaged(format!("resource `{id}`"), format!("{column} is missing"));
        row.int(column).ok_or_else(damaged)
    };
    let stored = Stored {
        resource_type: row.string("type"),
        original_resource_id: row.string("original_resource_id"),
        creator: row.string("creator"),
        project_id: row.text("project_id"),
        user_id: row.text("user_id"),
        started_at: time("started_at")?,
        ended_at: row.int("ended_at"),
        revision_start: time("revision_start")?,
        revision_end: row.int("revision_end"),
        revision: row.int("revision").unwrap_or(-1),
        attributes: row.string("attributes"),
        id,
    };
    stored.try_into()
}

/// A resource as its table has it: [`STORED`] in this order.
#[derive(Debug, Deserialize)]
struct Stored {
    id: String,
    resource_type: String,
    original_resource_id: String,
    creator: String,
    project_id: Option<String>,
    user_id: Option<String>,
    started_at: i64,
    ended_at: Option<i64>,
    revision_start: i64,
    revision_end: Option<i64>,
    revision: i64,
    attributes: String,
}

impl TryFrom<Stored> for Resource {
    type Error = IndexError;

    fn try_from(stored: Stored) -> Result<Self, IndexError> {
        let damaged = |reason: String| IndexError::damaged(format!("resource `{}`", stored.id), reason);
        Ok(Self {
            id: Uuid::parse_str(&stored.id).map_err(|error| damaged(error.to_string()))?,
            attributes: serde_json::from_str(&stored.attributes).map_err(|error| damaged(error.to_string()))?,
            resource_type: stored.resource_type,
            original_resource_id: stored.original_resource_id,
            creator: stored.creator,
            project_id: stored.project_id,
            user_id: stored.user_id,
            started_at: Timestamp::from_micros(stored.started_at),
            ended_at: stored.ended_at.map(Timestamp::from_micros),
            revision_start: Timestamp::from_micros(stored.revision_start),
            revision_end: stored.revision_end.map(Timestamp::from_micros),
            revision: stored.revision,
            metrics: BTreeMap::new(),
        })
    }
}
