//! Rollups tell what the raw points say, or nothing: whatever comes late, is replaced, deleted, merged, damaged or cut off.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Aggregate, Layer, RollPlan,
    faults::{Fault, Restart},
};

const DAY: i64 = 86_400;
const HOURLY_SUM: Layer = Layer { width_secs: 3600, aggregate: Aggregate::Sum };
const HOURLY_COUNT: Layer = Layer { width_secs: 3600, aggregate: Aggregate::Count };
const DAILY_LAST: Layer = Layer { width_secs: 86_400, aggregate: Aggregate::Last };
const LAYERS: [Layer; 3] = [HOURLY_SUM, HOURLY_COUNT, DAILY_LAST];
const SERIES_MAX: u64 = 5;

/// What a layer has of values in order.
fn value_of(layer: Layer, values: &[f64]) -> f64 {
    match layer.aggregate {
        Aggregate::Sum => values.iter().fold(0.0, |sum, value| sum + value),
        Aggregate::Count => values.len() as f64,
        _ => *values.last().expect("a value"),
    }
}

fn bucket(layer: Layer, time: Timestamp) -> i64 {
    time.floor(Duration::from_secs(layer.width_secs.into())).micros()
}

fn plan() -> RollPlan {
    let make = |points: &[Point], rows: &mut [Vec<Point>]| {
        for (layer, rows) in LAYERS.into_iter().zip(rows) {
            for points in points.chunk_by(|a, b| bucket(layer, a.timestamp) == bucket(layer, b.timestamp)) {
                let values: Vec<f64> = points.iter().map(|point| point.value).collect();
                let timestamp = Timestamp::from_micros(bucket(layer, points[0].timestamp));
                rows.push(Point { series: points[0].series, timestamp, value: value_of(layer, &values) });
            }
        }
    };
    RollPlan { layers: LAYERS.to_vec(), make: Box::new(make) }
}

/// Makes all rollups that are due, and merges them.
async fn roll_all(store: &Store) {
    while let Some(day) = store.roll_due() {
        store.roll_day(day, plan()).await.expect("made");
    }
    while store.tidy_rollups().await.expect("merged") > 0 {}
}

/// Holds everything that rollups tell against the raw points; gives how many days of series they told in all layers.
async fn told(store: &Store) -> usize {
    let series: Vec<SeriesId> = (0..SERIES_MAX).map(SeriesId).collect();
    let everything = |layer| (layer, Timestamp::MIN, Timestamp::MAX);
    let rolled = store.rolled(LAYERS.map(everything).to_vec(), series.clone()).await.expect("told");
    let raw: BTreeMap<SeriesId, Vec<Measure>> =
        store.scan(&series, Timestamp::MIN, Timestamp::MAX).await.expect("read").into_iter().collect();
    let mut days = 0;
    for (layer, rolled) in LAYERS.into_iter().zip(rolled) {
        for (series, rolled) in series.iter().zip(rolled) {
            let is_told = |time: i64| rolled.days.iter().any(|(from, to)| (from.micros()..to.micros()).contains(&time));
            let mut expected: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
            for measure in raw.get(series).into_iter().flatten().filter(|m| is_told(m.timestamp.micros())) {
                expected.entry(bucket(layer, measure.timestamp)).or_default().push(measure.value);
            }
            let expected: Vec<_> =
                expected.into_iter().map(|(time, values)| (time, value_of(layer, &values).to_bits())).collect();
            let found: Vec<_> =
                rolled.times.iter().copied().zip(rolled.values.iter().map(|value| value.to_bits())).collect();
            assert_eq!(found, expected, "{layer:?} {series:?} {:?}", rolled.days);
            days += rolled.days.iter().map(|(from, to)| (to.secs() - from.secs()) / DAY).sum::<i64>() as usize;
        }
    }
    days
}

/// How many days of series there are in raw points, for all layers.
async fn tellable(store: &Store) -> usize {
    let rows = everything(store, &Vec::from_iter(0..SERIES_MAX)).await.expect("read");
    let days: BTreeSet<_> = rows.iter().map(|(series, time, _)| (*series, time.div_euclid(DAY * 1_000_000))).collect();
    days.len() * LAYERS.len()
}

fn rollup_files(world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let files = world.disk.files().into_iter();
    files.filter(|(path, _)| path.to_string_lossy().contains("rollups")).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u64, i64, f64)>),
    Delete(u64),
    Flush,
    Compact,
    ApplyDeletions,
    Retain(i64),
    Vacuum,
    Advance(u64),
    Roll,
    RollOne,
    Close,
    Kill,
    PowerCut(u64),
    Damage(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![4 => (0..50i32).prop_map(|n| f64::from(n) / 10.0), 1 => any::<i32>().prop_map(f64::from)];
    prop_oneof![
        8 => vec((0..SERIES_MAX, -72..72i64, value), 1..30).prop_map(Step::Append),
        1 => (0..SERIES_MAX).prop_map(Step::Delete),
        4 => Just(Step::Flush),
        2 => Just(Step::Compact),
        1 => Just(Step::ApplyDeletions),
        1 => (-72..72i64).prop_map(Step::Retain),
        1 => Just(Step::Vacuum),
        2 => (1..200_000u64).prop_map(Step::Advance),
        4 => Just(Step::Roll),
        2 => Just(Step::RollOne),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerCut),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, byte)| Step::Damage(file, byte)),
    ]
}

