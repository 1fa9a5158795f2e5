//! Who asks: from a credential in the request to a verified [`Caller`].
//!
//! Unless the settings say otherwise, two credentials are taken: `X-Auth-Token` (checked with the identity service) and
//! `Authorization: Basic` (user and password, or an application credential's id and secret, checked the same way; Gnocchi's
//! own basic mode checks no password, this one does). Requests that only read also take a read token, as `X-Auth-Token`,
//! `Authorization: Bearer` or as the password of the user `token`. Identity headers such as
//! `X-User-Id` or `X-Roles` are never read: anyone can send them. The metric API can be set to take a name without a
//! check ([`Credentials`]); no other face does. This file knows no endpoint and no policy.

use std::net::SocketAddr;

use async_trait::async_trait;
use axum::extract::{ConnectInfo, FromRequestParts};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use ipnet::IpNet;
use orzo_model::{Caller, Standing};
use orzo_session::Session;
use secrecy::{ExposeSecret, SecretString};

use orzo_tokens::{ReadToken, TokenError};

use crate::{SharedApi, problem::Problem};

/// Checks credentials. `Ok(None)` means that the credential is not valid.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Checks a token.
    async fn by_token(&self, token: &str) -> Result<Option<Caller>, AuthenticationUnavailable>;
    /// Checks a user's password; the caller has the user's default project.
    async fn by_password(&self, user: &str, password: &str) -> Result<Option<Caller>, AuthenticationUnavailable>;
    /// Whether there is a project with this id; `None` if nobody may tell us.
    async fn has_project(&self, id: &str) -> Result<Option<bool>, AuthenticationUnavailable>;
}

/// The identity service gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot check the credential now: {reason}")]
pub struct AuthenticationUnavailable {
    /// What is wrong.
    pub reason: String,
}

#[async_trait]
impl Authenticator for Session {
    async fn by_token(&self, token: &str) -> Result<Option<Caller>, AuthenticationUnavailable> {
        self.validate(token).await.map_err(|error| AuthenticationUnavailable { reason: error.to_string() })
    }

    async fn by_password(&self, user: &str, password: &str) -> Result<Option<Caller>, AuthenticationUnavailable> {
        self.check_password(user, password, None)
            .await
            .map_err(|error| AuthenticationUnavailable { reason: error.to_string() })
    }

    async fn has_project(&self, id: &str) -> Result<Option<bool>, AuthenticationUnavailable> {
        Session::has_project(self, id).await.map_err(|error| AuthenticationUnavailable { reason: error.to_string() })
    }
}

/// Which credentials the metric API takes.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Tokens, and users with their passwords; both checked.
    #[default]
    Identity,
    /// Tokens are checked, passwords are not: a user is who it says, `admin` is the administrator, and everyone may read
    /// everything. This is Gnocchi's basic mode, for running its tests and nothing else.
    AnyPassword,
    /// A proxy has checked who asks and says so in a header.
    RemoteUser(TrustedHeader),
}

/// A header with a user's name, believed from some addresses only.
#[derive(Clone, Debug)]
pub struct TrustedHeader {
    /// The header.
    pub name: HeaderName,
    /// Who may set it.
    pub from: Vec<IpNet>,
}

impl TrustedHeader {
    /// The name in the header, if the peer may say it.
    fn name(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Option<String> {
        let peer = peer?.ip().to_canonical();
        if !self.from.iter().any(|net| net.contains(&peer)) {
            return None;
        }
        let mut values = headers.get_all(&self.name).iter();
        let (value, further) = (values.next()?, values.next());
        // Two names are a proxy that adds its own to the client's, and nobody knows which is which.
        let name = value.to_str().ok().filter(|_| further.is_none())?.trim();
        (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.to_owned())
    }
}

/// Longer than any user's name; it becomes part of the `creator` of each thing.
const NAME_BYTES_MAX: usize = 255;

/// What a request brings to prove who asks.
pub(crate) enum Credential {
    /// A token of the identity service.
    Token(SecretString),
    /// A user and a password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: SecretString,
    },
    /// A read token of our own.
    ReadToken(SecretString),
}

