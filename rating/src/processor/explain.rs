//! Where a line comes from, all the way down: the rules of its version, the stretches of usage that it is one of, and the
//! events, revisions and points that tell of them; and the same line rated anew from these by the rules of its version.
//! Also what of a project's usage was measured and what is missing. Reads only.

use std::{collections::HashSet, sync::Arc, time::Duration};

use orzo_model::{Event, Measure, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Charge, PeriodRules, Processor, ProcessorError, RulesOf, Unpriced,
    corrections::effective,
    lines::{rate, rule_of},
    periods, periods_count, stretches,
    unpriced::findings,
};
use crate::{
    doors::{Evidence, Revision},
    line::{LineKind, RatedLine},
    segments::{Completeness, Finding, segments, timeline},
};

/// Events, revisions and points that are shown; how many there are is told.
const SHOWN_MAX: usize = 1000;
/// Days of one question about completeness: a month and a day.
const DAYS_MAX: u64 = 32;
/// What is read at once: slots do not end where periods do, so that short periods are not read one by one.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where a line comes from. Empty lists for lines that no usage made: bills' settlements, and what others brought in.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// Whether the line's id is that of its contents.
    pub has_its_id: bool,
    /// The line rated anew from the evidence by the rules of its version; `None` where that makes no such line.
    pub rated_anew: Option<RatedLine>,
    /// Whether that says the same.
    pub is_reproduced: bool,
    /// The rules of its version for its service at its period, as they are written.
    pub rules: Vec<Value>,
    /// Stretches in which nothing changed that is rated, from the resource's beginning to the period's end.
    pub stretches: Vec<Value>,
    /// What happened to the resource, oldest first.
    pub events: Vec<Value>,
    /// What polling saw of it, oldest first.
    pub revisions: Vec<Value>,
    /// The points of its metric: those of the line's time, and the one before.
    pub points: Vec<Value>,
    /// How many of each there are.
    pub counts: [usize; 3],
    /// What of its slots was polled.
    pub completeness: Option<Completeness>,
    /// What does not fit together.
    pub findings: Vec<Finding>,
}

fn event_shown(event: &Event) -> Value {
    let traits: serde_json::Map<String, Value> =
        event.traits.iter().map(|own| (own.name.clone(), json!(own.value.to_text()))).collect();
    json!({"message_id": event.message_id, "event_type": event.event_type, "generated_at": event.generated_at,
           "traits": traits})
}

fn revision_shown(own: &Revision) -> Value {
    json!({"from": own.from, "until": own.until, "project_id": own.project_id, "user_id": own.user_id,
           "attributes": own.attributes})
}

fn point_shown(point: &Measure) -> Value {
    json!({"timestamp": point.timestamp, "value": point.value})
}

fn first_of<T>(list: &[T], shown: impl Fn(&T) -> Value) -> Vec<Value> {
    list.iter().take(SHOWN_MAX).map(shown).collect()
}

impl Processor {
    /// Where a line comes from.
    pub async fn explain(&self, line: &RatedLine) -> Result<Explanation, ProcessorError> {
        let mut told = Explanation { has_its_id: line.identity() == line.id, ..Explanation::default() };
        let begin = line.begin.floor(self.settings.period);
        let end = begin.plus(self.settings.period);
        let set = self.book.rules_of(line.rule_version, begin).await?;
        let of_service = |own: &&Value| own["name"] == line.service.as_str();
        told.rules.extend(set.document["services"].as_array().into_iter().flatten().filter(of_service).cloned());
        told.rules
            .extend(set.documents.iter().map(|own| json!({"kind": own.kind, "id": own.id, "body": own.body.clone()})));
        let definition = self
            .metrics
            .definitions
            .iter()
            .find(|own| line.kind == LineKind::Usage && is_made_by(line, &rule_of(own, None)));
        let Some(definition) = definition else { return Ok(told) };
        let found = self.usage.evidence(&line.scope, begin, end, &self.wanted()).await?;
        let Some(evidence) = found.into_iter().find(|own| own.resource == line.resource) else { return Ok(told) };
        let life = timeline(&evidence, end);
        told.stretches = first_of(&segments(&life, definition), |own| {
            json!({"begin": own.begin, "end": own.end, "project_id": own.project_id, "groupby": &*own.groupby,
                   "metadata": &*own.metadata, "level": own.level.as_ref().map(|level| level.to_plain_string())})
        });
        let points = evidence.measures.get(&definition.metric).map(Vec::as_slice).unwrap_or_default();
        let first = points.partition_point(|point| point.timestamp < line.begin).saturating_sub(1);
        let last = points.partition_point(|point| point.timestamp < line.end).max(first);
        told.counts = [evidence.events.len(), evidence.revisions.len(), last - first];
        told.events = first_of(&evidence.events, event_shown);
        told.revisions = first_of(&evidence.revisions, revision_shown);
        told.points = first_of(&points[first..last], point_shown);
        let rules = self.rules_at(line.rule_version, begin).await?;
        let list = Arc::new(rules.hashmap.for_tenant(Some(&line.scope)));
        let rules = [PeriodRules { begin, end, rules, list }];
        let rated = rate(&line.scope, &[evidence], &rules, &self.metrics, &self.settings, line.rated_at);
        told.findings = findings(&rated.unpriced);
        told.findings.extend(rated.findings);
        told.completeness = rated.incomplete.into_iter().find(|own| own.metric == definition.metric);
        told.rated_anew = rated.lines.into_iter().find(|own| {
            (&own.rule, own.begin, own.sequence) == (&line.rule, line.begin, line.sequence)
                && own.groupby == line.groupby
        });
        let sign = if line.reverses { -1 } else { 1 };
        told.is_reproduced = told.rated_anew.as_ref().is_some_and(|own| {
            own.end == line.end && &own.cost * sign == line.cost && &own.quantity * sign == line.quantity
        });
        Ok(told)
    }

