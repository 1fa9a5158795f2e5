//! Ceilometer's definition languages: which samples, events and resources are made from what.
//!
//! `definition file → MeterDefinitions: notification → samples`
//! `definition file → EventDefinitions: notification → event`
//! `definition file → ResourceDefinitions: sample → placement, event → resource actions`
//!
//! Reads operators' own files as they are (`meters.d/*.yaml`, `event_definitions.yaml`, `gnocchi_resources.yaml`), and
//! ships defaults for compute, image, identity, volume, network and hosts. All is pure but [`read_directory`]; nothing
//! here knows a bus, a store or the time.
#![forbid(unsafe_code)]

mod error;
mod events;
mod field;
#[cfg(test)]
mod fixtures;
mod help;
mod meters;
mod notification;
pub mod path;
mod pattern;
mod resources;
#[cfg(test)]
mod tests;
mod timespan;
mod yaml;

use std::path::{Path as FilePath, PathBuf};

pub use error::DefinitionError;
pub use events::EventDefinitions;
pub use help::help;
pub use meters::{MeterDefinitions, Metered, SkipReason, UserMetadata};
pub use notification::{Notification, Priority};
pub use pattern::{Glob, Pattern};
pub use resources::{
    ActionKind, ArchivePolicyDefinition, ArchivePolicyItem, AssociatedResources, Placement, ResourceAction,
    ResourceDefinitions,
};
pub use timespan::timespan;

/// A definition file at most; Ceilometer's largest has 30 kB.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Files of one directory at most.
pub const FILES_MAX: usize = 1000;

/// All definitions of a process.
#[derive(Clone, Debug)]
pub struct Definitions {
    /// Notification → samples.
    pub meters: MeterDefinitions,
    /// Notification → event.
    pub events: EventDefinitions,
    /// Sample → placement, event → resource actions.
    pub resources: ResourceDefinitions,
}

impl Definitions {
    /// What this program ships.
    pub fn shipped() -> Self {
        Self {
            meters: MeterDefinitions::shipped(),
            events: EventDefinitions::shipped(),
            resources: ResourceDefinitions::shipped(),
        }
    }

    /// What an operator gives, with what this program ships for the rest. Meter directories come in the order of their
    /// weight, the shipped meters last, as Ceilometer's packaged ones; files of the other two kinds replace ours.
    pub fn read(
        meter_directories: &[PathBuf],
        events: Option<&FilePath>,
        resources: Option<&FilePath>,
    ) -> Result<Self, DefinitionError> {
        let mut files = Vec::new();
        for directory in meter_directories {
            files.extend(read_directory(directory)?);
        }
        let mut texts: Vec<(&str, &str)> = files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        texts.push(meters::SHIPPED);
        let events = match events {
            Some(path) => read_file(path).and_then(|(file, text)| EventDefinitions::parse(&file, &text))?,
            None => EventDefinitions::shipped(),
        };
        let resources = match resources {
            Some(path) => read_file(path).and_then(|(file, text)| ResourceDefinitions::parse(&file, &text))?,
            None => ResourceDefinitions::shipped(),
        };
        Ok(Self { meters: MeterDefinitions::parse(&texts)?, events, resources })
    }
}

/// Reads all `*.yaml` and `*.yml` files of a directory, sorted by name: (file name with its path, text) pairs.
pub fn read_directory(directory: &FilePath) -> Result<Vec<(String, String)>, DefinitionError> {
    let unreadable = |path: &FilePath| {
        let file = path.display().to_string();
        move |source| DefinitionError::Unreadable { file, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        let file = directory.display().to_string();
        return Err(DefinitionError::TooMany { what: "files", file, count_max: FILES_MAX });
    }
    paths.sort();
    paths.iter().map(|path| read_file(path)).collect()
}

/// Reads one definition file: (file name with its path, text).
pub fn read_file(path: &FilePath) -> Result<(String, String), DefinitionError> {
    use std::io::Read as _;
    let file = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|opened| opened.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|source| DefinitionError::Unreadable { file: file.clone(), source })?;
    if text.len() > FILE_BYTES_MAX {
        return Err(DefinitionError::TooLarge { file, bytes_max: FILE_BYTES_MAX });
    }
    Ok((file, text))
}
