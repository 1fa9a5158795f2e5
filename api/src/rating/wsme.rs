//! Requests as CloudKitty reads them: version 1 as WSME (types of attributes, its sentences), version 2 as voluptuous.

use axum::extract::Path;
use bigdecimal::BigDecimal;
use orzo_model::Timestamp;
use orzo_rating::{Kind, Totals, decimal};
use serde_json::{Map, Value};

use crate::{parameters::Parameters, problem::Problem};

/// The attributes of a body, taken one by one.
pub(super) struct Body(Map<String, Value>);

fn invalid(name: &str, value: &str, reason: &str) -> Problem {
    Problem::bad(format!("Invalid input for field/attribute {name}. Value: '{value}'. {reason}"))
}

/// A number with all its digits.
pub(super) fn text(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// Sums by currency, as texts.
pub(super) fn texts(totals: &Totals) -> Value {
    totals.iter().map(|(currency, sum)| (currency.clone(), Value::String(text(sum)))).collect()
}

/// The currency and the sum where there is one only: sums of several are no sum.
pub(super) fn single(totals: &Totals) -> Option<(&String, &BigDecimal)> {
    totals.iter().next().filter(|_| totals.len() == 1)
}

/// Why one number cannot answer for sums of several currencies.
pub(super) fn several<'c>(currencies: impl Iterator<Item = &'c String>) -> Problem {
    let codes: Vec<&str> = currencies.map(String::as_str).collect();
    Problem::bad(format!(
        "what is asked for was charged in several currencies ({}), whose costs are not added; ask \
         /v2/summary?groupby=currency, or for one of them by filters=currency:{}",
        codes.join(", "),
        codes.first().copied().unwrap_or_default()
    ))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(80).collect(),
        Value::Null => "None".to_owned(),
        other => other.to_string().chars().take(80).collect(),
    }
}

impl Body {
    /// A body of these attributes and no others.
    pub(super) fn read(body: Value, known: &[&str]) -> Result<Self, Problem> {
        let Value::Object(map) = body else { return Err(Problem::bad("the body is not an object")) };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => {
                let unknown: String = unknown.chars().take(80).collect();
                Err(Problem::bad(format!("Unknown attribute for argument body: {unknown}")))
            }
            None => Ok(Self(map)),
        }
    }

    /// A text; empty or absent is `None`.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(invalid(name, &shown(other), "Wrong type. Expected '<class 'str'>'")),
        }
    }

    /// A text that must be there.
    pub(super) fn needed_text(&self, name: &str) -> Result<String, Problem> {
        self.text(name)?.ok_or_else(|| invalid(name, "None", "Mandatory field missing."))
    }

    /// A UUID; empty or absent is `None`.
    pub(super) fn uuid(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.text(name)? {
            Some(text) if uuid::Uuid::try_parse(&text).is_err() => {
                let text: String = text.chars().take(80).collect();
                Err(invalid(name, &text, &format!("Invalid UUID, got '{text}'")))
            }
            text => Ok(text),
        }
    }

    /// A decimal number, as a number or a text.
    pub(super) fn decimal(&self, name: &str) -> Result<Option<BigDecimal>, Problem> {
        self.0.get(name).filter(|value| !value.is_null()).map(|value| decimal_of(name, value)).transpose()
    }

    /// How a cost counts.
    pub(super) fn kind(&self, name: &str) -> Result<Option<Kind>, Problem> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("flat") => Ok(Some(Kind::Flat)),
            Some("rate") => Ok(Some(Kind::Rate)),
            Some(other) => {
                let other: String = other.chars().take(80).collect();
                Err(invalid(name, &other, "Value should be one of: flat, rate"))
            }
        }
    }

    /// A time.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.text(name)?.map(|text| time(name, &text)).transpose()
    }

    /// The end of a rule: a bare date is that day's last second.
    pub(super) fn end(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let end = time(name, &text)?;
        let is_date = !text.contains(['T', ' ']);
        Ok(Some(if is_date { end.plus(std::time::Duration::from_secs(86_399)) } else { end }))
    }

    /// Yes or no.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => crate::parameters::boolean(name, &shown(other)).map(Some),
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_i64()
                .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
                .map(Some)
                .ok_or_else(|| invalid(name, &shown(value), "Wrong type. Expected a whole number")),
        }
    }

    /// Texts: a list, or one text with commas.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let values = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut texts = Vec::new();
        for value in values {
            let text = value.as_str().ok_or_else(|| invalid(name, &shown(value), "Wrong type. Expected a text"))?;
            texts.extend(text.split(',').filter(|text| !text.is_empty()).map(str::to_owned));
        }
        Ok(texts)
    }

    /// Whatever is there.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }
}

