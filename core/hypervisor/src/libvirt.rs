//! Guests under libvirt: QEMU with KVM, or with TCG where there is none.
//!
//! ```text
//! one bulk call → StatsRecord ─┐
//! cached domain XML ───────────┴→ decode → GuestStats
//! GuestSpec → domain XML → define → create
//! ```
//!
//! The library is loaded at run time, so that one binary runs with and without it. All calls block and so run on
//! threads of their own with a deadline: one for statistics, one for what changes guests, so that a guest that takes
//! long to start holds up nobody's meters.

mod decode;
mod domain_xml;
mod ffi;
mod worker;
mod write_xml;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use orzo_model::SharedClock;
use parking_lot::Mutex;
use uuid::Uuid;

use self::{
    domain_xml::DomainDescription,
    ffi::{Api, Connection, Domain, LibvirtError, NodeFacts, StatsRecord},
    worker::Worker,
};
use crate::{GuestSpec, GuestStats, Hypervisor, HypervisorError, Node, PowerState};

/// Libvirt itself waits 30 s for a busy guest; statistics are not worth that, the next poll comes.
const STATS_DEADLINE: Duration = Duration::from_secs(10);
/// Starting a guest under load, with its disk on a slow store.
const ACTION_DEADLINE: Duration = Duration::from_secs(60);
/// After a bulk call that took too long, so many calls do not wait for busy guests (5 minutes at 10 s).
const PATIENCE_AFTER_POLLS: u32 = 30;
/// A description that nothing else made us read again is read after this: Nova changes metadata of running guests.
const DESCRIPTION_AGE_MAX: Duration = Duration::from_secs(600);
/// Between two looks at a guest that was asked to shut down.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(250);

/// Where libvirt is, and how to treat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibvirtSettings {
    /// `qemu:///system`; `test:///default` needs no daemon.
    pub uri: String,
    /// Where guests' disks lie: the size of its file system is the node's disk.
    pub instances: PathBuf,
    /// How long a guest may take to shut down before the plug is pulled. (Nova waits 60 s; a guest without ACPI
    /// never listens, so that is mostly waiting for nothing.)
    pub shutdown_grace: Duration,
}

impl Default for LibvirtSettings {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".to_owned(),
            instances: PathBuf::from("."),
            shutdown_grace: Duration::from_secs(15),
        }
    }
}

/// Guests under libvirt.
pub struct Libvirt {
    settings: LibvirtSettings,
    clock: SharedClock,
    statistics: Worker,
    actions: Worker,
    /// `kvm`, `qemu`, or `test` for libvirt's own test driver.
    virtualisation: &'static str,
    descriptions: Arc<Mutex<HashMap<Uuid, Described>>>,
    impatient_polls: AtomicU32,
}

/// A description and what it was read for.
struct Described {
    id: Option<u32>,
    read_at: Duration,
    description: Arc<DomainDescription>,
}

impl Libvirt {
    /// Loads the library, opens the connection and looks at the machine.
    pub async fn connect(settings: LibvirtSettings, clock: SharedClock) -> Result<Self, HypervisorError> {
        let loaded = tokio::task::spawn_blocking(Api::load).await;
        let api = loaded
            .map_err(|e| HypervisorError::NotAvailable { reason: e.to_string() })?
            .map_err(|reason| HypervisorError::NotAvailable { reason })?;
        let statistics = Worker::new(api.clone(), &settings.uri);
        let look = |connection: &Connection| Ok((connection.node()?, connection.supports("kvm")));
        let (facts, kvm) = answer("look at the machine", statistics.ask("connect", STATS_DEADLINE, look).await?)?;
        let virtualisation = virtualisation(&facts, kvm);
        tracing::info!(uri = settings.uri, version = facts.version, virtualisation, "connected to libvirt");
        Ok(Self {
            actions: Worker::new(api, &settings.uri),
            settings,
            clock,
            statistics,
            virtualisation,
            descriptions: Arc::default(),
            impatient_polls: AtomicU32::new(0),
        })
    }

    /// Whether `uri` can be used here and now; `Err` says what is missing.
    pub async fn available(uri: &str) -> Result<(), HypervisorError> {
        let settings = LibvirtSettings { uri: uri.to_owned(), ..LibvirtSettings::default() };
        Self::connect(settings, orzo_model::SystemClock::shared()).await.map(drop)
    }

