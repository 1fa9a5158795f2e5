//! Mappings: a cost for a service, or for a value of a field; for everybody or one tenant; from a time, until a time.
//!
//! A mapping that has begun can only be given an end, and one that was deleted stays visible to who asks for it: bills
//! rest on it.

use bigdecimal::BigDecimal;
use orzo_database::{Row, Transaction, Value};
use orzo_model::Timestamp;
use uuid::Uuid;

use super::{
    BookError, COST_PLACES, RatingBook, RuleGroup, begin_change, catalog::group_of, check_decimal, check_name,
    check_parent, decimal_of, kind_of, kind_text, or_none, time_of,
};
use crate::Kind;

/// Longest name of a mapping, as CloudKitty's column.
const MAPPING_NAME_CHARACTERS_MAX: usize = 32;
/// Longest description, as CloudKitty's column.
const DESCRIPTION_CHARACTERS_MAX: usize = 256;

/// A cost, as it stands in the book.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct Mapping {
    pub mapping_id: String,
    /// Of a field: the value that it is for.
    pub value: Option<String>,
    pub cost: BigDecimal,
    pub kind: Kind,
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
    pub start: Timestamp,
    /// Not in force from here on.
    pub end: Option<Timestamp>,
    pub name: String,
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub updated_by: Option<String>,
    pub deleted: Option<Timestamp>,
    pub deleted_by: Option<String>,
}

impl Mapping {
    /// Whether it counts at a moment.
    pub fn is_active(&self, at: Timestamp) -> bool {
        self.deleted.is_none() && self.start <= at && self.end.is_none_or(|end| end > at)
    }
}

/// A mapping to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct NewMapping {
    pub value: Option<String>,
    pub cost: BigDecimal,
    pub kind: Kind,
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
    /// `None`: now.
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// `None`: a name is made.
    pub name: Option<String>,
    pub description: Option<String>,
    /// Lets it begin in the past.
    pub force: bool,
}

/// What a request wants a mapping to be; `None` leaves it.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct MappingChange {
    pub cost: Option<BigDecimal>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub description: Option<String>,
    /// What may not change once it has begun; only compared.
    pub value: Option<String>,
    pub kind: Option<Kind>,
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
    pub name: Option<String>,
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct MappingFilter {
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    /// Only those without a group.
    pub no_group: bool,
    /// `Some(None)`: only those for everybody.
    pub tenant_id: Option<Option<String>>,
    /// Deleted ones too.
    pub deleted: bool,
    /// That begin at or after.
    pub start: Option<Timestamp>,
    /// That end before.
    pub end: Option<Timestamp>,
    pub created_by: Option<String>,
    pub updated_by: Option<String>,
    pub deleted_by: Option<String>,
    /// That have this in the description, in any case.
    pub description: Option<String>,
    /// Only those that count at a moment.
    pub active_at: Option<Timestamp>,
}

const COLUMNS: [&str; 17] = [
    "mapping_id",
    "value",
    "cost",
    "map_type",
    "service_id",
    "field_id",
    "group_id",
    "tenant_id",
    "start_at",
    "end_at",
    "name",
    "description",
    "created_at",
    "created_by",
    "updated_by",
    "deleted_at",
    "deleted_by",
];
const CURRENT: &str = "SELECT * FROM rating_mappings WHERE until_version IS NULL";

pub(super) fn mapping_of(row: &Row) -> Result<Mapping, BookError> {
    let id = "mapping_id";
    Ok(Mapping {
        mapping_id: row.string(id),
        value: row.text("value"),
        cost: decimal_of(row, id, "cost")?,
        kind: kind_of(row, id)?,
        service_id: row.text("service_id"),
        field_id: row.text("field_id"),
        group_id: row.text("group_id"),
        tenant_id: row.text("tenant_id"),
        start: time_of(row, id, "start_at")?,
        end: row.time("end_at"),
        name: row.string("name"),
        description: row.text("description"),
        created_at: time_of(row, id, "created_at")?,
        created_by: row.string("created_by"),
        updated_by: row.text("updated_by"),
        deleted: row.time("deleted_at"),
        deleted_by: row.text("deleted_by"),
    })
}

