//! Trusts (Keystone's OS-TRUST): somebody lets this service act in their name, in one project, with roles they have.

use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{Session, SessionError, answer::joined};

/// A request to a service of the catalog.
#[derive(Clone, Debug)]
pub struct ServiceRequest<'a> {
    /// Such as `messaging`.
    pub service_type: &'a str,
    /// Such as `GET`.
    pub method: Method,
    /// Below the service's endpoint, with its query.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// JSON body.
    pub body: Option<&'a Value>,
}

impl Session {
    /// Makes a trust in which whoever shows `token` (with a project) lets this service act in their name there, with all
    /// roles of the token. Gives its id. `Refused` with status 401 if the token is not valid.
    pub async fn make_trust(&self, token: &str) -> Result<String, SessionError> {
        let url = joined(&self.identity, "auth/tokens?nocatalog");
        let answer =
            self.send_as_ourselves(Method::GET, url, |request| request.header("X-Subject-Token", token)).await?;
        if !answer.status.is_success() {
            return Err(answer.refused());
        }
        let shown = answer.json()?;
        let shown = &shown["token"];
        let (Some(trustor), Some(project)) = (shown["user"]["id"].as_str(), shown["project"]["id"].as_str()) else {
            return Err(answer.unusable("a trust needs a token with a project".to_owned()));
        };
        let roles = shown["roles"].as_array().map(Vec::as_slice).unwrap_or_default();
        let roles: Vec<Value> = roles.iter().map(|role| json!({"id": role["id"]})).collect();
        let trustee = self.issued().await?.caller.user_id.clone();
        let body = json!({"trust": {"trustor_user_id": trustor, "trustee_user_id": trustee, "project_id": project,
                                    "impersonation": true, "roles": roles, "expires_at": null}});
        let url = joined(&self.identity, "OS-TRUST/trusts");
        let request = self.client.post(url.clone()).header("X-Auth-Token", token).json(&body);
        let answer = self.send(&url, request).await?;
        if !answer.status.is_success() {
            return Err(answer.refused());
        }
        let made = answer.json()?;
        let id = made["trust"]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| answer.unusable("the trust has no id".to_owned()))
    }

    /// Ends a trust; one that is not there has ended.
    pub async fn end_trust(&self, trust_id: &str) -> Result<(), SessionError> {
        let url = joined(&self.identity, &format!("OS-TRUST/trusts/{}", segment(trust_id)));
        let answer = self.send_as_ourselves(Method::DELETE, url, |request| request).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(answer.refused()),
        }
    }

    /// A token in the name of who made the trust; `None` if the trust gives none (any more). Asked for with our own
    /// token: a trust that has ended must not count as a wrong password of ours.
    pub async fn token_of_trust(&self, trust_id: &str) -> Result<Option<SecretString>, SessionError> {
        let scope = json!({"OS-TRUST:trust": {"id": trust_id}});
        for is_last in [false, true] {
            let own = self.token().await?;
            let identity = json!({"methods": ["token"], "token": {"id": own.expose_secret()}});
            match self.ask_for_token(json!({"auth": {"identity": identity, "scope": scope}})).await {
                Ok(Some(issued)) => return Ok(Some(issued.token)),
                // Perhaps it is our own token that is not good any more.
                Ok(None) if !is_last => self.forget(&own),
                // Keystone tells an ended trust from a role that was lost; to us it is the same.
                Ok(None) | Err(SessionError::Refused { status: 403 | 404, .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Asks a service as ourselves, or with a token of somebody else; its answer as JSON, null if it is empty.
    pub async fn request(
        &self,
        request: &ServiceRequest<'_>,
        token: Option<&SecretString>,
    ) -> Result<Value, SessionError> {
        let url = joined(&self.endpoint(request.service_type).await?, request.path);
        let prepare = |mut prepared: reqwest::RequestBuilder| {
            for (name, value) in request.headers {
                prepared = prepared.header(*name, *value);
            }
            match request.body {
                Some(body) => prepared.json(body),
                None => prepared,
            }
        };
        let answer = match token {
            None => self.send_as_ourselves(request.method.clone(), url, prepare).await?,
            Some(token) => {
                let plain = self.client.request(request.method.clone(), url.clone());
                self.send(&url, prepare(plain.header("X-Auth-Token", token.expose_secret()))).await?
            }
        };
        match answer.status.is_success() {
            false => Err(answer.refused()),
            true if answer.body.is_empty() => Ok(Value::Null),
            true => answer.json(),
        }
    }
}

/// An id as one segment of a path.
fn segment(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect()
}
