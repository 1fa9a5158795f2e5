//! Builds the rooms, hands each its parts, runs them, and stops them in order: the only place that knows them all.
//!
//! ```text
//! database ─┬─ index ─┬─ engine ──┬── collector core ── collector ── bus ── publisher ── agents
//!           │  store ─┘           ├── API                             └── listener, cloud's outbox
//!           ├─ alarms ── evaluator, notifier
//!           └─ cloud (identity, image, compute) ── hypervisor ── compute agent
//! ```
//!
//! Stopping goes against the stream: first nothing new comes in (HTTP, agents, cloud), then what is under way is
//! finished (collector, listener), then alarms, and the store closes last. All of it together takes `server.drain` at
//! most.

mod alarms;
mod backups;
mod banner;
mod distant;
mod health;
mod holder;
mod http;
mod hypervisor;
mod names;
mod notices;
mod pipeline;
mod points;
mod poison;
mod rating;
mod retention;
mod rollups;
mod scrape;
mod sql;
mod stages;
mod telemetry;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use orzo_bus::{Bus, InProcessBus, RabbitBus};
use orzo_cloud::{Cloud, CloudParts, CloudSettings, image::Asker};
use orzo_database::Database;
use orzo_hypervisor::Hypervisor;
use orzo_model::{Rooms, SharedClock, SystemClock};
use orzo_session::{Credentials, Session};
use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, signal::unix::SignalKind};
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) use sql::{WORKER_COMMAND as SQL_WORKER, worker as sql_worker};
use stages::Stages;

use crate::{
    secrets,
    settings::{Role, Settings},
};

/// Longer than any answer of a service of the cloud should take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the demonstration's servers may take to come up before the start is told without them.
const DEMO_WAIT: Duration = Duration::from_secs(20);

/// What every room is built on.
struct Ground {
    settings: Settings,
    clock: SharedClock,
    rooms: Rooms,
    database: Database,
    bus: Arc<dyn Bus>,
    /// Where clients reach this process.
    url: Url,
    /// This machine's name in samples.
    host: String,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn serve(settings: Settings) -> anyhow::Result<()> {
    check_roles(&settings)?;
    let stop = stop_signal()?;
    let directory = settings.server.data_directory.clone();
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let listener = TcpListener::bind(settings.server.listen)
        .await
        .with_context(|| format!("cannot listen on {} (server.listen)", settings.server.listen))?;
    let address = listener.local_addr()?;

    let clock = SystemClock::shared();
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let rooms = Rooms::new(&registry);
    let database = open_database(&settings, &directory).await?;
    let bus = open_bus(&settings, &clock)?;
    let url = match &settings.server.public_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}", reachable(address)))?,
    };
    let host = settings.agents.host_name.clone().unwrap_or_else(orzo_agents::host::hostname);
    let ground = Ground { settings, clock, rooms, database, bus, url, host };

    let stages = Stages::default();
    let hypervisor = hypervisor::open(&ground).await?;
    let cloud = match ground.settings.has(Role::Cloud) {
        true => {
            let hypervisor = hypervisor.clone().context("the cloud needs a hypervisor")?;
            Some(open_cloud(&ground, hypervisor).await?)
        }
        false => None,
    };
    let session = open_session(&ground, cloud.as_deref(), address).await?;
    let telemetry = telemetry::open(&ground, &session).await?;

    let mut router = Router::new();
    if let Some(cloud) = &cloud {
        router = router.merge(cloud.router());
    }
    router = router.merge(telemetry.router(&ground, &session)?);
    let drain = ground.settings.server.drain.0;
    let requests_drain = stages::share(drain, stages::SOURCES_SHARE);
    stages.sources.tasks.spawn(http::serve(listener, router, stages.sources.stop.clone(), requests_drain));

    if ground.settings.has(Role::Api) {
        stages.sources.tasks.spawn(log_in(session.clone(), stages.sources.stop.clone()));
    }

    telemetry.start_sinks(&ground, &stages)?;
    if let Some(cloud) = &cloud {
        stages.sources.tasks.spawn(cloud.clone().run(stages.sources.stop.clone()));
    }
    telemetry.start_agents(&ground, &stages, hypervisor.clone(), &session)?;

    let server = match (&cloud, &hypervisor) {
        (Some(cloud), Some(hypervisor)) if hypervisor.kind() == "simulated" && ground.settings.cloud.demo_servers => {
            make_demo_servers(&ground, cloud, address).await.unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), "the demonstration's servers could not be made");
                None
            })
        }
        _ => None,
    };
    // Generated at the first start only; nobody can read it again afterwards.
    let generated = cloud.as_ref().and_then(|cloud| cloud.bootstrap_password());
    let chosen = ground.settings.cloud.admin_password.clone().filter(|_| !directory.join("openrc").exists());
    if let Some(password) = generated.as_ref().or(chosen.as_ref().filter(|_| cloud.is_some())) {
        banner::write_openrc(&directory, &ground.url, password, server.as_deref())?;
    }
    banner::Banner {
        url: &ground.url,
        metric_path: &ground.settings.metrics.path,
        data_directory: &directory,
        password: generated,
        hypervisor: hypervisor.as_ref().map(|hypervisor| hypervisor.kind()),
        server,
    }
    .print();
    tracing::info!(url = %ground.url, "started");

    let failure = tokio::select! {
        () = stop.cancelled() => None,
        reason = telemetry.store_closed(&ground) => Some(reason),
    };
    match &failure {
        None => tracing::info!("stopping"),
        // What it could not write it must not guess at: only a new start, which reads the disk again, recovers.
        Some(reason) => tracing::error!(reason, "the store has closed itself; stopping, start again to recover"),
    }
    let stopping = stages::Stopping::begin(ground.clock.clone(), drain);
    stages.end(&stopping).await;
    let closed = stopping.close(async {
        ground.bus.close().await;
        telemetry.close().await?;
        ground.database.close().await;
        anyhow::Ok(())
    });
    closed.await?;
    tracing::info!("stopped");
    match failure {
        None => Ok(()),
        Some(reason) => bail!("the store closed itself: {reason}; start again to recover"),
    }
}

