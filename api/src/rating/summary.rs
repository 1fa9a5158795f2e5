//! Version 2's summary: lines summed by whatever they say, for everybody who may see them.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use bigdecimal::BigDecimal;
use chrono::Datelike;
use futures::StreamExt;
use orzo_model::Timestamp;
use orzo_rating::{Ledger, LineFilter, RatedLine, doors::says};
use serde_json::{Value, json};

use super::{
    parts, problem_of_ledger, range,
    wsme::{known, number, page, query_pairs, query_text, query_texts, query_time, several},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem};

/// Groups of one answer at most: they are all in memory until the last line was read.
const GROUPS_MAX: usize = 100_000;
/// Most things to group by, and most fields.
const NAMES_MAX: usize = 16;
/// Digits of a mean.
const DIGITS: u64 = 28;

pub(super) async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["begin", "end", "filters", "groupby", "custom_fields", "response_format", "offset", "limit"])?;
    let format = query_text(&parameters, "response_format").unwrap_or_else(|| "table".to_owned());
    if format != "table" && format != "object" {
        let format: String = format.chars().take(80).collect();
        return Err(Problem::bad(format!(
            "Invalid response format [{format}]. Valid format are [['table', 'object']]."
        )));
    }
    let (offset, limit) = page(&parameters)?;
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let groups = groups(&query_texts(&parameters, "groupby"))?;
    let fields = fields(query_text(&parameters, "custom_fields").as_deref().unwrap_or(FIELDS))?;
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in query_pairs(&parameters, "filters")? {
        wanted.entry(key).or_default().push(value);
    }
    let mut filter = LineFilter { begin: Some(begin), end: Some(end), ..LineFilter::default() };
    filter.services = wanted.remove("type");
    filter.scopes = wanted.remove("project_id");
    if !caller.is_admin() {
        let Some(project) = &caller.project_id else {
            return Ok(Json(json!({"total": 0, "columns": [], "results": []})));
        };
        filter.scopes = Some(vec![project.clone()]);
    }
    let parts = parts(&api)?;
    let sums = sums_of(&*parts.ledger, &filter, &wanted, &groups, &fields).await?;
    let by_time = groups.contains(&Group::Time);
    let mut columns = vec!["begin".to_owned(), "end".to_owned()];
    columns.extend(fields.iter().map(|field| field.alias.clone()));
    columns.extend(groups.iter().filter_map(Group::column));
    let total = sums.len();
    let rows: Vec<Vec<Value>> = sums
        .into_iter()
        .skip(offset as usize)
        .take(limit as usize)
        .map(|(key, Summed { period, sums, .. })| {
            let (begin, end) = if by_time { (period, period.plus(parts.period)) } else { (begin, end) };
            let mut row = vec![json!(begin.isoformat()), json!(end.isoformat())];
            row.extend(fields.iter().zip(&sums).map(|(field, sum)| sum.result(field.function)));
            let named = groups.iter().zip(key).filter(|(group, _)| **group != Group::Time);
            row.extend(named.map(|(_, value)| json!(value)));
            row
        })
        .collect();
    Ok(Json(match format.as_str() {
        "object" => {
            let object = |row: Vec<Value>| columns.iter().cloned().zip(row).collect::<Value>();
            json!({"total": total, "results": rows.into_iter().map(object).collect::<Value>(), "format": format})
        }
        _ => {
            let columns = if rows.is_empty() { Vec::new() } else { columns };
            json!({"total": total, "columns": columns, "results": rows, "format": format})
        }
    }))
}

/// What the lines of a group come to.
struct Summed {
    /// Of the first one.
    period: Timestamp,
    /// Of the first one, and of all others if money is summed.
    currency: String,
    /// One for each field.
    sums: Vec<Sum>,
}

impl Summed {
    fn new(first: &RatedLine, fields: usize) -> Self {
        Self { period: first.period, currency: first.currency.clone(), sums: vec![Sum::default(); fields] }
    }
}

