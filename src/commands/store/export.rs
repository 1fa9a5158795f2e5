//! `orzo store export`: points with their names, day by day, as files that everybody reads.
//!
//! `days that have points → stream of one day → a file under a temporary name → its name → the manifest`
//!
//! `--server` asks a running server; without it the directory of a stopped one is read, by the same stream. Memory is that of some
//! batches, however much there is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use orzo_database::Database;
use orzo_index::{Index, IndexSettings};
use orzo_labels::LabelIndex;
use orzo_model::{SystemClock, Timestamp};
use orzo_names::{Flat, FlatFile, FlatForm, FlatWanted, Frames, Tally};
use orzo_query::IndexNumbers;
use orzo_session::{ServiceRequest, Session};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::sync::mpsc;

use super::manifest::{Day, Manifest, Question, UNFINISHED};
use crate::{client::Target, settings::Settings};

const DAY_MICROS: i64 = 86_400_000_000;
/// How long a server may say nothing while it reads: a walk over a million names of which none is wanted takes seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Frames that wait between reading and writing.
const FRAMES_WAITING: usize = 4;
/// The longest answer that says which days there are.
const ANSWER_MAX: usize = 1 << 20;

#[derive(clap::Args)]
#[command(
    after_help = "Files: DIR/day=2026-11-21/points.parquet (or .csv) and DIR/manifest.json, which says for each file its rows, the sum of
its values, an order-independent hash of its points, and its SHA-256. Columns: timestamp (UTC, microseconds), value,
series, meter, unit, resource_id, project_id, labels (a JSON object: labels, or attributes of the resource). Rows of a
series are in the order of time. An export that was stopped goes on when it is started again in the same way.

In CSV a name that a spreadsheet would run as a formula begins with an apostrophe; values are the shortest decimals
that mean the same doubles (NaN, inf, -inf). Native histograms are not exported.

Examples:
  orzo store export --server --output points --format parquet
  orzo store export --server --output cpu --format csv --meter cpu --from 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z
  orzo store export --config /etc/orzo.toml --output all --project 0b6f…   (the server is stopped)"
)]
pub(super) struct Export {
    /// Ask the running server, instead of opening the directory of one that is stopped.
    #[arg(long)]
    server: bool,
    /// Where files go; made if it is not there.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Form of the files.
    #[arg(short, long, value_enum, default_value_t = Form::Parquet, value_name = "FORM")]
    format: Form,
    /// Points from this time on.
    #[arg(long)]
    from: Option<Timestamp>,
    /// Points before this time.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Only of this project's series; may be given several times.
    #[arg(long, value_name = "ID")]
    project: Vec<String>,
    /// Only of this meter; may be given several times.
    #[arg(long, value_name = "NAME")]
    meter: Vec<String>,
    /// Begin anew, in place of an earlier export in the same directory.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Form {
    Parquet,
    Csv,
}

/// Who has the points.
enum Source {
    Server(Server),
    Directory(Box<Opened>),
}

struct Server {
    session: Arc<Session>,
    client: reqwest::Client,
    url: url::Url,
}

struct Opened {
    flat: Flat,
    labels: Arc<LabelIndex>,
    database: Database,
}

pub(super) async fn run(chosen: &Export, settings: &Settings) -> anyhow::Result<()> {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.dedup();
        list
    };
    let question = Question {
        form: match chosen.format {
            Form::Parquet => FlatForm::Parquet,
            Form::Csv => FlatForm::Csv,
        },
        from: chosen.from.map(Timestamp::micros),
        until: chosen.until.map(Timestamp::micros),
        projects: sorted(&chosen.project),
        meters: sorted(&chosen.meter),
    };
    if let (Some(from), Some(until)) = (question.from, question.until)
        && from >= until
    {
        bail!("--until is not after --from");
    }
    let source = match chosen.server {
        true => Source::Server(Server::new(&chosen.target).await?),
        false => Source::Directory(Box::new(Opened::open(settings).await?)),
    };
    let outcome = export(&source, question, &chosen.output, chosen.overwrite).await;
    if let Source::Directory(opened) = source {
        opened.labels.close().await.context("cannot close the label index")?;
        opened.flat.store.close().await.context("cannot close the store")?;
        opened.database.close().await;
    }
    let manifest = outcome?;
    let files = manifest.days.iter().filter(|day| day.path.is_some()).count();
    let bytes: u64 = manifest.days.iter().map(|day| day.tally.bytes).sum();
    println!(
        "{} rows in {files} files, {bytes} bytes; {}",
        manifest.rows,
        chosen.output.join(super::manifest::NAME).display()
    );
    Ok(())
}

