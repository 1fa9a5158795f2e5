//! How long points are kept, by rule.

use anyhow::{Context, bail};
use orzo_query::{Keep, RetentionRule};
use serde::Deserialize;

use super::Span;

/// Each metric is held against each rule.
const RULES_MAX: usize = 1000;
/// Points leave in whole days.
const KEEP_MIN: Span = Span::secs(86_400);
/// In place of a time: as long as the archive policy answers from them.
const BY_POLICY: &str = "policy";

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionRuleSettings {
    policy: Option<String>,
    meter: Option<String>,
    project: Option<String>,
    keep: String,
}

/// The rules, in the engine's words.
pub(crate) fn rules(settings: &[RetentionRuleSettings]) -> anyhow::Result<Vec<RetentionRule>> {
    if settings.len() > RULES_MAX {
        bail!("store.retention_rules has {} rules, at most {RULES_MAX} are looked at", settings.len());
    }
    let rule = |(place, own): (usize, &RetentionRuleSettings)| {
        let keep = keep(&own.keep).with_context(|| format!("store.retention_rules, rule {}", place + 1))?;
        Ok(RetentionRule { policy: own.policy.clone(), meter: own.meter.clone(), project: own.project.clone(), keep })
    };
    settings.iter().enumerate().map(rule).collect()
}

fn keep(text: &str) -> anyhow::Result<Keep> {
    if text == BY_POLICY {
        return Ok(Keep::Policy);
    }
    let span: Span = text.parse().map_err(|error| anyhow::anyhow!("keep: {error}, or \"{BY_POLICY}\""))?;
    if span.0 < KEEP_MIN.0 {
        bail!("keep is {span}, must be at least {KEEP_MIN}: points leave in whole days");
    }
    Ok(Keep::For(span.0))
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn rules_are_read_and_wrong_ones_are_refused() {
        let read = |rule: &str| Settings::parse(&format!("[store]\nretention_rules = [{rule}]\n"), "orzo.toml");
        let rules = read(r#"{ meter = "net.*", keep = "30d" }, { policy = "low", keep = "policy" }"#).expect("read");
        let rules = super::rules(&rules.store.retention_rules).expect("rules");
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].keep, orzo_query::Keep::For(std::time::Duration::from_secs(30 * 86_400)));
        for (rule, reason) in [
            (r#"{ meter = "net.*" }"#, "missing field `keep`"),
            (r#"{ keep = "1h" }"#, "at least"),
            (r#"{ keep = "soon" }"#, "not a duration"),
            (r#"{ keeps = "1d", keep = "1d" }"#, "keeps"),
        ] {
            let error = format!("{:#}", read(rule).expect_err(rule));
            assert!(error.contains(reason), "{error}");
        }
    }
}
