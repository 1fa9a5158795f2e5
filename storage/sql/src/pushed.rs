//! What of a query's conditions the index and the scan can hold by themselves, exactly. Pure.
//!
//! Equality and lists on texts and on the number of a series, and limits of the time. Everything else stays in the query's
//! own process, over what these leave.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Between, BinaryExpr, Expr, Operator, expr::InList},
};

use crate::tables::{Column, Kind, OneOf, Wanted, Within, ZONE};

/// A condition that the other side holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// One of these series.
    Series(Vec<i64>),
    /// One of these texts.
    Texts(OneOf),
    /// A time between two, both inclusive.
    Time(Within),
}

/// What this condition is for the other side; `None` if it cannot hold it exactly.
pub(crate) fn pushed(condition: &Expr) -> Option<Pushed> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => either(pushed(left)?, pushed(right)?),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column_of(left), literal_of(right)) {
            (Some(column), Some(literal)) => compared(column, *op, literal),
            _ => compared(column_of(right)?, op.swap()?, literal_of(left)?),
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let column = column_of(expr)?;
            let mut all = list.iter().map(|one| compared(column, Operator::Eq, literal_of(one)?));
            let first = all.next()??;
            all.try_fold(first, |so_far, next| either(so_far, next?))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let column = column_of(expr).filter(|column| column.is_time())?;
            let (first, _) = in_time(Operator::GtEq, nanos(literal_of(low)?)?)?;
            let (_, last) = in_time(Operator::LtEq, nanos(literal_of(high)?)?)?;
            Some(Pushed::Time(Within { column, first, last }))
        }
        _ => None,
    }
}

/// Adds a condition to what is wanted.
pub(crate) fn add(wanted: &mut Wanted, pushed: Pushed) {
    match pushed {
        Pushed::Series(mut series) => {
            series.sort_unstable();
            series.dedup();
            if let Some(known) = &wanted.series {
                series.retain(|one| known.binary_search(one).is_ok());
            }
            wanted.series = Some(series);
        }
        Pushed::Texts(one) => wanted.texts.push(one),
        Pushed::Time(one) => wanted.times.push(one),
    }
}

/// One or the other, of the same column; times would have a gap.
fn either(one: Pushed, other: Pushed) -> Option<Pushed> {
    match (one, other) {
        (Pushed::Series(mut one), Pushed::Series(other)) => {
            one.extend(other);
            Some(Pushed::Series(one))
        }
        (Pushed::Texts(mut one), Pushed::Texts(other)) if one.column == other.column => {
            one.texts.extend(other.texts);
            Some(Pushed::Texts(one))
        }
        _ => None,
    }
}

/// A column as it is, or in a finer unit of time.
fn column_of(expression: &Expr) -> Option<Column> {
    match expression {
        Expr::Column(column) => Column::named(&column.name),
        Expr::Cast(cast) => {
            let column = column_of(&cast.expr)?;
            match (column, cast.field.data_type()) {
                (column, DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, zone))
                    if column.is_time()
                        && zone.as_deref().is_none_or(|zone| zone == ZONE || zone == "UTC" || zone == "Z") =>
                {
                    Some(column)
                }
                (column, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) if column.is_text() => Some(column),
                _ => None,
            }
        }
        _ => None,
    }
}

fn literal_of(expression: &Expr) -> Option<&ScalarValue> {
    match expression {
        Expr::Literal(literal, _) => Some(literal),
        _ => None,
    }
}