    /// What of a project's usage was measured in a time: for each resource and metric the slots that were expected, those that
    /// have a point, and the ones that are missing, where something is; and what does not fit together, or was used and has
    /// neither a price nor a line. Every resource is there, also those of which nothing is missing.
    pub async fn completeness(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<(Vec<Completeness>, Vec<Finding>), ProcessorError> {
        let days = periods_count(begin, end, DAY);
        if days > DAYS_MAX {
            let reason = format!("{days} days are asked for; {DAYS_MAX} are answered at once");
            return Err(ProcessorError::Refused { reason });
        }
        let made_until = self.book.scope(scope).await?.map_or(Timestamp::MIN, |state| state.made_until());
        let (mut table, mut disagreements, mut unpriced) = (Vec::<Completeness>::new(), Vec::new(), Vec::new());
        for (from, to) in periods(begin, end, DAY) {
            let (from, to) = (from.max(begin.floor(self.settings.period)), to.min(end));
            let evidence = self.usage.evidence(scope, from, to, &self.wanted()).await?;
            unpriced.extend(self.missing(scope, &evidence, (from, to.min(made_until))).await?);
            for own in evidence {
                let (found, of_own) = self.completeness_of(scope, &own, (from, to));
                disagreements.extend(of_own);
                for one in found {
                    let is_same = |own: &&mut Completeness| own.resource == one.resource && own.metric == one.metric;
                    match table.iter_mut().rev().find(is_same) {
                        Some(own) => own.add(one),
                        None => table.push(one),
                    }
                }
            }
        }
        disagreements.sort();
        disagreements.dedup();
        let mut told = findings(&unpriced);
        told.extend(disagreements);
        Ok((table, told))
    }

    /// What was used in a time that is rated, and has neither a price nor a line.
    async fn missing(
        &self,
        scope: &str,
        evidence: &[Evidence],
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Unpriced>, ProcessorError> {
        let period = self.settings.period;
        let mut missing = Vec::new();
        for some in stretches(from, to, period) {
            let (Some((from, _)), Some((_, to))) = (some.first().copied(), some.last().copied()) else { continue };
            let existing = self.existing(scope, from, to).await?;
            let rated = self.rated(scope, evidence, &some, &existing, RulesOf::Then).await?;
            if rated.unpriced.is_empty() {
                continue;
            }
            let charged: HashSet<Charge> =
                effective(&existing).into_iter().map(|line| Charge::of(line, period)).collect();
            missing.extend(rated.unpriced.into_iter().filter(|own| !charged.contains(&own.charge)));
        }
        Ok(missing)
    }

    fn completeness_of(
        &self,
        scope: &str,
        evidence: &Evidence,
        (from, to): (Timestamp, Timestamp),
    ) -> (Vec<Completeness>, Vec<Finding>) {
        let life = timeline(evidence, to);
        let is_owned = |own: &crate::segments::State| own.project_id.as_deref() == Some(scope);
        if !life.states.iter().any(|own| is_owned(own) && own.begin < to && own.end > from) {
            return (Vec::new(), Vec::new());
        }
        let polled = self.metrics.definitions.iter().filter(|own| {
            own.collecting.resource_type == evidence.resource_type && evidence.measures.contains_key(&own.metric)
        });
        let of_metric = |own: &crate::MetricDefinition| {
            crate::segments::completeness(evidence, &life, &own.metric, (from, to), self.settings.slot)
        };
        let mut found: Vec<Completeness> = polled.map(of_metric).collect();
        found.dedup_by(|a, b| a.metric == b.metric);
        let findings = life.findings.iter().filter(|found| from <= found.at && found.at < to);
        (found, findings.cloned().collect())
    }
}

/// Whether a line's rule is the one of a metric's definition, with or without an expression on it.
fn is_made_by(line: &RatedLine, rule: &str) -> bool {
    line.rule.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
