//! Plots in the terminal: a chart of one line, and a line of blocks for each of many.

use textplots::{Chart, Plot, Shape};

/// Width and height of a chart in dots; two by four dots are one character.
pub(crate) const PLOT_DOTS: (u32, u32) = (160, 60);
/// A chart is drawn in 16 characters at least, and in no more than anybody's terminal has.
const DOTS_MIN: u32 = 32;
const DOTS_MAX: u32 = 2000;
/// Blocks from low to high.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws a line through points of (seconds since the first, value).
pub(crate) fn chart(line: &[(f32, f32)], width: f32) {
    // A single point still needs a width to be drawn in.
    Chart::new(PLOT_DOTS.0, PLOT_DOTS.1, 0.0, width.max(1.0)).lineplot(&Shape::Lines(line)).nice();
}

/// The lines of a chart that is `columns` wide, without its scales.
pub(crate) fn chart_lines(line: &[(f32, f32)], width: f32, columns: usize) -> Vec<String> {
    // The right border stands in a column of its own.
    let dots = u32::try_from(columns.saturating_sub(1) * 2).unwrap_or(u32::MAX).clamp(DOTS_MIN, DOTS_MAX);
    let mut chart = Chart::new(dots, PLOT_DOTS.1, 0.0, width.max(1.0));
    let shape = Shape::Lines(line);
    let chart = chart.lineplot(&shape);
    chart.borders();
    chart.axis();
    chart.figures();
    chart.frame().lines().map(str::to_owned).collect()
}

/// One block for each of `columns` shares of the values; a share without values is a space.
pub(crate) fn blocks(values: &[f64], columns: usize) -> String {
    let columns = columns.min(values.len());
    let share = |column: usize| &values[column * values.len() / columns..(column + 1) * values.len() / columns];
    drawn((0..columns).map(share), values)
}

/// One block for each of `columns` shares of a time, by the points of (time, value) in it.
pub(crate) fn course(points: &[(f64, f64)], start: f64, span: f64, columns: usize) -> String {
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    // Times are a grid, which is off by some digits after the point.
    let place = |time: f64| ((time - start) / span * columns as f64 + 1e-6).max(0.0) as usize;
    let first = |column: usize| points.partition_point(|(time, _)| place(*time) < column);
    drawn((0..columns).map(|column| &values[first(column)..first(column + 1)]), &values)
}

fn drawn<'v>(shares: impl Iterator<Item = &'v [f64]>, values: &[f64]) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
    let block = |share: &[f64]| {
        let known: Vec<f64> = share.iter().copied().filter(|value| value.is_finite()).collect();
        if known.is_empty() {
            return ' ';
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let height = if high > low { (mean - low) / (high - low) } else { 0.0 };
        BLOCKS[((height * BLOCKS.len() as f64) as usize).min(BLOCKS.len() - 1)]
    };
    shares.map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_rise_with_the_values_and_gaps_stay_empty() {
        assert_eq!(blocks(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8), "▁▂▃▄▅▆▇█");
        assert_eq!(blocks(&[1.0, f64::NAN, 3.0], 3), "▁ █");
        assert_eq!(blocks(&[5.0; 40], 4), "▁▁▁▁");
        assert_eq!(blocks(&[], 4), "");
        assert_eq!(blocks(&[f64::NAN], 4), " ");
        // What began late stands where it began.
        assert_eq!(course(&[(120.0, 1.0), (180.0, 2.0)], 0.0, 240.0, 4), "  ▁█");
        assert_eq!(course(&[(0.0, 1.0), (60.0, 3.0), (120.0, 5.0), (180.0, 9.0)], 0.0, 240.0, 2), "▂▇");
    }
}
