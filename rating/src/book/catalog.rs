//! Services, their fields, and groups: the names under which costs stand.

use orzo_database::{Row, Transaction};
use uuid::Uuid;

use super::{BookError, RatingBook, begin_change, check_name, or_none};

/// What is rated, by the name of its usage (`instance`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleService {
    /// Its id, a UUID.
    pub service_id: String,
    /// Its name, unique.
    pub name: String,
}

/// What a service's costs depend on (`flavor_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleField {
    /// Its id, a UUID.
    pub field_id: String,
    /// Whose.
    pub service_id: String,
    /// Its name, unique in the service.
    pub name: String,
}

/// Costs that are calculated together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleGroup {
    /// Its id, a UUID.
    pub group_id: String,
    /// Its name, unique.
    pub name: String,
}

const SERVICE: &str = "SELECT * FROM rating_services WHERE until_version IS NULL";
const FIELD: &str = "SELECT * FROM rating_fields WHERE until_version IS NULL";
const GROUP: &str = "SELECT * FROM rating_groups WHERE until_version IS NULL";

pub(super) fn service_of(row: &Row) -> RuleService {
    RuleService { service_id: row.string("service_id"), name: row.string("name") }
}

pub(super) fn field_of(row: &Row) -> RuleField {
    RuleField { field_id: row.string("field_id"), service_id: row.string("service_id"), name: row.string("name") }
}

pub(super) fn group_of(row: &Row) -> RuleGroup {
    RuleGroup { group_id: row.string("group_id"), name: row.string("name") }
}

fn no_service(name: Option<&str>, id: Option<&str>) -> BookError {
    BookError::NotFound { what: format!("No such service: {} (UUID: {})", or_none(name), or_none(id)) }
}

fn no_field(id: &str) -> BookError {
    BookError::NotFound { what: format!("No such field: {id}") }
}

fn no_group(id: &str) -> BookError {
    BookError::NotFound { what: format!("No such group: None (UUID: {id})") }
}

pub(super) async fn find_service(tx: &mut Transaction<'_>, id: &str) -> Result<RuleService, BookError> {
    let row = tx.query_one(&format!("{SERVICE} AND service_id = $1"), &[id.into()]).await?;
    row.as_ref().map(service_of).ok_or_else(|| no_service(None, Some(id)))
}

pub(super) async fn find_field(tx: &mut Transaction<'_>, id: &str) -> Result<RuleField, BookError> {
    let row = tx.query_one(&format!("{FIELD} AND field_id = $1"), &[id.into()]).await?;
    row.as_ref().map(field_of).ok_or_else(|| no_field(id))
}

pub(super) async fn find_group(tx: &mut Transaction<'_>, id: &str) -> Result<RuleGroup, BookError> {
    let row = tx.query_one(&format!("{GROUP} AND group_id = $1"), &[id.into()]).await?;
    row.as_ref().map(group_of).ok_or_else(|| no_group(id))
}

impl RatingBook {
    /// Makes a service.
    pub async fn create_service(&self, author: &str, name: &str) -> Result<RuleService, BookError> {
        check_name("name", name)?;
        let (now, id) = (self.now(), Uuid::new_v4().to_string());
        self.database
            .transact(|tx| {
                let (author, name, id) = (author.to_owned(), name.to_owned(), id.clone());
                Box::pin(async move {
                    let there = tx.query_one(&format!("{SERVICE} AND name = $1"), &[name.as_str().into()]).await?;
                    if let Some(row) = there {
                        let own = service_of(&row);
                        let what = format!("Service {} already exists (UUID: {})", own.name, own.service_id);
                        return Err(BookError::Exists { what });
                    }
                    let version = begin_change(tx, now, &author, &format!("service {name} made")).await?;
                    let sql = "INSERT INTO rating_services (service_id, name, created_version, since_version) \
                               VALUES ($1, $2, $3, $3)";
                    tx.execute(sql, &[id.as_str().into(), name.as_str().into(), version.into()]).await?;
                    Ok(RuleService { service_id: id, name })
                })
            })
            .await
    }

    /// All services, in the order in which they were made.
    pub async fn services(&self) -> Result<Vec<RuleService>, BookError> {
        let rows = self.database.query(&format!("{SERVICE} ORDER BY created_version, service_id"), &[]).await?;
        Ok(rows.iter().map(service_of).collect())
    }

    /// One service.
    pub async fn service(&self, id: &str) -> Result<RuleService, BookError> {
        let row = self.database.query_one(&format!("{SERVICE} AND service_id = $1"), &[id.into()]).await?;
        row.as_ref().map(service_of).ok_or_else(|| no_service(None, Some(id)))
    }

