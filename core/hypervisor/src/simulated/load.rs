//! The load of a simulated guest: how busy it is at a time, and what that adds up to.
//!
//! Time is cut into cells; within a cell everything is constant. A cell's load is a pure function of (seed, guest,
//! cell): a daily wave with its peak in the guest's own afternoon, noise, and bursts. Counters are sums over cells,
//! so they are the same however often somebody looks.

use std::f64::consts::TAU;

use orzo_model::Timestamp;

use crate::GuestSpec;

/// Width of a cell: as the default polling interval, so that neighbouring polls differ.
const CELL_MICROS: i64 = 10_000_000;
/// Cells added up at one look; beyond it (about 12 days without a look) the rest follows at the next looks.
const CELLS_MAX: i64 = 100_000;
/// Bursts last as long as a batch job or a crawler: five minutes.
const BURST_CELLS: i64 = 30;
/// Bytes of a disk request: what databases and file systems mostly do.
pub(super) const REQUEST_BYTES: f64 = 16_384.0;
/// Time of a disk request: a solid-state disk on a busy host.
pub(super) const REQUEST_NS: f64 = 250_000.0;
/// Bytes of a packet: between acknowledgements and full frames.
pub(super) const PACKET_BYTES: f64 = 800.0;

/// What has been consumed since the guest started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) cpu_ns: f64,
    pub(super) disk_read_bytes: f64,
    pub(super) disk_write_bytes: f64,
    pub(super) net_rx_bytes: f64,
    pub(super) net_tx_bytes: f64,
}

/// What kind of guest it is, drawn once from its UUID and the seed.
#[derive(Clone, Copy, Debug)]
struct Character {
    key: u64,
    vcpus: f64,
    /// Share of its processors when nobody asks anything of it.
    idle: f64,
    /// Height of the daily wave.
    wave: f64,
    /// When the wave is highest, as a share of the day.
    peak: f64,
    /// Chance that a burst window bursts.
    burst_chance: f64,
    /// Bytes per second at full load.
    disk_full: f64,
    net_full: f64,
    memory_base: f64,
}

/// A running guest's load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    character: Character,
    /// Totals up to `done_at`.
    totals: Totals,
    done_at: Timestamp,
    /// The latest time that somebody looked: counters do not go back with the clock.
    seen_at: Timestamp,
}

impl Load {
    /// A guest that starts at `now`.
    pub(super) fn new(seed: u64, spec: &GuestSpec, now: Timestamp) -> Self {
        Self { character: Character::draw(seed, spec), totals: Totals::default(), done_at: now, seen_at: now }
    }

    /// Totals at `now`; a clock that went back changes nothing.
    pub(super) fn totals_at(&mut self, now: Timestamp) -> Totals {
        let now = now.max(self.seen_at);
        self.seen_at = now;
        let mut cells = 0;
        while cells < CELLS_MAX {
            let cell = self.done_at.micros().div_euclid(CELL_MICROS);
            let end = Timestamp::from_micros((cell + 1) * CELL_MICROS);
            if end > now {
                break;
            }
            self.totals = self.totals.plus(&self.character, cell, seconds(self.done_at, end));
            self.done_at = end;
            cells += 1;
        }
        let cell = self.done_at.micros().div_euclid(CELL_MICROS);
        let end = Timestamp::from_micros((cell + 1) * CELL_MICROS);
        self.totals.plus(&self.character, cell, seconds(self.done_at, now.min(end)))
    }

