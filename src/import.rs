//! Samples of another Prometheus (or what speaks its remote read) become ours: bit for bit, resumable, compared at the end. What comes from a
//! Gnocchi is in `gnocchi.rs`.
//!
//! `names → windows → remote read → remote write → journal`, then `remote read here → compare`. Each name is read window by
//! window; how long a window is follows from how much came back. What is durable here is noted in the journal, so that an
//! import that was stopped goes on; what was in between is written again, which changes nothing. Of every window the
//! journal has the count and an order-independent hash of what was read there, and the comparison reads the same windows
//! here: equal hashes mean equal labels, times and bits.

pub(crate) mod gnocchi;
mod journal;
mod peer;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use orzo_api::remote::{RemoteError, RemoteSeries, WriteBodies, each_series, read_request};

pub(crate) use journal::Journal;
use journal::Window;
pub(crate) use peer::{Login, Peer};

/// Samples that one window should have: a tenth of a second of writing, and small beside Prometheus' own limit of 50
/// million for one read.
const WINDOW_SAMPLES: u64 = 400_000;
/// The shortest window.
const WINDOW_MS_MIN: i64 = 60_000;
/// The longest one.
const WINDOW_MS_MAX: i64 = 31 * 86_400_000;
/// The first one of a name.
const WINDOW_MS_FIRST: i64 = 6 * 3_600_000;
/// The most that an answer may take in memory.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Samples of one request of remote write.
const BODY_SAMPLES: usize = 50_000;

/// What is imported.
pub(crate) struct Plan {
    pub(crate) start_ms: i64,
    /// Included.
    pub(crate) end_ms: i64,
    /// A regular expression of metric names.
    pub(crate) names: String,
    pub(crate) journal: PathBuf,
}

/// What came of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) name: String,
    /// Samples there.
    pub(crate) read: u64,
    /// Samples here.
    pub(crate) found: u64,
    /// Whether their labels, times and values are the same.
    pub(crate) is_equal: bool,
}

/// A count of samples and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) samples: u64,
    pub(crate) hash: u128,
}

impl Tally {
    fn add(&mut self, series: &RemoteSeries) {
        let labels = xxhash_rust::xxh3::xxh3_128(&series.labels).to_le_bytes();
        for (time, bits) in &series.samples {
            let mut bytes = [0; 32];
            bytes[..16].copy_from_slice(&labels);
            bytes[16..24].copy_from_slice(&time.to_le_bytes());
            bytes[24..].copy_from_slice(&bits.to_le_bytes());
            self.hash = self.hash.wrapping_add(xxhash_rust::xxh3::xxh3_128(&bytes));
        }
        self.samples += series.samples.len() as u64;
    }
}

/// Reads there and writes here. Gives the journal, with everything in it.
pub(crate) async fn copy(plan: &Plan, there: &Peer, here: &Peer, bar: &ProgressBar) -> anyhow::Result<Journal> {
    let mut journal = Journal::open(&plan.journal, there.url(), plan.start_ms, plan.end_ms)?;
    let names =
        there.names(&plan.names, plan.start_ms, plan.end_ms).await.context("cannot ask for the metrics' names")?;
    let span = (plan.end_ms - plan.start_ms + 1).unsigned_abs() / 1000;
    bar.set_length(span.max(1) * names.len() as u64);
    for (number, name) in names.iter().enumerate() {
        bar.set_message(name.clone());
        let (mut from, mut length) = (journal.behind(name).map_or(plan.start_ms, |end| end + 1), WINDOW_MS_FIRST);
        while from <= plan.end_ms {
            let until = from.saturating_add(length - 1).min(plan.end_ms);
            match window(there, here, name, from, until).await? {
                None if length > WINDOW_MS_MIN => length = (length / 4).max(WINDOW_MS_MIN),
                None => bail!("{name}: a minute from {from} ms on has more samples than {} gives at once", there.url()),
                Some(tally) => {
                    journal.note(&Window { name: name.clone(), from, until, tally })?;
                    if tally.samples < WINDOW_SAMPLES / 3 {
                        length = (length * 2).min(WINDOW_MS_MAX);
                    } else if tally.samples > WINDOW_SAMPLES * 2 {
                        length = (length / 2).max(WINDOW_MS_MIN);
                    }
                    from = until + 1;
                }
            }
            let done = (from - plan.start_ms).unsigned_abs() / 1000;
            bar.set_position(span * number as u64 + done.min(span));
        }
    }
    journal.sync()?;
    Ok(journal)
}

/// One window of a name; `None`: it is too large for one answer.
async fn window(there: &Peer, here: &Peer, name: &str, from: i64, until: i64) -> anyhow::Result<Option<Tally>> {
    let Some(answer) = there.read(read_request(&[("=", "__name__", name)], from, until)).await? else {
        return Ok(None);
    };
    let (mut bodies, mut full, mut tally) = (WriteBodies::new(BODY_SAMPLES), Vec::new(), Tally::default());
    let taken = each_series(&answer, ANSWER_BYTES_MAX, |series| {
        tally.add(series);
        bodies.push(series, |body, _| full.push(body));
    });
    match taken {
        Ok(()) => {}
        Err(RemoteError::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{name} from {}", there.url())),
    }
    full.extend(bodies.finish().map(|(body, _)| body));
    for body in full {
        here.write(Arc::new(body)).await.with_context(|| format!("{name}, from {from} to {until} ms"))?;
    }
    Ok(Some(tally))
}

/// Reads every window of the journal here and holds it against what was read there.
pub(crate) async fn compare(journal: &Journal, here: &Peer, bar: &ProgressBar) -> anyhow::Result<Vec<Compared>> {
    bar.set_length(journal.windows().len().max(1) as u64);
    bar.set_position(0);
    let mut compared: Vec<Compared> = Vec::new();
    for window in journal.windows() {
        bar.set_message(window.name.clone());
        let found = tally_of(here, window).await?;
        if compared.last().is_none_or(|last| last.name != window.name) {
            compared.push(Compared { name: window.name.clone(), is_equal: true, ..Compared::default() });
        }
        let last = compared.last_mut().expect("one was pushed if there was none");
        last.read += window.tally.samples;
        last.found += found.samples;
        last.is_equal &= found == window.tally;
        bar.inc(1);
    }
    Ok(compared)
}

/// A window that is too large for one answer is read in halves.
async fn tally_of(here: &Peer, window: &Window) -> anyhow::Result<Tally> {
    let (mut tally, mut open) = (Tally::default(), vec![(window.from, window.until)]);
    while let Some((from, until)) = open.pop() {
        let answer = here.read(read_request(&[("=", "__name__", &window.name)], from, until)).await?;
        let mut part = Tally::default();
        let taken = answer.map(|answer| each_series(&answer, ANSWER_BYTES_MAX, |series| part.add(series)));
        match taken {
            Some(Ok(())) => {
                tally.samples += part.samples;
                tally.hash = tally.hash.wrapping_add(part.hash);
            }
            Some(Err(RemoteError::TooLarge { .. })) | None if from < until => {
                let middle = from + (until - from) / 2;
                open.extend([(from, middle), (middle + 1, until)]);
            }
            Some(Err(error)) => return Err(error).context("the answer of this server"),
            None => bail!("{}: a millisecond has more samples than one answer", window.name),
        }
    }
    Ok(tally)
}
