//! Series at common times: granularities, the grid, what stands where values are missing, and the answer's measures.
//! Pure functions; what the grid is for is in `operations`.

use std::{collections::BTreeMap, time::Duration};

use orzo_model::{Measure, Timestamp};
use serde_json::{Value, json};

use super::{AggregatesQuery, Fill, found::Named};
use crate::{
    QueryError,
    operations::{Column, Grid},
    read::AggregatedMeasure,
};

/// A granularity that every metric has, unless nobody asks their policies.
pub(super) fn checked_width(named: &[Named], width: Duration, beyond_policy: bool) -> Result<Duration, QueryError> {
    let has_none = |named: &&Named| !beyond_policy && named.metric.archive_policy.item(width).is_none();
    let missing: Vec<Value> = named
        .iter()
        .filter(has_none)
        .map(|named| json!([named.shown_name(), named.reference.aggregation, width.as_secs_f64()]))
        .collect();
    match missing.is_empty() {
        true => Ok(width),
        false => Err(QueryError::cannot_aggregate("Granularities are missing", json!(missing))),
    }
}

/// Granularities that every metric has, coarsest first.
pub(super) fn common_widths(named: &[Named]) -> Result<Vec<Duration>, QueryError> {
    let mut widths: Vec<Duration> = named
        .first()
        .map(|first| first.metric.archive_policy.coarse_first().iter().map(|item| item.granularity()).collect())
        .unwrap_or_default();
    widths.retain(|&width| named.iter().all(|named| named.metric.archive_policy.item(width).is_some()));
    if widths.is_empty() {
        let detail: Vec<Value> = named.iter().map(|n| json!([n.shown_name(), n.reference.aggregation])).collect();
        return Err(QueryError::cannot_aggregate("No granularity match", json!(detail)));
    }
    Ok(widths)
}

/// Series at the union of their times. What one has no value for is NaN, or the number that is to stand there.
pub(super) fn grid_of(
    width: Duration,
    named: &[Named],
    series: &[&[Measure]],
    fill: Option<Fill>,
    cells_max: usize,
) -> Result<Grid, QueryError> {
    let times = union_of_times(series);
    if times.len().saturating_mul(named.len()) > cells_max {
        return Err(QueryError::refused(
            "the aggregation needs too many values; ask for a shorter time, a coarser granularity or fewer metrics",
        ));
    }
    let missing = match fill {
        Some(Fill::Value(number)) => number,
        _ => f64::NAN,
    };
    let columns = named.iter().zip(series).enumerate().map(|(place, (named, measures))| {
        let values = if measures.len() == times.len() {
            measures.iter().map(|measure| measure.value).collect()
        } else {
            let mut values = vec![missing; times.len()];
            let mut row = 0;
            for measure in *measures {
                while times[row] < measure.timestamp {
                    row += 1;
                }
                values[row] = measure.value;
            }
            values
        };
        Column { reference: named.reference.clone(), series: place, values }
    });
    Ok(Grid { granularity: width.into(), columns: columns.collect(), times, is_aggregated: false })
}

/// Times of all series, each once, in order. Mostly they are the same, which costs one comparison each.
fn union_of_times(series: &[&[Measure]]) -> Vec<Timestamp> {
    let mut times: Vec<Timestamp> = Vec::new();
    for measures in series {
        let is_same =
            measures.len() == times.len() && measures.iter().zip(&times).all(|(m, time)| m.timestamp == *time);
        if is_same || measures.is_empty() {
            continue;
        }
        let mut merged = Vec::with_capacity(times.len().max(measures.len()));
        let (mut left, mut right) = (times.iter().copied().peekable(), measures.iter().map(|m| m.timestamp).peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(&time), None) | (None, Some(&time)) => time,
                (Some(&a), Some(&b)) => a.min(b),
            };
            left.next_if_eq(&next);
            right.next_if_eq(&next);
            merged.push(next);
        }
        times = merged;
    }
    times
}

pub(super) fn fill_grid(grid: &mut Grid, fill: Fill) {
    for column in &mut grid.columns {
        match fill {
            // The number stands there already: a NaN that is among the measures stays.
            Fill::DropMissing | Fill::Null | Fill::Value(_) => {}
            Fill::Forward => carry(column.values.iter_mut()),
            Fill::Backward => carry(column.values.iter_mut().rev()),
            Fill::FullForward => {
                carry(column.values.iter_mut());
                carry(column.values.iter_mut().rev());
            }
            Fill::FullBackward => {
                carry(column.values.iter_mut().rev());
                carry(column.values.iter_mut());
            }
        }
    }
}

fn carry<'a>(values: impl Iterator<Item = &'a mut f64>) {
    let mut last = f64::NAN;
    for value in values {
        if value.is_nan() {
            *value = last;
        } else {
            last = *value;
        }
    }
}

/// Without `fill`: enough times must have a value of every series; where start or stop are open, times outside the
/// first and last such are cut away.
pub(super) fn cut_to_overlap(grid: &mut Grid, query: &AggregatesQuery) -> Result<(), QueryError> {
    let needed = query.needed_overlap.unwrap_or(0.0);
    let detail =
        || json!(grid.columns.iter().map(|c| json!([c.reference.name, c.reference.aggregation])).collect::<Vec<_>>());
    let is_full = |row: usize| grid.columns.iter().all(|column| !column.values[row].is_nan());
    let full: Vec<usize> = (0..grid.times.len()).filter(|&row| is_full(row)).collect();
    let (Some(&first), Some(&last)) = (full.first(), full.last()) else {
        return if needed > 0.0 { Err(QueryError::cannot_aggregate("No overlap", detail())) } else { Ok(()) };
    };
    let from = if query.start.is_none() { first } else { 0 };
    let to = if query.stop.is_none() { last + 1 } else { grid.times.len() };
    let share = full.len() as f64 * 100.0 / (to - from) as f64;
    if share < needed {
        let reason = format!("Less than {needed:.6}% of datapoints overlap in this timespan ({share:.2}%)");
        return Err(QueryError::cannot_aggregate(reason, detail()));
    }
    grid.times = grid.times[from..to].to_vec();
    for column in &mut grid.columns {
        column.values = column.values[from..to].to_vec();
    }
    Ok(())
}

/// Whether a value belongs in the answer.
fn is_shown(value: f64, fill: Option<Fill>) -> bool {
    match fill {
        Some(Fill::Null | Fill::Value(_)) | None => true,
        Some(_) => value.is_finite(),
    }
}

fn measures_of<'a>(
    grid: &'a Grid,
    column: &'a Column,
    fill: Option<Fill>,
) -> impl Iterator<Item = AggregatedMeasure> + 'a {
    let pairs = grid.times.iter().zip(&column.values);
    pairs.filter(move |(_, value)| is_shown(**value, fill)).map(|(&timestamp, &value)| AggregatedMeasure {
        timestamp,
        granularity: grid.granularity,
        value,
    })
}

pub(crate) fn aggregated(grids: &[Grid], fill: Option<Fill>) -> Vec<AggregatedMeasure> {
    grids
        .iter()
        .flat_map(|grid| grid.columns.first().into_iter().flat_map(move |c| measures_of(grid, c, fill)))
        .collect()
}

/// Measures of each series, by its place.
pub(super) fn by_series(grids: &[Grid], fill: Option<Fill>) -> BTreeMap<usize, Vec<AggregatedMeasure>> {
    let mut found: BTreeMap<usize, Vec<AggregatedMeasure>> = BTreeMap::new();
    for grid in grids {
        for column in &grid.columns {
            found.entry(column.series).or_default().extend(measures_of(grid, column, fill));
        }
    }
    found
}
