//! Signatures of manifests: Ed25519, so that whoever checks a bill needs no secret, and so that the same manifest always
//! has the same signature.

use std::{
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use crate::error::ExportError;

/// A key file is smaller.
const KEY_BYTES_MAX: u64 = 1024;

/// The installation's key for exports.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Reads the key of a file (PKCS #8); makes it, readable by its owner only, if it is not there.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let wrong =
            |reason: &str| ExportError::Request(format!("{}: {reason}; move it away for a new key", path.display()));
        match std::fs::File::open(path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(ExportError::file("read", path))?;
                let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| wrong("it is no Ed25519 key"))?;
                Ok(Self { pair })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| wrong("the system has no random numbers"))?;
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(ExportError::file("make", path))?;
                let written = file.write_all(bytes.as_ref()).and_then(|()| file.sync_all());
                written.map_err(ExportError::file("write", path))?;
                let pair = Ed25519KeyPair::from_pkcs8(bytes.as_ref()).map_err(|_| wrong("it is no Ed25519 key"))?;
                Ok(Self { pair })
            }
            Err(error) => Err(ExportError::file("read", path)(error)),
        }
    }

    /// What others check signatures with, in base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.pair.public_key().as_ref())
    }

    /// The signature of a text, in base64.
    pub fn sign(&self, text: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(text).as_ref())
    }
}

/// Whether the owner of this key (base64) signed this text so.
pub fn is_signed_by(key: &str, text: &[u8], signature: &str) -> bool {
    let (Ok(key), Ok(signature)) = (STANDARD.decode(key.trim()), STANDARD.decode(signature.trim())) else {
        return false;
    };
    UnparsedPublicKey::new(&ED25519, key).verify(text, &signature).is_ok()
}
