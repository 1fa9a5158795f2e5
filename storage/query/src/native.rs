//! Native histograms in a store of numbers: each is a row of points within its millisecond.
//!
//! `Histogram → words → points (series, time + k µs, word k)` and back. Times of samples are whole milliseconds, so a
//! histogram has a thousand places of its own: its first word says how many words there are, and what a shorter histogram
//! leaves of a longer one that it replaced lies behind its end and means nothing. All of them are one record of the log, so a
//! histogram is there whole or not at all; natural key, retention, deletion, backup and verification are those of points.
//! Series of histograms have label sets of their own beside the project's ([`book_of`]): nobody but this room writes to them.
//!
//! | word | what |
//! |---|---|
//! | 0 | words in all + 1024 × (schema + 64) + 1024 × 256 × hint (0 nothing, 1 began anew, 2 gauge) |
//! | 1, 2 | count, sum |
//! | 3, 4 | width and count of the zero bucket |
//! | 5, 6 | runs of neighbouring buckets above and below zero |
//! | … | of each run the number of its first bucket and how many it has |
//! | … | counts of the buckets above and below zero |
//! | … | upper bounds of custom buckets |

use std::sync::Arc;

use orzo_model::Timestamp;
use orzo_promql::{CUSTOM_SCHEMA, EXPONENTIAL_SCHEMAS, Histogram, ResetHint, marked};

/// Words of one histogram: the microseconds of a millisecond, less one. Prometheus' own clients make at most 160 buckets.
pub const WORDS_MAX: usize = 999;
/// What is behind the name of a project in the name of its histograms' book; no project's id has such a character.
const BOOK: &str = "\u{1}native";
/// Word 0: how many words, which schema, which hint.
const SCHEMA_STEP: u64 = 1 << 10;
const HINT_STEP: u64 = SCHEMA_STEP << 8;
const SCHEMA_ZERO: i64 = 64;
/// Words before the runs.
const HEAD_WORDS: usize = 7;

/// The name under which the label index keeps label sets of a project's histograms.
pub fn book_of(project: &str) -> String {
    format!("{project}{BOOK}")
}

/// The project of such a book; `None` for any other name.
pub(crate) fn project_of(name: &str) -> Option<&str> {
    name.strip_suffix(BOOK)
}

/// Runs of neighbouring buckets.
fn runs(buckets: &[(i32, f64)]) -> Vec<(i32, usize)> {
    let mut runs: Vec<(i32, usize)> = Vec::new();
    for (number, _) in buckets {
        match runs.last_mut() {
            Some((first, length)) if i64::from(*first) + *length as i64 == i64::from(*number) => *length += 1,
            _ => runs.push((*number, 1)),
        }
    }
    runs
}

/// The words of a histogram; `None` if there are more than a millisecond has places for.
pub fn words(histogram: &Histogram) -> Option<Vec<f64>> {
    let (above, below) = (runs(&histogram.positive), runs(&histogram.negative));
    let mut words = vec![
        0.0,
        histogram.count,
        histogram.sum,
        histogram.zero_threshold,
        histogram.zero_count,
        above.len() as f64,
        below.len() as f64,
    ];
    words.extend(above.iter().chain(&below).flat_map(|(first, length)| [f64::from(*first), *length as f64]));
    words.extend(histogram.positive.iter().chain(&histogram.negative).map(|(_, count)| *count));
    words.extend(&histogram.bounds);
    let hint = match histogram.hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::Gauge => 2,
    };
    let schema = u64::try_from(i64::from(histogram.schema) + SCHEMA_ZERO).ok()?;
    words[0] = (words.len() as u64 + SCHEMA_STEP * schema + HINT_STEP * hint) as f64;
    (words.len() <= WORDS_MAX).then_some(words)
}

/// The histogram of words; `None` if they are none.
fn histogram(words: &[f64]) -> Option<Histogram> {
    let head = whole(*words.first()?)?;
    let words = words.get(..(head % SCHEMA_STEP) as usize)?;
    let schema = i32::try_from((head / SCHEMA_STEP % 256).cast_signed() - SCHEMA_ZERO).ok()?;
    let hint = match head / HINT_STEP {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::Gauge,
        _ => return None,
    };
    if schema != CUSTOM_SCHEMA && !EXPONENTIAL_SCHEMAS.contains(&schema) {
        return None;
    }
    let mut read = words.get(HEAD_WORDS..)?.iter().copied();
    let counts = [whole(words[5])?, whole(words[6])?];
    let mut sides = [Vec::new(), Vec::new()];
    for (side, count) in sides.iter_mut().zip(counts) {
        for _ in 0..count {
            let (first, length) = (read.next()?, whole(read.next()?)?);
            if side.len() + length as usize > WORDS_MAX || first.fract() != 0.0 || first.abs() > f64::from(i32::MAX) {
                return None;
            }
            side.extend((0..length as i32).map(|at| (first as i32).wrapping_add(at)));
        }
    }
    let mut filled = sides
        .into_iter()
        .map(|side| side.into_iter().map(|number| Some((number, read.next()?))).collect::<Option<Vec<(i32, f64)>>>());
    let (positive, negative) = (filled.next()??, filled.next()??);
    drop(filled);
    Some(Histogram {
        schema,
        hint,
        zero_threshold: words[3],
        zero_count: words[4],
        count: words[1],
        sum: words[2],
        positive,
        negative,
        bounds: read.collect(),
    })
}

