//! Cross-origin requests, for dashboards that ask from the browser (Grafana's direct mode).
//!
//! A preflight is answered with 200 here and goes no further; an answer to a listed origin is marked for the browser.
//! Without listed origins nothing is added and `OPTIONS` is an unknown method, as in Gnocchi. Knows no endpoint.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// How long a browser may remember a preflight, in seconds (oslo.middleware's default).
const MAX_AGE_S: u64 = 3600;
/// What pages may send beyond what every page may; the names that Gnocchi allows, and those of conditional requests.
const HEADERS_ALLOWED: &str = "Accept, Content-Type, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, \
                               Authorization, X-Auth-Token, X-Subject-Token, X-User-Id, X-Domain-Id, X-Project-Id, \
                               X-Roles";
/// What pages may read beyond what every page may.
const HEADERS_EXPOSED: &str = "ETag, Last-Modified, Link, Location, X-OpenStack-Request-Id";
const METHODS_ALLOWED: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Puts CORS around routes; nothing at all without origins.
pub(crate) fn around(routes: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return routes;
    }
    routes.layer(from_fn_with_state(Arc::<[String]>::from(origins), pass))
}

async fn pass(State(origins): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let marks = marks(request.method(), request.headers(), &origins);
    let is_preflight = is_preflight(request.method(), request.headers());
    let mut response = if is_preflight { StatusCode::OK.into_response() } else { next.run(request).await };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    response.headers_mut().extend(marks);
    response
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers that tell a browser what the page may do; none for a page that may nothing.
fn marks(method: &Method, headers: &HeaderMap, origins: &[String]) -> HeaderMap {
    let mut marks = HeaderMap::new();
    let Some(origin) = headers.get(header::ORIGIN) else { return marks };
    if !origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes()) {
        return marks;
    }
    if is_preflight(method, headers) {
        let asked = &headers[header::ACCESS_CONTROL_REQUEST_METHOD];
        if !METHODS_ALLOWED.iter().any(|method| method.as_str().as_bytes() == asked.as_bytes()) {
            return marks;
        }
        marks.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
        marks.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS_ALLOWED));
        marks.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_S));
    } else {
        marks.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(HEADERS_EXPOSED));
    }
    marks.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    // A page of any origin must not use what the browser remembers of the user.
    if !origins.iter().any(|allowed| allowed == "*") {
        marks.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(method: Method, origin: &str, asked: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().expect("an origin"));
        if let Some(asked) = asked {
            headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, asked.parse().expect("a method"));
        }
        marks(&method, &headers, &["http://dash.example".to_owned()])
    }

    #[test]
    fn only_listed_origins_and_known_methods_are_marked() {
        let good = marked(Method::OPTIONS, "http://dash.example", Some("PATCH"));
        assert_eq!(good[header::ACCESS_CONTROL_ALLOW_METHODS], "PATCH");
        assert_eq!(good[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://dash.example");
        assert!(marked(Method::OPTIONS, "http://evil.example", Some("GET")).is_empty());
        assert!(marked(Method::OPTIONS, "http://dash.example", Some("TRACE")).is_empty());
        assert!(marked(Method::GET, "http://dash.example.evil", None).is_empty());
        let answer = marked(Method::GET, "http://dash.example", None);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
    }

    #[test]
    fn any_origin_gets_no_credentials() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://a"));
        let marks = marks(&Method::GET, &headers, &["*".to_owned()]);
        assert_eq!(marks[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        assert!(!marks.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
