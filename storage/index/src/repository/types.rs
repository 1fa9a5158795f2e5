//! Resource types.

use std::collections::{BTreeMap, HashMap};

use orzo_database::{Row, Transaction, Value};

use super::{
    policies::to_json,
    resources::{CURRENT, PAST, RESOURCE_COLUMNS, resource_of},
};
use crate::{Attribute, Index, IndexError, ResourceType, sql::transact};

/// An attribute added to a type that may have resources already.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedAttribute {
    /// What it is.
    pub attribute: Attribute,
    /// The value for resources that exist; needed if the attribute is required.
    pub fill: Option<serde_json::Value>,
}

impl Index {
    /// All resource types by name.
    pub async fn resource_types(&self) -> Result<Vec<ResourceType>, IndexError> {
        let rows = self.database.query("SELECT * FROM index_resource_types ORDER BY name", &[]).await?;
        rows.iter().map(type_of).collect()
    }

    /// One resource type.
    pub async fn resource_type(&self, name: &str) -> Result<ResourceType, IndexError> {
        let row = self.database.query_one("SELECT * FROM index_resource_types WHERE name = $1", &[name.into()]).await?;
        type_of(&row.ok_or_else(|| IndexError::not_found(format!("Resource type {name}")))?)
    }

    /// Keeps a new resource type.
    pub async fn create_resource_type(&self, kind: &ResourceType) -> Result<(), IndexError> {
        let values: [Value; 2] = [kind.name.as_str().into(), to_json(&kind.attributes)?.into()];
        let sql = "INSERT INTO index_resource_types (name, attributes) VALUES ($1, $2)";
        match self.database.execute(sql, &values).await {
            Err(error) if error.is_constraint() => {
                Err(IndexError::Exists { what: format!("Resource type {}", kind.name) })
            }
            outcome => Ok(outcome.map(|_| ())?),
        }
    }

    /// Adds and removes attributes. Adding a name that is there changes its limits (its type stays); resources that
    /// exist get the fill value, and lose what is removed, without a new revision.
    pub async fn update_resource_type(
        &self,
        name: &str,
        added: &BTreeMap<String, AddedAttribute>,
        removed: &[String],
    ) -> Result<ResourceType, IndexError> {
        let _change = self.change();
        let kind = transact!(self.database, |tx| {
            let row = tx.query_one("SELECT * FROM index_resource_types WHERE name = $1", &[name.into()]).await?;
            let mut kind = type_of(&row.ok_or_else(|| IndexError::not_found(format!("Resource type {name}")))?)?;
            if name == "generic" {
                return Err(IndexError::refused("Resource type generic can't be modified"));
            }
            for attribute in removed {
                if kind.attributes.remove(attribute).is_none() {
                    let reason = format!("can't remove a non-existent object '{attribute}'");
                    return Err(IndexError::invalid_input(reason, &["attributes", attribute]));
                }
            }
            let mut fills = Vec::new();
            for (attribute, addition) in added {
                let old = kind.attributes.insert(attribute.clone(), addition.attribute.clone());
                let was_there = old.is_some();
                if let Some(old) = old
                    && std::mem::discriminant(&old.kind) != std::mem::discriminant(&addition.attribute.kind)
                {
                    return Err(IndexError::refused(format!(
                        "Type update is not available yet. Changing {} to {} for attribute {attribute} of resource {name}",
                        old.kind.name(),
                        addition.attribute.kind.name()
                    )));
                }
                let fill = addition.fill.as_ref().map(|fill| addition.attribute.kind.check(fill)).transpose();
                let unusable = |reason: &str| {
                    IndexError::refused(format!(
                        "Invalid input: Option 'fill' of resource attribute {attribute} is invalid: {reason}"
                    ))
                };
                let fill = fill.map_err(|reason| unusable(&reason))?;
                if fill.is_none() && addition.attribute.required && !was_there {
                    return Err(unusable("must not be empty if required=True"));
                }
                if let Some(fill) = fill {
                    fills.push((attribute.clone(), fill));
                }
            }
            kind.check()?;
            if !removed.is_empty() || !fills.is_empty() {
                rewrite_attributes(tx, &kind, removed, &fills).await?;
            }
            tx.execute(
                "UPDATE index_resource_types SET attributes = $1 WHERE name = $2",
                &[to_json(&kind.attributes)?.into(), name.into()],
            )
            .await?;
            // What is remembered about resources of this type was hashed with its old attributes.
            super::advance(tx, "deletions", 1).await?;
            let deletions = super::counter(tx, "deletions").await?;
            Ok((kind, deletions))
        })?;
        self.saw_deletions(kind.1);
        Ok(kind.0)
    }

