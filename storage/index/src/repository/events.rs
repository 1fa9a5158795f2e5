//! Events: kept once per message id, listed newest first.

use std::collections::HashSet;

use orzo_database::{Row, Value};
use orzo_model::{Event, NumberedEvent, Scope, Timestamp, Trait, TraitValue};

use super::{advance, paging::bad_page, policies::to_json};
use crate::{
    Index, IndexError,
    attribute::storable,
    sql::{Sql, inserts, transact},
};

/// Longest trait value that can be searched; longer ones are kept whole and searched by their beginning.
pub(super) const SEARCHED_CHARACTERS_MAX: usize = 255;
/// Message ids looked up in one statement.
const IDS_AT_ONCE: usize = 1000;

/// How a trait is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraitOperator {
    /// `eq`
    Equal,
    /// `ne`
    NotEqual,
    /// `lt`
    Less,
    /// `le`
    LessOrEqual,
    /// `gt`
    Greater,
    /// `ge`
    GreaterOrEqual,
}

/// A condition on a trait: the event has one of this name and type, and it compares so.
#[derive(Clone, Debug, PartialEq)]
pub struct TraitFilter {
    /// Trait's name.
    pub name: String,
    /// How.
    pub operator: TraitOperator,
    /// With what; its type is the type searched.
    pub value: TraitValue,
}

/// A question about events.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// How far it may look: a project sees events whose `project_id` (or `tenant_id`) trait is its own.
    pub scope: Scope,
    /// Exactly this type.
    pub event_type: Option<String>,
    /// This one.
    pub message_id: Option<String>,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
    /// All of these.
    pub traits: Vec<TraitFilter>,
    /// The last event of the page before.
    pub marker: Option<String>,
    /// Events at most; `None`, and everything larger: the setting `page_max`.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// All events within a scope.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            event_type: None,
            message_id: None,
            start: None,
            end: None,
            traits: Vec::new(),
            marker: None,
            limit: None,
        }
    }
}

/// A trait that events of a type have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTypeTrait {
    /// Name.
    pub name: String,
    /// `string`, `integer`, `float` or `datetime`.
    pub type_name: String,
}

impl Index {
    /// Which of these message ids are kept already.
    pub async fn known_events(&self, message_ids: &[&str]) -> Result<HashSet<String>, IndexError> {
        let mut known = HashSet::new();
        for chunk in message_ids.chunks(IDS_AT_ONCE) {
            let mut sql = Sql::new("SELECT message_id FROM index_events WHERE message_id IN ");
            sql.push_list(chunk.iter().copied());
            let rows = self.database.query(&sql.text, &sql.values).await?;
            known.extend(rows.iter().map(|row| row.string("message_id")));
        }
        Ok(known)
    }

    /// Keeps events in one transaction; those whose message id is known already change nothing. How many were new.
    pub async fn insert_events(&self, events: &[Event]) -> Result<u64, IndexError> {
        if events.is_empty() {
            return Ok(0);
        }
        let stored_at = self.clock.now();
        // As they came: who follows them sees them in that order.
        let mut seen = HashSet::new();
        let given: Vec<&Event> = events.iter().filter(|event| seen.insert(event.message_id.as_str())).collect();
        transact!(self.database, |tx| {
            let ids: Vec<&str> = given.iter().map(|event| event.message_id.as_str()).collect();
            let mut known = HashSet::new();
            for chunk in ids.chunks(IDS_AT_ONCE) {
                let mut sql = Sql::new("SELECT message_id FROM index_events WHERE message_id IN ");
                sql.push_list(chunk.iter().copied());
                let rows = tx.query(&sql.text, &sql.values).await?;
                known.extend(rows.iter().map(|row| row.string("message_id")));
            }
            let new: Vec<&Event> = given.iter().copied().filter(|event| !known.contains(&event.message_id)).collect();
            if new.is_empty() {
                return Ok(0);
            }
            // The counter's row is held until the commit, so that numbers become visible in their order.
            let first = advance(tx, "events", new.len() as u64).await?;
            let mut rows = Vec::new();
            let mut traits = Vec::new();
            for (place, event) in new.iter().enumerate() {
                let number = i64::try_from(first).unwrap_or(i64::MAX).saturating_add(place as i64);
                let mut row = event_row(event)?;
                row.extend([number.into(), stored_at.into()]);
                rows.push(row);
                traits.extend(trait_rows(event));
            }
            let columns = &[
                "message_id",
                "event_type",
                "generated_at",
                "project_id",
                "user_id",
                "traits",
                "raw",
                "number",
                "stored_at",
            ];
            for sql in inserts("index_events", columns, "", rows) {
                tx.execute(&sql.text, &sql.values).await?;
            }
            let columns = &["message_id", "name", "kind", "text", "number"];
            for sql in inserts("index_event_traits", columns, "", traits) {
                tx.execute(&sql.text, &sql.values).await?;
            }
            Ok(new.len() as u64)
        })
    }

