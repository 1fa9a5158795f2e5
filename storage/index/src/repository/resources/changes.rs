//! Resources: changed with history, ended, woken, removed.

use std::collections::HashMap;

use orzo_database::Transaction;
use orzo_model::{Scope, Timestamp};
use uuid::Uuid;

use super::{
    CURRENT, MetricSource, NAMED_AT_ONCE, Resource, ResourceChange, ResourceQuery, check_lifespan, fill_own_metrics,
    is_same, read_resource, set_attribute,
};
use crate::{
    Index, IndexError,
    repository::{
        advance, change_row, counter,
        metrics::{attach_metrics, count_new, detach_metrics},
    },
    sql::{Sql, transact},
};

impl Index {
    /// Changes a resource; says whether a new revision was made.
    pub async fn update_resource(
        &self,
        scope: &Scope,
        resource_type: &str,
        id: Uuid,
        change: &ResourceChange,
    ) -> Result<(Resource, bool), IndexError> {
        let _change = self.change();
        let now = self.clock.now();
        let series = self.next_series(change.metrics.as_deref().map_or(0, count_new)).await?;
        let (resource, changed, detached) = transact!(self.database, |tx| {
            let (old, kind) = read_resource(tx, scope, resource_type, id).await?;
            let mut new = old.clone();
            if let Some(project) = &change.project_id {
                new.project_id.clone_from(project);
            }
            if let Some(user) = &change.user_id {
                new.user_id.clone_from(user);
            }
            new.started_at = change.started_at.unwrap_or(old.started_at);
            new.ended_at = change.ended_at.unwrap_or(old.ended_at);
            check_lifespan(new.started_at, new.ended_at)?;
            for (name, value) in kind.check_attributes(&change.attributes, true)? {
                set_attribute(&mut new.attributes, name, value);
            }
            let changed = !is_same(&old, &new);
            if changed {
                change_row(tx, &old, &mut new, &kind, now).await?;
            }
            if old.project_id != new.project_id {
                // Others see its metrics now.
                advance(tx, "deletions", 1).await?;
            }
            let mut deletions = None;
            if let Some(metrics) = &change.metrics {
                detach_metrics(tx, id).await?;
                attach_metrics(tx, id, &old.creator, metrics, series).await?;
                advance(tx, "deletions", 1).await?;
                deletions = Some(counter(tx, "deletions").await?);
            }
            fill_own_metrics(tx, &mut new).await?;
            Ok((new, changed, deletions))
        })?;
        if let Some(deletions) = detached {
            self.saw_deletions(deletions);
        }
        self.forget(id).await;
        Ok((resource, changed))
    }

    /// Makes or attaches metrics of a resource; all or nothing.
    pub async fn add_resource_metrics(
        &self,
        scope: &Scope,
        id: Uuid,
        creator: &str,
        metrics: &[(String, MetricSource)],
    ) -> Result<Resource, IndexError> {
        let _change = self.change();
        let series = self.next_series(count_new(metrics)).await?;
        let resource = transact!(self.database, |tx| {
            let (mut resource, _) = read_resource(tx, scope, "generic", id).await?;
            attach_metrics(tx, id, creator, metrics, series).await?;
            fill_own_metrics(tx, &mut resource).await?;
            Ok(resource)
        })
        .map_err(|error: IndexError| match (error, metrics.first()) {
            (error, Some((name, _))) if error.is_constraint() => IndexError::NamedMetricExists { name: name.clone() },
            (error, _) => error,
        })?;
        self.forget(id).await;
        Ok(resource)
    }

    /// Removes a resource with its history; its metrics are marked deleted.
    pub async fn delete_resource(&self, scope: &Scope, resource_type: &str, id: Uuid) -> Result<(), IndexError> {
        let _change = self.change();
        let now = self.clock.now();
        let deletions = transact!(self.database, |tx| {
            read_resource(tx, scope, resource_type, id).await?;
            delete_rows(tx, &[id.to_string()], now).await?;
            advance(tx, "deletions", 1).await?;
            counter(tx, "deletions").await
        })?;
        self.saw_deletions(deletions);
        Ok(())
    }

