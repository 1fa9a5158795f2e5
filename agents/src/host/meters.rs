//! What the figures of a machine are called. Pure: [`HostReading`] in, samples out.
//!
//! Names and units are those of Ceilometer's former SNMP pollsters. Disks' bytes and requests are declared
//! cumulative, which is what they are (the SNMP pollsters said gauge), so that rates can be derived.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Sample, SampleKind, Timestamp, sample::Metadata, sample_id};
use serde_json::json;

use super::parse::{CpuTimes, DiskCounters, FileSystem, HostReading, InterfaceCounters};

/// Origin in the ids of samples; the resource's id says which host.
const ORIGIN: &str = "poll.host";

/// What a poll knows besides the reading.
#[derive(Clone, Copy, Debug)]
pub struct HostContext<'a> {
    /// Host name: id of the resource of type `host`, and the start of its disks' and interfaces' ids.
    pub host: &'a str,
    /// Scheduled time of the poll, the timestamp of its samples.
    pub slot: Timestamp,
    /// Processor times at the poll before.
    pub previous: Option<CpuTimes>,
}

/// One meter: what it is called and where its value comes from.
#[derive(Debug)]
pub struct HostMeter {
    /// Meter name.
    pub name: &'static str,
    /// Gauge or cumulative.
    pub kind: SampleKind,
    /// Unit as Ceilometer writes it.
    pub unit: &'static str,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    Host(fn(&HostReading, &HostContext<'_>) -> Option<f64>),
    FileSystem(fn(&FileSystem) -> Option<f64>),
    Disk(fn(&DiskCounters) -> u64),
    Interface(fn(&InterfaceCounters) -> u64),
}

/// Every meter of the machine.
pub const HOST_METERS: &[HostMeter] = &[
    host("hardware.cpu.util", "%", |reading, context| reading.cpu?.util_since(&context.previous?)),
    host("hardware.cpu.load.1min", "process", |reading, _| Some(reading.load?[0])),
    host("hardware.cpu.load.5min", "process", |reading, _| Some(reading.load?[1])),
    host("hardware.cpu.load.15min", "process", |reading, _| Some(reading.load?[2])),
    host("hardware.memory.total", "KB", |reading, _| kib(reading, "MemTotal")),
    // What programs cannot have any more: the kernel's own estimate, in which caches count as free.
    host("hardware.memory.used", "KB", |reading, _| Some(kib(reading, "MemTotal")? - kib(reading, "MemAvailable")?)),
    host("hardware.memory.buffer", "KB", |reading, _| kib(reading, "Buffers")),
    host("hardware.memory.cached", "KB", |reading, _| kib(reading, "Cached")),
    host("hardware.memory.swap.total", "KB", |reading, _| kib(reading, "SwapTotal")),
    host("hardware.memory.swap.avail", "KB", |reading, _| kib(reading, "SwapFree")),
    file_system("hardware.disk.size.total", |file_system| Some(file_system.space?.total_bytes as f64 / 1024.0)),
    file_system("hardware.disk.size.used", |file_system| {
        let space = file_system.space?;
        Some(space.total_bytes.saturating_sub(space.free_bytes) as f64 / 1024.0)
    }),
    disk("hardware.disk.read.bytes", "B", |disk| disk.read_bytes),
    disk("hardware.disk.read.requests", "requests", |disk| disk.read_requests),
    disk("hardware.disk.write.bytes", "B", |disk| disk.write_bytes),
    disk("hardware.disk.write.requests", "requests", |disk| disk.write_requests),
    interface("hardware.network.incoming.bytes", "B", |interface| interface.rx_bytes),
    interface("hardware.network.incoming.packets", "packet", |interface| interface.rx_packets),
    interface("hardware.network.incoming.errors", "packet", |interface| interface.rx_errors),
    interface("hardware.network.incoming.drop", "packet", |interface| interface.rx_drops),
    interface("hardware.network.outgoing.bytes", "B", |interface| interface.tx_bytes),
    interface("hardware.network.outgoing.packets", "packet", |interface| interface.tx_packets),
    interface("hardware.network.outgoing.errors", "packet", |interface| interface.tx_errors),
    interface("hardware.network.outgoing.drop", "packet", |interface| interface.tx_drops),
];

