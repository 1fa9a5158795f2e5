//! From what a hypervisor says of a guest to samples, named as Ceilometer names them.
//!
//! `&GuestStats → Pollster → Sample`
//!
//! Pure: no clock, no I/O. [`POLLSTERS`] is the whole list, in the order of Ceilometer's meter table; a meter is added
//! by a line there. What the hypervisor did not say makes no sample. Rates (`cpu_util`, `*.rate`) are derived by the
//! collector, which also knows what a restart is.

mod metadata;
mod readings;

use orzo_hypervisor::{DiskStats, GuestStats, NicStats};
use orzo_model::{Sample, SampleKind, Timestamp, sample::Metadata, sample_id};

use self::metadata::GuestMetadata;

/// Origin in the ids of polled samples. The same for every agent, so that two agents that poll one guest in the same
/// slot make the same sample.
const ORIGIN: &str = "poll.compute";

/// What a poll knows besides the guest.
#[derive(Clone, Copy, Debug)]
pub struct PollContext<'a> {
    /// Host name of this node.
    pub host: &'a str,
    /// Scheduled time of the poll, the timestamp of its samples.
    pub slot: Timestamp,
    /// Ask guests that are off for all meters, not only for those that hold for them
    /// (Ceilometer's `report_stopped_instance_metrics`).
    pub report_stopped: bool,
    /// Poll guests that no cloud made as well. Ceilometer leaves them out: they have no owner.
    pub report_unowned: bool,
}

/// One meter: what it is called and where its value comes from.
#[derive(Debug)]
pub struct Pollster {
    /// Meter name.
    pub meter: &'static str,
    /// Gauge or cumulative.
    pub kind: SampleKind,
    /// Unit as Ceilometer writes it.
    pub unit: &'static str,
    /// Whether it holds for a guest that is off.
    holds_when_off: bool,
    reading: Reading,
}

/// Where a meter's value is found; a guest has several disks and interfaces, each a resource of its own.
#[derive(Debug)]
enum Reading {
    Guest(fn(&GuestStats) -> Option<f64>),
    Disk(fn(&DiskStats) -> Option<f64>),
    Nic(fn(&NicStats) -> Option<f64>),
}

/// Every meter that a hypervisor can give (rows 1 to 32 of Ceilometer 27's meter table).
pub const POLLSTERS: &[Pollster] = &[
    always("power.state", "", readings::power_state),
    guest("cpu", SampleKind::Cumulative, "ns", readings::cpu_ns),
    guest("vcpus", SampleKind::Gauge, "vcpu", |g| g.vcpus.map(f64::from)),
    guest("memory", SampleKind::Gauge, "MiB", |g| readings::mib(g.memory.actual_kib)),
    guest("memory.available", SampleKind::Gauge, "MiB", |g| readings::mib(g.memory.available_kib)),
    guest("memory.usage", SampleKind::Gauge, "MiB", readings::memory_usage_mib),
    guest("memory.resident", SampleKind::Gauge, "MiB", |g| readings::mib(g.memory.rss_kib)),
    guest("memory.swap.in", SampleKind::Cumulative, "MiB", readings::swap_in_mib),
    guest("memory.swap.out", SampleKind::Cumulative, "MiB", readings::swap_out_mib),
    guest("perf.cpu.cycles", SampleKind::Gauge, "", |g| readings::count(g.perf.cpu_cycles)),
    guest("perf.instructions", SampleKind::Gauge, "", |g| readings::count(g.perf.instructions)),
    guest("perf.cache.references", SampleKind::Gauge, "", |g| readings::count(g.perf.cache_references)),
    guest("perf.cache.misses", SampleKind::Gauge, "", |g| readings::count(g.perf.cache_misses)),
    always("disk.root.size", "GiB", readings::root_gib),
    always("disk.ephemeral.size", "GiB", readings::ephemeral_gib),
    disk("disk.device.read.requests", SampleKind::Cumulative, "request", |d| readings::count(d.read_requests)),
    disk("disk.device.read.bytes", SampleKind::Cumulative, "B", |d| readings::count(d.read_bytes)),
    disk("disk.device.write.requests", SampleKind::Cumulative, "request", |d| readings::count(d.write_requests)),
    disk("disk.device.write.bytes", SampleKind::Cumulative, "B", |d| readings::count(d.write_bytes)),
    disk("disk.device.read.latency", SampleKind::Cumulative, "ns", |d| readings::count(d.read_ns)),
    disk("disk.device.write.latency", SampleKind::Cumulative, "ns", |d| readings::count(d.write_ns)),
    disk("disk.device.capacity", SampleKind::Gauge, "B", readings::capacity_bytes),
    disk("disk.device.allocation", SampleKind::Gauge, "B", |d| readings::count(d.allocation_bytes)),
    disk("disk.device.usage", SampleKind::Gauge, "B", |d| readings::count(d.physical_bytes)),
    nic("network.incoming.bytes", "B", |n| readings::count(n.rx_bytes)),
    nic("network.incoming.packets", "packet", |n| readings::count(n.rx_packets)),
    nic("network.incoming.packets.error", "packet", |n| readings::count(n.rx_errors)),
    nic("network.incoming.packets.drop", "packet", |n| readings::count(n.rx_drops)),
    nic("network.outgoing.bytes", "B", |n| readings::count(n.tx_bytes)),
    nic("network.outgoing.packets", "packet", |n| readings::count(n.tx_packets)),
    nic("network.outgoing.packets.error", "packet", |n| readings::count(n.tx_errors)),
    nic("network.outgoing.packets.drop", "packet", |n| readings::count(n.tx_drops)),
];

