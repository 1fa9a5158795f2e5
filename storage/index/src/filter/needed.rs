//! Conditions of a search that an index answers. Pure: a [`Filter`] → `SELECT`s of ids, in each of which everything
//! that the search finds must be. Whoever searches asks how long such a list is, and goes through it instead of
//! through all resources if it is short.

use super::{Column, Comparison, Context, Filter};
use crate::{IndexError, sql::Sql};

/// Lists that one alternative is put together of; SQLite allows 500 `SELECT`s in a row.
const ALTERNATIVES_MAX: usize = 100;

/// A list of ids.
#[derive(Clone, Debug)]
pub(crate) struct Needed {
    /// `SELECT ... AS id ...`; an id may stand there twice.
    pub(crate) ids: Sql,
    /// It names ids itself, so that nobody needs to ask how many there are.
    pub(crate) is_short: bool,
}

impl Context<'_> {
    /// The lists that `filter` needs; none if no index helps.
    pub(crate) fn needed(&self, filter: &Filter) -> Result<Vec<Needed>, IndexError> {
        let mut found = Vec::new();
        for part in filter.all_of() {
            let mut ids = Sql::default();
            if self.push_ids(part, &mut ids)? {
                found.push(Needed { ids, is_short: part.names_ids() });
            }
        }
        Ok(found)
    }

    /// Adds a `SELECT` of the ids that meet `filter`; nothing, and false, if no index has them.
    fn push_ids(&self, filter: &Filter, sql: &mut Sql) -> Result<bool, IndexError> {
        match filter {
            Filter::And(parts) => {
                for part in parts {
                    if self.push_ids(part, sql)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Or(parts) => {
                let before = sql.clone();
                for (place, part) in parts.iter().enumerate() {
                    sql.push(if place > 0 { " UNION ALL " } else { "" });
                    if !self.push_ids(part, sql)? || sql.text.matches(" UNION ALL ").count() >= ALTERNATIVES_MAX {
                        *sql = before;
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Compare { comparison, attribute, value }
                if *comparison != Comparison::NotEqual && !value.is_null() =>
            {
                let column = self.column(attribute)?;
                let Some(cell) = push_select(&column, sql) else { return Ok(false) };
                let place = self.bind(attribute, &column, value, sql)?;
                sql.push(&format!("{cell} {} {place}", comparison.sql()));
                Ok(true)
            }
            Filter::In { attribute, values } if values.iter().all(|value| !value.is_null()) => {
                let column = self.column(attribute)?;
                // A wrong value is told by the condition itself, with its own words.
                if values.iter().any(|value| self.bind(attribute, &column, value, &mut Sql::default()).is_err()) {
                    return Ok(false);
                }
                let Some(cell) = push_select(&column, sql) else { return Ok(false) };
                let places: Vec<String> =
                    values.iter().map(|value| self.bind(attribute, &column, value, sql)).collect::<Result<_, _>>()?;
                sql.push(&format!("{cell} IN ({})", places.join(", ")));
                Ok(true)
            }
            // PostgreSQL's order of texts is not that of their characters, so that a beginning is no range there.
            Filter::Like { attribute, pattern } if self.is_sqlite => {
                let column = self.column(attribute)?;
                let is_text = matches!(&column, Column::Text(_))
                    || matches!(&column, Column::Attribute(_, kind) if kind.is_text());
                let (true, Some((first, after))) = (is_text, range_of(pattern)) else { return Ok(false) };
                let Some(cell) = push_select(&column, sql) else { return Ok(false) };
                let (first, after) = (sql.bind(first), sql.bind(after));
                sql.push(&format!("{cell} >= {first} AND {cell} < {after}"));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Adds `SELECT ... AS id FROM ... WHERE` and gives what to compare, if there is an index of it.
fn push_select(column: &Column, sql: &mut Sql) -> Option<&'static str> {
    match column {
        Column::Id => {
            sql.push("SELECT r.id AS id FROM index_resources r WHERE ");
            Some("r.id")
        }
        Column::Text(
            name @ ("r.type"
            | "r.original_resource_id"
            | "r.creator"
            | "r.created_by_project_id"
            | "r.project_id"
            | "r.user_id"),
        )
        | Column::Time(name @ ("r.started_at" | "r.ended_at" | "r.revision_start")) => {
            sql.push("SELECT r.id AS id FROM index_resources r WHERE ");
            Some(name)
        }
        Column::Attribute(name, kind) => {
            let place = sql.bind(name.as_str());
            let text = "SELECT i.resource_id AS id FROM index_attributes i WHERE i.revision = -1 AND i.name = ";
            sql.push(text).push(&place).push(" AND ");
            Some(if kind.is_text() { "i.text" } else { "i.number" })
        }
        Column::Text(_) | Column::Time(_) | Column::Lifespan => None,
    }
}

impl Filter {
    /// Conditions that must all hold.
    pub(crate) fn all_of(&self) -> Vec<&Self> {
        match self {
            Self::Everything => Vec::new(),
            Self::And(parts) => parts.iter().flat_map(Self::all_of).collect(),
            other => vec![other],
        }
    }

    fn names_ids(&self) -> bool {
        match self {
            Self::Compare { comparison: Comparison::Equal, attribute, .. } | Self::In { attribute, .. } => {
                attribute == "id"
            }
            _ => false,
        }
    }
}

/// The texts that a `like` pattern finds begin so: not before the first, before the second. `None` if they may begin
/// with anything.
fn range_of(pattern: &str) -> Option<(String, String)> {
    let first: String = pattern.chars().take_while(|c| !matches!(c, '%' | '_' | '\\')).collect();
    let mut after: Vec<char> = first.chars().collect();
    while let Some(last) = after.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            after.push(next);
            return Some((first, after.into_iter().collect()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use orzo_model::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{Attribute, ResourceType};

    fn needed(filter: serde_json::Value) -> Vec<String> {
        let attributes = serde_json::from_value::<std::collections::BTreeMap<String, Attribute>>(json!({
            "host": {"type": "string", "required": false}, "size": {"type": "number", "required": false},
        }));
        let kind = ResourceType::new("machine", attributes.expect("attributes")).expect("a type");
        let context = Context { kind: &kind, creator: Some("me"), now: Timestamp::EPOCH, is_sqlite: true };
        let found = context.needed(&Filter::parse(&filter).expect("a filter")).expect("fine");
        found.into_iter().map(|needed| needed.ids.text).collect()
    }

    #[test]
    fn what_an_index_has_is_needed_and_nothing_else() {
        let project = "SELECT r.id AS id FROM index_resources r WHERE r.project_id = $1";
        assert_eq!(needed(json!({"=": {"project_id": "p"}})), [project]);
        let host =
            "SELECT i.resource_id AS id FROM index_attributes i WHERE i.revision = -1 AND i.name = $1 AND i.text";
        assert_eq!(
            needed(json!({"and": [{"=": {"project_id": "p"}}, {"like": {"host": "a%"}}, {"!=": {"host": "x"}}]})),
            [project.to_owned(), format!("{host} >= $2 AND i.text < $3")]
        );
        assert_eq!(
            needed(json!({"or": [{"=": {"project_id": "p"}}, {"and": [{">": {"size": 1}}, {"=": {"host": "h"}}]}]})),
            [format!("{project} UNION ALL {} > $3", host.replace("$1", "$2").replace("i.text", "i.number"))]
        );
        for none in [
            json!({}),
            json!({"not": {"=": {"project_id": "p"}}}),
            json!({"=": {"project_id": null}}),
            json!({"or": [{"=": {"project_id": "p"}}, {"!=": {"host": "h"}}]}),
            json!({"like": {"host": "%a"}}),
        ] {
            assert!(needed(none.clone()).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_beginning_is_a_range_of_texts() {
        let range = |pattern: &str| range_of(pattern).map(|(first, after)| format!("{first} {after}"));
        assert_eq!(range("instance-9%"), Some("instance-9 instance-:".into()));
        assert_eq!(range("a_c%"), Some("a b".into()));
        assert_eq!(range("\u{d7ff}%"), Some("\u{d7ff} \u{e000}".into()));
        assert_eq!(range("a\u{10ffff}%"), Some("a\u{10ffff} b".into()));
        assert_eq!(range("%a"), None);
        assert_eq!(range(r"\%a"), None);
    }
}
