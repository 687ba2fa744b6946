//! A newer image from a stick, tried once and kept if it comes up.
//!
//! Promises: what firmware or TPM would refuse is refused here, with its reason, before a byte is
//! written; the slot that runs stays as it is; papers that come with the image are checked as
//! those that come through the door.

use hoidla_cli::Screen;

use super::{Room, page, visit::Brought};
use crate::{
    config::State,
    identify, machine,
    pid1::{
        boot,
        offer::{self, Ground, Offer},
        power::End,
        start,
    },
    update as papers,
};

/// Has the stick's image tried at the next start.
pub fn update(room: &mut Room, brought: &Brought, state: &State) -> anyhow::Result<Option<End>> {
    let offer = judged(room, brought, state)?;
    room.person.show(&to_try(&offer));
    if room.person.ask("Type install and press Enter:") != "install" {
        return Ok(None);
    }
    let total = 2 * brought.bytes.len() as u64;
    let (sys, profile, mut before) = (room.sys.clone(), room.profile.clone(), 0);
    room.person.watch("writing the other slot", total, |told| {
        start::update(&sys, &profile, state, &brought.bytes, &offer.release, &mut |done, _| {
            told((done - before) as u64);
            before = done;
        })
    })?;
    room.person.ask("Written and read back. Pull the stick and press Enter: the new image is tried.");
    Ok(Some(End::Restart))
}

/// Whether the image may be installed, under the papers that are there and those that came with it.
/// Those are kept then: they change nothing for the image that runs.
fn judged(room: &Room, brought: &Brought, state: &State) -> anyhow::Result<Offer> {
    let config = boot::bare_config(&room.profile, &room.authority);
    boot::write_config(&config, state)?;
    let identity = identify::known(state)?;
    let tpm = machine::pinned(&config, &identity)?;
    let (papers, new) = papers::with(state, &identity, &tpm, brought.stick.papers()?.into_values().collect())?;
    let ground = Ground::of(&room.sys, &room.profile, &papers, &room.authority, &tpm)?;
    let offer = offer::judge(&brought.slot, &ground)?;
    if new {
        papers::keep(state, &papers, &tpm)?;
    }
    Ok(offer)
}

fn to_try(offer: &Offer) -> Screen {
    let mut s = page("try another image");
    s.field("image", offer.manifest.name.as_str()).field("release", &format!("{}, epoch {}", offer.release, offer.epoch)).gap();
    s.words("It goes into the slot that is not in use, on both boot disks, and is started once. If it comes up it stays; if not, the machine goes back to the image of today by itself.");
    s
}
