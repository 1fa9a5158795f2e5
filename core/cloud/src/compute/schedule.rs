//! Where a new server goes: filter the hosts that can take it, weigh by free memory. Pure.
//!
//! The claim itself is the server's row; whoever calls this does so inside the transaction that writes the row, so
//! that two requests at once cannot both take the last place.

/// What a server takes, or a host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Virtual (or logical) CPUs.
    pub vcpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Root and ephemeral disk, GiB.
    pub disk_gib: u64,
}

impl Amount {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_add(other.vcpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_gib: self.disk_gib.saturating_add(other.disk_gib),
        }
    }
}

/// How much may be promised for each real one. Nova's initial ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Virtual CPUs per logical CPU.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// Disk.
    pub disk: f64,
}

impl Default for Ratios {
    fn default() -> Self {
        Self { cpu: 4.0, memory: 1.0, disk: 1.0 }
    }
}

/// A host, with what its servers have claimed already.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// May get new servers.
    pub enabled: bool,
    /// What it has.
    pub total: Amount,
    /// What is claimed.
    pub used: Amount,
}

/// Why no host can take it: host and reason.
pub type Rejections = Vec<(String, &'static str)>;

/// The host with the most free memory among those that can take `wanted`.
pub fn choose(hosts: &[Host], wanted: Amount, ratios: Ratios) -> Result<&Host, Rejections> {
    let mut rejections = Vec::new();
    let mut best: Option<(&Host, u64)> = None;
    for host in hosts {
        if let Some(reason) = objection(host, wanted, ratios) {
            rejections.push((host.name.clone(), reason));
            continue;
        }
        let free = limit(host.total.memory_mib, ratios.memory).saturating_sub(host.used.memory_mib);
        // Of equals the first, so that the choice does not depend on chance.
        if best.is_none_or(|(_, most)| free > most) {
            best = Some((host, free));
        }
    }
    best.map(|(host, _)| host).ok_or(rejections)
}

fn objection(host: &Host, wanted: Amount, ratios: Ratios) -> Option<&'static str> {
    let exceeds = |total: u64, ratio: f64, used: u64, wanted: u64| used.saturating_add(wanted) > limit(total, ratio);
    if !host.enabled {
        Some("disabled")
    } else if wanted.vcpus > host.total.vcpus || exceeds(host.total.vcpus, ratios.cpu, host.used.vcpus, wanted.vcpus) {
        // One server never gets more vCPUs than the host has CPUs, whatever the ratio (Nova's max_unit).
        Some("vCPUs")
    } else if exceeds(host.total.memory_mib, ratios.memory, host.used.memory_mib, wanted.memory_mib) {
        Some("memory")
    } else if exceeds(host.total.disk_gib, ratios.disk, host.used.disk_gib, wanted.disk_gib) {
        Some("disk")
    } else {
        None
    }
}

fn limit(total: u64, ratio: f64) -> u64 {
    // Rounded down: a promise is never larger than the ratio allows.
    (total as f64 * ratio).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, vcpus: u64, memory_mib: u64, used_mib: u64) -> Host {
        Host {
            name: name.to_owned(),
            enabled: true,
            total: Amount { vcpus, memory_mib, disk_gib: 100 },
            used: Amount { vcpus: 0, memory_mib: used_mib, disk_gib: 0 },
        }
    }

    const SMALL: Amount = Amount { vcpus: 1, memory_mib: 512, disk_gib: 1 };

    #[test]
    fn the_host_with_most_free_memory_wins_and_of_equals_the_first() {
        let hosts = [host("a", 4, 4096, 3000), host("b", 4, 4096, 100), host("c", 4, 4096, 100)];
        assert_eq!(choose(&hosts, SMALL, Ratios::default()).expect("fits").name, "b");
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_the_reason() {
        let mut off = host("off", 4, 4096, 0);
        off.enabled = false;
        let mut no_disk = host("disk", 4, 4096, 0);
        no_disk.used.disk_gib = 100;
        let mut no_cpu = host("cpu", 1, 4096, 0);
        no_cpu.used.vcpus = 4;
        let hosts = [off, no_disk, no_cpu, host("memory", 4, 4096, 4000)];
        let rejections = choose(&hosts, SMALL, Ratios::default()).expect_err("nothing fits");
        let reasons: Vec<&str> = rejections.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, ["disabled", "disk", "vCPUs", "memory"]);
    }

    #[test]
    fn ratios_stretch_what_is_shared_but_not_a_single_server() {
        let mut one = host("one", 2, 4096, 0);
        one.used.vcpus = 7;
        assert!(choose(std::slice::from_ref(&one), SMALL, Ratios::default()).is_ok());
        one.used.vcpus = 8;
        assert!(choose(std::slice::from_ref(&one), SMALL, Ratios::default()).is_err());
        let wide = Amount { vcpus: 3, ..SMALL };
        assert!(choose(&[host("one", 2, 4096, 0)], wide, Ratios::default()).is_err());
    }
}
