//! A new server: understand the request, find its parts, and claim a place for it.
//!
//! The claim (quota, host, row and notification) is one transaction; making disk and guest is the worker's.

use std::{collections::BTreeMap, sync::Arc};

use orzo_database::Transaction;
use rand::Rng;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Compute, Edit,
    error::ComputeError,
    flavor::Flavor,
    next_number, quota,
    schedule::{self, Amount, Host},
    server::{Fault, Server, TaskState, VmState, hostname_of},
};
use crate::image::{Asker, Image, ImageStatus};

/// Servers by one request at most.
const COUNT_MAX: u64 = 100;
/// Metadata items of a server at most (Nova's quota).
pub(super) const METADATA_MAX: usize = 128;
/// Tags of a server at most (Nova's `MAX_TAG_COUNT`).
const TAGS_MAX: usize = 50;

/// What a user asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct NewServer {
    /// Display name.
    pub name: String,
    /// Flavor id.
    pub flavor_id: String,
    /// Image id.
    pub image_id: String,
    /// With a network interface.
    pub networked: bool,
    /// The user's.
    pub metadata: BTreeMap<String, String>,
    /// The user's.
    pub tags: Vec<String>,
    /// Free text.
    pub description: Option<String>,
    /// How many at least and at most.
    pub counts: (u32, u32),
}

impl NewServer {
    /// Reads the body of `POST /servers`. What this cloud does not have is refused, not ignored.
    pub fn parse(body: &Value) -> Result<Self, ComputeError> {
        let given =
            body["server"].as_object().ok_or_else(|| ComputeError::bad_request("The body has no \"server\"."))?;
        let name = read_name(given.get("name"))?;
        for (key, what) in [
            ("key_name", "key pairs"),
            ("personality", "personality files"),
            ("user_data", "user data"),
            ("os:scheduler_hints", "scheduler hints"),
        ] {
            if given.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(ComputeError::bad_request(format!("This cloud has no {what} ({key}).")));
            }
        }
        check_security_groups(given.get("security_groups"))?;
        if given.get("config_drive").is_some_and(|value| value == true || value == "true") {
            return Err(ComputeError::bad_request("This cloud has no config drives."));
        }
        let image_id = image_ref(given)?;
        let flavor_id = reference(given.get("flavorRef"))
            .ok_or_else(|| ComputeError::bad_request("Invalid input for field/attribute flavorRef."))?;
        let zone = given.get("availability_zone").and_then(Value::as_str).unwrap_or(super::ZONE);
        if zone.split(':').next() != Some(super::ZONE) {
            return Err(ComputeError::bad_request("The requested availability zone is not available"));
        }
        Ok(Self {
            name,
            flavor_id,
            image_id,
            networked: networked(given.get("networks"))?,
            metadata: read_metadata(given.get("metadata"))?,
            tags: read_tags(given.get("tags"))?,
            description: given.get("description").and_then(Value::as_str).map(str::to_owned),
            counts: counts(given)?,
        })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Without networks there is nothing to guard; only the group that every project has, which clients name unasked.
fn check_security_groups(value: Option<&Value>) -> Result<(), ComputeError> {
    let harmless = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(groups)) => groups.iter().all(|group| group["name"] == "default"),
        Some(_) => false,
    };
    if harmless {
        return Ok(());
    }
    Err(ComputeError::bad_request("This cloud has no security groups (security_groups) but the empty one, default."))
}

/// A display name: 1 to 255 characters, no spaces around it.
pub(super) fn read_name(value: Option<&Value>) -> Result<String, ComputeError> {
    let name = value.and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(ComputeError::bad_request("Invalid input for field/attribute name."));
    }
    Ok(name.to_owned())
}

/// `imageRef`, or an image as the only local block device.
fn image_ref(given: &Map<String, Value>) -> Result<String, ComputeError> {
    for device in given.get("block_device_mapping_v2").and_then(Value::as_array).into_iter().flatten() {
        if device["source_type"] != "image" || device["destination_type"] != "local" {
            return Err(ComputeError::bad_request("This cloud has no volumes; boot from an image."));
        }
    }
    reference(given.get("imageRef")).ok_or_else(|| {
        ComputeError::bad_request("Invalid imageRef provided: this cloud has no volumes, so an image is needed.")
    })
}

/// An id, or the last part of a URL that ends with one.
pub(super) fn reference(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let last = text.rsplit('/').next().unwrap_or_default();
    if last.is_empty() { None } else { Some(last.to_owned()) }
}

