//! Operators between two sides: numbers and numbers, series and numbers, series and series.

use std::collections::HashMap;

use crate::{
    Labels, QueryError, Series,
    column::{ABSENT, Column, Value, is_present},
    matching::{Cardinality, Matching, merge_same},
    native::{Context, Histogram, Natives},
    plan::Node,
};

/// Arithmetic and comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Operators on sets of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOperator {
    And,
    Or,
    Unless,
}

impl SetOperator {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }
}

/// An operator of the plan.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) operator: BinaryOperator,
    pub(crate) wants_bool: bool,
    pub(crate) matching: Matching,
    pub(crate) left: Node,
    pub(crate) right: Node,
}

impl BinaryOperator {
    fn is_comparison(self) -> bool {
        self.compare(0.0, 0.0).is_some()
    }

    fn compare(self, left: f64, right: f64) -> Option<bool> {
        Some(match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            _ => return None,
        })
    }

    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn compute(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Modulo => left % right,
            Self::Power => left.powf(right),
            Self::Atan2 => left.atan2(right),
            _ => f64::NAN,
        }
    }
}

impl Binary {
    fn drops_name(&self) -> bool {
        self.wants_bool || !self.operator.is_comparison()
    }

    /// The result for two present values; `kept` is what a comparison that holds lets through.
    fn judge(&self, left: f64, right: f64, kept: f64) -> f64 {
        match self.operator.compare(left, right) {
            None => self.operator.compute(left, right),
            Some(holds) if self.wants_bool => f64::from(u8::from(holds)),
            Some(true) => kept,
            Some(false) => ABSENT,
        }
    }

    /// As [`Self::judge`], where values may stand for histograms.
    fn judged(&self, left: f64, right: f64, kept: f64, context: Option<Context<'_>>) -> f64 {
        match context {
            Some(context) if Natives::is_one(left) || Natives::is_one(right) => {
                self.judge_histograms(left, right, &context)
            }
            _ => self.judge(left, right, kept),
        }
    }

    fn judge_histograms(&self, left: f64, right: f64, context: &Context<'_>) -> f64 {
        let Context { natives, notes } = context;
        let incompatible = |left: &str, right: &str| {
            notes.incompatible(left, self.operator.symbol(), right);
            ABSENT
        };
        let result = match (natives.get(left), natives.get(right), self.operator) {
            (Some(one), None, BinaryOperator::Multiply) => Ok((*one).clone().times(right).compact()),
            (Some(one), None, BinaryOperator::Divide) => Ok((*one).clone().divided(right).compact()),
            (None, Some(one), BinaryOperator::Multiply) => Ok((*one).clone().times(left).compact()),
            (Some(_), None, _) => return incompatible("histogram", "float"),
            (None, _, _) => return incompatible("float", "histogram"),
            (Some(one), Some(other), BinaryOperator::Add) => (*one).clone().plus(&other).map(Histogram::compact),
            (Some(one), Some(other), BinaryOperator::Subtract) => (*one).clone().minus(&other).map(Histogram::compact),
            (Some(one), Some(other), BinaryOperator::Equal | BinaryOperator::NotEqual) => {
                let holds = one.is_same(&other) == (self.operator == BinaryOperator::Equal);
                return match (self.wants_bool, holds) {
                    (true, holds) => f64::from(u8::from(holds)),
                    (false, true) => left,
                    (false, false) => ABSENT,
                };
            }
            _ => return incompatible("histogram", "histogram"),
        };
        match result {
            Ok(histogram) => natives.keep(histogram),
            Err(_) => {
                notes.unlike_buckets(self.operator.symbol());
                ABSENT
            }
        }
    }

