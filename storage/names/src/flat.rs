//! Points with their names as one flat table, for exports: read in parts, sent as frames, written to files.
//!
//! `walk → points of a page → batches of some thousand rows → frames → a file`
//!
//! A frame is 4 bytes length (little-endian) and an Arrow IPC stream of one batch; the last one has length 0, and 8 bytes with how many rows there were: whoever
//! reads knows then that nothing is missing. The server and the directory of a stopped one are read by the same frames. Native histograms are
//! left out: their points are words, and no values.

mod file;

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use orzo_index::Index;
use orzo_labels::LabelIndex;
use orzo_model::SeriesId;
use orzo_store::{Columns, Store};
use serde::{Deserialize, Serialize};

pub use self::file::{FlatFile, FlatForm, Tally};
use crate::{Name, Named, Names, NamesError, NamesWanted, Points};

/// Rows of one batch: names are said once in it, so that more make it smaller; this is about a MiB.
const BATCH_ROWS: usize = 65_536;
/// Bytes of a frame at most: a batch of series with labels of 64 KiB each is as large, and a longer one is no frame.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Texts of one batch, as long as one series does not have more.
const BATCH_TEXT_BYTES: usize = 16 << 20;
const DAY_MICROS: i64 = 86_400_000_000;
/// Columns with names, in this order behind the number.
const TEXTS: [(&str, Name); 4] =
    [("meter", Name::Meter), ("unit", Name::Unit), ("resource_id", Name::ResourceId), ("project_id", Name::ProjectId)];

/// Which points are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlatWanted {
    /// First microsecond.
    pub first: i64,
    /// Last microsecond, included.
    pub last: i64,
    /// Only of these projects; empty: of all.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Only of these meters; empty: of all.
    #[serde(default)]
    pub meters: Vec<String>,
}

impl FlatWanted {
    fn names(&self) -> NamesWanted {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list.dedup();
            list
        };
        let lists = [(Name::ProjectId, &self.projects), (Name::Meter, &self.meters)];
        let given = lists.into_iter().filter(|(_, list)| !list.is_empty());
        NamesWanted { series: None, texts: given.map(|(name, list)| (name, sorted(list))).collect() }
    }
}

/// The rooms that points and their names are in.
#[derive(Clone)]
pub struct Flat {
    /// Metrics.
    pub index: Arc<Index>,
    /// Label sets.
    pub labels: Option<Arc<LabelIndex>>,
    /// Points.
    pub store: Arc<Store>,
}

impl Flat {
    /// Days, counted from 1970-01-01 UTC, that have points; ascending. What is in memory only is written to files first.
    pub async fn days(&self) -> Result<Vec<i64>, NamesError> {
        self.store.flush().await?;
        let files = self.store.files();
        let mut days: Vec<i64> = files.iter().map(|file| file.oldest.micros().div_euclid(DAY_MICROS)).collect();
        days.sort_unstable();
        days.dedup();
        Ok(days)
    }

    /// Reads what is wanted and hands it on, frame by frame; stops when `take` says that nothing more is wanted. Gives the rows.
    pub async fn read<F>(
        &self,
        wanted: &FlatWanted,
        mut take: impl FnMut(Vec<u8>) -> F + Send,
    ) -> Result<u64, NamesError>
    where
        F: Future<Output = bool> + Send,
    {
        let names_wanted = wanted.names();
        let mut names = Names::new(&self.index, self.labels.as_deref(), &names_wanted);
        let mut points = Points::new(&self.store, wanted.first, wanted.last);
        let mut rows = 0;
        while let Some(mut page) = names.next().await? {
            page.sort_by_key(Named::series);
            let mut parts = points.of(&page);
            while let Some((some, found)) = parts.next().await? {
                let mut batches = Batches::new(some, &found);
                while let Some(batch) = batches.next_batch()? {
                    rows += batch.num_rows() as u64;
                    if !take(frame(&batch)?).await {
                        return Ok(rows);
                    }
                }
            }
        }
        take(end(rows)).await;
        Ok(rows)
    }
}

/// The schema of batches and files.
fn schema() -> SchemaRef {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("timestamp", time, false),
        Field::new("value", DataType::Float64, false),
        Field::new("series", DataType::Int64, false),
    ];
    fields.extend(TEXTS.iter().map(|(name, _)| Field::new(*name, text(), true)));
    fields.push(Field::new("labels", text(), true));
    Arc::new(Schema::new(fields))
}

/// Cuts the points of a part into batches.
struct Batches<'p> {
    some: &'p [Named],
    found: &'p [(SeriesId, Columns)],
    /// Point of the first of `found` that is next.
    from: usize,
}

