//! The events API that Panko had: `GET /v2/events` with `q.field`, `q.op`, `q.value`, `q.type`, and the types of events.
//!
//! In: questions. Out: events with their traits, newest first. Who is no admin sees the events of its project (Panko also
//! asked for the same user; projects are what tenants are kept apart by today). Events are read from the index; this file
//! knows nothing of how they were made.

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use orzo_index::{EventQuery, TraitFilter, TraitOperator};
use orzo_model::{Event, TraitValue};
use serde_json::{Value, json};

use crate::{
    EVENT_MOUNT, SharedApi,
    authenticate::Asker,
    parameters::{Paging, Parameters},
    policy,
    problem::Problem,
    request::Links,
};

/// Conditions in one question at most; each is a join in the database.
const CONDITIONS_MAX: usize = 20;

/// The routes below the mount.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/", get(versions))
        .route("/v2", get(versions))
        .route("/v2/capabilities", get(capabilities))
        .route("/v2/events", get(list))
        .route("/v2/events/{message_id}", get(show))
        .route("/v2/event_types", get(types))
        .route("/v2/event_types/{event_type}/traits", get(type_traits))
        .route("/v2/event_types/{event_type}/traits/{name}", get(trait_values))
}

async fn versions(links: Links) -> Response {
    let href = links.to(EVENT_MOUNT, &["v2"]);
    answer(json!({"versions": {"values": [{
        "id": "v2", "status": "stable", "updated": "2013-02-13T00:00:00Z",
        "links": [{"rel": "self", "href": href}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.telemetry-v2+json"}],
    }]}}))
}

async fn capabilities() -> Response {
    answer(json!({"event_storage": {"storage:production_ready": true}, "api": {"events:query:simple": true}}))
}

async fn list(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let paging = Paging::read(&parameters, api.settings.limit_max)?;
    if paging.sorts.iter().any(|sort| sort != "generated:desc") {
        return Err(Problem::bad("events are listed by `generated:desc` only"));
    }
    let mut query = EventQuery::new(caller.scope());
    query.limit = Some(paging.limit as usize);
    query.marker = paging.marker.clone();
    if conditions(&parameters, &mut query)? && !caller.is_admin() {
        return Err(Problem::forbidden());
    }
    let events = api.index().events(&query).await?;
    let mut response = answer(events.iter().map(event_json).collect::<Vec<_>>().into());
    if let (true, Some(last)) = (events.len() >= paging.limit as usize, events.last()) {
        let link = paging.next_link(&links.here(EVENT_MOUNT), &parameters, &paging.sorts, &last.message_id);
        if let Ok(value) = link.parse() {
            response.headers_mut().insert(header::LINK, value);
        }
    }
    Ok(response)
}

async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(message_id): Path<String>,
) -> Result<Response, Problem> {
    Ok(answer(event_json(&api.index().event(&caller.scope(), &message_id).await?)))
}

async fn types(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    Ok(answer(api.index().event_types(&caller.scope()).await?.into()))
}

async fn type_traits(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(event_type): Path<String>,
) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let traits = api.index().event_type_traits(&caller.scope(), &event_type).await?;
    Ok(answer(traits.iter().map(|t| json!({"name": t.name, "type": t.type_name})).collect::<Vec<_>>().into()))
}