/// The user name that goes with a read token as password.
const READ_TOKEN_USER: &str = "token";

/// Longer than any token or password that the identity service takes; what is longer is not even asked about.
const CREDENTIAL_BYTES_MAX: usize = 4096;

/// The credential of a request, if it has one that can be read; a token goes before a password.
pub(crate) fn credential(headers: &HeaderMap) -> Option<Credential> {
    let text = |name: &str| headers.get(name)?.to_str().ok().filter(|t| t.len() <= CREDENTIAL_BYTES_MAX);
    if let Some(token) = text("x-auth-token").map(str::trim).filter(|token| !token.is_empty()) {
        let secret = SecretString::from(token.to_owned());
        return Some(match orzo_tokens::is_read_token(token) {
            true => Credential::ReadToken(secret),
            false => Credential::Token(secret),
        });
    }
    let (scheme, encoded) = text(header::AUTHORIZATION.as_str())?.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") && orzo_tokens::is_read_token(encoded.trim()) {
        return Some(Credential::ReadToken(encoded.trim().to_owned().into()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    if user == READ_TOKEN_USER && orzo_tokens::is_read_token(password) {
        return Some(Credential::ReadToken(password.to_owned().into()));
    }
    (!user.is_empty()).then(|| Credential::Password { user: user.to_owned(), password: password.to_owned().into() })
}

/// The verified caller of a request; 401 without one.
#[derive(Clone, Debug)]
pub(crate) struct Asker(pub(crate) Caller);

impl FromRequestParts<SharedApi> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        // Only the face that the setting is about takes other credentials.
        let taken = parts.extensions.get::<TakesSetCredentials>().map(|_| &api.settings.credentials);
        match taken {
            Some(Credentials::RemoteUser(trusted)) => {
                let name = trusted.name(&parts.headers, peer).ok_or_else(Problem::unauthorized)?;
                Ok(Self(Caller::named(&name, Standing::Name)))
            }
            taken => {
                let only_reads = parts.extensions.get::<TakesReadTokens>().is_some_and(|takes| (takes.0)(parts));
                verify(&parts.headers, taken, only_reads.then_some(peer), api).await
            }
        }
    }
}

/// Marks the requests of a face, or of some of its routes, that take read tokens: those of which this says that they only
/// read. Nowhere else are they worth anything.
#[derive(Clone)]
pub(crate) struct TakesReadTokens(pub(crate) fn(&Parts) -> bool);

/// Marks the requests of the face that takes the credentials of the settings.
#[derive(Clone)]
pub(crate) struct TakesSetCredentials;

/// Checks a request's token or password; `taken` is the face's setting. `reader` is the address of who sends a request
/// that only reads, which takes read tokens too.
pub(crate) async fn verify(
    headers: &HeaderMap,
    taken: Option<&Credentials>,
    reader: Option<Option<SocketAddr>>,
    api: &SharedApi,
) -> Result<Asker, Problem> {
    let credential = credential(headers).ok_or_else(Problem::unauthorized)?;
    if let (Some(Credentials::AnyPassword), Credential::Password { user, .. }) = (taken, &credential) {
        return Ok(Asker(Caller::named(user, Standing::OpenName)));
    }
    let answer = match &credential {
        Credential::Token(token) => api.session.by_token(token.expose_secret()).await,
        Credential::Password { user, password } => api.session.by_password(user, password.expose_secret()).await,
        Credential::ReadToken(token) => return by_read_token(token, reader, api).await,
    };
    match answer {
        Ok(Some(caller)) => Ok(Asker(caller)),
        Ok(None) => Err(Problem::unauthorized()),
        Err(error) => {
            tracing::warn!(%error, "a request waits for the identity service");
            Err(Problem::unavailable("the identity service does not answer"))
        }
    }
}

