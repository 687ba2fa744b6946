//! From an installed machine to an enrolled one: papers come on a stick, and go on it.
//!
//! Promises: each round begins with what is found, so that power may fail between any two; the
//! identity stays the same until the authority's site file or the TPM is another; the trays'
//! disks are formatted only after the parcel was opened to this TPM's papers, and a disk with
//! something on it only after its own word was typed.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use hoidla_cli::Screen;
use hoidla_crypto::sign::{self, Signed};
use hoidla_format::{
    Moment, Name, statement,
    statements::{ApplianceIdentity, Enrolment, Site, Vault},
};
use hoidla_medium::papers::Papers as OnStick;
use hoidla_verify::Parcel;

use super::{
    Room,
    boot_disks::{Found, NOT_AGREED, agreed, trays},
    page,
    stick::Stick,
};
use crate::{
    config::State,
    enrol::{self, Enrol, Enrolled},
    identify, keep,
    papers::{self, Papers},
    pid1::{boot, power::End},
};

/// Who signs papers.
const AUTHORITY: &str = "authority";
/// Where the papers of a stick lie while they are looked at.
const BROUGHT: &str = "stick";
/// How often it is looked whether a stick was plugged in.
const LOOK: Duration = Duration::from_secs(1);
/// By how much a clock may be behind what home's says, in seconds.
const DAY: u64 = 86_400;

/// Who this machine shall be, and under which site file.
struct Called {
    site: Signed<Site>,
    name: Name,
}

/// Walks a person through until the machine is enrolled.
pub fn enrol(room: &mut Room, state: &State) -> anyhow::Result<End> {
    loop {
        match round(room, state) {
            Ok(None) => {}
            Ok(Some(enrolled)) => return Ok(finish(room, &enrolled)),
            Err(e) => room.person.trouble(&e),
        }
    }
}

/// What is left once the papers are in force: home's copy, and a last page.
fn finish(room: &mut Room, enrolled: &Enrolled) -> End {
    room.hand_over(&enrolment_file(&enrolled.papers), enrolled.papers.enrolment.note.as_bytes());
    room.person.show(&done(enrolled));
    room.person.ask("Pull the stick and press Enter: the machine starts again, and copies in.");
    End::Restart
}

/// Under which name an enrolment goes home.
pub fn enrolment_file(papers: &Papers) -> String {
    format!("enrolment-{}.txt", papers.identity.name)
}

/// One round: from the stick that is there as far as it leads.
fn round(room: &mut Room, state: &State) -> anyhow::Result<Option<Enrolled>> {
    boot::write_config(&boot::bare_config(&room.profile, &room.authority), state)?;
    let stick = wait_for_stick(room)?;
    let on_it = stick.papers()?;
    let called = called(room, state, &on_it)?;
    let entry = called.site.statement.appliances.iter().find(|a| a.name == called.name);
    ensure!(
        entry.is_some_and(|a| a.network.is_some()),
        "the site file says no network for {}: home writes [appliance.network] with address and gateway, and signs it",
        called.name
    );
    let identity = identify::identify(state, called.site.note.as_bytes(), &called.name)?;
    let file = format!("identity-{}.txt", called.name);
    let text = statement::write(&identity);
    if on_it.get(&file).map(Vec::as_slice) != Some(text.as_bytes()) {
        stick.put(&file, text.as_bytes())?;
    }
    if !on_it.values().any(|bytes| is_for(bytes, &identity)) {
        room.person.show(&home_s_turn(&identity, &file, in_its_place(&on_it)));
        room.person.ask("Press Enter when the stick is back with home's papers:");
        return Ok(None);
    }
    agree(room)?;
    room.person.tell("The TPM opens the papers, then the disks are formatted. This takes a minute.");
    bring(state, &on_it).map(Some)
}

fn wait_for_stick(room: &mut Room) -> anyhow::Result<Stick> {
    room.person.show(&welcome(&room.profile.title));
    loop {
        if let Some(stick) = Stick::alone(&room.sys)? {
            return Ok(stick);
        }
        room.person.typed_within(LOOK);
    }
}

