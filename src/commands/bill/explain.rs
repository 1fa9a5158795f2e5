//! `orzo bill explain`: from a line down to the rules, the stretches of usage, the events and the points that it was made of,
//! and the same line rated anew from them.
//!
//! `--server` asks a running server. Without it the store of a stopped one is opened; beside a running one only the ledger can
//! be read, and it is said so.

use anyhow::{Context, bail};
use futures::TryStreamExt;
use orzo_ledger::LedgerTable;
use orzo_rating::{Explanation, Ledger, LineFilter, RatedLine};
use orzo_session::ServiceRequest;
use orzo_store::StoreError;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{look, open};
use crate::{
    client::Target,
    commands::output::{self, Format, Rows},
    settings::Settings,
};

/// Points and the like that a table shows; JSON has them all.
const SHOWN: usize = 12;

#[derive(clap::Args)]
pub(super) struct Explain {
    /// Id of the line.
    line: Uuid,
    /// Ask the running server, instead of opening the store of one that is stopped.
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(settings: &Settings, asked: &Explain, format: Format) -> anyhow::Result<()> {
    let told = match asked.server {
        true => of_server(asked).await?,
        false => of_directory(settings, asked.line).await?,
    };
    print(&told, asked.line, format)
}

async fn of_server(asked: &Explain) -> anyhow::Result<Value> {
    let path = format!("v2/lines/{}", asked.line);
    let method = "GET".parse().context("a method")?;
    let request = ServiceRequest { service_type: "rating", method, path: &path, headers: &[], body: None };
    let session = asked.target.session()?;
    session.request(&request, None).await.context("the rating API does not answer as it should")
}

async fn of_directory(settings: &Settings, id: Uuid) -> anyhow::Result<Value> {
    let is_used = |error: &anyhow::Error| {
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StoreError::Locked { .. })))
    };
    match open(settings).await {
        Ok(open) => {
            let told = match of_ledger(settings, &open.rating.ledger, id).await {
                Ok((line, related)) => {
                    let explanation = open.rating.processor.explain(&line).await;
                    explanation
                        .map(|own| json!({"line": line, "related": related, "explanation": own}))
                        .map_err(Into::into)
                }
                Err(error) => Err(error),
            };
            open.store.close().await.context("cannot close the store")?;
            told
        }
        Err(error) if is_used(&error) => {
            let (ledger, _) = look(settings).await?;
            let (line, related) = of_ledger(settings, &ledger, id).await?;
            let explanation = Explanation { has_its_id: line.identity() == line.id, ..Explanation::default() };
            let note = "a server runs: usage, rules and points are told by it, with --server";
            Ok(json!({"line": line, "related": related, "explanation": explanation, "note": note}))
        }
        Err(error) => Err(error),
    }
}

/// The line, and those that belong to the same usage.
async fn of_ledger(settings: &Settings, ledger: &LedgerTable, id: Uuid) -> anyhow::Result<(RatedLine, Vec<RatedLine>)> {
    let filter = LineFilter { ids: Some(vec![id]), ..LineFilter::default() };
    let found: Vec<RatedLine> = ledger.read(&filter).await?.try_collect().await?;
    let Some(line) = found.into_iter().next() else { bail!("there is no line {id}") };
    // What belongs together was used at the same time.
    let period = settings.rating.period.0;
    let filter = LineFilter {
        scopes: Some(vec![line.scope.clone()]),
        used_from: Some(line.begin.floor(period)),
        used_before: Some(line.begin.floor(period).plus(period)),
        services: Some(vec![line.service.clone()]),
        ..LineFilter::default()
    };
    let beside: Vec<RatedLine> = ledger.read(&filter).await?.try_collect().await?;
    let related = beside.into_iter().filter(|own| own.resource == line.resource && own.id != line.id).collect();
    Ok((line, related))
}

