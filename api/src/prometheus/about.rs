//! What Prometheus tells of itself, as far as it makes sense here: no scrapes, no Alertmanagers, no exemplars, and of the
//! series only those of who asks. Besides, queries that are formatted or taken apart, not answered.

use std::{cmp::Reverse, collections::HashMap};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use orzo_promql::{LOOKBACK_MS, Labels, Limits, Matcher, MatcherGroup, Operator, Plan, QueryError, Window};
use serde_json::{Map, Value, json};

use super::{
    Refused, Sender, parameters_of,
    query::{self, TIMEOUT_MAX, failed, invalid, limit_of, time_of},
};
use crate::{SharedApi, parameters::Parameters};

/// Names whose metadata one answer holds: each is a question to the index.
const METADATA_MAX: usize = 1_000;
/// Series that a look at the cardinality counts; with more, the figures are of these.
const COUNTED_MAX: usize = 200_000;
/// Rows of each table of the cardinality, unless the question says otherwise.
const ROWS: usize = 10;

fn success(data: Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

/// `GET /api/v1/status/buildinfo`: who answers. Without a `features` map, which would make Grafana expect a ruler.
pub(super) async fn build() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    success(json!({
        "version": version, "revision": "", "branch": "", "buildUser": "orzo", "buildDate": "", "goVersion": "",
    }))
}

/// `GET /api/v1/status/config`: there is no configuration of Prometheus, and Orzo's own is not told.
pub(super) async fn configuration(_: Sender) -> Response {
    success(json!({"yaml": "global: {}\n"}))
}

/// `GET /api/v1/status/flags`: the ones that say how queries are answered.
pub(super) async fn flags(_: Sender) -> Response {
    let limits = Limits::default();
    success(json!({
        "query.lookback-delta": format!("{}m", LOOKBACK_MS / 60_000),
        "query.max-samples": limits.points_max.to_string(),
        "query.timeout": format!("{}s", TIMEOUT_MAX.as_secs()),
        "web.enable-remote-write-receiver": "true",
    }))
}

/// `GET /api/v1/status/runtimeinfo`
pub(super) async fn runtime(_: Sender, State(api): State<SharedApi>) -> Response {
    success(json!({
        "serverTime": api.clock.now().to_string(), "CWD": "", "reloadConfigSuccess": true, "corruptionCount": 0,
        "storageRetention": "",
    }))
}

/// `GET /api/v1/status/tsdb`: how many series the caller has, by name, label and pair.
pub(super) async fn cardinality(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Refused> {
    let rows = match limit_of(&parameters) {
        Ok(rows) => rows.unwrap_or(ROWS),
        Err(error) => return Ok(failed(&error)),
    };
    let named = Matcher { name: "__name__".to_owned(), operator: Operator::NotEqual, value: String::new() };
    let groups: [MatcherGroup; 1] = [vec![named]];
    let found = query::named(&api, &caller).find(&groups, COUNTED_MAX).await?;
    let counted = tokio::task::spawn_blocking(move || counted(found.into_iter().map(|(_, labels)| labels), rows));
    let counted =
        counted.await.map_err(|_| crate::problem::Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?;
    Ok(success(counted))
}

fn counted(series: impl Iterator<Item = Labels>, rows: usize) -> Value {
    let (mut names, mut pairs): (HashMap<String, u64>, HashMap<String, u64>) = Default::default();
    let mut values: HashMap<String, (u64, u64)> = HashMap::new();
    let mut count = 0_u64;
    for labels in series {
        count += 1;
        *names.entry(labels.get("__name__").to_owned()).or_default() += 1;
        for (name, value) in labels.iter() {
            let pair = pairs.entry(format!("{name}={value}")).or_default();
            *pair += 1;
            if *pair == 1 {
                let (different, bytes) = values.entry(name.to_string()).or_default();
                *different += 1;
                *bytes += value.len() as u64;
            }
        }
    }
    let pair_count = pairs.len();
    let table = |counts: Vec<(String, u64)>| -> Value {
        let mut counts = counts;
        counts.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        counts.into_iter().take(rows).map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    json!({
        "headStats": {"numSeries": count, "numLabelPairs": pair_count, "chunkCount": 0, "minTime": 0, "maxTime": 0},
        "seriesCountByMetricName": table(names.into_iter().collect()),
        "labelValueCountByLabelName": table(values.iter().map(|(name, one)| (name.clone(), one.0)).collect()),
        "memoryInBytesByLabelName": table(values.iter().map(|(name, one)| (name.clone(), one.1)).collect()),
        "seriesCountByLabelValuePair": table(pairs.into_iter().collect()),
    })
}

/// `GET /api/v1/metadata`: names and units of the metrics that the caller may see. Of label sets nothing is known.
pub(super) async fn metadata(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Refused> {
    let limit = match limit_of(&parameters) {
        Ok(limit) => limit.unwrap_or(METADATA_MAX),
        Err(error) => return Ok(failed(&error)),
    };
    let wanted = parameters.get("metric").filter(|name| !name.is_empty());
    let units = query::named(&api, &caller).metric_units(METADATA_MAX).await?;
    let rows = units.into_iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name)).take(limit);
    let one = |unit: &str| json!([{"type": "unknown", "help": "", "unit": unit}]);
    Ok(success(rows.map(|(name, unit)| (name, one(&unit))).collect::<Map<_, _>>().into()))
}

/// `GET` and `POST /api/v1/query_exemplars`: a good question has an answer, and it is empty.
pub(super) async fn exemplars(_: Sender, request: Request) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    let checked = || -> Result<(), QueryError> {
        let (start, end) = (time_of(&parameters, "start")?, time_of(&parameters, "end")?);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            return Err(invalid("end", "end timestamp must not be before start timestamp"));
        }
        let window = Window { start_ms: 0, end_ms: 0, step_ms: 0 };
        Plan::new(parameters.get("query").unwrap_or(""), window, &Limits::default()).map(|_| ())
    };
    Ok(checked().map_or_else(|error| failed(&error), |()| success(json!([]))))
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

/// `GET /api/v1/targets`: nothing is scraped.
pub(super) async fn targets(_: Sender) -> Response {
    success(json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}))
}

/// `GET /api/v1/targets/metadata`
pub(super) async fn targets_metadata(_: Sender) -> Response {
    success(json!([]))
}

/// `GET /api/v1/scrape_pools`
pub(super) async fn scrape_pools(_: Sender) -> Response {
    success(json!({"scrapePools": []}))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cardinality_is_counted_by_name_label_and_pair() {
        let series = [
            Labels::new([("__name__", "up"), ("job", "a")]),
            Labels::new([("__name__", "up"), ("job", "b")]),
            Labels::new([("__name__", "cpu"), ("job", "a")]),
        ];
        let told = counted(series.into_iter(), 2);
        assert_eq!(told["headStats"]["numSeries"], 3);
        assert_eq!(told["headStats"]["numLabelPairs"], 4);
        assert_eq!(told["seriesCountByMetricName"], json!([{"name": "up", "value": 2}, {"name": "cpu", "value": 1}]));
        assert_eq!(
            told["labelValueCountByLabelName"],
            json!([{"name": "__name__", "value": 2}, {"name": "job", "value": 2}])
        );
        assert_eq!(told["memoryInBytesByLabelName"][0], json!({"name": "__name__", "value": 5}));
        assert_eq!(told["seriesCountByLabelValuePair"][0], json!({"name": "__name__=up", "value": 2}));
    }
}