/// The store is one directory, open in one process: what needs it runs together. Evaluators elsewhere ask that process,
/// and share its database and its key for signatures.
fn check_roles(settings: &Settings) -> anyhow::Result<()> {
    let together = [Role::Collector, Role::Api];
    let chosen = together.into_iter().filter(|role| settings.server.roles.contains(role)).count();
    if chosen != 0 && chosen != together.len() {
        bail!("the roles collector and api share one store and must run in one process; name both or none");
    }
    let is_split = settings.has(Role::Alarms) != (chosen != 0);
    if is_split && settings.database.url.is_none() {
        bail!("alarms in a process of their own need database.url, the same as that of the process with the api");
    }
    if settings.server.roles.contains(&Role::Rating) && chosen == 0 {
        bail!("the role rating needs the store and must run in the process with the api");
    }
    if is_split && settings.alarms.signing_secret.is_none() {
        bail!("alarms in a process of their own need alarms.signing_secret, the same in all processes");
    }
    if is_split && chosen == 0 && settings.alarms.reader_url.is_none() {
        bail!("alarms in a process of their own need alarms.reader_url, the process with the api");
    }
    if chosen == 0 && settings.has(Role::Agents) && settings.bus.url.is_none() {
        bail!("agents without a collector in the same process need bus.url to send their samples to");
    }
    if chosen == 0 && settings.has(Role::Cloud) && settings.bus.url.is_none() {
        bail!("a cloud without a collector in the same process needs bus.url to send its notifications to");
    }
    Ok(())
}

async fn open_database(settings: &Settings, directory: &Path) -> anyhow::Result<Database> {
    match &settings.database.url {
        Some(url) => Database::open(url.expose_secret()).await.context("cannot open the database (database.url)"),
        None => {
            let path = directory.join("orzo.db");
            Database::open_file(&path).await.with_context(|| format!("cannot open {}", path.display()))
        }
    }
}

fn open_bus(settings: &Settings, clock: &SharedClock) -> anyhow::Result<Arc<dyn Bus>> {
    match &settings.bus.url {
        Some(url) => {
            let bus = RabbitBus::connect(url.expose_secret(), "orzo", clock.clone());
            Ok(Arc::new(bus.context("cannot use bus.url")?))
        }
        None => Ok(Arc::new(InProcessBus::new(clock.clone()))),
    }
}

