//! Servers: Nova v2.1, as far as real clients use it, on one machine.
//!
//! In: requests of clients (`routes`). Out: answers in Nova's shapes, guests on the [`Hypervisor`], and Nova's
//! notifications (`compute.instance.*`) in the transaction of the change.
//!
//! ```text
//! request → row with a task (claim, quota) → worker → hypervisor → row without a task
//!                                            reconcile: what the hypervisor says → row
//!                                            audit: every hour, compute.instance.exists
//! ```
//!
//! The row is the truth: a task that a restart interrupted is taken up again, and every step can be repeated. It does
//! not know telemetry, and of images only the checked file.

mod act;
mod audit;
mod create;
mod demo;
pub mod error;
pub mod flavor;
mod guests;
mod notice;
pub mod quota;
mod reconcile;
mod resize;
mod routes;
pub mod schedule;
pub mod server;
#[cfg(test)]
mod tests;
mod version;
mod view;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use orzo_database::{Database, Migration, Row, Transaction};
use orzo_hypervisor::{Hypervisor, Node};
use orzo_model::{Caller, Room, Rooms, SharedClock, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use create::NewServer;
pub use error::ComputeError;
pub use flavor::{Flavor, NewFlavor};
pub use guests::hypervisor_of_guests;
pub use quota::Quotas;
pub use resize::Resize;
pub use routes::router;
pub use schedule::Ratios;
pub use server::{Server, TaskState, VmState};

use crate::{
    image::{Asker, Images},
    notify::{NotificationContext, Outbox},
};

/// The only availability zone; Nova's default name.
pub const ZONE: &str = "nova";
/// The hypervisor's node is asked for again after this time; it changes only when the machine does.
const NODE_KEPT: Duration = Duration::from_secs(300);

/// The compute service's tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "servers",
    sql: "CREATE TABLE compute_servers (
            id TEXT PRIMARY KEY, project_id TEXT NOT NULL, user_id TEXT NOT NULL, name TEXT NOT NULL, host TEXT,
            vm_state TEXT NOT NULL, task_state TEXT, status TEXT NOT NULL, image_id TEXT, flavor_id TEXT NOT NULL,
            vcpus BIGINT NOT NULL, memory_mib BIGINT NOT NULL, disk_gib BIGINT NOT NULL,
            created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, record TEXT NOT NULL);
          CREATE INDEX compute_servers_project ON compute_servers (project_id, created_at);
          CREATE INDEX compute_servers_tasks ON compute_servers (updated_at) WHERE task_state IS NOT NULL;
          CREATE INDEX compute_servers_claims ON compute_servers (host) WHERE deleted_at IS NULL;
          CREATE TABLE compute_flavors (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, number BIGINT NOT NULL,
            is_public BIGINT NOT NULL, record TEXT NOT NULL);
          CREATE TABLE compute_flavor_access (flavor_id TEXT NOT NULL, project_id TEXT NOT NULL,
            PRIMARY KEY (flavor_id, project_id));
          CREATE TABLE compute_nodes (id TEXT PRIMARY KEY, number BIGINT NOT NULL, hostname TEXT NOT NULL UNIQUE,
            vcpus BIGINT NOT NULL, memory_mib BIGINT NOT NULL, disk_gib BIGINT NOT NULL, enabled BIGINT NOT NULL,
            updated_at BIGINT NOT NULL);
          CREATE TABLE compute_quotas (project_id TEXT NOT NULL, resource TEXT NOT NULL, maximum BIGINT NOT NULL,
            PRIMARY KEY (project_id, resource));
          CREATE TABLE compute_counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
          CREATE TABLE compute_done (name TEXT PRIMARY KEY);
         ",
}];

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct ComputeSettings {
    /// Disks of servers live below it.
    pub directory: PathBuf,
    /// Where clients reach the service: `http://127.0.0.1:8041/compute/v2.1`.
    pub url: String,
    /// Where clients reach the image service, for `image_ref_url`.
    pub image_url: String,
    /// How much may be promised for each real one.
    pub ratios: Ratios,
    /// What a project may have, unless an admin says otherwise.
    pub quotas: Quotas,
    /// `compute.instance.exists` is sent for each of these periods.
    pub audit_period: Duration,
    /// How often states are compared with the hypervisor's.
    pub reconcile_period: Duration,
}

/// The compute service.
pub struct Compute {
    settings: ComputeSettings,
    database: Database,
    clock: SharedClock,
    outbox: Arc<Outbox>,
    hypervisor: Arc<dyn Hypervisor>,
    images: Arc<Images>,
    room: Room,
    /// There is a task to do.
    woken: Notify,
    /// Claims are made one at a time in this process, so that they rarely collide in the database, which is what
    /// really keeps them apart.
    claiming: tokio::sync::Mutex<()>,
    node: Mutex<KnownNode>,
}

