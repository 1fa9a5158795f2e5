//! From text to a tree of our own: offsets and `@` resolved, selectors numbered, with the range that each must read.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use promql_parser::{
    label::{MatchOp, Matchers},
    parser::{self, AtModifier, Expr, LabelModifier, Offset, VectorSelector, token, value::ValueType},
};

use crate::{
    Limits, QueryError,
    aggregate::{Aggregate, Aggregation},
    binary::{Binary, BinaryOperator, SetOperator},
    fold::Fold,
    function,
    info::Wanted,
    labels::NAME,
    literals,
    matching::{Cardinality, Matching},
    source::{Matcher, MatcherGroup, Operator, Selected, Selection},
};

/// Longer texts are no queries that a person or a dashboard wrote.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Deeper nesting is not parsed: each level costs stack in the parser and in the evaluation.
const DEPTH_MAX: usize = 200;
/// More operators are not parsed: a flat chain of them is a deep tree, which costs stack even to throw away.
const OPERATORS_MAX: usize = 500;
/// Points and values of a brief evaluation: a few hundred microseconds.
pub(crate) const BRIEF_VALUES_MAX: usize = 20_000;
/// Points times steps of one, which is what windows look at if each has everything: a few milliseconds at the very most.
pub(crate) const BRIEF_STEPS_MAX: usize = 1_000_000;
/// Step of a subquery that names none: Prometheus' default evaluation interval.
const SUBQUERY_STEP_MS: i64 = 60_000;

/// The times at which a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First time, in milliseconds since 1970.
    pub start_ms: i64,
    /// Last time, not before the first.
    pub end_ms: i64,
    /// Distance of times; 0 for an instant query, whose start is its end.
    pub step_ms: i64,
}

/// Evenly spaced times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Grid {
    pub(crate) fn time(&self, at: usize) -> i64 {
        self.start + self.step * at as i64
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.count).map(|at| self.time(at))
    }

    /// The times of a subquery: multiples of its step, so that it gives the same whenever it is asked.
    pub(crate) fn within(&self, range: i64, step: i64, shift: Shift) -> Self {
        let low = shift.apply(self.start) - range;
        let high = shift.apply(self.time(self.count.saturating_sub(1)));
        let start = low.div_euclid(step) * step + step;
        let count = if high < start { 0 } else { ((high - start) / step + 1) as usize };
        Self { start, step, count }
    }
}

/// Where a selector looks, seen from an evaluation's time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shift {
    pub(crate) at: Option<i64>,
    pub(crate) offset: i64,
}

impl Shift {
    pub(crate) fn apply(&self, time: i64) -> i64 {
        self.at.unwrap_or(time) - self.offset
    }

    fn range(&self, (low, high): (i64, i64)) -> (i64, i64) {
        (self.apply(low), self.apply(high))
    }
}

/// A node of the plan.
#[derive(Debug)]
pub(crate) enum Node {
    Number(f64),
    Text(String),
    Negate(Box<Node>),
    Select {
        selection: usize,
        shift: Shift,
    },
    Range {
        selection: usize,
        range: i64,
        shift: Shift,
    },
    Subquery {
        inner: Box<Node>,
        range: i64,
        step: i64,
        shift: Shift,
    },
    Binary(Box<Binary>),
    Set {
        operator: SetOperator,
        matching: Matching,
        left: Box<Node>,
        right: Box<Node>,
    },
    Aggregate(Box<Aggregate>),
    Call {
        name: &'static str,
        arguments: Vec<Node>,
    },
    /// `info`: a node, and the series that describe its.
    Info {
        inner: Box<Node>,
        selection: usize,
        wanted: Wanted,
    },
}

/// A query that can be evaluated.
#[derive(Debug)]
pub struct Plan {
    pub(crate) root: Node,
    pub(crate) grid: Grid,
    pub(crate) lookback_ms: i64,
    selections: Vec<Selection>,
    folds: Vec<Option<Arc<Fold>>>,
    is_instant: bool,
    has_subqueries: bool,
    /// Its text has `start()` or `end()`.
    pub(crate) names_its_ends: bool,
}

