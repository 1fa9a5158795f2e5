//! From points to values at the times of a grid: the last sample within the lookback, and the windows of ranges.

use crate::{
    Series,
    column::{ABSENT, Column, is_present},
    plan::{Grid, Shift},
    source::RawSeries,
};

/// The series of a selector with their values at each time; those without any are left out.
pub(crate) fn instant(found: &[RawSeries], grid: Grid, shift: Shift, lookback: i64) -> Vec<Series> {
    looked_up(found, grid, shift, lookback, |series, at| series.values[at])
}

/// The same with the samples' own times, in seconds, instead of their values.
pub(crate) fn timestamps(found: &[RawSeries], grid: Grid, shift: Shift, lookback: i64) -> Vec<Series> {
    looked_up(found, grid, shift, lookback, |series, at| series.times[at] as f64 / 1000.0)
}

fn looked_up(
    found: &[RawSeries],
    grid: Grid,
    shift: Shift,
    lookback: i64,
    value: impl Fn(&RawSeries, usize) -> f64,
) -> Vec<Series> {
    let mut out = Vec::with_capacity(found.len());
    for series in found {
        let mut column = Column::absent(grid.count);
        let mut next = 0;
        for (slot, time) in column.0.iter_mut().zip(grid.times()) {
            let time = shift.apply(time);
            // Times of a grid never go back, so this walks over the points once.
            while next < series.times.len() && series.times[next] <= time {
                next += 1;
            }
            if next > 0 && series.times[next - 1] > time - lookback && is_present(series.values[next - 1]) {
                *slot = value(series, next - 1);
            }
        }
        if !column.is_empty() {
            out.push(Series { labels: series.labels.clone(), column });
        }
    }
    out
}

/// One window of a range: its points, and the times between which they lie.
pub(crate) struct RangeWindow<'a> {
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a [f64],
    /// Points lie after this …
    pub(crate) start: i64,
    /// … and not after this.
    pub(crate) end: i64,
    /// The time of the evaluation, and its number in the grid.
    pub(crate) now: i64,
    pub(crate) at: usize,
}

/// Points of a series without stale markers.
pub(crate) struct Points {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

impl Points {
    pub(crate) fn of(series: &RawSeries) -> Self {
        let real = || series.times.iter().zip(series.values.iter()).filter(|(_, value)| is_present(**value));
        Self { times: real().map(|(time, _)| *time).collect(), values: real().map(|(_, value)| *value).collect() }
    }

    /// The values of a column over its grid.
    pub(crate) fn of_column(column: &Column, grid: Grid) -> Self {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (at, value) in column.iter() {
            times.push(grid.time(at));
            values.push(value);
        }
        Self { times, values }
    }

    /// Judges each window of the grid that has points.
    pub(crate) fn windows(
        &self,
        grid: Grid,
        range: i64,
        shift: Shift,
        mut judge: impl FnMut(RangeWindow<'_>) -> Option<f64>,
    ) -> Column {
        let mut column = Column::absent(grid.count);
        let (mut low, mut high) = (0, 0);
        for (at, now) in grid.times().enumerate() {
            let end = shift.apply(now);
            let start = end - range;
            while high < self.times.len() && self.times[high] <= end {
                high += 1;
            }
            while low < high && self.times[low] <= start {
                low += 1;
            }
            if low < high {
                let window =
                    RangeWindow { times: &self.times[low..high], values: &self.values[low..high], start, end, now, at };
                column.0[at] = judge(window).unwrap_or(ABSENT);
            }
        }
        column
    }
}
