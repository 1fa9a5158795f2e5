//! Numbers as texts, as Prometheus writes them.

use std::{fmt::Write, ops::Range};

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

/// Appends a number as answers have it: very large and very small ones with an exponent.
pub fn write_value(out: &mut String, value: f64) {
    let size = value.abs();
    if size < WHOLE_MAX && value.fract() == 0.0 && (value != 0.0 || value.is_sign_positive()) {
        // Many values are whole numbers, and those are quickly written.
        write_whole(out, value as i64);
    } else if QUICK.contains(&size) {
        out.push_str(zmij::Buffer::new().format_finite(value));
    } else if (1e-6..1e21).contains(&size) {
        let _ = write!(out, "{value}");
    } else if !value.is_finite() || size == 0.0 {
        out.push_str(&number_text(value));
    } else {
        out.push_str(&with_exponent(value));
    }
}

/// Appends a whole number.
pub fn write_whole(out: &mut String, number: i64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Between these the quick way of writing a number with a fraction writes no exponent, and as many digits as the other. In the
/// middle between two last digits it takes the even one, as Go does.
const QUICK: Range<f64> = 1e-4..1e15;

/// Up to here every whole double is itself as an integer, digit by digit.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

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

    fn value_text(value: f64) -> String {
        let mut text = String::new();
        write_value(&mut text, value);
        text
    }

    #[test]
    fn numbers_are_written_as_prometheus_writes_them() {
        for (number, label, value) in [
            (0.0, "0", "0"),
            (-12.0, "-12", "-12"),
            (9_007_199_254_740_993.0, "9007199254740992", "9007199254740992"),
            (0.1, "0.1", "0.1"),
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

    #[test]
    fn quick_ways_of_writing_give_what_the_others_do() {
        // Digits of all lengths and sizes, from a plain generator.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let decimals = f64::from((state >> 40) as u32) / [10.0, 100.0, 1000.0, 86_400.0][round % 4];
            let bits = f64::from_bits(state >> 12 | (1003 + state % 80) << 52);
            for value in [decimals, -decimals, bits, -bits, bits.trunc()] {
                let plain = if value == 0.0 { "0".to_owned() } else { value.to_string() };
                if (1e-6..1e21).contains(&value.abs()) {
                    let text = value_text(value);
                    let back = text.parse::<f64>().map(f64::to_bits);
                    assert_eq!((text.len(), back), (plain.len(), Ok((value + 0.0).to_bits())), "{text} {plain}");
                }
            }
        }
        for value in [QUICK.start, QUICK.end, QUICK.end - 0.125, 0.1, 9_007_199_254_740_991.0, -9_007_199_254_740_991.0]
        {
            assert_eq!(value_text(value), value.to_string());
        }
    }
}