    /// Removes a service with its fields and all costs under them.
    pub async fn delete_service(&self, author: &str, id: &str) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id) = (author.to_owned(), id.to_owned());
                Box::pin(async move {
                    let service = find_service(tx, &id).await?;
                    let change = format!("service {} removed", service.name);
                    let version = begin_change(tx, now, &author, &change).await?;
                    let own = "(service_id = $2 OR field_id IN (SELECT field_id FROM rating_fields \
                               WHERE until_version IS NULL AND service_id = $2))";
                    for (table, which) in [
                        ("rating_mappings", own),
                        ("rating_thresholds", own),
                        ("rating_fields", "service_id = $2"),
                        ("rating_services", "service_id = $2"),
                    ] {
                        let sql =
                            format!("UPDATE {table} SET until_version = $1 WHERE until_version IS NULL AND {which}");
                        tx.execute(&sql, &[version.into(), id.as_str().into()]).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Makes a field of a service.
    pub async fn create_field(&self, author: &str, service_id: &str, name: &str) -> Result<RuleField, BookError> {
        check_name("name", name)?;
        let (now, id) = (self.now(), Uuid::new_v4().to_string());
        self.database
            .transact(|tx| {
                let (author, name, id, service_id) =
                    (author.to_owned(), name.to_owned(), id.clone(), service_id.to_owned());
                Box::pin(async move {
                    let service = find_service(tx, &service_id).await?;
                    let sql = format!("{FIELD} AND service_id = $1 AND name = $2");
                    let there = tx.query_one(&sql, &[service_id.as_str().into(), name.as_str().into()]).await?;
                    if let Some(row) = there {
                        let own = field_of(&row);
                        let what = format!("Field {} already exists (UUID: {})", own.name, own.field_id);
                        return Err(BookError::Exists { what });
                    }
                    let change = format!("field {name} of service {} made", service.name);
                    let version = begin_change(tx, now, &author, &change).await?;
                    let sql = "INSERT INTO rating_fields (field_id, service_id, name, created_version, since_version) \
                               VALUES ($1, $2, $3, $4, $4)";
                    let values = [id.as_str().into(), service_id.as_str().into(), name.as_str().into(), version.into()];
                    tx.execute(sql, &values).await?;
                    Ok(RuleField { field_id: id, service_id, name })
                })
            })
            .await
    }

    /// A service's fields, in the order in which they were made; none for a service that is not there.
    pub async fn fields(&self, service_id: &str) -> Result<Vec<RuleField>, BookError> {
        let sql = format!("{FIELD} AND service_id = $1 ORDER BY created_version, field_id");
        Ok(self.database.query(&sql, &[service_id.into()]).await?.iter().map(field_of).collect())
    }

    /// One field.
    pub async fn field(&self, id: &str) -> Result<RuleField, BookError> {
        let row = self.database.query_one(&format!("{FIELD} AND field_id = $1"), &[id.into()]).await?;
        row.as_ref().map(field_of).ok_or_else(|| no_field(id))
    }

    /// Removes a field with all costs under it.
    pub async fn delete_field(&self, author: &str, id: &str) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id) = (author.to_owned(), id.to_owned());
                Box::pin(async move {
                    let field = find_field(tx, &id).await?;
                    let version = begin_change(tx, now, &author, &format!("field {} removed", field.name)).await?;
                    for table in ["rating_mappings", "rating_thresholds", "rating_fields"] {
                        let sql = format!(
                            "UPDATE {table} SET until_version = $1 WHERE until_version IS NULL AND field_id = $2"
                        );
                        tx.execute(&sql, &[version.into(), id.as_str().into()]).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Makes a group.
    pub async fn create_group(&self, author: &str, name: &str) -> Result<RuleGroup, BookError> {
        check_name("name", name)?;
        let (now, id) = (self.now(), Uuid::new_v4().to_string());
        self.database
            .transact(|tx| {
                let (author, name, id) = (author.to_owned(), name.to_owned(), id.clone());
                Box::pin(async move {
                    let there = tx.query_one(&format!("{GROUP} AND name = $1"), &[name.as_str().into()]).await?;
                    if let Some(row) = there {
                        let own = group_of(&row);
                        let what = format!("Group {} already exists (UUID: {})", own.name, own.group_id);
                        return Err(BookError::Exists { what });
                    }
                    let version = begin_change(tx, now, &author, &format!("group {name} made")).await?;
                    let sql = "INSERT INTO rating_groups (group_id, name, created_version, since_version) \
                               VALUES ($1, $2, $3, $3)";
                    tx.execute(sql, &[id.as_str().into(), name.as_str().into(), version.into()]).await?;
                    Ok(RuleGroup { group_id: id, name })
                })
            })
            .await
    }

    /// All groups, in the order in which they were made.
    pub async fn groups(&self) -> Result<Vec<RuleGroup>, BookError> {
        let rows = self.database.query(&format!("{GROUP} ORDER BY created_version, group_id"), &[]).await?;
        Ok(rows.iter().map(group_of).collect())
    }

    /// One group.
    pub async fn group(&self, id: &str) -> Result<RuleGroup, BookError> {
        let row = self.database.query_one(&format!("{GROUP} AND group_id = $1"), &[id.into()]).await?;
        row.as_ref().map(group_of).ok_or_else(|| no_group(id))
    }

    /// Removes a group: with its costs (`is_recursive`), or leaving them without a group.
    pub async fn delete_group(&self, author: &str, id: &str, is_recursive: bool) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, id) = (author.to_owned(), id.to_owned());
                Box::pin(async move {
                    let group = find_group(tx, &id).await?;
                    let version = begin_change(tx, now, &author, &format!("group {} removed", group.name)).await?;
                    if !is_recursive {
                        super::mappings::ungroup(tx, &id, version).await?;
                        super::thresholds::ungroup(tx, &id, version).await?;
                    }
                    for table in ["rating_mappings", "rating_thresholds", "rating_groups"] {
                        let sql = format!(
                            "UPDATE {table} SET until_version = $1 WHERE until_version IS NULL AND group_id = $2"
                        );
                        tx.execute(&sql, &[version.into(), id.as_str().into()]).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
