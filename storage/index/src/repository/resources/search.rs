//! Searching resources: current ones by the statements of `listing.rs`, history by one of its own.

use std::collections::{BTreeMap, HashMap};

use orzo_database::Value;
use orzo_model::Scope;
use uuid::Uuid;

use super::{CURRENT, RESOURCE_COLUMNS, Resource, STORED, Stored, listing::Listing, resource_uuid};
use crate::{
    Filter, Index, IndexError, ResourceType,
    filter::{Column, Context, column},
    repository::{
        paging::{Page, Sort, SortKey, bad_page, push_after_marker, push_order, stretches},
        push_scope,
    },
    sql::Sql,
};

/// All revisions of all resources.
const EVERY_REVISION: &str = "(SELECT id, type, original_resource_id, creator, created_by_user_id, \
     created_by_project_id, project_id, user_id, started_at, ended_at, revision_start, attributes, \
     -1 AS revision, CAST(NULL AS BIGINT) AS revision_end FROM index_resources \
     UNION ALL SELECT id, type, original_resource_id, creator, created_by_user_id, \
     created_by_project_id, project_id, user_id, started_at, ended_at, revision_start, attributes, \
     revision, revision_end FROM index_resource_history)";

/// Resources whose metrics one statement reads.
const FILLED_AT_ONCE: usize = 1000;
/// What is read of each metric of a resource.
const OWN: [&str; 3] = ["resource_id", "name", "id"];

/// A question about resources.
#[derive(Clone, Debug)]
pub struct ResourceQuery {
    /// How far it may look.
    pub scope: Scope,
    /// Type searched; `generic` is every type.
    pub resource_type: String,
    /// Which of them.
    pub filter: Filter,
    /// Whose transformation free ids in the filter go through.
    pub creator: Option<String>,
    /// Every revision instead of the current one.
    pub history: bool,
    /// Which page.
    pub page: Page,
}

impl Index {
    /// One page of the resources that a search finds.
    pub async fn resources(&self, query: &ResourceQuery) -> Result<Vec<Resource>, IndexError> {
        let limit = query.page.limit.unwrap_or(usize::MAX).min(self.settings.page_max);
        self.search(query, limit).await
    }

    /// All resources that a search finds, at most `limit` of them; for aggregation over groups.
    pub async fn all_resources(&self, query: &ResourceQuery, limit: usize) -> Result<Vec<Resource>, IndexError> {
        self.search(query, limit).await
    }

    /// The revisions of one resource, oldest first unless the page says otherwise.
    pub async fn resource_history(
        &self,
        scope: &Scope,
        resource_type: &str,
        id: Uuid,
        page: Page,
    ) -> Result<Vec<Resource>, IndexError> {
        self.resource(scope, resource_type, id).await?;
        self.resources(&ResourceQuery {
            scope: scope.clone(),
            resource_type: resource_type.to_owned(),
            filter: Filter::equal("id", id.to_string()),
            creator: None,
            history: true,
            page,
        })
        .await
    }

    /// The same without their metrics, for who needs few of them ([`Index::fill_metrics`]).
    pub async fn bare_resources(&self, query: &ResourceQuery, limit: usize) -> Result<Vec<Resource>, IndexError> {
        let kind = self.resource_type(&query.resource_type).await?;
        // What is wrong with the search is told before what is wrong with its order.
        self.push_conditions(query, &kind, &mut Sql::new(""))?;
        let keys = sort_keys(&query.page.sort, &kind, query.history)?;
        let marker = match &query.page.marker {
            Some(marker) => Some(self.marker_row(query, &kind, marker, &keys).await?),
            None => None,
        };
        if query.history {
            let sql = self.every_revision(query, &kind, &keys, marker.as_deref(), limit)?;
            return self.read(sql, limit).await;
        }
        let context = self.context(query, &kind);
        let listing = Listing { query, kind: &kind, context, keys, marker };
        if let Some(pinned) = listing.pinned()? {
            return self.read(listing.along(&pinned, limit)?, limit).await;
        }
        if let Some(ids) = self.short_list(listing.needed()?).await? {
            return self.read(listing.among(ids, limit)?, limit).await;
        }
        let mut found = Vec::new();
        let first = listing.marker.as_ref().map(|marker| &marker[0]);
        for (stretch, at_marker) in stretches(&listing.keys[0], first) {
            let rest = limit - found.len();
            if rest > 0 {
                found.extend(self.read(listing.stretch(stretch, at_marker, rest)?, rest).await?);
            }
        }
        Ok(found)
    }

    /// Puts their active metrics into resources; of `names`, if they are given, only these.
    pub async fn fill_metrics(&self, resources: &mut [Resource], names: Option<&[String]>) -> Result<(), IndexError> {
        let mut metrics: HashMap<Uuid, BTreeMap<String, Uuid>> = HashMap::new();
        for chunk in resources.chunks(FILLED_AT_ONCE) {
            let text = "SELECT resource_id, name, id FROM index_metrics WHERE status = 'active' AND resource_id IN ";
            let mut sql = Sql::new(text);
            sql.push_texts(self.is_sqlite(), chunk.iter().map(|resource| resource.id.to_string()));
            if let Some(names) = names {
                sql.push(" AND name IN ").push_list(names.iter().map(String::as_str));
            }
            let rows: Vec<(Uuid, Option<String>, Uuid)> =
                self.rows("metrics of resources", &sql, &OWN, chunk.len()).await?;
            for (resource, name, id) in rows {
                metrics.entry(resource).or_default().extend(name.map(|name| (name, id)));
            }
        }
        for resource in resources {
            // Several revisions of one resource may stand there.
            resource.metrics = metrics.get(&resource.id).cloned().unwrap_or_default();
        }
        Ok(())
    }

