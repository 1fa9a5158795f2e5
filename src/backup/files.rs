//! Files of a backup: copied, linked to an earlier one's, described, made durable. What is here may block.

use std::{
    collections::HashMap,
    fs::{self, DirEntry, File},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use xxhash_rust::xxh3::Xxh3;

use super::{
    UNFINISHED,
    manifest::{self, Manifest},
};

/// What is read and written at once.
const PIECE_BYTES: usize = 1 << 20;
/// How deep trees are followed: ours are two levels deep.
const DEPTH_MAX: usize = 8;

/// An earlier whole backup.
pub(super) struct Earlier {
    pub(super) directory: PathBuf,
    files: HashMap<String, manifest::File>,
}

/// The newest whole backup here; what cannot be read is none.
pub(super) fn newest(backups: &Path) -> anyhow::Result<Option<Earlier>> {
    let mut found: Vec<PathBuf> = entries(backups)?.iter().map(DirEntry::path).filter(|path| path.is_dir()).collect();
    found.sort();
    for directory in found.into_iter().rev() {
        if let Ok(manifest) = Manifest::read(&directory) {
            let files = manifest.files.into_iter().map(|file| (file.path.clone(), file)).collect();
            return Ok(Some(Earlier { directory, files }));
        }
    }
    Ok(None)
}

/// What a crash left.
pub(super) fn remove_unfinished(backups: &Path) -> anyhow::Result<()> {
    for entry in entries(backups)? {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// What is in a directory, by name; nothing if it is not there.
pub(super) fn entries(directory: &Path) -> anyhow::Result<Vec<DirEntry>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let mut listed = listed.with_context(|| format!("cannot list {}", directory.display()))?;
    listed.sort_by_key(DirEntry::file_name);
    Ok(listed)
}

/// A directory that only its owner can look into: secrets will be in it.
pub(super) fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))
}

/// Copies everything below `root/below` to `target/below`; unfinished files (`.tmp-`) are left.
pub(super) fn copy_tree(
    root: &Path,
    below: &Path,
    target: &Path,
    earlier: Option<&Earlier>,
    copied: &mut Vec<manifest::File>,
) -> anyhow::Result<()> {
    if below.components().count() > DEPTH_MAX {
        bail!("{} is too deep", root.join(below).display());
    }
    for entry in entries(&root.join(below))? {
        let (name, kind) = (entry.file_name(), entry.file_type().context("cannot look at a file")?);
        let path = below.join(&name);
        if kind.is_dir() {
            copy_tree(root, &path, target, earlier, copied)?;
        } else if kind.is_file() && !name.to_string_lossy().starts_with(".tmp-") {
            match copy_file(root, &path, target, earlier, copied) {
                // A record that was delivered, an image that was deleted.
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Copies one file durably, or links it if the earlier backup has the same.
pub(super) fn copy_file(
    root: &Path,
    path: &Path,
    target: &Path,
    earlier: Option<&Earlier>,
    copied: &mut Vec<manifest::File>,
) -> anyhow::Result<()> {
    let (from, to) = (root.join(path), target.join(path));
    if let Some(parent) = to.parent() {
        make_private(parent)?;
    }
    let name = path.to_string_lossy().into_owned();
    let same = earlier.and_then(|earlier| Some((earlier.directory.join(path), earlier.files.get(&name)?)));
    if let Some((there, known)) = same
        && fs::metadata(&from).is_ok_and(|metadata| metadata.len() == known.bytes)
        && describe(&from, path).is_ok_and(|described| described == *known)
        && describe(&there, path).is_ok_and(|described| described == *known)
        && fs::hard_link(&there, &to).is_ok()
    {
        copied.push(known.clone());
        return Ok(());
    }
    let mode = fs::metadata(&from)?.permissions().mode();
    let mut there = File::open(&from)?;
    let mut here = fs::OpenOptions::new().write(true).create_new(true).mode(mode & 0o700).open(&to)?;
    let (bytes, xxh3) = pass(&mut there, |piece| here.write_all(piece))?;
    here.sync_all()?;
    copied.push(manifest::File { path: name, bytes, xxh3 });
    Ok(())
}

/// Reads a file to its end; gives its length and hash.
fn pass(file: &mut File, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut piece) = (Xxh3::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok((bytes, format!("{:032x}", hash.digest128())));
        }
        hash.update(&piece[..count]);
        each(&piece[..count])?;
        bytes += count as u64;
    }
}

/// What a manifest says of this file.
pub(super) fn describe(file: &Path, name: &Path) -> anyhow::Result<manifest::File> {
    let in_context = || format!("cannot read {}", file.display());
    let (bytes, xxh3) = pass(&mut File::open(file).with_context(in_context)?, |_| Ok(())).with_context(in_context)?;
    Ok(manifest::File { path: name.to_string_lossy().into_owned(), bytes, xxh3 })
}

/// The same of a file, or of all files directly in a directory.
pub(super) fn described(root: &Path, path: &Path) -> anyhow::Result<Vec<manifest::File>> {
    let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    if path.is_dir() {
        let files = entries(path)?.into_iter().map(|entry| entry.path());
        files.filter(|path| path.is_file()).map(|path| describe(&path, &name(&path))).collect()
    } else if path.is_file() {
        Ok(vec![describe(path, &name(path))?])
    } else {
        Ok(Vec::new())
    }
}

/// Makes the names in all directories of a tree durable.
pub(super) fn sync_tree(directory: &Path) -> anyhow::Result<()> {
    for entry in entries(directory)? {
        if entry.path().is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_directory(directory)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> anyhow::Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot sync {}", directory.display()))
}