/// The id that a request is about: of its path, or as the real client sends it, of its query or its body.
pub(super) fn identified(
    path: Option<Path<String>>,
    parameters: &Parameters,
    body: Option<&Body>,
    name: &str,
) -> Result<String, Problem> {
    if let Some(Path(id)) = path {
        return Ok(id);
    }
    if let Some(id) = query_text(parameters, name) {
        return Ok(id);
    }
    let id = body.map(|body| body.text(name)).transpose()?.flatten();
    id.ok_or_else(|| Problem::bad(format!("Missing argument: \"{name}\"")))
}

/// A decimal number of a body.
pub(super) fn decimal_of(name: &str, value: &Value) -> Result<BigDecimal, Problem> {
    let wrong = |reason: String| invalid(name, &shown(value), &reason);
    match value {
        Value::String(text) => decimal(text).map_err(|error| wrong(error.to_string())),
        Value::Number(number) => decimal(&number.to_string()).map_err(|error| wrong(error.to_string())),
        _ => Err(wrong("it is no decimal number".to_owned())),
    }
}

/// A time, also in ISO 8601's basic form (`20190716T085501Z`).
pub(super) fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let basic = |text: &str| {
        let naive = chrono::NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y%m%dT%H%M%S").ok()?;
        Some(Timestamp::from(naive.and_utc()))
    };
    // A plus of an offset that was not encoded in a query arrives as a space.
    let spaced = |text: &str| {
        let (head, offset) = text.rsplit_once(' ')?;
        head.contains('T').then(|| format!("{head}+{offset}").parse().ok()).flatten()
    };
    let text = text.trim();
    text.parse().ok().or_else(|| basic(text)).or_else(|| spaced(text)).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        invalid(name, &text, "Invalid date format. Expected ISO 8601")
    })
}

/// A time of a query.
pub(super) fn query_time(parameters: &Parameters, name: &str) -> Result<Option<Timestamp>, Problem> {
    parameters.get(name).filter(|text| !text.is_empty()).map(|text| time(name, text)).transpose()
}

/// A text of a query; empty is none.
pub(super) fn query_text(parameters: &Parameters, name: &str) -> Option<String> {
    parameters.get(name).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A UUID of a query.
pub(super) fn query_uuid(parameters: &Parameters, name: &str) -> Result<Option<String>, Problem> {
    match query_text(parameters, name) {
        Some(text) if uuid::Uuid::try_parse(&text).is_err() => {
            let text: String = text.chars().take(80).collect();
            Err(invalid(name, &text, &format!("Invalid UUID, got '{text}'")))
        }
        text => Ok(text),
    }
}

/// Refuses parameters that nobody reads: a filter with a slip in its name would show everything.
pub(super) fn known(parameters: &Parameters, names: &[&str]) -> Result<(), Problem> {
    match parameters.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) => {
            let name: String = name.chars().take(80).collect();
            Err(Problem::bad(format!("Unknown argument: \"{name}\"")))
        }
        None => Ok(()),
    }
}

/// The texts of a repeated parameter, each with commas.
pub(super) fn query_texts(parameters: &Parameters, name: &str) -> Vec<String> {
    let texts = parameters.all(name).flat_map(|text| text.split(','));
    texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// The `key:value` pairs of a repeated parameter, each with commas; a value may have colons in it.
pub(super) fn query_pairs(parameters: &Parameters, name: &str) -> Result<Vec<(String, String)>, Problem> {
    query_texts(parameters, name)
        .into_iter()
        .map(|pair| match pair.split_once(':') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                let pair: String = pair.chars().take(80).collect();
                Err(Problem::bad(format!("Invalid data : invalid key:value association {pair} (path: '{name}')")))
            }
        })
        .collect()
}

