//! What a token says, and how it is packed: a Fernet token around a compact binary payload, at most 255 bytes long
//! (Keystone's own promise). Pure; knows no keys and no database.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use orzo_model::Timestamp;
use uuid::Uuid;

/// No token of ours is longer, and nothing longer is looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 255;

/// First byte of the payload; another one is another layout.
const LAYOUT: u8 = 1;

const METHOD_PASSWORD: u8 = 1;
const METHOD_TOKEN: u8 = 2;
const METHOD_CREDENTIAL: u8 = 4;
const SCOPE_PROJECT: u8 = 16;
const SCOPE_DOMAIN: u8 = 32;
const HAS_CREDENTIAL: u8 = 64;
const HAS_TRUST: u8 = 128;

/// How the owner proved who they are. A rescoped token keeps its parent's method and adds `token`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Methods(u8);

impl Methods {
    pub(crate) const PASSWORD: Self = Self(METHOD_PASSWORD);
    pub(crate) const CREDENTIAL: Self = Self(METHOD_CREDENTIAL);

    pub(crate) fn rescoped(self) -> Self {
        Self(self.0 | METHOD_TOKEN)
    }

    /// As the API names them.
    pub(crate) fn names(self) -> Vec<&'static str> {
        [(METHOD_PASSWORD, "password"), (METHOD_TOKEN, "token"), (METHOD_CREDENTIAL, "application_credential")]
            .into_iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| name)
            .collect()
    }
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenScope {
    /// Only to ask for another token and to look at oneself.
    Unscoped,
    /// One project.
    Project(Uuid),
    /// The only domain.
    Domain,
}

/// Counters that were true when the token was made. A change that revokes raises one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revisions {
    pub(crate) user: u32,
    pub(crate) project: u32,
    pub(crate) assignment: u32,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenPayload {
    pub(crate) methods: Methods,
    pub(crate) user: Uuid,
    pub(crate) scope: TokenScope,
    /// The application credential it was made with.
    pub(crate) credential: Option<Uuid>,
    /// The trust it was made by; never with a credential.
    pub(crate) trust: Option<Uuid>,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) audit: Uuid,
    /// Audit id of the first token of the chain of rescopings; its own if it is the first.
    pub(crate) chain: Uuid,
    pub(crate) revisions: Revisions,
}

impl TokenPayload {
    /// `audit_ids` as the API shows them: its own, and the chain's if it is another.
    pub(crate) fn audit_ids(&self) -> Vec<String> {
        let mut ids = vec![audit_text(self.audit)];
        if self.chain != self.audit {
            ids.push(audit_text(self.chain));
        }
        ids
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut kind = self.methods.0;
        match self.scope {
            TokenScope::Unscoped => {}
            TokenScope::Project(_) => kind |= SCOPE_PROJECT,
            TokenScope::Domain => kind |= SCOPE_DOMAIN,
        }
        if self.credential.is_some() {
            kind |= HAS_CREDENTIAL;
        }
        if self.trust.is_some() {
            kind |= HAS_TRUST;
        }
        let mut bytes = vec![LAYOUT, kind];
        bytes.extend_from_slice(self.user.as_bytes());
        if let TokenScope::Project(project) = self.scope {
            bytes.extend_from_slice(project.as_bytes());
        }
        if let Some(credential) = self.credential {
            bytes.extend_from_slice(credential.as_bytes());
        }
        if let Some(trust) = self.trust {
            bytes.extend_from_slice(trust.as_bytes());
        }
        bytes.extend_from_slice(&self.issued_at.micros().to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.micros().to_be_bytes());
        bytes.extend_from_slice(self.audit.as_bytes());
        bytes.extend_from_slice(self.chain.as_bytes());
        for revision in [self.revisions.user, self.revisions.project, self.revisions.assignment] {
            bytes.extend_from_slice(&revision.to_be_bytes());
        }
        bytes
    }

    /// `None` if the bytes are of another layout. They were authenticated before, so this is no attacker's text.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [layout, kind] = take(&mut rest)?;
        if layout != LAYOUT {
            return None;
        }
        let user = Uuid::from_bytes(take(&mut rest)?);
        let scope = match (kind & SCOPE_PROJECT != 0, kind & SCOPE_DOMAIN != 0) {
            (false, false) => TokenScope::Unscoped,
            (true, false) => TokenScope::Project(Uuid::from_bytes(take(&mut rest)?)),
            (false, true) => TokenScope::Domain,
            (true, true) => return None,
        };
        let credential = match kind & HAS_CREDENTIAL != 0 {
            true => Some(Uuid::from_bytes(take(&mut rest)?)),
            false => None,
        };
        let trust = match kind & HAS_TRUST != 0 {
            true => Some(Uuid::from_bytes(take(&mut rest)?)),
            false => None,
        };
        let issued_at = Timestamp::from_micros(i64::from_be_bytes(take(&mut rest)?));
        let expires_at = Timestamp::from_micros(i64::from_be_bytes(take(&mut rest)?));
        let audit = Uuid::from_bytes(take(&mut rest)?);
        let chain = Uuid::from_bytes(take(&mut rest)?);
        let mut revision = || Some(u32::from_be_bytes(take(&mut rest)?));
        let revisions = Revisions { user: revision()?, project: revision()?, assignment: revision()? };
        let methods = Methods(kind & (METHOD_PASSWORD | METHOD_TOKEN | METHOD_CREDENTIAL));
        rest.is_empty().then_some(Self {
            methods,
            user,
            scope,
            credential,
            trust,
            issued_at,
            expires_at,
            audit,
            chain,
            revisions,
        })
    }
}

/// 22 characters, as Keystone writes audit ids.
fn audit_text(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn sample(scope: TokenScope, credential: Option<Uuid>) -> TokenPayload {
        TokenPayload {
            methods: Methods::PASSWORD.rescoped(),
            user: Uuid::from_u128(u128::MAX),
            scope,
            credential,
            trust: None,
            issued_at: Timestamp::from_secs(1_795_291_459),
            expires_at: Timestamp::from_secs(1_795_295_059),
            audit: Uuid::from_u128(1),
            chain: Uuid::from_u128(2),
            revisions: Revisions { user: 1, project: u32::MAX, assignment: 3 },
        }
    }

    #[test]
    fn every_kind_survives_packing_and_cut_or_longer_bytes_do_not() {
        let id = Uuid::from_u128(7);
        for scope in [TokenScope::Unscoped, TokenScope::Project(id), TokenScope::Domain] {
            for (credential, trust) in [(None, None), (Some(id), None), (None, Some(id))] {
                let payload = TokenPayload { trust, ..sample(scope, credential) };
                let mut bytes = payload.pack();
                assert_eq!(TokenPayload::unpack(&bytes).as_ref(), Some(&payload));
                for length in 0..bytes.len() {
                    assert_eq!(TokenPayload::unpack(&bytes[..length]), None);
                }
                bytes.push(0);
                assert_eq!(TokenPayload::unpack(&bytes), None);
            }
        }
    }

    proptest! {
        #[test]
        fn unpacking_anything_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = TokenPayload::unpack(&bytes);
        }
    }
}
