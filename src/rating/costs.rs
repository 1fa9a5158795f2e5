//! What each project was charged this month and will have been at its end, as metrics that alarms watch: budgets.
//!
//! `ledger → sums by day and currency → forecast → metrics on a resource of the project`
//!
//! Each currency has two metrics with its code in their names. Those without a code are written while the month's costs have one
//! currency: costs of several are never added.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::TryStreamExt;
use orzo_index::{ArchivePolicy, IndexError, Metric, NewMetric, NewResource, PolicyItem};
use orzo_model::{Measure, Scope, SharedClock, Timestamp};
use orzo_query::{Engine, PostedMeasures};
use orzo_rating::{
    BigDecimal, Ledger, LineFilter,
    forecast::{
        ACCRUED_METRIC, COST_GRANULARITY_S, COST_POLICY, FORECAST_METRIC, cost_metric, cost_resource, forecast, month,
    },
};
use parking_lot::Mutex;

const DAY: Duration = Duration::from_secs(86_400);
/// For how long the metrics are answered: a year and a month, so that a month is seen beside the same of last year.
const KEPT: Duration = Duration::from_secs(396 * 86_400);
/// Who makes the resources.
const CREATOR: &str = "orzo:rating";

/// Writes the metrics.
pub(crate) struct CostMeters {
    engine: Arc<Engine>,
    ledger: Arc<dyn Ledger>,
    clock: SharedClock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The two metrics of each project and currency, and those without one.
    metrics: HashMap<(String, Option<String>), [Metric; 2]>,
    /// Begin of the last slot that was written.
    slot: Option<Timestamp>,
    /// What was read of the ledger, and which ledger that was: its lines and the month.
    sums: Option<((u64, Timestamp), Arc<Sums>)>,
}

/// The cost of each day, by project and currency.
type Sums = BTreeMap<String, BTreeMap<String, BTreeMap<Timestamp, BigDecimal>>>;

impl CostMeters {
    pub(crate) fn new(engine: Arc<Engine>, ledger: Arc<dyn Ledger>, clock: SharedClock) -> Self {
        Self { engine, ledger, clock, known: Mutex::default() }
    }

    /// Writes all projects' metrics if the ledger has other lines than before, or their granularity has passed; everything
    /// before `until` was rated. Says how many projects there were.
    pub(crate) async fn publish(&self, lines: u64, until: Timestamp) -> anyhow::Result<usize> {
        let now = self.clock.now();
        let slot = now.floor(Duration::from_secs(COST_GRANULARITY_S));
        let (begin, end) = (month(now, 0), month(now, 1));
        let read = self.known.lock().sums.clone().filter(|(of, _)| *of == (lines, begin)).map(|(_, sums)| sums);
        if read.is_some() && self.known.lock().slot == Some(slot) {
            return Ok(0);
        }
        let projects = match read {
            Some(sums) => sums,
            None => Arc::new(self.sums(begin, end).await?),
        };
        let mut posted = Vec::with_capacity(projects.len() * 4);
        for (project, currencies) in projects.iter() {
            for (currency, days) in currencies {
                let accrued: BigDecimal = days.values().sum();
                let values = [accrued, forecast(begin, end, until, days)];
                let names = [Some(currency.as_str()), None];
                for name in names.into_iter().take(if currencies.len() == 1 { 2 } else { 1 }) {
                    for (metric, value) in self.metrics(project, name).await?.into_iter().zip(&values) {
                        let value = value.to_plain_string().parse::<f64>().context("a sum is a number")?;
                        posted.push(PostedMeasures { metric, measures: vec![Measure { timestamp: now, value }] });
                    }
                }
            }
        }
        self.engine.post_measures(&posted).await.context("cannot write what projects cost")?;
        let mut known = self.known.lock();
        known.slot = Some(slot);
        known.sums = Some(((lines, begin), projects.clone()));
        Ok(projects.len())
    }

    async fn sums(&self, begin: Timestamp, end: Timestamp) -> anyhow::Result<Sums> {
        let filter = LineFilter { begin: Some(begin), end: Some(end), ..LineFilter::default() };
        let mut lines = self.ledger.read(&filter).await.context("cannot read the ledger")?;
        let mut projects = Sums::new();
        while let Some(line) = lines.try_next().await.context("cannot read the ledger")? {
            let day = line.period.floor(DAY);
            let days = projects.entry(line.scope).or_default().entry(line.currency).or_default();
            *days.entry(day).or_default() += line.cost;
        }
        // What belongs to no project is nobody's budget.
        projects.remove("");
        Ok(projects)
    }

    async fn metrics(&self, project: &str, currency: Option<&str>) -> anyhow::Result<[Metric; 2]> {
        let key = (project.to_owned(), currency.map(str::to_owned));
        if let Some(known) = self.known.lock().metrics.get(&key) {
            return Ok(known.clone());
        }
        let name = |metric: &str| currency.map_or_else(|| metric.to_owned(), |code| cost_metric(metric, code));
        let names = [name(ACCRUED_METRIC), name(FORECAST_METRIC)];
        let metrics = match self.find(project, &names).await {
            Err(IndexError::NotFound { .. }) => {
                self.make(project, &names).await.context("cannot make the resource of a project's costs")?;
                self.find(project, &names).await
            }
            found => found,
        };
        let metrics = metrics.context("cannot find the metrics of a project's costs")?;
        self.known.lock().metrics.insert(key, metrics.clone());
        Ok(metrics)
    }

    async fn find(&self, project: &str, [accrued, forecast]: &[String; 2]) -> Result<[Metric; 2], IndexError> {
        let (index, id) = (self.engine.index(), cost_resource(project));
        Ok([
            index.metric_of_resource(&Scope::All, id, accrued).await?,
            index.metric_of_resource(&Scope::All, id, forecast).await?,
        ])
    }

    /// Makes the metrics, and the resource that they are on, where they are missing.
    async fn make(&self, project: &str, names: &[String; 2]) -> Result<(), IndexError> {
        let (index, id) = (self.engine.index(), cost_resource(project));
        if let Err(IndexError::NotFound { .. }) = index.archive_policy(COST_POLICY).await {
            let item = PolicyItem::new(Some(Duration::from_secs(COST_GRANULARITY_S)), None, Some(KEPT))?;
            let methods = Some(["last", "max", "mean"].map(str::to_owned).to_vec());
            index.create_archive_policy(&ArchivePolicy::new(COST_POLICY, 0, vec![item], methods, &[])?).await?;
        }
        if let Err(IndexError::NotFound { .. }) = index.resource(&Scope::All, "generic", id).await {
            let resource = NewResource {
                id: id.to_string(),
                resource_type: "generic".to_owned(),
                creator: CREATOR.to_owned(),
                project_id: Some(project.to_owned()),
                user_id: None,
                started_at: None,
                ended_at: None,
                attributes: serde_json::Map::new(),
                metrics: Vec::new(),
            };
            index.create_resource(&resource).await?;
        }
        for name in names {
            if let Err(IndexError::NotFound { .. }) = index.metric_of_resource(&Scope::All, id, name).await {
                let metric = NewMetric {
                    creator: CREATOR.to_owned(),
                    name: Some(name.clone()),
                    unit: None,
                    resource_id: Some(id),
                    archive_policy_name: Some(COST_POLICY.to_owned()),
                };
                index.create_metric(&metric).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
