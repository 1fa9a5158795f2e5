//! A run: lines through a profile into files, with a manifest and its signature.
//!
//! A run's id follows from what was asked for and from its watermark, the newest line that it takes. Asked for again with
//! that watermark it takes the same lines, whatever was rated since, and makes the same bytes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use futures::StreamExt;
use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, Ledger, LineFilter, RatedLine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    catalogue::Catalogue,
    cloudkitty,
    columns::FOCUS_1_2,
    error::ExportError,
    events,
    focus::Charge,
    profile::Profile,
    sheet::{CsvSheet, ParquetSheet},
    signature::{SigningKey, is_signed_by},
};

/// Name of the manifest.
pub const MANIFEST: &str = "Manifest.json";
/// What the names of runs begin with that are being written.
const STAGED: &str = ".tmp-";
/// Name of its signature.
pub const SIGNATURE: &str = "Manifest.json.sig";
/// Lines of one file: what a spreadsheet opens.
const FILE_LINES_MAX: u64 = 1_000_000;
/// A manifest is smaller: a thousand files have 200 kB.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// What ids of runs are made within.
const RUNS: Uuid = Uuid::from_u128(0x6f72_7a6f_7255_6e73_9b1e_27c4_5a60_8d13);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// In which format.
    pub profile: Profile,
    /// Rating periods from this one on.
    pub begin: Timestamp,
    /// Rating periods before this one.
    pub end: Timestamp,
    /// Of these projects only.
    pub scopes: Option<Vec<String>>,
    /// Lines rated until then only; without it all that are there.
    pub as_of: Option<Timestamp>,
    /// Lines rated later than that only: what an earlier run has not.
    pub rated_after: Option<Timestamp>,
}

/// A file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, beside the manifest.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Lines of the ledger in it.
    pub lines: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// What a run is and has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Follows from all that was asked for and the watermark.
    pub run: Uuid,
    /// The format's name.
    pub profile: String,
    /// Rating periods from this one on.
    pub begin: Timestamp,
    /// Rating periods before this one.
    pub end: Timestamp,
    /// Of these projects; all, where it is not there.
    pub projects: Option<Vec<String>>,
    /// Time of rating of the newest line; give it as `as_of` to get these bytes again.
    pub watermark: Option<Timestamp>,
    /// Lines rated later than that only, where it is there: those until then are in earlier runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rated_after: Option<Timestamp>,
    /// Lines of the ledger.
    pub lines: u64,
    /// Lines that the format has no word for (taxes where only usage can be said); their cost is not in its files.
    pub left_out: u64,
    /// Sum of the costs of all lines that are in the files, by currency, as decimals.
    pub totals: BTreeMap<String, String>,
    /// The columns, where the format is a table.
    pub columns: Vec<String>,
    /// The files, in order.
    pub files: Vec<FileEntry>,
    /// What the signature is checked with, Ed25519, in base64.
    pub public_key: String,
}

/// A run that is on disk.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its directory.
    pub directory: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// Whether it was there already, with the same bytes.
    pub was_there: bool,
}

/// The calendar month (UTC) that a moment is in.
pub(crate) fn month_of(time: Timestamp) -> (Timestamp, Timestamp) {
    let month = |year: i64, month: i64| {
        let text = format!("{year:04}-{month:02}-01T00:00:00Z");
        text.parse::<Timestamp>().unwrap_or(time)
    };
    let text = time.zulu_secs();
    let (year, number): (i64, i64) = (
        text.get(..4).and_then(|y| y.parse().ok()).unwrap_or(1970),
        text.get(5..7).and_then(|m| m.parse().ok()).unwrap_or(1),
    );
    let next = if number == 12 { month(year + 1, 1) } else { month(year, number + 1) };
    (month(year, number), next)
}

impl Request {
    fn filter(&self) -> LineFilter {
        LineFilter {
            scopes: self.scopes.clone(),
            begin: Some(self.begin),
            end: Some(self.end),
            rated_after: self.rated_after,
            ..LineFilter::default()
        }
    }

    fn takes(&self, line: &RatedLine) -> bool {
        self.as_of.is_none_or(|as_of| line.rated_at <= as_of)
    }

    fn run_id(&self, watermark: Option<Timestamp>) -> Uuid {
        let mut scopes = self.scopes.clone();
        if let Some(scopes) = &mut scopes {
            scopes.sort();
        }
        let mut what = vec![
            serde_json::json!(self.profile.name()),
            serde_json::json!(self.begin.micros()),
            serde_json::json!(self.end.micros()),
            serde_json::json!(scopes),
            serde_json::json!(watermark.map(Timestamp::micros)),
        ];
        // Not there where nothing was asked for: ids are for ever.
        what.extend(self.rated_after.map(|after| serde_json::json!(after.micros())));
        let what = serde_json::Value::from(what);
        Uuid::new_v5(&RUNS, what.to_string().as_bytes())
    }
}

