//! Decimals as CloudKitty counts with them: Python's default context, 28 significant digits, halves to the even digit.
//! A number that is only read or compared keeps all its digits; each operation rounds its result.

use std::{num::NonZeroU64, str::FromStr};

use bigdecimal::{BigDecimal, RoundingMode};

/// Significant digits of a result.
const DIGITS: NonZeroU64 = NonZeroU64::MIN.saturating_add(27);
/// Longest number that is read: far beyond any price or quantity, far below what costs time.
const TEXT_BYTES_MAX: usize = 400;
/// Largest exponent of a number that is read; adding 1e9 to 1e-9 is fine, a number with a million zeros is not.
const EXPONENT_MAX: i64 = 400;

/// A text that is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no decimal number: {reason}")]
pub struct DecimalError {
    /// The start of the text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Reads a number such as `12`, `-0.25`, `1e3`, as Python's `Decimal` reads it, but for `NaN` and `Infinity`, which have
/// no price.
pub fn decimal(text: &str) -> Result<BigDecimal, DecimalError> {
    let wrong = |reason| DecimalError { text: text.chars().take(40).collect(), reason };
    let bare = text.trim();
    if bare.len() > TEXT_BYTES_MAX {
        return Err(wrong("it is too long"));
    }
    let is_digit = |c: char| c.is_ascii_digit();
    let allowed = |c: char| is_digit(c) || matches!(c, '+' | '-' | '.' | 'e' | 'E' | '_');
    if !bare.chars().all(allowed) || !bare.contains(is_digit) {
        return Err(wrong("digits are expected"));
    }
    let bare = bare.replace('_', "");
    if let Some((_, exponent)) = bare.split_once(['e', 'E']) {
        let exponent: i64 = exponent.parse().map_err(|_| wrong("its exponent is wrong"))?;
        if exponent.abs() > EXPONENT_MAX {
            return Err(wrong("its exponent is too large"));
        }
    }
    BigDecimal::from_str(&bare).map_err(|_| wrong("digits are expected"))
}

fn rounded(number: BigDecimal) -> BigDecimal {
    // The count of digits is cheap, rounding is not.
    if number.digits() <= DIGITS.get() { number } else { number.with_precision_round(DIGITS, RoundingMode::HalfEven) }
}

/// The sum.
pub(crate) fn add(a: &BigDecimal, b: &BigDecimal) -> BigDecimal {
    rounded(a + b)
}

/// The product.
pub(crate) fn multiply(a: &BigDecimal, b: &BigDecimal) -> BigDecimal {
    rounded(a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_28_digits_and_halves_go_to_the_even_one() {
        let number = |text: &str| decimal(text).expect("a number");
        let third = number("0.3333333333333333333333333333");
        assert_eq!(multiply(&third, &number("0.5")), number("0.1666666666666666666666666666"), "...66665 to even");
        let seventh = number("1.000000000000000000000000003");
        assert_eq!(multiply(&seventh, &number("0.5")), number("0.5000000000000000000000000015"));
        assert_eq!(
            multiply(&number("10.00000000000000000000000015"), &number("0.1")),
            number("1.000000000000000000000000015")
        );
        assert_eq!(add(&number("1e27"), &number("0.5")), number("1e27"));
        assert_eq!(
            add(&number("1000000000000000000000000001"), &number("0.5")),
            number("1000000000000000000000000002")
        );
    }

    #[test]
    fn what_is_no_number_is_named() {
        for text in ["1", "-0.5", " 1e3 ", "+.5", "5.", "1_000.5", "1E-8"] {
            assert!(decimal(text).is_ok(), "{text}");
        }
        for text in
            ["", "x", "NaN", "Infinity", "1e", "e5", "1.2.3", "--1", "1e999999999", &"9".repeat(500), "0x10", "1-2"]
        {
            assert!(decimal(text).is_err(), "{text}");
        }
        assert_eq!(
            decimal("12a").expect_err("no number").to_string(),
            "`12a` is no decimal number: digits are expected"
        );
    }
}
