//! A server gets another flavor: asked for, tried out, then confirmed or taken back.
//!
//! In: a request for a flavor, and the worker's steps. Out: a guest of the new size, and the old one's disk beside it
//! until the user has decided.
//!
//! ```text
//! resize → resize_prep → resize_migrating → resize_finish → VERIFY_RESIZE ─ confirm → the new size, for good
//!          (claimed)     (old guest gone)   (disk, guest)               └── revert ─→ the old size and its disk
//! ```
//!
//! Both sizes are claimed, and count against the quota, from the request to the decision. Every step can be repeated:
//! the old disk is kept under a name of this resize, whole or not at all, before the disk grows.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_database::Transaction;
use orzo_hypervisor::PowerState;
use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Compute, Edit,
    create::{check_member, hosts},
    error::ComputeError,
    flavor::Flavor,
    notice, quota,
    schedule::{self, Host},
    server::{self, SELECT, Server, TaskState, VmState, power_number},
};
use crate::image::Asker;

/// Disks are copied in pieces of so many bytes; a piece of zeros is left out, so that a sparse disk stays sparse.
const COPY_PIECE: usize = 1 << 20;

/// A change of a server's flavor that is not yet confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// Names the old disk, so that no other resize takes it for its own.
    pub id: Uuid,
    /// What the server had.
    pub old: Flavor,
    /// What it gets.
    pub new: Flavor,
    /// Active or stopped: what the server was, and will be again.
    pub before: VmState,
}

/// Whether a server can get this flavor. `image_bytes` is needed only when the old flavor leaves the size of the disk
/// to the image.
fn check_flavor(server: &Server, new: &Flavor, image_bytes: Option<i128>) -> Result<(), ComputeError> {
    let old = &server.flavor;
    let refuse = |message: &str| Err(ComputeError::bad_request(message));
    if old.id == new.id {
        return refuse("When resizing, instances must change flavor!");
    }
    if new.disk_gib < old.disk_gib || new.ephemeral_gib < old.ephemeral_gib {
        return refuse("The flavor's disk is smaller than the server's, and a disk cannot be made smaller.");
    }
    let least = |name: &str| server.image_meta.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if new.memory_mib < least("min_ram") {
        return refuse("Flavor's memory is too small for requested image.");
    }
    if new.disk_gib > 0 && new.disk_gib < least("min_disk") {
        return refuse("Flavor's disk is too small for requested image.");
    }
    if old.disk_gib == 0 && new.disk_gib > 0 && image_bytes.is_none_or(|bytes| bytes > i128::from(new.disk_gib) << 30) {
        return refuse("Flavor's disk is too small for requested image, or the image is gone and its size unknown.");
    }
    Ok(())
}

/// What a finished step of a resize makes of a server.
pub(super) fn finish(server: &mut Server, task: TaskState, now: Timestamp) {
    let Some(resize) = server.resize.clone() else {
        debug_assert!(false, "a task of a resize without a resize");
        return;
    };
    match task {
        TaskState::ResizePrep => server.task_state = Some(TaskState::ResizeMigrating),
        TaskState::ResizeMigrating => {
            server.flavor = resize.new;
            server.task_state = Some(TaskState::ResizeFinish);
        }
        TaskState::ResizeFinish => {
            server.vm_state = VmState::Resized;
            server.launched_at = Some(now);
            server.fault = None;
        }
        TaskState::ResizeConfirming => {
            server.vm_state = resize.before;
            server.resize = None;
            server.fault = None;
        }
        TaskState::ResizeReverting => {
            server.flavor = resize.old;
            server.vm_state = resize.before;
            server.launched_at = Some(now);
            server.resize = None;
            server.fault = None;
        }
        _ => debug_assert!(false, "not a task of a resize"),
    }
    // A guest that is off is made only when it is started; the hypervisor does not know it until then.
    if resize.before == VmState::Stopped && server.power_state == power_number(None) {
        server.power_state = power_number(Some(PowerState::ShutOff));
    }
}

/// The notes at the end of a step that another one follows: its own end and the next one's start.
pub(super) fn tell_step(edit: Edit, server: &Server, task: TaskState) -> Edit {
    let Some(resize) = &server.resize else { return edit };
    match task {
        TaskState::ResizePrep => edit.note("resize.prep.end", wanted(&resize.new)).note("resize.start", json!({})),
        // The end is told of the old guest, which is gone now, the start of the new one.
        _ => edit.note("resize.end", notice::size(&resize.old)).note("finish_resize.start", json!({})),
    }
}

