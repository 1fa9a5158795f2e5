//! Rows without points as blocks: those that are wanted, each with all its columns, as Arrow's streams.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Decimal128Builder, Int32Builder, Int64Builder, MapBuilder, RecordBatch,
        RecordBatchOptions, StringBuilder, StringViewBuilder, TimestampMicrosecondBuilder,
    },
    error::ArrowError,
};
use orzo_rating::BigDecimal;

use super::{BLOCK_ROWS, Takes, blocks::streamed};
use crate::{
    error::SqlError,
    tables::{Column, Kind, PRECISION, SCALE, Wanted, Within, ZONE, schema},
};

/// Bytes of texts in one block: an event may say tens of KiB.
const TEXT_BYTES: usize = 4 << 20;

/// A value of a row.
pub(super) enum Cell<'r> {
    Text(Cow<'r, str>),
    Map(Vec<(&'r str, Cow<'r, str>)>),
    Long(i64),
    Int(i32),
    Decimal(&'r BigDecimal),
    Flag(bool),
    /// Microseconds.
    Time(i64),
}

impl<'r> From<&'r str> for Cell<'r> {
    fn from(text: &'r str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A row of a table.
pub(super) trait Row {
    /// What it has in a column; `None`: nothing.
    fn cell(&self, column: Column) -> Option<Cell<'_>>;
}

/// A column under construction.
enum Builder {
    Text(StringViewBuilder),
    Map(MapBuilder<StringBuilder, StringBuilder>),
    Long(Int64Builder),
    Int(Int32Builder),
    Decimal(Decimal128Builder),
    Flag(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(column: Column) -> Self {
        match column.kind() {
            Kind::Text => Self::Text(StringViewBuilder::new()),
            Kind::Map => Self::Map(MapBuilder::new(None, StringBuilder::new(), StringBuilder::new())),
            Kind::Long => Self::Long(Int64Builder::new()),
            Kind::Int => Self::Int(Int32Builder::new()),
            Kind::Decimal => Self::Decimal(Decimal128Builder::new()),
            Kind::Flag => Self::Flag(BooleanBuilder::new()),
            Kind::Time => Self::Time(TimestampMicrosecondBuilder::new()),
            Kind::Double => unreachable!("only points have doubles, and they come by another way"),
        }
    }

    /// Adds a value; gives how many bytes of text it has.
    fn add(&mut self, cell: Option<Cell<'_>>) -> Result<usize, ArrowError> {
        match (self, cell) {
            (Self::Text(builder), Some(Cell::Text(text))) => {
                builder.append_value(&text);
                return Ok(text.len());
            }
            (Self::Text(builder), None) => builder.append_null(),
            (Self::Map(builder), Some(Cell::Map(pairs))) => {
                let mut bytes = 0;
                for (name, value) in &pairs {
                    builder.keys().append_value(name);
                    builder.values().append_value(value);
                    bytes += name.len() + value.len();
                }
                builder.append(true)?;
                return Ok(bytes);
            }
            (Self::Long(builder), Some(Cell::Long(number))) => builder.append_value(number),
            (Self::Int(builder), Some(Cell::Int(number))) => builder.append_value(number),
            (Self::Decimal(builder), Some(Cell::Decimal(number))) => builder.append_value(integer_of(number)?),
            (Self::Flag(builder), Some(Cell::Flag(flag))) => builder.append_value(flag),
            (Self::Time(builder), Some(Cell::Time(micros))) => builder.append_value(micros),
            (Self::Time(builder), None) => builder.append_null(),
            _ => return Err(ArrowError::InvalidArgumentError("a value is not of its column's kind".to_owned())),
        }
        Ok(0)
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Map(mut builder) => Arc::new(builder.finish()),
            Self::Long(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder) => Arc::new(builder.finish().with_precision_and_scale(PRECISION, SCALE)?),
            Self::Flag(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish().with_timezone(ZONE)),
        })
    }
}

/// A decimal as a column has it; refuses one that the column cannot say exactly.
fn integer_of(number: &BigDecimal) -> Result<i128, ArrowError> {
    let scaled = number.with_scale(i64::from(SCALE));
    let integer = if scaled == *number { i128::try_from(scaled.into_bigint_and_exponent().0).ok() } else { None };
    integer.ok_or_else(|| ArrowError::InvalidArgumentError(format!("{number} has too many digits")))
}

/// Gathers the rows that are wanted and hands them on.
pub(super) struct Rows<'t, T> {
    scan: u32,
    wanted: &'t Wanted,
    to: &'t mut T,
    /// Sorted texts of columns that must be one of them.
    texts: Vec<(Column, Vec<String>)>,
    times: Vec<Within>,
    builders: Vec<Builder>,
    rows: usize,
    text_bytes: usize,
}

