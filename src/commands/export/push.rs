//! `orzo export push`: a run's events to a billing system by HTTP, at least once each, with the event's own key against repeats.
//!
//! `run (checked) → what the journal says is still to go → may it go now? → POST, again until there is an answer → journal`
//!
//! The journal lies beside the run and is on disk before an event is tried and after it was taken, so that a push that died
//! goes on where it was. Systems forget keys: what was tried longer ago than a system remembers, and has no answer, is not
//! sent again blindly but parked, for somebody to look there first. Parked events are told and counted; the others go on.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use orzo_delivery::{Answer, Poster, Receiver, Verdict};
use orzo_export::{Profile, check};
use orzo_model::{SharedClock, SystemClock, Timestamp};
use orzo_store::files::{Disk, real::RealDisk};
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::output::{Format, Rows};

/// The first wait after a failure; each further one is twice as long,
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// up to this.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Tries of one event, about half an hour; then the push ends, and goes on when it is begun again.
const TRIES_MAX: u32 = 12;
/// Events parked by one push: where all are refused something is wrong with the push.
const PARKED_MAX: usize = 1000;
/// Longest event that is read.
const EVENT_BYTES_MAX: usize = 1 << 20;

#[derive(clap::Args)]
pub(super) struct Push {
    /// A run's directory: of openmeter-cloudevents, stripe-meter-events or lago-events.
    directory: PathBuf,
    /// Where events are posted to, such as https://openmeter.example/api/v1/events.
    #[arg(long)]
    url: Url,
    /// File with a token, sent as `Authorization: Bearer`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Place of the event in the run.
    event: u64,
    /// What became of it.
    state: State,
    /// When.
    at: Timestamp,
    /// In words, where it was parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Tried,
    Taken,
    Parked,
}

/// What became of events so far.
struct Journal {
    file: File,
    last: BTreeMap<u64, Entry>,
}

impl Journal {
    /// Reads what is there. A last line that a crash tore is as if it had not been written: its event is tried again.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let mut last = BTreeMap::new();
        let mut whole = 0;
        if let Ok(file) = File::open(path) {
            let mut reader = BufReader::new(file);
            let mut line = String::new();
            while reader.read_line(&mut line).with_context(|| format!("cannot read {}", path.display()))? > 0 {
                match serde_json::from_str::<Entry>(&line) {
                    Ok(entry) if line.ends_with('\n') => {
                        // The first try counts: since then it may have been taken.
                        match last.get(&entry.event) {
                            Some(Entry { state: State::Tried, .. }) if entry.state == State::Tried => {}
                            _ => {
                                last.insert(entry.event, entry);
                            }
                        }
                    }
                    _ if !line.ends_with('\n') => break,
                    _ => bail!("{} is damaged after {whole} bytes", path.display()),
                }
                whole += line.len() as u64;
                line.clear();
            }
        }
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        file.set_len(whole).context("cannot cut the journal")?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).context("cannot write the journal")?;
        Ok(Self { file, last })
    }

    /// On disk when it returns.
    fn write(&mut self, entry: Entry) -> anyhow::Result<()> {
        let line = serde_json::to_string(&entry)? + "\n";
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .context("cannot write the journal")?;
        self.last.insert(entry.event, entry);
        Ok(())
    }
}

/// What a push came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pushed {
    events: u64,
    taken: u64,
    taken_before: u64,
    parked: Vec<(u64, String)>,
}

struct Pusher {
    poster: Poster,
    clock: SharedClock,
    receiver: Receiver,
    url: Url,
    token: Option<SecretString>,
}

