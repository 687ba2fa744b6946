//! Every key that follows from the two halves, and the wraps under them.
//!
//! Promises: each key has its own label and is bound to site, dataset, vault epoch and, with
//! the TPM, to one appliance: a half or a wrap of another vault or machine opens nothing.
//! Labels, HKDF and AES-GCM are `hoidla-crypto`'s.

use hoidla_crypto::{
    Secret, labels,
    wrap::{self, WrapError},
};
use hoidla_format::Name;

use crate::share::VaultId;

/// The auth value without which the TPM refuses its half: from `K_quorum`, under a label of its own.
pub fn auth_value(k_quorum: &Secret<32>, vault: &VaultId, appliance: &Name) -> Secret<32> {
    let [site, dataset, epoch] = &vault.ids();
    wrap::derive(labels::TPM_AUTH, &[k_quorum.expose()], &[site, dataset, epoch, appliance.as_str().as_bytes()])
}

/// `K_unlock`, from both halves.
pub fn unlock_key(k_tpm: &Secret<32>, k_quorum: &Secret<32>, vault: &VaultId, appliance: &Name) -> Secret<32> {
    let [site, dataset, epoch] = &vault.ids();
    wrap::derive(labels::UNLOCK, &[k_tpm.expose(), k_quorum.expose()], &[site, dataset, epoch, appliance.as_str().as_bytes()])
}

/// The key of the recovery wrap, from `K_quorum_r`.
pub fn recovery_key(k_quorum_r: &Secret<32>, vault: &VaultId) -> Secret<32> {
    let [site, dataset, epoch] = &vault.ids();
    wrap::derive(labels::RECOVERY, &[k_quorum_r.expose()], &[site, dataset, epoch])
}

/// Wraps the vault's seed under `K_unlock`, for one appliance.
pub fn wrap_by_unlock(unlock: &Secret<32>, vault: &VaultId, appliance: &Name, seed: &Secret<32>) -> Vec<u8> {
    wrap::wrap_key(unlock, &by_unlock(vault, appliance), seed)
}

/// The vault's seed out of [`wrap_by_unlock`].
pub fn unwrap_by_unlock(unlock: &Secret<32>, vault: &VaultId, appliance: &Name, wrapped: &[u8]) -> Result<Secret<32>, WrapError> {
    wrap::unwrap_key(unlock, &by_unlock(vault, appliance), wrapped)
}

/// Wraps the vault's seed under the recovery key.
pub fn wrap_by_recovery(recovery: &Secret<32>, vault: &VaultId, seed: &Secret<32>) -> Vec<u8> {
    wrap::wrap_key(recovery, &by_recovery(vault), seed)
}

/// The vault's seed out of [`wrap_by_recovery`].
pub fn unwrap_by_recovery(recovery: &Secret<32>, vault: &VaultId, wrapped: &[u8]) -> Result<Secret<32>, WrapError> {
    wrap::unwrap_key(recovery, &by_recovery(vault), wrapped)
}

fn by_unlock(vault: &VaultId, appliance: &Name) -> Vec<u8> {
    let [site, dataset, epoch] = &vault.ids();
    wrap::bind(labels::VAULT_KEY_BY_UNLOCK, &[site, dataset, epoch, appliance.as_str().as_bytes()])
}

fn by_recovery(vault: &VaultId) -> Vec<u8> {
    let [site, dataset, epoch] = &vault.ids();
    wrap::bind(labels::VAULT_KEY_BY_RECOVERY, &[site, dataset, epoch])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(site: &str, dataset: &str, vault_epoch: u32) -> VaultId {
        VaultId { site: site.parse().unwrap(), dataset: dataset.parse().unwrap(), vault_epoch }
    }

    fn name(n: &str) -> Name {
        n.parse().unwrap()
    }

    #[test]
    fn every_key_differs_by_label_half_vault_epoch_and_appliance() {
        let (t, q, other) = (Secret::filled(|b| b.fill(1)), Secret::filled(|b| b.fill(2)), Secret::filled(|b| b.fill(3)));
        let (v, a) = (vault("lux", "land", 1), name("lux-1"));
        let keys = [
            unlock_key(&t, &q, &v, &a),
            unlock_key(&other, &q, &v, &a),
            unlock_key(&t, &other, &v, &a),
            unlock_key(&q, &t, &v, &a),
            unlock_key(&t, &q, &vault("lux", "land", 2), &a),
            unlock_key(&t, &q, &vault("lux", "court", 1), &a),
            unlock_key(&t, &q, &vault("luxl", "and", 1), &a),
            unlock_key(&t, &q, &v, &name("lux-2")),
            auth_value(&q, &v, &a),
            auth_value(&q, &v, &name("lux-2")),
            recovery_key(&q, &v),
            recovery_key(&q, &vault("lux", "land", 2)),
        ];
        for (i, x) in keys.iter().enumerate() {
            for (j, y) in keys.iter().enumerate() {
                assert_eq!(x.ct_eq(y), i == j, "{i} and {j}");
            }
        }
    }

    #[test]
    fn a_wrap_opens_only_for_its_vault_door_and_appliance() {
        let (key, seed) = (Secret::random(), Secret::<32>::random());
        let (v, a) = (vault("lux", "land", 1), name("lux-1"));
        let wrapped = wrap_by_unlock(&key, &v, &a, &seed);
        assert!(unwrap_by_unlock(&key, &v, &a, &wrapped).unwrap().ct_eq(&seed));
        assert!(unwrap_by_unlock(&key, &v, &name("lux-2"), &wrapped).is_err());
        assert!(unwrap_by_unlock(&key, &vault("lux", "land", 2), &a, &wrapped).is_err());
        assert!(unwrap_by_unlock(&seed, &v, &a, &wrapped).is_err());
        assert!(unwrap_by_recovery(&key, &v, &wrapped).is_err());
        let recovery = wrap_by_recovery(&key, &v, &seed);
        assert!(unwrap_by_recovery(&key, &v, &recovery).unwrap().ct_eq(&seed));
        for at in 0..recovery.len() {
            let mut flipped = recovery.clone();
            flipped[at] ^= 1;
            assert!(unwrap_by_recovery(&key, &v, &flipped).is_err(), "byte {at}");
            assert!(unwrap_by_recovery(&key, &v, &recovery[..at]).is_err(), "cut at {at}");
        }
    }
}