/// Writes a mapping as it is from `version` on.
async fn write(tx: &mut Transaction<'_>, mapping: &Mapping, made: i64, version: i64) -> Result<(), BookError> {
    let places: Vec<String> = (1..=COLUMNS.len() + 2).map(|place| format!("${place}")).collect();
    let sql = format!(
        "INSERT INTO rating_mappings ({}, created_version, since_version) VALUES ({})",
        COLUMNS.join(", "),
        places.join(", ")
    );
    let values: [Value; 19] = [
        mapping.mapping_id.as_str().into(),
        mapping.value.clone().into(),
        mapping.cost.to_plain_string().into(),
        kind_text(mapping.kind).into(),
        mapping.service_id.clone().into(),
        mapping.field_id.clone().into(),
        mapping.group_id.clone().into(),
        mapping.tenant_id.clone().into(),
        mapping.start.into(),
        mapping.end.into(),
        mapping.name.as_str().into(),
        mapping.description.clone().into(),
        mapping.created_at.into(),
        mapping.created_by.as_str().into(),
        mapping.updated_by.clone().into(),
        mapping.deleted.into(),
        mapping.deleted_by.clone().into(),
        made.into(),
        version.into(),
    ];
    tx.execute(&sql, &values).await?;
    Ok(())
}

/// Closes the row in force and writes the mapping as it is from `version` on.
async fn replace(tx: &mut Transaction<'_>, mapping: &Mapping, version: i64) -> Result<(), BookError> {
    let sql = "UPDATE rating_mappings SET until_version = $1 WHERE until_version IS NULL AND mapping_id = $2 \
               RETURNING created_version";
    let row = tx.query_one(sql, &[version.into(), mapping.mapping_id.as_str().into()]).await?;
    let made = row.and_then(|row| row.int("created_version")).ok_or_else(|| no_mapping(&mapping.mapping_id))?;
    write(tx, mapping, made, version).await
}

/// Takes the mappings of a group out of it.
pub(super) async fn ungroup(tx: &mut Transaction<'_>, group_id: &str, version: i64) -> Result<(), BookError> {
    for row in tx.query(&format!("{CURRENT} AND group_id = $1"), &[group_id.into()]).await? {
        let mapping = Mapping { group_id: None, ..mapping_of(&row)? };
        replace(tx, &mapping, version).await?;
    }
    Ok(())
}

fn no_mapping(id: &str) -> BookError {
    BookError::NotFound { what: format!("No such mapping: {id}") }
}

async fn find(tx: &mut Transaction<'_>, id: &str) -> Result<Mapping, BookError> {
    let row = tx.query_one(&format!("{CURRENT} AND mapping_id = $1"), &[id.into()]).await?;
    row.as_ref().map(mapping_of).transpose()?.ok_or_else(|| no_mapping(id))
}

