//! Where exports go, as an operator says it. Secrets stay in files and are read when they are needed, so that a new one needs no
//! restart.

use std::path::{Path, PathBuf};

use orzo_export::Profile;
use secrecy::SecretString;
use url::Url;

use crate::{error::DeliveryError, receiver::Receiver, schedule::Schedule};

/// A secret is a line; more is a wrong file.
const SECRET_BYTES_MAX: u64 = 16 << 10;
/// Longest name of a target.
const NAME_CHARACTERS_MAX: usize = 64;

/// A target of exports.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called.
    pub name: String,
    /// What it takes.
    pub profile: Profile,
    /// When runs are made for it; `None`: only when somebody asks.
    pub schedule: Option<Schedule>,
    /// Where it is.
    pub place: Place,
}

/// Where runs go.
#[derive(Clone, Debug)]
pub enum Place {
    /// Events are posted, files are put, to an address.
    Http {
        /// Without user and password.
        url: Url,
        /// File with a token, sent as `Authorization: Bearer`.
        token_file: Option<PathBuf>,
    },
    /// Files become objects.
    S3(S3),
    /// Files become files of a directory.
    Directory(PathBuf),
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What all names begin with; may be empty.
    pub prefix: String,
    /// The service.
    pub endpoint: Url,
    /// For the signature.
    pub region: String,
    /// Who writes.
    pub access_key: String,
    /// File with the secret to it.
    pub secret_key_file: PathBuf,
}

/// What an operator may say beside an address.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Address of an object store.
    pub endpoint: Option<Url>,
    /// Its region.
    pub region: Option<String>,
    /// Who writes there.
    pub access_key: Option<String>,
    /// File with the secret to it.
    pub secret_key_file: Option<PathBuf>,
}

impl Target {
    /// Checks what was said.
    pub fn new(
        name: &str,
        profile: &str,
        schedule: Option<Schedule>,
        url: &Url,
        access: Access,
    ) -> Result<Self, DeliveryError> {
        let refused = |reason: &str| DeliveryError::Refused(format!("{name}: {reason}"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.chars().all(is_plain) {
            let reason = format!("`{name}`: a name has 1 to {NAME_CHARACTERS_MAX} letters, digits, `-`, `_` and `.`");
            return Err(DeliveryError::Refused(reason));
        }
        let profile = Profile::named(profile)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("an address must not carry a user or a password; name a file"));
        }
        let receiver = Receiver::of(profile);
        match schedule {
            Some(Schedule::Hourly | Schedule::Daily) if receiver.is_none() => {
                return Err(refused("a table is of a whole month: its schedule can only be `monthly`"));
            }
            _ => {}
        }
        let place = match url.scheme() {
            "http" | "https" => Place::Http { url: url.clone(), token_file: access.token_file },
            _ if receiver.is_some() => return Err(refused("events are posted: an http or https address is needed")),
            "file" => Place::Directory(
                url.to_file_path().map_err(|()| refused("file:///DIRECTORY is expected, with a whole path"))?,
            ),
            "s3" => {
                let needed = |value: Option<String>, key: &str| {
                    value.ok_or_else(|| refused(&format!("an object store needs `{key}`")))
                };
                let bucket = url.host_str().filter(|host| !host.is_empty());
                let prefix = url.path().trim_matches('/').to_owned();
                if prefix.split('/').any(|part| matches!(part, "." | "..")) {
                    return Err(refused("names of objects have no parts `.` and `..`"));
                }
                Place::S3(S3 {
                    bucket: bucket.ok_or_else(|| refused("s3://BUCKET/PREFIX is expected"))?.to_owned(),
                    prefix,
                    endpoint: access.endpoint.ok_or_else(|| refused("an object store needs `endpoint`"))?,
                    region: access.region.unwrap_or_else(|| "us-east-1".to_owned()),
                    access_key: needed(access.access_key, "access_key")?,
                    secret_key_file: access
                        .secret_key_file
                        .ok_or_else(|| refused("an object store needs `secret_key_file`"))?,
                })
            }
            other => return Err(refused(&format!("scheme `{other}` is none of http, https, s3 and file"))),
        };
        Ok(Self { name: name.to_owned(), profile, schedule, place })
    }

    /// Where it is, for people: nothing of what an address may hide.
    pub fn address(&self) -> String {
        match &self.place {
            Place::Http { url, .. } => format!("{}{}", url.origin().ascii_serialization(), url.path()),
            Place::S3(s3) => format!("s3://{}/{}", s3.bucket, s3.prefix),
            Place::Directory(path) => path.display().to_string(),
        }
    }
}

/// The secret in a file; errors name the file only.
pub(crate) fn secret(path: &Path) -> Result<SecretString, DeliveryError> {
    let length = std::fs::metadata(path).map_err(DeliveryError::file("read", path))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(DeliveryError::Hopeless(format!("{} is too long for a secret", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(DeliveryError::file("read", path))?;
    match text.trim() {
        "" => Err(DeliveryError::again(format!("{} is empty", path.display()))),
        text => Ok(text.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(profile: &str, schedule: Option<Schedule>, url: &str, access: Access) -> Result<Target, String> {
        let url = url.parse().expect("an address");
        Target::new("t", profile, schedule, &url, access).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_work_is_refused_in_words() {
        let access = Access {
            endpoint: "https://s3.example".parse().ok(),
            access_key: Some("A".to_owned()),
            secret_key_file: Some("/secret".into()),
            ..Access::default()
        };
        for (profile, schedule, url, access, said) in [
            ("lago-events", None, "s3://b/p", access.clone(), "events are posted"),
            ("lago-events", None, "ftp://b/p", access.clone(), "events are posted"),
            ("focus-1.2-csv", None, "ftp://b/p", access.clone(), "scheme `ftp`"),
            ("focus-1.2-csv", Some(Schedule::Daily), "s3://b/p", access.clone(), "whole month"),
            ("focus-1.2-csv", None, "s3://b/p", Access::default(), "needs `endpoint`"),
            ("focus-1.2-csv", None, "https://me:secret@b/p", Access::default(), "user or a password"),
            ("focus-9", None, "s3://b/p", access.clone(), "no profile `focus-9`"),
        ] {
            let error = target(profile, schedule, url, access).expect_err(url);
            assert!(error.contains(said) && !error.contains("secret@"), "{error}");
        }
        let s3 = target("focus-1.2-csv", Some(Schedule::Monthly), "s3://bills/focus/2026/", access).expect("good");
        assert_eq!(s3.address(), "s3://bills/focus/2026");
        let http = target("lago-events", Some(Schedule::Hourly), "https://l.example/v1?key=x", Access::default());
        assert_eq!(http.expect("good").address(), "https://l.example/v1");
    }
}
