//! Evaluation of a tree on a grid: rows are times, columns are series, all of one granularity; what is missing is NaN.
//! Pure.

use std::time::Duration;

use orzo_model::Timestamp;
use serde_json::{Value, json};

use super::{Binary, Operation, Reference, Unary};
use crate::{
    QueryError,
    method::{Reaggregation, ReaggregationKind},
};

/// One series of a grid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    /// The operand that it came from; several columns have the same if it is a wildcard.
    pub(crate) reference: Reference,
    /// Which series, counted by the caller.
    pub(crate) series: usize,
    /// A value per time.
    pub(crate) values: Vec<f64>,
}

/// Series at common times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) granularity: Duration,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) columns: Vec<Column>,
    /// One series came of several: names of columns mean nothing any more.
    pub(crate) is_aggregated: bool,
}

enum Operand {
    Number(f64),
    Grid(Grid),
}

/// Evaluates a tree on the grid of all its metrics.
pub(crate) fn evaluate(operation: &Operation, grid: &Grid) -> Result<Grid, QueryError> {
    match operand(operation, grid)? {
        Operand::Grid(grid) => Ok(grid),
        Operand::Number(_) => {
            Err(QueryError::invalid("Operations is invalid", "At least one 'metric' is required", Value::Null))
        }
    }
}

fn operand(operation: &Operation, grid: &Grid) -> Result<Operand, QueryError> {
    let detail =
        || json!(grid.columns.iter().map(|c| json!([c.reference.name, c.reference.aggregation])).collect::<Vec<_>>());
    let series = |operation: &Operation| match operand(operation, grid)? {
        Operand::Grid(grid) => Ok(grid),
        Operand::Number(_) => Err(QueryError::cannot_aggregate("a number is not a series", detail())),
    };
    Ok(Operand::Grid(match operation {
        Operation::Number(number) => return Ok(Operand::Number(*number)),
        Operation::Metric(references) => Grid {
            granularity: grid.granularity,
            times: grid.times.clone(),
            columns: grid.columns.iter().filter(|column| references.contains(&column.reference)).cloned().collect(),
            is_aggregated: false,
        },
        Operation::Aggregate(method, of) => aggregate(series(of)?, *method),
        Operation::Rolling(method, window, of) => {
            let of = series(of)?;
            if *window > of.times.len() {
                let reason = format!("Rolling window '{window}' is greater than serie length '{}'", of.times.len());
                return Err(QueryError::cannot_aggregate(reason, detail()));
            }
            rolling(of, *method, *window)
        }
        Operation::Resample(method, width, of) => resample(series(of)?, *method, *width),
        Operation::Unary(unary, of) => match operand(of, grid)? {
            Operand::Number(number) => return Ok(Operand::Number(apply_unary(*unary, number))),
            Operand::Grid(grid) => grid.map(|value| apply_unary(*unary, value)),
        },
        Operation::RateOfChange { per_second, of } => rate_of_change(series(of)?, *per_second),
        Operation::Binary(binary, left, right) => {
            return combine(*binary, operand(left, grid)?, operand(right, grid)?, detail);
        }
        Operation::Clip(of, low, high) => {
            let clipped = combine(Binary::Maximum, operand(of, grid)?, operand(low, grid)?, detail)?;
            return match high {
                Some(high) => combine(Binary::Minimum, clipped, operand(high, grid)?, detail),
                None => Ok(clipped),
            };
        }
    }))
}

impl Grid {
    fn map(mut self, change: impl Fn(f64) -> f64) -> Self {
        for column in &mut self.columns {
            for value in &mut column.values {
                *value = change(*value);
            }
        }
        self
    }
}

