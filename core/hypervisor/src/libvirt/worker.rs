//! A thread of its own for libvirt's blocking calls, with a deadline for who asked.
//!
//! In: a question as a closure over a connection. Out: its answer, or [`HypervisorError::Deadline`]. A thread that
//! missed a deadline is left to itself (C cannot be interrupted) and a fresh one takes over, a few times at most.
//! A connection that broke is opened again, and the question asked once more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, TrySendError},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ffi::{Api, Connection, LibvirtError};
use crate::HypervisorError;

/// Questions that wait for a busy thread; more means that nobody waits for answers any longer.
const QUEUE_MAX: usize = 64;
/// Threads left hanging in libvirt before we stop asking: each holds a connection, and the daemon has few.
const HANGING_MAX: usize = 4;

type Job = Box<dyn FnOnce(&mut Line) + Send>;

/// Asks libvirt on a thread of its own.
pub(super) struct Worker {
    api: Arc<Api>,
    uri: String,
    thread: Mutex<Option<mpsc::SyncSender<Job>>>,
    hanging: Arc<AtomicUsize>,
}

/// The thread's line to the daemon.
struct Line {
    api: Arc<Api>,
    uri: String,
    connection: Option<Connection>,
}

impl Worker {
    pub(super) fn new(api: Arc<Api>, uri: &str) -> Self {
        Self { api, uri: uri.to_owned(), thread: Mutex::new(None), hanging: Arc::default() }
    }

    /// Asks, and waits for the answer until the deadline. `question` may be asked twice if the connection broke, so
    /// it looks before it acts. The inner result is libvirt's own answer.
    pub(super) async fn ask<T, F>(
        &self,
        action: &'static str,
        deadline: Duration,
        question: F,
    ) -> Result<Result<T, LibvirtError>, HypervisorError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, LibvirtError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.send(Box::new(move |line: &mut Line| {
            // Who asked may have given up while this waited in the queue; then nothing must happen any more.
            if !answer.is_closed() {
                let _ = answer.send(line.ask(&question));
            }
        }))?;
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer.map_err(|e| HypervisorError::NotAvailable { reason: e.message }),
            Ok(Err(_)) => Err(HypervisorError::Failed { action, reason: "the libvirt thread ended".to_owned() }),
            Err(_) => {
                self.leave_hanging(action);
                Err(HypervisorError::Deadline { action, deadline_ms: deadline.as_millis() as u64 })
            }
        }
    }

    fn send(&self, job: Job) -> Result<(), HypervisorError> {
        let mut thread = self.thread.lock();
        let sender = match &*thread {
            Some(sender) => sender.clone(),
            None => thread.insert(self.spawn()?).clone(),
        };
        match sender.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(HypervisorError::NotAvailable {
                reason: format!("{QUEUE_MAX} calls are waiting for libvirt already"),
            }),
            Err(TrySendError::Disconnected(job)) => {
                // The thread panicked; a fresh one takes the job.
                let fresh = self.spawn()?;
                let sent = fresh.try_send(job).is_ok();
                debug_assert!(sent, "a fresh queue has room");
                *thread = Some(fresh);
                Ok(())
            }
        }
    }

    fn spawn(&self) -> Result<mpsc::SyncSender<Job>, HypervisorError> {
        let hanging = self.hanging.load(Ordering::Relaxed);
        if hanging >= HANGING_MAX {
            return Err(HypervisorError::NotAvailable { reason: format!("{hanging} calls hang in libvirt") });
        }
        let (sender, jobs) = mpsc::sync_channel::<Job>(QUEUE_MAX);
        let (api, uri) = (self.api.clone(), self.uri.clone());
        let spawned = thread::Builder::new().name("libvirt".to_owned()).spawn(move || {
            let mut line = Line { api, uri, connection: None };
            for job in jobs {
                job(&mut line);
            }
        });
        spawned.map_err(|e| HypervisorError::NotAvailable { reason: format!("no thread for libvirt: {e}") })?;
        Ok(sender)
    }

    /// Gives up on the thread. It ends by itself when libvirt answers, and is counted until then.
    fn leave_hanging(&self, action: &'static str) {
        let Some(sender) = self.thread.lock().take() else { return };
        let hanging = self.hanging.clone();
        let now = hanging.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(action, hanging = now, "libvirt did not answer in time; using a fresh connection");
        let farewell: Job = Box::new(move |_| {
            hanging.fetch_sub(1, Ordering::Relaxed);
        });
        if sender.try_send(farewell).is_err() {
            // The queue is full (or the thread is gone): what waits in it has no listener. The count stays, which
            // only makes us stop asking sooner.
            tracing::warn!("a libvirt thread was left with a full queue");
        }
    }
}

impl Line {
    /// The outer error: there is no connection. The inner one: libvirt's answer.
    fn ask<T>(
        &mut self,
        question: &impl Fn(&Connection) -> Result<T, LibvirtError>,
    ) -> Result<Result<T, LibvirtError>, LibvirtError> {
        for _ in 0..2 {
            let connection = match self.connection.take().filter(Connection::is_alive) {
                Some(connection) => connection,
                None => Connection::open(&self.api, &self.uri)?,
            };
            let answer = question(&connection);
            if answer.is_ok() || connection.is_alive() {
                self.connection = Some(connection);
                return Ok(answer);
            }
        }
        Err(LibvirtError { code: 0, message: "the connection broke twice".to_owned() })
    }
}
