//! The signature under Secure Boot's eyes: ours, and those of Debian's sbverify.

use std::{fs, process::Command};

use hoidla_image::{authenticode, inspect::Inside};
use hoidla_verify::pe::Image;

use crate::world::{self, boot_key, built, signed};

/// Whether sbverify believes a file under the boot key `n`.
fn sbverify(file: &[u8], n: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (image, certificate) = (folder.path().join("image.efi"), folder.path().join("boot.pem"));
    fs::write(&image, file).unwrap();
    let pem = pem(boot_key(n).certificate());
    fs::write(&certificate, pem).unwrap();
    let out = Command::new("sbverify").arg("--cert").arg(&certificate).arg(&image).output().expect("sbverify of sbsigntool is installed");
    out.status.success()
}

fn pem(der: &[u8]) -> String {
    let base64 = toml::Value::try_from(hoidla_format::Bytes(der.to_vec())).unwrap();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        base64.as_str().unwrap().as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join("\n")
    )
}

fn ours(file: &[u8]) -> bool {
    Image::parse(file).is_ok_and(|image| authenticode::check(&image).is_ok())
}

#[test]
fn a_signed_image_is_believed_under_its_key_only() {
    assert!(sbverify(signed(), 0) && ours(signed()));
    assert!(!sbverify(signed(), 1));
    assert!(!sbverify(&built().image, 0) && !ours(&built().image), "unsigned");
    let other = authenticode::attach(signed(), boot_key(1)).unwrap();
    assert!(sbverify(&other, 1) && !sbverify(&other, 0), "signed anew: the former signature is gone");
    assert_eq!(Image::parse(&other).unwrap().unsigned(), built().image);
}

#[test]
fn the_same_image_and_key_give_the_same_signature() {
    assert!(authenticode::attach(&built().image, boot_key(0)).unwrap() == *signed());
    assert!(authenticode::attach(signed(), boot_key(0)).unwrap() == *signed());
}

#[test]
fn a_flipped_byte_in_any_section_is_refused() {
    let image = Image::parse(signed()).unwrap();
    for section in image.sections() {
        let at = section.content.as_ptr() as usize - signed().as_ptr() as usize + section.content.len() / 2;
        let mut bad = signed().clone();
        bad[at] ^= 1;
        assert!(!sbverify(&bad, 0), "sbverify: {}", section.name);
        assert!(!ours(&bad), "ours: {}", section.name);
        assert!(Inside::of(&bad).is_err());
    }
}

#[test]
fn a_signature_has_one_form() {
    // Any image will do, and a small one is hashed quickly.
    let small = authenticode::attach(include_bytes!("../../../tests/vectors/boot/image.efi"), boot_key(0)).unwrap();
    assert!(ours(&small));
    let image = Image::parse(&small).unwrap();
    let pkcs7 = image.signature().unwrap();
    for at in 0..pkcs7.len() {
        let mut bad = pkcs7.to_vec();
        bad[at] ^= 1;
        let file = image.with_signature(&bad);
        assert!(!ours(&file), "byte {at}");
    }
    for cut in (0..pkcs7.len()).step_by(13) {
        assert!(!ours(&image.with_signature(&pkcs7[..cut])), "cut at {cut}");
    }
    assert!(!ours(&image.with_signature(&[pkcs7, &[0; 3]].concat())));
}

#[test]
fn a_manifest_is_of_its_image_and_its_authority() {
    let inside = Inside::of(signed()).unwrap();
    let manifest = inside.manifest().unwrap();
    assert_eq!(inside.expect_manifest(world::manifest().as_bytes(), signed()).map_err(|e| format!("{e:#}")), Ok(()));
    let by = |seed, m: &_| world::authority(seed).statements.sign_statement("authority", m);
    assert!(inside.expect_manifest(by(2, &manifest).as_bytes(), signed()).is_err(), "another authority");
    let changed = world::manifest().replace("test-1", "test-2");
    assert!(inside.expect_manifest(changed.as_bytes(), signed()).is_err(), "changed");
    let mut lying = manifest.clone();
    lying.software.pop();
    assert!(inside.expect_manifest(by(1, &lying).as_bytes(), signed()).is_err(), "signed, but not what the image says");
    let other = authenticode::attach(signed(), boot_key(1)).unwrap();
    assert!(inside.expect_manifest(world::manifest().as_bytes(), &other).is_err(), "another file");
    assert!(Inside::of(&built().image).unwrap().manifest().is_err(), "not signed yet");
}
