//! The language of the scripts: one command or expectation a line. `scripts/README.md` describes it.

use std::collections::BTreeMap;

use orzo_model::{Clock, Event, Scope, Timestamp, Trait, TraitValue};
use serde_json::{Value, json};

use super::bench::Bench;
use crate::{
    alarm::{Alarm, AlarmRequest, AlarmState},
    book::{NoticeFilter, partition_of},
};

/// One script of a file.
pub(crate) struct Script {
    pub(crate) file: String,
    pub(crate) name: String,
    /// Lines with their numbers in the file.
    pub(crate) lines: Vec<(usize, String)>,
}

/// What is done to a script to see it fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mutation {
    /// Nothing: it must hold.
    None,
    /// The expectation of this line is made wrong.
    Flip(usize),
    /// The evaluator never looks.
    Idle,
}

/// Words that begin an expectation.
const EXPECTATIONS: [&str; 9] = ["state", "reason", "notices", "told", "data", "history", "asked", "reads", "owner"];

/// The scripts of a file: each begins with `== name`.
pub(crate) fn scripts(file: &str, text: &str) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("== ") {
            scripts.push(Script { file: file.to_owned(), name: name.to_owned(), lines: Vec::new() });
        } else if !line.is_empty() && !line.starts_with('#') {
            let script = scripts.last_mut().unwrap_or_else(|| panic!("{file}: a line before the first script"));
            script.lines.push((place + 1, line.to_owned()));
        }
    }
    scripts
}

impl Script {
    /// The lines that expect something.
    pub(crate) fn expectations(&self) -> Vec<usize> {
        let is_one = |line: &str| EXPECTATIONS.iter().any(|word| line.split_whitespace().next() == Some(word));
        self.lines.iter().filter(|(_, line)| is_one(line)).map(|(place, _)| *place).collect()
    }

    /// Runs it. `Err` says which line does not hold and what is there instead.
    pub(crate) async fn run(&self, mutation: Mutation) -> Result<(), String> {
        let mut run = Run {
            bench: Bench::new("2026-11-20T00:00:00Z".parse().expect("a time"), mutation == Mutation::Idle).await,
            start: "2026-11-20T00:00:00Z".parse().expect("a time"),
            alarms: BTreeMap::new(),
            events: 0,
        };
        for (place, line) in &self.lines {
            let is_flipped = mutation == Mutation::Flip(*place);
            run.step(line, is_flipped, mutation == Mutation::Idle)
                .await
                .map_err(|error| format!("{}:{place} ({}): {line}\n  {error}", self.file, self.name))?;
        }
        Ok(())
    }
}

struct Run {
    bench: Bench,
    start: Timestamp,
    /// Ids by name.
    alarms: BTreeMap<String, String>,
    events: usize,
}

