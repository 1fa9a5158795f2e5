//! What every face reads from a request: its body as JSON, the URL under which the client knows this server.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use crate::{SharedApi, parameters::Parameters, problem::Problem, wire};

/// A body of this size holds about 100,000 measures; more than that belongs into several requests.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A client that needs longer to send its body holds memory for nothing.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// A JSON body; 415 without the content type, 400 if it cannot be read.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<SharedApi> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &SharedApi) -> Result<Self, Problem> {
        match OptionalJsonBody::from_request(request, api).await?.0 {
            Some(value) => Ok(Self(value)),
            None => Err(undecodable("Expected object or value")),
        }
    }
}

/// A JSON body or nothing at all.
pub(crate) struct OptionalJsonBody(pub(crate) Option<Value>);

impl FromRequest<SharedApi> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &SharedApi) -> Result<Self, Problem> {
        let is_json = content_type(request.headers()) == Some("application/json".to_owned());
        let bytes = body_bytes(request.into_body()).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        if !is_json {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ""));
        }
        decode(&bytes).map(|value| Self(Some(value)))
    }
}

/// A JSON Patch body (RFC 6902).
pub(crate) struct PatchBody(pub(crate) Value);

impl FromRequest<SharedApi> for PatchBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &SharedApi) -> Result<Self, Problem> {
        if content_type(request.headers()) != Some("application/json-patch+json".to_owned()) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ""));
        }
        decode(&body_bytes(request.into_body()).await?).map(Self)
    }
}

/// The media type of the body, lower case, without its parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

/// Reads a body within its limits of size and time.
pub(crate) async fn body_bytes(body: Body) -> Result<bytes::Bytes, Problem> {
    match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {BODY_BYTES_MAX} bytes; send several requests"),
        )),
        Ok(Err(_)) => Err(Problem::bad("the body could not be read")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

fn decode(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| undecodable(&error.to_string()))?;
    // serde_json refuses nesting deeper than 128.
    serde_json::from_str(&wire::quote_bare_numbers(text)).map_err(|error| undecodable(&error.to_string()))
}

fn undecodable(reason: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, json!({"cause": "Unable to decode body", "reason": reason, "detail": []}))
}

/// The query of a request.
impl FromRequestParts<SharedApi> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &SharedApi) -> Result<Self, Problem> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

/// The URL under which the client reached this server, for `Location`, `Link` and `href`.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    origin: String,
    path: String,
}

impl FromRequestParts<SharedApi> for Links {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        let origin = match &api.settings.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{}", host(&parts.headers)),
        };
        Ok(Self { origin, path: parts.uri.path().to_owned() })
    }
}

impl Links {
    /// The URL of a path below a face's mount; segments are percent-encoded.
    pub(crate) fn to(&self, mount: &str, segments: &[&str]) -> String {
        let mut url = format!("{}{mount}", self.origin);
        for segment in segments {
            url.push('/');
            url.push_str(&encode_segment(segment));
        }
        url
    }

    /// The URL of this request below a face's mount, without its query.
    pub(crate) fn here(&self, mount: &str) -> String {
        format!("{}{mount}{}", self.origin, self.path)
    }
}

/// The `Host` header, if it looks like a host and port.
fn host(headers: &HeaderMap) -> &str {
    let text = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("");
    let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'_' | b'[' | b']');
    if !text.is_empty() && text.bytes().all(plausible) { text } else { "localhost" }
}

fn encode_segment(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A path with doubled and trailing slashes taken away: clients join paths carelessly.
pub(crate) fn normal_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_doubled_and_trailing_slashes() {
        for (path, normal) in [("/", "/"), ("", "/"), ("//v1//metric/", "/v1/metric"), ("/v1/a%2Fb/", "/v1/a%2Fb")] {
            assert_eq!(normal_path(path), normal);
        }
    }

    #[test]
    fn segments_are_encoded_and_hosts_are_checked() {
        assert_eq!(encode_segment("a b/é"), "a%20b%2F%C3%A9");
        let mut headers = HeaderMap::new();
        assert_eq!(host(&headers), "localhost");
        headers.insert(header::HOST, "orzo.example:8041".parse().expect("a header"));
        assert_eq!(host(&headers), "orzo.example:8041");
        headers.insert(header::HOST, "evil/\"><x".parse().expect("a header"));
        assert_eq!(host(&headers), "localhost");
    }
}