fn compared(column: Column, operator: Operator, literal: &ScalarValue) -> Option<Pushed> {
    match (column, column.kind()) {
        (_, Kind::Time) => {
            let (first, last) = in_time(operator, nanos(literal)?)?;
            Some(Pushed::Time(Within { column, first, last }))
        }
        (Column::Series, _) if operator == Operator::Eq => match literal {
            ScalarValue::Int64(Some(series)) => Some(Pushed::Series(vec![*series])),
            _ => None,
        },
        (_, Kind::Text) if operator == Operator::Eq => match literal {
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                Some(Pushed::Texts(OneOf { column, texts: vec![text.clone()] }))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A literal time in nanoseconds.
fn nanos(literal: &ScalarValue) -> Option<i128> {
    let (value, factor) = match literal {
        ScalarValue::TimestampSecond(Some(value), _) => (value, 1_000_000_000),
        ScalarValue::TimestampMillisecond(Some(value), _) => (value, 1_000_000),
        ScalarValue::TimestampMicrosecond(Some(value), _) => (value, 1000),
        ScalarValue::TimestampNanosecond(Some(value), _) => (value, 1),
        _ => return None,
    };
    Some(i128::from(*value) * factor)
}

/// The first and last microsecond that compare so with a time.
fn in_time(operator: Operator, nanos: i128) -> Option<(i64, i64)> {
    let micros = |micros: i128| i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX });
    let (floor, ceiling) = (nanos.div_euclid(1000), (nanos + 999).div_euclid(1000));
    Some(match operator {
        Operator::Eq => (micros(ceiling), micros(floor)),
        Operator::Gt => (micros(floor + 1), i64::MAX),
        Operator::GtEq => (micros(ceiling), i64::MAX),
        Operator::Lt => (i64::MIN, micros(ceiling - 1)),
        Operator::LtEq => (i64::MIN, micros(floor)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::tables::Table;

    fn time(nanos: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(nanos), Some(ZONE.into())))
    }

    fn within(first: i64, last: i64) -> Pushed {
        Pushed::Time(Within { column: Column::Timestamp, first, last })
    }

    fn texts(column: Column, texts: &[&str]) -> Pushed {
        Pushed::Texts(OneOf { column, texts: texts.iter().map(|text| (*text).to_owned()).collect() })
    }

    #[test]
    fn what_index_and_scan_can_hold_goes_to_them() {
        assert_eq!(pushed(&col("meter").eq(lit("cpu"))), Some(texts(Column::Meter, &["cpu"])));
        assert_eq!(pushed(&lit("cpu").eq(col("meter"))), Some(texts(Column::Meter, &["cpu"])));
        let either = col("meter").eq(lit("a")).or(col("meter").eq(lit("b")));
        assert_eq!(pushed(&either), Some(texts(Column::Meter, &["a", "b"])));
        assert_eq!(pushed(&col("series").in_list(vec![lit(3i64), lit(1i64)], false)), Some(Pushed::Series(vec![3, 1])));
        assert_eq!(pushed(&lit(7i64).eq(col("series"))), Some(Pushed::Series(vec![7])));
        assert_eq!(pushed(&col("scope").eq(lit("p"))), Some(texts(Column::Scope, &["p"])));
        let begun = Pushed::Time(Within { column: Column::Begin, first: 3, last: 4 });
        assert_eq!(pushed(&col("begin").between(time(2500), time(4000))), Some(begun));
    }

    #[test]
    fn what_they_cannot_hold_stays() {
        for stays in [
            col("meter").not_eq(lit("cpu")),
            col("meter").like(lit("c%")),
            col("meter").in_list(vec![lit("a")], true),
            col("meter").eq(lit("a")).or(col("unit").eq(lit("b"))),
            col("meter").eq(col("unit")),
            col("meter").eq(lit(ScalarValue::Utf8(None))),
            col("value").gt(lit(1.0)),
            col("timestamp").lt(time(1)).or(col("timestamp").gt(time(9))),
            col("timestamp").not_eq(time(1)),
            col("cost").eq(lit(1)),
            col("rule_version").eq(lit(1i64)),
            col("reverses").eq(lit(true)),
        ] {
            assert_eq!(pushed(&stays), None, "{stays}");
        }
    }

    #[test]
    fn times_between_microseconds_are_rounded_to_the_side_that_is_right() {
        let of = |condition: Expr| pushed(&condition).expect("pushed");
        assert_eq!(of(col("timestamp").gt_eq(time(1500))), within(2, i64::MAX));
        assert_eq!(of(col("timestamp").gt_eq(time(2000))), within(2, i64::MAX));
        assert_eq!(of(col("timestamp").gt(time(2000))), within(3, i64::MAX));
        assert_eq!(of(col("timestamp").gt(time(1500))), within(2, i64::MAX));
        assert_eq!(of(col("timestamp").lt(time(1500))), within(i64::MIN, 1));
        assert_eq!(of(col("timestamp").lt(time(2000))), within(i64::MIN, 1));
        assert_eq!(of(col("timestamp").lt_eq(time(-1500))), within(i64::MIN, -2));
        assert_eq!(of(time(2000).lt_eq(col("timestamp"))), within(2, i64::MAX));
        let Pushed::Time(Within { first, last, .. }) = of(col("timestamp").eq(time(1500))) else { panic!("a time") };
        assert!(first > last, "no point is between microseconds");
    }

    #[test]
    fn conditions_add_up() {
        let mut wanted = Wanted::all(Table::Measures, Vec::new());
        add(&mut wanted, Pushed::Series(vec![5, 1, 3, 3]));
        add(&mut wanted, Pushed::Series(vec![3, 4, 5]));
        add(&mut wanted, within(1, 9));
        add(&mut wanted, within(4, i64::MAX));
        add(&mut wanted, texts(Column::Meter, &["a", "b"]));
        add(&mut wanted, texts(Column::Meter, &["b", "c"]));
        assert_eq!((wanted.series.as_deref(), wanted.time_of(Column::Timestamp)), (Some(&[3, 5][..]), (4, 9)));
        assert_eq!(wanted.time_of(Column::Begin), (i64::MIN, i64::MAX));
        assert!(!wanted.is_nothing());
        add(&mut wanted, within(10, 20));
        assert!(wanted.is_nothing());
        assert_eq!(wanted.texts_of(Column::Meter), Some(vec!["b".to_owned()]));
        assert_eq!(wanted.texts_of(Column::Unit), None);
    }
}
