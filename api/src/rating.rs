//! CloudKitty's API, versions 1 and 2: rules, quotes, reports, dataframes, summaries, scopes, reprocessing.
//!
//! Every command of the real client works against it. Who may do what is CloudKitty's default: an administrator
//! everything, a project its own reports. What costs what is decided in `orzo_rating`; rated lines come from its ledger,
//! which gets the caller's project with every question. Version 1 tells faults as WSME does, version 2 as Flask does.

mod budgets;
mod costs;
mod deliveries;
mod exports;
mod frames;
mod hashmap;
mod info;
mod invoices;
mod lines;
mod modules;
mod periods;
mod prices;
mod report;
mod scopes;
mod summary;
mod tasks;
mod wsme;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use orzo_export::Catalogue;
use orzo_model::{Caller, Timestamp};

pub use exports::{Exports, ScheduleError};
use orzo_rating::{BookError, Ledger, LedgerError, Processor, RatingBook, forecast::month};
use serde_json::{Value, json};
pub use summary::{SummaryError, summary_by_project};

use crate::{Api, RATING_MOUNT, SharedApi, problem::Problem, request::Links};

/// What the rating's faces are made from.
pub struct RatingParts {
    /// Rules, scopes, tasks.
    pub book: RatingBook,
    /// Rated lines.
    pub ledger: Arc<dyn Ledger>,
    /// Length of a rating period.
    pub period: Duration,
    /// `metrics.yml` as it was read.
    pub metrics: Value,
    /// What the ledger does not know and invoices say.
    pub catalogue: Catalogue,
    /// Makes exports; `None` closes those routes.
    pub exports: Option<Arc<Exports>>,
    /// Closes, previews and explains; `None` closes those routes.
    pub processor: Option<Arc<Processor>>,
}

/// What is also answered as a page.
pub(crate) const PAGES: &[&str] = &["/v2/invoices/{project}/{month}"];

