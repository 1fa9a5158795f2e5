//! Image service → `image.size`. Pure.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Sample, SampleKind, Timestamp, sample_id};
use serde_json::Value;

use super::Pollster;

/// `image.size` of all images, of whomever and however visible.
pub(super) const SIZE: Pollster = Pollster {
    meter: "image.size",
    service_type: "image",
    path: "v2/images?visibility=all",
    list: "images",
    sample: size,
};

/// What Ceilometer keeps of an image (its image pollster's metadata).
const METADATA: [&str; 13] = [
    "status",
    "visibility",
    "name",
    "container_format",
    "created_at",
    "disk_format",
    "updated_at",
    "min_disk",
    "protected",
    "checksum",
    "min_ram",
    "tags",
    "virtual_size",
];

/// An image that has no data yet has no size, and no sample.
fn size(image: &Value, slot: Timestamp) -> Option<Sample> {
    let resource_id = image["id"].as_str()?.to_owned();
    let value = image["size"].as_f64()?;
    let metadata: BTreeMap<String, Value> = METADATA
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), image.get(*key).filter(|value| !value.is_null())?.clone())))
        .collect();
    Some(Sample {
        id: sample_id("image.size", &resource_id, "image.size", slot),
        meter: "image.size".to_owned(),
        kind: SampleKind::Gauge,
        unit: "B".to_owned(),
        value,
        timestamp: slot,
        resource_id,
        project_id: image["owner"].as_str().filter(|owner| !owner.is_empty()).map(str::to_owned),
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Arc::new(metadata),
    })
}
