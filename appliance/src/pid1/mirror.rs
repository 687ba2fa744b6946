//! The image that runs, on both boot disks.
//!
//! Promises: once the machine is ready, the same slot of the other boot disk is made to hold the
//! same bytes, whatever was there: an image that was damaged, or of before, on a disk that was
//! away. Only what the authority signed for is copied, so that a disk that reads badly spoils no
//! other. It compares piece by piece and needs no memory to speak of unless it must write.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

use anyhow::Context;
use hoidla_crypto::sign::{self, VerifyingKey};
use hoidla_format::statements::ImageManifest;
use hoidla_medium::slot;
use hoidla_verify::manifest;

use super::slots::{self, Slot};

/// How long it waits after the start: copying in comes first.
pub const AFTER: Duration = Duration::from_secs(10);
/// How much is compared at once.
const PIECE: usize = 256 << 10;
/// Who signs manifests.
const AUTHORITY: &str = "authority";

/// Makes the same slot of other disks hold what `from` holds; tells what it did and what failed.
pub fn keep(from: &Slot, all: &[Slot], authority: &VerifyingKey) {
    for to in all.iter().filter(|to| to.part == from.part && to.disk != from.disk) {
        match same(from, to).and_then(|same| if same { Ok(false) } else { copy(from, to, authority).map(|()| true) }) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("{to} held something else: it was written anew from {from}"),
            Err(e) => tracing::error!("{to} doesn't hold what runs: {e:#}"),
        }
    }
}

/// Whether two slots hold the same.
fn same(a: &Slot, b: &Slot) -> anyhow::Result<bool> {
    let open = |slot: &Slot| File::open(&slot.device).with_context(|| format!("{slot} cannot be read"));
    let (files, mut pieces) = ([open(a)?, open(b)?], [vec![0; PIECE], vec![0; PIECE]]);
    for at in (0..slot::LENGTH as u64).step_by(PIECE) {
        for ((slot, file), piece) in [a, b].into_iter().zip(&files).zip(&mut pieces) {
            file.read_exact_at(piece, slot.part.range().start + at).with_context(|| format!("{slot} cannot be read: replace the disk"))?;
        }
        if pieces[0] != pieces[1] {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(from: &Slot, to: &Slot, authority: &VerifyingKey) -> anyhow::Result<()> {
    let bytes = slots::read(from)?;
    let whole = slot::read(&bytes).with_context(|| format!("{from} is damaged: bring the update once more"))?;
    let signed = sign::open::<ImageManifest>(&whole.manifest, Some(AUTHORITY), authority).with_context(|| format!("{from}"))?;
    manifest::check(&signed.statement, &whole.image).with_context(|| format!("{from}"))?;
    slots::install(to, &bytes, &mut |_| ())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hoidla_medium::disk::{BootDisk, LEAST, lay_out};
    use hoidla_papers::{Office, signed_image};
    use hoidla_verify::pe::Image;

    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../../tests/vectors/boot/image.efi");

    /// A slot's bytes, signed for by this office.
    fn signed(office: &Office) -> Vec<u8> {
        let (signed, manifest) = signed_image(IMAGE, &[1]);
        slot::write(&hoidla_medium::Slot { manifest: office.sign(&manifest).into_bytes(), certificate: vec![1], image: signed }).unwrap()
    }

    fn disk(folder: &Path, number: usize) -> Vec<Slot> {
        let path = folder.join(number.to_string());
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(LEAST).unwrap();
        lay_out(&file, BootDisk::named([number as u8; 16])).unwrap();
        slots::on(number, &path).unwrap()
    }

    #[test]
    fn the_other_disk_s_slot_becomes_the_same_and_no_other_slot_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (office, all) = (Office::new(1), [disk(folder.path(), 1), disk(folder.path(), 2)].concat());
        let (good, authority) = (signed(&office), office.authority.verifying_key());
        let holds = |slot: &Slot| slots::read(slot).unwrap();
        slots::install(&all[2], &good, &mut |_| ()).unwrap();
        let mut bad = good.clone();
        bad[slot::LENGTH - 1] ^= 1;
        for before in [vec![0; slot::LENGTH], bad] {
            slots::install(&all[0], &before, &mut |_| ()).unwrap();
            assert!(!same(&all[2], &all[0]).unwrap());
            keep(&all[2], &all, &authority);
            assert!(holds(&all[0]) == good && holds(&all[2]) == good);
            assert!(same(&all[2], &all[0]).unwrap());
        }
        for untouched in [&all[1], &all[3]] {
            assert!(holds(untouched) == vec![0; slot::LENGTH], "{untouched}");
        }
    }

    #[test]
    fn what_the_authority_did_not_sign_for_spoils_no_other_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (office, all) = (Office::new(1), [disk(folder.path(), 1), disk(folder.path(), 2)].concat());
        let authority = office.authority.verifying_key();
        let mut damaged = signed(&office);
        damaged[8 << 20] ^= 1;
        let mut other = slot::read(&signed(&office)).unwrap();
        other.image = Image::parse(&other.image).unwrap().with_signature(b"another signature");
        for source in [damaged, vec![0; slot::LENGTH], signed(&Office::new(2)), slot::write(&other).unwrap()] {
            slots::install(&all[0], &source, &mut |_| ()).unwrap();
            keep(&all[0], &all, &authority);
            assert!(slots::read(&all[2]).unwrap() == vec![0; slot::LENGTH]);
        }
    }
}
