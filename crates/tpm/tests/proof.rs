//! Who a TPM is, proven to somebody far away; tpm2-tools make credentials too.

mod common;

use common::{World, dealt::identity_of, name, refusal, secret, site};
use hoidla_format::{
    Bytes,
    statements::{ApplianceIdentity, Site},
};
use hoidla_tpm::{Tpm, TpmError};
use hoidla_verify::{Credential, IdentityError, Parcel, ParcelError, Public, TpmName, credential, identity};

const SECRET: [u8; 32] = *b"what only the right TPM can read";

fn identified(w: &World) -> ApplianceIdentity {
    identity_of(w, &w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap())
}

fn the_site(w: &World) -> Site {
    Site {
        site: site(),
        serial: 1,
        development: true,
        authority: Bytes(vec![]),
        release_key: Bytes(w.public().to_sec1()),
        door_root: Bytes(vec![]),
        appliances: vec![],
        rosters: vec![],
        datasets: vec![],
        revoked_agents: vec![],
    }
}

fn made(w: &World, object: &TpmName) -> Credential {
    credential::make(&w.tpm.endorsement_key().unwrap(), object, &secret(SECRET)).unwrap()
}

#[test]
fn a_tpm_reads_what_was_made_for_it_and_its_prover() {
    let w = World::new();
    let prover = w.tpm.keys(&w.public(), &w.node_ref()).unwrap().prover.name();
    let credential = made(&w, &prover);
    assert_eq!(w.tpm.activate(&credential).unwrap().expose(), &SECRET);
    assert_eq!(w.tpm.activate(&credential).unwrap().expose(), &SECRET, "again, after an interruption");
    let other = World::new();
    assert_eq!(refusal(other.tpm.activate(&credential)), TpmError::OtherTpm);
    assert_eq!(refusal(w.tpm.activate(&made(&w, &w.tpm.srk().name()))), TpmError::OtherTpm, "made for another key of this TPM");
    for at in [2, 40, 67] {
        let mut changed = credential.clone();
        changed.blob[at] ^= 1;
        assert!(w.tpm.activate(&changed).is_err(), "byte {at} of the blob");
    }
    let mut changed = credential.clone();
    changed.seed[5] ^= 1;
    assert!(w.tpm.activate(&changed).is_err());
    assert_eq!(w.loaded(), "", "nothing is left loaded");
}

/// The tool's file: a magic number, a version, TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
#[test]
fn a_credential_of_tpm2_makecredential_opens_here() {
    let w = World::new();
    let keys = w.tpm.keys(&w.public(), &w.node_ref()).unwrap();
    let file = |name: &str| w.state.path().join(name);
    let marshalled = keys.ek.marshal();
    std::fs::write(file("ek.pub"), [&(marshalled.len() as u16).to_be_bytes()[..], &marshalled].concat()).unwrap();
    std::fs::write(file("secret"), SECRET).unwrap();
    let hex: String = keys.prover.name().0.iter().map(|b| format!("{b:02x}")).collect();
    w.tool("tpm2_makecredential", &["-T", "none", "-u", "ek.pub", "-s", "secret", "-n", &hex, "-o", "credential"]);
    let bytes = std::fs::read(file("credential")).unwrap();
    assert_eq!(bytes[..8], [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1]);
    let (blob, rest) = bytes[10..].split_first_chunk::<{ credential::BLOB }>().unwrap();
    let seed = rest[2..].first_chunk::<{ credential::SEED }>().unwrap();
    let credential = Credential { blob: *blob, seed: *seed };
    assert_eq!(w.tpm.activate(&credential).unwrap().expose(), &SECRET);

    w.tool("tpm2_createek", &["-G", "ecc", "-c", "ek.ctx", "-u", "theirs.pub"]);
    let theirs = std::fs::read(file("theirs.pub")).unwrap();
    assert_eq!(Public::parse(&theirs[2..]).unwrap(), keys.ek, "the very endorsement key, made by another program");
}

