//! Any sequence of operations gives what a sorted map gives.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::faults::Restart;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u64, i64, f64)>),
    Delete(u64),
    Flush,
    Compact,
    Retain(i64),
    Checkpoint,
    Vacuum,
    Advance(u64),
    Close,
    Kill,
    PowerCut(u64),
    Scan(u64, i64, i64),
    Last(u64, i64),
}

const SERIES_MAX: u64 = 6;
/// Hours around the start: some points are days late.
const HOURS: std::ops::Range<i64> = -60..60;

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![4 => (0..5i32).prop_map(f64::from), 1 => any::<f64>()];
    prop_oneof![
        8 => vec((0..SERIES_MAX, HOURS, value), 1..30).prop_map(Step::Append),
        1 => (0..SERIES_MAX).prop_map(Step::Delete),
        4 => Just(Step::Flush),
        2 => Just(Step::Compact),
        1 => HOURS.prop_map(Step::Retain),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Vacuum),
        1 => (1..200_000u64).prop_map(Step::Advance),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerCut),
        3 => (0..SERIES_MAX, HOURS, HOURS).prop_map(|(series, from, to)| Step::Scan(series, from, to)),
        2 => (0..SERIES_MAX, HOURS).prop_map(|(series, before)| Step::Last(series, before)),
    ]
}

type Model = BTreeMap<(u64, i64), f64>;

fn hour(hour: i64) -> Timestamp {
    Timestamp::from_secs(START + hour * 3600)
}

async fn run(steps: Vec<Step>) {
    let world = World::new();
    let mut model = Model::new();
    let mut store = world.open().await.expect("opens");
    for step in steps {
        match step {
            Step::Append(rows) => {
                let points: Vec<_> = rows
                    .iter()
                    .map(|(series, at, value)| Point { series: SeriesId(*series), timestamp: hour(*at), value: *value })
                    .collect();
                store.append(points).await.expect("stored");
                model.extend(rows.iter().map(|(series, at, value)| ((*series, hour(*at).micros()), *value)));
            }
            Step::Delete(series) => {
                store.delete_series(&[SeriesId(series)]).await.expect("deleted");
                model.retain(|(of, _), _| *of != series);
            }
            Step::Flush => store.flush().await.expect("flushed"),
            Step::Compact => drop(store.compact().await.expect("merged")),
            Step::Checkpoint => store.checkpoint().await.expect("written"),
            Step::Vacuum => store.vacuum().await.expect("removed"),
            Step::Advance(seconds) => world.clock.advance(Duration::from_secs(seconds)),
            Step::Retain(before) => {
                // Whole files only, so what is left is asked of the store; it must hold all that is new enough.
                store.flush().await.expect("flushed");
                store.retain(hour(before)).await.expect("removed");
                let left: std::collections::BTreeSet<_> = everything(&store, &Vec::from_iter(0..SERIES_MAX))
                    .await
                    .expect("read")
                    .into_iter()
                    .map(|r| (r.0, r.1))
                    .collect();
                model.retain(|key, _| key.1 >= hour(before).micros() || left.contains(key));
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
            Step::Scan(series, from, to) => {
                let found = store.scan(&[SeriesId(series)], hour(from), hour(to)).await.expect("read");
                let found: Vec<_> = found
                    .iter()
                    .flat_map(|(_, m)| m.iter().map(|m| (m.timestamp.micros(), m.value.to_bits())))
                    .collect();
                let expected: Vec<_> = model
                    .iter()
                    .filter(|((of, at), _)| *of == series && (hour(from).micros()..hour(to).micros()).contains(at))
                    .map(|((_, at), value)| (*at, value.to_bits()))
                    .collect();
                assert_eq!(found, expected);
            }
            Step::Last(series, before) => {
                let found = store.last_before(SeriesId(series), hour(before)).await.expect("read");
                let expected = model.iter().rfind(|((of, at), _)| *of == series && *at < hour(before).micros());
                assert_eq!(
                    found.map(|m| (m.timestamp.micros(), m.value.to_bits())),
                    expected.map(|((_, at), value)| (*at, value.to_bits()))
                );
            }
        }
        let found = everything(&store, &Vec::from_iter(0..SERIES_MAX)).await.expect("read");
        let expected: Vec<_> = model.iter().map(|((series, at), value)| (*series, *at, value.to_bits())).collect();
        assert_eq!(found, expected);
    }
    let report = store.verify().await.expect("read");
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(world.room.balance().is_conserved());
    assert_eq!(world.room.balance().waiting, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_sorted_map(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
}
