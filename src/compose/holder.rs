//! The name under which this process holds leases on alarms and notices.
//!
//! It is kept in the data directory, so that a process that was killed goes on with its own leases at once when it
//! comes back, instead of waiting until they have run out. The file is locked while the process runs: of two processes
//! on one directory the second does not start.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::Path,
};

use anyhow::{Context, bail};
use orzo_store::files::real::locked;
use uuid::Uuid;

/// A name that nobody else uses as long as this lives.
pub(super) struct Holder {
    name: String,
    /// Unlocked when it is closed, also by a kill.
    _lock: File,
}

impl Holder {
    /// The name kept in `path`, made at the first start; `host` tells apart what was copied with its directory.
    pub(super) fn take(path: &Path, host: &str) -> anyhow::Result<Self> {
        let in_context = || format!("cannot use {}", path.display());
        let Some(mut file) = locked(path).with_context(in_context)? else {
            bail!("{} is in use by another process", path.display());
        };
        let mut text = String::new();
        // What is not a name (a write that was torn) is made again.
        let kept = file.read_to_string(&mut text).ok().and_then(|_| Uuid::parse_str(text.trim()).ok());
        let id = match kept {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                file.set_len(0).and_then(|()| file.rewind()).with_context(in_context)?;
                file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()).with_context(in_context)?;
                id
            }
        };
        Ok(Self { name: format!("{id}@{host}"), _lock: file })
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stays_and_only_one_has_it_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("holder");
        let first = Holder::take(&path, "host1").expect("made");
        assert!(Holder::take(&path, "host1").is_err(), "it is in use");
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(Holder::take(&path, "host1").expect("kept").name(), name);
        assert_ne!(Holder::take(&path, "host2").expect("kept").name(), name, "a copy on another machine is another");
        std::fs::write(&path, "b0").expect("torn");
        assert_ne!(Holder::take(&path, "host1").expect("made again").name(), name);
    }
}
