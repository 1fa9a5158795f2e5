//! The language of dynamic aggregates: JSON lists or s-expressions → a tree. Pure.
//!
//! `["aggregate", "mean", ["metric", "cpu", "mean"]]` or `(aggregate mean (metric cpu mean))`.

mod grid;
mod text;

use orzo_index::spans::parse_timespan;
use serde_json::{Value, json};

use crate::{
    QueryError,
    method::{Method, Reaggregation},
    width::Width,
};

pub(crate) use grid::{Column, Grid, evaluate};

/// Deepest nesting; hand-written operations have four or five levels, and the walk is recursive.
const DEPTH_MAX: usize = 32;
/// Operations in one tree at most.
const NODES_MAX: usize = 2000;

/// A metric by UUID, or by a wildcard over names, with an aggregation method.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// UUID, or a name with wildcards if there is a search.
    pub name: String,
    /// Aggregation method within the metric.
    pub aggregation: String,
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `%`: the sign of the divisor, as numpy.
    Modulo,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `**`
    Power,
    /// `max`: the larger one; where one is missing, the other.
    Maximum,
    /// `clip_min`: not below the second; missing where either is.
    NotBelow,
    /// `clip_max`: not above the second; missing where either is.
    NotAbove,
}

/// An operation on one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// Without its sign.
    Absolute,
    /// With the other sign.
    Negative,
    /// Cosine.
    Cosine,
    /// Sine.
    Sine,
    /// Tangent.
    Tangent,
    /// Rounded down.
    Floor,
    /// Rounded up.
    Ceiling,
}

/// A tree of operations.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A number.
    Number(f64),
    /// Series of metrics.
    Metric(Vec<Reference>),
    /// One series of several.
    Aggregate(Reaggregation, Box<Operation>),
    /// Over a window of so many buckets.
    Rolling(Reaggregation, usize, Box<Operation>),
    /// Into wider buckets, aggregated as within a metric.
    Resample(Method, Width, Box<Operation>),
    /// The series of several operations side by side (Gnocchi takes one; its documentation, and Aodh, know several).
    Several(Vec<Operation>),
    /// Of two.
    Binary(Binary, Box<Operation>, Box<Operation>),
    /// Of one.
    Unary(Unary, Box<Operation>),
    /// Difference to the bucket before, per second or not.
    RateOfChange {
        /// Divided by the seconds between them.
        per_second: bool,
        /// Of what.
        of: Box<Operation>,
    },
    /// Not below the first, not above the second.
    Clip(Box<Operation>, Box<Operation>, Option<Box<Operation>>),
}

impl Binary {
    /// Reads an operator: `+`, `add`, `≥` and so on.
    pub fn parse(name: &str) -> Option<Self> {
        binary(name)
    }

    /// The result; of a comparison 1 or 0.
    pub fn apply(self, left: f64, right: f64) -> f64 {
        grid::apply(self, left, right)
    }
}

impl Operation {
    /// Reads the JSON form, or the s-expression if it is a text.
    pub fn parse(json: &Value) -> Result<Self, QueryError> {
        let list;
        let json = match json {
            Value::String(text) => {
                list = text::parse(text, DEPTH_MAX)?;
                &list
            }
            json => json,
        };
        let mut nodes = 0;
        let operation = parse(json, 0, &mut nodes)?;
        if operation.references().is_empty() {
            return Err(QueryError::invalid(
                "Operations is invalid",
                "At least one 'metric' is required",
                json.clone(),
            ));
        }
        Ok(operation)
    }

    /// Metrics that it names, each once, in the order of their appearance.
    pub fn references(&self) -> Vec<&Reference> {
        let mut found = Vec::new();
        self.collect(&mut found);
        let mut seen = std::collections::HashSet::new();
        found.retain(|reference| seen.insert(*reference));
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a Reference>) {
        match self {
            Self::Number(_) => {}
            Self::Metric(references) => found.extend(references),
            Self::Several(operations) => operations.iter().for_each(|operation| operation.collect(found)),
            Self::Aggregate(_, of)
            | Self::Rolling(_, _, of)
            | Self::Resample(_, _, of)
            | Self::Unary(_, of)
            | Self::RateOfChange { of, .. } => of.collect(found),
            Self::Binary(_, left, right) => {
                left.collect(found);
                right.collect(found);
            }
            Self::Clip(of, low, high) => {
                of.collect(found);
                low.collect(found);
                if let Some(high) = high {
                    high.collect(found);
                }
            }
        }
    }
}