impl Run {
    async fn step(&mut self, line: &str, is_flipped: bool, is_idle: bool) -> Result<(), String> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "start" => {
                self.start = rest.parse().map_err(|error| format!("{error}"))?;
                self.bench = Bench::new(self.start, is_idle).await;
            }
            "at" => self.bench.run_to(self.time(rest)?).await,
            "skip" => {
                // Time passes and nobody looks.
                self.bench.clock.set(self.time(rest)?);
            }
            "tick" => self.bench.tick().await,
            "alarm" => self.alarm(rest).await?,
            "update" => {
                let (name, body) = rest.split_once(' ').ok_or("update NAME {json}")?;
                let before = self.get(name).await?;
                let mut json = before.to_json();
                merge(&mut json, &parse(body)?);
                let request = AlarmRequest::parse(&json, true).map_err(|error| error.to_string())?;
                let done = self.bench.book.update(&before, &request, "u", &before.project_id).await;
                done.map_err(|error| error.to_string())?;
            }
            "set" => {
                let (name, state) = rest.split_once(' ').ok_or("set NAME STATE")?;
                let before = self.get(name).await?;
                let state = state_of(state)?;
                let done = self.bench.book.set_state(&before, state, "u", &before.project_id).await;
                done.map_err(|error| error.to_string())?;
            }
            "delete" => {
                let id = self.id(rest)?;
                self.bench.book.delete(&Scope::All, &id).await.map_err(|error| error.to_string())?;
            }
            "resource" => {
                let mut words = rest.split_whitespace();
                let id = words.next().ok_or("resource ID name=value ...")?;
                let attributes = words.filter_map(|word| word.split_once('='));
                let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                self.bench.resource(id, attributes);
            }
            "load" => self.load(rest)?,
            "event" => self.event(rest)?,
            "pool" => {
                let (pool, members) = rest.split_once(' ').ok_or("pool ID [json] or down")?;
                let members = match members {
                    "down" => None,
                    json => Some(parse(json)?.as_array().cloned().ok_or("a list of members")?),
                };
                self.bench.set_pool(pool, members);
            }
            "prometheus" => {
                let mut words = rest.split_whitespace();
                let query = words.next().ok_or("prometheus QUERY value ... or down")?;
                let values: Vec<&str> = words.collect();
                let values = match values.as_slice() {
                    ["down"] => None,
                    values => Some(values.iter().map(|value| number(value)).collect::<Result<_, _>>()?),
                };
                self.bench.set_query(query, values);
            }
            "down" => self.bench.set_down(true),
            "up" => self.bench.set_down(false),
            "restart" => self.bench.restart(),
            "stop" => self.bench.stop().await,
            "second" => self.bench.add_worker(),
            "pause" => self.bench.pause(rest.parse().map_err(|_| "pause NUMBER")?, true),
            "resume" => self.bench.pause(rest.parse().map_err(|_| "resume NUMBER")?, false),
            other => return self.expect(other, rest, is_flipped).await,
        }
        Ok(())
    }

    async fn expect(&self, word: &str, rest: &str, is_flipped: bool) -> Result<(), String> {
        let (name, wanted) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let wanted = wanted.trim();
        let (found, wanted) = match word {
            "state" => (self.get(name).await?.state.to_string(), state_of(wanted)?.to_string()),
            "reason" => (self.get(name).await?.state_reason, wanted.to_owned()),
            "told" => (self.last_notice(name).await?["reason"].as_str().unwrap_or_default().to_owned(), wanted.into()),
            "data" => {
                // Only the fields that are named.
                let found = self.last_notice(name).await?["reason_data"].clone();
                let wanted = parse(wanted)?;
                let fields = wanted.as_object().ok_or("an object")?;
                let found: BTreeMap<&String, &Value> = fields.keys().map(|key| (key, &found[key])).collect();
                (json!(found).to_string(), wanted.to_string())
            }
            "notices" => {
                let states = self.notices(name).await?;
                let states: Vec<&str> = states.iter().map(|body| short(body["current"].as_str())).collect();
                let wanted: Vec<&str> = wanted.split_whitespace().collect();
                (states.join(" "), wanted.join(" "))
            }
            "history" => {
                let id = self.id(name)?;
                let history =
                    self.bench.book.history(&Scope::All, &id, 1000).await.map_err(|error| error.to_string())?;
                let count = history.iter().filter(|change| change.kind == "state transition").count();
                (count.to_string(), wanted.to_owned())
            }
            "asked" => (self.bench.asked().last().cloned().unwrap_or_default(), rest.to_owned()),
            "reads" => (self.bench.reads().to_string(), rest.to_owned()),
            "owner" => (partition_of(&self.id(name)?).to_string(), wanted.to_owned()),
            other => return Err(format!("`{other}` is no command")),
        };
        // A wrong expectation for the sake of the test: it must be noticed.
        let wanted = if is_flipped { format!("{wanted} and not this") } else { wanted };
        if found == wanted { Ok(()) } else { Err(format!("found `{found}`")) }
    }

    /// `alarm NAME TYPE {rule}` and, after it, `| {other fields}`; `@project` and `@operator` after the name.
    async fn alarm(&mut self, rest: &str) -> Result<(), String> {
        let (head, json) = rest.split_once('{').ok_or("alarm NAME TYPE {rule}")?;
        let (rule, others) = json.split_once(" | ").unwrap_or((json, "{}"));
        let words: Vec<&str> = head.split_whitespace().collect();
        let [name, type_name, owner @ ..] = words.as_slice() else { return Err("alarm NAME TYPE {rule}".into()) };
        let mut rule = parse(&format!("{{{rule}"))?;
        defaults(type_name, &mut rule);
        if *type_name == "combination" {
            let ids = rule["alarm_ids"].as_array().cloned().unwrap_or_default();
            let ids: Result<Vec<String>, String> = ids
                .iter()
                .map(|id| {
                    let name = id.as_str().unwrap_or_default();
                    Ok(self.id(name).unwrap_or_else(|_| name.to_owned()))
                })
                .collect();
            rule["alarm_ids"] = json!(ids?);
        }
        let mut body = json!({
            "name": name, "type": type_name, "alarm_actions": ["http://203.0.113.7/alarm"],
            "ok_actions": ["http://203.0.113.7/ok"], "insufficient_data_actions": ["http://203.0.113.7/unknown"],
        });
        body[format!("{type_name}_rule")] = rule;
        merge(&mut body, &parse(others)?);
        let project = owner.iter().find_map(|word| word.strip_prefix('@')).filter(|word| *word != "operator");
        let is_operators = owner.contains(&"@operator");
        let alarm = self.bench.create(&body, project.unwrap_or("p"), is_operators).await;
        self.alarms.insert((*name).to_owned(), alarm.alarm_id);
        Ok(())
    }

    /// `load RESOURCE METRIC FIRST STEP value ...`; `_` for none.
    fn load(&self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [resource, metric, first, step, values @ ..] = words.as_slice() else {
            return Err("load RESOURCE METRIC FIRST STEP value ...".into());
        };
        let (first, step) = (number(first)?, number(step)?);
        let mut samples = Vec::new();
        for (place, value) in values.iter().enumerate() {
            if *value != "_" {
                let at = self.start.secs_f64() + first + step * place as f64;
                samples.push((Timestamp::from_secs_f64(at).ok_or("a time")?, number(value)?));
            }
        }
        self.bench.write(resource, metric, &samples);
        Ok(())
    }

    /// `event TYPE {"traits": {name: value}}`; a project of its own unless `project_id` is among them.
    fn event(&mut self, rest: &str) -> Result<(), String> {
        let (event_type, facts) = rest.split_once(' ').unwrap_or((rest, "{}"));
        self.events += 1;
        let mut traits = Vec::new();
        let facts = parse(facts)?;
        let facts = facts.as_object().ok_or("an object of traits")?;
        if !facts.contains_key("project_id") && !facts.contains_key("tenant_id") {
            traits.push(Trait { name: "project_id".into(), value: TraitValue::Text("p".into()) });
        }
        for (name, value) in facts {
            let value = match value {
                Value::Null => continue,
                Value::Number(number) if number.is_f64() => TraitValue::Float(number.as_f64().ok_or("a number")?),
                Value::Number(number) => TraitValue::Integer(number.as_i64().ok_or("a number")?),
                Value::String(text) => match text.strip_prefix("time:") {
                    Some(time) => TraitValue::Datetime(time.parse().map_err(|error| format!("{error}"))?),
                    None => TraitValue::Text(text.clone()),
                },
                other => return Err(format!("{other} is no trait")),
            };
            traits.push(Trait { name: name.clone(), value });
        }
        let now = self.bench.clock.now();
        let event = Event {
            message_id: format!("m{}", self.events),
            event_type: event_type.to_owned(),
            generated_at: now,
            traits,
            raw: None,
        };
        self.bench.event(event, now);
        Ok(())
    }

    fn time(&self, text: &str) -> Result<Timestamp, String> {
        match text.parse::<Timestamp>() {
            Ok(time) if text.contains('-') => Ok(time),
            _ => Timestamp::from_secs_f64(self.start.secs_f64() + number(text)?).ok_or_else(|| "a time".to_owned()),
        }
    }

    fn id(&self, name: &str) -> Result<String, String> {
        self.alarms.get(name).cloned().ok_or_else(|| format!("there is no alarm {name}"))
    }

    async fn get(&self, name: &str) -> Result<Alarm, String> {
        self.bench.book.get(&Scope::All, &self.id(name)?).await.map_err(|error| error.to_string())
    }

    /// Bodies of an alarm's notices, oldest first.
    async fn notices(&self, name: &str) -> Result<Vec<Value>, String> {
        let filter = NoticeFilter { alarm_id: Some(self.id(name)?), limit: Some(1000), ..NoticeFilter::default() };
        let found = self.bench.book.find_notices(&Scope::All, &filter).await.map_err(|error| error.to_string())?;
        let mut found: Vec<(Timestamp, Value)> =
            found.iter().map(|notice| (notice.created_at, serde_json::from_str(&notice.body).expect("JSON"))).collect();
        found.sort_by_key(|(at, _)| *at);
        let times: Vec<Timestamp> = found.iter().map(|(at, _)| *at).collect();
        let mut bodies: Vec<Value> = found.into_iter().map(|(_, body)| body).collect();
        // Of several at one moment each begins where the one before ended.
        let mut before = json!(self.first_state(name).await?);
        for place in 0..bodies.len() {
            let same = |at: &usize| times[*at] == times[place] && bodies[*at]["previous"] == before;
            if let Some(next) = (place..bodies.len()).find(same) {
                bodies.swap(place, next);
            }
            before = bodies[place]["current"].clone();
        }
        Ok(bodies)
    }

    /// The state that an alarm was made with.
    async fn first_state(&self, name: &str) -> Result<String, String> {
        let id = self.id(name)?;
        let history = self.bench.book.history(&Scope::All, &id, 1000).await.map_err(|error| error.to_string())?;
        let creation = history.iter().find(|change| change.kind == "creation").ok_or("no creation")?;
        let made = parse(&creation.detail)?;
        Ok(made["state"].as_str().unwrap_or("insufficient data").to_owned())
    }

    async fn last_notice(&self, name: &str) -> Result<Value, String> {
        self.notices(name).await?.pop().ok_or_else(|| "there is no notice".to_owned())
    }
}