/// What the hypervisor said about itself, when, and the row it has.
#[derive(Clone, Debug)]
struct KnownNode {
    node: Node,
    asked_at: Duration,
    id: Uuid,
    number: i64,
}

/// A change of a server and what is told about it.
struct Edit {
    /// Event type without `compute.instance.`, priority, and keys added to the payload.
    notes: Vec<(String, &'static str, Value)>,
    /// Who caused it.
    context: NotificationContext,
}

impl Compute {
    /// Makes tables and default flavors, and tells the database about this machine.
    pub async fn open(
        mut settings: ComputeSettings,
        database: Database,
        clock: SharedClock,
        outbox: Arc<Outbox>,
        hypervisor: Arc<dyn Hypervisor>,
        images: Arc<Images>,
        rooms: &Rooms,
    ) -> Result<Arc<Self>, ComputeError> {
        database.migrate("cloud.compute", MIGRATIONS).await?;
        flavor::ensure_defaults(&database).await?;
        let made = async {
            tokio::fs::create_dir_all(&settings.directory).await?;
            // libvirt takes only absolute paths.
            tokio::fs::canonicalize(&settings.directory).await
        };
        let made = made.await;
        settings.directory = made.map_err(|source| ComputeError::Disk { action: "make the directory for", source })?;
        guests::note(&database, hypervisor.kind()).await?;
        let node = hypervisor.node().await?;
        let (id, number) = register_node(&database, &node, clock.now()).await?;
        let node = Mutex::new(KnownNode { node, asked_at: clock.monotonic(), id, number });
        let room = rooms.room("cloud.compute");
        Ok(Arc::new(Self {
            settings,
            database,
            clock,
            outbox,
            hypervisor,
            images,
            room,
            woken: Notify::new(),
            claiming: Default::default(),
            node,
        }))
    }

    /// Does the work that requests leave behind, until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(
            self.clone().run_worker(stop.clone()),
            self.clone().run_reconcile(stop.clone()),
            self.clone().run_audit(stop),
        );
    }

    /// Whether guests are only simulated; every place that shows a host says so.
    fn simulated(&self) -> bool {
        self.hypervisor.kind() == "simulated"
    }

    /// Name of the machine as Nova's `host`.
    fn host(&self) -> String {
        self.node.lock().node.hostname.clone()
    }

    /// Name of the hypervisor as Nova's `node` and `hypervisor_hostname`; says when guests are simulated.
    fn node_name(&self) -> String {
        let host = self.host();
        if self.simulated() && !host.contains("simulated") { format!("simulated-{host}") } else { host }
    }

    /// The machine, asked for again when what is known is old. A hypervisor that does not answer now has not changed.
    async fn current_node(&self) -> KnownNode {
        let known = self.node.lock().clone();
        if self.clock.monotonic().saturating_sub(known.asked_at) < NODE_KEPT {
            return known;
        }
        if let Ok(node) = self.hypervisor.node().await {
            let mut held = self.node.lock();
            // The name is kept: servers belong to it until the next start.
            held.node = Node { hostname: held.node.hostname.clone(), ..node };
            held.asked_at = self.clock.monotonic();
        }
        self.node.lock().clone()
    }

    /// A server that the caller may see. Deleted ones are gone, as in Nova.
    pub async fn server(&self, caller: &Caller, id: &str) -> Result<Server, ComputeError> {
        let id = Uuid::try_parse(id).map_err(|_| ComputeError::no_server(id))?.to_string();
        let sql = format!("{} WHERE s.id = $1 AND s.deleted_at IS NULL", server::SELECT);
        let row = self.database.query_one(&sql, &[id.as_str().into()]).await?;
        let server = row.as_ref().map(Server::from_row).transpose()?.ok_or_else(|| ComputeError::no_server(&id))?;
        if caller.is_admin() || caller.project_id.as_deref() == Some(server.project_id.as_str()) {
            return Ok(server);
        }
        Err(ComputeError::no_server(&id))
    }

    /// Reads a server, lets `edit` change it, writes it and tells about it, in one transaction. If `edit` finds that
    /// there is nothing to do it returns `None`, and nothing is written.
    async fn change<F>(self: &Arc<Self>, id: Uuid, edit: F) -> Result<Option<Server>, ComputeError>
    where
        F: Fn(&mut Server, Timestamp) -> Result<Option<Edit>, ComputeError> + Send + Sync + 'static,
    {
        let (this, edit, now) = (self.clone(), Arc::new(edit), self.clock.now());
        let changed = self
            .database
            .transact(move |tx| {
                let (this, edit) = (this.clone(), edit.clone());
                Box::pin(async move {
                    let sql = format!("{} WHERE s.id = $1 AND s.deleted_at IS NULL", server::SELECT);
                    let row = tx.query_one(&sql, &[id.to_string().into()]).await?;
                    let Some(row) = row else { return Err(ComputeError::no_server(&id.to_string())) };
                    let before = Server::from_row(&row)?;
                    let mut server = before.clone();
                    let Some(edit) = edit(&mut server, now)? else { return Ok(None) };
                    server.updated_at = now;
                    server.update(tx).await?;
                    this.tell(tx, now, Some(&before), &server, edit).await?;
                    Ok::<_, ComputeError>(Some(server))
                })
            })
            .await?;
        if let Some(server) = &changed {
            self.outbox.wake();
            if server.task_state.is_some() {
                self.woken.notify_one();
            }
        }
        Ok(changed)
    }
}