impl Plan {
    /// Parses a query for the times of a window.
    pub fn new(text: &str, window: Window, limits: &Limits) -> Result<Self, QueryError> {
        plan_of(&checked(text)?, window, limits)
    }

    /// What must be read, in the order in which the evaluation expects it.
    pub fn selections(&self) -> &[Selection] {
        &self.selections
    }

    /// What is made of each series of a selection, in the order of [`Self::selections`]; `None` where its points are needed.
    pub fn folds(&self) -> &[Option<Arc<Fold>>] {
        &self.folds
    }

    /// Whether evaluating it over these points takes no longer than handing it to another thread is worth.
    pub fn is_brief(&self, found: &[Selected]) -> bool {
        let series = found.iter().map(Selected::series).sum::<usize>();
        let points = |one: &Selected| match one {
            Selected::Points(_) => one.points(),
            // They were looked at already.
            Selected::Folded(_) => 0,
        };
        let points = found.iter().map(points).sum::<usize>();
        // A window may have all points of its series; a subquery has a grid of its own.
        !self.has_subqueries
            && points + series.saturating_mul(self.grid.count) <= BRIEF_VALUES_MAX
            && points.saturating_mul(self.grid.count) <= BRIEF_STEPS_MAX
    }

    /// Whether it asks for one time only.
    pub fn is_instant(&self) -> bool {
        self.is_instant
    }

    /// The times at which it is evaluated, in milliseconds.
    pub fn times(&self) -> impl Iterator<Item = i64> + '_ {
        self.grid.times()
    }
}

/// The plan of an expression for the times of a window.
pub(crate) fn plan_of(expression: &Expr, window: Window, limits: &Limits) -> Result<Plan, QueryError> {
    let count = match window.step_ms {
        0 => 1,
        step => usize::try_from((window.end_ms - window.start_ms) / step + 1).unwrap_or(usize::MAX),
    };
    if count > limits.steps_max.saturating_add(1) {
        return Err(QueryError::Refused(format!(
            "exceeded maximum resolution of {} points per timeseries; try increasing the step",
            limits.steps_max
        )));
    }
    let mut builder = Builder {
        window,
        lookback_ms: limits.lookback_ms,
        selections: Vec::new(),
        has_subqueries: false,
        names_its_ends: false,
    };
    let root = builder.node(expression, (window.start_ms, window.end_ms), DEPTH_MAX)?;
    if !builder_may_answer(expression, window) {
        return Err(QueryError::Syntax(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            expression.value_type()
        )));
    }
    let grid = Grid { start: window.start_ms, step: window.step_ms, count };
    Ok(Plan {
        folds: Fold::of_plan(&root, &builder.selections, grid, limits.lookback_ms),
        root,
        grid,
        lookback_ms: limits.lookback_ms,
        selections: builder.selections,
        is_instant: window.step_ms == 0,
        has_subqueries: builder.has_subqueries,
        names_its_ends: builder.names_its_ends,
    })
}

/// A query's text with the line breaks that its length asks for; comments are left out.
pub fn formatted(text: &str) -> Result<String, QueryError> {
    Ok(checked(text)?.prettify())
}

/// A query as a tree, in the form of Prometheus' `parse_query`.
pub fn tree(text: &str) -> Result<serde_json::Value, QueryError> {
    let mut tree = serde_json::to_value(checked(text)?).map_err(|error| QueryError::Execution(error.to_string()))?;
    as_prometheus(&mut tree);
    Ok(tree)
}

