//! What bills are made from: who owned things in a time, those things with their whole history, and what happened to them.
//!
//! For the processor of bills, which works for the operator: there is no scope here but the project that is asked about.

use std::collections::BTreeMap;

use orzo_model::{Event, Timestamp};

use super::{
    events::event_of,
    resources::{Resource, resource_of},
};
use crate::{Index, IndexError, sql::Sql};

/// Resources read in one statement.
const RESOURCES_AT_ONCE: usize = 500;

impl Index {
    /// Projects that owned a resource, or to which something happened, since a time.
    pub async fn projects_since(&self, begin: Timestamp) -> Result<Vec<String>, IndexError> {
        let sql = "SELECT DISTINCT project_id FROM index_resources WHERE project_id IS NOT NULL \
                   AND (ended_at IS NULL OR ended_at >= $1) \
                   UNION SELECT DISTINCT project_id FROM index_resource_history WHERE project_id IS NOT NULL \
                   AND revision_end >= $1 \
                   UNION SELECT DISTINCT project_id FROM index_events WHERE project_id IS NOT NULL AND generated_at >= $1 \
                   ORDER BY 1";
        let rows = self.database.query(sql, &[begin.into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text("project_id")).filter(|project| !project.is_empty()).collect())
    }

    /// The first moment of anything that a project owned, or that an event tells of it.
    pub async fn first_of_project(&self, project_id: &str) -> Result<Option<Timestamp>, IndexError> {
        let sql = "SELECT min(at) AS at FROM ( \
                   SELECT min(CASE WHEN started_at < revision_start THEN started_at ELSE revision_start END) AS at \
                   FROM index_resources WHERE project_id = $1 \
                   UNION ALL SELECT min(CASE WHEN started_at < revision_start THEN started_at ELSE revision_start END) \
                   FROM index_resource_history WHERE project_id = $1 \
                   UNION ALL SELECT min(generated_at) FROM index_events WHERE project_id = $1) AS firsts";
        Ok(self.database.query_one(sql, &[project_id.into()]).await?.and_then(|row| row.time("at")))
    }

    /// The revisions, oldest first, of all resources of these types that a project owned at any moment since `begin`. At
    /// most `limit` resources; one more is given if there are more.
    pub async fn owned_since(
        &self,
        project_id: &str,
        types: &[String],
        begin: Timestamp,
        limit: usize,
    ) -> Result<Vec<Vec<Resource>>, IndexError> {
        let mut sql = Sql::new("SELECT id FROM index_resources WHERE project_id = ");
        let (project, begin) = (sql.bind(project_id), sql.bind(begin));
        sql.push(&project).push(" AND (ended_at IS NULL OR ended_at >= ").push(&begin).push(") AND type IN ");
        sql.push_texts(self.is_sqlite(), types.iter().cloned());
        // Whose it was before: revisions of those that another project has now.
        sql.push(" UNION SELECT id FROM index_resource_history WHERE project_id = ").push(&project);
        sql.push(" AND revision_end >= ").push(&begin).push(" AND type IN ");
        sql.push_texts(self.is_sqlite(), types.iter().cloned());
        let limit = sql.bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
        sql.push(" ORDER BY 1 LIMIT ").push(&limit);
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let ids: Vec<String> = rows.iter().map(|row| row.string("id")).collect();
        self.revisions_of("id", ids).await
    }

    /// The revisions, oldest first, of resources by the text that they were created with.
    pub async fn known_as(&self, names: Vec<String>) -> Result<Vec<Vec<Resource>>, IndexError> {
        self.revisions_of("original_resource_id", names).await
    }

    pub(super) async fn revisions_of(
        &self,
        column: &str,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<Resource>>, IndexError> {
        let mut found: BTreeMap<uuid::Uuid, Vec<Resource>> = BTreeMap::new();
        for chunk in texts.chunks(RESOURCES_AT_ONCE) {
            for (table, own) in [
                ("index_resource_history", "revision, revision_end"),
                ("index_resources", "-1 AS revision, CAST(NULL AS BIGINT) AS revision_end"),
            ] {
                let mut sql = Sql::new(format!(
                    "SELECT id, type, original_resource_id, creator, created_by_user_id, created_by_project_id, \
                     project_id, user_id, started_at, ended_at, revision_start, attributes, {own} FROM {table} \
                     WHERE {column} IN "
                ));
                sql.push_texts(self.is_sqlite(), chunk.iter().cloned());
                for row in self.database.query(&sql.text, &sql.values).await? {
                    let resource = resource_of(&row)?;
                    found.entry(resource.id).or_default().push(resource);
                }
            }
        }
        let mut all: Vec<Vec<Resource>> = found.into_values().collect();
        for revisions in &mut all {
            revisions.sort_by_key(|own| (own.revision_end.is_none(), own.revision_start, own.revision));
        }
        Ok(all)
    }

    /// Projects whose events were kept after the one with this number (without one: that were generated since `begin`), each
    /// with the time of the earliest of them, and the number of the newest event.
    pub async fn events_since(
        &self,
        after: Option<i64>,
        begin: Timestamp,
    ) -> Result<(Vec<(String, Timestamp)>, i64), IndexError> {
        let newest = self.newest_event().await?;
        let (column, value) = match after {
            Some(number) => ("number >", number.into()),
            None => ("generated_at >=", begin.into()),
        };
        let sql = format!(
            "SELECT project_id, min(generated_at) AS earliest FROM index_events \
             WHERE project_id IS NOT NULL AND number <= $2 AND {column} $1 GROUP BY project_id ORDER BY project_id"
        );
        let rows = self.database.query(&sql, &[value, newest.into()]).await?;
        let found = rows.iter().filter_map(|row| Some((row.text("project_id")?, row.time("earliest")?)));
        Ok((found.collect(), newest))
    }

    /// All events of resources, by the trait `resource_id`, oldest first; at most `limit`, and one more if there are more.
    pub async fn events_of(&self, resources: &[String], limit: usize) -> Result<Vec<Event>, IndexError> {
        let mut found = Vec::new();
        for chunk in resources.chunks(RESOURCES_AT_ONCE) {
            let mut sql = Sql::new(
                "SELECT e.* FROM index_event_traits t JOIN index_events e ON e.message_id = t.message_id \
                 WHERE t.name = 'resource_id' AND t.text IN ",
            );
            sql.push_texts(self.is_sqlite(), chunk.iter().cloned());
            let left = limit.saturating_add(1).saturating_sub(found.len());
            let left = sql.bind(i64::try_from(left).unwrap_or(i64::MAX));
            sql.push(" ORDER BY e.generated_at, e.message_id LIMIT ").push(&left);
            for row in self.database.query(&sql.text, &sql.values).await? {
                found.push(event_of(&row)?);
            }
        }
        Ok(found)
    }
}
