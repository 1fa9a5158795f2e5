//! The formats, by the names that people choose them by.

use crate::error::ExportError;

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// FOCUS 1.2 as CSV.
    FocusCsv,
    /// FOCUS 1.2 as Parquet.
    FocusParquet,
    /// CloudKitty's dataframes: what `GET /v2/dataframes` answers.
    CloudkittyDataframes,
    /// What CloudKitty's client writes with `dataframes get -f df-to-csv`.
    CloudkittyCsv,
    /// CloudEvents, a line each, as OpenMeter takes them.
    CloudEvents,
    /// Stripe's meter events and their adjustments, a line each.
    StripeMeterEvents,
    /// Lago's events, a line each.
    LagoEvents,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FocusCsv,
        Self::FocusParquet,
        Self::CloudkittyDataframes,
        Self::CloudkittyCsv,
        Self::CloudEvents,
        Self::StripeMeterEvents,
        Self::LagoEvents,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::FocusCsv => "focus-1.2-csv",
            Self::FocusParquet => "focus-1.2-parquet",
            Self::CloudkittyDataframes => "cloudkitty-dataframes",
            Self::CloudkittyCsv => "cloudkitty-csv",
            Self::CloudEvents => "openmeter-cloudevents",
            Self::StripeMeterEvents => "stripe-meter-events",
            Self::LagoEvents => "lago-events",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Result<Self, ExportError> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|profile| profile.name()).collect();
            ExportError::Request(format!("there is no profile `{name}`; there are {}", names.join(", ")))
        })
    }

    /// Of its files.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::FocusCsv | Self::CloudkittyCsv => "csv",
            Self::FocusParquet => "parquet",
            Self::CloudkittyDataframes => "json",
            Self::CloudEvents | Self::StripeMeterEvents | Self::LagoEvents => "ndjson",
        }
    }
}
