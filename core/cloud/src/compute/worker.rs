//! Does the tasks that stand in the servers' rows: disks, guests, power.
//!
//! One loop finds tasks, a bounded number of them runs at once, each server has at most one. Every step can be
//! repeated, so a restart in the middle of one is nothing special. It decides nothing about requests.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orzo_hypervisor::{Disk, GuestSpec, HypervisorError, NovaMetadata, PowerState};
use orzo_model::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Compute, Edit, audit,
    create::image_name,
    error::ComputeError,
    resize,
    server::{Fault, SELECT, Server, TaskState, VmState, power_number},
};

/// Tasks at once: disk copies compete for the disk, and libvirt starts guests one after the other anyway.
const TASKS_MAX: usize = 4;
/// Tasks looked at in one pass.
const BATCH_MAX: i64 = 200;
/// How often the rows are looked at when nobody wakes the worker.
const IDLE_WAIT: Duration = Duration::from_secs(2);
/// A task that fails for a passing reason is tried so often before the server is in error.
const TRIES_MAX: u32 = 5;
/// First wait after such a failure; each next one doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// At a stop, work under way may take so long; what is left is taken up at the next start.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Characters of a fault's message at most, as in Nova.
const FAULT_CHARACTERS_MAX: usize = 255;

/// How a task that failed for a passing reason stands.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    tries: u32,
    /// By the clock's monotonic time.
    not_before: Duration,
}

/// What became of a task.
struct Outcome {
    id: Uuid,
    server: Server,
    task: TaskState,
    result: Result<(), ComputeError>,
}

