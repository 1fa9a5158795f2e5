//! Gnocchi's REST API v1, as version 4.7 answers it: archive policies, resource types, resources, metrics, measures and
//! aggregates. Its real clients (gnocchiclient, Ceilometer's publisher, Aodh, CloudKitty, Grafana) are the judges.
//!
//! Where it is better than Gnocchi: a measure is answered as soon as it is acknowledged (`refresh` changes nothing), late
//! measures are never dropped, and an unknown resource is 404 instead of no answer at all.

use axum::{
    Router,
    routing::{get, post},
};

use crate::SharedApi;

mod aggregates;
mod aggregation;
mod answer;
mod archive_policies;
mod batch;
mod body;
mod fields;
mod found;
mod influxdb;
mod measures;
mod metrics;
mod posted;
mod precondition;
mod prometheus;
mod resource_types;
mod resources;
mod root;
mod rows;
mod scan;
mod search_metric;
mod views;

/// Adds what Gnocchi answers without looking at the request's credential or `Accept`: its health.
pub(crate) fn outside(routes: Router) -> Router {
    Router::new().route("/healthcheck", get(crate::health::healthcheck)).fallback_service(routes)
}

/// Whether a request changes nothing, so that a read token is enough: what is asked by `GET`, and the questions that come
/// as `POST` because they have a body.
pub(crate) fn only_reads(parts: &http::request::Parts) -> bool {
    let path = parts.uri.path();
    let is_question =
        path == "/v1/aggregates" || ["/v1/search/", "/v1/aggregation/"].iter().any(|folder| path.starts_with(folder));
    parts.method.is_safe() || (parts.method == http::Method::POST && is_question)
}

/// The routes below the mount, in the order of Gnocchi's documentation.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/", get(root::versions))
        .route("/v1", get(root::version))
        .route("/v1/capabilities", get(root::capabilities))
        .route("/v1/status", get(root::status))
        .route("/v1/archive_policy", get(archive_policies::list).post(archive_policies::create))
        .route(
            "/v1/archive_policy/{name}",
            get(archive_policies::show).patch(archive_policies::update).delete(archive_policies::delete),
        )
        .route("/v1/archive_policy_rule", get(archive_policies::list_rules).post(archive_policies::create_rule))
        .route(
            "/v1/archive_policy_rule/{name}",
            get(archive_policies::show_rule).patch(archive_policies::rename_rule).delete(archive_policies::delete_rule),
        )
        .route("/v1/metric", get(metrics::list).post(metrics::create))
        .route("/v1/metric/{id}", get(metrics::show).delete(metrics::delete))
        .route("/v1/metric/{id}/measures", get(measures::show).post(measures::add))
        .route("/v1/resource_type", get(resource_types::list).post(resource_types::create))
        .route(
            "/v1/resource_type/{name}",
            get(resource_types::show).patch(resource_types::update).delete(resource_types::delete),
        )
        .route("/v1/resource", get(root::resource_collections))
        .route("/v1/resource/{type}", get(resources::list).post(resources::create).delete(resources::delete_found))
        .route("/v1/resource/{type}/{id}", get(resources::show).patch(resources::update).delete(resources::delete))
        .route("/v1/resource/{type}/{id}/history", get(resources::history))
        .route("/v1/resource/{type}/{id}/metric", get(metrics::list_of_resource).post(metrics::add_to_resource))
        .route(
            "/v1/resource/{type}/{id}/metric/{name}",
            get(metrics::show_of_resource).delete(metrics::delete_of_resource),
        )
        .route(
            "/v1/resource/{type}/{id}/metric/{name}/measures",
            get(measures::show_of_resource).post(measures::add_of_resource),
        )
        // Nothing is there to be read, as in Gnocchi, which knows no such path.
        .route("/v1/search/resource/{type}", post(resources::search).get(crate::front::no_route))
        .route("/v1/search/metric", post(search_metric::search).get(crate::front::no_route))
        .route("/v1/batch/metrics/measures", post(batch::by_metric))
        .route("/v1/batch/resources/metrics/measures", post(batch::by_resource))
        .route("/v1/aggregates", post(aggregates::compute))
        .route("/v1/aggregation/metric", get(aggregation::over_metrics).post(aggregation::over_metrics_of_body))
        // Gnocchi knows the paths, but no method of them.
        .route("/v1/aggregation", get(crate::front::no_method))
        .route("/v1/aggregation/resource/{type}/metric", get(crate::front::no_method))
        .route("/v1/aggregation/resource/{type}/metric/{name}", post(aggregation::over_resources))
        .route("/v1/influxdb/ping", get(influxdb::ping))
        .route("/v1/influxdb/query", post(influxdb::query))
        .route("/v1/influxdb/write", post(influxdb::write))
        .route("/v1/prometheus/write", post(prometheus::write))
}