/// Writes a run into a directory of its own below `into`. `progress` is told how many lines are written.
pub async fn export(
    ledger: &dyn Ledger,
    request: &Request,
    catalogue: &Catalogue,
    key: &SigningKey,
    into: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Run, ExportError> {
    if request.begin >= request.end {
        return Err(ExportError::Request(format!("nothing is between {} and {}", request.begin, request.end)));
    }
    // What is there decides what the run is called, and its name is in its files.
    let mut watermark = None;
    let mut lines = ledger.read(&request.filter()).await?;
    while let Some(line) = lines.next().await {
        let line = line?;
        if request.takes(&line) {
            watermark = watermark.max(Some(line.rated_at));
        }
    }
    if watermark.is_none() && request.rated_after.is_some() {
        return Err(ExportError::Nothing);
    }
    let request = Request { as_of: watermark.or(request.as_of), ..request.clone() };
    let run = request.run_id(watermark);
    let name = format!("{}-{run}", request.profile.name());
    sweep(into)?;
    let staged = into.join(format!("{STAGED}{name}"));
    if staged.exists() {
        return Err(ExportError::Request(format!("another process is writing {}", staged.display())));
    }
    std::fs::create_dir_all(&staged).map_err(ExportError::file("make", &staged))?;
    // Let go when it is dropped, and by a kill: what is not locked nobody writes any more.
    let lock = File::open(&staged).map_err(ExportError::file("lock", &staged))?;
    lock.try_lock().map_err(|error| ExportError::file("lock", &staged)(error.into()))?;
    let made = write(ledger, &request, catalogue, key, &staged, run, progress).await;
    let outcome = made.and_then(|manifest| publish(&staged, &into.join(name), manifest));
    if outcome.is_err() {
        // What was begun is of no use; the error that is told is the first one.
        let _ = std::fs::remove_dir_all(&staged);
    }
    outcome
}

/// Removes what killed exports have left below a directory. What is being written now stays. Gives how many there were.
pub fn sweep(into: &Path) -> Result<u64, ExportError> {
    let entries = match std::fs::read_dir(into) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(ExportError::file("read", into))?,
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry.map_err(ExportError::file("read", into))?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(STAGED)) {
            continue;
        }
        // Its writer may have given it its name, or removed it, since it was listed.
        let Ok(own) = File::open(&path) else { continue };
        if own.try_lock().is_ok() {
            std::fs::remove_dir_all(&path).map_err(ExportError::file("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// SHA-256 of a file, in hexadecimal digits.
pub fn digest_of(path: &Path) -> std::io::Result<String> {
    digest(path).map(|(_, digest)| digest)
}

fn publish(staged: &Path, directory: &Path, manifest: Manifest) -> Result<Run, ExportError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(ExportError::file("sync", path));
    sync(staged)?;
    let was_there = directory.exists();
    if was_there {
        // The same name is the same run, so it must be the same bytes.
        let earlier = check(directory, None)?;
        if earlier != manifest {
            return Err(ExportError::Changed(format!(
                "{} is there and was made of other lines, another catalogue or another key; move it away first",
                directory.display()
            )));
        }
        std::fs::remove_dir_all(staged).map_err(ExportError::file("remove", staged))?;
    } else {
        std::fs::rename(staged, directory).map_err(ExportError::file("name", directory))?;
        sync(directory.parent().unwrap_or(directory))?;
    }
    Ok(Run { directory: directory.to_owned(), manifest, was_there })
}

/// Holds a run's files against its manifest, and that against its signature: by the key in it, or by another.
pub fn check(directory: &Path, key: Option<&str>) -> Result<Manifest, ExportError> {
    let read = |name: &str| {
        let path = directory.join(name);
        let mut text = Vec::new();
        let file = File::open(&path).map_err(ExportError::file("read", &path))?;
        file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(ExportError::file("read", &path))?;
        Ok::<_, ExportError>(text)
    };
    let changed = |what: String| ExportError::Changed(format!("{}: {what}", directory.display()));
    let (text, signature) = (read(MANIFEST)?, read(SIGNATURE)?);
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| changed(format!("{MANIFEST} cannot be read: {error}")))?;
    if !is_signed_by(key.unwrap_or(&manifest.public_key), &text, &String::from_utf8_lossy(&signature)) {
        return Err(changed(format!("{SIGNATURE} is not this key's signature of {MANIFEST}")));
    }
    for file in &manifest.files {
        // Names come from the manifest, which may be anybody's.
        if file.name.contains('/') || file.name.starts_with('.') {
            return Err(changed(format!("`{}` is no name of a file of a run", file.name)));
        }
        let path = directory.join(&file.name);
        let (bytes, sha256) = digest(&path).map_err(ExportError::file("read", &path))?;
        if (bytes, &sha256) != (file.bytes, &file.sha256) {
            return Err(changed(format!("{} is not what was written: {bytes} bytes, SHA-256 {sha256}", file.name)));
        }
    }
    Ok(manifest)
}

fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut hash, mut part) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    let mut bytes = 0;
    loop {
        let count = file.read(&mut part)?;
        if count == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(&part[..count]);
        bytes += count as u64;
    }
}

