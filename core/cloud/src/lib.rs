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

use crate::identity::Identity;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Where clients reach this process, such as `http://127.0.0.1:8041`; the catalog's URLs are made from it.
    pub base_url: Url,
    /// Name of the only region.
    pub region: String,
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
    /// Servers of one project at most.
    pub quota_instances: u32,
    /// vCPUs of one project at most.
    pub quota_cores: u32,
    /// Memory of one project's servers at most, in MiB.
    pub quota_ram_mib: u64,
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
            data_directory,
            token_ttl_s: 3600,
            admin_password: None,
            image_bytes_max: 64 << 30,
            image_project_bytes_max: 256 << 30,
            quota_instances: 10,
            quota_cores: 20,
            quota_ram_mib: 51_200,
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
    /// A setting that cannot be used.
    #[error("the cloud cannot use {setting}: {reason}")]
    Setting {
        /// Which.
        setting: &'static str,
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
    /// A directory could not be made.
    #[error("cannot make directory `{path}`")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}
