//! Versions of the rules: which there were, and what any of them says at any time.

use std::collections::HashMap as Names;

use orzo_database::{Row, Value};
use orzo_model::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::{
    BookError, Mapping, RatingBook, RuleDocument, Threshold,
    catalog::{field_of, group_of, service_of},
    documents::document_of,
    kind_text,
    mappings::mapping_of,
    thresholds::threshold_of,
};
use crate::HashMap;

/// A change of rules, which made a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleChange {
    /// The version that it made.
    pub version: u64,
    /// When.
    pub changed_at: Timestamp,
    /// By whom.
    pub changed_by: String,
    /// What, in words.
    pub change: String,
}

/// What one version of the rules says at one moment, and how long it says the same.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Which version.
    pub version: u64,
    /// The same holds from here on,
    pub valid_from: Timestamp,
    /// and until before here.
    pub valid_until: Timestamp,
    /// The hashmap, as [`HashMap::from_json`] reads it.
    pub document: Json,
    /// The hashmap.
    pub hashmap: HashMap,
    /// Rules of our own kinds, of all times: they say themselves when they hold.
    pub documents: Vec<RuleDocument>,
}

fn number(version: u64) -> Value {
    i64::try_from(version).unwrap_or(i64::MAX).into()
}

impl RatingBook {
    /// The newest version of the rules; zero before there were any.
    pub async fn rule_version(&self) -> Result<u64, BookError> {
        let sql = "SELECT coalesce(max(version), 0) AS version FROM rating_versions";
        let version = self.database.query_one(sql, &[]).await?.and_then(|row| row.int("version"));
        Ok(version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0))
    }

    /// The changes that made versions, the newest first, `limit` of them before version `before`.
    pub async fn rule_changes(&self, before: Option<u64>, limit: u32) -> Result<Vec<RuleChange>, BookError> {
        let sql = format!("SELECT * FROM rating_versions WHERE version < $1 ORDER BY version DESC LIMIT {limit}");
        let rows = self.database.query(&sql, &[number(before.unwrap_or(u64::MAX))]).await?;
        rows.iter()
            .map(|row| {
                Ok(RuleChange {
                    version: row.int("version").and_then(|version| u64::try_from(version).ok()).unwrap_or(0),
                    changed_at: super::time_of(row, "version", "changed_at")?,
                    changed_by: row.string("changed_by"),
                    change: row.string("change"),
                })
            })
            .collect()
    }

    /// What a version says at a moment.
    pub async fn rules_of(&self, version: u64, at: Timestamp) -> Result<RuleSet, BookError> {
        let services: Vec<_> = self.rows("rating_services", version).await?.iter().map(service_of).collect();
        let fields: Vec<_> = self.rows("rating_fields", version).await?.iter().map(field_of).collect();
        let groups: Names<String, String> = self
            .rows("rating_groups", version)
            .await?
            .iter()
            .map(group_of)
            .map(|group| (group.group_id, group.name))
            .collect();
        let mappings =
            self.rows("rating_mappings", version).await?.iter().map(mapping_of).collect::<Result<Vec<_>, _>>()?;
        let thresholds =
            self.rows("rating_thresholds", version).await?.iter().map(threshold_of).collect::<Result<Vec<_>, _>>()?;
        let documents =
            self.rows("rating_documents", version).await?.iter().map(document_of).collect::<Result<Vec<_>, _>>()?;
        let (valid_from, valid_until) = valid(&mappings, at);
        let active: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.is_active(at)).collect();
        let under = |service: Option<&str>, field: Option<&str>| {
            let is_own = |own_service: &Option<String>, own_field: &Option<String>| {
                own_service.as_deref() == service && own_field.as_deref() == field
            };
            let mappings = active.iter().filter(|own| is_own(&own.service_id, &own.field_id));
            let thresholds = thresholds.iter().filter(|own| is_own(&own.service_id, &own.field_id));
            (
                mappings.map(|own| mapping_entry(own, &groups)).collect::<Vec<_>>(),
                thresholds.map(|own| threshold_entry(own, &groups)).collect::<Vec<_>>(),
            )
        };
        let services: Vec<Json> = services
            .iter()
            .map(|service| {
                let (mappings, thresholds) = under(Some(&service.service_id), None);
                let own = fields.iter().filter(|field| field.service_id == service.service_id);
                let fields: Vec<Json> = own
                    .map(|field| {
                        let (mappings, thresholds) = under(None, Some(&field.field_id));
                        json!({"name": field.name, "mappings": mappings, "thresholds": thresholds})
                    })
                    .collect();
                json!({"name": service.name, "mappings": mappings, "thresholds": thresholds, "fields": fields})
            })
            .collect();
        let document = json!({"services": services});
        let hashmap = HashMap::from_json(&document)
            .map_err(|error| BookError::refused(format!("version {version} of the rules: {error}")))?;
        Ok(RuleSet { version, valid_from, valid_until, document, hashmap, documents })
    }

    async fn rows(&self, table: &str, version: u64) -> Result<Vec<Row>, BookError> {
        let sql = format!(
            "SELECT * FROM {table} WHERE since_version <= $1 AND (until_version IS NULL OR until_version > $1) \
             ORDER BY created_version"
        );
        Ok(self.database.query(&sql, &[number(version)]).await?)
    }
}

/// The stretch around a moment in which no mapping begins or ends.
fn valid(mappings: &[Mapping], at: Timestamp) -> (Timestamp, Timestamp) {
    let (mut from, mut until) = (Timestamp::MIN, Timestamp::MAX);
    for mapping in mappings.iter().filter(|mapping| mapping.deleted.is_none()) {
        for edge in std::iter::once(mapping.start).chain(mapping.end) {
            if edge <= at { from = from.max(edge) } else { until = until.min(edge) }
        }
    }
    (from, until)
}

fn entry(kind: &str, cost: String, group: Option<&String>, tenant: Option<&String>) -> Map<String, Json> {
    let mut entry = Map::from_iter([("type".to_owned(), json!(kind)), ("cost".to_owned(), json!(cost))]);
    if let Some(group) = group {
        entry.insert("group".to_owned(), json!(group));
    }
    if let Some(tenant) = tenant {
        entry.insert("tenant_id".to_owned(), json!(tenant));
    }
    entry
}

fn mapping_entry(mapping: &Mapping, groups: &Names<String, String>) -> Json {
    let group = mapping.group_id.as_ref().and_then(|id| groups.get(id));
    let tenant = mapping.tenant_id.as_ref();
    let mut entry = entry(kind_text(mapping.kind), mapping.cost.to_plain_string(), group, tenant);
    if let Some(value) = &mapping.value {
        entry.insert("value".to_owned(), json!(value));
    }
    Json::Object(entry)
}

fn threshold_entry(threshold: &Threshold, groups: &Names<String, String>) -> Json {
    let group = threshold.group_id.as_ref().and_then(|id| groups.get(id));
    let tenant = threshold.tenant_id.as_ref();
    let mut entry = entry(kind_text(threshold.kind), threshold.cost.to_plain_string(), group, tenant);
    entry.insert("level".to_owned(), json!(threshold.level.to_plain_string()));
    Json::Object(entry)
}
