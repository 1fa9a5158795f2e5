//! Who asks: from a credential in the request to a verified [`Caller`].
//!
//! Two credentials are taken: `X-Auth-Token` (checked with the identity service) and `Authorization: Basic` (user and
//! password, checked the same way; Gnocchi's own basic mode checks no password, this one does). Identity headers such as
//! `X-User-Id` or `X-Roles` are never read: anyone can send them. This file knows no endpoint and no policy.

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header, request::Parts};
use orzo_model::Caller;
use orzo_session::Session;
use secrecy::{ExposeSecret, SecretString};

use crate::{SharedApi, problem::Problem};

/// Checks credentials. `Ok(None)` means that the credential is not valid.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Checks a token.
    async fn by_token(&self, token: &str) -> Result<Option<Caller>, AuthenticationUnavailable>;
    /// Checks a user's password; the caller has the user's default project.
    async fn by_password(&self, user: &str, password: &str) -> Result<Option<Caller>, AuthenticationUnavailable>;
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
}

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
}

/// Longer than any token or password that the identity service takes; what is longer is not even asked about.
const CREDENTIAL_BYTES_MAX: usize = 4096;

/// The credential of a request, if it has one that can be read; a token goes before a password.
pub(crate) fn credential(headers: &HeaderMap) -> Option<Credential> {
    let text = |name: &str| headers.get(name)?.to_str().ok().filter(|t| t.len() <= CREDENTIAL_BYTES_MAX);
    if let Some(token) = text("x-auth-token") {
        return (!token.trim().is_empty()).then(|| Credential::Token(token.trim().to_owned().into()));
    }
    let (scheme, encoded) = text(header::AUTHORIZATION.as_str())?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (!user.is_empty()).then(|| Credential::Password { user: user.to_owned(), password: password.to_owned().into() })
}

/// The verified caller of a request; 401 without one.
#[derive(Clone, Debug)]
pub(crate) struct Asker(pub(crate) Caller);

impl FromRequestParts<SharedApi> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        verify(&parts.headers, api).await
    }
}

/// Checks a request's credential.
pub(crate) async fn verify(headers: &HeaderMap, api: &SharedApi) -> Result<Asker, Problem> {
    let credential = credential(headers).ok_or_else(Problem::unauthorized)?;
    let answer = match &credential {
        Credential::Token(token) => api.session.by_token(token.expose_secret()).await,
        Credential::Password { user, password } => api.session.by_password(user, password.expose_secret()).await,
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
        assert_eq!(read("x-auth-token", &"x".repeat(CREDENTIAL_BYTES_MAX + 1)), "none");
    }
}
