//! A server as the database keeps it, and what may become of it. Pure but for reading and writing its row.
//!
//! ```text
//! building ─ spawned ─→ active ⇄ stopped        any ─ delete ─→ deleted
//!     └──── failed ───→ error                    a task state is work that the worker has still to do
//!
//! active or stopped ─ resize ─→ resized ─ confirm or revert ─→ active or stopped
//! ```

use std::collections::BTreeMap;

use orzo_database::{DatabaseError, Row, Transaction, Value as Cell};
use orzo_hypervisor::PowerState;
use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{error::ComputeError, flavor::Flavor, resize::Resize, schedule::Amount};

/// Nova's stable states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Not yet there.
    Building,
    /// Running.
    Active,
    /// Off.
    Stopped,
    /// Has a new flavor, which the user has still to confirm.
    Resized,
    /// Something failed; `fault` says what.
    Error,
    /// Gone; the row is kept for a while.
    Deleted,
}

/// Nova's names for work under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Make disk and guest.
    Spawning,
    /// `powering-on`
    PoweringOn,
    /// `powering-off`
    PoweringOff,
    /// Soft reboot.
    Rebooting,
    /// Hard reboot.
    RebootingHard,
    /// A resize is claimed and about to begin.
    ResizePrep,
    /// Stop and forget the guest of the old size.
    ResizeMigrating,
    /// Make the guest of the new size.
    ResizeFinish,
    /// Give up the old size.
    ResizeConfirming,
    /// Go back to the old size.
    ResizeReverting,
    /// Remove guest and disk.
    Deleting,
}

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `os-start`
    Start,
    /// `os-stop`
    Stop,
    /// `reboot` with type SOFT
    RebootSoft,
    /// `reboot` with type HARD
    RebootHard,
    /// `confirmResize`
    ConfirmResize,
    /// `revertResize`
    RevertResize,
    /// `DELETE`
    Delete,
}

/// Why a server is in state error, or what failed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// As an HTTP status.
    pub code: u16,
    /// For the user.
    pub message: String,
    /// When.
    pub created_at: Timestamp,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// UUID: the instance id and the domain's UUID.
    pub id: Uuid,
    /// Running number; `instance-%08x` is the domain's name.
    pub number: i64,
    /// Display name.
    pub name: String,
    /// Made from the name, valid as a DNS label.
    pub hostname: String,
    /// Free text.
    pub description: Option<String>,
    /// Owner.
    pub project_id: String,
    /// Owner's name.
    pub project_name: String,
    /// Who made it.
    pub user_id: String,
    /// Their name.
    pub user_name: String,
    /// As it was when the server got it.
    pub flavor: Flavor,
    /// A change of the flavor that is not yet confirmed.
    #[serde(default)]
    pub resize: Option<Resize>,
    /// Image of the root disk.
    pub image_id: Option<Uuid>,
    /// What Nova keeps of the image: `base_image_ref`, `disk_format` ...
    pub image_meta: BTreeMap<String, String>,
    /// Where it runs; `None` if no host could take it.
    pub host: Option<String>,
    /// Nova's stable state.
    pub vm_state: VmState,
    /// Work under way.
    pub task_state: Option<TaskState>,
    /// Nova's power state number.
    pub power_state: i64,
    /// The user's.
    pub metadata: BTreeMap<String, String>,
    /// The user's.
    pub tags: Vec<String>,
    /// MAC address of the only interface.
    pub mac: Option<String>,
    /// `r-xxxxxxxx`, shared by servers made in one request.
    pub reservation_id: String,
    /// Place among them.
    pub launch_index: i64,
    /// Request that made it.
    pub request_id: Option<String>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When the guest ran first.
    pub launched_at: Option<Timestamp>,
    /// When the guest was destroyed.
    pub terminated_at: Option<Timestamp>,
    /// When the server was deleted.
    pub deleted_at: Option<Timestamp>,
    /// What failed.
    pub fault: Option<Fault>,
}

impl VmState {
    /// Nova's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Resized => "resized",
            Self::Error => "error",
            Self::Deleted => "deleted",
        }
    }
}