    /// Removes all resources that a search finds; how many. The search may not be empty.
    pub async fn delete_resources(&self, query: &ResourceQuery) -> Result<u64, IndexError> {
        let _change = self.change();
        if query.filter.is_everything() {
            return Err(IndexError::refused(
                "caution: the query can not be empty, or it will                   delete entire database",
            ));
        }
        let kind = self.resource_type(&query.resource_type).await?;
        let mut sql = Sql::new(format!("SELECT r.id FROM {CURRENT} r WHERE 1 = 1"));
        self.push_conditions(query, &kind, &mut sql)?;
        let now = self.clock.now();
        let (count, deletions) = transact!(self.database, |tx| {
            let rows = tx.query(&sql.text, &sql.values).await?;
            let ids: Vec<String> = rows.iter().map(|row| row.string("id")).collect();
            for chunk in ids.chunks(NAMED_AT_ONCE) {
                delete_rows(tx, chunk, now).await?;
            }
            advance(tx, "deletions", 1).await?;
            Ok((ids.len() as u64, counter(tx, "deletions").await?))
        })?;
        self.saw_deletions(deletions);
        Ok(count)
    }

    /// Wakes resources that measures are newer than: `ended_at` goes away. How many changed.
    pub async fn wake_resources(&self, newest: &[(Uuid, Timestamp)]) -> Result<u64, IndexError> {
        let mut ended: HashMap<Uuid, Timestamp> = HashMap::new();
        let mut unknown = Vec::new();
        for (id, _) in newest {
            match self.metrics_known.ended(id) {
                Some(Some(ended_at)) => drop(ended.insert(*id, ended_at)),
                Some(None) => {}
                None => unknown.push(*id),
            }
        }
        let forgotten = self.metrics_known.forgotten();
        for chunk in unknown.chunks(NAMED_AT_ONCE) {
            let mut sql = Sql::new("SELECT id, ended_at FROM index_resources WHERE id IN ");
            sql.push_list(chunk.iter().map(Uuid::to_string));
            for row in self.database.query(&sql.text, &sql.values).await? {
                if let Ok(id) = Uuid::parse_str(&row.string("id")) {
                    let ended_at = row.time("ended_at");
                    self.metrics_known.remember_ended(id, ended_at, forgotten);
                    ended.extend(ended_at.map(|ended_at| (id, ended_at)));
                }
            }
        }
        let change = ResourceChange { ended_at: Some(None), ..ResourceChange::default() };
        let mut changed = 0;
        for (id, newest) in newest {
            if ended.get(id).is_some_and(|ended_at| newest > ended_at) {
                match self.update_resource(&Scope::All, "generic", *id, &change).await {
                    Err(IndexError::NotFound { .. }) => {}
                    outcome => changed += u64::from(outcome?.1),
                }
            }
        }
        Ok(changed)
    }

    /// Ends resources (an event said so): sets `ended_at` where it is not set to an earlier or the same time. A time
    /// before the start becomes the start. How many changed.
    pub async fn end_resources(&self, ids: &[Uuid], ended_at: Timestamp) -> Result<u64, IndexError> {
        let _change = self.change();
        let now = self.clock.now();
        let changed = transact!(self.database, |tx| {
            let mut changed = Vec::new();
            for &id in ids {
                let (old, kind) = match read_resource(tx, &Scope::All, "generic", id).await {
                    Err(IndexError::NotFound { .. }) => continue,
                    outcome => outcome?,
                };
                let ended_at = ended_at.max(old.started_at);
                if old.ended_at.is_some_and(|old| old <= ended_at) {
                    continue;
                }
                let mut new = Resource { ended_at: Some(ended_at), ..old.clone() };
                change_row(tx, &old, &mut new, &kind, now).await?;
                changed.push(id);
            }
            Ok(changed)
        })?;
        for &id in &changed {
            self.forget(id).await;
        }
        Ok(changed.len() as u64)
    }
}

async fn delete_rows(tx: &mut Transaction<'_>, ids: &[String], now: Timestamp) -> Result<(), IndexError> {
    let mut sql = Sql::new("UPDATE index_metrics SET status = 'delete', resource_id = NULL, deleted_at = ");
    let place = sql.bind(now);
    sql.push(&place).push(" WHERE status = 'active' AND resource_id IN ").push_list(ids);
    tx.execute(&sql.text, &sql.values).await?;
    for (table, column) in
        [("index_attributes", "resource_id"), ("index_resource_history", "id"), ("index_resources", "id")]
    {
        let mut sql = Sql::new(format!("DELETE FROM {table} WHERE {column} IN "));
        sql.push_list(ids);
        tx.execute(&sql.text, &sql.values).await?;
    }
    Ok(())
}
