//! Expression tree × value → matches. Where jsonpath-rw would raise an exception in the middle of a message, there is
//! simply no match here.

use std::{borrow::Cow, rc::Rc};

use serde_json::{Number, Value};

use super::{
    Datum, Found, MATCHES_MAX,
    expression::{Comparison, Expression, Operand, Operator, Test},
};

/// A place in a value, with the way that led there.
#[derive(Clone)]
struct Place<'a> {
    datum: Datum<'a>,
    step: String,
    parent: Option<Rc<Place<'a>>>,
}

/// All matches that are not null.
pub(super) fn find<'a>(expression: &Expression, root: &Datum<'a>) -> Vec<Found<'a>> {
    let root = Rc::new(Place { datum: root.clone(), step: String::new(), parent: None });
    let mut places = walk(expression, &root, &root);
    places.truncate(MATCHES_MAX);
    places
        .into_iter()
        .filter(|place| !place.datum.is_null())
        .map(|place| Found { path: place.path(), value: place.datum.to_value() })
        .collect()
}

/// Follows plain names from `root`; `None` if they do not lead to something that is not null.
pub(super) fn follow(names: &[String], root: &Datum<'_>) -> Option<Value> {
    let Some((first, rest)) = names.split_first() else {
        return (!root.is_null()).then(|| root.to_value().into_owned());
    };
    let mut datum = root.child(first)?;
    for name in rest {
        datum = datum.child(name)?;
    }
    (!datum.is_null()).then(|| datum.to_value().into_owned())
}

impl<'a> Place<'a> {
    fn path(&self) -> String {
        match &self.parent {
            None => String::new(),
            Some(parent) if self.step.is_empty() => parent.path(),
            Some(parent) => {
                let above = parent.path();
                if above.is_empty() { self.step.clone() } else { format!("{above}.{}", self.step) }
            }
        }
    }

    fn below(self: &Rc<Self>, step: String, datum: Datum<'a>) -> Rc<Self> {
        Rc::new(Self { datum, step, parent: Some(self.clone()) })
    }

    /// A computed value has no place in the message, so it has no parent either.
    fn made(value: Value) -> Rc<Self> {
        Rc::new(Self { datum: Datum::Made(value), step: String::new(), parent: None })
    }
}

fn walk<'a>(expression: &Expression, at: &Rc<Place<'a>>, root: &Rc<Place<'a>>) -> Vec<Rc<Place<'a>>> {
    match expression {
        Expression::Root => vec![root.clone()],
        Expression::This => vec![at.clone()],
        Expression::Parent => at.parent.iter().cloned().collect(),
        Expression::Fields(names) => {
            names.iter().filter_map(|name| Some(at.below(name.clone(), at.datum.child(name)?))).collect()
        }
        Expression::AnyField => {
            let entries = at.datum.entries().unwrap_or_default();
            entries.into_iter().map(|(name, datum)| at.below(name, datum)).collect()
        }
        Expression::Index(index) => index_of(at, *index).into_iter().collect(),
        Expression::Slice(first, last) => slice(at, *first, *last),
        Expression::Filter(comparisons) => elements(at)
            .into_iter()
            .filter(|element| comparisons.iter().all(|comparison| holds(comparison, element)))
            .collect(),
        Expression::Child(left, right) => {
            let mut found = Vec::new();
            for place in walk(left, at, root) {
                found.extend(walk(right, &place, root));
                if found.len() >= MATCHES_MAX {
                    break;
                }
            }
            found
        }
        Expression::Descendant(left, right) => {
            let mut found = Vec::new();
            for place in walk(left, at, root) {
                descend(right, &place, root, &mut found);
            }
            found
        }
        Expression::Where(left, right) => {
            walk(left, at, root).into_iter().filter(|place| !walk(right, place, root).is_empty()).collect()
        }
        Expression::Union(left, right) => {
            let mut found = walk(left, at, root);
            found.extend(walk(right, at, root));
            found
        }
        Expression::Arithmetic(operator, left, right) => arithmetic(*operator, left, right, at, root),
        Expression::Length => length(&at.datum.to_value()).map(|n| Place::made(n.into())).into_iter().collect(),
        Expression::Sorted => sorted(at.datum.to_value()).map(Place::made).into_iter().collect(),
        Expression::Split { separator, segment, splits_max } => {
            split(&at.datum.to_value(), separator, *segment, *splits_max).map(Place::made).into_iter().collect()
        }
        Expression::Substitute { pattern, replacement } => match at.datum.to_value().as_ref() {
            Value::String(text) => match pattern.replace_all(text, replacement.as_str()) {
                // Nothing to replace is no match, as in jsonpath-rw-ext.
                changed if changed == *text => Vec::new(),
                changed => vec![Place::made(Value::String(changed.into_owned()))],
            },
            _ => Vec::new(),
        },
    }
}

fn elements<'a>(at: &Rc<Place<'a>>) -> Vec<Rc<Place<'a>>> {
    let elements = at.datum.elements().unwrap_or_default();
    elements.into_iter().enumerate().map(|(index, datum)| at.below(format!("[{index}]"), datum)).collect()
}

/// Python's `list[index]`: negative counts from the end.
fn index_of<'a>(at: &Rc<Place<'a>>, index: i64) -> Option<Rc<Place<'a>>> {
    let elements = elements(at);
    let length = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let index = if index < 0 { index + length } else { index };
    elements.into_iter().nth(usize::try_from(index).ok()?)
}

