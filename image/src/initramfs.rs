//! The initramfs: one program, its libraries, the kernel's modules, and what is trusted.
//!
//! ```text
//! /init                        hoidlad; the only program
//! /lib64/, /lib/x86_64-...     its loader and libraries, if it has any
//! /lib/modules/NAME.ko         modules
//! /lib/modules/order           names the files: a line's need nothing but those of lines before
//! /lib/modules/stick           the same for those that follow if a stick is to be read
//! /etc/hoidla/authority.pem    the authority's key: base64 of SEC1, compressed, one line
//! /etc/hoidla/profile.toml     the hardware profile
//! /etc/hoidla/release.toml     the release's name, and what it is made of
//! /dev /proc /sys /run /tmp    empty; /dev/console for the kernel's first words
//! ```
//!
//! Promises: the same contents give the same bytes: sorted, owned by root, without times, packed
//! on one thread. [`read`] refuses what holds more than a whole appliance could.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use anyhow::{Context, Result, ensure};

const FOLDERS: &[&str] = &["dev", "etc", "etc/hoidla", "lib", "lib/modules", "lib/x86_64-linux-gnu", "lib64", "proc", "run", "sys", "tmp"];
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
/// `/dev/console`: a character device, 5:1.
const CONSOLE: (&str, u32, u32, u32) = ("dev/console", 0o020_600, 5, 1);
/// The most bytes of an unpacked initramfs.
const MOST: u64 = 512 << 20;
/// zstd's level: the smallest that the kernel unpacks within its usual window.
const LEVEL: i32 = 19;

/// The folder of modules.
pub const MODULES: &str = "lib/modules";
/// Modules that every start loads.
pub const ORDER: &str = "lib/modules/order";
/// Those that are loaded after them if a stick is to be read.
pub const STICK: &str = "lib/modules/stick";
/// The folder of libraries.
pub const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// The authority's key.
pub const AUTHORITY: &str = "etc/hoidla/authority.pem";
/// The hardware profile.
pub const PROFILE: &str = "etc/hoidla/profile.toml";
/// The release.
pub const RELEASE: &str = "etc/hoidla/release.toml";

/// Files by path, without the first slash.
pub type Contents = BTreeMap<String, Vec<u8>>;

fn mode(path: &str) -> u32 {
    if path == "init" || path.starts_with("lib64/") || path.starts_with(LIBRARIES) { PROGRAM } else { FILE }
}

/// The packed initramfs.
///
/// # Errors
/// If a file lies in a folder that an image hasn't got.
pub fn pack(contents: &Contents) -> Result<Vec<u8>> {
    let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
    packer.include_checksum(true)?;
    packer.write_all(&archive(contents)?)?;
    Ok(packer.finish()?)
}

fn archive(contents: &Contents) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut number = 0;
    let mut entry = |name: &str, mode: u32, bytes: &[u8], device: (u32, u32)| -> Result<()> {
        number += 1;
        let head = cpio::newc::Builder::new(name).ino(number).mode(mode).rdev_major(device.0).rdev_minor(device.1);
        let size = u32::try_from(bytes.len()).context("a file too long for an initramfs")?;
        let mut file = head.write(&mut out, size);
        file.write_all(bytes)?;
        file.finish()?;
        Ok(())
    };
    for folder in FOLDERS {
        entry(folder, FOLDER, &[], (0, 0))?;
    }
    entry(CONSOLE.0, CONSOLE.1, &[], (CONSOLE.2, CONSOLE.3))?;
    for (path, bytes) in contents {
        let folder = path.rsplit_once('/').map_or("", |(f, _)| f);
        ensure!(folder.is_empty() || FOLDERS.contains(&folder), "{path} lies in a folder that an image hasn't got");
        entry(path, mode(path), bytes, (0, 0))?;
    }
    cpio::newc::trailer(&mut out)?;
    Ok(out)
}

/// The files of an initramfs.
///
/// # Errors
/// If it isn't one that [`pack`] wrote: another order, owner, mode or kind of file, or something after it.
pub fn read(packed: &[u8]) -> Result<Contents> {
    let mut bytes = Vec::new();
    let mut unpacker = zstd::Decoder::with_buffer(packed)?.single_frame();
    (&mut unpacker).take(MOST + 1).read_to_end(&mut bytes).context("a damaged initramfs")?;
    ensure!(bytes.len() as u64 <= MOST, "an initramfs of more than {MOST} bytes");
    ensure!(unpacker.finish().is_empty(), "there is something after the initramfs");
    let mut contents = Contents::new();
    let mut rest = bytes.as_slice();
    loop {
        let entry = cpio::newc::Reader::new(rest).context("a damaged initramfs")?;
        let head = entry.entry();
        if head.is_trailer() {
            break;
        }
        let (name, plain) = (head.name().to_owned(), head.mode() & 0o170_000 == 0o100_000);
        let mut content = Vec::new();
        rest = entry.to_writer(&mut content).context("a damaged initramfs")?;
        if plain {
            ensure!(contents.insert(name.clone(), content).is_none(), "{name} is in the initramfs twice");
        }
    }
    ensure!(archive(&contents)? == bytes, "the initramfs is not as hoidla-image writes it");
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        [("init", &b"program"[..]), ("lib/modules/order", b"a.ko\n"), ("lib/modules/a.ko", b"abc"), (AUTHORITY, b"key\n")]
            .map(|(n, b)| (n.to_owned(), b.to_vec()))
            .into()
    }

    #[test]
    fn the_same_contents_are_the_same_bytes_and_read_back() {
        let packed = pack(&contents()).unwrap();
        assert_eq!(packed, pack(&contents()).unwrap());
        assert_eq!(read(&packed).unwrap(), contents());
    }

    #[test]
    fn another_archive_is_refused() {
        let packed = pack(&contents()).unwrap();
        for at in (0..packed.len()).step_by(7) {
            let mut bad = packed.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
            assert!(read(&packed[..at]).is_err(), "cut at {at}");
        }
        let twice = [packed.clone(), packed].concat();
        assert!(read(&twice).is_err(), "a second archive after the first, which the kernel would unpack too");
        let mut strange = contents();
        strange.insert("bin/sh".into(), b"#!".to_vec());
        assert!(pack(&strange).is_err());
    }
}
