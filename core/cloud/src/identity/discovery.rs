//! Version documents, by which keystoneauth finds out what it talks to. Open to everyone.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use super::Identity;

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new().route("/", get(versions)).route("/v3", get(version))
}

/// 300, as Keystone answers at its root.
async fn versions(State(identity): State<Arc<Identity>>) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(json!({"versions": {"values": [v3(&identity)]}})))
}

async fn version(State(identity): State<Arc<Identity>>) -> Json<Value> {
    Json(json!({"version": v3(&identity)}))
}

fn v3(identity: &Identity) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": identity.catalog.identity_url("/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}
