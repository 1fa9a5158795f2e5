//! One end of an import: a server that speaks remote read, and remote write if it is ours.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use futures::StreamExt;
use orzo_session::Session;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{self, HeaderMap},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// How long one answer may take; Prometheus' own limit for a query is two minutes.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Tries of a request while the other side is away or busy; the waits in between add up to about two minutes.
const TRIES: u32 = 8;
/// The longest wait between two of them.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The most that is taken of an answer, compressed.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// What is told of a refusal.
const REASON_BYTES_MAX: usize = 500;

/// How a peer is told who asks.
pub(crate) enum Login {
    /// Not at all.
    None,
    /// HTTP Basic.
    Basic { user: String, password: SecretString },
    /// `Authorization: Bearer`.
    Bearer(SecretString),
    /// `X-Auth-Token`, as Keystone gives it.
    Token(SecretString),
    /// As an OpenStack client.
    Session(Arc<Session>),
}

/// A server and how to log in there.
pub(crate) struct Peer {
    base: Url,
    login: Login,
    client: Client,
}

impl Peer {
    /// Of the URL that `/api/v1/...` is below.
    pub(crate) fn new(mut base: Url, login: Login) -> anyhow::Result<Self> {
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let redirects = reqwest::redirect::Policy::none();
        let client = Client::builder().timeout(TIMEOUT).redirect(redirects).build().context("cannot make a client")?;
        Ok(Self { base, login, client })
    }

    /// Where it is, without credentials.
    pub(crate) fn url(&self) -> &str {
        self.base.as_str()
    }

    /// The names of metrics that match and have samples in this time.
    pub(crate) async fn names(&self, names: &str, start_ms: i64, end_ms: i64) -> anyhow::Result<Vec<String>> {
        let seconds = |ms: i64| format!("{:.3}", ms as f64 / 1000.0);
        let matcher = format!("{{__name__=~{}}}", serde_json::Value::from(names));
        let mut url = self.at("api/v1/label/__name__/values")?;
        url.query_pairs_mut()
            .append_pair("match[]", &matcher)
            .append_pair("start", &seconds(start_ms))
            .append_pair("end", &seconds(end_ms));
        let Some(answer) = self.send(|| self.client.get(url.clone())).await? else {
            bail!("{url} refused the question")
        };
        let answer: serde_json::Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
        let names = answer["data"].as_array().context("the answer has no names")?;
        Ok(names.iter().filter_map(|name| name.as_str()).map(str::to_owned).collect())
    }

    /// The answer of a remote read; `None`: it would be too large.
    pub(crate) async fn read(&self, body: Vec<u8>) -> anyhow::Result<Option<Vec<u8>>> {
        let url = self.at("api/v1/read")?;
        self.send(|| {
            self.client
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/x-protobuf")
                .header(header::CONTENT_ENCODING, "snappy")
                .header("X-Prometheus-Remote-Read-Version", "0.1.0")
                .body(body.clone())
        })
        .await
    }

    /// Writes; `Ok` means durable.
    pub(crate) async fn write(&self, body: Arc<Vec<u8>>) -> anyhow::Result<()> {
        let url = self.at("api/v1/write")?;
        let sent = self.send(|| {
            self.client
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/x-protobuf")
                .header(header::CONTENT_ENCODING, "snappy")
                .header("X-Prometheus-Remote-Write-Version", "0.1.0")
                .body((*body).clone())
        });
        match sent.await? {
            Some(_) => Ok(()),
            None => bail!("{url} says that a request of {} bytes is too large", body.len()),
        }
    }

    fn at(&self, path: &str) -> anyhow::Result<Url> {
        self.base.join(path).with_context(|| format!("{} is no base of URLs", self.base))
    }

    /// A page of a list, and the query of the next one if `Link` names it. Only the query is taken of that: what the
    /// host calls itself may not be how it is reached.
    pub(crate) async fn page(&self, path: &str, query: &str) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let mut url = self.at(path)?;
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let sent = self.send_whole(|| self.client.get(url.clone()).header(header::ACCEPT, "application/json")).await?;
        let Some((headers, body)) = sent else { bail!("{url} answers with more than {ANSWER_BYTES_MAX} bytes") };
        Ok((body, next_query(&headers)))
    }

    /// Sends a body of JSON, or of a JSON patch; the answer.
    pub(crate) async fn submit(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        let url = self.at(path)?;
        let sent = self.send_whole(|| {
            let request = self.client.request(method.clone(), url.clone()).header(header::CONTENT_TYPE, kind);
            request.header(header::ACCEPT, "application/json").body(body.clone())
        });
        match sent.await? {
            Some((_, answer)) => Ok(answer),
            None => bail!("{url} says that a request of {} bytes is too large", body.len()),
        }
    }

    async fn send(&self, request: impl Fn() -> RequestBuilder) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.send_whole(request).await?.map(|(_, body)| body))
    }

    /// Sends until there is an answer that stays; its headers and body, or `None` if there would be too much of it.
    async fn send_whole(&self, request: impl Fn() -> RequestBuilder) -> anyhow::Result<Option<(HeaderMap, Vec<u8>)>> {
        let mut wait = Duration::from_secs(1);
        for attempt in 1.. {
            let request = match &self.login {
                Login::None => request(),
                Login::Basic { user, password } => request().basic_auth(user, Some(password.expose_secret())),
                Login::Bearer(token) => request().bearer_auth(token.expose_secret()),
                Login::Token(token) => request().header("X-Auth-Token", token.expose_secret()),
                Login::Session(session) => request().header("X-Auth-Token", session.token().await?.expose_secret()),
            };
            let problem = match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    let headers = answer.headers().clone();
                    match body(answer).await {
                        Ok(body) => return Ok(body.map(|body| (headers, body))),
                        Err(error) => error,
                    }
                }
                Ok(answer) => {
                    let (status, after) = (answer.status(), retry_after(&answer));
                    let reason = body(answer).await.ok().flatten().unwrap_or_default();
                    let reason =
                        String::from_utf8_lossy(&reason[..reason.len().min(REASON_BYTES_MAX)]).trim().to_owned();
                    // Prometheus says 400, others 413 or 422.
                    let is_too_much = reason.contains("exceeded sample limit")
                        || reason.contains("more than") && reason.contains("points")
                        || status == StatusCode::PAYLOAD_TOO_LARGE;
                    if is_too_much {
                        return Ok(None);
                    }
                    if !(status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS) {
                        bail!("{} answered {status}: {reason}", self.base);
                    }
                    wait = after.unwrap_or(wait);
                    anyhow::anyhow!("{} answered {status}: {reason}", self.base)
                }
                Err(error) => anyhow::Error::new(error.without_url()).context(format!("{} does not answer", self.base)),
            };
            if attempt == TRIES {
                return Err(problem);
            }
            tokio::time::sleep(wait.min(WAIT_MAX)).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
        unreachable!("the loop ends by an answer or by the last try")
    }
}

/// The query of the next page: `<http://host/path?query>; rel="next"`.
fn next_query(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|links| links.split(',')).find(|link| link.contains("rel=\"next\""))?;
    let url = next.trim().strip_prefix('<')?.split('>').next()?;
    url.split_once('?').map(|(_, query)| query.to_owned())
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// `None`: more than is taken.
async fn body(answer: Response) -> anyhow::Result<Option<Vec<u8>>> {
    let (mut bytes, mut stream) = (Vec::new(), answer.bytes_stream());
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(reqwest::Error::without_url).context("the answer broke off")?;
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes))
}