/// `"none"` → no interface; `"auto"`, nothing or an empty list → one.
fn networked(value: Option<&Value>) -> Result<bool, ComputeError> {
    match value {
        None | Some(Value::Null) => Ok(true),
        Some(Value::String(word)) if word == "none" => Ok(false),
        Some(Value::String(word)) if word == "auto" => Ok(true),
        Some(Value::Array(list)) if list.is_empty() => Ok(true),
        _ => Err(ComputeError::bad_request("This cloud has no networks to choose from: use \"auto\" or \"none\".")),
    }
}

pub(super) fn read_metadata(value: Option<&Value>) -> Result<BTreeMap<String, String>, ComputeError> {
    let map = match value {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(ComputeError::bad_request("Invalid input for field/attribute metadata.")),
    };
    if map.len() > METADATA_MAX {
        return Err(ComputeError::forbidden("Maximum number of metadata items exceeds 128."));
    }
    map.iter()
        .map(|(key, value)| {
            let value = value.as_str().filter(|text| text.chars().count() <= 255);
            let fits = !key.is_empty() && key.chars().count() <= 255;
            value.filter(|_| fits).map(|value| (key.clone(), value.to_owned())).ok_or_else(|| {
                ComputeError::bad_request("Invalid input for field/attribute metadata: texts of up to 255 characters.")
            })
        })
        .collect()
}

fn read_tags(value: Option<&Value>) -> Result<Vec<String>, ComputeError> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= TAGS_MAX => list,
        Some(_) => return Err(ComputeError::bad_request("Invalid input for field/attribute tags.")),
    };
    list.iter()
        .map(|tag| {
            tag.as_str()
                .filter(|tag| (1..=60).contains(&tag.chars().count()) && !tag.contains(['/', ',']))
                .map(str::to_owned)
                .ok_or_else(|| ComputeError::bad_request("Invalid input for field/attribute tags."))
        })
        .collect()
}

fn counts(given: &Map<String, Value>) -> Result<(u32, u32), ComputeError> {
    let number = |name: &str| match given.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .or_else(|| value.as_str()?.parse().ok())
            .filter(|count| (1..=COUNT_MAX).contains(count))
            .and_then(|count| u32::try_from(count).ok())
            .map(Some)
            .ok_or_else(|| ComputeError::bad_request(format!("Invalid input for field/attribute {name}."))),
    };
    let least = number("min_count")?;
    let most = number("max_count")?.or(least).unwrap_or(1);
    let least = least.unwrap_or(1);
    if least > most {
        return Err(ComputeError::bad_request("min_count must be <= max_count"));
    }
    Ok((least, most))
}

/// Whether a server of this flavor can be made from this image.
fn check_fit(flavor: &Flavor, image: &Image) -> Result<(), ComputeError> {
    if image.status != ImageStatus::Active {
        return Err(ComputeError::bad_request(format!("Image {} is not active.", image.id)));
    }
    if image.disk_format.as_deref() == Some("iso") {
        return Err(ComputeError::bad_request("This cloud boots from raw and qcow2 images, not from iso."));
    }
    if i128::from(flavor.memory_mib) < i128::from(image.min_ram) {
        return Err(ComputeError::bad_request("Flavor's memory is too small for requested image."));
    }
    // A root disk of 0 GiB means: as large as the image.
    if flavor.disk_gib > 0 {
        let bytes = i128::from(flavor.disk_gib) << 30;
        if i128::from(image.virtual_size.unwrap_or(0)) > bytes
            || i128::from(flavor.disk_gib) < i128::from(image.min_disk)
        {
            return Err(ComputeError::bad_request("Flavor's disk is too small for requested image."));
        }
    }
    Ok(())
}

