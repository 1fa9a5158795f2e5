//! What a bulk call says, as [`GuestStats`]. Pure: a list of names and values in, one structure out.
//!
//! Names are those of libvirt's `virConnectGetAllDomainStats`: `cpu.time`, `vcpu.0.wait`, `block.1.rd.bytes`.
//! Unknown names are left alone: a newer libvirt says more, which is no error.

use std::collections::HashMap;

use super::{
    domain_xml::DomainDescription,
    ffi::{StatsRecord, TypedValue},
};
use crate::{DiskStats, GuestStats, MemoryStats, NicStats, PerfStats, PowerState};

/// vCPUs, interfaces and disks counted at most: far above what QEMU can have, so that a wrong count costs nothing.
const PARTS_MAX: u64 = 4096;

/// Decodes one domain's record, completed by what its description says.
pub(super) fn decode(record: &StatsRecord, description: &DomainDescription) -> GuestStats {
    let values = Values(record.values.iter().map(|(name, value)| (name.as_str(), value)).collect());
    let (cpu_time_ns, vcpu_times_ns) = match vcpu_times(&values) {
        VcpuTimes::All(times) => (values.unsigned("cpu.time"), times),
        VcpuTimes::None => (values.unsigned("cpu.time"), Vec::new()),
        // Neither a sum over some nor the guest's own time continues the counter of the polls before.
        VcpuTimes::Some => (None, Vec::new()),
    };
    GuestStats {
        uuid: record.uuid,
        name: record.name.clone(),
        state: values.signed("state.state").and_then(PowerState::from_number),
        cpu_time_ns,
        vcpu_times_ns,
        vcpus: values.unsigned("vcpu.current").and_then(|count| u32::try_from(count).ok()),
        memory: memory(&values),
        disks: disks(&values, description),
        nics: nics(&values, description),
        perf: PerfStats {
            cpu_cycles: values.unsigned("perf.cpu_cycles"),
            instructions: values.unsigned("perf.instructions"),
            cache_references: values.unsigned("perf.cache_references"),
            cache_misses: values.unsigned("perf.cache_misses"),
        },
        nova: description.nova.clone(),
        architecture: description.architecture.clone(),
        os_type: description.os_type.clone(),
    }
}

/// Names of the record's disks and interfaces: if the description lacks one, it is out of date.
pub(super) fn part_names(record: &StatsRecord) -> impl Iterator<Item = &str> {
    record.values.iter().filter_map(|(name, value)| match value {
        TypedValue::Text(text) if is_part_name(name) => Some(text.as_str()),
        _ => None,
    })
}

/// `net.<n>.name` and `block.<n>.name`.
fn is_part_name(name: &str) -> bool {
    (name.starts_with("net.") || name.starts_with("block.")) && name.ends_with(".name")
}

struct Values<'a>(HashMap<&'a str, &'a TypedValue>);

