//! The questions: the files beside this one with their places filled. Pure.

use std::time::Duration;

use orzo_model::Timestamp;
use orzo_rating::{MetricDefinition, UsageKind};

/// Resources of one question, and bytes of their names, which stand in it several times: it may have 64 KiB.
const RESOURCES_AT_ONCE: usize = 200;
const RESOURCE_BYTES_AT_ONCE: usize = 8 << 10;

/// Traits of events that do not tell what a resource is like; of these names only polling can know something.
const NOT_FACTS: [&str; 13] = [
    "service",
    "request_id",
    "tenant_id",
    "resource_id",
    "instance_id",
    "created_at",
    "launched_at",
    "deleted_at",
    "terminated_at",
    "old_state",
    "new_task_state",
    "audit_period_beginning",
    "audit_period_ending",
];
/// Names that every line of a resource in a project has in common.
const SAME_FOR_ALL: [&str; 4] = ["id", "original_resource_id", "project_id", "type"];

/// A project, and the time until which it is rated.
pub(in super::super) struct Stretch<'a> {
    pub(in super::super) scope: &'a str,
    pub(in super::super) from: Timestamp,
    pub(in super::super) until: Timestamp,
    pub(in super::super) period: Duration,
}

/// A part of a stretch: a time, some resources, and a metric.
pub(super) struct Part<'a> {
    pub(super) stretch: &'a Stretch<'a>,
    pub(super) definition: &'a MetricDefinition,
    pub(super) resources: &'a [String],
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// A text as SQL writes it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time as SQL writes it: in microseconds, as columns are. Beside a mere text they would be read in nanoseconds, which end in
/// 2262 and begin in 1677.
pub(super) fn time(at: Timestamp) -> String {
    format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"+00:00\"))')", quoted(&at.zulu_micros()))
}

/// The rules under which a metric's lines are in the ledger: that of the hashmap, and the same with any expression on it.
fn rules(definition: &MetricDefinition) -> (String, String) {
    let rule = format!("hashmap/{}/{}", definition.service, definition.number);
    (quoted(&rule), quoted(&format!("{rule}/expression/")))
}

/// The trait or attribute in which a level's size is told, where it is not only measured.
pub(super) fn level_trait(definition: &MetricDefinition) -> Option<&'static str> {
    match (definition.usage, definition.metric.as_str()) {
        (UsageKind::Level, "volume" | "volume.size" | "image.size") => Some("size"),
        (UsageKind::Level, "vcpus") => Some("vcpus"),
        (UsageKind::Level, "memory") => Some("memory_mb"),
        (UsageKind::Level, "disk.root.size") => Some("root_gb"),
        (UsageKind::Level, "disk.ephemeral.size") => Some("ephemeral_gb"),
        _ => None,
    }
}

/// The trait of events that tells a fact, where it has another name.
fn trait_of(fact: &str) -> String {
    let own = format!("traits[{}]", quoted(fact));
    let other = match fact {
        "flavor_name" => "instance_type",
        "flavor_id" => "instance_type_id",
        "volume_type" => "type",
        _ => return own,
    };
    format!("coalesce({own}, traits['{other}'])")
}

/// Puts values in the places of a question. What stands in values is not looked at again.
pub(super) fn filled(question: &str, values: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(question.len() * 2);
    let mut rest = question;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, after) = after.split_once('}').expect("the files of this program have no other braces");
        let value = values.iter().find(|(own, _)| *own == name).map(|(_, value)| value);
        text.push_str(value.expect("every place of the files of this program is filled"));
        rest = after;
    }
    text.push_str(rest);
    text
}