    /// Applies the operator.
    pub(crate) fn apply(
        &self,
        left: Value,
        right: Value,
        count: usize,
        context: Option<Context<'_>>,
    ) -> Result<Value, QueryError> {
        Ok(match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                // Comparisons of two numbers need `bool`, which the parser has checked.
                Value::Scalar(left.iter().zip(&right).map(|(l, r)| self.judge(*l, *r, *l)).collect())
            }
            (Value::Vector(series), Value::Scalar(numbers)) => {
                Value::Vector(self.with_numbers(series, |at, value| self.judged(value, numbers[at], value, context))?)
            }
            (Value::Scalar(numbers), Value::Vector(series)) => {
                Value::Vector(self.with_numbers(series, |at, value| self.judged(numbers[at], value, value, context))?)
            }
            (Value::Vector(left), Value::Vector(right)) => Value::Vector(self.matched(left, right, count, context)?),
            _ => {
                return Err(QueryError::execution(
                    "binary expression must contain only scalar and instant vector types",
                ));
            }
        })
    }

    fn with_numbers(&self, series: Vec<Series>, judge: impl Fn(usize, f64) -> f64) -> Result<Vec<Series>, QueryError> {
        let mut out = Vec::with_capacity(series.len());
        for mut one in series {
            for (at, value) in one.column.0.iter_mut().enumerate() {
                if is_present(*value) {
                    *value = judge(at, *value);
                }
            }
            if !one.column.is_empty() {
                let labels = if self.drops_name() { one.labels.without_name() } else { one.labels };
                out.push(Series { labels, column: one.column });
            }
        }
        merge_same(out)
    }

    fn matched(
        &self,
        left: Vec<Series>,
        right: Vec<Series>,
        count: usize,
        context: Option<Context<'_>>,
    ) -> Result<Vec<Series>, QueryError> {
        let is_swapped = self.matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if is_swapped { (right, left) } else { (left, right) };
        let groups = self.matching.groups(&one);
        // At a time at which one side has nothing, there is nothing to match.
        let occupied = occupied(&many, count);
        self.check_unique(&one, &groups, &occupied, if is_swapped { "left" } else { "right" })?;
        let mut out: Vec<Series> = Vec::new();
        let mut taken: HashMap<Labels, Vec<bool>> = HashMap::new();
        for from_many in &many {
            let signature = self.matching.signature(&from_many.labels);
            let Some(partners) = groups.get(&signature) else { continue };
            for partner in partners.iter().map(|at| &one[*at]) {
                let mut column = Column::absent(count);
                for (at, slot) in column.0.iter_mut().enumerate() {
                    let (a, b) = (from_many.column.0[at], partner.column.0[at]);
                    if is_present(a) && is_present(b) {
                        let (left, right) = if is_swapped { (b, a) } else { (a, b) };
                        *slot = self.judged(left, right, left, context);
                    }
                }
                if column.is_empty() {
                    continue;
                }
                let labels = self.matching.result(&from_many.labels, &partner.labels, self.drops_name());
                let is_one_to_one = self.matching.cardinality == Cardinality::OneToOne;
                let key = if is_one_to_one { &signature } else { &labels };
                let taken = taken.entry(key.clone()).or_insert_with(|| vec![false; count]);
                for (at, _) in column.iter() {
                    if std::mem::replace(&mut taken[at], true) {
                        return Err(QueryError::execution(match is_one_to_one {
                            true => {
                                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                            }
                            false => "multiple matches for labels: grouping labels must ensure unique matches",
                        }));
                    }
                }
                out.push(Series { labels, column });
            }
        }
        merge_same(out)
    }

    /// The side of one has at most one series of each signature at a time.
    fn check_unique(
        &self,
        one: &[Series],
        groups: &HashMap<Labels, Vec<usize>>,
        occupied: &[bool],
        side: &str,
    ) -> Result<(), QueryError> {
        // In the series' order, so that the same question always names the same ones.
        let mut shared: Vec<(&Labels, &Vec<usize>)> = groups.iter().filter(|(_, members)| members.len() > 1).collect();
        shared.sort_by_key(|(_, members)| members[0]);
        for (signature, members) in shared {
            let mut holder: Vec<Option<usize>> = vec![None; occupied.len()];
            for member in members {
                for (at, _) in one[*member].column.iter().filter(|(at, _)| occupied[*at]) {
                    if let Some(other) = holder[at].replace(*member) {
                        return Err(QueryError::execution(format!(
                            "found duplicate series for the match group {signature} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                            one[*member].labels, one[other].labels
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The times at which any series has a value.
fn occupied(series: &[Series], count: usize) -> Vec<bool> {
    let mut occupied = vec![false; count];
    for (at, _) in series.iter().flat_map(|one| one.column.iter()) {
        occupied[at] = true;
    }
    occupied
}

/// `and`, `or` and `unless`.
pub(crate) fn set(
    operator: SetOperator,
    matching: &Matching,
    left: Vec<Series>,
    right: Vec<Series>,
    count: usize,
) -> Result<Vec<Series>, QueryError> {
    let presence = |series: &[Series]| {
        let mut present: HashMap<Labels, Vec<bool>> = HashMap::new();
        for one in series {
            let times = present.entry(matching.signature(&one.labels)).or_insert_with(|| vec![false; count]);
            for (at, _) in one.column.iter() {
                times[at] = true;
            }
        }
        present
    };
    // What stays of a side, given where the other side has something.
    let filtered = |series: Vec<Series>, others: &HashMap<Labels, Vec<bool>>, wanted: bool| {
        let kept = series.into_iter().filter_map(|mut one| {
            let times = others.get(&matching.signature(&one.labels));
            for (at, value) in one.column.0.iter_mut().enumerate() {
                if times.is_some_and(|times| times[at]) != wanted {
                    *value = ABSENT;
                }
            }
            (!one.column.is_empty()).then_some(one)
        });
        kept.collect::<Vec<_>>()
    };
    Ok(match operator {
        SetOperator::And => filtered(left, &presence(&right), true),
        SetOperator::Unless => filtered(left, &presence(&right), false),
        SetOperator::Or => {
            let present = presence(&left);
            let mut out = left;
            out.extend(filtered(right, &present, false));
            merge_same(out)?
        }
    })
}
