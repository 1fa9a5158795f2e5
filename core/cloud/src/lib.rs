//! The embedded cloud: identity (Keystone v3), image (Glance v2) and compute (Nova v2.1), enough for real clients and
//! for telemetry to have something to measure on one machine.
//!
//! In: HTTP requests of OpenStack clients. Out: answers in the real services' shapes, guests on a
//! [`orzo_hypervisor::Hypervisor`], and the notifications that the real services would send, on a [`orzo_bus::Bus`].
//!
//! It does not know telemetry: the rest of Orzo meets this cloud as it meets any other, over HTTP, messages and
//! libvirt.
#![forbid(unsafe_code)]

pub mod compute;
pub mod http;
pub mod identity;
pub mod image;
pub mod notify;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use orzo_bus::Bus;
use orzo_database::{Database, DatabaseError};
use orzo_hypervisor::Hypervisor;
use orzo_model::{Rooms, SharedClock};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    compute::{Compute, ComputeError, ComputeSettings, Quotas, Ratios},
    http::{mounted, shell, with_caller},
    identity::Identity,
    image::{ImageError, ImageSettings, Images},
    notify::Outbox,
};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Where clients reach this process, such as `http://127.0.0.1:8041`; the catalog's URLs are made from it.
    pub base_url: Url,
    /// Name of the only region.
    pub region: String,
    /// Where the metric API is, below `base_url`.
    pub metric_path: String,
    /// Images and instance disks live below it.
    pub data_directory: PathBuf,
    /// How long a token is valid.
    pub token_ttl_s: u64,
    /// Password of the user `admin` when it is first made; generated if not given.
    pub admin_password: Option<SecretString>,
    /// Largest image, in bytes.
    pub image_bytes_max: u64,
    /// All images of one project together, in bytes.
    pub image_project_bytes_max: u64,
    /// What the servers of one project may use, unless an admin says otherwise.
    pub quotas: Quotas,
    /// How much may be promised for each real CPU, byte of memory and of disk.
    pub ratios: Ratios,
    /// How often `compute.instance.exists` is sent for each server, in seconds (Nova's audit period).
    pub exists_period_s: u64,
    /// How often guests' power states are compared with the servers' states, in seconds.
    pub reconcile_period_s: u64,
}

impl CloudSettings {
    /// Defaults: Keystone's token life, Nova's quotas and audit period.
    pub fn new(base_url: Url, data_directory: PathBuf) -> Self {
        Self {
            base_url,
            region: "RegionOne".to_owned(),
            metric_path: "/metric".to_owned(),
            data_directory,
            token_ttl_s: 3600,
            admin_password: None,
            image_bytes_max: 64 << 30,
            image_project_bytes_max: 256 << 30,
            quotas: Quotas::default(),
            ratios: Ratios::default(),
            exists_period_s: 3600,
            reconcile_period_s: 10,
        }
    }
}

/// What the cloud is built on.
#[derive(Clone)]
pub struct CloudParts {
    /// State of all services.
    pub database: Database,
    /// Where notifications go.
    pub bus: Arc<dyn Bus>,
    /// Where guests run.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The time.
    pub clock: SharedClock,
    /// Counters.
    pub rooms: Rooms,
}