/// Refuses a mapping whose name is taken, or that is for the same and at a time when another one is.
async fn check_alone(tx: &mut Transaction<'_>, mapping: &Mapping) -> Result<(), BookError> {
    let exists = || {
        let (id, parent) = match (&mapping.field_id, &mapping.service_id) {
            (Some(id), _) => (id.as_str(), "field"),
            (None, id) => (or_none(id.as_deref()), "service"),
        };
        let value = or_none(mapping.value.as_deref());
        let tenant = or_none(mapping.tenant_id.as_deref());
        BookError::Exists { what: format!("Mapping '{value}' already exists for {parent} '{id}', tenant: '{tenant}'") }
    };
    let sql = format!("{CURRENT} AND deleted_at IS NULL AND mapping_id <> $1 AND name = $2");
    if !tx.query(&sql, &[mapping.mapping_id.as_str().into(), mapping.name.as_str().into()]).await?.is_empty() {
        return Err(exists());
    }
    let (column, parent) = match (&mapping.field_id, &mapping.service_id) {
        (Some(id), _) => ("field_id", id.as_str()),
        (None, id) => ("service_id", or_none(id.as_deref())),
    };
    let sql = format!(
        "{CURRENT} AND deleted_at IS NULL AND mapping_id <> $1 AND {column} = $2 \
         AND coalesce(value, '') = $3 AND coalesce(tenant_id, '') = $4 AND coalesce(group_id, '') = $5 \
         AND (end_at IS NULL OR end_at >= $6) AND start_at < $7 LIMIT 1"
    );
    let values = [
        mapping.mapping_id.as_str().into(),
        parent.into(),
        mapping.value.as_deref().unwrap_or("").into(),
        mapping.tenant_id.as_deref().unwrap_or("").into(),
        mapping.group_id.as_deref().unwrap_or("").into(),
        mapping.start.into(),
        mapping.end.unwrap_or(Timestamp::MAX).into(),
    ];
    if tx.query(&sql, &values).await?.is_empty() { Ok(()) } else { Err(exists()) }
}

fn check_times(start: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp, force: bool) -> Result<(), BookError> {
    let python = |time: Timestamp| time.naive().replace('T', " ");
    if let Some(start) = start.filter(|start| !force && *start < now) {
        let (start, now) = (python(start), python(now));
        let reason = format!("Cannot create a rule with start in the past. start=[{start}] current time=[{now}].");
        return Err(BookError::refused(reason));
    }
    let begins = start.unwrap_or(now);
    match end.filter(|end| *end < begins) {
        Some(end) => Err(BookError::refused(format!(
            "Cannot create a rule with start after end. start=[{}] end=[{}].",
            python(begins),
            python(end)
        ))),
        None => Ok(()),
    }
}

impl RatingBook {
    /// Makes a mapping.
    pub async fn create_mapping(&self, author: &str, new: &NewMapping) -> Result<Mapping, BookError> {
        let now = self.now();
        check_times(new.start, new.end, now, new.force)?;
        check_decimal("cost", &new.cost, COST_PLACES)?;
        let value = new.value.clone().filter(|value| !value.is_empty());
        match (&value, &new.service_id, &new.field_id) {
            (_, Some(_), Some(_)) | (_, None, None) => {} // told by the check of the parent
            (Some(_), Some(_), _) => return Err(BookError::refused("You can't specify a value and a service_id.")),
            (None, _, Some(_)) => return Err(BookError::refused("You must specify a value for a field mapping.")),
            (Some(value), ..) => check_name("value", value)?,
            _ => {}
        }
        let name = new.name.clone().filter(|name| !name.is_empty());
        if name.as_ref().is_some_and(|name| name.chars().count() > MAPPING_NAME_CHARACTERS_MAX) {
            let reason = format!("the name is longer than {MAPPING_NAME_CHARACTERS_MAX} characters");
            return Err(BookError::refused(reason));
        }
        check_description(new.description.as_deref())?;
        let mapping = Mapping {
            mapping_id: Uuid::new_v4().to_string(),
            value,
            cost: new.cost.clone(),
            kind: new.kind,
            service_id: new.service_id.clone(),
            field_id: new.field_id.clone(),
            group_id: new.group_id.clone(),
            tenant_id: new.tenant_id.clone(),
            start: new.start.unwrap_or(now),
            end: new.end,
            name: name.unwrap_or_else(|| Uuid::new_v4().simple().to_string()),
            description: new.description.clone(),
            created_at: now,
            created_by: author.to_owned(),
            updated_by: None,
            deleted: None,
            deleted_by: None,
        };
        self.database
            .transact(|tx| {
                let (mapping, author) = (mapping.clone(), author.to_owned());
                Box::pin(async move {
                    let (service, field) = (mapping.service_id.as_deref(), mapping.field_id.as_deref());
                    check_parent(tx, service, field, mapping.group_id.as_deref()).await?;
                    check_alone(tx, &mapping).await?;
                    let change = format!("mapping {} made", mapping.mapping_id);
                    let version = begin_change(tx, now, &author, &change).await?;
                    write(tx, &mapping, version, version).await?;
                    Ok(mapping)
                })
            })
            .await
    }

