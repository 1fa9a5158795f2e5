//! Points that are durable in the log and not yet in a file. In memory, by series, one value per (series, timestamp).
//!
//! Points that come in the order of their times are appended to their series; the few that come late are kept sorted
//! beside them. It does not know the disk.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use hashbrown::HashTable;
use orzo_model::{Measure, Point, SeriesId, Timestamp};

/// What a series takes, about: its place in the list and in the table of places, and what its points' list has beyond them.
const SERIES_BYTES: usize = 112;
/// What a point takes, about: time and value, and what the newest chunk has beyond its points.
const POINT_BYTES: usize = 18;

/// Hashes series numbers, which we give out ourselves: nobody can choose them to collide.
#[derive(Default)]
pub(crate) struct SeriesHasher(u64);

impl Hasher for SeriesHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mixed(value);
    }
}

/// Fibonacci hashing; the high bits are the good ones, and maps use both ends.
#[inline]
fn mixed(series: u64) -> u64 {
    let mixed = series.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// A map by series number.
pub(crate) type BySeries<T> = HashMap<u64, T, BuildHasherDefault<SeriesHasher>>;

/// The points.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// In the order in which they came first.
    series: Vec<(u64, SeriesPoints)>,
    /// Where each stands in that list.
    places: HashTable<u32>,
    /// The place behind the one that points were put in last: senders send series in the same order again and again.
    next: usize,
    points: usize,
    /// When the first of them came.
    since: Option<Timestamp>,
    /// The first and the last time that was put in.
    times: Option<(Timestamp, Timestamp)>,
}

/// Points of a chunk, 4 KiB: a list that grows by copying itself would take twice the memory, and fresh memory is what
/// taking points costs most.
const CHUNK_POINTS: usize = 256;

/// Points that room is made for with a series' first one: where there are a million series, few have more in a head.
const FIRST_POINTS: usize = 2;

/// One series: no time is in two places.
#[derive(Debug, Default)]
struct SeriesPoints {
    /// The newest of those that came in the order of their times, at most a chunk of them.
    newest: Vec<(i64, f64)>,
    /// What most series do not have; a million of them are many.
    more: Option<Box<MorePoints>>,
}

#[derive(Debug, Default)]
struct MorePoints {
    /// Whole chunks, older than `newest`, in the order of their times.
    chunks: Vec<Vec<(i64, f64)>>,
    /// What came late.
    late: BTreeMap<i64, f64>,
}

impl SeriesPoints {
    /// Whether it replaced another.
    fn put(&mut self, micros: i64, value: f64) -> bool {
        match self.newest.last_mut() {
            Some((last, kept)) if *last == micros => {
                *kept = value;
                true
            }
            Some((last, _)) if *last > micros => match self.find(micros) {
                Some(kept) => {
                    *kept = value;
                    true
                }
                None => self.more.get_or_insert_default().late.insert(micros, value).is_some(),
            },
            _ => {
                match self.newest.len() {
                    0 => self.newest.reserve_exact(FIRST_POINTS),
                    CHUNK_POINTS => {
                        let full = std::mem::replace(&mut self.newest, Vec::with_capacity(CHUNK_POINTS));
                        self.more.get_or_insert_default().chunks.push(full);
                    }
                    _ => {}
                }
                self.newest.push((micros, value));
                false
            }
        }
    }

    fn chunks(&self) -> &[Vec<(i64, f64)>] {
        self.more.as_ref().map_or(&[], |more| &more.chunks)
    }

    fn late(&self) -> Option<&BTreeMap<i64, f64>> {
        self.more.as_ref().map(|more| &more.late).filter(|late| !late.is_empty())
    }

