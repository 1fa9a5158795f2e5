//! Files come back as they went in: by our index, and by any reader of Parquet.

use std::cell::RefCell;

use bytes::Bytes;
use orzo_model::{SeriesId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::table::{
    check::parquet_rows,
    decode::{Cursor, read_run},
};

fn point(series: u64, micros: i64, value: f64) -> Point {
    Point { series: SeriesId(series), timestamp: Timestamp::from_micros(micros), value }
}

fn encode(points: &[Point]) -> Encoded {
    let mut encoder = Encoder::new(0).unwrap();
    for part in points.chunks(777) {
        encoder.push(part).unwrap();
    }
    encoder.finish().unwrap()
}

fn index_of(encoded: &Encoded) -> Arc<FileIndex> {
    let (at, length) = encoded.index_place;
    Arc::new(FileIndex::decode(&encoded.bytes[at as usize..(at + length) as usize]).unwrap())
}

fn same(a: &[Point], b: &[Point]) -> bool {
    let bits = |point: &Point| (point.series, point.timestamp, point.value.to_bits());
    a.iter().map(bits).eq(b.iter().map(bits))
}

fn read_all(encoded: &Encoded) -> Vec<Point> {
    let (index, bytes) = (index_of(encoded), Bytes::from(encoded.bytes.clone()));
    let fetch = |at: u64, length: usize| Ok(bytes.slice(at as usize..at as usize + length));
    let (mut cursor, mut points) = (Cursor::new(index.clone()), Vec::new());
    for at in 0..index.runs_count() {
        let run = index.run(at).unwrap();
        read_run(&mut cursor, &fetch, &run, Timestamp::MIN, Timestamp::MAX, &mut |series, times, values| {
            points.extend(times.iter().zip(values).map(|(time, value)| Point {
                series,
                timestamp: Timestamp::from_micros(*time),
                value: *value,
            }));
            true
        })
        .unwrap();
    }
    points
}

fn check(points: &[Point]) -> Encoded {
    let encoded = encode(points);
    assert!(same(&read_all(&encoded), points), "by the index");
    assert!(same(&parquet_rows(encoded.bytes.clone()).unwrap(), points), "by Parquet");
    assert_eq!(encoded.contents.rows, points.len() as u64);
    encoded
}

/// What one scrape a second makes: all series share times that are a little off.
fn scraped(series: u64, scrapes: i64) -> Vec<Point> {
    let mut state = 7u64;
    let mut jitter = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 50_000) as i64
    };
    let times: Vec<i64> = (0..scrapes).map(|at| at * 1_000_000 + jitter()).collect();
    let value = |series: u64, at: i64| {
        if series.is_multiple_of(5) { (at as f64).sqrt() } else { (at * series as i64) as f64 / 10.0 }
    };
    (0..series)
        .flat_map(|series| {
            times.iter().enumerate().map(move |(at, time)| (series, *time, at as i64)).collect::<Vec<_>>()
        })
        .map(|(series, time, at)| point(series, time, value(series, at)))
        .collect()
}

#[test]
fn regular_jittered_and_irregular_times_come_back() {
    check(&[point(1, 0, 1.0)]);
    check(&scraped(3, 10));
    let shared = check(&scraped(100, 3000));
    assert!(times_bytes(&shared) < 300_000 / 10, "shared times are stored about once: {}", times_bytes(&shared));
    let regular: Vec<Point> =
        (0..50).flat_map(|series| (0..2000).map(move |at| point(series, at * 10_000_000, (at % 90) as f64))).collect();
    let regular = check(&regular);
    assert!(times_bytes(&regular) < 100_000 / 20, "regular times take next to nothing: {}", times_bytes(&regular));
}

/// Durations in nanoseconds, as doubles of seconds: no step by step, and none like the one before.
fn durations(series: u64, rows: i64, every_th_is_no_number: i64) -> Vec<Point> {
    let mut state = 5u64;
    let mut points = Vec::new();
    for series in 0..series {
        for at in 0..rows {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = if every_th_is_no_number > 0 && at % every_th_is_no_number == 7 {
                f64::NAN
            } else {
                (40_000 + (state >> 33) % 30_000) as f64 / 1e9
            };
            points.push(point(series, at * 10_000_000, value));
        }
    }
    points
}

