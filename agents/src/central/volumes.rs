//! Volume service → `volume.size`, `volume.snapshot.size`, `volume.backup.size`. Pure.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Sample, SampleKind, Timestamp, sample_id};
use serde_json::Value;

use super::Pollster;

/// `volume.size` of all volumes.
pub(super) const SIZE: Pollster = Pollster {
    meter: "volume.size",
    service_type: "volumev3",
    path: "volumes/detail?all_tenants=true",
    list: "volumes",
    sample: volume_size,
};
/// `volume.snapshot.size` of all snapshots.
pub(super) const SNAPSHOT_SIZE: Pollster = Pollster {
    meter: "volume.snapshot.size",
    service_type: "volumev3",
    path: "snapshots/detail?all_tenants=true",
    list: "snapshots",
    sample: snapshot_size,
};
/// `volume.backup.size` of all backups.
pub(super) const BACKUP_SIZE: Pollster = Pollster {
    meter: "volume.backup.size",
    service_type: "volumev3",
    path: "backups/detail?all_tenants=true",
    list: "backups",
    sample: backup_size,
};

fn volume_size(volume: &Value, slot: Timestamp) -> Option<Sample> {
    let mut metadata = kept(
        volume,
        &["name", "status", "volume_type", "availability_zone", "bootable", "created_at", "updated_at", "multiattach"],
    );
    let mut keep = |key: &str, value: &Value| {
        if !value.is_null() {
            metadata.insert(key.to_owned(), value.clone());
        }
    };
    keep("display_name", &volume["name"]);
    keep("volume_type_id", &volume["volume_type_id"]);
    keep("instance_id", &volume["attachments"][0]["server_id"]);
    keep("image_id", &volume["volume_image_metadata"]["image_id"]);
    let project = volume["os-vol-tenant-attr:tenant_id"].as_str().or_else(|| volume["project_id"].as_str());
    sample("volume.size", volume, slot, project, volume["user_id"].as_str(), metadata)
}

fn snapshot_size(snapshot: &Value, slot: Timestamp) -> Option<Sample> {
    let metadata = kept(snapshot, &["name", "status", "volume_id", "description", "created_at", "updated_at"]);
    let project =
        snapshot["os-extended-snapshot-attributes:project_id"].as_str().or_else(|| snapshot["project_id"].as_str());
    sample("volume.snapshot.size", snapshot, slot, project, snapshot["user_id"].as_str(), metadata)
}

fn backup_size(backup: &Value, slot: Timestamp) -> Option<Sample> {
    let metadata = kept(
        backup,
        &["name", "status", "volume_id", "description", "container", "is_incremental", "created_at", "updated_at"],
    );
    let project = backup["os-backup-project-attr:project_id"].as_str().or_else(|| backup["project_id"].as_str());
    sample("volume.backup.size", backup, slot, project, backup["user_id"].as_str(), metadata)
}

fn kept(entry: &Value, keys: &[&str]) -> BTreeMap<String, Value> {
    keys.iter()
        .filter_map(|key| Some(((*key).to_owned(), entry.get(*key).filter(|value| !value.is_null())?.clone())))
        .collect()
}

fn sample(
    meter: &'static str,
    entry: &Value,
    slot: Timestamp,
    project: Option<&str>,
    user: Option<&str>,
    metadata: BTreeMap<String, Value>,
) -> Option<Sample> {
    let resource_id = entry["id"].as_str()?.to_owned();
    Some(Sample {
        id: sample_id(meter, &resource_id, meter, slot),
        meter: meter.to_owned(),
        kind: SampleKind::Gauge,
        unit: "GiB".to_owned(),
        value: entry["size"].as_f64()?,
        timestamp: slot,
        resource_id,
        project_id: project.map(str::to_owned),
        user_id: user.map(str::to_owned),
        source: "openstack".to_owned(),
        metadata: Arc::new(metadata),
    })
}
