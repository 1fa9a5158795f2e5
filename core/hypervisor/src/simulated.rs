//! Simulated guests: no processor runs, but they look alive, so that Orzo can be tried where there is no libvirt.
//!
//! In: guests' specifications and the clock. Out: statistics that a day of people, batch jobs and chance would make
//! (see `load`). The same seed and UUID always give the same guest. They are called `simulated` wherever a user
//! meets them: as hypervisor type, guest type and driver.

mod load;

use std::collections::BTreeMap;

use async_trait::async_trait;
use orzo_model::{SharedClock, Timestamp};
use parking_lot::Mutex;
use uuid::Uuid;

use self::load::{Load, Totals};
use crate::{
    DiskStats, Flavor, GuestSpec, GuestStats, Hypervisor, HypervisorError, MemoryStats, NicStats, Node, NovaMetadata,
    PerfStats, PowerState,
};

/// Simulated guests on a simulated machine.
pub struct Simulated {
    seed: u64,
    clock: SharedClock,
    node: Node,
    guests: Mutex<BTreeMap<Uuid, Guest>>,
}

struct Guest {
    spec: GuestSpec,
    /// `None` while it is off.
    load: Option<Load>,
}

impl Simulated {
    /// A machine without guests. It is large enough for a demonstration and small enough to fill up.
    pub fn new(hostname: impl Into<String>, seed: u64, clock: SharedClock) -> Self {
        Self {
            seed,
            clock,
            node: Node {
                hostname: hostname.into(),
                hypervisor_type: "simulated".to_owned(),
                hypervisor_version: 1_000_000,
                vcpus: 32,
                memory_mib: 128 * 1024,
                disk_gib: 2_000,
            },
            guests: Mutex::default(),
        }
    }

    /// Fills the machine with `count` running guests of one project, far beyond its size: for measuring ourselves.
    pub fn populate(&self, count: u32) {
        let now = self.clock.now();
        let mut guests = self.guests.lock();
        for number in 0..count {
            let spec = populated_spec(self.seed, number);
            let load = Some(Load::new(self.seed, &spec, now));
            guests.insert(spec.uuid, Guest { spec, load });
        }
    }

    fn with_guest<T>(&self, uuid: Uuid, act: impl FnOnce(&mut Guest, Timestamp) -> T) -> Result<T, HypervisorError> {
        let now = self.clock.now();
        self.guests.lock().get_mut(&uuid).map(|guest| act(guest, now)).ok_or(HypervisorError::NoGuest { uuid })
    }
}

#[async_trait]
impl Hypervisor for Simulated {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    async fn node(&self) -> Result<Node, HypervisorError> {
        Ok(self.node.clone())
    }

    async fn stats(&self) -> Result<Vec<GuestStats>, HypervisorError> {
        let now = self.clock.now();
        Ok(self.guests.lock().values_mut().map(|guest| guest.stats(now)).collect())
    }

    async fn create(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        let mut guests = self.guests.lock();
        let guest = guests.entry(spec.uuid).or_insert_with(|| Guest { spec: spec.clone(), load: None });
        guest.load.get_or_insert_with(|| Load::new(self.seed, spec, now));
        Ok(())
    }

    async fn start(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        let seed = self.seed;
        self.with_guest(uuid, |guest, now| {
            guest.load.get_or_insert_with(|| Load::new(seed, &guest.spec, now));
        })
    }

    async fn stop(&self, uuid: Uuid, _hard: bool) -> Result<(), HypervisorError> {
        self.with_guest(uuid, |guest, _| guest.load = None)
    }

    async fn reboot(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
        if hard {
            self.stop(uuid, true).await?;
        }
        self.start(uuid).await
    }

    async fn destroy(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.guests.lock().remove(&uuid);
        Ok(())
    }

    async fn state(&self, uuid: Uuid) -> Result<Option<PowerState>, HypervisorError> {
        Ok(self.guests.lock().get(&uuid).map(Guest::state))
    }
}

impl Guest {
    fn state(&self) -> PowerState {
        if self.load.is_some() { PowerState::Running } else { PowerState::ShutOff }
    }

