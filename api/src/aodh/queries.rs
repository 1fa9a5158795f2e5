//! Questions: `q.field=...` of lists, and the bodies of `POST /v2/query/...` with their JSON inside texts.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use orzo_alarms::{
    Alarm, Change, Filter, QueryError, Relation, Search, Subject, parse_order, parse_sorts, typed_value,
};
use orzo_model::Scope;
use serde_json::Value;

use super::{book, history::change_json, not_authorized, problem_of, who::Who};
use crate::{SharedApi, parameters::Parameters, problem::Problem, request::OptionalJsonBody};

/// Conditions in one list's query.
const CONDITIONS_MAX: usize = 64;

/// One `q` of a list.
pub(super) struct Simple<'a> {
    pub(super) field: &'a str,
    pub(super) relation: Relation,
    pub(super) text: &'a str,
    kind: Option<&'a str>,
}

/// Reads `q.field`, `q.op`, `q.value` and `q.type`: the n-th of each belong together. Aodh takes `q.op` and `q.type` as
/// optional for all or given for each.
pub(super) fn simple(parameters: &Parameters) -> Result<Vec<Simple<'_>>, Problem> {
    let all = |name: &'static str| -> Vec<&str> { parameters.all(name).collect() };
    let (fields, operators, values, kinds) = (all("q.field"), all("q.op"), all("q.value"), all("q.type"));
    if fields.len() != values.len() {
        return Err(Problem::bad("every q.field needs one q.value"));
    }
    if fields.len() > CONDITIONS_MAX {
        return Err(Problem::bad(format!("more than {CONDITIONS_MAX} conditions")));
    }
    for (name, list) in [("q.op", &operators), ("q.type", &kinds)] {
        if !list.is_empty() && list.len() != fields.len() {
            return Err(Problem::bad(format!("every q.field needs one {name}, or none of them has one")));
        }
    }
    fields
        .iter()
        .copied()
        .enumerate()
        .map(|(place, field)| {
            let operator = operators.get(place).copied().filter(|operator| !operator.is_empty()).unwrap_or("eq");
            let relation = Relation::parse(operator)
                .ok_or_else(|| Problem::bad(format!("unimplemented operator for {field}: {operator}")))?;
            Ok(Simple { field, relation, text: values[place], kind: kinds.get(place).copied() })
        })
        .collect()
}

/// As a condition on this subject.
pub(super) fn condition(subject: Subject, asked: &Simple<'_>) -> Result<Filter, Problem> {
    let value = typed_value(asked.text, asked.kind).map_err(bad)?;
    Filter::compare(subject, asked.field, asked.relation, &value).map_err(bad)
}

/// `sort`, `limit` and `marker`.
pub(super) fn page(subject: Subject, parameters: &Parameters) -> Result<Search, Problem> {
    let limit = match parameters.get("limit") {
        None => None,
        Some(text) => match text.trim().parse::<u64>() {
            Ok(limit) if limit > 0 => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
            _ => {
                return Err(Problem::bad(format!(
                    "Invalid input for field/attribute limit. Value: '{text}'. it should be a positive integer."
                )));
            }
        },
    };
    Ok(Search {
        condition: None,
        sorts: parse_sorts(subject, parameters.all("sort")).map_err(bad)?,
        marker: parameters.get("marker").map(str::to_owned),
        limit,
    })
}

/// 401 if somebody who is no administrator names another project.
pub(super) fn must_be_own(who: &Who, projects: &[&str]) -> Result<(), Problem> {
    if who.0.is_admin() {
        return Ok(());
    }
    match projects.iter().find(|project| who.0.project_id.as_deref() != Some(**project)) {
        Some(project) => Err(not_authorized("project", project)),
        None => Ok(()),
    }
}

pub(super) async fn alarms(
    State(api): State<SharedApi>,
    who: Who,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let (scope, search) = complex(Subject::Alarms, &who, body)?;
    let page = book(&api)?.search(&scope, &search).await.map_err(problem_of)?;
    Ok(Json(page.rows.iter().map(Alarm::to_json).collect::<Value>()).into_response())
}

pub(super) async fn history(
    State(api): State<SharedApi>,
    who: Who,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let (scope, search) = complex(Subject::History, &who, body)?;
    let page = book(&api)?.search_history(&scope, None, &search).await.map_err(problem_of)?;
    Ok(Json(page.rows.iter().map(|change: &Change| change_json(change)).collect::<Value>()).into_response())
}

/// Reads `{"filter", "orderby", "limit"}`; the first two are JSON inside texts.
fn complex(subject: Subject, who: &Who, body: Option<Value>) -> Result<(Scope, Search), Problem> {
    who.must_read()?;
    let body = body.unwrap_or(Value::Null);
    if !body.is_object() && !body.is_null() {
        return Err(Problem::bad("a query is an object with filter, orderby and limit"));
    }
    if let Some(unknown) = body.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| !is_known(key)) {
        return Err(Problem::bad(format!("Unknown attribute for argument body: {unknown}")));
    }
    let inner = |key: &str, what: &str| -> Result<Option<Value>, Problem> {
        match &body[key] {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(Problem::bad(format!("{what} expression not valid: {error}"))),
            },
            _ => Err(Problem::bad(format!("{what} expression not valid: it must be JSON in a text"))),
        }
    };
    let condition = inner("filter", "Filter")?
        .map(|filter| Filter::parse(subject, &filter))
        .transpose()
        .map_err(|error| Problem::bad(format!("Filter expression not valid: {error}")))?;
    let sorts = inner("orderby", "Order-by")?
        .map(|order| parse_order(subject, &order))
        .transpose()
        .map_err(|error| Problem::bad(format!("Order-by expression not valid: {error}")))?
        .unwrap_or_default();
    let limit = match &body["limit"] {
        Value::Null => None,
        value => match value.as_i64() {
            Some(limit) if limit > 0 => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
            Some(_) => return Err(Problem::bad("Limit should be positive")),
            None => return Err(Problem::bad("Limit should be a number")),
        },
    };
    let named = condition.as_ref().map(|condition| condition.values_of(subject.owner_field())).unwrap_or_default();
    must_be_own(who, &named)?;
    Ok((who.0.scope(), Search { condition, sorts, marker: None, limit }))
}

fn is_known(key: &str) -> bool {
    ["filter", "orderby", "limit"].contains(&key)
}

fn bad(error: QueryError) -> Problem {
    Problem::bad(error.0)
}
