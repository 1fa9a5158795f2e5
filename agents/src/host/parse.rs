//! What the texts of /proc say. Pure; a line that is not as the kernel's documentation (`proc(5)`) has it is skipped.

use std::collections::{BTreeMap, BTreeSet};

/// Disks, file systems and interfaces reported at most: beyond it a host is not described but flooded.
const PARTS_MAX: usize = 512;
/// /proc/diskstats counts in sectors of this size, whatever the device's own.
const SECTOR_BYTES: u64 = 512;
/// Guests' ends of the network: measured as the guests' own interfaces.
const GUEST_INTERFACES: [&str; 6] = ["tap", "vnet", "veth", "qvo", "qvb", "cali"];
/// Block devices that are memory, files or nothing.
const PSEUDO_DEVICES: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];
/// Read-only images: always full, which alarms nobody.
const IMAGE_FILE_SYSTEMS: [&str; 3] = ["squashfs", "iso9660", "erofs"];

/// The figures of a machine at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReading {
    /// Processor times since boot.
    pub cpu: Option<CpuTimes>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory by /proc/meminfo's names, in KiB.
    pub memory: BTreeMap<String, u64>,
    /// Whole block devices.
    pub disks: Vec<DiskCounters>,
    /// Mounted file systems on devices, each device once.
    pub file_systems: Vec<FileSystem>,
    /// Network interfaces but loopback and guests' ends.
    pub interfaces: Vec<InterfaceCounters>,
}

/// Ticks of all processors together since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// All ticks.
    pub total: u64,
    /// Ticks without work: idle, and waiting for disks.
    pub idle: u64,
}

impl CpuTimes {
    /// Use since `earlier` in percent; `None` if no time has passed or the machine restarted in between.
    pub fn util_since(&self, earlier: &Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        // The kernel's idle counters may go back a little when processors go offline.
        let idle = self.idle.saturating_sub(earlier.idle).min(total);
        Some((total - idle) as f64 * 100.0 / total as f64)
    }
}

/// Counters of a block device since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// `sda`.
    pub device: String,
    /// Reads completed.
    pub read_requests: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub write_requests: u64,
    /// Bytes written.
    pub write_bytes: u64,
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Device without `/dev/`: `sda1`; `overlay` and the like for a root without a device.
    pub device: String,
    /// First place where it is mounted.
    pub mounted_at: String,
    /// `ext4`.
    pub kind: String,
    /// Filled in by who can ask the file system.
    pub space: Option<Space>,
}

/// Space of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size.
    pub total_bytes: u64,
    /// Not in use, including what is reserved for root.
    pub free_bytes: u64,
}

/// Counters of an interface since it came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // bytes, packets, errors and drops are in the names
pub struct InterfaceCounters {
    /// `eth0`.
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_drops: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_drops: u64,
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal (guest times are in user and nice).
pub fn cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|text| text.parse().ok()).collect();
    let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
    Some(CpuTimes { total: ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks)), idle })
}

/// /proc/loadavg: `0.52 0.58 0.59 1/467 1234`.
pub fn load(loadavg: &str) -> Option<[f64; 3]> {
    let mut averages = loadavg.split_whitespace().map_while(|text| text.parse::<f64>().ok());
    Some([averages.next()?, averages.next()?, averages.next()?])
}

/// /proc/meminfo: `MemTotal:       16323412 kB` (KiB, in spite of its name).
pub fn memory(meminfo: &str) -> BTreeMap<String, u64> {
    meminfo
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let kib = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some((name.to_owned(), kib))
        })
        .collect()
}

/// /proc/diskstats: major minor name reads merged sectors ms writes merged sectors ms ...; only `whole` devices that
/// were ever used.
pub fn disks(diskstats: &str, whole: &BTreeSet<String>) -> Vec<DiskCounters> {
    let is_pseudo = |name: &str| {
        PSEUDO_DEVICES.iter().any(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.parse::<u32>().is_ok()))
    };
    diskstats
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
            let device = (*fields.get(2)?).to_owned();
            Some(DiskCounters {
                device,
                read_requests: number(3)?,
                read_bytes: number(5)?.saturating_mul(SECTOR_BYTES),
                write_requests: number(7)?,
                write_bytes: number(9)?.saturating_mul(SECTOR_BYTES),
            })
        })
        .filter(|disk| whole.contains(&disk.device) && !is_pseudo(&disk.device))
        .filter(|disk| disk.read_requests > 0 || disk.write_requests > 0)
        .take(PARTS_MAX)
        .collect()
}

