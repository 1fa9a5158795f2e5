//! What is said about series: what their names mean, and their exemplars, only those of who asks. Besides, queries that are
//! formatted or taken apart, not answered, and Alertmanagers, of which there are none.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use orzo_model::{Exemplar, MetricMetadata, Timestamp};
use orzo_promql::{Limits, MatcherGroup, Plan, QueryError, Window, number_text};
use serde_json::{Map, Value, json};

use super::{
    Refused, Sender, parameters_of,
    query::{self, failed, invalid, limit_of, time_of},
};
use crate::{SharedApi, parameters::Parameters};

/// Names whose metadata one answer holds: each is a question to the index.
const METADATA_MAX: usize = 1_000;
/// Series whose exemplars one answer has.
const EXEMPLAR_SERIES_MAX: usize = 100_000;

pub(super) fn success(data: Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

/// `GET /api/v1/metadata`: what names mean, as senders said it; of metrics of resources their units.
pub(super) async fn metadata(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Refused> {
    let limits = limit_of(&parameters).and_then(|limit| {
        let of_name = parameters.get("limit_per_metric").filter(|text| !matches!(*text, "" | "0" | "-1"));
        let wrong = |_| invalid("limit_per_metric", "limit_per_metric must be a number");
        Ok((limit, of_name.map(|text| text.parse::<usize>().map_err(wrong)).transpose()?))
    });
    let (limit, limit_of_name) = match limits {
        Ok((limit, of_name)) => (limit.unwrap_or(usize::MAX), of_name.unwrap_or(usize::MAX)),
        Err(error) => return Ok(failed(&error)),
    };
    let wanted = parameters.get("metric").filter(|name| !name.is_empty());
    let found = query::named(&api, &caller).metadata(wanted, METADATA_MAX).await?;
    let one = |about: MetricMetadata| json!({"type": about.kind, "help": about.help, "unit": about.unit});
    let rows = found
        .into_iter()
        .take(limit)
        .map(|(name, several)| (name, several.into_iter().take(limit_of_name).map(one).collect::<Value>()));
    Ok(success(rows.collect::<Map<_, _>>().into()))
}

/// `GET` and `POST /api/v1/query_exemplars`: those of every series that the query selects.
pub(super) async fn exemplars(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    let asked = || -> Result<_, QueryError> {
        let (start, end) = (moment_of(&parameters, "start")?, moment_of(&parameters, "end")?);
        let (start, end) = (start.unwrap_or(Timestamp::MIN), end.unwrap_or(Timestamp::MAX));
        if end < start {
            return Err(invalid("end", "end timestamp must not be before start timestamp"));
        }
        let window = Window { start_ms: 0, end_ms: 0, step_ms: 0 };
        let plan = Plan::new(parameters.get("query").unwrap_or(""), window, &Limits::default())?;
        let groups = plan.selections().iter().flat_map(|selection| selection.groups.iter().cloned());
        Ok((groups.collect::<Vec<MatcherGroup>>(), start, end))
    };
    let (groups, start, end) = match asked() {
        Ok(asked) => asked,
        Err(error) => return Ok(failed(&error)),
    };
    let found = query::named(&api, &caller).exemplars(&groups, start, end, EXEMPLAR_SERIES_MAX).await?;
    let object = |pairs: Map<String, Value>| Value::from(pairs);
    let one = |exemplar: &Exemplar| {
        let labels = exemplar.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        let seconds = exemplar.at.micros().div_euclid(1000) as f64 / 1000.0;
        json!({"labels": object(labels.collect()), "value": number_text(exemplar.value), "timestamp": seconds})
    };
    let rows = found.iter().map(|(labels, exemplars)| {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), Value::from(&**value)));
        json!({"seriesLabels": object(labels.collect()), "exemplars": exemplars.iter().map(one).collect::<Value>()})
    });
    Ok(success(rows.collect()))
}

/// A time; Grafana's front end asks for exemplars in milliseconds, which taken for seconds are 50,000 years away.
fn moment_of(parameters: &Parameters, name: &str) -> Result<Option<Timestamp>, QueryError> {
    const SECONDS_MAX: i64 = 100_000_000_000;
    let millis = time_of(parameters, name)?;
    let millis = millis.map(|millis| if millis / 1000 > SECONDS_MAX { millis / 1000 } else { millis });
    Ok(millis.map(|millis| Timestamp::from_micros(millis.saturating_mul(1000))))
}

/// `GET` and `POST /api/v1/format_query`
pub(super) async fn format(_: Sender, request: Request) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    let formatted = orzo_promql::formatted(parameters.get("query").unwrap_or(""));
    Ok(formatted.map_or_else(|error| failed(&error), |text| success(text.into())))
}

/// `GET` and `POST /api/v1/parse_query`
pub(super) async fn parse(_: Sender, request: Request) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    let tree = orzo_promql::tree(parameters.get("query").unwrap_or(""));
    Ok(tree.map_or_else(|error| failed(&error), success))
}

/// `GET /api/v1/alertmanagers`: notices go out as the alarms say, not through Alertmanagers.
pub(super) async fn alertmanagers(_: Sender) -> Response {
    success(json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}

/// `GET /api/v1/notifications`: Prometheus tells there what is wrong with itself; here `/readyz` does.
pub(super) async fn notifications(_: Sender) -> Response {
    success(json!([]))
}

/// `GET /-/healthy`
pub(super) async fn healthy() -> &'static str {
    "Orzo is healthy.\n"
}

/// `GET /-/ready`; which room is not ready and why stands at `/readyz`.
pub(super) async fn ready(State(api): State<SharedApi>) -> Response {
    match api.readiness.rooms().await.iter().all(|room| room.ready) {
        true => "Orzo is ready.\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "Orzo is not ready.\n").into_response(),
    }
}
