//! `If-Match` and its relatives on resources. Pure.

use chrono::DateTime;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use orzo_model::Timestamp;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use crate::problem::Problem;

/// The entity tag of a resource's revision: the same as Gnocchi makes.
pub(super) fn entity_tag(id: Uuid, revision_start: Timestamp) -> String {
    let text = format!("{id}{}", revision_start.isoformat());
    format!("\"{}\"", hex::encode(Sha1::digest(text.as_bytes())))
}

/// The `Last-Modified` of a revision, in HTTP's format.
pub(super) fn last_modified(revision_start: Timestamp) -> String {
    revision_start.to_chrono().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// What the preconditions of a request allow. `reads`: the request is a GET, which may be answered with 304.
pub(super) fn check(headers: &HeaderMap, id: Uuid, revision_start: Timestamp, reads: bool) -> Result<(), Problem> {
    let tag = entity_tag(id, revision_start);
    let changed_s = revision_start.secs();
    let failed = || Problem::new(StatusCode::PRECONDITION_FAILED, "");
    let same = || if reads { Problem::new(StatusCode::NOT_MODIFIED, "") } else { failed() };
    // A time counts only where the tag of its kind is not given; changes need the very same revision, a weak tag is no
    // proof of it.
    match headers.get(header::IF_MATCH) {
        Some(given) if !names(given, &tag, false) => return Err(failed()),
        Some(_) => {}
        None if time(headers, header::IF_UNMODIFIED_SINCE).is_some_and(|limit_s| changed_s > limit_s) => {
            return Err(failed());
        }
        None => {}
    }
    match headers.get(header::IF_NONE_MATCH) {
        Some(given) if names(given, &tag, true) => Err(same()),
        None if reads && time(headers, header::IF_MODIFIED_SINCE).is_some_and(|limit_s| changed_s <= limit_s) => {
            Err(same())
        }
        _ => Ok(()),
    }
}

/// Whether a list of tags names this one.
fn names(given: &HeaderValue, tag: &str, weakly: bool) -> bool {
    given.to_str().is_ok_and(|text| {
        text.trim() == "*"
            || text.split(',').map(str::trim).any(|one| match one.strip_prefix("W/") {
                Some(weak) => weakly && weak.trim_matches('"') == tag.trim_matches('"'),
                None => one.trim_matches('"') == tag.trim_matches('"'),
            })
    })
}

fn time(headers: &HeaderMap, name: header::HeaderName) -> Option<i64> {
    DateTime::parse_from_rfc2822(headers.get(name)?.to_str().ok()?).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_times_are_gnocchis() {
        let id = Uuid::try_parse("d0ae140c-5d81-55bc-9985-aae59e275bc8").expect("a uuid");
        let start: Timestamp = "2026-11-21T20:02:09.497315+00:00".parse().expect("a time");
        // As a real Gnocchi 4.7 answered for this id and revision.
        assert_eq!(entity_tag(id, start), "\"8c33621ec80daad8c5723d86b3867aacbdb7cbf1\"");
        assert_eq!(last_modified(start), "Sat, 21 Nov 2026 20:02:09 GMT");
    }

    #[test]
    fn preconditions_decide() {
        let id = Uuid::nil();
        let start = Timestamp::from_secs(1_000);
        let tag = entity_tag(id, start);
        let status = |name: header::HeaderName, value: &str, reads| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            check(&headers, id, start, reads).map_or_else(|problem| problem.status.as_u16(), |()| 200)
        };
        assert_eq!(status(header::IF_MATCH, "\"bad\"", false), 412);
        assert_eq!(status(header::IF_MATCH, &tag, false), 200);
        assert_eq!(status(header::IF_NONE_MATCH, "*", true), 304);
        assert_eq!(status(header::IF_NONE_MATCH, &tag, false), 412);
        assert_eq!(status(header::IF_NONE_MATCH, "\"other\"", true), 200);
        // A weak tag is enough to leave the body out, and not enough to change something.
        assert_eq!(status(header::IF_NONE_MATCH, &format!("W/{tag}"), true), 304);
        assert_eq!(status(header::IF_NONE_MATCH, &format!("\"another\", W/{tag}"), false), 412);
        assert_eq!(status(header::IF_MATCH, &format!("W/{tag}"), false), 412);
        assert_eq!(status(header::IF_MATCH, &format!("\"another\", {tag}"), false), 200);
        assert_eq!(status(header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:16:40 GMT", false), 200);
        assert_eq!(status(header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:16:40 GMT", true), 304);
        assert_eq!(status(header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:16:39 GMT", true), 200);
        assert_eq!(status(header::IF_UNMODIFIED_SINCE, "Thu, 01 Jan 1970 00:16:39 GMT", false), 412);
    }
}
