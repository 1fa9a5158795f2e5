//! Version 2's dataframes: rated lines as they are, in pages; and lines of elsewhere, pushed by an administrator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use bigdecimal::BigDecimal;
use futures::StreamExt;
use http::StatusCode;
use orzo_model::Timestamp;
use orzo_rating::{LineFilter, LineKind, Prices, RatedLine, RuleSource, cost_of, line::WHOLE_DIGITS_MAX};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    must_be_admin, parts,
    periods::{problem_of_processor, processor},
    problem_of_ledger, range,
    wsme::{decimal_of, known, number, page, query_pairs, query_time, time},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// Longest period of a frame: a fee for a year.
const PERIOD_MAX: Duration = Duration::from_secs(366 * 86_400);
/// A frame may begin so much after now: fees of the next month are brought in ahead.
const AHEAD_MAX: Duration = Duration::from_secs(32 * 86_400);
/// Digits of a unit price that is derived from a pushed price, as CloudKitty's decimals have.
const DIGITS: u64 = 28;

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["begin", "end", "filters", "offset", "limit"])?;
    let (offset, limit) = page(&parameters)?;
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let mut filter = LineFilter { begin: Some(begin), end: Some(end), ..LineFilter::default() };
    for (key, value) in query_pairs(&parameters, "filters")? {
        match key.as_str() {
            "type" => filter.services = Some(vec![value]),
            "project_id" => filter.scopes = Some(vec![value]),
            _ => {
                filter.equals.insert(key, value);
            }
        }
    }
    if !caller.is_admin() {
        let Some(project) = &caller.project_id else { return Ok(Json(json!({"total": 0, "dataframes": []}))) };
        filter.scopes = Some(vec![project.clone()]);
    }
    let parts = parts(&api)?;
    let mut lines = parts.ledger.read(&filter).await.map_err(problem_of_ledger)?;
    let mut frames: Vec<(Timestamp, BTreeMap<String, Vec<Value>>)> = Vec::new();
    let (mut total, first, after) = (0_u64, u64::from(offset), u64::from(offset) + u64::from(limit));
    while let Some(line) = lines.next().await {
        let line = line.map_err(problem_of_ledger)?;
        if (first..after).contains(&total) {
            if frames.last().is_none_or(|(period, _)| *period != line.period) {
                frames.push((line.period, BTreeMap::new()));
            }
            if let Some((_, usage)) = frames.last_mut() {
                usage.entry(line.service.clone()).or_default().push(point(&line));
            }
        }
        total += 1;
    }
    if total == 0 {
        return Err(Problem::new(StatusCode::NOT_FOUND, "No resource found for provided filters."));
    }
    let shown = frames.into_iter().map(|(begin, usage)| {
        json!({"period": {"begin": begin.isoformat(), "end": begin.plus(parts.period).isoformat()}, "usage": usage})
    });
    Ok(Json(json!({"total": total, "dataframes": shown.collect::<Value>()})))
}

fn point(line: &RatedLine) -> Value {
    json!({
        "vol": {"unit": line.unit, "qty": number(&line.quantity)}, "rating": {"price": number(&line.cost)},
        "groupby": *line.groupby, "metadata": *line.metadata,
    })
}

pub(super) async fn push(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let parts = parts(&api)?;
    let frames = match &body["dataframes"] {
        Value::Array(frames) => frames,
        _ => return Err(invalid("dataframes", "required key not provided, or not a list")),
    };
    if frames.is_empty() {
        return Err(Problem::bad("Parameter dataframes must not be empty."));
    }
    let now = api.clock.now();
    // In the project's currency, as what is rated.
    let rules = parts.book.rules(now).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the rules cannot be read");
        Problem::unavailable("the rules cannot be read now")
    })?;
    let mut lines = Vec::new();
    for (place, frame) in frames.iter().enumerate() {
        read_frame(frame, &format!("dataframes[{place}]"), &rules.prices, now, &mut lines)?;
    }
    number_twins(&mut lines);
    let lines = lines.into_iter().map(RatedLine::identified).collect();
    // What is closed gets no lines.
    processor(&api)?.bring_in(lines).await.map_err(problem_of_processor)?;
    Ok(StatusCode::NO_CONTENT)
}

fn invalid(place: &str, reason: &str) -> Problem {
    Problem::bad(format!("Invalid data : {reason} (path: '{place}')"))
}

fn object<'v>(value: &'v Value, place: &str) -> Result<&'v Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| invalid(place, "required key not provided, or not a dictionary"))
}

