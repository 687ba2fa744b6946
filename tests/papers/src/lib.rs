//! What tests need in place of an authority, a TPM and an appliance's log.
//!
//! Promises: everything is made by the code that the product verifies with, from small
//! seeds. The attestation key lies in memory: it says whatever a test wants it to.
#![forbid(unsafe_code)]

use hoidla_crypto::{Secret, sign::SigningKey};
use hoidla_format::{
    ByteRange, Bytes, Hash32, Leaf, Moment, Name, Note, StreamId, statement,
    statements::{ApplianceEntry, ApplianceIdentity, Endorsement, Enrolment, ImageManifest, KeyCreated, PcrValue, Proof, Release, Site},
};
use hoidla_log::{
    Checkpoint, Extension, Leaves, Nodes, Quote, Receipt, Says, SignedCheckpoint, consistency, inclusion, root, tree::leaf_hash,
};
use hoidla_verify::{
    Attest, ClockInfo, Created, PolicyRef, Public, ReleaseKey, Terms, TpmName,
    attest::endorsed,
    identity::qualifying,
    manifest, measured,
    pe::Image,
    policy::pcr_digest,
    public::{Point, Shape},
    release,
};
use p256::ecdsa::{Signature, signature::Signer};
use sha2::{Digest, Sha256};

/// A name.
///
/// # Panics
/// If it is none.
pub fn name(n: &str) -> Name {
    n.parse().expect("a name")
}

/// An image file with a signature that no firmware looks at, and its manifest as `2026-12` for
/// machines of the profile `rack`.
///
/// # Panics
/// If it is no image.
pub fn signed_image(unsigned: &[u8], certificate: &[u8]) -> (Vec<u8>, ImageManifest) {
    let signed = Image::parse(unsigned).expect("an image").with_signature(b"any signature");
    let image = Image::parse(&signed).expect("the same image");
    let hash = |bytes: &[u8]| Hash32(Sha256::digest(bytes).into());
    let manifest = ImageManifest {
        name: name("2026-12"),
        development: true,
        profile: name("rack"),
        unsigned: hash(&image.unsigned()),
        signed: hash(&signed),
        certificate: Bytes(certificate.to_vec()),
        firmware: vec![],
        pcrs: manifest::registers(&image, certificate, &[]).expect("an image's registers"),
        software: vec![],
    };
    (signed, manifest)
}

/// The authority: what it signs statements and releases with.
pub struct Office {
    /// Statements.
    pub authority: SigningKey,
    /// Releases.
    pub release: ReleaseKey,
}

impl Office {
    /// Always the same one for one seed, which is not 0.
    ///
    /// # Panics
    /// If the seed is 0.
    pub fn new(seed: u8) -> Self {
        let secret = || Secret::filled(|b: &mut [u8; 32]| b.fill(seed));
        Self { authority: SigningKey::from_secret(&secret()), release: ReleaseKey::from_secret(&secret()).expect("below the order") }
    }

    /// A site of these appliances.
    pub fn site(&self, site: &str, appliances: &[&str]) -> Site {
        Site {
            site: name(site),
            serial: 1,
            development: true,
            authority: Bytes(self.authority.verifying_key().to_sec1()),
            release_key: Bytes(self.release.public().to_sec1()),
            door_root: Bytes(vec![]),
            appliances: appliances
                .iter()
                .map(|a| ApplianceEntry { name: name(a), address: "127.0.0.1:1".into(), network: None, health: None })
                .collect(),
            rosters: vec![],
            datasets: vec![],
            revoked_agents: vec![],
        }
    }

    /// A release that approves these registers.
    ///
    /// # Panics
    /// If they are out of order.
    pub fn release(&self, site: &Site, epoch: u64, pcrs: Vec<PcrValue>) -> Release {
        let named = name(&format!("release-{epoch}"));
        let terms = Terms { site: site.site.clone(), name: named, development: site.development, epoch, pcrs, vaults: vec![] };
        release::approve(&self.release, terms).expect("a release")
    }

    /// A signed statement.
    pub fn sign<S: hoidla_format::Statement>(&self, statement: &S) -> String {
        self.authority.sign_statement("authority", statement)
    }

    /// All that an auditor needs of these appliances: site, a release of their registers, enrolments, identities.
    pub fn papers(&self, site: &Site, appliances: &[&SoftAppliance]) -> Vec<String> {
        let mut out = vec![self.sign(site)];
        let mut approved = REGISTERS.map(register).to_vec();
        approved.retain(|p| [4, 11, 12, 13].contains(&p.index));
        out.push(self.sign(&self.release(site, 1, approved)));
        for a in appliances {
            out.push(self.sign(&a.enrolment(site)));
            out.push(statement::write(&a.identity));
        }
        out
    }
}

/// What is quoted.
const REGISTERS: [u8; 6] = [4, 7, 11, 12, 13, 15];