fn combine(binary: Binary, left: Operand, right: Operand, detail: impl Fn() -> Value) -> Result<Operand, QueryError> {
    let (mut left, right) = match (left, right) {
        (Operand::Number(a), Operand::Number(b)) => return Ok(Operand::Number(apply(binary, a, b))),
        (Operand::Grid(grid), Operand::Number(b)) => return Ok(Operand::Grid(grid.map(|a| apply(binary, a, b)))),
        (Operand::Number(a), Operand::Grid(grid)) => return Ok(Operand::Grid(grid.map(|b| apply(binary, a, b)))),
        (Operand::Grid(left), Operand::Grid(right)) => (left, right),
    };
    if left.granularity != right.granularity || left.times != right.times {
        return Err(QueryError::cannot_aggregate("the operands have different times", detail()));
    }
    // One column may stand against many; otherwise each against its own.
    if left.columns.len() == 1 && right.columns.len() > 1 {
        left.columns = vec![left.columns[0].clone(); right.columns.len()];
    }
    if right.columns.len() != 1 && right.columns.len() != left.columns.len() {
        return Err(QueryError::cannot_aggregate("the operands have different numbers of series", detail()));
    }
    let single = right.columns.len() == 1;
    for (place, column) in left.columns.iter_mut().enumerate() {
        let other = &right.columns[if single { 0 } else { place }];
        for (value, other) in column.values.iter_mut().zip(&other.values) {
            *value = apply(binary, *value, *other);
        }
    }
    left.is_aggregated = true;
    Ok(Operand::Grid(left))
}

fn apply(binary: Binary, a: f64, b: f64) -> f64 {
    let truth = |truth: bool| f64::from(u8::from(truth));
    match binary {
        Binary::Equal => truth(a == b),
        Binary::NotEqual => truth(a != b),
        Binary::Less => truth(a < b),
        Binary::LessOrEqual => truth(a <= b),
        Binary::Greater => truth(a > b),
        Binary::GreaterOrEqual => truth(a >= b),
        // Python's: the sign of the divisor.
        Binary::Modulo => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Power => a.powf(b),
        // numpy's maximum and minimum give NaN where either is.
        Binary::Maximum | Binary::Minimum if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
    }
}

fn apply_unary(unary: Unary, value: f64) -> f64 {
    match unary {
        Unary::Absolute => value.abs(),
        Unary::Negative => -value,
        Unary::Cosine => value.cos(),
        Unary::Sine => value.sin(),
        Unary::Tangent => value.tan(),
        Unary::Floor => value.floor(),
        Unary::Ceiling => value.ceil(),
    }
}

fn rate_of_change(mut grid: Grid, per_second: bool) -> Grid {
    let seconds: Vec<f64> =
        grid.times.windows(2).map(|pair| if per_second { pair[1].since(pair[0]).as_secs_f64() } else { 1.0 }).collect();
    for column in &mut grid.columns {
        column.values =
            column.values.windows(2).zip(&seconds).map(|(pair, seconds)| (pair[1] - pair[0]) / seconds).collect();
    }
    grid.times = grid.times.split_off(1.min(grid.times.len()));
    grid
}

fn aggregate(grid: Grid, method: Reaggregation) -> Grid {
    let grid = if method.is_rate { rate_of_change(grid, false) } else { grid };
    let mut scratch = Vec::new();
    let rows = 0..grid.times.len();
    let values =
        rows.map(|row| method.kind.of(grid.columns.iter().map(|column| column.values[row]), &mut scratch)).collect();
    let columns = grid.columns.into_iter().next().map(|column| Column { values, ..column });
    Grid { columns: columns.into_iter().collect(), is_aggregated: true, ..grid }
}

fn rolling(grid: Grid, method: Reaggregation, window: usize) -> Grid {
    let mut grid = if method.is_rate { rate_of_change(grid, false) } else { grid };
    let mut scratch = Vec::new();
    for column in &mut grid.columns {
        column.values =
            column.values.windows(window).map(|values| method.kind.of(values.iter().copied(), &mut scratch)).collect();
    }
    grid.times = grid.times.split_off((window - 1).min(grid.times.len()));
    grid
}