fn welcome(title: &str) -> Screen {
    let mut s = page("this machine is not enrolled yet");
    s.field("machine", title).gap();
    s.words("Plug in the stick with the papers from home. The signed site file must be on it.");
    s.gap().words("Power may be switched off at any time: the machine goes on from here. Nothing on the stick, and nothing that is shown here, opens anything.");
    s
}

/// The newest site file on the stick, and which of its appliances this is.
fn called(room: &mut Room, state: &State, on_it: &OnStick) -> anyhow::Result<Called> {
    let site = newest_site(room, on_it)?;
    clock_fits(room, on_it)?;
    let names: Vec<Name> = site.statement.appliances.iter().map(|a| a.name.clone()).collect();
    let known = identify::known(state).ok().map(|identity| identity.name).filter(|name| names.contains(name));
    let name = match (known, &names[..]) {
        (Some(known), _) => known,
        (None, [only]) => only.clone(),
        (None, _) => choose(room, &names)?,
    };
    Ok(Called { site, name })
}

fn newest_site(room: &Room, on_it: &OnStick) -> anyhow::Result<Signed<Site>> {
    let signed = on_it.values().filter(|bytes| papers::is_kind::<Site>(bytes)).map(|bytes| papers::open_site(bytes, &room.authority));
    let (good, bad): (Vec<_>, Vec<_>) = signed.partition(Result::is_ok);
    let newest = good.into_iter().flatten().max_by_key(|site| site.statement.serial);
    match (newest, bad.into_iter().find_map(Result::err)) {
        (Some(site), _) => Ok(site),
        (None, Some(why)) => {
            Err(why).context("the site file on the stick is not one of this image's authority: is it another site's stick?")
        }
        (None, None) => {
            anyhow::bail!("no site file is on the stick: home must put the signed site file there (hoidla-provision stick write --papers)")
        }
    }
}

/// Refuses a clock that is before the day on which the newest vault was dealt.
fn clock_fits(room: &Room, on_it: &OnStick) -> anyhow::Result<()> {
    let dealt = |bytes: &Vec<u8>| sign::open::<Vault>(bytes, Some(AUTHORITY), &room.authority).ok().map(|vault| vault.statement.dealt);
    let (now, newest) = (Moment::now(), on_it.values().filter_map(dealt).max());
    ensure!(
        newest.is_none_or(|dealt| now.seconds() + DAY > dealt.seconds()),
        "this machine's clock says {now}, which is before the vaults were dealt: set it in the firmware's setup, in UTC, and start again"
    );
    Ok(())
}

fn choose(room: &mut Room, names: &[Name]) -> anyhow::Result<Name> {
    let mut s = page("which of them is this machine?");
    s.words("The site file names these appliances. The answer stands on the paper that came with the machine.");
    names.iter().for_each(|name| _ = s.item(name.as_str()));
    room.person.show(&s);
    loop {
        let typed = room.person.ask("Its name:");
        if let Some(name) = names.iter().find(|n| n.as_str() == typed) {
            return Ok(name.clone());
        }
        room.person.tell("That is none of them.");
    }
}

/// Whether bytes are a parcel for this identity.
fn is_for(bytes: &[u8], identity: &ApplianceIdentity) -> bool {
    let hash = statement::hash(&statement::write(identity));
    Parcel::is_one(bytes) && Parcel::from_bytes(bytes).is_ok_and(|parcel| parcel.identity == hash)
}

/// What is on the stick in the place of a parcel for this machine, and what home must do.
fn in_its_place(on_it: &OnStick) -> Option<&'static str> {
    let any = |is: fn(&[u8]) -> bool| on_it.values().any(|bytes| is(bytes));
    if any(Parcel::is_one) {
        Some("The parcel that is on the stick now is for other digits than these: home must deal and enrol for these.")
    } else if any(papers::is_kind::<Enrolment>) {
        Some(
            "What home put on the stick is not sealed to this machine's TPM: home must record its key first (hoidla-provision record-ek, with endorsement.txt), then enrol again.",
        )
    } else {
        None
    }
}

