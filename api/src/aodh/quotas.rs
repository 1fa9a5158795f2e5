//! `/v2/quotas`: how many alarms a project may have. Looking changes nothing (in Aodh it stores a row that forbids every
//! further alarm), and what counts is the project's alarms.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{book, not_authorized, problem_of, who::Who};
use crate::{SharedApi, parameters::Parameters, problem::Problem, request::JsonBody};

/// The only resource that has a quota.
const RESOURCE: &str = "alarms";

pub(super) async fn show(
    State(api): State<SharedApi>,
    who: Who,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    who.must_read()?;
    let own = who.0.project_id.as_deref();
    let asked = parameters.get("project_id").filter(|project| !project.is_empty());
    let project = match asked {
        Some(project) if !who.0.is_admin() && own != Some(project) => return Err(not_authorized("project", project)),
        asked => asked.or(own).ok_or_else(|| Problem::bad("project_id is needed: the token has no project"))?,
    };
    let limit = book(&api)?.quota(project).await.map_err(problem_of)?;
    Ok(Json(shown(project, limit)))
}

pub(super) async fn set(
    State(api): State<SharedApi>,
    who: Who,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    who.must_be_admin()?;
    let project = body["project_id"].as_str().filter(|project| !project.is_empty() && project.len() <= 255);
    let project = project.ok_or_else(|| {
        Problem::bad("Invalid input for field/attribute project_id. Value: 'None'. Mandatory field missing.")
    })?;
    let quotas: &[Value] = match &body["quotas"] {
        Value::Null => &[],
        Value::Array(quotas) => quotas.as_slice(),
        _ => return Err(Problem::bad("Invalid input for field/attribute quotas. Value not a valid list")),
    };
    let mut limit = None;
    for quota in quotas {
        if quota["resource"] != RESOURCE {
            let text = quota["resource"].as_str().unwrap_or("None");
            let reason = "Value should be one of: alarms";
            return Err(Problem::bad(format!("Invalid input for field/attribute resource. Value: '{text}'. {reason}")));
        }
        limit = match quota["limit"].as_i64() {
            Some(number) if number >= orzo_alarms::UNLIMITED => Some(number),
            _ => {
                let value = &quota["limit"];
                let reason = "Value should be greater or equal to -1";
                return Err(Problem::bad(format!(
                    "Invalid input for field/attribute limit. Value: '{value}'. {reason}"
                )));
            }
        };
    }
    if let Some(limit) = limit {
        book(&api)?.set_quota(project, limit).await.map_err(problem_of)?;
    }
    let limit = book(&api)?.quota(project).await.map_err(problem_of)?;
    Ok((StatusCode::CREATED, Json(shown(project, limit))))
}

pub(super) async fn forget(
    State(api): State<SharedApi>,
    who: Who,
    Path(project): Path<String>,
) -> Result<StatusCode, Problem> {
    who.must_be_admin()?;
    book(&api)?.forget_quota(&project).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(project: &str, limit: i64) -> Value {
    json!({"project_id": project, "quotas": [{"resource": RESOURCE, "limit": limit}]})
}
