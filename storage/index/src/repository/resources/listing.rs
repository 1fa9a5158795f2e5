//! The SQL of one page of current resources. Pure: a question, its order and its marker → statements. History, which is
//! small, is read by the simpler text in `search.rs`.
//!
//! Three ways to read, each by an index (`repository/reach.rs` chooses):
//! - a short list of ids that everything found must be in: read whole and sorted;
//! - sorted by id and with one value fixed (a project, a user, an attribute): from the marker on in that value's rows;
//! - else along the order from the marker on, in one or two stretches (`paging.rs`).
//!
//! SQLite chooses its plan without knowing how common a value is, so that a condition which must not lead the way is
//! written `NOT (NOT (...))`: SQLite uses no index for it, and PostgreSQL, which has statistics, takes it as it is.

use orzo_database::Value;
use orzo_model::Scope;

use super::{CURRENT, RESOURCE_COLUMNS, search::ResourceQuery};
use crate::{
    Filter, IndexError, ResourceType,
    filter::{Column, Comparison, Context, needed::Needed},
    repository::{
        paging::{SortKey, Stretch, push_after_marker, push_order},
        push_scope,
    },
    sql::Sql,
};

/// A page of resources.
pub(crate) struct Listing<'a> {
    pub(crate) query: &'a ResourceQuery,
    pub(crate) kind: &'a ResourceType,
    pub(crate) context: Context<'a>,
    pub(crate) keys: Vec<SortKey>,
    /// Where the page before ended: a value for each key.
    pub(crate) marker: Option<Vec<Value>>,
}

/// A condition whose rows an index has in the order of their ids.
pub(crate) struct Pinned<'a> {
    attribute: &'a str,
    column: Column,
    value: &'a serde_json::Value,
}

impl<'a> Listing<'a> {
    /// The lists of ids in which everything found must be.
    pub(crate) fn needed(&self) -> Result<Vec<Needed>, IndexError> {
        let mut lists = self.context.needed(&self.query.filter)?;
        lists.extend(visible(&self.query.scope));
        if self.kind.name != "generic" {
            let mut ids = Sql::new("SELECT r.id AS id FROM index_resources r WHERE r.type = ");
            let place = ids.bind(self.kind.name.as_str());
            ids.push(&place);
            lists.push(Needed { ids, is_short: false });
        }
        Ok(lists)
    }

