//! Queries, each run by a process of its own: started, given its query, answered when it asks for rows, watched, ended.
//!
//! A query ends with its answer, at its deadline, when its process has more memory than it may, when the process dies, or
//! when whoever asked goes away (the future is dropped, and the process killed). One way or another the process is gone.

use std::{ffi::OsString, io, os::fd::OwnedFd, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use bytes::Bytes;
use orzo_model::{Room, SharedClock};
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
    sync::Semaphore,
};

use crate::{answer::Form, error::SqlError, message::Begin, source::Source};

mod conversation;
mod counted;
use conversation::Conversation;
use counted::Counted;

/// How often the memory of a process is looked at: at a gigabyte a second it is 25 MB too late.
const MEMORY_LOOK: Duration = Duration::from_millis(25);
/// What a dying process may say.
const LAST_WORDS_BYTES: u64 = 4096;
/// Longest query; a person writes a few hundred bytes, a program some KiB.
pub(crate) const QUERY_BYTES_MAX: usize = 64 << 10;
/// Operators of a query: a chain of them is a tree as deep, and what walks over it recurses.
const OPERATORS_MAX: usize = 500;

/// How far queries may go.
#[derive(Clone, Debug)]
pub struct SqlSettings {
    /// How long one may take.
    pub deadline: Duration,
    /// Memory that its process may have.
    pub memory_bytes_max: u64,
    /// Rows of an answer.
    pub rows_max: u64,
    /// Bytes of an answer, which is held until it is whole.
    pub answer_bytes_max: u64,
    /// Queries that run at once; more are refused.
    pub at_once_max: usize,
    /// Threads of one query.
    pub threads: usize,
    /// Operators of one query.
    pub operators_max: usize,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            memory_bytes_max: 512 << 20,
            rows_max: 100_000,
            answer_bytes_max: 32 << 20,
            at_once_max: 2,
            threads: 2,
            operators_max: OPERATORS_MAX,
        }
    }
}

/// The program that runs one query: [`crate::worker::main`] behind some arguments.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The program, such as `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// A directory that it may stand in; nothing of it is read or written.
    pub directory: PathBuf,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// In the form that was asked for.
    pub body: Bytes,
    /// How many rows it has.
    pub rows: u64,
}

/// Runs queries.
pub struct Queries {
    source: Arc<Source>,
    worker: Worker,
    settings: SqlSettings,
    places: Semaphore,
    room: Room,
    clock: SharedClock,
}

impl Queries {
    /// Over a source, by this program, within these limits.
    pub fn new(source: Source, worker: Worker, settings: SqlSettings, room: Room, clock: SharedClock) -> Self {
        let places = Semaphore::new(settings.at_once_max);
        Self { source: Arc::new(source), worker, settings, places, room, clock }
    }

    /// Their limits.
    pub fn settings(&self) -> &SqlSettings {
        &self.settings
    }

    /// Answers a query, whole or not at all. Dropping the future ends it.
    pub async fn run(&self, query: &str, form: Form) -> Result<Answer, SqlError> {
        let counted = Counted::new(&self.room);
        let begun = self.clock.monotonic();
        let outcome = self.run_one(query, form).await;
        self.room.took("query", self.clock.monotonic().saturating_sub(begun));
        counted.ended(&outcome);
        outcome
    }

    async fn run_one(&self, query: &str, form: Form) -> Result<Answer, SqlError> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(SqlError::TooLong { bytes_max: QUERY_BYTES_MAX });
        }
        if query.trim().is_empty() {
            return Err(SqlError::invalid("the query is empty"));
        }
        let busy = |_| SqlError::Busy { at_once_max: self.settings.at_once_max };
        let _place = self.places.try_acquire().map_err(busy)?;
        let (mut child, socket, words) = self
            .start()
            .map_err(|error| SqlError::unavailable(format!("cannot start a process for the query: {error}")))?;
        let settings = &self.settings;
        let begin = Begin {
            query: query.to_owned(),
            form,
            deadline: settings.deadline,
            memory_bytes_max: settings.memory_bytes_max,
            rows_max: settings.rows_max,
            answer_bytes_max: settings.answer_bytes_max,
            operators_max: settings.operators_max,
            threads: settings.threads,
        };
        let conversation = Conversation::new(socket, self.source.clone(), settings.answer_bytes_max);
        let outcome = tokio::select! {
            biased;
            outcome = conversation.hold(&begin) => outcome,
            () = self.clock.sleep(settings.deadline) => Err(SqlError::Deadline { limit: settings.deadline }),
            () = self.too_much_memory(child.id()) => Err(SqlError::Memory { bytes_max: settings.memory_bytes_max }),
        };
        match outcome {
            Ok(Some(answered)) => {
                end(&mut child).await;
                answered
            }
            Ok(None) => Err(self.died(child, words).await),
            Err(error) => {
                end(&mut child).await;
                Err(error)
            }
        }
    }

    /// Starts a process with nothing but its end of a socket as standard input.
    fn start(&self) -> io::Result<(Child, UnixStream, ChildStderr)> {
        std::fs::create_dir_all(&self.worker.directory)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(&self.worker.program)
            .args(&self.worker.arguments)
            .env_clear()
            .current_dir(&self.worker.directory)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let words = child.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
        Ok((child, UnixStream::from_std(ours)?, words))
    }

    /// Waits until a process has more memory of its own than it may; for ever if it never has.
    async fn too_much_memory(&self, process: Option<u32>) {
        let Some(process) = process else { return std::future::pending().await };
        loop {
            // A process that is gone has none.
            if memory_of(process).is_some_and(|bytes| bytes > self.settings.memory_bytes_max) {
                return;
            }
            self.clock.sleep(MEMORY_LOOK).await;
        }
    }

    /// Why a process ended without an answer.
    async fn died(&self, mut child: Child, words: ChildStderr) -> SqlError {
        // It has closed its socket; what is left of it goes.
        let _ = child.start_kill();
        let mut said = Vec::new();
        let _ = BufReader::new(words).take(LAST_WORDS_BYTES).read_to_end(&mut said).await;
        let status = child.wait().await;
        let said = String::from_utf8_lossy(&said);
        if said.contains("memory allocation of") || said.contains("capacity overflow") {
            return SqlError::Memory { bytes_max: self.settings.memory_bytes_max };
        }
        if said.contains("overflowed its stack") {
            return SqlError::Died { how: "its stack overflowed".to_owned() };
        }
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("nobody knows how ({error})"),
        };
        match said.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => SqlError::Died { how: format!("{how}, with the words `{}`", line.trim()) },
            None => SqlError::Died { how },
        }
    }
}

/// Ends a process and waits until it is gone, so that its place is free when the next one comes.
async fn end(child: &mut Child) {
    // Killing fails only where there is nobody to kill.
    let _ = child.kill().await;
}

/// Memory of a process that is nobody else's: not the program itself, which all processes of it share.
fn memory_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