fn invalid(reason: impl std::fmt::Display) -> QueryError {
    let reason = format!("{reason} for dictionary value @ data['operations']");
    QueryError::invalid("Invalid input", reason, json!(["operations"]))
}

fn parse(json: &Value, depth: usize, nodes: &mut usize) -> Result<Operation, QueryError> {
    *nodes += 1;
    if depth > DEPTH_MAX || *nodes > NODES_MAX {
        return Err(invalid(format!("Operations may have {DEPTH_MAX} levels and {NODES_MAX} parts at most")));
    }
    let list = json.as_array().ok_or_else(|| invalid(format!("Expected a tuple/list, got a {}", python_type(json))))?;
    let (name, arguments) = match list.split_first() {
        None => return Err(invalid("Operation must not be empty")),
        Some((name, arguments)) => (name, arguments),
    };
    let shown = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
    let unknown = || invalid(format!("'{shown}' operation invalid"));
    if arguments.is_empty() {
        return Err(invalid("Operation need at least one argument"));
    }
    let name = name.as_str().ok_or_else(unknown)?;
    let mut operand = |json: &Value| match number_of(json) {
        Some(number) => Ok(Operation::Number(number)),
        None => parse(json, depth + 1, nodes),
    };
    let boxed = |operation: Result<Operation, QueryError>| operation.map(Box::new);
    if let Some(binary) = binary(name) {
        let [left, right] = arguments else { return Err(unknown()) };
        return Ok(Operation::Binary(binary, boxed(operand(left))?, boxed(operand(right))?));
    }
    if let Some(unary) = unary(name) {
        let [of] = arguments else { return Err(unknown()) };
        return Ok(Operation::Unary(unary, boxed(operand(of))?));
    }
    match (name, arguments) {
        ("metric", references) => metric(references),
        ("aggregate", [method, of]) => {
            let method = reaggregation(method).ok_or_else(unknown)?;
            Ok(Operation::Aggregate(method, boxed(operand(of))?))
        }
        ("aggregate", [method, of @ ..]) if of.len() > 1 => {
            let operands = of.iter().map(operand).collect::<Result<_, _>>()?;
            let method = reaggregation(method).ok_or_else(unknown)?;
            Ok(Operation::Aggregate(method, Box::new(Operation::Several(operands))))
        }
        ("rolling", [method, window, of]) => {
            let method = reaggregation(method).ok_or_else(unknown)?;
            let window =
                number_of(window).filter(|n| n.fract() == 0.0 && (1.0..=1e9).contains(n)).ok_or_else(unknown)?;
            Ok(Operation::Rolling(method, window as usize, boxed(operand(of))?))
        }
        ("resample", [method, width, of]) => {
            let method = reaggregation(method).ok_or_else(unknown)?.within_buckets();
            let width = parse_timespan(width).map_err(|_| unknown())?;
            Ok(Operation::Resample(method, Width::Span(width), boxed(operand(of))?))
        }
        ("rateofchange", [of]) => Ok(Operation::RateOfChange { per_second: false, of: boxed(operand(of))? }),
        ("rateofchangesec", [of]) => Ok(Operation::RateOfChange { per_second: true, of: boxed(operand(of))? }),
        ("clip", [of, low]) => Ok(Operation::Clip(boxed(operand(of))?, boxed(operand(low))?, None)),
        ("clip", [of, low, high]) => {
            Ok(Operation::Clip(boxed(operand(of))?, boxed(operand(low))?, Some(boxed(operand(high))?)))
        }
        _ => Err(unknown()),
    }
}

fn metric(references: &[Value]) -> Result<Operation, QueryError> {
    let wrong = || invalid("'metric' operation invalid");
    let reference = |name: &Value, aggregation: &Value| -> Result<Reference, QueryError> {
        // A name in an s-expression may look like a number.
        let name =
            name.as_str().map(str::to_owned).or_else(|| name.as_f64().map(|n| n.to_string())).ok_or_else(wrong)?;
        Ok(Reference { name, aggregation: aggregation.as_str().ok_or_else(wrong)?.to_owned() })
    };
    if references.iter().all(Value::is_array) {
        let each = references.iter().map(|pair| match pair.as_array().map(Vec::as_slice) {
            Some([name, aggregation]) => reference(name, aggregation),
            _ => Err(wrong()),
        });
        return Ok(Operation::Metric(each.collect::<Result<_, _>>()?));
    }
    match references {
        [name, aggregation] => Ok(Operation::Metric(vec![reference(name, aggregation)?])),
        _ => Err(wrong()),
    }
}

fn reaggregation(method: &Value) -> Option<Reaggregation> {
    method.as_str().and_then(Reaggregation::parse)
}