/// A file that is written, and what is known of it.
struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A file that is being written, in its format.
enum Sheet {
    Csv(CsvSheet<Hashing>),
    Parquet(ParquetSheet<Hashing>),
    Frames { out: Hashing, frame: cloudkitty::Frame, is_first: bool },
    Lines(Hashing),
}

impl Sheet {
    fn begin(profile: Profile, path: &Path) -> std::io::Result<Self> {
        let out = Hashing { file: BufWriter::new(File::create_new(path)?), hash: Sha256::new(), bytes: 0 };
        Ok(match profile {
            Profile::FocusCsv => {
                let names: Vec<_> = FOCUS_1_2.iter().map(|column| column.name).collect();
                Self::Csv(CsvSheet::new(out, &names)?)
            }
            Profile::FocusParquet => Self::Parquet(ParquetSheet::new(out, FOCUS_1_2)?),
            Profile::CloudkittyCsv => Self::Csv(CsvSheet::new(out, cloudkitty::CSV_COLUMNS)?),
            Profile::CloudkittyDataframes => {
                let mut out = out;
                out.write_all(b"{\"dataframes\": [")?;
                Self::Frames { out, frame: cloudkitty::Frame::default(), is_first: true }
            }
            Profile::CloudEvents | Profile::StripeMeterEvents | Profile::LagoEvents => Self::Lines(out),
        })
    }

    fn end(self) -> std::io::Result<Hashing> {
        match self {
            Self::Csv(sheet) => sheet.end(),
            Self::Parquet(sheet) => sheet.end(),
            Self::Lines(out) => Ok(out),
            Self::Frames { mut out, mut frame, is_first } => {
                if let Some(text) = frame.take() {
                    out.write_all(if is_first { b"\n" } else { b",\n" })?;
                    out.write_all(text.as_bytes())?;
                }
                out.write_all(b"\n]}\n")?;
                Ok(out)
            }
        }
    }
}

/// Where lines go: files of at most so many lines.
struct Files<'a> {
    profile: Profile,
    catalogue: &'a Catalogue,
    directory: &'a Path,
    run: Uuid,
    open: Option<(String, Sheet, u64)>,
    ended: Vec<FileEntry>,
}

impl Files<'_> {
    /// Writes a line; false if the format has no word for it.
    fn take(&mut self, line: &RatedLine) -> Result<bool, ExportError> {
        let event = match self.profile {
            Profile::CloudEvents => Some(events::cloud_event(line, self.catalogue)),
            Profile::StripeMeterEvents => Some(events::stripe_event(line, self.catalogue)?),
            Profile::LagoEvents => Some(events::lago_event(line, self.catalogue)),
            _ => None,
        };
        if matches!(event, Some(None)) {
            return Ok(false);
        }
        let failed = |directory: &Path| ExportError::file("write", directory);
        if self.open.as_ref().is_some_and(|(_, _, lines)| *lines == FILE_LINES_MAX) {
            self.end()?;
        }
        if self.open.is_none() {
            let name = format!("part-{:05}.{}", self.ended.len() + 1, self.profile.extension());
            let sheet = Sheet::begin(self.profile, &self.directory.join(&name)).map_err(failed(self.directory))?;
            self.open = Some((name, sheet, 0));
        }
        let (_, sheet, lines) = self.open.as_mut().expect("opened above");
        *lines += 1;
        let charge = Charge::new(line, self.catalogue, self.run);
        let cells = || FOCUS_1_2.iter().map(|column| (column.value)(&charge));
        let written = match sheet {
            Sheet::Csv(sheet) if self.profile == Profile::FocusCsv => sheet.row(cells()),
            Sheet::Csv(sheet) => sheet.row(cloudkitty::csv_row(line)),
            Sheet::Parquet(sheet) => sheet.row(cells().collect()),
            Sheet::Lines(out) => writeln!(out, "{}", event.flatten().unwrap_or_default()),
            Sheet::Frames { out, frame, is_first } => {
                let full = if frame.takes(line) { None } else { frame.take() };
                let written = full.map_or(Ok(()), |text| {
                    let comma = if *is_first { "\n" } else { ",\n" };
                    *is_first = false;
                    write!(out, "{comma}{text}")
                });
                frame.add(line);
                written
            }
        };
        written.map_err(failed(self.directory))?;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), ExportError> {
        let Some((name, sheet, lines)) = self.open.take() else { return Ok(()) };
        let path = self.directory.join(&name);
        let ended = sheet.end().and_then(|mut out| {
            out.flush()?;
            out.file.get_ref().sync_all()?;
            Ok((out.bytes, hex::encode(out.hash.finalize())))
        });
        let (bytes, sha256) = ended.map_err(ExportError::file("write", &path))?;
        self.ended.push(FileEntry { name, bytes, lines, sha256 });
        Ok(())
    }
}

