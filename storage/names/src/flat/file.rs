//! A file of flat rows, Parquet or CSV, with what its points add up to and the checksum of its bytes.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType},
};
use orzo_model::Timestamp;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use super::schema;
use crate::NamesError;

/// Rows of a row group: what is in memory until it is written.
const GROUP_ROWS: usize = 131_072;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlatForm {
    /// Columns, exactly.
    Parquet,
    /// Lines, with the shortest decimals that mean the same doubles.
    Csv,
}

impl FlatForm {
    /// The end of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// What the points of a file add up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Points.
    pub rows: u64,
    /// Sum of the values that are numbers, with the error of each addition made good (Neumaier's sum).
    pub sum: f64,
    /// Values that are NaN or infinite.
    pub not_numbers: u64,
    /// Wrapping sum of xxh3-128 of each point's 24 bytes (series, timestamp, bits of the value), hexadecimal: as `orzo.hash` of the store's files.
    pub hash: String,
    /// First and last time, microseconds.
    pub times: Option<(i64, i64)>,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal: what `sha256sum` says.
    pub sha256: String,
}

/// A file under construction.
pub struct FlatFile {
    path: PathBuf,
    writer: Writer,
    rows: u64,
    sum: (f64, f64),
    not_numbers: u64,
    hash: u128,
    times: Option<(i64, i64)>,
}

enum Writer {
    Parquet(Box<ArrowWriter<Hashed>>),
    Csv(Box<csv::Writer<Hashed>>),
}

/// Counts and hashes what goes into a file.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FlatFile {
    /// Begins a file in place of what has this name.
    pub fn create(path: &Path, form: FlatForm) -> Result<Self, NamesError> {
        let failed = |source| NamesError::Disk { action: "create", path: path.to_owned(), source };
        let file = File::create(path).map_err(failed)?;
        let hashed = Hashed { file: BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
        let writer = match form {
            FlatForm::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(NamesError::encode)?))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .build();
                // Other readers are to see plain texts, not how they came here.
                let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(hashed, schema(), options);
                Writer::Parquet(Box::new(writer.map_err(NamesError::encode)?))
            }
            FlatForm::Csv => {
                let mut writer = csv::Writer::from_writer(hashed);
                writer.write_record(schema().fields().iter().map(|field| field.name())).map_err(NamesError::encode)?;
                Writer::Csv(Box::new(writer))
            }
        };
        Ok(Self { path: path.to_owned(), writer, rows: 0, sum: (0.0, 0.0), not_numbers: 0, hash: 0, times: None })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), NamesError> {
        if !is_same(&batch.schema(), &schema()) {
            return Err(NamesError::Frames { reason: "they have other columns than this program knows" });
        }
        self.count(batch);
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(batch).map_err(NamesError::encode),
            Writer::Csv(writer) => write_csv(writer, batch),
        }
    }

    fn count(&mut self, batch: &RecordBatch) {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values();
        let values = batch.column(1).as_primitive::<Float64Type>().values();
        let series = batch.column(2).as_primitive::<Int64Type>().values();
        for ((time, value), series) in times.iter().zip(values).zip(series) {
            let mut bytes = [0; 24];
            bytes[..8].copy_from_slice(&series.to_le_bytes());
            bytes[8..16].copy_from_slice(&time.to_le_bytes());
            bytes[16..].copy_from_slice(&value.to_bits().to_le_bytes());
            self.hash = self.hash.wrapping_add(xxh3_128(&bytes));
            let (first, last) = self.times.unwrap_or((*time, *time));
            self.times = Some((first.min(*time), last.max(*time)));
            match value.is_finite() {
                true => self.sum = with(self.sum, *value),
                false => self.not_numbers += 1,
            }
        }
        self.rows += batch.num_rows() as u64;
    }

    /// Makes it durable and says what is in it.
    pub fn finish(self) -> Result<Tally, NamesError> {
        let failed = |source| NamesError::Disk { action: "write", path: self.path.clone(), source };
        let hashed = match self.writer {
            Writer::Parquet(writer) => writer.into_inner().map_err(NamesError::encode)?,
            Writer::Csv(writer) => writer.into_inner().map_err(|error| failed(error.into_error()))?,
        };
        let Hashed { file, hash, bytes } = hashed;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Tally {
            rows: self.rows,
            sum: self.sum.0 + self.sum.1,
            not_numbers: self.not_numbers,
            hash: format!("{:032x}", self.hash),
            times: self.times,
            bytes,
            sha256,
        })
    }
}

/// Neumaier's sum: what an addition loses is added up beside it.
fn with((sum, lost): (f64, f64), value: f64) -> (f64, f64) {
    let next = sum + value;
    let more = if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
    (next, lost + more)
}

fn is_same(one: &Schema, other: &Schema) -> bool {
    let same = |(one, other): (&std::sync::Arc<Field>, &std::sync::Arc<Field>)| {
        let kinds = match (one.data_type(), other.data_type()) {
            (DataType::Dictionary(..), DataType::Dictionary(..)) => one.data_type() == other.data_type(),
            (one, other) => one == other,
        };
        kinds && one.name() == other.name()
    };
    one.fields().len() == other.fields().len() && one.fields().iter().zip(other.fields()).all(same)
}

fn write_csv(writer: &mut csv::Writer<Hashed>, batch: &RecordBatch) -> Result<(), NamesError> {
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values();
    let values = batch.column(1).as_primitive::<Float64Type>().values();
    let series = batch.column(2).as_primitive::<Int64Type>().values();
    // Names are made safe once for each series, not for each point.
    let texts: Vec<(Vec<String>, &[i32], Option<&arrow::buffer::NullBuffer>)> = (3..batch.num_columns())
        .map(|place| {
            let column = batch.column(place).as_dictionary::<Int32Type>();
            let values = column.values().as_string::<i32>();
            let values = values.iter().map(|text| defused(text.unwrap_or_default())).collect();
            (values, &column.keys().values()[..], column.keys().nulls())
        })
        .collect();
    for row in 0..batch.num_rows() {
        let numbers = [
            Timestamp::from_micros(times[row]).zulu_micros(),
            // The shortest decimal that is read as the same double.
            format!("{:?}", values[row]),
            series[row].to_string(),
        ];
        let of_row = texts.iter().map(|(values, keys, nulls)| match nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            true => values[keys[row] as usize].as_str(),
            false => "",
        });
        writer.write_record(numbers.iter().map(String::as_str).chain(of_row)).map_err(NamesError::encode)?;
    }
    Ok(())
}

/// A text that a spreadsheet would run as a formula is made a text again, by the apostrophe that spreadsheets take for one.
fn defused(text: &str) -> String {
    let is_formula = text.starts_with(['\t', '\r', '\n']) || text.trim_start().starts_with(['=', '+', '-', '@']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}
