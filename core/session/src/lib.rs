//! A session with the identity service: one token cached and renewed, the catalog, and the check of others' tokens.
//!
//! In: this service's credentials, and the tokens or passwords that its clients show. Out: a valid token, endpoints by
//! service type, answers of other services as JSON, and verified [`Caller`]s.
//!
//! Speaks Keystone v3 over HTTP, so that it works the same against the embedded cloud and a real OpenStack. It does not
//! know what the answers of other services mean.
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod trusts;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use orzo_model::{Caller, SharedClock, Timestamp};
use parking_lot::RwLock;
use reqwest::{Method, StatusCode, header::HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

pub use crate::{answer::joined, trusts::ServiceRequest};
use crate::{
    answer::{Issued, caller_of, read_token},
    cache::Verdicts,
};

/// One request with its answer, from the first byte to the last; longer than any healthy identity service needs.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer read; a catalog has a few KiB, a page of 1,000 images about 2 MiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// A token is renewed this long before it expires, so that a slow request does not outlive it ...
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// ... or, if its whole life is short, after this share of it.
const RENEW_AFTER_SHARE: f64 = 0.5;
/// After the identity service refused our own credentials we ask again only so late: it counts failures.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How long a verdict about someone's token may be used again. With an identity service in another process a revoked
/// token works at most so long; with one in the same process it is refused at once (see [`Session::with_revision`]).
pub const VERDICT_TTL: Duration = Duration::from_secs(5);

/// Who this service is.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Such as `http://keystone:5000/v3`; the `/v3` may be missing.
    pub auth_url: Url,
    /// User name.
    pub username: String,
    /// Password.
    pub password: SecretString,
    /// Name of the user's domain.
    pub user_domain: String,
    /// Name of the project to work in.
    pub project: String,
    /// Name of the project's domain.
    pub project_domain: String,
}

/// A session. Share it behind its `Arc`: all share one token.
pub struct Session {
    credentials: Credentials,
    identity: Url,
    client: reqwest::Client,
    clock: SharedClock,
    current: RwLock<Option<Arc<Issued>>>,
    /// Held while a token is asked for, so that many callers cause one request. Remembers a refusal.
    renewing: tokio::sync::Mutex<Option<Refusal>>,
    verdicts: Verdicts,
}

struct Refusal {
    until: Duration,
    error: SessionError,
}

