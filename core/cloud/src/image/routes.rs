//! The HTTP face of the image service.
//!
//! Expects a verified [`Caller`] among the request's extensions (put there by the shell); without one the answer is
//! 401, but for the documents that tell versions.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use orzo_model::Caller;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, sync::mpsc};
use tokio_util::io::ReaderStream;

use super::{Asker, Image, ImageError, ImageStatus, Images, files::CHUNK_BYTES, parse_id, schemas};
use crate::http::RequestContext;

/// Chunks read ahead of a slow client.
const CHUNKS_AHEAD: usize = 4;
/// A client that takes nothing for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The media types that Glance takes for a patch.
const PATCH_TYPES: &[&str] =
    &["application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch"];

type Service = State<Arc<Images>>;
type Parameters = Query<Vec<(String, String)>>;

/// The routes, relative to the service's URL.
pub fn router(images: Arc<Images>) -> Router {
    Router::new()
        .route("/", get(versions_choices))
        .route("/versions", get(versions))
        .route("/v2/images", get(list).post(create))
        .route("/v2/images/{id}", get(show).patch(change).delete(delete))
        .route("/v2/images/{id}/file", put(upload).get(download))
        .route("/v2/images/{id}/actions/{action}", post(act))
        .route("/v2/images/{id}/tags/{tag}", put(add_tag).delete(remove_tag))
        .route("/v2/images/{id}/members", get(list_members).post(add_member))
        .route("/v2/images/{id}/members/{member}", get(show_member).put(set_member).delete(remove_member))
        .route("/v2/schemas/{name}", get(schema))
        .route(
            "/v2/info/import",
            get(|_: Asker| async {
                Json(json!({"import-methods": {
            "description": "Import methods available.", "type": "array", "value": []}}))
            }),
        )
        .fallback(fallback)
        .with_state(images)
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ImageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ImageError> {
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(ImageError::unauthorized)?;
        let request_id = parts.extensions.get::<RequestContext>().map(|context| context.request_id.clone());
        Ok(Self { caller, request_id })
    }
}

async fn versions_choices(State(images): Service) -> Response {
    (StatusCode::MULTIPLE_CHOICES, Json(schemas::versions(&images.settings.url))).into_response()
}

async fn versions(State(images): Service) -> Json<Value> {
    Json(schemas::versions(&images.settings.url))
}

/// A trailing slash means the same page; anything else is not there.
async fn fallback(State(images): Service, request: Request) -> Response {
    match request.uri().path().trim_end_matches('/') {
        "" => (StatusCode::MULTIPLE_CHOICES, Json(schemas::versions(&images.settings.url))).into_response(),
        "/versions" => Json(schemas::versions(&images.settings.url)).into_response(),
        _ => ImageError::not_found("The resource could not be found.").into_response(),
    }
}

async fn list(State(images): Service, asker: Asker, Query(parameters): Parameters) -> Result<Json<Value>, ImageError> {
    let (found, next) = images.list(&asker.caller, &parameters).await?;
    let mut first = url::form_urlencoded::Serializer::new(String::new());
    first.extend_pairs(parameters.iter().filter(|(name, _)| name != "marker"));
    let first = first.finish();
    let mut body = json!({
        "images": found.iter().map(Image::to_json).collect::<Vec<_>>(),
        "first": if first.is_empty() { "/v2/images".to_owned() } else { format!("/v2/images?{first}") },
        "schema": "/v2/schemas/images",
    });
    if let Some(next) = next {
        body["next"] = json!(next);
    }
    Ok(Json(body))
}

async fn create(State(images): Service, asker: Asker, body: Bytes) -> Result<Response, ImageError> {
    let image = images.create(&asker, &read_json(&body)?).await?;
    let location = HeaderValue::from_str(&format!("{}/v2/images/{}", images.settings.url, image.id))
        .map_err(|_| ImageError::bad_request("The service's URL cannot be sent in a header."))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(image.to_json())).into_response())
}

async fn show(State(images): Service, asker: Asker, Path(id): Path<String>) -> Result<Json<Value>, ImageError> {
    Ok(Json(images.get(&asker.caller, &id).await?.to_json()))
}

async fn change(
    State(images): Service,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ImageError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !PATCH_TYPES.contains(&kind) {
        let error = (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            [("Accept-Patch", PATCH_TYPES.join(", "))],
            Json(json!({"message": "The content type of a patch must be one of those in Accept-Patch.",
                "code": "415 Unsupported Media Type", "title": "Unsupported Media Type"})),
        );
        return Ok(error.into_response());
    }
    let image = images.patch(&asker, &id, read_json(&body)?).await?;
    Ok(Json(image.to_json()).into_response())
}