/// Lines summed by groups, in the order of the groups' keys. Costs of several currencies are in no group together.
async fn sums_of(
    ledger: &dyn Ledger,
    filter: &LineFilter,
    wanted: &BTreeMap<String, Vec<String>>,
    groups: &[Group],
    fields: &[Field],
) -> Result<BTreeMap<Vec<String>, Summed>, Problem> {
    let mut lines = ledger.read(filter).await.map_err(problem_of_ledger)?;
    let mut sums: BTreeMap<Vec<String>, Summed> = BTreeMap::new();
    while let Some(line) = lines.next().await {
        let line = line.map_err(problem_of_ledger)?;
        let is_wanted = |(key, values): (&String, &Vec<String>)| {
            let said = says(&line, key).unwrap_or_default();
            values.iter().any(|value| value == said)
        };
        if !wanted.iter().all(is_wanted) {
            continue;
        }
        let key: Vec<String> = groups.iter().map(|group| group.of(&line)).collect();
        let is_full = sums.len() >= GROUPS_MAX && !sums.contains_key(&key);
        if is_full {
            return Err(Problem::bad(format!("more than {GROUPS_MAX} groups; group by less, or narrow the question")));
        }
        let own = sums.entry(key).or_insert_with(|| Summed::new(&line, fields.len()));
        if own.currency != line.currency && fields.iter().any(Field::is_money) {
            return Err(several(BTreeSet::from([&own.currency, &line.currency]).into_iter()));
        }
        for (field, sum) in fields.iter().zip(&mut own.sums) {
            sum.add(if field.is_price { &line.cost } else { &line.quantity });
        }
    }
    Ok(sums)
}

/// Why a summary was not made.
#[derive(Debug, thiserror::Error)]
#[error("a summary was not made: {0}")]
pub struct SummaryError(String);

/// Project, service and currency.
type ProjectKey = (String, String, String);

/// What the summary says of periods, by project, service and currency: what `GET /v2/summary?groupby=project_id,type,currency`
/// answers, exact. For who holds it against the ledger.
pub async fn summary_by_project(
    ledger: &dyn Ledger,
    begin: Timestamp,
    end: Timestamp,
) -> Result<BTreeMap<ProjectKey, BigDecimal>, SummaryError> {
    let filter = LineFilter { begin: Some(begin), end: Some(end), ..LineFilter::default() };
    let told = |problem: Problem| SummaryError(problem.description.to_string());
    let groups = groups(&["project_id", "type", "currency"].map(str::to_owned)).map_err(told)?;
    let fields = fields(FIELDS).map_err(told)?;
    let price = fields.iter().position(|field| field.is_price).unwrap_or_default();
    let sums = sums_of(ledger, &filter, &BTreeMap::new(), &groups, &fields).await.map_err(told)?;
    let key = |mut key: Vec<String>| {
        let [project, service, currency] = [0, 1, 2].map(|place| std::mem::take(&mut key[place]));
        (project, service, currency)
    };
    Ok(sums.into_iter().map(|(names, own)| (key(names), own.sums[price].sum.clone())).collect())
}

/// What lines are summed by.
#[derive(Clone, Debug, PartialEq)]
enum Group {
    /// The rating period.
    Time,
    /// Part of the period's date: the name of its column, chrono's format.
    Date(&'static str, &'static str),
    /// What a line says under a name.
    Name(String),
}

fn groups(names: &[String]) -> Result<Vec<Group>, Problem> {
    if names.len() > NAMES_MAX {
        return Err(Problem::bad(format!("more than {NAMES_MAX} things to group by")));
    }
    let mut groups: Vec<Group> = Vec::with_capacity(names.len());
    for name in names {
        // As CloudKitty reads it: whatever has `time` in it and one dash is a part of a date.
        let part = name.contains("time").then(|| name.split_once('-')).flatten();
        let part = part.map(|(_, part)| part).filter(|part| !part.contains('-'));
        let group = match (part, name.as_str()) {
            (None, "time") => Group::Time,
            (Some("d"), _) | (None, "day_of_the_year") => Group::Date("day_of_the_year", "%-j"),
            (Some("w"), _) | (None, "week_of_the_year") => Group::Date("week_of_the_year", "%U"),
            (Some("m"), _) | (None, "month") => Group::Date("month", "%-m"),
            (Some("y"), _) | (None, "year") => Group::Date("year", "%Y"),
            (Some(_), name) => {
                let name: String = name.chars().take(80).collect();
                return Err(Problem::bad(format!(
                    "Invalid groupby time option. There is no groupby processing for [{name}]."
                )));
            }
            (None, name) => Group::Name(name.to_owned()),
        };
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    // The answer's order is that of the names; periods are in order within.
    groups.sort_by_key(|group| *group == Group::Time);
    Ok(groups)
}

impl Group {
    fn of(&self, line: &RatedLine) -> String {
        match self {
            // Sortable: the key's order is the answer's.
            Self::Time => format!("{:020}", line.period.micros()),
            Self::Date(name, format) => match says(line, name) {
                Some(said) => said.to_owned(),
                None if *name == "year" => line.period.to_chrono().year().to_string(),
                None => line.period.to_chrono().format(format).to_string(),
            },
            Self::Name(name) => says(line, name).unwrap_or_default().to_owned(),
        }
    }

    fn column(&self) -> Option<String> {
        match self {
            Self::Time => None,
            Self::Date(name, _) => Some((*name).to_owned()),
            Self::Name(name) => Some(name.clone()),
        }
    }
}

/// What CloudKitty sums without being told.
const FIELDS: &str = "SUM(qty) AS qty, SUM(price) AS rate";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Sum,
    Min,
    Max,
    Mean,
    Count,
}

