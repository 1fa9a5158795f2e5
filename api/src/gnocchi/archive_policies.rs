//! Archive policies and the rules that choose one by a metric's name.

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use orzo_index::{ArchivePolicy, ArchivePolicyRule, PolicyItem, Rebuild, policy::is_method, spans::python_timedelta};
use serde_json::{Value, json};

use super::{
    answer::{created, no_content, ok},
    fields::Fields,
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy::{Action, Target},
    problem::Problem,
    request::{JsonBody, Links},
};

pub(super) async fn list(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    api.allow(Action::ListArchivePolicy, &caller, Target::Nothing)?;
    let policies = api.index().archive_policies().await?;
    Ok(ok(policies.iter().map(policy_json).collect::<Vec<_>>().into()))
}

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    api.allow(Action::GetArchivePolicy, &caller, Target::Fields(&[("name", &name)]))?;
    Ok(ok(policy_json(&api.index().archive_policy(&name).await?)))
}

pub(super) async fn create(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    api.allow(Action::CreateArchivePolicy, &caller, Target::Nothing)?;
    let fields = Fields::of(&body)?;
    fields.only(&["name", "back_window", "definition", "aggregation_methods"])?;
    let name = fields.required_name("name")?;
    let methods = methods(&fields)?;
    let defaults = &api.index().settings().default_aggregation_methods;
    let policy = ArchivePolicy::new(name, back_window(&fields)?.unwrap_or(0), definition(&fields)?, methods, defaults)?;
    api.index().create_archive_policy(&policy).await?;
    Ok(created(&links.to_metric(&["v1", "archive_policy", name]), policy_json(&policy)))
}

pub(super) async fn update(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
    parameters: Parameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    api.allow(Action::UpdateArchivePolicy, &caller, Target::Nothing)?;
    let fields = Fields::of(&body)?;
    // Gnocchi knows no such parameter, and its clients never send it.
    let rebuild = match parameters.flag("rebuild")? {
        true => {
            fields.only(&["definition", "back_window", "aggregation_methods"])?;
            Some(Rebuild { aggregation_methods: methods(&fields)? })
        }
        false => {
            fields.only(&["definition", "back_window"])?;
            None
        }
    };
    let definition = definition(&fields)?;
    let policy = api.index().update_archive_policy(&name, definition, back_window(&fields)?, rebuild).await?;
    Ok(ok(policy_json(&policy)))
}

pub(super) async fn delete(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    api.allow(Action::DeleteArchivePolicy, &caller, Target::Nothing)?;
    api.index().delete_archive_policy(&name).await?;
    Ok(no_content())
}

pub(super) async fn list_rules(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    api.allow(Action::ListArchivePolicyRule, &caller, Target::Nothing)?;
    let rules = api.index().archive_policy_rules().await?;
    Ok(ok(rules.iter().map(rule_json).collect::<Vec<_>>().into()))
}

pub(super) async fn show_rule(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    api.allow(Action::GetArchivePolicyRule, &caller, Target::Fields(&[("name", &name)]))?;
    Ok(ok(rule_json(&api.index().archive_policy_rule(&name).await?)))
}

pub(super) async fn create_rule(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    api.allow(Action::CreateArchivePolicyRule, &caller, Target::Nothing)?;
    let fields = Fields::of(&body)?;
    fields.only(&["name", "metric_pattern", "archive_policy_name"])?;
    let rule = ArchivePolicyRule {
        name: fields.required_name("name")?.to_owned(),
        metric_pattern: fields.required_name("metric_pattern")?.to_owned(),
        archive_policy_name: fields.required_name("archive_policy_name")?.to_owned(),
    };
    api.index().create_archive_policy_rule(&rule).await?;
    Ok(created(&links.to_metric(&["v1", "archive_policy_rule", &rule.name]), rule_json(&rule)))
}

pub(super) async fn rename_rule(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    api.allow(Action::UpdateArchivePolicyRule, &caller, Target::Nothing)?;
    let fields = Fields::of(&body)?;
    fields.only(&["name"])?;
    Ok(ok(rule_json(&api.index().rename_archive_policy_rule(&name, fields.required_name("name")?).await?)))
}

pub(super) async fn delete_rule(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    api.allow(Action::DeleteArchivePolicyRule, &caller, Target::Nothing)?;
    api.index().delete_archive_policy_rule(&name).await?;
    Ok(no_content())
}

/// A policy in Gnocchi's form.
pub(super) fn policy_json(policy: &ArchivePolicy) -> Value {
    let definition: Vec<Value> = policy
        .definition
        .iter()
        .map(|item| {
            json!({
                "timespan": item.timespan().map(python_timedelta),
                "granularity": python_timedelta(item.granularity()),
                "points": item.points,
            })
        })
        .collect();
    json!({
        "name": policy.name,
        "back_window": policy.back_window,
        "definition": definition,
        "aggregation_methods": policy.aggregation_methods,
    })
}

fn rule_json(rule: &ArchivePolicyRule) -> Value {
    json!({
        "name": rule.name,
        "archive_policy_name": rule.archive_policy_name,
        "metric_pattern": rule.metric_pattern,
    })
}

fn back_window(fields: &Fields<'_>) -> Result<Option<u32>, Problem> {
    match fields.whole("back_window", 0)?.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(window)) => Ok(Some(window)),
        Some(Err(_)) => Err(fields.value_problem("value is too large", "back_window")),
    }
}

fn methods(fields: &Fields<'_>) -> Result<Option<Vec<String>>, Problem> {
    if fields.get("aggregation_methods") == Some(&json!([])) {
        return Ok(None);
    }
    let Some(items) = fields.list("aggregation_methods")? else { return Ok(None) };
    let mut methods = Vec::new();
    for (item, path) in items {
        let method = item.as_str().unwrap_or_default();
        if method != "*" && !is_method(method.strip_prefix(['+', '-']).unwrap_or(method)) {
            return Err(Problem::input("not a valid value", &path.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        methods.push(method.to_owned());
    }
    Ok(Some(methods))
}

fn definition(fields: &Fields<'_>) -> Result<Vec<PolicyItem>, Problem> {
    fields.required("definition")?;
    let mut items = Vec::new();
    for (item, path) in fields.list("definition")?.unwrap_or_default() {
        let item = Fields::at(item, path)?;
        item.only(&["granularity", "points", "timespan"])?;
        let points: Option<i64> = match item.get("points") {
            // The command line client sends texts.
            Some(Value::String(text)) => {
                Some(text.trim().parse::<i64>().map_err(|_| item.value_problem("expected int", "points"))?)
            }
            Some(Value::Number(number)) => {
                Some(number.as_i64().ok_or_else(|| item.value_problem("expected int", "points"))?)
            }
            Some(Value::Null) | None => None,
            Some(_) => return Err(item.value_problem("expected int", "points")),
        };
        if points.is_some_and(|points| points < 1) {
            return Err(item.value_problem("value must be at least 1", "points"));
        }
        let span = |name: &str| if item.get(name) == Some(&Value::Null) { Ok(None) } else { item.span(name) };
        items.push(PolicyItem::new(span("granularity")?, points, span("timespan")?)?);
    }
    Ok(items)
}
