//! `POST /collector/v1/batches`: the door for agents that reach Orzo over HTTP instead of a message bus.
//!
//! In: one encoded batch (the bus's encoding; the decoder is handed in, so that this crate knows no bus). Out: 200 with a
//! receipt once the batch is durable (contract C1), 503 if it must be sent again, 400 if it never can be accepted.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use orzo_model::{Batch, SampleSink, SinkError};
use serde_json::json;

use crate::{SharedApi, authenticate::Asker, offered::Offered, policy, problem::Problem, request::body_bytes};

/// Where batches go, and how they are decoded.
#[derive(Clone)]
pub struct BatchDoor {
    /// The collector.
    pub sink: Arc<dyn SampleSink>,
    /// Decodes a batch; `Err` says in the reader's words what is wrong with it.
    pub decode: fn(&[u8]) -> Result<Batch, String>,
}

/// The routes; none if there is no door.
pub(crate) fn router(open: bool) -> Router<SharedApi> {
    if open { Router::new().route("/v1/batches", post(accept)) } else { Router::new() }
}

async fn accept(Asker(caller): Asker, State(api): State<SharedApi>, request: Request) -> Result<Response, Problem> {
    policy::operator(&caller)?;
    let door = api.batches.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, serde_json::Value::Null))?;
    let body = body_bytes(request.into_body()).await?;
    let batch = (door.decode)(&body).map_err(|reason| {
        Offered::new(&api.room, 1).refused_all("batch not readable");
        Problem::bad(reason)
    })?;
    let mut offered = Offered::new(&api.room, batch.len() as u64);
    match door.sink.accept(batch).await {
        Ok(receipt) => {
            offered.stored(receipt.stored);
            offered.repeated(receipt.repeated);
            offered.refused("refused by the collector", receipt.refused);
            let answer = json!({"stored": receipt.stored, "repeated": receipt.repeated, "refused": receipt.refused});
            Ok(axum::Json(answer).into_response())
        }
        Err(SinkError::Unavailable { reason, retry_after }) => {
            let mut problem = Problem::unavailable(reason);
            if let Some(wait) = retry_after {
                problem.retry_after_s = Some(wait.as_secs().max(1));
            }
            Err(problem)
        }
        Err(SinkError::Rejected { reason }) => {
            offered.refused_all("rejected by the collector");
            Err(Problem::bad(reason))
        }
    }
}
