//! From what was measured to what is priced: CloudKitty's `factor`, `offset` and `mutate` of `metrics.yml`.

use bigdecimal::{BigDecimal, RoundingMode, Zero};

use crate::decimal::{add, multiply};

/// What becomes of a quantity after it was converted.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// The next whole number above.
    Ceil,
    /// The next whole number below.
    Floor,
    /// One unless it is zero.
    NumBool,
    /// One if it is zero.
    NotNumBool,
    /// What a table says; zero for what is not in it.
    Map(Vec<(BigDecimal, BigDecimal)>),
}

/// How a measured quantity becomes the one that is priced.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    /// The quantity is multiplied by this,
    pub factor: BigDecimal,
    /// then this is added,
    pub offset: BigDecimal,
    /// then it is changed.
    pub mutation: Mutation,
}

impl Default for Conversion {
    fn default() -> Self {
        Self { factor: BigDecimal::from(1), offset: BigDecimal::zero(), mutation: Mutation::None }
    }
}

impl Conversion {
    /// The quantity that is priced.
    pub fn apply(&self, measured: &BigDecimal) -> BigDecimal {
        let converted = add(&multiply(measured, &self.factor), &self.offset);
        let one_if = |yes: bool| BigDecimal::from(u8::from(yes));
        match &self.mutation {
            Mutation::None => converted,
            Mutation::Ceil => converted.with_scale_round(0, RoundingMode::Ceiling),
            Mutation::Floor => converted.with_scale_round(0, RoundingMode::Floor),
            Mutation::NumBool => one_if(!converted.is_zero()),
            Mutation::NotNumBool => one_if(converted.is_zero()),
            Mutation::Map(table) => {
                table.iter().find(|(from, _)| *from == converted).map_or_else(BigDecimal::zero, |(_, to)| to.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::decimal;

    #[test]
    fn a_quantity_is_converted_and_then_changed() {
        let number = |text: &str| decimal(text).expect("a number");
        let apply = |factor: &str, offset: &str, mutation: Mutation, measured: &str| {
            Conversion { factor: number(factor), offset: number(offset), mutation }.apply(&number(measured))
        };
        assert_eq!(apply("0.5", "1", Mutation::None, "3"), number("2.5"));
        assert_eq!(apply("0.5", "0", Mutation::Ceil, "3"), number("2"));
        assert_eq!(apply("0.5", "0", Mutation::Floor, "-3"), number("-2"));
        assert_eq!(apply("1", "-3", Mutation::NumBool, "3"), number("0"));
        assert_eq!(apply("1", "-3", Mutation::NotNumBool, "3.0"), number("1"));
        let table = Mutation::Map(vec![(number("1"), number("0.1")), (number("2"), number("0.2"))]);
        assert_eq!(apply("1", "0", table.clone(), "2.00"), number("0.2"));
        assert_eq!(apply("1", "0", table, "3"), number("0"));
    }
}
