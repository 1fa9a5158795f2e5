//! A machine as files, and this machine.

use std::{fs, time::Duration};

use async_trait::async_trait;
use orzo_model::{Batch, ManualClock, Receipt, SampleKind, SinkError};
use parking_lot::Mutex;

use super::*;

fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/stat", "cpu  100 0 0 900 0 0 0 0 0 0\n");
    write("proc/loadavg", "0.50 1.50 2.50 1/2 3\n");
    write(
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemAvailable: 400 kB\nBuffers: 1 kB\nCached: 2 kB\nSwapTotal: 3 kB\nSwapFree: 4 kB\n",
    );
    write("proc/diskstats", "8 0 sda 10 1 200 5 20 2 400 6 0 7 8\n");
    write("proc/net/dev", "eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n");
    write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    fs::create_dir_all(root.path().join("sys/block/sda")).unwrap();
    root
}

#[test]
fn every_meter_of_a_machine() {
    let root = machine();
    let reading = HostReader::below(root.path()).read().unwrap();
    let previous = Some(CpuTimes { total: 800, idle: 800 });
    let context = HostContext { host: "node-1", slot: Timestamp::from_secs(60), previous };
    let samples = samples(&reading, &context);
    let of = |meter: &str| {
        let sample = samples.iter().find(|sample| sample.meter == meter).unwrap_or_else(|| panic!("{meter}"));
        (sample.resource_id.as_str(), sample.value, sample.unit.as_str())
    };
    assert_eq!(of("hardware.cpu.util"), ("node-1", 50.0, "%"));
    assert_eq!(of("hardware.cpu.load.15min"), ("node-1", 2.5, "process"));
    assert_eq!(of("hardware.memory.used"), ("node-1", 600.0, "KB"));
    assert_eq!(of("hardware.memory.swap.avail"), ("node-1", 4.0, "KB"));
    assert_eq!(of("hardware.disk.read.bytes"), ("node-1.sda", 102_400.0, "B"));
    assert_eq!(of("hardware.disk.write.requests"), ("node-1.sda", 20.0, "requests"));
    assert_eq!(of("hardware.network.incoming.drop"), ("node-1.eth0", 4.0, "packet"));
    assert_eq!(of("hardware.network.outgoing.errors"), ("node-1.eth0", 7.0, "packet"));
    let (id, total, _) = of("hardware.disk.size.total");
    assert!(id == "node-1.sda1" && total > of("hardware.disk.size.used").1);
    assert_eq!(samples.len(), HOST_METERS.len(), "one of each");
    let disk = samples.iter().find(|sample| sample.meter == "hardware.disk.read.bytes").unwrap();
    assert_eq!(disk.kind, SampleKind::Cumulative);
    assert_eq!(
        (disk.metadata["resource_url"].as_str(), disk.metadata["device"].as_str()),
        (Some("node-1"), Some("sda"))
    );
}

#[test]
fn this_machine_can_be_read() {
    let reading = HostReader::default().read().unwrap();
    assert!(reading.cpu.unwrap().total > 0);
    assert!(reading.memory["MemTotal"] > 0 && reading.load.is_some());
    assert!(!hostname().is_empty());
}

#[test]
fn a_machine_without_proc_is_an_error() {
    assert!(HostReader::below(tempfile::tempdir().unwrap().path()).read().is_err());
}

/// Tells each batch to who listens.
struct Told(Mutex<tokio::sync::mpsc::UnboundedSender<Batch>>);

#[async_trait]
impl SampleSink for Told {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let stored = batch.len() as u64;
        self.0.lock().send(batch).map_err(SinkError::unavailable)?;
        Ok(Receipt { stored, ..Receipt::default() })
    }
}

/// A test that waits longer than this has failed.
const WAIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_agent_polls_slot_by_slot_and_stops() {
    let root = machine();
    let clock = ManualClock::new(Timestamp::from_secs(1_000));
    let rooms = Rooms::new(&prometheus::Registry::new());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let sink = Arc::new(Told(Mutex::new(tell)));
    let reader = HostReader::below(root.path());
    let agent = HostAgent::new(reader, Polling::shipped(), sink, clock.clone(), &rooms, "node-1");
    let stop = CancellationToken::new();
    let running = tokio::spawn(agent.run(stop.clone()));
    let mut next = async || {
        // The clock moves while no slot is due; a poll takes as long as a busy machine needs for its files.
        tokio::time::timeout(WAIT, async {
            loop {
                if let Ok(batch) = told.try_recv() {
                    return batch;
                }
                tokio::task::yield_now().await;
                if rooms.room("host.slots").balance().waiting == 0 {
                    clock.advance(Duration::from_millis(100));
                }
            }
        })
        .await
        .expect("a batch in time")
    };
    let first = next().await;
    assert_eq!(first.origin, "host@node-1");
    assert!(first.samples.iter().all(|sample| sample.meter != "hardware.cpu.util"), "nothing to compare with yet");
    fs::write(root.path().join("proc/stat"), "cpu  150 0 0 950 0 0 0 0 0 0\n").unwrap();
    let second = next().await;
    let util = second.samples.iter().find(|sample| sample.meter == "hardware.cpu.util").unwrap();
    assert_eq!(util.value, 50.0);
    assert_eq!(second.samples[0].timestamp.since(first.samples[0].timestamp), Duration::from_secs(10));
    stop.cancel();
    running.await.unwrap();
    assert!(rooms.room("host").balance().is_conserved());
    assert_eq!(rooms.room("host").balance().waiting, 0);
}
