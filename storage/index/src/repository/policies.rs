//! Archive policies and the rules that choose one by a metric's name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use orzo_database::{Row, Transaction, Value};

use crate::{
    ArchivePolicy, ArchivePolicyRule, Index, IndexError, PolicyItem,
    policy::{match_rule, sort_rules},
    repository::{advance, metrics::known::PolicyRow},
    sql::{Sql, transact},
};

/// What may change beyond timespans when a policy is rebuilt.
#[derive(Clone, Debug, Default)]
pub struct Rebuild {
    /// The new methods; `None`: as they are.
    pub aggregation_methods: Option<Vec<String>>,
}

impl Index {
    /// All archive policies by name.
    pub async fn archive_policies(&self) -> Result<Vec<ArchivePolicy>, IndexError> {
        let rows = self.database.query("SELECT * FROM index_archive_policies ORDER BY name", &[]).await?;
        rows.iter().map(|row| self.policy_of(row)).collect()
    }

    /// One archive policy.
    pub async fn archive_policy(&self, name: &str) -> Result<ArchivePolicy, IndexError> {
        let row =
            self.database.query_one("SELECT * FROM index_archive_policies WHERE name = $1", &[name.into()]).await?;
        let row = row.ok_or_else(|| IndexError::not_found(format!("Archive policy {name}")))?;
        self.policy_of(&row)
    }

    /// Keeps a new archive policy.
    pub async fn create_archive_policy(&self, policy: &ArchivePolicy) -> Result<(), IndexError> {
        let definition = to_json(&policy.definition)?;
        let methods = to_json(&policy.given_methods)?;
        let values = [policy.name.as_str().into(), policy.back_window.into(), definition.into(), methods.into()];
        let sql = "INSERT INTO index_archive_policies (name, back_window, definition, aggregation_methods) \
                   VALUES ($1, $2, $3, $4)";
        match self.database.execute(sql, &values).await {
            Err(error) if error.is_constraint() => {
                Err(IndexError::Exists { what: format!("Archive policy {}", policy.name) })
            }
            outcome => Ok(outcome.map(|_| ())?),
        }
    }

    /// Changes timespans and the back window; granularities stay, unless the policy is rebuilt.
    pub async fn update_archive_policy(
        &self,
        name: &str,
        definition: Vec<PolicyItem>,
        back_window: Option<u32>,
        rebuild: Option<Rebuild>,
    ) -> Result<ArchivePolicy, IndexError> {
        let policy = transact!(self.database, |tx| {
            let row = tx.query_one("SELECT * FROM index_archive_policies WHERE name = $1", &[name.into()]).await?;
            let row = row.ok_or_else(|| IndexError::not_found(format!("Archive policy {name}")))?;
            let old = self.policy_of(&row)?;
            let window = back_window.unwrap_or(old.back_window);
            let new = match &rebuild {
                None => old.with_definition(definition.clone(), window)?,
                Some(rebuild) => {
                    let defaults = &self.settings.default_aggregation_methods;
                    old.rebuilt(definition.clone(), window, rebuild.aggregation_methods.clone(), defaults)?
                }
            };
            tx.execute(
                "UPDATE index_archive_policies SET definition = $1, back_window = $2, aggregation_methods = $3 \
                 WHERE name = $4",
                &[
                    to_json(&new.definition)?.into(),
                    new.back_window.into(),
                    to_json(&new.given_methods)?.into(),
                    name.into(),
                ],
            )
            .await?;
            // Metrics that are remembered carry the old one.
            advance(tx, "deletions", 1).await?;
            Ok(new)
        })?;
        self.count_deletions_again();
        Ok(policy)
    }

    /// Removes an archive policy that nothing uses.
    pub async fn delete_archive_policy(&self, name: &str) -> Result<(), IndexError> {
        match self.database.execute("DELETE FROM index_archive_policies WHERE name = $1", &[name.into()]).await {
            Err(error) if error.is_constraint() => Err(IndexError::InUse { what: format!("Archive policy {name}") }),
            Err(error) => Err(error.into()),
            Ok(0) => Err(IndexError::not_found(format!("Archive policy {name}"))),
            Ok(_) => Ok(()),
        }
    }

