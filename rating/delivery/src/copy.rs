//! A run into another directory: whole, durable and under its name, or not there.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use orzo_export::{Manifest, check};

use crate::{error::DeliveryError, objects::files_of};

/// Copies a run below `into`; one that is there already is held against it.
pub(crate) fn copy(run: &Path, manifest: &Manifest, into: &Path) -> Result<PathBuf, DeliveryError> {
    let name = format!("{}-{}", manifest.profile, manifest.run);
    let (staged, directory) = (into.join(format!(".tmp-{name}")), into.join(&name));
    if directory.exists() {
        return match check(&directory, Some(&manifest.public_key)) {
            Ok(there) if there == *manifest => Ok(directory),
            _ => Err(DeliveryError::Hopeless(format!("{} is there and is not this run", directory.display()))),
        };
    }
    if staged.exists() {
        std::fs::remove_dir_all(&staged).map_err(DeliveryError::file("remove", &staged))?;
    }
    std::fs::create_dir_all(&staged).map_err(DeliveryError::file("make", &staged))?;
    for (name, _) in files_of(manifest) {
        let (from, to) = (run.join(&name), staged.join(&name));
        let copied = std::fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all());
        copied.map_err(DeliveryError::file("copy", &from))?;
    }
    let named = File::open(&staged)
        .and_then(|own| own.sync_all())
        .and_then(|()| std::fs::rename(&staged, &directory))
        .and_then(|()| File::open(into)?.sync_all());
    named.map_err(DeliveryError::file("name", &directory))?;
    Ok(directory)
}
