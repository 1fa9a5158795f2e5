//! Measures of many metrics in one request, all or none.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{extract::State, response::Response};
use orzo_index::{IndexError, Metric, resource_uuid};
use orzo_model::{Caller, Measure};
use orzo_query::{PostedMeasures, QueryError, ResourceMeasures};

use super::{answer::accepted, body};
use crate::{
    SharedApi, authenticate::Asker, offered::Offered, parameters::Parameters, policy, problem::Problem,
    request::JsonBody,
};

pub(super) async fn by_metric(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let measures = body::by_metric(&body, api.clock.now())?;
    let count = measures.values().map(Vec::len).sum::<usize>();
    let gate = Gate::new(&caller);
    let scope = policy::service_scope(&caller);
    let kept = api.engine.post_by_metric(&scope, measures, |metric| gate.may_write(metric));
    finish(counted(&api, count, kept).await, &gate)
}

pub(super) async fn by_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let create_metrics = parameters.flag("create_metrics")?;
    let mut measures: BTreeMap<String, BTreeMap<String, ResourceMeasures>> = BTreeMap::new();
    for (resource, metrics) in body::by_resource(&body, api.clock.now())? {
        measures.insert(resource, metrics);
    }
    if create_metrics {
        may_create(&api, &caller, measures.keys()).await?;
    }
    let count = measures.values().flat_map(BTreeMap::values).map(|given| given.measures.len()).sum::<usize>();
    let gate = Gate::new(&caller);
    let (scope, creator) = (policy::service_scope(&caller), caller.creator());
    let kept = api.engine.post_by_resource(&scope, &creator, measures, create_metrics, |metric| gate.may_write(metric));
    finish(counted(&api, count, kept).await, &gate)
}

/// Keeps measures of metrics that the caller may write to.
pub(super) async fn post(api: &SharedApi, metric: Metric, measures: Vec<Measure>) -> Result<Response, Problem> {
    let count = measures.len();
    let posted = [PostedMeasures { metric, measures }];
    counted(api, count, api.engine.post_measures(&posted)).await?;
    Ok(accepted())
}

/// Remembers whether a metric was refused that the caller can see: then the answer is 403, not "unknown".
struct Gate<'a> {
    caller: &'a Caller,
    has_refused: AtomicBool,
}

impl<'a> Gate<'a> {
    fn new(caller: &'a Caller) -> Self {
        Self { caller, has_refused: AtomicBool::new(false) }
    }

    fn may_write(&self, metric: &Metric) -> bool {
        let allowed = policy::creator_or_service(self.caller, &metric.creator).is_ok();
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
async fn may_create(api: &SharedApi, caller: &Caller, resources: impl Iterator<Item = &String>) -> Result<(), Problem> {
    if caller.is_admin() || caller.is_service() {
        return Ok(());
    }
    for text in resources {
        let id = resource_uuid(text, &caller.creator())?;
        match api.index().resource(&caller.scope(), "generic", id).await {
            Ok(resource) => policy::creator_or_service(caller, &resource.creator)?,
            // The engine names all that are unknown.
            Err(IndexError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
