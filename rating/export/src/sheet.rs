//! Tables of cells into CSV and Parquet. The same cells make the same bytes.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
    record_batch::RecordBatch,
};
use orzo_rating::{BigDecimal, COST_SCALE, cost_of};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::{WriterProperties, WriterVersion},
};

use crate::{
    cell::{Cell, Kind},
    columns::Column,
};

/// Digits of a decimal in Parquet, as in the ledger.
const PRECISION: u8 = 38;
/// Rows turned into columns at once.
const GROUP_ROWS: usize = 50_000;

type Outcome<T> = std::io::Result<T>;

/// A table as CSV.
pub(crate) struct CsvSheet<W: Write> {
    writer: csv::Writer<W>,
}

impl<W: Write> CsvSheet<W> {
    pub(crate) fn new(out: W, names: &[&str]) -> Outcome<Self> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
        writer.write_record(names)?;
        Ok(Self { writer })
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> Outcome<()> {
        for cell in cells {
            self.writer.write_field(cell.for_sheet())?;
        }
        self.writer.write_record(None::<&[u8]>)?;
        Ok(())
    }

    pub(crate) fn end(self) -> Outcome<W> {
        self.writer.into_inner().map_err(|error| error.into_error())
    }
}

/// A table as Parquet.
pub(crate) struct ParquetSheet<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

impl<W: Write + Send> ParquetSheet<W> {
    pub(crate) fn new(out: W, columns: &'static [Column]) -> Outcome<Self> {
        let field = |column: &Column| {
            let kind = match column.kind {
                Kind::Text => DataType::Utf8,
                Kind::Decimal => DataType::Decimal128(PRECISION, COST_SCALE as i8),
                Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                Kind::Integer => DataType::Int64,
            };
            Field::new(column.name, kind, true)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_created_by("orzo".to_owned())
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(std::io::Error::other)?))
            .build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(std::io::Error::other)?;
        Ok(Self { writer, schema, columns, rows: Vec::new() })
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) -> Outcome<()> {
        self.rows.push(cells);
        if self.rows.len() == GROUP_ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Outcome<()> {
        let rows = std::mem::take(&mut self.rows);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter().enumerate() {
            let cells = rows.iter().map(|row| &row[place]);
            arrays.push(array(column, cells)?);
        }
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(std::io::Error::other)?;
        self.writer.write(&batch).map_err(std::io::Error::other)?;
        self.writer.flush().map_err(std::io::Error::other)
    }

    pub(crate) fn end(mut self) -> Outcome<W> {
        if !self.rows.is_empty() {
            self.write()?;
        }
        self.writer.into_inner().map_err(std::io::Error::other)
    }
}

fn array<'c>(column: &Column, cells: impl Iterator<Item = &'c Cell>) -> Outcome<ArrayRef> {
    Ok(match column.kind {
        Kind::Text => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        }))),
        Kind::Time => {
            let times = cells.map(|cell| if let Cell::Time(time) = cell { Some(time.micros()) } else { None });
            Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC"))
        }
        Kind::Integer => {
            Arc::new(Int64Array::from_iter(cells.map(|cell| if let Cell::Integer(n) = cell { Some(*n) } else { None })))
        }
        Kind::Decimal => {
            let numbers = cells.map(|cell| match cell {
                Cell::Decimal(number) => scaled(number).map(Some).ok_or_else(|| {
                    std::io::Error::other(format!("{}: {number} has more digits than a decimal holds", column.name))
                }),
                _ => Ok(None),
            });
            let numbers = numbers.collect::<Outcome<Vec<Option<i128>>>>()?;
            let array = Decimal128Array::from(numbers).with_precision_and_scale(PRECISION, COST_SCALE as i8);
            Arc::new(array.map_err(std::io::Error::other)?)
        }
    })
}

/// A number in ten-thousandths of a millionth.
fn scaled(number: &BigDecimal) -> Option<i128> {
    let (digits, _) = cost_of(number).into_bigint_and_exponent();
    digits.try_into().ok()
}
