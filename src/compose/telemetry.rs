//! The rooms of the telemetry: store, index, engine, collector, agents, alarms, API.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use orzo_agents::{
    central::CentralAgent,
    compute::ComputeAgent,
    host::{HostAgent, HostReader},
    notifications::{ListenerParts, NotificationListener, NotificationSettings},
    polling::Polling,
    publish::{BusOutlet, Publisher},
};
use orzo_api::{ApiParts, ApiSettings, BatchDoor, MetricsAccess};
use orzo_bus::{Records, batch, topic};
use orzo_collector::{Collector, CollectorSettings, Limits, Quarantine};
use orzo_definitions::{Definitions, EventDefinitions, MeterDefinitions, ResourceDefinitions, read_file};
use orzo_hypervisor::Hypervisor;
use orzo_index::{Index, IndexSettings};
use orzo_labels::LabelIndex;
use orzo_model::SampleSink;
use orzo_query::{Engine, EngineSettings, IndexNumbers, InstantReader};
use orzo_scrape::Scraper;
use orzo_session::Session;
use orzo_store::Store;
use orzo_tokens::TokenBook;

use super::{
    Ground,
    alarms::{AlarmLedger, Alarms},
    backups::Backups,
    health::Health,
    names,
    points::Exports,
    poison::QuarantinePoison,
    retention, rollups, scrape,
    sql::Sql,
    stages::Stages,
};
use crate::{
    backup::{Labels, Source},
    rating::{Parts, Rating},
    settings::{CredentialChoice, Role, Settings},
};

/// How often the store is asked whether it is still open: the bound on how long a process without one lives.
const STORE_LOOK: Duration = Duration::from_millis(500);
/// How often the points of deleted metrics are removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// The rooms that this process has.
pub(super) struct Telemetry {
    definitions: Arc<Definitions>,
    core: Option<Core>,
    alarms: Option<Alarms>,
}

/// What stands on the store; all of it or nothing.
struct Core {
    store: Arc<Store>,
    labels: Arc<LabelIndex>,
    engine: Arc<Engine>,
    collector: Arc<Collector>,
    quarantine: Arc<Quarantine>,
    ledger: AlarmLedger,
    /// Held while what was deleted is purged, and while it must not be.
    purging: Arc<tokio::sync::Mutex<()>>,
    tokens: Arc<TokenBook>,
    scraper: Option<Arc<Scraper>>,
    rating: Option<Arc<Rating>>,
}

/// Opens what the roles need.
pub(super) async fn open(ground: &Ground, session: &Arc<Session>) -> anyhow::Result<Telemetry> {
    let definitions = Arc::new(read_definitions(&ground.settings)?);
    let core = match ground.settings.has(Role::Api) {
        true => Some(open_core(ground, session, &definitions).await?),
        false => None,
    };
    let alarms = match (ground.settings.has(Role::Alarms), &core) {
        (false, _) => None,
        (true, Some(core)) => Some(Alarms::beside(ground, session, core.ledger.clone(), &core.engine)?),
        (true, None) => Some(Alarms::alone(ground, session).await?),
    };
    Ok(Telemetry { definitions, core, alarms })
}