/// What can go wrong between us and another service.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection, or it broke.
    #[error("cannot reach {url}")]
    Unreachable {
        /// Without query.
        url: String,
        /// What happened.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// No complete answer in time.
    #[error("no answer from {url} within {deadline:?}")]
    Deadline {
        /// Without query.
        url: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The identity service does not accept this service's own credentials.
    #[error("the identity service refuses user `{username}` in project `{project}`")]
    Credentials {
        /// Our user.
        username: String,
        /// Our project.
        project: String,
    },
    /// An answer that says no.
    #[error("{url} answers {status}: {message}")]
    Refused {
        /// Without query.
        url: String,
        /// HTTP status.
        status: u16,
        /// The start of its words.
        message: String,
    },
    /// An answer that is not what the protocol says.
    #[error("{url} gives an answer that cannot be used: {reason}")]
    BadAnswer {
        /// Without query.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The catalog has no such service.
    #[error("the catalog has no service of type `{service_type}`")]
    NoEndpoint {
        /// What was asked for.
        service_type: String,
    },
}

impl SessionError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// An answer: status, headers, body.
struct Answer {
    url: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Session {
    /// A session; nothing is sent before it is needed. The client carries TLS settings; deadlines are set here.
    pub fn new(credentials: Credentials, client: reqwest::Client, clock: SharedClock) -> Arc<Self> {
        Self::with_revision(credentials, client, clock, Arc::default())
    }

    /// As [`Self::new`], for an identity service in the same process: whoever revokes something there raises
    /// `revision`, and no verdict from before is used again.
    pub fn with_revision(
        credentials: Credentials,
        client: reqwest::Client,
        clock: SharedClock,
        revision: Arc<AtomicU64>,
    ) -> Arc<Self> {
        let identity = answer::versioned(&credentials.auth_url);
        Arc::new(Self {
            identity,
            credentials,
            client,
            current: RwLock::new(None),
            renewing: tokio::sync::Mutex::new(None),
            verdicts: Verdicts::new(clock.clone(), VERDICT_TTL, revision),
            clock,
        })
    }

    /// A valid token of our own. Cached, renewed before it expires; many callers at once cause one request.
    pub async fn token(&self) -> Result<SecretString, SessionError> {
        Ok(self.issued().await?.token.clone())
    }

    /// A service refused this token: if it is still ours, the next [`Self::token`] asks for a new one.
    pub fn forget(&self, token: &SecretString) {
        let mut current = self.current.write();
        // Someone else may have renewed it meanwhile.
        if current.as_ref().is_some_and(|current| current.token.expose_secret() == token.expose_secret()) {
            *current = None;
        }
    }

    /// Our own project's id, as the token tells it.
    pub async fn project_id(&self) -> Result<Option<String>, SessionError> {
        Ok(self.issued().await?.caller.project_id.clone())
    }

    /// Public endpoint of a service, from the catalog. The types' well-known aliases are understood.
    pub async fn endpoint(&self, service_type: &str) -> Result<Url, SessionError> {
        let issued = self.issued().await?;
        answer::endpoint_of(&issued.catalog, service_type)
            .ok_or_else(|| SessionError::NoEndpoint { service_type: service_type.to_owned() })
    }

    /// `GET path` at a service, as JSON. Asks once more with a new token if the first is refused.
    pub async fn get(&self, service_type: &str, path: &str) -> Result<Value, SessionError> {
        let url = joined(&self.endpoint(service_type).await?, path);
        let answer = self.send_as_ourselves(Method::GET, url, |request| request).await?;
        if !answer.status.is_success() {
            return Err(answer.refused());
        }
        answer.json()
    }

    /// Who shows this token; `None` if it is not valid. A verdict is used again for a few seconds.
    pub async fn validate(&self, token: &str) -> Result<Option<Caller>, SessionError> {
        // Whatever is not a header value is not a token either.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(None);
        }
        self.verdicts.get(&[b"token", token.as_bytes()], async || self.ask_about(token).await).await
    }

    /// Who has this password, in the user domain of our own credentials; `None` if it is wrong. Without a project: the
    /// user's default project, or the only one. A user of 32 hex digits may also be an application credential's id
    /// with its secret as password.
    pub async fn check_password(
        &self,
        user: &str,
        password: &str,
        project: Option<&str>,
    ) -> Result<Option<Caller>, SessionError> {
        let parts = [b"password".as_slice(), user.as_bytes(), password.as_bytes(), project.unwrap_or("").as_bytes()];
        let ask = async || {
            if user.len() == 32 && user.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let identity = json!({"methods": ["application_credential"],
                                      "application_credential": {"id": user, "secret": password}});
                if let Some(issued) = self.ask_for_token(json!({"auth": {"identity": identity}})).await? {
                    return Ok(Some(issued.caller));
                }
            }
            self.log_in(user, password, project).await
        };
        self.verdicts.get(&parts, ask).await
    }

    /// Whether there is a project with this id; `None` if the identity service does not let us know.
    pub async fn has_project(&self, id: &str) -> Result<Option<bool>, SessionError> {
        // Ids are hex digits, or what an operator chose; anything else would be another path.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if id.is_empty() || !id.bytes().all(is_plain) {
            return Ok(Some(false));
        }
        let url = joined(&self.identity, &format!("projects/{id}"));
        let answer = self.send_as_ourselves(Method::GET, url, |request| request).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Some(false)),
            StatusCode::FORBIDDEN => Ok(None),
            status if status.is_success() => Ok(Some(true)),
            _ => Err(answer.refused()),
        }
    }

    async fn log_in(&self, user: &str, password: &str, project: Option<&str>) -> Result<Option<Caller>, SessionError> {
        let identity = password_identity(user, &self.credentials.user_domain, password);
        let body = match project {
            Some(project) => {
                json!({"auth": {"identity": identity, "scope": project_scope(project, &self.credentials.project_domain)}})
            }
            None => json!({"auth": {"identity": identity}}),
        };
        let Some(issued) = self.ask_for_token(body).await? else { return Ok(None) };
        if issued.caller.project_id.is_some() || project.is_some() {
            return Ok(Some(issued.caller));
        }
        let url = joined(&self.identity, "auth/projects");
        let token = issued.token.expose_secret();
        let request = self.client.get(url.clone()).header("X-Auth-Token", token);
        let answer = self.send(&url, request).await?;
        if !answer.status.is_success() {
            return Err(answer.refused());
        }
        let projects = answer.json()?;
        let Some([only]) = projects["projects"].as_array().map(Vec::as_slice) else {
            return Ok(Some(issued.caller));
        };
        let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
                                   "scope": {"project": {"id": only["id"]}}}});
        Ok(self.ask_for_token(body).await?.map(|issued| issued.caller))
    }

    async fn ask_about(&self, token: &str) -> Result<Option<Caller>, SessionError> {
        let url = joined(&self.identity, "auth/tokens?nocatalog");
        let answer =
            self.send_as_ourselves(Method::GET, url, |request| request.header("X-Subject-Token", token)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let body = answer.json()?;
                caller_of(&body["token"]).map(Some).map_err(|reason| answer.unusable(reason))
            }
            _ => Err(answer.refused()),
        }
    }

    /// Sends with our token; if that is refused, once more with a new one.
    async fn send_as_ourselves(
        &self,
        method: Method,
        url: Url,
        prepare: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, SessionError> {
        let issued = self.issued().await?;
        let request = |issued: &Issued| {
            let request = self.client.request(method.clone(), url.clone());
            prepare(request.header("X-Auth-Token", issued.token.expose_secret()))
        };
        let answer = self.send(&url, request(&issued)).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.forget(&issued.token);
        let issued = self.issued().await?;
        self.send(&url, request(&issued)).await
    }

    async fn issued(&self) -> Result<Arc<Issued>, SessionError> {
        if let Some(issued) = self.usable() {
            return Ok(issued);
        }
        let mut refusal = self.renewing.lock().await;
        if let Some(issued) = self.usable() {
            return Ok(issued);
        }
        if let Some(refused) = &*refusal
            && self.clock.monotonic() < refused.until
        {
            return Err(refused.error.clone());
        }
        let credentials = &self.credentials;
        let identity =
            password_identity(&credentials.username, &credentials.user_domain, credentials.password.expose_secret());
        let scope = project_scope(&credentials.project, &credentials.project_domain);
        let asked = self.ask_for_token(json!({"auth": {"identity": identity, "scope": scope}})).await?;
        let Some(issued) = asked else {
            let error = SessionError::Credentials {
                username: credentials.username.clone(),
                project: credentials.project.clone(),
            };
            *refusal = Some(Refusal { until: self.clock.monotonic() + REFUSED_PAUSE, error: error.clone() });
            return Err(error);
        };
        *refusal = None;
        let issued = Arc::new(issued);
        *self.current.write() = Some(issued.clone());
        tracing::debug!(username = credentials.username, expires_at = %issued.expires_at, "token renewed");
        Ok(issued)
    }

    fn usable(&self) -> Option<Arc<Issued>> {
        let current = self.current.read();
        let issued = current.as_ref()?;
        (self.clock.now() < issued.renew_at).then(|| issued.clone())
    }

    /// A token for these credentials; `None` if they are refused.
    async fn ask_for_token(&self, body: Value) -> Result<Option<Issued>, SessionError> {
        let url = joined(&self.identity, "auth/tokens");
        let answer = self.send(&url, self.client.post(url.clone()).json(&body)).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Ok(None),
            status if status.is_success() => {
                let token = answer.headers.get("x-subject-token").and_then(|value| value.to_str().ok());
                let Some(token) = token else { return Err(answer.unusable("no X-Subject-Token".to_owned())) };
                let token = SecretString::from(token.to_owned());
                let body = answer.json()?;
                let now = self.clock.now();
                let mut issued = read_token(token, &body["token"]).map_err(|reason| answer.unusable(reason))?;
                issued.renew_at = renew_at(now, issued.expires_at);
                Ok(Some(issued))
            }
            _ => Err(answer.refused()),
        }
    }

    async fn send(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<Answer, SessionError> {
        let mut shown = url.clone();
        shown.set_query(None);
        let shown = shown.to_string();
        let exchange = async {
            // `without_url`: a query may carry what should not be logged.
            let unreachable = |error: reqwest::Error| SessionError::Unreachable {
                url: shown.clone(),
                source: Arc::new(error.without_url()),
            };
            let mut response = request.send().await.map_err(unreachable)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    let reason = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
                    return Err(SessionError::BadAnswer { url: shown.clone(), reason });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { url: shown.clone(), status: response.status(), headers: response.headers().clone(), body })
        };
        match tokio::time::timeout(REQUEST_DEADLINE, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SessionError::Deadline { url: shown, deadline: REQUEST_DEADLINE }),
        }
    }
}

impl Answer {
    fn json(&self) -> Result<Value, SessionError> {
        serde_json::from_slice(&self.body).map_err(|error| self.unusable(error.to_string()))
    }

    fn refused(&self) -> SessionError {
        SessionError::Refused {
            url: self.url.clone(),
            status: self.status.as_u16(),
            message: answer::message_of(&self.body),
        }
    }

    fn unusable(&self, reason: String) -> SessionError {
        SessionError::BadAnswer { url: self.url.clone(), reason }
    }
}

/// When to ask for the next token.
fn renew_at(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.since(now);
    let early = expires_at.minus(RENEW_BEFORE);
    early.max(now.plus(life.mul_f64(RENEW_AFTER_SHARE)))
}

fn password_identity(user: &str, domain: &str, password: &str) -> Value {
    json!({"methods": ["password"],
           "password": {"user": {"name": user, "domain": {"name": domain}, "password": password}}})
}

fn project_scope(project: &str, domain: &str) -> Value {
    json!({"project": {"name": project, "domain": {"name": domain}}})
}

#[cfg(test)]
mod tests;
