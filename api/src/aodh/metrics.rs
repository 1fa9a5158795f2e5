//! `/v2/metrics`: how often each alarm was evaluated to which state. Off by default, as in Aodh.

use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{book, who::Who};
use crate::{SharedApi, parameters::Parameters, problem::Problem};

pub(super) async fn show(
    State(api): State<SharedApi>,
    who: Who,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    if !api.settings.evaluation_metrics {
        return Err(Problem::new(StatusCode::FORBIDDEN, "metrics endpoint is disabled"));
    }
    who.must_read()?;
    let project = match parameters.flag("all_projects")? {
        true => {
            who.must_be_admin()?;
            None
        }
        false => Some(who.0.project_id.clone().unwrap_or_default()),
    };
    let counts = book(&api)?.evaluations().of(project.as_deref());
    let shown = counts.into_iter().map(|(alarm_id, count)| {
        json!({
            "alarm_id": alarm_id, "project_id": count.project_id,
            "state_counters": {"ok": count.ok, "insufficient data": count.insufficient_data, "alarm": count.alarm},
        })
    });
    Ok(Json(json!({"evaluation_results": shown.collect::<Value>()})))
}