/// A register's value in tests: all of its own number, but 12 and 13, which are zero.
pub fn register(index: u8) -> PcrValue {
    PcrValue { index, value: Hash32([if [12, 13].contains(&index) { 0 } else { index }; 32]) }
}

/// An appliance whose attestation key lies in memory.
pub struct SoftAppliance {
    /// What home recorded.
    pub identity: ApplianceIdentity,
    /// What it quotes.
    pub registers: Vec<PcrValue>,
    key: p256::ecdsa::SigningKey,
    key_name: TpmName,
    prover: p256::ecdsa::SigningKey,
}

/// One of a seed's keys, each at a distance of its own.
fn soft_key(seed: u8, apart: u8) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[seed.wrapping_add(apart); 32]).expect("below the order")
}

fn point(key: &p256::ecdsa::SigningKey) -> Point {
    Point::of(&p256::PublicKey::from(key.verifying_key()))
}

fn clock() -> ClockInfo {
    ClockInfo { powered_ms: 86_400_000, resets: 3, restarts: 0, safe: true }
}

impl SoftAppliance {
    /// Always the same one for one seed, 1 to 31.
    ///
    /// # Panics
    /// If the seed is 0, or the site's release key is none.
    pub fn new(site: &Site, appliance: &str, seed: u8) -> Self {
        let (key, prover) = (soft_key(seed, 0), soft_key(seed, 96));
        let release = hoidla_verify::ReleasePublic::from_sec1(&site.release_key.0).expect("a release key");
        let policy = release.policy(&PolicyRef::node(&site.site, site.development)).digest();
        let signing = |template: Public, key: &p256::ecdsa::SigningKey| Public { shape: Shape::Signing(point(key)), ..template };
        let storage = |template: Public, apart| Public { shape: Shape::Storage(point(&soft_key(seed, apart))), ..template };
        let ak = signing(Public::signing_template(policy, true), &key);
        let identity = ApplianceIdentity {
            site: site.site.clone(),
            name: name(appliance),
            tpm: "software".into(),
            ek: Bytes(storage(Public::ek_template(), 32).marshal()),
            prover: Bytes(signing(Public::prover_template(), &prover).marshal()),
            srk: Bytes(storage(Public::srk_template(), 64).marshal()),
            ak: Bytes(ak.marshal()),
            node: Bytes(signing(Public::signing_template(policy, false), &soft_key(seed, 128)).marshal()),
            release_counter: 0,
            site_counter: 0,
            hours_counter: 0,
            created: Vec::new(),
        };
        let mut made = Self { identity, registers: REGISTERS.map(register).to_vec(), key, key_name: ak.name(), prover };
        made.vouch();
        made.run_under(site);
        made
    }

    /// Puts into register 15 that it runs under this site file and its own enrolment in it.
    pub fn run_under(&mut self, site: &Site) {
        let hash = |text: &str| statement::hash(text);
        let digest = measured::digest(&hash(&statement::write(site)), &hash(&statement::write(&self.enrolment(site))));
        for register in self.registers.iter_mut().filter(|r| r.index == measured::PAPERS) {
            register.value = measured::replay(&[digest]);
        }
    }

    /// What home records before shipping.
    pub fn endorsement(&self) -> Endorsement {
        Endorsement { tpm: self.identity.tpm.clone(), ek: self.identity.ek.clone() }
    }

    /// Has the prover vouch for the identity as it is now: after a test has changed it.
    ///
    /// # Panics
    /// If a key in it is none.
    pub fn vouch(&mut self) {
        let name = |bytes: &Bytes| Public::parse(&bytes.0).expect("a key").name();
        let (signer, qualifying) = (endorsed(&name(&self.identity.prover)), qualifying(&self.identity));
        let word = |key: &Bytes| {
            let (object, creation) = (name(key), Hash32([9; 32]));
            let attest = Created { signer, qualifying, clock: clock(), firmware: 1, object, creation }.marshal();
            let signature: Signature = self.prover.sign(&attest);
            KeyCreated { attest: Bytes(attest), signature: Bytes(signature.to_bytes().to_vec()) }
        };
        let created = [&self.identity.srk, &self.identity.ak, &self.identity.node].map(word).to_vec();
        self.identity.created = created;
    }

    /// Its attestation key's TPM name.
    pub fn key_name(&self) -> TpmName {
        self.key_name
    }

    /// What its signature lines are named.
    pub fn origin(&self) -> String {
        format!("hoidla/{}/{}", self.identity.site, self.identity.name)
    }

    /// The authority's word for it, to be signed.
    pub fn enrolment(&self, site: &Site) -> Enrolment {
        Enrolment {
            site: site.site.clone(),
            site_hash: Hash32([0; 32]),
            appliance: self.identity.name.clone(),
            identity: statement::hash(&statement::write(&self.identity)),
            halves: Hash32([0; 32]),
            proof: Proof::TrustedOnFirstUse,
            certificate: Bytes(vec![]),
            issued: Moment::from_seconds(1_800_000_000),
        }
    }

