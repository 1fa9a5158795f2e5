//! What samples say of their resource, with the keys of Ceilometer's instance metadata. Made once per guest and poll,
//! shared by its samples.

use std::{collections::BTreeMap, sync::Arc};

use orzo_hypervisor::{GuestStats, NovaMetadata, PowerState};
use orzo_model::sample::Metadata;
use serde_json::{Value, json};
use sha2::{Digest, Sha224};

/// The metadata of a guest and of its parts, in the order of its disks and interfaces.
pub(super) struct GuestMetadata {
    pub(super) guest: Metadata,
    /// With `cpu_number`, which the collector needs to derive `cpu_util`.
    pub(super) cpu: Metadata,
    pub(super) disks: Vec<Metadata>,
    pub(super) nics: Vec<Metadata>,
}

impl GuestMetadata {
    pub(super) fn new(guest: &GuestStats, host: &str) -> Self {
        let base = base(guest, host);
        let with = |more: Vec<(&str, Value)>| {
            let mut metadata = base.clone();
            metadata.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
            Arc::new(metadata)
        };
        let disks = guest.disks.iter().map(|disk| with(vec![("disk_name", json!(disk.device))])).collect();
        let nics = guest
            .nics
            .iter()
            .map(|nic| {
                with(vec![
                    ("name", json!(nic.name)),
                    ("mac", json!(nic.mac)),
                    ("fref", json!(nic.fref)),
                    ("parameters", json!(nic.parameters)),
                    ("vnic_name", json!(nic.name)),
                ])
            })
            .collect();
        Self { cpu: with(vec![("cpu_number", json!(guest.vcpus))]), disks, nics, guest: Arc::new(base) }
    }
}

fn base(guest: &GuestStats, host: &str) -> BTreeMap<String, Value> {
    let mut metadata = BTreeMap::new();
    let mut put = |key: &str, value: Value| {
        metadata.insert(key.to_owned(), value);
    };
    put("name", json!(guest.name));
    put("instance_id", json!(guest.uuid.to_string()));
    put("instance_host", json!(host));
    put("status", json!(status(guest.state)));
    put("state", json!(state(guest.state)));
    put("task_state", json!(""));
    put("architecture", json!(guest.architecture));
    put("os_type", json!(guest.os_type));
    put("user_metadata", json!({}));
    put("display_name", json!(guest.nova.as_ref().map_or(guest.name.as_str(), |nova| &nova.display_name)));
    if let Some(nova) = &guest.nova {
        put_nova(&mut put, nova, host);
    }
    metadata
}

fn put_nova(put: &mut impl FnMut(&str, Value), nova: &NovaMetadata, host: &str) {
    let flavor = &nova.flavor;
    let image = nova.image_id.map(|id| id.to_string());
    put("host", json!(host_id(&nova.project_id, host)));
    put("instance_type", json!(flavor.name));
    put(
        "flavor",
        json!({
            "id": Some(&flavor.id).filter(|id| !id.is_empty()),
            "name": flavor.name,
            "vcpus": flavor.vcpus,
            "ram": flavor.memory_mib,
            "disk": flavor.disk_gib,
            "ephemeral": flavor.ephemeral_gib,
            "swap": flavor.swap_mib,
        }),
    );
    put("image", image.as_ref().map_or(Value::Null, |id| json!({ "id": id })));
    put("image_ref", json!(image));
    put("image_ref_url", Value::Null);
    put("vcpus", json!(flavor.vcpus));
    put("memory_mb", json!(flavor.memory_mib));
    // As Nova's notifications count: all disks together. Ceilometer's agent takes the root disk for the whole and
    // subtracts the ephemeral one from it, which differs for flavors that have one.
    put("disk_gb", json!(flavor.disk_gib.saturating_add(flavor.ephemeral_gib)));
    put("ephemeral_gb", json!(flavor.ephemeral_gib));
    put("root_gb", json!(flavor.disk_gib));
}

/// Nova's `hostId`: tells a project whether two of its instances share a host, and nothing else.
fn host_id(project_id: &str, host: &str) -> String {
    let digest = Sha224::new().chain_update(project_id).chain_update(host).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nova's status word, as Ceilometer's libvirt discovery translates the power state.
fn status(state: Option<PowerState>) -> &'static str {
    match state {
        Some(PowerState::Running | PowerState::Blocked) => "active",
        Some(PowerState::Paused) => "paused",
        Some(PowerState::ShuttingDown | PowerState::ShutOff) => "stopped",
        Some(PowerState::Crashed) => "error",
        Some(PowerState::Suspended) => "suspended",
        Some(PowerState::NoState) | None => "building",
    }
}

/// The word for the power state itself.
fn state(state: Option<PowerState>) -> &'static str {
    match state {
        Some(PowerState::Running | PowerState::Blocked) => "running",
        Some(PowerState::Paused) => "paused",
        Some(PowerState::ShuttingDown | PowerState::ShutOff) => "shutdown",
        Some(PowerState::Crashed) => "crashed",
        Some(PowerState::Suspended) => "suspended",
        Some(PowerState::NoState) | None => "pending",
    }
}
