//! `metrics.yml`: what is charged, in CloudKitty's format as it is written today. Text in, definitions out; what is wrong is
//! named with file and place.

use bigdecimal::{BigDecimal, Zero};
use serde_json::{Map, Value};

use crate::{
    decimal::decimal,
    quantity::{Conversion, Mutation},
};

/// The one that is used where an operator has none.
pub const DEFAULT: &str = include_str!("metrics/default.yml");

/// Ratings of all metrics together; far above any price list.
const RATINGS_MAX: usize = 10_000;
/// Names of one kind in one rating.
const NAMES_MAX: usize = 100;
/// Longest name.
const NAME_BYTES_MAX: usize = 255;
/// Digits that a fraction is taken to.
const FRACTION_DIGITS: u64 = 28;
/// The project, by which everything is grouped.
const SCOPE_KEY: &str = "project_id";

/// How a quantity comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    /// The resource is there: one, for as long as it is.
    Existence,
    /// A size that lasts: its mean over time.
    Level,
    /// A counter: by how much it grew.
    Increase,
}

/// What CloudKitty's Gnocchi collector is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Collecting {
    /// Type of the resources.
    pub resource_type: String,
    /// Attribute that names a resource.
    pub resource_key: String,
    /// Method within a metric.
    pub aggregation_method: String,
    /// Method over metrics of one group.
    pub re_aggregation_method: String,
    /// Width of buckets in seconds; 0: whatever the policy has.
    pub force_granularity: u64,
    /// A line for each revision within a period; else for the last one only, with the sum of all.
    pub use_all_resource_revisions: bool,
}

/// One rating of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricDefinition {
    /// The metric whose points are read.
    pub metric: String,
    /// The name that rules go by: `alt_name`, or that of the metric.
    pub service: String,
    /// For people.
    pub description: Option<String>,
    /// Of the quantity.
    pub unit: String,
    /// Quantity from value.
    pub conversion: Conversion,
    /// As written: NONE, CEIL ...
    pub mutate: String,
    /// What usage is told apart by.
    pub groupby: Vec<String>,
    /// What else rules look at.
    pub metadata: Vec<String>,
    /// How its quantity comes about.
    pub usage: UsageKind,
    /// How CloudKitty would collect it.
    pub collecting: Collecting,
    /// The ratings of a metric are numbered.
    pub number: usize,
}

/// All that is charged, by the names of the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The ratings.
    pub definitions: Vec<MetricDefinition>,
}

/// What is wrong with a file of metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}: {reason}")]
pub struct MetricsError {
    /// Which file.
    pub file: String,
    /// Where in it: `metrics.cpu[1].factor`.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

/// Where something stands.
#[derive(Clone)]
struct At<'a> {
    file: &'a str,
    place: String,
}

impl At<'_> {
    fn field(&self, name: &str) -> Self {
        Self { file: self.file, place: format!("{}.{name}", self.place) }
    }

    fn wrong(&self, reason: impl ToString) -> MetricsError {
        MetricsError { file: self.file.to_owned(), place: self.place.clone(), reason: reason.to_string() }
    }
}

impl Metrics {
    /// The shipped ones.
    pub fn shipped() -> Self {
        Self::parse(DEFAULT, "metrics.yml (shipped)").expect("a test reads them")
    }

    /// Reads a file.
    pub fn parse(text: &str, file: &str) -> Result<Self, MetricsError> {
        let at = At { file, place: "metrics".to_owned() };
        let whole: Value = serde_saphyr::from_str(text)
            .map_err(|error| At { file, place: "the file".to_owned() }.wrong(error.to_string()))?;
        Self::read(&whole, &at)
    }

    /// As parsed already, such as from JSON.
    pub fn from_json(whole: &Value, file: &str) -> Result<Self, MetricsError> {
        Self::read(whole, &At { file, place: "metrics".to_owned() })
    }