/// The parser's tree in Prometheus' form: a name is a matcher too, and labels of a matching stand beside its kind. As deep
/// as the text, which is bounded.
fn as_prometheus(node: &mut serde_json::Value) {
    use serde_json::{Value, json};
    match node {
        Value::Array(nodes) => nodes.iter_mut().for_each(as_prometheus),
        Value::Object(fields) => {
            fields.values_mut().for_each(as_prometheus);
            if let Some(Value::Object(function)) = fields.get_mut("func") {
                function.remove("experimental");
            }
            if let Some(Value::Object(matching)) = fields.get_mut("matching") {
                matching.remove("fillValues");
                let of_kind = match matching.get("card") {
                    Some(Value::Object(kinds)) => {
                        kinds.iter().next().map(|(kind, labels)| (kind.clone(), labels.clone()))
                    }
                    _ => None,
                };
                if let Some((kind, labels)) = of_kind {
                    matching.insert("card".to_owned(), kind.into());
                    matching.insert("include".to_owned(), labels);
                }
            }
            if fields.get("step").is_some_and(Value::is_null) {
                fields.insert("step".to_owned(), 0.into());
            }
            let is_number = |side: &str| fields.get(side).is_some_and(is_number);
            if fields.contains_key("matching") && (is_number("lhs") || is_number("rhs")) {
                fields.insert("matching".to_owned(), Value::Null);
            }
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(Value::Array(matchers)) = fields.get_mut("matchers")
                && !name.is_empty()
                && !matchers.iter().any(|matcher| matcher["name"] == NAME)
            {
                matchers.push(json!({"name": NAME, "type": "=", "value": name}));
            }
        }
        _ => {}
    }
}

/// Whether a node of a tree is one number at each time, not series.
fn is_number(node: &serde_json::Value) -> bool {
    match node["type"].as_str() {
        Some("numberLiteral") => true,
        Some("call") => node["func"]["returnType"] == "scalar",
        Some("parenExpr" | "unaryExpr") => is_number(&node["expr"]),
        Some("binaryExpr") => is_number(&node["lhs"]) && is_number(&node["rhs"]),
        _ => false,
    }
}

pub(crate) fn checked(text: &str) -> Result<Expr, QueryError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(QueryError::Syntax(format!("the query is longer than {TEXT_BYTES_MAX} bytes")));
    }
    check_depth(text)?;
    parse(text)
}

/// The matchers of a text such as `up{job="x"}`, as `match[]` parameters hold them.
pub fn selector(text: &str) -> Result<Vec<MatcherGroup>, QueryError> {
    match checked(text)? {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => groups(&selector),
        _ => Err(QueryError::Syntax(format!("`{text}` is not a series selector"))),
    }
}

fn parse(text: &str) -> Result<Expr, QueryError> {
    parser::parse(&literals::prepared(text).map_err(QueryError::Syntax)?).map_err(QueryError::Syntax)
}