/// What can go wrong outside of requests.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The database failed.
    #[error("the cloud's database failed")]
    Database(#[from] DatabaseError),
    /// An account could not be made or mended.
    #[error("identity cannot do that: {reason}")]
    Identity {
        /// Why.
        reason: String,
    },
    /// A key that seals tokens is not a key.
    #[error("token key {id} in the database is damaged; remove its row from identity_keys")]
    DamagedKey {
        /// Its number.
        id: i64,
    },
    /// Somebody removed all keys.
    #[error("there is no token key in the database; restart, and two are made")]
    NoKey,
    /// The image service could not start.
    #[error("the image service cannot start")]
    Image(#[from] ImageError),
    /// The compute service could not start.
    #[error("the compute service cannot start")]
    Compute(#[from] ComputeError),
}

impl CloudError {
    /// What a request would have been answered, for a caller inside the process.
    fn of(error: http::ApiError) -> Self {
        match error.cause {
            Some(cause) => Self::Database(cause),
            None => Self::Identity { reason: error.message },
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database(error) => error.is_retryable(),
            Self::Image(error) => error.is_retryable(),
            Self::Compute(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// The running cloud.
pub struct Cloud {
    identity: Arc<Identity>,
    images: Arc<Images>,
    compute: Arc<Compute>,
    outbox: Arc<Outbox>,
    bootstrap_password: Option<SecretString>,
}

impl Cloud {
    /// Makes or migrates the tables, and on the first start the first projects, roles and the user `admin`.
    pub async fn open(settings: CloudSettings, parts: CloudParts) -> Result<Arc<Self>, CloudError> {
        let CloudParts { database, bus, hypervisor, clock, rooms } = parts;
        let base = settings.base_url.as_str().trim_end_matches('/').to_owned();
        let outbox = Outbox::open(database.clone(), bus, clock.clone(), &rooms).await?;
        let identity = Identity::open(&settings, database.clone(), clock.clone(), outbox.clone(), &rooms).await?;
        let bootstrap_password = identity.bootstrap(settings.admin_password.as_ref()).await?;
        let node = hypervisor.node().await.map_err(ComputeError::from)?;
        let image_settings = ImageSettings {
            directory: settings.data_directory.join("images"),
            image_bytes_max: settings.image_bytes_max,
            project_bytes_max: settings.image_project_bytes_max,
            host: node.hostname,
            url: format!("{base}/image"),
        };
        let images = Images::open(image_settings, database.clone(), clock.clone(), outbox.clone(), &rooms).await?;
        let compute_settings = ComputeSettings {
            directory: settings.data_directory.join("instances"),
            url: format!("{base}/compute/v2.1"),
            image_url: format!("{base}/image"),
            ratios: settings.ratios,
            quotas: settings.quotas,
            audit_period: Duration::from_secs(settings.exists_period_s),
            reconcile_period: Duration::from_secs(settings.reconcile_period_s),
        };
        let compute =
            Compute::open(compute_settings, database, clock, outbox.clone(), hypervisor, images.clone(), &rooms)
                .await?;
        Ok(Arc::new(Self { identity, images, compute, outbox, bootstrap_password }))
    }

    /// The generated password of `admin`, if that user was made just now and none was given. Nobody can read it again.
    pub fn bootstrap_password(&self) -> Option<SecretString> {
        self.bootstrap_password.clone()
    }

    /// A service account with these roles in a project; see [`Identity::ensure_user`]. Its id.
    pub async fn ensure_user(
        &self,
        name: &str,
        password: &SecretString,
        project: &str,
        roles: &[&str],
    ) -> Result<String, CloudError> {
        self.identity.ensure_user(name, password, project, roles).await
    }

    /// Who is who.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The images.
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// The servers.
    pub fn compute(&self) -> &Arc<Compute> {
        &self.compute
    }

    /// Everything below `/identity`, `/image` and `/compute`. Serve it with connect info, so that identity can tell
    /// one guesser from another.
    pub fn router(self: &Arc<Self>) -> Router {
        let checked = |service| shell(with_caller(service, self.identity.clone()));
        self.identity
            .mounted()
            .merge(mounted("/image", checked(image::router(self.images.clone()))))
            .merge(mounted("/compute", checked(compute::router(self.compute.clone()))))
    }

    /// The loops behind the requests, until told to stop: notifications are delivered, guests are made and watched,
    /// keys rotate.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(
            self.outbox.clone().run(stop.clone()),
            self.compute.clone().run(stop.clone()),
            self.identity.clone().run(stop),
        );
    }
}

#[cfg(test)]
mod tests;
