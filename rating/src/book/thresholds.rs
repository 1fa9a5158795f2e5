//! Thresholds: a cost that counts from a level on, of a service's quantity or a field's value.

use bigdecimal::BigDecimal;
use orzo_database::{Row, Transaction, Value};
use uuid::Uuid;

use super::{
    BookError, COST_PLACES, LEVEL_PLACES, RatingBook, RuleGroup, begin_change,
    catalog::{find_group, group_of},
    check_decimal, check_parent, decimal_of, kind_of, kind_text, or_none,
};
use crate::Kind;

/// A threshold, as it stands in the book.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct Threshold {
    pub threshold_id: String,
    pub level: BigDecimal,
    pub cost: BigDecimal,
    pub kind: Kind,
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
}

/// A threshold to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct NewThreshold {
    pub level: BigDecimal,
    pub cost: BigDecimal,
    pub kind: Kind,
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
}

/// What a threshold becomes.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct ThresholdChange {
    pub level: BigDecimal,
    pub cost: BigDecimal,
    pub kind: Kind,
    /// `None` leaves it.
    pub group_id: Option<String>,
    pub tenant_id: Option<String>,
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names are CloudKitty's
pub struct ThresholdFilter {
    pub service_id: Option<String>,
    pub field_id: Option<String>,
    pub group_id: Option<String>,
    /// Only those without a group.
    pub no_group: bool,
    /// `Some(None)`: only those for everybody.
    pub tenant_id: Option<Option<String>>,
}

const CURRENT: &str = "SELECT * FROM rating_thresholds WHERE until_version IS NULL";

pub(super) fn threshold_of(row: &Row) -> Result<Threshold, BookError> {
    let id = "threshold_id";
    Ok(Threshold {
        threshold_id: row.string(id),
        level: decimal_of(row, id, "level")?,
        cost: decimal_of(row, id, "cost")?,
        kind: kind_of(row, id)?,
        service_id: row.text("service_id"),
        field_id: row.text("field_id"),
        group_id: row.text("group_id"),
        tenant_id: row.text("tenant_id"),
    })
}

async fn write(tx: &mut Transaction<'_>, threshold: &Threshold, made: i64, version: i64) -> Result<(), BookError> {
    let sql = "INSERT INTO rating_thresholds (threshold_id, level, cost, map_type, service_id, field_id, group_id, \
               tenant_id, created_version, since_version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let values: [Value; 10] = [
        threshold.threshold_id.as_str().into(),
        threshold.level.to_plain_string().into(),
        threshold.cost.to_plain_string().into(),
        kind_text(threshold.kind).into(),
        threshold.service_id.clone().into(),
        threshold.field_id.clone().into(),
        threshold.group_id.clone().into(),
        threshold.tenant_id.clone().into(),
        made.into(),
        version.into(),
    ];
    tx.execute(sql, &values).await?;
    Ok(())
}

async fn replace(tx: &mut Transaction<'_>, threshold: &Threshold, version: i64) -> Result<(), BookError> {
    let sql = "UPDATE rating_thresholds SET until_version = $1 WHERE until_version IS NULL AND threshold_id = $2 \
               RETURNING created_version";
    let row = tx.query_one(sql, &[version.into(), threshold.threshold_id.as_str().into()]).await?;
    let made = row.and_then(|row| row.int("created_version")).ok_or_else(|| no_threshold(&threshold.threshold_id))?;
    write(tx, threshold, made, version).await
}

/// Takes the thresholds of a group out of it.
pub(super) async fn ungroup(tx: &mut Transaction<'_>, group_id: &str, version: i64) -> Result<(), BookError> {
    for row in tx.query(&format!("{CURRENT} AND group_id = $1"), &[group_id.into()]).await? {
        let threshold = Threshold { group_id: None, ..threshold_of(&row)? };
        replace(tx, &threshold, version).await?;
    }
    Ok(())
}

fn no_threshold(id: &str) -> BookError {
    BookError::NotFound { what: format!("No such threshold: {id}") }
}

async fn find(tx: &mut Transaction<'_>, id: &str) -> Result<Threshold, BookError> {
    let row = tx.query_one(&format!("{CURRENT} AND threshold_id = $1"), &[id.into()]).await?;
    row.as_ref().map(threshold_of).transpose()?.ok_or_else(|| no_threshold(id))
}

/// Refuses a threshold at a level where there is another one for the same.
async fn check_alone(tx: &mut Transaction<'_>, threshold: &Threshold) -> Result<(), BookError> {
    let (parent, column, id) = match (&threshold.field_id, &threshold.service_id) {
        (Some(id), _) => ("field", "field_id", id.as_str()),
        (None, id) => ("service", "service_id", or_none(id.as_deref())),
    };
    let sql = format!(
        "{CURRENT} AND threshold_id <> $1 AND {column} = $2 AND coalesce(tenant_id, '') = $3 \
         AND coalesce(group_id, '') = $4"
    );
    let values = [
        threshold.threshold_id.as_str().into(),
        id.into(),
        threshold.tenant_id.as_deref().unwrap_or("").into(),
        threshold.group_id.as_deref().unwrap_or("").into(),
    ];
    for row in tx.query(&sql, &values).await? {
        if threshold_of(&row)?.level == threshold.level {
            let tenant = or_none(threshold.tenant_id.as_deref());
            let level = threshold.level.to_plain_string();
            let what = format!("Threshold '{level}' already exists for {parent} '{id}', tenant: '{tenant}'");
            return Err(BookError::Exists { what });
        }
    }
    Ok(())
}