pub(crate) fn router() -> Router<SharedApi> {
    let hashmap = "/v1/rating/module_config/hashmap";
    let path = |rest: &str| format!("{hashmap}/{rest}");
    Router::new()
        .route("/", get(versions))
        .route("/healthcheck", get(crate::health::healthcheck))
        .route("/v1/info/config", get(info::config))
        .route("/v1/info/metrics", get(info::metrics))
        .route("/v1/info/metrics/{metric}", get(info::metric))
        .route("/v1/info/services", get(info::metrics))
        .route("/v1/info/services/{metric}", get(info::metric))
        .route("/v1/rating/modules", get(modules::list))
        .route("/v1/rating/modules/{module}", get(modules::show).put(modules::set))
        .route("/v1/rating/reload_modules", get(modules::reload))
        .route("/v1/rating/quote", post(modules::quote))
        .route(&path("types"), get(hashmap::types))
        .route(&path("services"), get(hashmap::services).post(hashmap::create_service).delete(hashmap::delete_service))
        .route(&path("services/{id}"), get(hashmap::service).delete(hashmap::delete_service))
        .route(&path("fields"), get(hashmap::fields).post(hashmap::create_field).delete(hashmap::delete_field))
        .route(&path("fields/{id}"), get(hashmap::field).delete(hashmap::delete_field))
        .route(&path("groups"), get(hashmap::groups).post(hashmap::create_group).delete(hashmap::delete_group))
        .route(&path("groups/{id}"), get(hashmap::group).delete(hashmap::delete_group))
        .route(&path("groups/mappings"), get(hashmap::mappings_of_group))
        .route(&path("groups/thresholds"), get(hashmap::thresholds_of_group))
        .route(&path("groups/{id}/mappings"), get(hashmap::mappings_of_group))
        .route(&path("groups/{id}/thresholds"), get(hashmap::thresholds_of_group))
        .route(
            &path("mappings"),
            get(costs::mappings).post(costs::create_mapping).put(costs::update_mapping).delete(costs::delete_mapping),
        )
        .route(&path("mappings/group"), get(costs::group_of_mapping))
        .route(&path("mappings/{id}"), get(costs::mapping).put(costs::update_mapping).delete(costs::delete_mapping))
        .route(&path("mappings/{id}/group"), get(costs::group_of_mapping))
        .route(
            &path("thresholds"),
            get(costs::thresholds)
                .post(costs::create_threshold)
                .put(costs::update_threshold)
                .delete(costs::delete_threshold),
        )
        .route(&path("thresholds/group"), get(costs::group_of_threshold))
        .route(
            &path("thresholds/{id}"),
            get(costs::threshold).put(costs::update_threshold).delete(costs::delete_threshold),
        )
        .route(&path("thresholds/{id}/group"), get(costs::group_of_threshold))
        .route("/v1/rating/module_config/pyscripts/scripts", get(modules::scripts).post(modules::no_script))
        .route(
            "/v1/rating/module_config/pyscripts/scripts/{id}",
            get(modules::script).put(modules::no_script).delete(modules::script),
        )
        .route("/v1/report/summary", get(report::summary))
        .route("/v1/report/total", get(report::total))
        .route("/v1/report/tenants", get(report::tenants))
        .route("/v1/storage/dataframes", get(report::dataframes))
        .route(
            "/v1/collector/mappings",
            get(info::collector_mappings).post(info::set_collector_mapping).delete(info::delete_collector_mapping),
        )
        .route("/v1/collector/mappings/{collector}/{service}", post(info::set_collector_mapping))
        .route(
            "/v1/collector/mappings/{collector}",
            get(info::collector_mapping).delete(info::delete_collector_mapping),
        )
        .route("/v1/collector/states", get(info::collector_state).put(info::set_collector_state))
        .route("/v1/collector/{name}/states", get(info::collector_state).put(info::set_collector_state))
        .route("/v1/collector/states/{name}", get(info::collector_state).put(info::set_collector_state))
        .route("/v2", get(versions))
        .route("/v2/dataframes", get(frames::list).post(frames::push))
        .route("/v2/summary", get(summary::show))
        .route("/v2/budgets", get(budgets::list).post(budgets::create))
        .route("/v2/budgets/{id}", axum::routing::delete(budgets::delete))
        .route("/v2/exports", get(exports::list).post(exports::create))
        .route("/v2/exports/{run}/{file}", get(exports::fetch))
        .route("/v2/deliveries", get(deliveries::list))
        .route("/v2/deliveries/{id}", get(deliveries::show))
        .route("/v2/deliveries/{id}/replay", post(deliveries::replay))
        .route("/v2/invoices/{project}/{month}", get(invoices::show))
        .route("/v2/prices", get(prices::list))
        .route("/v2/prices/{kind}/{id}", get(prices::show).put(prices::put).delete(prices::delete))
        .route("/v2/rules/changes", get(prices::changes))
        .route("/v2/quote", post(prices::quote_bill))
        .route("/v2/periods", get(periods::list).post(periods::close))
        .route("/v2/rerate", post(periods::preview))
        .route("/v2/lines", get(lines::list))
        .route("/v2/lines/{id}", get(lines::explain))
        .route("/v2/completeness", get(lines::completeness))
        .route("/v2/scope", get(scopes::list).put(scopes::reset).patch(scopes::change).post(scopes::create))
        .route("/v2/rating/modules", get(modules::list2))
        .route("/v2/rating/modules/{module}", get(modules::show2).put(modules::set2))
        .route("/v2/task/reprocesses", get(tasks::list).post(tasks::create))
        .route("/v2/task/reprocesses/{scope}", get(tasks::of_scope))
        .layer(from_fn(as_cloudkitty_tells_faults))
}

