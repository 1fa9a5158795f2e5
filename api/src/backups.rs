//! `/store/v1/backups`: backups of everything that is kept, for administrators.
//!
//! `POST` begins one and answers 202 with its name; `GET` tells of it, and of those made since the start. Where backups
//! go is the operator's setting and nothing of a request, so that no request writes to a place of its choice. This file
//! knows no files: whoever makes backups is handed in.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem};

/// How far a backup is, or what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupState {
    /// The time of its beginning, such as `20261122T104500Z`; also the name of its directory.
    pub name: String,
    /// Where it is on the server, once it is whole.
    pub path: Option<String>,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What is being copied: `points`, `labels`, `files`, `database`.
    pub stage: String,
    /// Bytes of points that are copied.
    pub bytes_done: u64,
    /// Bytes of points in all.
    pub bytes_total: u64,
    /// What the maker is to be told besides, such as what is not in it.
    pub notes: Vec<String>,
}

/// Makes backups, one at a time.
#[async_trait]
pub trait BackupMaker: Send + Sync + 'static {
    /// Begins one; `Err` has the state of the one that is running.
    async fn begin(&self) -> Result<BackupState, Box<BackupState>>;
    /// Those of this process, from the first to the last.
    fn states(&self) -> Vec<BackupState>;
}

/// The routes; none if nobody makes backups.
pub(crate) fn router(maker: Option<&Arc<dyn BackupMaker>>) -> Router<SharedApi> {
    match maker {
        Some(_) => Router::new().route("/v1/backups", get(list).post(begin)).route("/v1/backups/{name}", get(show)),
        None => Router::new(),
    }
}

fn maker(api: &SharedApi) -> Result<&Arc<dyn BackupMaker>, Problem> {
    api.backups.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, serde_json::Value::Null))
}

async fn begin(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    match maker(&api)?.begin().await {
        Ok(state) => Ok((StatusCode::ACCEPTED, Json(state)).into_response()),
        Err(running) => {
            let reason = format!("the backup {} is still being made", running.name);
            Err(Problem::new(StatusCode::CONFLICT, reason))
        }
    }
}

async fn list(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    Ok(Json(json!({"backups": maker(&api)?.states()})).into_response())
}

async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let found = maker(&api)?.states().into_iter().find(|state| state.name == name);
    let state =
        found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("no backup {name} since the start")))?;
    Ok(Json(state).into_response())
}
