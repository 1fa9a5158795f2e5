//! Writing resources: rows of searchable attributes, and a change that keeps the old state as a revision.

use std::time::Duration;

use orzo_database::{Transaction, Value};
use orzo_model::Timestamp;

use super::{policies::to_json, resources::Resource};
use crate::{IndexError, ResourceType, sql::inserts};

pub(crate) const ATTRIBUTE_COLUMNS: &[&str] = &["resource_id", "revision", "name", "text", "number"];

/// The searchable rows of a resource's attributes at its revision.
pub(crate) fn attribute_rows(resource: &Resource, kind: &ResourceType) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for (name, value) in &resource.attributes {
        let Some(attribute) = kind.attributes.get(name) else { continue };
        let (text, number) = attribute.kind.searchable(value);
        if text.is_some() || number.is_some() {
            rows.push(vec![
                resource.id.to_string().into(),
                resource.revision.into(),
                name.as_str().into(),
                Value::Text(text),
                Value::Real(number),
            ]);
        }
    }
    rows
}

/// Inserts many rows.
pub(crate) async fn insert_rows(
    tx: &mut Transaction<'_>,
    table: &str,
    columns: &[&str],
    rows: Vec<Vec<Value>>,
) -> Result<(), IndexError> {
    for sql in inserts(table, columns, "", rows) {
        tx.execute(&sql.text, &sql.values).await?;
    }
    Ok(())
}

/// Keeps `old` as a revision that ended now and writes `new` as the current state.
pub(crate) async fn change_row(
    tx: &mut Transaction<'_>,
    old: &Resource,
    new: &mut Resource,
    kind: &ResourceType,
    now: Timestamp,
) -> Result<(), IndexError> {
    let id = old.id.to_string();
    let row = tx
        .query_one(
            "SELECT COALESCE(MAX(revision), 0) AS newest FROM index_resource_history WHERE id = $1",
            &[id.as_str().into()],
        )
        .await?;
    let revision = row.and_then(|row| row.int("newest")).unwrap_or(0) + 1;
    // Each revision starts later than the one before, also when two changes meet in one microsecond or the clock went
    // back: that is the order of history.
    let changed_at = now.max(old.revision_start.plus(Duration::from_micros(1)));
    tx.execute(
        "INSERT INTO index_resource_history (id, revision, type, original_resource_id, creator, created_by_user_id, \
         created_by_project_id, project_id, user_id, started_at, ended_at, revision_start, attributes, revision_end) \
         SELECT id, $1, type, original_resource_id, creator, created_by_user_id, created_by_project_id, project_id, \
         user_id, started_at, ended_at, revision_start, attributes, $2 FROM index_resources WHERE id = $3",
        &[revision.into(), changed_at.into(), id.as_str().into()],
    )
    .await?;
    tx.execute(
        "UPDATE index_attributes SET revision = $1 WHERE resource_id = $2 AND revision = -1",
        &[revision.into(), id.as_str().into()],
    )
    .await?;
    new.revision_start = changed_at;
    tx.execute(
        "UPDATE index_resources SET project_id = $1, user_id = $2, started_at = $3, ended_at = $4, \
         revision_start = $5, attributes = $6, type = $7 WHERE id = $8",
        &[
            new.project_id.clone().into(),
            new.user_id.clone().into(),
            new.started_at.into(),
            new.ended_at.into(),
            changed_at.into(),
            to_json(&new.attributes)?.into(),
            new.resource_type.as_str().into(),
            id.into(),
        ],
    )
    .await?;
    insert_rows(tx, "index_attributes", ATTRIBUTE_COLUMNS, attribute_rows(new, kind)).await
}