impl TaskState {
    /// Nova's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawning => "spawning",
            Self::PoweringOn => "powering-on",
            Self::PoweringOff => "powering-off",
            Self::Rebooting => "rebooting",
            Self::RebootingHard => "rebooting_hard",
            Self::ResizePrep => "resize_prep",
            Self::ResizeMigrating => "resize_migrating",
            Self::ResizeFinish => "resize_finish",
            Self::ResizeConfirming => "resize_confirming",
            Self::ResizeReverting => "resize_reverting",
            Self::Deleting => "deleting",
        }
    }

    /// The event of the work: `compute.instance.<event>.start` and `.end`.
    pub fn event(self) -> &'static str {
        match self {
            Self::Spawning => "create",
            Self::PoweringOn => "power_on",
            Self::PoweringOff => "power_off",
            Self::Rebooting | Self::RebootingHard => "reboot",
            Self::ResizePrep => "resize.prep",
            Self::ResizeMigrating => "resize",
            Self::ResizeFinish => "finish_resize",
            Self::ResizeConfirming => "resize.confirm",
            Self::ResizeReverting => "resize.revert",
            Self::Deleting => "delete",
        }
    }
}

impl Action {
    /// The word in Nova's messages.
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::RebootSoft | Self::RebootHard => "reboot",
            Self::ConfirmResize => "confirmResize",
            Self::RevertResize => "revertResize",
            Self::Delete => "delete",
        }
    }
}

/// Nova's power state for what a hypervisor says (`nova/compute/power_state.py`).
pub fn power_number(state: Option<PowerState>) -> i64 {
    match state {
        Some(PowerState::Running | PowerState::Blocked | PowerState::ShuttingDown) => 1,
        Some(PowerState::Paused) => 3,
        Some(PowerState::ShutOff) => 4,
        Some(PowerState::Crashed) => 6,
        Some(PowerState::Suspended) => 7,
        Some(PowerState::NoState) | None => 0,
    }
}

/// Whether the action can begin now, and as which task.
pub fn begin(server: &Server, action: Action) -> Result<TaskState, ComputeError> {
    let conflict = |what, state| Err(too_early(server, action.as_str(), what, state));
    if action == Action::Delete {
        // Always possible, also in the middle of other work: the worker finishes that first.
        return Ok(TaskState::Deleting);
    }
    if let Some(task) = server.task_state {
        // Nova lets a hard reboot overtake a soft one; here each work is short, so the user can wait.
        return conflict("task_state", task.as_str());
    }
    match (action, server.vm_state) {
        (Action::Start, VmState::Stopped) => Ok(TaskState::PoweringOn),
        (Action::Stop, VmState::Active | VmState::Error) if server.host.is_some() => Ok(TaskState::PoweringOff),
        (Action::RebootSoft, VmState::Active) => Ok(TaskState::Rebooting),
        (Action::RebootHard, VmState::Active | VmState::Stopped) => Ok(TaskState::RebootingHard),
        (Action::RebootHard, VmState::Error) if server.host.is_some() => Ok(TaskState::RebootingHard),
        (Action::ConfirmResize, VmState::Resized) => Ok(TaskState::ResizeConfirming),
        (Action::RevertResize, VmState::Resized) => Ok(TaskState::ResizeReverting),
        (_, state) => conflict("vm_state", state.as_str()),
    }
}

/// Whether a resize can begin now, and as which task.
pub fn begin_resize(server: &Server) -> Result<TaskState, ComputeError> {
    match (server.task_state, server.vm_state) {
        (Some(task), _) => Err(too_early(server, "resize", "task_state", task.as_str())),
        (None, VmState::Active | VmState::Stopped) => Ok(TaskState::ResizePrep),
        (None, state) => Err(too_early(server, "resize", "vm_state", state.as_str())),
    }
}

fn too_early(server: &Server, verb: &str, what: &str, state: &str) -> ComputeError {
    ComputeError::conflict(format!("Cannot '{verb}' instance {} while it is in {what} {state}", server.id))
}

