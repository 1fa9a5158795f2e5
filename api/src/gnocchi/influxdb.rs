//! InfluxDB's line protocol into Gnocchi's metrics, mapped as Gnocchi maps it: the database is a resource type, the
//! resource is the tag `host` (or the one that a header names), the metric `measurement.field@other=tag,...`.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use orzo_index::{IndexError, ResourceType};
use orzo_model::{Caller, Measure, Timestamp};
use serde_json::json;

use super::{
    answer::no_content,
    found::{Found, keep, type_or_make},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    ingest::line_protocol::{FieldValue, Line, Lines, Precision},
    offered::Offered,
    parameters::Parameters,
    policy::{self, Action, Target},
    problem::Problem,
    request::body_bytes,
};

/// The header that names the tag, and the tag without it.
const TAG_HEADER: &str = "x-gnocchi-influxdb-tag-resource-id";
const TAG_DEFAULT: &str = "host";
/// The database that is written to if none is named.
const DATABASE_DEFAULT: &str = "influxdb";

pub(super) async fn ping() -> Response {
    let version = HeaderValue::from_static("Gnocchi 4.7.1");
    (StatusCode::NO_CONTENT, [(HeaderName::from_static("x-influxdb-version"), version)]).into_response()
}

/// `CREATE DATABASE x` makes a resource type; Gnocchi knows no other query.
pub(super) async fn query(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<StatusCode, Problem> {
    let Some(text) = parameters.get("q") else { return Ok(no_content()) };
    let Some(name) = database_of(text) else {
        let reason = json!({"cause": "Not implemented error", "detail": "q", "reason": "Query not implemented"});
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, reason));
    };
    api.allow(Action::CreateResourceType, &caller, Target::Fields(&[("name", &name)]))?;
    match api.index().create_resource_type(&ResourceType::new(&name, BTreeMap::new())?).await {
        Ok(()) | Err(IndexError::Exists { .. }) => Ok(no_content()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn write(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    policy::has_project(&caller)?;
    let database = parameters.get("db").unwrap_or(DATABASE_DEFAULT).to_owned();
    let precision = Precision::parse(parameters.get("precision"));
    let precision = precision.ok_or_else(|| Problem::argument("precision", "Must be ns, u, ms, s, m or h"))?;
    let tag = headers.get(TAG_HEADER).and_then(|value| value.to_str().ok()).unwrap_or(TAG_DEFAULT).to_owned();
    let body = body_bytes(body).await?;
    take(&api, &caller, &database, &tag, precision, &body).await?;
    Ok(no_content())
}

async fn take(
    api: &SharedApi,
    caller: &Caller,
    database: &str,
    tag: &str,
    precision: Precision,
    body: &[u8],
) -> Result<(), Problem> {
    let found = read(body, tag, precision, api.clock.now());
    let found = found.inspect_err(|_| Offered::new(&api.room, 1).refused_all("malformed"))?;
    // A database that nobody has made is 404; Gnocchi gives no answer at all.
    type_or_make(api, database, || Ok(None)).await?;
    keep(api, caller, database, found).await
}

fn read(body: &[u8], tag: &str, precision: Precision, now: Timestamp) -> Result<Found, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        unreadable(1 + before.iter().filter(|byte| **byte == b'\n').count())
    })?;
    let mut found = Found::default();
    for line in Lines::new(text) {
        let mut line = line.map_err(|error| unreadable(error.number))?;
        let at = match line.timestamp {
            Some(timestamp) => precision.micros(timestamp).ok_or_else(|| unreadable(line.number))?,
            None => now.micros(),
        };
        let place = line.tags.iter().position(|(name, _)| name == tag);
        let place = place.ok_or_else(|| value_error("key", format!("Unable to find key `{tag}' in tags")))?;
        let (_, resource) = line.tags.swap_remove(place);
        let tags = tags_text(&mut line);
        for (field, value) in &line.fields {
            let value = match value {
                FieldValue::Number(value) => *value,
                FieldValue::Boolean(value) => f64::from(u8::from(*value)),
                FieldValue::Text => continue,
            };
            let metric = format!("{}.{field}{tags}", line.measurement).replace('/', "_");
            let measure = Measure { timestamp: Timestamp::from_micros(at), value };
            found.add(resource.clone().into_owned(), Default::default(), metric, [measure].into_iter());
        }
    }
    Ok(found)
}

fn tags_text(line: &mut Line<'_>) -> String {
    line.tags.sort();
    let mut text = String::new();
    for (name, value) in &line.tags {
        text.push(if text.is_empty() { '@' } else { ',' });
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

fn unreadable(number: usize) -> Problem {
    value_error("line", format!("Unable to parse line {number}"))
}

fn value_error(detail: &str, reason: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, json!({"cause": "Value error", "detail": detail, "reason": reason}))
}

/// The name in `CREATE DATABASE name` or `CREATE DATABASE "name"`, in any case of letters, with or without a semicolon.
fn database_of(text: &str) -> Option<String> {
    let word = |text: &'_ str, word: &str| -> Option<usize> {
        let start = text.len() - text.trim_start().len();
        let found = text.get(start..start + word.len())?;
        found.eq_ignore_ascii_case(word).then_some(start + word.len())
    };
    let rest = &text[word(text, "create")?..];
    let rest = &rest[word(rest, "database")?..];
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    let rest = rest.trim().trim_end_matches(';').trim_end();
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let name = match rest.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.replace("\\\"", "\""),
        None if rest.starts_with(|c: char| c.is_ascii_digit()) || !rest.chars().all(is_word) => return None,
        None => rest.to_owned(),
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_is_known() {
        for (text, name) in [
            ("create database influxdbtest", Some("influxdbtest")),
            ("CREATE DATABASE \"my db\";", Some("my db")),
            (" Create  Database x ;", Some("x")),
            ("select metrics plz", None),
            ("create databasex", None),
            ("create database", None),
            ("create database 1x", None),
            ("é", None),
        ] {
            assert_eq!(database_of(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn metrics_are_named_by_measurement_field_and_sorted_tags() {
        let body = b"cpu,path=/foobar,host=a,b=c field=43i,text=\"x\" 1510581804179554816\n";
        let found = read(body, "host", Precision::Nanoseconds, Timestamp::EPOCH).expect("read");
        let metrics = found.metrics_of("a");
        assert_eq!(metrics, ["cpu.field@b=c,path=_foobar"]);
    }
}
