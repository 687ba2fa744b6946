//! What a site is: the site file, its roster, its releases, appliances and agents.
//! All are signed by the authority, but an appliance's identity and a custodian's
//! public card, which their owners sign.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Bytes, Hash32, LOG_DATASET, Moment, Name};

/// An embassy and its appliances. The authority writes it by hand, signs it, and
/// raises `serial` with each change; nobody accepts an older one than they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The site's name.
    pub site: Name,
    /// Rises with each change.
    pub serial: u32,
    /// True for drills and tests: every screen says so, production refuses it.
    pub development: bool,
    /// The authority's key for statements: P-384, SEC1, compressed (49 bytes).
    pub authority: Bytes,
    /// The release key, which a TPM checks: P-256, SEC1, uncompressed (65 bytes).
    pub release_key: Bytes,
    /// The authority's X.509 certificate (DER), to which agents' and appliances' certificates chain.
    pub door_root: Bytes,
    /// The machines.
    #[serde(rename = "appliance", default)]
    pub appliances: Vec<ApplianceEntry>,
    /// The rosters, by the hash of their statement.
    #[serde(rename = "roster", default)]
    pub rosters: Vec<RosterEntry>,
    /// The registries.
    #[serde(rename = "dataset", default)]
    pub datasets: Vec<Dataset>,
    /// Keys of agents that may no longer enter: names of their certificates.
    #[serde(default)]
    pub revoked_agents: Vec<Name>,
}

/// One machine of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplianceEntry {
    /// Its name, which is also the name in its certificate.
    pub name: Name,
    /// Where it is reached: `host:port`; it listens at this port.
    pub address: String,
    /// What its own network port is given, when it runs as an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Where the host is told how the machine is, if it is told at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthPort>,
}

/// The host's port: it only ever sends, and names no dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthPort {
    /// The TCP port.
    pub port: u16,
    /// What the network port with the role `health` is given.
    pub network: Network,
}

/// What a network port is given. Nothing of it is learned from the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its address, and how long the network's part of it is: `198.51.100.7/24`.
    pub address: Subnet,
    /// The way to everybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A host's address in its network: `198.51.100.7/24`, `2001:db8::7/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    ip: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The host's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How many bits of it are the network's.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parse = || {
            let (ip, prefix) = s.split_once('/')?;
            let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let host = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
            Some(Self { ip, prefix }).filter(|n| host && (1..=most).contains(&prefix) && n.to_string() == s)
        };
        parse().ok_or_else(|| format!("{s:?} is no address of a network port: use one like 198.51.100.7/24 or 2001:db8::7/64"))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One roster of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterEntry {
    /// Its name.
    pub name: Name,
    /// SHA-256 of its statement.
    pub hash: Hash32,
}

/// One registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Its name in every format.
    #[serde(deserialize_with = "not_the_log")]
    pub name: Name,
    /// Its name for people.
    pub title: String,
    /// Whose quorum opens it.
    pub roster: Name,
    /// How many days a generation is kept at least.
    pub retention_days: u32,
    /// The percent of each appliance's store that is kept free for it, 1 to 100; left out: its
    /// part of a quarter of what the others leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u8>,
}

/// A store keeps its own log beside the registries: no registry may have that name.
fn not_the_log<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Name, D::Error> {
    let name = Name::deserialize(d)?;
    let taken = || serde::de::Error::custom(format!("the name {name} is the store's own: give the dataset another"));
    if name.as_str() == LOG_DATASET { Err(taken()) } else { Ok(name) }
}

/// A vault's custodians and thresholds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The site it belongs to.
    pub site: Name,
    /// Its name.
    pub name: Name,
    /// How many of `custodians` open, with the TPM.
    pub quorum: u8,
    /// How many of `recovery` open at home, without the TPM; more than `quorum`.
    pub recovery_quorum: u8,
    /// Who opens.
    #[serde(rename = "custodian")]
    pub custodians: Vec<Custodian>,
    /// Who recovers.
    pub recovery: Vec<Custodian>,
}

/// A custodian's public card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// Their name in every format.
    pub name: Name,
    /// What they sign with, and enter the door with: P-384, SEC1, compressed.
    pub signing: Bytes,
    /// One half of their envelope's pair: P-384 for ECDH, SEC1, compressed.
    pub ecdh: Bytes,
    /// The other half: ML-KEM-1024 encapsulation key (1,568 bytes).
    pub mlkem: Bytes,
    /// `file` for a key under a passphrase (drills only), `card` for a token.
    pub kept_in: String,
}

/// An image the authority approved, as a TPM will check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The site whose appliances may run it.
    pub site: Name,
    /// The release's name.
    pub name: Name,
    /// True for drills and tests.
    pub development: bool,
    /// The release epoch: a TPM counter above it refuses this release.
    pub epoch: u64,
    /// Approved PCR values (SHA-256 bank).
    #[serde(rename = "pcr")]
    pub pcrs: Vec<PcrValue>,
    /// The policy digest that those values and the epoch give.
    pub policy: Hash32,
    /// For the node and attestation keys: the release key's ECDSA P-256 signature (r ‖ s)
    /// over SHA-256(policy ‖ the node's policy reference).
    pub signature: Bytes,
    /// The vault epochs that this release may help to open. One that is left out of the
    /// next release is retired as soon as the TPM's counter has passed this one's epoch.
    #[serde(rename = "vault", default)]
    pub vaults: Vec<VaultApproval>,
}