    fn stats(&mut self, now: Timestamp) -> GuestStats {
        let off = GuestStats {
            uuid: self.spec.uuid,
            name: self.spec.name.clone(),
            state: Some(self.state()),
            nova: Some(self.spec.nova.clone()),
            os_type: Some("simulated".to_owned()),
            ..GuestStats::default()
        };
        let Some(load) = &mut self.load else { return off };
        let totals = load.totals_at(now);
        let memory_used = load.memory_used_at(now);
        let flavor = &self.spec.nova.flavor;
        GuestStats {
            cpu_time_ns: Some(whole(totals.cpu_ns)),
            vcpu_times_ns: vcpu_times(flavor.vcpus.max(1), &totals),
            vcpus: Some(flavor.vcpus.max(1)),
            memory: memory(flavor.memory_mib * 1024, memory_used),
            disks: vec![disk(flavor, &totals)],
            nics: self.spec.mac.as_deref().map(|mac| nic(self.spec.uuid, mac, &totals)).into_iter().collect(),
            perf: PerfStats::default(),
            ..off
        }
    }
}

/// Counters are whole; a cast of a float to an integer saturates.
fn whole(total: f64) -> u64 {
    total as u64
}

/// The load spread evenly over the processors, which never wait.
fn vcpu_times(vcpus: u32, totals: &Totals) -> Vec<(u64, u64)> {
    (0..vcpus).map(|_| (whole(totals.cpu_ns / f64::from(vcpus)), 0)).collect()
}

fn memory(total_kib: u64, used: f64) -> MemoryStats {
    let used_kib = (total_kib as f64 * used) as u64;
    MemoryStats {
        actual_kib: Some(total_kib),
        available_kib: Some(total_kib),
        usable_kib: Some(total_kib - used_kib.min(total_kib)),
        // A tenth of what is usable holds caches.
        unused_kib: Some((total_kib - used_kib.min(total_kib)) / 10 * 9),
        rss_kib: Some(used_kib),
        swap_in_kib: Some(0),
        swap_out_kib: Some(0),
    }
}

fn disk(flavor: &Flavor, totals: &Totals) -> DiskStats {
    let capacity = flavor.disk_gib.max(1) << 30;
    // The image fills a tenth; what is written fills the rest over time.
    let allocated = (capacity / 10).saturating_add(whole(totals.disk_write_bytes / 50.0)).min(capacity);
    DiskStats {
        device: "vda".to_owned(),
        read_requests: Some(whole(totals.disk_read_bytes / load::REQUEST_BYTES)),
        read_bytes: Some(whole(totals.disk_read_bytes)),
        read_ns: Some(whole(totals.disk_read_bytes / load::REQUEST_BYTES * load::REQUEST_NS)),
        write_requests: Some(whole(totals.disk_write_bytes / load::REQUEST_BYTES)),
        write_bytes: Some(whole(totals.disk_write_bytes)),
        write_ns: Some(whole(totals.disk_write_bytes / load::REQUEST_BYTES * load::REQUEST_NS)),
        capacity_bytes: Some(capacity),
        allocation_bytes: Some(allocated),
        physical_bytes: Some(allocated),
    }
}

fn nic(uuid: Uuid, mac: &str, totals: &Totals) -> NicStats {
    NicStats {
        // As libvirt names host devices: `tap` and the start of an id.
        name: format!("tap{}", &uuid.simple().to_string()[..11]),
        mac: Some(mac.to_owned()),
        rx_bytes: Some(whole(totals.net_rx_bytes)),
        rx_packets: Some(whole(totals.net_rx_bytes / load::PACKET_BYTES)),
        rx_errors: Some(0),
        rx_drops: Some(0),
        tx_bytes: Some(whole(totals.net_tx_bytes)),
        tx_packets: Some(whole(totals.net_tx_bytes / load::PACKET_BYTES)),
        tx_errors: Some(0),
        tx_drops: Some(0),
        ..NicStats::default()
    }
}

