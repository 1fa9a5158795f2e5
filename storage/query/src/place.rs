//! A batch of samples → wanted resources and where each sample's point goes. Pure.
//!
//! A sample whose meter no definition knows is kept too, under a resource of type `generic`: Ceilometer would drop it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use orzo_definitions::ResourceDefinitions;
use orzo_index::{MetricWanted, Resolved, ResourceWanted, attribute::storable, resource_uuid};
use orzo_model::{Point, Sample, Timestamp};
use uuid::Uuid;

/// Longest metric name that the index takes.
const NAME_CHARACTERS_MAX: usize = 255;

/// A batch, placed.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Resources, each once.
    pub(crate) resources: Vec<ResourceWanted>,
    /// Points: (resource, metric of it, time, value).
    points: Vec<(usize, usize, Timestamp, f64)>,
    /// Samples that can never be kept, by reason.
    pub(crate) refused: HashMap<&'static str, u64>,
}

impl Placed {
    /// The points with their series.
    pub(crate) fn points(&self, resolved: &[Resolved]) -> Vec<Point> {
        self.points
            .iter()
            .map(|&(resource, metric, timestamp, value)| Point {
                series: resolved[resource].series[metric],
                timestamp,
                value,
            })
            .collect()
    }
}

/// Where a meter's samples go; the same for all samples of the meter.
struct Target {
    resource_type: String,
    archive_policy_name: Option<String>,
}

/// Places samples. `wake_after`: how much newer than its resource's end a sample must be to wake it.
pub(crate) fn place(
    samples: &[Sample],
    definitions: &ResourceDefinitions,
    creator: &str,
    wake_after: Duration,
) -> Placed {
    let mut placed = Placed::default();
    let mut targets: HashMap<&str, Target> = HashMap::new();
    let mut resources: HashMap<Uuid, usize> = HashMap::new();
    let mut metrics: HashMap<(usize, &str), usize> = HashMap::new();
    // Metadata is shared by the samples of one poll: what it says about a resource is looked up once.
    let mut told: HashSet<(usize, *const ())> = HashSet::new();
    for sample in samples {
        let id = ResourceDefinitions::resource_id(&sample.resource_id);
        let Some(uuid) = resource_uuid(&id, creator).ok().filter(|_| !id.contains('\0')) else {
            *placed.refused.entry("resource id").or_default() += 1;
            continue;
        };
        let length = sample.meter.chars().count();
        if length == 0 || length > NAME_CHARACTERS_MAX || sample.meter.contains('\0') {
            *placed.refused.entry("meter name").or_default() += 1;
            continue;
        }
        let mut placement = None;
        let target = targets.entry(&sample.meter).or_insert_with(|| {
            placement = definitions.place(sample);
            match &placement {
                Some(found) => Target {
                    resource_type: found.resource_type.clone(),
                    archive_policy_name: found.archive_policy_name.clone(),
                },
                None => Target { resource_type: "generic".into(), archive_policy_name: None },
            }
        });
        let resource = *resources.entry(uuid).or_insert_with(|| {
            placed.resources.push(new_resource(&id, target, sample, creator));
            placed.resources.len() - 1
        });
        let wanted = &mut placed.resources[resource];
        if wanted.resource_type == "generic" {
            wanted.resource_type.clone_from(&target.resource_type);
        }
        wanted.first_at = wanted.first_at.min(sample.timestamp);
        wanted.last_at = wanted.last_at.max(sample.timestamp.minus(wake_after));
        if target.resource_type == wanted.resource_type
            && told.insert((resource, Arc::as_ptr(&sample.metadata).cast()))
            && let Some(placement) = placement.or_else(|| definitions.place(sample))
        {
            // Later samples of a batch win.
            wanted.attributes.extend(placement.attributes);
        }
        if wanted.project_id.is_none() {
            wanted.project_id = owner(&sample.project_id);
        }
        if wanted.user_id.is_none() {
            wanted.user_id = owner(&sample.user_id);
        }
        let metric = *metrics.entry((resource, &sample.meter)).or_insert_with(|| {
            wanted.metrics.push(MetricWanted {
                name: sample.meter.replace('/', "_"),
                archive_policy_name: target.archive_policy_name.clone(),
                unit: (!sample.unit.is_empty()).then(|| storable(&sample.unit).into_owned()),
            });
            wanted.metrics.len() - 1
        });
        placed.points.push((resource, metric, sample.timestamp, sample.value));
    }
    placed
}

fn owner(id: &Option<String>) -> Option<String> {
    id.as_deref().map(|id| storable(id).into_owned())
}

fn new_resource(id: &str, target: &Target, sample: &Sample, creator: &str) -> ResourceWanted {
    ResourceWanted {
        creator: creator.to_owned(),
        id: id.to_owned(),
        resource_type: target.resource_type.clone(),
        project_id: owner(&sample.project_id),
        user_id: owner(&sample.user_id),
        attributes: serde_json::Map::new(),
        first_at: sample.timestamp,
        last_at: Timestamp::MIN,
        metrics: Vec::new(),
    }
}