impl Part<'_> {
    /// What every question about lines has in common.
    pub(super) fn values(&self) -> Vec<(&'static str, String)> {
        let resources: Vec<String> = self.resources.iter().map(|name| quoted(name)).collect();
        let (rule, rule_with_expression) = rules(self.definition);
        let mut values = vec![
            ("scope", quoted(self.stretch.scope)),
            ("resources", resources.join(", ")),
            ("rule", rule),
            ("rule_with_expression", rule_with_expression),
            ("type", quoted(&self.definition.collecting.resource_type)),
            ("metric", quoted(&self.definition.metric)),
            ("from", time(self.from)),
            ("until", time(self.until)),
            ("from_second", self.from.secs().to_string()),
            ("until_second", self.until.secs().to_string()),
            ("period", self.stretch.period.as_secs().to_string()),
        ];
        let effective = filled(include_str!("effective.sql"), &values);
        values.push(("effective", effective));
        values
    }

    /// The question of `lasting.sql`.
    pub(super) fn lasting(&self) -> String {
        let mut values = self.values();
        let (mut traits, mut tells, mut so_far, mut contradicts) = <(String, String, String, String)>::default();
        let (mut of_state, mut of_line) = (Vec::new(), Vec::new());
        for (place, name) in self.definition.facts().enumerate() {
            if SAME_FOR_ALL.contains(&name.as_str()) || NOT_FACTS.contains(&name.as_str()) {
                continue;
            }
            let (text, kept) =
                (quoted(name), if self.definition.groupby.contains(name) { "groupby" } else { "metadata" });
            let said = match name.as_str() {
                "user_id" => "owner".to_owned(),
                _ => format!("fact_{place}"),
            };
            if said != "owner" {
                traits.push_str(&format!(",\n           {} AS {said}", trait_of(name)));
                tells.push_str(&format!(
                    ",\n           coalesce(bool_or({said} IS NOT NULL) FILTER (WHERE NOT is_preliminary), FALSE) AS tells_{said}"
                ));
                so_far.push_str(&format!(",\n           last_value({said}) IGNORE NULLS OVER before AS {said}"));
                contradicts.push_str(&format!(" OR r.attributes[{text}] <> s.{said}"));
            }
            let shown =
                |value: String| format!("CASE WHEN v.tells_{said} THEN {text} || '=' || coalesce({value}, '') END");
            of_state.push(shown(format!("s.{said}")));
            of_line.push(shown(format!("e.{kept}[{text}]")));
        }
        let joined = |parts: Vec<String>| match parts.is_empty() {
            true => "''".to_owned(),
            false => format!("concat_ws(', ', {})", parts.join(", ")),
        };
        let level = match (self.definition.usage, level_trait(self.definition)) {
            (_, Some(name)) => (format!("traits['{name}']"), format!("attributes['{name}']")),
            (UsageKind::Existence, None) => ("'1'".to_owned(), "NULL".to_owned()),
            (_, None) => ("NULL".to_owned(), "NULL".to_owned()),
        };
        values.extend([("traits", traits), ("tells", tells), ("so_far", so_far), ("contradicts", contradicts)]);
        values.extend([("facts_of_state", joined(of_state)), ("facts_of_line", joined(of_line))]);
        values.extend([("level", level.0), ("polled_level", level.1)]);
        filled(include_str!("lasting.sql"), &values)
    }
}

/// The question of `outside.sql`.
pub(super) fn outside(stretch: &Stretch<'_>, definitions: &[MetricDefinition]) -> String {
    let is_charged = definitions.iter().map(|own| {
        let (rule, rule_with_expression) = rules(own);
        format!("rule = {rule} OR starts_with(rule, {rule_with_expression})")
    });
    let is_charged: Vec<String> = is_charged.collect();
    let values =
        [("scope", quoted(stretch.scope)), ("until", time(stretch.until)), ("is_charged", is_charged.join(" OR "))];
    filled(include_str!("outside.sql"), &values)
}

/// Names for one question after the other.
pub(super) fn chunks(all: &[String]) -> Vec<&[String]> {
    let mut found = Vec::new();
    let mut rest = all;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(RESOURCES_AT_ONCE).take_while(|name| {
            bytes += quoted(name).len();
            bytes <= RESOURCE_BYTES_AT_ONCE
        });
        // One that does not fit is asked for alone.
        let (some, others) = rest.split_at(fitting.count().max(1));
        found.push(some);
        rest = others;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_texts_are_quoted() {
        let values = [("a", quoted("it's {b}")), ("b", "2".to_owned())];
        assert_eq!(filled("x {a} {b}", &values), "x 'it''s {b}' 2");
    }

    #[test]
    fn names_are_asked_for_in_parts_and_none_is_left_out() {
        let all: Vec<String> = (0..450).map(|number| "x".repeat(number % 90)).collect();
        let parts = chunks(&all);
        assert_eq!(parts.concat(), all);
        assert!(
            parts.len() > 2 && parts.iter().all(|part| part.iter().map(|own| own.len() + 2).sum::<usize>() <= 8192)
        );
        let long = ["y".repeat(9000), "z".to_owned()];
        assert_eq!(chunks(&long).len(), 2);
    }
}
