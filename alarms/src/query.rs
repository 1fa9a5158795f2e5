//! Aodh's query grammars as one typed condition: the complex query (`{"and": [{"=": {"state": "ok"}}, ...]}`) and the
//! simple one (`q.field`, `q.op`, `q.value`, `q.type`). Pure: it knows columns by name, and no SQL.
//!
//! More is understood than Aodh does: simple queries with every operator, `eq ne lt le gt ge` in complex ones.

use orzo_model::Timestamp;
use serde_json::Value;

/// Conditions inside one another; a person writes three.
const DEPTH_MAX: usize = 32;
/// Conditions in one query.
const CONDITIONS_MAX: usize = 500;
/// Values of one `in`.
const VALUES_MAX: usize = 1000;
/// Longer patterns are generated.
const PATTERN_BYTES_MAX: usize = 1024;
/// Sort keys; there are not many more fields.
const SORTS_MAX: usize = 16;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Alarms.
    Alarms,
    /// Their history.
    History,
}

/// A field that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// As the API names it.
    pub name: &'static str,
    /// As the table names it.
    pub(crate) column: &'static str,
    pub(crate) kind: Kind,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Flag,
    Time,
    /// Ordered low, moderate, critical.
    Severity,
}

/// A value of a field's kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Text(String),
    Number(i64),
}

/// `= != < <= > >=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the operators
pub enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What must hold of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them.
    All(Vec<Filter>),
    /// One of them.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A field against a value.
    Compare(Comparing),
    /// A field is one of these.
    In(Member),
    /// A field's text has a match of this regular expression.
    Matches(Pattern),
}

/// A field against a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparing {
    pub(crate) field: Field,
    pub(crate) relation: Relation,
    pub(crate) operand: Operand,
}

/// A field is one of some values.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub(crate) field: Field,
    pub(crate) operands: Vec<Operand>,
}

/// A field's text against a regular expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    pub(crate) field: Field,
    pub(crate) pattern: String,
}

/// In which order, by which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub(crate) field: Field,
    pub(crate) is_descending: bool,
}

/// A question about alarms or their history.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// What must hold; all if `None`.
    pub condition: Option<Filter>,
    /// Newest first if empty.
    pub sorts: Vec<Sort>,
    /// Id of the last row of the page before.
    pub marker: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// A query that is none.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{0}")]
pub struct QueryError(pub String);

const fn field(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field { name, column, kind }
}

const ALARM_FIELDS: [Field; 14] = [
    field("alarm_id", "alarm_id", Kind::Text),
    field("enabled", "enabled", Kind::Flag),
    field("name", "name", Kind::Text),
    field("type", "type", Kind::Text),
    field("severity", "severity", Kind::Severity),
    field("timestamp", "changed_at", Kind::Time),
    field("user_id", "user_id", Kind::Text),
    field("project_id", "project_id", Kind::Text),
    field("state", "state", Kind::Text),
    field("repeat_actions", "repeat_actions", Kind::Flag),
    field("state_timestamp", "state_at", Kind::Time),
    field("description", "description", Kind::Text),
    field("state_reason", "state_reason", Kind::Text),
    field("evaluate_timestamp", "evaluate_at", Kind::Time),
];

const HISTORY_FIELDS: [Field; 9] = [
    field("event_id", "event_id", Kind::Text),
    field("alarm_id", "alarm_id", Kind::Text),
    field("type", "kind", Kind::Text),
    field("detail", "detail", Kind::Text),
    field("user_id", "user_id", Kind::Text),
    field("project_id", "project_id", Kind::Text),
    field("on_behalf_of", "on_behalf_of", Kind::Text),
    field("timestamp", "happened_at", Kind::Time),
    field("severity", "severity", Kind::Severity),
];

impl Subject {
    pub(crate) fn fields(self) -> &'static [Field] {
        match self {
            Self::Alarms => &ALARM_FIELDS,
            Self::History => &HISTORY_FIELDS,
        }
    }

    /// A field by its name, or Ceilometer's older one.
    pub fn field(self, name: &str) -> Option<Field> {
        let name = match name {
            "user" => "user_id",
            "project" => "project_id",
            name => name,
        };
        self.fields().iter().find(|field| field.name == name).copied()
    }

    /// The field by which a tenant's rows are known.
    pub fn owner_field(self) -> &'static str {
        match self {
            Self::Alarms => "project_id",
            Self::History => "on_behalf_of",
        }
    }

    fn known(self, name: &str) -> Result<Field, QueryError> {
        self.field(name).ok_or_else(|| {
            let names: Vec<&str> = self.fields().iter().map(|field| field.name).collect();
            QueryError(format!("unrecognized field in query: {name}, valid keys: {}", names.join(", ")))
        })
    }
}

