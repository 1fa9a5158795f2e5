//! Prometheus' questions: `query` and `query_range`, as Grafana's built-in data source sends them.
//!
//! A caller sees the metrics that its credential may see, and the label sets of its own project; this is decided below
//! the query, by the scopes that go with every selector. Whoever goes away, or waits longer than `timeout`, stops the
//! evaluation.

use std::{
    fmt::Write,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use orzo_model::{Caller, Scope, Standing};
use orzo_promql::{
    Answer, CancelOnDrop, Histogram, LOOKBACK_MS, Labels, Limits, Part, Plan, QueryError, Selected, Value, Window,
    evaluate, evaluate_traced, read, write_value, write_whole,
};
use orzo_query::NamedSeries;
use serde_json::json;

use super::{
    Refused, Sender, parameters_of,
    parts::{InParts, Question},
    steps::{Times, read_steps, told_of},
};
use crate::{SharedApi, parameters::Parameters, policy::Action};

/// A query gets no longer than this, whatever it asks for: it holds a core.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(50);

/// Answers made of fewer points are made again as soon as they are remembered. In tests all are remembered.
const REMEMBERED_POINTS_MIN: Option<usize> = if cfg!(test) { None } else { Some(2_000) };

/// Whoever looks back farther asks for series that have long ended.
const LOOKBACK_MS_MAX: i64 = 86_400_000;

/// What a caller may see, by name.
pub(crate) fn named(api: &SharedApi, caller: &Caller) -> NamedSeries {
    let labelled = match caller.standing {
        Standing::Everywhere if caller.is_admin() => Scope::All,
        _ => caller.project_id.clone().map_or(Scope::Nothing, Scope::Project),
    };
    NamedSeries::new(api.engine.clone(), api.scope(Action::GetMeasures, caller), labelled)
}

/// `GET` and `POST /api/v1/query`
pub(super) async fn instant(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    let now = api.clock.now().micros().div_euclid(1000);
    let time = match time_of(&parameters, "time") {
        Ok(time) => time.unwrap_or(now),
        Err(error) => return Ok(failed(&error)),
    };
    let window = Window { start_ms: time, end_ms: time, step_ms: 0 };
    Ok(answer(&api, &caller, &parameters, window).await)
}

/// `GET` and `POST /api/v1/query_range`
pub(super) async fn range(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    let parameters = parameters_of(request).await?;
    Ok(match window_of(&parameters) {
        Ok(window) => answer(&api, &caller, &parameters, window).await,
        Err(error) => failed(&error),
    })
}

async fn answer(api: &SharedApi, caller: &Caller, parameters: &Parameters, window: Window) -> Response {
    let asked = match Asked::of(parameters) {
        Ok(asked) => asked,
        Err(error) => return failed(&error),
    };
    let evaluated = tokio::time::timeout(asked.timeout, evaluated(api, caller, &asked, window));
    match evaluated.await {
        Ok(Ok(body)) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => envelope(StatusCode::SERVICE_UNAVAILABLE, "timeout", "query timed out in expression evaluation"),
    }
}

/// What a query's parameters say besides its times.
struct Asked<'a> {
    text: &'a str,
    timeout: Duration,
    lookback_ms: i64,
    /// Series of the answer, if they are to be cut.
    limit: Option<usize>,
    with_stats: bool,
    /// `trace=1`, VictoriaMetrics' parameter: what each step took.
    with_trace: bool,
    /// `explain=1`: the steps, and nothing is read.
    is_explained: bool,
    /// Not with `nocache=1`, the parameter of VictoriaMetrics, and not where the figures of the evaluation are wanted.
    may_remember: bool,
}

