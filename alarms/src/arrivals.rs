//! What has been written since the evaluator last looked: per watched series the oldest and the newest sample, and
//! whether there are events. The writer leaves it here without waiting; the evaluator takes it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use orzo_model::{Arrivals, Point, SeriesId, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

/// A letter box between the store's writers and the evaluator.
#[derive(Default)]
pub struct ArrivalBox {
    /// A bit for each watched series, by its count.
    watched: RwLock<Vec<u64>>,
    /// At most one entry for each watched series.
    pending: Mutex<HashMap<SeriesId, Arrived>>,
    /// The largest count of a series seen. Counts are dense: a larger one is a series that was not there before.
    newest_series: AtomicU64,
    has_events: AtomicBool,
    wake: Notify,
}

/// Samples of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrived {
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
}

impl Arrivals for ArrivalBox {
    fn points(&self, points: &[Point]) {
        let Some(newest) = points.iter().map(|point| point.series.count()).max() else { return };
        self.newest_series.fetch_max(newest, Ordering::Relaxed);
        let mut is_awaited = false;
        {
            let watched = self.watched.read();
            let is_watched = |series: SeriesId| {
                let word = usize::try_from(series.count() / 64).ok().and_then(|word| watched.get(word));
                word.is_some_and(|word| word & (1 << (series.count() % 64)) != 0)
            };
            let mut pending = None;
            for point in points.iter().filter(|point| is_watched(point.series)) {
                let pending = pending.get_or_insert_with(|| self.pending.lock());
                let time = point.timestamp;
                let arrived = pending.entry(point.series).or_insert(Arrived { oldest: time, newest: time });
                arrived.oldest = arrived.oldest.min(time);
                arrived.newest = arrived.newest.max(time);
                is_awaited = true;
            }
        }
        if is_awaited {
            self.wake.notify_one();
        }
    }

    fn events(&self) {
        self.has_events.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Series beyond this count are not watched by bit; 128 MiB of bits would be too many.
const WATCHED_MAX: u64 = 1 << 30;

impl ArrivalBox {
    /// From now on samples of this series are kept.
    pub(crate) fn watch(&self, series: impl IntoIterator<Item = SeriesId>) {
        let mut watched = self.watched.write();
        for series in series.into_iter().filter(|series| series.count() < WATCHED_MAX) {
            let word = (series.count() / 64) as usize;
            if watched.len() <= word {
                watched.resize(word + 1, 0);
            }
            watched[word] |= 1 << (series.count() % 64);
        }
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> HashMap<SeriesId, Arrived> {
        std::mem::take(&mut self.pending.lock())
    }

    /// Whether there were events since the last call.
    pub(crate) fn take_events(&self) -> bool {
        self.has_events.swap(false, Ordering::AcqRel)
    }

    /// Grows when series appear that were not there before.
    pub(crate) fn newest_series(&self) -> u64 {
        self.newest_series.load(Ordering::Relaxed)
    }

    /// Waits for something to take.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(series: u64, at: i64) -> Point {
        Point { series: SeriesId(series), timestamp: Timestamp::from_secs(at), value: 1.0 }
    }

    #[test]
    fn only_watched_series_are_kept_with_their_oldest_and_newest_sample() {
        let arrivals = ArrivalBox::default();
        arrivals.watch([SeriesId(3), SeriesId(200)]);
        arrivals.points(&[point(3, 30), point(3, 10), point(4, 1), point(200, 5), point(3, 20), point(900, 7)]);
        let taken = arrivals.take();
        assert_eq!(taken.len(), 2);
        let expected = Arrived { oldest: Timestamp::from_secs(10), newest: Timestamp::from_secs(30) };
        assert_eq!(taken[&SeriesId(3)], expected);
        assert!(arrivals.take().is_empty());
        assert_eq!(arrivals.newest_series(), 900);
    }

    #[test]
    fn a_series_is_watched_whatever_its_meter_is_called() {
        let arrivals = ArrivalBox::default();
        let (cpu, memory) = (SeriesId::of_meter(3, b"cpu"), SeriesId::of_meter(4, b"memory.usage"));
        arrivals.watch([cpu]);
        arrivals.points(&[point(memory.0, 1), point(cpu.0, 2)]);
        assert_eq!(arrivals.take().into_keys().collect::<Vec<_>>(), [cpu]);
        assert_eq!(arrivals.newest_series(), 4, "counted, not by their whole numbers");
    }

    #[test]
    fn events_are_told_once() {
        let arrivals = ArrivalBox::default();
        assert!(!arrivals.take_events());
        arrivals.events();
        assert!(arrivals.take_events() && !arrivals.take_events());
    }
}