async fn run(steps: Vec<Step>) {
    let world = World::new();
    let mut store = world.open().await.expect("opens");
    for step in steps {
        match step {
            Step::Append(rows) => {
                let point = |(series, quarter, value): &(u64, i64, f64)| Point {
                    series: SeriesId(*series),
                    timestamp: Timestamp::from_secs(START + quarter * 2700),
                    value: *value,
                };
                store.append(rows.iter().map(point).collect()).await.expect("stored");
            }
            Step::Delete(series) => store.delete_series(&[SeriesId(series)]).await.expect("deleted"),
            Step::Flush => store.flush().await.expect("flushed"),
            Step::Compact => {
                store.compact().await.expect("merged");
            }
            Step::ApplyDeletions => {
                store.apply_deletions().await.expect("written");
            }
            Step::Retain(quarter) => {
                store.retain(Timestamp::from_secs(START + quarter * 2700)).await.expect("removed");
            }
            Step::Vacuum => store.vacuum().await.expect("removed"),
            Step::Advance(seconds) => world.clock.advance(Duration::from_secs(seconds)),
            Step::Roll => roll_all(&store).await,
            Step::RollOne => {
                if let Some(day) = store.roll_due() {
                    store.roll_day(day, plan()).await.expect("made");
                }
            }
            Step::Close => {
                store.close().await.expect("closed");
                store = world.open().await.expect("opens");
            }
            Step::Kill | Step::PowerCut(_) => {
                drop(store);
                world.disk.restart(match step {
                    Step::PowerCut(seed) => Restart::PowerCut { seed },
                    _ => Restart::Killed,
                });
                store = world.open().await.expect("opens");
            }
            Step::Damage(file, byte) => {
                let files = rollup_files(&world);
                if let Some((path, mut contents)) = files.get(file % files.len().max(1)).cloned() {
                    let byte = byte % contents.len().max(1);
                    if let Some(byte) = contents.get_mut(byte) {
                        *byte ^= 16;
                    }
                    world.disk.put(&path, contents);
                }
            }
        }
        told(&store).await;
    }
    assert!(store.verify().await.expect("read").is_sound());
    // In the end everything is told, but for what was damaged and not yet looked at.
    store.flush().await.expect("flushed");
    store.close().await.expect("closed");
    store = world.open().await.expect("opens");
    world.clock.advance(Duration::from_secs(9 * DAY as u64));
    store.compact().await.expect("merged");
    store.apply_deletions().await.expect("written");
    for _ in 0..2 {
        roll_all(&store).await;
        told(&store).await;
    }
    roll_all(&store).await;
    assert_eq!(told(&store).await, tellable(&store).await);
    let stats = store.stats();
    assert_eq!(stats.rollup_days_behind, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn rollups_tell_what_the_points_say(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
}

/// A store with so many days of hourly points of two series, in files, all days over.
async fn furnished(days: i64) -> (World, Arc<Store>) {
    let world = World::new();
    let store = world.open().await.expect("opens");
    for day in 0..days {
        let points = |series| (0..24).map(move |hour| point(series, day * DAY + hour * 3600, (day + hour) as f64));
        store.append(points(1).chain(points(2)).collect()).await.expect("stored");
        store.flush().await.expect("flushed");
    }
    world.clock.advance(Duration::from_secs((days + 1) as u64 * DAY as u64));
    (world, store)
}

#[tokio::test]
async fn many_days_become_few_files_that_are_found_again() {
    let (world, store) = furnished(40).await;
    assert!(store.roll_due().is_some_and(|day| day == Timestamp::from_secs(START + 39 * DAY)), "the newest first");
    roll_all(&store).await;
    assert_eq!(told(&store).await, 40 * 2 * LAYERS.len());
    let stats = store.stats();
    assert_eq!((stats.rollup_days, stats.rollup_days_behind), (40, 0));
    assert_eq!(stats.rollup_rows, 40 * 2 * (24 + 24 + 1));
    // Tests' files have 64 rows; nothing but merged parts is left.
    assert!(stats.rollup_files < 2 * 40 * LAYERS.len() as u64, "{stats:?}");
    let parts: BTreeSet<_> = rollup_files(&world)
        .into_iter()
        .filter_map(|(path, _)| Some(path.to_str()?.split_once("statistic=last/")?.1.split('-').nth(3)?.to_owned()))
        .collect();
    assert!(parts.len() < 10, "{parts:?}");
    store.close().await.expect("closed");
    let store = world.open().await.expect("opens");
    assert_eq!(told(&store).await, 40 * 2 * LAYERS.len());
    assert_eq!(store.roll_due(), None, "nothing is made twice");
}

#[tokio::test]
async fn more_rows_than_a_scan_may_give_are_refused() {
    let (mut world, store) = furnished(3).await;
    roll_all(&store).await;
    store.close().await.expect("closed");
    world.settings.scan_points_max = 100;
    let store = world.open().await.expect("opens");
    let wanted = vec![(HOURLY_SUM, Timestamp::MIN, Timestamp::MAX)];
    let both = store.rolled(wanted.clone(), vec![SeriesId(1), SeriesId(2)]).await;
    assert!(matches!(both, Err(StoreError::TooManyPoints { points_max: 100 })), "{both:?}");
    let one = store.rolled(wanted, vec![SeriesId(2)]).await.expect("72 rows");
    assert_eq!(one[0][0].times.len(), 72);
}

#[tokio::test]
async fn a_late_point_takes_its_series_and_day_away_and_nothing_else() {
    let (world, store) = furnished(3).await;
    roll_all(&store).await;
    let all = 3 * 2 * LAYERS.len();
    assert_eq!(told(&store).await, all);
    store.append(vec![point(1, DAY + 5, 0.5)]).await.expect("stored");
    assert_eq!(told(&store).await, all - LAYERS.len(), "in the head");
    store.flush().await.expect("flushed");
    assert_eq!(told(&store).await, all - LAYERS.len(), "in a later file");
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(store.roll_due(), None, "more may come");
    world.clock.advance(Duration::from_secs(3600));
    roll_all(&store).await;
    assert_eq!(told(&store).await, all);
}

#[tokio::test]
async fn rows_of_a_deleted_series_leave_the_rollups_files() {
    let (world, store) = furnished(9).await;
    roll_all(&store).await;
    store.delete_series(&[SeriesId(2)]).await.expect("deleted");
    assert_eq!(told(&store).await, 9 * LAYERS.len(), "hidden at once");
    store.flush().await.expect("flushed");
    store.apply_deletions().await.expect("written");
    world.clock.advance(Duration::from_secs(3600));
    roll_all(&store).await;
    assert_eq!(told(&store).await, 9 * LAYERS.len());
    assert_eq!(store.stats().rollup_rows, 9 * (24 + 24 + 1));
    store.tidy_rollups().await.expect("removed");
    let rows = rollup_files(&world).into_iter().filter(|(path, _)| path.extension() == Some("parquet".as_ref()));
    for (path, bytes) in rows.filter(|(path, _)| !path.to_string_lossy().contains("checkpoint")) {
        let rows = crate::table::check::parquet_rows(bytes).expect("Parquet");
        assert!(rows.iter().all(|row| row.series == SeriesId(1)), "{}", path.display());
    }
}

#[tokio::test]
async fn damaged_or_missing_rollups_are_made_again() {
    let (whole, store) = furnished(9).await;
    roll_all(&store).await;
    store.close().await.expect("closed");
    let all = 9 * 2 * LAYERS.len();
    for (path, contents) in rollup_files(&whole) {
        for how in 0..4 {
            let world = World { clock: whole.clock.clone(), ..whole.copy() };
            let mut damaged = contents.clone();
            match how {
                0 => damaged.truncate(contents.len() / 2),
                1 => damaged[contents.len() / 2] ^= 1,
                2 => damaged[contents.len() / 9] ^= 128,
                _ => world.disk.take_away(&path),
            }
            if how < 3 {
                world.disk.put(&path, damaged);
            }
            let store = world.open().await.expect("opens");
            told(&store).await;
            roll_all(&store).await;
            told(&store).await;
            roll_all(&store).await;
            assert_eq!(told(&store).await, all, "{} {how}", path.display());
            store.close().await.expect("closed");
        }
    }
}

#[tokio::test]
async fn making_rollups_breaks_at_every_operation() {
    let (whole, store) = furnished(6).await;
    store.close().await.expect("closed");
    let life = async |world: &World| -> Result<(), StoreError> {
        let store = world.open().await?;
        while let Some(day) = store.roll_due() {
            store.roll_day(day, plan()).await?;
            store.tidy_rollups().await?;
        }
        store.close().await
    };
    let begun = |fault: Option<Fault>| {
        let world = World { clock: whole.clock.clone(), ..whole.copy() };
        if let Some(fault) = fault {
            world.disk.set_fault(fault);
        }
        world
    };
    let unbroken = begun(None);
    life(&unbroken).await.expect("nothing is broken");
    let operations = unbroken.disk.operations();
    assert!(operations > 100, "{operations}");
    for operation in 0..operations {
        // Each operation in one of three ways.
        let fault = match operation % 3 {
            0 => Fault::Stop { operation },
            kind => Fault::FailOnce { operation, kind: std::io::ErrorKind::Other, applied: kind == 2 },
        };
        let world = begun(Some(fault));
        let _ = life(&world).await;
        let seed = operation;
        world.disk.restart(if operation % 3 == 1 { Restart::Killed } else { Restart::PowerCut { seed } });
        let store = world.open().await.expect("opens");
        told(&store).await;
        roll_all(&store).await;
        assert_eq!(told(&store).await, 6 * 2 * LAYERS.len(), "operation {operation}");
        store.close().await.expect("closed");
    }
}