#[test]
fn an_identity_s_keys_are_all_in_one_tpm() {
    let w = World::new();
    let (site, mine) = (the_site(&w), identified(&w));
    let keys = identity::check(&mine, &site).unwrap();
    assert_eq!(keys.srk, *w.tpm.srk());

    // Another TPM of the same site, as honest as this one.
    let other = World { key: hoidla_verify::ReleaseKey::from_secret(&secret([7; 32])).unwrap(), ..World::new() };
    let w2 = World { key: hoidla_verify::ReleaseKey::from_secret(&secret([7; 32])).unwrap(), ..World::new() };
    let (site2, theirs, ours) = (the_site(&other), identified(&other), identified(&w2));
    identity::check(&theirs, &site2).unwrap();
    let swapped = [
        ("storage root key", ApplianceIdentity { srk: theirs.srk.clone(), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { ak: theirs.ak.clone(), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { node: theirs.node.clone(), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { ek: theirs.ek.clone(), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { name: name("lux-2"), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { site_counter: ours.site_counter + 1, ..ours.clone() }),
        ("storage root key", ApplianceIdentity { created: theirs.created.clone(), ..ours.clone() }),
        ("storage root key", ApplianceIdentity { prover: theirs.prover.clone(), ..ours.clone() }),
    ];
    for (what, identity) in swapped {
        assert_eq!(identity::check(&identity, &site2), Err(IdentityError::Forged(what)));
    }
    let with = |n: usize, of: usize| {
        let mut identity = ours.clone();
        identity.created[n] = ours.created[of].clone();
        identity::check(&identity, &site2)
    };
    assert_eq!(with(1, 0), Err(IdentityError::Forged("attestation key")), "one key's word for another");
    assert_eq!(with(2, 1), Err(IdentityError::Forged("node key")));
    let cut = ApplianceIdentity { created: ours.created[..2].to_vec(), ..ours.clone() };
    assert_eq!(identity::check(&cut, &site2), Err(IdentityError::Missing("node key")));
    let more = ApplianceIdentity { created: [&ours.created[..], &ours.created[..1]].concat(), ..ours.clone() };
    assert_eq!(identity::check(&more, &site2), Err(IdentityError::Forged("list of proofs")));
    let elsewhere = Site { site: name("sgp"), ..site2.clone() };
    assert!(matches!(identity::check(&ours, &elsewhere), Err(IdentityError::Site { .. })));
    assert_eq!(identity::check(&ours, &site), Err(IdentityError::Template("attestation key")), "another release key");
}

#[test]
fn a_parcel_opens_in_the_tpm_that_home_means_only() {
    let (w, other) = (World::new(), World::new());
    let (mine, ek) = (identified(&w), w.tpm.endorsement_key().unwrap());
    let prover = identity::check(&mine, &the_site(&w)).unwrap().prover.name();
    let parcel = Parcel::seal(&ek, &prover, &mine, &["halves\n", "enrolment\n"]).unwrap();
    let parcel = Parcel::from_bytes(&parcel.to_bytes()).unwrap();
    let secret = w.tpm.activate(&parcel.credential).unwrap();
    assert_eq!(parcel.open(&secret).unwrap(), [b"halves\n".to_vec(), b"enrolment\n".to_vec()]);
    assert_eq!(refusal(other.tpm.activate(&parcel.credential)), TpmError::OtherTpm);

    // An attacker's own prover in front of the recorded endorsement key: nobody can open it.
    let forged = Parcel::seal(&ek, &TpmName::of(b"a key in nobody's TPM"), &mine, &["halves\n"]).unwrap();
    assert_eq!(refusal(w.tpm.activate(&forged.credential)), TpmError::OtherTpm);

    // Any changed byte, and another parcel's head.
    let again = Parcel::seal(&ek, &prover, &mine, &["halves\n"]).unwrap();
    // A parcel of "lux", "lux-1": the names end at 20, the identity at 52, the credential at 188.
    let mut swapped = parcel.to_bytes();
    swapped[52..188].copy_from_slice(&again.to_bytes()[52..188]);
    let swapped = Parcel::from_bytes(&swapped).unwrap();
    assert_eq!(swapped.credential, again.credential);
    assert_eq!(swapped.open(&w.tpm.activate(&swapped.credential).unwrap()), Err(ParcelError::Changed));
    let mut elsewhere = parcel.to_bytes();
    elsewhere[19] = b'2';
    let elsewhere = Parcel::from_bytes(&elsewhere).unwrap();
    assert_eq!(elsewhere.appliance, name("lux-2"));
    assert_eq!(elsewhere.open(&secret), Err(ParcelError::Changed));
    let bytes = parcel.to_bytes();
    for cut in 0..bytes.len() {
        assert!(Parcel::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(Parcel::from_bytes(&flipped).unwrap().open(&secret), Err(ParcelError::Changed));
}

#[test]
fn a_tpm_that_somebody_else_owns_is_not_used() {
    for hierarchy in ["owner", "endorsement"] {
        let w = World::new();
        let credential = made(&w, &w.tpm.keys(&w.public(), &w.node_ref()).unwrap().prover.name());
        w.tool("tpm2_changeauth", &["-c", hierarchy, "somebody"]);
        let keys = Tpm::open(w.swtpm.tcti()).and_then(|tpm| tpm.keys(&w.public(), &w.node_ref()));
        assert_eq!(refusal(keys), TpmError::Owned, "{hierarchy}");
        assert_eq!(refusal(w.tpm.activate(&credential)), TpmError::Owned, "{hierarchy}");
        assert!(TpmError::Owned.to_string().contains("belongs to somebody else"));
    }
}