/// Keys of the flavor to come, as Nova's `resize.prep.*` has them.
fn wanted(new: &Flavor) -> Value {
    json!({"new_instance_type": new.name, "new_instance_type_id": new.number})
}

/// Whether a failure of this task ends the resize, with the old size.
fn ends(task: TaskState) -> bool {
    matches!(
        task,
        TaskState::ResizePrep | TaskState::ResizeMigrating | TaskState::ResizeFinish | TaskState::ResizeReverting
    )
}

/// After a failure: guest away, old disk back. A hard reboot makes the guest again.
pub(super) async fn undo(compute: &Compute, server: &Server, task: TaskState) -> Result<(), ComputeError> {
    let Some(resize) = server.resize.as_ref().filter(|_| ends(task) && task != TaskState::ResizePrep) else {
        return Ok(());
    };
    // A step whose end was written although the database said otherwise has not failed, and a delete removes all.
    let sql = "SELECT id FROM compute_servers WHERE id = $1 AND deleted_at IS NULL AND task_state = $2";
    match compute.database.query_one(sql, &[server.id.to_string().into(), task.as_str().into()]).await? {
        Some(_) => compute.take_old_size(server, resize).await,
        None => Ok(()),
    }
}

/// After [`undo`]: the server has its old flavor, and claims no more than that.
pub(super) fn forget_failed(server: &mut Server, task: TaskState) {
    if !ends(task) {
        return;
    }
    if let Some(resize) = server.resize.take() {
        server.flavor = resize.old;
        if task != TaskState::ResizePrep {
            server.power_state = power_number(None);
        }
    }
}

impl Compute {
    /// Begins to give a server another flavor, or says why that cannot be.
    pub async fn resize(self: &Arc<Self>, asker: &Asker, id: &str, flavor_id: &str) -> Result<(), ComputeError> {
        check_member(asker)?;
        let server = self.server(&asker.caller, id).await?;
        let new = self.flavor(&asker.caller, flavor_id).await.map_err(|error| match error {
            // In a body it is the request that is wrong, not the address.
            ComputeError::Refused { message, .. } => ComputeError::bad_request(message),
            other => other,
        })?;
        let image_bytes = match server.image_id {
            Some(image) if server.flavor.disk_gib == 0 => {
                let image = self.images.get(&asker.caller, &image.to_string()).await;
                image.ok().and_then(|image| image.virtual_size).map(i128::from)
            }
            _ => None,
        };
        let (this, who, id, now) = (self.clone(), asker.clone(), server.id, self.clock.now());
        let _turn = self.claiming.lock().await;
        self.database
            .transact(move |tx| {
                let (this, asker, new) = (this.clone(), who.clone(), new.clone());
                Box::pin(async move { this.claim_resize(tx, &asker, id, new, image_bytes, now).await })
            })
            .await?;
        self.outbox.wake();
        self.woken.notify_one();
        Ok(())
    }

    /// State, quota, place, row and notification, all in this transaction.
    async fn claim_resize(
        &self,
        tx: &mut Transaction<'_>,
        asker: &Asker,
        id: Uuid,
        new: Flavor,
        image_bytes: Option<i128>,
        now: Timestamp,
    ) -> Result<(), ComputeError> {
        let sql = format!("{SELECT} WHERE s.id = $1 AND s.deleted_at IS NULL");
        let row = tx.query_one(&sql, &[id.to_string().into()]).await?;
        let before = Server::from_row(&row.ok_or_else(|| ComputeError::no_server(&id.to_string()))?)?;
        let task = server::begin_resize(&before)?;
        check_flavor(&before, &new, image_bytes)?;
        let (usage, limits) = quota::usage_and_limits(tx, &before.project_id, self.settings.quotas).await?;
        limits.check_resize(usage, new.amount())?;
        // The disk is on this host, so the new guest will be as well.
        let own: Vec<Host> =
            hosts(tx).await?.into_iter().filter(|host| Some(&host.name) == before.host.as_ref()).collect();
        if let Err(rejections) = schedule::choose(&own, new.amount(), self.settings.ratios) {
            tracing::info!(server = %id, ?rejections, "the host cannot take the new size");
            return Err(ComputeError::bad_request(
                "No valid host was found. The server's host has no room for the new flavor beside the old one.",
            ));
        }
        let mut server = before.clone();
        let edit = Edit::by(asker).note("resize.prep.start", wanted(&new));
        let (old, vm_state) = (before.flavor.clone(), before.vm_state);
        server.resize = Some(Resize { id: Uuid::new_v4(), old, new, before: vm_state });
        server.task_state = Some(task);
        server.updated_at = now;
        server.update(tx).await?;
        self.tell(tx, now, Some(&before), &server, edit).await?;
        Ok(())
    }

