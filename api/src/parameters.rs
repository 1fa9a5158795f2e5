//! Query parameters: flags, times, widths and pages, as Gnocchi 4.7 reads them. Pure functions; `now` comes in.

use std::time::Duration;

use orzo_index::spans;
use orzo_model::Timestamp;
use serde_json::Value;

use crate::problem::Problem;

/// A query string, decoded, in its order; names may repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(pub(crate) Vec<(String, String)>);

impl Parameters {
    /// Decodes a query string.
    pub(crate) fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The last value of a name, as a Python dictionary of the query would hold it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag; absent is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        self.flag_or(name, false)
    }

    /// A flag with its default.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> Result<bool, Problem> {
        self.get(name).map_or(Ok(default), |text| boolean(name, text))
    }

    /// A time, such as `start`.
    pub(crate) fn time(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let parse = |text: &str| {
            spans::parse_time(&Value::from(text), now)
                .map_err(|_| Problem::argument(name, "Must be a datetime or a timestamp"))
        };
        self.get(name).map(parse).transpose()
    }

    /// A width, such as `granularity`.
    pub(crate) fn span(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let parse = |text: &str| {
            spans::parse_timespan(&Value::from(text)).map_err(|error| Problem::argument(name, error.to_string()))
        };
        self.get(name).map(parse).transpose()
    }

    /// A number, such as `needed_overlap`.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Problem> {
        let parse = |text: &str| text.trim().parse::<f64>().map_err(|_| Problem::argument(name, "Must be a number"));
        self.get(name).map(parse).transpose()
    }
}

const TRUE_WORDS: [&str; 6] = ["1", "t", "true", "on", "y", "yes"];
const FALSE_WORDS: [&str; 6] = ["0", "f", "false", "off", "n", "no"];

/// A flag's value; Python clients send `True`.
pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, Problem> {
    let word = text.trim().to_ascii_lowercase();
    if TRUE_WORDS.contains(&word.as_str()) {
        return Ok(true);
    }
    if FALSE_WORDS.contains(&word.as_str()) {
        return Ok(false);
    }
    Err(Problem::bad(format!(
        "Unable to parse `{name}': Unrecognized value '{text}', acceptable values are: '0', '1', 'f', 'false', 'n', \
         'no', 'off', 'on', 't', 'true', 'y', 'yes'"
    )))
}

/// What part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paging {
    /// At most so many, already clamped.
    pub(crate) limit: u32,
    /// The last item of the page before.
    pub(crate) marker: Option<String>,
    /// `attribute[:asc|desc[-nullsfirst|-nullslast]]`, as given.
    pub(crate) sorts: Vec<String>,
}

impl Paging {
    /// Reads `limit`, `marker` and `sort`; `limit` is clamped to `limit_max`, which is also its default.
    pub(crate) fn read(parameters: &Parameters, limit_max: u32) -> Result<Self, Problem> {
        let wrong = |reason: &str| {
            Problem::new(
                http::StatusCode::BAD_REQUEST,
                serde_json::json!({"cause": "Argument value error", "reason": format!("{reason} for dictionary value @ data['limit']")}),
            )
        };
        let limit = match parameters.get("limit") {
            None => limit_max,
            Some(text) => match text.trim().parse::<i64>() {
                Err(_) => return Err(wrong("expected int")),
                Ok(limit) if limit < 1 => return Err(wrong("value must be at least 1")),
                Ok(limit) => u32::try_from(limit).unwrap_or(u32::MAX).min(limit_max),
            },
        };
        Ok(Self {
            limit,
            marker: parameters.get("marker").map(str::to_owned),
            sorts: parameters.all("sort").map(str::to_owned).collect(),
        })
    }

    /// The `Link` header for the next page: all original parameters plus limit, sort and marker, sorted by name.
    pub(crate) fn next_link(&self, url: &str, parameters: &Parameters, sorts: &[String], marker: &str) -> String {
        let mut pairs: Vec<(String, String)> = parameters
            .0
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "limit" | "sort" | "marker"))
            .cloned()
            .collect();
        pairs.push(("limit".to_owned(), self.limit.to_string()));
        pairs.push(("marker".to_owned(), marker.to_owned()));
        pairs.extend(sorts.iter().map(|sort| ("sort".to_owned(), sort.clone())));
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        format!("<{url}?{query}>; rel=\"next\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_take_pythons_words_and_refuse_others() {
        for text in ["True", "1", "yes", "ON", "t", "Y"] {
            assert_eq!(boolean("refresh", text), Ok(true), "{text}");
        }
        for text in ["False", "0", "no", "off", "F", "n"] {
            assert_eq!(boolean("refresh", text), Ok(false), "{text}");
        }
        let problem = boolean("refresh", "maybe").expect_err("not a flag");
        assert!(problem.description.as_str().is_some_and(|d| d.starts_with("Unable to parse `refresh'")));
    }

    #[test]
    fn the_next_page_keeps_every_parameter_in_order() {
        let parameters = Parameters::parse("history=true&limit=1&name=a%20b");
        let paging = Paging::read(&parameters, 1000).expect("a page");
        assert_eq!(
            paging.next_link("http://h/v1/metric", &parameters, &["id:asc".to_owned()], "x@1"),
            "<http://h/v1/metric?history=true&limit=1&marker=x%401&name=a+b&sort=id%3Aasc>; rel=\"next\""
        );
        assert_eq!(Paging::read(&Parameters::parse("limit=5000"), 1000).expect("clamped").limit, 1000);
        assert!(Paging::read(&Parameters::parse("limit=0"), 1000).is_err());
        assert!(Paging::read(&Parameters::parse("limit=x"), 1000).is_err());
    }
}
