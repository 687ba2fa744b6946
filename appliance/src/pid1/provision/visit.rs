//! A start from the stick: what a field engineer may do to a machine.
//!
//! Promises: what isn't the profile's machine is told, each difference with what to do; on a new
//! machine the image is installed; on one that is set up nothing happens but what was asked for
//! by its word. It never opens the door, and never uses a key of the enrolment but to retire it.

use std::time::Duration;

use anyhow::{Context, ensure};
use hoidla_cli::Screen;
use hoidla_crypto::sign;
use hoidla_format::{
    statement,
    statements::{Endorsement, ImageManifest},
};
use hoidla_medium::{Slot, slot};

use super::{
    Room,
    boot_disks::{Found, Holds, boot_disks},
    enrolment::enrolment_file,
    install, page, retire,
    stick::Stick,
    update, words,
};
use crate::{
    config::State,
    erase,
    hardware::{self, Kernel},
    identify,
    papers::Papers,
    pid1::{boot, power::End, slots},
};

/// The image that came with the stick.
pub struct Brought {
    /// The stick.
    pub stick: Stick,
    /// Its slot's bytes.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub slot: Slot,
    /// What the authority says of it.
    pub manifest: ImageManifest,
}

/// What a person may ask for on a machine that is set up, and what that is.
const WORDS: [(&str, &str); 6] = [
    ("update", "try this stick's image, and keep it if it comes up"),
    ("repair", "put image and state onto a boot disk that was replaced"),
    ("words", "take what home says to this machine: a disk, time, a count"),
    ("anew", "forget the enrolment: the board or the TPM was replaced"),
    ("retire", "the machine leaves for good: its disks are erased"),
    ("start", "change nothing and start the machine again"),
];

/// Walks a person through. `state`: what the boot disks hold, if anything.
pub fn visit(room: &mut Room, state: Option<&State>) -> anyhow::Result<End> {
    let brought = brought(room)?;
    fits(room);
    let key = loop {
        match for_home(room, &brought.stick, state) {
            Ok(key) => break key,
            Err(e) => room.person.trouble(&e),
        }
    };
    loop {
        let done = match state {
            None => blank(room, &brought, &key),
            Some(state) => set_up(room, &brought, state, &key),
        };
        match done {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => {}
            Err(e) => room.person.trouble(&e),
        }
    }
}

fn brought(room: &Room) -> anyhow::Result<Brought> {
    let stick = Stick::alone(&room.sys)?
        .context("this machine was started from something that is neither its boot disks nor a stick of Hoidla's")?;
    let bytes = stick.slot()?;
    let slot = slot::read(&bytes).context("the stick that this machine was started from; write it again at home")?;
    let manifest = sign::open::<ImageManifest>(&slot.manifest, Some("authority"), &room.authority)
        .context("the manifest on the stick is not this image's authority's; write the stick again at home")?
        .statement;
    hoidla_verify::manifest::check(&manifest, &slot.image)?;
    Ok(Brought { stick, bytes, slot, manifest })
}

/// Shows how the machine differs from its profile, until it doesn't or a person goes on.
fn fits(room: &mut Room) {
    loop {
        let differences = hardware::check(&Kernel::here(), &room.profile);
        if differences.is_empty() {
            return;
        }
        room.person.show(&differing(&room.profile.title, &differences));
        if room.person.ask("Press Enter to look again, or type go on:") == "go on" {
            return;
        }
    }
}

/// The most differences that a page has room for.
const SHOWN: usize = 6;

fn differing(title: &str, differences: &[String]) -> Screen {
    let mut s = page("this machine is not what its profile says");
    s.field("profile", title).gap();
    differences.iter().take(SHOWN).for_each(|d| _ = s.item(d));
    if differences.len() > SHOWN {
        s.item(&format!("and {} more", differences.len() - SHOWN));
    }
    s
}

/// Puts on the stick what home is to have of this machine; the TPM's digits.
fn for_home(room: &Room, stick: &Stick, state: Option<&State>) -> anyhow::Result<String> {
    if let Some(papers) = state.and_then(|state| Papers::kept(&state.papers(), &room.authority, &identify::known(state).ok()?).ok()) {
        // In case the power failed before the enrolment itself put it there.
        put_once(stick, &enrolment_file(&papers), papers.enrolment.note.as_bytes())?;
    }
    for (name, text) in state.map(erase::certificates).transpose()?.unwrap_or_default() {
        put_once(stick, &name, &text)?; // the same, for disks that were erased
    }
    endorse(stick)
}

/// The TPM's endorsement key, put on the stick for home to record; its digits.
fn endorse(stick: &Stick) -> anyhow::Result<String> {
    let endorsement: Endorsement = identify::endorse(&boot::TPM.parse().map_err(anyhow::Error::msg)?)?;
    put_once(stick, "endorsement.txt", statement::write(&endorsement).as_bytes())?;
    identify::ek_digits(&endorsement.ek)
}

/// Puts a paper on the stick, unless it is there.
fn put_once(stick: &Stick, name: &str, text: &[u8]) -> anyhow::Result<()> {
    if stick.papers()?.get(name).is_some_and(|there| there == text) { Ok(()) } else { stick.put(name, text) }
}