async fn open_core(ground: &Ground, session: &Arc<Session>, definitions: &Definitions) -> anyhow::Result<Core> {
    let Ground { settings, clock, rooms, database, bus, .. } = ground;
    let directory = &settings.server.data_directory;
    let store = Store::open(settings.store_settings()?, rooms.room("store"), clock.clone()).await;
    let store = store.context("cannot open the store")?;
    let defaults = IndexSettings::default();
    let index_settings = IndexSettings {
        create_defaults: settings.metrics.make_defaults,
        page_max: defaults.page_max.max(settings.metrics.limit_max as usize),
        ..defaults
    };
    let index = Index::open(database.clone(), clock.clone(), index_settings).await;
    let index = Arc::new(index.context("cannot open the index")?);
    let labels = LabelIndex::open(
        settings.labels.index_settings(directory.join("labels"), settings.store.disk_reserve_bytes),
        Arc::new(IndexNumbers(index.clone())),
        clock.clone(),
    )
    .await
    .context("cannot open the label index")?;
    let labels = Arc::new(labels);
    let engine = Engine::new(
        index,
        store.clone(),
        definitions.resources.clone(),
        rooms.room("engine"),
        clock.clone(),
        EngineSettings { purge_after: settings.metrics.purge_after.0, ..EngineSettings::default() },
    )
    .await
    .context("cannot open the engine")?;
    let engine = Arc::new(engine.with_labels(labels.clone()).with_meters(crate::meters::described()));
    let quarantine = Arc::new(Quarantine::open(
        &directory.join("quarantine"),
        settings.collector.quarantine_bytes_max,
        rooms,
        clock.clone(),
    )?);
    let collector_settings = CollectorSettings {
        limits: Limits { future_max: settings.collector.future_max.0, past_max: settings.collector.past_max.0 },
        ..CollectorSettings::default()
    };
    let collector = Arc::new(Collector::new(
        collector_settings,
        bus.clone(),
        engine.clone(),
        engine.clone(),
        quarantine.clone(),
        rooms,
        clock.clone(),
    ));
    let ledger = AlarmLedger::open(ground, session, Arc::new(InstantReader::new(engine.clone()))).await?;
    let scraper = scrape::open(ground, &engine)?;
    let rating = match settings.has(Role::Rating) {
        true => {
            let (index, store) = (engine.index().clone(), store.clone());
            let parts = Parts { settings, database: database.clone(), index, store, clock: clock.clone(), rooms };
            Some(Arc::new(crate::rating::open(parts).await?))
        }
        false => None,
    };
    let tokens = TokenBook::open(database.clone(), clock.clone()).await.context("cannot open the book of tokens")?;
    Ok(Core {
        store,
        labels,
        engine,
        collector,
        quarantine,
        ledger,
        purging: Arc::default(),
        tokens: Arc::new(tokens),
        scraper,
        rating,
    })
}

impl Telemetry {
    /// The API's routes; none without the store.
    pub(super) fn router(&self, ground: &Ground, session: &Arc<Session>) -> anyhow::Result<Router> {
        let access = match ground.settings.server.metrics_public {
            true => MetricsAccess::Everyone,
            false => MetricsAccess::Loopback,
        };
        let readiness = Arc::new(Health {
            database: ground.database.clone(),
            bus: ground.bus.clone(),
            store: self.core.as_ref().map(|core| core.store.clone()),
        });
        let Some(core) = &self.core else {
            return Ok(match &self.alarms {
                Some(_) => orzo_api::health_alone(ground.rooms.clone(), readiness, access),
                None => Router::new(),
            });
        };
        let chosen = &ground.settings.metrics;
        if chosen.credentials == CredentialChoice::AnyPassword {
            tracing::warn!(
                "METRICS ARE OPEN: metrics.credentials is any-password, so everyone who reaches {} is whoever they say, \
                 the administrator too; this is for running Gnocchi's tests and nothing else",
                chosen.path
            );
        }
        let settings = ApiSettings {
            public_url: ground.settings.server.public_url.clone(),
            identity_url: ground.settings.identity.url.clone(),
            metric_path: chosen.path.clone(),
            policies: Arc::new(chosen.policies()?),
            credentials: chosen.credentials()?,
            cors_origins: chosen.cors_origins.clone(),
            proxy_headers: chosen.proxy_headers,
            limit_max: chosen.limit_max,
            alarming_noauth: ground.settings.alarms.noauth,
            evaluation_metrics: ground.settings.alarms.evaluation_metrics,
            metrics_access: access,
            ..ApiSettings::default()
        };
        let decode = |bytes: &[u8]| batch::decode(bytes).map_err(|error| error.to_string());
        let polling = read_polling(ground.settings.agents.polling_file.as_deref())?;
        let pipeline = super::pipeline::Rooms::new(&ground.settings, &polling, core.quarantine.clone());
        Ok(orzo_api::router(ApiParts {
            engine: core.engine.clone(),
            alarms: Some(core.ledger.book.clone()),
            deliverer: Some(core.ledger.deliverer.clone()),
            prometheus: core.ledger.prometheus.clone(),
            session: session.clone(),
            tokens: Some(core.tokens.clone()),
            targets: core
                .scraper
                .clone()
                .map(|scraper| -> Arc<dyn orzo_api::Targets> { Arc::new(scrape::ShownTargets(scraper)) }),
            rooms: ground.rooms.clone(),
            clock: ground.clock.clone(),
            settings,
            readiness,
            batches: Some(BatchDoor { sink: core.collector.core(), decode }),
            backups: Some(Arc::new(Backups::new(Source {
                store: core.store.clone(),
                labels: Labels::Open(core.labels.clone()),
                database: ground.database.clone(),
                purging: core.purging.clone(),
                data_directory: ground.settings.server.data_directory.clone(),
                backups: ground.settings.backup_directory(),
                clock: ground.clock.clone(),
            }))),
            pipeline: Some(Arc::new(pipeline)),
            rating: core.rating.as_ref().map(|rating| rating.shown(&ground.settings)).transpose()?,
            points: Some(Arc::new(Exports::new(orzo_names::Flat {
                index: core.engine.index().clone(),
                labels: Some(core.labels.clone()),
                store: core.store.clone(),
            }))),
            sql: ground.settings.sql.enabled.then(|| -> Arc<dyn orzo_api::SqlRunner> {
                let source = orzo_sql::Source {
                    index: core.engine.index().clone(),
                    labels: Some(core.labels.clone()),
                    store: core.store.clone(),
                    ledger: core
                        .rating
                        .as_ref()
                        .map(|rating| -> Arc<dyn orzo_rating::Ledger> { Arc::new(rating.ledger.clone()) }),
                };
                Arc::new(Sql::new(ground, source))
            }),
        }))
    }

