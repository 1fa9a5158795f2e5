//! Requests: one letter to a receiver and what it answered, one file to an address.

use std::{path::Path, time::Duration};

use reqwest::{Body, Client, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::{
    error::DeliveryError,
    receiver::{Letter, Receiver, Verdict},
};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the answer to events,
const DEADLINE: Duration = Duration::from_secs(30);
/// and to a file: the largest one in a quarter of an hour.
const FILE_DEADLINE: Duration = Duration::from_secs(900);
/// Longest answer that is looked at: a list of what is wrong with a batch.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longer waits that a receiver asks for are cut.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it means for one event.
    pub verdict: Verdict,
    /// The status.
    pub status: StatusCode,
    /// What it asked for.
    pub retry_after: Option<Duration>,
}

/// Sends. Redirects are not followed: a token would go with them.
#[derive(Clone)]
pub struct Poster {
    client: Client,
}

impl Poster {
    /// With the system's authorities.
    pub fn new() -> Result<Self, DeliveryError> {
        let client = Client::builder().connect_timeout(CONNECT_MAX).redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(|error| DeliveryError::Refused(error.without_url().to_string()))?;
        Ok(Self { client })
    }

    /// Posts events, several only where the receiver takes several. An error is one of the way, and may be tried again.
    pub async fn events(
        &self,
        receiver: Receiver,
        url: &Url,
        token: Option<&SecretString>,
        events: &[Value],
    ) -> Result<Answer, DeliveryError> {
        let Letter { url, headers, body } = receiver.letter(url, events);
        let mut request = self.client.post(url).timeout(DEADLINE);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        let answer = request.body(body).send().await.map_err(DeliveryError::request)?;
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        let verdict = receiver.verdict(status.as_u16(), &said(answer).await);
        Ok(Answer { verdict, status, retry_after })
    }

    /// Puts a file, with its length and these headers, piece by piece. Gives the status.
    pub(crate) async fn file(
        &self,
        url: Url,
        token: Option<&SecretString>,
        headers: &[(&'static str, String)],
        path: &Path,
    ) -> Result<(StatusCode, Option<Duration>), DeliveryError> {
        let file = tokio::fs::File::open(path).await.map_err(DeliveryError::file("read", path))?;
        let length = file.metadata().await.map_err(DeliveryError::file("read", path))?.len();
        let mut request = self.client.put(url).timeout(FILE_DEADLINE).header(header::CONTENT_LENGTH, length);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        let body = Body::wrap_stream(ReaderStream::new(file));
        let answer = request.body(body).send().await.map_err(DeliveryError::request)?;
        Ok((answer.status(), retry_after(&answer)))
    }

    /// Asks for the headers of what is there.
    pub(crate) async fn head(&self, url: Url) -> Result<Response, DeliveryError> {
        self.client.head(url).timeout(DEADLINE).send().await.map_err(DeliveryError::request)
    }
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The JSON of an answer; nothing if it is something else, or too long.
async fn said(mut answer: Response) -> Value {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Value::Null;
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).unwrap_or_default()
}
