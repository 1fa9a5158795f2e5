//! Retention by rule: points leave, answers within the policy stay, and nothing goes that must be kept.

use std::time::Duration;

use orzo_index::{ArchivePolicy, Metric, NewMetric, PolicyItem};

use super::*;
use crate::{Keep, MeasuresQuery, PostedMeasures, RetentionRule};

const DAY: i64 = 86_400;

async fn metric(f: &Fixture, policy: &str) -> Metric {
    let new = NewMetric { creator: "u:p".into(), archive_policy_name: Some(policy.into()), ..NewMetric::default() };
    let metric = f.engine.index().create_metric(&new).await.expect("made");
    // Ten days, a point every six hours, the last one on the tenth day.
    let measures = (0..40).map(|n| measure(n * DAY / 4, n as f64)).collect();
    f.engine.post_measures(&[PostedMeasures { metric: metric.clone(), measures }]).await.expect("kept");
    metric
}

async fn points(f: &Fixture, metric: &Metric) -> usize {
    let found = f.store.scan(&[metric.series], Timestamp::MIN, Timestamp::MAX).await.expect("read");
    found.first().map_or(0, |(_, points)| points.len())
}

#[tokio::test]
async fn points_leave_by_rule_and_answers_within_the_policy_stay() {
    let f = fixture().await;
    let items = [(3600, 48), (86_400, 5)]
        .map(|(width, points)| PolicyItem::new(Some(Duration::from_secs(width)), Some(points), None).expect("an item"));
    for name in ["short", "other", "kept"] {
        let methods = Some(vec!["mean".into(), "rate:mean".into()]);
        let policy = ArchivePolicy::new(name, 0, items.to_vec(), methods, &[]).expect("a policy");
        f.engine.index().create_archive_policy(&policy).await.expect("made");
    }
    let (short, other, kept) = (metric(&f, "short").await, metric(&f, "other").await, metric(&f, "kept").await);
    f.store.flush().await.expect("flushed");
    f.clock.advance(Duration::from_secs(20 * DAY as u64));
    let answers = async || {
        let mut all = Vec::new();
        for aggregation in ["mean", "rate:mean"] {
            let query = MeasuresQuery { aggregation: aggregation.into(), ..MeasuresQuery::default() };
            all.extend(f.engine.measures(&short, &query).await.expect("answered"));
        }
        all
    };
    let before = answers().await;
    assert_eq!(f.engine.expire(&[], Timestamp::MAX).await.expect("done"), 0);
    let rule = |policy: &str, keep| RetentionRule { policy: Some(policy.into()), meter: None, project: None, keep };
    let rules = [
        rule("s*", Keep::Policy),
        // It is day 20 and an hour: days before the twelfth go, but for what must be kept.
        rule("other", Keep::For(Duration::from_secs(8 * DAY as u64))),
        // The first rule that fits decides.
        rule("*r", Keep::For(Duration::from_secs(DAY as u64))),
    ];
    assert_eq!(f.engine.expire(&rules, at(-DAY)).await.expect("done"), 0, "nothing is rated yet");
    assert!(f.engine.expire(&rules, at(3 * DAY)).await.expect("done") > 0);
    assert_eq!(points(&f, &other).await, 28, "what is not rated stays");
    f.engine.expire(&rules, Timestamp::MAX).await.expect("done");
    assert_eq!((points(&f, &other).await, points(&f, &kept).await), (0, 40));
    // Five days of buckets and the day before them, from which the first rate is counted.
    assert_eq!(points(&f, &short).await, 24);
    assert_eq!(answers().await, before);
    assert!(f.store.verify().await.expect("read").is_sound());
}