/// Brackets and operators, counted before the parser sees them.
fn check_depth(text: &str) -> Result<(), QueryError> {
    let (mut depth, mut deepest, mut quote, mut escaped) = (0_usize, 0, None, false);
    let mut operators = 0;
    for c in text.chars() {
        match (quote, c) {
            (Some('`'), '`') => quote = None,
            (Some('`'), _) => {}
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(' | '[' | '{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '+' | '-' | '*' | '/' | '%' | '^' | '<' | '>' | '=' | '!') => operators += 1,
            _ => {}
        }
    }
    // Operators that are words; a metric of such a name counts as well, which harms nobody.
    let is_operator = |word: &&str| matches!(*word, "and" | "or" | "unless" | "atan2");
    operators += text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_operator).count();
    if operators > OPERATORS_MAX {
        return Err(QueryError::Syntax(format!("the query has more than {OPERATORS_MAX} operators")));
    }
    match deepest > DEPTH_MAX {
        true => Err(QueryError::Syntax(format!("the query is nested deeper than {DEPTH_MAX} levels"))),
        false => Ok(()),
    }
}

fn builder_may_answer(expression: &Expr, window: Window) -> bool {
    window.step_ms == 0 || matches!(expression.value_type(), ValueType::Scalar | ValueType::Vector)
}

struct Builder {
    window: Window,
    lookback_ms: i64,
    selections: Vec<Selection>,
    has_subqueries: bool,
    names_its_ends: bool,
}

impl Builder {
    /// A node that is evaluated at times within `span` (first and last).
    fn node(&mut self, expression: &Expr, span: (i64, i64), depth: usize) -> Result<Node, QueryError> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| QueryError::Syntax(format!("the query is nested deeper than {DEPTH_MAX} levels")))?;
        Ok(match expression {
            Expr::NumberLiteral(number) => Node::Number(number.val),
            Expr::StringLiteral(text) => Node::Text(text.val.clone()),
            Expr::Paren(inner) => self.node(&inner.expr, span, depth)?,
            Expr::Unary(inner) => Node::Negate(Box::new(self.node(&inner.expr, span, depth)?)),
            Expr::VectorSelector(selector) => {
                let shift = self.shift(selector.offset.as_ref(), selector.at.as_ref())?;
                let (low, high) = shift.range(span);
                let selection = self.selection(selector, (low, high), self.lookback_ms, low == high)?;
                Node::Select { selection, shift }
            }
            Expr::MatrixSelector(matrix) => {
                let shift = self.shift(matrix.vs.offset.as_ref(), matrix.vs.at.as_ref())?;
                let range = millis(matrix.range)?;
                let selection = self.selection(&matrix.vs, shift.range(span), range, false)?;
                Node::Range { selection, range, shift }
            }
            Expr::Subquery(subquery) => {
                self.has_subqueries = true;
                let shift = self.shift(subquery.offset.as_ref(), subquery.at.as_ref())?;
                let range = millis(subquery.range)?;
                let step = subquery.step.map_or(Ok(SUBQUERY_STEP_MS), millis)?;
                if step == 0 {
                    return Err(QueryError::Syntax("zero or negative subquery step is not allowed".into()));
                }
                let (low, high) = shift.range(span);
                let inner = self.node(&subquery.expr, (low.saturating_sub(range), high), depth)?;
                Node::Subquery { inner: Box::new(inner), range, step, shift }
            }
            Expr::Binary(binary) => {
                let left = Box::new(self.node(&binary.lhs, span, depth)?);
                let right = Box::new(self.node(&binary.rhs, span, depth)?);
                let matching = matching(binary.modifier.as_ref())?;
                if let Some(operator) = set_operator(binary.op.id()) {
                    return Ok(Node::Set { operator, matching, left, right });
                }
                let operator = binary_operator(binary.op.id())
                    .ok_or_else(|| QueryError::Unsupported(format!("the operator {}", binary.op)))?;
                let wants_bool = binary.modifier.as_ref().is_some_and(|modifier| modifier.return_bool);
                Node::Binary(Box::new(Binary { operator, wants_bool, matching, left: *left, right: *right }))
            }
            Expr::Aggregate(aggregate) => {
                let inner = self.node(&aggregate.expr, span, depth)?;
                let parameter = match &aggregate.param {
                    None => None,
                    Some(parameter) => Some(self.node(parameter, span, depth)?),
                };
                let (is_without, labels) = match &aggregate.modifier {
                    None => (false, Vec::new()),
                    Some(LabelModifier::Include(labels)) => (false, labels.labels.clone()),
                    Some(LabelModifier::Exclude(labels)) => (true, labels.labels.clone()),
                };
                let kind = aggregation(aggregate.op.id())
                    .ok_or_else(|| QueryError::Unsupported(format!("the aggregation {}", aggregate.op)))?;
                Node::Aggregate(Box::new(Aggregate { kind, inner, parameter, is_without, labels }))
            }
            Expr::Call(call) => {
                let name = call.func.name;
                if !function::is_known(name) {
                    return Err(QueryError::Unsupported(format!("the function {name}()")));
                }
                if name == "info" {
                    return self.info(&call.args.args, span, depth);
                }
                let arguments = call.args.args.iter().map(|one| self.node(one, span, depth));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                self.names_its_ends |= matches!(name, "start" | "end" | "range");
                match name {
                    "start" => Node::Number(self.window.start_ms as f64 / 1000.0),
                    "end" => Node::Number(self.window.end_ms as f64 / 1000.0),
                    "range" => Node::Number((self.window.end_ms - self.window.start_ms) as f64 / 1000.0),
                    "step" => Node::Number(self.window.step_ms as f64 / 1000.0),
                    _ => Node::Call { name, arguments },
                }
            }
            Expr::Extension(_) => return Err(QueryError::Unsupported("this expression".into())),
        })
    }

    /// `info(series)` or `info(series, {labels})`.
    fn info(&mut self, arguments: &[Box<Expr>], span: (i64, i64), depth: usize) -> Result<Node, QueryError> {
        let said = match arguments.get(1).map(|one| &**one) {
            None => None,
            Some(Expr::VectorSelector(selector))
                if selector.name.is_none() && selector.offset.is_none() && selector.at.is_none() =>
            {
                Some(matcher_groups(selector))
            }
            Some(_) => {
                let reason = "the second argument of info() must be a label selector without name, offset and @";
                return Err(QueryError::Syntax(reason.into()));
            }
        };
        let inner = arguments.first().ok_or_else(|| QueryError::Syntax("info() needs an argument".into()))?;
        let inner = Box::new(self.node(inner, span, depth)?);
        let wanted = Wanted::of(said);
        let groups = wanted.groups().to_vec();
        let after_ms = span.0.saturating_sub(self.lookback_ms);
        let selection = self.selected(Selection { groups, after_ms, until_ms: span.1, newest_only: span.0 == span.1 });
        Ok(Node::Info { inner, selection, wanted })
    }

    fn selection(
        &mut self,
        selector: &VectorSelector,
        (low, high): (i64, i64),
        range: i64,
        newest_only: bool,
    ) -> Result<usize, QueryError> {
        let (groups, after_ms) = (groups(selector)?, low.saturating_sub(range));
        Ok(self.selected(Selection { groups, after_ms, until_ms: high, newest_only }))
    }

    fn selected(&mut self, selection: Selection) -> usize {
        // What a query says twice is read once.
        if let Some(same) = self.selections.iter().position(|other| *other == selection) {
            return same;
        }
        self.selections.push(selection);
        self.selections.len() - 1
    }

    fn shift(&self, offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<Shift, QueryError> {
        let offset = match offset {
            None => 0,
            Some(Offset::Pos(duration)) => millis(*duration)?,
            Some(Offset::Neg(duration)) => -millis(*duration)?,
        };
        let at = match at {
            None => None,
            Some(AtModifier::Start) => Some(self.window.start_ms),
            Some(AtModifier::End) => Some(self.window.end_ms),
            Some(AtModifier::At(time)) => Some(epoch_millis(*time)?),
        };
        Ok(Shift { at, offset })
    }
}

