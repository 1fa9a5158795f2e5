//! The machine itself: processors, memory, disks and interfaces from /proc and /sys, so that real input exists
//! everywhere.
//!
//! `/proc, /sys → HostTexts → parse → HostReading → meters → Sample`
//!
//! Meter names are those of Ceilometer's former SNMP pollsters (removed in 2022), whose resource types `host`,
//! `host_disk` and `host_network_interface` Gnocchi still has. Reading is here; what texts mean ([`parse`]) and what
//! they are called ([`meters`]) are pure functions beside it.

pub mod meters;
pub mod parse;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_model::{Rooms, SampleSink, SharedClock, Timestamp, by_meter};
use tokio_util::sync::CancellationToken;

pub use self::meters::{HOST_METERS, HostContext};
use self::{
    meters::samples,
    parse::{CpuTimes, HostReading},
};
use crate::polling::{HandOver, Polling, Schedule, Ticker};

/// A file of /proc is some KiB; a machine with thousands of disks stays below this.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads this machine's figures; blocks for a moment.
#[derive(Clone, Debug)]
pub struct HostReader {
    root: PathBuf,
}

impl Default for HostReader {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl HostReader {
    /// Reads below another root: a container that has the host's /proc and /sys mounted there, or a test.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads everything. What this kernel does not have is left out; only /proc/stat must be there.
    pub fn read(&self) -> io::Result<HostReading> {
        let optional = |name: &str| self.text(name).unwrap_or_default();
        let stat = self.text("proc/stat")?;
        let mut file_systems = parse::file_systems(&optional("proc/self/mounts"));
        for file_system in &mut file_systems {
            file_system.space = self.space(&file_system.mounted_at);
        }
        file_systems.retain(|file_system| file_system.space.is_some());
        Ok(HostReading {
            cpu: parse::cpu_times(&stat),
            load: parse::load(&optional("proc/loadavg")),
            memory: parse::memory(&optional("proc/meminfo")),
            disks: parse::disks(&optional("proc/diskstats"), &self.block_devices()),
            file_systems,
            interfaces: parse::interfaces(&optional("proc/net/dev")),
        })
    }

    fn text(&self, name: &str) -> io::Result<String> {
        let file = fs::File::open(self.root.join(name))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whole devices have a folder in /sys/block; partitions do not.
    fn block_devices(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.root.join("sys/block")) else { return BTreeSet::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn space(&self, mounted_at: &str) -> Option<parse::Space> {
        let path = self.root.join(Path::new(mounted_at).strip_prefix("/").unwrap_or(Path::new(mounted_at)));
        let space = rustix::fs::statvfs(&path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Some(parse::Space { total_bytes: bytes(space.f_blocks), free_bytes: bytes(space.f_bfree) })
    }
}

/// This machine's host name, as the kernel says.
pub fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Polls the machine by the slots of `polling` and hands its samples to a sink.
pub struct HostAgent {
    reader: HostReader,
    polling: Polling,
    hand_over: HandOver,
    clock: SharedClock,
    rooms: Rooms,
    host: String,
}

impl HostAgent {
    /// Counts samples in the room `host` and slots in `host.slots`.
    pub fn new(
        reader: HostReader,
        polling: Polling,
        sink: Arc<dyn SampleSink>,
        clock: SharedClock,
        rooms: &Rooms,
        host: impl Into<String>,
    ) -> Arc<Self> {
        let host = host.into();
        let hand_over = HandOver::new(format!("host@{host}"), sink, clock.clone(), rooms.room("host"));
        Arc::new(Self { reader, polling, hand_over, clock, rooms: rooms.clone(), host })
    }

    /// Polls until `stop`; what is being sent then is finished or counted.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let names: Vec<&str> = HOST_METERS.iter().map(|meter| meter.name).collect();
        let loops = self.polling.plan(&names).into_iter().map(|(interval, meters)| {
            let meters: BTreeSet<&'static str> =
                HOST_METERS.iter().map(|meter| meter.name).filter(|name| meters.contains(name)).collect();
            let schedule = Schedule::new(&self.host, interval);
            self.poll_at(schedule, meters, stop.clone())
        });
        futures::future::join_all(loops).await;
    }

    async fn poll_at(&self, schedule: Schedule, meters: BTreeSet<&'static str>, stop: CancellationToken) {
        let (slots, room) = (self.rooms.room("host.slots"), self.rooms.room("host"));
        let mut ticker = Ticker::new("host", schedule, self.clock.clone(), slots.clone());
        // Use of the processors is a difference; the first slot has nothing to compare with and says nothing of it.
        let mut previous: Option<CpuTimes> = None;
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => return,
                slot = ticker.tick() => slot,
            };
            let reader = self.reader.clone();
            match tokio::task::spawn_blocking(move || reader.read()).await.map_err(io::Error::other).flatten() {
                Ok(reading) => {
                    let context = HostContext { host: &self.host, slot, previous };
                    let mut made = samples(&reading, &context);
                    made.retain(|sample| meters.contains(sample.meter.as_str()));
                    previous = reading.cpu.or(previous);
                    let mut counts = by_meter(&made);
                    meters.iter().for_each(|meter| _ = counts.entry(*meter).or_default());
                    room.note_passed(counts, self.clock.now());
                    let part = format!("{}", schedule.interval().as_secs());
                    self.send(made, slot, &part, &schedule, &stop).await;
                    slots.stored(1);
                }
                Err(error) => {
                    slots.dropped("not readable", 1);
                    let reason = format!("this machine's figures cannot be read: {error}");
                    room.note_failed(meters.iter().copied(), &reason, self.clock.now());
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read this machine's figures");
                }
            }
        }
    }

    async fn send(
        &self,
        samples: Vec<orzo_model::Sample>,
        slot: Timestamp,
        part: &str,
        schedule: &Schedule,
        stop: &CancellationToken,
    ) {
        self.hand_over.send(samples, slot, part, schedule.interval(), stop).await;
    }
}

#[cfg(test)]
mod tests;
