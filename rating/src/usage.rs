//! What was used: a quantity of a service, with what is known of the resource.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use serde_json::Value;

use crate::decimal::{DecimalError, decimal};

/// Something used over a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// What kind: the name that rules go by, such as `instance`.
    pub service: String,
    /// How much.
    pub quantity: BigDecimal,
    /// What rules of fields look at: flavor, volume type, project ...
    pub description: BTreeMap<String, Value>,
}

/// A usage that cannot be priced as the rules want it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UsageError {
    /// Thresholds compare numbers.
    #[error("service `{service}`, field `{field}` has thresholds, and {source}")]
    NoNumber {
        /// The service.
        service: String,
        /// The field.
        field: String,
        /// Its value.
        source: DecimalError,
    },
}

/// A value as Python's `str` writes it: so mappings compare.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => float_text(number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

/// Python writes floats as short as they can be read back, with an exponent from 1e16 and below 1e-4.
fn float_text(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// A value as Python's `Decimal` takes it: so thresholds compare. A float is the binary fraction that it is.
pub(crate) fn number_of(value: &Value) -> Result<BigDecimal, DecimalError> {
    match value {
        Value::Bool(value) => Ok(BigDecimal::from(u8::from(*value))),
        Value::String(text) => decimal(text),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => exact(float),
            None => decimal(&number.to_string()),
        },
        other => Err(DecimalError { text: text_of(other).chars().take(40).collect(), reason: "digits are expected" }),
    }
}

/// The binary fraction that a float is, with all its digits.
pub(crate) fn exact(float: f64) -> Result<BigDecimal, DecimalError> {
    BigDecimal::try_from(float).map_err(|_| DecimalError { text: float.to_string(), reason: "it is not finite" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (value, text) in [
            (json!("m1.tiny"), "m1.tiny"),
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(8), "8"),
            (json!(1.0), "1.0"),
            (json!(0.1), "0.1"),
            (json!(1e16), "1e+16"),
            (json!(1.5e-7), "1.5e-07"),
            (json!(0.0001), "0.0001"),
            (json!(-2.5e300), "-2.5e+300"),
        ] {
            assert_eq!(text_of(&value), text);
        }
    }

    #[test]
    fn numbers_are_taken_as_python_takes_them() {
        let tenth = number_of(&json!(0.1)).expect("a number");
        assert_eq!(tenth, decimal("0.1000000000000000055511151231257827021181583404541015625").expect("a number"));
        assert_eq!(number_of(&json!("0.1")), decimal("0.1"));
        assert_eq!(number_of(&json!(true)), decimal("1"));
        assert!(
            number_of(&json!("m1.tiny")).is_err() && number_of(&json!(null)).is_err() && number_of(&json!([])).is_err()
        );
    }
}
