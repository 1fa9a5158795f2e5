//! The door for evaluators that run elsewhere: `POST /watch/v1/series`, `/watch/v1/windows`, `/watch/v1/events`,
//! `/watch/v1/instant`.
//!
//! In: the questions of [`orzo_model::watch::wire`], each with the scope of the alarm that it is asked for. Out: 200 with
//! the answer, "there is no such metric" included. Whoever asks says itself how far it may look, so only operators and
//! services may ask; every read below stays within the scope that was said.

use axum::{
    Json, Router,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use orzo_model::{
    EventFeed, Measure, ReadError, Timestamp, WindowRead, WindowReader,
    watch::wire::{EVENTS_MAX, EventsAsked, InstantAsked, READS_MAX, SeriesAsked, WindowsAsked, WindowsRead, packed},
};
use serde::de::DeserializeOwned;

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem, request::body_bytes};

/// The routes below the mount.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/v1/series", post(series))
        .route("/v1/windows", post(windows))
        .route("/v1/events", post(events))
        .route("/v1/instant", post(instant))
}

/// A question of an operator or a service.
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequest<SharedApi> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &SharedApi) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Asker(caller) = Asker::from_request_parts(&mut parts, api).await?;
        policy::operator(&caller)?;
        let body = body_bytes(body).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| Problem::bad(format!("not a question: {error}")))
    }
}

async fn series(State(api): State<SharedApi>, Asked(asked): Asked<SeriesAsked>) -> Response {
    let found = api.engine.find_series(&asked.scope, &asked.target).await;
    Json(found.map(|series| series.to_vec())).into_response()
}

async fn windows(
    State(api): State<SharedApi>,
    Asked(asked): Asked<WindowsAsked>,
) -> Result<Json<WindowsRead>, Problem> {
    if asked.reads.len() > READS_MAX {
        let text = format!("{} questions; at most {READS_MAX} in one request", asked.reads.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let reads: Vec<WindowRead> = asked.reads.into_iter().map(WindowRead::from).collect();
    let answers: Vec<Result<Vec<Measure>, ReadError>> = api.engine.read_windows(&reads).await;
    Ok(Json(answers.into_iter().map(|answer| answer.map(|measures| packed(&measures))).collect()))
}

async fn events(State(api): State<SharedApi>, Asked(asked): Asked<EventsAsked>) -> Response {
    match asked {
        EventsAsked::After { number, limit } => {
            Json(api.engine.events_after(number, limit.min(EVENTS_MAX)).await).into_response()
        }
        EventsAsked::Newest => Json(api.engine.newest_event().await).into_response(),
        EventsAsked::Between { project_id, start, stop, limit } => {
            Json(api.engine.events_between(&project_id, start, stop, limit.min(EVENTS_MAX)).await).into_response()
        }
    }
}

async fn instant(State(api): State<SharedApi>, Asked(asked): Asked<InstantAsked>) -> Json<Result<Vec<u64>, ReadError>> {
    let answer = api.prometheus.instant(&asked.scope, &asked.query, Timestamp::from_micros(asked.at_us)).await;
    Json(answer.map(|values| values.into_iter().map(f64::to_bits).collect()))
}