impl<'p> Batches<'p> {
    fn new(some: &'p [Named], found: &'p [(SeriesId, Columns)]) -> Self {
        Self { some, found, from: 0 }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, NamesError> {
        let (mut times, mut values, mut series, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut names: Vec<&Named> = Vec::new();
        let (mut labels, mut bytes) = (Vec::new(), 0);
        while let Some((number, columns)) = self.found.first() {
            if times.len() >= BATCH_ROWS || bytes >= BATCH_TEXT_BYTES {
                break;
            }
            let place = self.some.binary_search_by_key(number, Named::series).ok();
            let until = columns.times.len().min(self.from + BATCH_ROWS - times.len());
            if let Some(named) = place.map(|place| &self.some[place]).filter(|_| self.from < until) {
                let mut json = Vec::new();
                named.write_labels(&mut json);
                bytes += json.len();
                labels.push(String::from_utf8(json).map_err(NamesError::encode)?);
                let key = names.len() as i32;
                names.push(named);
                times.extend_from_slice(&columns.times[self.from..until]);
                values.extend_from_slice(&columns.values[self.from..until]);
                series.resize(times.len(), number.0.cast_signed());
                keys.resize(times.len(), key);
            }
            self.from = until;
            if until == columns.times.len() {
                (self.found, self.from) = (&self.found[1..], 0);
            }
        }
        if times.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(Float64Array::from(values)),
            Arc::new(Int64Array::from(series)),
        ];
        for (_, name) in TEXTS {
            let texts: Vec<Option<&str>> = names.iter().map(|named| named.text(name)).collect();
            columns.push(Arc::new(by_series(&keys, &texts)?));
        }
        let texts: Vec<Option<&str>> = labels.iter().map(|labels| Some(labels.as_str())).collect();
        columns.push(Arc::new(by_series(&keys, &texts)?));
        RecordBatch::try_new(schema(), columns).map(Some).map_err(NamesError::encode)
    }
}

/// A text for each row, each said once.
fn by_series(keys: &[i32], texts: &[Option<&str>]) -> Result<DictionaryArray<Int32Type>, NamesError> {
    let values = StringArray::from_iter_values(texts.iter().map(|text| text.unwrap_or_default()));
    let keys: Int32Array = keys.iter().map(|key| texts[*key as usize].map(|_| *key)).collect();
    DictionaryArray::try_new(keys, Arc::new(values)).map_err(NamesError::encode)
}

fn frame(batch: &RecordBatch) -> Result<Vec<u8>, NamesError> {
    let mut writer = StreamWriter::try_new(vec![0; 4], &batch.schema()).map_err(NamesError::encode)?;
    writer.write(batch).map_err(NamesError::encode)?;
    let mut bytes = writer.into_inner().map_err(NamesError::encode)?;
    let length = u32::try_from(bytes.len() - 4).map_err(NamesError::encode)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn end(rows: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(rows.to_le_bytes());
    bytes
}

/// Batches out of frames that come in pieces of any size.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    rows: u64,
    is_whole: bool,
}

impl Frames {
    /// The batches that are whole with this piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<RecordBatch>, NamesError> {
        self.bytes.extend_from_slice(piece);
        let (mut batches, mut from) = (Vec::new(), 0);
        while let Some((head, rest)) = self.bytes[from..].split_first_chunk::<4>() {
            if self.is_whole {
                return Err(NamesError::Frames { reason: "something follows the end" });
            }
            let length = u32::from_le_bytes(*head) as usize;
            if length == 0 {
                let Some((rows, _)) = rest.split_first_chunk::<8>() else { break };
                if u64::from_le_bytes(*rows) != self.rows {
                    return Err(NamesError::Frames { reason: "rows are missing" });
                }
                self.is_whole = true;
                from += 12;
                continue;
            }
            if length > FRAME_BYTES_MAX {
                return Err(NamesError::Frames { reason: "one is too long" });
            }
            let Some(body) = rest.get(..length) else { break };
            for batch in StreamReader::try_new(body, None).map_err(NamesError::encode)? {
                let batch = batch.map_err(NamesError::encode)?;
                self.rows += batch.num_rows() as u64;
                batches.push(batch);
            }
            from += 4 + length;
        }
        self.bytes.drain(..from);
        Ok(batches)
    }

    /// All that was sent has come.
    pub fn finish(self) -> Result<u64, NamesError> {
        match self.is_whole && self.bytes.is_empty() {
            true => Ok(self.rows),
            false => Err(NamesError::Frames { reason: "the end is missing" }),
        }
    }
}