impl Pusher {
    /// Posts an event until there is an answer that ends it; `None`: there is none within all tries.
    async fn send(&self, event: &Value) -> anyhow::Result<Option<Answer>> {
        let mut wait = WAIT_FIRST;
        for _ in 0..TRIES_MAX {
            let event = std::slice::from_ref(event);
            match self.poster.events(self.receiver, &self.url, self.token.as_ref(), event).await {
                Ok(answer) if answer.verdict == Verdict::Again => {
                    tracing::warn!(status = %answer.status, "an event was not taken, trying again");
                }
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "an event could not be sent, trying again");
                }
            }
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
        Ok(None)
    }

    async fn push(
        &self,
        events: impl Iterator<Item = anyhow::Result<Value>>,
        journal: &mut Journal,
    ) -> anyhow::Result<Pushed> {
        let mut pushed = Pushed::default();
        for (place, event) in events.enumerate() {
            let (event, place) = (event?, place as u64);
            pushed.events += 1;
            let before = journal.last.get(&place).cloned();
            match before.as_ref().map(|own| own.state) {
                Some(State::Taken) => {
                    pushed.taken_before += 1;
                    continue;
                }
                Some(State::Parked) => {
                    let reason = before.and_then(|own| own.reason).unwrap_or_default();
                    pushed.parked.push((place, reason));
                    continue;
                }
                Some(State::Tried) | None => {}
            }
            let now = self.clock.now();
            let objection = self.receiver.objection(&event, before.as_ref().map(|own| own.at), now);
            if before.is_none() && objection.is_none() {
                journal.write(Entry { event: place, state: State::Tried, at: now, reason: None })?;
            }
            let refusal = match objection {
                Some(reason) => Some(reason.to_owned()),
                None => match self.send(&event).await? {
                    None => bail!(
                        "event {place} has no answer after {TRIES_MAX} tries; {} were taken. Begin the push again to go on",
                        pushed.taken
                    ),
                    Some(Answer { verdict: Verdict::Refused, status, .. }) => {
                        Some(format!("refused with status {status}"))
                    }
                    Some(_) => None,
                },
            };
            let at = self.clock.now();
            match refusal {
                None => {
                    journal.write(Entry { event: place, state: State::Taken, at, reason: None })?;
                    pushed.taken += 1;
                }
                Some(reason) => {
                    journal.write(Entry { event: place, state: State::Parked, at, reason: Some(reason.clone()) })?;
                    pushed.parked.push((place, reason));
                }
            }
            if pushed.parked.len() > PARKED_MAX {
                bail!("more than {PARKED_MAX} events are parked; the last one: {}", pushed.parked[PARKED_MAX].1);
            }
        }
        Ok(pushed)
    }
}

fn events(paths: Vec<PathBuf>) -> impl Iterator<Item = anyhow::Result<Value>> {
    paths.into_iter().flat_map(|path| {
        let lines: Box<dyn Iterator<Item = anyhow::Result<Value>>> = match File::open(&path) {
            Err(error) => Box::new(std::iter::once(Err(anyhow::Error::from(error)))),
            Ok(file) => Box::new(BufReader::new(file).lines().map(|line| {
                let line = line?;
                if line.len() > EVENT_BYTES_MAX {
                    bail!("an event has more than {EVENT_BYTES_MAX} bytes");
                }
                Ok(serde_json::from_str(&line)?)
            })),
        };
        let name = path.display().to_string();
        lines.map(move |event| event.with_context(|| name.clone()))
    })
}

pub(super) async fn push(chosen: &Push, format: Format) -> anyhow::Result<()> {
    let manifest = check(&chosen.directory, None)?;
    let receiver = Receiver::of(Profile::named(&manifest.profile)?)
        .with_context(|| format!("runs of {} are files for people; events are pushed", manifest.profile))?;
    let token = chosen.token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok::<_, anyhow::Error>(SecretString::from(text.trim().to_owned()))
    });
    let pusher = Pusher {
        poster: Poster::new()?,
        clock: SystemClock::shared(),
        receiver,
        url: chosen.url.clone(),
        token: token.transpose()?,
    };
    // Beside the run and not in it: that is signed as it is. Each receiver has a journal of its own.
    let receiver_of = xxhash_rust::xxh3::xxh3_64(chosen.url.as_str().as_bytes());
    let mut name = chosen.directory.canonicalize()?.into_os_string();
    name.push(format!(".pushed-{receiver_of:016x}"));
    let path = PathBuf::from(name);
    let Some(_lock) = RealDisk.lock(&path.with_extension("lock"))? else {
        bail!("another push of this run is going on");
    };
    let mut journal = Journal::open(&path)?;
    let files = manifest.files.iter().map(|file| chosen.directory.join(&file.name)).collect();
    let pushed = pusher.push(events(files), &mut journal).await?;
    let count = |name: &str, count: u64| vec![json!(name), json!(count)];
    let rows = vec![
        count("events", pushed.events),
        count("taken", pushed.taken),
        count("taken before", pushed.taken_before),
        count("parked", pushed.parked.len() as u64),
    ];
    Rows { columns: vec!["what", "count"], rows }.print(format)?;
    for (place, reason) in &pushed.parked {
        eprintln!("event {place} is parked: {reason}");
    }
    match pushed.parked.len() {
        0 => Ok(()),
        parked => bail!("{parked} events are parked in {}", path.display()),
    }
}

#[cfg(test)]
mod tests;
