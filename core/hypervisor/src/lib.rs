//! Guests and their statistics: libvirt, and `simulated`.
//!
//! In: a domain's specification, or the question how all guests are doing. Out: [`GuestStats`], one per guest.
//! This room knows what a hypervisor says, not what it is called in a cloud: no meters, no samples.
//!
//! `unsafe` is denied in the whole crate but for one file, `libvirt/ffi.rs`, where C is spoken.

pub mod libvirt;
pub mod simulated;

pub use libvirt::{Libvirt, LibvirtSettings};
pub use simulated::Simulated;

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use uuid::Uuid;

/// Power state of a guest, with libvirt's numbers (`virDomainState`), which the meter `power.state` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// 0
    NoState = 0,
    /// 1
    Running = 1,
    /// 2
    Blocked = 2,
    /// 3
    Paused = 3,
    /// 4
    ShuttingDown = 4,
    /// 5
    ShutOff = 5,
    /// 6
    Crashed = 6,
    /// 7
    Suspended = 7,
}

impl PowerState {
    /// From libvirt's number; `None` for a number that libvirt did not have in version 9.
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::NoState,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Paused,
            4 => Self::ShuttingDown,
            5 => Self::ShutOff,
            6 => Self::Crashed,
            7 => Self::Suspended,
            _ => return None,
        })
    }

    /// Libvirt's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether the guest's processors exist: it consumes, and its counters are alive.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::ShutOff | Self::Crashed)
    }
}

/// One guest's statistics at one time. `None` means that the hypervisor did not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuestStats {
    /// Domain UUID: the instance id.
    pub uuid: Uuid,
    /// Domain name: `instance-00000001`.
    pub name: String,
    /// Power state.
    pub state: Option<PowerState>,
    /// CPU time of the whole guest in ns (`cpu.time`); not told while only some vCPUs tell theirs, because the two do
    /// not continue each other.
    pub cpu_time_ns: Option<u64>,
    /// Per vCPU: (time ns, wait ns or 0), only if the hypervisor told every one of them.
    pub vcpu_times_ns: Vec<(u64, u64)>,
    /// vCPUs now (`vcpu.current`).
    pub vcpus: Option<u32>,
    /// Balloon and memory figures.
    pub memory: MemoryStats,
    /// Block devices with a source.
    pub disks: Vec<DiskStats>,
    /// Network interfaces.
    pub nics: Vec<NicStats>,
    /// Performance counters, where supported.
    pub perf: PerfStats,
    /// What Nova (or our cloud) wrote into the domain; `None` for guests that no cloud made.
    pub nova: Option<NovaMetadata>,
    /// Machine of the guest: `x86_64`.
    pub architecture: Option<String>,
    /// How the guest is virtualised, in libvirt's word: `hvm`.
    pub os_type: Option<String>,
}

/// In KiB, as libvirt's balloon statistics are; swap in KiB since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)] // the names are libvirt's
pub struct MemoryStats {
    pub actual_kib: Option<u64>,
    pub available_kib: Option<u64>,
    pub usable_kib: Option<u64>,
    pub unused_kib: Option<u64>,
    pub rss_kib: Option<u64>,
    pub swap_in_kib: Option<u64>,
    pub swap_out_kib: Option<u64>,
}

/// One block device; counters since the guest started.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // requests, bytes and ns are in the names
pub struct DiskStats {
    /// Target device: `vda`.
    pub device: String,
    pub read_requests: Option<u64>,
    pub read_bytes: Option<u64>,
    pub read_ns: Option<u64>,
    pub write_requests: Option<u64>,
    pub write_bytes: Option<u64>,
    pub write_ns: Option<u64>,
    /// Logical size in bytes.
    pub capacity_bytes: Option<u64>,
    /// Highest allocated extent in bytes.
    pub allocation_bytes: Option<u64>,
    /// Size of the backing container in bytes.
    pub physical_bytes: Option<u64>,
}

/// One network interface; counters since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // bytes, packets, errors and drops are in the names
pub struct NicStats {
    /// Host device: `tap1e8c7a01-2b`.
    pub name: String,
    pub mac: Option<String>,
    /// Filter reference, if the domain has one.
    pub fref: Option<String>,
    /// Port id and the like.
    pub parameters: BTreeMap<String, String>,
    pub rx_bytes: Option<u64>,
    pub rx_packets: Option<u64>,
    pub rx_errors: Option<u64>,
    pub rx_drops: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub tx_packets: Option<u64>,
    pub tx_errors: Option<u64>,
    pub tx_drops: Option<u64>,
}

