//! The documents that tell a client where everything is, and what this server can.

use axum::{extract::State, response::Response};
use orzo_index::policy::all_methods;
use serde_json::{Map, Value, json};

use super::answer::ok;
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy::{Action, Target},
    problem::Problem,
    request::Links,
};

/// The Gnocchi whose API this is. Clients read it: Ceilometer wants the same major and at least 4.2.0.
const BUILD: &str = "4.7.1";
/// Collections below `/v1`, sorted; a client counts on the order.
const COLLECTIONS: [&str; 12] = [
    "aggregates",
    "aggregation",
    "archive_policy",
    "archive_policy_rule",
    "batch",
    "capabilities",
    "influxdb",
    "metric",
    "resource",
    "resource_type",
    "search",
    "status",
];

/// `GET /`, for anyone.
pub(super) async fn versions(links: Links) -> Response {
    ok(json!({
        "build": BUILD,
        "versions": [{
            "status": "CURRENT",
            "links": [{"rel": "self", "href": format!("{}/", links.to_metric(&["v1"]))}],
            "id": "v1.0",
            "updated": "2015-03-19",
        }],
    }))
}

/// `GET /v1`.
pub(super) async fn version(links: Links) -> Response {
    let mut hrefs = vec![json!({"rel": "self", "href": links.to_metric(&["v1"])})];
    for name in COLLECTIONS {
        hrefs.push(json!({"rel": name, "href": links.to_metric(&["v1", name])}));
    }
    ok(json!({"version": "1.0", "links": hrefs}))
}

/// `GET /v1/capabilities`.
pub(super) async fn capabilities() -> Response {
    ok(json!({"aggregation_methods": all_methods()}))
}

/// `GET /v1/status`. There is no backlog: a measure that was acknowledged is answered at once.
pub(super) async fn status(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    api.allow(Action::GetStatus, &caller, Target::Nothing)?;
    // What waits to be computed: nothing, ever. The fields stay, because clients read them.
    let mut storage = json!({"summary": {"metrics": 0, "measures": 0}});
    if parameters.flag_or("details", true)? {
        storage["measures_to_process"] = json!({});
    }
    Ok(ok(json!({"storage": storage, "metricd": {"processors": null, "statistics": {}}})))
}

/// `GET /v1/resource`: the collections of resources, by type.
pub(super) async fn resource_collections(
    _: Asker,
    State(api): State<SharedApi>,
    links: Links,
) -> Result<Response, Problem> {
    let mut answer = Map::new();
    for kind in api.index().resource_types().await? {
        answer.insert(kind.name.clone(), links.to_metric(&["v1", "resource", &kind.name]).into());
    }
    Ok(ok(Value::Object(answer)))
}
