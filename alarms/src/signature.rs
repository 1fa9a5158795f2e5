//! Signatures of the Standard Webhooks convention: each project has keys of its own, made from the operator's, so that
//! no project can sign in the name of another. While an operator changes the key, both sign.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Bound into every derived key, so that the operator's secret can serve other ends as well.
const PURPOSE: &str = "orzo webhook signing key, version 1, project ";

/// The operator's keys.
#[derive(Clone)]
pub struct SigningKeys {
    current: SecretString,
    previous: Option<SecretString>,
}

impl SigningKeys {
    /// From the settings: text, or `whsec_` and base64. `previous` signs as well, until every receiver has the new one.
    pub fn new(current: SecretString, previous: Option<SecretString>) -> Self {
        Self { current, previous }
    }

    /// The keys of a project as receivers are given them (`whsec_...`), the current one first.
    pub fn of_project(&self, project_id: &str) -> Vec<SecretString> {
        let shown = |key: [u8; 32]| SecretString::from(format!("whsec_{}", STANDARD.encode(key)));
        self.derived(project_id).map(shown).collect()
    }

    /// The `webhook-signature` header: `v1,<base64>` for each key, with a space between.
    pub(crate) fn signature(&self, project_id: &str, id: &str, timestamp: i64, body: &str) -> String {
        let signatures: Vec<String> = self.derived(project_id).map(|key| sign(&key, id, timestamp, body)).collect();
        signatures.join(" ")
    }

    fn derived(&self, project_id: &str) -> impl Iterator<Item = [u8; 32]> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(move |secret| mac(&key_bytes(secret), format!("{PURPOSE}{project_id}").as_bytes()))
    }
}

/// `v1,<base64 of HMAC-SHA256(key, "id.timestamp.body")>`.
fn sign(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    format!("v1,{}", STANDARD.encode(mac(key, format!("{id}.{timestamp}.{body}").as_bytes())))
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn key_bytes(secret: &SecretString) -> Vec<u8> {
    let text = secret.expose_secret();
    text.strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard_webhooks_convention() {
        // The convention's own example.
        let key = key_bytes(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into());
        assert_eq!(
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn each_project_has_its_own_keys_and_while_rotating_two() {
        let one = SigningKeys::new("old".to_owned().into(), None);
        let two = SigningKeys::new("new".to_owned().into(), Some("old".to_owned().into()));
        assert_ne!(one.signature("p1", "i", 1, "{}"), one.signature("p2", "i", 1, "{}"));
        let both = two.signature("p1", "i", 1, "{}");
        let parts: Vec<_> = both.split(' ').collect();
        assert_eq!((parts.len(), parts[1]), (2, one.signature("p1", "i", 1, "{}").as_str()));
        // What a receiver is shown verifies what it gets.
        let shown = key_bytes(&two.of_project("p1")[0]);
        assert_eq!(sign(&shown, "i", 1, "{}"), parts[0]);
    }
}