    /// All rules in the order in which they are tried.
    pub async fn archive_policy_rules(&self) -> Result<Vec<ArchivePolicyRule>, IndexError> {
        let rows = self.database.query("SELECT * FROM index_archive_policy_rules", &[]).await?;
        Ok(rules_of(&rows))
    }

    /// One rule.
    pub async fn archive_policy_rule(&self, name: &str) -> Result<ArchivePolicyRule, IndexError> {
        let sql = "SELECT * FROM index_archive_policy_rules WHERE name = $1";
        let rows = self.database.query(sql, &[name.into()]).await?;
        rules_of(&rows).pop().ok_or_else(|| IndexError::not_found(format!("Archive policy rule {name}")))
    }

    /// Keeps a new rule.
    pub async fn create_archive_policy_rule(&self, rule: &ArchivePolicyRule) -> Result<(), IndexError> {
        transact!(self.database, |tx| {
            let taken = "SELECT name FROM index_archive_policy_rules WHERE name = $1";
            if tx.query_one(taken, &[rule.name.as_str().into()]).await?.is_some() {
                return Err(IndexError::Exists { what: format!("Archive policy rule {}", rule.name) });
            }
            let policy = "SELECT name FROM index_archive_policies WHERE name = $1";
            if tx.query_one(policy, &[rule.archive_policy_name.as_str().into()]).await?.is_none() {
                return Err(IndexError::Invalid {
                    cause: "Archive policy does not exist".into(),
                    reason: String::new(),
                    detail: rule.archive_policy_name.as_str().into(),
                });
            }
            let values: [Value; 3] =
                [rule.name.as_str(), rule.metric_pattern.as_str(), rule.archive_policy_name.as_str()].map(Value::from);
            let sql = "INSERT INTO index_archive_policy_rules (name, metric_pattern, archive_policy_name) \
                       VALUES ($1, $2, $3)";
            tx.execute(sql, &values).await?;
            Ok(())
        })
    }

    /// Gives a rule another name.
    pub async fn rename_archive_policy_rule(
        &self,
        name: &str,
        new_name: &str,
    ) -> Result<ArchivePolicyRule, IndexError> {
        let sql = "UPDATE index_archive_policy_rules SET name = $1 WHERE name = $2";
        match self.database.execute(sql, &[new_name.into(), name.into()]).await {
            Err(error) if error.is_constraint() => Err(IndexError::refused(format!(
                "Archive policy rule {name} does not support change: Archive policy rule {new_name} already exists."
            ))),
            Err(error) => Err(error.into()),
            Ok(0) => Err(IndexError::not_found(format!("Archive policy rule {name}"))),
            Ok(_) => self.archive_policy_rule(new_name).await,
        }
    }

    /// Removes a rule.
    pub async fn delete_archive_policy_rule(&self, name: &str) -> Result<(), IndexError> {
        let sql = "DELETE FROM index_archive_policy_rules WHERE name = $1";
        match self.database.execute(sql, &[name.into()]).await? {
            0 => Err(IndexError::not_found(format!("Archive policy rule {name}"))),
            _ => Ok(()),
        }
    }

    /// The policy that the rules choose for a metric of this name, if any rule matches.
    pub async fn policy_for_metric(&self, metric_name: &str) -> Result<ArchivePolicy, IndexError> {
        let rules = self.archive_policy_rules().await?;
        match match_rule(&rules, metric_name) {
            Some(rule) => self.archive_policy(&rule.archive_policy_name).await,
            None => Err(no_policy(metric_name)),
        }
    }

    /// Policies by their names, which may stand there many times.
    pub(crate) async fn policies_named(
        &self,
        names: impl Iterator<Item = &str>,
    ) -> Result<HashMap<String, Arc<ArchivePolicy>>, IndexError> {
        let names: HashSet<&str> = names.collect();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let mut sql = Sql::new("SELECT * FROM index_archive_policies WHERE name IN ");
        sql.push_texts(self.is_sqlite(), names.into_iter().map(str::to_owned));
        let rows = self.database.query(&sql.text, &sql.values).await?;
        rows.iter().map(|row| Ok((row.string("name"), self.known_policy_of(row)?))).collect()
    }