fn read_frame(
    frame: &Value,
    place: &str,
    prices: &Prices,
    now: Timestamp,
    lines: &mut Vec<RatedLine>,
) -> Result<(), Problem> {
    let edge = |name: &str| {
        let text = frame["period"][name].as_str();
        let text = text.ok_or_else(|| invalid(&format!("{place}.period.{name}"), "required key not provided"))?;
        time(name, text)
    };
    let (begin, end) = (edge("begin")?, edge("end")?);
    check_period(begin, end, now).map_err(|reason| invalid(&format!("{place}.period"), &reason))?;
    for (service, points) in object(&frame["usage"], &format!("{place}.usage"))? {
        let place = format!("{place}.usage.{service}");
        let points = points.as_array().ok_or_else(|| invalid(&place, "expected a list"))?;
        for (number, point) in points.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let unit = point["vol"]["unit"].as_str();
            let unit = unit.ok_or_else(|| invalid(&format!("{place}.vol.unit"), "required key not provided"))?;
            // As the ledger keeps it; what floats add below that is noise.
            let quantity = cost_of(&decimal_of("qty", &point["vol"]["qty"])?);
            let price = match &point["rating"]["price"] {
                Value::Null => BigDecimal::from(0),
                price => decimal_of("price", price)?,
            };
            for (name, number) in [("vol.qty", &quantity), ("rating.price", &price)] {
                if number.abs() >= BigDecimal::new(1.into(), -WHOLE_DIGITS_MAX) {
                    let reason = format!("it has more than {WHOLE_DIGITS_MAX} digits before the point");
                    return Err(invalid(&format!("{place}.{name}"), &reason));
                }
            }
            let groupby = facts(object(&point["groupby"], &format!("{place}.groupby"))?);
            let metadata = facts(object(&point["metadata"], &format!("{place}.metadata"))?);
            let said = |names: &[&str]| names.iter().find_map(|name| groupby.get(*name)).cloned().unwrap_or_default();
            let (scope, resource) = (said(&["project_id", "tenant_id"]), said(&["id", "resource_id"]));
            let unit_price = match quantity == BigDecimal::default() {
                true => cost_of(&price),
                false => cost_of(&(&price / &quantity).with_prec(DIGITS)),
            };
            // The content is part of the id: the same pushed twice is there once, anything else is another line.
            let content = Sha256::digest(json!([unit, quantity, price, groupby, metadata, end.micros()]).to_string());
            let currency = prices.currency(&scope, begin).to_owned();
            lines.push(RatedLine {
                id: uuid::Uuid::nil(),
                scope,
                service: service.clone(),
                resource,
                begin,
                end,
                period: begin,
                unit: unit.to_owned(),
                quantity,
                unit_price,
                cost: cost_of(&price),
                currency,
                kind: LineKind::Usage,
                corrects: None,
                reverses: false,
                rule: format!("pushed:{}", hex::encode(&content[..8])),
                rule_version: 0,
                sequence: 0,
                groupby: Arc::new(groupby),
                metadata: Arc::new(metadata),
                samples: 0,
                rated_at: now,
            });
        }
    }
    Ok(())
}

/// Times that nobody is charged for are mistakes, and a line stays for ever. Quantities and prices may be negative, as CloudKitty
/// takes them: what is given back is pushed so.
fn check_period(begin: Timestamp, end: Timestamp, now: Timestamp) -> Result<(), String> {
    if end <= begin {
        return Err("it ends before it begins".to_owned());
    }
    if begin < Timestamp::EPOCH {
        return Err(format!("it begins before {}", Timestamp::EPOCH));
    }
    if begin > now.plus(AHEAD_MAX) {
        return Err(format!("it begins more than 32 days after now, {now}"));
    }
    if end.since(begin) > PERIOD_MAX {
        return Err("it is longer than 366 days".to_owned());
    }
    Ok(())
}

/// Values as texts, as the ledger keeps them.
fn facts(map: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Lines of one request that are the same in all of the id are several, and are told apart by their number.
fn number_twins(lines: &mut [RatedLine]) {
    let mut seen: BTreeMap<(String, String, String, Timestamp, String), u32> = BTreeMap::new();
    for line in lines {
        let key = (line.scope.clone(), line.resource.clone(), line.service.clone(), line.begin, line.rule.clone());
        let count = seen.entry(key).or_insert(0);
        line.sequence = *count;
        *count += 1;
    }
}