impl<'a> Asked<'a> {
    fn of(parameters: &'a Parameters) -> Result<Self, QueryError> {
        let given = |name: &str| parameters.get(name).filter(|text| !text.is_empty());
        let is_set = |name: &str| given(name).is_some_and(|text| !matches!(text, "0" | "false"));
        let timeout = given("timeout").map(|text| seconds_of(text, "timeout")).transpose()?;
        let lookback = given("lookback_delta").map(|text| seconds_of(text, "lookback_delta")).transpose()?;
        Ok(Self {
            text: parameters.get("query").unwrap_or(""),
            timeout: timeout
                .map_or(TIMEOUT_MAX, |seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3600.0)))
                .min(TIMEOUT_MAX),
            // Nothing and less than nothing mean the default.
            lookback_ms: lookback
                .map(|seconds| (seconds * 1000.0) as i64)
                .filter(|millis| *millis > 0)
                .map_or(LOOKBACK_MS, |millis| millis.min(LOOKBACK_MS_MAX)),
            limit: limit_of(parameters)?,
            with_stats: given("stats").is_some(),
            with_trace: is_set("trace"),
            is_explained: is_set("explain"),
            may_remember: given("stats").is_none() && !is_set("trace") && !is_set("nocache"),
        })
    }
}

/// `limit`: nothing and 0 are none.
pub(super) fn limit_of(parameters: &Parameters) -> Result<Option<usize>, QueryError> {
    match parameters.get("limit") {
        None | Some("" | "0") => Ok(None),
        Some(text) => {
            let limit =
                text.parse::<i64>().map_err(|_| invalid("limit", &format!("cannot parse {text:?} to a number")))?;
            usize::try_from(limit).map(Some).map_err(|_| invalid("limit", "limit must be non-negative"))
        }
    }
}