async fn trait_values(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((event_type, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let query = EventQuery { event_type: Some(event_type), ..EventQuery::new(caller.scope()) };
    let events = api.index().events(&query).await?;
    let found = events.iter().flat_map(|event| event.traits.iter().filter(|t| t.name == name));
    Ok(answer(found.map(trait_json).collect::<Vec<_>>().into()))
}

/// Puts the conditions of a request into a question; says whether it asks for all tenants.
fn conditions(parameters: &Parameters, query: &mut EventQuery) -> Result<bool, Problem> {
    let all =
        |name: &str| parameters.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
    let (fields, operators, values, types): (Vec<&str>, Vec<&str>, Vec<&str>, Vec<&str>) =
        (all("q.field"), all("q.op"), all("q.value"), all("q.type"));
    if fields.len() > CONDITIONS_MAX {
        return Err(Problem::bad(format!("more than {CONDITIONS_MAX} conditions in one question")));
    }
    let mut all_tenants = false;
    for (index, field) in fields.iter().enumerate() {
        let value =
            values.get(index).copied().ok_or_else(|| Problem::bad(format!("q.value is missing for `{field}`")))?;
        let operator = operators.get(index).copied().unwrap_or("");
        let only = |wanted: &str| match operator {
            "" => Ok(()),
            given if given == wanted => Ok(()),
            given => Err(Problem::bad(format!("operator `{given}` is not supported for `{field}`; use `{wanted}`"))),
        };
        let time = || value.parse().map_err(|error: orzo_model::TimeError| Problem::bad(error.to_string()));
        match *field {
            "event_type" => {
                only("eq")?;
                query.event_type = Some(value.to_owned());
            }
            "message_id" => {
                only("eq")?;
                query.message_id = Some(value.to_owned());
            }
            "start_timestamp" => {
                only("ge")?;
                query.start = Some(time()?);
            }
            "end_timestamp" => {
                only("le")?;
                query.end = Some(time()?);
            }
            "all_tenants" => {
                only("eq")?;
                all_tenants = crate::parameters::boolean("all_tenants", value)?;
            }
            name => query.traits.push(TraitFilter {
                name: name.to_owned(),
                operator: operator_of(operator)?,
                value: value_of(types.get(index).copied().unwrap_or(""), value)?,
            }),
        }
    }
    Ok(all_tenants)
}

fn operator_of(text: &str) -> Result<TraitOperator, Problem> {
    Ok(match text {
        "" | "eq" => TraitOperator::Equal,
        "ne" => TraitOperator::NotEqual,
        "lt" => TraitOperator::Less,
        "le" => TraitOperator::LessOrEqual,
        "gt" => TraitOperator::Greater,
        "ge" => TraitOperator::GreaterOrEqual,
        other => return Err(Problem::bad(format!("operator `{other}` is not one of lt, le, eq, ne, ge, gt"))),
    })
}

fn value_of(kind: &str, text: &str) -> Result<TraitValue, Problem> {
    let wrong = || Problem::bad(format!("`{text}` is not a value of type {kind}"));
    Ok(match kind {
        "" | "string" | "text" => TraitValue::Text(text.to_owned()),
        "integer" => TraitValue::Integer(text.parse().map_err(|_| wrong())?),
        "float" => TraitValue::Float(text.parse().map_err(|_| wrong())?),
        "datetime" => TraitValue::Datetime(text.parse().map_err(|_| wrong())?),
        other => return Err(Problem::bad(format!("type `{other}` is not one of string, integer, float, datetime"))),
    })
}

fn event_json(event: &Event) -> Value {
    let raw = event.raw.as_deref().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_else(|| json!({}));
    json!({
        "message_id": event.message_id,
        "event_type": event.event_type,
        "generated": event.generated_at.naive(),
        "traits": event.traits.iter().map(trait_json).collect::<Vec<_>>(),
        "raw": raw,
    })
}

fn trait_json(one: &orzo_model::Trait) -> Value {
    json!({"name": one.name, "type": one.value.type_name(), "value": one.value.to_text()})
}

fn answer(body: Value) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use orzo_model::Scope;

    fn read(text: &str) -> Result<(EventQuery, bool), Problem> {
        let mut query = EventQuery::new(Scope::All);
        conditions(&Parameters::parse(text), &mut query).map(|all_tenants| (query, all_tenants))
    }

    #[test]
    fn conditions_are_read() {
        let (query, all_tenants) = read(
            "q.field=event_type&q.op=eq&q.value=compute.instance.create.end&q.type=\
             &q.field=start_timestamp&q.op=ge&q.value=2026-11-21T20:00:00&q.type=\
             &q.field=memory_mb&q.op=gt&q.value=512&q.type=integer\
             &q.field=all_tenants&q.op=eq&q.value=True&q.type=",
        )
        .expect("a question");
        assert!(all_tenants);
        assert_eq!(query.event_type.as_deref(), Some("compute.instance.create.end"));
        assert!(query.start.is_some() && query.end.is_none());
        assert_eq!(
            query.traits,
            [TraitFilter {
                name: "memory_mb".into(),
                operator: TraitOperator::Greater,
                value: TraitValue::Integer(512)
            }]
        );
    }

    #[test]
    fn wrong_conditions_are_refused() {
        for text in [
            "q.field=event_type&q.op=lt&q.value=x",
            "q.field=event_type",
            "q.field=a&q.op=like&q.value=x",
            "q.field=a&q.op=eq&q.value=x&q.type=integer",
            "q.field=a&q.op=eq&q.value=x&q.type=colour",
            "q.field=start_timestamp&q.value=soon",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"q.field=a&q.value=b&".repeat(CONDITIONS_MAX + 1)).is_err());
    }
}
