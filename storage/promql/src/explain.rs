//! What a query does, as a tree for people: before it runs ([`Plan::explained`]), and what each step took and gave when it ran.

use std::{cell::RefCell, fmt::Write, time::Duration};

use crate::{
    Plan, QueryError, Selection, Value,
    matching::{Cardinality, Matching},
    plan::{Grid, Node, Shift},
    source::Operator,
    text::number_text,
};

/// A step of a query, with those that it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What is done, as PromQL has it.
    pub what: String,
    /// What a selector reads: points after the first time and up to the second, in milliseconds since 1970.
    pub reads_ms: Option<(i64, i64)>,
    /// How a selector is read: what is made of its points on the way.
    pub how: Option<&'static str>,
    /// Times at which it is evaluated.
    pub times: usize,
    /// What it took, with the steps inside.
    pub took: Option<Duration>,
    /// Series and values that it gave.
    pub gave: Option<(usize, usize)>,
    /// What it needs.
    pub inside: Vec<Step>,
}

impl Plan {
    /// The steps, with nothing read.
    pub fn explained(&self) -> Step {
        self.step(&self.root, self.grid)
    }

    /// What a selector reads, without what is done with it.
    pub fn selection_explained(&self, place: usize) -> Step {
        let Some(one) = self.selections().get(place) else { return Step::default() };
        let is_folded = self.folds().get(place).is_some_and(Option::is_some);
        let how = match (one.newest_only, is_folded) {
            (true, _) => "the newest point of each series",
            (false, true) => "points are folded by the threads that read them",
            (false, false) => "all points",
        };
        Step {
            what: selector_text(one),
            reads_ms: Some((one.after_ms, one.until_ms)),
            how: Some(how),
            ..Step::default()
        }
    }

    fn step(&self, node: &Node, grid: Grid) -> Step {
        let step = Step { what: self.what(node), times: grid.count, ..Step::default() };
        let inside = match node {
            Node::Number(_) | Node::Text(_) => Vec::new(),
            Node::Select { selection, .. } | Node::Range { selection, .. } => {
                return Step { what: step.what, times: grid.count, ..self.selection_explained(*selection) };
            }
            Node::Subquery { inner, range, step, shift } => vec![self.step(inner, grid.within(*range, *step, *shift))],
            Node::Negate(inner) => vec![self.step(inner, grid)],
            Node::Binary(operation) => vec![self.step(&operation.left, grid), self.step(&operation.right, grid)],
            Node::Set { left, right, .. } => vec![self.step(left, grid), self.step(right, grid)],
            Node::Aggregate(aggregate) => {
                let parameter = aggregate.parameter.as_ref().map(|parameter| self.step(parameter, grid));
                parameter.into_iter().chain([self.step(&aggregate.inner, grid)]).collect()
            }
            Node::Call { arguments, .. } => arguments.iter().map(|argument| self.step(argument, grid)).collect(),
            Node::Info { inner, selection, .. } => vec![self.step(inner, grid), self.selection_explained(*selection)],
        };
        Step { inside, ..step }
    }

    /// One node without what is inside it, but the selectors of which it takes a range.
    fn what(&self, node: &Node) -> String {
        let selector = |place: usize| self.selections().get(place).map(selector_text).unwrap_or_default();
        match node {
            Node::Number(number) => number_text(*number),
            Node::Text(text) => format!("{text:?}"),
            Node::Negate(_) => "-".to_owned(),
            Node::Select { selection, shift } => format!("{}{}", selector(*selection), shift_text(*shift)),
            Node::Range { selection, range, shift } => {
                format!("{}[{}]{}", selector(*selection), span_text(*range), shift_text(*shift))
            }
            Node::Subquery { range, step, shift, .. } => {
                format!("[{}:{}]{}", span_text(*range), span_text(*step), shift_text(*shift))
            }
            Node::Binary(operation) => {
                let wants_bool = if operation.wants_bool { " bool" } else { "" };
                format!("{}{wants_bool}{}", operation.operator.symbol(), matching_text(&operation.matching))
            }
            Node::Set { operator, matching, .. } => format!("{}{}", operator.word(), matching_text(matching)),
            Node::Aggregate(aggregate) => {
                let labels = aggregate.labels.join(", ");
                let by = match (aggregate.is_without, labels.is_empty()) {
                    (false, true) => String::new(),
                    (false, false) => format!(" by ({labels})"),
                    (true, _) => format!(" without ({labels})"),
                };
                format!("{}{by}", aggregate.kind.name())
            }
            Node::Call { name, arguments } => {
                let ranges = arguments.iter().filter(|argument| matches!(argument, Node::Range { .. }));
                format!("{name}({})", ranges.map(|range| self.what(range)).collect::<Vec<_>>().join(", "))
            }
            Node::Info { .. } => "info()".to_owned(),
        }
    }
}