async fn delete(State(images): Service, asker: Asker, Path(id): Path<String>) -> Result<StatusCode, ImageError> {
    images.delete(&asker, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn upload(
    State(images): Service,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ImageError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind != "application/octet-stream" {
        let message = "The content type of image data is application/octet-stream.";
        return Err(ImageError::Refused { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message: message.to_owned() });
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > images.settings.image_bytes_max) {
        let limit = images.settings.image_bytes_max;
        return Err(ImageError::too_large(format!("The image is larger than the {limit} bytes allowed.")));
    }
    // In a task of its own: if the client goes away, the body ends with an error and the upload cleans up after itself.
    let task = tokio::spawn(images.upload(asker, id, body.into_data_stream()));
    match task.await {
        Ok(outcome) => outcome.map(|()| StatusCode::NO_CONTENT),
        Err(_) => Err(ImageError::busy("The upload was interrupted.")),
    }
}

async fn download(
    State(images): Service,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ImageError> {
    let image = images.get(&asker.caller, &id).await?;
    match image.status {
        ImageStatus::Active => {}
        ImageStatus::Deactivated if asker.caller.is_admin() => {}
        ImageStatus::Deactivated => return Err(ImageError::forbidden("The requested image has been deactivated.")),
        // Glance: there is nothing yet.
        ImageStatus::Queued | ImageStatus::Saving => return Ok(StatusCode::NO_CONTENT.into_response()),
    }
    let size = image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    let range = headers.get(header::RANGE).map(|range| read_range(range, size)).transpose()?;
    let (start, end) = range.unwrap_or((0, size));
    let file = images.files.read(parse_id(&image.id)?, start).await?;

    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(CHUNKS_AHEAD);
    let checksum = image.checksum.clone();
    tokio::spawn(async move {
        let mut chunks = ReaderStream::with_capacity(file.take(end - start), CHUNK_BYTES);
        let mut bytes_sent = 0u64;
        while let Some(chunk) = futures::StreamExt::next(&mut chunks).await {
            let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if sender.send_timeout(chunk, IDLE_MAX).await.is_err() {
                break;
            }
            bytes_sent += length;
        }
        // Told before the answer ends: who has read it to the end and goes on is told after it.
        images.tell_sent(&asker, &image, bytes_sent).await;
        drop(sender);
    });
    let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));

    let mut response = Response::new(Body::from_stream(stream));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if range.is_some() {
        let content_range = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        out.insert(header::CONTENT_RANGE, HeaderValue::from_str(&content_range).expect("digits are valid in a header"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    } else if let Some(checksum) = checksum.and_then(|checksum| HeaderValue::from_str(&checksum).ok()) {
        // Hexadecimal, against the RFC, as Glance does and its clients expect.
        out.insert("Content-MD5", checksum);
    }
    Ok(response)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`, as [start, end).
fn read_range(range: &HeaderValue, size: u64) -> Result<(u64, u64), ImageError> {
    let wrong = || ImageError::bad_range(format!("The range cannot be served from {size} bytes."));
    let text = range.to_str().map_err(|_| wrong())?;
    let (first, last) = text.strip_prefix("bytes=").and_then(|rest| rest.split_once('-')).ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => (size.saturating_sub(number(suffix)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
    };
    if start >= end { Err(wrong()) } else { Ok((start, end)) }
}

async fn act(
    State(images): Service,
    asker: Asker,
    Path((id, action)): Path<(String, String)>,
) -> Result<StatusCode, ImageError> {
    match action.as_str() {
        "deactivate" => images.set_active(&asker, &id, false).await?,
        "reactivate" => images.set_active(&asker, &id, true).await?,
        _ => return Err(ImageError::not_found("The resource could not be found.")),
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn add_tag(
    State(images): Service,
    asker: Asker,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ImageError> {
    images.tag(&asker, &id, &tag, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_tag(
    State(images): Service,
    asker: Asker,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ImageError> {
    images.tag(&asker, &id, &tag, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_members(State(images): Service, asker: Asker, Path(id): Path<String>) -> Result<Json<Value>, ImageError> {
    let members = images.members(&asker, &id).await?;
    let members: Vec<Value> = members.iter().map(|member| member.to_json()).collect();
    Ok(Json(json!({"members": members, "schema": "/v2/schemas/members"})))
}

async fn add_member(
    State(images): Service,
    asker: Asker,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ImageError> {
    let body = read_json(&body)?;
    let project = body["member"].as_str().ok_or_else(|| ImageError::bad_request("The body names a \"member\"."))?;
    Ok(Json(images.add_member(&asker, &id, project).await?.to_json()))
}

async fn show_member(
    State(images): Service,
    asker: Asker,
    Path((id, member)): Path<(String, String)>,
) -> Result<Json<Value>, ImageError> {
    Ok(Json(images.member(&asker, &id, &member).await?.to_json()))
}

async fn set_member(
    State(images): Service,
    asker: Asker,
    Path((id, member)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ImageError> {
    let body = read_json(&body)?;
    let status = body["status"].as_str().ok_or_else(|| ImageError::bad_request("The body names a \"status\"."))?;
    Ok(Json(images.set_member(&asker, &id, &member, status).await?.to_json()))
}

async fn remove_member(
    State(images): Service,
    asker: Asker,
    Path((id, member)): Path<(String, String)>,
) -> Result<StatusCode, ImageError> {
    images.remove_member(&asker, &id, &member).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn schema(_: Asker, Path(name): Path<String>) -> Result<Json<Value>, ImageError> {
    schemas::schema(&name).map(Json).ok_or_else(|| ImageError::not_found("There is no such schema."))
}

/// The shell limits the length; what is wrong is told with line and column.
fn read_json(body: &Bytes) -> Result<Value, ImageError> {
    serde_json::from_slice(body)
        .map_err(|error| ImageError::bad_request(format!("Malformed JSON in request body: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        let range = |text: &str| read_range(&HeaderValue::from_str(text).expect("valid"), 100).ok();
        assert_eq!(range("bytes=0-9"), Some((0, 10)));
        assert_eq!(range("bytes=90-"), Some((90, 100)));
        assert_eq!(range("bytes=-10"), Some((90, 100)));
        assert_eq!(range("bytes=50-500"), Some((50, 100)));
        assert_eq!(range("bytes=100-"), None);
        assert_eq!(range("bytes=9-0"), None);
        assert_eq!(range("lines=1-2"), None);
    }
}