impl Compute {
    /// Makes servers: their rows are there when this returns, their guests soon after. If no host can take one, it is
    /// there in state error, as in Nova.
    pub async fn create_servers(self: &Arc<Self>, asker: &Asker, new: NewServer) -> Result<Vec<Server>, ComputeError> {
        check_member(asker)?;
        let project_id = asker
            .caller
            .project_id
            .clone()
            .ok_or_else(|| ComputeError::forbidden("A server belongs to a project, and the token has none."))?;
        let flavor = self.flavor(&asker.caller, &new.flavor_id).await.map_err(|error| match error {
            // In a body it is the request that is wrong, not the address.
            ComputeError::Refused { message, .. } => ComputeError::bad_request(message),
            other => other,
        })?;
        let image = self.images.get(&asker.caller, &new.image_id).await.map_err(|error| match error.status() {
            axum::http::StatusCode::NOT_FOUND => ComputeError::bad_request(format!(
                "Invalid imageRef provided: image {:.64} could not be found.",
                new.image_id
            )),
            _ => ComputeError::Image(error),
        })?;
        check_fit(&flavor, &image)?;

        let now = self.clock.now();
        let draft = Server {
            id: Uuid::nil(),
            number: 0,
            name: new.name.clone(),
            hostname: String::new(),
            description: new.description.clone(),
            project_id,
            project_name: asker.caller.project_name.clone().unwrap_or_default(),
            user_id: asker.caller.user_id.clone(),
            user_name: asker.caller.user_name.clone(),
            flavor,
            resize: None,
            image_id: Uuid::try_parse(&image.id).ok(),
            image_meta: image_meta(&image),
            host: None,
            vm_state: VmState::Building,
            task_state: None,
            power_state: 0,
            metadata: new.metadata.clone(),
            tags: new.tags.clone(),
            mac: None,
            reservation_id: reservation_id(),
            launch_index: 0,
            request_id: asker.request_id.clone(),
            created_at: now,
            updated_at: now,
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            fault: None,
        };
        let (this, who) = (self.clone(), asker.clone());
        let _turn = self.claiming.lock().await;
        let servers = self
            .database
            .transact(move |tx| {
                let (this, asker, new, draft) = (this.clone(), who.clone(), new.clone(), draft.clone());
                Box::pin(async move { this.claim(tx, &asker, &new, draft).await })
            })
            .await?;
        self.outbox.wake();
        self.woken.notify_one();
        Ok(servers)
    }

    /// Quota, hosts, rows and notifications, all in this transaction.
    async fn claim(
        &self,
        tx: &mut Transaction<'_>,
        asker: &Asker,
        new: &NewServer,
        draft: Server,
    ) -> Result<Vec<Server>, ComputeError> {
        let wanted = draft.amount();
        let (usage, limits) = quota::usage_and_limits(tx, &draft.project_id, self.settings.quotas).await?;
        let (least, most) = new.counts;
        // As many as the quota allows, but at least what was asked for.
        let count = (least..=most).rev().find(|count| limits.check(usage, wanted, *count).is_ok());
        let count = match count {
            Some(count) => count,
            None => return limits.check(usage, wanted, least).map(|()| Vec::new()),
        };
        let mut hosts = hosts(tx).await?;
        let mut servers = Vec::new();
        for index in 0..count {
            let mut server = draft.clone();
            server.id = Uuid::new_v4();
            server.number = next_number(tx, "server").await?;
            server.launch_index = i64::from(index);
            if count > 1 {
                server.name = format!("{}-{}", draft.name, index + 1);
            }
            server.hostname = hostname_of(&server.name, server.id);
            server.mac = new.networked.then(random_mac);
            let place = schedule::choose(&hosts, wanted, self.settings.ratios).map(|host| host.name.clone());
            let mut edit = Edit::by(asker);
            match place {
                Ok(name) => {
                    if let Some(host) = hosts.iter_mut().find(|host| host.name == name) {
                        host.used = host.used.plus(wanted);
                    }
                    server.host = Some(name);
                    server.task_state = Some(TaskState::Spawning);
                    edit = edit.note("create.start", json!({"image_name": image_name(&server)}));
                }
                Err(rejections) => {
                    tracing::info!(server = %server.id, ?rejections, "no host can take the server");
                    let message = "No valid host was found. There are not enough hosts available.";
                    server.vm_state = VmState::Error;
                    server.fault =
                        Some(Fault { code: 500, message: message.to_owned(), created_at: server.created_at });
                    edit = edit.error(
                        "create.error",
                        json!({"message": message, "code": 500,
                        "exception": {"kwargs": {"reason": message}}}),
                    );
                }
            }
            server.insert(tx).await?;
            self.tell(tx, server.created_at, None, &server, edit).await?;
            servers.push(server);
        }
        Ok(servers)
    }
}

/// Readers look only.
pub(super) fn check_member(asker: &Asker) -> Result<(), ComputeError> {
    let caller = &asker.caller;
    if caller.is_admin() || caller.has_role("member") || caller.has_role("manager") {
        return Ok(());
    }
    Err(ComputeError::policy("os_compute_api:servers"))
}

