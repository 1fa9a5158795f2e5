//! The SQL of one page of metrics. Pure: a question, its order and its marker → statements, read in one of three ways, as
//! resources are (`repository/resources/listing.rs` says why): the metrics that the question names itself, a short list
//! that everything found must be in, or along the order.

use orzo_database::Value;
use orzo_model::Scope;
use uuid::Uuid;

use super::{MetricQuery, created_by_project, created_by_user};
use crate::{
    filter::{Column, needed::Needed},
    repository::{
        paging::{SortKey, Stretch, push_after_marker, push_order},
        push_scope,
    },
    sql::Sql,
};

/// What is read of a metric; policies are few and read on their own.
const COLUMNS: &str = "SELECT m.id, m.series, m.name, m.unit, m.creator, m.resource_id, \
     r.project_id AS resource_project_id, m.archive_policy_name";
const JOINS: &str = "index_metrics m LEFT JOIN index_resources r ON r.id = m.resource_id";

/// A page of metrics.
pub(crate) struct Listing<'a> {
    pub(crate) query: &'a MetricQuery,
    pub(crate) keys: Vec<SortKey>,
    /// Where the page before ended: a value for each key.
    pub(crate) marker: Option<Vec<Value>>,
    pub(crate) is_sqlite: bool,
}

impl Listing<'_> {
    /// The lists of ids in which everything found must be. A name is none: its index is in the order of ids.
    pub(crate) fn needed(&self) -> Vec<Needed> {
        let mut lists: Vec<Sql> = Vec::new();
        let mut equal = |conditions: &[(&str, &str)]| {
            let mut ids = Sql::new("SELECT m.id AS id FROM index_metrics m WHERE 1 = 1");
            for (column, value) in conditions {
                let place = ids.bind(*value);
                ids.push(&format!(" AND {column} = {place}"));
            }
            lists.push(ids);
        };
        let (project, user) = ("m.created_by_project_id", "m.created_by_user_id");
        if let Some(creator) = &self.query.creator {
            equal(&[(project, created_by_project(creator)), (user, created_by_user(creator))]);
        }
        if let Some(value) = &self.query.project_id {
            equal(&[(project, value)]);
        }
        if let Some(policy) = &self.query.archive_policy_name {
            equal(&[("m.archive_policy_name", policy)]);
        }
        if self.query.deleted {
            // A literal, the time that each has, and an id that is no column, so that SQLite takes the index of the deleted.
            let text = "SELECT m.id || '' AS id FROM index_metrics m WHERE m.status = 'delete' AND m.deleted_at >= 0";
            lists.insert(0, Sql::new(text));
        }
        let mut lists: Vec<Needed> = lists.into_iter().map(|ids| Needed { ids, is_short: false }).collect();
        lists.extend(visible(&self.query.scope));
        lists
    }

    /// The page, of the metrics that the question names, or whose resources it names; `None` if it names none.
    pub(crate) fn named(&self, limit: usize) -> Option<Sql> {
        let (column, ids) = match (&self.query.ids, &self.query.resource_ids) {
            (Some(ids), _) => ("m.id", ids),
            (None, Some(ids)) => ("m.resource_id", ids),
            (None, None) => return None,
        };
        let mut sql = Sql::new(format!("{COLUMNS} FROM {JOINS} WHERE m.status = {} AND {column} IN ", self.status()));
        self.push_ids(ids, &mut sql);
        Some(self.finish(sql, &self.keys, self.marker.as_deref(), limit))
    }

    /// The page, of the metrics with these ids.
    pub(crate) fn among(&self, ids: Sql, limit: usize) -> Sql {
        let text = format!(
            "{COLUMNS} FROM (SELECT DISTINCT x.id FROM ({}) x) s CROSS JOIN {JOINS} WHERE m.id = s.id AND m.status = {}",
            ids.text,
            self.status()
        );
        self.finish(Sql { text, ..ids }, &self.keys, self.marker.as_deref(), limit)
    }

    /// The page, of one stretch of the order.
    pub(crate) fn stretch(&self, stretch: Stretch, at_marker: bool, limit: usize) -> Sql {
        let mut keys = self.keys.clone();
        let mut marker = self.marker.as_deref().filter(|_| at_marker);
        let mut sql = Sql::new(format!("{COLUMNS} FROM {JOINS} WHERE m.status = {}", self.status()));
        match stretch {
            Stretch::Whole => {}
            Stretch::Present => {
                let expression = keys[0].expression(&mut sql);
                sql.push(&format!(" AND {expression} IS NOT NULL"));
                keys[0].always_there = true;
            }
            Stretch::Missing => {
                let expression = keys.remove(0).expression(&mut sql);
                sql.push(&format!(" AND {expression} IS NULL"));
                marker = marker.map(|marker| &marker[1..]);
            }
        }
        if let (Some(name), true) = (&self.query.name, keys[0].column == Column::Text("m.id")) {
            let place = sql.bind(name.as_str());
            sql.push(&format!(" AND m.name = {place}"));
        }
        self.finish(sql, &keys, marker, limit)
    }

    /// Adds what is found, the order and the end.
    fn finish(&self, mut sql: Sql, keys: &[SortKey], marker: Option<&[Value]>, limit: usize) -> Sql {
        if let Some(marker) = marker {
            push_after_marker(keys, marker, &mut sql);
        }
        sql.push(" AND NOT (NOT (1 = 1");
        push_scope(&self.query.scope, "m", &mut sql);
        for (column, value) in [
            ("m.name", &self.query.name),
            ("m.unit", &self.query.unit),
            ("m.creator", &self.query.creator),
            ("m.created_by_user_id", &self.query.user_id),
            ("m.created_by_project_id", &self.query.project_id),
            ("m.archive_policy_name", &self.query.archive_policy_name),
        ] {
            if let Some(value) = value {
                let place = sql.bind(value.as_str());
                sql.push(&format!(" AND {column} = {place}"));
            }
        }
        if let (Some(_), Some(resources)) = (&self.query.ids, &self.query.resource_ids) {
            sql.push(" AND m.resource_id IN ");
            self.push_ids(resources, &mut sql);
        }
        sql.push("))");
        push_order(keys, &mut sql);
        let place = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(" LIMIT ").push(&place);
        sql
    }

    fn push_ids(&self, ids: &[Uuid], sql: &mut Sql) {
        match ids {
            [id] => sql.push_list([id.to_string()]),
            ids => sql.push_texts(self.is_sqlite, ids.iter().map(Uuid::to_string)),
        };
    }

    /// As a literal: only so the databases know that a partial index covers it.
    fn status(&self) -> &'static str {
        if self.query.deleted { "'delete'" } else { "'active'" }
    }
}

