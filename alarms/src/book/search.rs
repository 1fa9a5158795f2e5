//! Questions about alarms and their history, as SQL: the scope is part of every query, whatever was asked.

use orzo_database::{Database, Row, Value};
use orzo_model::Scope;

use super::{
    AlarmBook, BookError,
    history::Change,
    rows::{alarm_of, change_of},
};
use crate::{
    alarm::Alarm,
    query::{Field, Filter, Kind, Operand, PATTERN_SIZE_MAX, Search, Sort, Subject},
};

/// Rows in one answer. Aodh has no limit; an answer of so many alarms has some ten megabytes, and says that it is cut.
pub const ROWS_MAX: u32 = 10_000;
/// Different texts that a regular expression is tried on.
const TEXTS_MAX: usize = 20_000;

/// A page of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are more after them.
    pub is_cut: bool,
}

impl AlarmBook {
    /// Alarms that fit a question.
    pub async fn search(&self, scope: &Scope, search: &Search) -> Result<Page<Alarm>, BookError> {
        let page = find(&self.database, Subject::Alarms, scope, None, search).await?;
        let rows = page.rows.iter().map(alarm_of).collect::<Result<_, _>>()?;
        Ok(Page { rows, is_cut: page.is_cut })
    }

    /// Entries of the history that fit a question, of one alarm or of all.
    pub async fn search_history(
        &self,
        scope: &Scope,
        alarm_id: Option<&str>,
        search: &Search,
    ) -> Result<Page<Change>, BookError> {
        let page = find(&self.database, Subject::History, scope, alarm_id, search).await?;
        Ok(Page { rows: page.rows.iter().map(change_of).collect(), is_cut: page.is_cut })
    }
}

/// A query's text and values as they grow.
#[derive(Default)]
struct Sql {
    values: Vec<Value>,
}

impl Sql {
    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn operand(&mut self, operand: &Operand) -> String {
        match operand {
            Operand::Text(text) => self.value(text.as_str()),
            Operand::Number(number) => self.value(*number),
        }
    }

    fn condition(&mut self, condition: &Filter) -> String {
        match condition {
            Filter::All(parts) => self.joined(parts, " AND "),
            Filter::Any(parts) => self.joined(parts, " OR "),
            Filter::Not(part) => format!("NOT {}", self.condition(part)),
            Filter::Compare(one) => {
                let place = self.operand(&one.operand);
                format!("({} {} {place})", expression(one.field), one.relation.sql())
            }
            Filter::In(many) => {
                let places: Vec<String> = many.operands.iter().map(|operand| self.operand(operand)).collect();
                match places.is_empty() {
                    true => "(1 = 0)".to_owned(),
                    false => format!("({} IN ({}))", expression(many.field), places.join(", ")),
                }
            }
            // Resolved before, by `without_patterns`.
            Filter::Matches(_) => "(1 = 0)".to_owned(),
        }
    }

    fn joined(&mut self, parts: &[Filter], with: &str) -> String {
        let parts: Vec<String> = parts.iter().map(|part| self.condition(part)).collect();
        format!("({})", parts.join(with))
    }
}

/// What a field is compared and ordered by. Nothing is NULL in it, so that `NOT` and pages lose no row.
fn expression(field: Field) -> String {
    match field.kind {
        Kind::Text => format!("COALESCE({}, '')", field.column),
        Kind::Flag | Kind::Time => field.column.to_owned(),
        Kind::Severity => format!(
            "CAST(CASE {} WHEN 'low' THEN 0 WHEN 'moderate' THEN 1 WHEN 'critical' THEN 2 ELSE -1 END AS BIGINT)",
            field.column
        ),
    }
}

fn table(subject: Subject) -> (&'static str, &'static str) {
    match subject {
        Subject::Alarms => ("alarms", "alarm_id"),
        Subject::History => ("alarm_history", "event_id"),
    }
}

/// The rows of a scope as SQL; `None`: there are none.
fn scoped(sql: &mut Sql, subject: Subject, scope: &Scope, alarm_id: Option<&str>) -> Option<String> {
    let mut condition = match scope {
        Scope::All => "1 = 1".to_owned(),
        Scope::Project(project) | Scope::Owner(project) => {
            format!("{} = {}", subject.owner_field(), sql.value(project.as_str()))
        }
        Scope::Maker(_) | Scope::Creator(_) | Scope::Nothing => return None,
    };
    if let Some(alarm_id) = alarm_id {
        condition.push_str(&format!(" AND alarm_id = {}", sql.value(alarm_id)));
    }
    Some(condition)
}

async fn find(
    database: &Database,
    subject: Subject,
    scope: &Scope,
    alarm_id: Option<&str>,
    search: &Search,
) -> Result<Page<Row>, BookError> {
    let (table, id) = table(subject);
    let mut sql = Sql::default();
    let Some(mut condition) = scoped(&mut sql, subject, scope, alarm_id) else {
        return Ok(Page { rows: Vec::new(), is_cut: false });
    };
    if let Some(asked) = &search.condition {
        let asked = without_patterns(database, subject, scope, asked).await?;
        condition.push_str(&format!(" AND {}", sql.condition(&asked)));
    }
    let sorts = sorts_of(subject, &search.sorts);
    if let Some(marker) = &search.marker {
        let after = after_marker(database, subject, scope, alarm_id, marker, &sorts, &mut sql).await?;
        condition.push_str(&format!(" AND {after}"));
    }
    let limit = search.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let order: Vec<String> = sorts
        .iter()
        .map(|sort| format!("{} {}", expression(sort.field), if sort.is_descending { "DESC" } else { "ASC" }))
        .collect();
    let text = format!(
        "SELECT * FROM {table} WHERE {condition} ORDER BY {}, {id} LIMIT {}",
        order.join(", "),
        u64::from(limit) + 1
    );
    let mut rows = database.query(&text, &sql.values).await?;
    let is_cut = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    Ok(Page { rows, is_cut })
}

