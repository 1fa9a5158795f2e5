//! How many series with labels there may be.

use std::path::PathBuf;

use orzo_labels::SetLimits;
use serde::Deserialize;

/// Limits of the label index.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LabelSettings {
    pub(crate) project_series_max: u64,
    pub(crate) series_max: u64,
    pub(crate) new_series_per_minute_max: u64,
    pub(crate) labels_max: usize,
}

impl Default for LabelSettings {
    fn default() -> Self {
        let defaults = orzo_labels::LabelSettings::default();
        Self {
            project_series_max: defaults.project_series_max,
            series_max: defaults.series_max,
            new_series_per_minute_max: defaults.new_series_per_minute_max,
            labels_max: defaults.set.labels_max,
        }
    }
}

impl LabelSettings {
    /// As the label index takes them.
    pub(crate) fn index_settings(&self, directory: PathBuf, disk_reserve_bytes: u64) -> orzo_labels::LabelSettings {
        orzo_labels::LabelSettings {
            directory,
            set: SetLimits { labels_max: self.labels_max, ..SetLimits::default() },
            project_series_max: self.project_series_max,
            series_max: self.series_max,
            new_series_per_minute_max: self.new_series_per_minute_max,
            disk_reserve_bytes,
        }
    }
}
