//! Scopes: what is rated (projects), until when each was, and whether it still is.

use orzo_database::{Row, Value};
use orzo_model::Timestamp;

use super::{BookError, RatingBook, modules::COLLECTOR_DEFAULT, time_of};

/// What a scope's id is the id of.
pub const SCOPE_KEY: &str = "project_id";
/// Who finds scopes, unless it is said otherwise.
const FETCHER: &str = "gnocchi";
/// Longest id of a scope, as CloudKitty's column.
const SCOPE_CHARACTERS_MAX: usize = 256;

/// How far a scope is rated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeState {
    /// The project's id.
    pub scope_id: String,
    /// What the id is the id of.
    pub scope_key: String,
    /// Who found it.
    pub fetcher: String,
    /// Who collects its usage.
    pub collector: String,
    /// Everything before this is rated.
    pub rated_until: Timestamp,
    /// Why it is not rated any further though its time is over.
    pub held: Option<Held>,
    /// Whether it is rated any further.
    pub active: bool,
    /// When that changed last.
    pub toggled_at: Timestamp,
    /// Rises with every change: what was decided from an older one is not written.
    pub revision: i64,
}

/// What keeps a scope from being rated any further: a charge of the period at `rated_until` has no price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Lines of everything else are made until here.
    pub made_until: Timestamp,
    /// The rules that were tried; newer ones are tried again. 0: whatever they are.
    pub rule_version: u64,
    /// Which charge, and why it has no price.
    pub reason: String,
}

impl ScopeState {
    /// Until when lines are made, though not all where it is held.
    pub fn made_until(&self) -> Timestamp {
        self.held.as_ref().map_or(self.rated_until, |held| held.made_until.max(self.rated_until))
    }
}

/// A scope to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // as in the state
pub struct NewScope {
    pub scope_id: String,
    pub scope_key: Option<String>,
    pub fetcher: Option<String>,
    pub collector: Option<String>,
    pub active: bool,
    pub rated_until: Timestamp,
}

/// What changes of a scope; `None` leaves it.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // as in the state
pub struct ScopeChange {
    pub scope_key: Option<String>,
    pub fetcher: Option<String>,
    pub collector: Option<String>,
    pub active: Option<bool>,
}

/// What a list is narrowed to; an empty list does not narrow.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // as in the state
pub struct ScopeFilter {
    pub scope_ids: Vec<String>,
    pub scope_keys: Vec<String>,
    pub fetchers: Vec<String>,
    pub collectors: Vec<String>,
    pub active: Vec<bool>,
}

fn scope_of(row: &Row) -> Result<ScopeState, BookError> {
    Ok(ScopeState {
        scope_id: row.string("scope_id"),
        scope_key: row.string("scope_key"),
        fetcher: row.string("fetcher"),
        collector: row.string("collector"),
        rated_until: time_of(row, "scope_id", "rated_until")?,
        held: row.time("made_until").map(|made_until| Held {
            made_until,
            rule_version: row.int("held_version").and_then(|version| u64::try_from(version).ok()).unwrap_or(0),
            reason: row.string("held_reason"),
        }),
        active: row.flag("active"),
        toggled_at: time_of(row, "scope_id", "toggled_at")?,
        revision: row.int("revision").unwrap_or(0),
    })
}

/// `AND column IN (...)`, with the values added.
pub(super) fn among(column: &str, wanted: impl IntoIterator<Item = Value>, values: &mut Vec<Value>) -> String {
    let first = values.len() + 1;
    values.extend(wanted);
    let places: Vec<String> = (first..=values.len()).map(|place| format!("${place}")).collect();
    if places.is_empty() { String::new() } else { format!(" AND {column} IN ({})", places.join(", ")) }
}

impl RatingBook {
    /// Scopes, in the order in which they were made; `limit` of them after `offset`.
    pub async fn scopes(&self, filter: &ScopeFilter, offset: u32, limit: u32) -> Result<Vec<ScopeState>, BookError> {
        let mut values = Vec::new();
        let mut sql = "SELECT * FROM rating_scopes WHERE 1 = 1".to_owned();
        for (column, wanted) in [
            ("scope_id", &filter.scope_ids),
            ("scope_key", &filter.scope_keys),
            ("fetcher", &filter.fetchers),
            ("collector", &filter.collectors),
        ] {
            sql.push_str(&among(column, wanted.iter().map(Value::from), &mut values));
        }
        sql.push_str(&among("active", filter.active.iter().map(|active| Value::from(*active)), &mut values));
        sql.push_str(&format!(" ORDER BY created_at, scope_id LIMIT {limit} OFFSET {offset}"));
        self.database.query(&sql, &values).await?.iter().map(scope_of).collect()
    }