/// The ids of the metrics that a scope sees, if an index has them.
pub(crate) fn visible(scope: &Scope) -> Option<Needed> {
    const MADE: &str = "SELECT m.id AS id FROM index_metrics m WHERE m.created_by_project_id = $1";
    const OWNED: &str = "SELECT m.id AS id FROM index_resources r CROSS JOIN index_metrics m WHERE r.project_id = $1 \
                         AND m.resource_id = r.id AND m.status = 'active'";
    let text = match scope {
        Scope::All => return None,
        Scope::Project(_) => format!("{MADE} UNION ALL {OWNED}"),
        Scope::Owner(_) => OWNED.to_owned(),
        Scope::Maker(_) => MADE.to_owned(),
        Scope::Creator(_) => format!("{MADE} AND m.created_by_user_id = $2"),
        Scope::Nothing => "SELECT m.id AS id FROM index_metrics m WHERE 1 = 0".to_owned(),
    };
    let values = match scope {
        Scope::Project(project) | Scope::Owner(project) | Scope::Maker(project) => vec![project.as_str().into()],
        Scope::Creator(name) => vec![created_by_project(name).into(), created_by_user(name).into()],
        Scope::All | Scope::Nothing => Vec::new(),
    };
    Some(Needed { ids: Sql { text, values }, is_short: *scope == Scope::Nothing })
}
