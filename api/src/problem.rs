//! What a refused request gets back: a status and a description that Gnocchi's clients recognise by its text.
//!
//! A handler returns a [`Problem`]; it becomes a JSON answer at once, and [`negotiate`] turns it into HTML where the
//! client did not ask for JSON (as Gnocchi does). This file knows no endpoint.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::wire::write_json;

/// A refused request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Text, `{"cause", "reason", "detail"}`, `""` or `null`.
    pub(crate) description: Value,
    /// Seconds after which trying again may help.
    pub(crate) retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a text or an object that describes it.
    pub(crate) fn new(status: StatusCode, description: impl Into<Value>) -> Self {
        Self { status, description: description.into(), retry_after_s: None }
    }

    /// 400 with a text.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text.into())
    }

    /// 400 for a body that does not fit its schema; `path` leads to the wrong place: `["definition", "0"]`.
    pub(crate) fn input(reason: &str, path: &[&str]) -> Self {
        let mut place = String::new();
        for step in path {
            match step.parse::<usize>() {
                Ok(index) => place.push_str(&format!("[{index}]")),
                Err(_) => place.push_str(&format!("['{step}']")),
            }
        }
        let reason = if path.is_empty() { reason.to_owned() } else { format!("{reason} @ data{place}") };
        Self::new(StatusCode::BAD_REQUEST, json!({"cause": "Invalid input", "reason": reason, "detail": path}))
    }

    /// 400 for a query parameter.
    pub(crate) fn argument(name: &str, reason: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"cause": "Argument value error", "detail": name, "reason": reason.into()}),
        )
    }

    /// 404: `Metric x does not exist` and the like; clients choose their exception by this text.
    pub(crate) fn missing(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} does not exist"))
    }

    /// 401: no credential, or one that is not valid.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "")
    }

    /// 403: who asks may see it but not do this.
    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "")
    }

    /// 503: try again later.
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason.into()) }
    }
}

/// Long enough for a restart of the database or store to be over, short enough not to fill an agent's spool.
const RETRY_AFTER_S: u64 = 5;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body = String::new();
        write_json(&json!({"code": self.status.as_u16(), "title": title, "description": self.description}), &mut body);
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// What an `Accept` header allows, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// JSON by name.
    Json,
    /// Anything, or no header: errors are HTML.
    Anything,
    /// Neither.
    Other,
}

/// Reads the `Accept` headers.
pub(crate) fn accepted(headers: &HeaderMap) -> Accepted {
    let mut anything = None;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or("").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or("").to_ascii_lowercase();
            let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>() == Ok(0.0)));
            match media.as_str() {
                "" => {}
                "application/json" | "application/*" if !refused => return Accepted::Json,
                "*/*" if !refused => anything = Some(true),
                _ => anything = anything.or(Some(false)),
            }
        }
    }
    if anything == Some(false) { Accepted::Other } else { Accepted::Anything }
}

/// How much a client wants a media type (RFC 9110, section 12.5.1): by its name, else by the range that it is in. Without a
/// header everything is wanted.
fn quality(headers: &HeaderMap, media: &str) -> f32 {
    let group = media.split('/').next().unwrap_or_default();
    let ranges = [media.to_owned(), format!("{group}/*"), "*/*".to_owned()];
    let mut wanted = [None; 3];
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or("").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or("").to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if let Some(place) = ranges.iter().position(|own| *own == name) {
                wanted[place] = Some(quality);
            }
        }
    }
    let nothing_said = if headers.contains_key(header::ACCEPT) { 0.0 } else { 1.0 };
    wanted.into_iter().flatten().next().unwrap_or(nothing_said)
}

/// Whether a client wants a page rather than JSON, as browsers do.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    quality(headers, "text/html") > quality(headers, "application/json")
}

/// Refuses what cannot be answered in JSON, and writes problems in the form that the client asked for. `pages` are routes that
/// are also answered as HTML.
pub(crate) async fn negotiate(
    State(pages): State<&'static [&'static str]>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let has_page = route.is_some_and(|route| pages.iter().any(|page| route.as_str().ends_with(page)));
    let accepts = match accepted(request.headers()) {
        Accepted::Other if has_page && quality(request.headers(), "text/html") > 0.0 => Accepted::Anything,
        accepts => accepts,
    };
    if accepts == Accepted::Other {
        return html(&Problem::new(StatusCode::NOT_ACCEPTABLE, "This service answers in application/json only."));
    }
    let response = next.run(request).await;
    match response.extensions().get::<Problem>() {
        Some(problem) if accepts == Accepted::Anything => {
            let mut page = html(problem);
            for (name, value) in response.headers() {
                if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
                    page.headers_mut().insert(name.clone(), value.clone());
                }
            }
            page
        }
        _ => response,
    }
}

/// The HTML form of a problem, which clients strip of its tags.
fn html(problem: &Problem) -> Response {
    let title = format!("{} {}", problem.status.as_u16(), problem.status.canonical_reason().unwrap_or("Error"));
    let message = match &problem.description {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    // What a person reads first; those who scrape pages look for these sentences.
    let sentence = match problem.status {
        StatusCode::FORBIDDEN => "Access was denied to this resource.",
        StatusCode::NOT_FOUND => "The resource could not be found.",
        _ => "",
    };
    let page = format!(
        "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {sentence}<br /><br />\n{}\n </body>\n</html>\n",
        escape(&message)
    );
    let mut response = (problem.status, [(header::CONTENT_TYPE, "text/html; charset=UTF-8")], page).into_response();
    if let Some(seconds) = problem.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// In the text of an element only `&` and `<` mean something; Gnocchi's texts have a bare `>`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The name of the header that carries a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Accepted {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(text).expect("ascii"));
        accepted(&headers)
    }

    #[test]
    fn accept_headers_are_read_as_gnocchi_reads_them() {
        assert_eq!(accepted(&HeaderMap::new()), Accepted::Anything);
        assert_eq!(accept("application/json"), Accepted::Json);
        assert_eq!(accept("application/json, */*"), Accepted::Json);
        assert_eq!(accept("text/html;q=0.9, application/json;q=0.8"), Accepted::Json);
        assert_eq!(accept("*/*"), Accepted::Anything);
        assert_eq!(accept("text/html, */*;q=0.8"), Accepted::Anything);
        assert_eq!(accept("*/*, text/html"), Accepted::Anything);
        assert_eq!(accept("text/html"), Accepted::Other);
        assert_eq!(accept("application/json;q=0, text/html"), Accepted::Other);
    }

    #[test]
    fn a_browser_wants_a_page_and_a_program_does_not() {
        let prefers = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(text).expect("ascii"));
            prefers_html(&headers)
        };
        assert!(prefers("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"));
        assert!(prefers("text/html") && prefers("text/*, application/json;q=0.5"));
        assert!(!prefers("*/*") && !prefers("application/json") && !prefers("application/json, text/html"));
        assert!(!prefers("text/html;q=0.5, application/json;q=0.9") && !prefers("text/html;q=0, */*"));
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn schema_problems_name_the_place() {
        let problem = Problem::input("expected a list", &["definition", "0", "granularity"]);
        assert_eq!(
            problem.description,
            json!({"cause": "Invalid input", "reason": "expected a list @ data['definition'][0]['granularity']",
                   "detail": ["definition", "0", "granularity"]})
        );
    }

    #[test]
    fn html_cannot_carry_markup_from_the_request() {
        assert_eq!(escape("<script>\"&"), "&lt;script>&quot;&amp;");
    }
}