async fn export(source: &Source, question: Question, output: &Path, overwrite: bool) -> anyhow::Result<Manifest> {
    let mut manifest = Manifest::open(output, question, overwrite)?;
    let question = manifest.question.clone();
    let (from, until) = (question.from.unwrap_or(i64::MIN), question.until.unwrap_or(i64::MAX));
    let is_wanted =
        |day: &i64| day.saturating_mul(DAY_MICROS) < until && day.saturating_add(1).saturating_mul(DAY_MICROS) > from;
    let days: Vec<i64> = source.days().await?.into_iter().filter(is_wanted).collect();
    let bar = ProgressBar::new(days.len() as u64);
    bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} days {eta} {wide_msg}")?);
    for day in days {
        let begin = day.saturating_mul(DAY_MICROS);
        let name = Timestamp::from_micros(begin).to_chrono().format("%Y-%m-%d").to_string();
        bar.set_prefix(name.clone());
        if !manifest.days.iter().any(|done| done.day == name) {
            let wanted = FlatWanted {
                first: begin.max(from),
                last: begin.saturating_add(DAY_MICROS).min(until) - 1,
                projects: question.projects.clone(),
                meters: question.meters.clone(),
            };
            let done = of_day(source, &wanted, question.form, output, &name, &bar).await;
            manifest.note(output, done.with_context(|| format!("the day {name}"))?)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    manifest.is_whole = true;
    manifest.write(output)?;
    Ok(manifest)
}

/// One day to one file; none if nothing of it is wanted.
async fn of_day(
    source: &Source,
    wanted: &FlatWanted,
    form: FlatForm,
    output: &Path,
    day: &str,
    bar: &ProgressBar,
) -> anyhow::Result<Day> {
    let (folder, name) = (format!("day={day}"), format!("points.{}", form.extension()));
    let within = output.join(&folder);
    let unfinished = within.join(format!("{UNFINISHED}{name}"));
    let mut pieces = source.stream(wanted).await?;
    let (mut frames, mut file, mut rows) = (Frames::default(), None, 0_u64);
    while let Some(piece) = pieces.recv().await {
        for batch in frames.push(&piece?)? {
            let writing = match &mut file {
                Some(writing) => writing,
                None => {
                    std::fs::create_dir_all(&within).with_context(|| format!("cannot make {}", within.display()))?;
                    file.insert(FlatFile::create(&unfinished, form)?)
                }
            };
            writing.write(&batch)?;
            rows += batch.num_rows() as u64;
            bar.set_message(format!("{rows} rows"));
        }
    }
    let sent = frames.finish()?;
    let Some(file) = file else { return Ok(Day { day: day.to_owned(), path: None, tally: Tally::default() }) };
    let tally = file.finish()?;
    if tally.rows != sent {
        bail!("{sent} rows were read and {} written", tally.rows);
    }
    // Nothing of somebody else is replaced: what an export of ours left here without a note in the manifest is its own.
    let path = within.join(&name);
    let named = std::fs::rename(&unfinished, &path).and_then(|()| {
        std::fs::File::open(&within)?.sync_all()?;
        std::fs::File::open(output)?.sync_all()
    });
    named.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Day { day: day.to_owned(), path: Some(format!("{folder}/{name}")), tally })
}

