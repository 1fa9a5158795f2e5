//! Pages and their order, whatever is listed: sort keys, and the condition "strictly after the marker". Pure.

use orzo_database::{Row, Value};

use crate::{
    IndexError,
    filter::{Column, expression},
    sql::Sql,
};

/// One sort key: `started_at:desc-nullslast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// Attribute.
    pub key: String,
    /// Largest first.
    pub descending: bool,
    /// Where missing values stand; `None`: last if ascending, first if descending, as PostgreSQL does.
    pub nulls_first: Option<bool>,
}

impl Sort {
    /// Reads `key[:asc|desc[-nullsfirst|-nullslast]]`.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        let (key, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let (descending, nulls_first) = match direction {
            "asc" => (false, None),
            "asc-nullsfirst" => (false, Some(true)),
            "asc-nullslast" => (false, Some(false)),
            "desc" => (true, None),
            "desc-nullsfirst" => (true, Some(true)),
            "desc-nullslast" => (true, Some(false)),
            _ => {
                let known = "asc-nullsfirst, asc-nullslast, desc-nullsfirst, desc-nullslast";
                return Err(bad_page(&format!("Unknown sort direction, must be one of: {known}")));
            }
        };
        Ok(Self { key: key.to_owned(), descending, nulls_first })
    }

    /// By a key, smallest first.
    pub fn ascending(key: &str) -> Self {
        Self { key: key.to_owned(), descending: false, nulls_first: None }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Things on it at most; `None`, and everything larger: the setting `page_max`.
    pub limit: Option<usize>,
    /// The last thing of the page before: an id, with history `<id>@<revision>`.
    pub marker: Option<String>,
    /// Order; empty: the list's own.
    pub sort: Vec<Sort>,
}

pub(crate) fn bad_page(reason: &str) -> IndexError {
    IndexError::refused(format!("Invalid pagination: `{reason}'"))
}

/// One key of an order, whatever is sorted.
#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    pub(crate) column: Column,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
    /// No row has it missing: then an index gives the order, and nothing has to be said of missing values.
    pub(crate) always_there: bool,
}

impl SortKey {
    pub(crate) fn new(column: Column, sort: &Sort) -> Self {
        let always_there = is_never_null(&column);
        let nulls_first = sort.nulls_first.unwrap_or(sort.descending);
        Self { column, descending: sort.descending, nulls_first, always_there }
    }

    pub(crate) fn expression(&self, sql: &mut Sql) -> String {
        expression(&self.column, sql)
    }

    pub(crate) fn cell(&self, row: &Row, name: &str) -> Value {
        match &self.column {
            Column::Id | Column::Text(_) => row.text(name).into(),
            Column::Time(_) | Column::Lifespan => row.int(name).into(),
            Column::Attribute(_, kind) if kind.is_text() => row.text(name).into(),
            Column::Attribute(..) => row.real(name).into(),
        }
    }
}

/// A stretch of an order. An index gives the order of what is there, but the databases disagree on where missing values
/// stand; so an order whose first key may be missing is read as two stretches, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// All rows: the first key is never missing.
    Whole,
    /// The rows that have the first key.
    Present,
    /// The rows that do not.
    Missing,
}

/// The stretches from the marker on, in their order; with each whether the marker stands in it.
pub(crate) fn stretches(first: &SortKey, marker: Option<&Value>) -> Vec<(Stretch, bool)> {
    if first.always_there {
        return vec![(Stretch::Whole, marker.is_some())];
    }
    let order = match first.nulls_first {
        true => [Stretch::Missing, Stretch::Present],
        false => [Stretch::Present, Stretch::Missing],
    };
    let at = marker.map(|value| if is_null(value) { Stretch::Missing } else { Stretch::Present });
    match at {
        Some(at) if at == order[1] => vec![(order[1], true)],
        at => vec![(order[0], at.is_some()), (order[1], false)],
    }
}