    /// One scope.
    pub async fn scope(&self, scope_id: &str) -> Result<Option<ScopeState>, BookError> {
        let sql = "SELECT * FROM rating_scopes WHERE scope_id = $1";
        self.database.query_one(sql, &[scope_id.into()]).await?.as_ref().map(scope_of).transpose()
    }

    /// Makes a scope, unless there is one with this id: `false`.
    pub async fn create_scope(&self, new: &NewScope) -> Result<bool, BookError> {
        if new.scope_id.is_empty() || new.scope_id.chars().count() > SCOPE_CHARACTERS_MAX {
            return Err(BookError::refused(format!("a scope's id has 1 to {SCOPE_CHARACTERS_MAX} characters")));
        }
        let sql = "INSERT INTO rating_scopes (scope_id, scope_key, fetcher, collector, rated_until, active, toggled_at, \
                   created_at, revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, 1) ON CONFLICT (scope_id) DO NOTHING";
        let values = [
            new.scope_id.as_str().into(),
            new.scope_key.as_deref().unwrap_or(SCOPE_KEY).into(),
            new.fetcher.as_deref().unwrap_or(FETCHER).into(),
            new.collector.as_deref().unwrap_or(COLLECTOR_DEFAULT).into(),
            new.rated_until.into(),
            new.active.into(),
            self.now().into(),
        ];
        Ok(self.database.execute(sql, &values).await? == 1)
    }

    /// Changes what is known of a scope; `None`: there is none.
    pub async fn change_scope(&self, scope_id: &str, change: &ScopeChange) -> Result<Option<ScopeState>, BookError> {
        let now = self.now();
        // With CASE and not from what was read before, so that two changes at once are both kept.
        let sql = "UPDATE rating_scopes SET scope_key = coalesce($2, scope_key), fetcher = coalesce($3, fetcher), \
                   collector = coalesce($4, collector), \
                   toggled_at = CASE WHEN active = coalesce($5, active) THEN toggled_at ELSE $6 END, \
                   active = coalesce($5, active), revision = revision + 1 WHERE scope_id = $1 RETURNING *";
        let values = [
            scope_id.into(),
            change.scope_key.clone().into(),
            change.fetcher.clone().into(),
            change.collector.clone().into(),
            Value::from(change.active),
            now.into(),
        ];
        self.changed_scope(sql, &values).await
    }

    /// Notes that a scope is rated until `to`, and what holds it there, if nothing has changed since `before` was read. `None`:
    /// something has.
    pub async fn advance(
        &self,
        before: &ScopeState,
        to: Timestamp,
        held: Option<&Held>,
    ) -> Result<Option<ScopeState>, BookError> {
        let sql = "UPDATE rating_scopes SET rated_until = $1, made_until = $4, held_version = $5, held_reason = $6, \
                   revision = revision + 1 WHERE scope_id = $2 AND revision = $3 RETURNING *";
        let version = held.map(|held| i64::try_from(held.rule_version).unwrap_or(i64::MAX));
        let values = [
            to.into(),
            before.scope_id.as_str().into(),
            before.revision.into(),
            held.map(|held| held.made_until).into(),
            version.into(),
            held.map(|held| held.reason.clone()).into(),
        ];
        self.changed_scope(sql, &values).await
    }

    /// Lets a scope that is held be tried again, whatever the rules are.
    pub async fn try_again(&self, scope_id: &str) -> Result<(), BookError> {
        let sql = "UPDATE rating_scopes SET held_version = 0, revision = revision + 1 \
                   WHERE scope_id = $1 AND made_until IS NOT NULL";
        self.database.execute(sql, &[scope_id.into()]).await?;
        Ok(())
    }

    /// An operator sets how far a scope is rated: what lies after it is rated again. How many scopes there were.
    pub async fn reset_scopes(&self, scope_ids: &[String], to: Timestamp) -> Result<u64, BookError> {
        let mut changed = 0;
        for scope_id in scope_ids {
            let sql = "UPDATE rating_scopes SET rated_until = $1, made_until = NULL, held_version = NULL, \
                       held_reason = NULL, revision = revision + 1 WHERE scope_id = $2";
            changed += self.database.execute(sql, &[to.into(), scope_id.into()]).await?;
        }
        Ok(changed)
    }

    /// A statement that changes a scope and returns it, as a transaction: reads of SQLite see no writes.
    async fn changed_scope(&self, sql: &'static str, values: &[Value]) -> Result<Option<ScopeState>, BookError> {
        self.database
            .transact(|tx| {
                let values = values.to_vec();
                Box::pin(async move { tx.query_one(sql, &values).await?.as_ref().map(scope_of).transpose() })
            })
            .await
    }
}
