//! Orzo's own page at `/`, and what it asks that no other face answers, below `/page/v1`.
//!
//! The page is a bundle of files that the build has made from `page/` ([`files`]); where the build had no Node, a page
//! that says how to get the full one. Every view's data comes through faces that are scoped below the query, so that
//! the page itself knows nothing of tenants. This file knows no view.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use crate::SharedApi;

mod cardinality;
mod files;
mod missing;
mod pipeline;

pub use pipeline::{KnownMeter, Pipeline, Quarantined};

/// Where the page's own questions are asked.
const QUESTIONS: &str = "/page/v1";

pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/", get(files::index))
        .route("/assets/{name}", get(files::asset))
        .route(&format!("{QUESTIONS}/about"), get(about))
        .route(&format!("{QUESTIONS}/cardinality"), get(cardinality::cardinality))
        .route(&format!("{QUESTIONS}/missing"), get(missing::missing))
        .route(&format!("{QUESTIONS}/rooms"), get(pipeline::rooms))
}

/// Where the page finds the other faces; asked before anybody has logged in.
async fn about(State(api): State<SharedApi>) -> Json<Value> {
    let identity = api.settings.identity_url.as_ref().map(|url| url.as_str().trim_end_matches('/'));
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        // Relative paths work behind a proxy that puts the whole server below a path of its own.
        "identity": identity.unwrap_or("identity/v3"),
        "metric": api.settings.metric_path.trim_start_matches('/'),
    }))
}
