//! `/v3/auth`: tokens given out, looked at and revoked; what their owner can reach.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    EXPIRED_WINDOW, Identity, Principal, Raise, authenticate::AuthBody, domain, projects, tables::DOMAIN_ID, text,
    token::TokenScope,
};
use crate::http::{ApiError, JsonBody, RequestContext};

const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

pub(super) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/v3/auth/tokens", get(show).post(create).delete(revoke))
        .route("/v3/auth/catalog", get(catalog))
        .route("/v3/auth/projects", get(own_projects))
        .route("/v3/auth/domains", get(own_domains))
        .route("/v3/auth/system", get(own_systems))
}

#[derive(Debug, Deserialize)]
struct Wishes {
    nocatalog: Option<String>,
    allow_expired: Option<String>,
}

async fn create(
    State(identity): State<Arc<Identity>>,
    Query(wishes): Query<Wishes>,
    context: RequestContext,
    JsonBody(body): JsonBody<AuthBody>,
) -> Result<Response, ApiError> {
    let (token, principal) = identity.authenticate(body, &context).await?;
    let body = identity.shown(&principal, wishes.nocatalog.is_none());
    Ok((StatusCode::CREATED, [(SUBJECT, subject_value(&token)?)], Json(body)).into_response())
}

/// Also answers HEAD: axum leaves the body away.
async fn show(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    Query(wishes): Query<Wishes>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let expired_too = wishes.allow_expired.as_deref().is_some_and(|wish| ["1", "true", "True"].contains(&wish));
    let may_see_expired = principal.must_be_admin_or_service("identity:validate_token").is_ok();
    let grace = if expired_too && may_see_expired { EXPIRED_WINDOW } else { Duration::ZERO };
    let (token, subject) = identity.subject(&headers, grace).await?;
    principal.must_be_user_or_admin(&subject.user.id, "identity:validate_token")?;
    let body = identity.shown(&subject, wishes.nocatalog.is_none());
    Ok(([(SUBJECT, subject_value(&token)?)], Json(body)).into_response())
}

async fn revoke(
    State(identity): State<Arc<Identity>>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (_, subject) = identity.subject(&headers, Duration::ZERO).await?;
    if subject.user.id != principal.user.id {
        principal.must_be_admin("identity:revoke_token")?;
    }
    let audit = text(subject.payload.audit);
    let kept_until = subject.payload.expires_at.plus(EXPIRED_WINDOW);
    let _raise = Raise(&identity.revision);
    identity
        .database
        .execute(
            "INSERT INTO identity_revoked (audit_id, kept_until) VALUES ($1, $2) ON CONFLICT (audit_id) DO NOTHING",
            &[audit.into(), kept_until.into()],
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn catalog(State(identity): State<Arc<Identity>>, principal: Principal) -> Result<Json<Value>, ApiError> {
    if principal.payload.scope == TokenScope::Unscoped {
        return Err(ApiError::forbidden("identity:get_auth_catalog"));
    }
    let links = json!({"self": identity.catalog.identity_url("/auth/catalog"), "next": null, "previous": null});
    Ok(Json(json!({"catalog": identity.catalog.in_token(), "links": links})))
}

async fn own_projects(State(identity): State<Arc<Identity>>, principal: Principal) -> Result<Json<Value>, ApiError> {
    let found = projects::of_user(&identity, &principal.user.id, true).await?;
    Ok(Json(identity.list("projects", "/auth/projects", found)))
}

async fn own_domains(State(identity): State<Arc<Identity>>, principal: Principal) -> Result<Json<Value>, ApiError> {
    let (roles, _) = identity.roles_of(&principal.user.id, DOMAIN_ID).await?;
    let found = if roles.is_empty() { Vec::new() } else { vec![super::fixed::the_domain(&identity)] };
    Ok(Json(identity.list("domains", "/auth/domains", found)))
}

/// There is no system scope here, so nobody has it.
async fn own_systems(State(identity): State<Arc<Identity>>, _: Principal) -> Json<Value> {
    Json(identity.list("system", "/auth/system", Vec::new()))
}

impl Identity {
    /// The token named by `X-Subject-Token`; 404 if it is not good.
    async fn subject(&self, headers: &HeaderMap, grace: Duration) -> Result<(String, Principal), ApiError> {
        let missing = || ApiError::bad_request("X-Subject-Token is missing.");
        let token = headers.get(SUBJECT).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
        // The token itself is a secret and not repeated.
        let unknown = || ApiError::new(StatusCode::NOT_FOUND, "Could not find token.");
        let principal = self.validate(token, grace).await?.ok_or_else(unknown)?;
        Ok((token.to_owned(), principal))
    }

    /// `{"token": {...}}`, as Keystone shows it.
    fn shown(&self, principal: &Principal, with_catalog: bool) -> Value {
        let payload = &principal.payload;
        let mut token = json!({
            "methods": payload.methods.names(),
            "user": {"id": principal.user.id, "name": principal.user.name, "domain": domain(),
                     "password_expires_at": null},
            "audit_ids": payload.audit_ids(),
            "issued_at": payload.issued_at.zulu_micros(),
            "expires_at": payload.expires_at.zulu_micros(),
        });
        match (payload.scope, &principal.project) {
            (TokenScope::Unscoped, _) => return json!({"token": token}),
            (TokenScope::Project(_), Some(project)) => {
                token["project"] = json!({"id": project.id, "name": project.name, "domain": domain()});
                token["is_domain"] = json!(false);
            }
            _ => token["domain"] = domain(),
        }
        let roles = principal.roles.iter().map(|role| json!({"id": role.id, "name": role.name}));
        token["roles"] = roles.collect();
        if let Some(credential) = &principal.credential {
            token["application_credential"] = json!({"id": credential.id, "name": credential.name, "restricted": true});
        }
        if let Some(trust) = &principal.trust {
            token["OS-TRUST:trust"] = json!({"id": trust.id, "impersonation": trust.impersonation,
                "trustor_user": {"id": trust.trustor}, "trustee_user": {"id": trust.trustee}});
        }
        if with_catalog {
            token["catalog"] = self.catalog.in_token();
        }
        json!({"token": token})
    }
}

fn subject_value(token: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(token).map_err(|_| ApiError::unauthorized())?;
    value.set_sensitive(true);
    Ok(value)
}
