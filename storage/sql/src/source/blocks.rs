//! Rows as blocks: names of series with how many points each has, and the points, as Arrow's streams.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Float64Array, Int64Array, MapBuilder, RecordBatch, StringBuilder, StringViewBuilder,
        TimestampMicrosecondArray, UInt32Array,
    },
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    ipc::writer::StreamWriter,
};
use orzo_model::SeriesId;
use orzo_names::Named;
use orzo_store::Columns;

use super::{BLOCK_ROWS, SERIES_AT_ONCE, Takes, names::name_of};
use crate::{
    error::SqlError,
    tables::{Column, Wanted, ZONE, schema},
};

/// Bytes of labels in one block: label sets may have tens of KiB.
const LABEL_BYTES: usize = 4 << 20;

/// Gathers rows and hands them on.
pub(super) struct Blocks<'t, T> {
    scan: u32,
    wanted: &'t Wanted,
    to: &'t mut T,
    gathered: Gathered,
}

/// Rows of the next block.
struct Gathered {
    series: Vec<i64>,
    texts: Vec<StringViewBuilder>,
    labels: Option<MapBuilder<StringBuilder, StringBuilder>>,
    label_bytes: usize,
    counts: Vec<u32>,
    rows: usize,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Gathered {
    fn new(wanted: &Wanted) -> Self {
        let texts = wanted.columns.iter().filter(|column| column.is_text());
        let labels = wanted.columns.contains(&Column::Labels);
        Self {
            series: Vec::new(),
            texts: texts.map(|_| StringViewBuilder::new()).collect(),
            labels: labels.then(|| MapBuilder::new(None, StringBuilder::new(), StringBuilder::new())),
            label_bytes: 0,
            counts: Vec::new(),
            rows: 0,
            times: Vec::new(),
            values: Vec::new(),
        }
    }

    fn name(&mut self, wanted: &Wanted, named: &Named, points: u32) -> Result<(), ArrowError> {
        self.series.push(named.series().0.cast_signed());
        let columns = wanted.columns.iter().filter(|column| column.is_text());
        for (builder, column) in self.texts.iter_mut().zip(columns) {
            builder.append_option(name_of(*column).and_then(|name| named.text(name)));
        }
        if let Some(labels) = &mut self.labels {
            let mut bytes = 0;
            named.each_label(|name, value| {
                labels.keys().append_value(name);
                labels.values().append_value(value);
                bytes += name.len() + value.len();
            });
            labels.append(true)?;
            self.label_bytes += bytes;
        }
        self.counts.push(points);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= BLOCK_ROWS || self.series.len() >= SERIES_AT_ONCE || self.label_bytes >= LABEL_BYTES
    }

    /// The block's bytes, without the scan's number.
    fn bytes(mut self, wanted: &Wanted) -> Result<Vec<u8>, ArrowError> {
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut texts = self.texts.iter_mut();
        for column in wanted.columns.iter().filter(|column| column.is_name()) {
            fields.extend(schema(&[*column]).fields().iter().cloned());
            columns.push(match column {
                Column::Series => Arc::new(Int64Array::from(std::mem::take(&mut self.series))),
                Column::Labels => Arc::new(self.labels.as_mut().ok_or_else(missing)?.finish()),
                _ => Arc::new(texts.next().ok_or_else(missing)?.finish()),
            });
        }
        fields.push(Arc::new(Field::new("points", DataType::UInt32, false)));
        columns.push(Arc::new(UInt32Array::from(self.counts)));
        let names = streamed(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)?;
        let of_points: Vec<Column> = wanted.columns.iter().copied().filter(|column| !column.is_name()).collect();
        let points = match of_points.is_empty() {
            true => Vec::new(),
            false => {
                let (mut times, mut values) = (Some(self.times), Some(self.values));
                let columns = of_points.iter().map(|column| -> Result<ArrayRef, ArrowError> {
                    Ok(match column {
                        Column::Timestamp => {
                            let times = TimestampMicrosecondArray::from(times.take().ok_or_else(missing)?);
                            Arc::new(times.with_timezone(ZONE))
                        }
                        _ => Arc::new(Float64Array::from(values.take().ok_or_else(missing)?)),
                    })
                });
                let columns = columns.collect::<Result<_, _>>()?;
                streamed(&RecordBatch::try_new(schema(&of_points), columns)?)?
            }
        };
        let length = u32::try_from(names.len()).map_err(|_| missing())?;
        let mut bytes = Vec::with_capacity(4 + names.len() + points.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(names);
        bytes.extend(points);
        Ok(bytes)
    }
}

fn missing() -> ArrowError {
    ArrowError::InvalidArgumentError("a column is wanted twice, or too long".to_owned())
}

/// A stream of one batch.
pub(super) fn streamed(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    writer.into_inner()
}

impl<'t, T: Takes> Blocks<'t, T> {
    pub(super) fn new(scan: u32, wanted: &'t Wanted, to: &'t mut T) -> Self {
        Self { scan, wanted, to, gathered: Gathered::new(wanted) }
    }

    /// Series without points. `false`: no more are wanted.
    pub(super) async fn names(&mut self, some: &[Named]) -> Result<bool, SqlError> {
        for named in some {
            self.gathered.name(self.wanted, named, 0).map_err(SqlError::unavailable)?;
            if self.gathered.is_full() && !self.give().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Points of some of these series; both are sorted by number.
    pub(super) async fn points(&mut self, some: &[Named], found: Vec<(SeriesId, Columns)>) -> Result<bool, SqlError> {
        let has = |column| self.wanted.columns.contains(&column);
        let (with_times, with_values) = (has(Column::Timestamp), has(Column::Value));
        let mut at = 0;
        for (series, columns) in found {
            at += some[at..].partition_point(|named| named.series() < series);
            let Some(named) = some.get(at).filter(|named| named.series() == series) else { continue };
            let mut from = 0;
            while from < columns.times.len() {
                let until = columns.times.len().min(from + BLOCK_ROWS - self.gathered.rows);
                let count = u32::try_from(until - from).map_err(SqlError::unavailable)?;
                self.gathered.name(self.wanted, named, count).map_err(SqlError::unavailable)?;
                if with_times {
                    self.gathered.times.extend_from_slice(&columns.times[from..until]);
                }
                if with_values {
                    self.gathered.values.extend_from_slice(&columns.values[from..until]);
                }
                self.gathered.rows += until - from;
                from = until;
                if self.gathered.is_full() && !self.give().await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What is left.
    pub(super) async fn end(mut self) -> Result<(), SqlError> {
        if !self.gathered.counts.is_empty() {
            self.give().await?;
        }
        Ok(())
    }

    async fn give(&mut self) -> Result<bool, SqlError> {
        let gathered = std::mem::replace(&mut self.gathered, Gathered::new(self.wanted));
        let bytes = gathered.bytes(self.wanted).map_err(SqlError::unavailable)?;
        let frame = crate::message::block(&[&self.scan.to_le_bytes(), &bytes]).map_err(SqlError::unavailable)?;
        self.to.take(frame).await
    }
}