/// A column that is calculated.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    function: Function,
    /// Of the price, else of the quantity.
    is_price: bool,
    alias: String,
}

impl Field {
    /// Whether it says an amount of money.
    fn is_money(&self) -> bool {
        self.is_price && self.function != Function::Count
    }
}

/// Reads `SUM(qty) AS qty, MAX(price) AS dearest`.
fn fields(text: &str) -> Result<Vec<Field>, Problem> {
    let wrong = |field: &str| {
        let field: String = field.chars().take(80).collect();
        Problem::bad(format!(
            "Invalid custom field [{field}]; expected FUNCTION(FIELD) AS NAME, with SUM, MIN, MAX, MEAN, AVG or COUNT of \
             qty or price"
        ))
    };
    let field = |text: &str| -> Option<Field> {
        let (call, alias) = text.split_once(" AS ").or_else(|| text.split_once(" as "))?;
        let (function, rest) = call.trim().split_once('(')?;
        let alias = alias.trim().trim_matches('"');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
        Some(Field {
            function: match function.trim().to_ascii_uppercase().as_str() {
                "SUM" => Function::Sum,
                "MIN" => Function::Min,
                "MAX" => Function::Max,
                "MEAN" | "AVG" => Function::Mean,
                "COUNT" => Function::Count,
                _ => return None,
            },
            is_price: match rest.strip_suffix(')')?.trim().trim_matches('"') {
                "qty" => false,
                "price" => true,
                _ => return None,
            },
            alias: (!alias.is_empty() && alias.len() <= 80 && alias.chars().all(is_plain)).then(|| alias.to_owned())?,
        })
    };
    let fields: Vec<Field> =
        text.split(',').map(|text| field(text.trim()).ok_or_else(|| wrong(text))).collect::<Result<_, _>>()?;
    if fields.len() > NAMES_MAX {
        Err(Problem::bad(format!("more than {NAMES_MAX} custom fields")))
    } else {
        Ok(fields)
    }
}

/// What a column comes to, whatever its function.
#[derive(Clone, Debug, Default)]
struct Sum {
    count: u64,
    sum: BigDecimal,
    min: Option<BigDecimal>,
    max: Option<BigDecimal>,
}

impl Sum {
    fn add(&mut self, value: &BigDecimal) {
        self.count += 1;
        self.sum += value;
        if self.min.as_ref().is_none_or(|min| value < min) {
            self.min = Some(value.clone());
        }
        if self.max.as_ref().is_none_or(|max| value > max) {
            self.max = Some(value.clone());
        }
    }

    fn result(&self, function: Function) -> Value {
        match function {
            Function::Sum => number(&self.sum),
            Function::Min => self.min.as_ref().map_or(Value::Null, number),
            Function::Max => self.max.as_ref().map_or(Value::Null, number),
            Function::Mean => number(&(&self.sum / BigDecimal::from(self.count.max(1))).with_prec(DIGITS)),
            Function::Count => json!(self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_fields_are_read_and_wrong_ones_are_named() {
        let read = fields("SUM(qty) AS qty, MAX(\"price\") as \"the dearest\", count(price) AS n").expect("fields");
        assert_eq!(read.iter().map(|field| field.alias.as_str()).collect::<Vec<_>>(), ["qty", "the dearest", "n"]);
        assert_eq!(read[1].function, Function::Max);
        assert!(read[1].is_price && !read[0].is_price);
        for text in
            ["", "SUM(qty)", "SUM(cost) AS x", "DROP(qty) AS x", "SUM(qty AS x", "SUM(qty) AS x;y", "SUM(qty) AS "]
        {
            assert!(fields(text).is_err(), "{text}");
        }
    }

    #[test]
    fn columns_are_calculated_exactly() {
        let mut sum = Sum::default();
        for text in ["0.1", "0.2", "-0.3", "1e-10"] {
            sum.add(&orzo_rating::decimal(text).expect("a number"));
        }
        assert_eq!(sum.result(Function::Sum), json!(1e-10), "floats would say 2.77e-17 more");
        assert_eq!(sum.result(Function::Min), json!(-0.3));
        assert_eq!(sum.result(Function::Max), json!(0.2));
        assert_eq!(sum.result(Function::Count), json!(4));
        assert!(groups(&["time-x".to_owned()]).is_err());
    }
}