/// Newest first, unless something else is asked for.
fn sorts_of(subject: Subject, asked: &[Sort]) -> Vec<Sort> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    let field = subject.field("timestamp").expect("both have it");
    vec![Sort { field, is_descending: true }]
}

/// What comes after the marker's row in this order: `a > x OR (a = x AND b < y) OR (a = x AND b = y AND id > marker)`.
async fn after_marker(
    database: &Database,
    subject: Subject,
    scope: &Scope,
    alarm_id: Option<&str>,
    marker: &str,
    sorts: &[Sort],
    sql: &mut Sql,
) -> Result<String, BookError> {
    let bad = || BookError::BadMarker { marker: marker.to_owned() };
    let (table, id) = table(subject);
    let mut own = Sql::default();
    let condition = scoped(&mut own, subject, scope, alarm_id).ok_or_else(bad)?;
    let place = own.value(marker);
    let columns: Vec<String> =
        sorts.iter().enumerate().map(|(n, sort)| format!("{} AS k{n}", expression(sort.field))).collect();
    let text = format!("SELECT {} FROM {table} WHERE {condition} AND {id} = {place}", columns.join(", "));
    let row = database.query_one(&text, &own.values).await?.ok_or_else(bad)?;
    let mut choices = Vec::new();
    let mut equal = Vec::new();
    for (n, sort) in sorts.iter().enumerate() {
        let column = format!("k{n}");
        let place = match sort.field.kind {
            Kind::Text => sql.value(row.string(&column)),
            Kind::Flag | Kind::Time | Kind::Severity => sql.value(row.int(&column).unwrap_or(0)),
        };
        let expression = expression(sort.field);
        let beyond = if sort.is_descending { "<" } else { ">" };
        choices.push([&equal[..], &[format!("{expression} {beyond} {place}")]].concat().join(" AND "));
        equal.push(format!("{expression} = {place}"));
    }
    equal.push(format!("{id} > {}", sql.value(marker)));
    choices.push(equal.join(" AND "));
    Ok(format!("(({}))", choices.join(") OR (")))
}

/// Regular expressions become lists of the texts that match: SQLite has none, and PostgreSQL's are others than ours.
async fn without_patterns(
    database: &Database,
    subject: Subject,
    scope: &Scope,
    condition: &Filter,
) -> Result<Filter, BookError> {
    let mut patterns = Vec::new();
    collect(condition, &mut patterns);
    if patterns.is_empty() {
        return Ok(condition.clone());
    }
    let mut resolved = Vec::new();
    for pattern in patterns {
        let mut sql = Sql::default();
        let (table, _) = table(subject);
        let Some(scope) = scoped(&mut sql, subject, scope, None) else { continue };
        let column = pattern.field.column;
        let limit = TEXTS_MAX + 1;
        let text = format!("SELECT DISTINCT {column} AS text FROM {table} WHERE {scope} LIMIT {limit}");
        let rows = database.query(&text, &sql.values).await?;
        if rows.len() > TEXTS_MAX {
            let reason = format!("`=~` on {}: more than {TEXTS_MAX} different texts", pattern.field.name);
            return Err(BookError::TooMuch { reason });
        }
        let expression = regex::RegexBuilder::new(&pattern.pattern)
            .size_limit(PATTERN_SIZE_MAX)
            .build()
            .map_err(|error| BookError::TooMuch { reason: error.to_string() })?;
        let matching = rows.iter().map(|row| row.string("text")).filter(|text| expression.is_match(text));
        let operands: Vec<Operand> = match pattern.field.kind {
            Kind::Text => matching.map(Operand::Text).collect(),
            Kind::Severity => {
                matching.filter_map(|text| crate::query::severity_rank(&text)).map(Operand::Number).collect()
            }
            Kind::Flag | Kind::Time => matching.filter_map(|text| text.parse().ok()).map(Operand::Number).collect(),
        };
        resolved.push(crate::query::Member { field: pattern.field, operands });
    }
    let mut resolved = resolved.into_iter();
    Ok(replaced(condition, &mut resolved))
}

fn collect<'a>(condition: &'a Filter, patterns: &mut Vec<&'a crate::query::Pattern>) {
    match condition {
        Filter::All(parts) | Filter::Any(parts) => parts.iter().for_each(|part| collect(part, patterns)),
        Filter::Not(part) => collect(part, patterns),
        Filter::Matches(pattern) => patterns.push(pattern),
        Filter::Compare(_) | Filter::In(_) => {}
    }
}

/// The same, with the patterns replaced in the order in which they were collected.
fn replaced(condition: &Filter, lists: &mut impl Iterator<Item = crate::query::Member>) -> Filter {
    match condition {
        Filter::All(parts) => Filter::All(parts.iter().map(|part| replaced_dyn(part, lists)).collect()),
        Filter::Any(parts) => Filter::Any(parts.iter().map(|part| replaced_dyn(part, lists)).collect()),
        Filter::Not(part) => Filter::Not(Box::new(replaced_dyn(part, lists))),
        Filter::Matches(_) => lists.next().map_or_else(|| condition.clone(), Filter::In),
        other => other.clone(),
    }
}

fn replaced_dyn(condition: &Filter, lists: &mut dyn Iterator<Item = crate::query::Member>) -> Filter {
    let mut lists = lists;
    replaced(condition, &mut lists)
}
