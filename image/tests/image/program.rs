//! The program as people type it.

use std::{fs, path::Path, process::Command};

use hoidla_crypto::Secret;
use hoidla_crypto::keyfile::{Cost, KeyFile, Role};

use crate::world::{built, passphrase};

struct Desk(tempfile::TempDir);

impl Desk {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Exit code and what was said.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_hoidla-image")).current_dir(self.0.path()).args(arguments).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }
}

fn authority_key(path: &Path, seed: u8) {
    let secret = Secret::filled(|b: &mut [u8; 32]| b.fill(seed));
    let file = KeyFile::protect_at(Cost::LEAST, Role::Authority, &"lux".parse().unwrap(), &secret, "three red ships at sea").unwrap();
    fs::write(path, file).unwrap();
}

#[test]
fn from_unsigned_image_to_stick_and_what_it_says() {
    let desk = Desk(tempfile::tempdir().unwrap());
    passphrase(desk.0.path());
    fs::write(desk.path("unsigned.efi"), &built().image).unwrap();
    authority_key(desk.path("authority.key").as_ref(), 1);
    authority_key(desk.path("other.key").as_ref(), 2);
    let with = ["--passphrase-file", "passphrase"];
    desk.done(&[&["key", "keys", "--name", "drill"], &with[..]].concat());
    desk.done(&[&["sign", "unsigned.efi", "--boot-key", "keys", "--out", "signed.efi"], &with[..]].concat());
    let (code, text) = desk.run(&[&["key", "keys", "--name", "drill"], &with[..]].concat());
    assert!(code == 2 && text.contains("nothing was overwritten"), "{text}");

    let manifest = |key| [&["manifest", "signed.efi", "--authority-key", key, "--out", "manifest.txt"], &with[..]].concat();
    let (code, text) = desk.run(&manifest("other.key"));
    assert!(code == 2 && text.contains("of this authority") && !Path::new(&desk.path("manifest.txt")).exists(), "{text}");
    desk.done(&manifest("authority.key"));
    desk.done(&["stick", "signed.efi", "--manifest", "manifest.txt", "--out", "stick.img"]);

    let shown = desk.done(&["inspect", "stick.img"]);
    assert!(
        shown.contains("development") && shown.contains("every byte of the stick") && shown.lines().all(|l| l.chars().count() <= 80),
        "{shown}"
    );
    let json: serde_json::Value = serde_json::from_str(&desk.done(&["inspect", "stick.img", "--json"])).unwrap();
    assert_eq!((json["verdict"].as_str(), json["pcrs"].as_object().unwrap().len()), (Some("whole"), 6));
    let pcrs: serde_json::Value = serde_json::from_str(&desk.done(&["pcrs", "stick.img"])).unwrap();
    assert_eq!(pcrs["4"], json["pcrs"]["4"]);
    assert_eq!(pcrs.as_object().unwrap().len(), 4);

    let (code, text) = desk.run(&["inspect", "stick.img", "--authority", "0000 0000 0000 0000 0000 0000"]);
    assert!(code == 1 && text.contains("another authority"), "{text}");
    let mut bytes = fs::read(desk.path("stick.img")).unwrap();
    bytes[30 << 20] ^= 1;
    fs::write(desk.path("changed.img"), bytes).unwrap();
    let (code, text) = desk.run(&["inspect", "changed.img"]);
    assert!(code == 1 && text.starts_with("NO"), "{text}");
    let (code, text) = desk.run(&["stick", "unsigned.efi", "--manifest", "manifest.txt", "--out", "x.img"]);
    assert!(code == 2 && !Path::new(&desk.path("x.img")).exists(), "{text}");
    assert_eq!(desk.run(&["inspect", "no-such-file"]).0, 2);
}

#[test]
fn a_key_file_opens_with_its_passphrase_only() {
    let desk = Desk(tempfile::tempdir().unwrap());
    passphrase(desk.0.path());
    desk.done(&["key", "keys", "--name", "drill", "--passphrase-file", "passphrase"]);
    desk.done(&["key", "more", "--name", "drill", "--passphrase-file", "passphrase"]);
    let pem = fs::read_to_string(desk.path("keys/boot.key")).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    fs::write(desk.path("unsigned.efi"), &built().image).unwrap();
    let sign =
        |from: &str, with: &str| desk.run(&["sign", "unsigned.efi", "--boot-key", from, "--out", "x.efi", "--passphrase-file", with]);
    fs::write(desk.path("wrong"), "three red ships at sea!\n").unwrap();
    let (code, text) = sign("keys", "wrong");
    assert!(code == 2 && text.contains("passphrase doesn't open"), "{text}");
    fs::copy(desk.path("more/boot.crt"), desk.path("keys/boot.crt")).unwrap();
    let (code, text) = sign("keys", "passphrase");
    assert!(code == 2 && text.contains("another key"), "{text}");
    fs::write(desk.path("keys/boot.key"), &pem[..pem.len() / 2]).unwrap();
    assert_eq!(sign("keys", "passphrase").0, 2);
    assert!(!Path::new(&desk.path("x.efi")).exists());
}