fn resample(grid: Grid, method: Reaggregation, width: Duration) -> Grid {
    let mut grid = if method.is_rate { rate_of_change(grid, false) } else { grid };
    let mut starts: Vec<(Timestamp, std::ops::Range<usize>)> = Vec::new();
    for (row, time) in grid.times.iter().enumerate() {
        let start = time.floor(width);
        match starts.last_mut() {
            Some((last, rows)) if *last == start => rows.end = row + 1,
            _ => starts.push((start, row..row + 1)),
        }
    }
    let mut scratch = Vec::new();
    for column in &mut grid.columns {
        let bucket = |rows: &std::ops::Range<usize>, scratch: &mut Vec<f64>| {
            let values = &column.values[rows.clone()];
            // A bucket where the series has nothing stays without a value, also for sum and count.
            let is_empty = values.iter().all(|value| value.is_nan()) && method.kind != ReaggregationKind::Count;
            if is_empty { f64::NAN } else { method.kind.of(values.iter().copied(), scratch) }
        };
        column.values = starts.iter().map(|(_, rows)| bucket(rows, &mut scratch)).collect();
    }
    grid.times = starts.into_iter().map(|(start, _)| start).collect();
    grid.granularity = width;
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f64 = f64::NAN;

    fn grid() -> Grid {
        let column = |name: &str, series: usize, values: [f64; 4]| Column {
            reference: Reference { name: name.into(), aggregation: "mean".into() },
            series,
            values: values.to_vec(),
        };
        Grid {
            granularity: Duration::from_secs(60),
            times: [0, 60, 120, 180].map(Timestamp::from_secs).to_vec(),
            columns: vec![column("a", 0, [1.0, 2.0, 4.0, 8.0]), column("b", 1, [10.0, NAN, 20.0, 30.0])],
            is_aggregated: false,
        }
    }

    fn check(text: &str, times: &[i64], columns: &[&[f64]], is_aggregated: bool) {
        let operation = Operation::parse(&json!(text)).expect(text);
        let found = evaluate(&operation, &grid()).expect(text);
        assert_eq!(found.times, times.iter().map(|&t| Timestamp::from_secs(t)).collect::<Vec<_>>(), "{text}");
        let values: Vec<Vec<f64>> = found.columns.into_iter().map(|column| column.values).collect();
        assert_eq!(format!("{values:?}"), format!("{columns:?}"), "{text}");
        assert_eq!(found.is_aggregated, is_aggregated, "{text}");
    }

    #[test]
    fn operations_do_what_numpy_would() {
        let all = &[0, 60, 120, 180];
        check("(metric a mean)", all, &[&[1.0, 2.0, 4.0, 8.0]], false);
        check("(aggregate sum (metric (a mean) (b mean)))", all, &[&[11.0, 2.0, 24.0, 38.0]], true);
        check("(aggregate rate:mean (metric (a mean) (b mean)))", &all[1..], &[&[1.0, 2.0, 7.0]], true);
        check("(* (metric a mean) 2)", all, &[&[2.0, 4.0, 8.0, 16.0]], false);
        check("(/ (metric b mean) (metric a mean))", all, &[&[10.0, NAN, 5.0, 3.75]], true);
        check("(> (metric a mean) 2)", all, &[&[0.0, 0.0, 1.0, 1.0]], false);
        check("(% (neg (metric a mean)) 3)", all, &[&[2.0, 1.0, 2.0, 1.0]], false);
        check("(rateofchangesec (metric a mean))", &all[1..], &[&[1.0 / 60.0, 2.0 / 60.0, 4.0 / 60.0]], false);
        check("(rolling mean 2 (metric a mean))", &all[1..], &[&[1.5, 3.0, 6.0]], false);
        check("(resample max 120 (metric (a mean) (b mean)))", &[0, 120], &[&[2.0, 8.0], &[10.0, 30.0]], false);
        check("(clip (metric a mean) 2 4)", all, &[&[2.0, 2.0, 4.0, 4.0]], false);
        check("(floor (/ (metric a mean) 3))", all, &[&[0.0, 0.0, 1.0, 2.0]], false);
        let long = Operation::parse(&json!("(rolling mean 20 (metric a mean))")).expect("valid");
        let text = evaluate(&long, &grid()).expect_err("too long").to_string();
        assert!(text.contains("Rolling window '20' is greater than serie length '4'"));
    }
}