fn groups(selector: &VectorSelector) -> Result<Vec<MatcherGroup>, QueryError> {
    let groups = matcher_groups(selector);
    match groups.iter().flatten().all(|matcher| matcher.is_match("")) {
        true => Err(QueryError::Syntax("vector selector must contain at least one non-empty matcher".into())),
        false => Ok(groups),
    }
}

fn matcher_groups(selector: &VectorSelector) -> Vec<MatcherGroup> {
    let Matchers { matchers, or_matchers } = &selector.matchers;
    let mut groups: Vec<MatcherGroup> = match or_matchers.is_empty() {
        true => vec![matchers.iter().map(matcher).collect()],
        false => or_matchers.iter().map(|group| group.iter().map(matcher).collect()).collect(),
    };
    if let Some(name) = &selector.name {
        for group in &mut groups {
            group.push(Matcher::equal(NAME, name));
        }
    }
    groups
}

fn matcher(matcher: &promql_parser::label::Matcher) -> Matcher {
    let operator = match &matcher.op {
        MatchOp::Equal => Operator::Equal,
        MatchOp::NotEqual => Operator::NotEqual,
        MatchOp::Re(regex) => Operator::Matches(regex.clone()),
        MatchOp::NotRe(regex) => Operator::MatchesNot(regex.clone()),
    };
    Matcher { name: matcher.name.clone(), operator, value: matcher.value.clone() }
}

