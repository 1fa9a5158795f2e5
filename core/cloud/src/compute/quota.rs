//! What a project may have, and what it has.

use std::{collections::BTreeMap, sync::Arc};

use orzo_database::Transaction;
use serde_json::{Map, Value, json};

use super::{Compute, error::ComputeError, schedule::Amount};

/// Limits of one project; Nova's default ones. A negative limit is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Servers.
    pub instances: i64,
    /// vCPUs.
    pub cores: i64,
    /// MiB.
    pub ram_mib: i64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { instances: 10, cores: 20, ram_mib: 51_200 }
    }
}

/// What a project has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Servers.
    pub instances: i64,
    /// vCPUs.
    pub cores: i64,
    /// MiB.
    pub ram_mib: i64,
}

/// Names in Nova's bodies of what is limited here.
const RESOURCES: &[&str] = &["instances", "cores", "ram"];

impl Quotas {
    /// Whether `wanted` more servers fit; the message is Nova's.
    pub fn check(&self, usage: Usage, wanted: Amount, count: u32) -> Result<(), ComputeError> {
        let count = i64::from(count);
        let times = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(count);
        let requested = Usage { instances: count, cores: times(wanted.vcpus), ram_mib: times(wanted.memory_mib) };
        self.check_usage(usage, requested)
    }

    /// Whether a server that is there may have `wanted` beside what it has.
    pub fn check_resize(&self, usage: Usage, wanted: Amount) -> Result<(), ComputeError> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let requested = Usage { instances: 0, cores: signed(wanted.vcpus), ram_mib: signed(wanted.memory_mib) };
        self.check_usage(usage, requested)
    }

    fn check_usage(&self, usage: Usage, requested: Usage) -> Result<(), ComputeError> {
        let questions = [
            ("instances", requested.instances, usage.instances, self.instances),
            ("cores", requested.cores, usage.cores, self.cores),
            ("ram", requested.ram_mib, usage.ram_mib, self.ram_mib),
        ];
        for (name, requested, used, limit) in questions {
            // A limit that was lowered below what is used forbids only more of it.
            if limit >= 0 && requested > 0 && used.saturating_add(requested) > limit {
                return Err(ComputeError::forbidden(format!(
                    "Quota exceeded for {name}: Requested {requested}, but already used {used} of {limit} {name}"
                )));
            }
        }
        Ok(())
    }

    fn set(&mut self, resource: &str, maximum: i64) {
        match resource {
            "instances" => self.instances = maximum,
            "cores" => self.cores = maximum,
            "ram" => self.ram_mib = maximum,
            _ => {}
        }
    }

    fn get(&self, resource: &str) -> i64 {
        match resource {
            "instances" => self.instances,
            "cores" => self.cores,
            _ => self.ram_mib,
        }
    }

    /// Nova's quota set: what is not limited here is told as it is, not limited.
    pub fn to_json(self, project: &str) -> Value {
        let mut set = Map::new();
        set.insert("id".to_owned(), json!(project));
        for resource in RESOURCES {
            set.insert((*resource).to_owned(), json!(self.get(resource)));
        }
        for resource in ["metadata_items", "key_pairs", "server_groups", "server_group_members"] {
            set.insert(resource.to_owned(), json!(-1));
        }
        Value::Object(set)
    }

    /// With usage, as `/detail` shows it.
    pub fn to_detail(self, project: &str, usage: Usage) -> Value {
        let Value::Object(mut set) = self.to_json(project) else { unreachable!("to_json makes an object") };
        for (resource, value) in &mut set {
            let in_use = match resource.as_str() {
                "instances" => usage.instances,
                "cores" => usage.cores,
                "ram" => usage.ram_mib,
                "id" => continue,
                _ => 0,
            };
            *value = json!({"limit": value.clone(), "in_use": in_use, "reserved": 0});
        }
        Value::Object(set)
    }
}

const USAGE_SQL: &str = "SELECT count(*) AS instances, CAST(coalesce(sum(vcpus), 0) AS BIGINT) AS cores, \
     CAST(coalesce(sum(memory_mib), 0) AS BIGINT) AS ram FROM compute_servers \
     WHERE project_id = $1 AND deleted_at IS NULL";
const LIMITS_SQL: &str = "SELECT resource, maximum FROM compute_quotas WHERE project_id = $1";

