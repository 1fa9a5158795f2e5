//! The resource search grammar (JSON form): `{"=": {"project_id": "x"}}`, `and`, `or`, `not`, `like`, `in` ... Pure:
//! JSON → [`Filter`] → SQL condition. Three-valued as in SQL: a comparison with a missing value is neither true nor
//! false, `!=` also finds what is missing, and only what is true is found.

pub(crate) mod needed;

use orzo_model::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    AttributeKind, IndexError, ResourceType,
    repository::resources::resource_uuid,
    spans::{parse_time, parse_timespan},
    sql::Sql,
};

/// Deepest nesting; a hand-written search has three or four levels, and the walk is recursive.
const DEPTH_MAX: usize = 32;
/// Conditions and listed values in one search at most, so that the statement stays below the parameter limits.
const TERMS_MAX: usize = 5000;
/// Characters of a `like` pattern; attributes hold 255 by default, and SQLite refuses patterns of 50,000 bytes.
const PATTERN_MAX: usize = 1024;

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`; also finds what is missing.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// `{}`: everything.
    Everything,
    /// `{}` inside another: nothing can be made of it, which is told when nothing before it is wrong.
    Empty,
    /// `{"=": {"attribute": value}}`
    Compare {
        /// How.
        comparison: Comparison,
        /// What.
        attribute: String,
        /// With what.
        value: Value,
    },
    /// `{"like": {"attribute": "a%"}}`: `%` is any text, `_` any character.
    Like {
        /// What.
        attribute: String,
        /// With what.
        pattern: String,
    },
    /// `{"in": {"attribute": [values]}}`
    In {
        /// What.
        attribute: String,
        /// One of these.
        values: Vec<Value>,
    },
    /// All of them.
    And(Vec<Filter>),
    /// At least one of them.
    Or(Vec<Filter>),
    /// Not that.
    Not(Box<Filter>),
}

impl Comparison {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "=" | "==" | "eq" => Self::Equal,
            "!=" | "≠" | "ne" => Self::NotEqual,
            "<" | "lt" => Self::Less,
            "<=" | "≤" | "le" => Self::LessOrEqual,
            ">" | "gt" => Self::Greater,
            ">=" | "≥" | "ge" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Filter {
    /// Reads the JSON form.
    pub fn parse(json: &Value) -> Result<Self, IndexError> {
        let mut terms = 0;
        match parse(json, &[], 0, &mut terms)? {
            Self::Empty => Ok(Self::Everything),
            filter => Ok(filter),
        }
    }

    /// `attribute = value`, the commonest search.
    pub fn equal(attribute: &str, value: impl Into<Value>) -> Self {
        Self::Compare { comparison: Comparison::Equal, attribute: attribute.to_owned(), value: value.into() }
    }

    /// Whether it finds everything.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }
}

/// Something is wrong at a place of the search: `["and", "0", "="]`.
fn invalid(reason: impl Into<String>, path: &[&str]) -> IndexError {
    let mut reason = reason.into();
    for (place, step) in path.iter().enumerate() {
        reason.push_str(if place == 0 { " @ data" } else { "" });
        match step.parse::<usize>() {
            Ok(index) => reason.push_str(&format!("[{index}]")),
            Err(_) => reason.push_str(&format!("['{step}']")),
        }
    }
    IndexError::invalid_input(reason, path)
}

/// `path` leads to `json`.
fn parse(json: &Value, path: &[&str], depth: usize, terms: &mut usize) -> Result<Filter, IndexError> {
    *terms += 1;
    if depth > DEPTH_MAX || *terms > TERMS_MAX {
        return Err(invalid(format!("a search may have {DEPTH_MAX} levels and {TERMS_MAX} terms at most"), &[]));
    }
    let below_a_key = path.last().is_some_and(|step| step.parse::<usize>().is_err());
    let words = if below_a_key { "expected a dictionary for dictionary value" } else { "expected a dictionary" };
    let object = json.as_object().ok_or_else(|| invalid(words, path))?;
    let mut entries = object.iter();
    let Some((name, inner)) = entries.next() else { return Ok(Filter::Empty) };
    if entries.next().is_some() {
        return Err(invalid("only one operator is allowed in each dictionary", path));
    }
    let at =
        |steps: &[&'_ str]| path.iter().copied().chain(steps.iter().copied()).map(str::to_owned).collect::<Vec<_>>();
    let here = |steps: &[&str], reason: &str| {
        let steps = at(steps);
        invalid(reason, &steps.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let list = |terms: &mut usize| -> Result<Vec<Filter>, IndexError> {
        let items = inner.as_array().ok_or_else(|| here(&[name], "expected a list for dictionary value"))?;
        if items.is_empty() {
            return Err(here(&[name], "length of value must be at least 1 for dictionary value"));
        }
        let mut parts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let steps = at(&[name, &index.to_string()]);
            parts.push(parse(item, &steps.iter().map(String::as_str).collect::<Vec<_>>(), depth + 1, terms)?);
        }
        Ok(parts)
    };
    let operand = || {
        let object = inner.as_object().ok_or_else(|| here(&[name], "expected a dictionary for dictionary value"))?;
        let mut entries = object.iter();
        match (entries.next(), entries.next()) {
            (Some((attribute, value)), None) => Ok((attribute.as_str(), value)),
            _ => Err(here(&[name], "length of value must be 1 for dictionary value")),
        }
    };
    match name.as_str() {
        "and" | "∧" => Ok(Filter::And(list(terms)?)),
        "or" | "∨" => Ok(Filter::Or(list(terms)?)),
        "not" => {
            let steps = at(&[name]);
            let inner = parse(inner, &steps.iter().map(String::as_str).collect::<Vec<_>>(), depth + 1, terms)?;
            Ok(Filter::Not(Box::new(inner)))
        }
        "like" => {
            let (attribute, value) = operand()?;
            let problem = |reason: &str| here(&[name, attribute], reason);
            if attribute == "id" {
                // Ids are transformed before they are compared, so that a pattern of one means nothing.
                return Err(problem("value must not be one of ['id']"));
            }
            let pattern = value.as_str().ok_or_else(|| problem("expected str for dictionary value"))?;
            if pattern.chars().count() > PATTERN_MAX {
                return Err(problem(&format!("a pattern may have {PATTERN_MAX} characters at most")));
            }
            Ok(Filter::Like { attribute: attribute.to_owned(), pattern: pattern.to_owned() })
        }
        "in" => {
            let (attribute, value) = operand()?;
            let values =
                value.as_array().ok_or_else(|| here(&[name, attribute], "expected a list for dictionary value"))?;
            if values.is_empty() {
                return Err(here(&[name, attribute], "length of value must be at least 1 for dictionary value"));
            }
            *terms += values.len();
            if *terms > TERMS_MAX {
                return Err(invalid(format!("a search may have {TERMS_MAX} terms at most"), &[]));
            }
            Ok(Filter::In { attribute: attribute.to_owned(), values: values.clone() })
        }
        other => {
            let comparison = Comparison::of(other).ok_or_else(|| here(&[name], "extra keys not allowed"))?;
            let (attribute, value) = operand()?;
            if value.is_array() || value.is_object() {
                return Err(here(&[name, attribute], "expected str for dictionary value"));
            }
            Ok(Filter::Compare { comparison, attribute: attribute.to_owned(), value: value.clone() })
        }
    }
}

/// What a name in a search or sort means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Column {
    /// The UUID of the resource; values pass through the transformation of free ids.
    Id,
    /// A text column of all resources.
    Text(&'static str),
    /// A time column of all resources, in microseconds.
    Time(&'static str),
    /// `ended_at - started_at`, in microseconds.
    Lifespan,
    /// An attribute of the type.
    Attribute(String, AttributeKind),
}

/// The column that `name` means for resources of `kind`.
pub(crate) fn column(name: &str, kind: &ResourceType) -> Option<Column> {
    Some(match name {
        "id" => Column::Id,
        "type" => Column::Text("r.type"),
        "original_resource_id" => Column::Text("r.original_resource_id"),
        "creator" => Column::Text("r.creator"),
        "created_by_user_id" => Column::Text("r.created_by_user_id"),
        "created_by_project_id" => Column::Text("r.created_by_project_id"),
        "project_id" => Column::Text("r.project_id"),
        "user_id" => Column::Text("r.user_id"),
        "started_at" => Column::Time("r.started_at"),
        "ended_at" => Column::Time("r.ended_at"),
        "revision_start" => Column::Time("r.revision_start"),
        "revision_end" => Column::Time("r.revision_end"),
        "lifespan" => Column::Lifespan,
        _ => Column::Attribute(name.to_owned(), kind.attributes.get(name)?.kind.clone()),
    })
}

/// What turning a search into SQL needs to know.
pub(crate) struct Context<'a> {
    pub(crate) kind: &'a ResourceType,
    /// Whose transformation free ids go through.
    pub(crate) creator: Option<&'a str>,
    pub(crate) now: Timestamp,
    /// SQLite's LIKE ignores case; its GLOB does not.
    pub(crate) is_sqlite: bool,
}

impl Context<'_> {
    pub(crate) fn column(&self, name: &str) -> Result<Column, IndexError> {
        column(name, self.kind)
            .ok_or_else(|| IndexError::refused(format!("Resource type {} has no {name} attribute", self.kind.name)))
    }

    /// Adds the condition of `filter` to `sql`, over the alias `r`, so that an index of attributes is used.
    pub(crate) fn push(&self, filter: &Filter, sql: &mut Sql) -> Result<(), IndexError> {
        self.push_needed(filter, sql)?;
        self.push_condition(filter, sql)
    }

    /// What must hold for `filter` to hold, said so that an index finds it: the resources that have the value of an
    /// attribute at any revision. Only where nothing negates or widens it.
    fn push_needed(&self, filter: &Filter, sql: &mut Sql) -> Result<(), IndexError> {
        match filter {
            Filter::And(parts) => parts.iter().try_for_each(|part| self.push_needed(part, sql)),
            Filter::Compare { comparison: Comparison::Equal, attribute, value } if !value.is_null() => {
                // What is wrong is told by the condition itself, in its place among others.
                if let Ok(column @ Column::Attribute(name, kind)) = &self.column(attribute) {
                    let cell = if kind.is_text() { "text" } else { "number" };
                    let name = sql.bind(name.as_str());
                    let Ok(place) = self.bind(attribute, column, value, sql) else { return Ok(()) };
                    sql.push(&format!(
                        "r.id IN (SELECT i.resource_id FROM index_attributes i WHERE i.name = {name} \
                         AND i.{cell} = {place}) AND "
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Adds the condition of `filter` to `sql`, over the alias `r`.
    pub(crate) fn push_condition(&self, filter: &Filter, sql: &mut Sql) -> Result<(), IndexError> {
        match filter {
            Filter::Everything => sql.push("1 = 1"),
            Filter::Empty => return Err(IndexError::refused("Unable to parse this query")),
            Filter::And(parts) => return self.push_joined(parts, " AND ", sql),
            Filter::Or(parts) => return self.push_joined(parts, " OR ", sql),
            Filter::Not(inner) => {
                sql.push("NOT (");
                self.push_condition(inner, sql)?;
                sql.push(")")
            }
            Filter::Compare { comparison, attribute, value } => {
                let column = self.column(attribute)?;
                let expression = expression(&column, sql);
                let condition = match (comparison, value) {
                    (Comparison::Equal, Value::Null) => format!("{expression} IS NULL"),
                    (Comparison::NotEqual, Value::Null) => format!("{expression} IS NOT NULL"),
                    (_, Value::Null) => "CAST(NULL AS BIGINT) = 1".to_owned(),
                    (comparison, value) => {
                        let place = self.bind(attribute, &column, value, sql)?;
                        let condition = format!("{expression} {} {place}", comparison.sql());
                        match comparison {
                            Comparison::NotEqual => format!("({condition} OR {expression} IS NULL)"),
                            _ => condition,
                        }
                    }
                };
                sql.push(&condition)
            }
            Filter::In { attribute, values } => {
                let column = self.column(attribute)?;
                let expression = expression(&column, sql);
                let places: Vec<String> = values
                    .iter()
                    .filter(|value| !value.is_null())
                    .map(|value| self.bind(attribute, &column, value, sql))
                    .collect::<Result<_, _>>()
                    .map_err(|error| match error {
                        // Of a list Gnocchi shows the whole, as Python writes it.
                        IndexError::Refused { .. } => wrong_value(attribute, &python_list(values)),
                        error => error,
                    })?;
                let list = if places.is_empty() { "NULL".to_owned() } else { places.join(", ") };
                sql.push(&format!("{expression} IN ({list})"))
            }
            Filter::Like { attribute, pattern } => {
                let column = self.column(attribute)?;
                let is_text = match &column {
                    Column::Text(_) => true,
                    Column::Attribute(_, kind) => kind.is_text(),
                    Column::Id | Column::Time(_) | Column::Lifespan => false,
                };
                if !is_text {
                    return Err(IndexError::refused(format!("operator like is not supported for field `{attribute}'")));
                }
                let expression = expression(&column, sql);
                let (operator, pattern) =
                    if self.is_sqlite { ("GLOB", glob_of_like(pattern)) } else { ("LIKE", pattern.clone()) };
                let place = sql.bind(pattern);
                sql.push(&format!("{expression} {operator} {place}"))
            }
        };
        Ok(())
    }

    fn push_joined(&self, parts: &[Filter], operator: &str, sql: &mut Sql) -> Result<(), IndexError> {
        sql.push("(");
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                sql.push(operator);
            }
            self.push_condition(part, sql)?;
        }
        sql.push(")");
        Ok(())
    }

    /// Binds a value as the column's type.
    pub(crate) fn bind(
        &self,
        attribute: &str,
        column: &Column,
        value: &Value,
        sql: &mut Sql,
    ) -> Result<String, IndexError> {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let wrong = || wrong_value(attribute, &shown);
        Ok(match column {
            Column::Id => {
                let id = match self.creator {
                    Some(creator) => resource_uuid(&shown, creator)?,
                    None => Uuid::parse_str(&shown).map_err(|_| wrong())?,
                };
                sql.bind(id.to_string())
            }
            Column::Text(_) => sql.bind(shown),
            Column::Time(_) => sql.bind(parse_time(value, self.now).map_err(|_| wrong())?),
            Column::Lifespan => {
                let span = parse_timespan(value).map_err(|_| wrong())?;
                sql.bind(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
            }
            Column::Attribute(_, kind) => match kind {
                AttributeKind::String { .. } => sql.bind(shown),
                AttributeKind::Uuid => sql.bind(Uuid::parse_str(&shown).map_err(|_| wrong())?.to_string()),
                AttributeKind::Number { .. } => {
                    let number = value.as_f64().or_else(|| shown.parse().ok()).ok_or_else(wrong)?;
                    sql.bind(number)
                }
                AttributeKind::Bool => {
                    let truth = kind.check(value).map_err(|_| wrong())?;
                    sql.bind(f64::from(u8::from(truth == Value::Bool(true))))
                }
                AttributeKind::Datetime => sql.bind(parse_time(value, self.now).map_err(|_| wrong())?.micros() as f64),
            },
        })
    }
}

