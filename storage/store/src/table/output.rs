//! Sorted points of one day to as few files as the limit of their rows allows.

use orzo_model::SeriesId;

use super::{Table, contents::Row, data_file::DataFile, day::Day, encode::Encoder};
use crate::error::StoreError;

/// Files of one day and generation that are being made.
pub(crate) struct Output {
    day: Day,
    generation: u64,
    rows_max: u64,
    /// About how many will come.
    rows_expected: usize,
    ordinal: usize,
    encoder: Option<Encoder>,
}

impl Output {
    pub(crate) fn new(day: Day, generation: u64, rows_max: usize, rows_expected: usize) -> Self {
        Self { day, generation, rows_max: rows_max as u64, rows_expected, ordinal: 0, encoder: None }
    }

    /// Takes rows of a series on; a file that is full is written, durably, and added to `written`.
    pub(crate) fn push<T: Row>(
        &mut self,
        table: &Table,
        series: SeriesId,
        mut run: &[T],
        written: &mut Vec<DataFile>,
    ) -> Result<(), StoreError> {
        while !run.is_empty() {
            let mut encoder = match self.encoder.take() {
                Some(encoder) => encoder,
                None => Encoder::new(self.rows_expected).map_err(|error| self.failed(table, error))?,
            };
            let room = usize::try_from(self.rows_max.saturating_sub(encoder.rows())).unwrap_or(usize::MAX);
            let (now, later) = run.split_at(room.min(run.len()));
            encoder.push_run(series, now).map_err(|error| self.failed(table, error))?;
            run = later;
            let is_full = encoder.rows() >= self.rows_max;
            self.encoder = Some(encoder);
            if is_full {
                self.finish(table, written)?;
            }
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(&mut self, table: &Table, written: &mut Vec<DataFile>) -> Result<(), StoreError> {
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let encoded = encoder.finish().map_err(|error| self.failed(table, error))?;
        written.push(table.write_file(self.day, self.generation, self.ordinal, &encoded)?);
        self.ordinal += 1;
        Ok(())
    }

    fn failed(&self, table: &Table, error: parquet::errors::ParquetError) -> StoreError {
        StoreError::Io {
            action: "encode",
            path: table.root.join(self.day.directory()),
            source: std::io::Error::other(error),
        }
    }
}
