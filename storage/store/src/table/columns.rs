//! A double as a decimal number, where that loses nothing. Pure.
//!
//! Most of what is measured was a decimal number before it became a double: `0.1`, `98.25`, `1767225600`. As whole numbers
//! (`1`, `9825`) with a common divisor (`10`, `100`) their differences are small and pack well; as doubles they look like
//! noise. A value becomes `number / divisor` only if that division gives the same bits back, so any reader that divides
//! doubles as IEEE 754 says gets exactly what was appended. The rest (NaN, infinities, -0.0, fractions that are not
//! decimal) stays a double.

/// Divisors are powers of ten up to this one; all are exact doubles.
pub(crate) const EXPONENT_MAX: u8 = 12;
/// Numbers up to here are exact doubles.
const NUMBER_MAX: f64 = 9_007_199_254_740_992.0;

/// 10 to the power of the exponent.
pub(crate) fn divisor(exponent: u8) -> f64 {
    const POWERS: [f64; EXPONENT_MAX as usize + 1] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
    POWERS[usize::from(exponent.min(EXPONENT_MAX))]
}

/// Below this, adding and taking away [`ROUNDER`] rounds to a whole number.
const ROUNDED_MAX: f64 = 2_251_799_813_685_248.0;
/// 1.5 * 2^52: what is added to it loses its fraction. Without SSE 4.1 rounding is a call; this is two additions.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The number that gives this value when divided by `divisor`, if there is one.
#[inline]
fn number(value: f64, divisor: f64) -> Option<i64> {
    let scaled = value * divisor;
    let rounded = if scaled.abs() < ROUNDED_MAX { (scaled + ROUNDER) - ROUNDER } else { scaled.round_ties_even() };
    let number = rounded as i64;
    // A number has no sign of zero, and no NaN: `-0.0` and NaN differ in their bits from what division gives.
    let fits = rounded.abs() <= NUMBER_MAX && (number as f64 / divisor).to_bits() == value.to_bits();
    fits.then_some(number)
}

fn is_number(value: f64, exponent: u8) -> bool {
    number(value, divisor(exponent)).is_some()
}

/// What a series' values become in one run of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All are numbers over this power of ten.
    Decimal(u8),
    /// All are doubles.
    Double,
    /// Numbers over this power of ten where that is exact, doubles where not.
    Mixed(u8),
}

/// Share of values, one in this many, that may stay doubles before all do: each change between the two costs bytes.
const DOUBLES_SHARE: usize = 8;

/// So many doubles among as few numbers show what the rest will be; looking for a power of ten is dear.
const DOUBLES_MIN: usize = 32;

impl Form {
    /// As one byte of the file's index.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Decimal(exponent) => exponent,
            Self::Double => 32,
            Self::Mixed(exponent) => 64 + exponent,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0..=EXPONENT_MAX => Some(Self::Decimal(byte)),
            32 => Some(Self::Double),
            64.. if byte - 64 <= EXPONENT_MAX => Some(Self::Mixed(byte - 64)),
            _ => None,
        }
    }

    /// The exponent of its numbers; 0 where there are none.
    pub(crate) fn exponent(self) -> u8 {
        match self {
            Self::Decimal(exponent) | Self::Mixed(exponent) => exponent,
            Self::Double => 0,
        }
    }
}

/// Splits a run's values: for each a number, or `None` where the double itself is kept.
pub(crate) fn split(values: &[f64], numbers: &mut Vec<Option<i64>>) -> Form {
    let mut exponent = 0;
    'again: loop {
        let power = divisor(exponent);
        numbers.clear();
        let mut doubles = 0;
        for value in values {
            let number = number(*value, power);
            if number.is_none() {
                doubles += 1;
                if doubles >= DOUBLES_MIN && doubles * 2 > numbers.len() {
                    numbers.clear();
                    numbers.resize(values.len(), None);
                    return Form::Double;
                }
            }
            // The smallest exponent that all values agree on, as far as they are decimal.
            if number.is_none()
                && let Some(larger) = (exponent + 1..=EXPONENT_MAX).find(|larger| is_number(*value, *larger))
            {
                exponent = larger;
                continue 'again;
            }
            numbers.push(number);
        }
        break;
    }
    let doubles = numbers.iter().filter(|number| number.is_none()).count();
    if doubles == 0 {
        Form::Decimal(exponent)
    } else if doubles * DOUBLES_SHARE > values.len() {
        numbers.iter_mut().for_each(|number| *number = None);
        Form::Double
    } else {
        Form::Mixed(exponent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_values_become_the_smallest_numbers() {
        let mut numbers = Vec::new();
        assert_eq!(split(&[1.0, 2.0, -3.0], &mut numbers), Form::Decimal(0));
        assert_eq!(numbers, [Some(1), Some(2), Some(-3)]);
        assert_eq!(split(&[1.5, 0.25, 98.0], &mut numbers), Form::Decimal(2));
        assert_eq!(numbers, [Some(150), Some(25), Some(9800)]);
        assert_eq!(split(&[NUMBER_MAX, 0.0], &mut numbers), Form::Decimal(0));
    }

    #[test]
    fn what_is_not_decimal_stays_a_double() {
        let mut numbers = Vec::new();
        for value in
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1.0 / 3.0, f64::MIN_POSITIVE, 1e300, NUMBER_MAX * 2.0]
        {
            assert_eq!(split(&[value], &mut numbers), Form::Double, "{value}");
            assert_eq!(numbers, [None]);
        }
        let mut values = vec![1.5; 20];
        values.push(f64::NAN);
        assert_eq!(split(&values, &mut numbers), Form::Mixed(1));
        assert_eq!(numbers.iter().filter(|number| number.is_none()).count(), 1);
    }

    proptest! {
        #[test]
        fn a_number_gives_its_value_back_bit_by_bit(
            values in proptest::collection::vec(
                prop_oneof![any::<f64>(), any::<i32>().prop_map(|n| f64::from(n) / 1000.0), any::<i64>().prop_map(|n| n as f64)],
                1..50,
            )
        ) {
            let mut numbers = Vec::new();
            let form = split(&values, &mut numbers);
            assert_eq!(Form::from_byte(form.to_byte()), Some(form));
            for (value, number) in values.iter().zip(&numbers) {
                if let Some(number) = number {
                    assert_eq!((*number as f64 / divisor(form.exponent())).to_bits(), value.to_bits());
                }
            }
        }
    }
}
