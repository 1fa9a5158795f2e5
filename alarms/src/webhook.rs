//! One try to deliver a notice by HTTP: Aodh's body, the headers of the Standard Webhooks convention.
//!
//! The name is resolved here, every address is checked, and the connection goes to an address that was checked, so
//! that a name that changes its address in between leads nowhere. Redirects are not followed; the answer's body is
//! not read.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use orzo_model::SharedClock;
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use url::Url;

use crate::{
    address::{AllowList, check_address, check_url},
    book::Notice,
};

/// Longer waits that a receiver asks for are cut: a day of silence is as good as gone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The key that signs notices; receivers hold the same.
#[derive(Clone)]
pub struct SigningKey(SecretString);

/// Sends notices to webhooks.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    allowed: Arc<AllowList>,
    key: SigningKey,
    clock: SharedClock,
}

/// How a try ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// 2xx.
    Delivered,
    /// Anything that may be better later.
    Failed {
        /// In words; without the URL's query, which may hold a secret.
        reason: String,
        /// What the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// It will never be better: 410, or an address that is refused.
    Hopeless {
        /// In words.
        reason: String,
    },
}

impl SigningKey {
    /// From the settings: text, or `whsec_` and base64.
    pub fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    /// `v1,<base64 of HMAC-SHA256(key, "id.timestamp.body")>`.
    fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let text = self.0.expose_secret();
        let key = text
            .strip_prefix("whsec_")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .unwrap_or_else(|| text.as_bytes().to_vec());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl Webhook {
    /// A sender with deadlines for the connection and for the whole try.
    pub fn new(
        allowed: AllowList,
        key: SigningKey,
        connect_timeout: Duration,
        timeout: Duration,
        clock: SharedClock,
    ) -> Result<Self, reqwest::Error> {
        let allowed = Arc::new(allowed);
        let client = Client::builder()
            .dns_resolver(Arc::new(GuardedResolver { allowed: allowed.clone() }))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy from the environment would resolve names behind our back.
            .no_proxy()
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .user_agent(concat!("orzo/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowed, key, clock })
    }

    /// One try.
    pub(crate) async fn send(&self, url: &Url, notice: &Notice) -> Outcome {
        if let Err(error) = check_url(url, &self.allowed) {
            return Outcome::Hopeless { reason: error.to_string() };
        }
        let timestamp = self.clock.now().secs();
        let request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-openstack-request-id", format!("req-{}", notice.notice_id))
            .header("webhook-id", &notice.notice_id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", self.key.sign(&notice.notice_id, timestamp, &notice.body))
            .body(notice.body.clone());
        match request.send().await {
            Ok(response) => outcome_of(response.status(), retry_after(response.headers())),
            Err(error) => Outcome::Failed { reason: reason_of(error), retry_after: None },
        }
    }
}

fn outcome_of(status: StatusCode, retry_after: Option<Duration>) -> Outcome {
    if status.is_success() {
        return Outcome::Delivered;
    }
    if status == StatusCode::GONE {
        return Outcome::Hopeless { reason: "the receiver answered 410: it is gone for good".into() };
    }
    Outcome::Failed { reason: format!("the receiver answered {}", status.as_u16()), retry_after }
}

fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
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

/// Resolves with the system's resolver and lets only allowed addresses through. One refused address refuses the name:
/// an honest receiver has none.
struct GuardedResolver {
    allowed: Arc<AllowList>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                check_address(address.ip(), &allowed)?;
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard_webhooks_convention() {
        // The convention's own example.
        let key = SigningKey::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into());
        assert_eq!(
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn only_a_2xx_is_delivered() {
        assert_eq!(outcome_of(StatusCode::NO_CONTENT, None), Outcome::Delivered);
        for status in [StatusCode::FOUND, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR] {
            assert!(matches!(outcome_of(status, None), Outcome::Failed { .. }), "{status}");
        }
        assert!(matches!(outcome_of(StatusCode::GONE, None), Outcome::Hopeless { .. }));
    }
}
