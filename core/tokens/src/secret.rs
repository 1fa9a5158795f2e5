//! How a token is written and read: `orzo_`, its id, `_`, 256 random bits. Pure but for the chance.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What every read token begins with, and no token of an identity service does.
pub const PREFIX: &str = "orzo_";
/// As many as a session key; nobody guesses them, so a fast hash is enough to keep them.
const SECRET_BYTES: usize = 32;

/// A token's id and the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) hash: [u8; 32],
}

/// Whether a text is meant as a read token; not whether it is a good one.
pub fn is_read_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// A new token, and what is kept of it.
pub(crate) fn generate() -> (SecretString, Shown) {
    // Seeded by the operating system and made for cryptography.
    let secret: [u8; SECRET_BYTES] = rand::random();
    let id = Uuid::new_v4().simple().to_string();
    let text = SecretString::from(format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret)));
    let shown = read(text.expose_secret()).expect("what was just written can be read");
    (text, shown)
}

/// The parts of a token; `None` if it does not look like one.
pub(crate) fn read(text: &str) -> Option<Shown> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let secret = URL_SAFE_NO_PAD.decode(secret).ok().filter(|secret| is_id && secret.len() == SECRET_BYTES)?;
    Some(Shown { id: id.to_owned(), hash: Sha256::digest(secret).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let (text, shown) = generate();
        let text = text.expose_secret();
        assert_eq!(read(text), Some(shown.clone()));
        assert!(is_read_token(text) && text.len() == 81, "{text}");
        let (other, _) = generate();
        assert_ne!(read(other.expose_secret()).map(|other| other.hash), Some(shown.hash));
        for wrong in ["", "orzo_", "gAAAAABn", &text[..80], &text.replace("orzo_", "orza_"), &text.to_uppercase()] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&format!("{text}A")), None);
    }
}
