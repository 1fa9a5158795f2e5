//! Tables whose rows are asked of the other side: what it can hold of a query's conditions goes with the question, rows
//! come back as names of series and their points, and are put together here.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{cast, take},
    datatypes::{SchemaRef, UInt32Type},
    error::ArrowError,
    ipc::reader::StreamReader,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    message::{self, Asked, Frame, Told},
    pushed,
    tables::{Column, Table, Wanted, schema},
};

/// What comes of a scan: a block of rows, its end, or why there is none. As many as were asked for, so the queue needs no
/// limit of its own.
type Rows = std::result::Result<Vec<u8>, Option<String>>;

/// The scans of a query, over the one socket.
#[derive(Debug)]
pub(super) struct Scans {
    socket: Mutex<UnixStream>,
    waiting: Mutex<HashMap<u32, UnboundedSender<Rows>>>,
    next: AtomicU32,
}

impl Scans {
    pub(super) fn new(socket: UnixStream) -> Arc<Self> {
        Arc::new(Self { socket: Mutex::new(socket), waiting: Mutex::default(), next: AtomicU32::new(0) })
    }

    /// Sends a message. The other side always reads, so this does not wait long.
    pub(super) fn ask(&self, asked: &impl Serialize) -> io::Result<()> {
        message::write(&mut *self.socket.lock(), &message::message(asked)?)
    }

    /// Sends a part of the answer.
    pub(super) fn give(&self, part: &[u8]) -> io::Result<()> {
        message::write(&mut *self.socket.lock(), &message::block(&[part])?)
    }

    /// Takes what was read from the socket to whoever waits for it.
    pub(super) fn heard(&self, frame: Frame<Told>) {
        let (scan, rows) = match frame {
            Frame::Block(block) => match block.first_chunk::<4>() {
                Some(scan) => (u32::from_le_bytes(*scan), Ok(block)),
                None => return,
            },
            Frame::Message(Told::End { scan }) => (scan, Err(None)),
            Frame::Message(Told::Failed { scan, reason }) => (scan, Err(Some(reason))),
            Frame::Message(Told::Begin(_)) => return,
        };
        let waiting = self.waiting.lock().get(&scan).cloned();
        if let Some(waiting) = waiting {
            // Whoever has gone in the meantime has said so.
            let _ = waiting.send(rows);
        }
    }

    /// Nobody will send anything any more.
    pub(super) fn closed(&self) {
        self.waiting.lock().clear();
    }

    fn open(self: &Arc<Self>, wanted: &Wanted) -> io::Result<Scan> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, rows) = unbounded_channel();
        self.waiting.lock().insert(number, sender);
        let scan = Scan { number, rows, scans: self.clone() };
        self.ask(&Asked::Scan { scan: number, wanted: wanted.clone() })?;
        Ok(scan)
    }
}

/// One scan; dropped, it is stopped.
struct Scan {
    number: u32,
    rows: UnboundedReceiver<Rows>,
    scans: Arc<Scans>,
}

impl Scan {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self.rows.recv().await {
            Some(Ok(block)) => {
                self.scans.ask(&Asked::More { scan: self.number }).map_err(DataFusionError::IoError)?;
                Ok(Some(block))
            }
            Some(Err(None)) => Ok(None),
            Some(Err(Some(reason))) => Err(DataFusionError::Execution(reason)),
            None => Err(DataFusionError::Execution("the other side has closed the socket".to_owned())),
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.scans.waiting.lock().remove(&self.number);
        // If the socket is gone, so is the scan.
        let _ = self.scans.ask(&Asked::Stop { scan: self.number });
    }
}

/// A table of a query.
#[derive(Debug)]
pub(super) struct SqlTable {
    table: Table,
    schema: SchemaRef,
    scans: Arc<Scans>,
}

impl SqlTable {
    pub(super) fn new(table: Table, scans: Arc<Scans>) -> Self {
        Self { table, schema: schema(&table.columns()), scans }
    }
}

#[async_trait]
impl TableProvider for SqlTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let can = |filter: &&Expr| match pushed::pushed(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(can).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = self.table.columns();
        let columns: Vec<Column> = match projection {
            Some(places) => places.iter().filter_map(|place| all.get(*place).copied()).collect(),
            None => all,
        };
        let mut wanted = Wanted::all(self.table, columns);
        filters.iter().filter_map(pushed::pushed).for_each(|one| pushed::add(&mut wanted, one));
        let schema = schema(&wanted.columns);
        let rows = Arc::new(Asking { wanted, schema: schema.clone(), scans: self.scans.clone() });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], None, [], false, limit)?))
    }
}

/// A question that is asked when the plan is run.
#[derive(Debug)]
struct Asking {
    wanted: Wanted,
    schema: SchemaRef,
    scans: Arc<Scans>,
}

impl PartitionStream for Asking {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (wanted, schema) = (self.wanted.clone(), self.schema.clone());
        let scan = self.scans.open(&self.wanted).map_err(DataFusionError::IoError);
        let batches = futures::stream::unfold(Some(scan), move |scan| {
            let (wanted, schema) = (wanted.clone(), schema.clone());
            async move {
                let mut scan = match scan? {
                    Ok(scan) => scan,
                    Err(error) => return Some((Err(error), None)),
                };
                match scan.next().await {
                    Ok(Some(block)) => {
                        let batch = rows_of(&wanted, &schema, &block).map_err(DataFusionError::from);
                        Some((batch, Some(Ok(scan))))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// Puts the rows of a block together: the scan's number, the length of what follows, names of series and how many points
/// each has, then the points.
fn rows_of(wanted: &Wanted, schema: &SchemaRef, block: &[u8]) -> std::result::Result<RecordBatch, ArrowError> {
    let short = || ArrowError::IpcError("a block of rows is cut off".to_owned());
    let length = block.get(4..).and_then(<[u8]>::first_chunk::<4>).ok_or_else(short)?;
    let (names, points) = block[8..].split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let names = batch_of(names)?.ok_or_else(short)?;
    let points = batch_of(points)?;
    let places = match wanted.table.has_points() {
        true => {
            let counts = names.column_by_name("points").ok_or_else(short)?.as_primitive::<UInt32Type>().values().iter();
            let places = (0..).zip(counts).flat_map(|(place, count)| std::iter::repeat_n(place, *count as usize));
            Some(UInt32Array::from_iter_values(places))
        }
        false => None,
    };
    let rows = places.as_ref().map_or(names.num_rows(), |places| places.values().len());
    let column =
        |(column, field): (&Column, &Arc<arrow::datatypes::Field>)| -> std::result::Result<ArrayRef, ArrowError> {
            let source = if column.is_name() { Some(&names) } else { points.as_ref() };
            let array = source.and_then(|source| source.column_by_name(column.name())).ok_or_else(short)?;
            let array = match array.data_type() == field.data_type() {
                true => array.clone(),
                false => cast(array, field.data_type())?,
            };
            match places.as_ref().filter(|_| column.is_name()) {
                Some(places) => take(&array, places, None),
                None => Ok(array),
            }
        };
    let columns = wanted.columns.iter().zip(schema.fields()).map(column).collect::<std::result::Result<_, _>>()?;
    RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// The one batch of a stream; `None` of no bytes.
fn batch_of(bytes: &[u8]) -> std::result::Result<Option<RecordBatch>, ArrowError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    StreamReader::try_new(bytes, None)?.next().transpose()
}
