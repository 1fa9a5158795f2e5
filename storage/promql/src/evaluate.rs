//! Walks over a plan and gives each node's values at all times of its grid.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering as Memory},
};

use crate::{
    Labels, Limits, Plan, QueryError, RawSeries, Series, Value,
    aggregate::{Aggregate, Aggregation, Parameter, rank},
    binary, calendar,
    column::{ABSENT, Column, is_present},
    explain::{self, Trace},
    fold::Piece,
    function, histogram, info,
    labels::NAME,
    matching::merge_same,
    native::{self, Context, Histogram, Natives, over_time::Over},
    notes::Notes,
    number_text,
    plan::{Grid, Node, Shift},
    range,
    select::{self, Points},
    source::FoldedSeries,
};

/// What an evaluation holds for each value of its largest step: both sides of an operator, its result, and points with their
/// times of what is a range.
const CELL_BYTES: usize = 32;

/// One evaluation: what was read for the plan's selections, and what it may cost.
pub(crate) struct Evaluation<'a> {
    pub(crate) found: &'a [Vec<RawSeries>],
    /// Of selections that were folded as they were read what came of it; [`Self::found`] has nothing of them.
    pub(crate) folded: RefCell<Vec<Option<Vec<FoldedSeries>>>>,
    pub(crate) limits: &'a Limits,
    pub(crate) cancelled: &'a AtomicBool,
    pub(crate) notes: Notes,
    /// Histograms that values stand for; `None` where the query selects none.
    pub(crate) natives: Option<Natives>,
    /// Of a query whose steps are wanted.
    pub(crate) trace: Option<Trace<'a>>,
    /// The most values that it has held at once, as far as is known.
    pub(crate) peak: Cell<usize>,
}