/// A gauge of the guest that holds whether it runs or not.
const fn always(meter: &'static str, unit: &'static str, read: fn(&GuestStats) -> Option<f64>) -> Pollster {
    Pollster { meter, kind: SampleKind::Gauge, unit, holds_when_off: true, reading: Reading::Guest(read) }
}

const fn guest(
    meter: &'static str,
    kind: SampleKind,
    unit: &'static str,
    read: fn(&GuestStats) -> Option<f64>,
) -> Pollster {
    Pollster { meter, kind, unit, holds_when_off: false, reading: Reading::Guest(read) }
}

const fn disk(
    meter: &'static str,
    kind: SampleKind,
    unit: &'static str,
    read: fn(&DiskStats) -> Option<f64>,
) -> Pollster {
    Pollster { meter, kind, unit, holds_when_off: false, reading: Reading::Disk(read) }
}

const fn nic(meter: &'static str, unit: &'static str, read: fn(&NicStats) -> Option<f64>) -> Pollster {
    Pollster { meter, kind: SampleKind::Cumulative, unit, holds_when_off: false, reading: Reading::Nic(read) }
}

/// All samples that `pollsters` make of one guest.
pub fn poll(guest: &GuestStats, pollsters: &[&Pollster], context: &PollContext<'_>) -> Vec<Sample> {
    if guest.nova.is_none() && !context.report_unowned {
        return Vec::new();
    }
    let asks_all = context.report_stopped || guest.state.is_none_or(|state| state.is_active());
    let metadata = GuestMetadata::new(guest, context.host);
    let mut samples = Vec::with_capacity(pollsters.len());
    for pollster in pollsters.iter().filter(|pollster| asks_all || pollster.holds_when_off) {
        match pollster.reading {
            Reading::Guest(read) => {
                let metadata = if pollster.meter == "cpu" { &metadata.cpu } else { &metadata.guest };
                let id = || guest.uuid.to_string();
                samples.extend(read(guest).map(|value| sample(pollster, guest, id(), value, metadata, context)));
            }
            Reading::Disk(read) => {
                for (disk, metadata) in guest.disks.iter().zip(&metadata.disks) {
                    let id = || format!("{}-{}", guest.uuid, disk.device);
                    samples.extend(read(disk).map(|value| sample(pollster, guest, id(), value, metadata, context)));
                }
            }
            Reading::Nic(read) => {
                for (nic, metadata) in guest.nics.iter().zip(&metadata.nics) {
                    let id = || nic_id(guest, nic);
                    samples.extend(read(nic).map(|value| sample(pollster, guest, id(), value, metadata, context)));
                }
            }
        }
    }
    samples
}

/// The filter reference if there is one, else `<domain name>-<uuid>-<device>` (Ceilometer's rule).
fn nic_id(guest: &GuestStats, nic: &NicStats) -> String {
    nic.fref.clone().unwrap_or_else(|| format!("{}-{}-{}", guest.name, guest.uuid, nic.name))
}

fn sample(
    pollster: &Pollster,
    guest: &GuestStats,
    resource_id: String,
    value: f64,
    metadata: &Metadata,
    context: &PollContext<'_>,
) -> Sample {
    let nova = guest.nova.as_ref();
    Sample {
        id: sample_id(ORIGIN, &resource_id, pollster.meter, context.slot),
        meter: pollster.meter.to_owned(),
        kind: pollster.kind,
        unit: pollster.unit.to_owned(),
        value,
        timestamp: context.slot,
        resource_id,
        project_id: nova.map(|nova| nova.project_id.clone()).filter(|id| !id.is_empty()),
        user_id: nova.map(|nova| nova.user_id.clone()).filter(|id| !id.is_empty()),
        source: "openstack".to_owned(),
        metadata: metadata.clone(),
    }
}

#[cfg(test)]
mod tests;
