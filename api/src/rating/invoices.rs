//! Invoices of a project and month, of our own: data, or a page that prints well. A project sees its own. One that is provisional
//! has what closing the month now would add: purchases, taxes and all else that is settled then.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use orzo_export::{ExportError, Language, invoices, preview};
use orzo_model::Timestamp;
use orzo_rating::forecast::month;
use serde_json::json;

use super::{
    book, must_own, parts,
    periods::problem_of_processor,
    problem_of, problem_of_ledger,
    wsme::{known, query_text},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    problem::{Problem, prefers_html},
};

pub(super) async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path((project, wanted)): Path<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    must_own(&caller, Some(&project))?;
    known(&parameters, &["format", "language"])?;
    let begin = format!("{wanted}-01").parse::<Timestamp>().ok().filter(|_| wanted.len() == 7);
    let begin = begin.ok_or_else(|| Problem::bad("a month is written as 2026-11"))?;
    let end = month(begin, 1);
    let is_page = match query_text(&parameters, "format").as_deref() {
        Some("html") => true,
        Some("json") => false,
        None => prefers_html(&headers),
        Some(_) => return Err(Problem::bad("format is json or html")),
    };
    let language = match query_text(&parameters, "language") {
        Some(code) => Language::named(&code).ok_or_else(|| Problem::bad("language is en or zh"))?,
        None => accepted(&headers),
    };
    let closed = book(&api)?.closed_periods(Some(&project), begin, end).await.map_err(problem_of)?;
    let covered =
        closed.iter().filter(|period| period.begin <= end).fold(begin, |until, period| match period.begin <= until {
            true => until.max(period.end),
            false => until,
        });
    let parts = parts(&api)?;
    let (ledger, catalogue) = (parts.ledger.as_ref(), &parts.catalogue);
    let found = match &parts.processor {
        Some(processor) if covered < end => {
            let expected = processor.expected(&project, covered, end).await.map_err(problem_of_processor)?;
            preview(ledger, begin, end, &project, &expected, catalogue).await.map_err(problem_of_export)?
        }
        _ => {
            let found = invoices(ledger, begin, end, Some(vec![project]), covered < end, catalogue).await;
            found.map_err(problem_of_export)?.into_iter().next()
        }
    };
    let Some(invoice) = found else {
        return Err(Problem::new(http::StatusCode::NOT_FOUND, "Nothing was charged in this month."));
    };
    if !is_page {
        return Ok(Json(json!(invoice)).into_response());
    }
    let page = invoice.html(language, None).map_err(problem_of_export)?;
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    // The page has no script; a browser that finds one anyway does not run it.
    let policy = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    Ok(([kind, policy], page).into_response())
}

fn problem_of_export(error: ExportError) -> Problem {
    match error {
        ExportError::Ledger(error) => problem_of_ledger(error),
        other => Problem::bad(other.to_string()),
    }
}

/// The first language of `Accept-Language` that there is; English if none.
fn accepted(headers: &HeaderMap) -> Language {
    let text = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let codes = text.split(',').map(|tag| tag.split([';', '-']).next().unwrap_or_default().trim());
    codes.filter_map(Language::named).next().unwrap_or_default()
}