impl RatingBook {
    /// Makes a threshold.
    pub async fn create_threshold(&self, author: &str, new: &NewThreshold) -> Result<Threshold, BookError> {
        check_decimal("cost", &new.cost, COST_PLACES)?;
        check_decimal("level", &new.level, LEVEL_PLACES)?;
        let now = self.now();
        let threshold = Threshold {
            threshold_id: Uuid::new_v4().to_string(),
            level: new.level.clone(),
            cost: new.cost.clone(),
            kind: new.kind,
            service_id: new.service_id.clone(),
            field_id: new.field_id.clone(),
            group_id: new.group_id.clone(),
            tenant_id: new.tenant_id.clone(),
        };
        self.database
            .transact(|tx| {
                let (threshold, author) = (threshold.clone(), author.to_owned());
                Box::pin(async move {
                    let (service, field) = (threshold.service_id.as_deref(), threshold.field_id.as_deref());
                    check_parent(tx, service, field, threshold.group_id.as_deref()).await?;
                    check_alone(tx, &threshold).await?;
                    let change = format!("threshold {} made", threshold.threshold_id);
                    let version = begin_change(tx, now, &author, &change).await?;
                    write(tx, &threshold, version, version).await?;
                    Ok(threshold)
                })
            })
            .await
    }

    /// One threshold.
    pub async fn threshold(&self, id: &str) -> Result<Threshold, BookError> {
        let row = self.database.query_one(&format!("{CURRENT} AND threshold_id = $1"), &[id.into()]).await?;
        row.as_ref().map(threshold_of).transpose()?.ok_or_else(|| no_threshold(id))
    }

    /// The group that a threshold is in.
    pub async fn group_of_threshold(&self, id: &str) -> Result<RuleGroup, BookError> {
        let sql = "SELECT g.* FROM rating_groups g JOIN rating_thresholds t ON t.group_id = g.group_id \
                   WHERE g.until_version IS NULL AND t.until_version IS NULL AND t.threshold_id = $1";
        let row = self.database.query_one(sql, &[id.into()]).await?;
        row.as_ref()
            .map(group_of)
            .ok_or_else(|| BookError::NotFound { what: format!("Threshold has no group (UUID: {id})") })
    }

    /// Thresholds, in the order in which they were made.
    pub async fn thresholds(&self, filter: &ThresholdFilter) -> Result<Vec<Threshold>, BookError> {
        if filter.service_id.is_none() && filter.field_id.is_none() && filter.group_id.is_none() {
            return Err(BookError::refused("You must specify either service_uuid, field_uuid or group_uuid."));
        }
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
        if filter.no_group && filter.group_id.is_none() {
            sql.push_str(" AND group_id IS NULL");
        }
        sql.push_str(" ORDER BY created_version, threshold_id");
        self.database.query(&sql, &values).await?.iter().map(threshold_of).collect()
    }

    /// Changes a threshold. `false`: it is so already, and nothing is written.
    pub async fn update_threshold(&self, author: &str, id: &str, change: &ThresholdChange) -> Result<bool, BookError> {
        check_decimal("cost", &change.cost, COST_PLACES)?;
        check_decimal("level", &change.level, LEVEL_PLACES)?;
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id, change) = (author.to_owned(), id.to_owned(), change.clone());
                Box::pin(async move {
                    let before = find(tx, &id).await?;
                    let mut threshold = before.clone();
                    if let Some(group) = &change.group_id {
                        find_group(tx, group).await?;
                        threshold.group_id = Some(group.clone());
                    }
                    threshold.level = change.level;
                    threshold.cost = change.cost;
                    threshold.kind = change.kind;
                    threshold.tenant_id = change.tenant_id;
                    if threshold == before {
                        return Ok(false);
                    }
                    check_alone(tx, &threshold).await?;
                    let version = begin_change(tx, now, &author, &format!("threshold {id} changed")).await?;
                    replace(tx, &threshold, version).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Removes a threshold.
    pub async fn delete_threshold(&self, author: &str, id: &str) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id) = (author.to_owned(), id.to_owned());
                Box::pin(async move {
                    find(tx, &id).await?;
                    let version = begin_change(tx, now, &author, &format!("threshold {id} removed")).await?;
                    let sql = "UPDATE rating_thresholds SET until_version = $1 \
                               WHERE until_version IS NULL AND threshold_id = $2";
                    tx.execute(sql, &[version.into(), id.as_str().into()]).await?;
                    Ok(())
                })
            })
            .await
    }
}