    /// One page of events, newest first.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<Event>, IndexError> {
        let mut sql = Sql::new("SELECT e.* FROM index_events e WHERE 1 = 1");
        push_scope(&query.scope, &mut sql);
        if let Some(event_type) = &query.event_type {
            let place = sql.bind(event_type.as_str());
            sql.push(" AND e.event_type = ").push(&place);
        }
        if let Some(message_id) = &query.message_id {
            let place = sql.bind(message_id.as_str());
            sql.push(" AND e.message_id = ").push(&place);
        }
        if let Some(start) = query.start {
            let place = sql.bind(start);
            sql.push(" AND e.generated_at >= ").push(&place);
        }
        if let Some(end) = query.end {
            let place = sql.bind(end);
            sql.push(" AND e.generated_at <= ").push(&place);
        }
        for filter in &query.traits {
            push_trait(filter, &mut sql);
        }
        if let Some(marker) = &query.marker {
            let found = "SELECT generated_at FROM index_events WHERE message_id = $1";
            let row = self.database.query_one(found, &[marker.into()]).await?;
            let time = row.and_then(|row| row.time("generated_at"));
            let time = time.ok_or_else(|| bad_page(&format!("Invalid marker: `{marker}'")))?;
            let (time, marker) = (sql.bind(time), sql.bind(marker.as_str()));
            sql.push(&format!(
                " AND (e.generated_at < {time} OR (e.generated_at = {time} AND e.message_id < {marker}))"
            ));
        }
        let limit = query.limit.unwrap_or(usize::MAX).min(self.settings.page_max);
        let place = sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(" ORDER BY e.generated_at DESC, e.message_id DESC LIMIT ").push(&place);
        let rows = self.database.query(&sql.text, &sql.values).await?;
        rows.iter().map(event_of).collect()
    }

    /// Events with a larger number, in the order of their commits, at most `limit`.
    pub async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, IndexError> {
        let sql = "SELECT * FROM index_events WHERE number > $1 ORDER BY number LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.database.query(sql, &[number.into(), limit.into()]).await?;
        let numbered = |row: &Row| -> Result<NumberedEvent, IndexError> {
            Ok(NumberedEvent {
                number: row.int("number").unwrap_or(0),
                stored_at: row.time("stored_at").unwrap_or(Timestamp::EPOCH),
                event: event_of(row)?,
            })
        };
        rows.iter().map(numbered).collect()
    }

    /// The largest number of an event; 0 if there is none.
    pub async fn newest_event(&self) -> Result<i64, IndexError> {
        let row = self.database.query_one("SELECT max(number) AS number FROM index_events", &[]).await?;
        Ok(row.and_then(|row| row.int("number")).unwrap_or(0))
    }

    /// A project's events of a time, oldest first, at most `limit`.
    pub async fn events_between(
        &self,
        project_id: &str,
        start: Timestamp,
        stop: Timestamp,
        limit: usize,
    ) -> Result<Vec<Event>, IndexError> {
        let sql = "SELECT * FROM index_events WHERE project_id = $1 AND generated_at >= $2 AND generated_at < $3 \
                   ORDER BY generated_at, message_id LIMIT $4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.database.query(sql, &[project_id.into(), start.into(), stop.into(), limit.into()]).await?;
        rows.iter().map(event_of).collect()
    }

    /// One event.
    pub async fn event(&self, scope: &Scope, message_id: &str) -> Result<Event, IndexError> {
        let query = EventQuery { message_id: Some(message_id.to_owned()), ..EventQuery::new(scope.clone()) };
        self.events(&query).await?.pop().ok_or_else(|| IndexError::not_found(format!("Event {message_id}")))
    }

    /// Types of the events within a scope.
    pub async fn event_types(&self, scope: &Scope) -> Result<Vec<String>, IndexError> {
        let mut sql = Sql::new("SELECT DISTINCT e.event_type FROM index_events e WHERE 1 = 1");
        push_scope(scope, &mut sql);
        sql.push(" ORDER BY e.event_type");
        let rows = self.database.query(&sql.text, &sql.values).await?;
        Ok(rows.iter().map(|row| row.string("event_type")).collect())
    }

    /// Traits that events of a type have.
    pub async fn event_type_traits(&self, scope: &Scope, event_type: &str) -> Result<Vec<EventTypeTrait>, IndexError> {
        let mut sql = Sql::new(
            "SELECT DISTINCT t.name, t.kind FROM index_event_traits t JOIN index_events e ON e.message_id = t.message_id \
             WHERE e.event_type = ",
        );
        let place = sql.bind(event_type);
        sql.push(&place);
        push_scope(scope, &mut sql);
        sql.push(" ORDER BY t.name, t.kind");
        let rows = self.database.query(&sql.text, &sql.values).await?;
        Ok(rows.iter().map(|row| EventTypeTrait { name: row.string("name"), type_name: row.string("kind") }).collect())
    }

    /// Removes events from before a time; how many.
    pub async fn expire_events(&self, before: Timestamp) -> Result<u64, IndexError> {
        Ok(self.database.execute("DELETE FROM index_events WHERE generated_at < $1", &[before.into()]).await?)
    }
}

