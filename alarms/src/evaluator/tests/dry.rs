//! A dry run says what an evaluator would have done.

use orzo_model::{Event, Scope, Timestamp, Trait, TraitValue};
use serde_json::json;

use super::bench::Bench;
use crate::{
    alarm::AlarmState,
    dry_run::{DryRun, DryRunError, DryRunReaders, Timeline, test_rule},
    rule::Rule,
};

fn start() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(start().secs() + seconds)
}

async fn tried(bench: &Bench, rule: Rule, from: i64, to: i64) -> Result<Timeline, DryRunError> {
    let run = DryRun {
        rule,
        time_constraints: Vec::new(),
        repeat_actions: false,
        scope: Scope::Project("p".into()),
        project_id: "p".into(),
        start: at(from),
        stop: at(to),
    };
    let world = bench.world.as_ref();
    let readers = DryRunReaders { windows: world, events: Some(world), prometheus: Some(world) };
    test_rule(readers, &run).await
}

fn rule(granularity: u32, periods: u32) -> Rule {
    let json = json!({"metric": "cpu", "resource_id": "r", "resource_type": "instance", "threshold": 80,
        "comparison_operator": "gt", "aggregation_method": "mean", "granularity": granularity,
        "evaluation_periods": periods});
    Rule::parse("gnocchi_resources_threshold", &json).expect("a good rule")
}

#[tokio::test]
async fn a_dry_run_turns_where_an_evaluator_would_have() {
    let bench = Bench::new(start(), false).await;
    let values = [95.0, 96.0, 10.0, 97.0, 5.0, 6.0, 98.0, 99.0];
    let samples: Vec<(Timestamp, f64)> =
        values.iter().enumerate().map(|(place, value)| (at(60 * place as i64), *value)).collect();
    bench.write("r", "cpu", &samples);
    let timeline = tried(&bench, rule(60, 2), 0, 480).await.expect("a timeline");
    let turns: Vec<(i64, AlarmState)> =
        timeline.turns.iter().map(|turn| (turn.at.secs() - start().secs(), turn.judgement.state)).collect();
    assert_eq!(turns, [(120, AlarmState::Alarm), (360, AlarmState::Ok), (480, AlarmState::Alarm)]);
    assert_eq!(timeline.windows.len(), 9);
    assert_eq!(timeline.windows[8].value, Some(99.0));
    let reason = "Transition to alarm due to 2 samples outside threshold, most recent: 96.0";
    assert_eq!(timeline.to_json()["transitions"][0]["reason"], reason);
}

#[tokio::test]
async fn too_long_a_dry_run_and_rules_without_a_past_are_refused() {
    let bench = Bench::new(start(), false).await;
    let error = tried(&bench, rule(1, 1), 0, 86_400).await.expect_err("refused");
    assert!(error.to_string().contains("86401 windows of 1 seconds are too many"), "{error}");
    assert!(tried(&bench, rule(60, 1), 60, 60).await.is_err());
    let pool = json!({"pool_id": "p", "stack_id": "s", "autoscaling_group_id": "g"});
    let pool = Rule::parse("loadbalancer_member_health", &pool).expect("a good rule");
    assert!(tried(&bench, pool, 0, 60).await.expect_err("refused").to_string().contains("asks about now"));
    bench.set_down(true);
    assert_eq!(tried(&bench, rule(60, 1), 0, 60).await, Err(DryRunError::Unavailable("down".into())));
}

#[tokio::test]
async fn events_are_tried_in_their_order_with_their_resolution() {
    let bench = Bench::new(start(), false).await;
    for (seconds, event_type) in [(10, "down"), (20, "up"), (30, "down"), (40, "else")] {
        let event = Event {
            message_id: format!("m{seconds}"),
            event_type: event_type.into(),
            generated_at: at(seconds),
            traits: vec![Trait { name: "project_id".into(), value: TraitValue::Text("p".into()) }],
            raw: None,
        };
        bench.event(event, at(seconds));
    }
    let rule = json!({"event_type": "down", "resolve_event_type": "up", "resolve_after": 60});
    let rule = Rule::parse("event", &rule).expect("a good rule");
    let timeline = tried(&bench, rule, 0, 600).await.expect("a timeline");
    let turns: Vec<(i64, AlarmState)> =
        timeline.turns.iter().map(|turn| (turn.at.secs() - start().secs(), turn.judgement.state)).collect();
    use AlarmState::{Alarm, Ok};
    assert_eq!(turns, [(10, Alarm), (20, Ok), (30, Alarm), (90, Ok)]);
}