    /// What its TPM would say.
    pub fn attest(&self, qualifying: [u8; 32]) -> Attest {
        Attest {
            signer: endorsed(&self.key_name),
            qualifying,
            clock: clock(),
            firmware: 1,
            selection: self.registers.iter().fold(0, |bits, r| bits | 1 << r.index),
            pcr_digest: Hash32(pcr_digest(&self.registers)),
        }
    }

    /// Any attestation, signed.
    pub fn quote(&self, attest: &Attest) -> Quote {
        let attest = attest.marshal();
        let signature: Signature = self.key.sign(&attest);
        Quote { attest, signature: signature.to_bytes().into(), pcrs: self.registers.iter().map(|r| r.value).collect() }
    }

    /// Its TPM's word about any text, as a signature line under any name.
    pub fn line(&self, says: Says, text: &str, under: &str) -> hoidla_format::statement::Signature {
        self.quote(&self.attest(says.qualifying(text))).line(under, &self.key_name.0)
    }

    /// Any quote as a signature line below a text.
    ///
    /// # Panics
    /// If the text is no checkpoint.
    pub fn note(&self, text: &str, quote: &Quote) -> SignedCheckpoint {
        let note = Note { text: text.to_owned(), signatures: vec![quote.line(&self.origin(), &self.key_name.0)] };
        SignedCheckpoint::parse(note.write().as_bytes()).expect("a checkpoint")
    }

    /// Signs a head of its own log.
    pub fn sign(&self, head: &Checkpoint) -> SignedCheckpoint {
        let text = head.to_string();
        self.note(&text, &self.quote(&self.attest(Says::Mine.qualifying(&text))))
    }

    /// Says of another's head that it was seen.
    ///
    /// # Panics
    /// Never: what was parsed reads back.
    pub fn witness(&self, signed: &SignedCheckpoint) -> SignedCheckpoint {
        let mut note = signed.note().clone();
        let quote = self.quote(&self.attest(Says::Seen.qualifying(&note.text)));
        note.signatures.push(quote.line(&self.origin(), &self.key_name.0));
        SignedCheckpoint::parse(note.write().as_bytes()).expect("a checkpoint")
    }
}

/// An appliance's log, in memory.
#[derive(Clone, Default)]
pub struct Log {
    /// Its leaves.
    pub leaves: Vec<Leaf>,
}

impl Log {
    /// Some leaves of one stream, each root made up from `seed`.
    ///
    /// # Panics
    /// Never: the parts are small.
    pub fn of(leaves: u64, seed: u8) -> Self {
        let leaf = |n: u64| Leaf {
            dataset: name("land"),
            stream: StreamId([7; 16]),
            epoch: 1,
            part: ByteRange::new(n * 100, 100).expect("a range"),
            root: Hash32([seed.wrapping_add(n as u8); 32]),
        };
        Self { leaves: (0..leaves).map(leaf).collect() }
    }

    fn nodes(&self) -> impl Nodes<Error = ()> {
        Leaves(|i| self.leaves.get(i as usize).map(leaf_hash).ok_or(()))
    }

    /// Its head at a size.
    ///
    /// # Panics
    /// If it is smaller.
    pub fn head(&self, who: &SoftAppliance, size: u64, counter: u64) -> Checkpoint {
        let (site, appliance) = (who.identity.site.clone(), who.identity.name.clone());
        Checkpoint { site, appliance, size, root: root(&self.nodes(), size).expect("as long"), counter }
    }

    /// The signed head of all of it.
    pub fn signed(&self, who: &SoftAppliance, counter: u64) -> SignedCheckpoint {
        who.sign(&self.head(who, self.leaves.len() as u64, counter))
    }

    /// A leaf's proof in the tree of a size.
    ///
    /// # Panics
    /// If it is smaller.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Hash32> {
        inclusion(&self.nodes(), index, size).expect("as long").expect("inside")
    }

    /// The proof that it grew.
    ///
    /// # Panics
    /// If it is smaller.
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Hash32> {
        consistency(&self.nodes(), old, new).expect("as long").expect("grew")
    }

    /// A receipt of a leaf under a signed head.
    ///
    /// # Panics
    /// If the head is another log's.
    pub fn receipt(&self, index: u64, checkpoint: &SignedCheckpoint) -> Receipt {
        let proof = self.inclusion(index, checkpoint.head().size);
        Receipt::new(self.leaves[index as usize].clone(), index, proof, checkpoint.clone()).expect("a receipt")
    }

    /// The proof from an older size to a signed head.
    pub fn extension(&self, old: u64, checkpoint: &SignedCheckpoint) -> Extension {
        Extension { old, proof: self.consistency(old, checkpoint.head().size), checkpoint: checkpoint.clone() }
    }
}
