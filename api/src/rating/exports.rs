//! Runs of exports, of our own: begun by an administrator (or the schedule), listed, fetched; one at a time.
//!
//! A run can be sent to targets that the settings name; `deliveries.rs` lists what became of that.
//!
//! What is there is what lies in the directory: a run is its manifest. Only what runs now and what failed is remembered here.

use std::{
    collections::VecDeque,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use orzo_delivery::{DeliveryError, Due, NewDelivery, Outbox, Target};
use orzo_export::{Catalogue, ExportError, MANIFEST, Manifest, Profile, Request, Run, SIGNATURE, SigningKey, export};
use orzo_model::Timestamp;
use orzo_rating::{Ledger, forecast::month, processor};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{
    must_be_admin, parts,
    periods::problem_of_processor,
    wsme::{Body as Fields, known},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// Begun runs that are remembered.
const JOBS_MAX: usize = 100;
/// Runs listed; the directory of a century of months has fewer.
const RUNS_MAX: usize = 10_000;
/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Writes exports into a directory, one at a time.
pub struct Exports {
    directory: PathBuf,
    key: SigningKey,
    catalogue: Catalogue,
    ledger: Arc<dyn Ledger>,
    turn: tokio::sync::Mutex<()>,
    jobs: Mutex<VecDeque<Job>>,
    outbox: Option<Outbox>,
    targets: Vec<Target>,
}

/// Why a scheduled run was not made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The run.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The outbox.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

/// A run that was begun.
#[derive(Clone)]
struct Job {
    id: Uuid,
    profile: &'static str,
    begun_at: Timestamp,
    state: JobState,
}

#[derive(Clone)]
enum JobState {
    Running,
    Done { run: Uuid },
    Failed { reason: String },
}

impl Exports {
    /// Runs go below `directory`, signed with the key.
    pub fn new(directory: PathBuf, key: SigningKey, catalogue: Catalogue, ledger: Arc<dyn Ledger>) -> Self {
        let (turn, jobs) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { directory, key, catalogue, ledger, turn, jobs, outbox: None, targets: Vec::new() }
    }

    /// Runs can be sent to these targets, through this outbox.
    pub fn with_deliveries(self, outbox: Outbox, targets: Vec<Target>) -> Self {
        Self { outbox: Some(outbox), targets, ..self }
    }

    /// Where runs can be sent to.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// What waits to be sent, and what became of what was sent.
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// Makes the run that a target's schedule says is due and puts it into the outbox, together with how far the schedule is;
    /// `None`: nothing is due, or nothing was rated since. A process that dies in between makes it again later.
    pub async fn run_scheduled(
        &self,
        target: &Target,
        now: Timestamp,
        ready: Timestamp,
    ) -> Result<Option<Run>, ScheduleError> {
        let (Some(outbox), Some(schedule)) = (&self.outbox, target.schedule) else { return Ok(None) };
        let until = outbox.exported_until(&target.name).await?;
        let Some(Due { request, until }) = schedule.due(target.profile, until, now, ready) else { return Ok(None) };
        let run = match self.run(&request).await {
            Err(ExportError::Nothing) => None,
            made => Some(made?).filter(|run| run.manifest.lines > 0),
        };
        match &run {
            None => outbox.nothing_until(&target.name, until).await?,
            Some(run) => {
                outbox.ask(&[new_delivery(run, &target.name)], Some(until)).await?;
            }
        }
        Ok(run)
    }

    /// The targets of these names; each must take the profile.
    fn named(&self, names: &[String], profile: Profile) -> Result<Vec<String>, Problem> {
        let target = |name: &String| {
            let target = self.targets.iter().find(|own| own.name == *name);
            let target = target.ok_or_else(|| Problem::bad(format!("the settings name no target `{name}`")))?;
            let (takes, is) = (target.profile.name(), profile.name());
            if takes == is { Ok(name.clone()) } else { Err(Problem::bad(format!("{name} takes {takes} and not {is}"))) }
        };
        names.iter().map(target).collect()
    }

    /// Writes one run; waits for another one to end.
    pub async fn run(&self, request: &Request) -> Result<Run, ExportError> {
        let _turn = self.turn.lock().await;
        export(self.ledger.as_ref(), request, &self.catalogue, &self.key, &self.directory, &|_| {}).await
    }

    fn job(&self, job: &Job) {
        let mut jobs = self.jobs.lock();
        match jobs.iter_mut().find(|own| own.id == job.id) {
            Some(own) => *own = job.clone(),
            None => {
                if jobs.len() >= JOBS_MAX {
                    jobs.pop_front();
                }
                jobs.push_back(job.clone());
            }
        }
    }

    /// The runs that lie in the directory, the newest periods first.
    fn runs(&self) -> std::io::Result<Vec<(PathBuf, Manifest)>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut runs = Vec::new();
        for entry in entries.take(RUNS_MAX) {
            let path = entry?.path();
            // What is not whole yet begins with a point.
            let is_whole = path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
            if let Some(manifest) = is_whole.then(|| read_manifest(&path)).flatten() {
                runs.push((path, manifest));
            }
        }
        runs.sort_by(|(_, a), (_, b)| (b.begin, &b.profile, b.run).cmp(&(a.begin, &a.profile, a.run)));
        Ok(runs)
    }
}

fn new_delivery(run: &Run, target: &str) -> NewDelivery {
    NewDelivery {
        run: run.manifest.run,
        directory: run.directory.display().to_string(),
        profile: run.manifest.profile.clone(),
        target: target.to_owned(),
    }
}

fn read_manifest(directory: &FilePath) -> Option<Manifest> {
    let path = directory.join(MANIFEST);
    let length = std::fs::metadata(&path).ok()?.len();
    if length > MANIFEST_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn shown(job: &Job) -> Value {
    let (state, run, reason) = match &job.state {
        JobState::Running => ("running", None, None),
        JobState::Done { run } => ("done", Some(run.to_string()), None),
        JobState::Failed { reason } => ("failed", None, Some(reason.clone())),
    };
    json!({"job": job.id.to_string(), "profile": job.profile, "begun_at": job.begun_at.isoformat(), "state": state,
           "run": run, "reason": reason})
}

pub(super) fn exports(api: &SharedApi) -> Result<Arc<Exports>, Problem> {
    parts(api)?.exports.clone().ok_or_else(|| Problem::unavailable("this process makes no exports"))
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &[])?;
    let exports = exports(&api)?;
    let jobs: Vec<Value> = exports.jobs.lock().iter().map(shown).collect();
    let reading = exports.clone();
    let runs = runs_of(reading).await?;
    let runs: Vec<&Manifest> = runs.iter().map(|(_, manifest)| manifest).collect();
    Ok(Json(json!({"jobs": jobs, "runs": runs, "public_key": exports.key.public()})))
}

async fn runs_of(exports: Arc<Exports>) -> Result<Vec<(PathBuf, Manifest)>, Problem> {
    let found = tokio::task::spawn_blocking(move || exports.runs()).await;
    found.ok().and_then(Result::ok).ok_or_else(|| Problem::unavailable("the directory of exports cannot be read"))
}

pub(super) async fn create(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_be_admin(&caller)?;
    let fields = Fields::read(body, &["profile", "begin", "end", "projects", "as_of", "rated_after", "deliver"])?;
    let profile = fields.needed_text("profile")?;
    let profile = Profile::named(&profile).map_err(|error| Problem::bad(error.to_string()))?;
    let now = api.clock.now();
    // The month before, as bills are made.
    let last = month(month(now, 0).minus(std::time::Duration::from_secs(1)), 0);
    let begin = fields.time("begin")?.unwrap_or(last);
    let end = fields.time("end")?.unwrap_or_else(|| month(begin, 1));
    if begin >= end {
        return Err(Problem::bad(format!("nothing is between {begin} and {end}")));
    }
    let projects = fields.texts("projects")?;
    let own = parts(&api)?;
    for project in &projects {
        let is_known = processor::is_known(&own.book, own.ledger.as_ref(), project).await;
        if !is_known.map_err(problem_of_processor)? {
            return Err(Problem::bad(format!("neither the rating nor the ledger knows a project `{project}`")));
        }
    }
    let scopes = (!projects.is_empty()).then_some(projects);
    let rated_after = fields.time("rated_after")?;
    let request = Request { profile, begin, end, scopes, as_of: fields.time("as_of")?, rated_after };
    let exports = exports(&api)?;
    let targets = exports.named(&fields.texts("deliver")?, profile)?;
    let mut job = Job { id: Uuid::new_v4(), profile: profile.name(), begun_at: now, state: JobState::Running };
    if exports.turn.try_lock().is_err() {
        return Err(Problem::unavailable("another export is being written"));
    }
    exports.job(&job);
    let answer = shown(&job);
    tokio::spawn(async move {
        let made = async {
            let run = exports.run(&request).await?;
            let new: Vec<NewDelivery> = targets.iter().map(|target| new_delivery(&run, target)).collect();
            if let (Some(outbox), false) = (&exports.outbox, new.is_empty()) {
                outbox.ask(&new, None).await?;
            }
            Ok::<_, ScheduleError>(run)
        };
        job.state = match made.await {
            Ok(run) => JobState::Done { run: run.manifest.run },
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, profile = job.profile, "an export failed");
                JobState::Failed { reason: error.to_string() }
            }
        };
        exports.job(&job);
    });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

pub(super) async fn fetch(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path((run, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "There is no such run, or it has no such file.");
    let run = Uuid::try_parse(&run).map_err(|_| none())?;
    let runs = runs_of(exports(&api)?).await?;
    let (directory, manifest) = runs.into_iter().find(|(_, manifest)| manifest.run == run).ok_or_else(none)?;
    // Names that the manifest has, and no others: nothing of a path comes from the request.
    let is_known = name == MANIFEST || name == SIGNATURE || manifest.files.iter().any(|file| file.name == name);
    let is_plain = FilePath::new(&name).file_name().is_some_and(|own| own == name.as_str());
    if !is_known || !is_plain {
        return Err(none());
    }
    let file = tokio::fs::File::open(directory.join(&name)).await.map_err(|_| none())?;
    let kind = match name.rsplit('.').next() {
        Some("csv") => "text/csv; charset=utf-8",
        Some("json") => "application/json",
        Some("jsonl" | "ndjson") => "application/x-ndjson",
        _ => "application/octet-stream",
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let saved = format!("attachment; filename=\"{}\"", name.replace(|c| !plain(c), "_"));
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, saved)];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
