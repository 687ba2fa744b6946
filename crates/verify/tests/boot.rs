//! A firmware's log, and what registers must hold: against what a guest read from its TPM.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use hoidla_format::Hash32;
use hoidla_verify::{
    boot::{self, SecureBootKeys, signature_entry, signature_list},
    eventlog::{APPLICATION, Event, Log, LogError},
};
use sha2::{Digest, Sha256};

const VARIABLE: u32 = 0x8000_0001;
const AUTHORITY: u32 = 0x8000_00e0;

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/boot").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the guest's TPM said.
fn registers() -> BTreeMap<u8, String> {
    let text = String::from_utf8(vector("registers.txt")).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_once(' ').unwrap()).map(|(n, v)| (n.parse().unwrap(), v.into())).collect()
}

fn value(registers: &BTreeMap<u8, Hash32>, n: u8) -> String {
    registers[&n].to_string()
}

#[test]
fn a_log_replays_to_what_the_tpm_says() {
    let bytes = vector("eventlog.bin");
    let log = Log::parse(&bytes).unwrap();
    let replayed = log.replay();
    let said = registers();
    assert!(said.len() >= 10);
    for (n, expected) in &said {
        assert_eq!(&value(&replayed, *n), expected, "register {n}");
    }
    assert_eq!(log.of(4).filter(|e| e.kind == APPLICATION).count(), 1, "the image and no other program");
}

/// The registers that tpm2_eventlog, of Debian's tpm2-tools, replays a log to.
fn as_others_see(log: &[u8]) -> BTreeMap<u8, String> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("log");
    fs::write(&file, log).unwrap();
    let out = Command::new("tpm2_eventlog").arg(&file).output().expect("tpm2_eventlog of tpm2-tools is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let end = text.split_once("\npcrs:\n").expect("it ends with registers").1;
    let sha256 = end.lines().skip_while(|l| l.trim() != "sha256:").skip(1).take_while(|l| l.starts_with("    "));
    sha256.map(|l| l.split_once(": 0x").unwrap()).map(|(n, v)| (n.trim().parse().unwrap(), v.to_owned())).collect()
}

#[test]
fn tpm2_eventlog_replays_a_log_as_we_do() {
    let mut bytes = vector("eventlog.bin");
    assert_eq!(as_others_see(&bytes), registers());
    // Another digest for an event: another register, to both.
    let digest = Log::parse(&bytes).unwrap().of(4).next().unwrap().digest.0;
    let at = bytes.windows(32).position(|w| w == digest).unwrap();
    bytes[at] ^= 1;
    let (ours, theirs) = (Log::parse(&bytes).unwrap().replay(), as_others_see(&bytes));
    assert!(theirs.iter().all(|(n, v)| value(&ours, *n) == *v));
    assert_ne!(theirs[&4], registers()[&4]);
}

/// The data of a variable as it was measured.
fn variable<'a>(log: &'a Log<'_>, kind: u32, name: &str) -> &'a [u8] {
    let utf16: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let of = |e: &&Event<'a>| e.kind == kind && e.data.get(32..32 + utf16.len()) == Some(&utf16[..]) && e.data[16] as usize == name.len();
    &log.of(7).find(of).unwrap_or_else(|| panic!("{name}")).data[32 + utf16.len()..]
}

#[test]
fn register_7_follows_from_the_keys() {
    let bytes = vector("eventlog.bin");
    let log = Log::parse(&bytes).unwrap();
    let data = |name| variable(&log, VARIABLE, name).to_vec();
    let keys = SecureBootKeys { pk: data("PK"), kek: data("KEK"), db: data("db"), dbx: data("dbx") };
    let used = variable(&log, AUTHORITY, "db");
    assert_eq!(boot::secure_boot(&keys, used).to_string(), registers()[&7]);
    assert_ne!(boot::secure_boot(&SecureBootKeys { dbx: Vec::new(), ..keys.clone() }, used).to_string(), registers()[&7]);
    // The list that firmware measured is the one that we write for this owner and certificate.
    let (owner, certificate) = used.split_first_chunk::<16>().unwrap();
    assert_eq!(keys.pk, signature_list(owner, certificate));
    assert_eq!(used, signature_entry(owner, certificate));
}