/// A line's place in the ledger's order but for its id.
fn seat(line: &RatedLine) -> (Timestamp, &str, &str, &str, Timestamp, u32) {
    let (period, scope, service, resource, begin, sequence, _) = line.place();
    (period, scope, service, resource, begin, sequence)
}

async fn write(
    ledger: &dyn Ledger,
    request: &Request,
    catalogue: &Catalogue,
    key: &SigningKey,
    directory: &Path,
    run: Uuid,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Manifest, ExportError> {
    let mut files = Files { profile: request.profile, catalogue, directory, run, open: None, ended: Vec::new() };
    let mut totals: BTreeMap<String, BigDecimal> = BTreeMap::new();
    let (mut count, mut left_out) = (0, 0);
    let mut lines = ledger.read(&request.filter()).await?;
    let mut peers: Vec<RatedLine> = Vec::new();
    loop {
        let next = lines.next().await.transpose()?;
        if next.as_ref().is_some_and(|line| !request.takes(line)) {
            continue;
        }
        let is_peer = |line: &RatedLine| peers.first().is_none_or(|first| seat(first) == seat(line));
        if !next.as_ref().is_some_and(is_peer) {
            // Lines that differ in their ids alone have no order of their own; Stripe cancels only what it has.
            peers.sort_by_key(|line| request.profile == Profile::StripeMeterEvents && line.reverses);
            for line in peers.drain(..) {
                count += 1;
                if files.take(&line)? {
                    *totals.entry(line.currency.clone()).or_default() += &line.cost;
                } else {
                    left_out += 1;
                }
                progress(count);
            }
        }
        let Some(line) = next else { break };
        peers.push(line);
    }
    files.end()?;
    let has_currency = !matches!(request.profile, Profile::CloudkittyCsv | Profile::CloudkittyDataframes);
    if totals.len() > 1 && !has_currency {
        let codes: Vec<&str> = totals.keys().map(String::as_str).collect();
        return Err(ExportError::Request(format!(
            "{} says no currency, and these lines have several ({}); name projects of one, or take a format of FOCUS",
            request.profile.name(),
            codes.join(", ")
        )));
    }
    let columns = match request.profile {
        Profile::FocusCsv | Profile::FocusParquet => FOCUS_1_2.iter().map(|column| column.name.to_owned()).collect(),
        Profile::CloudkittyCsv => cloudkitty::CSV_COLUMNS.iter().map(|name| (*name).to_owned()).collect(),
        _ => Vec::new(),
    };
    let manifest = Manifest {
        run,
        profile: request.profile.name().to_owned(),
        begin: request.begin,
        end: request.end,
        projects: request.scopes.clone(),
        rated_after: request.rated_after,
        watermark: if count == 0 { None } else { request.as_of },
        lines: count,
        left_out,
        totals: totals.into_iter().map(|(currency, sum)| (currency, sum.normalized().to_plain_string())).collect(),
        columns,
        files: files.ended,
        public_key: key.public(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    text.push(b'\n');
    for (name, bytes) in [(MANIFEST, text.as_slice()), (SIGNATURE, (key.sign(&text) + "\n").as_bytes())] {
        let path = directory.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(ExportError::file("write", &path))?;
    }
    Ok(manifest)
}
