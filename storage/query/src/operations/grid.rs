//! Evaluation of a tree on a grid: rows are times, columns are series, all of one granularity; what is missing is NaN.
//! Pure.

use std::collections::HashSet;

use orzo_model::{Measure, Timestamp};
use serde_json::{Value, json};

use super::{Binary, Operation, Reference, Unary};
use crate::{
    QueryError,
    buckets::rebucket,
    method::{Method, Reaggregation},
    width::Width,
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
    pub(crate) granularity: Width,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) columns: Vec<Column>,
    /// One series came of several: names of columns mean nothing any more.
    pub(crate) is_aggregated: bool,
}

/// Why two operands do not go together, as Gnocchi begins it.
const DIFFERENT_TIMES: &str = "Can't compute timeseries with different granularity";

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
        Operation::Metric(references) => {
            let wanted: HashSet<&Reference> = references.iter().collect();
            Grid {
                granularity: grid.granularity,
                times: grid.times.clone(),
                columns: grid.columns.iter().filter(|column| wanted.contains(&column.reference)).cloned().collect(),
                is_aggregated: false,
            }
        }
        Operation::Several(operations) => {
            let mut all: Option<Grid> = None;
            for operation in operations {
                let next = series(operation)?;
                match &mut all {
                    None => all = Some(next),
                    Some(all) if all.granularity == next.granularity && all.times == next.times => {
                        all.columns.extend(next.columns);
                    }
                    Some(_) => return Err(QueryError::cannot_aggregate(DIFFERENT_TIMES, detail())),
                }
            }
            all.ok_or_else(|| QueryError::cannot_aggregate("there is nothing to aggregate", detail()))?
        }
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
            let clipped = combine(Binary::NotBelow, operand(of, grid)?, operand(low, grid)?, detail)?;
            return match high {
                Some(high) => combine(Binary::NotAbove, clipped, operand(high, grid)?, detail),
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
        return Err(QueryError::cannot_aggregate(DIFFERENT_TIMES, detail()));
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

pub(super) fn apply(binary: Binary, a: f64, b: f64) -> f64 {
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
        // numpy's fmax, which passes NaN over, and its clip, which does not.
        Binary::Maximum => a.max(b),
        Binary::NotBelow | Binary::NotAbove if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::NotBelow => a.max(b),
        Binary::NotAbove => a.min(b),
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

/// Differences of successive rows; the first row has none.
fn differences(mut grid: Grid) -> Grid {
    for column in &mut grid.columns {
        column.values = column.values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    }
    grid.times = grid.times.split_off(1.min(grid.times.len()));
    grid
}

/// As [`differences`], divided by the seconds between them; the first row stays, without a value.
fn differences_per_second(mut grid: Grid) -> Grid {
    let seconds: Vec<f64> = grid.times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect();
    for column in &mut grid.columns {
        let changes = column.values.windows(2).zip(&seconds).map(|(pair, seconds)| (pair[1] - pair[0]) / seconds);
        let first = column.values.first().map(|_| f64::NAN);
        column.values = first.into_iter().chain(changes).collect();
    }
    grid
}

fn rate_of_change(grid: Grid, per_second: bool) -> Grid {
    if per_second { differences_per_second(grid) } else { differences(grid) }
}

fn aggregate(grid: Grid, method: Reaggregation) -> Grid {
    let mut scratch = Vec::new();
    let rows = 0..grid.times.len();
    let values =
        rows.map(|row| method.kind.of(grid.columns.iter().map(|column| column.values[row]), &mut scratch)).collect();
    // Of no series at all comes one that has no values (a sum of nothing is 0), as numpy sees it.
    let reference = || Reference { name: String::new(), aggregation: String::new() };
    let (reference, series) =
        grid.columns.into_iter().next().map_or_else(|| (reference(), 0), |column| (column.reference, column.series));
    let grid = Grid { columns: vec![Column { reference, series, values }], is_aggregated: true, ..grid };
    if method.is_rate { differences(grid) } else { grid }
}

fn rolling(mut grid: Grid, method: Reaggregation, window: usize) -> Grid {
    let mut scratch = Vec::new();
    for column in &mut grid.columns {
        column.values =
            column.values.windows(window).map(|values| method.kind.of(values.iter().copied(), &mut scratch)).collect();
    }
    grid.times = grid.times.split_off((window - 1).min(grid.times.len()));
    if method.is_rate { differences(grid) } else { grid }
}

/// All columns have the same times, so they all get the same buckets. A bucket is aggregated as within a metric: what
/// is missing in it does what NaN does there.
fn resample(mut grid: Grid, method: Method, width: Width) -> Grid {
    let mut times = None;
    for column in &mut grid.columns {
        let rows = grid.times.iter().zip(&column.values);
        let measures = rows.map(|(&timestamp, &value)| Measure { timestamp, value });
        let buckets = rebucket(measures, width, method);
        column.values = buckets.iter().map(|bucket| bucket.value).collect();
        times.get_or_insert_with(|| buckets.iter().map(|bucket| bucket.timestamp).collect());
    }
    grid.times = times.unwrap_or_default();
    grid.granularity = width;
    grid
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NAN: f64 = f64::NAN;

    fn grid() -> Grid {
        let column = |name: &str, series: usize, values: [f64; 4]| Column {
            reference: Reference { name: name.into(), aggregation: "mean".into() },
            series,
            values: values.to_vec(),
        };
        Grid {
            granularity: Duration::from_secs(60).into(),
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
        check("(aggregate rate:mean (metric (a mean) (b mean)))", &all[1..], &[&[-3.5, 10.0, 7.0]], true);
        check("(aggregate max (metric a mean) (metric b mean))", all, &[&[10.0, 2.0, 20.0, 30.0]], true);
        check("(aggregate var (metric c mean))", all, &[&[NAN, NAN, NAN, NAN]], true);
        check("(- (aggregate var (metric c mean)) (metric b mean))", all, &[&[NAN, NAN, NAN, NAN]], true);
        check("(* (metric a mean) 2)", all, &[&[2.0, 4.0, 8.0, 16.0]], false);
        check("(/ (metric b mean) (metric a mean))", all, &[&[10.0, NAN, 5.0, 3.75]], true);
        check("(> (metric a mean) 2)", all, &[&[0.0, 0.0, 1.0, 1.0]], false);
        check("(% (neg (metric a mean)) 3)", all, &[&[2.0, 1.0, 2.0, 1.0]], false);
        check("(rateofchangesec (metric a mean))", all, &[&[NAN, 1.0 / 60.0, 2.0 / 60.0, 4.0 / 60.0]], false);
        check("(rateofchange (metric a mean))", &all[1..], &[&[1.0, 2.0, 4.0]], false);
        check("(rolling rate:max 2 (metric a mean))", &all[2..], &[&[2.0, 4.0]], false);
        check("(max (metric b mean) (metric a mean))", all, &[&[10.0, 2.0, 20.0, 30.0]], true);
        check("(clip_min (metric b mean) 15)", all, &[&[15.0, NAN, 20.0, 30.0]], false);
        check("(rolling mean 2 (metric a mean))", &all[1..], &[&[1.5, 3.0, 6.0]], false);
        check("(resample max 120 (metric (a mean) (b mean)))", &[0, 120], &[&[2.0, 8.0], &[NAN, 30.0]], false);
        check("(resample min 120 (metric (a mean) (b mean)))", &[0, 120], &[&[1.0, 4.0], &[10.0, 20.0]], false);
        check("(resample rate:sum 120 (metric a mean))", &[0, 120], &[&[1.0, 6.0]], false);
        check("(clip (metric a mean) 2 4)", all, &[&[2.0, 2.0, 4.0, 4.0]], false);
        check("(floor (/ (metric a mean) 3))", all, &[&[0.0, 0.0, 1.0, 2.0]], false);
        let long = Operation::parse(&json!("(rolling mean 20 (metric a mean))")).expect("valid");
        let text = evaluate(&long, &grid()).expect_err("too long").to_string();
        assert!(text.contains("Rolling window '20' is greater than serie length '4'"));
    }
}
