//! Retention by rule: whose points are kept how long. Rules know names; the store gets series and times.
//!
//! `rules, metrics with their policies and projects → for each series the time before which its points are not kept → the
//! store's files without them`. The first rule that fits a metric decides; a metric that none fits is kept. It does not know
//! what was rated: whoever does hands in the time from which everything must stay.

use std::{collections::BTreeMap, time::Duration};

use orzo_index::{ArchivePolicy, KeptMetric, policy::glob_matches};
use orzo_model::{SeriesId, Timestamp};

use crate::{Engine, QueryError};

/// Metrics that are looked at together.
const METRICS_AT_ONCE: usize = 10_000;
/// Before the first bucket that a policy answers there must be a point, from which its first rate is counted.
const BEFORE_FIRST: Duration = Duration::from_secs(86_400);

/// A rule; what it does not name it does not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// Name of the archive policy, `*` for any characters.
    pub policy: Option<String>,
    /// Name of the metric, `*` for any characters.
    pub meter: Option<String>,
    /// Id of the project that owns the metric's resource.
    pub project: Option<String>,
    /// How long points are kept.
    pub keep: Keep,
}

/// How long points are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// For so long, counted back from now.
    For(Duration),
    /// As long as the archive policy answers from them: its longest timespan, counted back from the series' newest point.
    Policy,
}

impl RetentionRule {
    fn fits(&self, metric: &KeptMetric) -> bool {
        let is = |pattern: &Option<String>, text: Option<&str>| match pattern {
            Some(pattern) => text.is_some_and(|text| glob_matches(pattern, text)),
            None => true,
        };
        is(&self.policy, Some(&metric.policy))
            && is(&self.meter, metric.name.as_deref())
            && self.project.as_ref().is_none_or(|project| metric.project_id.as_ref() == Some(project))
    }
}

/// The beginning of the first bucket that a policy answers of a series, at any of its granularities; `None`: it answers all.
fn first_answered(policy: &ArchivePolicy, newest: Timestamp) -> Option<Timestamp> {
    let first = |item: &orzo_index::PolicyItem| {
        let width = item.granularity();
        Some(newest.floor(width).minus(item.timespan()?).floor(width).plus(width))
    };
    let firsts: Option<Vec<Timestamp>> = policy.definition.iter().map(first).collect();
    Some(firsts?.into_iter().min()?.minus(BEFORE_FIRST))
}

impl Engine {
    /// Takes points out of the store that no rule keeps, in whole days; none at or after `kept_from`. Gives how many files were
    /// written anew or removed. To be called now and then; metrics of label sets are not asked about.
    pub async fn expire(&self, rules: &[RetentionRule], kept_from: Timestamp) -> Result<u64, QueryError> {
        if rules.is_empty() {
            return Ok(0);
        }
        let policies: BTreeMap<String, ArchivePolicy> =
            self.index.archive_policies().await?.into_iter().map(|policy| (policy.name.clone(), policy)).collect();
        let now = self.clock.now();
        let mut limits: Vec<(SeriesId, Timestamp)> = Vec::new();
        let mut after = None;
        loop {
            let page = self.index.kept_page(after, METRICS_AT_ONCE).await?;
            after = page.last().map(|metric| metric.series);
            let mut by_policy = Vec::new();
            for metric in &page {
                match rules.iter().find(|rule| rule.fits(metric)).map(|rule| rule.keep) {
                    Some(Keep::For(span)) => limits.push((metric.series, now.minus(span))),
                    Some(Keep::Policy) => by_policy.push(metric),
                    None => {}
                }
            }
            let series: Vec<SeriesId> = by_policy.iter().map(|metric| metric.series).collect();
            for (metric, newest) in by_policy.iter().zip(self.store.last_of(&series).await?) {
                let limit = newest.zip(policies.get(&metric.policy));
                let limit = limit.and_then(|(newest, policy)| first_answered(policy, newest.timestamp));
                limits.extend(limit.map(|limit| (metric.series, limit)));
            }
            if page.len() < METRICS_AT_ONCE {
                break;
            }
        }
        for (_, limit) in &mut limits {
            *limit = (*limit).min(kept_from);
        }
        limits.sort_unstable();
        Ok(self.store.expire(limits).await?)
    }
}

#[cfg(test)]
mod tests {
    use orzo_index::PolicyItem;

    use super::*;

    #[test]
    fn a_rule_asks_for_what_it_names() {
        let metric = KeptMetric {
            series: SeriesId(1),
            name: Some("network.incoming.bytes".into()),
            policy: "low".into(),
            project_id: Some("p1".into()),
        };
        let rule = |policy: Option<&str>, meter: Option<&str>, project: Option<&str>| RetentionRule {
            policy: policy.map(str::to_owned),
            meter: meter.map(str::to_owned),
            project: project.map(str::to_owned),
            keep: Keep::Policy,
        };
        assert!(rule(None, None, None).fits(&metric));
        assert!(rule(Some("l*"), Some("network.*"), Some("p1")).fits(&metric));
        assert!(!rule(Some("high"), None, None).fits(&metric));
        assert!(!rule(None, Some("disk.*"), None).fits(&metric));
        assert!(!rule(None, None, Some("p*")).fits(&metric), "a project is no pattern");
        assert!(!rule(None, Some("*"), None).fits(&KeptMetric { name: None, ..metric }));
    }

    #[test]
    fn a_policy_keeps_what_it_answers_from() {
        let item = |width, points| PolicyItem::new(Some(Duration::from_secs(width)), points, None).expect("an item");
        let policy = |items| ArchivePolicy::new("p", 0, items, Some(vec!["mean".into()]), &[]).expect("a policy");
        let newest = Timestamp::from_secs(100 * 86_400 + 7);
        let first = first_answered(&policy(vec![item(60, Some(10)), item(86_400, Some(30))]), newest);
        assert_eq!(first, Some(Timestamp::from_secs((100 - 30 + 1 - 1) * 86_400)));
        assert_eq!(first_answered(&policy(vec![item(60, Some(10)), item(3600, None)]), newest), None);
    }
}
