//! What an alarm watches: rules of every type as Aodh's v2 API writes them, read and checked field by field.
//!
//! Beyond Aodh's fields a rule may have a few of our own, all optional and written only when they are set, so that
//! nothing changes for who does not use them: `reaggregation_method`, `for`, `clear_threshold` and, for events,
//! `resolve_event_type`, `resolve_query` and `resolve_after`.

mod combination;
mod composite;
mod event;
mod member_health;
mod meter;
mod prometheus;
mod threshold;

use std::time::Duration;

use serde_json::Value;

use crate::alarm::AlarmError;

pub use combination::{CombinationRule, Operator};
pub use composite::Composite;
pub(crate) use composite::leaf_json as composite_leaf_json;
pub use event::{EventQuery, EventRule};
pub use member_health::MemberHealthRule;
pub use meter::{MeterQuery, MeterRule, MeterStatistic};
pub use prometheus::PrometheusRule;
pub use threshold::{Comparison, Condition, GroupRule, MetricsRule, ResourceRule, Threshold};

/// How often rules that ask about now (and not about windows of samples) are evaluated: Aodh's evaluation interval.
pub(crate) const INSTANT_INTERVAL: Duration = Duration::from_secs(60);

/// A rule of one of Aodh's types.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// `gnocchi_resources_threshold`
    Resource(ResourceRule),
    /// `gnocchi_aggregation_by_metrics_threshold`
    Metrics(MetricsRule),
    /// `gnocchi_aggregation_by_resources_threshold`
    Group(GroupRule),
    /// `composite`
    Composite(Composite),
    /// `event`
    Event(EventRule),
    /// `prometheus`
    Prometheus(PrometheusRule),
    /// `loadbalancer_member_health`
    MemberHealth(MemberHealthRule),
    /// `threshold`: retired in Aodh, kept for old templates.
    Meter(MeterRule),
    /// `combination`: retired in Aodh, kept for old templates.
    Combination(CombinationRule),
}

/// All types, sorted, as Aodh's error text lists them.
pub const TYPES: [&str; 9] = [
    "combination",
    "composite",
    "event",
    "gnocchi_aggregation_by_metrics_threshold",
    "gnocchi_aggregation_by_resources_threshold",
    "gnocchi_resources_threshold",
    "loadbalancer_member_health",
    "prometheus",
    "threshold",
];

impl Rule {
    /// Type as the API names it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Combination(_) => TYPES[0],
            Self::Composite(_) => TYPES[1],
            Self::Event(_) => TYPES[2],
            Self::Metrics(_) => TYPES[3],
            Self::Group(_) => TYPES[4],
            Self::Resource(_) => TYPES[5],
            Self::MemberHealth(_) => TYPES[6],
            Self::Prometheus(_) => TYPES[7],
            Self::Meter(_) => TYPES[8],
        }
    }

    /// Key of the rule in an alarm's JSON: `<type>_rule`.
    pub fn key(type_name: &str) -> String {
        format!("{type_name}_rule")
    }

    /// Reads and checks a rule; the error is in Aodh's words.
    pub fn parse(type_name: &str, json: &Value) -> Result<Self, AlarmError> {
        let path = format!("alarm.{}", Self::key(type_name));
        match type_name {
            "composite" => Composite::parse(json).map(Self::Composite),
            other => Self::parse_at(&path, other, json),
        }
    }

    /// The same for every type but `composite`, whose parts are of the others.
    fn parse_at(path: &str, type_name: &str, json: &Value) -> Result<Self, AlarmError> {
        match type_name {
            "gnocchi_resources_threshold" => ResourceRule::parse(path, json).map(Self::Resource),
            "gnocchi_aggregation_by_metrics_threshold" => MetricsRule::parse(path, json).map(Self::Metrics),
            "gnocchi_aggregation_by_resources_threshold" => GroupRule::parse(path, json).map(Self::Group),
            "event" => EventRule::parse(path, json).map(Self::Event),
            "prometheus" => PrometheusRule::parse(path, json).map(Self::Prometheus),
            "loadbalancer_member_health" => MemberHealthRule::parse(path, json).map(Self::MemberHealth),
            "threshold" => MeterRule::parse(path, json).map(Self::Meter),
            "combination" => CombinationRule::parse(path, json).map(Self::Combination),
            other => {
                let reason = format!("Value should be one of: {}", TYPES.join(", "));
                Err(AlarmError::invalid("type", &Value::from(other), &reason))
            }
        }
    }

    /// As the API writes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Resource(rule) => rule.to_json(),
            Self::Metrics(rule) => rule.to_json(),
            Self::Group(rule) => rule.to_json(),
            Self::Composite(rule) => rule.to_json(),
            Self::Event(rule) => rule.to_json(),
            Self::Prometheus(rule) => rule.to_json(),
            Self::MemberHealth(rule) => rule.to_json(),
            Self::Meter(rule) => rule.to_json(),
            Self::Combination(rule) => rule.to_json(),
        }
    }

    /// Aodh's description of an alarm that has none.
    pub fn default_description(&self) -> String {
        match self {
            Self::Event(rule) => format!("Alarm when {} event occurred.", rule.event_type),
            Self::Meter(rule) => rule.default_description(),
            Self::Combination(rule) => rule.default_description(),
            other => format!("{} alarm rule", other.type_name()),
        }
    }

    /// How far apart the ends of the windows are at which this rule is judged. A composite is judged at the ends of
    /// its narrowest part; event alarms are judged by events and have none.
    pub fn granularity(&self) -> Duration {
        match self {
            Self::Resource(rule) => rule.threshold.granularity(),
            Self::Metrics(rule) => rule.threshold.granularity(),
            Self::Group(rule) => rule.threshold.granularity(),
            Self::Meter(rule) => Duration::from_secs(u64::from(rule.period)),
            Self::Composite(rule) => {
                rule.leaves().iter().map(|leaf| leaf.granularity()).min().unwrap_or(INSTANT_INTERVAL)
            }
            Self::Event(_) | Self::Prometheus(_) | Self::MemberHealth(_) | Self::Combination(_) => INSTANT_INTERVAL,
        }
    }

    /// What Aodh does to the rules of who is not an operator: the search of a group is narrowed to what the project may
    /// see, and shown so; a Prometheus query is bound to the project. Orzo's reads are scoped below the query in any
    /// case.
    pub fn scope_to(&mut self, project_id: &str) {
        match self {
            Self::Group(rule) => rule.scope_to(project_id),
            Self::Prometheus(rule) => rule.scope_to_project = Some(project_id.to_owned()),
            Self::Composite(rule) => rule.scope_to(project_id),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