#[test]
fn noise_is_kept_by_its_bytes_and_comes_back() {
    let packings = |encoded: &Encoded| {
        let mut packings: Vec<Packing> = index_of(encoded).numbers.iter().map(|page| page.packing).collect();
        packings.dedup();
        packings
    };
    let noise = check(&durations(20, 3000, 0));
    assert_eq!(packings(&noise), [Packing::Split]);
    let bytes: u32 = index_of(&noise).numbers.iter().map(|page| page.piece.bytes).sum();
    // 30,000 different numbers are 14.9 bits, 112,000 bytes; as differences they take 150,000.
    assert!(bytes < 125_000, "{bytes} bytes of 60,000 numbers");
    check(&durations(20, 3000, 50));
    check(&durations(3, 70, 9));
    // Steps, noise and steps again, one file, one column.
    let mut points = scraped(100, 300);
    let apart = |first: u64| move |point: Point| Point { series: SeriesId(first << 40 | point.series.0), ..point };
    points.extend(durations(40, 500, 0).into_iter().map(apart(1)));
    points.extend(durations(40, 500, 20).into_iter().map(apart(2)));
    points.extend(scraped(100, 300).into_iter().map(apart(3)));
    assert_eq!(packings(&check(&points)), [Packing::Deltas, Packing::Split, Packing::Deltas]);
}

/// Counters that grow by anything up to `rate`.
fn counters(series: u64, rows: i64, rate: u64) -> Vec<Point> {
    let (mut state, mut points) = (11u64, Vec::new());
    for series in 0..series {
        let mut sum = 1_000_000_000;
        for at in 0..rows {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 33) % rate;
            points.push(point(series, at * 10_000_000, sum as f64));
        }
    }
    points
}

#[test]
fn random_steps_are_as_narrow_as_they_are_and_come_back() {
    let bytes = |encoded: &Encoded| index_of(encoded).numbers.iter().map(|page| page.piece.bytes).sum::<u32>();
    let random = counters(20, 3000, 1000);
    let (numbers, mut whole): (Vec<i64>, _) = (random.iter().map(|point| point.value as i64).collect(), Vec::new());
    packing::put_deltas(&numbers, &mut whole);
    let (bytes, whole) = (bytes(&check(&random)), zstd::bulk::compress(&whole, ZSTD_LEVEL).unwrap().len());
    assert!((bytes as usize) < whole - whole / 32, "{bytes} bytes of 60,000 numbers, {whole} in whole bytes");
    // Beside steps that come again, of its own meter and of others, in one page.
    let apart = |first: u64| move |point: Point| Point { series: SeriesId(first + point.series.0), ..point };
    let mut points = scraped(30, 1100);
    points.extend(counters(5, 1500, 1 << 35).into_iter().map(apart(1000)));
    points.extend(scraped(30, 1100).into_iter().map(apart(2000)));
    points.extend(counters(9, 700, 3000).into_iter().map(apart(1 << 40)));
    points.extend(counters(9, 70, 3).into_iter().map(apart(2 << 40)));
    check(&points);
}

fn times_bytes(encoded: &Encoded) -> u32 {
    let index = index_of(encoded);
    let pages = index.times.iter().map(|page| page.piece.bytes);
    pages.chain(index.dictionaries.iter().map(|(piece, _)| piece.bytes)).sum()
}

#[test]
fn decimal_and_other_values_of_one_series_come_back() {
    let values = [1.5, 2.25, f64::NAN, -0.0, 0.1, 1e300, f64::INFINITY, 3.0, 1.0 / 3.0];
    let mut points = Vec::new();
    for series in 0..200u64 {
        for at in 0..(series as i64 % 40) + 1 {
            // Some series are all decimal, some have one other value, some are anything.
            let value = match series % 3 {
                0 => at as f64 / 4.0,
                1 if at == 20 => f64::NAN,
                1 => at as f64,
                _ => values[at as usize % values.len()],
            };
            points.push(point(series * 3, at * 1000, value));
        }
    }
    check(&points);
}