/// Python's `list[first:last]`; what is not a list counts as a list of itself, as in jsonpath-rw.
fn slice<'a>(at: &Rc<Place<'a>>, first: Option<i64>, last: Option<i64>) -> Vec<Rc<Place<'a>>> {
    let elements = if at.datum.elements().is_some() { elements(at) } else { vec![at.clone()] };
    let length = elements.len();
    let bound = |index: i64| match usize::try_from(index) {
        Ok(index) => index.min(length),
        Err(_) => length.saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let first = first.map_or(0, bound);
    let last = last.map_or(length, bound);
    elements.into_iter().take(last).skip(first).collect()
}

fn descend<'a>(right: &Expression, at: &Rc<Place<'a>>, root: &Rc<Place<'a>>, found: &mut Vec<Rc<Place<'a>>>) {
    if found.len() >= MATCHES_MAX {
        return;
    }
    found.extend(walk(right, at, root));
    for element in elements(at) {
        descend(right, &element, root, found);
    }
    for (name, datum) in at.datum.entries().unwrap_or_default() {
        descend(right, &at.below(name, datum), root, found);
    }
}

fn holds(comparison: &Comparison, element: &Rc<Place<'_>>) -> bool {
    let targets = walk(&comparison.target, element, element);
    let Some(test) = &comparison.test else { return !targets.is_empty() };
    targets.iter().any(|target| passes(test, &target.datum.to_value()))
}

fn passes(test: &Test, value: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let is = |constant: &Value, orders: &[std::cmp::Ordering]| {
        compare(value, constant).is_some_and(|order| orders.contains(&order))
    };
    match test {
        Test::Equal(constant) => is(constant, &[Equal]),
        Test::NotEqual(constant) => !is(constant, &[Equal]),
        Test::Less(constant) => is(constant, &[Less]),
        Test::LessOrEqual(constant) => is(constant, &[Less, Equal]),
        Test::Greater(constant) => is(constant, &[Greater]),
        Test::GreaterOrEqual(constant) => is(constant, &[Greater, Equal]),
        Test::Matches(pattern) => value.as_str().is_some_and(|text| pattern.is_match(text)),
    }
}

/// The order of a found value and the filter's constant; the value is read as the constant's type.
fn compare(value: &Value, constant: &Value) -> Option<std::cmp::Ordering> {
    match constant {
        Value::Number(constant) => {
            let value = match value {
                Value::String(text) => text.trim().parse().ok()?,
                other => other.as_f64()?,
            };
            value.partial_cmp(&constant.as_f64()?)
        }
        Value::Bool(constant) => Some(is_true(value).cmp(constant)),
        Value::String(constant) => value.as_str().map(|text| text.cmp(constant.as_str())),
        _ => None,
    }
}

/// Python's `bool()`.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn arithmetic<'a>(
    operator: Operator,
    left: &Operand,
    right: &Operand,
    at: &Rc<Place<'a>>,
    root: &Rc<Place<'a>>,
) -> Vec<Rc<Place<'a>>> {
    let values = |operand: &Operand| -> Vec<Value> {
        match operand {
            Operand::Literal(value) => vec![value.clone()],
            Operand::Path(path) => {
                walk(path, at, root).iter().map(|place| place.datum.to_value().into_owned()).collect()
            }
        }
    };
    let (lefts, rights) = (values(left), values(right));
    let pairs: Vec<(&Value, &Value)> = match (left, right) {
        (Operand::Literal(one), _) => rights.iter().map(|right| (one, right)).collect(),
        (_, Operand::Literal(one)) => lefts.iter().map(|left| (left, one)).collect(),
        // Element by element; lists of different length do not belong together.
        _ if lefts.len() == rights.len() => lefts.iter().zip(&rights).collect(),
        _ => Vec::new(),
    };
    // One pair that cannot be computed spoils the whole operation, as in jsonpath-rw-ext.
    let results: Option<Vec<Value>> = pairs.into_iter().map(|(left, right)| compute(operator, left, right)).collect();
    results.unwrap_or_default().into_iter().map(Place::made).collect()
}

fn compute(operator: Operator, left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::String(left), Value::String(right)) if operator == Operator::Add => {
            Some(Value::String(format!("{left}{right}")))
        }
        (Value::Number(left), Value::Number(right)) => compute_numbers(operator, left, right),
        _ => None,
    }
}

/// Whole numbers stay whole as long as they fit, except in a division, as in Python.
fn compute_numbers(operator: Operator, left: &Number, right: &Number) -> Option<Value> {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let exact = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => None,
        };
        if let Some(exact) = exact {
            return Some(exact.into());
        }
    }
    let (left, right) = (left.as_f64()?, right.as_f64()?);
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
    };
    // A division by zero has no value.
    Number::from_f64(result).map(Value::Number)
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(list) => Some(list.len()),
        Value::Object(map) => Some(map.len()),
        _ => None,
    }
}

fn sorted(value: Cow<'_, Value>) -> Option<Value> {
    let Value::Array(mut list) = value.into_owned() else { return None };
    if list.iter().all(Value::is_number) {
        list.sort_by(|a, b| a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal));
    } else if list.iter().all(Value::is_string) {
        list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    } else {
        return None;
    }
    Some(Value::Array(list))
}

fn split(value: &Value, separator: &str, segment: usize, splits_max: Option<usize>) -> Option<Value> {
    let text = value.as_str()?;
    let part = match splits_max {
        Some(splits) => text.splitn(splits.saturating_add(1), separator).nth(segment),
        None => text.split(separator).nth(segment),
    };
    part.map(Value::from)
}