/// A number, also one that is written as a text.
fn number_of(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn binary(name: &str) -> Option<Binary> {
    Some(match name {
        "=" | "==" | "eq" => Binary::Equal,
        "!=" | "≠" | "ne" => Binary::NotEqual,
        "<" | "lt" => Binary::Less,
        "<=" | "≤" | "le" => Binary::LessOrEqual,
        ">" | "gt" => Binary::Greater,
        ">=" | "≥" | "ge" => Binary::GreaterOrEqual,
        "%" | "mod" => Binary::Modulo,
        "+" | "add" => Binary::Add,
        "-" | "sub" => Binary::Subtract,
        "*" | "×" | "mul" => Binary::Multiply,
        "/" | "÷" | "div" => Binary::Divide,
        "**" | "^" | "pow" => Binary::Power,
        "max" => Binary::Maximum,
        "clip_min" => Binary::NotBelow,
        "clip_max" => Binary::NotAbove,
        _ => return None,
    })
}

fn unary(name: &str) -> Option<Unary> {
    Some(match name {
        "abs" | "absolute" => Unary::Absolute,
        "neg" | "negative" => Unary::Negative,
        "cos" => Unary::Cosine,
        "sin" => Unary::Sine,
        "tan" => Unary::Tangent,
        "floor" => Unary::Floor,
        "ceil" => Unary::Ceiling,
        _ => return None,
    })
}

fn python_type(json: &Value) -> &'static str {
    match json {
        Value::Null => "<class 'NoneType'>",
        Value::Bool(_) => "<class 'bool'>",
        Value::Number(number) if number.is_f64() => "<class 'float'>",
        Value::Number(_) => "<class 'int'>",
        Value::String(_) => "<class 'str'>",
        Value::Array(_) => "<class 'list'>",
        Value::Object(_) => "<class 'dict'>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        for (text, json) in [
            ("(metric cpu mean)", json!(["metric", "cpu", "mean"])),
            ("(metric (a mean) (b max))", json!(["metric", ["a", "mean"], ["b", "max"]])),
            ("(aggregate rate:mean (metric cpu* mean))", json!(["aggregate", "rate:mean", ["metric", "cpu*", "mean"]])),
            ("(* 100 (metric \"a b\" 'mean'))", json!(["*", 100, ["metric", "a b", "mean"]])),
            (
                "(resample mean 3600 (metric disk.io last))",
                json!(["resample", "mean", 3600, ["metric", "disk.io", "last"]]),
            ),
            ("(- (metric a mean) -1.5)", json!(["-", ["metric", "a", "mean"], -1.5])),
            ("(abs (metric a mean)))) x", json!(["abs", ["metric", "a", "mean"]])),
            ("(clip (metric a mean) 0 10)", json!(["clip", ["metric", "a", "mean"], 0, 10])),
            (
                "(rolling max 3 (rateofchangesec (metric a mean)))",
                json!(["rolling", "max", 3, ["rateofchangesec", ["metric", "a", "mean"]]]),
            ),
        ] {
            let from_text = Operation::parse(&json!(text)).expect(text);
            assert_eq!(from_text, Operation::parse(&json).expect(text), "{text}");
        }
    }

    #[test]
    fn refuses_with_gnocchis_words() {
        for (json, words) in [
            (json!([]), "Operation must not be empty for dictionary value @ data['operations']"),
            (json!({}), "Expected a tuple/list, got a <class 'dict'>"),
            (json!(["metric"]), "Operation need at least one argument"),
            (json!(["bogus", ["metric", "a", "mean"]]), "'bogus' operation invalid"),
            (json!(["+", 1, 2]), "At least one 'metric' is required"),
            (json!(["aggregate", "wtf", ["metric", "a", "mean"]]), "'aggregate' operation invalid"),
            (json!(["aggregate", "mean"]), "'aggregate' operation invalid"),
            (json!(["rolling", "mean", 0, ["metric", "a", "mean"]]), "'rolling' operation invalid"),
            (json!(["resample", "mean", "x", ["metric", "a", "mean"]]), "'resample' operation invalid"),
        ] {
            let text = Operation::parse(&json).expect_err(words).to_string();
            assert!(text.contains(words), "{text}");
        }
        let mut deep = json!(["metric", "a", "mean"]);
        for _ in 0..=DEPTH_MAX {
            deep = json!(["abs", deep]);
        }
        assert!(Operation::parse(&deep).is_err());
        assert!(Operation::parse(&json!("(".repeat(100_000))).is_err());
    }
}