impl Server {
    /// The word in the column `status` of every client.
    pub fn status(&self) -> &'static str {
        match (self.vm_state, self.task_state) {
            (VmState::Active, Some(TaskState::Rebooting)) => "REBOOT",
            (VmState::Active | VmState::Stopped, Some(TaskState::RebootingHard)) => "HARD_REBOOT",
            (
                VmState::Active | VmState::Stopped,
                Some(TaskState::ResizePrep | TaskState::ResizeMigrating | TaskState::ResizeFinish),
            ) => "RESIZE",
            (VmState::Resized, Some(TaskState::ResizeReverting)) => "REVERT_RESIZE",
            (VmState::Resized, _) => "VERIFY_RESIZE",
            (VmState::Building, _) => "BUILD",
            (VmState::Active, _) => "ACTIVE",
            (VmState::Stopped, _) => "SHUTOFF",
            (VmState::Error, _) => "ERROR",
            (VmState::Deleted, _) => "DELETED",
        }
    }

    /// Whether the user's last word is that it runs.
    pub fn is_meant_to_run(&self) -> bool {
        match self.vm_state {
            VmState::Active => true,
            VmState::Resized => self.resize.as_ref().is_some_and(|resize| resize.before == VmState::Active),
            VmState::Building | VmState::Stopped | VmState::Error | VmState::Deleted => false,
        }
    }

    /// Name of the domain.
    pub fn domain(&self) -> String {
        format!("instance-{:08x}", self.number)
    }

    /// What it claims on its host. As in Nova, both sizes until a resize is confirmed, so that either is there.
    pub fn amount(&self) -> Amount {
        match &self.resize {
            Some(resize) => resize.old.amount().plus(resize.new.amount()),
            None => self.flavor.amount(),
        }
    }

    /// Reads a row of [`SELECT`].
    pub fn from_row(row: &Row) -> Result<Self, ComputeError> {
        serde_json::from_str(&row.string("record")).map_err(|error| {
            ComputeError::refused(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                format!("the record of server {} cannot be read: {error}", row.string("id")),
            )
        })
    }

    fn cells(&self) -> Vec<Cell> {
        let amount = self.amount();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        vec![
            self.id.to_string().into(),
            self.project_id.as_str().into(),
            self.user_id.as_str().into(),
            self.name.as_str().into(),
            self.host.clone().into(),
            self.vm_state.as_str().into(),
            self.task_state.map(TaskState::as_str).into(),
            self.status().into(),
            self.image_id.map(|id| id.to_string()).into(),
            self.flavor.id.as_str().into(),
            signed(amount.vcpus).into(),
            signed(amount.memory_mib).into(),
            signed(amount.disk_gib).into(),
            self.created_at.into(),
            self.updated_at.into(),
            self.deleted_at.map(Timestamp::micros).into(),
            serde_json::to_string(self).expect("a server has only text keys").into(),
        ]
    }

    /// Writes a new row.
    pub async fn insert(&self, tx: &mut Transaction<'_>) -> Result<(), DatabaseError> {
        let places: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("${n}")).collect();
        let sql = format!("INSERT INTO compute_servers ({}) VALUES ({})", COLUMNS.join(", "), places.join(", "));
        tx.execute(&sql, &self.cells()).await?;
        Ok(())
    }

    /// Writes what changed.
    pub async fn update(&self, tx: &mut Transaction<'_>) -> Result<(), DatabaseError> {
        let sets: Vec<String> =
            COLUMNS.iter().enumerate().skip(1).map(|(n, column)| format!("{column} = ${}", n + 1)).collect();
        let sql = format!("UPDATE compute_servers SET {} WHERE id = $1", sets.join(", "));
        tx.execute(&sql, &self.cells()).await?;
        Ok(())
    }
}

/// All that is in `record`, and again as columns what queries need.
const COLUMNS: &[&str] = &[
    "id",
    "project_id",
    "user_id",
    "name",
    "host",
    "vm_state",
    "task_state",
    "status",
    "image_id",
    "flavor_id",
    "vcpus",
    "memory_mib",
    "disk_gib",
    "created_at",
    "updated_at",
    "deleted_at",
    "record",
];