    /// Removes a type that no resource has.
    pub async fn delete_resource_type(&self, name: &str) -> Result<(), IndexError> {
        let in_use = || IndexError::InUse { what: format!("Resource type {name}") };
        if name == "generic" {
            return Err(in_use());
        }
        match self.database.execute("DELETE FROM index_resource_types WHERE name = $1", &[name.into()]).await {
            Err(error) if error.is_constraint() => Err(in_use()),
            Err(error) => Err(error.into()),
            Ok(0) => Err(IndexError::not_found(format!("Resource type {name}"))),
            Ok(_) => Ok(()),
        }
    }
}

/// Applies a type's change to its resources and their history: what is removed was never there, and a fill value is
/// what the attribute always was.
async fn rewrite_attributes(
    tx: &mut Transaction<'_>,
    kind: &ResourceType,
    removed: &[String],
    fills: &[(String, serde_json::Value)],
) -> Result<(), IndexError> {
    for name in removed {
        let sql = "DELETE FROM index_attributes WHERE name = $1 AND resource_id IN \
                   (SELECT id FROM index_resources WHERE type = $2)";
        tx.execute(sql, &[name.as_str().into(), kind.name.as_str().into()]).await?;
    }
    for (table, source) in [("index_resources", CURRENT), ("index_resource_history", PAST)] {
        let sql = format!("SELECT {RESOURCE_COLUMNS} FROM {source} r WHERE r.type = $1");
        let mut rows = Vec::new();
        for row in tx.query(&sql, &[kind.name.as_str().into()]).await? {
            let mut resource = resource_of(&row)?;
            let old = resource.attributes.clone();
            for name in removed {
                resource.attributes.remove(name);
            }
            for (name, fill) in fills {
                resource.attributes.entry(name.clone()).or_insert_with(|| fill.clone());
            }
            if resource.attributes == old {
                continue;
            }
            let revision = resource.revision;
            let mut values = vec![to_json(&resource.attributes)?.into(), resource.id.to_string().into()];
            let mut sql = format!("UPDATE {table} SET attributes = $1 WHERE id = $2");
            if table == "index_resource_history" {
                values.push(revision.into());
                sql.push_str(" AND revision = $3");
            }
            tx.execute(&sql, &values).await?;
            resource.attributes.retain(|name, _| !old.contains_key(name));
            rows.extend(super::attribute_rows(&resource, kind));
        }
        super::insert_rows(tx, "index_attributes", super::revisions::ATTRIBUTE_COLUMNS, rows).await?;
    }
    Ok(())
}

pub(crate) fn type_of(row: &Row) -> Result<ResourceType, IndexError> {
    let name = row.string("name");
    let attributes = serde_json::from_str(&row.string("attributes"))
        .map_err(|error| IndexError::damaged(format!("resource type `{name}`"), error))?;
    Ok(ResourceType { name, attributes })
}

/// All types, read within a transaction.
pub(crate) async fn read_types(tx: &mut Transaction<'_>) -> Result<HashMap<String, ResourceType>, IndexError> {
    let rows = tx.query("SELECT * FROM index_resource_types", &[]).await?;
    rows.iter().map(|row| type_of(row).map(|kind| (kind.name.clone(), kind))).collect()
}
