//! Rules of every type: the way there and back, and what is refused, in Aodh's words.

use serde_json::json;

use super::*;

fn rules() -> Vec<(&'static str, Value)> {
    let resource = json!({"metric": "cpu", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
        "aggregation_method": "mean", "comparison_operator": "gt", "granularity": 60, "evaluation_periods": 1});
    let mut leaf = resource.clone();
    leaf["type"] = json!("gnocchi_resources_threshold");
    vec![
        ("gnocchi_resources_threshold", resource),
        (
            "gnocchi_aggregation_by_metrics_threshold",
            json!({"metrics": ["a", "b"], "threshold": 1.0, "aggregation_method": "rate:mean",
                "comparison_operator": "eq", "granularity": 300, "evaluation_periods": 3,
                "reaggregation_method": "max", "for": 900}),
        ),
        (
            "gnocchi_aggregation_by_resources_threshold",
            json!({"metric": "cpu", "query": "{\"=\": {\"server_group\": \"g\"}}", "resource_type": "instance",
                "threshold": 1.0, "clear_threshold": 2.0, "aggregation_method": "95pct", "comparison_operator": "lt",
                "granularity": 60, "evaluation_periods": 1}),
        ),
        ("composite", json!({"or": [leaf.clone(), {"and": [leaf.clone(), leaf]}]})),
        (
            "event",
            json!({"event_type": "compute.*", "query": [{"field": "traits.state", "op": "ne", "type": "string",
                "value": "error"}], "resolve_event_type": "x", "resolve_query": [], "resolve_after": 60}),
        ),
        ("prometheus", json!({"query": "up == 0", "threshold": 0.0, "comparison_operator": "eq"})),
        ("loadbalancer_member_health", json!({"pool_id": "p", "stack_id": "s", "autoscaling_group_id": "g"})),
        (
            "threshold",
            json!({"meter_name": "cpu_util", "query": [{"field": "metadata.user_metadata.server_group", "op": "eq",
                "value": "g"}], "period": 60, "statistic": "avg", "evaluation_periods": 2, "exclude_outliers": true,
                "comparison_operator": "gt", "threshold": 50.0}),
        ),
        ("combination", json!({"operator": "or", "alarm_ids": ["a", "b"]})),
    ]
}

fn refusal(type_name: &str, change: impl FnOnce(&mut Value)) -> String {
    let (_, mut json) = rules().into_iter().find(|(name, _)| *name == type_name).expect("a type");
    change(&mut json);
    Rule::parse(type_name, &json).expect_err("refused").to_string()
}

#[test]
fn every_type_survives_the_way_there_and_back() {
    let all = rules();
    assert_eq!(all.len(), TYPES.len());
    for (name, json) in all {
        let rule = Rule::parse(name, &json).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rule.type_name(), name);
        assert_eq!(rule.to_json(), json, "{name}");
    }
}

#[test]
fn defaults_are_those_of_aodh() {
    let rule = json!({"metric": "m", "resource_id": "r", "resource_type": "t", "threshold": "8e1",
        "aggregation_method": "mean"});
    let Ok(Rule::Resource(rule)) = Rule::parse("gnocchi_resources_threshold", &rule) else { panic!("a good rule") };
    let threshold = rule.threshold;
    assert_eq!((threshold.evaluation_periods, threshold.granularity), (1, 60));
    assert_eq!(threshold.condition.comparison_operator, Comparison::Eq);
    assert_eq!(threshold.condition.threshold, 80.0);
    let Ok(Rule::Event(rule)) = Rule::parse("event", &json!({})) else { panic!("a good rule") };
    assert_eq!((rule.event_type.as_str(), rule.query.len()), ("*", 0));
}

