//! Version 1's reports: totals, summaries, tenants, dataframes.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use bigdecimal::BigDecimal;
use futures::StreamExt;
use orzo_model::{Caller, Timestamp};
use orzo_rating::{LineFilter, LineStream, RatedLine, Totals};
use serde_json::{Map, Value, json};

use super::{
    must_be_admin, must_own, parts, problem_of_ledger, range,
    wsme::{known, plain, query_text, query_time, several},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem};

/// Lines of one answer at most; for more there is version 2, with pages.
const LINES_MAX: usize = 100_000;

/// Whose lines and which, from the parameters of a report.
struct Asked {
    tenant: Option<String>,
    service: Option<String>,
    begin: Timestamp,
    end: Timestamp,
}

impl Asked {
    fn read(parameters: &Parameters, caller: &Caller, now: Timestamp) -> Result<Self, Problem> {
        known(parameters, &["begin", "end", "tenant_id", "service", "all_tenants", "groupby"])?;
        let tenant = match parameters.flag("all_tenants")? {
            true => None,
            false => query_text(parameters, "tenant_id").or_else(|| caller.project_id.clone()),
        };
        must_own(caller, tenant.as_deref())?;
        let (begin, end) = range(query_time(parameters, "begin")?, query_time(parameters, "end")?, now);
        Ok(Self { tenant, service: query_text(parameters, "service"), begin, end })
    }

    fn filter(&self) -> LineFilter {
        LineFilter {
            scopes: self.tenant.clone().map(|tenant| vec![tenant]),
            begin: Some(self.begin),
            end: Some(self.end),
            services: self.service.clone().map(|service| vec![service]),
            ..LineFilter::default()
        }
    }
}

async fn lines(api: &SharedApi, filter: &LineFilter) -> Result<LineStream, Problem> {
    parts(api)?.ledger.read(filter).await.map_err(problem_of_ledger)
}

pub(super) async fn total(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    let asked = Asked::read(&parameters, &caller, api.clock.now())?;
    let mut lines = lines(&api, &asked.filter()).await?;
    let mut totals = Totals::new();
    while let Some(line) = lines.next().await {
        let line = line.map_err(problem_of_ledger)?;
        *totals.entry(line.currency).or_default() += line.cost;
    }
    match totals.len() {
        0 | 1 => Ok(Json(json!(plain(&totals.into_values().sum())))),
        _ => Err(several(totals.keys())),
    }
}

pub(super) async fn summary(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    let asked = Asked::read(&parameters, &caller, api.clock.now())?;
    let groups = query_text(&parameters, "groupby").unwrap_or_default();
    let by = |name: &str| groups.split(',').any(|own| own.trim() == name);
    let (by_tenant, by_type) = (by("tenant_id"), by("res_type"));
    let mut sums: BTreeMap<(Option<String>, Option<String>), Totals> = BTreeMap::new();
    let mut lines = lines(&api, &asked.filter()).await?;
    while let Some(line) = lines.next().await {
        let line = line.map_err(problem_of_ledger)?;
        let key = (by_type.then_some(line.service), by_tenant.then_some(line.scope));
        *sums.entry(key).or_default().entry(line.currency).or_default() += line.cost;
    }
    if let Some(totals) = sums.values().find(|totals| totals.len() > 1) {
        return Err(several(totals.keys()));
    }
    let shown = sums.into_iter().map(|((service, tenant), totals)| {
        let sum = totals.into_values().sum();
        json!({
            "begin": asked.begin.naive(), "end": asked.end.naive(), "rate": five_places(&sum),
            "res_type": service.or_else(|| asked.service.clone()).unwrap_or_else(|| "ALL".to_owned()),
            "tenant_id": tenant.or_else(|| asked.tenant.clone()).unwrap_or_else(|| "ALL".to_owned()),
        })
    });
    Ok(Json(json!({"summary": shown.collect::<Value>()})))
}

/// As CloudKitty writes it: five places, as a Python float; `0` for nothing.
fn five_places(sum: &BigDecimal) -> String {
    if *sum == BigDecimal::default() {
        return "0".to_owned();
    }
    let text = plain(&sum.with_scale_round(5, bigdecimal::RoundingMode::HalfEven));
    if text.contains('.') { text } else { format!("{text}.0") }
}

pub(super) async fn tenants(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["begin", "end"])?;
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let filter = LineFilter { begin: Some(begin), end: Some(end), ..LineFilter::default() };
    let mut tenants = BTreeSet::new();
    let mut lines = lines(&api, &filter).await?;
    while let Some(line) = lines.next().await {
        tenants.insert(line.map_err(problem_of_ledger)?.scope);
    }
    Ok(Json(json!(tenants)))
}

pub(super) async fn dataframes(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["begin", "end", "tenant_id", "resource_type"])?;
    let wanted = query_text(&parameters, "tenant_id");
    let project = wanted.clone().or_else(|| caller.project_id.clone());
    if project.is_none() && !caller.is_admin() {
        return Ok(Json(json!({"dataframes": []})));
    }
    must_own(&caller, project.as_deref())?;
    // An administrator who names nobody sees all.
    let scope = if caller.is_admin() { wanted } else { project };
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let filter = LineFilter {
        scopes: scope.map(|scope| vec![scope]),
        begin: Some(begin),
        end: Some(end),
        services: query_text(&parameters, "resource_type").map(|service| vec![service]),
        ..LineFilter::default()
    };
    let period = parts(&api)?.period;
    let mut frames: Vec<(Frame, Vec<Value>)> = Vec::new();
    let mut count = 0;
    let mut lines = lines(&api, &filter).await?;
    while let Some(line) = lines.next().await {
        let line = line.map_err(problem_of_ledger)?;
        count += 1;
        if count > LINES_MAX {
            return Err(Problem::bad(format!(
                "more than {LINES_MAX} rated resources; ask for a shorter time, or for pages of /v2/dataframes"
            )));
        }
        // Lines come by period, project and service.
        let frame = (line.period, line.scope.clone(), line.service.clone());
        match frames.last_mut() {
            Some((last, resources)) if *last == frame => resources.push(resource(&line)),
            _ => frames.push((frame, vec![resource(&line)])),
        }
    }
    let shown = frames.into_iter().map(|((begin, scope, _), resources)| {
        json!({"begin": begin.naive(), "end": begin.plus(period).naive(), "tenant_id": scope, "resources": resources})
    });
    Ok(Json(json!({"dataframes": shown.collect::<Value>()})))
}

/// Period, project and service.
type Frame = (Timestamp, String, String);

fn resource(line: &RatedLine) -> Value {
    let mut description: Map<String, Value> =
        line.metadata.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    description.extend(line.groupby.iter().map(|(name, value)| (name.clone(), json!(value))));
    for (name, value) in [("project_id", &line.scope), ("resource_id", &line.resource)] {
        description.entry(name).or_insert_with(|| json!(value));
    }
    json!({"service": line.service, "desc": description, "volume": plain(&line.quantity), "rating": plain(&line.cost)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_python_writes_floats() {
        let text = |text: &str| five_places(&orzo_rating::decimal(text).expect("a number"));
        assert_eq!([text("0"), text("3"), text("0.1"), text("1.2345678")], ["0", "3.0", "0.1", "1.23457"]);
    }
}
