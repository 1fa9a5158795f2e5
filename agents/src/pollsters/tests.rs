//! The meter table, row by row.

use std::collections::{BTreeMap, HashSet};

use orzo_hypervisor::{Flavor, MemoryStats, NovaMetadata, PerfStats, PowerState};
use serde_json::json;
use uuid::Uuid;

use super::*;

const GUEST: &str = "5e0a5a2c-0000-4000-8000-000000000003";

fn context() -> PollContext<'static> {
    PollContext {
        host: "node-1",
        slot: Timestamp::from_secs(1_795_291_460),
        report_stopped: false,
        report_unowned: false,
    }
}

fn everything() -> GuestStats {
    GuestStats {
        uuid: GUEST.parse().unwrap(),
        name: "instance-00000001".into(),
        state: Some(PowerState::Running),
        cpu_time_ns: Some(999),
        vcpu_times_ns: vec![(100, 1), (200, 2)],
        vcpus: Some(2),
        memory: MemoryStats {
            actual_kib: Some(512 * 1024),
            available_kib: Some(500 * 1024),
            usable_kib: Some(400 * 1024),
            unused_kib: Some(300 * 1024),
            rss_kib: Some(200 * 1024),
            swap_in_kib: Some(2 * 1024),
            swap_out_kib: Some(3 * 1024),
        },
        disks: vec![DiskStats {
            device: "vda".into(),
            read_requests: Some(1),
            read_bytes: Some(2),
            read_ns: Some(3),
            write_requests: Some(4),
            write_bytes: Some(5),
            write_ns: Some(6),
            capacity_bytes: Some(7),
            allocation_bytes: Some(8),
            physical_bytes: Some(9),
        }],
        nics: vec![NicStats {
            name: "tap1".into(),
            mac: Some("fa:16:3e:00:00:01".into()),
            fref: None,
            parameters: BTreeMap::from([("interfaceid".to_owned(), "port".to_owned())]),
            rx_bytes: Some(11),
            rx_packets: Some(12),
            rx_errors: Some(13),
            rx_drops: Some(14),
            tx_bytes: Some(15),
            tx_packets: Some(16),
            tx_errors: Some(17),
            tx_drops: Some(18),
        }],
        perf: PerfStats {
            cpu_cycles: Some(21),
            instructions: Some(22),
            cache_references: Some(23),
            cache_misses: Some(24),
        },
        nova: Some(NovaMetadata {
            display_name: "web".into(),
            user_id: "user".into(),
            user_name: "alice".into(),
            project_id: "project".into(),
            project_name: "demo".into(),
            flavor: Flavor {
                id: "42".into(),
                name: "m1.tiny".into(),
                vcpus: 2,
                memory_mib: 512,
                disk_gib: 10,
                ephemeral_gib: 3,
                swap_mib: 64,
            },
            image_id: Some(Uuid::from_u128(1)),
        }),
        architecture: Some("x86_64".into()),
        os_type: Some("hvm".into()),
    }
}

fn all() -> Vec<&'static Pollster> {
    POLLSTERS.iter().collect()
}

fn values(samples: &[Sample]) -> BTreeMap<&str, f64> {
    samples.iter().map(|sample| (sample.meter.as_str(), sample.value)).collect()
}