async fn evaluated(api: &SharedApi, caller: &Caller, asked: &Asked<'_>, window: Window) -> Result<String, QueryError> {
    let started = api.clock.monotonic();
    let mut limits = Limits { lookback_ms: asked.lookback_ms, ..Limits::default() };
    let plan = api.expressions.plan(asked.text, window, &limits)?;
    if asked.is_explained {
        let explained = told_of(&plan.explained());
        return Ok(json!({"status": "success", "data": {"explain": explained}}).to_string());
    }
    let project = caller.project_id.as_deref().unwrap_or_default();
    limits.room = Some(api.queries.room(project));
    let _turn = api.queries.turn(project).await?;
    let begun = api.clock.monotonic();
    let source = named(api, caller);
    let cancelled = Arc::new(AtomicBool::new(false));
    let _cancel = CancelOnDrop(cancelled.clone());
    let remembered = match asked.may_remember {
        true => source.remembered(asked.text, &plan, &limits).await?,
        false => None,
    };
    let question = Question {
        text: asked.text,
        expressions: &api.expressions,
        source: &source,
        limits: limits.clone(),
        cancelled: cancelled.clone(),
    };
    let remembered = match remembered {
        Some(remembered) => match question.in_parts(&plan, remembered).await? {
            InParts::Whole(part) => return told(plan, part, asked.limit).await,
            InParts::AtOnce(remembered) => Some(remembered),
            InParts::Not => None,
        },
        None => None,
    };
    let found = match read(&plan, &source, &limits, &cancelled).await {
        Ok(found) => found,
        Err(error @ QueryError::TooMuch { what: "points", .. }) => {
            let Some(remembered) = remembered else { return Err(error) };
            return match question.in_pieces(&plan, remembered).await? {
                InParts::Whole(part) => told(plan, part, asked.limit).await,
                InParts::AtOnce(_) | InParts::Not => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    let points: usize = found.iter().map(Selected::points).sum();
    let read_at = api.clock.monotonic();
    let (limit, with_stats, with_trace, clock) = (asked.limit, asked.with_stats, asked.with_trace, api.clock.clone());
    let is_brief = plan.is_brief(&found);
    let remembered = remembered.filter(|_| REMEMBERED_POINTS_MIN.is_none_or(|least| points >= least));
    let is_remembered = remembered.is_some();
    let kept = limits.clone();
    let evaluation = move || {
        let (mut answer, trace) = match with_trace {
            false => (evaluate(&plan, found, &limits, &cancelled)?, None),
            true => {
                let selectors = read_steps(&plan, &found);
                let (answer, step) = evaluate_traced(&plan, found, &limits, &cancelled, &|| clock.monotonic())?;
                let times = Times { started, begun, read_at, ended: clock.monotonic() };
                (answer, Some(times.trace(plan.times().count(), selectors, &step)))
            }
        };
        let part = if is_remembered { Part::of(&plan, &answer) } else { None };
        if let Some(limit) = limit {
            cut(&mut answer, limit);
        }
        let stats = with_stats.then(|| {
            let (all, reading) = (clock.monotonic().saturating_sub(started), read_at.saturating_sub(started));
            stats(points, all, reading)
        });
        let text = written(&plan, &answer, stats.as_ref(), trace.as_ref());
        Ok((text, plan, part))
    };
    let (text, plan, part) = if is_brief {
        evaluation()?
    } else {
        tokio::task::spawn_blocking(evaluation).await.unwrap_or(Err(QueryError::Cancelled))?
    };
    if let (Some(remembered), Some(part)) = (remembered, part) {
        source.remember(remembered, &plan, &kept, part).await?;
    }
    Ok(text)
}

/// Writes an answer that was put together.
async fn told(plan: Plan, part: Part, limit: Option<usize>) -> Result<String, QueryError> {
    let writing = move || {
        let mut answer = part.into_answer();
        if let Some(limit) = limit {
            cut(&mut answer, limit);
        }
        written(&plan, &answer, None, None)
    };
    tokio::task::spawn_blocking(writing).await.map_err(|_| QueryError::Cancelled)
}

fn cut(answer: &mut Answer, limit: usize) {
    let is_cut = match &mut answer.value {
        Value::Vector(series) if series.len() > limit => {
            series.truncate(limit);
            true
        }
        Value::Matrix(rows) if rows.len() > limit => {
            rows.truncate(limit);
            true
        }
        _ => false,
    };
    if is_cut {
        answer.warnings.push(TRUNCATED.to_owned());
    }
}

/// How Prometheus says that `limit` was reached.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// What an answer took, in the form of Prometheus' `stats`; a query's samples are all read before it is evaluated.
fn stats(samples: usize, all: Duration, reading: Duration) -> serde_json::Value {
    let inner = all.saturating_sub(reading).as_secs_f64();
    json!({
        "timings": {
            "evalTotalTime": all.as_secs_f64(), "resultSortTime": 0.0, "queryPreparationTime": reading.as_secs_f64(),
            "innerEvalTime": inner, "execQueueTime": 0.0, "execTotalTime": all.as_secs_f64(),
        },
        "samples": {"totalQueryableSamples": samples, "peakSamples": samples},
    })
}

fn window_of(parameters: &Parameters) -> Result<Window, QueryError> {
    let needed =
        |name: &str| time_of(parameters, name)?.ok_or_else(|| invalid(name, "cannot parse \"\" to a valid timestamp"));
    let (start_ms, end_ms) = (needed("start")?, needed("end")?);
    if end_ms < start_ms {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step = seconds_of(parameters.get("step").unwrap_or(""), "step")?;
    // A cast of a float saturates.
    let step_ms = (step * 1000.0).round() as i64;
    if step_ms <= 0 {
        return Err(invalid(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    Ok(Window { start_ms, end_ms, step_ms })
}

/// Seconds since 1970 with a fraction, or RFC 3339; as milliseconds.
pub(super) fn time_of(parameters: &Parameters, name: &str) -> Result<Option<i64>, QueryError> {
    let Some(text) = parameters.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    // Milliseconds taken for seconds are still a time, as in Prometheus; beyond that, sums of times would not fit.
    const SECONDS_MAX: f64 = 1e13;
    let wrong = || invalid(name, &format!("cannot parse {text:?} to a valid timestamp"));
    let millis = match text.parse::<f64>() {
        Ok(seconds) if seconds.abs() <= SECONDS_MAX => (seconds * 1000.0).round() as i64,
        Ok(_) => return Err(wrong()),
        Err(_) => chrono::DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?.timestamp_millis(),
    };
    Ok(Some(millis))
}

/// Seconds as a number, or a duration such as `5m` or `1h30m`.
fn seconds_of(text: &str, name: &str) -> Result<f64, QueryError> {
    let wrong = || invalid(name, &format!("cannot parse {text:?} to a valid duration"));
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds).filter(|seconds| seconds.is_finite()).ok_or_else(wrong);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(wrong)?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        seconds += number
            * match &rest[digits..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                "y" => 31_536_000.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Some(seconds).filter(|_| !text.is_empty()).ok_or_else(wrong)
}

pub(super) fn invalid(name: &str, reason: &str) -> QueryError {
    QueryError::Refused(format!("invalid parameter {name:?}: {reason}"))
}

pub(super) fn failed(error: &QueryError) -> Response {
    let status = match error {
        QueryError::Syntax(_) | QueryError::Refused(_) => StatusCode::BAD_REQUEST,
        QueryError::Unsupported(_) | QueryError::Execution(_) | QueryError::TooMuch { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        QueryError::Cancelled | QueryError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::Source(source) => {
            tracing::warn!(error = &**source as &dyn std::error::Error, "the points of a query could not be read");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    envelope(status, error.kind(), &error.to_string())
}

fn envelope(status: StatusCode, kind: &str, text: &str) -> Response {
    (status, Json(json!({"status": "error", "errorType": kind, "error": text}))).into_response()
}

/// The whole answer as JSON; `resultType` stands before `result`, as Grafana's reader expects.
fn written(
    plan: &Plan,
    answer: &Answer,
    stats: Option<&serde_json::Value>,
    trace: Option<&serde_json::Value>,
) -> String {
    let times: Vec<i64> = plan.times().collect();
    let mut out = String::from("{\"status\":\"success\",\"data\":{\"resultType\":");
    match &answer.value {
        // A number over a range is a series without labels.
        Value::Scalar(numbers) if !plan.is_instant() => {
            out.push_str("\"matrix\",\"result\":[{\"metric\":{},\"values\":[");
            for (at, (time, number)) in times.iter().zip(numbers).enumerate() {
                write_sample(&mut out, at, *time, *number);
            }
            out.push_str("]}]");
        }
        Value::Scalar(numbers) => {
            out.push_str("\"scalar\",\"result\":");
            write_sample(&mut out, 0, times[0], numbers[0]);
        }
        Value::Text(text) => {
            let _ = write!(out, "\"string\",\"result\":[{},{}]", seconds_text(times[0]), quoted(text));
        }
        Value::Vector(series) if plan.is_instant() => {
            out.push_str("\"vector\",\"result\":[");
            for (at, one) in series.iter().enumerate() {
                write_head(&mut out, at, &one.labels);
                let value = one.column.get(0).unwrap_or(f64::NAN);
                match answer.histogram(value) {
                    Some(histogram) => {
                        out.push_str(",\"histogram\":");
                        write_histogram(&mut out, 0, times[0], histogram);
                    }
                    None => {
                        out.push_str(",\"value\":");
                        write_sample(&mut out, 0, times[0], value);
                    }
                }
                out.push('}');
            }
            out.push(']');
        }
        Value::Vector(series) => {
            out.push_str("\"matrix\",\"result\":[");
            for (at, one) in series.iter().enumerate() {
                write_head(&mut out, at, &one.labels);
                write_points(&mut out, answer, one.column.iter().map(|(step, number)| (times[step], number)));
                out.push('}');
            }
            out.push(']');
        }
        Value::Matrix(rows) => {
            out.push_str("\"matrix\",\"result\":[");
            for (at, (labels, times, values)) in rows.iter().enumerate() {
                write_head(&mut out, at, labels);
                write_points(&mut out, answer, times.iter().copied().zip(values.iter().copied()));
                out.push('}');
            }
            out.push(']');
        }
    }
    if let Some(stats) = stats {
        let _ = write!(out, ",\"stats\":{stats}");
    }
    out.push('}');
    for (name, notes) in [("warnings", &answer.warnings), ("infos", &answer.infos)] {
        if !notes.is_empty() {
            let _ = write!(out, ",\"{name}\":{}", json!(notes));
        }
    }
    if let Some(trace) = trace {
        let _ = write!(out, ",\"trace\":{trace}");
    }
    out.push('}');
    out
}

fn write_head(out: &mut String, at: usize, labels: &Labels) {
    out.push_str(if at == 0 { "{\"metric\":{" } else { ",{\"metric\":{" });
    for (place, (name, value)) in labels.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        write_quoted(out, name);
        out.push(':');
        write_quoted(out, value);
    }
    out.push('}');
}

/// Numbers as `values`, native histograms as `histograms`; of a series without one of them that list is left out.
fn write_points(out: &mut String, answer: &Answer, points: impl Iterator<Item = (i64, f64)>) {
    let mut histograms = Vec::new();
    let mut place = 0;
    for (time, number) in points {
        if let Some(histogram) = answer.histogram(number) {
            histograms.push((time, histogram));
            continue;
        }
        if place == 0 {
            out.push_str(",\"values\":[");
        }
        write_sample(out, place, time, number);
        place += 1;
    }
    if place > 0 {
        out.push(']');
    }
    for (place, (time, histogram)) in histograms.iter().enumerate() {
        if place == 0 {
            out.push_str(",\"histograms\":[");
        }
        write_histogram(out, place, *time, histogram);
    }
    if !histograms.is_empty() {
        out.push(']');
    }
}

fn write_histogram(out: &mut String, at: usize, time: i64, histogram: &Histogram) {
    let _ = write!(out, "{}[{},{{\"count\":\"", if at == 0 { "" } else { "," }, seconds_text(time));
    write_value(out, histogram.count);
    out.push_str("\",\"sum\":\"");
    write_value(out, histogram.sum);
    out.push('"');
    for (place, (inclusion, lower, upper, count)) in histogram.listed().into_iter().enumerate() {
        out.push_str(if place == 0 { ",\"buckets\":[" } else { "," });
        let _ = write!(out, "[{inclusion},\"");
        for (number, end) in [(lower, "\",\""), (upper, "\",\""), (count, "\"]")] {
            write_value(out, number);
            out.push_str(end);
        }
    }
    if !histogram.listed().is_empty() {
        out.push(']');
    }
    out.push_str("}]");
}

fn write_sample(out: &mut String, at: usize, time: i64, number: f64) {
    out.push_str(if at == 0 { "[" } else { ",[" });
    match time.rem_euclid(1000) {
        0 => write_whole(out, time / 1000),
        _ => out.push_str(&seconds_text(time)),
    }
    out.push_str(",\"");
    write_value(out, number);
    out.push_str("\"]");
}

/// A text as JSON has it; nearly all labels need no escape.
fn write_quoted(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return out.push_str(&quoted(text));
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Milliseconds as seconds, without zeros that say nothing.
fn seconds_text(millis: i64) -> String {
    match millis.rem_euclid(1000) {
        0 => (millis / 1000).to_string(),
        _ => (millis as f64 / 1000.0).to_string(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_as_prometheus_reads_them() {
        let time = |text: &str| time_of(&Parameters(vec![("time".into(), text.into())]), "time");
        assert_eq!(time("1700000000.5").ok(), Some(Some(1_700_000_000_500)));
        assert_eq!(time("2023-11-14T22:13:20Z").ok(), Some(Some(1_700_000_000_000)));
        assert_eq!(time("").ok(), Some(None));
        for wrong in ["now", "1e300", "NaN"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        for (text, seconds) in [("15", 15.0), ("0.5", 0.5), ("5m", 300.0), ("1h30m", 5400.0), ("250ms", 0.25)] {
            assert_eq!(seconds_of(text, "step").ok(), Some(seconds), "{text}");
        }
        for wrong in ["", "m", "5", "5 m", "1x", "inf"].into_iter().filter(|text| *text != "5") {
            assert!(seconds_of(wrong, "step").is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_health_check_of_grafana_gets_its_two() {
        let limits = Limits::default();
        let plan = Plan::new("1+1", Window { start_ms: 4000, end_ms: 4000, step_ms: 0 }, &limits).expect("a plan");
        let answer = evaluate(&plan, Vec::new(), &limits, &AtomicBool::new(false)).expect("an answer");
        assert_eq!(
            written(&plan, &answer, None, None),
            r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#
        );
    }
}