    /// Share of the memory in use: follows the processors, slowly.
    pub(super) fn memory_used_at(&self, now: Timestamp) -> f64 {
        let cell = now.micros().div_euclid(CELL_MICROS);
        let slow = self.character.wave_at(cell) * 0.2 + chance(self.character.key ^ 4, cell / BURST_CELLS) * 0.05;
        (self.character.memory_base + slow).clamp(0.02, 0.97)
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}

impl Totals {
    fn plus(mut self, character: &Character, cell: i64, seconds: f64) -> Self {
        let busy = character.busy(cell);
        let (disk, net) = (busy * character.disk_full * seconds, busy * character.net_full * seconds);
        let reads = 0.2 + 0.4 * chance(character.key ^ 2, cell);
        let asks = 0.15 + 0.2 * chance(character.key ^ 3, cell);
        self.cpu_ns += busy * character.vcpus * seconds * 1e9;
        self.disk_read_bytes += disk * reads;
        self.disk_write_bytes += disk * (1.0 - reads);
        self.net_rx_bytes += net * asks;
        self.net_tx_bytes += net * (1.0 - asks);
        self
    }
}

impl Character {
    fn draw(seed: u64, spec: &GuestSpec) -> Self {
        let (high, low) = spec.uuid.as_u64_pair();
        let key = mix(seed ^ mix(high ^ mix(low)));
        let draw = |salt: i64| chance(key, -salt);
        // Half serve people by day, a quarter do batch work, a quarter do next to nothing.
        let (idle, wave, burst_chance) = match (draw(1) * 4.0) as u32 {
            0 | 1 => (0.05, 0.3 + 0.3 * draw(2), 0.05),
            2 => (0.03, 0.05, 0.35),
            _ => (0.01, 0.02, 0.01),
        };
        Self {
            key,
            vcpus: f64::from(spec.nova.flavor.vcpus.max(1)),
            idle,
            wave,
            peak: 0.5 + 0.25 * draw(3),
            burst_chance,
            disk_full: 5e6 + 45e6 * draw(4),
            net_full: 1e6 + 20e6 * draw(5),
            memory_base: 0.2 + 0.4 * draw(6),
        }
    }

    /// The daily wave at a cell, 0 to its height.
    fn wave_at(&self, cell: i64) -> f64 {
        const CELLS_PER_DAY: f64 = 86_400.0 * 1e6 / CELL_MICROS as f64;
        let day = (cell as f64 / CELLS_PER_DAY).rem_euclid(1.0);
        self.wave * 0.5 * (1.0 + (TAU * (day - self.peak)).cos())
    }

    /// Share of all its processors in use in a cell, 0 to 1.
    fn busy(&self, cell: i64) -> f64 {
        let noise = (chance(self.key ^ 1, cell) - 0.5) * 0.2 * (self.idle + self.wave);
        let window = cell.div_euclid(BURST_CELLS);
        let draw = chance(self.key ^ 5, window);
        let burst = if draw < self.burst_chance { 0.4 + 0.5 * draw / self.burst_chance } else { 0.0 };
        (self.idle + self.wave_at(cell) + noise + burst).clamp(0.002, 1.0)
    }
}

/// A number from 0 to 1, always the same for the same arguments.
fn chance(key: u64, number: i64) -> f64 {
    (mix(key ^ mix(number as u64)) >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): spreads neighbouring numbers over the whole range.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::simulated::populated_spec;

    /// Means of a guest's load by the hour of one day.
    fn day(number: u32) -> Vec<f64> {
        let start = Timestamp::from_secs(1_795_219_200);
        let spec = populated_spec(1, number);
        let mut load = Load::new(1, &spec, start);
        let mut last = 0.0;
        (1..=24)
            .map(|hour| {
                let total = load.totals_at(start.plus(Duration::from_secs(hour * 3600))).cpu_ns;
                let mean = (total - last) / (3600e9 * f64::from(spec.nova.flavor.vcpus));
                last = total;
                mean
            })
            .collect()
    }

    #[test]
    fn guests_differ_and_some_have_a_day_and_a_night() {
        let days: Vec<Vec<f64>> = (0..40).map(day).collect();
        let spread = |day: &Vec<f64>| day.iter().copied().fold(0.0, f64::max) - day.iter().copied().fold(1.0, f64::min);
        let with_wave = days.iter().filter(|day| spread(day) > 0.2).count();
        let quiet = days.iter().filter(|day| day.iter().all(|mean| *mean < 0.1)).count();
        assert!(with_wave >= 10, "{with_wave} of 40 have a day and a night");
        assert!(quiet >= 3, "{quiet} of 40 are quiet");
        assert!(days.iter().flatten().all(|mean| (0.0..=1.0).contains(mean)));
    }

    #[test]
    fn a_long_absence_is_caught_up_with_in_steps_and_never_backwards() {
        let start = Timestamp::from_secs(0);
        let mut load = Load::new(1, &populated_spec(1, 0), start);
        let later = start.plus(Duration::from_secs(30 * 86_400));
        let first = load.totals_at(later).cpu_ns;
        let second = load.totals_at(later).cpu_ns;
        let third = load.totals_at(later).cpu_ns;
        assert!(first > 0.0 && second > first);
        assert!(third >= second);
    }
}