    /// One mapping; a deleted one too.
    pub async fn mapping(&self, id: &str) -> Result<Mapping, BookError> {
        let row = self.database.query_one(&format!("{CURRENT} AND mapping_id = $1"), &[id.into()]).await?;
        row.as_ref().map(mapping_of).transpose()?.ok_or_else(|| no_mapping(id))
    }

    /// The group that a mapping is in.
    pub async fn group_of_mapping(&self, id: &str) -> Result<RuleGroup, BookError> {
        let sql = "SELECT g.* FROM rating_groups g JOIN rating_mappings m ON m.group_id = g.group_id \
                   WHERE g.until_version IS NULL AND m.until_version IS NULL AND m.mapping_id = $1";
        let row = self.database.query_one(sql, &[id.into()]).await?;
        row.as_ref()
            .map(group_of)
            .ok_or_else(|| BookError::NotFound { what: format!("Mapping has no group (UUID: {id})") })
    }

    /// Mappings, in the order in which they were made.
    pub async fn mappings(&self, filter: &MappingFilter) -> Result<Vec<Mapping>, BookError> {
        let mut sql = CURRENT.to_owned();
        let mut values: Vec<Value> = Vec::new();
        let mut narrow = |text: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                sql.push_str(&text.replace('?', &format!("${}", values.len())));
            }
        };
        let text = |value: &Option<String>| value.as_ref().map(Value::from);
        narrow(" AND service_id = ?", text(&filter.service_id));
        if filter.service_id.is_none() {
            narrow(" AND field_id = ?", text(&filter.field_id));
        }
        narrow(" AND group_id = ?", text(&filter.group_id));
        narrow(" AND coalesce(tenant_id, '') = ?", filter.tenant_id.clone().map(|own| own.unwrap_or_default().into()));
        narrow(" AND start_at >= ?", filter.start.map(Value::from));
        narrow(" AND end_at < ?", filter.end.map(Value::from));
        narrow(" AND created_by = ?", text(&filter.created_by));
        narrow(" AND updated_by = ?", text(&filter.updated_by));
        narrow(" AND deleted_by = ?", text(&filter.deleted_by));
        narrow(" AND start_at <= ?", filter.active_at.map(Value::from));
        narrow(" AND (end_at IS NULL OR end_at > ?) AND deleted_at IS NULL", filter.active_at.map(Value::from));
        if filter.no_group && filter.group_id.is_none() {
            sql.push_str(" AND group_id IS NULL");
        }
        if !filter.deleted {
            sql.push_str(" AND deleted_at IS NULL");
        }
        sql.push_str(" ORDER BY created_version, mapping_id");
        let rows = self.database.query(&sql, &values).await?;
        let mappings = rows.iter().map(mapping_of).collect::<Result<Vec<_>, _>>()?;
        // Here and not in SQL: the databases fold letters differently.
        let Some(wanted) = filter.description.as_ref().map(|text| text.to_lowercase()) else { return Ok(mappings) };
        let has =
            |mapping: &Mapping| mapping.description.as_ref().is_some_and(|own| own.to_lowercase().contains(&wanted));
        Ok(mappings.into_iter().filter(has).collect())
    }

    /// Changes a mapping: one that has begun can only get an end, which lies in the future. `false`: it is so already, and
    /// nothing is written.
    pub async fn update_mapping(&self, author: &str, id: &str, change: &MappingChange) -> Result<bool, BookError> {
        let now = self.now();
        if let Some(cost) = &change.cost {
            check_decimal("cost", cost, COST_PLACES)?;
        }
        check_description(change.description.as_deref())?;
        self.database
            .transact(|tx| {
                let (author, id, change) = (author.to_owned(), id.to_owned(), change.clone());
                Box::pin(async move {
                    let before = find(tx, &id).await?;
                    if before.deleted.is_some() {
                        return Err(no_mapping(&id));
                    }
                    let mut after = changed(&before, &change, now)?;
                    if after == before {
                        return Ok(false);
                    }
                    after.updated_by = Some(author.clone());
                    check_alone(tx, &after).await?;
                    let version = begin_change(tx, now, &author, &format!("mapping {id} changed")).await?;
                    replace(tx, &after, version).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Deletes a mapping: it counts no more under the rules from now on.
    pub async fn delete_mapping(&self, author: &str, id: &str) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id) = (author.to_owned(), id.to_owned());
                Box::pin(async move {
                    let mut mapping = find(tx, &id).await?;
                    if mapping.deleted.is_some() {
                        return Err(no_mapping(&id));
                    }
                    mapping.deleted = Some(now);
                    mapping.deleted_by = Some(author.clone());
                    let version = begin_change(tx, now, &author, &format!("mapping {id} removed")).await?;
                    replace(tx, &mapping, version).await
                })
            })
            .await
    }
}