fn selector_text(selection: &Selection) -> String {
    let mut out = String::new();
    for (place, group) in selection.groups.iter().enumerate() {
        out.push_str(if place == 0 { "{" } else { " or {" });
        for (place, matcher) in group.iter().enumerate() {
            let operator = match matcher.operator {
                Operator::Equal => "=",
                Operator::NotEqual => "!=",
                Operator::Matches(_) => "=~",
                Operator::MatchesNot(_) => "!~",
            };
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(out, "{comma}{}{operator}{:?}", matcher.name, matcher.value);
        }
        out.push('}');
    }
    out
}

fn span_text(millis: i64) -> String {
    match millis % 1000 {
        0 => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

fn shift_text(shift: Shift) -> String {
    let at = shift.at.map(|millis| format!(" @ {}", number_text(millis as f64 / 1000.0))).unwrap_or_default();
    let offset = if shift.offset == 0 { String::new() } else { format!(" offset {}", span_text(shift.offset)) };
    format!("{at}{offset}")
}

fn matching_text(matching: &Matching) -> String {
    let mut out = String::new();
    if matching.is_on || !matching.labels.is_empty() {
        let word = if matching.is_on { "on" } else { "ignoring" };
        let _ = write!(out, " {word} ({})", matching.labels.join(", "));
    }
    let group = match matching.cardinality {
        Cardinality::OneToOne => return out,
        Cardinality::ManyToOne => "group_left",
        Cardinality::OneToMany => "group_right",
    };
    let _ = write!(out, " {group} ({})", matching.include.join(", "));
    out
}

/// Steps of a query that runs.
pub(crate) struct Trace<'a> {
    now: &'a dyn Fn() -> Duration,
    /// The steps that have begun, each inside the one before, with the time when it began; the first is no step.
    open: RefCell<Vec<(Step, Duration)>>,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(now: &'a dyn Fn() -> Duration) -> Self {
        Self { now, open: RefCell::new(vec![(Step::default(), Duration::ZERO)]) }
    }

    pub(crate) fn enter(&self, plan: &Plan, node: &Node, grid: Grid) {
        let step = Step { what: plan.what(node), times: grid.count, ..Step::default() };
        self.open.borrow_mut().push((step, (self.now)()));
    }

    /// Ends the step that began last; of a failed one nothing is told.
    pub(crate) fn leave(&self, gave: Result<(usize, usize), &QueryError>) {
        let mut open = self.open.borrow_mut();
        if let Some((mut step, began)) = open.pop()
            && let Some((outer, _)) = open.last_mut()
        {
            step.took = Some((self.now)().saturating_sub(began));
            step.gave = gave.ok();
            outer.inside.push(step);
        }
    }

    /// The step of the whole query.
    pub(crate) fn into_step(self) -> Step {
        self.open.into_inner().pop().and_then(|(mut outer, _)| outer.inside.pop()).unwrap_or_default()
    }
}

/// Series and values of a value.
pub(crate) fn size(value: &Value) -> (usize, usize) {
    match value {
        Value::Scalar(numbers) => (0, numbers.len()),
        Value::Text(_) => (0, 1),
        Value::Vector(series) => (series.len(), series.iter().map(|one| one.column.iter().count()).sum()),
        Value::Matrix(rows) => (rows.len(), rows.iter().map(|(_, times, _)| times.len()).sum()),
    }
}