type Pieces = mpsc::Receiver<anyhow::Result<Vec<u8>>>;

impl Source {
    async fn days(&self) -> anyhow::Result<Vec<i64>> {
        match self {
            Self::Directory(opened) => Ok(opened.flat.days().await?),
            Self::Server(server) => server.days().await,
        }
    }

    async fn stream(&self, wanted: &FlatWanted) -> anyhow::Result<Pieces> {
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
        match self {
            Self::Directory(opened) => {
                let (flat, wanted) = (opened.flat.clone(), wanted.clone());
                tokio::spawn(async move {
                    let frames = sender.clone();
                    let outcome = flat
                        .read(&wanted, |frame| {
                            let frames = frames.clone();
                            async move { frames.send(Ok(frame)).await.is_ok() }
                        })
                        .await;
                    if let Err(error) = outcome {
                        // Nobody waits if the reader has gone.
                        let _ = sender.send(Err(error.into())).await;
                    }
                });
            }
            Self::Server(server) => {
                let response = server.begin(wanted).await?;
                tokio::spawn(async move {
                    let mut body = response.bytes_stream();
                    while let Some(piece) = body.next().await {
                        let piece = piece.map(|piece| piece.to_vec()).context("the server's stream broke off");
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
        Ok(receiver)
    }
}

impl Server {
    async fn new(target: &Target) -> anyhow::Result<Self> {
        let session = target.session()?;
        let mut url = session.endpoint("prometheus").await?;
        // Catalogs know of no points; they are beside the Prometheus face, in the same process.
        let path = url.path().trim_end_matches('/').trim_end_matches("/prometheus").to_owned();
        url.set_path(&format!("{path}/v1/points"));
        let client = reqwest::Client::builder().read_timeout(READ_TIMEOUT).build()?;
        Ok(Self { session, client, url })
    }

    async fn days(&self) -> anyhow::Result<Vec<i64>> {
        let request = ServiceRequest {
            service_type: "prometheus",
            method: "GET".parse().context("a method")?,
            path: "../v1/points/days",
            headers: &[],
            body: None,
        };
        let answer = self.session.request(&request, None).await.context("the server does not say which days it has")?;
        serde_json::from_value(answer["days"].clone()).context("the server's answer has no days")
    }

    async fn begin(&self, wanted: &FlatWanted) -> anyhow::Result<reqwest::Response> {
        let token = self.session.token().await?;
        let request = self.client.post(self.url.clone()).header("x-auth-token", token.expose_secret());
        let response = request.json(&json!(wanted)).send().await.context("the server does not answer")?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        bail!("the server answers {status}: {}", text.chars().take(ANSWER_MAX).collect::<String>())
    }
}

impl Opened {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let data = &settings.server.data_directory;
        let store = super::open(settings.store_settings()?)
            .await
            .context("the store is read by its server only, if one runs: ask it with --server")?;
        let database = match &settings.database.url {
            Some(url) => Database::open(url.expose_secret()).await,
            None if data.join("orzo.db").is_file() => Database::open_file(&data.join("orzo.db")).await,
            None => bail!("there is no database in {}", data.display()),
        };
        let (database, clock) = (database.context("cannot open the database")?, SystemClock::shared());
        let index_settings = IndexSettings { create_defaults: false, ..IndexSettings::default() };
        let index =
            Index::open(database.clone(), clock.clone(), index_settings).await.context("cannot open the index")?;
        let index = Arc::new(index);
        let chosen = settings.labels.index_settings(data.join("labels"), settings.store.disk_reserve_bytes);
        let labels = LabelIndex::open(chosen, Arc::new(IndexNumbers(index.clone())), clock).await;
        let labels = Arc::new(labels.context("cannot open the label index")?);
        let flat = Flat { index, labels: Some(labels.clone()), store };
        Ok(Self { flat, labels, database })
    }
}
