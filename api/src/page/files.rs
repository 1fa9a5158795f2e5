//! The files of the page: found by name, sent compressed, with what keeps a browser from running anything else.
//!
//! Names of assets hold a hash of their content, so they may be kept for ever; `/` is asked again each time and mostly
//! answered 304. Nothing here knows who asks.

use std::{
    io::Read,
    sync::{Arc, LazyLock},
};

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::{Api, SharedApi};

/// A file of the bundle, compressed by the build.
struct File {
    name: &'static str,
    brotli: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// What is served where the build made no page.
const INSTEAD: &str = include_str!("instead.html");

/// `GET /`
pub(super) async fn index(State(api): State<SharedApi>, headers: HeaderMap) -> Response {
    match find("index.html") {
        Some(file) => sent(file, &headers, "no-cache", &api),
        None => with_guards(instead().into_response(), &api),
    }
}

/// `GET /assets/{name}`
pub(super) async fn asset(State(api): State<SharedApi>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    match find(&name).filter(|file| file.name != "index.html") {
        Some(file) => sent(file, &headers, "public, max-age=31536000, immutable", &api),
        None => with_guards(StatusCode::NOT_FOUND.into_response(), &api),
    }
}

fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

fn instead() -> impl IntoResponse {
    let text = INSTEAD.replace("{reason}", &escaped(LEFT_OUT_BECAUSE));
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn sent(file: &'static File, headers: &HeaderMap, caching: &'static str, api: &Api) -> Response {
    let tag = tag_of(file);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|given| names_tag(given, &tag)) {
        let response = (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), (header::CACHE_CONTROL, caching.into())]);
        return with_guards(response.into_response(), api);
    }
    let (body, encoding) = match encoding_of(headers) {
        Some(Encoding::Brotli) => (Body::from(file.brotli), Some("br")),
        Some(Encoding::Gzip) => (Body::from(file.gzip), Some("gzip")),
        None => match plain(file) {
            Ok(bytes) => (Body::from(bytes), None),
            Err(error) => {
                tracing::error!(file = file.name, %error, "a file of the page cannot be unpacked");
                return with_guards(StatusCode::INTERNAL_SERVER_ERROR.into_response(), api);
            }
        },
    };
    let mut response = Response::new(body);
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(type_of(file.name)));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    answer.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.insert(header::ETAG, tag);
    }
    if let Some(encoding) = encoding {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    with_guards(response, api)
}

fn plain(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(file.gzip).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Weak, because the same tag stands for all encodings of a file.
fn tag_of(file: &'static File) -> String {
    static INDEX: LazyLock<String> = LazyLock::new(|| find("index.html").map(hashed).unwrap_or_default());
    // Assets have their hash in their name.
    let hash = if file.name == "index.html" { INDEX.as_str() } else { file.name };
    format!("W/\"{hash}\"")
}

fn hashed(file: &'static File) -> String {
    hex::encode(&Sha256::digest(file.gzip)[..8])
}

fn names_tag(given: &HeaderValue, tag: &str) -> bool {
    let Ok(given) = given.to_str() else { return false };
    given.split(',').map(str::trim).any(|one| one == "*" || one == tag || tag.strip_prefix("W/") == Some(one))
}

#[derive(Debug, PartialEq)]
enum Encoding {
    Brotli,
    Gzip,
}

/// The smallest that the client takes.
fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let mut gzip = None;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for one in value.to_str().unwrap_or("").split(',') {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            if matches!(weight.trim(), "q=0" | "q=0.0") {
                continue;
            }
            match name.trim().to_ascii_lowercase().as_str() {
                "br" => return Some(Encoding::Brotli),
                "gzip" => gzip = Some(Encoding::Gzip),
                _ => {}
            }
        }
    }
    gzip
}

fn type_of(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// Tells the browser to run and load what is ours and nothing else, in nobody's frame.
fn with_guards(mut response: Response, api: &Api) -> Response {
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(api)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn policy(api: &Api) -> Arc<str> {
    // An identity service elsewhere is asked by the browser itself.
    let identity = api.settings.identity_url.as_ref().map(|url| url.origin().ascii_serialization());
    let connect = identity.map_or_else(|| "'self'".to_owned(), |origin| format!("'self' {origin}"));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &'static str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
        encoding_of(&headers)
    }

    #[test]
    fn the_smallest_encoding_that_is_taken_is_sent() {
        assert_eq!(taken("gzip, deflate, br, zstd"), Some(Encoding::Brotli));
        assert_eq!(taken("gzip;q=1.0, br;q=0"), Some(Encoding::Gzip));
        assert_eq!(taken("identity"), None);
        assert_eq!(encoding_of(&HeaderMap::new()), None);
    }

    #[test]
    fn tags_are_compared_weakly() {
        let given = |text: &'static str| HeaderValue::from_static(text);
        assert!(names_tag(&given("W/\"a\""), "W/\"a\""));
        assert!(names_tag(&given("\"b\", \"a\""), "W/\"a\""));
        assert!(names_tag(&given("*"), "W/\"a\""));
        assert!(!names_tag(&given("\"ab\""), "W/\"a\""));
    }

    #[tokio::test]
    async fn without_a_bundle_the_page_says_why_and_how_to_get_it() {
        let response = instead().into_response();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        assert!(text.contains("cargo build") && !text.contains("{reason}"), "{text}");
        assert_eq!(escaped("<a&b>"), "&lt;a&amp;b&gt;");
    }

    #[test]
    fn every_file_of_the_bundle_can_be_unpacked_and_the_index_names_files_that_are_there() {
        if FILES.is_empty() {
            // Built without Node: then it must say why.
            assert_ne!(LEFT_OUT_BECAUSE, "");
            return;
        }
        let index = plain(find("index.html").expect("an index")).expect("it unpacks");
        let index = String::from_utf8(index).expect("text");
        let mut named = 0;
        for part in index.split("assets/").skip(1) {
            let name = part.split('"').next().unwrap_or("");
            assert!(find(name).is_some(), "{name} is missing");
            named += 1;
        }
        assert!(named >= 2, "a script and a style sheet: {index}");
        for file in FILES {
            assert!(!plain(file).expect("it unpacks").is_empty(), "{}", file.name);
            assert_ne!(type_of(file.name), "application/octet-stream", "{}", file.name);
        }
    }
}
