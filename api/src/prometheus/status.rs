//! What Prometheus tells of itself, as far as it makes sense here: who answers, how queries are answered, what is scraped,
//! and how many series the caller has.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use axum::{extract::State, response::Response};
use http::StatusCode;
use orzo_promql::{LOOKBACK_MS, Labels, Limits, Matcher, MatcherGroup, Operator};
use serde_json::{Value, json};

use super::{
    Refused, Sender,
    about::success,
    query::{self, TIMEOUT_MAX, failed, limit_of},
    targets::TargetView,
};
use crate::{SharedApi, parameters::Parameters};

/// Series that a look at the cardinality counts; with more, the figures are of these.
const COUNTED_MAX: usize = 200_000;
/// Rows of each table of the cardinality, unless the question says otherwise.
const ROWS: usize = 10;

/// `GET /api/v1/status/buildinfo`: who answers. Without a `features` map, which would make Grafana expect a ruler.
pub(super) async fn build() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    success(json!({
        "version": version, "revision": "", "branch": "", "buildUser": "orzo", "buildDate": "", "goVersion": "",
    }))
}

/// `GET /api/v1/status/config`: what is scraped, for operators. Orzo's own settings are not told, nor what a target is
/// shown as a secret.
pub(super) async fn configuration(Sender(caller): Sender, State(api): State<SharedApi>) -> Response {
    let targets = match (&api.targets, caller.is_admin()) {
        (Some(targets), true) => targets.targets(),
        _ => Vec::new(),
    };
    success(json!({"yaml": configured(&targets)}))
}

/// As Prometheus would have it in its file. Texts are written as JSON, which YAML reads.
fn configured(targets: &[TargetView]) -> String {
    let mut yaml = "global: {}\n".to_owned();
    if !targets.is_empty() {
        yaml.push_str("scrape_configs:\n");
    }
    for target in targets {
        let Ok(url) = url::Url::parse(&target.url) else { continue };
        let host = url.host_str().unwrap_or_default();
        let address = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        let labels: BTreeMap<&str, &str> = own_labels(target, &address);
        let mut lines = vec![
            format!("- job_name: {}", json!(target.name)),
            format!("  scrape_interval: {}s", target.interval.as_secs_f64()),
            format!("  scrape_timeout: {}s", target.timeout.as_secs_f64()),
            format!("  metrics_path: {}", json!(url.path())),
            format!("  scheme: {}", json!(url.scheme())),
        ];
        // Exporters are shown tokens there, too.
        let parameters: BTreeMap<_, _> = url.query_pairs().map(|(name, _)| (name, ["<secret>"])).collect();
        if !parameters.is_empty() {
            lines.push(format!("  params: {}", json!(parameters)));
        }
        if target.has_token {
            lines.push("  authorization: {type: Bearer, credentials: <secret>}".to_owned());
        }
        lines.push("  static_configs:".to_owned());
        lines.push(format!("  - targets: {}", json!([address])));
        if !labels.is_empty() {
            lines.push(format!("    labels: {}", json!(labels)));
        }
        yaml.push_str(&lines.join("\n"));
        yaml.push('\n');
    }
    yaml
}

/// The labels that a target is given, and not by its job and address.
fn own_labels<'t>(target: &'t TargetView, address: &str) -> BTreeMap<&'t str, &'t str> {
    let is_given = |name: &str, value: &str| match name {
        "job" => value != target.name,
        "instance" => value != address,
        _ => true,
    };
    let pairs = target.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    pairs.filter(|(name, value)| is_given(name, value)).collect()
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

/// `GET /api/v1/status/runtimeinfo`: where the process works is shown to operators only. The settings are read once, at the
/// start.
pub(super) async fn runtime(Sender(caller): Sender, State(api): State<SharedApi>) -> Response {
    let directory = caller.is_admin().then(std::env::current_dir).and_then(Result::ok).unwrap_or_default();
    let started_at = api.started_at.to_string();
    success(json!({
        "startTime": started_at, "CWD": directory.to_string_lossy(), "serverTime": api.clock.now().to_string(),
        "reloadConfigSuccess": true, "lastConfigTime": started_at, "corruptionCount": 0, "storageRetention": "",
    }))
}

/// `GET /api/v1/status/walreplay`: nothing is answered before the log was replayed.
pub(super) async fn log_replay(_: Sender) -> Response {
    success(json!({"min": 0, "max": 0, "current": 0}))
}

/// `GET /api/v1/status/tsdb`: how many series the caller has, by name, label and pair. The store's first and last time are
/// everybody's and shown to operators only.
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
    let mut counted =
        counted.await.map_err(|_| crate::problem::Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?;
    if let Some((first, last)) = api.engine.stored_times().filter(|_| caller.is_admin()) {
        counted["headStats"]["minTime"] = first.micros().div_euclid(1000).into();
        counted["headStats"]["maxTime"] = last.micros().div_euclid(1000).into();
    }
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

    #[test]
    fn the_targets_are_configured_without_their_secrets() {
        let target = |name: &str, url: &str, labels: &[(&str, &str)], has_token| TargetView {
            name: name.to_owned(),
            url: url.to_owned(),
            project: "p1".to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            has_token,
            interval: std::time::Duration::from_secs(15),
            timeout: std::time::Duration::from_millis(2500),
            is_up: None,
            last_error: String::new(),
            last_at: None,
            last_duration: std::time::Duration::ZERO,
            metadata: std::sync::Arc::default(),
        };
        assert_eq!(configured(&[]), "global: {}\n");
        let labels = [("instance", "h:9100"), ("job", "node"), ("rack", "7")];
        let yaml = configured(&[
            target("node", "http://h:9100/metrics", &labels, false),
            target("a \"b\"", "https://h/x?key=s3cret", &[("instance", "front")], true),
        ]);
        let expected = r#"global: {}
scrape_configs:
- job_name: "node"
  scrape_interval: 15s
  scrape_timeout: 2.5s
  metrics_path: "/metrics"
  scheme: "http"
  static_configs:
  - targets: ["h:9100"]
    labels: {"rack":"7"}
- job_name: "a \"b\""
  scrape_interval: 15s
  scrape_timeout: 2.5s
  metrics_path: "/x"
  scheme: "https"
  params: {"key":["<secret>"]}
  authorization: {type: Bearer, credentials: <secret>}
  static_configs:
  - targets: ["h:443"]
    labels: {"instance":"front"}
"#;
        assert_eq!(yaml, expected);
    }
}
