//! What a rule needs to be read, and what the readings say. Pure: the windows come in, a finding goes out.

use std::time::Duration;

use orzo_model::{Measure, ReadError, Scope, Target, Timestamp};
use serde_json::json;

use crate::{
    alarm::{Alarm, AlarmState},
    python,
    rule::{MeterStatistic, PrometheusRule, Rule},
    verdict::{Finding, compare, examine, examine_meter},
    windows::{Missing, Question, ReadReason},
};

/// The rules of an alarm that are judged by themselves: the parts of a composite, or the one.
pub(crate) fn leaves_of(rule: &Rule) -> Vec<&Rule> {
    match rule {
        Rule::Composite(rule) => rule.leaves(),
        other => vec![other],
    }
}

/// An alarm sees what its project sees; an operator's sees everything.
pub(crate) fn scope_of(alarm: &Alarm) -> Scope {
    if alarm.is_operators { Scope::All } else { Scope::Project(alarm.project_id.clone()) }
}

/// How far a query looks: as far as its alarm, or less, if the rule names a project.
pub(crate) fn query_scope(rule: &PrometheusRule, scope: &Scope) -> Scope {
    match (scope, &rule.scope_to_project) {
        (Scope::All, Some(project)) => Scope::Project(project.clone()),
        _ => scope.clone(),
    }
}

/// What is read for a rule; none for rules that do not look at windows of samples.
pub(crate) fn questions_of(rule: &Rule, scope: &Scope) -> Vec<Question> {
    let question = |target: Target, within: &str, over: Option<&str>| Question {
        scope: scope.clone(),
        target,
        aggregation: within.to_owned(),
        reaggregation: over.map(str::to_owned),
        granularity: rule.granularity(),
    };
    match rule {
        Rule::Resource(rule) => {
            let target = Target::Resource { resource_id: rule.resource_id.clone(), metric: rule.metric.clone() };
            vec![question(target, &rule.threshold.aggregation_method, None)]
        }
        Rule::Metrics(rule) => {
            let (within, over) = rule.methods();
            vec![question(Target::Metrics(rule.metrics.clone()), within, Some(over))]
        }
        Rule::Group(rule) => {
            let (within, over) = rule.methods();
            let target = Target::Group {
                metric: rule.metric.clone(),
                resource_type: rule.resource_type.clone(),
                search: rule.query.clone(),
            };
            vec![question(target, within, Some(over))]
        }
        Rule::Meter(rule) => {
            let (resource_type, search) = rule.search();
            let target = Target::Group { metric: rule.meter_name.clone(), resource_type, search: search.to_string() };
            let (within, over) = match rule.statistic {
                MeterStatistic::Max => ("max", "max"),
                MeterStatistic::Min => ("min", "min"),
                MeterStatistic::Avg | MeterStatistic::Sum => ("sum", "sum"),
                MeterStatistic::Count => ("count", "sum"),
            };
            vec![question(target.clone(), within, Some(over)), question(target, "count", Some("sum"))]
        }
        Rule::Composite(_) | Rule::Event(_) | Rule::Prometheus(_) | Rule::MemberHealth(_) | Rule::Combination(_) => {
            Vec::new()
        }
    }
}

/// How far back from the end of a window a rule looks: one window more than it needs, since a metric that is polled
/// once a window may have its point just before it (Aodh looks one further back, too).
pub(crate) fn reach_of(rule: &Rule) -> Duration {
    let windows = match rule {
        Rule::Resource(rule) => rule.threshold.alarm_periods() + 1,
        Rule::Metrics(rule) => rule.threshold.alarm_periods() + 1,
        Rule::Group(rule) => rule.threshold.alarm_periods() + 1,
        Rule::Meter(rule) if rule.exclude_outliers => rule.evaluation_periods * 2,
        Rule::Meter(rule) => rule.evaluation_periods + 1,
        _ => 0,
    };
    rule.granularity() * windows
}