fn blank(room: &mut Room, brought: &Brought, key: &str) -> anyhow::Result<Option<End>> {
    let disks = boot_disks(&room.sys, &room.profile)?;
    room.person.show(&new_machine(room.profile.title.as_str(), brought, key, &disks, room.profile.boot_disks.len()));
    ensure!(!disks.is_empty(), "no boot disk is in its place: put two in");
    room.person.ask("Press Enter to go on, or the power button to leave it at this:");
    let images = [&brought.bytes[..]; 2];
    install::install(room, &disks, brought.manifest.name.as_str(), images)?;
    room.person.ask("Installed. Pull the stick, press Enter: it starts from its own disks now.");
    Ok(Some(End::Restart))
}

fn new_machine(title: &str, brought: &Brought, key: &str, disks: &[Found], all: usize) -> Screen {
    let mut s = page("a machine that is not set up");
    s.field("machine", title).field("image", &image(&brought.manifest)).field("TPM", key);
    disks.iter().for_each(|d| _ = s.field(&d.name, &d.line()[d.name.len() + 2..]));
    s.gap();
    if disks.len() < all {
        s.words(&format!(
            "{} of {all} boot disks are there. With one alone the machine stands still when it dies: put the other in first.",
            disks.len()
        ));
    }
    s.words("endorsement.txt is on the stick.");
    s.words("At home, before it is shipped: write the TPM's digits down with the machine's serial number, switch off, and give the stick to the authority. At the rack: go on.");
    s
}

fn image(manifest: &ImageManifest) -> String {
    format!("{}{}", manifest.name, if manifest.development { " (DEVELOPMENT: for drills and tests only)" } else { "" })
}

fn set_up(room: &mut Room, brought: &Brought, state: &State, key: &str) -> anyhow::Result<Option<End>> {
    let disks = boot_disks(&room.sys, &room.profile)?;
    let name = identify::known(state).ok().map(|identity| identity.name.to_string());
    room.person.show(&menu(name.as_deref(), brought, key, &disks));
    match room.person.ask("Type one of these words:").as_str() {
        "update" => update::update(room, brought, state),
        "repair" => repair(room, &disks),
        "words" => words::take(room, brought, state),
        "anew" => retire::anew(room, state, name.as_deref()),
        "retire" => retire::retire(room, state),
        "start" => Ok(Some(End::Restart)),
        _ => Ok(None),
    }
}

fn menu(name: Option<&str>, brought: &Brought, key: &str, disks: &[Found]) -> Screen {
    let mut s = page(name.unwrap_or("a machine that is set up and not enrolled"));
    s.field("the stick", &image(&brought.manifest)).field("TPM", key);
    disks.iter().for_each(|d| _ = s.field(&d.name, &d.line()[d.name.len() + 2..]));
    s.gap();
    WORDS.iter().for_each(|(word, what)| _ = s.field(word, what));
    s
}

/// Makes a boot disk that was replaced what the other one is.
fn repair(room: &mut Room, disks: &[Found]) -> anyhow::Result<Option<End>> {
    let (good, new): (Vec<&Found>, Vec<&Found>) = disks.iter().partition(|d| matches!(d.holds, Holds::Slots(_)));
    ensure!(
        !new.is_empty(),
        "every boot disk that is there is Hoidla's: nothing is to be repaired; type start to go on, or put the new disk in first"
    );
    let good = good.first().context("no boot disk of this machine's is left: put one back in, or call home, and then type anew")?;
    let from = slots::on(1, &good.path)?;
    let images = [slots::read(&from[0])?, slots::read(&from[1])?];
    let new: Vec<Found> = new.into_iter().cloned().collect();
    install::install(room, &new, "what the other disk has", [&images[0], &images[1]])?;
    room.person.tell("Repaired. The state goes onto it when the machine starts, in a moment.");
    std::thread::sleep(Duration::from_secs(2));
    Ok(Some(End::Restart))
}

#[cfg(test)]
mod tests {
    use hoidla_format::{Bytes, Hash32};

    use super::{super::boot_disks::tests::found, *};

    fn brought() -> Brought {
        let manifest = ImageManifest {
            name: "autumn-2026".parse().unwrap(),
            development: true,
            profile: "qemu-q35".parse().unwrap(),
            unsigned: Hash32([1; 32]),
            signed: Hash32([2; 32]),
            certificate: Bytes(vec![]),
            firmware: vec![],
            pcrs: vec![],
            software: vec![],
        };
        let slot = Slot { image: vec![], manifest: vec![], certificate: vec![] };
        Brought { stick: Stick::tests_at("/dev/sdc".into()), bytes: vec![], slot, manifest }
    }

    #[test]
    fn every_page_fits_the_screen() {
        let other = || Holds::Other("a disk of another Hoidla store, 0123456789abcdef0123456789abcdef".into());
        let disks = [found("boot disk 1", "S4EVNX0R123456", other()), found("boot disk 2", &"9".repeat(64), other())];
        let key = "0123 4567 89ab cdef 0123 4567";
        for disks in [&disks[..], &disks[..1]] {
            super::super::fits(&new_machine("QEMU q35, OVMF, swtpm", &brought(), key, disks, 2));
            super::super::fits(&menu(Some("lux-1"), &brought(), key, disks));
            super::super::fits(&menu(None, &brought(), key, disks));
        }
        let sentence = "the watchdog \"iTCO_wdt\" is not there (found: []): is its module in the profile?".to_owned();
        super::super::fits(&differing("QEMU q35, OVMF, swtpm", &vec![sentence; 30]));
    }
}