async fn by_read_token(
    token: &SecretString,
    reader: Option<Option<SocketAddr>>,
    api: &SharedApi,
) -> Result<Asker, Problem> {
    let Some(peer) = reader else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a read token only reads, and not everything"));
    };
    let Some(book) = &api.tokens else { return Err(Problem::unauthorized()) };
    let address = peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
    match book.check(token.expose_secret(), &address).await {
        Ok(Some(token)) => Ok(Asker(reader_of(&token))),
        Ok(None) => Err(Problem::unauthorized()),
        Err(error) => Err(problem_of(&error)),
    }
}

/// Who a read token stands for: somebody who reads in its project, or everywhere as an operator does.
fn reader_of(token: &ReadToken) -> Caller {
    let roles: &[&str] = if token.all_projects { &["admin", "reader"] } else { &["reader"] };
    Caller {
        user_id: token.user_id.clone(),
        user_name: token.name.clone(),
        project_id: Some(token.project_id.clone()),
        project_name: None,
        user_domain_id: None,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        standing: if token.all_projects { Standing::Everywhere } else { Standing::Project },
    }
}

/// How trouble with read tokens is told.
pub(crate) fn problem_of(error: &TokenError) -> Problem {
    match error {
        TokenError::Name | TokenError::Expired { .. } => Problem::bad(error.to_string()),
        TokenError::TooMany => Problem::new(StatusCode::FORBIDDEN, error.to_string()),
        TokenError::Guessing { wait } => Problem {
            retry_after_s: Some(wait.as_secs().max(1)),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
        },
        TokenError::Database(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "a request waits for the book of tokens");
            Problem::unavailable(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        match credential(&headers) {
            None => "none".to_owned(),
            Some(Credential::Token(token)) => format!("token {}", token.expose_secret()),
            Some(Credential::Password { user, password }) => format!("{user} {}", password.expose_secret()),
            Some(Credential::ReadToken(token)) => format!("read {}", token.expose_secret()),
        }
    }

    #[test]
    fn credentials_are_read_and_other_headers_are_not() {
        assert_eq!(read("x-auth-token", "abc"), "token abc");
        assert_eq!(read("x-auth-token", " "), "none");
        assert_eq!(read("authorization", "basic YWRtaW46cGE6c3M="), "admin pa:ss");
        assert_eq!(read("authorization", "BASIC YWRtaW46"), "admin ");
        assert_eq!(read("authorization", "Bearer YWRtaW46"), "none");
        assert_eq!(read("authorization", "basic ???"), "none");
        assert_eq!(read("authorization", "basic OnB3"), "none", "no user");
        assert_eq!(read("x-user-id", "admin"), "none");
        for (name, value) in [
            ("x-auth-token", "orzo_a"),
            ("authorization", "Bearer orzo_a"),
            ("authorization", "Basic dG9rZW46b3J6b19h"),
        ] {
            assert_eq!(read(name, value), "read orzo_a", "{name}: {value}");
        }
        assert_eq!(read("authorization", "Basic YWRtaW46b3J6b19h"), "admin orzo_a", "a password as good as any");
        assert_eq!(read("x-auth-token", &"x".repeat(CREDENTIAL_BYTES_MAX + 1)), "none");
    }

    #[test]
    fn a_name_in_a_header_is_believed_from_the_proxy_only() {
        let trusted = TrustedHeader {
            name: HeaderName::from_static("x-remote-user"),
            from: vec!["10.0.0.0/8".parse().expect("a network")],
        };
        let mut headers = HeaderMap::new();
        let peer = |address: &str| Some(SocketAddr::new(address.parse().expect("an address"), 1));
        assert_eq!(trusted.name(&headers, peer("10.1.2.3")), None);
        headers.append("x-remote-user", "alice".parse().expect("a value"));
        assert_eq!(trusted.name(&headers, peer("10.1.2.3")).as_deref(), Some("alice"));
        assert_eq!(trusted.name(&headers, peer("::ffff:10.1.2.3")).as_deref(), Some("alice"));
        assert_eq!(trusted.name(&headers, peer("11.1.2.3")), None);
        assert_eq!(trusted.name(&headers, None), None);
        headers.append("x-remote-user", "admin".parse().expect("a value"));
        assert_eq!(trusted.name(&headers, peer("10.1.2.3")), None);
    }
}