    /// `kvm`, `qemu` (emulated, slow) or `test`.
    pub fn virtualisation(&self) -> &'static str {
        self.virtualisation
    }

    /// Runs `act` on a guest, on the thread for actions.
    async fn act<T: Send + 'static>(
        &self,
        action: &'static str,
        uuid: Uuid,
        act: impl Fn(&Domain<'_>) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let question = move |connection: &Connection| connection.domain(uuid).and_then(|domain| act(&domain));
        match self.actions.ask(action, ACTION_DEADLINE, question).await? {
            Err(error) if error.is_no_domain() => Err(HypervisorError::NoGuest { uuid }),
            other => answer(action, other),
        }
    }

    /// Waits until the guest is off; false if it did not within the grace.
    async fn is_off_within_grace(&self, uuid: Uuid) -> Result<bool, HypervisorError> {
        let asked_at = self.clock.monotonic();
        while self.clock.monotonic().saturating_sub(asked_at) < self.settings.shutdown_grace {
            if !self.act("look at the guest", uuid, is_active).await? {
                return Ok(true);
            }
            self.clock.sleep(SHUTDOWN_LOOK).await;
        }
        Ok(false)
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn kind(&self) -> &'static str {
        "libvirt"
    }

    async fn node(&self) -> Result<Node, HypervisorError> {
        let facts = answer(
            "look at the machine",
            self.statistics.ask("look at the machine", STATS_DEADLINE, Connection::node).await?,
        )?;
        let directory = self.settings.instances.clone();
        let disk = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        let disk = disk.map_err(|e| failed("look at the disk", e))?.map_err(|e| failed("look at the disk", e))?;
        Ok(Node {
            hostname: facts.hostname,
            hypervisor_type: facts.kind,
            hypervisor_version: facts.version,
            vcpus: facts.cpus,
            memory_mib: facts.memory_kib / 1024,
            disk_gib: (disk.f_blocks.saturating_mul(disk.f_frsize)) >> 30,
        })
    }

    async fn stats(&self) -> Result<Vec<GuestStats>, HypervisorError> {
        let impatient = self.impatient_polls.load(Ordering::Relaxed);
        self.impatient_polls.store(impatient.saturating_sub(1), Ordering::Relaxed);
        let (descriptions, now) = (self.descriptions.clone(), self.clock.monotonic());
        let question = move |connection: &Connection| {
            let records = connection.all_stats(impatient == 0)?;
            Ok(describe(connection, &descriptions, records, now))
        };
        let asked = self.statistics.ask("read statistics", STATS_DEADLINE, question).await;
        if matches!(asked, Err(HypervisorError::Deadline { .. })) {
            self.impatient_polls.store(PATIENCE_AFTER_POLLS, Ordering::Relaxed);
        }
        answer("read statistics", asked?)
    }

    async fn create(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let (uuid, xml) = (spec.uuid, write_xml::domain_xml(spec, self.virtualisation));
        let question = move |connection: &Connection| match connection.domain(uuid) {
            Ok(domain) => start_if_off(&domain),
            Err(error) if error.is_no_domain() => define_and_start(connection, &xml),
            Err(error) => Err(error),
        };
        answer("create the guest", self.actions.ask("create the guest", ACTION_DEADLINE, question).await?)
    }

    async fn start(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.act("start the guest", uuid, start_if_off).await
    }

    async fn stop(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
        if !hard {
            self.act("shut the guest down", uuid, shutdown_if_on).await?;
            if self.is_off_within_grace(uuid).await? {
                return Ok(());
            }
        }
        self.act("stop the guest", uuid, destroy_if_on).await
    }

    async fn reboot(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
        // As Nova does: a guest that does not listen to ACPI restarts as well, and both kinds begin with fresh
        // counters.
        self.stop(uuid, hard).await?;
        self.start(uuid).await
    }

    async fn destroy(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        let gone = self
            .act("destroy the guest", uuid, |domain| {
                destroy_if_on(domain)?;
                domain.undefine()
            })
            .await;
        match gone {
            Err(HypervisorError::NoGuest { .. }) => Ok(()),
            other => other,
        }
    }

    async fn state(&self, uuid: Uuid) -> Result<Option<PowerState>, HypervisorError> {
        match self.act("look at the guest", uuid, |domain| domain.state()).await {
            Ok(number) => Ok(PowerState::from_number(number)),
            Err(HypervisorError::NoGuest { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn answer<T>(action: &'static str, answer: Result<T, LibvirtError>) -> Result<T, HypervisorError> {
    answer.map_err(|error| failed(action, error.message))
}

fn failed(action: &'static str, reason: impl ToString) -> HypervisorError {
    HypervisorError::Failed { action, reason: reason.to_string() }
}

fn virtualisation(facts: &NodeFacts, kvm: bool) -> &'static str {
    match (facts.kind.as_str(), kvm) {
        ("Test" | "TEST", _) => "test",
        (_, true) => "kvm",
        (_, false) => "qemu",
    }
}

fn is_active(domain: &Domain<'_>) -> Result<bool, LibvirtError> {
    Ok(PowerState::from_number(domain.state()?).is_none_or(PowerState::is_active))
}

/// The state may change between the look and the act: what libvirt calls an invalid operation is fine if the guest
/// is then where it should be.
fn unless_done(domain: &Domain<'_>, done: Result<(), LibvirtError>, active: bool) -> Result<(), LibvirtError> {
    match done {
        Err(error) if error.is_operation_invalid() && is_active(domain)? == active => Ok(()),
        other => other,
    }
}

fn start_if_off(domain: &Domain<'_>) -> Result<(), LibvirtError> {
    if is_active(domain)? { Ok(()) } else { unless_done(domain, domain.start(), true) }
}

fn shutdown_if_on(domain: &Domain<'_>) -> Result<(), LibvirtError> {
    if is_active(domain)? { unless_done(domain, domain.shutdown(), false) } else { Ok(()) }
}

fn destroy_if_on(domain: &Domain<'_>) -> Result<(), LibvirtError> {
    if is_active(domain)? { unless_done(domain, domain.destroy(), false) } else { Ok(()) }
}

fn define_and_start(connection: &Connection, xml: &str) -> Result<(), LibvirtError> {
    let domain = connection.define(xml)?;
    domain.start().inspect_err(|_| {
        // A guest that never started must not be left half made; the first error is the one to tell.
        let _ = domain.undefine();
    })
}

/// Completes the records by descriptions, reading those that are missing or out of date. A guest that vanished
/// between the two calls is left out.
fn describe(
    connection: &Connection,
    descriptions: &Mutex<HashMap<Uuid, Described>>,
    records: Vec<StatsRecord>,
    now: Duration,
) -> Vec<GuestStats> {
    let mut descriptions = descriptions.lock();
    let present: HashSet<Uuid> = records.iter().map(|record| record.uuid).collect();
    descriptions.retain(|uuid, _| present.contains(uuid));
    let mut guests = Vec::with_capacity(records.len());
    for record in &records {
        if !descriptions.get(&record.uuid).is_some_and(|described| is_current(described, record, now)) {
            let Some(description) = read_description(connection, record) else { continue };
            let description = Arc::new(description);
            descriptions.insert(record.uuid, Described { id: record.id, read_at: now, description });
        }
        guests.push(decode::decode(record, &descriptions[&record.uuid].description));
    }
    guests
}

/// A description is good until the guest restarts (its id changes), a disk or an interface appears that it does not
/// know, or it is old.
fn is_current(described: &Described, record: &StatsRecord, now: Duration) -> bool {
    let knows = |name: &str| {
        let description = &described.description;
        description.disks.iter().any(|d| d.device == name) || description.interfaces.iter().any(|i| i.name == name)
    };
    described.id == record.id
        && now.saturating_sub(described.read_at) < DESCRIPTION_AGE_MAX
        && decode::part_names(record).all(knows)
}

fn read_description(connection: &Connection, record: &StatsRecord) -> Option<DomainDescription> {
    match connection.domain(record.uuid).and_then(|domain| domain.xml()) {
        Ok(xml) => Some(domain_xml::read(&xml).unwrap_or_else(|error| {
            tracing::warn!(guest = %record.uuid, error = &error as &dyn std::error::Error, "cannot read a guest's description");
            DomainDescription::default()
        })),
        Err(error) if error.is_no_domain() => None,
        Err(error) => {
            tracing::warn!(guest = %record.uuid, reason = error.message, "cannot get a guest's description");
            None
        }
    }
}