/// Hardware counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)] // the names are libvirt's
pub struct PerfStats {
    pub cpu_cycles: Option<u64>,
    pub instructions: Option<u64>,
    pub cache_references: Option<u64>,
    pub cache_misses: Option<u64>,
}

/// The `nova:instance` element (`http://openstack.org/xmlns/libvirt/nova/1.1`).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NovaMetadata {
    /// Display name.
    pub display_name: String,
    /// Owner.
    pub user_id: String,
    /// Owner's name.
    pub user_name: String,
    /// Project.
    pub project_id: String,
    /// Project's name.
    pub project_name: String,
    /// Flavor.
    pub flavor: Flavor,
    /// Image the root disk was made from.
    pub image_id: Option<Uuid>,
}

/// A flavor as Nova writes it into the domain.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Flavor {
    /// Flavor id; empty if the domain's metadata does not tell (format 1.0).
    pub id: String,
    /// Flavor name.
    pub name: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Root disk in GiB, as Nova's metadata counts (`<nova:disk>` is the flavor's `root_gb`).
    pub disk_gib: u64,
    /// Ephemeral disk in GiB, beside the root disk.
    pub ephemeral_gib: u64,
    /// Swap in MiB.
    pub swap_mib: u64,
}

/// What a guest is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSpec {
    /// Becomes the domain UUID.
    pub uuid: Uuid,
    /// Becomes the domain name: `instance-00000001`.
    pub name: String,
    /// Written into the domain.
    pub nova: NovaMetadata,
    /// Root disk, already in place (a copy or overlay of the image); `None` only for simulated guests.
    pub root_disk: Option<Disk>,
    /// MAC address of the only interface; `None` for no interface.
    pub mac: Option<String>,
}

/// A disk file.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Path on the host. Made by us, never from a user's text.
    pub path: PathBuf,
    /// `raw` or `qcow2`, verified by the image service, never guessed.
    pub format: String,
}

/// The machine that guests run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Host name.
    pub hostname: String,
    /// `QEMU` (libvirt's word) or `simulated`.
    pub hypervisor_type: String,
    /// Encoded as Nova does: major*1000000 + minor*1000 + release.
    pub hypervisor_version: u64,
    /// Logical CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk for guests in GiB.
    pub disk_gib: u64,
}

/// Runs guests and tells about them. Calls may take long; the implementation keeps them off the async threads and
/// gives each a deadline.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// `libvirt` or `simulated`; shown wherever a user meets these guests.
    fn kind(&self) -> &'static str;
    /// The machine.
    async fn node(&self) -> Result<Node, HypervisorError>;
    /// All guests' statistics by one bulk call.
    async fn stats(&self) -> Result<Vec<GuestStats>, HypervisorError>;
    /// Defines and starts a guest. Idempotent by uuid.
    async fn create(&self, spec: &GuestSpec) -> Result<(), HypervisorError>;
    /// Starts a guest that is off. `Ok` if it runs already.
    async fn start(&self, uuid: Uuid) -> Result<(), HypervisorError>;
    /// Stops a guest: asks it to shut down and pulls the plug after a grace time; at once if `hard`.
    async fn stop(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError>;
    /// Restarts a guest; counters start again if `hard`.
    async fn reboot(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError>;
    /// Destroys and undefines a guest. `Ok` if it is gone already. Does not touch disks.
    async fn destroy(&self, uuid: Uuid) -> Result<(), HypervisorError>;
    /// Power state; `None` if there is no such guest.
    async fn state(&self, uuid: Uuid) -> Result<Option<PowerState>, HypervisorError>;
}

/// What a hypervisor could not do.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// No such guest.
    #[error("no guest {uuid}")]
    NoGuest {
        /// Which.
        uuid: Uuid,
    },
    /// libvirt's library or daemon is not there.
    #[error("libvirt is not available: {reason}")]
    NotAvailable {
        /// What is missing.
        reason: String,
    },
    /// The hypervisor said no.
    #[error("cannot {action}: {reason}")]
    Failed {
        /// What was asked.
        action: &'static str,
        /// Its words.
        reason: String,
    },
    /// No answer within the deadline.
    #[error("cannot {action}: no answer within {deadline_ms} ms")]
    Deadline {
        /// What was asked.
        action: &'static str,
        /// How long was waited.
        deadline_ms: u64,
    },
}

impl HypervisorError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotAvailable { .. } | Self::Deadline { .. })
    }
}
