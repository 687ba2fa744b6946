//! Known answers: those of the drafts and specifications we follow, and our own.
//! Our own are in `tests/vectors/crypto/hoidla.json`; a change of any byte of a
//! format shows here first.

use std::{convert::Infallible, fs, path::PathBuf};

use hoidla_format::{Hash32, StreamId, statements::Door};
use rand_core::{SeedableRng, TryCryptoRng, TryRng};
use serde_json::{Value, json};

use crate::{
    Secret,
    datakey::{self, Binding, DataKey},
    envelope::{self, CustodianKeys, ShareId},
    hpke::{self, KeyPair},
    keyfile::KeyFile,
    keys::{AuthorityKeys, ReaderKeys, release_scalar},
    labels::{DATA_KEY_TO_VAULT, UNLOCK},
    sealing::{Provider, Sealer},
    sign::SigningKey,
    wrap,
};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/crypto"))
}

fn read(name: &str) -> Value {
    let path = folder().join(name);
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap().as_bytes();
    let digit = |b: u8| (b as char).to_digit(16).unwrap() as u8;
    text.chunks_exact(2).map(|p| digit(p[0]) << 4 | digit(p[1])).collect()
}

fn counted<const N: usize>(from: u8) -> Secret<N> {
    Secret::filled(|b| b.iter_mut().zip(from..).for_each(|(b, n)| *b = n))
}

/// "Randomness" that gives prepared bytes, then fails the test.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[test]
fn hpke_gives_the_drafts_known_answer() {
    let v = read("hpke-mlkem1024-p384.json");
    assert_eq!((&v["mode"], &v["kem_id"], &v["kdf_id"], &v["aead_id"]), (&json!(0), &json!(0x51), &json!(2), &json!(2)));
    let pair = KeyPair::from_seed(Secret::from_slice_wiping(&mut unhex(&v["skRm"])).unwrap());
    assert_eq!(pair.public().to_bytes(), unhex(&v["pkRm"]));
    let (info, aad, pt) = (unhex(&v["info"]), unhex(&v["aad"]), unhex(&v["pt"]));
    let expected = [unhex(&v["enc"]), unhex(&v["ct"])].concat();
    assert_eq!(hpke::open(&pair, &info, &aad, &expected).unwrap()[..], pt);
    let sealed = hpke::seal_with(&mut Given(unhex(&v["ikmE"])), pair.public(), &info, &aad, &pt);
    assert!(sealed == expected, "the same randomness seals to the same bytes");
}

fn binding() -> Binding {
    let name = |n: &str| n.parse().unwrap();
    Binding { site: name("lux"), dataset: name("land"), stream: StreamId([7; 16]), epoch: 2, vault_epoch: 1 }
}

fn share_id() -> ShareId {
    let b = binding();
    ShareId { site: b.site, dataset: b.dataset, vault_epoch: 1, door: Door::Quorum, custodian: "alpha".parse().unwrap(), index: 3 }
}

/// Everything that is a function of its inputs, computed anew.
fn deterministic() -> Value {
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([5; 32]);
    let (authority, reader) = (AuthorityKeys::from_seed(&counted(0)), ReaderKeys::from_seed(&counted(0)));
    let custodian = CustodianKeys::from_seed(&counted(0));
    let name = "alpha".parse().unwrap();
    let card = custodian.public_card(&name);
    let envelope = envelope::seal_with(&mut rng, &card, &share_id(), &[9; 65]).unwrap();
    let data_key = hpke::seal_with(&mut rng, reader.hpke.public(), &binding().bytes(DATA_KEY_TO_VAULT), &[], counted::<32>(64).expose());
    json!({
        "note": "master secret of every ring: 00 01 02 .. 1f; see docs/formats",
        "derive_unlock": hex(wrap::derive::<32>(UNLOCK, &[counted::<32>(0).expose(), counted::<32>(32).expose()], &[b"lux-1", b"land"]).expose()),
        "wrapped_key": hex(&wrap::wrap_key_with([1; 12], &counted(0), b"aad", &counted(32))),
        "signing_public": hex(&SigningKey::from_secret(&counted(0)).verifying_key().to_sec1()),
        "card_note": custodian.signing_key().sign_statement("alpha", &card),
        "authority_statements": hex(&authority.statements.verifying_key().to_sec1()),
        "authority_door": hex(&authority.door.verifying_key().to_sec1()),
        "release_scalar": hex(release_scalar(&counted(0)).expose()),
        "reader_note": reader.signing.sign_statement("alpha", &reader.public(&name)),
        "raw_signature": hex(&authority.statements.sign_raw(UNLOCK, b"message")),
        "envelope": hex(&envelope),
        "data_key_to_vault": hex(&data_key),
    })
}

#[test]
fn our_own_answers_stay_the_same() {
    let known = read("hoidla.json");
    let now = deterministic();
    for (key, value) in now.as_object().unwrap() {
        assert_eq!(&known[key], value, "{key} has changed: formats already written would no longer be read");
    }
    let reader = ReaderKeys::from_seed(&counted(0)).hpke;
    let key = datakey::unwrap(&reader, &binding(), &unhex(&known["data_key_to_vault"])).unwrap();
    assert_eq!(key.secret().expose(), counted::<32>(64).expose());
    let share = envelope::open(&CustodianKeys::from_seed(&counted(0)), &share_id(), &unhex(&known["envelope"])).unwrap();
    assert_eq!(share[..], [9; 65]);
}

#[test]
fn what_was_sealed_with_randomness_still_opens() {
    let known = read("hoidla.json");
    let file = KeyFile::parse(&unhex(&known["key_file"])).unwrap();
    assert_eq!(file.open("correct horse").unwrap().expose(), counted::<32>(0).expose());
    let sealer = Sealer::new(&DataKey::from_secret(counted(0)), Provider::RustCrypto);
    let mut plain = Vec::new();
    sealer.open(b"aad", &unhex(&known["message"]), &mut plain).unwrap();
    assert_eq!(plain, b"a registry's record");
    let wrapped = unhex(&known["data_key_to_reader"]);
    let key = datakey::unwrap_as_reader(&ReaderKeys::from_seed(&counted(0)).hpke, &binding(), &Hash32([3; 32]), &wrapped).unwrap();
    assert_eq!(key.secret().expose(), counted::<32>(64).expose());
}