/// Usage and limits as they are in this transaction.
pub(super) async fn usage_and_limits(
    tx: &mut Transaction<'_>,
    project: &str,
    mut limits: Quotas,
) -> Result<(Usage, Quotas), ComputeError> {
    let row = tx.query_one(USAGE_SQL, &[project.into()]).await?;
    let number = |name: &str| row.as_ref().and_then(|row| row.int(name)).unwrap_or(0);
    let usage = Usage { instances: number("instances"), cores: number("cores"), ram_mib: number("ram") };
    for row in tx.query(LIMITS_SQL, &[project.into()]).await? {
        limits.set(&row.string("resource"), row.int("maximum").unwrap_or(0));
    }
    Ok((usage, limits))
}

impl Compute {
    /// Usage and limits of a project.
    pub async fn quotas(&self, project: &str) -> Result<(Usage, Quotas), ComputeError> {
        let row = self.database.query_one(USAGE_SQL, &[project.into()]).await?;
        let number = |name: &str| row.as_ref().and_then(|row| row.int(name)).unwrap_or(0);
        let usage = Usage { instances: number("instances"), cores: number("cores"), ram_mib: number("ram") };
        let mut limits = self.settings.quotas;
        for row in self.database.query(LIMITS_SQL, &[project.into()]).await? {
            limits.set(&row.string("resource"), row.int("maximum").unwrap_or(0));
        }
        Ok((usage, limits))
    }

    /// Sets limits; the caller is an admin. Resources that are not limited here are accepted when they say so (-1).
    pub async fn set_quotas(self: &Arc<Self>, project: &str, body: &Value) -> Result<Quotas, ComputeError> {
        let set =
            body["quota_set"].as_object().ok_or_else(|| ComputeError::bad_request("The body has no \"quota_set\"."))?;
        let mut wanted = BTreeMap::new();
        for (name, value) in set {
            if matches!(name.as_str(), "tenant_id" | "force" | "id") {
                continue;
            }
            let number = value
                .as_i64()
                .or_else(|| value.as_str()?.parse().ok())
                .filter(|number| (-1..=i64::from(i32::MAX)).contains(number))
                .ok_or_else(|| ComputeError::bad_request(format!("Quota limit for {name:.40} must be -1 or more.")))?;
            match RESOURCES.iter().find(|known| *known == name) {
                Some(known) => drop(wanted.insert(*known, number)),
                None if number == -1 => {}
                None => return Err(ComputeError::bad_request(format!("Quota {name:.40} is not kept by this cloud."))),
            }
        }
        let project_id = project.to_owned();
        self.database
            .transact(move |tx| {
                let (project, wanted) = (project_id.clone(), wanted.clone());
                Box::pin(async move {
                    for (resource, maximum) in wanted {
                        tx.execute(
                            "INSERT INTO compute_quotas (project_id, resource, maximum) VALUES ($1, $2, $3) \
                             ON CONFLICT (project_id, resource) DO UPDATE SET maximum = excluded.maximum",
                            &[project.as_str().into(), resource.into(), maximum.into()],
                        )
                        .await?;
                    }
                    Ok::<_, ComputeError>(())
                })
            })
            .await?;
        Ok(self.quotas(project).await?.1)
    }

    /// Back to the defaults.
    pub async fn reset_quotas(&self, project: &str) -> Result<(), ComputeError> {
        self.database.execute("DELETE FROM compute_quotas WHERE project_id = $1", &[project.into()]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_can_be_taken_and_not_one_more() {
        let quotas = Quotas { instances: 3, cores: 4, ram_mib: -1 };
        let usage = Usage { instances: 2, cores: 2, ram_mib: 1 << 40 };
        let wanted = Amount { vcpus: 2, memory_mib: 1 << 30, disk_gib: 0 };
        assert!(quotas.check(usage, wanted, 1).is_ok());
        let error = quotas.check(usage, wanted, 2).expect_err("too many");
        assert_eq!(error.to_string(), "Quota exceeded for instances: Requested 2, but already used 2 of 3 instances");
        assert!(quotas.check(usage, Amount { vcpus: 3, ..wanted }, 1).is_err());
        let full = Usage { instances: 4, ..usage };
        assert!(quotas.check_resize(full, wanted).is_ok(), "a resize makes no server");
        assert!(quotas.check_resize(full, Amount { vcpus: 3, ..wanted }).is_err());
    }
}