/// ` ORDER BY`, with missing values where the key wants them on both databases.
pub(crate) fn push_order(keys: &[SortKey], sql: &mut Sql) {
    for (place, key) in keys.iter().enumerate() {
        let expression = key.expression(sql);
        let direction = if key.descending { "DESC" } else { "ASC" };
        let missing = match (key.always_there, key.nulls_first) {
            (true, _) => "",
            (false, true) => " NULLS FIRST",
            (false, false) => " NULLS LAST",
        };
        sql.push(if place == 0 { " ORDER BY " } else { ", " }).push(&format!("{expression} {direction}{missing}"));
    }
}

/// Columns that need no place for missing values, so that an index can give the order.
fn is_never_null(column: &Column) -> bool {
    matches!(
        column,
        Column::Id
            | Column::Text(
                "m.id"
                    | "m.creator"
                    | "m.created_by_user_id"
                    | "m.created_by_project_id"
                    | "m.archive_policy_name"
                    | "m.status"
                    | "r.type"
                    | "r.original_resource_id"
                    | "r.creator"
                    | "r.created_by_user_id"
                    | "r.created_by_project_id"
            )
            | Column::Time("r.revision_start" | "r.started_at" | "r.revision")
    )
}

/// ` AND (...)`: strictly after the marker in the order of `keys`.
pub(crate) fn push_after_marker(keys: &[SortKey], marker: &[Value], sql: &mut Sql) {
    // Says nothing new, but lets an index start at the marker instead of walking through all pages before it.
    if let (Some(key), Some(value)) = (keys.first().filter(|key| key.always_there), marker.first()) {
        let expression = key.expression(sql);
        let place = sql.bind(value.clone());
        sql.push(&format!(" AND {expression} {} {place}", if key.descending { "<=" } else { ">=" }));
    }
    sql.push(" AND (1 = 0");
    for last in 0..keys.len() {
        sql.push(" OR (1 = 1");
        for (key, value) in keys[..last].iter().zip(marker) {
            let expression = key.expression(sql);
            if is_null(value) {
                sql.push(&format!(" AND {expression} IS NULL"));
            } else {
                let place = sql.bind(value.clone());
                sql.push(&format!(" AND {expression} = {place}"));
            }
        }
        let (key, value) = (&keys[last], &marker[last]);
        let expression = key.expression(sql);
        let condition = match (is_null(value), key.nulls_first) {
            (true, true) => format!("{expression} IS NOT NULL"),
            (true, false) => "1 = 0".to_owned(),
            (false, nulls_first) => {
                let place = sql.bind(value.clone());
                let operator = if key.descending { "<" } else { ">" };
                let after = format!("{expression} {operator} {place}");
                if nulls_first || key.always_there { after } else { format!("({after} OR {expression} IS NULL)") }
            }
        };
        sql.push(&format!(" AND {condition})"));
    }
    sql.push(")");
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Text(None) | Value::Int(None) | Value::Real(None) | Value::Bytes(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_in_stretches_from_the_marker_on() {
        let key = |text: &str, column| SortKey::new(column, &Sort::parse(text).expect("a key"));
        let last = key("host", Column::Text("r.project_id"));
        let first = key("host:desc", Column::Text("r.project_id"));
        let (there, missing) = (Value::from("x"), Value::Text(None));
        assert_eq!(stretches(&key("id", Column::Id), Some(&there)), [(Stretch::Whole, true)]);
        assert_eq!(stretches(&last, None), [(Stretch::Present, false), (Stretch::Missing, false)]);
        assert_eq!(stretches(&last, Some(&there)), [(Stretch::Present, true), (Stretch::Missing, false)]);
        assert_eq!(stretches(&last, Some(&missing)), [(Stretch::Missing, true)]);
        assert_eq!(stretches(&first, Some(&missing)), [(Stretch::Missing, true), (Stretch::Present, false)]);
        assert_eq!(stretches(&first, Some(&there)), [(Stretch::Present, true)]);
    }
}