    /// The policy of a row, from memory if it was read before.
    pub(crate) fn known_policy_of(&self, row: &Row) -> Result<Arc<ArchivePolicy>, IndexError> {
        let row = PolicyRow {
            name: row.string("name"),
            back_window: row.int("back_window"),
            definition: row.string("definition"),
            methods: row.string("aggregation_methods"),
        };
        self.metrics_known.policy(row, |row| {
            let damaged = |reason: String| IndexError::damaged(format!("archive policy `{}`", row.name), reason);
            let definition = serde_json::from_str(&row.definition).map_err(|e| damaged(e.to_string()))?;
            let methods = serde_json::from_str(&row.methods).map_err(|e| damaged(e.to_string()))?;
            let back_window = u32::try_from(row.back_window.unwrap_or(0)).unwrap_or(0);
            let defaults = &self.settings.default_aggregation_methods;
            ArchivePolicy::new(&row.name, back_window, definition, Some(methods), defaults)
                .map_err(|error| damaged(error.to_string()))
        })
    }

    pub(crate) fn policy_of(&self, row: &Row) -> Result<ArchivePolicy, IndexError> {
        Ok((*self.known_policy_of(row)?).clone())
    }
}

pub(crate) fn no_policy_named(name: &str) -> IndexError {
    IndexError::refused(format!("Archive policy {name} does not exist"))
}

/// Names of all policies, and the rules in order: what choosing a policy needs, read within a transaction.
pub(crate) struct PolicyChoice {
    names: Vec<String>,
    rules: Vec<ArchivePolicyRule>,
    chosen: HashMap<String, String>,
}

impl PolicyChoice {
    pub(crate) async fn read(transaction: &mut Transaction<'_>) -> Result<Self, IndexError> {
        let rows = transaction.query("SELECT name FROM index_archive_policies ORDER BY name", &[]).await?;
        let names = rows.iter().map(|row| row.string("name")).collect();
        let rules = rules_of(&transaction.query("SELECT * FROM index_archive_policy_rules", &[]).await?);
        Ok(Self { names, rules, chosen: HashMap::new() })
    }

    /// The policy asked for, or the one that the rules choose. Errors are Gnocchi's.
    pub(crate) fn strict(&self, asked: Option<&str>, metric_name: Option<&str>) -> Result<String, IndexError> {
        match asked {
            Some(asked) if self.names.iter().any(|name| name == asked) => Ok(asked.to_owned()),
            Some(asked) => Err(no_policy_named(asked)),
            None => {
                let name = metric_name.unwrap_or_default();
                match_rule(&self.rules, name)
                    .map(|rule| rule.archive_policy_name.clone())
                    .ok_or_else(|| no_policy(name))
            }
        }
    }

    /// For samples: a policy that is named but missing falls back to the rules, and these to the first policy there
    /// is, so that a sample is not lost over its policy.
    pub(crate) fn lenient(&mut self, asked: Option<&str>, metric_name: &str) -> Result<String, IndexError> {
        if let Some(chosen) = self.chosen.get(metric_name)
            && asked.is_none()
        {
            return Ok(chosen.clone());
        }
        let known = asked.filter(|asked| self.names.iter().any(|name| name == asked));
        if let Ok(policy) = self.strict(known, Some(metric_name)) {
            if asked.is_none() {
                self.chosen.insert(metric_name.to_owned(), policy.clone());
            }
            return Ok(policy);
        }
        self.names.first().cloned().ok_or_else(|| no_policy(metric_name))
    }
}

fn no_policy(metric_name: &str) -> IndexError {
    IndexError::refused(format!(
        "No archive policy name specified and no archive policy rule found matching the metric name {metric_name}"
    ))
}

fn rules_of(rows: &[Row]) -> Vec<ArchivePolicyRule> {
    let mut rules: Vec<ArchivePolicyRule> = rows
        .iter()
        .map(|row| ArchivePolicyRule {
            name: row.string("name"),
            metric_pattern: row.string("metric_pattern"),
            archive_policy_name: row.string("archive_policy_name"),
        })
        .collect();
    sort_rules(&mut rules);
    rules
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, IndexError> {
    serde_json::to_string(value).map_err(|error| IndexError::damaged("a value to be written", error))
}