impl Relation {
    /// From a sign or a word.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "=" | "==" | "eq" => Self::Eq,
            "!=" | "ne" => Self::Ne,
            "<" | "lt" => Self::Lt,
            "<=" | "=<" | "le" => Self::Le,
            ">" | "gt" => Self::Gt,
            ">=" | "=>" | "ge" => Self::Ge,
            _ => return None,
        })
    }

    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

impl Filter {
    /// Reads the filter of a complex query.
    pub fn parse(subject: Subject, json: &Value) -> Result<Self, QueryError> {
        let mut left = CONDITIONS_MAX;
        parse(subject, json, DEPTH_MAX, &mut left)
    }

    /// A field of a simple query.
    pub fn compare(subject: Subject, name: &str, relation: Relation, value: &Value) -> Result<Self, QueryError> {
        let field = subject.known(name)?;
        Ok(Self::Compare(Comparing { field, relation, operand: operand(field, value)? }))
    }

    /// The values that a field is compared with, wherever in the condition.
    pub fn values_of(&self, name: &str) -> Vec<&str> {
        let text = |operand: &'_ Operand| match operand {
            Operand::Text(_) => true,
            Operand::Number(_) => false,
        };
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(|part| part.values_of(name)).collect(),
            Self::Not(part) => part.values_of(name),
            Self::Compare(one) if one.field.name == name && text(&one.operand) => vec![plain(&one.operand)],
            Self::In(many) if many.field.name == name => many.operands.iter().map(plain).collect(),
            Self::Matches(pattern) if pattern.field.name == name => vec![pattern.pattern.as_str()],
            _ => Vec::new(),
        }
    }
}

fn plain(operand: &Operand) -> &str {
    match operand {
        Operand::Text(text) => text,
        Operand::Number(_) => "",
    }
}

fn parse(subject: Subject, json: &Value, depth: usize, left: &mut usize) -> Result<Filter, QueryError> {
    let Some((operator, value)) = single(json) else {
        return Err(QueryError(format!("{} is not an object with one operator", short(json))));
    };
    if depth == 0 {
        return Err(QueryError(format!("conditions are nested deeper than {DEPTH_MAX}")));
    }
    *left = left.checked_sub(1).ok_or_else(|| QueryError(format!("more than {CONDITIONS_MAX} conditions")))?;
    let lower = operator.to_ascii_lowercase();
    match lower.as_str() {
        "and" | "or" => {
            let parts = value.as_array().filter(|parts| !parts.is_empty());
            let parts = parts.ok_or_else(|| QueryError(format!("`{operator}` needs a list of conditions")))?;
            let parts: Vec<Filter> =
                parts.iter().map(|part| parse(subject, part, depth - 1, left)).collect::<Result<_, _>>()?;
            return Ok(if lower == "and" { Filter::All(parts) } else { Filter::Any(parts) });
        }
        "not" => return Ok(Filter::Not(Box::new(parse(subject, value, depth - 1, left)?))),
        _ => {}
    }
    let Some((name, value)) = single(value) else {
        return Err(QueryError(format!("`{operator}` needs an object with one field, not {}", short(value))));
    };
    let field = subject.known(name)?;
    match lower.as_str() {
        "in" => {
            let values = value.as_array().filter(|values| !values.is_empty() && values.len() <= VALUES_MAX);
            let values = values.ok_or_else(|| QueryError(format!("`in` needs a list of 1 to {VALUES_MAX} values")))?;
            let operands = values.iter().map(|value| operand(field, value)).collect::<Result<_, _>>()?;
            Ok(Filter::In(Member { field, operands }))
        }
        "=~" => match value.as_str() {
            Some(pattern) if pattern.len() <= PATTERN_BYTES_MAX && field.kind != Kind::Time => {
                regex::RegexBuilder::new(pattern)
                    .size_limit(PATTERN_SIZE_MAX)
                    .build()
                    .map_err(|error| QueryError(format!("`{pattern}` is not a regular expression: {error}")))?;
                Ok(Filter::Matches(Pattern { field, pattern: pattern.to_owned() }))
            }
            _ => Err(QueryError(format!("`=~` needs a text of at most {PATTERN_BYTES_MAX} bytes for a field of text"))),
        },
        _ => {
            let relation = Relation::parse(operator)
                .ok_or_else(|| QueryError(format!("operator `{operator}` is not one of the grammar's")))?;
            Ok(Filter::Compare(Comparing { field, relation, operand: operand(field, value)? }))
        }
    }
}