/// A whole number of a query.
fn query_number(parameters: &Parameters, name: &str, default: u32, least: u32, most: u32) -> Result<u32, Problem> {
    let Some(text) = parameters.get(name) else { return Ok(default) };
    match text.trim().parse::<u32>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => {
            let text: String = text.chars().take(80).collect();
            Err(Problem::bad(format!(
                "Invalid data '{text}' : expected a number from {least} to {most} (path: '{name}')"
            )))
        }
    }
}

/// Rows of an answer at most; more than that is asked for in pages.
const LIMIT_MAX: u32 = 100_000;

/// `offset` and `limit`.
pub(super) fn page(parameters: &Parameters) -> Result<(u32, u32), Problem> {
    Ok((query_number(parameters, "offset", 0, 0, u32::MAX)?, query_number(parameters, "limit", 100, 1, LIMIT_MAX)?))
}

/// An exact number as the JSON number that is nearest to it: CloudKitty's own answers are floats, and clients read them so.
pub(super) fn number(value: &BigDecimal) -> Value {
    let text = value.normalized().to_plain_string();
    match text.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => text.parse::<f64>().map_or(Value::Null, Value::from),
    }
}

/// A decimal as WSME writes it.
pub(super) fn plain(value: &BigDecimal) -> String {
    value.normalized().to_plain_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_read_with_their_types() {
        let body = json!({"cost": 0.1, "type": "rate", "end": "2026-11-22", "start": "2026-11-22", "service_id": "x",
                          "level": "1e999999999", "ids": ["a,b", "c"], "enabled": "yes", "name": ""});
        let known = ["cost", "type", "end", "start", "service_id", "level", "ids", "enabled", "name"];
        assert!(Body::read(body.clone(), &known[1..]).is_err(), "an unknown attribute");
        let body = Body::read(body, &known).expect("a body");
        assert_eq!(body.decimal("cost").expect("a number"), decimal("0.1").ok());
        assert_eq!(body.kind("type").expect("a kind"), Some(Kind::Rate));
        assert_eq!(body.end("end").expect("a time").map(|end| end.naive()), Some("2026-11-22T23:59:59".to_owned()));
        assert_eq!(body.time("start").expect("a time").map(|t| t.naive()), Some("2026-11-22T00:00:00".to_owned()));
        assert!(body.uuid("service_id").is_err() && body.decimal("level").is_err() && body.kind("service_id").is_err());
        assert_eq!(body.texts("ids").expect("texts"), ["a", "b", "c"]);
        assert_eq!(body.flag("enabled").expect("a flag"), Some(true));
        assert!(body.text("name").expect("no text").is_none() && body.needed_text("name").is_err());
    }

    #[test]
    fn times_are_read_in_every_form_that_clients_send() {
        let expected: Timestamp = "2019-07-16T08:55:01Z".parse().expect("a time");
        for text in [
            "20190716T085501Z",
            "20190716T085501",
            "2019-07-16T08:55:01",
            "2019-07-16T08:55:01+00:00",
            "2019-07-16T08:55:01 00:00",
            "2019-07-16 08:55:01",
        ] {
            assert_eq!(time("begin", text).expect(text), expected, "{text}");
        }
        assert!(time("begin", "yesterday").is_err());
    }

    #[test]
    fn pairs_and_pages_are_read() {
        let parameters = Parameters::parse("filters=type:instance,id:a:b&filters=x:&limit=5&offset=2");
        let pairs = query_pairs(&parameters, "filters").expect("pairs");
        assert_eq!(pairs[1], ("id".to_owned(), "a:b".to_owned()));
        assert_eq!((pairs.len(), page(&parameters).expect("a page")), (3, (2, 5)));
        for query in ["limit=0", "limit=x", "limit=100001", "offset=-1"] {
            assert!(page(&Parameters::parse(query)).is_err(), "{query}");
        }
        assert!(query_pairs(&Parameters::parse("filters=nothing"), "filters").is_err());
        assert_eq!(number(&decimal("3.0").expect("a number")), json!(3));
        assert_eq!(number(&decimal("0.10").expect("a number")), json!(0.1));
    }
}
