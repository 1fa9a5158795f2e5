//! Numbers as texts, as Prometheus writes them.

/// A number with all its digits, as labels have it.
pub fn number_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        value.to_string()
    }
}

/// A number as answers have it: very large and very small ones with an exponent.
pub fn value_text(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 || (1e-6..1e21).contains(&size) {
        return number_text(value);
    }
    with_exponent(value)
}

/// `1.5e+21`
pub(crate) fn with_exponent(value: f64) -> String {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prometheus_writes_them() {
        for (number, label, value) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (1e21, "1000000000000000000000", "1e+21"),
            (-1.5e300, &format!("-15{}", "0".repeat(299)), "-1.5e+300"),
            (2.5e-7, "0.00000025", "2.5e-07"),
            (1e-6, "0.000001", "0.000001"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            assert_eq!((number_text(number).as_str(), value_text(number).as_str()), (label, value));
        }
        assert_eq!(value_text(f64::NAN), "NaN");
    }
}