    fn read(whole: &Value, at: &At<'_>) -> Result<Self, MetricsError> {
        let top = whole.as_object().ok_or_else(|| at.wrong("a file of metrics is an object with the key `metrics`"))?;
        if let Some(unknown) = top.keys().find(|key| *key != "metrics") {
            return Err(At { file: at.file, place: unknown.clone() }.wrong("this key is not known; there is `metrics`"));
        }
        let metrics = match top.get("metrics") {
            Some(Value::Object(metrics)) if !metrics.is_empty() => metrics,
            _ => return Err(at.wrong("an object with at least one metric is expected")),
        };
        let mut definitions: Vec<MetricDefinition> = Vec::new();
        for (metric, ratings) in metrics {
            let at = at.field(metric);
            name(metric, &at)?;
            let listed = match ratings {
                Value::Object(_) => vec![(at.clone(), ratings)],
                Value::Array(list) if !list.is_empty() => {
                    let place = |number| At { file: at.file, place: format!("{}[{number}]", at.place) };
                    list.iter().enumerate().map(|(number, rating)| (place(number), rating)).collect()
                }
                _ => return Err(at.wrong("an object, or a list with at least one object, is expected")),
            };
            let is_list = ratings.is_array();
            for (number, (at, rating)) in listed.into_iter().enumerate() {
                let rating = rating.as_object().ok_or_else(|| at.wrong("an object is expected"))?;
                let definition = definition(metric, rating, number, &at)?;
                if is_list && rating.get("alt_name").is_none() {
                    return Err(at.wrong("each rating of a list needs an alt_name"));
                }
                let is_taken = |own: &MetricDefinition| {
                    own.service == definition.service
                        && own.collecting.resource_type == definition.collecting.resource_type
                };
                if definitions.iter().any(is_taken) {
                    return Err(at.field("alt_name").wrong(format!("`{}` is charged already", definition.service)));
                }
                definitions.push(definition);
                if definitions.len() > RATINGS_MAX {
                    return Err(at.wrong(format!("there are more than {RATINGS_MAX} ratings")));
                }
            }
        }
        Ok(Self { definitions })
    }

    /// The ratings of a service.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a MetricDefinition> {
        self.definitions.iter().filter(move |definition| definition.service == service)
    }
}

impl MetricDefinition {
    /// All names that tell its usage apart or that rules look at, each once.
    pub fn facts(&self) -> impl Iterator<Item = &String> {
        let more = self.metadata.iter().filter(|name| !self.groupby.contains(name));
        self.groupby.iter().chain(more)
    }
}

fn name(text: &str, at: &At<'_>) -> Result<(), MetricsError> {
    match text.len() {
        0 => Err(at.wrong("a name is empty")),
        length if length > NAME_BYTES_MAX => Err(at.wrong(format!("a name has more than {NAME_BYTES_MAX} bytes"))),
        _ => Ok(()),
    }
}

fn text(fields: &Map<String, Value>, key: &str, at: &At<'_>) -> Result<Option<String>, MetricsError> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => name(text, &at.field(key)).map(|()| Some(text.clone())),
        Some(other) => Err(at.field(key).wrong(format!("a text is expected, and this is `{other}`"))),
    }
}

fn names(fields: &Map<String, Value>, key: &str, at: &At<'_>) -> Result<Vec<String>, MetricsError> {
    let at = at.field(key);
    let list = match fields.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= NAMES_MAX => list,
        Some(Value::Array(_)) => return Err(at.wrong(format!("there are more than {NAMES_MAX}"))),
        Some(other) => return Err(at.wrong(format!("a list of names is expected, and this is `{other}`"))),
    };
    let mut found: Vec<String> = Vec::new();
    for value in list {
        let own = value.as_str().ok_or_else(|| at.wrong(format!("a name is expected, and this is `{value}`")))?;
        name(own, &at)?;
        if !found.iter().any(|known| known == own) {
            found.push(own.to_owned());
        }
    }
    Ok(found)
}