/// A range of each of some series.
struct Ranges<'a> {
    series: Vec<(Labels, Points<'a>)>,
    range: i64,
    shift: Shift,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn whole(&self, plan: &Plan) -> Result<Value, QueryError> {
        if let Node::Range { .. } | Node::Subquery { .. } = &plan.root {
            let ranges = self.ranges(plan, &plan.root, plan.grid)?;
            let end = ranges.shift.apply(plan.grid.start);
            let mut matrix = Vec::new();
            for (labels, points) in ranges.series {
                let low = points.times.partition_point(|time| *time <= end - ranges.range);
                let high = points.times.partition_point(|time| *time <= end);
                if low < high {
                    matrix.push((labels, points.times[low..high].to_vec(), points.values[low..high].to_vec()));
                }
            }
            matrix.sort_by(|a, b| a.0.cmp(&b.0));
            return Ok(Value::Matrix(matrix));
        }
        let mut value = self.node(plan, &plan.root, plan.grid)?;
        if let Value::Vector(series) = &mut value {
            series.retain(|one| !one.column.is_empty());
            if !plan.is_instant() {
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
        }
        Ok(value)
    }

    fn check(&self, series: usize, grid: Grid) -> Result<(), QueryError> {
        if self.cancelled.load(Memory::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        let cells = series.saturating_mul(grid.count);
        if cells > self.limits.cells_max {
            return Err(QueryError::TooMuch { what: "values", limit: self.limits.cells_max });
        }
        let before = self.peak.get();
        if cells > before {
            self.limits.take((cells - before).saturating_mul(CELL_BYTES))?;
            self.peak.set(cells);
        }
        Ok(())
    }

    fn node(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Value, QueryError> {
        let Some(trace) = &self.trace else { return self.value(plan, node, grid) };
        trace.enter(plan, node, grid);
        let value = self.value(plan, node, grid);
        trace.leave(value.as_ref().map(explain::size));
        value
    }

    fn value(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Value, QueryError> {
        self.check(1, grid)?;
        Ok(match node {
            Node::Number(number) => Value::Scalar(vec![*number; grid.count]),
            Node::Text(text) => Value::Text(text.clone()),
            Node::Negate(inner) => match self.node(plan, inner, grid)? {
                Value::Scalar(numbers) => Value::Scalar(numbers.into_iter().map(|number| -number).collect()),
                Value::Vector(series) => Value::Vector(function::map(series, |_, value| {
                    self.of_histogram(value, |histogram| histogram.clone().times(-1.0)).unwrap_or(-value)
                })?),
                _ => return Err(QueryError::execution("only numbers and series have a negative")),
            },
            Node::Select { selection, shift } => {
                if let Some(series) = self.folded(plan, *selection, Piece::Last { shift: *shift }, grid) {
                    return Ok(Value::Vector(series));
                }
                let found = &self.found[*selection];
                self.check(found.len(), grid)?;
                Value::Vector(select::instant(found, grid, *shift, plan.lookback_ms))
            }
            Node::Range { .. } | Node::Subquery { .. } => {
                return Err(QueryError::execution("a range of points stands where series are needed"));
            }
            Node::Binary(operation) => {
                let left = self.node(plan, &operation.left, grid)?;
                let right = self.node(plan, &operation.right, grid)?;
                operation.apply(left, right, grid.count, self.context())?
            }
            Node::Set { operator, matching, left, right } => {
                let left = self.series(plan, left, grid)?;
                let right = self.series(plan, right, grid)?;
                Value::Vector(binary::set(*operator, matching, left, right, grid.count)?)
            }
            Node::Aggregate(aggregate) => Value::Vector(self.aggregate(plan, aggregate, grid)?),
            Node::Call { name, arguments } => self.call(plan, name, arguments, grid)?,
            Node::Info { inner, selection, wanted } => {
                let series = self.series(plan, inner, grid)?;
                let found = &self.found[*selection];
                self.check(found.len(), grid)?;
                let times = select::timestamps(found, grid, Shift::default(), plan.lookback_ms);
                Value::Vector(info::enriched(series, &times, wanted, grid.count)?)
            }
        })
    }

    /// What reading has made of a selection for a node; `None` if the points themselves were read.
    fn folded(&self, plan: &Plan, selection: usize, piece: Piece, grid: Grid) -> Option<Vec<Series>> {
        let fold = plan.folds().get(selection)?.as_ref()?;
        let first = fold.place(piece)? * grid.count;
        let mut all = self.folded.borrow_mut();
        let folded = all.get_mut(selection)?.as_mut()?;
        let series: Vec<Series> = match fold.is_used_once() {
            true => {
                let series = std::mem::take(folded).into_iter();
                series.map(|one| Series { labels: one.labels, column: Column(one.values) }).collect()
            }
            false => {
                let column = |one: &FoldedSeries| Column(one.values[first..first + grid.count].to_vec());
                folded.iter().map(|one| Series { labels: one.labels.clone(), column: column(one) }).collect()
            }
        };
        Some(series.into_iter().filter(|one| !one.column.is_empty()).collect())
    }

    fn series(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Vec<Series>, QueryError> {
        match self.node(plan, node, grid)? {
            Value::Vector(series) => Ok(series),
            _ => Err(QueryError::execution("series are needed here")),
        }
    }

    fn numbers(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Vec<f64>, QueryError> {
        match self.node(plan, node, grid)? {
            Value::Scalar(numbers) => Ok(numbers),
            _ => Err(QueryError::execution("a number is needed here")),
        }
    }

    fn aggregate(&self, plan: &Plan, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let parameter = match &aggregate.parameter {
            None => Parameter::None,
            Some(node) => match self.node(plan, node, grid)? {
                Value::Scalar(numbers) => Parameter::Numbers(numbers),
                Value::Text(name) if name.is_empty() => {
                    return Err(QueryError::execution(format!("invalid label name {name:?}")));
                }
                Value::Text(name) => Parameter::Label(name),
                _ => return Err(QueryError::execution("the aggregation's parameter is neither number nor text")),
            },
        };
        let series = self.series(plan, &aggregate.inner, grid)?;
        if let Parameter::Numbers(numbers) = &parameter
            && !self.check_parameter(aggregate.kind, numbers, series.iter().all(|one| one.column.is_empty()))?
        {
            return Ok(Vec::new());
        }
        aggregate.apply(series, &parameter, grid.count, self.context())
    }

    /// What operators and aggregations need to know of histograms; nothing where there are none.
    fn context(&self) -> Option<Context<'_>> {
        self.natives.as_ref().map(|natives| Context { natives, notes: &self.notes })
    }

    /// What a histogram becomes; `None` if the value is none.
    fn of_histogram(&self, value: f64, make: impl Fn(&Histogram) -> Histogram) -> Option<f64> {
        let natives = self.natives.as_ref()?;
        natives.get(value).map(|histogram| natives.keep(make(&histogram)))
    }

    /// Series without their histograms, for what is about numbers only.
    fn only_numbers(&self, mut series: Vec<Series>) -> Vec<Series> {
        if self.natives.is_some() {
            for value in series.iter_mut().flat_map(|one| &mut one.column.0).filter(|value| Natives::is_one(**value)) {
                *value = ABSENT;
            }
            series.retain(|one| !one.column.is_empty());
        }
        series
    }

    /// A number of each histogram; numbers are left out.
    fn of_histograms(
        &self,
        series: Vec<Series>,
        judge: impl Fn(usize, &Histogram) -> f64,
    ) -> Result<Vec<Series>, QueryError> {
        let Some(natives) = &self.natives else { return Ok(Vec::new()) };
        function::map(series, |at, value| natives.get(value).map_or(ABSENT, |histogram| judge(at, &histogram)))
    }

    /// Whether anything can be chosen with a parameter; notes or, if there is something to choose from, refuses what makes
    /// no sense.
    fn check_parameter(&self, kind: Aggregation, numbers: &[f64], is_empty: bool) -> Result<bool, QueryError> {
        match kind {
            Aggregation::Top | Aggregation::Bottom | Aggregation::Limit => {
                if is_empty || numbers.iter().all(|number| *number < 1.0) {
                    return Ok(false);
                }
                // Beyond 64 bits there is no such count; a NaN is none either.
                let is_count = |number: &&f64| number.abs() < 9_223_372_036_854_775_808.0;
                match numbers.iter().find(|number| !is_count(number)) {
                    Some(number) if *number < 0.0 => {
                        Err(QueryError::execution(format!("Scalar value {number} underflows int64")))
                    }
                    Some(number) => Err(QueryError::execution(format!("Scalar value {number} overflows int64"))),
                    None => Ok(true),
                }
            }
            Aggregation::LimitRatio => {
                if !is_empty && numbers.iter().any(|ratio| ratio.is_nan()) {
                    return Err(QueryError::execution("Ratio value is NaN"));
                }
                self.notes.check_ratios(numbers);
                Ok(numbers.iter().any(|ratio| *ratio != 0.0))
            }
            Aggregation::Quantile => {
                self.notes.check_quantiles(numbers);
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn ranges(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Ranges<'a>, QueryError> {
        let Some(trace) = &self.trace else { return self.points_of(plan, node, grid) };
        trace.enter(plan, node, grid);
        let ranges = self.points_of(plan, node, grid);
        let points = |ranges: &Ranges<'_>| ranges.series.iter().map(|(_, points)| points.times.len()).sum();
        trace.leave(ranges.as_ref().map(|ranges| (ranges.series.len(), points(ranges))));
        ranges
    }

    fn points_of(&self, plan: &Plan, node: &Node, grid: Grid) -> Result<Ranges<'a>, QueryError> {
        match node {
            Node::Range { selection, range, shift } => {
                let found = &self.found[*selection];
                self.check(found.len(), grid)?;
                let points = |one: &'a RawSeries| Points::of(&one.times, &one.values);
                let series = found.iter().map(|one| (one.labels.clone(), points(one))).collect();
                Ok(Ranges { series, range: *range, shift: *shift })
            }
            Node::Subquery { inner, range, step, shift } => {
                let inner_grid = grid.within(*range, *step, *shift);
                self.check(1, inner_grid)?;
                let series = match self.node(plan, inner, inner_grid)? {
                    Value::Vector(series) => series,
                    Value::Scalar(numbers) => vec![Series { labels: Labels::default(), column: Column(numbers) }],
                    _ => return Err(QueryError::execution("a subquery is over series")),
                };
                self.check(series.len(), inner_grid)?;
                let series =
                    series.into_iter().map(|one| (one.labels, Points::of_column(&one.column, inner_grid))).collect();
                Ok(Ranges { series, range: *range, shift: *shift })
            }
            _ => Err(QueryError::execution("a range of points is needed here")),
        }
    }

    fn over_time(
        &self,
        plan: &Plan,
        name: &'static str,
        function: range::OverTime,
        arguments: &[Node],
        grid: Grid,
    ) -> Result<Vec<Series>, QueryError> {
        if let [Node::Range { selection, range, shift }] = arguments
            && let piece = (Piece::Window { name, range: *range, shift: *shift })
            && let Some(series) = self.folded(plan, *selection, piece, grid)
        {
            self.check(series.len(), grid)?;
            return Ok(series.into_iter().map(|one| self.named_over_time(name, one, true)).collect());
        }
        let (mut ranges, mut parameters) = (None, Vec::new());
        for argument in arguments {
            match argument {
                Node::Range { .. } | Node::Subquery { .. } => ranges = Some(self.ranges(plan, argument, grid)?),
                number => parameters.push(self.numbers(plan, number, grid)?),
            }
        }
        let ranges = ranges.ok_or_else(|| QueryError::execution(format!("{name}() needs a range")))?;
        self.check(ranges.series.len(), grid)?;
        let mut out = Vec::with_capacity(ranges.series.len());
        let mut now = vec![0.0; parameters.len()];
        for (labels, points) in &ranges.series {
            self.check(1, grid)?;
            let mut wrong = None;
            let column = points.windows(grid, ranges.range, ranges.shift, |window| {
                for (slot, numbers) in now.iter_mut().zip(&parameters) {
                    *slot = numbers[window.at];
                }
                if let Err(error) = range::check_parameters(name, &now) {
                    wrong = Some(error);
                }
                if name == "quantile_over_time" {
                    self.notes.check_quantile(now[0]);
                }
                if let Some(natives) = &self.natives
                    && window.values.iter().any(|value| Natives::is_one(*value))
                {
                    let over = Over { natives, notes: &self.notes, metric: labels.get(NAME) };
                    return over.judge(name, function, &window, &now);
                }
                function(&window, &now)
            });
            if let Some(error) = wrong {
                return Err(error);
            }
            if !column.is_empty() {
                let is_of_numbers =
                    || self.natives.is_none() || column.iter().any(|(_, value)| !Natives::is_one(value));
                let is_of_numbers = is_of_numbers();
                out.push(self.named_over_time(name, Series { labels: labels.clone(), column }, is_of_numbers));
            }
        }
        Ok(out)
    }

    /// What a function over time gave for a series, as a series of its own.
    fn named_over_time(&self, name: &str, series: Series, is_of_numbers: bool) -> Series {
        if matches!(name, "rate" | "increase") && is_of_numbers {
            self.notes.check_counter(series.labels.get(NAME));
        }
        if range::keeps_name(name) { series } else { Series { labels: series.labels.without_name(), ..series } }
    }

    fn call(&self, plan: &Plan, name: &'static str, arguments: &[Node], grid: Grid) -> Result<Value, QueryError> {
        if let Some(function) = range::over_time(name) {
            return Ok(Value::Vector(merge_same(self.over_time(plan, name, function, arguments, grid)?)?));
        }
        let series = |at: usize| match arguments.get(at) {
            Some(node) => self.series(plan, node, grid),
            // Functions of the calendar are about now if nothing else is said.
            None => Ok(vec![Series { labels: Labels::default(), column: Column(seconds(grid)) }]),
        };
        let numbers = |at: usize, default: f64| match arguments.get(at) {
            Some(node) => self.numbers(plan, node, grid),
            None => Ok(vec![default; grid.count]),
        };
        if let Some(function) = function::number(name).or_else(|| calendar::of(name)) {
            return Ok(Value::Vector(function::map(self.only_numbers(series(0)?), |_, value| function(value))?));
        }
        Ok(Value::Vector(match name {
            "time" => return Ok(Value::Scalar(seconds(grid))),
            "pi" => return Ok(Value::Scalar(vec![std::f64::consts::PI; grid.count])),
            "scalar" => return Ok(Value::Scalar(only(&self.only_numbers(series(0)?), grid.count))),
            "vector" => vec![Series { labels: Labels::default(), column: Column(numbers(0, 0.0)?) }],
            "timestamp" => {
                let series = match arguments.first() {
                    Some(Node::Select { selection, shift }) => {
                        select::timestamps(&self.found[*selection], grid, *shift, plan.lookback_ms)
                    }
                    _ => {
                        let now = seconds(grid);
                        function::map(series(0)?, |at, _| now[at])?
                    }
                };
                function::map(series, |_, value| value)?
            }
            "round" => {
                let to_nearest = numbers(1, 1.0)?;
                function::map(self.only_numbers(series(0)?), |at, value| function::round(value, to_nearest[at]))?
            }
            "clamp" => self.clamped(series(0)?, &numbers(1, 0.0)?, &numbers(2, 0.0)?)?,
            "clamp_min" => self.clamped(series(0)?, &numbers(1, 0.0)?, &vec![f64::INFINITY; grid.count])?,
            "clamp_max" => self.clamped(series(0)?, &vec![f64::NEG_INFINITY; grid.count], &numbers(1, 0.0)?)?,
            "absent" => {
                let columns: Vec<Column> = series(0)?.into_iter().map(|one| one.column).collect();
                function::absent(&columns, demanded(plan, arguments), grid.count)
            }
            "absent_over_time" => {
                let present = self.over_time(plan, name, |_, _| Some(1.0), arguments, grid)?;
                let columns: Vec<Column> = present.into_iter().map(|one| one.column).collect();
                function::absent(&columns, demanded(plan, arguments), grid.count)
            }
            "sort" | "sort_desc" => {
                let mut sorted = self.only_numbers(series(0)?);
                if plan.is_instant() {
                    sorted.sort_by(|a, b| rank(a.column.0[0], b.column.0[0], name == "sort_desc"));
                }
                sorted
            }
            "sort_by_label" | "sort_by_label_desc" => {
                let names = self.texts(plan, &arguments[1..], grid)?;
                let mut sorted = series(0)?;
                sorted.sort_by(|a, b| {
                    let of_names = names.iter().map(|label| natural(a.labels.get(label), b.labels.get(label)));
                    let order = of_names.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels));
                    if name == "sort_by_label" { order } else { order.reverse() }
                });
                sorted
            }
            "label_replace" => function::label_replace(series(0)?, &self.texts(plan, &arguments[1..], grid)?)?,
            "label_join" => function::label_join(series(0)?, &self.texts(plan, &arguments[1..], grid)?)?,
            "histogram_quantile" => {
                let quantiles = numbers(0, 0.0)?;
                self.notes.check_quantiles(&quantiles);
                let series = series(1)?;
                let mut out = self.of_histograms(series.clone(), |at, one| native::quantile(quantiles[at], one))?;
                out.extend(histogram::quantile(&quantiles, self.only_numbers(series), grid.count, &self.notes));
                merge_same(out)?
            }
            "histogram_quantiles" => {
                let name = self.texts(plan, &arguments[1..2], grid)?.remove(0);
                let series = series(0)?;
                let (mut out, mut seen) = (Vec::new(), HashSet::new());
                for place in 2..arguments.len() {
                    let quantiles = numbers(place, 0.0)?;
                    self.notes.check_quantiles(&quantiles);
                    let text = open_metrics_text(quantiles.first().copied().unwrap_or_default());
                    if !seen.insert(text.clone()) {
                        continue;
                    }
                    let mut some =
                        self.of_histograms(series.clone(), |at, one| native::quantile(quantiles[at], one))?;
                    let classic = self.only_numbers(series.clone());
                    some.extend(histogram::quantile(&quantiles, classic, grid.count, &self.notes));
                    let named = |one: Series| Series { labels: one.labels.with(&name, &text), column: one.column };
                    out.extend(some.into_iter().map(named));
                }
                merge_same(out)?
            }
            "histogram_fraction" => {
                let (lower, upper, series) = (numbers(0, 0.0)?, numbers(1, 0.0)?, series(2)?);
                let mut out =
                    self.of_histograms(series.clone(), |at, one| native::fraction(lower[at], upper[at], one))?;
                out.extend(histogram::fraction(&lower, &upper, self.only_numbers(series), grid.count, &self.notes));
                merge_same(out)?
            }
            // These are of native histograms only; of plain numbers they give nothing, as in Prometheus.
            "histogram_avg" => self.of_histograms(series(0)?, |_, one| one.sum / one.count)?,
            "histogram_count" => self.of_histograms(series(0)?, |_, one| one.count)?,
            "histogram_sum" => self.of_histograms(series(0)?, |_, one| one.sum)?,
            "histogram_stddev" => self.of_histograms(series(0)?, |_, one| native::deviation(one).sqrt())?,
            "histogram_stdvar" => self.of_histograms(series(0)?, |_, one| native::deviation(one))?,
            _ => return Err(QueryError::Unsupported(format!("the function {name}()"))),
        }))
    }

    fn clamped(&self, series: Vec<Series>, least: &[f64], most: &[f64]) -> Result<Vec<Series>, QueryError> {
        function::map(self.only_numbers(series), |at, value| {
            if most[at] < least[at] { ABSENT } else { greater(least[at], smaller(most[at], value)) }
        })
    }

    fn texts(&self, plan: &Plan, nodes: &[Node], grid: Grid) -> Result<Vec<String>, QueryError> {
        let texts = nodes.iter().map(|node| match self.node(plan, node, grid)? {
            Value::Text(text) => Ok(text),
            _ => Err(QueryError::execution("a text is needed here")),
        });
        texts.collect()
    }
}

/// A number as a label of its kind has it: with a fraction, so that 1 is `1.0`.
fn open_metrics_text(number: f64) -> String {
    let text = number_text(number);
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_whole { format!("{text}.0") } else { text }
}

/// The smaller; NaN if one is, unless the other is smaller than every number.
fn smaller(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The greater; NaN if one is, unless the other is greater than every number.
fn greater(a: f64, b: f64) -> f64 {
    -smaller(-a, -b)
}

/// Each time of the grid in seconds.
fn seconds(grid: Grid) -> Vec<f64> {
    grid.times().map(|time| time as f64 / 1000.0).collect()
}

/// `scalar`: the value of the only series, NaN if there is none or more than one.
fn only(series: &[Series], count: usize) -> Vec<f64> {
    let at = |at| {
        let mut present = series.iter().map(|one| one.column.0[at]).filter(|value| is_present(*value));
        match (present.next(), present.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    };
    (0..count).map(at).collect()
}

/// Compares as people do: numbers within the texts by their size.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let order = match (chunk(&mut a), chunk(&mut b)) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<i64>(), right.parse::<i64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                _ => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Takes the digits, or what is none, from the beginning of a text.
fn chunk<'a>(text: &mut &'a str) -> Option<&'a str> {
    let is_digit = text.chars().next()?.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(text.len());
    let (chunk, rest) = text.split_at(end);
    *text = rest;
    Some(chunk)
}

/// The labels that the first argument's matchers demand.
fn demanded(plan: &Plan, arguments: &[Node]) -> Labels {
    match arguments.first() {
        Some(Node::Select { selection, .. } | Node::Range { selection, .. }) => {
            function::demanded(&plan.selections()[*selection].groups)
        }
        _ => Labels::default(),
    }
}
