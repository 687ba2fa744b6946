//! What a firmware did before the image, as its log tells: what is recorded, usual, new, missing.
#![forbid(unsafe_code)]

use hoidla_format::Hash32;
use hoidla_verify::{
    boot,
    eventlog::Log,
    firmware::{CALLING, Launch, Origin, RETURNING, SEPARATOR, Surprise, before_image, usual},
};
use sha2::{Digest, Sha256};

const ACTION: u32 = 0x8000_0007;
const ENDS: u32 = 4;
const PROGRAM: u32 = 0x8000_0003;

fn sha(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(bytes).into())
}

/// A log with one bank, and these events of register 4: type, what is hashed, data.
fn log(events: &[(u32, &[u8], Vec<u8>)]) -> Vec<u8> {
    let spec = [&b"Spec ID Event03\0"[..], &[0; 8], &1u32.to_le_bytes(), &[11, 0, 32, 0], &[0]].concat();
    let mut out = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &(spec.len() as u32).to_le_bytes(), &spec].concat();
    for (kind, hashed, data) in events {
        out.extend([4u32.to_le_bytes(), kind.to_le_bytes(), 1u32.to_le_bytes()].concat());
        out.extend([&[11, 0][..], &sha(hashed).0, &(data.len() as u32).to_le_bytes(), data].concat());
    }
    out
}

fn node(kind: u8, sub: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, sub][..], &(body.len() as u16 + 4).to_le_bytes(), body].concat()
}

/// UEFI_IMAGE_LOAD_EVENT over these nodes.
fn loaded(nodes: &[Vec<u8>]) -> Vec<u8> {
    let path = [nodes.concat(), node(0x7f, 0xff, &[])].concat();
    [&[0; 24][..], &(path.len() as u64).to_le_bytes(), &path].concat()
}

/// A file on a disk at a cable.
fn file(path: &str) -> Vec<u8> {
    let name: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    loaded(&[node(2, 1, &[0; 8]), node(1, 1, &[0; 2]), node(3, 18, &[0; 6]), node(4, 1, &[0; 38]), node(4, 4, &name)])
}

/// A program in the firmware's own flash.
fn flash() -> Vec<u8> {
    loaded(&[node(4, 7, &[1; 16]), node(4, 6, &[2; 16])])
}

fn calling() -> (u32, &'static [u8], Vec<u8>) {
    (ACTION, CALLING, CALLING.to_vec())
}

fn ends() -> (u32, &'static [u8], Vec<u8>) {
    (ENDS, SEPARATOR, SEPARATOR.to_vec())
}

fn agent() -> (u32, &'static [u8], Vec<u8>) {
    (PROGRAM, b"agent", flash())
}

fn image() -> (u32, &'static [u8], Vec<u8>) {
    (PROGRAM, b"image", file("\\EFI\\BOOT\\BOOTX64.EFI"))
}

fn surprises(events: &[(u32, &[u8], Vec<u8>)], recorded: &[Hash32]) -> Vec<Surprise> {
    let bytes = log(events);
    let launch = Launch::of(&Log::parse(&bytes).unwrap(), recorded);
    [launch.surprises(recorded), launch.between()].concat()
}

#[test]
fn a_real_log_holds_what_is_usual_and_nothing_else() {
    let bytes = include_bytes!("../../../tests/vectors/boot/eventlog.bin");
    let log = Log::parse(bytes).unwrap();
    let launch = Launch::of(&log, &[]);
    assert_eq!((launch.to_record(), launch.surprises(&[]), launch.between()), (vec![], vec![], vec![]));
    let program = log.of(4).last().unwrap();
    assert_eq!(Origin::of(program.data), Origin::Outside("\\EFI\\BOOT\\BOOTX64.EFI".into()));
    assert_eq!(log.replay()[&4], boot::extended(before_image(&[]).into_iter().chain([program.digest])));
}