/// A number, or a fraction as a text: `1/3`.
fn number(fields: &Map<String, Value>, key: &str, default: u8, at: &At<'_>) -> Result<BigDecimal, MetricsError> {
    let at = at.field(key);
    let written = match fields.get(key) {
        None | Some(Value::Null) => return Ok(BigDecimal::from(default)),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(at.wrong(format!("a number or a fraction is expected, and this is `{other}`"))),
    };
    let part = |text: &str| decimal(text).map_err(|error| at.wrong(error));
    match written.split_once('/') {
        None => part(&written),
        Some((above, below)) => {
            let below = part(below)?;
            if below.is_zero() {
                return Err(at.wrong("nothing can be divided by zero"));
            }
            Ok((part(above)? / below).with_prec(FRACTION_DIGITS))
        }
    }
}

fn definition(
    metric: &str,
    fields: &Map<String, Value>,
    number_of: usize,
    at: &At<'_>,
) -> Result<MetricDefinition, MetricsError> {
    const KEYS: [&str; 11] = [
        "description",
        "unit",
        "factor",
        "offset",
        "alt_name",
        "groupby",
        "metadata",
        "mutate",
        "mutate_map",
        "extra_args",
        "skip_datapoints_expression",
    ];
    if let Some(unknown) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(at.field(unknown).wrong(format!("this key is not known; there are {}", KEYS.join(", "))));
    }
    if fields.contains_key("skip_datapoints_expression") {
        return Err(at.field("skip_datapoints_expression").wrong("this is Python, which is not run here"));
    }
    let unit = text(fields, "unit", at)?.ok_or_else(|| at.field("unit").wrong("it is missing"))?;
    let mutate = text(fields, "mutate", at)?.unwrap_or_else(|| "NONE".to_owned());
    let conversion = Conversion {
        factor: number(fields, "factor", 1, at)?,
        offset: number(fields, "offset", 0, at)?,
        mutation: mutation(&mutate, fields, at)?,
    };
    let (collecting, usage) = extra(fields, at)?;
    let usage = usage.unwrap_or_else(|| usage_of(metric, &conversion.mutation));
    let mut groupby = names(fields, "groupby", at)?;
    for needed in [collecting.resource_key.as_str(), SCOPE_KEY] {
        if !groupby.iter().any(|own| own == needed) {
            groupby.push(needed.to_owned());
        }
    }
    Ok(MetricDefinition {
        metric: metric.to_owned(),
        service: text(fields, "alt_name", at)?.unwrap_or_else(|| metric.to_owned()),
        description: text(fields, "description", at)?,
        unit,
        conversion,
        mutate,
        groupby,
        metadata: names(fields, "metadata", at)?,
        usage,
        collecting,
        number: number_of,
    })
}

/// How a metric's usage comes about where nothing is said.
fn usage_of(metric: &str, mutation: &Mutation) -> UsageKind {
    // Ceilometer's cumulative meters.
    const COUNTERS: [&str; 5] = [".bytes", ".packets", ".requests", ".packets.drop", ".packets.error"];
    match mutation {
        Mutation::NumBool | Mutation::NotNumBool => UsageKind::Existence,
        _ if metric == "cpu" || COUNTERS.iter().any(|ending| metric.ends_with(ending)) => UsageKind::Increase,
        _ => UsageKind::Level,
    }
}

fn mutation(name: &str, fields: &Map<String, Value>, at: &At<'_>) -> Result<Mutation, MetricsError> {
    let table = fields.get("mutate_map");
    if table.is_some() && name != "MAP" {
        return Err(at.field("mutate_map").wrong("it needs mutate: MAP"));
    }
    match name {
        "NONE" => Ok(Mutation::None),
        "CEIL" => Ok(Mutation::Ceil),
        "FLOOR" => Ok(Mutation::Floor),
        "NUMBOOL" => Ok(Mutation::NumBool),
        "NOTNUMBOOL" => Ok(Mutation::NotNumBool),
        "MAP" => {
            let at = at.field("mutate_map");
            let table =
                table.and_then(Value::as_object).ok_or_else(|| at.wrong("mutate: MAP needs an object of numbers"))?;
            let mut entries = Vec::with_capacity(table.len());
            for (from, to) in table {
                let at = at.field(from);
                let to = match to {
                    Value::Number(number) => number.to_string(),
                    Value::String(text) => text.clone(),
                    other => return Err(at.wrong(format!("a number is expected, and this is `{other}`"))),
                };
                let number = |text: &str| decimal(text).map_err(|error| at.wrong(error));
                entries.push((number(from)?, number(&to)?));
            }
            Ok(Mutation::Map(entries))
        }
        other => Err(at
            .field("mutate")
            .wrong(format!("`{other}` is not known; there are NONE, NUMBOOL, NOTNUMBOOL, FLOOR, CEIL, MAP"))),
    }
}

