//! A policy file in oslo.policy's YAML: `"delete resource": "role:admin"`. What it does not name keeps its default.
//!
//! In comes text, out come rules or an error with file and line. A name that is neither a policy of Gnocchi's nor used by
//! another rule is an error: a mistyped policy would leave something open that its author believes shut.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::{
    Rules,
    actions::{ACTIONS, HELPERS},
    check::{Check, is_cyclic, parse},
};

/// Largest file; one with every policy of Gnocchi's and its comments has 20 KiB.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Policies {
    pub(super) rules: Rules,
}

/// A policy file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct PolicyError {
    /// The file's name, as it was given.
    pub file: String,
    /// Where in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

impl Default for Policies {
    fn default() -> Self {
        Self::parse("defaults", "").expect("the defaults are rules")
    }
}

impl Policies {
    /// The defaults, changed by a file; `file` is its name for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, PolicyError> {
        let wrong = |line: u64, reason: String| PolicyError { file: file.to_owned(), line, reason };
        if text.len() > FILE_BYTES_MAX {
            return Err(wrong(1, format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        let given: Option<BTreeMap<String, Spanned<String>>> = match has_content(text) {
            false => None,
            true => serde_saphyr::from_str(text).map_err(|error| {
                let line = error.location().map_or(1, |location| location.line());
                let reason = error.to_string();
                wrong(line, reason.lines().next().unwrap_or("not a policy file").to_owned())
            })?,
        };
        // Every rule with its text and line; the policies first, so that an action finds its own without a search.
        let mut rules: Vec<(String, String, u64)> = Vec::new();
        let defaults = ACTIONS.iter().map(|(_, name, rule)| (name, rule));
        for (name, rule) in defaults.chain(HELPERS.iter().map(|(name, rule)| (name, rule))) {
            rules.push(((*name).to_owned(), (*rule).to_owned(), 0));
        }
        for (name, rule) in given.unwrap_or_default() {
            let line = rule.defined.line();
            match rules.iter_mut().find(|(known, _, _)| *known == name) {
                Some(known) => (known.1, known.2) = (rule.value, line),
                None => rules.push((name, rule.value, line)),
            }
        }
        let place_of = |name: &str| rules.iter().position(|(known, _, _)| known == name);
        let mut checks = Vec::with_capacity(rules.len());
        for (name, rule, line) in &rules {
            checks.push(parse(rule, &place_of).map_err(|reason| wrong(*line, format!("`{name}`: {reason}")))?);
        }
        for (place, (name, _, line)) in rules.iter().enumerate() {
            if is_cyclic(&checks, place) {
                return Err(wrong(*line, format!("`{name}` refers to itself")));
            }
            if place >= ACTIONS.len() + HELPERS.len() && !checks.iter().any(|check| refers(check, place)) {
                return Err(wrong(*line, format!("`{name}` is no policy, and no rule refers to it")));
            }
        }
        Ok(Self { rules: Rules { checks } })
    }
}

/// Whether there is anything but comments.
fn has_content(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#') && line != "---")
}

fn refers(check: &Check, place: usize) -> bool {
    match check {
        Check::Rule(other) => *other == place,
        Check::Not(inner) => refers(inner, place),
        Check::And(parts) | Check::Or(parts) => parts.iter().any(|part| refers(part, place)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::{Caller, Scope, Standing};

    use super::*;
    use crate::policy::{Action, Target};

    fn refused(text: &str) -> String {
        Policies::parse("policy.yaml", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_file_changes_what_it_names() {
        let text = "# ours\n\"get status\": \"role:operator\"\n\"boss\": \"role:boss or rule:context_is_admin\"\n\
                    \"delete metric\": \"rule:boss\"\n\"list metric\": \"project_id:%(resource.project_id)s\"\n\
                    \"list resource\": \"project_id:%(project_id)s\"\n";
        let policies = Policies::parse("policy.yaml", text).expect("a policy file");
        let mut caller = Caller::named("jd", Standing::Project);
        caller.roles = vec!["boss".to_owned()];
        caller.project_id = Some("p".to_owned());
        let may = |caller: &Caller, action| policies.allow(action, caller, Target::Nothing).is_ok();
        assert!(may(&caller, Action::DeleteMetric) && !may(&caller, Action::GetStatus));
        assert!(may(&caller, Action::ListArchivePolicy), "the default");
        assert_eq!(policies.scope(Action::ListMetric, &caller), Scope::Owner("p".to_owned()));
        assert_eq!(policies.scope(Action::ListResource, &caller), Scope::Owner("p".to_owned()));
        assert!(!may(&Caller::named("admin", Standing::Name), Action::GetStatus), "admin is not operator");
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        assert!(refused("\n\"creat metric\": \"!\"\n").starts_with("policy.yaml:2: `creat metric` is no policy"));
        assert!(refused("\"get status\": \"role:a or\"\n").starts_with("policy.yaml:1: `get status`: "));
        assert!(refused("a: \"rule:b\"\nb: \"rule:a\"\n\"get status\": \"rule:a\"\n").contains("refers to itself"));
        assert!(refused("\"get status\": \"rule:nope\"\n").contains("there is no rule `nope`"));
        assert!(refused("\"get status\": [1]\n").starts_with("policy.yaml:1: "));
        assert!(refused("- x\n").starts_with("policy.yaml:1: "));
        assert!(refused("\"get status\": \"!\"\n\"get status\": \"@\"\n").starts_with("policy.yaml:"), "twice");
        assert!(Policies::parse("policy.yaml", "# nothing\n---\n").is_ok());
    }
}