#[test]
fn register_4_is_firmwares_words_and_the_image() {
    let bytes = vector("eventlog.bin");
    let log = Log::parse(&bytes).unwrap();
    let digests: Vec<Hash32> = log.of(4).map(|e| e.digest).collect();
    let hash = |b: &[u8]| Hash32(Sha256::digest(b).into());
    assert_eq!(digests[..2], [hash(b"Calling EFI Application from Boot Option"), hash(&[0; 4])]);
    assert_eq!(boot::extended(digests).to_string(), registers()[&4]);
}

#[test]
fn a_log_that_was_cut_or_is_none_is_refused() {
    let bytes = vector("eventlog.bin");
    let whole = Log::parse(&bytes).unwrap().replay();
    let ends: Vec<usize> = (0..bytes.len()).filter(|n| Log::parse(&bytes[..*n]).is_ok()).collect();
    // It may end after any event, and only there; then its registers are others.
    assert_eq!(ends.len(), Log::parse(&bytes).unwrap().events().len());
    assert!(ends.iter().all(|n| Log::parse(&bytes[..*n]).unwrap().replay() != whole));
    assert_eq!(Log::parse(&[]), Err(LogError::Truncated));
    assert!(matches!(Log::parse(&[0; 100]), Err(LogError::Format(_))));
    assert_eq!(Log::parse(&vec![0; hoidla_verify::eventlog::MOST + 1]), Err(LogError::Long));
    let mut other_bank = bytes.clone();
    let at = bytes.windows(4).position(|w| w == [0x0b, 0, 32, 0]).unwrap();
    other_bank[at] = 0x12;
    assert!(matches!(Log::parse(&other_bank), Err(LogError::Format(_))));
    let mut flipped = bytes.clone();
    let digest = Log::parse(&bytes).unwrap().of(7).next().unwrap().digest;
    let at = bytes.windows(32).position(|w| w == digest.0).unwrap();
    flipped[at] ^= 1;
    assert_ne!(Log::parse(&flipped).unwrap().replay()[&7], whole[&7]);
}

#[test]
fn a_start_from_another_locality_is_counted() {
    let bytes = vector("eventlog.bin");
    let mut with = bytes.clone();
    let mut event = Vec::new();
    for n in [0u32, 3, 4] {
        event.extend(n.to_le_bytes());
    }
    for (algorithm, len) in [(4u16, 20), (11, 32), (12, 48), (13, 64)] {
        event.extend(algorithm.to_le_bytes());
        event.extend(vec![0; len]);
    }
    event.extend(17u32.to_le_bytes());
    event.extend(b"StartupLocality\0\x03");
    let first = 32 + u32::from_le_bytes(bytes[28..32].try_into().unwrap()) as usize;
    with.splice(first..first, event);
    let (log, moved) = (Log::parse(&bytes).unwrap(), Log::parse(&with).unwrap().replay());
    let mut start = Hash32([0; 32]);
    start.0[31] = 3;
    assert_eq!(moved[&0], boot::extended_from(start, log.of(0).map(|e| e.digest)), "and the event itself extends nothing");
    assert_eq!(moved[&7], log.replay()[&7]);
}

#[test]
fn a_certificate_is_found_in_a_variable_of_lists() {
    let (a, b) = (signature_list(&[1; 16], b"first"), signature_list(&[2; 16], b"second"));
    let both = [&a[..], &b[..]].concat();
    assert!(boot::lists(&both, b"first") && boot::lists(&both, b"second") && boot::lists(&b, b"second"));
    assert!(!boot::lists(&both, b"third") && !boot::lists(&a, b"second") && !boot::lists(&both, b"") && !boot::lists(&[], b"first"));
    // A hash of the same bytes is no certificate; lengths that don't fit end it.
    let with = |at: usize, byte: u8| {
        let mut bad = both.clone();
        bad[at] = byte;
        boot::lists(&bad, b"second")
    };
    let list = a.len();
    assert!(!with(list, 0) && !with(list + 16, 0) && !with(list + 16, 200) && !with(list + 24, 0) && !with(list + 20, 255));
    assert!(!with(16, 0) && !with(17, 1), "the first list leads nowhere");
    for len in 0..both.len() {
        assert!(!boot::lists(&both[..len], b"second"));
    }
}
