//! After use, no copy of a secret is left anywhere in the process's memory.
//!
//! Each case runs in a process of its own (this same program, asked for the one
//! test), which afterwards reads all of its own writable memory. What is sought is
//! computed byte by byte as it is compared, so that the search leaves no copy of it.
#![forbid(unsafe_code)]

use std::{
    env,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    process::Command,
};

use hoidla_crypto::{
    Secret,
    datakey::{self, Binding, DataKey},
    envelope::{self, CustodianKeys, ShareId},
    hpke::KeyPair,
    keyfile::{Cost, KeyFile, Role},
    labels::UNLOCK,
    sealing::{Provider, Sealer},
    wrap::{derive, unwrap_key, wrap_key},
};
use hoidla_format::{Hash32, StreamId, statements::Door};

/// The sought secret's byte at `i`.
#[inline(always)]
fn sought(i: usize) -> u8 {
    (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xd6e8_feb8_6659_fd93).to_le_bytes()[5]
}

fn secret() -> Secret<32> {
    Secret::filled(|b| b.iter_mut().enumerate().for_each(|(i, b)| *b = sought(i)))
}

/// The names of the mappings that hold the secret, or half of it.
#[inline(never)]
fn places() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut found = Vec::new();
    let mut searched = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let own = buffer.as_ptr() as u64;
        if !rights.starts_with("rw") || memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut at = from;
        while at < to {
            let wanted = buffer.len().min((to - at) as usize);
            memory.seek(SeekFrom::Start(at)).unwrap();
            let Ok(read @ 1..) = memory.read(&mut buffer[..wanted]) else { break };
            searched += read;
            for i in 0..read.saturating_sub(15) {
                let here = at + i as u64;
                let in_buffer = (own..own + (1 << 20)).contains(&here);
                let half = |first: usize| (0..16).all(|n| buffer[i + n] == sought(first + n));
                if !in_buffer && (half(0) || half(16)) {
                    found.push(format!("{here:x} in {line}"));
                }
            }
            // Halves that straddle two reads are read again.
            at += if read == wanted && at + (wanted as u64) < to { read - 32 } else { read } as u64;
        }
        buffer.fill(0);
    }
    assert!(searched > 1 << 20, "the search read the process's memory");
    found
}

/// Runs `case` in a process of its own.
fn alone(test: &str, case: fn()) {
    if env::var_os("HOIDLA_MEMORY_CASE").is_some() {
        return case();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("HOIDLA_MEMORY_CASE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// The secret is found while it lives (so the search works), and nowhere after `used`.
#[track_caller]
fn nothing_left(what: &str, used: impl FnOnce(&Secret<32>)) {
    let secret = secret();
    assert!(!places().is_empty(), "a living secret is found");
    used(&secret);
    drop(secret);
    assert_eq!(places(), Vec::<String>::new(), "left behind by {what}");
}

#[test]
fn a_dropped_secret_is_gone() {
    alone("a_dropped_secret_is_gone", || {
        nothing_left("dropping", |_| ());
        nothing_left("copying", |s| drop(s.duplicate()));
        nothing_left("taking over", |s| {
            let mut bytes = *s.expose();
            drop(Secret::from_bytes_wiping(&mut bytes));
        });
    });
}

#[test]
fn wrapping_leaves_nothing() {
    alone("wrapping_leaves_nothing", || {
        nothing_left("deriving", |s| drop(derive::<32>(UNLOCK, &[s.expose()], &[b"id"])));
        nothing_left("a wrapped key", |s| {
            let under = Secret::random();
            drop(unwrap_key(&under, b"aad", &wrap_key(&under, b"aad", s)).unwrap());
        });
        nothing_left("a wrapping key", |s| {
            let key = Secret::random();
            drop(unwrap_key(s, b"aad", &wrap_key(s, b"aad", &key)).unwrap());
        });
        nothing_left("a key file", |s| {
            let file = KeyFile::protect_at(Cost::LEAST, Role::Reader, &"echo".parse().unwrap(), s, "correct horse").unwrap();
            drop(KeyFile::parse(&file).unwrap().open("correct horse").unwrap());
        });
    });
}

#[test]
fn key_pairs_leave_nothing() {
    alone("key_pairs_leave_nothing", || {
        let name = |n: &str| n.parse().unwrap();
        let binding = Binding { site: name("lux"), dataset: name("land"), stream: StreamId([1; 16]), epoch: 1, vault_epoch: 1 };
        nothing_left("a vault's seed", |s| {
            let vault = KeyPair::from_seed(s.duplicate());
            let wrapped = datakey::wrap(&DataKey::random(), vault.public(), &binding);
            drop(datakey::unwrap(&vault, &binding, &wrapped).unwrap());
        });
        nothing_left("a data key", |s| {
            let (vault, reader) = (KeyPair::generate(), KeyPair::generate());
            let wrapped = datakey::wrap(&DataKey::from_secret(s.duplicate()), vault.public(), &binding);
            let grant = Hash32([1; 32]);
            let again = datakey::rewrap_to_reader(&vault, &binding, &wrapped, reader.public(), &grant).unwrap();
            drop(datakey::unwrap_as_reader(&reader, &binding, &grant, &again).unwrap());
        });
        nothing_left("a custodian's master secret", |s| {
            let keys = CustodianKeys::from_seed(s);
            let card = keys.public_card(&name("alpha"));
            keys.signing_key().sign_statement("alpha", &card);
        });
        nothing_left("a share", |s| {
            let keys = CustodianKeys::from_seed(&Secret::random());
            let site = name("lux");
            let id = ShareId { site, dataset: name("land"), vault_epoch: 1, door: Door::Quorum, custodian: name("alpha"), index: 1 };
            let sealed = envelope::seal(&keys.public_card(&name("alpha")), &id, s.expose()).unwrap();
            drop(envelope::open(&keys, &id, &sealed).unwrap());
        });
    });
}

#[test]
fn sealing_leaves_no_key() {
    alone("sealing_leaves_no_key", || {
        #[cfg(feature = "fast")]
        let providers = [Provider::AwsLc, Provider::RustCrypto];
        #[cfg(not(feature = "fast"))]
        let providers = [Provider::RustCrypto];
        for provider in providers {
            nothing_left(&format!("{provider:?}"), |s| {
                let sealer = Sealer::new(&DataKey::from_secret(s.duplicate()), provider);
                let (mut sealed, mut plain) = (Vec::new(), Vec::new());
                sealer.seal(b"aad", b"record", &mut sealed).unwrap();
                sealer.open(b"aad", &sealed, &mut plain).unwrap();
            });
        }
    });
}
