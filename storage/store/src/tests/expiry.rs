//! Retention by series: what is older than a series' limit leaves the files, nothing else does, and nothing comes back.

use proptest::{collection::vec, prelude::*};

use super::*;

const DAY: i64 = 86_400;

fn limits(of: &[(u64, i64)]) -> Vec<(SeriesId, Timestamp)> {
    of.iter().map(|(series, second)| (SeriesId(*series), Timestamp::from_secs(START + second))).collect()
}

#[tokio::test]
async fn whole_days_before_a_limit_leave_the_files() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    for day in 0..4 {
        store.append(vec![point(1, day * DAY, 1.0), point(2, day * DAY, 2.0)]).await.expect("stored");
    }
    store.flush().await.expect("flushed");
    let moment = store.moment();
    assert_eq!(store.expire(limits(&[(1, 2 * DAY + 500), (7, 9 * DAY)])).await.expect("done"), 2);
    let left: Vec<_> = everything(&store, &[1, 2]).await.expect("read").iter().map(|(series, ..)| *series).collect();
    assert_eq!(left, [1, 1, 2, 2, 2, 2], "the day of the limit stays whole");
    assert_eq!(store.stats().rows, 6);
    let day = |day: i64| Timestamp::from_secs(START + day * DAY);
    assert_ne!(store.changed_since(moment, day(0), day(1)), [], "whoever remembers is told");
    assert_eq!(store.expire(limits(&[(1, 2 * DAY + 600)])).await.expect("done"), 0, "once for each day");
    // A file of which nothing stays leaves the table.
    assert_eq!(store.expire(limits(&[(1, DAY), (2, DAY)])).await.expect("done"), 1);
    assert_eq!(store.stats().files, 3);
    // The newest point is forgotten with its row.
    assert_eq!(store.last(SeriesId(1)).await.expect("read").map(|last| last.timestamp), Some(day(3)));
    store.expire(limits(&[(1, 9 * DAY)])).await.expect("done");
    assert_eq!(store.last(SeriesId(1)).await.expect("read"), None);
    assert!(store.verify().await.expect("read").is_sound());
    store.close().await.expect("closed");
    let store = world.open().await.expect("opens");
    assert_eq!(everything(&store, &[1, 2]).await.expect("read").len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// In whatever files the points are: what is left is what the limits leave, and a replaced value never comes back.
    #[test]
    fn limits_leave_what_they_say(
        batches in vec((vec((0..4u64, -4..4i64, 0..3i64), 1..12), any::<bool>()), 1..12),
        cut in vec(prop::option::of(-4 * DAY..5 * DAY), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new();
            let store = world.open().await.expect("opens");
            let mut model = std::collections::BTreeMap::new();
            for (number, (rows, is_merged)) in batches.iter().enumerate() {
                let points: Vec<Point> =
                    rows.iter().map(|(series, day, at)| point(*series, day * DAY + at, number as f64)).collect();
                model.extend(points.iter().map(|p| ((p.series.0, p.timestamp), p.value.to_bits())));
                store.append(points).await.expect("stored");
                store.flush().await.expect("flushed");
                if *is_merged {
                    store.compact().await.expect("merged");
                }
            }
            let cut: Vec<(u64, i64)> = (0..4).zip(&cut).filter_map(|(series, at)| Some((series, (*at)?))).collect();
            store.expire(limits(&cut)).await.expect("done");
            model.retain(|(series, time), _| {
                let limit = cut.iter().find(|(other, _)| other == series).map(|(_, second)| START + second);
                limit.is_none_or(|limit| time.secs().div_euclid(DAY) >= limit.div_euclid(DAY))
            });
            let expected: Vec<_> =
                model.into_iter().map(|((series, time), bits)| (series, time.micros(), bits)).collect();
            assert_eq!(everything(&store, &[0, 1, 2, 3]).await.expect("read"), expected);
            assert!(store.verify().await.expect("read").is_sound());
        });
    }
}
