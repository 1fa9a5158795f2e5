//! Behaviours of the whole store, on the simulated disk and on the real one.

mod backup;
mod behaviour;
mod crash;
mod damage;
mod expiry;
mod golden;
mod model;
mod reading;
mod rollups;
mod simulation;

use std::{path::PathBuf, sync::Arc, time::Duration};

use orzo_model::{ManualClock, Measure, Point, Room, Rooms, SeriesId, Timestamp};

use crate::{Store, StoreError, StoreSettings, faults::SimulatedDisk};

/// 2026-01-01, the beginning of most tests.
const START: i64 = 1_767_225_600;

/// A store on a simulated disk, with a clock that stands still: upkeep runs only when asked for.
struct World {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    settings: StoreSettings,
    room: Room,
}

impl World {
    fn new() -> Self {
        Self::on(SimulatedDisk::default())
    }

    fn on(disk: SimulatedDisk) -> Self {
        let settings = StoreSettings {
            directory: PathBuf::from("/store"),
            wal_segment_bytes: 4096,
            file_rows_max: 1000,
            compact_files_min: 3,
            disk_reserve_bytes: 1000,
            removed_grace: Duration::ZERO,
            ..StoreSettings::default()
        };
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        Self { disk, clock: ManualClock::new(Timestamp::from_secs(START)), settings, room }
    }

    async fn open(&self) -> Result<Arc<Store>, StoreError> {
        let disk = Arc::new(self.disk.booted());
        Store::open_on(disk, self.settings.clone(), self.room.clone(), self.clock.clone()).await
    }
}

fn point(series: u64, second: i64, value: f64) -> Point {
    Point { series: SeriesId(series), timestamp: Timestamp::from_secs(START + second), value }
}

/// Everything of these series, with values as bits so that NaN can be compared.
async fn everything(store: &Store, series: &[u64]) -> Result<Vec<(u64, i64, u64)>, StoreError> {
    let series: Vec<_> = series.iter().map(|series| SeriesId(*series)).collect();
    let found = store.scan(&series, Timestamp::MIN, Timestamp::MAX).await?;
    let row = |series: SeriesId, measure: Measure| (series.0, measure.timestamp.micros(), measure.value.to_bits());
    Ok(found.into_iter().flat_map(|(series, measures)| measures.into_iter().map(move |m| row(series, m))).collect())
}

fn rows(points: &[Point]) -> Vec<(u64, i64, u64)> {
    points.iter().map(|point| (point.series.0, point.timestamp.micros(), point.value.to_bits())).collect()
}