fn print(told: &Value, id: Uuid, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(told)?);
        return Ok(());
    }
    let (line, explanation) = (&told["line"], &told["explanation"]);
    let columns = [
        "what",
        "id",
        "used from",
        "used until",
        "quantity",
        "cost",
        "corrects",
        "rule version",
        "samples",
        "rated at",
    ];
    let of_line = |own: &Value| {
        let what = match (own["id"] == id.to_string(), own["reverses"] == true, own["corrects"].is_null()) {
            (true, ..) => "this line",
            (_, true, _) => "takes back",
            (_, false, false) => "replaces",
            _ => "same resource and period",
        };
        let quantity = json!(format!("{} {}", text(&own["quantity"]), text(&own["unit"])));
        let rest = ["corrects", "rule_version", "samples", "rated_at"].map(|name| own[name].clone());
        let first = [json!(what), own["id"].clone(), own["begin"].clone(), own["end"].clone(), quantity];
        first.into_iter().chain([own["cost"].clone()]).chain(rest).collect()
    };
    let related = told["related"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = std::iter::once(line).chain(related).map(of_line).collect();
    Rows { columns: columns.to_vec(), rows }.print(format)?;
    if format != Format::Table {
        return Ok(());
    }
    let said = |name: &str| text(&line[name]);
    println!("project {}, {} {}, kind {}", said("scope"), said("service"), said("resource"), said("kind"));
    for facts in ["groupby", "metadata"] {
        for (name, value) in line[facts].as_object().into_iter().flatten() {
            println!("  {name} = {}", text(value));
        }
    }
    println!("rule {}, {} {} for one {}", said("rule"), said("unit_price"), said("currency"), said("unit"));
    if let Some(note) = told["note"].as_str() {
        println!("\n{note}");
    }
    section(explanation, "rules", "Rules of that version", format)?;
    section(explanation, "stretches", "Usage: stretches in which nothing changed that is rated", format)?;
    section(explanation, "events", "Events", format)?;
    section(explanation, "revisions", "What polling saw", format)?;
    section(explanation, "points", "Points of the line's time, and the one before", format)?;
    section(explanation, "findings", "What does not fit together", format)?;
    let missing = &explanation["completeness"]["missing"];
    if missing.as_array().is_some_and(|some| !some.is_empty()) {
        println!("\nnot measured: {missing}");
    }
    println!();
    println!("{}", verdict(line, explanation));
    Ok(())
}

/// Whether the line is what its evidence says.
fn verdict(line: &Value, explanation: &Value) -> String {
    let id = match explanation["has_its_id"] == true {
        true => "its id is that of its contents",
        false => "ITS ID IS NOT THAT OF ITS CONTENTS",
    };
    let anew = &explanation["rated_anew"];
    match (anew.is_null(), explanation["is_reproduced"] == true) {
        (true, _) => id.to_owned(),
        (false, true) => format!("{id}; rated anew from the above it is the same"),
        (false, false) => format!(
            "{id}; RATED ANEW from the above it costs {} for {}, not {} for {}",
            text(&anew["cost"]),
            text(&anew["quantity"]),
            text(&line["cost"]),
            text(&line["quantity"])
        ),
    }
}

/// A list of objects as a table, its columns in the order of the first that has them.
fn section(explanation: &Value, name: &str, title: &str, format: Format) -> anyhow::Result<()> {
    let rows: Vec<&serde_json::Map<String, Value>> =
        explanation[name].as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut columns: Vec<&str> = Vec::new();
    for row in &rows {
        columns.extend(row.iter().filter(|(_, value)| !is_empty(value)).map(|(name, _)| name.as_str()));
        columns.sort_unstable();
        columns.dedup();
    }
    println!("\n{title}:");
    let cell = |value: Option<&Value>| match value {
        Some(value @ (Value::Object(_) | Value::Array(_))) => json!(value.to_string()),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let of_row = |row: &&serde_json::Map<String, Value>| columns.iter().map(|name| cell(row.get(*name))).collect();
    let shown: Vec<Vec<Value>> = rows.iter().take(SHOWN).map(of_row).collect();
    output::print(&columns, &shown, format)?;
    if rows.len() > SHOWN {
        println!("and {} more; -f json has them", rows.len() - SHOWN);
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rating_anew_says_is_told() {
        let line = json!({"cost": "1", "quantity": "2"});
        let told = |anew: Value, is_same: bool, has_its_id: bool| {
            verdict(&line, &json!({"has_its_id": has_its_id, "rated_anew": anew, "is_reproduced": is_same}))
        };
        let other = json!({"cost": "3", "quantity": "4"});
        assert_eq!(told(Value::Null, false, true), "its id is that of its contents");
        assert!(told(line.clone(), true, true).ends_with("it is the same"));
        let wrong = told(other, false, false);
        assert!(wrong.starts_with("ITS ID IS NOT") && wrong.ends_with("costs 3 for 4, not 1 for 2"), "{wrong}");
    }
}
