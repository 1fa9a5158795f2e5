//! Rows of the table `series`: the schema that other engines see, one file's rows under construction, and what identifies them.
//! Pure.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use crate::{Name, Named, NamesError};

/// The layout of rows. What identifies a file begins with it, so that all files are written anew when it changes.
pub(crate) const FORMAT: u32 = 1;

/// The columns of texts, and what other engines are told of them.
const TEXTS: [(&str, Name, &str); 9] = [
    ("metric_id", Name::MetricId, "UUID of the metric; null for label sets"),
    ("meter", Name::Meter, "name of the metric, or the label __name__"),
    ("unit", Name::Unit, ""),
    ("archive_policy", Name::ArchivePolicy, ""),
    ("resource_id", Name::ResourceId, "UUID of the resource; null for label sets"),
    ("original_resource_id", Name::OriginalResourceId, "the text that the resource was created with"),
    ("resource_type", Name::ResourceType, ""),
    ("project_id", Name::ProjectId, "who owns the resource, or has written the label set"),
    ("user_id", Name::UserId, ""),
];
const LABELS: &str = "labels of a label set or attributes of the resource, a JSON object of texts";
const UTC: &str = "UTC";

/// The schema of a file.
pub(crate) fn arrow_schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let mut fields = vec![Field::new("series", DataType::Int64, false)];
    fields.extend(TEXTS.iter().map(|(name, ..)| Field::new(*name, DataType::Utf8, true)));
    fields.push(Field::new("labels", DataType::Utf8, false));
    fields.extend(["started_at", "ended_at"].map(|name| Field::new(name, time(), true)));
    Arc::new(Schema::new(fields))
}

/// The same in Delta's words.
pub(crate) fn delta_schema() -> String {
    let field = |name: &str, kind: &str, nullable: bool, comment: &str| {
        let metadata = if comment.is_empty() { json!({}) } else { json!({"comment": comment}) };
        json!({"name": name, "type": kind, "nullable": nullable, "metadata": metadata})
    };
    let mut fields = vec![field("series", "long", false, "number of the series in the table samples")];
    fields.extend(TEXTS.iter().map(|(name, _, comment)| field(name, "string", true, comment)));
    fields.push(field("labels", "string", false, LABELS));
    fields.push(field("started_at", "timestamp", true, "since when the resource exists"));
    fields.push(field("ended_at", "timestamp", true, "until when it existed"));
    json!({"type": "struct", "fields": fields}).to_string()
}

/// Rows of the next file.
pub(crate) struct Rows {
    series: Int64Builder,
    texts: Vec<StringBuilder>,
    labels: StringBuilder,
    times: [TimestampMicrosecondBuilder; 2],
    hash: Xxh3,
    json: Vec<u8>,
    /// First and last series.
    range: (i64, i64),
    count: usize,
    bytes: usize,
}

impl Rows {
    pub(crate) fn new() -> Self {
        let mut hash = Xxh3::new();
        hash.update(&FORMAT.to_le_bytes());
        Self {
            series: Int64Builder::new(),
            texts: TEXTS.iter().map(|_| StringBuilder::new()).collect(),
            labels: StringBuilder::new(),
            times: [(); 2].map(|()| TimestampMicrosecondBuilder::new().with_timezone(UTC)),
            hash,
            json: Vec::new(),
            range: (i64::MAX, i64::MIN),
            count: 0,
            bytes: 0,
        }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, named: &Named) -> Result<(), NamesError> {
        let series = named.series().0.cast_signed();
        self.range = (self.range.0.min(series), self.range.1.max(series));
        self.series.append_value(series);
        self.hash.update(&series.to_le_bytes());
        for (builder, (_, name, _)) in self.texts.iter_mut().zip(TEXTS) {
            let text = named.text(name);
            builder.append_option(text);
            // Length first, so that no two rows are the same bytes; nothing is told apart from an empty text.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            self.hash.update(&length.to_le_bytes());
            self.hash.update(text.unwrap_or_default().as_bytes());
            self.bytes += text.map_or(0, str::len);
        }
        self.json.clear();
        named.write_labels(&mut self.json);
        self.hash.update(&(self.json.len() as u64).to_le_bytes());
        self.hash.update(&self.json);
        self.labels.append_value(std::str::from_utf8(&self.json).map_err(NamesError::encode)?);
        let (started_at, ended_at) = named.life();
        for (builder, time) in self.times.iter_mut().zip([started_at, ended_at]) {
            builder.append_option(time);
            self.hash.update(&[u8::from(time.is_some())]);
            self.hash.update(&time.unwrap_or_default().to_le_bytes());
        }
        self.bytes += self.json.len();
        self.count += 1;
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of texts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// First and last series.
    pub(crate) fn range(&self) -> (i64, i64) {
        self.range
    }

    /// What identifies these rows: the same in the same order have the same.
    pub(crate) fn content(&self) -> String {
        format!("{:032x}", self.hash.digest128())
    }

    /// A file's bytes.
    pub(crate) fn parquet(mut self) -> Result<Vec<u8>, NamesError> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.series.finish())];
        columns.extend(self.texts.iter_mut().map(|builder| -> ArrayRef { Arc::new(builder.finish()) }));
        columns.push(Arc::new(self.labels.finish()));
        columns.extend(self.times.iter_mut().map(|builder| -> ArrayRef { Arc::new(builder.finish()) }));
        let batch = RecordBatch::try_new(arrow_schema(), columns).map_err(NamesError::encode)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(NamesError::encode)?))
            // Each is there once.
            .set_column_dictionary_enabled("series".into(), false)
            .set_column_dictionary_enabled("metric_id".into(), false)
            .build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, arrow_schema(), Some(properties)).map_err(NamesError::encode)?;
        writer.write(&batch).map_err(NamesError::encode)?;
        writer.close().map_err(NamesError::encode)?;
        Ok(bytes)
    }
}