    /// The worker's part of a step.
    pub(super) async fn perform_resize(&self, server: &Server, task: TaskState) -> Result<(), ComputeError> {
        let Some(resize) = &server.resize else { return Ok(()) };
        match task {
            TaskState::ResizeMigrating => {
                self.switch_off(server.id).await?;
                Ok(self.hypervisor.destroy(server.id).await?)
            }
            TaskState::ResizeFinish => self.take_new_size(server, resize).await,
            TaskState::ResizeConfirming => self.settle_disk("remove", server, resize, remove_kept).await,
            TaskState::ResizeReverting => {
                self.switch_off(server.id).await?;
                self.take_old_size(server, resize).await?;
                let old = Server { flavor: resize.old.clone(), ..server.clone() };
                self.ensure_guest_if_on(&old, resize).await
            }
            // The place is claimed already; the state is there for those who watch.
            _ => Ok(()),
        }
    }

    async fn take_new_size(&self, server: &Server, resize: &Resize) -> Result<(), ComputeError> {
        // A try before this one may have left a guest, and a disk does not grow under a guest that runs.
        self.hypervisor.destroy(server.id).await?;
        if !self.simulated() && resize.new.disk_gib > resize.old.disk_gib {
            // Only a raw disk can be made larger without a tool; others stay as large as their image, as at the create.
            if self.ensure_disk(server).await?.format == "raw" {
                let bytes = resize.new.disk_gib << 30;
                self.settle_disk("grow", server, resize, move |disk, kept| keep_and_grow(disk, kept, bytes)).await?;
            }
        }
        self.ensure_guest_if_on(server, resize).await
    }

    async fn take_old_size(&self, server: &Server, resize: &Resize) -> Result<(), ComputeError> {
        self.hypervisor.destroy(server.id).await?;
        self.settle_disk("restore", server, resize, restore_kept).await
    }

    async fn ensure_guest_if_on(&self, server: &Server, resize: &Resize) -> Result<(), ComputeError> {
        if resize.before == VmState::Active { self.ensure_guest(server).await } else { Ok(()) }
    }

    /// Does something with the server's disk and the one that is kept, on a thread that may wait.
    async fn settle_disk<F>(
        &self,
        action: &'static str,
        server: &Server,
        resize: &Resize,
        work: F,
    ) -> Result<(), ComputeError>
    where
        F: FnOnce(&Path, &Path) -> std::io::Result<()> + Send + 'static,
    {
        let directory = self.directory_of(server.id);
        let (disk, kept) = (directory.join("disk"), directory.join(format!("disk-before-{}", resize.id)));
        let done = tokio::task::spawn_blocking(move || work(&disk, &kept)).await;
        done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|source| ComputeError::Disk { action, source })
    }
}

/// Keeps the disk as it is and makes it larger. The kept one gets its name when it is whole and durable.
fn keep_and_grow(disk: &Path, kept: &Path, bytes: u64) -> std::io::Result<()> {
    if !kept.try_exists()? {
        let part = part_of(kept);
        copy_sparse(disk, &part)?;
        std::fs::rename(&part, kept)?;
        sync_directory_of(kept)?;
    }
    let file = File::options().write(true).open(disk)?;
    if file.metadata()?.len() < bytes {
        file.set_len(bytes)?;
    }
    file.sync_all()
}

/// Puts the kept disk back in its place; without one the disk never grew, or is back already.
fn restore_kept(disk: &Path, kept: &Path) -> std::io::Result<()> {
    remove_if_there(&part_of(kept))?;
    match std::fs::rename(kept, disk) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(disk),
    }
}

fn remove_kept(_: &Path, kept: &Path) -> std::io::Result<()> {
    remove_if_there(&part_of(kept))?;
    remove_if_there(kept)
}

