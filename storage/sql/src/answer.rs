//! An answer in one of three forms, batch by batch. Pure: batches in, bytes out.
//!
//! - JSON: `{"columns":[{"name","type"},…],"rows":[[…],…],"row_count":n}`; numbers that JSON does not have are the texts
//!   `"NaN"`, `"Infinity"`, `"-Infinity"`.
//! - CSV with a line of names; nothing for NULL.
//! - An Arrow IPC stream; texts are of the plain kind, which every reader knows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Float64Type, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::{EncoderOptions, writer::make_encoder},
    util::display::{ArrayFormatter, FormatOptions},
};
use serde::{Deserialize, Serialize};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// One JSON object.
    Json,
    /// Comma-separated values.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

/// Writes one answer.
pub(crate) struct Writer {
    kind: Kind,
    schema: SchemaRef,
    rows: u64,
    written: Vec<u8>,
}

enum Kind {
    Json,
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Writer {
    /// Begins an answer with these columns.
    pub(crate) fn begin(form: Form, schema: &SchemaRef) -> Result<Self, ArrowError> {
        let mut written = Vec::new();
        let mut schema = schema.clone();
        let kind = match form {
            Form::Json => {
                let column =
                    |field: &FieldRef| serde_json::json!({"name": field.name(), "type": type_name(field.data_type())});
                let columns: Vec<_> = schema.fields().iter().map(column).collect();
                let columns =
                    serde_json::to_string(&columns).map_err(|error| ArrowError::from_external_error(error.into()))?;
                written.extend(format!("{{\"columns\":{columns},\"rows\":[").into_bytes());
                Kind::Json
            }
            Form::Csv => {
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
                write_line(&mut written, names.into_iter());
                Kind::Csv
            }
            Form::Arrow => {
                let fields = schema.fields().iter().map(|field| plain_field(field)).collect::<Vec<_>>();
                schema = Arc::new(Schema::new(fields));
                Kind::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?))
            }
        };
        Ok(Self { kind, schema, rows: 0, written })
    }

    /// Adds rows.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match &mut self.kind {
            Kind::Json => write_json(&mut self.written, batch, self.rows == 0)?,
            Kind::Csv => write_csv(&mut self.written, batch)?,
            Kind::Arrow(writer) => {
                let plain = |(array, field): (&ArrayRef, &FieldRef)| match array.data_type() == field.data_type() {
                    true => Ok(array.clone()),
                    false => cast(array, field.data_type()),
                };
                let arrays = batch.columns().iter().zip(self.schema.fields()).map(plain).collect::<Result<_, _>>()?;
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                writer.write(&RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)?;
                self.written.append(writer.get_mut());
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// How many rows there are so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// What was written since it was taken last.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }

    /// How much that is.
    pub(crate) fn waiting(&self) -> usize {
        self.written.len()
    }

    /// Ends the answer; the rest of it.
    pub(crate) fn end(mut self) -> Result<Vec<u8>, ArrowError> {
        match self.kind {
            Kind::Json => self.written.extend(format!("],\"row_count\":{}}}\n", self.rows).into_bytes()),
            Kind::Csv => {}
            Kind::Arrow(mut writer) => {
                writer.finish()?;
                self.written.append(writer.get_mut());
            }
        }
        Ok(self.written)
    }
}

/// A type in the words of SQL.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "unsigned".to_owned(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Timestamp(_, _) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Map(_, _) => "map".to_owned(),
        DataType::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

fn plain_field(field: &Field) -> Field {
    match field.data_type() {
        DataType::Utf8View => field.clone().with_data_type(DataType::Utf8),
        DataType::BinaryView => field.clone().with_data_type(DataType::Binary),
        _ => field.clone(),
    }
}

fn write_json(out: &mut Vec<u8>, batch: &RecordBatch, mut is_first: bool) -> Result<(), ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let schema = batch.schema_ref().clone();
    let mut encoders = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        encoders.push((make_encoder(field, array, &options)?, array.as_primitive_opt::<Float64Type>()));
    }
    for row in 0..batch.num_rows() {
        out.extend_from_slice(if std::mem::take(&mut is_first) { b"[" } else { b",\n[" });
        for (place, (encoder, doubles)) in encoders.iter_mut().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            match doubles {
                _ if encoder.is_null(row) => out.extend_from_slice(b"null"),
                Some(doubles) if !doubles.value(row).is_finite() => out.extend_from_slice(match doubles.value(row) {
                    value if value.is_nan() => b"\"NaN\"",
                    value if value > 0.0 => b"\"Infinity\"",
                    _ => b"\"-Infinity\"",
                }),
                _ => encoder.encode(row, out),
            }
        }
        out.push(b']');
    }
    Ok(())
}

fn write_csv(out: &mut Vec<u8>, batch: &RecordBatch) -> Result<(), ArrowError> {
    let options = FormatOptions::default().with_null("");
    let columns = batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let cells = columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<Vec<_>, _>>()?;
        write_line(out, cells.into_iter());
    }
    Ok(())
}

/// A line as RFC 4180 has it.
fn write_line(out: &mut Vec<u8>, cells: impl Iterator<Item = String>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        match cell.contains([',', '"', '\n', '\r']) {
            true => out.extend(format!("\"{}\"", cell.replace('"', "\"\"")).into_bytes()),
            false => out.extend(cell.into_bytes()),
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Float64Array, Int64Array, StringViewArray},
        ipc::reader::StreamReader,
    };

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("v", DataType::Float64, true),
            Field::new("t", DataType::Utf8View, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, i64::MAX, 3])),
            Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), None])),
            Arc::new(StringViewArray::from(vec![Some("a,\"b\""), None, Some("é")])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
    }

    fn written(form: Form, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = Writer::begin(form, &batch().schema()).expect("begun");
        let mut bytes = Vec::new();
        for batch in batches {
            writer.add(batch).expect("added");
            bytes.append(&mut writer.take());
        }
        bytes.extend(writer.end().expect("ended"));
        bytes
    }

    #[test]
    fn json_is_one_object_with_every_value() {
        let read: serde_json::Value = serde_json::from_slice(&written(Form::Json, &[batch(), batch()])).expect("JSON");
        assert_eq!(read["columns"][2], serde_json::json!({"name": "t", "type": "text"}));
        assert_eq!(read["rows"][1], serde_json::json!([i64::MAX, "NaN", null]));
        assert_eq!(read["rows"][5], serde_json::json!([3, null, "é"]));
        assert_eq!(read["row_count"], 6);
        let none: serde_json::Value = serde_json::from_slice(&written(Form::Json, &[])).expect("JSON");
        assert_eq!(none["rows"], serde_json::json!([]));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let text = String::from_utf8(written(Form::Csv, &[batch()])).expect("text");
        assert_eq!(text, "n,v,t\r\n1,0.1,\"a,\"\"b\"\"\"\r\n9223372036854775807,NaN,\r\n3,,é\r\n");
    }

    #[test]
    fn arrow_is_a_stream_of_plain_types() {
        let bytes = written(Form::Arrow, &[batch(), batch()]);
        let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
        assert_eq!(*reader.schema().field(2).data_type(), DataType::Utf8);
        let batches = reader.collect::<Result<Vec<_>, _>>().expect("batches");
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 6);
        assert_eq!(batches[1].column(0), batch().column(0));
    }
}