/// Compiled, in bytes; a pattern of a person has some kilobytes.
pub(crate) const PATTERN_SIZE_MAX: usize = 1 << 20;

/// The only pair of an object.
fn single(json: &Value) -> Option<(&str, &Value)> {
    let object = json.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

fn operand(field: Field, value: &Value) -> Result<Operand, QueryError> {
    let wrong = || QueryError(format!("{} is not a value for {}", short(value), field.name));
    let text = || match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match field.kind {
        Kind::Text => text().map(Operand::Text).ok_or_else(wrong),
        Kind::Severity => {
            let text = text().ok_or_else(wrong)?;
            Ok(Operand::Number(severity_rank(&text).ok_or_else(wrong)?))
        }
        Kind::Flag => {
            let text = text().ok_or_else(wrong)?.to_ascii_lowercase();
            match text.as_str() {
                "true" | "1" | "t" | "yes" | "y" | "on" => Ok(Operand::Number(1)),
                "false" | "0" | "f" | "no" | "n" | "off" => Ok(Operand::Number(0)),
                _ => Err(wrong()),
            }
        }
        Kind::Time => {
            let text = text().ok_or_else(wrong)?;
            let time: Timestamp =
                text.parse().map_err(|_| QueryError(format!("Failed to parse the timestamp value {text}")))?;
            Ok(Operand::Number(time.micros()))
        }
    }
}

/// Low, moderate, critical.
pub(crate) fn severity_rank(text: &str) -> Option<i64> {
    ["low", "moderate", "critical"].iter().position(|own| *own == text).map(|rank| rank as i64)
}

/// Reads `orderby`: `[{"name": "asc"}, ...]`.
pub fn parse_order(subject: Subject, json: &Value) -> Result<Vec<Sort>, QueryError> {
    let wrong = || QueryError("a list of objects such as {\"timestamp\": \"desc\"} is needed".to_owned());
    let items = json.as_array().filter(|items| items.len() <= SORTS_MAX).ok_or_else(wrong)?;
    items
        .iter()
        .map(|item| {
            let (name, direction) = single(item).ok_or_else(wrong)?;
            sort(subject, name, direction.as_str().ok_or_else(wrong)?)
        })
        .collect()
}

/// Reads `sort=key:dir`; without a direction it is ascending.
pub fn parse_sorts<'a>(subject: Subject, texts: impl Iterator<Item = &'a str>) -> Result<Vec<Sort>, QueryError> {
    let mut sorts = Vec::new();
    for text in texts {
        let (name, direction) = text.split_once(':').unwrap_or((text, "asc"));
        sorts.push(sort(subject, name, direction)?);
        if sorts.len() > SORTS_MAX {
            return Err(QueryError(format!("more than {SORTS_MAX} sort keys")));
        }
    }
    Ok(sorts)
}

fn sort(subject: Subject, name: &str, direction: &str) -> Result<Sort, QueryError> {
    let field = subject.field(name).ok_or_else(|| {
        let names: Vec<&str> = subject.fields().iter().map(|field| field.name).collect();
        QueryError(format!(
            "the sort parameter should be a pair of sort key and sort dir combined with ':', or only sort key specified \
             and sort dir will be default 'asc', the supported sort keys are: {}",
            names.join(", ")
        ))
    })?;
    let is_descending = match direction.to_ascii_lowercase().as_str() {
        "asc" | "" => false,
        "desc" => true,
        _ => return Err(QueryError(format!("sort direction `{direction}` is neither asc nor desc"))),
    };
    Ok(Sort { field, is_descending })
}

/// The value of a simple query, of the type that it names.
pub fn typed_value(text: &str, kind: Option<&str>) -> Result<Value, QueryError> {
    let unusable =
        |kind: &str| QueryError(format!("Unable to convert the value {text} to the expected data type {kind}."));
    match kind.unwrap_or("") {
        "" | "string" => Ok(Value::from(text)),
        "integer" => text.trim().parse::<i64>().map(Value::from).map_err(|_| unusable("integer")),
        "float" => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::from(number)),
            _ => Err(unusable("float")),
        },
        "boolean" => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" | "y" | "on" => Ok(Value::from(true)),
            "false" | "0" | "f" | "no" | "n" | "off" => Ok(Value::from(false)),
            _ => Err(unusable("boolean")),
        },
        "datetime" => match text.parse::<Timestamp>() {
            Ok(_) => Ok(Value::from(text)),
            Err(_) => Err(unusable("datetime")),
        },
        other => Err(QueryError(format!(
            "The data type {other} is not supported. The supported data type list is: ['integer', 'float', 'string', \
             'boolean', 'datetime']"
        ))),
    }
}