/// Problems get the body that CloudKitty's clients read.
async fn as_cloudkitty_tells_faults(request: Request, next: Next) -> Response {
    let is_first = request.uri().path().starts_with("/v1");
    let mut response = next.run(request).await;
    // Taken out, so that nothing further out writes it in another form.
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let reason = problem.status.canonical_reason().unwrap_or("Error");
    let text = match &problem.description {
        Value::String(text) if text.is_empty() && problem.status == StatusCode::FORBIDDEN => {
            "You are not authorized to perform this action".to_owned()
        }
        Value::String(text) if text.is_empty() => reason.to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => reason.to_owned(),
        other => other.get("reason").and_then(Value::as_str).map_or_else(|| other.to_string(), str::to_owned),
    };
    let code = if problem.status.is_server_error() { "Server" } else { "Client" };
    let body = match is_first {
        true => json!({"faultcode": code, "faultstring": text, "debuginfo": null}),
        false => json!({"message": text}),
    };
    let mut told = (problem.status, Json(body)).into_response();
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers().get(&name) {
            told.headers_mut().insert(name, value.clone());
        }
    }
    told
}

async fn versions(links: Links) -> Json<Value> {
    let version = |id: &str, status: &str| json!({"id": id, "status": status, "links": [{"rel": "self", "href": links.to(RATING_MOUNT, &[id])}]});
    Json(json!({"versions": [version("v1", "CURRENT"), version("v2", "EXPERIMENTAL")]}))
}

fn parts(api: &Api) -> Result<&RatingParts, Problem> {
    api.rating.as_ref().ok_or_else(|| Problem::unavailable("this process does not rate"))
}

fn book(api: &Api) -> Result<&RatingBook, Problem> {
    parts(api).map(|parts| &parts.book)
}

/// `role:admin`
fn must_be_admin(caller: &Caller) -> Result<(), Problem> {
    if caller.is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
}

/// `project_reader_or_admin`: a project's own, or an administrator.
fn must_own(caller: &Caller, project: Option<&str>) -> Result<(), Problem> {
    let is_own = project.is_some() && caller.project_id.as_deref() == project;
    if is_own || caller.is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
}

/// The range that is asked for; without one the current month, as CloudKitty takes it.
fn range(begin: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp) -> (Timestamp, Timestamp) {
    (begin.unwrap_or_else(|| month(now, 0)), end.unwrap_or_else(|| month(now, 1)))
}

fn problem_of(error: BookError) -> Problem {
    match &error {
        BookError::NotFound { what } => Problem::new(StatusCode::NOT_FOUND, what.clone()),
        BookError::Exists { what } => Problem::new(StatusCode::CONFLICT, what.clone()),
        BookError::Refused { reason } => Problem::bad(reason.clone()),
        BookError::Damaged { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "the rating book is damaged");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
        BookError::Database(inner) if inner.is_refusal() => Problem::bad(inner.to_string()),
        BookError::Database(inner) if inner.is_retryable() => {
            tracing::warn!(error = inner as &dyn std::error::Error, "the rating book cannot be reached");
            Problem::unavailable("the rating's database does not answer")
        }
        BookError::Database(inner) => {
            tracing::error!(error = inner as &dyn std::error::Error, "the rating's database failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the rating's database failed; see the log")
        }
    }
}

/// A parent that is not there is a mistake in the request (400); the thing itself is 404.
fn problem_of_parent(error: BookError) -> Problem {
    match error {
        BookError::NotFound { what } => Problem::bad(what),
        other => problem_of(other),
    }
}

fn problem_of_ledger(error: LedgerError) -> Problem {
    match &error {
        LedgerError::Invalid { .. } => Problem::bad(error.to_string()),
        LedgerError::Unavailable { .. } => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the ledger cannot be reached");
            Problem::unavailable("rated lines cannot be had now")
        }
        LedgerError::Damaged { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "the ledger is damaged");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the ledger is damaged; see the log")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_range_it_is_the_current_month() {
        let now: Timestamp = "2026-12-22T13:05:00Z".parse().expect("a time");
        let (begin, end) = range(None, None, now);
        assert_eq!((begin.naive().as_str(), end.naive().as_str()), ("2026-12-01T00:00:00", "2027-01-01T00:00:00"));
        assert_eq!(range(Some(now), None, now).0, now);
    }
}
