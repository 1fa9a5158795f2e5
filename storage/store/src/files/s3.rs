//! S3, and what speaks as it does, by an operator's settings.
//!
//! Comes in: an address, and where secrets are. Goes out: a [`Bucket`]. Credentials come from a file that only its owner can
//! read, or from the environment as AWS's own tools take them (variables, a role of the machine or of its container); they
//! are in no message. It does not know what is put there.

use std::{io, os::unix::fs::PermissionsExt, path::Path, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::bucket::Bucket;

/// Answers begin within this time, or the host is taken for gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request with its body, at most 16 MiB: half a MiB each second at least.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one call beyond the first; whoever asked tries again later, in its own time.
const RETRIES_MAX: usize = 4;
/// No try begins later than this.
const RETRY_TIMEOUT: Duration = Duration::from_secs(40);
/// The longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Where there are no regions, signatures are made with this one.
const REGION: &str = "us-east-1";
/// A secret is a line; more is a wrong file.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// A bucket for the tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketSettings {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// Address of the service, if it is not Amazon's; `http://` is allowed where it is said so.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Who reads and writes there; from the environment if unset.
    pub access_key: Option<String>,
    /// File with the secret to it, readable by its owner only.
    pub secret_key_file: Option<PathBuf>,
    /// Bytes of files that are kept on this machine, too; the ones that were read the longest ago go first.
    pub cache_bytes_max: u64,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: None,
            region: None,
            access_key: None,
            secret_key_file: None,
            cache_bytes_max: 10 << 30,
        }
    }
}

impl BucketSettings {
    /// What is wrong with these settings, if anything.
    pub fn problem(&self) -> Option<String> {
        let url = match Url::parse(&self.url) {
            Ok(url) => url,
            Err(error) => return Some(format!("url is no address such as s3://bucket/prefix: {error}")),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '/');
        if url.scheme() != "s3" || url.host_str().is_none_or(str::is_empty) {
            return Some("url must be like s3://bucket/prefix".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.port().is_some() {
            return Some("url must be bucket and prefix only: no user, no password, no port and no options".to_owned());
        }
        if !url.path().chars().all(is_plain) || url.path().split('/').any(|part| matches!(part, "." | "..")) {
            return Some("url: the prefix may have letters, digits, `-`, `_`, `.`, `=` and `/`".to_owned());
        }
        if let Some(endpoint) = &self.endpoint {
            match Url::parse(endpoint) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.username().is_empty() => {}
                _ => return Some("the endpoint must be an http or https address without a user".to_owned()),
            }
        }
        if self.access_key.is_some() != self.secret_key_file.is_some() {
            return Some("access key and file with its secret go together".to_owned());
        }
        None
    }

    /// Makes what the store uses. Nothing is asked yet.
    pub fn open(&self) -> io::Result<Bucket> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
        if let Some(problem) = self.problem() {
            return Err(invalid(problem));
        }
        let url = Url::parse(&self.url).map_err(|error| invalid(error.to_string()))?;
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: BACKOFF_MAX, ..BackoffConfig::default() },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(url.host_str().unwrap_or_default())
            .with_client_options(client)
            .with_retry(retry)
            // What the table's one writer stands on; no variable may turn it off.
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(endpoint) = &self.endpoint {
            // The client takes what is said last, so this comes after its options.
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
        }
        match &self.region {
            Some(region) => builder = builder.with_region(region),
            None if self.endpoint.is_some() => builder = builder.with_region(REGION),
            None => {}
        }
        if let (Some(key), Some(file)) = (&self.access_key, &self.secret_key_file) {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret(file)?.expose_secret());
        }
        let store = builder.build().map_err(|error| invalid(error.to_string()))?;
        Bucket::new(Arc::new(store), url.path().trim_matches('/'))
    }
}

/// The secret in a file; errors name the file only.
fn secret(path: &Path) -> io::Result<SecretString> {
    let refused = |reason: &str| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the secret in {} {reason}", path.display()))
    };
    let metadata = std::fs::metadata(path).map_err(|error| refused(&format!("cannot be read: {error}")))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(refused("can be read by others than its owner: chmod 600"));
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(refused("is too long"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refused(&format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(refused("is empty")),
        text => Ok(text.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> BucketSettings {
        BucketSettings { url: url.to_owned(), ..BucketSettings::default() }
    }

    #[test]
    fn addresses_are_a_bucket_and_a_plain_prefix() {
        for good in ["s3://bucket", "s3://bucket/", "s3://my-bucket.eu/orzo/west=1"] {
            assert_eq!(of(good).problem(), None, "{good}");
        }
        for bad in [
            "",
            "bucket",
            "https://bucket/x",
            "s3://",
            "s3:///x",
            "s3://me:hidden@bucket/x",
            "s3://b/a%20b",
            "s3://b/a?x=1",
            "s3://b:9000/a",
        ] {
            let problem = of(bad).problem().unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(!problem.contains("hidden"), "{problem}");
        }
        assert!(BucketSettings { endpoint: Some("ftp://x".into()), ..of("s3://b") }.problem().is_some());
        assert!(BucketSettings { access_key: Some("x".into()), ..of("s3://b") }.problem().is_some());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_never_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("s3.secret");
        std::fs::write(&file, "canary-4711\n").expect("written");
        let settings = BucketSettings {
            endpoint: Some("http://127.0.0.1:9".into()),
            access_key: Some("KEY".into()),
            secret_key_file: Some(file.clone()),
            ..of("s3://bucket/x")
        };
        for (mode, is_taken) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
            match settings.open() {
                Ok(_) => assert!(is_taken, "{mode:o}"),
                Err(error) => assert!(!is_taken && !error.to_string().contains("canary"), "{mode:o}: {error}"),
            }
        }
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