async fn open_cloud(ground: &Ground, hypervisor: Arc<dyn Hypervisor>) -> anyhow::Result<Arc<Cloud>> {
    let chosen = &ground.settings.cloud;
    // Guests' disks are named by their path to libvirt, which has a working directory of its own.
    let data_directory = std::path::absolute(&ground.settings.server.data_directory)?;
    let mut settings = CloudSettings::new(ground.url.clone(), data_directory);
    settings.region.clone_from(&chosen.region);
    settings.metric_path.clone_from(&ground.settings.metrics.path);
    settings.token_ttl_s = chosen.token_life.0.as_secs();
    settings.exists_period_s = chosen.exists_period.0.as_secs();
    settings.admin_password.clone_from(&chosen.admin_password);
    let parts = CloudParts {
        database: ground.database.clone(),
        bus: ground.bus.clone(),
        hypervisor,
        clock: ground.clock.clone(),
        rooms: ground.rooms.clone(),
    };
    Cloud::open(settings, parts).await.context("cannot open the embedded cloud")
}

/// Our own session with the identity service; makes our account if the service is the embedded one.
async fn open_session(ground: &Ground, cloud: Option<&Cloud>, address: SocketAddr) -> anyhow::Result<Arc<Session>> {
    let settings = &ground.settings.identity;
    let password = match &settings.password {
        Some(password) => password.clone(),
        None => secrets::kept(&ground.settings.server.data_directory.join("service.secret"))?,
    };
    if let Some(cloud) = cloud {
        cloud
            .ensure_user(&settings.username, &password, &settings.project, &["admin", "service"])
            .await
            .context("cannot make this service's own account")?;
    }
    // Of a service elsewhere we hear nothing: what it revokes counts when the cached verdict has run out.
    let revision = cloud.filter(|_| settings.url.is_none()).map(|cloud| cloud.identity().revision());
    let auth_url = settings.url.clone().map_or_else(|| identity_url(address), Ok)?;
    session_of(ground, auth_url, (&settings.username, password), &settings.project, revision.unwrap_or_default())
}

/// Whoever shows a token first should not wait until we have one of our own to ask about it with.
async fn log_in(session: Arc<Session>, stop: CancellationToken) {
    let token = stop.run_until_cancelled(session.token()).await;
    if let Some(Err(error)) = token {
        tracing::info!("no token of our own yet: {error}");
    }
}

fn session_of(
    ground: &Ground,
    auth_url: Url,
    (username, password): (&str, SecretString),
    project: &str,
    revision: Arc<AtomicU64>,
) -> anyhow::Result<Arc<Session>> {
    let settings = &ground.settings.identity;
    let credentials = Credentials {
        auth_url,
        username: username.to_owned(),
        password,
        user_domain: settings.user_domain.clone(),
        project: project.to_owned(),
        project_domain: settings.project_domain.clone(),
    };
    let client = reqwest::Client::builder().timeout(SERVICE_TIMEOUT).build()?;
    Ok(Session::with_revision(credentials, client, ground.clock.clone(), revision))
}

/// The embedded identity service, by the way of this machine and not by that of its clients.
fn identity_url(address: SocketAddr) -> anyhow::Result<Url> {
    Ok(Url::parse(&format!("http://{}/identity/v3", reachable(address)))?)
}

/// An address that this machine can connect to, for one it listens on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// A project `demo` with a few simulated servers; gives the id of one of them.
async fn make_demo_servers(ground: &Ground, cloud: &Cloud, address: SocketAddr) -> anyhow::Result<Option<String>> {
    // Nobody logs in with it; the account is there because servers have an owner.
    let password = secrets::kept(&ground.settings.server.data_directory.join("demo.secret"))?;
    cloud.ensure_user("demo", &password, "demo", &["member"]).await?;
    let session = session_of(ground, identity_url(address)?, ("demo", password), "demo", cloud.identity().revision())?;
    let token = session.token().await?;
    let caller = session.validate(token.expose_secret()).await?.context("the demo account is not valid")?;
    let asker = Asker { caller, request_id: None };
    cloud.compute().ensure_demo_servers(&asker).await?;
    let deadline = ground.clock.now().plus(DEMO_WAIT);
    while ground.clock.now() < deadline {
        let answer = session.get("compute", "servers/detail?status=ACTIVE").await?;
        if let Some(id) = answer["servers"][0]["id"].as_str() {
            return Ok(Some(id.to_owned()));
        }
        ground.clock.sleep(Duration::from_millis(200)).await;
    }
    Ok(None)
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once, which is safe as well.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.is_cancelled() {
                tracing::warn!("told to stop twice, ending at once");
                std::process::exit(1);
            }
            told.cancel();
        }
    });
    Ok(stop)
}
