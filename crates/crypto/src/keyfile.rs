//! A private key at rest: 32 secret bytes under a passphrase.
//!
//! Layout, version 1: `header (8) ‖ role u8 ‖ name (u16 length) ‖ memory KiB u32 ‖
//! passes u32 ‖ lanes u32 ‖ salt (32) ‖ wrapped key (60) ‖ SHA-256 of all before (32)`.
//! The wrapping key is Argon2id's output; everything before the wrapped key is its
//! associated data.
//!
//! Promises: role and name are readable without the passphrase and cannot be
//! changed unnoticed; the costs a file asks for are bounded before a byte of memory
//! is taken; a damaged file and a wrong passphrase are told apart (the hash at the
//! end needs no passphrase). Callers write it with mode 0600. It doesn't make a weak
//! passphrase strong: such files are for drills, cards for the rest.

use argon2::{Algorithm, Argon2, Params, Version};
use hoidla_format::{Kind, Malformed, Name, Reader, Writer};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    Secret, random,
    secret::then_wipe_stack,
    wrap::{self, unwrap_key, wrap_key},
};

const VERSION: u8 = 1;
const SALT: usize = 32;
const HASH: usize = 32;
/// The longest passphrase taken, in bytes.
pub const MOST_PASSPHRASE: usize = 1024;

/// Whose key a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The home authority.
    Authority = 1,
    /// The release key.
    Release = 2,
    /// A custodian.
    Custodian = 3,
    /// An agent.
    Agent = 4,
    /// A reader.
    Reader = 5,
}

impl Role {
    /// The role for people: "a custodian".
    pub const fn title(self) -> &'static str {
        match self {
            Self::Authority => "the home authority",
            Self::Release => "the release key",
            Self::Custodian => "a custodian",
            Self::Agent => "an agent",
            Self::Reader => "a reader",
        }
    }

    fn from_number(number: u8) -> Result<Self, Malformed> {
        [Self::Authority, Self::Release, Self::Custodian, Self::Agent, Self::Reader]
            .into_iter()
            .find(|r| *r as u8 == number)
            .ok_or(Malformed::Field("a key file of an unknown role: use the release that wrote it, or a newer one"))
    }
}

/// What opening a file costs, so that guessing costs as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB: 8,192 to 1,048,576.
    pub memory_kib: u32,
    /// Passes over it: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 8.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106's recommendation where 2 GiB cannot be had: 64 MiB, 3 passes, 4 lanes.
    pub const USUAL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// The least that is read; for tests.
    pub const LEAST: Self = Self { memory_kib: 8 * 1024, passes: 1, lanes: 1 };

    fn check(self) -> Result<Self, Malformed> {
        let fits = (8 * 1024..=1024 * 1024).contains(&self.memory_kib) && (1..=16).contains(&self.passes) && (1..=8).contains(&self.lanes);
        if fits {
            Ok(self)
        } else {
            Err(Malformed::Field("a key file that asks for absurd memory or time: it was not written by this program"))
        }
    }
}

/// Why a key file was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// Not a key file, or of another version.
    #[error("the key file cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// Its hash doesn't fit.
    #[error("the key file is damaged: restore it from its copy (the passphrase was not tried)")]
    Damaged,
    /// The file is whole, the passphrase doesn't open it.
    #[error(
        "the passphrase doesn't open this key file: type it again; if you are sure of it, this is not the file that you made, so take it from its copy"
    )]
    WrongPassphrase,
    /// Empty or longer than [`MOST_PASSPHRASE`].
    #[error("a passphrase has 1 to {MOST_PASSPHRASE} bytes: choose another")]
    Passphrase,
    /// There is less memory than the file asks for.
    #[error("opening this key file needs {0} MiB of memory: close other programs and try again")]
    Memory(u32),
    /// Another role's key than belongs here.
    #[error("this is the key file of {found}, but the key of {wanted} belongs here: give the other file")]
    Role {
        /// The role as read.
        found: &'static str,
        /// What belongs here.
        wanted: &'static str,
    },
}

/// A key file as read, still closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    role: Role,
    name: Name,
    cost: Cost,
    salt: [u8; SALT],
    head: Vec<u8>,
    wrapped: [u8; wrap::WRAPPED_LEN],
}

impl KeyFile {
    /// The bytes of a new file, at the usual cost.
    pub fn protect(role: Role, name: &Name, secret: &Secret<32>, passphrase: &str) -> Result<Vec<u8>, KeyFileError> {
        Self::protect_at(Cost::USUAL, role, name, secret, passphrase)
    }

    /// The bytes of a new file, at another cost.
    pub fn protect_at(cost: Cost, role: Role, name: &Name, secret: &Secret<32>, passphrase: &str) -> Result<Vec<u8>, KeyFileError> {
        let mut salt = [0; SALT];
        random(&mut salt);
        let mut w = Writer::with_header(Kind::KeyFile, VERSION);
        w.u8(role as u8).short(name.as_str().as_bytes());
        w.u32(cost.check()?.memory_kib).u32(cost.passes).u32(cost.lanes).put(&salt);
        let mut file = w.finish();
        let wrapped = wrap_key(&stretch(cost, &salt, passphrase)?, &file, secret);
        file.extend(wrapped);
        let hash = Sha256::digest(&file);
        file.extend(hash);
        Ok(file)
    }

    /// Reads a file without opening it; a damaged one is refused here.
    pub fn parse(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut r = Reader::new(file);
        r.header(Kind::KeyFile, VERSION)?;
        let (body, hash) = file.split_last_chunk::<HASH>().ok_or(KeyFileError::Damaged)?;
        if Sha256::digest(body)[..] != hash[..] {
            return Err(KeyFileError::Damaged);
        }
        let role = Role::from_number(r.u8()?)?;
        let name = Name::from_bytes(r.short(Name::MOST, "a name too long")?)?;
        let cost = Cost { memory_kib: r.u32()?, passes: r.u32()?, lanes: r.u32()? }.check()?;
        let salt = r.array()?;
        let head = file[..file.len() - r.left()].to_vec();
        let wrapped = r.array()?;
        r.take(HASH)?;
        r.finish()?;
        Ok(Self { role, name, cost, salt, head, wrapped })
    }

    /// Whose key it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Their name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What opening costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Refuses another role's file before the passphrase is asked for.
    pub fn expect(self, role: Role) -> Result<Self, KeyFileError> {
        if self.role == role { Ok(self) } else { Err(KeyFileError::Role { found: self.role.title(), wanted: role.title() }) }
    }

    /// Opens it.
    pub fn open(&self, passphrase: &str) -> Result<Secret<32>, KeyFileError> {
        let under = stretch(self.cost, &self.salt, passphrase)?;
        unwrap_key(&under, &self.head, &self.wrapped).map_err(|_| KeyFileError::WrongPassphrase)
    }
}

/// Argon2id, version 1.3.
fn stretch(cost: Cost, salt: &[u8; SALT], passphrase: &str) -> Result<Secret<32>, KeyFileError> {
    if passphrase.is_empty() || passphrase.len() > MOST_PASSPHRASE {
        return Err(KeyFileError::Passphrase);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).expect("checked costs are Argon2's too");
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = |out: &mut [u8; 32]| argon.hash_password_into(passphrase.as_bytes(), salt, out);
    Secret::try_filled(|out| then_wipe_stack(|| hash(out)).map_err(|_| KeyFileError::Memory(cost.memory_kib / 1024)))
}
