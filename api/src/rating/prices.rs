//! Prices that CloudKitty has no words for, of our own: documents (currency, domains, expressions, purchases, tiers, included
//! quantities, minimums, discounts, credits, taxes) under the versions of all rules; which changes made those; and quotes of whole bills.
//! Writing is for administrators; a quote is for everybody, for their own project.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use orzo_rating::{KINDS, Metrics, Prices, RatedLine, RuleDocument, Rules, expression::Expression, quote};
use serde_json::{Value, json};

use super::{
    book, modules, must_be_admin, must_own, parts, problem_of,
    wsme::{Body, known, query_text},
    wsme::{single, text, texts},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// Changes of one answer.
const CHANGES_MAX: u32 = 1000;

fn shown(document: &RuleDocument) -> Value {
    json!({"kind": document.kind, "id": document.id, "body": document.body})
}

fn known_kind(kind: &str) -> Result<(), Problem> {
    if KINDS.contains(&kind) {
        return Ok(());
    }
    let kind: String = kind.chars().take(80).collect();
    Err(Problem::bad(format!("there is no kind `{kind}`; there are {}", KINDS.join(", "))))
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["kind"])?;
    let wanted = query_text(&parameters, "kind");
    wanted.as_deref().map(known_kind).transpose()?;
    let mut prices = Vec::new();
    for kind in KINDS.iter().filter(|kind| wanted.as_deref().is_none_or(|wanted| wanted == **kind)) {
        prices.extend(book(&api)?.documents(kind).await.map_err(problem_of)?.iter().map(shown));
    }
    let version = book(&api)?.rule_version().await.map_err(problem_of)?;
    Ok(Json(json!({"prices": prices, "rule_version": version})))
}

pub(super) async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path((kind, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known_kind(&kind)?;
    let all = book(&api)?.documents(&kind).await.map_err(problem_of)?;
    let found = all.iter().find(|own| own.id == id);
    found.map(shown).map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("No such {kind}: {id}")))
}

pub(super) async fn put(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path((kind, id)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known_kind(&kind)?;
    let document = RuleDocument { kind, id, body };
    let book = book(&api)?;
    // With all others, whose number is bounded.
    let version = book.rule_version().await.map_err(problem_of)?;
    let documents = book.rules_of(version, book.now()).await.map_err(problem_of)?.documents;
    Prices::check(&documents, &document).map_err(|error| Problem::bad(error.to_string()))?;
    if let ("expression", Some(processor)) = (document.kind.as_str(), &parts(&api)?.processor) {
        check_expression(&document, processor.metrics()).map_err(Problem::bad)?;
    }
    book.put_document(&caller.user_id, &document).await.map_err(problem_of)?;
    Ok(Json(shown(&document)))
}

/// Refuses an expression that has no price for any usage, or looks at what its service's lines do not know.
fn check_expression(document: &RuleDocument, metrics: &Metrics) -> Result<(), String> {
    let text = |name: &str| document.body[name].as_str().unwrap_or_default();
    let (id, service) = (&document.id, text("service"));
    let expression = Expression::parse(text("expression")).map_err(|error| error.to_string())?;
    let known: BTreeSet<&str> = metrics.of_service(service).flat_map(|own| own.facts()).map(String::as_str).collect();
    // What a service knows that `metrics.yml` does not charge is not known here.
    if let Some(unknown) = expression.facts().into_iter().find(|fact| !known.is_empty() && !known.contains(fact)) {
        let known: Vec<&str> = known.into_iter().collect();
        return Err(format!(
            "expression `{id}`: lines of {service} know no `{unknown}`; they know {} (groupby and metadata of metrics.yml)",
            known.join(", ")
        ));
    }
    match expression.never() {
        None => Ok(()),
        Some(error) => Err(format!("expression `{id}`: no usage that was tried has a price: {error}")),
    }
}

pub(super) async fn delete(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path((kind, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    known_kind(&kind)?;
    book(&api)?.delete_document(&caller.user_id, &kind, &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What changed which version of the rules, the newest first.
pub(super) async fn changes(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["before"])?;
    let before = query_text(&parameters, "before").map(|text| text.parse::<u64>());
    let before = before.transpose().map_err(|_| Problem::bad("before is the number of a version"))?;
    let changes = book(&api)?.rule_changes(before, CHANGES_MAX).await.map_err(problem_of)?;
    let change = |own: &orzo_rating::RuleChange| {
        json!({"version": own.version, "changed_at": own.changed_at.isoformat(), "changed_by": own.changed_by,
               "change": own.change})
    };
    Ok(Json(json!({"changes": changes.iter().map(change).collect::<Value>()})))
}

fn money(line: &RatedLine) -> String {
    line.cost.normalized().to_plain_string()
}

/// What resources would cost a project as one bill, by the rules of now.
pub(super) async fn quote_bill(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut body = Body::read(body, &["resources", "project_id"])?;
    let project = body.text("project_id")?.or_else(|| caller.project_id.clone());
    must_own(&caller, project.as_deref())?;
    let usages = modules::usages_of(&mut body)?;
    let book = book(&api)?;
    let version = book.rule_version().await.map_err(problem_of)?;
    let set = book.rules_of(version, book.now()).await.map_err(problem_of)?;
    let prices = Prices::from_documents(&set.documents).map_err(|error| Problem::bad(error.to_string()))?;
    let rules = Rules { version, hashmap: set.hashmap, prices };
    let quote = quote(&rules, project.as_deref(), book.now(), &usages).map_err(Problem::bad)?;
    let usage = |line: &RatedLine| {
        json!({"service": line.service, "quantity": line.quantity.normalized().to_plain_string(), "cost": money(line),
               "rule": line.rule})
    };
    let settled = |line: &RatedLine| {
        json!({"kind": line.kind.name(), "service": line.service, "cost": money(line), "currency": line.currency,
               "rule": line.rule})
    };
    let total = single(&quote.totals).map(|(_, total)| text(total));
    Ok(Json(json!({
        "project_id": project, "currency": quote.currency, "rule_version": version,
        "usage": quote.usage.iter().map(usage).collect::<Value>(),
        "settled": quote.settled.iter().map(settled).collect::<Value>(),
        "totals": texts(&quote.totals), "total": total,
    })))
}
