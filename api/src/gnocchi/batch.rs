//! Measures of many metrics in one request, all or none.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{extract::State, response::Response};
use orzo_index::{IndexError, Metric, resource_uuid};
use orzo_model::{Caller, Measure};
use orzo_query::QueryError;

use super::{
    answer::accepted,
    posted::{self, PostedBody},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    offered::Offered,
    parameters::Parameters,
    policy::{Action, Target},
    problem::Problem,
};

pub(super) async fn by_metric(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    body: PostedBody,
) -> Result<Response, Problem> {
    let (ids, column) = posted::by_metric(&body, api.clock.now())?;
    let gate = Gate::new(&api, &caller);
    let scope = api.scope(Action::GetMetric, &caller);
    let kept = api.engine.post_by_metric(&scope, &ids, &column, |metric| gate.may_write(metric));
    finish(counted(&api, column.measures.len(), kept).await, &gate)
}

pub(super) async fn by_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    body: PostedBody,
) -> Result<Response, Problem> {
    let create_metrics = parameters.flag("create_metrics")?;
    let (metrics, column) = posted::by_resource(&body, api.clock.now())?;
    if create_metrics {
        may_create(&api, &caller, metrics.iter().map(|metric| metric.resource.as_str())).await?;
    }
    let gate = Gate::new(&api, &caller);
    let (scope, creator) = (api.scope(Action::GetMetric, &caller), caller.creator());
    let kept = api
        .engine
        .post_by_resource(&scope, &creator, &metrics, &column, create_metrics, |metric| gate.may_write(metric));
    finish(counted(&api, column.measures.len(), kept).await, &gate)
}

/// Keeps measures of a metric that the caller may write to.
pub(super) async fn post(api: &SharedApi, metric: &Metric, measures: &[Measure]) -> Result<Response, Problem> {
    counted(api, measures.len(), api.engine.post_to_metric(metric, measures)).await?;
    Ok(accepted())
}

/// Remembers whether a metric was refused that the caller can see: then the answer is 403, not "unknown".
struct Gate<'a> {
    api: &'a SharedApi,
    caller: &'a Caller,
    has_refused: AtomicBool,
}

impl<'a> Gate<'a> {
    fn new(api: &'a SharedApi, caller: &'a Caller) -> Self {
        Self { api, caller, has_refused: AtomicBool::new(false) }
    }

    fn may_write(&self, metric: &Metric) -> bool {
        let allowed = self.api.allow(Action::PostMeasures, self.caller, Target::Metric(metric)).is_ok();
        if !allowed {
            self.has_refused.store(true, Ordering::Relaxed);
        }
        allowed
    }
}

async fn counted(
    api: &SharedApi,
    count: usize,
    kept: impl Future<Output = Result<(), QueryError>>,
) -> Result<(), QueryError> {
    let offered = Offered::new(&api.room, count as u64);
    let outcome = kept.await;
    match &outcome {
        Ok(()) => offered.stored_all(),
        // Given back: the same request may succeed later.
        Err(error) if error.is_retryable() => drop(offered),
        Err(_) => offered.refused_all("not acceptable"),
    }
    outcome
}

fn finish(outcome: Result<(), QueryError>, gate: &Gate<'_>) -> Result<Response, Problem> {
    match outcome {
        Ok(()) => Ok(accepted()),
        Err(_) if gate.has_refused.load(Ordering::Relaxed) => Err(Problem::forbidden()),
        Err(error) => Err(error.into()),
    }
}

/// Metrics may be made on resources that the caller made, or by a service.
async fn may_create(api: &SharedApi, caller: &Caller, resources: impl Iterator<Item = &str>) -> Result<(), Problem> {
    if api.allow(Action::UpdateResource, caller, Target::Nothing).is_ok() {
        return Ok(());
    }
    let scope = api.scope(Action::SearchResource, caller);
    for text in resources.collect::<BTreeSet<_>>() {
        let id = resource_uuid(text, &caller.creator())?;
        match api.index().resource(&scope, "generic", id).await {
            Ok(resource) => api.allow(Action::UpdateResource, caller, Target::Resource(&resource))?,
            // The engine names all that are unknown.
            Err(IndexError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