/// The `number`th guest of a populated machine.
fn populated_spec(seed: u64, number: u32) -> GuestSpec {
    let flavors = [("m1.tiny", 1, 512, 1), ("m1.small", 1, 2048, 20), ("m1.medium", 2, 4096, 40)];
    let (name, vcpus, memory_mib, disk_gib) = flavors[number as usize % flavors.len()];
    GuestSpec {
        uuid: Uuid::from_u64_pair(seed, u64::from(number)),
        name: format!("instance-{number:08x}"),
        nova: NovaMetadata {
            display_name: format!("simulated-{number}"),
            user_id: "00000000000000000000000000000001".to_owned(),
            user_name: "simulated".to_owned(),
            project_id: "00000000000000000000000000000002".to_owned(),
            project_name: "simulated".to_owned(),
            flavor: Flavor {
                id: name.to_owned(),
                name: name.to_owned(),
                vcpus,
                memory_mib,
                disk_gib,
                ..Flavor::default()
            },
            image_id: None,
        },
        root_disk: None,
        mac: Some(format!("fa:16:3e:{:02x}:{:02x}:{:02x}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orzo_model::ManualClock;

    use super::*;

    fn machine() -> (std::sync::Arc<ManualClock>, Simulated) {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_291_459));
        (clock.clone(), Simulated::new("simulated-host", 7, clock))
    }

    async fn only(machine: &Simulated) -> GuestStats {
        machine.stats().await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn counters_grow_and_start_again_with_the_guest() {
        let (clock, machine) = machine();
        let spec = populated_spec(7, 2);
        machine.create(&spec).await.unwrap();
        let mut last = only(&machine).await;
        assert_eq!(last.cpu_time_ns, Some(0));
        for _ in 0..500 {
            clock.advance(Duration::from_millis(7_300));
            let now = only(&machine).await;
            assert!(now.cpu_time_ns > last.cpu_time_ns);
            assert!(now.disks[0].write_bytes >= last.disks[0].write_bytes);
            assert!(now.nics[0].rx_bytes >= last.nics[0].rx_bytes);
            let share = (now.cpu_time_ns.unwrap() - last.cpu_time_ns.unwrap()) as f64 / (7.3e9 * 2.0);
            assert!((0.0..=1.000_001).contains(&share), "{share}");
            last = now;
        }
        machine.stop(spec.uuid, false).await.unwrap();
        let off = only(&machine).await;
        assert_eq!((off.state, off.cpu_time_ns, off.disks.len()), (Some(PowerState::ShutOff), None, 0));
        machine.start(spec.uuid).await.unwrap();
        clock.advance(Duration::from_secs(1));
        assert!(only(&machine).await.cpu_time_ns < last.cpu_time_ns);
        let before = only(&machine).await.cpu_time_ns;
        machine.reboot(spec.uuid, false).await.unwrap();
        assert_eq!(only(&machine).await.cpu_time_ns, before, "a soft reboot keeps the counters");
        machine.reboot(spec.uuid, true).await.unwrap();
        assert_eq!(only(&machine).await.cpu_time_ns, Some(0));
        machine.destroy(spec.uuid).await.unwrap();
        machine.destroy(spec.uuid).await.unwrap();
        assert_eq!(machine.state(spec.uuid).await.unwrap(), None);
        assert!(matches!(machine.stop(spec.uuid, true).await, Err(HypervisorError::NoGuest { .. })));
    }

    #[tokio::test]
    async fn the_same_guest_whoever_looks_and_however_often() {
        let (clock, often) = machine();
        let rarely = Simulated::new("simulated-host", 7, clock.clone());
        let other_seed = Simulated::new("simulated-host", 8, clock.clone());
        let spec = populated_spec(7, 1);
        for machine in [&often, &rarely, &other_seed] {
            machine.create(&spec).await.unwrap();
        }
        for _ in 0..1000 {
            clock.advance(Duration::from_secs(13));
            often.stats().await.unwrap();
        }
        assert_eq!(only(&often).await, only(&rarely).await);
        assert_ne!(only(&often).await, only(&other_seed).await);
    }

    #[tokio::test]
    async fn a_wall_clock_that_goes_back_does_not_take_counters_with_it() {
        let (clock, machine) = machine();
        machine.populate(1);
        clock.advance(Duration::from_secs(1000));
        let before = only(&machine).await;
        clock.set(Timestamp::from_secs(1_795_291_459));
        assert!(only(&machine).await.cpu_time_ns >= before.cpu_time_ns);
    }
}