fn push_scope(scope: &Scope, sql: &mut Sql) {
    match scope {
        Scope::All => {}
        Scope::Project(project) | Scope::Owner(project) => {
            let place = sql.bind(project.as_str());
            sql.push(" AND e.project_id = ").push(&place);
        }
        Scope::Creator(user) => {
            let place = sql.bind(user.as_str());
            sql.push(" AND e.user_id = ").push(&place);
        }
        // Nobody makes events.
        Scope::Maker(_) | Scope::Nothing => {
            sql.push(" AND 1 = 0");
        }
    }
}

fn push_trait(filter: &TraitFilter, sql: &mut Sql) {
    let operator = match filter.operator {
        TraitOperator::Equal => "=",
        TraitOperator::NotEqual => "<>",
        TraitOperator::Less => "<",
        TraitOperator::LessOrEqual => "<=",
        TraitOperator::Greater => ">",
        TraitOperator::GreaterOrEqual => ">=",
    };
    let name = sql.bind(filter.name.as_str());
    let kind = sql.bind(filter.value.type_name());
    let (text, number) = searchable(&filter.value);
    let condition = match (text, number) {
        (Some(text), _) => format!("t.text {operator} {}", sql.bind(text)),
        (None, number) => format!("t.number {operator} {}", sql.bind(number)),
    };
    sql.push(&format!(
        " AND EXISTS (SELECT 1 FROM index_event_traits t WHERE t.message_id = e.message_id AND t.name = {name} \
         AND t.kind = {kind} AND {condition})"
    ));
}

fn searchable(value: &TraitValue) -> (Option<String>, Option<f64>) {
    match value {
        TraitValue::Text(text) => (Some(storable(text).chars().take(SEARCHED_CHARACTERS_MAX).collect()), None),
        TraitValue::Integer(number) => (None, Some(*number as f64)),
        TraitValue::Float(number) => (None, Some(*number)),
        TraitValue::Datetime(time) => (None, Some(time.micros() as f64)),
    }
}

fn event_row(event: &Event) -> Result<Vec<Value>, IndexError> {
    let owner = |name: &str| event.text(name).map(|text| storable(&text).into_owned());
    let project = owner("project_id").or_else(|| owner("tenant_id"));
    Ok(vec![
        event.message_id.as_str().into(),
        event.event_type.as_str().into(),
        event.generated_at.into(),
        project.into(),
        owner("user_id").into(),
        to_json(&event.traits)?.into(),
        event.raw.clone().into(),
    ])
}

fn trait_rows(event: &Event) -> Vec<Vec<Value>> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for Trait { name, value } in &event.traits {
        // A definition could name a trait twice; the first one is searched, both are kept.
        if seen.insert(name.as_str()) {
            let (text, number) = searchable(value);
            rows.push(vec![
                event.message_id.as_str().into(),
                name.as_str().into(),
                value.type_name().into(),
                Value::Text(text),
                Value::Real(number),
            ]);
        }
    }
    rows
}

pub(super) fn event_of(row: &Row) -> Result<Event, IndexError> {
    let message_id = row.string("message_id");
    let traits = serde_json::from_str(&row.string("traits"))
        .map_err(|error| IndexError::damaged(format!("event `{message_id}`"), error))?;
    Ok(Event {
        message_id,
        event_type: row.string("event_type"),
        generated_at: row.time("generated_at").unwrap_or(Timestamp::EPOCH),
        traits,
        raw: row.text("raw"),
    })
}