fn part_of(kept: &Path) -> PathBuf {
    kept.with_extension("part")
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A durable copy with holes where the source has zeros.
fn copy_sparse(source: &Path, target: &Path) -> std::io::Result<()> {
    let (mut from, mut to) = (File::open(source)?, File::create(target)?);
    let (mut piece, zeros) = (vec![0; COPY_PIECE], vec![0; COPY_PIECE]);
    let mut copied = 0;
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            break;
        }
        if piece[..length] == zeros[..length] {
            to.seek(SeekFrom::Current(i64::try_from(length).expect("a piece is small")))?;
        } else {
            to.write_all(&piece[..length])?;
        }
        copied += length as u64;
    }
    to.set_len(copied)?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{super::server::tests::server, *};

    fn flavor(id: &str, memory_mib: u64, disk_gib: u64) -> Flavor {
        Flavor { id: id.to_owned(), vcpus: 1, memory_mib, disk_gib, ..Flavor::default() }
    }

    #[test]
    fn a_flavor_must_be_another_one_and_its_disk_not_smaller() {
        let mut one = server(VmState::Active, None);
        one.flavor = flavor("a", 512, 10);
        one.image_meta.insert("min_ram".to_owned(), "256".to_owned());
        let check = |server: &Server, new: Flavor, bytes| check_flavor(server, &new, bytes).is_ok();
        assert!(!check(&one, flavor("a", 1024, 20), None), "the same");
        assert!(!check(&one, flavor("b", 1024, 9), None), "a smaller disk");
        assert!(!check(&one, flavor("b", 1024, 0), None), "no disk at all");
        assert!(!check(&one, flavor("b", 255, 10), None), "less memory than the image needs");
        assert!(check(&one, flavor("b", 256, 10), None));
        one.flavor.disk_gib = 0;
        assert!(check(&one, flavor("b", 256, 0), None));
        assert!(!check(&one, flavor("b", 256, 1), None), "nobody knows how large it is");
        assert!(!check(&one, flavor("b", 256, 1), Some((1 << 30) + 1)));
        assert!(check(&one, flavor("b", 256, 1), Some(1 << 30)));
    }

    #[test]
    fn both_sizes_are_claimed_until_the_decision() {
        let mut one = server(VmState::Active, Some(TaskState::ResizePrep));
        let (old, new) = (flavor("a", 512, 10), flavor("b", 1024, 20));
        one.flavor = old.clone();
        one.resize = Some(Resize { id: Uuid::nil(), old, new, before: VmState::Active });
        let now = Timestamp::from_secs(9);
        for (task, memory_mib, flavor) in [
            (TaskState::ResizePrep, 1536, "a"),
            (TaskState::ResizeMigrating, 1536, "b"),
            (TaskState::ResizeFinish, 1536, "b"),
        ] {
            assert_eq!(one.status(), "RESIZE");
            one.task_state = None;
            finish(&mut one, task, now);
            assert_eq!((one.amount().memory_mib, one.flavor.id.as_str()), (memory_mib, flavor), "{task:?}");
        }
        assert_eq!(one.status(), "VERIFY_RESIZE");
        let (mut kept, mut back) = (one.clone(), one);
        finish(&mut kept, TaskState::ResizeConfirming, now);
        assert_eq!((kept.status(), kept.amount().memory_mib), ("ACTIVE", 1024));
        finish(&mut back, TaskState::ResizeReverting, now);
        assert_eq!((back.status(), back.amount().memory_mib), ("ACTIVE", 512));
    }

    #[test]
    fn the_old_disk_is_kept_whole_and_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let (disk, kept) = (directory.path().join("disk"), directory.path().join("disk-before-x"));
        let mut content = vec![0; COPY_PIECE * 2 + 5];
        content[COPY_PIECE + 1] = 7;
        std::fs::write(&disk, &content).expect("written");
        // A copy that a kill cut short does not count.
        std::fs::write(part_of(&kept), b"half").expect("written");
        let larger = content.len() as u64 + 100;
        keep_and_grow(&disk, &kept, larger).expect("grown");
        assert_eq!(std::fs::read(&kept).expect("kept"), content);
        // The guest writes, and the step is repeated after a restart.
        std::fs::write(&disk, vec![9; content.len() + 100]).expect("written");
        keep_and_grow(&disk, &kept, larger).expect("again");
        assert_eq!(std::fs::read(&kept).expect("kept"), content, "the first copy is the old disk");
        assert_eq!(std::fs::metadata(&disk).expect("there").len(), larger);
        restore_kept(&disk, &kept).expect("restored");
        restore_kept(&disk, &kept).expect("again");
        assert_eq!(std::fs::read(&disk).expect("back"), content);
        assert!(!kept.exists());
        remove_kept(&disk, &kept).expect("nothing to remove");
    }
}
