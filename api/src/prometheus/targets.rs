//! What is scraped, as Prometheus shows its targets: those of the caller's project, or all for an operator. Addresses are the
//! operator's own network and shown to operators only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use orzo_model::{Caller, MetricMetadata, Timestamp};
use orzo_promql::MatcherGroup;
use serde_json::{Value, json};

use super::{
    Sender,
    query::{failed, invalid},
};
use crate::{SharedApi, parameters::Parameters};

/// Tells what is scraped; compose knows the scraper.
pub trait Targets: Send + Sync + 'static {
    /// One row for each target.
    fn targets(&self) -> Vec<TargetView>;
}

/// A target and its last scrape.
#[derive(Clone, Debug)]
pub struct TargetView {
    /// The name of its job.
    pub name: String,
    /// Its page.
    pub url: String,
    /// Whose series they become.
    pub project: String,
    /// Labels of all its series.
    pub labels: Vec<(String, String)>,
    /// Whether it is shown a token.
    pub has_token: bool,
    /// How often it is scraped.
    pub interval: Duration,
    /// How long a scrape may take.
    pub timeout: Duration,
    /// `None`: not asked yet.
    pub is_up: Option<bool>,
    /// Why the last scrape failed.
    pub last_error: String,
    /// The slot of the last scrape.
    pub last_at: Option<Timestamp>,
    /// How long it took.
    pub last_duration: Duration,
    /// What the names on its last good page mean.
    pub metadata: Arc<BTreeMap<String, MetricMetadata>>,
}

/// `GET /api/v1/targets`
pub(super) async fn targets(Sender(caller): Sender, State(api): State<SharedApi>, parameters: Parameters) -> Response {
    let pool = parameters.get("scrapePool").filter(|pool| !pool.is_empty());
    let is_asked = !matches!(parameters.get("state"), Some("dropped"));
    let seen = seen_by(&api, &caller).into_iter().filter(|one| is_asked && pool.is_none_or(|pool| pool == one.name));
    let active: Vec<Value> = seen.map(|one| shown(&one, caller.is_admin())).collect();
    success(json!({"activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {}}))
}

/// `GET /api/v1/scrape_pools`
pub(super) async fn scrape_pools(Sender(caller): Sender, State(api): State<SharedApi>) -> Response {
    let mut pools: Vec<String> = seen_by(&api, &caller).into_iter().map(|one| one.name).collect();
    pools.sort();
    pools.dedup();
    success(json!({"scrapePools": pools}))
}

/// `GET /api/v1/targets/metadata`: what names mean, as each target's page says it. As in Prometheus, rows of one `metric`
/// do not name it, and no further target is asked once there are `limit` rows.
pub(super) async fn targets_metadata(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Response {
    let text = |name| parameters.get(name).filter(|text| !text.is_empty());
    let limit = match text("limit").map(str::parse::<i64>).transpose() {
        // A negative one is none.
        Ok(limit) => limit.and_then(|limit| usize::try_from(limit).ok()),
        Err(_) => return failed(&invalid("limit", "limit must be a number")),
    };
    let groups = match text("match_target").map(orzo_promql::selector).transpose() {
        Ok(groups) => groups,
        Err(error) => return failed(&invalid("match_target", &error.to_string())),
    };
    let metric = text("metric");
    let mut rows = Vec::new();
    for one in seen_by(&api, &caller) {
        if limit.is_some_and(|limit| rows.len() >= limit) {
            break;
        }
        if groups.as_ref().is_some_and(|groups| !holds(groups, &one.labels)) {
            continue;
        }
        let labels = object(&one.labels);
        let row = |about: &MetricMetadata| json!({"target": labels, "type": about.kind, "help": about.help, "unit": about.unit});
        match metric {
            Some(metric) => rows.extend(one.metadata.get(metric).map(row)),
            None => rows.extend(one.metadata.iter().map(|(name, about)| {
                let mut row = row(about);
                row["metric"] = name.as_str().into();
                row
            })),
        }
    }
    success(rows.into())
}

/// Whether any group's matchers all hold for these labels.
pub(super) fn holds(groups: &[MatcherGroup], labels: &[(String, String)]) -> bool {
    let value = |name: &str| labels.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value);
    groups.iter().any(|group| group.iter().all(|matcher| matcher.is_match(value(&matcher.name))))
}

fn object(labels: &[(String, String)]) -> serde_json::Map<String, Value> {
    labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
}

fn success(data: Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

fn seen_by(api: &SharedApi, caller: &Caller) -> Vec<TargetView> {
    let all = api.targets.as_ref().map(|targets| targets.targets()).unwrap_or_default();
    let is_seen = |one: &TargetView| caller.is_admin() || caller.project_id.as_ref() == Some(&one.project);
    all.into_iter().filter(is_seen).collect()
}

fn shown(one: &TargetView, with_address: bool) -> Value {
    let health = match one.is_up {
        None => "unknown",
        Some(true) => "up",
        Some(false) => "down",
    };
    let labels = object(&one.labels);
    let url = if with_address { one.url.as_str() } else { "" };
    json!({
        "discoveredLabels": {}, "labels": labels, "scrapePool": one.name, "scrapeUrl": url, "globalUrl": url,
        "lastError": one.last_error,
        "lastScrape": one.last_at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string()),
        "lastScrapeDuration": one.last_duration.as_secs_f64(), "health": health,
        "scrapeInterval": format!("{}s", one.interval.as_secs_f64()),
        "scrapeTimeout": format!("{}s", one.timeout.as_secs_f64()),
    })
}