/// All hosts with what is claimed on them.
pub(super) async fn hosts(tx: &mut Transaction<'_>) -> Result<Vec<Host>, ComputeError> {
    let rows = tx
        .query(
            "SELECT n.hostname, n.vcpus, n.memory_mib, n.disk_gib, n.enabled, \
             CAST(coalesce(sum(s.vcpus), 0) AS BIGINT) AS used_vcpus, \
             CAST(coalesce(sum(s.memory_mib), 0) AS BIGINT) AS used_memory_mib, \
             CAST(coalesce(sum(s.disk_gib), 0) AS BIGINT) AS used_disk_gib \
             FROM compute_nodes n LEFT JOIN compute_servers s ON s.host = n.hostname AND s.deleted_at IS NULL \
             GROUP BY n.hostname, n.vcpus, n.memory_mib, n.disk_gib, n.enabled ORDER BY n.hostname",
            &[],
        )
        .await?;
    let number = |row: &orzo_database::Row, name: &str| row.int(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    Ok(rows
        .iter()
        .map(|row| Host {
            name: row.string("hostname"),
            enabled: row.flag("enabled"),
            total: Amount {
                vcpus: number(row, "vcpus"),
                memory_mib: number(row, "memory_mib"),
                disk_gib: number(row, "disk_gib"),
            },
            used: Amount {
                vcpus: number(row, "used_vcpus"),
                memory_mib: number(row, "used_memory_mib"),
                disk_gib: number(row, "used_disk_gib"),
            },
        })
        .collect())
}

/// What Nova keeps of an image (`image_*` system metadata without the prefix).
fn image_meta(image: &Image) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::from([
        ("base_image_ref".to_owned(), image.id.clone()),
        ("min_ram".to_owned(), image.min_ram.to_string()),
        ("min_disk".to_owned(), image.min_disk.to_string()),
    ]);
    for (key, value) in [
        ("image_name", &image.name),
        ("disk_format", &image.disk_format),
        ("container_format", &image.container_format),
    ] {
        if let Some(value) = value {
            meta.insert(key.to_owned(), value.clone());
        }
    }
    meta
}

pub(super) fn image_name(server: &Server) -> Option<&String> {
    server.image_meta.get("image_name")
}

/// `r-` and eight letters or digits, as Nova makes them.
fn reservation_id() -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    let letters: String = (0..8).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("r-{letters}")
}

/// OpenStack's prefix and three random bytes.
fn random_mac() -> String {
    let bytes: [u8; 3] = rand::rng().random();
    format!("fa:16:3e:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(server: Value) -> Result<NewServer, String> {
        NewServer::parse(&json!({"server": server})).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_are_read_as_clients_write_them() {
        let plain = json!({"name": " a ", "flavorRef": "http://h/flavors/1", "imageRef": "i", "networks": "none",
            "min_count": 1, "max_count": "3", "metadata": {"k": "v"}});
        let new = parse(plain).expect("fine");
        assert_eq!((new.name.as_str(), new.flavor_id.as_str(), new.networked, new.counts), ("a", "1", false, (1, 3)));
        let auto = json!({"name": "a", "flavorRef": 1, "imageRef": "i", "networks": "auto",
            "block_device_mapping_v2": [{"uuid": "i", "boot_index": 0, "source_type": "image",
                "destination_type": "local", "delete_on_termination": true}]});
        assert!(parse(auto).expect("fine").networked);
    }

    #[test]
    fn what_this_cloud_does_not_have_is_refused() {
        let base = json!({"name": "a", "flavorRef": "1", "imageRef": "i"});
        for (key, value) in [
            ("networks", json!([{"uuid": "n"}])),
            ("key_name", json!("k")),
            ("user_data", json!("IyEvYmluL3No")),
            ("security_groups", json!([{"name": "default"}, {"name": "web"}])),
            ("security_groups", json!("web")),
            ("imageRef", json!("")),
            ("name", json!("  ")),
            ("min_count", json!(0)),
            ("max_count", json!(1000)),
            ("metadata", json!({"k": 1})),
            ("availability_zone", json!("elsewhere")),
            ("block_device_mapping_v2", json!([{"source_type": "volume", "destination_type": "volume"}])),
        ] {
            let mut server = base.clone();
            server[key] = value;
            assert!(parse(server).is_err(), "{key}");
        }
        for groups in [json!([]), json!([{"name": "default"}]), Value::Null] {
            let mut server = base.clone();
            server["security_groups"] = groups;
            assert!(parse(server).is_ok());
        }
        assert!(parse(base).is_ok());
    }
}