/// The start of every query for servers.
pub const SELECT: &str = "SELECT id, record FROM compute_servers s";

/// A DNS label from a display name, as Nova sanitises it.
pub fn hostname_of(name: &str, id: Uuid) -> String {
    let mut label: String = name
        .to_ascii_lowercase()
        .chars()
        .filter_map(|character| match character {
            ' ' | '_' | '.' => Some('-'),
            other if other.is_ascii_alphanumeric() || other == '-' => Some(other),
            _ => None,
        })
        // Linux allows 64, DNS 63.
        .take(63)
        .collect();
    label = label.trim_matches('-').to_owned();
    if label.is_empty() { format!("server-{id}") } else { label }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn server(vm_state: VmState, task_state: Option<TaskState>) -> Server {
        Server {
            id: Uuid::from_u128(7),
            number: 26,
            name: "web".into(),
            hostname: "web".into(),
            description: None,
            project_id: "p".into(),
            project_name: "demo".into(),
            user_id: "u".into(),
            user_name: "someone".into(),
            flavor: Flavor::default(),
            resize: None,
            image_id: None,
            image_meta: BTreeMap::new(),
            host: Some("h".into()),
            vm_state,
            task_state,
            power_state: 1,
            metadata: BTreeMap::new(),
            tags: vec![],
            mac: None,
            reservation_id: "r-1".into(),
            launch_index: 0,
            request_id: None,
            created_at: Timestamp::from_secs(1),
            updated_at: Timestamp::from_secs(1),
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            fault: None,
        }
    }

    #[test]
    fn actions_begin_only_in_the_states_that_nova_allows() {
        use {Action as A, TaskState as T, VmState as V};
        let allowed = [
            (V::Stopped, A::Start, T::PoweringOn),
            (V::Active, A::Stop, T::PoweringOff),
            (V::Error, A::Stop, T::PoweringOff),
            (V::Active, A::RebootSoft, T::Rebooting),
            (V::Active, A::RebootHard, T::RebootingHard),
            (V::Stopped, A::RebootHard, T::RebootingHard),
            (V::Error, A::RebootHard, T::RebootingHard),
            (V::Resized, A::ConfirmResize, T::ResizeConfirming),
            (V::Resized, A::RevertResize, T::ResizeReverting),
        ];
        for state in [V::Building, V::Active, V::Stopped, V::Resized, V::Error] {
            for action in [A::Start, A::Stop, A::RebootSoft, A::RebootHard, A::ConfirmResize, A::RevertResize] {
                let expected = allowed.iter().find(|(s, a, _)| *s == state && *a == action).map(|(_, _, task)| *task);
                assert_eq!(begin(&server(state, None), action).ok(), expected, "{state:?} {action:?}");
                assert!(begin(&server(state, Some(T::Rebooting)), action).is_err(), "{state:?} {action:?}");
            }
            assert_eq!(begin(&server(state, Some(T::Spawning)), A::Delete).ok(), Some(T::Deleting));
            let resizable = matches!(state, V::Active | V::Stopped);
            assert_eq!(begin_resize(&server(state, None)).is_ok(), resizable, "{state:?}");
            assert!(begin_resize(&server(state, Some(T::ResizeFinish))).is_err(), "{state:?}");
        }
    }

    #[test]
    fn hostnames_are_dns_labels() {
        let id = Uuid::from_u128(1);
        assert_eq!(hostname_of("My Server_1.example", id), "my-server-1-example");
        assert_eq!(hostname_of("…", id), format!("server-{id}"));
        assert_eq!(hostname_of(&"x".repeat(100), id).len(), 63);
    }

    #[test]
    fn a_server_survives_its_record() {
        let server = server(VmState::Active, Some(TaskState::PoweringOff));
        let text = serde_json::to_string(&server).expect("json");
        assert_eq!(serde_json::from_str::<Server>(&text).expect("reads"), server);
    }
}
