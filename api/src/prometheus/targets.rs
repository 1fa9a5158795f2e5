//! What is scraped, as Prometheus shows its targets: those of the caller's project, or all for an operator. Addresses are the
//! operator's own network and shown to operators only.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use orzo_model::{Caller, Timestamp};
use serde_json::{Value, json};

use super::Sender;
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

/// `GET /api/v1/targets/metadata`: types and help are not kept.
pub(super) async fn targets_metadata(_: Sender) -> Response {
    success(json!([]))
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
    let labels: serde_json::Map<String, Value> =
        one.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
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
