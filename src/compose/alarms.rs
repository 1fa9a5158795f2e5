//! The rooms of the alarms: the evaluator and the deliverer, beside the store or in a process of their own.
//!
//! ```text
//! beside the store:  engine ── windows, events, PromQL, word of arrivals ── evaluator ── book ── deliverer
//! alone:             HTTP (`/watch` of the process with the store) ── evaluator ── book ── deliverer
//! ```
//!
//! Several evaluators share the alarms by the leases in the book, so they share its database.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use orzo_alarms::{
    AlarmBook, AllowList, ArrivalBox, Deliverer, Evaluator, EvaluatorParts, EvaluatorSettings, Notifier,
    NotifierSettings, PoolMembers, Prometheus, QuotaDefaults, SigningKeys, Webhook,
};
use orzo_model::{EventFeed, InstantQueries, WindowReader};
use orzo_query::Engine;
use orzo_session::Session;
use tokio::sync::Notify;

use super::{
    Ground,
    distant::DistantReader,
    holder::Holder,
    notices::{CloudServices, Topics},
    stages::Stages,
};
use crate::secrets;

/// How long one connection attempt of a webhook may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often old notices are removed, and trusts ended that no alarm uses any more.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// What API and evaluator both need: the alarms, and the way that notices take.
#[derive(Clone)]
pub(super) struct AlarmLedger {
    pub(super) book: AlarmBook,
    pub(super) deliverer: Arc<Deliverer>,
    pub(super) prometheus: Arc<dyn InstantQueries>,
}

/// Everything that the evaluator and the deliverer stand on.
pub(super) struct Alarms {
    ledger: AlarmLedger,
    reader: Arc<dyn WindowReader>,
    events: Arc<dyn EventFeed>,
    arrivals: Option<Arc<ArrivalBox>>,
    session: Arc<Session>,
    /// Kept as long as the alarms run.
    _holder: Holder,
}

impl AlarmLedger {
    /// Opens the book and the way out. PromQL is asked of `own`, unless a Prometheus is set.
    pub(super) async fn open(
        ground: &Ground,
        session: &Arc<Session>,
        own: Arc<dyn InstantQueries>,
    ) -> anyhow::Result<Self> {
        let Ground { settings, clock, database, .. } = ground;
        let book = AlarmBook::open(database.clone(), clock.clone()).await.context("cannot open the alarm book")?;
        let quotas = QuotaDefaults { project: settings.alarms.project_quota, user: settings.alarms.user_quota };
        let book = if settings.alarms.announcements { book.with_announcements() } else { book };
        let deliverer = open_deliverer(ground, session)?;
        let prometheus = match &settings.alarms.prometheus_url {
            Some(url) => {
                let label = settings.alarms.prometheus_project_label.clone();
                Arc::new(Prometheus::new(url.clone(), label)?)
            }
            None => own,
        };
        Ok(Self { book: book.with_quotas(quotas), deliverer, prometheus })
    }
}

/// What tries to deliver a notice: the loop's tries and the test calls of the API go through the same.
fn open_deliverer(ground: &Ground, session: &Arc<Session>) -> anyhow::Result<Arc<Deliverer>> {
    let Ground { settings, clock, bus, .. } = ground;
    let chosen = &settings.alarms;
    let secret = match &chosen.signing_secret {
        Some(secret) => secret.clone(),
        None => secrets::kept(&settings.server.data_directory.join("webhook.secret"))?,
    };
    let authorities = match &chosen.webhook_ca_file {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => Vec::new(),
    };
    let webhook = Webhook::with_authorities(
        AllowList::parse(&chosen.webhook_allow)?,
        SigningKeys::new(secret, chosen.signing_secret_previous.clone()),
        CONNECT_TIMEOUT,
        chosen.webhook_timeout.0,
        clock.clone(),
        &authorities,
    )
    .context("cannot use alarms.webhook_ca_file")?;
    let cloud = Arc::new(CloudServices(session.clone()));
    Ok(Deliverer::new(webhook, Some(cloud), Some(Arc::new(Topics(bus.clone()))), clock.clone()))
}