fn wrong_value(attribute: &str, shown: &str) -> IndexError {
    IndexError::refused(format!("Invalid value: `{shown}' for field `{attribute}'"))
}

fn python_list(values: &[Value]) -> String {
    let shown = values.iter().map(|value| match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        other => other.to_string(),
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
}

/// The SQL expression of a column over the alias `r`; the name of an attribute travels as a parameter.
pub(crate) fn expression(column: &Column, sql: &mut Sql) -> String {
    match column {
        Column::Id => "r.id".to_owned(),
        Column::Text(name) | Column::Time(name) => (*name).to_owned(),
        Column::Lifespan => "(r.ended_at - r.started_at)".to_owned(),
        Column::Attribute(name, kind) => {
            let cell = if kind.is_text() { "text" } else { "number" };
            let place = sql.bind(name.as_str());
            format!(
                "(SELECT a.{cell} FROM index_attributes a WHERE a.resource_id = r.id AND a.revision = r.revision \
                 AND a.name = {place})"
            )
        }
    }
}

/// SQLite's GLOB pattern for a LIKE pattern. What follows a backslash means itself, as in PostgreSQL.
fn glob_of_like(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('*' | '?' | '[')) => glob.extend(['[', c, ']']),
                Some(c) => glob.push(c),
                None => glob.push('\\'),
            },
            '%' => glob.push('*'),
            '_' => glob.push('?'),
            '*' | '?' | '[' => glob.extend(['[', c, ']']),
            c => glob.push(c),
        }
    }
    glob
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_every_operator_and_refuses_what_is_none() {
        for name in ["=", "==", "eq", "<", "lt", ">", "gt", "<=", "≤", "le", ">=", "≥", "ge", "!=", "≠", "ne"] {
            assert!(Filter::parse(&json!({name: {"a": 1}})).is_ok(), "{name}");
        }
        assert_eq!(Filter::parse(&json!({})).expect("empty"), Filter::Everything);
        let nested = json!({"and": [{"or": [{"=": {"a": 1}}, {"like": {"b": "x%"}}]}, {"not": {"in": {"c": [1]}}}]});
        assert!(matches!(Filter::parse(&nested).expect("valid"), Filter::And(parts) if parts.len() == 2));
        for bad in [
            json!({"~": {"a": 1}}),
            json!({"=": {"a": 1, "b": 2}}),
            json!({"=": {"a": 1}, ">": {"a": 1}}),
            json!({"and": []}),
            json!({"in": {"a": []}}),
            json!({"like": {"a": 5}}),
            json!({"=": {"a": [1]}}),
            json!([1]),
            json!({"=": 5}),
        ] {
            assert!(Filter::parse(&bad).is_err(), "{bad}");
        }
    }

    /// It was told before an attribute that is not there and stands before it.
    #[test]
    fn an_empty_search_inside_another_is_refused_in_its_place() {
        let kind = ResourceType { name: "generic".into(), attributes: std::collections::BTreeMap::new() };
        let context = Context { kind: &kind, creator: None, now: Timestamp::EPOCH, is_sqlite: true };
        let empty = "Unable to parse this query";
        let unknown = "Resource type generic has no a attribute";
        for (search, expected) in [
            (json!({"and": [{}]}), empty),
            (json!({"not": {}}), empty),
            (json!({"or": [{"=": {"user_id": "u"}}, {"not": {"and": [{}]}}]}), empty),
            (json!({"and": [{"=": {"a": 1}}, {}]}), unknown),
            (json!({"and": [{}, {"=": {"a": 1}}]}), empty),
            (json!({"and": [{"or": [{}]}, {"=": {"a": 1}}]}), empty),
        ] {
            let filter = Filter::parse(&search).expect("the schema holds");
            let error = context.push(&filter, &mut Sql::new("")).expect_err("refused");
            assert_eq!(error.to_string(), expected, "{search}");
        }
    }

    #[test]
    fn a_list_is_shown_as_python_writes_it() {
        let values = [json!("a"), json!("it's"), json!(3), json!(2.5), json!(null), json!(true)];
        assert_eq!(python_list(&values), r#"['a', "it's", 3, 2.5, None, True]"#);
    }

    #[test]
    fn depth_and_size_are_limited() {
        let mut deep = json!({"=": {"a": 1}});
        for _ in 0..=DEPTH_MAX {
            deep = json!({ "not": deep });
        }
        assert!(Filter::parse(&deep).is_err());
        assert!(Filter::parse(&json!({"in": {"a": vec![1; TERMS_MAX + 1]}})).is_err());
    }

    #[test]
    fn like_becomes_glob_with_its_own_characters_escaped() {
        assert_eq!(glob_of_like("a%b_c*[?"), "a*b?c[*][[][?]");
        assert_eq!(glob_of_like(r"x\_y\%\*\\"), r"x_y%[*]\");
    }
}
