//! Functions of values, series and labels, and the list of all that are known.

use std::{collections::HashMap, f64::consts::LN_2};

use regex::Regex;

use crate::{
    Labels, Series, calendar,
    column::Column,
    error::QueryError,
    labels::NAME,
    matching::{self, merge_same},
    range,
};

/// Functions that the evaluation treats on its own.
const OTHERS: &[&str] = &[
    "absent",
    "absent_over_time",
    "clamp",
    "clamp_max",
    "clamp_min",
    "end",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantile",
    "histogram_quantiles",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "info",
    "label_join",
    "label_replace",
    "pi",
    "range",
    "round",
    "scalar",
    "sort",
    "sort_by_label",
    "sort_by_label_desc",
    "sort_desc",
    "start",
    "step",
    "time",
    "timestamp",
    "vector",
];

/// Whether it can be evaluated here.
pub(crate) fn is_known(name: &str) -> bool {
    OTHERS.contains(&name) || number(name).is_some() || calendar::of(name).is_some() || range::over_time(name).is_some()
}

/// Functions of one number.
pub(crate) fn number(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => |value| if value > LARGE { value.ln() + LN_2 } else { value.acosh() },
        "asin" => f64::asin,
        "asinh" => |value| if value.abs() > LARGE { (value.abs().ln() + LN_2).copysign(value) } else { value.asinh() },
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => |value| if value.abs() > FAR_OUT { value.abs().exp() * 0.5 } else { value.cosh() },
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        // Not `signum`, which knows no zero.
        "sgn" => |value| {
            if value > 0.0 {
                1.0
            } else if value < 0.0 {
                -1.0
            } else {
                value
            }
        },
        "sin" => f64::sin,
        "sinh" => |value| if value.abs() > FAR_OUT { (value.abs().exp() * 0.5).copysign(value) } else { value.sinh() },
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

/// Rounds to the nearest multiple; halves go up.
pub(crate) fn round(value: f64, to_nearest: f64) -> f64 {
    // By the inverse, so that 0.1 behaves as its decimal suggests.
    let inverse = 1.0 / to_nearest;
    (value * inverse + 0.5).floor() / inverse
}

/// Maps each series' values and drops the metric's name.
pub(crate) fn map(series: Vec<Series>, mut change: impl FnMut(usize, f64) -> f64) -> Result<Vec<Series>, QueryError> {
    let mapped = series.into_iter().map(|mut one| {
        for (at, value) in one.column.0.iter_mut().enumerate() {
            if crate::column::is_present(*value) {
                *value = change(at, *value);
            }
        }
        Series { labels: one.labels.without_name(), column: one.column }
    });
    merge_same(mapped.collect())
}

/// `label_replace`
pub(crate) fn label_replace(series: Vec<Series>, texts: &[String]) -> Result<Vec<Series>, QueryError> {
    let [to, replacement, from, pattern] = texts else {
        return Err(QueryError::execution("label_replace needs four texts"));
    };
    check_name(to, "label_replace")?;
    // A text without signs of an expression matches itself, and needs none to be made.
    let is_text =
        |text: &str| !text.contains(|c: char| c.is_ascii_punctuation() && !matches!(c, '_' | '-' | ':' | '/'));
    if is_text(pattern) && !replacement.contains('$') {
        let is_it = |one: &Series| one.labels.get(from) == pattern;
        let replaced = series.into_iter().map(|one| match is_it(&one) {
            true => Series { labels: one.labels.with(to, replacement), column: one.column },
            false => one,
        });
        return matching::each_once(replaced.collect());
    }
    let regex = Regex::new(&format!("^(?s:{pattern})$"))
        .map_err(|_| QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    // Go's templates allow $1x for ${1}x only with braces; this crate's replacement has the same rule.
    let replaced = series.into_iter().map(|one| {
        let labels = match regex.captures(one.labels.get(from)) {
            None => one.labels,
            Some(captures) => {
                let mut value = String::new();
                captures.expand(replacement, &mut value);
                one.labels.with(to, &value)
            }
        };
        Series { labels, column: one.column }
    });
    matching::each_once(replaced.collect())
}

/// `label_join`
pub(crate) fn label_join(series: Vec<Series>, texts: &[String]) -> Result<Vec<Series>, QueryError> {
    let [to, separator, from @ ..] = texts else {
        return Err(QueryError::execution("label_join needs a label and a separator"));
    };
    check_name(to, "label_join")?;
    let joined = series.into_iter().map(|one| {
        let values: Vec<&str> = from.iter().map(|name| one.labels.get(name)).collect();
        Series { labels: one.labels.with(to, &values.join(separator)), column: one.column }
    });
    matching::each_once(joined.collect())
}

fn check_name(name: &str, function: &str) -> Result<(), QueryError> {
    // Prometheus 3 takes any text that is not empty.
    match name.is_empty() {
        true => Err(QueryError::execution(format!("invalid destination label name in {function}(): {name}"))),
        false => Ok(()),
    }
}

/// Beyond this the square under the root of an inverse hyperbolic function is all of it, and overflows at last.
const LARGE: f64 = 268_435_456.0;
/// Beyond this the smaller exponential of a hyperbolic function is less than the last digit of the other; taking half of the
/// other overflows where Prometheus' does.
const FAR_OUT: f64 = 21.0;

/// `absent` and `absent_over_time`: one where no series has a value, with the labels that the selector demands.
pub(crate) fn absent(columns: &[Column], labels: Labels, count: usize) -> Vec<Series> {
    let mut column = Column(vec![1.0; count]);
    for one in columns {
        for (at, _) in one.iter() {
            column.0[at] = crate::column::ABSENT;
        }
    }
    match column.is_empty() {
        true => Vec::new(),
        false => vec![Series { labels, column }],
    }
}

/// Labels that equality matchers demand: of several matchers of a label the last says, unless equality came before.
pub(crate) fn demanded(groups: &[crate::MatcherGroup]) -> Labels {
    let [group] = groups else { return Labels::default() };
    let mut demanded: HashMap<&str, Option<&str>> = HashMap::new();
    // Prometheus puts the matchers that take series away behind the others before it looks for labels.
    let is_last = |matcher: &&crate::Matcher| match &matcher.operator {
        crate::Operator::NotEqual => !matcher.value.is_empty(),
        crate::Operator::MatchesNot(regex) => !regex.is_match(""),
        _ => false,
    };
    let (last, first): (Vec<_>, Vec<_>) = group.iter().filter(|matcher| matcher.name != NAME).partition(is_last);
    for matcher in first.into_iter().chain(last) {
        let is_equal = matches!(matcher.operator, crate::Operator::Equal);
        match demanded.get_mut(matcher.name.as_str()) {
            Some(value) => *value = None,
            None if is_equal => drop(demanded.insert(&matcher.name, Some(&matcher.value))),
            None => {}
        }
    }
    Labels::new(demanded.into_iter().filter_map(|(name, value)| Some((name, value?))))
}
