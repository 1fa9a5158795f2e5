//! Answers in PromQL for alarms ([`InstantQueries`]): values at one time, of the series that the alarm's scope may see.
//!
//! The limits are below those of other queries: several run at once, each evaluator's every minute, and nobody counts what they
//! hold together. Whoever goes away, or waits longer than the deadline, stops the evaluation.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use orzo_model::{InstantQueries, ReadError, Scope, Timestamp};
use orzo_promql::{Answer, CancelOnDrop, Expressions, Limits, QueryError as PromError, Value, Window, evaluate, read};

use crate::{Engine, NamedSeries, error::chain};

/// A query that takes longer keeps the other alarms waiting; together with the time in which an evaluator begins queries it is
/// shorter than its leases.
const DEADLINE: Duration = Duration::from_secs(5);
/// Points and values of one query: what the deadline has time for, and some hundred megabytes at most.
const POINTS_MAX: usize = 5_000_000;

/// Asks the engine in PromQL.
pub struct InstantReader {
    engine: Arc<Engine>,
    /// Alarms ask the same texts every minute.
    expressions: Expressions,
    limits: Limits,
    deadline: Duration,
}

#[async_trait]
impl InstantQueries for InstantReader {
    async fn instant(&self, scope: &Scope, query: &str, at: Timestamp) -> Result<Vec<f64>, ReadError> {
        match tokio::time::timeout(self.deadline, self.evaluated(scope, query, at)).await {
            Ok(Ok(answer)) => values_of(&answer),
            Ok(Err(error)) => Err(unread(&error)),
            Err(_) => {
                let reason = format!("the query takes longer than {} s", self.deadline.as_secs());
                Err(ReadError::Unavailable { reason })
            }
        }
    }
}

impl InstantReader {
    /// A reader with limits for what is asked every minute.
    pub fn new(engine: Arc<Engine>) -> Self {
        let limits = Limits { points_max: POINTS_MAX, cells_max: POINTS_MAX, ..Limits::default() };
        Self { engine, expressions: Expressions::default(), limits, deadline: DEADLINE }
    }

    #[cfg(test)]
    pub(crate) fn with_limits(self, limits: Limits, deadline: Duration) -> Self {
        Self { limits, deadline, ..self }
    }

    async fn evaluated(&self, scope: &Scope, query: &str, at: Timestamp) -> Result<Answer, PromError> {
        let at_ms = at.micros().div_euclid(1000);
        let window = Window { start_ms: at_ms, end_ms: at_ms, step_ms: 0 };
        let limits = self.limits.clone();
        let plan = self.expressions.plan(query, window, &limits)?;
        let source = NamedSeries::new(self.engine.clone(), scope.clone(), scope.clone());
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let found = read(&plan, &source, &limits, &cancelled).await?;
        if plan.is_brief(&found) {
            return evaluate(&plan, found, &limits, &cancelled);
        }
        let evaluation = move || evaluate(&plan, found, &limits, &cancelled);
        tokio::task::spawn_blocking(evaluation).await.unwrap_or(Err(PromError::Cancelled))
    }
}

fn values_of(answer: &Answer) -> Result<Vec<f64>, ReadError> {
    let given = |what: &str| {
        Err(ReadError::Invalid { reason: format!("the query gives {what}; an alarm needs numbers at one time") })
    };
    let values: Vec<f64> = match &answer.value {
        Value::Scalar(numbers) => numbers.first().copied().into_iter().collect(),
        Value::Vector(series) => series.iter().filter_map(|one| one.column.get(0)).collect(),
        Value::Text(_) => return given("a text"),
        Value::Matrix(_) => return given("ranges of values"),
    };
    match values.iter().any(|value| answer.histogram(*value).is_some()) {
        true => given("native histograms"),
        false => Ok(values),
    }
}

fn unread(error: &PromError) -> ReadError {
    match error {
        PromError::Source(_) | PromError::Cancelled | PromError::Busy(_) => {
            ReadError::Unavailable { reason: chain(error) }
        }
        PromError::Syntax(_)
        | PromError::Refused(_)
        | PromError::Unsupported(_)
        | PromError::Execution(_)
        | PromError::TooMuch { .. } => ReadError::Invalid { reason: error.to_string() },
    }
}