#[test]
fn what_was_recorded_is_fine_and_replays() {
    let events = [calling(), ends(), agent(), image()];
    let bytes = log(&events);
    let parsed = Log::parse(&bytes).unwrap();
    let recorded: Vec<Hash32> = Launch::of(&parsed, &[]).to_record().into_iter().map(|(digest, _)| digest).collect();
    assert_eq!(recorded, [&usual()[..], &[sha(b"agent")]].concat(), "all of it, in its order");
    assert_eq!(surprises(&events, &recorded), []);
    assert_eq!(parsed.replay()[&4], boot::extended(before_image(&recorded).into_iter().chain([sha(b"image")])));
    // A firmware that calls no boot entry by name, and an agent that it loads from a disk.
    let odd = [ends(), (PROGRAM, &b"agent"[..], file("\\agent.efi")), image()];
    let recorded = [sha(SEPARATOR), sha(b"agent")];
    assert_eq!(surprises(&odd, &recorded), []);
}

#[test]
fn what_nobody_recorded_is_told_with_what_to_do() {
    let found = surprises(&[calling(), ends(), agent(), image()], &[]);
    assert!(matches!(&found[..], [Surprise::Unexplained { digest, .. }] if *digest == sha(b"agent")), "{found:?}");
    let said = found[0].to_string();
    assert!(said.contains("a program of the firmware itself") && said.contains("profile capture"), "{said}");
    let other = surprises(&[calling(), (5, b"x", vec![]), ends(), image()], &[]);
    assert!(matches!(&other[..], [Surprise::Unexplained { what, .. }] if what.contains("0x00000005")), "{other:?}");
}

#[test]
fn what_is_missing_or_in_another_order_is_told() {
    let recorded = [&usual()[..], &[sha(b"agent")]].concat();
    assert_eq!(surprises(&[calling(), ends(), image()], &recorded), [Surprise::Missing { digest: sha(b"agent") }]);
    assert_eq!(surprises(&[calling(), agent(), ends(), image()], &recorded), [Surprise::Order]);
    assert_eq!(surprises(&[ends(), image()], &[]), [Surprise::Missing { digest: sha(CALLING) }]);
    assert_eq!(surprises(&[], &[]).len(), 2, "a firmware that says nothing at all");
    // Twice is another register than once.
    assert_eq!(surprises(&[calling(), ends(), agent(), agent(), image()], &recorded), [Surprise::Order]);
}

#[test]
fn an_entry_that_was_tried_before_is_told_as_such() {
    let back = || (ACTION, RETURNING, RETURNING.to_vec());
    let other = (PROGRAM, &b"other"[..], file("\\EFI\\other.efi"));
    for (events, times) in [
        (vec![calling(), ends(), other, back(), calling(), image()], 1),
        (vec![calling(), ends(), back(), calling(), back(), calling(), image()], 2), // nothing was there
    ] {
        let found = surprises(&events, &[]);
        assert_eq!(found, [Surprise::CameBack(times)], "{events:?}");
        assert!(found[0].to_string().contains("first one in the firmware's setup"), "{found:?}");
    }
}

#[test]
fn a_program_of_a_disk_before_the_image_is_told_by_its_path() {
    let loader = (PROGRAM, &b"loader"[..], file("\\EFI\\evil\u{1b}[2J.efi"));
    let found = surprises(&[calling(), ends(), loader, image()], &[]);
    assert!(matches!(&found[..], [Surprise::Before(Origin::Outside(path))] if path == "\\EFI\\evil?[2J.efi"), "{found:?}");
}

#[test]
fn a_path_that_is_none_is_nobodys_word() {
    for data in
        [vec![], vec![0; 31], [&[0; 24][..], &u64::MAX.to_le_bytes(), &[3, 1]].concat(), [&[0; 24][..], &9u64.to_le_bytes()].concat()]
    {
        assert_eq!(Origin::of(&data), Origin::Outside(String::new()), "{data:?}: not taken for the firmware's own");
    }
    assert_eq!(Origin::of(&flash()), Origin::Firmware);
    let endless = [&[0; 24][..], &8u64.to_le_bytes(), &[4, 7, 0, 0, 4, 7, 3, 0]].concat();
    assert_eq!(Origin::of(&endless), Origin::Firmware, "a node of no length ends it");
}
