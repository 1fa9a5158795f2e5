//! One try to deliver by HTTP: JSON with the headers of the Standard Webhooks convention.
//!
//! The name is resolved here, once, every address is checked, and the connection goes to an address that was checked,
//! so that a name that changes its address in between leads nowhere. Certificates are always verified, redirects are
//! not followed; the answer's body is not read. It knows no notices and no alarms.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::DateTime;
use orzo_model::{SharedClock, Timestamp};
use reqwest::{
    Certificate, Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    address::{AllowList, check_address, check_url},
    notify::outcome::{Failure, Outcome, RETRY_AFTER_MAX},
    signature::SigningKeys,
};

/// How names become addresses.
#[async_trait]
pub(crate) trait Lookup: Send + Sync + 'static {
    /// All addresses of a name.
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// Sends letters to webhooks.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    allowed: Arc<AllowList>,
    keys: SigningKeys,
    clock: SharedClock,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    /// The same on every try.
    pub(crate) id: &'a str,
    /// Whose keys sign it.
    pub(crate) project_id: &'a str,
    /// JSON text.
    pub(crate) body: &'a str,
    /// `X-Auth-Token`, for receivers that ask for one.
    pub(crate) token: Option<&'a SecretString>,
}

impl Webhook {
    /// A sender with deadlines for the connection and for the whole try.
    pub fn new(
        allowed: AllowList,
        keys: SigningKeys,
        connect_timeout: Duration,
        timeout: Duration,
        clock: SharedClock,
    ) -> Result<Self, reqwest::Error> {
        Self::with_authorities(allowed, keys, connect_timeout, timeout, clock, b"")
    }

    /// As [`Self::new`], and certificates of these authorities (PEM) are good for receivers, too: those of a private
    /// cloud, beside the system's.
    pub fn with_authorities(
        allowed: AllowList,
        keys: SigningKeys,
        connect_timeout: Duration,
        timeout: Duration,
        clock: SharedClock,
        authorities: &[u8],
    ) -> Result<Self, reqwest::Error> {
        let authorities = Certificate::from_pem_bundle(authorities)?;
        let client = Client::builder().connect_timeout(connect_timeout).timeout(timeout);
        let client = authorities.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        Self::of_client(client, allowed, keys, clock, Arc::new(SystemLookup))
    }

    #[cfg(test)]
    pub(crate) fn with_lookup(
        allowed: AllowList,
        keys: SigningKeys,
        connect_timeout: Duration,
        timeout: Duration,
        clock: SharedClock,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder().connect_timeout(connect_timeout).timeout(timeout);
        Self::of_client(client, allowed, keys, clock, lookup)
    }

    fn of_client(
        client: reqwest::ClientBuilder,
        allowed: AllowList,
        keys: SigningKeys,
        clock: SharedClock,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, reqwest::Error> {
        let allowed = Arc::new(allowed);
        let client = client
            .dns_resolver(Arc::new(GuardedResolver { allowed: allowed.clone(), lookup }))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy from the environment would resolve names behind our back.
            .no_proxy()
            .user_agent(concat!("orzo/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowed, keys, clock })
    }

    /// The keys that sign.
    pub fn keys(&self) -> &SigningKeys {
        &self.keys
    }

    /// One try.
    pub(crate) async fn send(&self, url: &Url, letter: &Letter<'_>) -> Outcome {
        if let Err(error) = check_url(url, &self.allowed) {
            return Outcome::hopeless(Failure::NoConnection, error);
        }
        let now = self.clock.now();
        let signature = self.keys.signature(letter.project_id, letter.id, now.secs(), letter.body);
        let mut request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-openstack-request-id", format!("req-{}", letter.id))
            .header("webhook-id", letter.id)
            .header("webhook-timestamp", now.secs().to_string())
            .header("webhook-signature", signature)
            .body(letter.body.to_owned());
        if let Some(token) = letter.token {
            let Ok(mut value) = header::HeaderValue::from_str(token.expose_secret()) else {
                return Outcome::hopeless(Failure::NoTrust, "the token is no header value");
            };
            value.set_sensitive(true);
            request = request.header("x-auth-token", value);
        }
        match request.send().await {
            Ok(response) => outcome_of(response.status(), retry_after(response.headers(), now)),
            Err(error) => {
                // A connection that was made and then broke is not the same as none.
                let failure = match () {
                    () if error.is_timeout() => Failure::NoAnswer,
                    () if error.is_connect() => Failure::NoConnection,
                    () => Failure::NoAnswer,
                };
                Outcome::failed(failure, reason_of(error))
            }
        }
    }
}

fn outcome_of(status: StatusCode, retry_after: Option<Duration>) -> Outcome {
    if status.is_success() {
        return Outcome::Delivered;
    }
    if status == StatusCode::GONE {
        return Outcome::hopeless(Failure::Gone, "the receiver answered 410: it is gone for good");
    }
    let reason = format!("the receiver answered {}", status.as_u16());
    Outcome::Failed { failure: Failure::NotAccepted, reason, retry_after }
}

/// Seconds, or a date (RFC 9110), cut to what is reasonable.
fn retry_after(headers: &header::HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(text).ok()?;
            Timestamp::from_secs(date.timestamp()).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The chain of causes, without the URL.
fn reason_of(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}

/// The system's resolver.
struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Lets only allowed addresses through. One refused address refuses the name: an honest receiver has none.
struct GuardedResolver {
    allowed: Arc<AllowList>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allowed, lookup) = (self.allowed.clone(), self.lookup.clone());
        Box::pin(async move {
            let found = lookup.addresses(name.as_str()).await?;
            for address in &found {
                check_address(*address, &allowed)?;
            }
            // The port is the URL's; reqwest puts it in.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests;
