//! What the identity service answers, read by pure functions: tokens, callers, catalogs, messages.

use orzo_model::{Caller, Standing, Timestamp};
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

/// Names that mean the same service type, the catalog's usual one first (os-service-types, and what gnocchiclient,
/// aodhclient and openstacksdk ask for).
const ALIASES: &[&[&str]] = &[
    &["alarming", "alarm"],
    &["metering", "meter", "telemetry"],
    &["event", "events"],
    &["volumev3", "block-storage", "block-store", "volume"],
    &["object-store", "object-storage"],
    &["load-balancer", "loadbalancer"],
];

/// Roles that Keystone's bootstrap makes imply one another, each the next.
const CHAIN: &[&str] = &["admin", "manager", "member", "reader"];

/// Characters of a refusal shown; a proxy's HTML page says nothing more after that.
const MESSAGE_CHARS_MAX: usize = 300;

/// A token with what it tells.
pub(crate) struct Issued {
    pub(crate) token: SecretString,
    pub(crate) expires_at: Timestamp,
    pub(crate) renew_at: Timestamp,
    pub(crate) caller: Caller,
    pub(crate) catalog: Value,
}

/// Reads the `token` object of a `POST /auth/tokens` answer.
pub(crate) fn read_token(token: SecretString, body: &Value) -> Result<Issued, String> {
    let expires_at = body["expires_at"].as_str().ok_or("the token has no `expires_at`")?;
    let expires_at: Timestamp = expires_at.parse().map_err(|error| format!("`expires_at`: {error}"))?;
    let catalog = body["catalog"].clone();
    Ok(Issued { token, expires_at, renew_at: expires_at, caller: caller_of(body)?, catalog })
}

/// Who a token stands for. Roles are lower case and carry the implied ones, whether the service lists them or not.
pub(crate) fn caller_of(token: &Value) -> Result<Caller, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let user = &token["user"];
    let named = token["roles"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut roles: Vec<String> = named.iter().filter_map(|role| role["name"].as_str()).map(str::to_lowercase).collect();
    for pair in CHAIN.windows(2) {
        if roles.iter().any(|role| role == pair[0]) {
            roles.push(pair[1].to_owned());
        }
    }
    roles.sort();
    roles.dedup();
    Ok(Caller {
        user_id: text(&user["id"]).ok_or("the token has no user id")?,
        user_name: text(&user["name"]).unwrap_or_default(),
        project_id: text(&token["project"]["id"]),
        project_name: text(&token["project"]["name"]),
        user_domain_id: text(&user["domain"]["id"]),
        roles,
        standing: Standing::Project,
    })
}

/// The public endpoint of a service type or of its aliases.
pub(crate) fn endpoint_of(catalog: &Value, service_type: &str) -> Option<Url> {
    let names = ALIASES.iter().find(|names| names.contains(&service_type)).copied();
    let own = [service_type];
    let names = own.iter().chain(names.unwrap_or_default());
    let services = catalog.as_array()?;
    names
        .filter_map(|name| services.iter().find(|service| service["type"].as_str() == Some(name)))
        .filter_map(|service| service["endpoints"].as_array())
        .flatten()
        .find(|endpoint| endpoint["interface"].as_str() == Some("public"))
        .and_then(|endpoint| Url::parse(endpoint["url"].as_str()?).ok())
}

/// The identity service's v3 address, whether the setting has `/v3` or not.
pub(crate) fn versioned(auth_url: &Url) -> Url {
    let mut url = auth_url.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/v3") { path } else { format!("{path}/v3") });
    url
}

/// `path` (with its query) below `endpoint`. If the endpoint ends with a version and the path begins with the same
/// one, it is said once: catalogs differ in whether `/v2` is part of the image endpoint.
pub fn joined(endpoint: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let base = endpoint.path().trim_end_matches('/');
    let mut path = path.trim_start_matches('/');
    let last = base.rsplit('/').next().unwrap_or_default();
    let is_version = last.starts_with('v') && last[1..].starts_with(|c: char| c.is_ascii_digit());
    if is_version {
        match path.strip_prefix(last) {
            Some("") => path = "",
            Some(rest) if rest.starts_with('/') => path = &rest[1..],
            _ => {}
        }
    }
    let mut url = endpoint.clone();
    url.set_path(&if path.is_empty() { base.to_owned() } else { format!("{base}/{path}") });
    url.set_query(query);
    url
}

/// The words of a refusal: `error.message` of any service, or the start of the text.
pub(crate) fn message_of(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|value| {
        let inner = value.as_object()?.values().find_map(|inner| inner["message"].as_str());
        // The last is how Prometheus says it.
        inner.or_else(|| value["message"].as_str()).or_else(|| value["error"].as_str())
    });
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_join_and_a_version_is_said_once() {
        for (endpoint, path, expected) in [
            ("http://h/image", "/v2/images?limit=5", "http://h/image/v2/images?limit=5"),
            ("http://h/image/v2/", "v2/images", "http://h/image/v2/images"),
            ("http://h/image/v2", "/v2", "http://h/image/v2"),
            ("http://h/compute/v2.1", "servers", "http://h/compute/v2.1/servers"),
            ("http://h:9292", "v2/images", "http://h:9292/v2/images"),
            ("http://h/v2", "v2things", "http://h/v2/v2things"),
        ] {
            let url = Url::parse(endpoint).expect("a URL");
            assert_eq!(joined(&url, path).as_str(), expected);
        }
    }

    #[test]
    fn the_auth_url_may_have_the_version_or_not() {
        for text in ["http://h/identity", "http://h/identity/", "http://h/identity/v3", "http://h/identity/v3/"] {
            assert_eq!(versioned(&Url::parse(text).expect("a URL")).as_str(), "http://h/identity/v3");
        }
    }

    #[test]
    fn implied_roles_are_in_the_caller() {
        let caller = caller_of(&json!({"user": {"id": "u"}, "roles": [{"name": "Admin"}, {"name": "service"}]}));
        assert_eq!(caller.expect("a caller").roles, ["admin", "manager", "member", "reader", "service"]);
        let caller = caller_of(&json!({"user": {"id": "u"}, "roles": [{"name": "member"}]}));
        assert_eq!(caller.expect("a caller").roles, ["member", "reader"]);
        assert!(caller_of(&json!({"roles": []})).is_err());
    }

    #[test]
    fn endpoints_are_found_by_alias_and_only_public_ones() {
        let catalog = json!([
            {"type": "alarming", "endpoints": [
                {"interface": "admin", "url": "http://admin/"}, {"interface": "public", "url": "http://public/"}]},
            {"type": "image", "endpoints": [{"interface": "internal", "url": "http://internal/"}]},
        ]);
        assert_eq!(endpoint_of(&catalog, "alarm").expect("alias").as_str(), "http://public/");
        assert_eq!(endpoint_of(&catalog, "alarming").expect("name").as_str(), "http://public/");
        assert_eq!(endpoint_of(&catalog, "image"), None);
        assert_eq!(endpoint_of(&Value::Null, "image"), None);
    }

    #[test]
    fn a_refusals_words_are_found_in_every_services_shape() {
        assert_eq!(message_of(br#"{"error": {"code": 403, "message": "no"}}"#), "no");
        assert_eq!(message_of(br#"{"itemNotFound": {"message": "gone"}}"#), "gone");
        assert_eq!(message_of(br#"{"status": "error", "error": "no such function"}"#), "no such function");
        assert_eq!(message_of(b"<html>"), "<html>");
    }
}