fn whole(word: f64) -> Option<u64> {
    // 2^53: whole numbers up to there are exact.
    (word.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&word)).then_some(word as u64)
}

/// Points of a histogram's words, from its millisecond on.
pub(crate) fn points(at: Timestamp, words: &[f64]) -> impl Iterator<Item = (Timestamp, f64)> {
    words.iter().enumerate().map(move |(place, word)| (Timestamp::from_micros(at.micros() + place as i64), *word))
}

/// What was read of a series of histograms.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Milliseconds.
    pub(crate) times: Vec<i64>,
    /// Each stands for a histogram, or is a stale marker.
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Vec<Arc<Histogram>>,
}

/// Histograms of a series' points; the first millisecond at which there is none, if they are damaged.
pub(crate) fn read(times: &[i64], values: &[f64]) -> Result<Read, i64> {
    let mut found = Read::default();
    let mut start = 0;
    while let Some(first) = times.get(start) {
        let millis = first.div_euclid(1000);
        let end = start + times[start..].partition_point(|time| time.div_euclid(1000) == millis);
        // Word k lies k microseconds behind the millisecond; behind the last one may be what a longer one left.
        let in_place =
            times[start..end].iter().zip(0_i64..).take_while(|(time, place)| **time == millis * 1000 + place);
        let words = &values[start..start + in_place.count()];
        let one = histogram(words).ok_or(millis)?;
        found.times.push(millis);
        if one.sum.to_bits() == STALE_BITS {
            found.values.push(one.sum);
        } else {
            found.values.push(marked(found.histograms.len()));
            found.histograms.push(Arc::new(one));
        }
        start = end;
    }
    Ok(found)
}

/// The NaN that says that a series has ended, as a sum says it.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Histogram {
        Histogram {
            schema: 3,
            hint: ResetHint::Gauge,
            zero_threshold: 1e-128,
            zero_count: 2.0,
            count: 17.5,
            sum: -0.1,
            positive: vec![(-4, 1.0), (-3, 0.0), (7, 4.5), (8, 2.0)],
            negative: vec![(i32::MAX - 1, 8.0)],
            bounds: Vec::new(),
        }
    }

    #[test]
    fn histograms_come_back_and_what_a_longer_one_left_means_nothing() {
        let custom = Histogram {
            schema: CUSTOM_SCHEMA,
            count: 3.0,
            sum: f64::INFINITY,
            positive: vec![(0, 1.0), (2, 2.0)],
            bounds: vec![-1.0, 0.5],
            ..Histogram::default()
        };
        let stale = Histogram { sum: f64::from_bits(STALE_BITS), ..Histogram::default() };
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (millis, one) in [(-5, &example()), (10, &custom), (11, &stale)] {
            for (at, word) in points(Timestamp::from_micros(millis * 1000), &words(one).expect("words")) {
                times.push(at.micros());
                values.push(word);
            }
        }
        // The custom one has taken the place of a longer one.
        let place = times.partition_point(|time| *time < 11_000);
        times.insert(place, 10_900);
        values.insert(place, 7.0);
        let found = read(&times, &values).expect("histograms");
        assert_eq!(found.times, [-5, 10, 11]);
        assert_eq!(found.histograms.iter().map(|one| (**one).clone()).collect::<Vec<_>>(), [example(), custom]);
        assert_eq!(found.values[2].to_bits(), STALE_BITS);
    }

    #[test]
    fn what_is_no_histogram_is_told_with_its_time_and_never_a_panic() {
        let whole = words(&example()).expect("words");
        for cut in 0..whole.len() {
            let (times, values): (Vec<i64>, Vec<f64>) =
                (0..cut as i64).map(|at| (5_000 + at, whole[at as usize])).unzip();
            assert_eq!(read(&times, &values).map(|found| found.times.len()), if cut == 0 { Ok(0) } else { Err(5) });
        }
        for place in 0..whole.len() {
            for wrong in [f64::NAN, -1.0, 1e300, 0.5, f64::INFINITY, 1_000_000.0] {
                let mut words = whole.clone();
                words[place] = wrong;
                let _ = histogram(&words);
            }
        }
        let many = Histogram { positive: (0..1000).map(|at| (at, 1.0)).collect(), ..Histogram::default() };
        assert_eq!(words(&many), None);
    }
}