/// A value as an error shows it.
fn short(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(json: Value) -> Result<Filter, String> {
        Filter::parse(Subject::Alarms, &json).map_err(|error| error.0)
    }

    #[test]
    fn the_grammar_is_read() {
        for good in [
            json!({"=": {"state": "ok"}}),
            json!({"AND": [{"=": {"user": "u"}}, {"NOT": {"in": {"severity": ["low", "critical"]}}}]}),
            json!({"or": [{"=<": {"timestamp": "2026-11-01T00:00:00"}}, {"=~": {"name": "^a.*b$"}}]}),
            json!({"!=": {"enabled": true}}),
            json!({"!=": {"enabled": "False"}}),
            json!({"eq": {"name": 5}}),
        ] {
            parsed(good.clone()).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let deep = (0..40).fold(json!({"=": {"state": "ok"}}), |inner, _| json!({"not": inner}));
        let many = json!({"or": (0..600).map(|n| json!({"=": {"name": n}})).collect::<Vec<_>>()});
        for (bad, expected) in [
            (json!([]), "is not an object"),
            (json!({"=": {"state": "ok"}, "<": {}}), "is not an object with one operator"),
            (json!({"=": {}}), "one field"),
            (json!({"=": {"colour": "red"}}), "unrecognized field in query: colour"),
            (json!({"~": {"state": "ok"}}), "operator `~`"),
            (json!({"and": []}), "needs a list"),
            (json!({"in": {"state": []}}), "1 to 1000"),
            (json!({"=": {"timestamp": "noon"}}), "Failed to parse the timestamp value noon"),
            (json!({"=": {"enabled": "perhaps"}}), "is not a value for enabled"),
            (json!({"=": {"severity": "dire"}}), "is not a value for severity"),
            (json!({"=": {"name": null}}), "is not a value for name"),
            (json!({"=": {"name": ["a"]}}), "is not a value for name"),
            (json!({"=~": {"name": "("}}), "is not a regular expression"),
            (json!({"=~": {"name": "x{1000000}"}}), "is not a regular expression"),
            (json!({"=~": {"timestamp": "."}}), "needs a text"),
            (deep, "nested deeper"),
            (many, "more than 500"),
        ] {
            let error = parsed(bad.clone()).expect_err("must be refused");
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn values_of_the_owner_are_found_wherever_they_are() {
        let condition = parsed(json!({"or": [{"=": {"state": "ok"}}, {"not": {"in": {"project": ["p1", "p2"]}}},
                                             {"and": [{"=~": {"project_id": "p.*"}}]}]}));
        assert_eq!(condition.expect("good").values_of("project_id"), ["p1", "p2", "p.*"]);
    }

    #[test]
    fn orders_and_types() {
        let order = parse_order(Subject::Alarms, &json!([{"name": "DESC"}, {"severity": "asc"}])).expect("good");
        assert_eq!((order.len(), order[0].is_descending, order[1].is_descending), (2, true, false));
        for bad in [json!({}), json!([{"name": "up"}]), json!([{"colour": "asc"}]), json!([{"name": 1}])] {
            assert!(parse_order(Subject::Alarms, &bad).is_err(), "{bad}");
        }
        assert!(!parse_sorts(Subject::History, ["type"].into_iter()).expect("good")[0].is_descending);
        assert!(parse_sorts(Subject::History, ["state:asc"].into_iter()).is_err());
        for (text, kind, expected) in [
            ("5", Some("integer"), Some(json!(5))),
            ("x", Some("integer"), None),
            ("0.5", Some("float"), Some(json!(0.5))),
            ("nan", Some("float"), None),
            ("Yes", Some("boolean"), Some(json!(true))),
            ("2", Some("boolean"), None),
            ("2026-01-01", Some("datetime"), Some(json!("2026-01-01"))),
            ("noon", Some("datetime"), None),
            ("5", None, Some(json!("5"))),
            ("5", Some("string"), Some(json!("5"))),
            ("5", Some("colour"), None),
        ] {
            assert_eq!(typed_value(text, kind).ok(), expected, "{text} {kind:?}");
        }
    }
}
