//! Every label that keeps one use of a key or hash apart from another.
//!
//! Promises: no two are equal, and none is the beginning of another (a test), so
//! that bytes made for one purpose never count for a second.

/// What a derived key, hash or signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(&'static str);

impl Label {
    /// The label as it enters a hash.
    pub const fn as_bytes(self) -> &'static [u8] {
        self.0.as_bytes()
    }

    /// The label as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Label = Label(concat!("hoidla/1 ", $text, "\n"));)*
        /// All of them.
        pub const ALL: &[Label] = &[$($name),*];
    };
}

labels! {
    /// Bytes signed outside of statements ([`crate::sign::SigningKey::sign_raw`]).
    RAW_SIGNATURE = "raw signature";
    /// A signing key's scalar out of its 32-byte secret.
    SIGNING_SCALAR = "signing scalar";
    /// The authority's key for statements, out of its master secret.
    AUTHORITY_STATEMENTS = "authority statements";
    /// The authority's key for X.509 certificates, out of its master secret.
    AUTHORITY_DOOR = "authority door";
    /// The release key's scalar (P-256), out of its master secret.
    RELEASE_SCALAR = "release scalar";
    /// A custodian's signing key, out of their master secret.
    CUSTODIAN_SIGNING = "custodian signing";
    /// A custodian's ECDH scalar, out of their master secret.
    CUSTODIAN_ECDH = "custodian ecdh";
    /// A custodian's ML-KEM seed, out of their master secret.
    CUSTODIAN_MLKEM = "custodian mlkem";
    /// A reader's signing key, out of their master secret.
    READER_SIGNING = "reader signing";
    /// A reader's HPKE seed, out of their master secret.
    READER_HPKE = "reader hpke";
    /// The agent's keyed chunk index, out of its master secret.
    AGENT_INDEX = "agent index";
    /// HPKE info: a data key under its vault.
    DATA_KEY_TO_VAULT = "data key to vault";
    /// HPKE info: a data key re-wrapped to a reader.
    DATA_KEY_TO_READER = "data key to reader";
    /// HPKE info: a share under a ceremony's one-time key.
    SHARE_TO_CEREMONY = "share to ceremony";
    /// The key of a custodian's envelope.
    ENVELOPE = "envelope";
    /// What an envelope is bound to: the share's id.
    ENVELOPE_SHARE = "envelope share";
    /// The hash commitment of a share.
    SHARE_COMMITMENT = "share commitment";
    /// `K_unlock` out of `K_tpm` and `K_quorum`.
    UNLOCK = "unlock";
    /// The auth value of the TPM's half out of `K_quorum`.
    TPM_AUTH = "tpm auth";
    /// The key that wraps a vault's private key under `K_quorum_r`.
    RECOVERY = "recovery";
    /// Associated data: a vault's private key under `K_unlock`.
    VAULT_KEY_BY_UNLOCK = "vault key by unlock";
    /// Associated data: a vault's private key under the recovery key.
    VAULT_KEY_BY_RECOVERY = "vault key by recovery";
    /// The key of a parcel, out of the secret in its credential.
    PARCEL = "parcel";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_or_begins_another() {
        for (i, a) in ALL.iter().enumerate() {
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.as_bytes().starts_with(a.as_bytes()), "{} begins {}", a.as_str(), b.as_str());
            }
        }
    }
}
