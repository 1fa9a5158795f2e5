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
        if !is_json(request.headers()) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ""));
        }
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
        let is_json = is_json(request.headers());
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

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).as_deref() == Some("application/json")
}

/// Whether the body is of one of these media types.
pub(crate) fn is_any(headers: &HeaderMap, types: &[&str]) -> bool {
    content_type(headers).is_some_and(|own| types.contains(&own.as_str()))
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

/// Reads a JSON body into a tree.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Problem> {
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
    metric_path: String,
    path: String,
}

impl FromRequestParts<SharedApi> for Links {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        let told = if api.settings.proxy_headers { forwarded(&parts.headers) } else { Forwarded::default() };
        let origin = match &api.settings.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => {
                let host = told.host.unwrap_or_else(|| host(&parts.headers).to_owned());
                format!("{}://{host}{}", told.scheme.unwrap_or("http"), told.prefix.unwrap_or_default())
            }
        };
        Ok(Self { origin, metric_path: api.settings.metric_path.clone(), path: parts.uri.path().to_owned() })
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

    /// The URL of a path of the metric API.
    pub(crate) fn to_metric(&self, segments: &[&str]) -> String {
        self.to(&self.metric_path, segments)
    }

    /// The URL of this request to the metric API, without its query.
    pub(crate) fn here_metric(&self) -> String {
        self.here(&self.metric_path)
    }

    /// The URL of this request below a face's mount, without its query.
    pub(crate) fn here(&self, mount: &str) -> String {
        format!("{}{mount}{}", self.origin, self.path)
    }
}

/// What a proxy in front says about the request that it got.
#[derive(Debug, Default, PartialEq)]
struct Forwarded {
    scheme: Option<&'static str>,
    host: Option<String>,
    prefix: Option<String>,
}

/// Reads the first element of `Forwarded` (RFC 7239), or else `X-Forwarded-Proto` and `-Host`; `X-Forwarded-Prefix` in
/// any case. What does not look like a scheme, host or path is not believed.
fn forwarded(headers: &HeaderMap) -> Forwarded {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let first = |name: &str| text(name).map(|text| text.split(',').next().unwrap_or("").trim());
    let (mut scheme, mut host) = (None, None);
    match first("forwarded") {
        Some(element) => {
            for pair in element.split(';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "proto" => scheme = Some(value),
                    "host" => host = Some(value),
                    _ => {}
                }
            }
        }
        None => (scheme, host) = (first("x-forwarded-proto"), first("x-forwarded-host")),
    }
    let is_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let prefix = text("x-forwarded-prefix").map(|prefix| prefix.trim().trim_end_matches('/'));
    Forwarded {
        scheme: scheme.and_then(|scheme| match scheme.to_ascii_lowercase().as_str() {
            "http" => Some("http"),
            "https" => Some("https"),
            _ => None,
        }),
        host: host.filter(|host| is_host(host)).map(str::to_owned),
        prefix: prefix.filter(|prefix| prefix.starts_with('/') && prefix.bytes().all(is_path)).map(str::to_owned),
    }
}

/// The `Host` header, if it looks like a host and port.
fn host(headers: &HeaderMap) -> &str {
    let text = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("");
    if is_host(text) { text } else { "localhost" }
}

fn is_host(text: &str) -> bool {
    let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'_' | b'[' | b']');
    !text.is_empty() && text.bytes().all(plausible)
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

    #[test]
    fn a_proxy_is_believed_as_far_as_it_makes_sense() {
        let told = |headers: &[(&'static str, &str)]| {
            forwarded(&headers.iter().map(|(n, v)| (n.parse().expect("a name"), v.parse().expect("a value"))).collect())
        };
        let expect = |scheme, host: Option<&str>, prefix: Option<&str>| Forwarded {
            scheme,
            host: host.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
        };
        assert_eq!(told(&[]), Forwarded::default());
        assert_eq!(
            told(&[("forwarded", "for=192.0.2.60;proto=HTTPS;host=\"a:1\", for=x;host=b"), ("x-forwarded-host", "c")]),
            expect(Some("https"), Some("a:1"), None)
        );
        assert_eq!(
            told(&[("x-forwarded-proto", "https, http"), ("x-forwarded-host", "c"), ("x-forwarded-prefix", "/p/")]),
            expect(Some("https"), Some("c"), Some("/p"))
        );
        let evil = [("x-forwarded-proto", "ftp"), ("x-forwarded-host", "a/b"), ("x-forwarded-prefix", "/<x>")];
        assert_eq!(told(&evil), Forwarded::default());
    }
}