    /// The value at this time, if it came in order.
    fn find(&mut self, micros: i64) -> Option<&mut f64> {
        let is_newest = self.newest.first().is_some_and(|(first, _)| *first <= micros);
        let chunk = match &mut self.more {
            _ if is_newest => &mut self.newest,
            None => return None,
            Some(more) => {
                let at = more.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| *last < micros));
                more.chunks.get_mut(at)?
            }
        };
        let at = chunk.binary_search_by_key(&micros, |(time, _)| *time).ok()?;
        Some(&mut chunk[at].1)
    }

    /// All points in order of time.
    fn sorted(&self, first: i64, last: i64, take: &mut dyn FnMut(i64, f64)) {
        let from = self.chunks().partition_point(|chunk| chunk.last().is_some_and(|(time, _)| *time < first));
        let chunks = self.chunks()[from..].iter().chain(std::iter::once(&self.newest));
        let ordered = chunks
            .take_while(|chunk| chunk.first().is_some_and(|(time, _)| *time <= last))
            .flat_map(|chunk| within(chunk, first, last));
        let Some(late) = self.late().filter(|_| first <= last) else {
            ordered.for_each(|(time, value)| take(*time, *value));
            return;
        };
        let mut late = late.range(first..=last).peekable();
        for (time, value) in ordered {
            while let Some((earlier, kept)) = late.next_if(|(earlier, _)| *earlier < time) {
                take(*earlier, *kept);
            }
            take(*time, *value);
        }
        late.for_each(|(time, value)| take(*time, *value));
    }

    fn last(&self, last: i64) -> Option<(i64, f64)> {
        let is_within = |chunk: &&Vec<(i64, f64)>| chunk.first().is_some_and(|(time, _)| *time <= last);
        let chunks = std::iter::once(&self.newest).chain(self.chunks().iter().rev());
        let ordered =
            chunks.into_iter().find(is_within).and_then(|chunk| within(chunk, i64::MIN, last).last()).copied();
        let late = self.late().and_then(|late| late.range(..=last).next_back()).map(|(time, value)| (*time, *value));
        match (ordered, late) {
            (Some(ordered), Some(late)) => Some(if late.0 > ordered.0 { late } else { ordered }),
            (ordered, late) => ordered.or(late),
        }
    }

    fn len(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| more.chunks.len() * CHUNK_POINTS + more.late.len());
        self.newest.len() + more
    }
}

/// Those of a chunk between two times, both included.
fn within(chunk: &[(i64, f64)], first: i64, last: i64) -> &[(i64, f64)] {
    let from = chunk.partition_point(|(time, _)| *time < first);
    let to = chunk.partition_point(|(time, _)| *time <= last);
    chunk.get(from..to).unwrap_or_default()
}

impl Head {
    /// Puts points in; the last value of a key wins. Gives how many replaced another.
    pub(crate) fn put(&mut self, points: &[Point], now: Timestamp) -> u64 {
        self.since.get_or_insert(now);
        let mut replaced = 0;
        for run in points.chunk_by(|a, b| a.series == b.series) {
            let place = self.place_for(run[0].series.0);
            self.next = place + 1;
            let series = &mut self.series[place].1;
            for point in run {
                replaced += u64::from(series.put(point.timestamp.micros(), point.value));
                let (first, last) = self.times.unwrap_or((point.timestamp, point.timestamp));
                self.times = Some((first.min(point.timestamp), last.max(point.timestamp)));
            }
        }
        self.points += points.len() - replaced as usize;
        replaced
    }

    /// Where a series stands, or now does.
    #[inline]
    fn place_for(&mut self, series: u64) -> usize {
        if self.series.get(self.next).is_some_and(|(next, _)| *next == series) {
            return self.next;
        }
        if let Some(place) = self.place_of(series) {
            return place;
        }
        let place = self.series.len();
        self.series.push((series, SeriesPoints::default()));
        let number = u32::try_from(place).expect("four billion series take more memory than there is");
        self.places.insert_unique(mixed(series), number, |place| mixed(self.series[*place as usize].0));
        place
    }

    fn place_of(&self, series: u64) -> Option<usize> {
        self.places.find(mixed(series), |place| self.series[*place as usize].0 == series).map(|place| *place as usize)
    }

    fn of(&self, series: SeriesId) -> Option<&SeriesPoints> {
        self.place_of(series.0).map(|place| &self.series[place].1)
    }

    /// Takes all points of a series out.
    pub(crate) fn remove_series(&mut self, series: SeriesId) {
        let list = &self.series;
        let is_it = |place: &u32| list[*place as usize].0 == series.0;
        let Ok(entry) = self.places.find_entry(mixed(series.0), is_it) else { return };
        let (place, _) = entry.remove();
        // The last one takes its place.
        let last = list.len() as u32 - 1;
        if let Some(moved) = self.places.find_mut(mixed(list[last as usize].0), |place| *place == last) {
            *moved = place;
        }
        let (_, points) = self.series.swap_remove(place as usize);
        self.points -= points.len();
    }

    /// Calls `take` for the points of a series between two times, both inclusive, in order.
    pub(crate) fn read(&self, series: SeriesId, first: Timestamp, last: Timestamp, take: &mut dyn FnMut(Measure)) {
        if let Some(points) = self.of(series) {
            points.sorted(first.micros(), last.micros(), &mut |micros, value| take(measure(micros, value)));
        }
    }