const fn host(
    name: &'static str,
    unit: &'static str,
    read: fn(&HostReading, &HostContext<'_>) -> Option<f64>,
) -> HostMeter {
    HostMeter { name, kind: SampleKind::Gauge, unit, reading: Reading::Host(read) }
}

const fn file_system(name: &'static str, read: fn(&FileSystem) -> Option<f64>) -> HostMeter {
    HostMeter { name, kind: SampleKind::Gauge, unit: "KB", reading: Reading::FileSystem(read) }
}

const fn disk(name: &'static str, unit: &'static str, read: fn(&DiskCounters) -> u64) -> HostMeter {
    HostMeter { name, kind: SampleKind::Cumulative, unit, reading: Reading::Disk(read) }
}

const fn interface(name: &'static str, unit: &'static str, read: fn(&InterfaceCounters) -> u64) -> HostMeter {
    HostMeter { name, kind: SampleKind::Cumulative, unit, reading: Reading::Interface(read) }
}

fn kib(reading: &HostReading, name: &str) -> Option<f64> {
    reading.memory.get(name).map(|kib| *kib as f64)
}

/// All samples of a reading.
pub fn samples(reading: &HostReading, context: &HostContext<'_>) -> Vec<Sample> {
    let host = context.host;
    let of_host = metadata(host, []);
    let part = |name: &str| format!("{host}.{name}");
    let of_file_system = |f: &FileSystem| {
        metadata(host, [("device", f.device.as_str()), ("path", &f.mounted_at), ("file_system", &f.kind)])
    };
    let file_systems: Vec<_> = reading.file_systems.iter().map(|f| (f, part(&f.device), of_file_system(f))).collect();
    let disks: Vec<_> =
        reading.disks.iter().map(|d| (d, part(&d.device), metadata(host, [("device", d.device.as_str())]))).collect();
    let interfaces: Vec<_> =
        reading.interfaces.iter().map(|i| (i, part(&i.name), metadata(host, [("name", i.name.as_str())]))).collect();

    let mut samples = Vec::new();
    for meter in HOST_METERS {
        let mut push = |id: &str, value: f64, metadata: &Metadata| {
            samples.push(sample(meter, id.to_owned(), value, metadata.clone(), context.slot));
        };
        match meter.reading {
            Reading::Host(read) => read(reading, context).into_iter().for_each(|value| push(host, value, &of_host)),
            Reading::FileSystem(read) => {
                for (file_system, id, metadata) in &file_systems {
                    read(file_system).into_iter().for_each(|value| push(id, value, metadata));
                }
            }
            Reading::Disk(read) => disks.iter().for_each(|(disk, id, metadata)| push(id, read(disk) as f64, metadata)),
            Reading::Interface(read) => {
                interfaces.iter().for_each(|(interface, id, metadata)| push(id, read(interface) as f64, metadata));
            }
        }
    }
    samples
}

/// `resource_url` is what Ceilometer's resource definitions call the host; `host_name` is what it is.
fn metadata<const N: usize>(host: &str, more: [(&str, &str); N]) -> Metadata {
    let mut metadata =
        BTreeMap::from([("host_name".to_owned(), json!(host)), ("resource_url".to_owned(), json!(host))]);
    metadata.extend(more.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    Arc::new(metadata)
}

fn sample(meter: &HostMeter, resource_id: String, value: f64, metadata: Metadata, slot: Timestamp) -> Sample {
    Sample {
        id: sample_id(ORIGIN, &resource_id, meter.name, slot),
        meter: meter.name.to_owned(),
        kind: meter.kind,
        unit: meter.unit.to_owned(),
        value,
        timestamp: slot,
        resource_id,
        project_id: None,
        user_id: None,
        source: "openstack".to_owned(),
        metadata,
    }
}