impl Alarms {
    /// In the process that has the store.
    pub(super) fn beside(
        ground: &Ground,
        session: &Arc<Session>,
        ledger: AlarmLedger,
        engine: &Arc<Engine>,
    ) -> anyhow::Result<Self> {
        let arrivals = Arc::new(ArrivalBox::default());
        engine.listen(arrivals.clone());
        Self::open(ground, session, ledger, engine.clone(), engine.clone(), Some(arrivals))
    }

    /// In a process of their own.
    pub(super) async fn alone(ground: &Ground, session: &Arc<Session>) -> anyhow::Result<Self> {
        let url = ground.settings.alarms.reader_url.clone().context("alarms.reader_url is not set")?;
        let reader = Arc::new(DistantReader::new(url, session.clone())?);
        let ledger = AlarmLedger::open(ground, session, reader.clone()).await?;
        Self::open(ground, session, ledger, reader.clone(), reader, None)
    }

    fn open(
        ground: &Ground,
        session: &Arc<Session>,
        ledger: AlarmLedger,
        reader: Arc<dyn WindowReader>,
        events: Arc<dyn EventFeed>,
        arrivals: Option<Arc<ArrivalBox>>,
    ) -> anyhow::Result<Self> {
        let holder = Holder::take(&ground.settings.server.data_directory.join("alarms.holder"), &ground.host)?;
        let ledger = AlarmLedger { book: ledger.book.with_holder(holder.name()), ..ledger };
        Ok(Self { ledger, reader, events, arrivals, session: session.clone(), _holder: holder })
    }

    /// Starts the evaluator and the deliverer.
    pub(super) fn start(&self, ground: &Ground, stages: &Stages) {
        let Ground { settings, clock, rooms, .. } = ground;
        let AlarmLedger { book, deliverer, prometheus } = self.ledger.clone();
        let chosen = &settings.alarms;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let wake = Arc::new(Notify::new());
        let evaluator = Evaluator::new(
            EvaluatorParts {
                book: book.clone(),
                reader: self.reader.clone(),
                events: Some(self.events.clone()),
                prometheus: Some(prometheus),
                members: Some(Arc::new(Octavia(self.session.clone()))),
                arrivals: self.arrivals.clone(),
                clock: clock.clone(),
                room: rooms.room("alarms"),
                notices: wake.clone(),
            },
            EvaluatorSettings {
                interval_ms: millis(chosen.interval.0),
                lag_ms: millis(chosen.lag.0),
                lease_ms: millis(chosen.lease.0),
            },
        );
        stages.readers.tasks.spawn(evaluator.run(stages.readers.stop.clone()));
        let notifier_settings = NotifierSettings {
            backoff_first_ms: millis(chosen.retry_first.0),
            backoff_max_ms: millis(chosen.retry_max.0),
            give_up_after_s: chosen.give_up_after.0.as_secs(),
            ..NotifierSettings::default()
        };
        let notifier = Notifier::new(book, deliverer, notifier_settings, rooms.room("notices"), wake);
        stages.readers.tasks.spawn(notifier.clone().run(stages.readers.stop.clone()));
        let (clock, stop) = (clock.clone(), stages.readers.stop.clone());
        stages.readers.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(TIDY_INTERVAL) => {}
                }
                if let Err(error) = notifier.tidy().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old notices were not removed");
                }
                match notifier.end_trusts().await {
                    Ok(0) => {}
                    Ok(trusts) => tracing::info!(trusts, "trusts that no alarm uses any more are ended"),
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "unused trusts were not ended");
                    }
                }
            }
        });
    }
}

/// Lists the members of a pool by this service's own session.
struct Octavia(Arc<Session>);

#[async_trait::async_trait]
impl PoolMembers for Octavia {
    async fn members(&self, pool_id: &str) -> Result<Vec<serde_json::Value>, String> {
        let path = format!("v2/lbaas/pools/{pool_id}/members");
        let mut answer = self.0.get("load-balancer", &path).await.map_err(|error| error.to_string())?;
        match answer["members"].take() {
            serde_json::Value::Array(members) => Ok(members),
            _ => Err("the load balancing service gives an answer without members".to_owned()),
        }
    }
}
