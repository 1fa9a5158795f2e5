//! `orzo-agent`: the small binary for compute nodes. It builds the parts and waits; everything else is in the library.
//!
//! `settings → hypervisor, host → agents → publisher (RabbitMQ or Orzo's API, spool on disk)`
//!
//! One thread, beside libvirt's own and those for files. No columnar code, no query engine, no web framework.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use orzo_agents::{
    compute::{ComputeAgent, bench::bench},
    host::{HostAgent, HostReader, hostname},
    metrics::Metrics,
    polling::Polling,
    publish::{BusOutlet, DRAIN_WAIT_MAX, HttpOutlet, Outlet, Publisher},
    settings::{
        AgentSettings, ComputeSettings, Destination, EXAMPLE, HypervisorKind, PASSWORD_VARIABLE, PollingSettings,
    },
};
use orzo_bus::{Bus, RabbitBus, Records};
use orzo_hypervisor::{Hypervisor, Libvirt, LibvirtSettings, Simulated};
use orzo_model::{Rooms, SampleSink, SharedClock, SystemClock};
use orzo_session::Session;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Between two tries to reach a libvirt that was not there when the agent started.
const LIBVIRT_RETRY: Duration = Duration::from_secs(10);
/// A connection to the API that takes longer is not tried on: the batch is safe in the spool meanwhile.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Seed of simulated guests: the same guests at every start.
const SIMULATED_SEED: u64 = 1;

/// Measures guests and this machine, and sends what it measured to Orzo.
#[derive(Parser)]
#[command(name = "orzo-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs on a compute node: guests under libvirt, and the machine itself.
    Compute {
        /// Settings (TOML); without it the defaults of `config example`.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Settings: check a file, or print every key with its default.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Measures what this agent costs, with simulated guests and without sending anything.
    Bench {
        /// Simulated guests.
        #[arg(long, default_value_t = 1000)]
        guests: u32,
        /// Polls of all of them.
        #[arg(long, default_value_t = 30)]
        ticks: u32,
        /// How to print the figures.
        #[arg(short, long, default_value = "table")]
        format: Format,
    },
}

#[derive(Subcommand)]
enum ConfigAction {
    /// Reads a file and says what is wrong with it.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Prints every key with its default.
    Example,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orzo-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Compute { config } => {
            let settings = config.map_or_else(|| Ok(AgentSettings::default()), |file| read_settings(&file))?;
            let log = tracing_subscriber::EnvFilter::try_from_default_env();
            let log = log.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
            let colours = std::io::stderr().is_terminal();
            tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).with_ansi(colours).init();
            runtime.block_on(compute(settings))
        }
        Command::Config { action: ConfigAction::Check { file } } => {
            let settings = read_settings(&file)?;
            polling(&settings.polling)?;
            destination(&settings)?;
            print(&format!("{} is fine\n", file.display()))
        }
        Command::Config { action: ConfigAction::Example } => print(EXAMPLE),
        Command::Bench { guests, ticks, format } => {
            let report = runtime.block_on(bench(guests, ticks, SystemClock::shared()))?;
            match format {
                Format::Table => print(&report.table()),
                Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?)),
            }
        }
    }
}

/// To stdout. Who reads only the first lines (`| head`) closes it early, which is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn read_settings(file: &PathBuf) -> anyhow::Result<AgentSettings> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(AgentSettings::parse(&file.display().to_string(), &text)?)
}

fn polling(settings: &PollingSettings) -> anyhow::Result<Polling> {
    if settings.file.as_os_str().is_empty() {
        return Ok(Polling::shipped());
    }
    let text = fs::read_to_string(&settings.file);
    let text = text.with_context(|| format!("cannot read {}", settings.file.display()))?;
    Ok(Polling::parse(&settings.file.display().to_string(), &text)?)
}

fn destination(settings: &AgentSettings) -> anyhow::Result<Destination> {
    Ok(settings.destination(std::env::var(PASSWORD_VARIABLE).ok().map(SecretString::from))?)
}

/// The way to where samples go.
struct Way {
    outlet: Arc<dyn Outlet>,
    shards: u16,
    /// To close when all is sent.
    bus: Option<Arc<dyn Bus>>,
}

