//! Questions in PromQL to a running Orzo (or any Prometheus in the catalog), and their answers as rows.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use orzo_session::{ServiceRequest, Session};
use serde_json::Value;
use url::form_urlencoded;

/// A series of an answer.
pub(crate) struct Series {
    /// Label names and values, sorted by name.
    pub(crate) labels: Vec<(String, String)>,
    /// Seconds since the epoch, and values; one for an instant.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    /// A label's value, or nothing.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }

    /// The series as PromQL writes it.
    pub(crate) fn name(&self) -> String {
        let labels = self.labels.iter().filter(|(name, _)| name != "__name__");
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
        match labels.is_empty() {
            true => self.label("__name__").to_owned(),
            false => format!("{}{{{}}}", self.label("__name__"), labels.join(", ")),
        }
    }
}

/// Takes the labels that are the same in all of several series out of each, and returns them: they tell none apart.
pub(crate) fn take_common(series: &mut [Series]) -> Vec<(String, String)> {
    let Some((first, rest)) = series.split_first().filter(|(_, rest)| !rest.is_empty()) else { return Vec::new() };
    let is_common =
        |label: &&(String, String)| label.0 != "__name__" && rest.iter().all(|one| one.labels.contains(label));
    let common: Vec<_> = first.labels.iter().filter(is_common).cloned().collect();
    for one in series {
        one.labels.retain(|label| !common.contains(label));
    }
    common
}

/// Labels that people know things by come before others where series are told apart.
const KNOWN_BY: [&str; 5] = ["__name__", "display_name", "name", "instance", "resource_id"];

/// What tells each of several series from the others: the names of as few labels as do, and their values.
pub(crate) fn told_apart(series: &[Series]) -> (Vec<&str>, Vec<String>) {
    let names: BTreeSet<&str> = series.iter().flat_map(|one| &one.labels).map(|(name, _)| name.as_str()).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_key(|name| KNOWN_BY.iter().position(|known| known == name).unwrap_or(KNOWN_BY.len()));
    let values = |one: &Series, names: &[&str]| names.iter().map(|name| one.label(name).to_owned()).collect::<Vec<_>>();
    let distinct = |names: &[&str]| series.iter().map(|one| values(one, names)).collect::<BTreeSet<_>>().len();
    let mut chosen: Vec<&str> = Vec::new();
    for name in names {
        let more: Vec<&str> = chosen.iter().copied().chain([name]).collect();
        if distinct(&more) > distinct(&chosen) {
            chosen = more;
        }
    }
    let texts = series.iter().map(|one| values(one, &chosen).join(", ")).collect();
    (chosen, texts)
}

/// What a query gave.
pub(crate) struct Answer {
    pub(crate) series: Vec<Series>,
    /// Whether its points have times of their own: not that of the query.
    pub(crate) has_times: bool,
}

/// Asks `query` or `query_range` (`path`) with its parameters, for the series alone.
pub(crate) async fn ask(session: &Session, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<Series>> {
    answer(session, path, parameters).await.map(|answer| answer.series)
}

/// Asks `query` or `query_range` (`path`) with its parameters.
pub(crate) async fn answer(session: &Session, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let request = ServiceRequest {
        service_type: "prometheus",
        method: "GET".parse().context("a method")?,
        path: &format!("api/v1/{path}?{query}"),
        headers: &[],
        body: None,
    };
    let answer = session.request(&request, None).await.context("the query was not answered")?;
    Ok(Answer { series: read(&answer)?, has_times: answer["data"]["resultType"] == "matrix" })
}

fn read(answer: &Value) -> anyhow::Result<Vec<Series>> {
    let (kind, result) = (answer["data"]["resultType"].as_str(), &answer["data"]["result"]);
    let many = || result.as_array().context("the answer has no result");
    match kind {
        Some("scalar") => Ok(vec![Series { labels: Vec::new(), points: vec![point(result)?] }]),
        Some("vector") => {
            many()?.iter().map(|one| Ok(Series { labels: labels(one), points: vec![point(&one["value"])?] })).collect()
        }
        Some("matrix") => many()?
            .iter()
            .map(|one| {
                let points = one["values"].as_array().context("a series has no values")?;
                Ok(Series { labels: labels(one), points: points.iter().map(point).collect::<anyhow::Result<_>>()? })
            })
            .collect(),
        Some(kind) => bail!("the answer is a {kind}, which has no series"),
        None => bail!("the server's answer is not that of a Prometheus API"),
    }
}

fn labels(series: &Value) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = series["metric"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    labels.sort();
    labels
}

fn point(value: &Value) -> anyhow::Result<(f64, f64)> {
    let number = value[1].as_str().and_then(|text| match text {
        "NaN" => Some(f64::NAN),
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    });
    match (value[0].as_f64(), number) {
        (Some(time), Some(number)) => Ok((time, number)),
        _ => bail!("the answer has a point that is none: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_tell_nothing_apart_are_taken_out() {
        let series = |a: &str| Series {
            labels: vec![("__name__".into(), "up".into()), ("a".into(), a.into()), ("b".into(), "1".into())],
            points: Vec::new(),
        };
        let mut two = [series("x"), series("y")];
        assert_eq!(take_common(&mut two), [("b".to_owned(), "1".to_owned())]);
        assert_eq!(two.map(|one| one.name()), ["up{a=\"x\"}", "up{a=\"y\"}"]);
        assert_eq!(take_common(&mut [series("x")]), []);
    }

    #[test]
    fn as_few_labels_as_tell_series_apart_are_named() {
        let series = |labels: &[(&str, &str)]| Series {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            points: Vec::new(),
        };
        let guest = |id, name| series(&[("display_name", name), ("flavor", "small"), ("resource_id", id)]);
        let apart = |series: &[Series]| {
            let (names, texts) = told_apart(series);
            (names.join(" "), texts)
        };
        let named = apart(&[guest("1", "a"), guest("2", "b")]);
        assert_eq!(named, ("display_name".to_owned(), vec!["a".to_owned(), "b".to_owned()]));
        let same = apart(&[guest("1", "a"), guest("2", "a")]);
        assert_eq!(same, ("resource_id".to_owned(), vec!["1".to_owned(), "2".to_owned()]));
        let both = apart(&[guest("1", "a"), guest("2", "a"), guest("3", "b")]);
        assert_eq!(both.0, "display_name resource_id");
        assert_eq!(both.1, ["a, 1", "a, 2", "b, 3"]);
        assert_eq!(apart(&[series(&[("__name__", "up")]), series(&[])]).1, ["up", ""]);
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        let answer = |kind: &str, result: Value| json!({"data": {"resultType": kind, "result": result}});
        let scalar = read(&answer("scalar", json!([4, "2"]))).expect("a scalar");
        assert_eq!((scalar[0].name(), scalar[0].points.clone()), (String::new(), vec![(4.0, 2.0)]));
        let series = json!([{"metric": {"__name__": "up", "a": "x\"y"}, "value": [1.5, "+Inf"]}]);
        let vector = read(&answer("vector", series)).expect("a vector");
        assert_eq!((vector[0].name().as_str(), vector[0].points[0].1), ("up{a=\"x\\\"y\"}", f64::INFINITY));
        let matrix =
            read(&answer("matrix", json!([{"metric": {}, "values": [[1, "1"], [2, "NaN"]]}]))).expect("a matrix");
        assert!(matrix[0].points[1].1.is_nan() && matrix[0].label("x").is_empty());
        for wrong in [json!([]), answer("string", json!([1, "x"])), answer("vector", json!([{"metric": {}}]))] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