    /// Starts the collector and the alarms.
    pub(super) fn start_sinks(&self, ground: &Ground, stages: &Stages) -> anyhow::Result<()> {
        if let Some(alarms) = &self.alarms {
            alarms.start(ground, stages);
        }
        let Some(core) = &self.core else { return Ok(()) };
        if let Some(scraper) = core.scraper.clone() {
            stages.sources.tasks.spawn(scraper.run(stages.sources.stop.clone()));
        }
        if let Some(rating) = &core.rating {
            super::rating::start(rating, &core.engine, ground, stages)?;
        }
        names::start(ground, core.engine.index(), &core.labels, stages);
        retention::start(&core.engine, core.rating.as_ref(), ground, stages)?;
        if ground.settings.store.rollups {
            rollups::start(&core.engine, &core.store, ground, stages)?;
        }
        let collector = core.collector.clone();
        let stop = stages.sinks.stop.clone();
        stages.sinks.tasks.spawn(async move { collector.run(stop).await });
        let (engine, clock, stop) = (core.engine.clone(), ground.clock.clone(), stages.readers.stop.clone());
        let interval = PURGE_INTERVAL.min(ground.settings.metrics.purge_after.0);
        let purging = core.purging.clone();
        stages.readers.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(interval) => {}
                }
                let _purging = purging.lock().await;
                match engine.purge_deleted().await {
                    Ok(0) => {}
                    Ok(metrics) => tracing::info!(metrics, "deleted metrics are gone"),
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "deleted metrics wait"),
                }
                match engine.purge_labelled().await {
                    Ok(0) => {}
                    Ok(series) => tracing::info!(series, "deleted series are gone"),
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "deleted series wait"),
                }
            }
        });
        Ok(())
    }

    /// Starts the agents and the listener.
    pub(super) fn start_agents(
        &self,
        ground: &Ground,
        stages: &Stages,
        hypervisor: Option<Arc<dyn Hypervisor>>,
        session: &Arc<Session>,
    ) -> anyhow::Result<()> {
        if !ground.settings.has(Role::Agents) {
            return Ok(());
        }
        let Ground { settings, clock, rooms, bus, host, .. } = ground;
        let agents = &settings.agents;
        let spool = Records::open(&settings.server.data_directory.join("spool"), agents.spool_bytes_max)
            .context("cannot open the agents' spool")?;
        let outlet = Arc::new(BusOutlet::new(bus.clone(), topic::SHARDS_DEFAULT));
        let publisher = Publisher::new(outlet, Arc::new(spool), topic::SHARDS_DEFAULT, rooms, clock.clone());
        {
            let (publisher, stop) = (publisher.clone(), stages.sources.stop.clone());
            stages.sources.tasks.spawn(async move { publisher.run(stop).await });
        }
        let polling = read_polling(agents.polling_file.as_deref())?;
        if let Some(hypervisor) = hypervisor.filter(|_| agents.compute) {
            let agent = Arc::new(ComputeAgent::new(
                hypervisor,
                polling.clone(),
                publisher.clone(),
                clock.clone(),
                rooms,
                host.clone(),
            ));
            stages.sources.tasks.spawn(agent.run(stages.sources.stop.clone()));
        }
        if agents.host {
            let agent = HostAgent::new(
                HostReader::below("/"),
                polling.clone(),
                publisher.clone(),
                clock.clone(),
                rooms,
                host.clone(),
            );
            stages.sources.tasks.spawn(agent.run(stages.sources.stop.clone()));
        }
        if agents.central {
            let agent = CentralAgent::new(
                session.clone(),
                polling.clone(),
                publisher.clone(),
                clock.clone(),
                rooms,
                host.clone(),
            );
            let stop = stages.sources.stop.clone();
            stages.sources.tasks.spawn(async move { agent.run(stop).await });
        }
        if agents.notifications {
            // In the same process the way to the store is short; elsewhere it goes over the bus.
            let (sink, poison): (Arc<dyn SampleSink>, _) = match &self.core {
                Some(core) => (core.collector.core(), core.quarantine.clone()),
                None => {
                    let directory = settings.server.data_directory.join("quarantine");
                    let bytes_max = settings.collector.quarantine_bytes_max;
                    let quarantine = Quarantine::open(&directory, bytes_max, rooms, clock.clone())?;
                    (publisher, Arc::new(quarantine))
                }
            };
            let listener = NotificationListener::new(
                NotificationSettings {
                    exchanges: agents.exchanges.clone(),
                    host: host.clone(),
                    ..NotificationSettings::default()
                },
                ListenerParts {
                    bus: bus.clone(),
                    sink,
                    poison: Arc::new(QuarantinePoison(poison)),
                    definitions: self.definitions.clone(),
                    clock: clock.clone(),
                    room: rooms.room("notifications"),
                },
            );
            let stop = stages.sinks.stop.clone();
            stages.sinks.tasks.spawn(async move { listener.run(stop).await });
        }
        Ok(())
    }

    /// Waits until the store or the label index has closed itself after a failed write, and gives the reason; for ever if it never does.
    pub(super) async fn store_closed(&self, ground: &Ground) -> String {
        let Some(core) = &self.core else { return std::future::pending().await };
        loop {
            if let Some(reason) = core.store.closed_because().or_else(|| core.labels.closed_because()) {
                return reason;
            }
            ground.clock.sleep(STORE_LOOK).await;
        }
    }

    /// Closes store and label index.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        match &self.core {
            Some(core) => {
                core.labels.close().await.context("the label index did not close well")?;
                core.store.close().await.context("the store did not close well")
            }
            None => Ok(()),
        }
    }
}

fn read_definitions(settings: &Settings) -> anyhow::Result<Definitions> {
    let mut definitions = Definitions::shipped();
    if !settings.agents.meters_files.is_empty() {
        let mut files = Vec::new();
        for path in &settings.agents.meters_files {
            files.push(read_file(path)?);
        }
        // An operator's definition goes before ours of the same name.
        files.push(("meters.yaml (shipped)".to_owned(), MeterDefinitions::SHIPPED.to_owned()));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        definitions.meters = MeterDefinitions::parse(&files)?;
    }
    if let Some(path) = &settings.agents.events_file {
        let (name, text) = read_file(path)?;
        definitions.events = EventDefinitions::parse(&name, &text)?;
    }
    if let Some(path) = &settings.collector.resources_file {
        let (name, text) = read_file(path)?;
        definitions.resources = ResourceDefinitions::parse(&name, &text)?;
    }
    Ok(definitions)
}

fn read_polling(path: Option<&Path>) -> anyhow::Result<Polling> {
    let Some(path) = path else { return Ok(Polling::shipped()) };
    let (name, text) = read_file(path)?;
    Ok(Polling::parse(&name, &text)?)
}
