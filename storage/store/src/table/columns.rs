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

/// As [`number`] with the divisor 1, which most values have: without a division.
#[inline]
fn whole_number(value: f64) -> Option<i64> {
    let number = value as i64;
    let fits = value.abs() <= NUMBER_MAX && (number as f64).to_bits() == value.to_bits();
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

/// Values that are looked at before it is asked whether all of them were numbers.
const WHOLE_PART: usize = 64;

/// Makes the bits of a run's values numbers, in place, if all are numbers over one power of ten, as [`split`] would choose
/// it. Most runs are such; another stays as it is.
pub(crate) fn whole(values: &mut [i64]) -> Option<Form> {
    let (mut exponent, mut done, mut numbers) = (0, 0, [0; WHOLE_PART]);
    while done < values.len() {
        let part = done..values.len().min(done + WHOLE_PART);
        let (power, mut all) = (divisor(exponent), true);
        for (number_of_it, bits) in numbers.iter_mut().zip(&values[part.clone()]) {
            let value = f64::from_bits(*bits as u64);
            let found = if exponent == 0 { whole_number(value) } else { number(value, power) };
            all &= found.is_some();
            *number_of_it = found.unwrap_or(0);
        }
        if all {
            let length = part.len();
            done = part.end;
            values[part].copy_from_slice(&numbers[..length]);
            continue;
        }
        let mut of_part = values[part].iter().map(|value| f64::from_bits(*value as u64));
        let odd = of_part.find(|value| !is_number(*value, exponent));
        let larger = odd.and_then(|odd| (exponent + 1..=EXPONENT_MAX).find(|larger| is_number(odd, *larger)));
        // From the beginning, with a power that fits this value, too, or not at all. Dividing gives back what was there.
        for number in &mut values[..done] {
            *number = (*number as f64 / power).to_bits() as i64;
        }
        (exponent, done) = (larger?, 0);
    }
    Some(Form::Decimal(exponent))
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

    #[test]
    fn a_number_over_one_is_found_without_dividing() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.5, 1e300, f64::MIN_POSITIVE];
        let whole =
            [0.0, 1.0, -7.0, NUMBER_MAX, -NUMBER_MAX, NUMBER_MAX + 2.0, NUMBER_MAX - 1.0, ROUNDED_MAX + 0.5, 1e15];
        for value in odd.into_iter().chain(whole) {
            assert_eq!(whole_number(value), number(value, 1.0), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_number_over_one_is_found_without_dividing(value in prop_oneof![any::<f64>(), any::<i64>().prop_map(|n| n as f64)]) {
            assert_eq!(whole_number(value), number(value, 1.0));
        }

        #[test]
        fn whole_runs_are_what_splitting_makes_of_them(
            values in proptest::collection::vec(
                prop_oneof![
                    8 => any::<i16>().prop_map(|n| f64::from(n) / 100.0), 8 => any::<i32>().prop_map(f64::from), 1 => any::<f64>(),
                ],
                1..200,
            ),
            of_one_kind in 0..3,
        ) {
            let values: Vec<f64> = match of_one_kind {
                0 => values,
                1 => values.iter().map(|value| if value.abs() < 1e9 { value.round() } else { 4.0 }).collect(),
                _ => values.iter().map(|value| (value % 1e6 * 1000.0).round() / 1000.0).collect(),
            };
            let bits: Vec<i64> = values.iter().map(|value| value.to_bits() as i64).collect();
            let (mut numbers, mut split_numbers) = (bits.clone(), Vec::new());
            let (whole, form) = (whole(&mut numbers), split(&values, &mut split_numbers));
            match whole {
                Some(whole) => {
                    assert_eq!(whole, form);
                    assert_eq!(numbers.into_iter().map(Some).collect::<Vec<_>>(), split_numbers);
                }
                None => assert!(!matches!(form, Form::Decimal(_)) && numbers == bits),
            }
        }

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