impl Compute {
    pub(super) async fn run_worker(self: Arc<Self>, stop: CancellationToken) {
        let mut running = JoinSet::new();
        let mut busy: HashSet<Uuid> = HashSet::new();
        let mut troubles: HashMap<Uuid, Trouble> = HashMap::new();
        loop {
            if running.len() < TASKS_MAX {
                match self.waiting_tasks().await {
                    Ok(waiting) => {
                        for (server, task) in waiting {
                            let rests = troubles.get(&server.id).is_some_and(|t| t.not_before > self.clock.monotonic());
                            if running.len() >= TASKS_MAX || rests || !busy.insert(server.id) {
                                continue;
                            }
                            self.room.received(1);
                            let this = self.clone();
                            running.spawn(async move {
                                let result = this.perform(&server, task).await;
                                Outcome { id: server.id, server, task, result }
                            });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn Error, "tasks cannot be read, trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(joined) = running.join_next() => {
                    // A panic in a task is a bug; the server is left with its task and tried again after a restart.
                    let Ok(outcome) = joined else {
                        self.room.dropped("panicked", 1);
                        continue;
                    };
                    busy.remove(&outcome.id);
                    self.settle(outcome, &mut troubles).await;
                }
                () = self.woken.notified() => {}
                () = self.clock.sleep(IDLE_WAIT) => {}
            }
        }
        let _ = tokio::time::timeout(STOP_WAIT, async { while running.join_next().await.is_some() {} }).await;
    }

    async fn waiting_tasks(&self) -> Result<Vec<(Server, TaskState)>, ComputeError> {
        let sql =
            format!("{SELECT} WHERE s.task_state IS NOT NULL AND s.deleted_at IS NULL ORDER BY s.updated_at LIMIT $1");
        let rows = self.database.query(&sql, &[BATCH_MAX.into()]).await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            let server = Server::from_row(&row)?;
            if let Some(task) = server.task_state {
                tasks.push((server, task));
            }
        }
        Ok(tasks)
    }

    /// Counts a task that ended; gives it another try or marks the server.
    async fn settle(self: &Arc<Self>, outcome: Outcome, troubles: &mut HashMap<Uuid, Trouble>) {
        let error = match outcome.result {
            Ok(()) => {
                troubles.remove(&outcome.id);
                return self.room.stored(1);
            }
            // Deleted meanwhile by another process: nothing left to do.
            Err(ComputeError::Refused { .. }) if self.is_gone(outcome.id).await => {
                return self.room.dropped("server is gone", 1);
            }
            Err(error) => error,
        };
        let trouble = troubles.entry(outcome.id).or_default();
        trouble.tries += 1;
        if error.is_retryable() && trouble.tries < TRIES_MAX {
            let wait = RETRY_FIRST * 2u32.pow(trouble.tries - 1);
            trouble.not_before = self.clock.monotonic() + wait;
            tracing::warn!(error = &error as &dyn Error, server = %outcome.id, task = outcome.task.as_str(), "trying again");
            return self.room.returned(1);
        }
        tracing::error!(error = &error as &dyn Error, server = %outcome.id, task = outcome.task.as_str(), "the task failed");
        self.room.refused("failed", 1);
        match self.fail(&outcome.server, outcome.task, &error).await {
            Ok(()) => drop(troubles.remove(&outcome.id)),
            // The task stays in its row, so it comes round again.
            Err(error) => {
                trouble.not_before = self.clock.monotonic() + RETRY_FIRST * 2u32.pow(TRIES_MAX);
                tracing::error!(error = &error as &dyn Error, server = %outcome.id, "the failure cannot be written down");
            }
        }
    }

    async fn is_gone(&self, id: Uuid) -> bool {
        let sql = "SELECT id FROM compute_servers WHERE id = $1 AND deleted_at IS NULL";
        matches!(self.database.query_one(sql, &[id.to_string().into()]).await, Ok(None))
    }

    async fn perform(self: &Arc<Self>, server: &Server, task: TaskState) -> Result<(), ComputeError> {
        let started = self.clock.monotonic();
        match task {
            TaskState::Spawning => self.ensure_guest(server).await?,
            TaskState::PoweringOn => self.ensure_running(server).await?,
            TaskState::PoweringOff => self.switch_off(server.id).await?,
            TaskState::Rebooting | TaskState::RebootingHard => {
                let hard = task == TaskState::RebootingHard;
                match self.hypervisor.state(server.id).await? {
                    Some(PowerState::Running | PowerState::Blocked) => self.hypervisor.reboot(server.id, hard).await?,
                    _ => self.ensure_running(server).await?,
                }
            }
            TaskState::ResizePrep
            | TaskState::ResizeMigrating
            | TaskState::ResizeFinish
            | TaskState::ResizeConfirming
            | TaskState::ResizeReverting => self.perform_resize(server, task).await?,
            TaskState::Deleting => {
                self.hypervisor.destroy(server.id).await?;
                remove_disks(&self.directory_of(server.id)).await?;
            }
        }
        let power_state = power_number(self.hypervisor.state(server.id).await?);
        self.room.took(task.event(), self.clock.monotonic().saturating_sub(started));
        self.finish(server.id, task, power_state).await
    }

    /// The work is done: write it down, unless another task has taken over meanwhile (a delete).
    async fn finish(self: &Arc<Self>, id: Uuid, task: TaskState, power_state: i64) -> Result<(), ComputeError> {
        let period = self.settings.audit_period;
        self.change(id, move |server, now| {
            if server.task_state != Some(task) {
                return Ok(None);
            }
            server.power_state = power_state;
            finish(server, task, now);
            let edit = Edit::for_owner(server);
            Ok(Some(match task {
                TaskState::ResizePrep | TaskState::ResizeMigrating => resize::tell_step(edit, server, task),
                TaskState::Spawning => {
                    let extra = json!({"fixed_ips": [], "message": "Success", "image_name": image_name(server)});
                    edit.note("create.end", extra)
                }
                TaskState::Deleting => edit
                    .note("shutdown.end", json!({}))
                    .note("exists", audit::extra(now.floor(period), now))
                    .note("delete.end", json!({})),
                _ => edit.note(format!("{}.end", task.event()), json!({})),
            }))
        })
        .await?;
        Ok(())
    }

    /// The work cannot be done.
    async fn fail(
        self: &Arc<Self>,
        server: &Server,
        task: TaskState,
        error: &ComputeError,
    ) -> Result<(), ComputeError> {
        if task == TaskState::Spawning
            && let Err(error) = self.hypervisor.destroy(server.id).await
        {
            tracing::warn!(error = &error as &dyn Error, server = %server.id, "what is left of the guest stays");
        }
        // Until the old size is back both stay claimed: if this fails too, the whole task comes round again.
        resize::undo(self, server, task).await?;
        let message = reason(error);
        let outcome = self
            .change(server.id, move |server, now| {
                if server.task_state != Some(task) {
                    return Ok(None);
                }
                server.task_state = None;
                server.fault = Some(Fault { code: 500, message: message.clone(), created_at: now });
                // As in Nova: a server that could not be switched is what it was before.
                if !matches!(
                    task,
                    TaskState::PoweringOn
                        | TaskState::PoweringOff
                        | TaskState::ResizePrep
                        | TaskState::ResizeConfirming
                ) {
                    server.vm_state = VmState::Error;
                }
                resize::forget_failed(server, task);
                let extra = json!({"message": message, "code": 500, "exception": {"kwargs": {"reason": message}}});
                Ok(Some(Edit::for_owner(server).error(format!("{}.error", task.event()), extra)))
            })
            .await;
        match outcome {
            Ok(_) | Err(ComputeError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Disk and guest are there, and the guest runs. Can be repeated.
    pub(super) async fn ensure_guest(&self, server: &Server) -> Result<(), ComputeError> {
        let root_disk = if self.simulated() { None } else { Some(self.ensure_disk(server).await?) };
        Ok(self.hypervisor.create(&guest_spec(server, root_disk)).await?)
    }

    /// A guest that is off is started; one that is not there is made again from its disk.
    async fn ensure_running(&self, server: &Server) -> Result<(), ComputeError> {
        match self.hypervisor.state(server.id).await? {
            None => self.ensure_guest(server).await,
            Some(_) => Ok(self.hypervisor.start(server.id).await?),
        }
    }

    /// A guest that is not there is off.
    pub(super) async fn switch_off(&self, id: Uuid) -> Result<(), ComputeError> {
        match self.hypervisor.stop(id, false).await {
            Ok(()) | Err(HypervisorError::NoGuest { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn directory_of(&self, id: Uuid) -> PathBuf {
        self.settings.directory.join(id.to_string())
    }

    /// The server's own copy of the image. The image service has looked into it, so its format is what it says; no
    /// tool that would follow references is run on it.
    pub(super) async fn ensure_disk(&self, server: &Server) -> Result<Disk, ComputeError> {
        let format = server.image_meta.get("disk_format").cloned().unwrap_or_else(|| "raw".to_owned());
        let directory = self.directory_of(server.id);
        let path = directory.join("disk");
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(Disk { path, format });
        }
        let image_id = server.image_id.map(|id| id.to_string()).unwrap_or_default();
        let source = self.images.file_for_boot(&image_id).await?;
        // Only a raw disk can be made larger without a tool.
        let length = (format == "raw" && server.flavor.disk_gib > 0).then_some(server.flavor.disk_gib << 30);
        let target = path.clone();
        let copied = tokio::task::spawn_blocking(move || copy_disk(&source, &directory, &target, length)).await;
        match copied {
            Ok(copied) => copied.map_err(|source| ComputeError::Disk { action: "copy", source })?,
            Err(error) => {
                return Err(ComputeError::Disk { action: "copy", source: std::io::Error::other(error) });
            }
        }
        Ok(Disk { path, format })
    }
}

/// What a finished task makes of a server.
fn finish(server: &mut Server, task: TaskState, now: Timestamp) {
    server.task_state = None;
    match task {
        TaskState::Spawning => {
            server.vm_state = VmState::Active;
            server.launched_at = Some(now);
        }
        TaskState::PoweringOn | TaskState::Rebooting | TaskState::RebootingHard => {
            server.vm_state = VmState::Active;
            server.fault = None;
            server.launched_at.get_or_insert(now);
        }
        TaskState::PoweringOff => {
            server.vm_state = VmState::Stopped;
            server.fault = None;
        }
        TaskState::ResizePrep
        | TaskState::ResizeMigrating
        | TaskState::ResizeFinish
        | TaskState::ResizeConfirming
        | TaskState::ResizeReverting => resize::finish(server, task, now),
        TaskState::Deleting => {
            server.resize = None;
            server.vm_state = VmState::Deleted;
            server.power_state = 0;
            server.terminated_at = Some(now);
            server.deleted_at = Some(now);
        }
    }
}

fn guest_spec(server: &Server, root_disk: Option<Disk>) -> GuestSpec {
    let flavor = &server.flavor;
    GuestSpec {
        uuid: server.id,
        name: server.domain(),
        nova: NovaMetadata {
            display_name: server.name.clone(),
            user_id: server.user_id.clone(),
            user_name: server.user_name.clone(),
            project_id: server.project_id.clone(),
            project_name: server.project_name.clone(),
            flavor: orzo_hypervisor::Flavor {
                id: flavor.id.clone(),
                name: flavor.name.clone(),
                vcpus: u32::try_from(flavor.vcpus).unwrap_or(u32::MAX),
                memory_mib: flavor.memory_mib,
                disk_gib: flavor.disk_gib,
                ephemeral_gib: flavor.ephemeral_gib,
                swap_mib: flavor.swap_mib,
            },
            image_id: server.image_id,
        },
        root_disk,
        mac: server.mac.clone(),
    }
}

/// Copies to a temporary name, makes it durable, and renames: a disk that has its name is whole.
fn copy_disk(source: &Path, directory: &Path, target: &Path, length: Option<u64>) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let part = target.with_extension("part");
    std::fs::copy(source, &part)?;
    let file = std::fs::OpenOptions::new().write(true).open(&part)?;
    if let Some(length) = length
        && length > file.metadata()?.len()
    {
        file.set_len(length)?;
    }
    file.sync_all()?;
    std::fs::rename(&part, target)?;
    std::fs::File::open(directory)?.sync_all()
}

async fn remove_disks(directory: &Path) -> Result<(), ComputeError> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ComputeError::Disk { action: "remove", source })
        }
        _ => Ok(()),
    }
}

/// An error and its causes in one line.
fn reason(error: &ComputeError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text.chars().take(FAULT_CHARACTERS_MAX).collect()
}