#[test]
fn refusals_are_in_aodhs_words() {
    let resource = "gnocchi_resources_threshold";
    for (field, value, expected) in [
        ("threshold", json!("hot"), "could not convert string to float: 'hot'"),
        ("threshold", json!(null), "field/attribute threshold. Value: 'None'. Mandatory field missing."),
        ("evaluation_periods", json!("1.5"), "invalid literal for int() with base 10: '1.5'"),
        ("evaluation_periods", json!(0), "evaluation_periods. Value: '0'. Value should be greater or equal to 1"),
        ("evaluation_periods", json!(101), "Value: '101'. Value should be lower or equal to 100"),
        ("granularity", json!(0), "granularity. Value: '0'. Value should be greater or equal to 1"),
        ("granularity", json!(31_536_001), "Value should be lower or equal to 31536000"),
        ("aggregation_method", json!("avg"), "not avg"),
        ("aggregation_method", json!("100pct"), "not 100pct"),
        ("comparison_operator", json!("=>"), "Value: '=>'. Value should be one of: eq, ge, gt, le, lt, ne"),
        ("metric", json!(5), "metric. Value: '5'. Wrong type. Expected '<class 'str'>', got '<class 'int'>'"),
        ("flavor", json!("x"), "Unknown attribute for argument alarm.gnocchi_resources_threshold_rule: flavor"),
        ("clear_threshold", json!(90), "quiet side"),
    ] {
        let error = refusal(resource, |json| json[field] = value);
        assert!(error.contains(expected), "{error}");
    }
    let error = refusal("gnocchi_aggregation_by_metrics_threshold", |json| json["metrics"] = json!("a"));
    assert!(error.contains("metrics. Value: 'a'. Value not a valid list: a"), "{error}");
    let error = refusal("gnocchi_aggregation_by_resources_threshold", |json| json["query"] = json!("{"));
    assert_eq!(error, "Invalid input for field/attribute rule/query. Value: '{'. ");
    let error = refusal("combination", |json| json["alarm_ids"] = json!(["a", "a"]));
    assert_eq!(error, "Alarm combination rule should contain at least two different alarm ids.");
    let error = refusal("prometheus", |json| json["query"] = json!("sum("));
    assert!(error.contains("not a PromQL query"), "{error}");
    assert!(refusal("loadbalancer_member_health", |json| json["pool_id"] = json!("../x")).contains("pool_id"));
    assert!(Rule::parse("lunar", &json!({})).expect_err("type").to_string().contains("should be one of: combination"));
}

#[test]
fn composites_are_refused_in_aodhs_words() {
    let refused = |json: Value| Rule::parse("composite", &json).expect_err("refused").to_string();
    assert_eq!(refused(json!({"xor": []})), r#"Threshold rules should be combined with "and" or "or""#);
    assert!(refused(json!({"and": {}})).starts_with("Invalid input composite rule: {'and': {}}, it should be a dict"));
    assert!(refused(json!([1])).starts_with("Invalid input composite rule: [1], it should be a dict"));
    assert_eq!(refused(json!({})), "type must be set in every rule");
    assert_eq!(refused(json!({"and": [{"metric": "a", "threshold": 1}]})), "type must be set in every rule");
    assert_eq!(
        refused(json!({"and": [{"type": "event", "query": []}]})),
        "Unsupported sub-rule type :event in composite rule, should be one of: \
         ['gnocchi_aggregation_by_metrics_threshold', 'gnocchi_aggregation_by_resources_threshold', \
         'gnocchi_resources_threshold', 'prometheus']"
    );
    let leaf = json!({"type": "prometheus", "query": "up", "threshold": 1});
    let mut deep = leaf.clone();
    for _ in 0..50 {
        deep = json!({"and": [deep]});
    }
    assert!(refused(deep).contains("at most 16 deep"));
    assert!(refused(json!({"or": vec![leaf; 101]})).contains("at most 100 rules"));
}

#[test]
fn event_queries_are_checked_by_type() {
    let refused = |query: Value| Rule::parse("event", &json!({"query": [query]})).expect_err("refused").to_string();
    let query = |kind: &str, value: &str| json!({"field": "traits.x", "op": "eq", "type": kind, "value": value});
    assert_eq!(refused(query("integer", "a")), "Unable to convert the value a to the expected data type integer.");
    assert_eq!(refused(query("float", "a")), "Unable to convert the value a to the expected data type float.");
    assert!(refused(query("boolean", "maybe")).contains("expected data type boolean"));
    assert!(refused(query("datetime", "soon")).contains("expected data type datetime"));
    assert!(refused(query("tuple", "x")).starts_with("The data type tuple is not supported."));
    assert!(refused(json!({"field": "traits.x y", "value": "1"})).starts_with("Query value or traits invalid:"));
    assert!(refused(json!({"field": "traits.x"})).contains("value. Value: 'None'. Mandatory field missing."));
    assert!(refused(json!({"field": "traits.x", "value": "1", "op": "like"})).contains("should be one of: eq, ge"));
}

#[test]
fn the_search_of_a_project_is_narrowed_once_and_shown() {
    let (name, json) = rules().swap_remove(2);
    let mut rule = Rule::parse(name, &json).expect("a good rule");
    rule.scope_to("p1");
    let expected = r#"{"and": [{"or": [{"=": {"created_by_project_id": "p1"}}, {"=": {"project_id": "p1"}}]}, {"=": {"server_group": "g"}}]}"#;
    assert_eq!(rule.to_json()["query"], expected);
    rule.scope_to("p1");
    assert_eq!(rule.to_json()["query"], expected);
    assert!(Rule::parse(name, &rule.to_json()).is_ok());
}
