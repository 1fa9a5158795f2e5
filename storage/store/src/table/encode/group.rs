//! A row group's values: which are numbers and which doubles, and where pages of them are cut.

use orzo_model::SeriesId;

use super::super::{
    columns::{self, Form},
    noise::{self, Numbers},
    packing::{self, Widths},
    widths,
};

/// A row group's values in their two forms.
pub(super) struct Group {
    pub(super) runs: Vec<GroupRun>,
    pub(super) is_number: Vec<bool>,
    pub(super) numbers: Vec<i64>,
    /// How wide differences of so many numbers each are written, one after the other.
    pub(super) widths: Vec<(usize, Widths)>,
    pub(super) doubles: Vec<f64>,
}

pub(super) struct GroupRun {
    pub(super) series: u64,
    pub(super) rows: usize,
    pub(super) form: Form,
    /// Whether its numbers are kept by their bytes and not by differences.
    pub(super) is_noise: bool,
}

impl Group {
    /// Of series with so many rows each, and the bits of their values.
    pub(super) fn of(series: &[(SeriesId, usize)], mut values: Vec<i64>) -> Self {
        let mut group = Self {
            runs: Vec::with_capacity(series.len()),
            is_number: Vec::with_capacity(values.len()),
            numbers: Vec::new(),
            widths: Vec::new(),
            doubles: Vec::new(),
        };
        let (mut at, mut written, mut counts) = (0, 0, Vec::with_capacity(series.len()));
        let (mut doubles, mut split) = (Vec::new(), Vec::new());
        for (series, rows) in series {
            let (run, before) = (at..at + rows, written);
            at = run.end;
            let form = match columns::whole(&mut values[run.clone()]) {
                Some(form) => {
                    group.is_number.resize(run.end, true);
                    if written < run.start {
                        values.copy_within(run, written);
                    }
                    written += rows;
                    form
                }
                None => {
                    doubles.clear();
                    doubles.extend(values[run].iter().map(|value| f64::from_bits(*value as u64)));
                    let form = columns::split(&doubles, &mut split);
                    for (value, number) in doubles.iter().zip(&split) {
                        group.is_number.push(number.is_some());
                        match number {
                            Some(number) => {
                                values[written] = *number;
                                written += 1;
                            }
                            None => group.doubles.push(*value),
                        }
                    }
                    form
                }
            };
            counts.push(Numbers { series: *series, rows: *rows, count: written - before });
            group.runs.push(GroupRun { series: series.0, rows: *rows, form, is_noise: false });
        }
        values.truncate(written);
        group.numbers = values;
        let noise = noise::find(&counts, &group.numbers);
        for (run, is_noise) in group.runs.iter_mut().zip(&noise) {
            run.is_noise = *is_noise;
        }
        group.widths = widths::find(&counts, &noise, &group.numbers);
        group
    }
}

/// Cuts runs into pages of about `rows` rows; a run of fewer rows than half of that again lies in one page.
pub(super) fn cut(runs: &[GroupRun], rows: usize) -> Vec<usize> {
    let rows_max = rows + rows / 2;
    let (mut pages, mut page) = (Vec::new(), 0);
    for run in runs {
        if page > 0 && page + run.rows > rows_max {
            pages.push(page);
            page = 0;
        }
        page += run.rows;
        while page > rows_max {
            pages.push(rows);
            page -= rows;
        }
    }
    if page > 0 {
        pages.push(page);
    }
    pages
}

/// Takes the parts of the next `count` numbers off the beginning.
pub(super) fn take_parts(parts: &mut &[(usize, Widths)], taken: &mut usize, count: usize) -> Vec<(usize, Widths)> {
    let (mut of_page, mut left) = (Vec::new(), count);
    while left > 0
        && let Some(((numbers, widths), rest)) = parts.split_first()
    {
        let now = left.min(numbers - *taken);
        of_page.push((now, *widths));
        (left, *taken) = (left - now, *taken + now);
        if *taken == *numbers {
            (*parts, *taken) = (rest, 0);
        }
    }
    of_page
}

/// Parquet's definition levels: which rows have a value in a column.
pub(super) fn put_levels(is_number: &[bool], of_numbers: bool, body: &mut Vec<u8>) {
    body.clear();
    body.extend_from_slice(&[0; 4]);
    let runs = is_number.chunk_by(|a, b| a == b).map(|run| (run.len(), u8::from(run[0] == of_numbers)));
    packing::put_runs(runs, body);
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
}