/// Nothing is sent yet, so that an agent starts also while nobody answers.
fn way(destination: Destination, host: &str, clock: &SharedClock) -> anyhow::Result<Way> {
    match destination {
        Destination::Bus { url, shards } => {
            let bus = RabbitBus::connect(url.expose_secret(), &format!("orzo-agent@{host}"), clock.clone())?;
            let bus: Arc<dyn Bus> = Arc::new(bus);
            Ok(Way { outlet: Arc::new(BusOutlet::new(bus.clone(), shards)), shards, bus: Some(bus) })
        }
        Destination::Api { url, credentials } => {
            let client = reqwest::Client::builder()
                .connect_timeout(CONNECT_WAIT_MAX)
                .timeout(DRAIN_WAIT_MAX)
                // A token is for the address in the settings and no other.
                .redirect(reqwest::redirect::Policy::none())
                .build()?;
            let session = Session::new(*credentials, client.clone(), clock.clone());
            // The collector behind the API spreads samples itself.
            Ok(Way { outlet: Arc::new(HttpOutlet::new(client, &url, session)), shards: 1, bus: None })
        }
    }
}

/// Runs until SIGTERM or SIGINT. Whatever an agent has measured by then is confirmed or in the spool when this ends.
async fn compute(settings: AgentSettings) -> anyhow::Result<()> {
    // Fails only if a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = SystemClock::shared();
    let registry = prometheus::Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let rooms = Rooms::new(&registry);
    let metrics = match settings.metrics.listen {
        Some(address) => Some(Metrics::listen(address, registry, clock.clone()).await?),
        None => None,
    };
    let host = if settings.host.is_empty() { hostname() } else { settings.host.clone() };
    let polling = polling(&settings.polling)?;
    let publish = &settings.publish;
    let destination = destination(&settings)?;

    let Way { outlet, shards, bus } = way(destination, &host, &clock)?;
    let spool = Records::open(&publish.spool, publish.spool_bytes_max)
        .with_context(|| format!("cannot open the spool {}", publish.spool.display()))?;
    let publisher = Publisher::new(outlet, Arc::new(spool), shards, &rooms, clock.clone());
    let sink: Arc<dyn SampleSink> = publisher.clone();

    let (stop, stop_publishing) = (CancellationToken::new(), CancellationToken::new());
    let draining = tokio::spawn({
        let (publisher, stop) = (publisher.clone(), stop_publishing.clone());
        async move { publisher.run(stop).await }
    });
    if let Some(metrics) = metrics {
        tracing::info!(address = %metrics.address()?, "/metrics and /healthz are answered");
        // Until the very end, so that also the handing over can be watched.
        tokio::spawn(metrics.run(stop_publishing.clone()));
    }
    let agents = TaskTracker::new();
    if settings.host_meters.enabled {
        let reader = HostReader::below(&settings.host_meters.root);
        let agent = HostAgent::new(reader, polling.clone(), sink.clone(), clock.clone(), &rooms, &host);
        agents.spawn(agent.run(stop.clone()));
    }
    agents.spawn({
        let (stop, clock, rooms, host) = (stop.clone(), clock.clone(), rooms.clone(), host.clone());
        async move {
            let settings = settings.compute;
            let Some(hypervisor) = hypervisor(&settings, &host, &clock, &stop).await else { return };
            let agent = ComputeAgent::new(hypervisor, polling, sink, clock, &rooms, host)
                .report_stopped(settings.report_stopped)
                .report_unowned(settings.report_unowned);
            Arc::new(agent).run(stop).await;
        }
    });
    agents.close();
    tracing::info!(host, "orzo-agent has started");

    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    tracing::info!("stopping: handing over what is measured");
    stop.cancel();
    if tokio::time::timeout(settings.publish.drain_wait, agents.wait()).await.is_err() {
        tracing::warn!(wait = ?settings.publish.drain_wait, "a poll was not handed over in time");
    }
    stop_publishing.cancel();
    let _ = draining.await;
    if let Some(bus) = bus {
        bus.close().await;
    }
    for room in ["host", "host.slots", "compute", "compute.slots", "publisher", "spool"] {
        tracing::info!(room, balance = ?rooms.room(room).balance(), "stopped");
    }
    Ok(())
}

/// The hypervisor of the settings. A libvirt that is not there yet is waited for; `None` when told to stop.
async fn hypervisor(
    settings: &ComputeSettings,
    host: &str,
    clock: &SharedClock,
    stop: &CancellationToken,
) -> Option<Arc<dyn Hypervisor>> {
    if settings.hypervisor == HypervisorKind::Simulated {
        let simulated = Simulated::new(host, SIMULATED_SEED, clock.clone());
        simulated.populate(settings.simulated_guests);
        tracing::info!(guests = settings.simulated_guests, "the guests are simulated");
        return Some(Arc::new(simulated));
    }
    let mut told = false;
    loop {
        let libvirt = LibvirtSettings { uri: settings.uri.clone(), ..LibvirtSettings::default() };
        match Libvirt::connect(libvirt, clock.clone()).await {
            Ok(libvirt) => return Some(Arc::new(libvirt)),
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no guests are measured until libvirt answers"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            () = clock.sleep(LIBVIRT_RETRY) => {}
            () = stop.cancelled() => return None,
        }
    }
}
