//! Boot images as files: what is read, what is refused, what it measures.
#![forbid(unsafe_code)]

use std::{fs, path::Path};

use hoidla_format::{
    Bytes, Hash32,
    statements::{ImageManifest, Software},
};
use hoidla_verify::{
    boot,
    manifest::{self, ManifestError, registers},
    pe::{Image, PeError},
};
use sha2::{Digest, Sha256};

const CMDLINE: &str = "console=ttyS0 lockdown=confidentiality";

/// A small image: `.text`, `.cmdline`, `.linux` and `.initrd`.
fn image() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/boot/image.efi");
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn sha(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(bytes).into())
}

fn manifest_of(file: &[u8]) -> ImageManifest {
    let image = Image::parse(file).unwrap();
    ImageManifest {
        name: "hoidla-1".parse().unwrap(),
        development: true,
        profile: "qemu".parse().unwrap(),
        unsigned: sha(&image.unsigned()),
        signed: sha(file),
        certificate: Bytes(vec![1; 60]),
        firmware: vec![],
        pcrs: registers(&image, &[1; 60], &[]).unwrap(),
        software: vec![Software { name: "hoidlad".into(), version: "1".into(), hash: sha(b"") }],
    }
}

#[test]
fn sections_are_what_they_hold_without_padding() {
    let bytes = image();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.sections().len(), 4);
    assert_eq!(image.section(".cmdline").unwrap().content, CMDLINE.as_bytes());
    assert_eq!((image.signature(), image.unsigned()), (None, bytes.clone()));
}

#[test]
fn a_signature_comes_on_and_off_without_a_trace() {
    let bytes = image();
    let parsed = Image::parse(&bytes).unwrap();
    for length in [1, 7, 8, 1393] {
        let signed = parsed.with_signature(&vec![5; length]);
        let image = Image::parse(&signed).unwrap();
        assert_eq!(image.signature().unwrap(), vec![5; length]);
        assert_eq!(image.unsigned(), bytes);
        assert_eq!(image.digest(), parsed.digest(), "the signature does not cover itself");
        assert_eq!(image.with_signature(&[6; 40]), parsed.with_signature(&[6; 40]));
    }
}

#[test]
fn the_digest_covers_all_but_checksum_and_signature() {
    let bytes = image();
    let digest = Image::parse(&bytes).unwrap().digest();
    let checksum = 0x98 + 64..0x98 + 68;
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        if let Ok(image) = Image::parse(&other) {
            assert_eq!(image.digest() == digest, checksum.contains(&at), "byte {at}");
        }
    }
}

#[test]
fn whatever_rides_along_is_refused() {
    let bytes = image();
    assert_eq!(Image::parse(b"#!/bin/sh"), Err(PeError::Other("it doesn't begin like a program for UEFI")));
    for cut in 0..bytes.len() {
        assert!(Image::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(matches!(Image::parse(&[&bytes[..], &[0; 8]].concat()), Err(PeError::Strange(_))), "bytes after the last section");
    let signed = Image::parse(&bytes).unwrap().with_signature(&[5; 13]);
    assert!(Image::parse(&[&signed[..], &[0; 8]].concat()).is_err(), "bytes after the signature");
    let mut padded = signed.clone();
    *padded.last_mut().unwrap() = 1;
    assert!(Image::parse(&padded).is_err(), "something in the signature's padding");
    let head = |n: usize| 0x98 + 240 + 40 * n;
    let mut twice = bytes.clone();
    twice.copy_within(head(1)..head(1) + 8, head(2));
    assert!(matches!(Image::parse(&twice), Err(PeError::Strange(_))), "two command lines");
    let last = u32::from_le_bytes(bytes[head(3) + 20..head(3) + 24].try_into().unwrap());
    let mut gap = bytes.clone();
    gap.splice(last as usize..last as usize, [0x5a; 512]);
    gap[head(3) + 20..head(3) + 24].copy_from_slice(&(last + 512).to_le_bytes());
    assert!(Image::parse(&gap).is_err(), "a gap between sections");
    let mut overlapping = bytes.clone();
    overlapping[head(2) + 12..head(2) + 16].copy_from_slice(&(4096u32 * 2).to_le_bytes());
    assert!(Image::parse(&overlapping).is_err(), "two sections in one place of memory");
    let mut arm = bytes;
    arm[0x84..0x86].copy_from_slice(&0xaa64u16.to_le_bytes());
    assert!(matches!(Image::parse(&arm), Err(PeError::Other(_))));
}

#[test]
fn registers_follow_the_stub_step_by_step() {
    let bytes = image();
    let image = Image::parse(&bytes).unwrap();
    let step = |r: Hash32, d: Hash32| sha(&[r.0, d.0].concat());
    // In the stub's order, not the file's.
    let mut eleven = Hash32([0; 32]);
    for (name, content) in [(".linux", &[7; 1000][..]), (".cmdline", CMDLINE.as_bytes()), (".initrd", &[8; 600])] {
        eleven = step(step(eleven, sha(&[name.as_bytes(), &[0]].concat())), sha(content));
    }
    assert_eq!(boot::sections(&image), eleven);
    let utf16: Vec<u8> = CMDLINE.bytes().chain([0]).flat_map(|b| [b, 0]).collect();
    assert_eq!(boot::kernel_arguments(CMDLINE, &[8; 600]), step(step(Hash32([0; 32]), sha(&utf16)), sha(&[8; 600])));
    let [a, b, c] = [sha(b"Calling EFI Application from Boot Option"), sha(&[0; 4]), image.digest()];
    assert_eq!(boot::launch(&[], &image), step(step(step(Hash32([0; 32]), a), b), c));
    let recorded = [b, Hash32([9; 32])];
    assert_eq!(boot::launch(&recorded, &image), step(step(step(Hash32([0; 32]), b), recorded[1]), c), "all that firmware does");
    let all = registers(&image, &[1; 60], &[]).unwrap();
    assert_eq!(all.iter().map(|p| p.index).collect::<Vec<_>>(), [4, 7, 9, 11, 12, 13]);
    assert_eq!((all[4].value, all[5].value), (Hash32([0; 32]), Hash32([0; 32])));
}

#[test]
fn a_manifest_is_of_one_file() {
    let file = Image::parse(&image()).unwrap().with_signature(&[5; 900]);
    let manifest = manifest_of(&file);
    assert_eq!(manifest::check(&manifest, &file), Ok(()));
    let mut other = file.clone();
    other[1500] ^= 1;
    assert!(matches!(manifest::check(&manifest, &other), Err(ManifestError::OtherFile(_))));
    let signed_anew = Image::parse(&file).unwrap().with_signature(&[6; 900]);
    assert!(matches!(manifest::check(&manifest, &signed_anew), Err(ManifestError::OtherFile(_))));
    for index in 0..6 {
        let mut wrong = manifest.clone();
        wrong.pcrs[index].value.0[0] ^= 1;
        assert_eq!(manifest::check(&wrong, &file), Err(ManifestError::Wrong("the registers")));
    }
    let wrong = ImageManifest { unsigned: Hash32([1; 32]), ..manifest.clone() };
    assert!(matches!(manifest::check(&wrong, &file), Err(ManifestError::Wrong(_))));
    let wrong = ImageManifest { firmware: vec![Hash32([1; 32])], ..manifest };
    assert!(manifest::check(&wrong, &file).is_err());
}
