//! Plots in the terminal: a chart of one line, and a line of blocks for many.

use textplots::{Chart, Plot, Shape};

/// Width and height of a chart in dots; two by four dots are one character.
pub(crate) const PLOT_DOTS: (u32, u32) = (160, 60);
/// Blocks from low to high.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws a line through points of (seconds since the first, value).
pub(crate) fn chart(line: &[(f32, f32)], width: f32) {
    // A single point still needs a width to be drawn in.
    Chart::new(PLOT_DOTS.0, PLOT_DOTS.1, 0.0, width.max(1.0)).lineplot(&Shape::Lines(line)).nice();
}

/// One block for each of `columns` shares of the values; a share without values is a space.
pub(crate) fn blocks(values: &[f64], columns: usize) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
    let columns = columns.min(values.len());
    let share = |column: usize| {
        let part = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        let known: Vec<f64> = part.iter().copied().filter(|value| value.is_finite()).collect();
        if known.is_empty() {
            return ' ';
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let height = if high > low { (mean - low) / (high - low) } else { 0.0 };
        BLOCKS[((height * BLOCKS.len() as f64) as usize).min(BLOCKS.len() - 1)]
    };
    (0..columns).map(share).collect()
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
    }
}