fn extra(fields: &Map<String, Value>, at: &At<'_>) -> Result<(Collecting, Option<UsageKind>), MetricsError> {
    const KEYS: [&str; 8] = [
        "resource_type",
        "resource_key",
        "aggregation_method",
        "re_aggregation_method",
        "force_granularity",
        "use_all_resource_revisions",
        "custom_query",
        "usage",
    ];
    const METHODS: [&str; 9] = ["max", "mean", "min", "sum", "last", "first", "count", "std", "median"];
    let at = at.field("extra_args");
    let extra = match fields.get("extra_args") {
        Some(Value::Object(extra)) => extra,
        _ => return Err(at.wrong("an object with resource_type is expected")),
    };
    if let Some(unknown) = extra.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(at.field(unknown).wrong(format!("this key is not known; there are {}", KEYS.join(", "))));
    }
    if extra.get("custom_query").is_some_and(|query| query != "") {
        return Err(at.field("custom_query").wrong("usage is not read by aggregation here; leave it empty"));
    }
    let method = |key: &str| -> Result<String, MetricsError> {
        let method = text(extra, key, &at)?.unwrap_or_else(|| "max".to_owned());
        if METHODS.contains(&method.strip_prefix("rate:").unwrap_or(&method)) {
            return Ok(method);
        }
        Err(at
            .field(key)
            .wrong(format!("`{method}` is not known; there are {}, and rate: before each", METHODS.join(", "))))
    };
    let usage = match text(extra, "usage", &at)?.as_deref() {
        None => None,
        Some("existence") => Some(UsageKind::Existence),
        Some("level") => Some(UsageKind::Level),
        Some("increase") => Some(UsageKind::Increase),
        Some(other) => {
            return Err(at
                .field("usage")
                .wrong(format!("`{other}` is not known; there are existence, level, increase")));
        }
    };
    let force_granularity = match extra.get("force_granularity") {
        None | Some(Value::Null) => 3600,
        Some(value) => {
            value.as_u64().ok_or_else(|| at.field("force_granularity").wrong("a number of seconds is expected"))?
        }
    };
    let use_all_resource_revisions = match extra.get("use_all_resource_revisions") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            let reason = format!("true or false is expected, and this is `{other}`");
            return Err(at.field("use_all_resource_revisions").wrong(reason));
        }
    };
    let resource_type =
        text(extra, "resource_type", &at)?.ok_or_else(|| at.field("resource_type").wrong("it is missing"))?;
    let collecting = Collecting {
        resource_type,
        resource_key: text(extra, "resource_key", &at)?.unwrap_or_else(|| "id".to_owned()),
        aggregation_method: method("aggregation_method")?,
        re_aggregation_method: method("re_aggregation_method")?,
        force_granularity,
        use_all_resource_revisions,
    };
    Ok((collecting, usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(ratings: &str) -> Result<Metrics, String> {
        Metrics::parse(&format!("metrics:\n  cpu: {ratings}\n"), "m.yml").map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_ones_are_read() {
        let metrics = Metrics::shipped();
        let services: Vec<_> = metrics.definitions.iter().map(|own| (own.service.as_str(), own.usage)).collect();
        assert_eq!(services[0], ("instance", UsageKind::Existence));
        assert_eq!(services[1], ("image.size", UsageKind::Level));
        assert_eq!(services[3], ("network.incoming.bytes", UsageKind::Increase));
        let image = metrics.of_service("image.size").next().expect("images");
        assert_eq!(image.conversion.apply(&BigDecimal::from(1_048_576)).with_scale(10), BigDecimal::from(1));
    }

    #[test]
    fn one_metric_may_have_several_ratings() {
        let metrics = parse(
            "[{unit: i, alt_name: a, mutate: MAP, mutate_map: {1: 0.5, 2: '7'}, extra_args: {resource_type: instance}}, \
             {unit: s, alt_name: b, factor: 1/3, offset: -1, groupby: [id, x, x], metadata: [m], \
             extra_args: {resource_type: instance, resource_key: name, force_granularity: 0}}]",
        )
        .expect("read");
        let [a, b] = &metrics.definitions[..] else { panic!("two") };
        assert_eq!((a.service.as_str(), a.metric.as_str(), a.number), ("a", "cpu", 0));
        assert_eq!(a.conversion.apply(&BigDecimal::from(2)), BigDecimal::from(7));
        assert_eq!(b.groupby, ["id", "x", "name", "project_id"]);
        assert_eq!(b.facts().count(), 5);
        assert_eq!(b.usage, UsageKind::Increase);
        assert_eq!(b.conversion.factor.to_string(), "0.3333333333333333333333333333");
        assert!(b.collecting.use_all_resource_revisions);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_place() {
        for (ratings, told) in [
            ("{}", "m.yml: metrics.cpu.unit: it is missing"),
            ("[]", "m.yml: metrics.cpu: an object, or a list with at least one object, is expected"),
            ("{unit: i}", "m.yml: metrics.cpu.extra_args: an object with resource_type is expected"),
            ("{unit: i, extra_args: {}}", "m.yml: metrics.cpu.extra_args.resource_type: it is missing"),
            ("{unit: i, unti: j}", "m.yml: metrics.cpu.unti: this key is not known; there are description, unit, "),
            ("{unit: 3}", "m.yml: metrics.cpu.unit: a text is expected, and this is `3`"),
            ("{unit: i, factor: 1/0}", "m.yml: metrics.cpu.factor: nothing can be divided by zero"),
            ("{unit: i, factor: x}", "m.yml: metrics.cpu.factor: `x` is no decimal number: digits are expected"),
            ("{unit: i, mutate: BOOL}", "m.yml: metrics.cpu.mutate: `BOOL` is not known; there are NONE, "),
            ("{unit: i, mutate: MAP}", "m.yml: metrics.cpu.mutate_map: mutate: MAP needs an object of numbers"),
            ("{unit: i, mutate: MAP, mutate_map: {a: 1}}", "m.yml: metrics.cpu.mutate_map.a: `a` is no decimal"),
            ("{unit: i, mutate_map: {1: 1}}", "m.yml: metrics.cpu.mutate_map: it needs mutate: MAP"),
            (
                "{unit: i, groupby: id, extra_args: {resource_type: r}}",
                "m.yml: metrics.cpu.groupby: a list of names is expected, and this is",
            ),
            (
                "{unit: i, extra_args: {resource_type: r, usage: all}}",
                "m.yml: metrics.cpu.extra_args.usage: `all` is not",
            ),
            (
                "{unit: i, extra_args: {resource_type: r, aggregation_method: avg}}",
                "m.yml: metrics.cpu.extra_args.aggregation_method: `avg` is not known",
            ),
            (
                "[{unit: i, extra_args: {resource_type: r}}]",
                "m.yml: metrics.cpu[0]: each rating of a list needs an alt_name",
            ),
            (
                "[{unit: i, alt_name: a, extra_args: {resource_type: r}}, \
                 {unit: i, alt_name: a, extra_args: {resource_type: r}}]",
                "m.yml: metrics.cpu[1].alt_name: `a` is charged already",
            ),
            ("{unit: i, skip_datapoints_expression: 'x'}", "m.yml: metrics.cpu.skip_datapoints_expression: this is"),
        ] {
            let error = parse(ratings).expect_err(ratings);
            assert!(error.starts_with(told), "{ratings}: {error}");
        }
        for text in ["metrics: {}", "metrics: 1", "[]", "a: 1", "metrics:\n  {"] {
            assert!(Metrics::parse(text, "m.yml").is_err(), "{text}");
        }
    }
}