fn check_description(text: Option<&str>) -> Result<(), BookError> {
    if text.is_some_and(|text| text.chars().count() > DESCRIPTION_CHARACTERS_MAX) {
        let reason = format!("the description is longer than {DESCRIPTION_CHARACTERS_MAX} characters");
        return Err(BookError::refused(reason));
    }
    Ok(())
}

/// What a mapping becomes, or why it may not.
fn changed(before: &Mapping, change: &MappingChange, now: Timestamp) -> Result<Mapping, BookError> {
    let mut after = before.clone();
    if before.start < now {
        let differs = |own: &Option<String>, new: &Option<String>| {
            new.as_ref().is_some_and(|new| !new.is_empty() && own.as_ref() != Some(new))
        };
        let is_other = change.cost.as_ref().is_some_and(|cost| *cost != before.cost)
            || change.start.is_some_and(|start| start != before.start)
            || change.kind.is_some_and(|kind| kind != before.kind)
            || differs(&before.description, &change.description)
            || differs(&before.value, &change.value)
            || differs(&before.service_id, &change.service_id)
            || differs(&before.field_id, &change.field_id)
            || differs(&before.group_id, &change.group_id)
            || differs(&before.tenant_id, &change.tenant_id)
            || differs(&Some(before.name.clone()), &change.name);
        if before.end.is_some() && !is_other && change.end == before.end {
            return Ok(after);
        }
        if before.end.is_some() {
            let reason = "Cannot update a rule that was already processed and has a defined end date.";
            return Err(BookError::refused(reason));
        }
        if is_other {
            return Err(BookError::refused(format!(
                "You are allowed to update only the attribute [end] as this rule is already running as it started on \
                 [{}]",
                before.start.naive().replace('T', " ")
            )));
        }
        if let Some(end) = change.end.filter(|end| *end < now) {
            let python = |time: Timestamp| time.naive().replace('T', " ");
            let (end, now) = (python(end), python(now));
            return Err(BookError::refused(format!(
                "End date must be in the future. end=[{end}] current time=[{now}]"
            )));
        }
        after.end = change.end;
        return Ok(after);
    }
    let start = change.start.unwrap_or(before.start);
    check_times(Some(start), change.end, now, false)?;
    after.start = start;
    after.end = change.end;
    after.description.clone_from(&change.description);
    if let Some(cost) = &change.cost {
        after.cost = cost.clone();
    }
    Ok(after)
}
