//! Which series, labels and values there are, and their deletion.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use orzo_model::Timestamp;
use orzo_promql::{MatcherGroup, QueryError};
use serde_json::{Value, json};

use super::{
    Refused, Sender, parameters_of,
    query::{self, TRUNCATED, failed, invalid, limit_of, time_of},
};
use crate::{SharedApi, parameters::Parameters, problem::Problem};

/// Series of one answer; more are a question too wide.
const SERIES_MAX: usize = 100_000;

/// What all questions have: selectors, times, a limit.
struct Question {
    groups: Vec<MatcherGroup>,
    limit: usize,
    /// Its end lies before its start: there is nothing between them.
    is_about_nothing: bool,
    /// Whole days from that of its start to that of its end.
    between: Option<(Timestamp, Timestamp)>,
}

/// Prometheus looks at whole blocks of its data, and here a file has points of a day.
const DAY: Duration = Duration::from_secs(86_400);

impl Question {
    /// As in Prometheus, an answer may hold series without points between `start` and `end`: those of the same days.
    fn of(parameters: &Parameters) -> Result<Self, QueryError> {
        let (start, end) = (time_of(parameters, "start")?, time_of(parameters, "end")?);
        let limit = limit_of(parameters)?.unwrap_or(SERIES_MAX).min(SERIES_MAX);
        let is_about_nothing = start.zip(end).is_some_and(|(start, end)| end < start);
        let at = |millis: i64| Timestamp::from_micros(millis.saturating_mul(1000)).floor(DAY);
        let first = start.map_or(Timestamp::MIN, at);
        let last = end.map_or(Timestamp::MAX, |end| Timestamp::from_micros(at(end).plus(DAY).micros() - 1));
        let between = (start.is_some() || end.is_some()).then_some((first, last));
        Ok(Self { groups: groups(parameters)?, limit, is_about_nothing, between })
    }
}

/// The matchers of all `match[]`.
pub(super) fn groups(parameters: &Parameters) -> Result<Vec<MatcherGroup>, QueryError> {
    let mut groups = Vec::new();
    for text in parameters.all("match[]") {
        let wrong = |error| match error {
            QueryError::Syntax(reason) => invalid("match[]", &reason),
            other => invalid("match[]", &other.to_string()),
        };
        groups.extend(orzo_promql::selector(text).map_err(wrong)?);
    }
    Ok(groups)
}

fn no_selector() -> Response {
    failed(&QueryError::Refused("no match[] parameter provided".to_owned()))
}

/// `GET` and `POST /api/v1/series`
pub(super) async fn series(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    let question = match Question::of(&parameters_of(request).await?) {
        Ok(question) if question.groups.is_empty() => return Ok(no_selector()),
        Ok(question) if question.is_about_nothing => return Ok(cut([].into_iter(), question.limit)),
        Ok(question) => question,
        Err(error) => return Ok(failed(&error)),
    };
    let found = query::named(&api, &caller).find_alive(&question.groups, question.limit + 1, question.between).await?;
    let mut found: Vec<_> = found.into_iter().map(|(_, labels)| labels).collect();
    found.sort();
    let object = |labels: orzo_promql::Labels| -> Value {
        let pairs = labels.iter().map(|(name, value)| (name.to_string(), Value::from(&**value)));
        pairs.collect::<serde_json::Map<_, _>>().into()
    };
    Ok(cut(found.into_iter().map(object), question.limit))
}

/// `GET` and `POST /api/v1/labels`
pub(super) async fn labels(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    let question = match Question::of(&parameters_of(request).await?) {
        Ok(question) if question.is_about_nothing => return Ok(cut([].into_iter(), question.limit)),
        Ok(question) => question,
        Err(error) => return Ok(failed(&error)),
    };
    let names = query::named(&api, &caller).label_names(&question.groups, SERIES_MAX, question.between).await?;
    Ok(texts(names, question.limit))
}

/// `GET /api/v1/label/{name}/values`
pub(super) async fn values(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let question = match Question::of(&parameters_of(request).await?) {
        Ok(question) if question.is_about_nothing => return Ok(cut([].into_iter(), question.limit)),
        Ok(question) => question,
        Err(error) => return Ok(failed(&error)),
    };
    let names = query::named(&api, &caller);
    let values = names.label_values(&unescaped(&name), &question.groups, SERIES_MAX, question.between).await?;
    Ok(texts(values, question.limit))
}

/// Deletes whole series; a part of a series' time is not deleted.
pub(super) async fn delete(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    super::project_of(&caller)?;
    let parameters = parameters_of(request).await?;
    if parameters.get("start").is_some() || parameters.get("end").is_some() {
        return Err(Problem::bad("only whole series are deleted; leave start and end out").into());
    }
    let groups = match groups(&parameters) {
        Ok(groups) if groups.is_empty() => return Ok(no_selector()),
        Ok(groups) => groups,
        Err(error) => return Ok(failed(&error)),
    };
    query::named(&api, &caller).delete(&groups).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn texts(texts: BTreeSet<String>, limit: usize) -> Response {
    cut(texts.into_iter().map(Value::from), limit)
}

fn cut(rows: impl Iterator<Item = Value>, limit: usize) -> Response {
    let mut rows: Vec<Value> = rows.take(limit.saturating_add(1)).collect();
    let is_cut = rows.len() > limit;
    rows.truncate(limit);
    let mut body = json!({"status": "success", "data": rows});
    if is_cut {
        body["warnings"] = json!([TRUNCATED]);
    }
    Json(body).into_response()
}

/// A label's name as it was, of one that was escaped for a path: `U__dc_2e_name` is `dc.name`. What is no such escape is
/// itself.
fn unescaped(name: &str) -> String {
    name.strip_prefix("U__").and_then(decoded).unwrap_or_else(|| name.to_owned())
}

fn decoded(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let end = code.find('_')?;
        match &code[..end] {
            "" => out.push('_'),
            code => out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?),
        }
        rest = &code[end + 1..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        for (name, read) in [
            ("job", "job"),
            ("U__dc_2e_name", "dc.name"),
            ("U__a__b_20_c", "a_b c"),
            ("U__", ""),
            ("U__a_b", "U__a_b"),
            ("U__a_zz_", "U__a_zz_"),
            ("U___d800_", "U___d800_"),
        ] {
            assert_eq!(unescaped(name), read, "{name}");
        }
    }
}