/// /proc/self/mounts: file systems on local devices, and the root whatever it is on. A remote file system is not this
/// host's disk, and asking a dead one would hang.
pub fn file_systems(mounts: &str) -> Vec<FileSystem> {
    let mut seen = BTreeSet::new();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (source, mounted_at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let device = source.strip_prefix("/dev/").or((mounted_at == "/").then_some(source))?;
            let is_image = IMAGE_FILE_SYSTEMS.contains(&kind);
            (!is_image && seen.insert(device.to_owned())).then(|| FileSystem {
                // A slash cannot stand in a resource's id.
                device: device.replace('/', "_"),
                mounted_at: unescape(mounted_at),
                kind: kind.to_owned(),
                space: None,
            })
        })
        .take(PARTS_MAX)
        .collect()
}

/// /proc/net/dev: `eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop ...`.
pub fn interfaces(dev: &str) -> Vec<InterfaceCounters> {
    dev.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let counters: Vec<u64> = rest.split_whitespace().map_while(|text| text.parse().ok()).collect();
            let [rx_bytes, rx_packets, rx_errors, rx_drops, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_drops, ..] =
                counters[..]
            else {
                return None;
            };
            let name = name.trim().to_owned();
            Some(InterfaceCounters {
                name,
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_drops,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_drops,
            })
        })
        .filter(|interface| interface.name != "lo")
        .filter(|interface| !GUEST_INTERFACES.iter().any(|prefix| interface.name.starts_with(prefix)))
        .take(PARTS_MAX)
        .collect()
}

/// The kernel writes space, tab, newline and backslash in paths as octal: `\040`.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (octal, character)| path.replace(octal, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_times_and_their_difference() {
        let stat = "cpu  100 20 30 800 50 0 0 0 40 0\ncpu0 1 2 3 4\nintr 5\n";
        let first = cpu_times(stat).unwrap();
        assert_eq!(first, CpuTimes { total: 1000, idle: 850 }, "guest time is in user already");
        let second = CpuTimes { total: 1100, idle: 925 };
        assert_eq!(second.util_since(&first), Some(25.0));
        assert_eq!(first.util_since(&first), None, "no time has passed");
        assert_eq!(first.util_since(&second), None, "restarted");
        assert_eq!(CpuTimes { total: 1100, idle: 800 }.util_since(&first), Some(100.0));
        assert_eq!(cpu_times("cpu\n"), None);
        assert_eq!(cpu_times("cpu  1 x 3 4"), None);
    }

    #[test]
    fn load_and_memory() {
        assert_eq!(load("0.52 0.58 1.59 1/467 1234\n"), Some([0.52, 0.58, 1.59]));
        assert_eq!(load("0.52 x"), None);
        let memory = memory("MemTotal:       16323412 kB\nHugePages_Total:       0\nBuffers: 7 kB\nnonsense\n");
        assert_eq!(memory, BTreeMap::from([("MemTotal".into(), 16_323_412), ("Buffers".into(), 7)]));
    }

    #[test]
    fn whole_used_devices_only() {
        let text = "   8       0 sda 10 1 200 5 20 2 400 6 0 7 8\n   8       1 sda1 1 0 2 0 1 0 2 0 0 0 0\n \
                    7       0 loop0 9 0 9 0 0 0 0 0 0 0 0\n 253       0 dm-0 1 0 8 0 0 0 0 0 0 0 0\n   8      16 sdb 0 0 0 0 0 0 0 0 0 0 0\n short\n";
        let whole = ["sda", "sdb", "loop0", "dm-0"].map(str::to_owned).into();
        let disks = disks(text, &whole);
        assert_eq!(disks.iter().map(|disk| disk.device.as_str()).collect::<Vec<_>>(), ["sda", "dm-0"]);
        assert_eq!(
            disks[0],
            DiskCounters {
                device: "sda".into(),
                read_requests: 10,
                read_bytes: 102_400,
                write_requests: 20,
                write_bytes: 204_800
            }
        );
    }

    #[test]
    fn local_file_systems_each_once_and_the_root() {
        let text = "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /data\\040disk ext4 rw 0 0\n\
                    /dev/sda1 /again ext4 rw 0 0\n/dev/mapper/vg-home /home xfs rw 0 0\n/dev/loop3 /snap squashfs ro 0 0\n\
                    server:/share /mnt nfs4 rw 0 0\n";
        let found = file_systems(text);
        let found: Vec<_> = found.iter().map(|f| (f.device.as_str(), f.mounted_at.as_str(), f.kind.as_str())).collect();
        assert_eq!(
            found,
            [("overlay", "/", "overlay"), ("sda1", "/data disk", "ext4"), ("mapper_vg-home", "/home", "xfs")]
        );
    }

    #[test]
    fn interfaces_of_the_host() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                    eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\ntap12: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n bad: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        let eth0 = &found[0];
        assert_eq!((eth0.name.as_str(), eth0.rx_bytes, eth0.rx_drops), ("eth0", 1, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_drops), (9, 10, 11, 12));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "[a-z0-9:./ \n\\\\-]{0,200}") {
            let _ = (cpu_times(&text), load(&text), memory(&text), file_systems(&text), interfaces(&text));
            let _ = disks(&text, &BTreeSet::new());
        }
    }
}
