//! Budgets, of our own: an amount for a month, and an alarm of the alarm service when what was charged, or what is expected at
//! the month's end, reaches it. A budget is that alarm: whoever lists alarms sees it, and its notices are the alarm's.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use orzo_alarms::{AlarmBook, AlarmFilter, AlarmRequest};
use orzo_model::{Caller, Scope};
use orzo_rating::{
    RuleSource,
    currency::is_currency,
    forecast::{ACCRUED_METRIC, COST_GRANULARITY_S, FORECAST_METRIC, cost_metric, cost_resource},
};
use serde_json::{Value, json};

use super::{
    must_own, parts,
    wsme::{Body, known, number},
};
use crate::{Api, SharedApi, aodh, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// The type of the alarms.
const TYPE: &str = "gnocchi_resources_threshold";
const RULE: &str = "gnocchi_resources_threshold_rule";
/// Budgets are below that: as much as a price document may say.
const AMOUNT_MAX: u64 = 10_000_000_000_000_000;
/// Pages of alarms that are looked through for budgets, of a thousand each.
const PAGES_MAX: usize = 20;

fn alarms(api: &Api) -> Result<&AlarmBook, Problem> {
    // A process that does not rate writes nothing that these alarms could watch.
    parts(api)?;
    api.alarms.as_ref().ok_or_else(|| Problem::unavailable("this process does not serve alarms"))
}

fn scope(caller: &Caller) -> Scope {
    match (caller.is_admin(), &caller.project_id) {
        (true, _) => Scope::All,
        (false, Some(project)) => Scope::Project(project.clone()),
        (false, None) => Scope::Nothing,
    }
}

fn must_change(caller: &Caller, project: &str) -> Result<(), Problem> {
    must_own(caller, Some(project))?;
    if caller.is_admin() || caller.has_role("member") { Ok(()) } else { Err(Problem::forbidden()) }
}

/// The currency of a project's costs now.
async fn currency_of(api: &Api, project: &str) -> Result<String, Problem> {
    let now = api.clock.now();
    let rules = parts(api)?.book.rules(now).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the rules cannot be read");
        Problem::unavailable("the rules cannot be read now")
    })?;
    Ok(rules.prices.currency(project, now).to_owned())
}

/// A budget as it is shown; `None`: the alarm is none.
fn shown(alarm: &Value) -> Option<Value> {
    let rule = &alarm[RULE];
    let metric = rule["metric"].as_str()?;
    let of = |name: &str| metric.strip_prefix(name).map(|rest| rest.strip_prefix('.'));
    let (on, currency) = match (of(ACCRUED_METRIC), of(FORECAST_METRIC)) {
        (Some(currency), _) => ("accrued", currency),
        (_, Some(currency)) => ("forecast", currency),
        _ => return None,
    };
    let project = alarm["project_id"].as_str()?;
    Some(json!({
        "budget_id": alarm["alarm_id"], "name": alarm["name"], "project_id": project, "on": on,
        "amount": rule["threshold"], "currency": currency, "state": alarm["state"], "state_reason": alarm["state_reason"],
        "alarm_actions": alarm["alarm_actions"], "enabled": alarm["enabled"],
    }))
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_own(&caller, caller.project_id.as_deref())?;
    known(&parameters, &[])?;
    let mut filter = AlarmFilter { type_name: Some(TYPE.to_owned()), ..AlarmFilter::default() };
    let mut budgets = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = alarms(&api)?.list(&scope(&caller), &filter).await.map_err(aodh::problem_of)?;
        let Some(last) = page.last() else { break };
        filter.marker = Some(last.alarm_id.clone());
        budgets.extend(page.iter().filter_map(|alarm| shown(&alarm.to_json())));
    }
    Ok(Json(json!({"budgets": budgets})))
}

pub(super) async fn create(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut body = Body::read(body, &["name", "amount", "currency", "on", "project_id", "alarm_actions", "severity"])?;
    let project = body.text("project_id")?.or_else(|| caller.project_id.clone()).ok_or_else(Problem::forbidden)?;
    must_change(&caller, &project)?;
    let name = body.needed_text("name")?;
    let amount = body.decimal("amount")?.ok_or_else(|| Problem::bad("a budget needs an amount"))?;
    if amount < 0 {
        return Err(Problem::bad("amount is below zero: a budget is what may be spent"));
    }
    if amount >= AMOUNT_MAX {
        return Err(Problem::bad(format!("amount is not below {AMOUNT_MAX}")));
    }
    let currency = match body.text("currency")? {
        Some(code) if is_currency(&code) => code,
        Some(code) => {
            let code: String = code.chars().take(40).collect();
            return Err(Problem::bad(format!("currency: `{code}` is no ISO 4217 code, such as EUR")));
        }
        None => currency_of(&api, &project).await?,
    };
    let metric = match body.text("on")?.as_deref() {
        None | Some("accrued") => ACCRUED_METRIC,
        Some("forecast") => FORECAST_METRIC,
        Some(_) => return Err(Problem::bad("`on` is accrued or forecast")),
    };
    let severity = body.text("severity")?.unwrap_or_else(|| "low".to_owned());
    let actions = body.any("alarm_actions").unwrap_or_else(|| json!([]));
    let is_trust = |action: &Value| action.as_str().is_some_and(|action| action.starts_with("trust"));
    if actions.as_array().is_some_and(|actions| actions.iter().any(is_trust)) {
        return Err(Problem::bad("a budget makes no trusts; make the alarm itself for that"));
    }
    let what = if metric == ACCRUED_METRIC { "was charged this month" } else { "is expected at the month's end" };
    let alarm = json!({
        "name": name, "type": TYPE, "severity": severity, "alarm_actions": actions,
        "description": format!("Budget: what {what} reaches {} {currency}", amount.normalized().to_plain_string()),
        RULE: {
            "metric": cost_metric(metric, &currency), "resource_id": cost_resource(&project).to_string(), "resource_type": "generic",
            "threshold": number(&amount), "comparison_operator": "ge", "aggregation_method": "max",
            "granularity": COST_GRANULARITY_S, "evaluation_periods": 1,
        },
    });
    let mut request =
        AlarmRequest::parse(&alarm, caller.is_admin()).map_err(|error| Problem::bad(error.to_string()))?;
    request.rule.scope_to(&project);
    let made = alarms(&api)?.create(&request, &caller.user_id, &project, false).await.map_err(aodh::problem_of)?;
    let budget = shown(&made.to_json()).ok_or_else(|| Problem::bad("the alarm is no budget"))?;
    Ok((StatusCode::CREATED, Json(budget)))
}

pub(super) async fn delete(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    must_own(&caller, caller.project_id.as_deref())?;
    let alarms = alarms(&api)?;
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("No such budget: {id}"));
    let alarm = alarms.get(&scope(&caller), &id).await.map_err(|error| match error {
        orzo_alarms::BookError::NotFound { .. } => none(),
        other => aodh::problem_of(other),
    })?;
    shown(&alarm.to_json()).ok_or_else(none)?;
    must_change(&caller, &alarm.project_id)?;
    let own = caller.project_id.as_deref().unwrap_or_default();
    alarms.delete_by(&scope(&caller), &id, &caller.user_id, own).await.map_err(aodh::problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}