impl<'t, T: Takes> Rows<'t, T> {
    pub(super) fn new(scan: u32, wanted: &'t Wanted, to: &'t mut T) -> Self {
        let texts = wanted.texts.iter().filter_map(|one| Some((one.column, wanted.texts_of(one.column)?))).collect();
        let times = wanted.times.clone();
        let builders = builders(wanted);
        Self { scan, wanted, to, texts, times, builders, rows: 0, text_bytes: 0 }
    }

    fn is_wanted(&self, row: &impl Row) -> bool {
        let is_one = |(column, texts): &(Column, Vec<String>)| match row.cell(*column) {
            Some(Cell::Text(text)) => texts.binary_search_by(|one| one.as_str().cmp(&text)).is_ok(),
            _ => false,
        };
        let is_within = |one: &Within| match row.cell(one.column) {
            Some(Cell::Time(micros)) => (one.first..=one.last).contains(&micros),
            _ => false,
        };
        self.texts.iter().all(is_one) && self.times.iter().all(is_within)
    }

    /// The next row, left out if it is not wanted. `false`: no more are wanted.
    pub(super) async fn add(&mut self, row: &(impl Row + Sync)) -> Result<bool, SqlError> {
        if !self.is_wanted(row) {
            return Ok(true);
        }
        for (builder, column) in self.builders.iter_mut().zip(&self.wanted.columns) {
            self.text_bytes += builder.add(row.cell(*column)).map_err(SqlError::unavailable)?;
        }
        self.rows += 1;
        match self.rows >= BLOCK_ROWS || self.text_bytes >= TEXT_BYTES {
            true => self.give().await,
            false => Ok(true),
        }
    }

    /// What is left.
    pub(super) async fn end(mut self) -> Result<(), SqlError> {
        if self.rows > 0 {
            self.give().await?;
        }
        Ok(())
    }

    async fn give(&mut self) -> Result<bool, SqlError> {
        let built = std::mem::replace(&mut self.builders, builders(self.wanted));
        let rows = std::mem::take(&mut self.rows);
        self.text_bytes = 0;
        let bytes = bytes_of(self.wanted, built, rows).map_err(SqlError::unavailable)?;
        let length = u32::try_from(bytes.len()).map_err(SqlError::unavailable)?;
        // As blocks of points are: the length of the names, which is all there is.
        let parts: [&[u8]; 3] = [&self.scan.to_le_bytes(), &length.to_le_bytes(), &bytes];
        self.to.take(crate::message::block(&parts).map_err(SqlError::unavailable)?).await
    }
}

fn builders(wanted: &Wanted) -> Vec<Builder> {
    wanted.columns.iter().map(|column| Builder::new(*column)).collect()
}

fn bytes_of(wanted: &Wanted, built: Vec<Builder>, rows: usize) -> Result<Vec<u8>, ArrowError> {
    let columns = built.into_iter().map(Builder::finish).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    streamed(&RecordBatch::try_new_with_options(schema(&wanted.columns), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        let of = |text: &str| integer_of(&text.parse::<BigDecimal>().expect("a number")).ok();
        assert_eq!(of("1.5"), Some(15_000_000_000));
        assert_eq!(of("-0.0000000001"), Some(-1));
        assert_eq!(of("7e3"), Some(70_000_000_000_000));
        assert_eq!(of("0.00000000001"), None);
        assert_eq!(of("1e40"), None);
    }
}
