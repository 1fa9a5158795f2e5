//! How much a compute agent costs: simulated guests through pollsters and encoding, measured by the process itself.
//!
//! `Simulated → ComputeAgent::poll → HandOver → batch encoding → counted`. Nothing is sent, so that the figures are
//! the agent's own. The guests' clock is moved by hand, ten seconds a tick; the stopwatch is the real one.

use std::{fs, sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_bus::batch;
use orzo_hypervisor::Simulated;
use orzo_model::{Batch, ManualClock, Receipt, Rooms, SampleSink, SharedClock, SinkError, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::ComputeAgent;
use crate::{polling::Polling, pollsters::POLLSTERS};

/// Time between two ticks, as the shipped polling has it.
const TICK: Duration = Duration::from_secs(10);
/// Linux tells processes' times in hundredths of a second on every machine that we build for (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// The same start for everyone, so that two runs poll the same values.
const START_S: i64 = 1_795_291_200;

/// What a run cost.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Simulated guests.
    pub guests: u32,
    /// Polls of all of them.
    pub ticks: u32,
    /// Samples made, encoded and counted.
    pub samples: u64,
    /// Bytes of the encoded batches.
    pub encoded_bytes: u64,
    /// Real time of all ticks.
    pub wall_seconds: f64,
    /// Processor time of all ticks.
    pub cpu_seconds: f64,
    /// Samples per second of real time.
    pub samples_per_second: f64,
    /// Bytes per sample on the wire.
    pub bytes_per_sample: f64,
    /// Processor time of one tick as a share of the ten seconds between ticks, of one processor, in percent.
    pub cpu_percent_at_10_s: f64,
    /// Largest resident memory of the process, in MiB.
    pub peak_rss_mib: f64,
}

/// Encodes what it is given and counts it.
#[derive(Default)]
struct Encoded(Mutex<(u64, u64)>);

#[async_trait]
impl SampleSink for Encoded {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let bytes = batch::encode(&batch).map_err(|error| SinkError::Rejected { reason: error.to_string() })?;
        let stored = batch.len() as u64;
        let mut counted = self.0.lock();
        counted.0 += stored;
        counted.1 += bytes.len() as u64;
        Ok(Receipt { stored, ..Receipt::default() })
    }
}

/// Polls `guests` simulated guests `ticks` times. `stopwatch` is a real clock.
pub async fn bench(guests: u32, ticks: u32, stopwatch: SharedClock) -> anyhow::Result<BenchReport> {
    let clock = ManualClock::new(Timestamp::from_secs(START_S));
    let hypervisor = Simulated::new("simulated-host", 1, clock.clone());
    hypervisor.populate(guests);
    let encoded = Arc::new(Encoded::default());
    let rooms = Rooms::new(&prometheus::Registry::new());
    let agent = ComputeAgent::new(
        Arc::new(hypervisor),
        Polling::shipped(),
        encoded.clone(),
        clock.clone(),
        &rooms,
        "simulated-host",
    );
    let pollsters: Vec<_> = POLLSTERS.iter().collect();
    let stop = CancellationToken::new();
    let (started_at, cpu_before) = (stopwatch.monotonic(), cpu_seconds()?);
    for _ in 0..ticks {
        clock.advance(TICK);
        let slot = orzo_model::Clock::now(&*clock);
        let samples = agent.poll(&pollsters, slot).await?;
        anyhow::ensure!(agent.hand_over.send(samples, slot, "10", TICK, &stop).await, "a batch was not accepted");
    }
    let wall_seconds = (stopwatch.monotonic() - started_at).as_secs_f64();
    let cpu_seconds = cpu_seconds()? - cpu_before;
    let (samples, encoded_bytes) = *encoded.0.lock();
    let balance = rooms.room("compute").balance();
    anyhow::ensure!(balance.is_conserved() && balance.waiting == 0, "samples were lost: {balance:?}");
    Ok(BenchReport {
        guests,
        ticks,
        samples,
        encoded_bytes,
        wall_seconds,
        cpu_seconds,
        samples_per_second: samples as f64 / wall_seconds,
        bytes_per_sample: encoded_bytes as f64 / samples.max(1) as f64,
        cpu_percent_at_10_s: cpu_seconds / f64::from(ticks.max(1)) / TICK.as_secs_f64() * 100.0,
        peak_rss_mib: peak_rss_mib()?,
    })
}

impl BenchReport {
    /// As lines of name, value and unit.
    pub fn table(&self) -> String {
        let rows = [
            ("guests (simulated)", format!("{}", self.guests), ""),
            ("ticks", format!("{}", self.ticks), ""),
            ("samples", format!("{}", self.samples), ""),
            ("samples per second", format!("{:.0}", self.samples_per_second), "1/s"),
            ("wall time", format!("{:.2}", self.wall_seconds), "s"),
            ("processor time", format!("{:.2}", self.cpu_seconds), "s"),
            ("processor use at one tick in 10 s", format!("{:.2}", self.cpu_percent_at_10_s), "% of one"),
            ("bytes per sample, encoded", format!("{:.2}", self.bytes_per_sample), "B"),
            ("peak resident memory", format!("{:.1}", self.peak_rss_mib), "MiB"),
        ];
        rows.iter().map(|(name, value, unit)| format!("{name:<36}{value:>12} {unit}\n")).collect()
    }
}

/// utime + stime of `/proc/self/stat`: fields 14 and 15; the name in field 2 may hold spaces but ends with `)`.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// `VmHWM` of `/proc/self/status`, in KiB there.
fn peak_rss_mib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use orzo_model::SystemClock;

    use super::*;

    #[tokio::test]
    async fn every_guest_is_polled_at_every_tick() {
        let report = bench(5, 3, SystemClock::shared()).await.unwrap();
        // All meters but the four of performance counters, which simulated guests do not have.
        assert_eq!(report.samples, 5 * 3 * (POLLSTERS.len() as u64 - 4));
        assert!(report.encoded_bytes > 0 && report.peak_rss_mib > 1.0);
        assert!(report.table().contains("guests (simulated)"));
    }
}
