//! What readers and custodians sign.

use hoidla_crypto::{
    hpke,
    keys::ReaderKeys,
    sign::{self, Signed},
};
use hoidla_door::{Connection, DoorError};
use hoidla_format::{
    Bytes, Moment, statement,
    statements::{Approval, Challenge, Covers, Door, Envelopes, Grant, Vault},
};
use hoidla_protocol::{Request, Response};
use hoidla_quorum::{
    opening::{Occasion, seal_share},
    share::{Share, VaultId},
};

use super::{Embassy, name};

/// A grant over both datasets for this reader.
pub fn grant(e: &Embassy, reader: &ReaderKeys, seconds: u32, datasets: &[&str]) -> String {
    let mut nonce = vec![0; 16];
    hoidla_crypto::random(&mut nonce);
    let covers = |v: &Vault| Covers { dataset: v.dataset.clone(), vault_epoch: 1, vault: statement::hash(&statement::write(v)) };
    let grant = Grant {
        site: e.home.site_name.clone(),
        appliance: e.identity.name.clone(),
        purpose: "a drill: restore the registry".into(),
        created: Moment::now(),
        open_for_seconds: seconds,
        nonce: Bytes(nonce),
        reader: reader.public(&name("restorer")),
        covers: e.vaults.iter().filter(|v| datasets.contains(&v.dataset.as_str())).map(covers).collect(),
    };
    reader.signing.sign_statement("restorer", &grant)
}

/// What a custodian signs and seals for a challenge; `spoil` may change a share.
pub fn approval(
    e: &Embassy,
    who: &str,
    note: &str,
    challenge_text: &str,
    envelopes: &[Vec<u8>],
    spoil: impl Fn(Vec<u8>) -> Vec<u8>,
) -> String {
    let (who, keys) = e.home.custodians.iter().find(|(n, _)| n.as_str() == who).unwrap();
    let grant = sign::read_unverified::<Grant>(note.as_bytes()).unwrap();
    let challenge: Challenge = statement::parse(challenge_text).unwrap();
    let occasion = Occasion { grant: grant.hash, challenge: statement::hash(challenge_text) };
    let one_time = hpke::PublicKey::from_bytes(&challenge.one_time_key.0).unwrap();
    let mut shares = Vec::new();
    for bytes in envelopes {
        let signed: Signed<Envelopes> = sign::open(bytes, Some("authority"), &e.home.verifying()).unwrap();
        let envelope = signed.statement.shares.iter().find(|s| s.custodian == *who).unwrap();
        let vault = VaultId { site: e.home.site_name.clone(), dataset: signed.statement.dataset.clone(), vault_epoch: 1 };
        let id = vault.share(Door::Quorum, who, envelope.index);
        let opened = hoidla_crypto::envelope::open(keys, &id, &envelope.sealed.0).unwrap();
        let share = Share::decode(&opened).unwrap();
        let mut sealed = seal_share(&one_time, &occasion, &id, &share);
        sealed.sealed = Bytes(spoil(sealed.sealed.0));
        shares.push(sealed);
    }
    let approval = Approval { grant: grant.hash, challenge: occasion.challenge, custodian: who.clone(), shares };
    keys.signing_key().sign_statement(who.as_str(), &approval)
}

/// Proposes as a custodian: the challenge and the envelopes.
pub async fn propose(c: &mut Connection, note: &str) -> Result<(String, Vec<Vec<u8>>), DoorError> {
    match c.ask(&Request::Propose(note.into())).await? {
        Response::Challenged { challenge, envelopes, .. } => Ok((challenge, envelopes)),
        other => panic!("not an answer to propose: {other:?}"),
    }
}
