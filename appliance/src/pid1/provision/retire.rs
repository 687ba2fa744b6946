//! How a machine leaves, or loses its enrolment.
//!
//! Promises: nothing happens before the appliance's own name was typed; retiring ends with a
//! certificate for each disk on the stick, and with a TPM that opens no vault any more.

use anyhow::Context;
use hoidla_cli::{Output, Screen};

use super::{Room, page};
use crate::{
    config::State,
    erase::{self, Eraser, Found},
    keep,
    pid1::{boot, power::End},
};

/// Erases the disks of a machine that leaves for good.
pub fn retire(room: &mut Room, state: &State) -> anyhow::Result<Option<End>> {
    boot::link_trays(&room.sys, &room.profile);
    boot::write_config(&boot::bare_config(&room.profile, &room.authority), state)?;
    let eraser = Eraser::new(state)?;
    let found = eraser.look_everywhere()?;
    let name = crate::identify::known(state)?.name;
    room.person.show(&to_erase(&found));
    if room.person.ask(&format!("To retire {name} for good, type its name:")) != name.as_str() {
        return Ok(None);
    }
    room.person.tell(
        "Erasing takes some two hours for each TiB. Leave the stick in. If it is broken off, start from the stick and type retire again.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(eraser.erase_all(&found, &Output::default()))?;
    keep::changed()?;
    for (file, text) in erase::certificates(state)? {
        room.hand_over(&file, &text);
    }
    room.person.tell(&format!("{name} is retired: {} disks erased, a certificate for each is on the stick.", done.len()));
    room.person.ask("Take the stick home. Press Enter to switch off.");
    Ok(Some(End::PowerOff))
}

fn to_erase(found: &[Found]) -> Screen {
    let mut s = page("this machine leaves for good");
    found.iter().for_each(|f| _ = s.item(&format!("tray {}: {}, {}, {}", f.tray, f.was, f.serial, hoidla_cli::human::bytes(f.bytes))));
    s.gap().words("All of it is overwritten and read back, and the TPM opens none of this machine's vaults any more. Home must have taken it from the site file, or know of it.");
    s
}

/// Forgets the enrolment: the next start from the boot disks asks for papers.
pub fn anew(room: &mut Room, state: &State, name: Option<&str>) -> anyhow::Result<Option<End>> {
    let mut s = page("begin the enrolment anew");
    s.words("For a machine whose board or TPM was replaced, when home has agreed. The old TPM's halves cannot be used again. What the trays hold stays on them until the new enrolment formats them: home must first know that it is held elsewhere, or take the disks out for the recovery door.");
    room.person.show(&s);
    let word = name.unwrap_or("anew");
    if room.person.ask(&format!("To forget the enrolment, type {word}:")) != word {
        return Ok(None);
    }
    for entry in std::fs::read_dir(state.folder())? {
        let path = entry?.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| path.display().to_string())?;
    }
    keep::changed()?;
    room.person.ask("Forgotten. Pull the stick and press Enter.");
    Ok(Some(End::Restart))
}