impl Values<'_> {
    fn unsigned(&self, name: &str) -> Option<u64> {
        match **self.0.get(name)? {
            TypedValue::Unsigned(value) => Some(value),
            // Libvirt says -1 where it does not know.
            TypedValue::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn signed(&self, name: &str) -> Option<i64> {
        match **self.0.get(name)? {
            TypedValue::Signed(value) => Some(value),
            TypedValue::Unsigned(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            TypedValue::Text(text) => Some(text),
            _ => None,
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.unsigned(name).unwrap_or(0).min(PARTS_MAX)
    }
}

/// What is known of the vCPUs' times.
enum VcpuTimes {
    /// Time and wait of every current vCPU.
    All(Vec<(u64, u64)>),
    /// Of some of them: one is being plugged in or out.
    Some,
    /// Of none: this hypervisor does not tell.
    None,
}

/// Numbers may have holes where vCPUs were unplugged, so all up to the maximum are asked for and counted.
fn vcpu_times(values: &Values<'_>) -> VcpuTimes {
    let current = values.count("vcpu.current");
    let times: Vec<_> = (0..values.count("vcpu.maximum").max(current))
        .filter_map(|n| {
            let time = values.unsigned(&format!("vcpu.{n}.time"))?;
            let wait = values.unsigned(&format!("vcpu.{n}.wait"))?;
            Some((time, wait))
        })
        .collect();
    match times.len() as u64 {
        0 => VcpuTimes::None,
        told if told == current => VcpuTimes::All(times),
        _ => VcpuTimes::Some,
    }
}

fn memory(values: &Values<'_>) -> MemoryStats {
    MemoryStats {
        actual_kib: values.unsigned("balloon.current"),
        available_kib: values.unsigned("balloon.available"),
        usable_kib: values.unsigned("balloon.usable"),
        unused_kib: values.unsigned("balloon.unused"),
        rss_kib: values.unsigned("balloon.rss"),
        swap_in_kib: values.unsigned("balloon.swap_in"),
        swap_out_kib: values.unsigned("balloon.swap_out"),
    }
}

fn disks(values: &Values<'_>, description: &DomainDescription) -> Vec<DiskStats> {
    (0..values.count("block.count"))
        .filter_map(|n| {
            let device = values.text(&format!("block.{n}.name"))?;
            // An empty CD drive is no disk: only what has a source is measured.
            if !description.disks.iter().any(|disk| disk.device == device && disk.has_source) {
                return None;
            }
            let value = |suffix: &str| values.unsigned(&format!("block.{n}.{suffix}"));
            Some(DiskStats {
                device: device.to_owned(),
                read_requests: value("rd.reqs"),
                read_bytes: value("rd.bytes"),
                read_ns: value("rd.times"),
                write_requests: value("wr.reqs"),
                write_bytes: value("wr.bytes"),
                write_ns: value("wr.times"),
                capacity_bytes: value("capacity"),
                allocation_bytes: value("allocation"),
                physical_bytes: value("physical"),
            })
        })
        .collect()
}

fn nics(values: &Values<'_>, description: &DomainDescription) -> Vec<NicStats> {
    (0..values.count("net.count"))
        .filter_map(|n| {
            let name = values.text(&format!("net.{n}.name"))?;
            let interface = description.interfaces.iter().find(|interface| interface.name == name);
            let value = |suffix: &str| values.unsigned(&format!("net.{n}.{suffix}"));
            Some(NicStats {
                name: name.to_owned(),
                mac: interface.and_then(|i| i.mac.clone()),
                fref: interface.and_then(|i| i.fref.clone()),
                parameters: interface.map(|i| i.parameters.clone()).unwrap_or_default(),
                rx_bytes: value("rx.bytes"),
                rx_packets: value("rx.pkts"),
                rx_errors: value("rx.errs"),
                rx_drops: value("rx.drop"),
                tx_bytes: value("tx.bytes"),
                tx_packets: value("tx.pkts"),
                tx_errors: value("tx.errs"),
                tx_drops: value("tx.drop"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::libvirt::domain_xml::{DiskDescription, InterfaceDescription};

    fn record(values: &[(&str, TypedValue)]) -> StatsRecord {
        StatsRecord {
            uuid: Uuid::from_u128(1),
            name: "instance-00000001".into(),
            id: Some(3),
            values: values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }

    fn text(text: &str) -> TypedValue {
        TypedValue::Text(text.to_owned())
    }

    use TypedValue::{Signed, Unsigned};

    #[test]
    fn a_running_guest_is_decoded_whole() {
        let description = DomainDescription {
            disks: vec![
                DiskDescription { device: "vda".into(), has_source: true },
                DiskDescription { device: "sda".into(), has_source: false },
            ],
            interfaces: vec![InterfaceDescription {
                name: "tap0".into(),
                mac: Some("fa:16:3e:00:00:01".into()),
                fref: Some("filter".into()),
                ..InterfaceDescription::default()
            }],
            architecture: Some("x86_64".into()),
            ..DomainDescription::default()
        };
        let record = record(&[
            ("state.state", Signed(1)),
            ("cpu.time", Unsigned(99)),
            ("balloon.current", Unsigned(1024)),
            ("balloon.rss", Unsigned(77)),
            ("vcpu.current", Unsigned(2)),
            ("vcpu.maximum", Unsigned(3)),
            ("vcpu.0.time", Unsigned(10)),
            ("vcpu.0.wait", Unsigned(1)),
            ("vcpu.2.time", Unsigned(20)),
            ("vcpu.2.wait", Unsigned(2)),
            ("net.count", Unsigned(1)),
            ("net.0.name", text("tap0")),
            ("net.0.rx.bytes", Unsigned(5)),
            ("net.0.tx.drop", Unsigned(6)),
            ("block.count", Unsigned(2)),
            ("block.0.name", text("vda")),
            ("block.0.rd.reqs", Unsigned(7)),
            ("block.0.capacity", Unsigned(8)),
            ("block.1.name", text("sda")),
            ("perf.cpu_cycles", Unsigned(9)),
            ("something.new", Unsigned(1)),
        ]);
        let stats = decode(&record, &description);
        assert_eq!(stats.state, Some(PowerState::Running));
        assert_eq!(stats.cpu_time_ns, Some(99));
        assert_eq!(stats.vcpu_times_ns, [(10, 1), (20, 2)], "the hole at vCPU 1 is skipped");
        assert_eq!(stats.vcpus, Some(2));
        assert_eq!(stats.memory.actual_kib, Some(1024));
        assert_eq!(stats.memory.usable_kib, None);
        assert_eq!(stats.disks.len(), 1, "the empty CD drive is left out");
        assert_eq!((stats.disks[0].read_requests, stats.disks[0].capacity_bytes), (Some(7), Some(8)));
        assert_eq!(stats.nics[0].mac.as_deref(), Some("fa:16:3e:00:00:01"));
        assert_eq!((stats.nics[0].rx_bytes, stats.nics[0].tx_drops, stats.nics[0].rx_drops), (Some(5), Some(6), None));
        assert_eq!(stats.perf.cpu_cycles, Some(9));
        assert_eq!(stats.architecture.as_deref(), Some("x86_64"));
        assert_eq!(part_names(&record).collect::<Vec<_>>(), ["tap0", "vda", "sda"]);
    }

    #[test]
    fn the_processor_counter_never_changes_its_source_between_two_polls() {
        let mut values = vec![
            ("cpu.time", Unsigned(99)),
            ("vcpu.current", Unsigned(2)),
            ("vcpu.maximum", Unsigned(2)),
            ("vcpu.0.time", Unsigned(10)),
            ("vcpu.1.time", Unsigned(20)),
        ];
        let times = |values: &[(&str, TypedValue)]| {
            let stats = decode(&record(values), &DomainDescription::default());
            (stats.cpu_time_ns, stats.vcpu_times_ns)
        };
        assert_eq!(times(&values), (Some(99), vec![]), "a kernel without wait times: always the guest's own time");
        values.push(("vcpu.0.wait", Unsigned(1)));
        assert_eq!(times(&values), (None, vec![]), "half told: no value rather than a jump");
        values.push(("vcpu.1.wait", Unsigned(2)));
        assert_eq!(times(&values), (Some(99), vec![(10, 1), (20, 2)]));
    }

    #[test]
    fn a_guest_that_is_off_has_a_state_and_nothing_else() {
        let stats = decode(&record(&[("state.state", Signed(5))]), &DomainDescription::default());
        assert_eq!(stats.state, Some(PowerState::ShutOff));
        assert_eq!((stats.cpu_time_ns, stats.vcpus), (None, None));
        assert!(stats.disks.is_empty() && stats.nics.is_empty());
    }

    #[test]
    fn absurd_counts_and_unknown_states_do_no_harm() {
        let record = record(&[
            ("state.state", Signed(99)),
            ("block.count", Unsigned(u64::MAX)),
            ("net.count", Signed(-1)),
            ("vcpu.maximum", Unsigned(u64::MAX)),
        ]);
        let stats = decode(&record, &DomainDescription::default());
        assert_eq!(stats.state, None);
        assert!(stats.disks.is_empty() && stats.nics.is_empty() && stats.vcpu_times_ns.is_empty());
    }
}
