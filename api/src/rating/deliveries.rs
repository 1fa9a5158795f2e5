//! What became of runs that are sent to targets, of our own: listed, looked at, given a new start; for administrators.
//!
//! Nothing of a target's secrets is here: they stay in files that only the sending reads.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use orzo_delivery::{Delivery, DeliveryError, DeliveryState, Outbox};
use serde_json::{Value, json};

use super::{exports::exports, must_be_admin, wsme::known};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem};

fn outbox(api: &SharedApi) -> Result<Outbox, Problem> {
    exports(api)?.outbox().cloned().ok_or_else(|| Problem::unavailable("this process sends no exports"))
}

fn problem_of(error: DeliveryError) -> Problem {
    match &error {
        DeliveryError::NotFound(reason) => Problem::new(StatusCode::NOT_FOUND, reason.clone()),
        DeliveryError::Refused(reason) => Problem::new(StatusCode::CONFLICT, reason.clone()),
        _ => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the outbox of exports cannot be reached");
            Problem::unavailable("the outbox of exports cannot be reached")
        }
    }
}

fn shown(own: &Delivery) -> Value {
    json!({
        "delivery": own.delivery_id, "run": own.run_id, "profile": own.profile, "target": own.target,
        "state": own.state.as_str(), "created_at": own.created_at.isoformat(),
        "next_at": (own.state == DeliveryState::Waiting).then(|| own.next_at.isoformat()),
        "ended_at": own.ended_at.map(|at| at.isoformat()), "attempts": own.attempts, "done": own.done, "taken": own.taken,
        "parked": own.parked, "failure": own.failure,
    })
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["state", "target"])?;
    let state = match parameters.get("state") {
        Some(text) => Some(DeliveryState::parse(text).ok_or_else(|| {
            Problem::bad(format!("there is no state `{text}`; there are waiting, delivered and parked"))
        })?),
        None => None,
    };
    let found = outbox(&api)?.list(state, parameters.get("target")).await.map_err(problem_of)?;
    let exports = exports(&api)?;
    let targets = exports.targets().iter();
    let targets: Vec<Value> =
        targets.map(|own| json!({"name": own.name, "profile": own.profile.name(), "address": own.address()})).collect();
    Ok(Json(json!({"deliveries": found.iter().map(shown).collect::<Vec<_>>(), "targets": targets})))
}

pub(super) async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let outbox = outbox(&api)?;
    let none = || DeliveryError::NotFound("there is no such delivery".to_owned());
    let own = outbox.find(&id).await.and_then(|own| own.ok_or_else(none)).map_err(problem_of)?;
    let parked = outbox.parked(&id).await.map_err(problem_of)?;
    let mut body = shown(&own);
    let event = |own: &orzo_delivery::Parked| json!({"place": own.place, "reason": own.reason});
    body["parked_events"] = parked.iter().map(event).collect();
    Ok(Json(body))
}

pub(super) async fn replay(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_be_admin(&caller)?;
    let own = outbox(&api)?.replay(&id).await.map_err(problem_of)?;
    Ok((StatusCode::ACCEPTED, Json(shown(&own))))
}