#[test]
fn every_meter_of_the_table() {
    use SampleKind::{Cumulative, Gauge};
    let disk = format!("{GUEST}-vda");
    let nic = format!("instance-00000001-{GUEST}-tap1");
    let expected = [
        ("power.state", Gauge, "", 1.0, GUEST),
        ("cpu", Cumulative, "ns", 303.0, GUEST),
        ("vcpus", Gauge, "vcpu", 2.0, GUEST),
        ("memory", Gauge, "MiB", 512.0, GUEST),
        ("memory.available", Gauge, "MiB", 500.0, GUEST),
        ("memory.usage", Gauge, "MiB", 100.0, GUEST),
        ("memory.resident", Gauge, "MiB", 200.0, GUEST),
        ("memory.swap.in", Cumulative, "MiB", 2.0, GUEST),
        ("memory.swap.out", Cumulative, "MiB", 3.0, GUEST),
        ("perf.cpu.cycles", Gauge, "", 21.0, GUEST),
        ("perf.instructions", Gauge, "", 22.0, GUEST),
        ("perf.cache.references", Gauge, "", 23.0, GUEST),
        ("perf.cache.misses", Gauge, "", 24.0, GUEST),
        ("disk.root.size", Gauge, "GiB", 10.0, GUEST),
        ("disk.ephemeral.size", Gauge, "GiB", 3.0, GUEST),
        ("disk.device.read.requests", Cumulative, "request", 1.0, &disk),
        ("disk.device.read.bytes", Cumulative, "B", 2.0, &disk),
        ("disk.device.write.requests", Cumulative, "request", 4.0, &disk),
        ("disk.device.write.bytes", Cumulative, "B", 5.0, &disk),
        ("disk.device.read.latency", Cumulative, "ns", 3.0, &disk),
        ("disk.device.write.latency", Cumulative, "ns", 6.0, &disk),
        ("disk.device.capacity", Gauge, "B", 9.0, &disk),
        ("disk.device.allocation", Gauge, "B", 8.0, &disk),
        ("disk.device.usage", Gauge, "B", 9.0, &disk),
        ("network.incoming.bytes", Cumulative, "B", 11.0, &nic),
        ("network.incoming.packets", Cumulative, "packet", 12.0, &nic),
        ("network.incoming.packets.error", Cumulative, "packet", 13.0, &nic),
        ("network.incoming.packets.drop", Cumulative, "packet", 14.0, &nic),
        ("network.outgoing.bytes", Cumulative, "B", 15.0, &nic),
        ("network.outgoing.packets", Cumulative, "packet", 16.0, &nic),
        ("network.outgoing.packets.error", Cumulative, "packet", 17.0, &nic),
        ("network.outgoing.packets.drop", Cumulative, "packet", 18.0, &nic),
    ];
    let samples = poll(&everything(), &all(), &context());
    let got: Vec<_> =
        samples.iter().map(|s| (s.meter.as_str(), s.kind, s.unit.as_str(), s.value, s.resource_id.as_str())).collect();
    assert_eq!(got, expected);
    assert!(samples.iter().all(|s| s.timestamp == context().slot && s.source == "openstack"));
    assert!(samples.iter().all(|s| s.project_id.as_deref() == Some("project") && s.user_id.as_deref() == Some("user")));
    let ids: HashSet<Uuid> = samples.iter().map(|s| s.id).collect();
    assert_eq!(ids.len(), samples.len());
}

#[test]
fn ids_depend_on_the_slot_and_not_on_who_polls() {
    let first = poll(&everything(), &all(), &context());
    let other_host = poll(&everything(), &all(), &PollContext { host: "node-2", ..context() });
    let next = poll(&everything(), &all(), &PollContext { slot: Timestamp::from_secs(1), ..context() });
    for ((first, other), next) in first.iter().zip(&other_host).zip(&next) {
        assert_eq!(first.id, other.id);
        assert_ne!(first.id, next.id);
    }
}