fn home_s_turn(identity: &ApplianceIdentity, file: &str, in_its_place: Option<&str>) -> Screen {
    let mut s = page("now it is home's turn");
    s.field("appliance", identity.name.as_str()).field("site", identity.site.as_str());
    s.field("on the stick", file).field("its digits", &identify::digits(identity)).gap();
    s.words("1. Pull the stick. Take it home, or send the file: it holds nothing secret.");
    s.words("2. Read the digits aloud to the authority over the telephone.");
    s.words("3. Home puts a parcel on the stick, sealed to this machine's TPM. Plug it in again.").gap();
    s.words("The machine may stay on or be switched off meanwhile.");
    if let Some(instead) = in_its_place {
        s.gap().words(instead);
    }
    s
}

/// Has a person agree to what will happen to the disks in the trays.
fn agree(room: &mut Room) -> anyhow::Result<()> {
    let found = trays(&room.sys, &room.profile)?;
    let missing: Vec<String> =
        room.profile.trays.iter().map(|t| format!("tray {}", t.number)).filter(|name| found.iter().all(|f| f.name != *name)).collect();
    ensure!(missing.is_empty(), "{} is empty: put a disk in, then press Enter", missing.join(" and "));
    room.person.show(&to_format(&found, Moment::now()));
    agreed(&mut room.person, &found)?;
    let word = room.person.ask("Type format to format the trays' disks and enrol:");
    ensure!(word == "format", "{NOT_AGREED}");
    Ok(())
}

fn to_format(found: &[Found], now: Moment) -> Screen {
    let mut s = page("the disks that data will lie on");
    found.iter().for_each(|disk| _ = s.item(&disk.line()));
    s.gap().words("They are formatted. What is on them is lost for good.");
    s.words(&format!("The clock says {now}. If that isn't now, in UTC, set it in the firmware's setup first."));
    s
}

/// Brings the papers of the stick into force.
fn bring(state: &State, on_it: &OnStick) -> anyhow::Result<Enrolled> {
    let folder = Path::new("/run").join(BROUGHT);
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for (n, bytes) in on_it.values().enumerate() {
        fs::write(folder.join(n.to_string()), bytes)?;
    }
    let enrolled = enrol::enrol(state, &Enrol { papers: vec![folder.clone()], disk_size: None, format: true })?;
    _ = fs::remove_dir_all(&folder);
    keep::changed()?;
    Ok(enrolled)
}

fn done(enrolled: &Enrolled) -> Screen {
    let (identity, site) = (&enrolled.papers.identity, &enrolled.papers.site.statement);
    let mut s = page(&format!("{} is enrolled", identity.name));
    s.field("site", &format!("{}, site file {}", site.site, site.serial));
    s.field("its TPM", enrolled.papers.enrolment.statement.proof.words());
    s.field("on the stick", &format!("{}: take it home", enrolment_file(&enrolled.papers)));
    if let Some(network) = site.appliances.iter().find(|a| a.name == identity.name).and_then(|a| a.network.as_ref()) {
        s.field("network", &network.address.to_string());
    }
    if site.development {
        s.gap().words("This is a DEVELOPMENT site: for drills and tests only.");
    }
    s
}

#[cfg(test)]
mod tests {
    use hoidla_papers::{Office, SoftAppliance};

    use super::{super::fits, *};

    #[test]
    fn what_is_no_parcel_for_this_machine_is_said() {
        let office = Office::new(1);
        let site = office.site("lux", &["lux-1"]);
        let appliance = SoftAppliance::new(&site, "lux-1", 2);
        let open = office.sign(&appliance.enrolment(&site));
        let parcel: &[u8] = include_bytes!("../../../../tests/fuzz/corpus/parcel/00");
        let page = |on_it: &[&[u8]]| {
            let on_it: OnStick = on_it.iter().enumerate().map(|(n, bytes)| (n.to_string(), bytes.to_vec())).collect();
            let page = home_s_turn(&appliance.identity, "identity-lux-1.txt", in_its_place(&on_it));
            fits(&page);
            page.text().replace('\n', " ")
        };
        assert!(!page(&[]).contains("home must"));
        assert!(page(&[open.as_bytes()]).contains("home must record its key first"));
        assert!(page(&[open.as_bytes(), parcel]).contains("is for other digits"));
    }
}
