//! Currencies by ISO 4217: which codes there are, and the smallest coin of each.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use iso_currency::Currency;

/// Currency where no rule says one.
pub const CURRENCY_DEFAULT: &str = "USD";
/// Digits after the point where the standard says none (gold, bonds), and of codes that it does not have.
const PLACES_DEFAULT: i64 = 2;

/// Sums by ISO 4217 code: costs of different currencies are never added.
pub type Totals = BTreeMap<String, BigDecimal>;

/// Whether the standard has, or had, a code.
pub fn is_currency(code: &str) -> bool {
    code.bytes().all(|byte| byte.is_ascii_uppercase()) && Currency::from_code(code).is_some()
}

/// Digits after the point of the smallest coin.
pub fn coin_places(code: &str) -> i64 {
    Currency::from_code(code).and_then(Currency::exponent).map_or(PLACES_DEFAULT, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_standard_are_known_and_others_are_not() {
        for (code, places) in [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CNY", 2), ("XAU", 2)] {
            assert_eq!((is_currency(code), coin_places(code)), (true, places), "{code}");
        }
        for code in ["ZZZ", "euro", "eur", "EU", "", "XYZ"] {
            assert!(!is_currency(code), "{code}");
        }
    }
}
