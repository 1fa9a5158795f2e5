//! Events and the revisions of resources, all of them page by page, for whoever reads them as tables. Narrowed by what an
//! index can find; for operators, so without a scope.

use orzo_model::{Event, SeriesId, Timestamp};

use super::{events::SEARCHED_CHARACTERS_MAX, events::event_of, resources::Resource};
use crate::{Index, IndexError, attribute::storable, sql::Sql};

/// Rows of one page. In tests a few are many.
const PAGE_ROWS: usize = if cfg!(test) { 3 } else { 2048 };

/// Which events are wanted: those of which all of this holds.
#[derive(Clone, Debug, Default)]
pub struct EventsWanted {
    /// Not before.
    pub first: Option<Timestamp>,
    /// Not after.
    pub last: Option<Timestamp>,
    /// One of these.
    pub message_ids: Option<Vec<String>>,
    /// Of one of these types.
    pub event_types: Option<Vec<String>>,
    /// Of one of these projects.
    pub project_ids: Option<Vec<String>>,
    /// About one of these (the trait `resource_id`). Others may be given whose first 255 characters are the same: whoever asks
    /// looks again.
    pub resource_ids: Option<Vec<String>>,
}

/// Where a page of events begins: after this time and message id.
pub type EventPlace = (Timestamp, String);

/// Which revisions of resources are wanted: all of those resources of which this holds, or once held.
#[derive(Clone, Debug, Default)]
pub struct RevisionsWanted {
    /// Created with one of these texts.
    pub original_resource_ids: Option<Vec<String>>,
    /// Owned by one of these projects at any time.
    pub project_ids: Option<Vec<String>>,
}

/// What a rule about keeping its points asks of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMetric {
    /// Its series.
    pub series: SeriesId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Name of its archive policy.
    pub policy: String,
    /// Who owns its resource now.
    pub project_id: Option<String>,
}

impl Index {
    /// The next active metrics after a series, in the order of series. Fewer than `limit` are the last.
    pub async fn kept_page(&self, after: Option<SeriesId>, limit: usize) -> Result<Vec<KeptMetric>, IndexError> {
        let mut sql = Sql::new(
            "SELECT m.series AS series, m.name AS name, m.archive_policy_name AS policy, r.project_id AS project_id \
             FROM index_metrics m LEFT JOIN index_resources r ON r.id = m.resource_id WHERE m.series > ",
        );
        let after = after.map_or(-1, |series| i64::try_from(series.0).unwrap_or(i64::MAX));
        let (after, limit) = (sql.bind(after), sql.bind(i64::try_from(limit).unwrap_or(i64::MAX)));
        sql.push(&format!("{after} AND m.status = 'active' ORDER BY m.series LIMIT {limit}"));
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let row = |row: &orzo_database::Row| {
            Some(KeptMetric {
                series: SeriesId(u64::try_from(row.int("series")?).ok()?),
                name: row.text("name"),
                policy: row.text("policy")?,
                project_id: row.text("project_id"),
            })
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// The next events that are wanted, oldest first, and where the page after them begins; `None`: there is none.
    pub async fn events_page(
        &self,
        wanted: &EventsWanted,
        after: Option<&EventPlace>,
    ) -> Result<(Vec<Event>, Option<EventPlace>), IndexError> {
        let mut sql = Sql::new(
            "SELECT e.message_id, e.event_type, e.generated_at, e.traits, CAST(NULL AS TEXT) AS raw \
             FROM index_events e WHERE 1 = 1",
        );
        for (operator, time) in [(">=", wanted.first), ("<=", wanted.last)] {
            if let Some(time) = time {
                let place = sql.bind(time);
                sql.push(&format!(" AND e.generated_at {operator} {place}"));
            }
        }
        let lists = [
            ("message_id", &wanted.message_ids),
            ("event_type", &wanted.event_types),
            ("project_id", &wanted.project_ids),
        ];
        for (column, list) in lists {
            if let Some(list) = list {
                sql.push(&format!(" AND e.{column} IN ")).push_texts(self.is_sqlite(), list.iter().cloned());
            }
        }
        if let Some(list) = &wanted.resource_ids {
            let searched = |text: &String| storable(text).chars().take(SEARCHED_CHARACTERS_MAX).collect();
            sql.push(
                " AND e.message_id IN (SELECT t.message_id FROM index_event_traits t \
                 WHERE t.name = 'resource_id' AND t.text IN ",
            );
            sql.push_texts(self.is_sqlite(), list.iter().map(searched)).push(")");
        }
        if let Some((time, id)) = after {
            let (time, id) = (sql.bind(*time), sql.bind(id.as_str()));
            sql.push(&format!(" AND (e.generated_at, e.message_id) > ({time}, {id})"));
        }
        let limit = sql.bind(PAGE_ROWS as i64);
        sql.push(" ORDER BY e.generated_at, e.message_id LIMIT ").push(&limit);
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let events = rows.iter().map(event_of).collect::<Result<Vec<Event>, _>>()?;
        let last = events.last().filter(|_| events.len() == PAGE_ROWS);
        let next = last.map(|event| (event.generated_at, event.message_id.clone()));
        Ok((events, next))
    }

    /// The next active metrics after a series: each one's series and the name of its archive policy, in the order of series. Fewer
    /// than `limit` are the last.
    pub async fn policies_page(
        &self,
        after: Option<SeriesId>,
        limit: usize,
    ) -> Result<Vec<(SeriesId, String)>, IndexError> {
        let mut sql = Sql::new("SELECT series, archive_policy_name FROM index_metrics WHERE series > ");
        let after = after.map_or(-1, |series| i64::try_from(series.0).unwrap_or(i64::MAX));
        let (after, limit) = (sql.bind(after), sql.bind(i64::try_from(limit).unwrap_or(i64::MAX)));
        sql.push(&format!("{after} AND status = 'active' ORDER BY series LIMIT {limit}"));
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let row = |row: &orzo_database::Row| {
            Some((SeriesId(u64::try_from(row.int("series")?).ok()?), row.text("archive_policy_name")?))
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// The revisions, oldest first, of the next resources that are wanted, and the id after which the next page begins;
    /// `None`: there is none.
    pub async fn revisions_page(
        &self,
        wanted: &RevisionsWanted,
        after: Option<&str>,
    ) -> Result<(Vec<Vec<Resource>>, Option<String>), IndexError> {
        let mut sql = Sql::new("SELECT id FROM index_resources WHERE id > ");
        let place = sql.bind(after.unwrap_or_default());
        sql.push(&place);
        if let Some(list) = &wanted.original_resource_ids {
            sql.push(" AND original_resource_id IN ").push_texts(self.is_sqlite(), list.iter().cloned());
        }
        if let Some(list) = &wanted.project_ids {
            sql.push(" AND (project_id IN ").push_texts(self.is_sqlite(), list.iter().cloned());
            sql.push(" OR id IN (SELECT id FROM index_resource_history WHERE project_id IN ");
            sql.push_texts(self.is_sqlite(), list.iter().cloned()).push("))");
        }
        let limit = sql.bind(PAGE_ROWS as i64);
        sql.push(" ORDER BY id LIMIT ").push(&limit);
        let rows = self.database.query(&sql.text, &sql.values).await?;
        let ids: Vec<String> = rows.iter().map(|row| row.string("id")).collect();
        let next = ids.last().filter(|_| ids.len() == PAGE_ROWS).cloned();
        Ok((self.revisions_of("id", ids).await?, next))
    }
}