    async fn search(&self, query: &ResourceQuery, limit: usize) -> Result<Vec<Resource>, IndexError> {
        let mut resources = self.bare_resources(query, limit).await?;
        self.fill_metrics(&mut resources, None).await?;
        Ok(resources)
    }

    async fn read(&self, sql: Sql, limit: usize) -> Result<Vec<Resource>, IndexError> {
        let found: Vec<Stored> = self.rows("a list of resources", &sql, &STORED, limit).await?;
        found.into_iter().map(Resource::try_from).collect()
    }

    fn every_revision(
        &self,
        query: &ResourceQuery,
        kind: &ResourceType,
        keys: &[SortKey],
        marker: Option<&[Value]>,
        limit: usize,
    ) -> Result<Sql, IndexError> {
        let mut sql = Sql::new(format!("SELECT {RESOURCE_COLUMNS} FROM {EVERY_REVISION} r WHERE 1 = 1"));
        self.push_conditions(query, kind, &mut sql)?;
        if let Some(marker) = marker {
            push_after_marker(keys, marker, &mut sql);
        }
        push_order(keys, &mut sql);
        let place = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(" LIMIT ").push(&place);
        Ok(sql)
    }

    pub(crate) fn context<'a>(&self, query: &'a ResourceQuery, kind: &'a ResourceType) -> Context<'a> {
        Context { kind, creator: query.creator.as_deref(), now: self.clock.now(), is_sqlite: self.is_sqlite() }
    }

    pub(super) fn push_conditions(
        &self,
        query: &ResourceQuery,
        kind: &ResourceType,
        sql: &mut Sql,
    ) -> Result<(), IndexError> {
        if kind.name != "generic" {
            let place = sql.bind(kind.name.as_str());
            sql.push(" AND r.type = ").push(&place);
        }
        push_scope(&query.scope, "r", sql);
        if !query.filter.is_everything() {
            sql.push(" AND (");
            self.context(query, kind).push(&query.filter, sql)?;
            sql.push(")");
        }
        Ok(())
    }

    async fn marker_row(
        &self,
        query: &ResourceQuery,
        kind: &ResourceType,
        marker: &str,
        keys: &[SortKey],
    ) -> Result<Vec<Value>, IndexError> {
        let invalid = || bad_page(&format!("Invalid marker: `{marker}'"));
        let (id, revision) = match marker.split_once('@') {
            Some((id, revision)) if query.history => (id, revision.parse::<i64>().map_err(|_| invalid())?),
            None if query.history => return Err(invalid()),
            _ => (marker, -1),
        };
        let id = match &query.creator {
            Some(creator) => resource_uuid(id, creator).map_err(|_| invalid())?,
            None => Uuid::parse_str(id).map_err(|_| invalid())?,
        };
        let mut sql = Sql::new("SELECT ");
        for (place, key) in keys.iter().enumerate() {
            let text = key.expression(&mut sql);
            sql.push(&format!("{}{text} AS k{place}", if place > 0 { ", " } else { "" }));
        }
        let source = if query.history { EVERY_REVISION } else { CURRENT };
        let (id, revision) = (sql.bind(id.to_string()), sql.bind(revision));
        sql.push(&format!(" FROM {source} r WHERE r.id = {id} AND r.revision = {revision}"));
        push_scope(&query.scope, "r", &mut sql);
        if kind.name != "generic" {
            let place = sql.bind(kind.name.as_str());
            sql.push(" AND r.type = ").push(&place);
        }
        let row = self.database.query_one(&sql.text, &sql.values).await?.ok_or_else(invalid)?;
        Ok(keys.iter().enumerate().map(|(place, key)| key.cell(&row, &format!("k{place}"))).collect())
    }
}

pub(crate) fn sort_keys(sort: &[Sort], kind: &ResourceType, history: bool) -> Result<Vec<SortKey>, IndexError> {
    let defaults = [Sort::ascending("revision_start"), Sort::ascending("started_at")];
    let sort = if sort.is_empty() { &defaults[..] } else { sort };
    let mut keys = Vec::new();
    for key in sort {
        let column = match key.key.as_str() {
            "revision" => Column::Time("r.revision"),
            name => column(name, kind).ok_or_else(|| bad_page(&format!("Sort key supplied is invalid: {name}")))?,
        };
        keys.push(SortKey::new(column, key));
    }
    keys.push(SortKey::new(Column::Id, &Sort::ascending("id")));
    if history {
        keys.push(SortKey::new(Column::Time("r.revision"), &Sort::ascending("revision")));
    }
    Ok(keys)
}