/// A release's approval to use one vault epoch's half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultApproval {
    /// The dataset.
    pub dataset: Name,
    /// The vault epoch.
    pub vault_epoch: u32,
    /// The release key's ECDSA P-256 signature (r ‖ s) over SHA-256(policy ‖ this vault epoch's policy reference).
    pub signature: Bytes,
}

/// One PCR's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrValue {
    /// Which register.
    pub index: u8,
    /// Its value.
    pub value: Hash32,
}

/// What a TPM's endorsement key is; home records it before shipping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsement {
    /// The kind of TPM: `software`, `discrete`, `firmware`.
    pub tpm: String,
    /// Endorsement key: marshalled TPMT_PUBLIC.
    pub ek: Bytes,
}

/// What an appliance's TPM says it is, and that its keys are all in one TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplianceIdentity {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub name: Name,
    /// The kind of TPM, and what that is worth: `software`, `discrete`, `firmware`.
    pub tpm: String,
    /// Endorsement key: marshalled TPMT_PUBLIC.
    pub ek: Bytes,
    /// The key that vouched for the next three: marshalled TPMT_PUBLIC.
    pub prover: Bytes,
    /// Storage root key, to which halves are encrypted: marshalled TPMT_PUBLIC.
    pub srk: Bytes,
    /// Attestation key: marshalled TPMT_PUBLIC.
    pub ak: Bytes,
    /// Node key, usable only under the release policy: marshalled TPMT_PUBLIC.
    pub node: Bytes,
    /// Where the TPM's release counter stood; a release with a lower epoch is refused.
    pub release_counter: u64,
    /// Where the TPM's site counter stood; it is raised by one for each serial of the site file.
    pub site_counter: u64,
    /// Where the TPM's counter of powered hours stood: hours are counted from here.
    pub hours_counter: u64,
    /// The prover's word, under the hash of all above, that its TPM made `srk`, `ak` and `node`, in this order.
    #[serde(default)]
    pub created: Vec<KeyCreated>,
}

/// A TPM's word that it made a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCreated {
    /// TPMS_ATTEST of type creation, as signed.
    pub attest: Bytes,
    /// ECDSA P-256 with SHA-256 over it: r ‖ s.
    pub signature: Bytes,
}

/// On what grounds a TPM is believed to be the one that home means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// None: whoever made the identity could have made it up. For drills.
    TrustedOnFirstUse,
    /// The enrolment could be read only inside the TPM whose endorsement key home recorded.
    CredentialActivated,
}

impl Proof {
    /// In words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::TrustedOnFirstUse => "trusted on first use: nobody has proven that it is genuine",
            Self::CredentialActivated => "proven: it holds the endorsement key that home recorded before shipping",
        }
    }
}

/// What binds one appliance's TPM to a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The site.
    pub site: Name,
    /// SHA-256 of the site statement it was made under.
    pub site_hash: Hash32,
    /// The appliance.
    pub appliance: Name,
    /// SHA-256 of the appliance's identity.
    pub identity: Hash32,
    /// SHA-256 of its halves.
    pub halves: Hash32,
    /// How the TPM was proven to be what it says.
    pub proof: Proof,
    /// The node key's X.509 certificate (DER).
    pub certificate: Bytes,
    /// When.
    pub issued: Moment,
}

/// The authority's word that a key signs one dataset's epochs and roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentCertificate {
    /// The site.
    pub site: Name,
    /// The only dataset it may append to.
    pub dataset: Name,
    /// The agent.
    pub agent: Name,
    /// Its key: P-384, SEC1, compressed. The same key stands in its X.509 certificate.
    pub key: Bytes,
    /// From when.
    pub issued: Moment,
    /// Until when it may enter the door.
    pub not_after: Moment,
}

/// The authority's word that an appliance's time goes on where the machine was off: the only
/// thing that moves it forward but running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// The hash of the identity that home recorded: an appliance enrolled anew counts its time anew.
    pub identity: Hash32,
    /// Rises with each word to this appliance.
    pub serial: u32,
    /// The powered seconds from which it skips; they must have been reached.
    pub from: u64,
    /// The powered seconds to which it skips.
    pub to: u64,
    /// Why, for people.
    pub reason: String,
    /// When it was signed.
    pub issued: Moment,
}

/// The authority's word that a disk with something on it may be erased and used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskWord {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// The tray, from 1.
    pub tray: u8,
    /// The hash of what was seen on the disk, as the appliance's status says it.
    pub seen: Hash32,
    /// Rises with each word to this appliance; each counts once.
    pub serial: u32,
    /// When it was signed.
    pub issued: Moment,
}

/// The authority's word that a store may go on although its disks say less than the log's counter
/// in the TPM: somebody raised that counter by other means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountWord {
    /// The site.
    pub site: Name,
    /// The appliance.
    pub appliance: Name,
    /// The hash of the identity that home recorded: another TPM's counter is another one.
    pub identity: Hash32,
    /// Where the counter stands. Going on raises it past this, so that a word counts once.
    pub stands: u64,
    /// The newest head that home knows: how many leaves,
    pub log_size: u64,
    /// and its root. The log on the disks must extend it.
    pub log_root: Hash32,
    /// Why, for people.
    pub reason: String,
    /// When it was signed.
    pub issued: Moment,
}