fn matching(modifier: Option<&parser::BinModifier>) -> Result<Matching, QueryError> {
    use parser::VectorMatchCardinality as Parsed;
    let Some(modifier) = modifier else { return Ok(Matching::default()) };
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(QueryError::Unsupported("the modifier fill".into()));
    }
    let (is_on, labels) = match &modifier.matching {
        None => (false, Vec::new()),
        Some(LabelModifier::Include(labels)) => (true, labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => (false, labels.labels.clone()),
    };
    let (cardinality, include) = match &modifier.card {
        Parsed::OneToOne | Parsed::ManyToMany => (Cardinality::OneToOne, Vec::new()),
        Parsed::ManyToOne(include) => (Cardinality::ManyToOne, include.labels.clone()),
        Parsed::OneToMany(include) => (Cardinality::OneToMany, include.labels.clone()),
    };
    Ok(Matching { is_on, labels, cardinality, include })
}

fn set_operator(id: token::TokenId) -> Option<SetOperator> {
    Some(match id {
        token::T_LAND => SetOperator::And,
        token::T_LOR => SetOperator::Or,
        token::T_LUNLESS => SetOperator::Unless,
        _ => return None,
    })
}

fn binary_operator(id: token::TokenId) -> Option<BinaryOperator> {
    use BinaryOperator as B;
    Some(match id {
        token::T_ADD => B::Add,
        token::T_SUB => B::Subtract,
        token::T_MUL => B::Multiply,
        token::T_DIV => B::Divide,
        token::T_MOD => B::Modulo,
        token::T_POW => B::Power,
        token::T_ATAN2 => B::Atan2,
        token::T_EQLC => B::Equal,
        token::T_NEQ => B::NotEqual,
        token::T_LSS => B::Less,
        token::T_LTE => B::LessOrEqual,
        token::T_GTR => B::Greater,
        token::T_GTE => B::GreaterOrEqual,
        _ => return None,
    })
}

fn aggregation(id: token::TokenId) -> Option<Aggregation> {
    use Aggregation as A;
    Some(match id {
        token::T_SUM => A::Sum,
        token::T_AVG => A::Average,
        token::T_COUNT => A::Count,
        token::T_MIN => A::Min,
        token::T_MAX => A::Max,
        token::T_GROUP => A::Group,
        token::T_STDDEV => A::StandardDeviation,
        token::T_STDVAR => A::Variance,
        token::T_TOPK => A::Top,
        token::T_BOTTOMK => A::Bottom,
        token::T_COUNT_VALUES => A::CountValues,
        token::T_QUANTILE => A::Quantile,
        token::T_LIMITK => A::Limit,
        token::T_LIMIT_RATIO => A::LimitRatio,
        _ => return None,
    })
}

fn millis(duration: Duration) -> Result<i64, QueryError> {
    // A thousand years: sums of a few such spans and a time still fit.
    const MILLIS_MAX: i64 = 31_557_600_000_000;
    i64::try_from(duration.as_millis())
        .ok()
        .filter(|millis| *millis <= MILLIS_MAX)
        .ok_or_else(|| QueryError::Syntax("duration out of range".into()))
}

fn epoch_millis(time: SystemTime) -> Result<i64, QueryError> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => millis(before.duration()).map(|millis| -millis),
    }
}