    /// The newest point of a series not after `last`.
    pub(crate) fn last(&self, series: SeriesId, last: Timestamp) -> Option<Measure> {
        let (micros, value) = self.of(series)?.last(last.micros())?;
        Some(measure(micros, value))
    }

    /// The newest point of every series, in no order.
    pub(crate) fn last_of_each(&self) -> impl Iterator<Item = (u64, i64, f64)> {
        self.series.iter().filter_map(|(series, points)| {
            let (micros, value) = points.last(i64::MAX)?;
            Some((*series, micros, value))
        })
    }

    /// Every series with its points in order of time, by series, in one run or several; stops at the first error.
    pub(crate) fn for_each_run<E>(
        &self,
        mut take: impl FnMut(SeriesId, &[(i64, f64)]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut all: Vec<(u64, &SeriesPoints)> = self.series.iter().map(|(series, points)| (*series, points)).collect();
        all.sort_unstable_by_key(|(series, _)| *series);
        let mut merged = Vec::new();
        for (series, points) in all {
            if points.late().is_some() {
                merged.clear();
                points.sorted(i64::MIN, i64::MAX, &mut |micros, value| merged.push((micros, value)));
                take(SeriesId(series), &merged)?;
                continue;
            }
            for chunk in points.chunks() {
                take(SeriesId(series), chunk)?;
            }
            take(SeriesId(series), &points.newest)?;
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.points
    }

    pub(crate) fn bytes(&self) -> usize {
        self.points * POINT_BYTES + self.series.len() * SERIES_BYTES
    }

    /// The first and the last time of any series, those that were taken out included.
    pub(crate) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        self.times
    }

    /// When the first of its points came.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.since
    }
}

fn measure(micros: i64, value: f64) -> Measure {
    Measure { timestamp: Timestamp::from_micros(micros), value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Random points of few times, and points in order with some that are late, so many that there are chunks.
    fn any_rows() -> impl Strategy<Value = Vec<(u64, i64, u8)>> {
        let random = proptest::collection::vec((0u64..4, 0i64..40, 0u8..9), 0..300);
        let in_order =
            (1usize..1000, proptest::collection::vec((0usize..1000, 0i64..2000), 0..20)).prop_map(|(count, late)| {
                let mut rows: Vec<(u64, i64, u8)> = (0..count).map(|at| (0, at as i64 * 2, at as u8 % 9)).collect();
                for (at, time) in late {
                    rows.insert(at.min(rows.len()), (0, time, 7));
                }
                rows
            });
        prop_oneof![random, in_order]
    }

    proptest! {
        #[test]
        fn the_head_is_a_sorted_map(
            rows in any_rows(),
            from in 0i64..2000,
            to in 0i64..2000,
            small in any::<bool>(),
            removed in proptest::collection::vec((0usize..300, 0u64..5), 0..4),
        ) {
            let (from, to) = if small { (from % 40, to % 40) } else { (from, to) };
            let (mut head, mut model, mut replaced) = (Head::default(), BTreeMap::new(), 0);
            for (number, (series, micros, value)) in rows.into_iter().enumerate() {
                for (_, gone) in removed.iter().filter(|(at, _)| *at == number) {
                    head.remove_series(SeriesId(*gone));
                    model.retain(|(series, _), _| series != gone);
                }
                let value = f64::from(value);
                let point = Point { series: SeriesId(series), timestamp: Timestamp::from_micros(micros), value };
                replaced += head.put(&[point], Timestamp::EPOCH);
                model.insert((series, micros), value);
            }
            assert_eq!(head.len(), model.len());
            assert_eq!(head.series.iter().map(|(_, points)| points.len()).sum::<usize>(), model.len());
            let mut all = Vec::new();
            let _ = head.for_each_run::<()>(|series, run| {
                all.extend(run.iter().map(|(micros, value)| ((series.0, *micros), *value)));
                Ok(())
            });
            assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            let _ = replaced;
            for series in 0..4 {
                let mut read = Vec::new();
                head.read(SeriesId(series), Timestamp::from_micros(from), Timestamp::from_micros(to), &mut |m| read.push(m.timestamp.micros()));
                let expected: Vec<i64> = model.keys().filter(|(of, at)| *of == series && (from..=to).contains(at)).map(|(_, at)| *at).collect();
                assert_eq!(read, expected);
                let last = head.last(SeriesId(series), Timestamp::from_micros(to)).map(|m| m.timestamp.micros());
                assert_eq!(last, model.keys().filter(|(of, at)| *of == series && *at <= to).map(|(_, at)| *at).max());
            }
        }
    }
}
