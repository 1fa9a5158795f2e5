//! What Ceilometer's meters mean, a sentence for each (after the notes of Ceilometer's meter table).

/// What a meter means; `None` for a meter that nobody here knows.
pub fn help(meter: &str) -> Option<&'static str> {
    HELP.iter().find(|(name, _)| *name == meter).map(|(_, help)| *help)
}

/// By name. A meter `<counter>.rate` is explained by its counter.
const HELP: &[(&str, &str)] = &[
    ("backup.size", "Size of the volume's backup, as notifications tell it"),
    ("bandwidth", "Bytes that passed a metering label of a router since the last notification"),
    ("compute.instance.booting.time", "Time from the request for an instance until it was active"),
    ("compute.node.cpu.frequency", "Clock rate of the node's processors"),
    ("compute.node.cpu.idle.percent", "Share of time in which the node's processors were idle"),
    ("compute.node.cpu.idle.time", "Time in which the node's processors were idle"),
    ("compute.node.cpu.iowait.percent", "Share of time in which the node's processors waited for input and output"),
    ("compute.node.cpu.iowait.time", "Time in which the node's processors waited for input and output"),
    ("compute.node.cpu.kernel.percent", "Share of time of the node's processors in the kernel"),
    ("compute.node.cpu.kernel.time", "Time of the node's processors in the kernel"),
    ("compute.node.cpu.percent", "Share of time in which the node's processors were busy"),
    ("compute.node.cpu.user.percent", "Share of time of the node's processors in user programs"),
    ("compute.node.cpu.user.time", "Time of the node's processors in user programs"),
    ("cpu", "Processor time that the instance has used"),
    ("cpu_util", "Processor time that the instance used, in percent of its vCPUs' time"),
    ("disk.device.allocation", "Bytes of the device that are allocated on the host"),
    ("disk.device.capacity", "Bytes of the device that the instance sees"),
    ("disk.device.read.bytes", "Bytes read from the device"),
    ("disk.device.read.latency", "Time spent in reads of the device"),
    ("disk.device.read.requests", "Read requests to the device"),
    ("disk.device.usage", "Bytes of the device's file or volume on the host"),
    ("disk.device.write.bytes", "Bytes written to the device"),
    ("disk.device.write.latency", "Time spent in writes to the device"),
    ("disk.device.write.requests", "Write requests to the device"),
    ("disk.ephemeral.size", "Size of the instance's ephemeral disk"),
    ("disk.root.size", "Size of the instance's root disk"),
    ("hardware.cpu.load.15min", "Processes that ran or waited, on average over the past 15 minutes"),
    ("hardware.cpu.load.1min", "Processes that ran or waited, on average over the past minute"),
    ("hardware.cpu.load.5min", "Processes that ran or waited, on average over the past 5 minutes"),
    ("hardware.cpu.util", "Share of time in which the host's processors were busy"),
    ("hardware.disk.read.bytes", "Bytes read from the host's disk"),
    ("hardware.disk.read.requests", "Read requests to the host's disk"),
    ("hardware.disk.size.total", "Size of the host's file system"),
    ("hardware.disk.size.used", "Used part of the host's file system"),
    ("hardware.disk.write.bytes", "Bytes written to the host's disk"),
    ("hardware.disk.write.requests", "Write requests to the host's disk"),
    ("hardware.memory.buffer", "Memory of the host in buffers"),
    ("hardware.memory.cached", "Memory of the host in caches"),
    ("hardware.memory.swap.avail", "Free swap space of the host"),
    ("hardware.memory.swap.total", "Swap space of the host"),
    ("hardware.memory.total", "Memory of the host"),
    ("hardware.memory.used", "Memory of the host that programs cannot have any more"),
    ("hardware.network.incoming.bytes", "Bytes that the host's interface received"),
    ("hardware.network.incoming.drop", "Received packets that the host's interface dropped"),
    ("hardware.network.incoming.errors", "Received packets of the host's interface with errors"),
    ("hardware.network.incoming.packets", "Packets that the host's interface received"),
    ("hardware.network.outgoing.bytes", "Bytes that the host's interface sent"),
    ("hardware.network.outgoing.drop", "Outgoing packets that the host's interface dropped"),
    ("hardware.network.outgoing.errors", "Outgoing packets of the host's interface with errors"),
    ("hardware.network.outgoing.packets", "Packets that the host's interface sent"),
    ("image.download", "Bytes of the image that were sent to who asked for it"),
    ("image.serve", "Bytes of the image that its owner served"),
    ("image.size", "Size of the image"),
    ("manila.share.size", "Size of the file share"),
    ("memory", "Memory of the instance"),
    ("memory.available", "Memory that the instance's system sees"),
    ("memory.resident", "Memory of the host that the instance has"),
    ("memory.swap.in", "Memory of the instance that came back from swap"),
    ("memory.swap.out", "Memory of the instance that went to swap"),
    ("memory.usage", "Memory that the instance's system uses"),
    ("network.incoming.bytes", "Bytes that the instance's interface received"),
    ("network.incoming.packets", "Packets that the instance's interface received"),
    ("network.incoming.packets.drop", "Received packets that the instance's interface dropped"),
    ("network.incoming.packets.error", "Received packets of the instance's interface with errors"),
    ("network.outgoing.bytes", "Bytes that the instance's interface sent"),
    ("network.outgoing.packets", "Packets that the instance's interface sent"),
    ("network.outgoing.packets.drop", "Outgoing packets that the instance's interface dropped"),
    ("network.outgoing.packets.error", "Outgoing packets of the instance's interface with errors"),
    ("perf.cache.misses", "Cache misses of the instance"),
    ("perf.cache.references", "Cache references of the instance"),
    ("perf.cpu.cycles", "Processor cycles of the instance"),
    ("perf.instructions", "Processor instructions of the instance"),
    ("power.state", "State of the instance's domain, as libvirt numbers it"),
    ("snapshot.size", "Size of the volume's snapshot, as notifications tell it"),
    ("vcpus", "vCPUs of the instance"),
    ("volume.backup.size", "Size of the volume's backup"),
    ("volume.provider.capacity.allocated", "Space of the volume backend that volumes have"),
    ("volume.provider.capacity.free", "Free space of the volume backend"),
    ("volume.provider.capacity.provisioned", "Space that the volume backend has promised"),
    ("volume.provider.capacity.total", "Space of the volume backend"),
    ("volume.provider.capacity.virtual_free", "Space that the volume backend can still promise"),
    ("volume.provider.pool.capacity.allocated", "Space of the volume pool that volumes have"),
    ("volume.provider.pool.capacity.free", "Free space of the volume pool"),
    ("volume.provider.pool.capacity.provisioned", "Space that the volume pool has promised"),
    ("volume.provider.pool.capacity.total", "Space of the volume pool"),
    ("volume.provider.pool.capacity.virtual_free", "Space that the volume pool can still promise"),
    ("volume.size", "Size of the volume"),
    ("volume.snapshot.size", "Size of the volume's snapshot"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_explained_once_and_in_order() {
        assert!(HELP.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(help("vcpus"), Some("vCPUs of the instance"));
        assert_eq!(help("nothing"), None);
    }
}
