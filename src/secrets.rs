//! Secrets that are made at the first start and kept in files that only the owner can read.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use rand::{Rng, distr::Alphanumeric};
use secrecy::SecretString;

/// About 143 bits: nobody guesses it, and a person can still copy it.
const PASSWORD_CHARS: usize = 24;

/// A new password of letters and digits.
pub(crate) fn new_password() -> String {
    // `rand::rng` is seeded by the operating system and made for cryptography.
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_CHARS).map(char::from).collect()
}

/// The secret in `path`, made with [`new_password`] if the file is not there.
pub(crate) fn kept(path: &Path) -> anyhow::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned().into()),
        Ok(_) => anyhow::bail!("{} is empty: remove it to have a new secret made", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let password = new_password();
            write(path, &format!("{password}\n"))?;
            Ok(password.into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file that only the owner can read; durable and whole, or not there.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let in_context = || format!("cannot write {}", path.display());
    // What an interrupted start left behind.
    let _ = fs::remove_file(&temporary);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).with_context(in_context)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(in_context)?;
    fs::rename(&temporary, path).with_context(in_context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        let first = kept(&path).expect("made");
        assert_eq!(kept(&path).expect("read").expose_secret(), first.expose_secret());
        assert_eq!(first.expose_secret().len(), PASSWORD_CHARS);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "").expect("emptied");
        assert!(kept(&path).is_err());
    }
}