/// What was read for one rule.
pub(crate) enum Reading<'a> {
    /// For each of its questions the windows that it looks at.
    Windows(Vec<Result<&'a [Measure], &'a Missing>>),
    /// The answer to an instant query.
    Values(Result<&'a [f64], &'a ReadError>),
}

/// What a reading says. `Err`: it could not be read; nothing is known, not even that there is no data.
pub(crate) fn finding_of(rule: &Rule, state: AlarmState, reading: &Reading<'_>) -> Result<Finding, String> {
    let windows = match (rule, reading) {
        (Rule::Prometheus(rule), Reading::Values(answer)) => {
            return match answer {
                Ok([]) => Ok(Finding::unknown("datapoints are unknown", 0, None)),
                Ok(values) => Ok(compare(&rule.condition, state, values)),
                Err(ReadError::Unavailable { reason }) => Err(reason.clone()),
                Err(error) => Ok(Finding::unknown(failed(&error.to_string()), 0, None)),
            };
        }
        (_, Reading::Values(_)) => return Err("values were read for a rule that looks at windows".to_owned()),
        (_, Reading::Windows(windows)) => windows,
    };
    let mut found: Vec<&[Measure]> = Vec::with_capacity(windows.len());
    for window in windows {
        match window {
            Ok(measures) => found.push(measures),
            Err(Missing::Unavailable(reason)) => return Err(reason.clone()),
            Err(Missing::NoData(reason)) => return Ok(without_data(rule, reason)),
        }
    }
    Ok(match (rule, found.as_slice()) {
        (Rule::Resource(rule), [windows]) => examine(&rule.threshold, state, windows),
        (Rule::Metrics(rule), [windows]) => examine(&rule.threshold, state, windows),
        (Rule::Group(rule), [windows]) => examine(&rule.threshold, state, windows),
        (Rule::Meter(rule), [windows, counts]) => examine_meter(rule, state, windows, counts),
        _ => return Err("the rule has no windows".to_owned()),
    })
}

fn failed(reason: &str) -> String {
    format!("alarm statistics retrieval failed: {reason}")
}

/// Aodh: what cannot be found or asked is no data, and says so.
fn without_data(rule: &Rule, reason: &ReadReason) -> Finding {
    let (text, periods) = match (rule, reason) {
        (Rule::Resource(rule), reason) => {
            let (metric, resource) = (&rule.metric, &rule.resource_id);
            let text = match reason {
                ReadReason::NotFound(what) if what.starts_with("Resource") => {
                    format!("resource {resource} does not exists")
                }
                ReadReason::NotFound(_) => format!("metric {metric} for resource {resource} does not exists"),
                ReadReason::Invalid(reason) => failed(reason),
            };
            (text, rule.threshold.evaluation_periods)
        }
        (Rule::Metrics(rule), ReadReason::NotFound(_)) => {
            let metrics = python::repr(&json!(rule.metrics));
            (format!("At least of metrics in {metrics} does not exist"), rule.threshold.evaluation_periods)
        }
        (Rule::Metrics(rule), ReadReason::Invalid(reason)) => (failed(reason), rule.threshold.evaluation_periods),
        (Rule::Group(rule), ReadReason::NotFound(_)) => {
            (format!("metric {} does not exists", rule.metric), rule.threshold.evaluation_periods)
        }
        (Rule::Group(rule), ReadReason::Invalid(reason)) => (failed(reason), rule.threshold.evaluation_periods),
        (Rule::Meter(rule), _) => {
            (format!("{} datapoints are unknown", rule.evaluation_periods), rule.evaluation_periods)
        }
        (_, ReadReason::NotFound(reason) | ReadReason::Invalid(reason)) => (failed(reason), 1),
    };
    Finding::unknown(text, periods as usize, None)
}

/// The window of a rule that is newest at `end`; of a composite's parts each has its own width.
pub(crate) fn own_end(rule: &Rule, end: Timestamp) -> Timestamp {
    end.floor(rule.granularity())
}
