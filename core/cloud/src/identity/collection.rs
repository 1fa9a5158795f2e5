//! What users, projects and roles have in common: each has an id and a name, and is listed, shown, made, changed and
//! removed in the same way. Each change is one transaction with its notification.
//!
//! In: a [`Kind`], and what its own room has read from the request. It knows no permissions: those are asked before.

use std::{future::Future, sync::Arc};

use axum::{Json, http::StatusCode};
use orzo_database::{DatabaseError, Row, Transaction, Value as Cell};
use serde_json::{Value, json};

use super::{
    Identity, LIST_MAX, Principal, revision,
    tables::{DOMAIN_ID, Reads, new_id},
};
use crate::http::ApiError;

/// One of the kinds of things.
pub(super) trait Kind: 'static {
    /// As it stands in bodies and messages: `user`.
    const ONE: &'static str;
    /// As it stands in lists and paths: `users`.
    const MANY: &'static str;
    /// Its table.
    const TABLE: &'static str;
    /// What is read of it.
    const COLUMNS: &'static str;
    /// When another one has the name `$1` already.
    const NAME_TAKEN: &'static str = "name = $1";

    /// As the API shows it.
    fn shown(identity: &Identity, row: &Row) -> Value;

    /// Refuses to change or remove what must stay as it is.
    fn check_changeable(_: &Row) -> Result<(), ApiError> {
        Ok(())
    }

    /// Ends what depends on it, before it is removed.
    fn release(tx: &mut Transaction<'_>, id: &str) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Columns to write, with their values.
pub(super) type Columns = Vec<(&'static str, Cell)>;

/// What a list is filtered by.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) name: Option<String>,
    pub(super) enabled: Option<String>,
    /// Whether something is asked for that cannot be here.
    pub(super) is_elsewhere: bool,
}

impl Identity {
    /// `GET /v3/users` and the like.
    pub(super) async fn list_kind<K: Kind>(&self, filter: Filter) -> Result<Json<Value>, ApiError> {
        let mut values: Vec<Cell> = Vec::new();
        let mut sql = format!("SELECT {} FROM {} WHERE 1 = 1", K::COLUMNS, K::TABLE);
        if let Some(name) = filter.name {
            values.push(name.into());
            sql.push_str(&format!(" AND name = ${}", values.len()));
        }
        if let Some(enabled) = filter.enabled {
            values.push(is_true(&enabled).into());
            sql.push_str(&format!(" AND enabled = ${}", values.len()));
        }
        let rows = match filter.is_elsewhere {
            true => Vec::new(),
            false => self.database.query(&format!("{sql} ORDER BY name LIMIT {}", LIST_MAX + 1), &values).await?,
        };
        let found = rows.iter().map(|row| K::shown(self, row)).collect();
        Ok(Json(self.list(K::MANY, &format!("/{}", K::MANY), found)))
    }

    /// `GET /v3/users/{id}` and the like.
    pub(super) async fn show_kind<K: Kind>(&self, id: &str) -> Result<Json<Value>, ApiError> {
        let row = existing::<K>(&mut &self.database, id).await?;
        Ok(Json(json!({(K::ONE): K::shown(self, &row)})))
    }

    /// Makes one. The columns have its name and not its id.
    pub(super) async fn create_kind<K: Kind>(
        self: &Arc<Self>,
        principal: &Principal,
        columns: Columns,
    ) -> Result<(StatusCode, Json<Value>), ApiError> {
        let id = new_id();
        let row = self
            .change(|tx| {
                let (identity, principal, id) = (self.clone(), principal.clone(), id.clone());
                let mut columns = columns.clone();
                Box::pin(async move {
                    check_name::<K>(tx, &columns, &id).await?;
                    columns.push(("id", id.as_str().into()));
                    insert(tx, K::TABLE, columns).await?;
                    identity.tell(tx, &principal, "created", K::ONE, &id).await?;
                    existing::<K>(tx, &id).await
                })
            })
            .await?;
        Ok((StatusCode::CREATED, Json(json!({(K::ONE): K::shown(self, &row)}))))
    }

    /// Changes one: `edit` gives the columns that become different, by what they were.
    pub(super) async fn update_kind<K: Kind>(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        edit: impl Fn(&Row) -> Result<Columns, ApiError> + Send + Sync + 'static,
    ) -> Result<Json<Value>, ApiError> {
        let edit = Arc::new(edit);
        let row = self
            .change(|tx| {
                let (identity, principal, id, edit) = (self.clone(), principal.clone(), id.to_owned(), edit.clone());
                Box::pin(async move {
                    let before = existing::<K>(tx, &id).await?;
                    K::check_changeable(&before)?;
                    let columns = edit(&before)?;
                    check_name::<K>(tx, &columns, &id).await?;
                    write(tx, K::TABLE, &id, columns).await?;
                    identity.tell(tx, &principal, "updated", K::ONE, &id).await?;
                    existing::<K>(tx, &id).await
                })
            })
            .await?;
        Ok(Json(json!({(K::ONE): K::shown(self, &row)})))
    }

    /// Removes one, and what depends on it.
    pub(super) async fn remove_kind<K: Kind>(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
    ) -> Result<StatusCode, ApiError> {
        self.change(|tx| {
            let (identity, principal, id) = (self.clone(), principal.clone(), id.to_owned());
            Box::pin(async move {
                K::check_changeable(&existing::<K>(tx, &id).await?)?;
                K::release(tx, &id).await?;
                tx.execute(&format!("DELETE FROM {} WHERE id = $1", K::TABLE), &[id.as_str().into()]).await?;
                Ok(identity.tell(tx, &principal, "deleted", K::ONE, &id).await?)
            })
        })
        .await?;
        Ok(StatusCode::NO_CONTENT)
    }
}

/// The column that ends all tokens made before.
pub(super) fn raised(before: &Row) -> (&'static str, Cell) {
    ("revision", (i64::from(revision(before)) + 1).into())
}

/// Whether a filter names a domain that is not here. Aodh sends an empty one when it has none to name.
pub(super) fn is_elsewhere(domain: Option<&str>) -> bool {
    domain.is_some_and(|domain| !domain.is_empty() && domain != DOMAIN_ID)
}

/// A flag in a query.
pub(super) fn is_true(text: &str) -> bool {
    !["0", "false", "no", "off"].contains(&text.to_ascii_lowercase().as_str())
}

async fn existing<K: Kind>(reads: &mut impl Reads, id: &str) -> Result<Row, ApiError> {
    let row = reads.first(&format!("SELECT {} FROM {} WHERE id = $1", K::COLUMNS, K::TABLE), &[id.into()]).await?;
    row.ok_or_else(|| ApiError::not_found(K::ONE, id))
}

async fn check_name<K: Kind>(tx: &mut Transaction<'_>, columns: &Columns, own_id: &str) -> Result<(), ApiError> {
    let Some((_, name)) = columns.iter().find(|(column, _)| *column == "name") else { return Ok(()) };
    let sql = format!("SELECT id FROM {} WHERE {} AND id <> $2", K::TABLE, K::NAME_TAKEN);
    if tx.query_one(&sql, &[name.clone(), own_id.into()]).await?.is_none() {
        return Ok(());
    }
    let (kind, Cell::Text(Some(name))) = (K::ONE, name) else { return Err(ApiError::conflict("The name is taken.")) };
    Err(ApiError::conflict(format!(
        "Conflict occurred attempting to store {kind} - there is a {kind} named {name} already."
    )))
}

async fn insert(tx: &mut Transaction<'_>, table: &str, columns: Columns) -> Result<(), DatabaseError> {
    let (names, values): (Vec<&str>, Vec<Cell>) = columns.into_iter().unzip();
    let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
    tx.execute(&sql, &values).await?;
    Ok(())
}

async fn write(tx: &mut Transaction<'_>, table: &str, id: &str, columns: Columns) -> Result<(), DatabaseError> {
    if columns.is_empty() {
        return Ok(());
    }
    let (names, mut values): (Vec<&str>, Vec<Cell>) = columns.into_iter().unzip();
    let places: Vec<String> = names.iter().enumerate().map(|(n, name)| format!("{name} = ${}", n + 1)).collect();
    values.push(id.into());
    let sql = format!("UPDATE {table} SET {} WHERE id = ${}", places.join(", "), values.len());
    tx.execute(&sql, &values).await?;
    Ok(())
}
