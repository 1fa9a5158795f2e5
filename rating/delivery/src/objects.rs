//! A run's files as objects of a bucket, or as files of an HTTP server: each put only where nothing is yet (`If-None-Match: *`),
//! with its SHA-256, the manifest last, so that whoever sees a manifest sees all of its run.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use orzo_export::{FileEntry, MANIFEST, Manifest, SIGNATURE};
use reqwest::StatusCode;
use rusty_s3::{
    Bucket, Credentials, UrlStyle,
    actions::{HeadObject, PutObject, S3Action},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{error::DeliveryError, post::Poster, target::S3};

/// How long a signature is good: for the largest file, and for a clock that is a little wrong.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// Where the digest of an object stands, so that one that is there can be told from another one.
const DIGEST: &str = "x-amz-meta-sha256";

/// The files of a run in the order in which they are sent; digests of those that the manifest names.
pub(crate) fn files_of(manifest: &Manifest) -> Vec<(String, Option<&FileEntry>)> {
    let mut files: Vec<_> = manifest.files.iter().map(|file| (file.name.clone(), Some(file))).collect();
    files.push((SIGNATURE.to_owned(), None));
    files.push((MANIFEST.to_owned(), None));
    files
}

/// A file that is to be put.
pub(crate) struct Outgoing<'a> {
    /// Where it lies.
    pub(crate) path: &'a std::path::Path,
    /// Its name at the other end, with the run's.
    pub(crate) name: String,
    /// Its SHA-256, hexadecimal.
    pub(crate) sha256: String,
}

/// What the answer to a put means.
fn put_answered(status: StatusCode, retry_after: Option<Duration>, what: &str) -> Result<bool, DeliveryError> {
    match status.as_u16() {
        200..=299 => Ok(true),
        // Something is there.
        412 => Ok(false),
        // A wrong digest, a name that cannot be: the same again next time. A bucket or key that is not there yet may come.
        400 | 411 | 413 | 414 | 415 | 422 => {
            Err(DeliveryError::Hopeless(format!("{what} was refused with status {status}")))
        }
        _ => {
            let reason = format!("{what} was not taken: status {status}");
            Err(DeliveryError::Again { reason, retry_after })
        }
    }
}

/// Puts a file below an address.
pub(crate) async fn put_file(
    poster: &Poster,
    url: &Url,
    token: Option<&SecretString>,
    file: &Outgoing<'_>,
) -> Result<(), DeliveryError> {
    let mut at = url.clone();
    at.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), file.name));
    let digest = hex::decode(&file.sha256).map_err(|error| DeliveryError::Hopeless(error.to_string()))?;
    // RFC 9530.
    let headers =
        [("if-none-match", "*".to_owned()), ("repr-digest", format!("sha-256=:{}:", STANDARD.encode(digest)))];
    let (status, retry_after) = poster.file(at, token, &headers, file.path).await?;
    // Names follow from contents, and who answered 412 has had it from us.
    put_answered(status, retry_after, &file.name).map(|_| ())
}

/// A bucket that can be written to.
pub(crate) struct Store {
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
}

impl Store {
    pub(crate) fn new(s3: &S3, secret: &SecretString) -> Result<Self, DeliveryError> {
        // By the path: every store knows it, and addresses without a name have nothing else.
        let bucket = Bucket::new(s3.endpoint.clone(), UrlStyle::Path, s3.bucket.clone(), s3.region.clone());
        Ok(Self {
            bucket: bucket.map_err(|error| DeliveryError::Hopeless(format!("endpoint: {error}")))?,
            credentials: Credentials::new(s3.access_key.clone(), secret.expose_secret()),
            prefix: s3.prefix.clone(),
        })
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// Puts a file, unless it is there already. Another one under its name is never replaced. `now`: microseconds.
    pub(crate) async fn put(&self, poster: &Poster, file: &Outgoing<'_>, now: i64) -> Result<(), DeliveryError> {
        let name = self.name(&file.name);
        let digest = hex::decode(&file.sha256).map_err(|error| DeliveryError::Hopeless(error.to_string()))?;
        let headers = [
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", STANDARD.encode(digest)),
            (DIGEST, file.sha256.clone()),
        ];
        let at = jiff::Timestamp::from_microsecond(now).map_err(|error| DeliveryError::again(error.to_string()))?;
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), &name);
        for (header, value) in &headers {
            action.headers_mut().insert(*header, value.clone());
        }
        let url = action.sign_with_time(SIGNED_FOR, &at);
        let (status, retry_after) = poster.file(url, None, &headers, file.path).await?;
        if put_answered(status, retry_after, &name)? {
            return Ok(());
        }
        let url = HeadObject::new(&self.bucket, Some(&self.credentials), &name).sign_with_time(SIGNED_FOR, &at);
        let there = poster.head(url).await?;
        let has = there.headers().get(DIGEST).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match (there.status().is_success(), has) {
            (true, Some(has)) if has == file.sha256 => Ok(()),
            (true, _) => Err(DeliveryError::Hopeless(format!("{name} is there and is not what was written"))),
            (false, _) => Err(DeliveryError::again(format!("{name} cannot be looked at: status {}", there.status()))),
        }
    }
}
