//! Which exporters are scraped.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use orzo_scrape::{ScrapeSettings as Limits, TARGETS_MAX, Target};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::Span;

/// Faster than this is only work.
const INTERVAL_MIN: Span = Span::secs(1);
/// A page's samples are one write, which must fit one record of the log.
const SAMPLES_MAX: usize = 400_000;
/// As much as a request of remote write may be when it is decompressed.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What is scraped, and within which limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ScrapeSettings {
    pub(crate) targets: Vec<TargetSettings>,
    pub(crate) interval: Span,
    pub(crate) timeout: Span,
    pub(crate) samples_max: usize,
    pub(crate) body_bytes_max: usize,
}

/// One target.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetSettings {
    pub(crate) name: String,
    pub(crate) url: Url,
    /// Id of the project whose series they become.
    pub(crate) project: String,
    pub(crate) interval: Option<Span>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) token: Option<SecretString>,
}

impl Default for ScrapeSettings {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            interval: Span::secs(15),
            timeout: Span::secs(10),
            samples_max: 100_000,
            body_bytes_max: 16 << 20,
        }
    }
}

impl ScrapeSettings {
    /// The targets, in the scraper's words.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |own: &TargetSettings| Target {
            name: own.name.clone(),
            url: own.url.clone(),
            project: own.project.clone(),
            interval: own.interval.unwrap_or(self.interval).0,
            labels: own.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            token: own.token.clone(),
        };
        self.targets.iter().map(target).collect()
    }

    /// The limits, in the scraper's words.
    pub(crate) fn limits(&self) -> Limits {
        Limits { timeout: self.timeout.0, samples_max: self.samples_max, body_bytes_max: self.body_bytes_max }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.targets.len() > TARGETS_MAX {
            bail!("scrape.targets has {} targets, at most {TARGETS_MAX} are scraped", self.targets.len());
        }
        if self.samples_max > SAMPLES_MAX {
            bail!("scrape.samples_max is {}, must be at most {SAMPLES_MAX}", self.samples_max);
        }
        if self.body_bytes_max > BODY_BYTES_MAX {
            bail!("scrape.body_bytes_max is {}, must be at most {BODY_BYTES_MAX}", self.body_bytes_max);
        }
        let mut seen = std::collections::HashSet::new();
        for target in &self.targets {
            target.check(self.interval).with_context(|| format!("scrape.targets, `{}`", target.name))?;
            if !seen.insert((&target.name, &target.url)) {
                bail!("scrape.targets names `{}` with {} twice", target.name, target.url);
            }
        }
        Ok(())
    }
}

impl TargetSettings {
    fn check(&self, interval: Span) -> anyhow::Result<()> {
        if self.name.is_empty() || self.project.is_empty() {
            bail!("name and project must not be empty");
        }
        if !matches!(self.url.scheme(), "http" | "https") || self.url.host_str().is_none() {
            bail!("url is {}, must be like http://host:9100/metrics", self.url);
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            bail!("url has a password in it, which would be shown; use token");
        }
        let interval = self.interval.unwrap_or(interval);
        if interval.0 < INTERVAL_MIN.0 {
            bail!("interval is {interval}, must be at least {INTERVAL_MIN}");
        }
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if let Some(wrong) = self.labels.keys().find(|name| !is_name(name) || name.starts_with("__")) {
            bail!("`{wrong}` is no name of a label");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(target: &str) -> anyhow::Result<ScrapeSettings> {
        let settings: ScrapeSettings = toml::from_str(&format!("targets = [{{ {target} }}]"))?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn targets_are_read_and_mistakes_are_named() {
        let own = "name = \"node\", url = \"http://h:9100/metrics\", project = \"p\"";
        let read = settings(&format!("{own}, interval = \"30s\", labels = {{ rack = \"7\" }}")).expect("a target");
        assert_eq!(read.targets()[0].interval.as_secs(), 30);
        assert_eq!(read.targets()[0].own_labels()[2], ("rack".to_owned(), "7".to_owned()));
        for (target, part) in [
            ("name = \"node\", url = \"http://h/\"".to_owned(), "project"),
            (own.replace("http:", "ftp:"), "must be like"),
            (own.replace("//h", "//a:b@h"), "password"),
            (format!("{own}, interval = \"10ms\""), "at least"),
            (format!("{own}, labels = {{ \"a.b\" = \"7\" }}"), "`a.b`"),
            (format!("{own}, labels = {{ \"__name__\" = \"7\" }}"), "`__name__`"),
            (format!("{own}, colour = \"7\""), "colour"),
            (format!("{own} }}, {{ {own}"), "twice"),
        ] {
            let error = format!("{:#}", settings(&target).expect_err("a mistake"));
            assert!(error.contains(part), "{target}: {error}");
        }
    }
}