#[test]
fn more_than_one_row_group_comes_back() {
    let points: Vec<Point> = (0..5)
        .flat_map(|series| (0..250_000).map(move |at| point(series, at * 1_000_000, ((at * 7) % 1000) as f64)))
        .collect();
    let encoded = check(&points);
    assert!(points.len() > ROW_GROUP_ROWS && encoded.contents.rows == points.len() as u64);
}

#[test]
fn a_row_group_has_so_many_series_and_no_more() {
    let series = ROW_GROUP_SERIES as u64 * 2 + 5;
    let points: Vec<Point> =
        (0..series).flat_map(|series| (0..2).map(move |at| point(series, at * 1_000_000, series as f64))).collect();
    let encoded = check(&points);
    let metadata =
        parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(encoded.bytes)).unwrap();
    let rows: Vec<i64> = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [ROW_GROUP_SERIES as i64 * 2, ROW_GROUP_SERIES as i64 * 2, 10]);
}

#[test]
fn one_series_of_many_is_two_small_reads() {
    let points = scraped(1000, 1000);
    let encoded = encode(&points);
    let (index, bytes) = (index_of(&encoded), Bytes::from(encoded.bytes.clone()));
    let reads = RefCell::new(Vec::new());
    let fetch = |at: u64, length: usize| {
        reads.borrow_mut().push(length);
        Ok(bytes.slice(at as usize..at as usize + length))
    };
    let run = index.run(index.find(503, 0)).unwrap();
    let mut cursor = Cursor::new(index.clone());
    let mut found = 0;
    read_run(&mut cursor, &fetch, &run, Timestamp::MIN, Timestamp::MAX, &mut |_, times, _| {
        found += times.len();
        true
    })
    .unwrap();
    assert_eq!(found, 1000);
    let reads = reads.into_inner();
    // Times, their dictionary, values.
    assert!(reads.len() <= 3 && reads.iter().sum::<usize>() < 100_000, "{reads:?} of {}", encoded.bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_points_come_back(
        rows in proptest::collection::btree_map(
            (0u64..20, any::<i32>()),
            prop_oneof![any::<f64>(), (-1000i32..1000).prop_map(|n| f64::from(n) / 100.0), Just(f64::NAN)],
            1..400,
        )
    ) {
        let points: Vec<Point> =
            rows.into_iter().map(|((series, time), value)| point(series, i64::from(time) * 1000, value)).collect();
        check(&points);
    }
}

/// Meters beside each other, and all of an instance's have its times, which are no whole steps.
#[test]
fn times_that_far_series_share_are_kept_about_once() {
    let (instances, meters, points) = (60i64, 8u64, 288i64);
    let mut seed = 7u64;
    let mut jitter = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as i64 % 4_000
    };
    let times: Vec<Vec<i64>> =
        (0..instances).map(|_| (0..points).map(|at| at * 300_000_000 + jitter() * 1000).collect()).collect();
    let rows = |meters: u64| -> Vec<Point> {
        let series =
            (0..meters).flat_map(|meter| times.iter().zip(0..).map(move |(times, one)| (meter << 40 | one, times)));
        let point = |series, time: &i64| Point {
            series: SeriesId(series),
            timestamp: Timestamp::from_micros(*time),
            value: 1.0,
        };
        series.flat_map(|(series, times)| times.iter().map(move |time| point(series, time))).collect()
    };
    let bytes = |rows: &[Point]| {
        let mut encoder = Encoder::new(0).expect("an encoder");
        encoder.push(rows).expect("in memory");
        encoder.finish().expect("in memory").bytes.len()
    };
    let (one, all) = (bytes(&rows(1)), bytes(&rows(meters)));
    assert!(all < one * 3, "{one} bytes for one meter, {all} for {meters}");
}
