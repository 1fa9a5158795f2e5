//! The store's upkeep, for operators: `POST /store/v1/settle`.
//!
//! In: nothing. Out: 200 with the store's figures once everything that was taken before is in files, the files are merged,
//! and what is not needed any more is removed. Upkeep does all that by itself, sooner or later; this is for a moment that an
//! operator chooses: before a backup, before another engine reads the table, before a measurement. It knows no files.

use axum::{Json, Router, extract::State, routing::post};
use orzo_query::StoreStats;

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem};

/// The routes below the mount.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new().route("/v1/settle", post(settle))
}

async fn settle(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Json<StoreStats>, Problem> {
    policy::admin(&caller)?;
    Ok(Json(api.engine.settle_store().await?))
}
