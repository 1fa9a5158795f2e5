//! From points to values at the times of a grid: the last sample within the lookback, and the windows of ranges.

use std::borrow::Cow;

use crate::{
    Series,
    column::{ABSENT, Column, is_present},
    plan::{Grid, Shift},
    source::RawSeries,
};

/// The series of a selector with their values at each time; those without any are left out.
pub(crate) fn instant(found: &[RawSeries], grid: Grid, shift: Shift, lookback: i64) -> Vec<Series> {
    let column = |series: &RawSeries| last(&series.times, &series.values, grid, shift, lookback);
    with_values(found, column)
}

/// The same with the samples' own times, in seconds, instead of their values.
pub(crate) fn timestamps(found: &[RawSeries], grid: Grid, shift: Shift, lookback: i64) -> Vec<Series> {
    let column = |series: &RawSeries| {
        let seconds = |at: usize| series.times[at] as f64 / 1000.0;
        looked_up(&series.times, &series.values, grid, shift, lookback, seconds)
    };
    with_values(found, column)
}

fn with_values(found: &[RawSeries], column: impl Fn(&RawSeries) -> Column) -> Vec<Series> {
    let series = found.iter().map(|one| Series { labels: one.labels.clone(), column: column(one) });
    series.filter(|one| !one.column.is_empty()).collect()
}

/// The value of the last sample at each time of a grid.
pub(crate) fn last(times: &[i64], values: &[f64], grid: Grid, shift: Shift, lookback: i64) -> Column {
    looked_up(times, values, grid, shift, lookback, |at| values[at])
}

fn looked_up(
    times: &[i64],
    values: &[f64],
    grid: Grid,
    shift: Shift,
    lookback: i64,
    value: impl Fn(usize) -> f64,
) -> Column {
    let mut column = Column::absent(grid.count);
    let mut next = 0;
    for (slot, time) in column.0.iter_mut().zip(grid.times()) {
        let time = shift.apply(time);
        // Times of a grid never go back, so this walks over the points once.
        next = first_after(times, next, time);
        if next > 0 && times[next - 1] > time - lookback && is_present(values[next - 1]) {
            *slot = value(next - 1);
        }
    }
    column
}

/// The first place from `from` on whose time is after this one. Strides grow, so that a window of many points costs few
/// looks and the next point costs one.
fn first_after(times: &[i64], from: usize, time: i64) -> usize {
    let rest = &times[from..];
    if rest.first().is_none_or(|first| *first > time) {
        return from;
    }
    let mut stride = 1;
    while rest.get(stride).is_some_and(|later| *later <= time) {
        stride *= 2;
    }
    let (low, high) = (stride / 2, stride.min(rest.len()));
    from + low + rest[low..high].partition_point(|other| *other <= time)
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
pub(crate) struct Points<'a> {
    pub(crate) times: Cow<'a, [i64]>,
    pub(crate) values: Cow<'a, [f64]>,
}

impl<'a> Points<'a> {
    pub(crate) fn of(times: &'a [i64], values: &'a [f64]) -> Self {
        // Not `all`, which looks at one after the other.
        if values.iter().filter(|value| !is_present(**value)).count() == 0 {
            return Self { times: Cow::Borrowed(times), values: Cow::Borrowed(values) };
        }
        let real = || times.iter().zip(values).filter(|(_, value)| is_present(**value));
        Self { times: real().map(|(time, _)| *time).collect(), values: real().map(|(_, value)| *value).collect() }
    }

    /// The values of a column over its grid.
    pub(crate) fn of_column(column: &Column, grid: Grid) -> Self {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (at, value) in column.iter() {
            times.push(grid.time(at));
            values.push(value);
        }
        Self { times: times.into(), values: values.into() }
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
        let (times, values): (&[i64], &[f64]) = (&self.times, &self.values);
        let (mut low, mut high) = (0, 0);
        for (at, now) in grid.times().enumerate() {
            let end = shift.apply(now);
            let start = end - range;
            high = first_after(times, high, end);
            low = first_after(times, low, start).min(high);
            if low < high {
                let window = RangeWindow { times: &times[low..high], values: &values[low..high], start, end, now, at };
                column.0[at] = judge(window).unwrap_or(ABSENT);
            }
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_end_where_single_steps_do() {
        let times: Vec<i64> = (0..200).map(|at| at * 3 / 2 * 10).collect();
        for from in [0, 1, 7, 199, 200] {
            for time in (-20..3100).step_by(5) {
                let steps = times[from..].iter().take_while(|other| **other <= time).count();
                assert_eq!(first_after(&times, from, time), from + steps, "{from} {time}");
            }
        }
    }
}
