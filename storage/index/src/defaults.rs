//! What an empty database is filled with: Gnocchi's archive policies and rule (as `gnocchi-upgrade` makes them),
//! Ceilometer's archive policies and resource types (as `ceilometer-upgrade` makes them). Policies are made only if
//! there is neither policy nor rule, types only if there is none but `generic`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ArchivePolicy, ArchivePolicyRule, Attribute, AttributeKind, Index, IndexError, PolicyItem, ResourceType,
    policy::DEFAULT_METHODS,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// Whether policies and types are missing. The type `generic` is always made: nothing works without it.
pub(crate) async fn needed(index: &Index) -> Result<(bool, bool), IndexError> {
    let generic = ResourceType { name: "generic".into(), attributes: BTreeMap::new() };
    tolerate(index.create_resource_type(&generic).await)?;
    let policies = index.archive_policies().await?.is_empty() && index.archive_policy_rules().await?.is_empty();
    let types = index.resource_types().await?.len() <= 1;
    Ok((policies, types))
}

pub(crate) async fn create(index: &Index, policies: bool, types: bool) -> Result<(), IndexError> {
    if policies {
        for policy in default_policies()? {
            tolerate(index.create_archive_policy(&policy).await)?;
        }
        let rule =
            ArchivePolicyRule { name: "default".into(), metric_pattern: "*".into(), archive_policy_name: "low".into() };
        tolerate(index.create_archive_policy_rule(&rule).await)?;
    }
    if types {
        for kind in default_types() {
            tolerate(index.create_resource_type(&kind).await)?;
        }
    }
    Ok(())
}

/// Another process that starts at the same time may have been first.
fn tolerate(outcome: Result<(), IndexError>) -> Result<(), IndexError> {
    match outcome {
        Err(IndexError::Exists { .. }) => Ok(()),
        outcome => outcome,
    }
}

fn default_policies() -> Result<Vec<ArchivePolicy>, IndexError> {
    let standard: &[&str] = DEFAULT_METHODS;
    let high = [(1, HOUR), (MINUTE, 7 * DAY), (HOUR, 365 * DAY)];
    let ceilometer_high = [(1, HOUR), (MINUTE, DAY), (HOUR, 365 * DAY)];
    [
        policy("bool", 3600, &["last"], &[(1, 365 * DAY)]),
        policy("low", 0, standard, &[(5 * MINUTE, 30 * DAY)]),
        policy("medium", 0, standard, &[(MINUTE, 7 * DAY), (HOUR, 365 * DAY)]),
        policy("high", 0, standard, &high),
        policy("ceilometer-low", 0, &["mean"], &[(5 * MINUTE, 30 * DAY)]),
        policy("ceilometer-low-rate", 0, &["mean", "rate:mean"], &[(5 * MINUTE, 30 * DAY)]),
        policy("ceilometer-high", 0, &["mean"], &ceilometer_high),
        policy("ceilometer-high-rate", 0, &["mean", "rate:mean"], &ceilometer_high),
    ]
    .into_iter()
    .collect()
}

fn policy(name: &str, back_window: u32, methods: &[&str], items: &[(u64, u64)]) -> Result<ArchivePolicy, IndexError> {
    let definition = items
        .iter()
        .map(|&(granularity, span)| {
            PolicyItem::new(Some(Duration::from_secs(granularity)), None, Some(Duration::from_secs(span)))
        })
        .collect::<Result<_, _>>()?;
    let methods = methods.iter().map(|&method| method.to_owned()).collect();
    ArchivePolicy::new(name, back_window, definition, Some(methods), &[])
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Id,
    Time,
}

/// The types that `ceilometer-upgrade` makes. Everything is optional: resources are made from what samples bring.
fn default_types() -> Vec<ResourceType> {
    use Kind::{Id, Text, Time};
    [
        ("image", &[("name", Text), ("container_format", Text), ("disk_format", Text)] as &[(&str, Kind)]),
        (
            "instance",
            &[
                ("flavor_id", Text),
                ("flavor_name", Text),
                ("image_ref", Text),
                ("host", Text),
                ("display_name", Text),
                ("server_group", Text),
                ("created_at", Time),
                ("launched_at", Time),
                ("deleted_at", Time),
            ],
        ),
        ("instance_disk", &[("name", Text), ("instance_id", Id)]),
        ("instance_network_interface", &[("name", Text), ("instance_id", Id)]),
        ("volume", &[("display_name", Text), ("volume_type", Text), ("image_id", Id), ("instance_id", Id)]),
        ("swift_account", &[("storage_policy", Text)]),
        ("ceph_account", &[]),
        ("network", &[("name", Text)]),
        ("identity", &[]),
        ("ipmi", &[]),
        ("stack", &[]),
        ("host", &[("host_name", Text)]),
        ("host_disk", &[("host_name", Text), ("device_name", Text)]),
        ("host_network_interface", &[("host_name", Text), ("device_name", Text)]),
        ("nova_compute", &[("host_name", Text)]),
        (
            "manila_share",
            &[("name", Text), ("host", Text), ("protocol", Text), ("availability_zone", Text), ("status", Text)],
        ),
        ("volume_provider", &[]),
        ("volume_provider_pool", &[("provider", Text)]),
        ("ipmi_sensor", &[("node", Text)]),
        (
            "loadbalancer",
            &[
                ("name", Text),
                ("vip_address", Text),
                ("operating_status", Text),
                ("provisioning_status", Text),
                ("provider", Text),
            ],
        ),
        ("dns_zone", &[("name", Text), ("email", Text), ("status", Text)]),
        ("volume_service", &[("host", Text), ("binary", Text), ("availability_zone", Text)]),
    ]
    .into_iter()
    .map(|(name, attributes)| ResourceType {
        name: name.to_owned(),
        attributes: attributes.iter().map(|&(name, kind)| (name.to_owned(), attribute(kind))).collect(),
    })
    .collect()
}

fn attribute(kind: Kind) -> Attribute {
    let kind = match kind {
        Kind::Text => AttributeKind::String { min_length: 0, max_length: 255 },
        Kind::Id => AttributeKind::Uuid,
        Kind::Time => AttributeKind::Datetime,
    };
    Attribute { kind, required: false }
}