    /// The condition along which the page can be read, if it is sorted by id.
    pub(crate) fn pinned(&self) -> Result<Option<Pinned<'a>>, IndexError> {
        if self.keys[0].column != Column::Id || self.keys[0].descending {
            return Ok(None);
        }
        for part in self.query.filter.all_of() {
            let Filter::Compare { comparison: Comparison::Equal, attribute, value } = part else { continue };
            let column = self.context.column(attribute)?;
            let has_index =
                matches!(column, Column::Text("r.project_id" | "r.user_id" | "r.creator") | Column::Attribute(..));
            if has_index && !value.is_null() {
                return Ok(Some(Pinned { attribute, column, value }));
            }
        }
        Ok(None)
    }

    /// The page, of the rows in which one value is fixed.
    pub(crate) fn along(&self, pinned: &Pinned<'_>, limit: usize) -> Result<Sql, IndexError> {
        let (mut sql, column, id) = match &pinned.column {
            Column::Attribute(name, kind) => {
                let sql = start_at_attribute(name);
                (sql, if kind.is_text() { "k.text" } else { "k.number" }, Column::Text("k.resource_id"))
            }
            Column::Text(name) => (Sql::new(format!("{} WHERE 1 = 1", start())), *name, Column::Id),
            _ => return Err(IndexError::damaged("a listing", "a condition without an index leads it")),
        };
        let place = self.context.bind(pinned.attribute, &pinned.column, pinned.value, &mut sql)?;
        sql.push(&format!(" AND {column} = {place}"));
        let keys = [SortKey { column: id, always_there: true, ..self.keys[0].clone() }];
        let marker = self.marker.as_ref().map(|marker| &marker[..1]);
        self.finish(sql, &keys, marker, false, limit)
    }

    /// The page, of the rows with these ids.
    pub(crate) fn among(&self, ids: Sql, limit: usize) -> Result<Sql, IndexError> {
        let text = format!(
            "SELECT {RESOURCE_COLUMNS} FROM (SELECT DISTINCT x.id FROM ({}) x) s CROSS JOIN {CURRENT} r WHERE r.id = s.id",
            ids.text
        );
        self.finish(Sql { text, ..ids }, &self.keys, self.marker.as_deref(), false, limit)
    }

    /// The page, of one stretch of the order.
    pub(crate) fn stretch(&self, stretch: Stretch, at_marker: bool, limit: usize) -> Result<Sql, IndexError> {
        let mut keys = self.keys.clone();
        let mut marker = self.marker.as_deref().filter(|_| at_marker);
        let mut sql = Sql::new(format!("{} WHERE 1 = 1", start()));
        match (&self.keys[0].column, stretch) {
            (_, Stretch::Whole) => {}
            (Column::Attribute(name, kind), Stretch::Present) => {
                sql = start_at_attribute(name);
                let column = if kind.is_text() { "k.text" } else { "k.number" };
                sql.push(&format!(" AND {column} IS NOT NULL"));
                keys[0] = SortKey { column: Column::Text(column), always_there: true, ..keys[0].clone() };
                if let Some(key) = keys.last_mut() {
                    key.column = Column::Text("k.resource_id");
                }
            }
            (Column::Attribute(name, kind), Stretch::Missing) => {
                let place = sql.bind(name.as_str());
                let column = if kind.is_text() { "text" } else { "number" };
                sql.push(&format!(
                    " AND NOT EXISTS (SELECT 1 FROM index_attributes k WHERE k.resource_id = r.id AND k.revision = -1 \
                     AND k.name = {place} AND k.{column} IS NOT NULL)"
                ));
                keys.remove(0);
                marker = marker.map(|marker| &marker[1..]);
            }
            (_, Stretch::Present) => {
                let expression = keys[0].expression(&mut sql);
                sql.push(&format!(" AND {expression} IS NOT NULL"));
                keys[0].always_there = true;
            }
            (_, Stretch::Missing) => {
                let first = keys.remove(0).expression(&mut sql);
                sql.push(&format!(" AND {first} IS NULL"));
                marker = marker.map(|marker| &marker[1..]);
            }
        }
        let in_order_of_type = self.keys[0].column == Column::Time("r.revision_start");
        self.finish(sql, &keys, marker, in_order_of_type, limit)
    }

    /// Adds what is found, the order and the end. `type_leads`: the index of the order begins with the type.
    fn finish(
        &self,
        mut sql: Sql,
        keys: &[SortKey],
        marker: Option<&[Value]>,
        type_leads: bool,
        limit: usize,
    ) -> Result<Sql, IndexError> {
        let is_typed = self.kind.name != "generic";
        if is_typed && type_leads {
            let place = sql.bind(self.kind.name.as_str());
            sql.push(&format!(" AND r.type = {place}"));
        }
        if let Some(marker) = marker {
            push_after_marker(keys, marker, &mut sql);
        }
        sql.push(" AND NOT (NOT (1 = 1");
        if is_typed && !type_leads {
            let place = sql.bind(self.kind.name.as_str());
            sql.push(&format!(" AND r.type = {place}"));
        }
        push_scope(&self.query.scope, "r", &mut sql);
        if !self.query.filter.is_everything() {
            sql.push(" AND (");
            self.context.push_condition(&self.query.filter, &mut sql)?;
            sql.push(")");
        }
        sql.push("))");
        push_order(keys, &mut sql);
        let place = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(" LIMIT ").push(&place);
        Ok(sql)
    }
}

/// All current resources.
fn start() -> String {
    format!("SELECT {RESOURCE_COLUMNS} FROM {CURRENT} r")
}

/// Current resources in the order of an attribute of theirs.
fn start_at_attribute(name: &str) -> Sql {
    let mut sql = Sql::new(format!(
        "SELECT {RESOURCE_COLUMNS} FROM index_attributes k CROSS JOIN {CURRENT} r WHERE r.id = k.resource_id \
         AND k.revision = -1 AND k.name = "
    ));
    let place = sql.bind(name);
    sql.push(&place);
    sql
}

/// The ids of the resources that a scope sees, if an index has them.
fn visible(scope: &Scope) -> Option<Needed> {
    let among = |condition: &str| format!("SELECT r.id AS id FROM index_resources r WHERE {condition}");
    let (made, owned) = (among("r.created_by_project_id = $1"), among("r.project_id = $1"));
    let (text, value) = match scope {
        Scope::All => return None,
        Scope::Project(project) => (format!("{made} UNION ALL {owned}"), Some(project)),
        Scope::Owner(project) => (owned, Some(project)),
        Scope::Maker(project) => (made, Some(project)),
        Scope::Creator(name) => (among("r.creator = $1"), Some(name)),
        Scope::Nothing => (among("1 = 0"), None),
    };
    let values = value.map(|value| value.into()).into_iter().collect();
    Some(Needed { ids: Sql { text, values }, is_short: *scope == Scope::Nothing })
}
