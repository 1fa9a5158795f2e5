//! How usage is rated.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use orzo_delivery::{Access, Schedule, Target};
use orzo_rating::{Mode, RatingSettings as ProcessorSettings};
use serde::Deserialize;
use url::Url;

use super::Span;

/// Periods must be whole minutes, and a day has whole periods.
const PERIOD_MIN: Span = Span::secs(60);
/// A day of 24 periods is in memory at once.
const PERIOD_MAX: Span = Span::secs(24 * 3600);
/// Each target has a task of its own.
const TARGETS_MAX: usize = 100;
/// A look costs some queries for each project.
const INTERVAL_MIN: Span = Span::secs(1);

/// The rating of usage.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RatingSettings {
    pub(crate) mode: Mode,
    pub(crate) period: Span,
    pub(crate) wait_periods: u32,
    pub(crate) interval: Span,
    pub(crate) slot: Span,
    pub(crate) again_after: Span,
    pub(crate) metrics_file: Option<PathBuf>,
    pub(crate) catalogue_file: Option<PathBuf>,
    pub(crate) exports: Vec<String>,
    pub(crate) deliveries: Vec<DeliverySettings>,
}

/// Where exports are sent. Secrets stay in the files that are named.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliverySettings {
    name: String,
    profile: String,
    url: Url,
    schedule: Option<Schedule>,
    token_file: Option<PathBuf>,
    endpoint: Option<Url>,
    region: Option<String>,
    access_key: Option<String>,
    secret_key_file: Option<PathBuf>,
}

impl Default for RatingSettings {
    fn default() -> Self {
        let defaults = ProcessorSettings::default();
        Self {
            mode: defaults.mode,
            period: Span(defaults.period),
            wait_periods: defaults.wait_periods,
            interval: Span::secs(60),
            slot: Span(defaults.slot),
            again_after: Span(defaults.seconded_after.unwrap_or_default()),
            metrics_file: None,
            catalogue_file: None,
            exports: Vec::new(),
            deliveries: Vec::new(),
        }
    }
}

impl RatingSettings {
    /// As the processor takes them.
    pub(crate) fn processor_settings(&self) -> ProcessorSettings {
        ProcessorSettings {
            mode: self.mode,
            period: self.period.0,
            wait_periods: self.wait_periods,
            slot: self.slot.0.max(Duration::from_secs(1)),
            seconded_after: Some(self.again_after.0).filter(|after| !after.is_zero()),
        }
    }

    /// The profiles that are exported by themselves.
    pub(crate) fn profiles(&self) -> anyhow::Result<Vec<orzo_export::Profile>> {
        let profile = |name: &String| orzo_export::Profile::named(name).context("rating.exports");
        self.exports.iter().map(profile).collect()
    }

    /// Where exports are sent.
    pub(crate) fn targets(&self) -> anyhow::Result<Vec<Target>> {
        if self.deliveries.len() > TARGETS_MAX {
            bail!("rating.deliveries has {} targets, at most {TARGETS_MAX} are served", self.deliveries.len());
        }
        let mut targets: Vec<Target> = Vec::new();
        for own in &self.deliveries {
            let access = Access {
                token_file: own.token_file.clone(),
                endpoint: own.endpoint.clone(),
                region: own.region.clone(),
                access_key: own.access_key.clone(),
                secret_key_file: own.secret_key_file.clone(),
            };
            let target = Target::new(&own.name, &own.profile, own.schedule, &own.url, access);
            let target = target.context("rating.deliveries")?;
            if targets.iter().any(|other| other.name == target.name) {
                bail!("rating.deliveries names `{}` twice", target.name);
            }
            targets.push(target);
        }
        Ok(targets)
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let seconds = self.period.0.as_secs();
        if self.period.0 < PERIOD_MIN.0 || self.period.0 > PERIOD_MAX.0 || !86_400_u64.is_multiple_of(seconds) {
            bail!("rating.period is {}, must divide a day and be at least {PERIOD_MIN}", self.period);
        }
        self.profiles()?;
        self.targets()?;
        if self.interval.0 < INTERVAL_MIN.0 {
            bail!("rating.interval is {}, must be at least {INTERVAL_MIN}", self.interval);
        }
        Ok(())
    }
}
