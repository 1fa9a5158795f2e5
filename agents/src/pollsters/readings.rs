//! How a meter's value is read from a guest's statistics. Pure; `None` means that the hypervisor did not say.

use orzo_hypervisor::{DiskStats, GuestStats};

/// A counter as a value. Exact up to 2^53: 104 days of nanoseconds on one processor, 8 PiB.
pub(super) fn count(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

/// KiB as MiB.
pub(super) fn mib(kib: Option<u64>) -> Option<f64> {
    count(kib).map(|kib| kib / 1024.0)
}

/// Libvirt's number of the power state.
pub(super) fn power_state(guest: &GuestStats) -> Option<f64> {
    guest.state.map(|state| f64::from(state.number()))
}

/// Time *and wait* of all vCPUs if the hypervisor tells them, else the guest's CPU time. (Ceilometer's rule; the time
/// that a vCPU waited for a processor counts as used.)
pub(super) fn cpu_ns(guest: &GuestStats) -> Option<f64> {
    if guest.vcpu_times_ns.is_empty() {
        return count(guest.cpu_time_ns);
    }
    let sum =
        guest.vcpu_times_ns.iter().fold(0u64, |sum, (time, wait)| sum.saturating_add(*time).saturating_add(*wait));
    Some(sum as f64)
}

/// What the guest cannot give to new programs: available minus usable, or minus unused on balloon drivers that do not
/// tell usable.
pub(super) fn memory_usage_mib(guest: &GuestStats) -> Option<f64> {
    let memory = &guest.memory;
    let free = memory.usable_kib.or(memory.unused_kib)?;
    mib(Some(memory.available_kib?.saturating_sub(free)))
}

/// Only together with swap out: a driver that tells one of them is not to be believed (Ceilometer's rule).
pub(super) fn swap_in_mib(guest: &GuestStats) -> Option<f64> {
    guest.memory.swap_out_kib.and_then(|_| mib(guest.memory.swap_in_kib))
}

/// Only together with swap in.
pub(super) fn swap_out_mib(guest: &GuestStats) -> Option<f64> {
    guest.memory.swap_in_kib.and_then(|_| mib(guest.memory.swap_out_kib))
}

/// The flavor's root disk, as Nova's notifications report it (`root_gb`).
pub(super) fn root_gib(guest: &GuestStats) -> Option<f64> {
    guest.nova.as_ref().map(|nova| nova.flavor.disk_gib as f64)
}

/// The flavor's ephemeral disk.
pub(super) fn ephemeral_gib(guest: &GuestStats) -> Option<f64> {
    guest.nova.as_ref().map(|nova| nova.flavor.ephemeral_gib as f64)
}

/// The larger of logical size and container: a block device that was grown under the guest.
pub(super) fn capacity_bytes(disk: &DiskStats) -> Option<f64> {
    count(Some(disk.capacity_bytes?.max(disk.physical_bytes.unwrap_or(0))))
}