#[test]
fn metadata_has_ceilometers_keys() {
    let samples = poll(&everything(), &all(), &context());
    let of = |meter: &str| json!(*samples.iter().find(|s| s.meter == meter).unwrap().metadata);
    let expected = json!({
        "display_name": "web", "name": "instance-00000001", "instance_id": GUEST, "instance_type": "m1.tiny",
        // sha224("project" + "node-1")
        "host": "57fd23e06d0f2279e15fa41546948a5484b2665711aeb4c4f5e7fc00", "instance_host": "node-1",
        "flavor": {"id": "42", "name": "m1.tiny", "vcpus": 2, "ram": 512, "disk": 10, "ephemeral": 3, "swap": 64},
        "status": "active", "state": "running", "task_state": "",
        "image": {"id": "00000000-0000-0000-0000-000000000001"},
        "image_ref": "00000000-0000-0000-0000-000000000001", "image_ref_url": null,
        "architecture": "x86_64", "os_type": "hvm", "vcpus": 2, "memory_mb": 512,
        "disk_gb": 13, "ephemeral_gb": 3, "root_gb": 10, "user_metadata": {},
    });
    assert_eq!(of("memory"), expected);
    assert_eq!(of("cpu")["cpu_number"], 2);
    assert_eq!(of("disk.device.usage")["disk_name"], "vda");
    let nic = of("network.incoming.bytes");
    assert_eq!((&nic["vnic_name"], &nic["name"], &nic["fref"]), (&json!("tap1"), &json!("tap1"), &json!(null)));
    assert_eq!((&nic["mac"], &nic["parameters"]), (&json!("fa:16:3e:00:00:01"), &json!({"interfaceid": "port"})));
}

#[test]
fn a_guest_that_is_off_says_only_what_still_holds() {
    let off = GuestStats { state: Some(PowerState::ShutOff), ..everything() };
    let samples = poll(&off, &all(), &context());
    assert_eq!(
        values(&samples),
        BTreeMap::from([("power.state", 5.0), ("disk.root.size", 10.0), ("disk.ephemeral.size", 3.0)])
    );
    assert_eq!(samples[0].metadata["status"], "stopped");
    let all_of_it = poll(&off, &all(), &PollContext { report_stopped: true, ..context() });
    assert_eq!(all_of_it.len(), POLLSTERS.len());
}

#[test]
fn what_the_hypervisor_did_not_say_makes_no_sample() {
    let silent = GuestStats {
        uuid: GUEST.parse().unwrap(),
        nova: Some(NovaMetadata::default()),
        disks: vec![DiskStats { device: "vda".into(), ..DiskStats::default() }],
        nics: vec![NicStats::default()],
        ..GuestStats::default()
    };
    assert_eq!(
        values(&poll(&silent, &all(), &context())),
        BTreeMap::from([("disk.root.size", 0.0), ("disk.ephemeral.size", 0.0)])
    );
}

#[test]
fn rules_of_single_meters() {
    let value = |change: fn(&mut GuestStats), meter: &str| {
        let mut guest = everything();
        change(&mut guest);
        values(&poll(&guest, &all(), &context())).get(meter).copied()
    };
    assert_eq!(value(|g| g.vcpu_times_ns.clear(), "cpu"), Some(999.0), "without vCPUs the guest's own time");
    assert_eq!(value(|g| g.memory.usable_kib = None, "memory.usage"), Some(200.0), "else available - unused");
    assert_eq!(value(|g| g.memory.available_kib = None, "memory.usage"), None);
    assert_eq!(value(|g| g.memory.usable_kib = Some(u64::MAX), "memory.usage"), Some(0.0), "never negative");
    assert_eq!(value(|g| g.memory.swap_out_kib = None, "memory.swap.in"), None, "both or none");
    assert_eq!(value(|g| g.disks[0].capacity_bytes = None, "disk.device.capacity"), None);
}

#[test]
fn an_interface_with_a_filter_is_called_by_it() {
    let mut guest = everything();
    guest.nics[0].fref = Some("nova-instance-00000001-fa163e000001".into());
    let samples = poll(&guest, &all(), &context());
    let nic = samples.iter().find(|s| s.meter == "network.incoming.bytes").unwrap();
    assert_eq!(nic.resource_id, "nova-instance-00000001-fa163e000001");
}

#[test]
fn guests_without_an_owner_are_left_out_unless_asked_for() {
    let unowned = GuestStats { nova: None, ..everything() };
    assert!(poll(&unowned, &all(), &context()).is_empty());
    let samples = poll(&unowned, &all(), &PollContext { report_unowned: true, ..context() });
    assert!(samples.iter().all(|s| s.project_id.is_none() && s.metadata["display_name"] == "instance-00000001"));
    assert!(samples.iter().all(|s| s.meter != "disk.root.size"));
}