impl Edit {
    fn by(asker: &Asker) -> Self {
        Self { notes: Vec::new(), context: asker.context() }
    }

    /// For what the worker does on behalf of the owner, or the service by itself.
    fn for_owner(server: &Server) -> Self {
        let context = NotificationContext {
            request_id: server.request_id.clone(),
            project_id: Some(server.project_id.clone()),
            user_id: Some(server.user_id.clone()),
        };
        Self { notes: Vec::new(), context }
    }

    fn note(mut self, event: impl Into<String>, extra: Value) -> Self {
        self.notes.push((event.into(), "INFO", extra));
        self
    }

    fn error(mut self, event: impl Into<String>, extra: Value) -> Self {
        self.notes.push((event.into(), "ERROR", extra));
        self
    }
}

/// True the first time it is called with this name, whatever happens in between.
async fn once(tx: &mut Transaction<'_>, name: &str) -> Result<bool, ComputeError> {
    let changed =
        tx.execute("INSERT INTO compute_done (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", &[name.into()]).await?;
    Ok(changed == 1)
}

/// 1, 2, 3 ... never the same again.
async fn next_number(tx: &mut Transaction<'_>, name: &str) -> Result<i64, ComputeError> {
    let row = tx
        .query_one(
            "INSERT INTO compute_counters (name, value) VALUES ($1, 1) \
             ON CONFLICT (name) DO UPDATE SET value = compute_counters.value + 1 RETURNING value",
            &[name.into()],
        )
        .await?;
    Ok(row.and_then(|row| row.int("value")).unwrap_or(1))
}

/// Writes down this machine. There is one; if its name changed, its servers move along with the name.
async fn register_node(database: &Database, node: &Node, now: Timestamp) -> Result<(Uuid, i64), ComputeError> {
    let node = node.clone();
    database
        .transact(move |tx| {
            let node = node.clone();
            Box::pin(async move {
                let found = tx.query_one("SELECT id, number, hostname FROM compute_nodes ORDER BY number LIMIT 1", &[]).await?;
                let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let (id, number) = match &found {
                    Some(row) => (row.string("id"), row.int("number").unwrap_or(1)),
                    None => {
                        let id = Uuid::new_v4().to_string();
                        let number = next_number(tx, "node").await?;
                        tx.execute(
                            "INSERT INTO compute_nodes (id, number, hostname, vcpus, memory_mib, disk_gib, enabled, \
                             updated_at) VALUES ($1, $2, $3, 0, 0, 0, 1, $4)",
                            &[id.as_str().into(), number.into(), node.hostname.as_str().into(), now.into()],
                        )
                        .await?;
                        (id, number)
                    }
                };
                let before = found.map(|row: Row| row.string("hostname")).unwrap_or_else(|| node.hostname.clone());
                if before != node.hostname {
                    tracing::info!(before, after = node.hostname, "this machine has a new name; its servers come along");
                    let sql = format!("{} WHERE s.host = $1", server::SELECT);
                    for row in tx.query(&sql, &[before.into()]).await? {
                        let mut server = Server::from_row(&row)?;
                        server.host = Some(node.hostname.clone());
                        server.update(tx).await?;
                    }
                }
                tx.execute(
                    "UPDATE compute_nodes SET hostname = $2, vcpus = $3, memory_mib = $4, disk_gib = $5, updated_at = $6 \
                     WHERE id = $1",
                    &[
                        id.as_str().into(),
                        node.hostname.as_str().into(),
                        i64::from(node.vcpus).into(),
                        signed(node.memory_mib).into(),
                        signed(node.disk_gib).into(),
                        now.into(),
                    ],
                )
                .await?;
                let id = Uuid::try_parse(&id).unwrap_or_default();
                Ok((id, number))
            })
        })
        .await
}