/// What a script need not say.
fn defaults(type_name: &str, rule: &mut Value) {
    let is_windowed = type_name.starts_with("gnocchi_");
    if is_windowed {
        fill(rule, &json!({"aggregation_method": "mean", "comparison_operator": "gt", "threshold": 80}));
    }
    match type_name {
        "gnocchi_resources_threshold" => {
            fill(rule, &json!({"metric": "cpu", "resource_id": "r", "resource_type": "instance"}));
        }
        "gnocchi_aggregation_by_resources_threshold" => {
            fill(rule, &json!({"metric": "cpu", "resource_type": "instance", "query": "{}"}));
        }
        "threshold" => fill(rule, &json!({"meter_name": "cpu", "comparison_operator": "gt", "threshold": 80})),
        "prometheus" => fill(rule, &json!({"comparison_operator": "gt", "threshold": 80})),
        "loadbalancer_member_health" => {
            fill(rule, &json!({"pool_id": "pool", "stack_id": "s", "autoscaling_group_id": "g"}));
        }
        "composite" => {
            for (operator, parts) in rule.as_object_mut().into_iter().flatten() {
                for part in parts.as_array_mut().into_iter().flatten().filter(|_| operator != "type") {
                    let part_type = part["type"].as_str().unwrap_or("composite").to_owned();
                    defaults(&part_type, part);
                }
            }
        }
        _ => {}
    }
}

fn fill(json: &mut Value, defaults: &Value) {
    for (key, value) in defaults.as_object().into_iter().flatten() {
        if json.get(key).is_none() {
            json[key] = value.clone();
        }
    }
}

/// Objects field by field, everything else whole.
fn merge(json: &mut Value, with: &Value) {
    match with {
        Value::Object(fields) if json.is_object() => fields.iter().for_each(|(key, value)| {
            if json.get(key).is_some_and(Value::is_object) {
                merge(&mut json[key], value);
            } else {
                json[key] = value.clone();
            }
        }),
        other => *json = other.clone(),
    }
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn state_of(text: &str) -> Result<AlarmState, String> {
    match text {
        "unknown" => Ok(AlarmState::InsufficientData),
        other => AlarmState::parse(other).ok_or_else(|| format!("`{other}` is no state")),
    }
}

fn short(state: Option<&str>) -> &str {
    match state {
        Some("insufficient data") => "unknown",
        other => other.unwrap_or("?"),
    }
}
