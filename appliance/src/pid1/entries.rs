//! The firmware's boot entries for the slots, and their order.
//!
//! Promises: each slot has one entry, told by its partition; entries of others are never changed,
//! and stand behind these in the order. What is to be written once the machine is ready is opened
//! before the sandbox closes and written with one call, so that inside it nothing else of the
//! firmware's can be changed. Firmware's lists are believed to be anybody's: what cannot be read
//! is passed over, and which slot this start came from is the loader's word ([`started`]). A host
//! who forges these variables decides what is tried, never what the TPM says of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use hoidla_medium::entry::{self, Entry};

use super::slots::{Slot, letter, other};

/// The GUID of the variables that the UEFI specification defines.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The GUID of what boot loaders tell of themselves; systemd's stub does.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Kept, and seen before and after the system's start.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
const ORDER: &str = "BootOrder";
const NEXT: &str = "BootNext";
const CURRENT: &str = "BootCurrent";
/// How the titles of our entries begin.
const OURS: &str = "Hoidla ";

/// The firmware's variables, as efivarfs shows them.
#[derive(Clone, Debug)]
pub struct Variables {
    folder: PathBuf,
}

/// All boot entries, and the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    all: BTreeMap<u16, Entry>,
    /// Numbers that are taken by what cannot be read.
    strange: Vec<u16>,
    order: Vec<u16>,
}

impl Variables {
    /// Of the running machine.
    pub fn of(sys: &Path) -> Self {
        Self { folder: sys.join("firmware/efi/efivars") }
    }

    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.folder.join(format!("{name}-{vendor}"))
    }

    /// A variable's value, without its attributes.
    fn read(&self, name: &str, vendor: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name, vendor)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => {
                let mut bytes = bytes.with_context(|| format!("the firmware's variable {name} cannot be read"))?;
                ensure!(bytes.len() >= ATTRIBUTES.len(), "the firmware's variable {name} has no attributes");
                Ok(Some(bytes.split_off(ATTRIBUTES.len())))
            }
        }
    }

    fn open(&self, name: &str) -> anyhow::Result<File> {
        let file = File::options().write(true).create(true).truncate(false).open(self.path(name, GLOBAL));
        file.with_context(|| format!("the firmware's variable {name} cannot be written: look for a write protection in its setup"))
    }

    fn write(&self, name: &str, value: &[u8]) -> anyhow::Result<()> {
        put(self.open(name)?, name, value)
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.path(name, GLOBAL)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("the firmware's variable {name} cannot be removed"))
            }
            _ => Ok(()),
        }
    }
}

/// A variable is written by one call, attributes first, or not at all.
fn put(mut file: File, name: &str, value: &[u8]) -> anyhow::Result<()> {
    let bytes = [&ATTRIBUTES[..], value].concat();
    let written = file.write(&bytes).with_context(|| format!("the firmware takes no {name}: its memory for variables may be full"))?;
    ensure!(written == bytes.len(), "the firmware took a part of {name} only");
    Ok(())
}

/// The slot that this start came from; none if it came from a stick, or anything else.
///
/// # Errors
/// If the loader doesn't say where it was loaded from.
pub fn started<'a>(variables: &Variables, slots: &'a [Slot]) -> anyhow::Result<Option<&'a Slot>> {
    let said = variables.read("LoaderDevicePartUUID", LOADER)?.context("the loader doesn't say from which partition it was loaded")?;
    let units: Vec<u16> = said.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
    let text = String::from_utf16_lossy(&units).to_ascii_lowercase();
    Ok(slots.iter().find(|slot| slot.at.guid.to_string() == text))
}

/// Whether one of our entries was started that isn't the first: as an update's is, once.
///
/// # Errors
/// If the firmware's variables cannot be read.
pub fn is_once(variables: &Variables) -> anyhow::Result<bool> {
    let number = variables.read(CURRENT, GLOBAL)?.and_then(|value| value.try_into().ok()).map(u16::from_le_bytes);
    let entries = Entries::read(variables)?;
    let current = number.filter(|n| entries.all.get(n).is_some_and(|e| e.title().starts_with(OURS)));
    Ok(current.is_some() && entries.order.first() != current.as_ref())
}

fn number_of(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?.strip_suffix(GLOBAL)?.strip_suffix('-')?;
    let upper = digits.len() == 4 && digits.bytes().all(|d| d.is_ascii_digit() || (b'A'..=b'F').contains(&d));
    upper.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

fn name_of(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The entry of a slot.
pub fn of(slot: &Slot) -> Entry {
    Entry::of_slot(&format!("{OURS}{}, disk {}", letter(slot.part), slot.disk), &slot.at)
}

impl Entries {
    /// As they stand.
    ///
    /// # Errors
    /// If the firmware's variables cannot be listed.
    pub fn read(variables: &Variables) -> anyhow::Result<Self> {
        let mut entries = Self::default();
        for file in fs::read_dir(&variables.folder).context("the firmware's variables cannot be listed")? {
            let Some(number) = file?.file_name().to_str().and_then(number_of) else { continue };
            match variables.read(&name_of(number), GLOBAL)?.map(|bytes| Entry::parse(&bytes)) {
                Some(Ok(entry)) => _ = entries.all.insert(number, entry),
                Some(Err(_)) => entries.strange.push(number),
                None => {}
            }
        }
        let order = variables.read(ORDER, GLOBAL)?.unwrap_or_default();
        // An order that is none is as good as no order: the firmware then looks for itself.
        entries.order = entry::parse_order(&order).unwrap_or_default();
        Ok(entries)
    }

    /// The entry of a slot.
    pub fn number(&self, slot: &Slot) -> Option<u16> {
        self.all.iter().find(|(_, e)| e.partition().is_some_and(|p| p.guid == slot.at.guid)).map(|(n, _)| *n)
    }

    /// Whether a slot is what is tried first.
    pub fn is_first(&self, slot: &Slot) -> bool {
        self.number(slot).is_some_and(|number| self.order.first() == Some(&number))
    }

    /// The one of these slots that is tried first.
    pub fn first_of<'a>(&self, slots: &'a [Slot]) -> Option<&'a Slot> {
        self.order.iter().find_map(|number| slots.iter().find(|slot| self.number(slot) == Some(*number)))
    }

    /// Whether any of these slots is in the order at all.
    fn knows(&self, slots: &[Slot]) -> bool {
        slots.iter().any(|s| self.number(s).is_some_and(|n| self.order.contains(&n)))
    }

    /// Gives each slot its entry, and removes those of disks that are gone for good: `whole` says
    /// that all boot disks are there. Gives what to write and what to remove.
    fn mend(&mut self, slots: &[Slot], whole: bool) -> (Vec<u16>, Vec<u16>) {
        let is_one = |e: &Entry| slots.iter().any(|s| e.partition().is_some_and(|p| p.guid == s.at.guid));
        let stale = |e: &Entry| e.title().starts_with(OURS) && e.partition().is_some() && !is_one(e);
        let gone: Vec<u16> = self.all.iter().filter(|(_, e)| whole && stale(e)).map(|(n, _)| *n).collect();
        gone.iter().for_each(|n| _ = self.all.remove(n));
        self.order.retain(|n| !gone.contains(n));
        let mut new = Vec::new();
        for slot in slots {
            let free = || (0..=u16::MAX).find(|n| !self.all.contains_key(n) && !self.strange.contains(n));
            if let Some(number) = self.number(slot).or_else(free)
                && self.all.get(&number) != Some(&of(slot))
            {
                self.all.insert(number, of(slot));
                new.push(number);
            }
        }
        (new, gone)
    }

    /// The order that begins with this slot: then the same one of the other disk, then the
    /// others, then what isn't ours.
    fn order_from(&self, first: &Slot, slots: &[Slot]) -> Vec<u16> {
        let mut ours: Vec<&Slot> = slots.iter().collect();
        ours.sort_by_key(|s| (s.part != first.part, s.disk != first.disk, s.disk));
        let ours: Vec<u16> = ours.into_iter().filter_map(|s| self.number(s)).collect();
        let others = self.order.iter().filter(|n| !ours.contains(n));
        ours.iter().chain(others).copied().collect()
    }

    /// The order as it is, with the slots that it lacks behind the last of ours.
    fn order_with(&self, slots: &[Slot]) -> Vec<u16> {
        let ours: Vec<u16> = slots.iter().filter_map(|s| self.number(s)).collect();
        let behind = self.order.iter().rposition(|n| ours.contains(n)).map_or(0, |at| at + 1);
        let lacking = ours.iter().filter(|n| !self.order.contains(n));
        self.order[..behind].iter().chain(lacking).chain(&self.order[behind..]).copied().collect()
    }
}

/// Sees that each slot has its entry and stands in the order. If the firmware knew none of them,
/// or `first` asks for it, the order begins with the slot that this start came from.
///
/// # Errors
/// If the firmware takes no variables.
pub fn keep(variables: &Variables, slots: &[Slot], from: &Slot, first: bool, whole: bool) -> anyhow::Result<Entries> {
    let mut entries = Entries::read(variables)?;
    let (stood, known) = (entries.order.clone(), entries.knows(slots));
    let (new, gone) = entries.mend(slots, whole);
    for number in new {
        variables.write(&name_of(number), &entries.all[&number].to_bytes())?;
    }
    let order = if first || !known { entries.order_from(from, slots) } else { entries.order_with(slots) };
    if stood != order {
        variables.write(ORDER, &entry::write_order(&order))?;
    }
    entries.order = order;
    for number in gone {
        variables.remove(&name_of(number))?;
    }
    Ok(entries)
}

/// The same from a stick, for slots that were just written: what was first of them stays so,
/// else it is the first of them; and they come before all others.
///
/// # Errors
/// If there is no slot, or the firmware takes no variables.
pub fn register(variables: &Variables, slots: &[Slot], whole: bool) -> anyhow::Result<()> {
    let standing = Entries::read(variables)?;
    let from = standing.first_of(slots).or(slots.first()).context(
        "there is no slot to start from: switch off and on; if it comes again, call home, and never replace both boot disks at once",
    )?;
    keep(variables, slots, from, true, whole).map(drop)
}

/// The firmware starts from this slot once, the next time.
///
/// # Errors
/// If it has no entry, or the firmware takes no variables.
pub fn once(variables: &Variables, slot: &Slot) -> anyhow::Result<()> {
    let number =
        Entries::read(variables)?.number(slot).with_context(|| format!("{slot} has no boot entry: start the machine once more"))?;
    variables.write(NEXT, &number.to_le_bytes())
}

/// The order of entries, ready to be written.
#[derive(Debug)]
pub struct Order {
    file: File,
    value: Vec<u8>,
}

/// Opens the order to be written later, from within the sandbox: this start's slot first.
///
/// # Errors
/// If the firmware takes no variables.
pub fn later(variables: &Variables, entries: &Entries, from: &Slot, slots: &[Slot]) -> anyhow::Result<Order> {
    Ok(Order { file: variables.open(ORDER)?, value: entry::write_order(&entries.order_from(from, slots)) })
}

impl Order {
    /// Writes it.
    ///
    /// # Errors
    /// If the firmware refuses it.
    pub fn write(self) -> anyhow::Result<()> {
        put(self.file, ORDER, &self.value)
    }
}

/// The slot that an update goes into: the one that doesn't run, on each disk.
pub fn not_running<'a>(slots: &'a [Slot], running: &Slot) -> Vec<&'a Slot> {
    slots.iter().filter(|s| s.part == other(running.part)).collect()
}

#[cfg(test)]
mod tests {
    use hoidla_medium::{
        disk::{BootDisk, Part},
        entry::Partition,
    };

    use super::*;
    use crate::pid1::slots::BOTH;

    struct Firmware {
        sys: tempfile::TempDir,
    }

    impl Firmware {
        fn new() -> (Self, Variables) {
            let sys = tempfile::tempdir().unwrap();
            fs::create_dir_all(sys.path().join("firmware/efi/efivars")).unwrap();
            let variables = Variables::of(sys.path());
            (Self { sys }, variables)
        }

        fn set(&self, name: &str, value: &[u8]) {
            let path = self.sys.path().join("firmware/efi/efivars").join(name);
            fs::write(path, [&ATTRIBUTES[..], value].concat()).unwrap();
        }

        fn order(&self) -> Vec<u16> {
            Entries::read(&Variables::of(self.sys.path())).unwrap().order
        }
    }

    fn disk(number: usize, named: u8) -> Vec<Slot> {
        let disk = BootDisk::named([named; 16]);
        let at = |part: Part| Partition { number: part.number(), first: 2048, blocks: 71680, guid: disk.guid(part) };
        BOTH.map(|part| Slot { disk: number, part, at: at(part), device: "/dev/null".into() }).to_vec()
    }

    fn both() -> Vec<Slot> {
        [disk(1, 1), disk(2, 2)].concat()
    }

    /// One that firmware made.
    const OTHERS: &[u8] = include_bytes!("../../../tests/vectors/boot/entry-disk.bin");

    #[test]
    fn a_firmware_that_knows_nothing_learns_all_slots_from_the_one_that_started() {
        let (firmware, variables) = Firmware::new();
        firmware.set(&format!("Boot0000-{GLOBAL}"), OTHERS);
        firmware.set(&format!("Boot0002-{GLOBAL}"), b"strange");
        firmware.set(&format!("BootOrder-{GLOBAL}"), &[0, 0, 2, 0]);
        let slots = both();
        let entries = keep(&variables, &slots, &slots[3], false, true).unwrap();
        let numbers: Vec<u16> = slots.iter().map(|s| entries.number(s).unwrap()).collect();
        assert_eq!(numbers, [1, 3, 4, 5], "numbers of others stay theirs");
        assert_eq!(firmware.order(), [5, 3, 4, 1, 0, 2], "b of disk 2, b of disk 1, then a, then what isn't ours");
        assert_eq!(Entries::read(&variables).unwrap(), entries);
        assert!(entries.is_first(&slots[3]) && !entries.is_first(&slots[0]));
        // Again, nothing changes, whichever slot is started.
        let before = Entries::read(&variables).unwrap();
        assert_eq!(keep(&variables, &slots, &slots[0], false, true).unwrap(), before);
    }

    #[test]
    fn a_disk_that_is_away_keeps_its_entries_and_one_that_was_replaced_loses_them() {
        let (firmware, variables) = Firmware::new();
        let slots = both();
        keep(&variables, &slots, &slots[0], false, true).unwrap();
        assert_eq!(firmware.order(), [0, 2, 1, 3]);
        keep(&variables, &slots[2..], &slots[2], true, false).unwrap();
        assert_eq!(firmware.order(), [2, 3, 0, 1], "disk 2 first, and disk 1 may come back");
        let replaced = [disk(1, 7), disk(2, 2)].concat();
        let entries = keep(&variables, &replaced, &replaced[2], false, true).unwrap();
        assert_eq!(firmware.order(), [2, 3, 0, 1], "the numbers are free again");
        assert_eq!(entries.number(&slots[0]), None);
        assert_eq!(entries.number(&replaced[0]), Some(0));
    }

    #[test]
    fn a_disk_that_is_written_from_a_stick_changes_not_what_is_first() {
        let (firmware, variables) = Firmware::new();
        firmware.set(&format!("Boot0000-{GLOBAL}"), OTHERS);
        firmware.set(&format!("BootOrder-{GLOBAL}"), &[0, 0]);
        assert!(register(&variables, &[], false).unwrap_err().to_string().contains("no slot"));
        let slots = both();
        register(&variables, &slots, true).unwrap();
        assert_eq!(firmware.order(), [1, 3, 2, 4, 0], "a of disk 1 first, and what isn't ours behind");
        keep(&variables, &slots, &slots[3], true, true).unwrap();
        assert_eq!(firmware.order(), [4, 2, 3, 1, 0]);
        let replaced = [disk(1, 7), disk(2, 2)].concat();
        register(&variables, &replaced, true).unwrap();
        assert_eq!(firmware.order()[..2], [4, 2], "b of disk 2 still, then b of the new disk");
    }

    #[test]
    fn a_trial_is_once_and_what_came_up_is_made_first_later() {
        let (firmware, variables) = Firmware::new();
        let slots = both();
        assert!(once(&variables, &slots[1]).unwrap_err().to_string().contains("no boot entry"));
        let entries = keep(&variables, &slots, &slots[0], false, true).unwrap();
        once(&variables, &slots[1]).unwrap();
        let next = fs::read(firmware.sys.path().join(format!("firmware/efi/efivars/BootNext-{GLOBAL}"))).unwrap();
        assert_eq!(next, [7, 0, 0, 0, 1, 0]);
        let current = |number: u8| {
            firmware.set(&format!("BootCurrent-{GLOBAL}"), &[number, 0]);
            is_once(&variables).unwrap()
        };
        assert!(current(1) && !current(0) && !current(9));
        // The trial's own start changes nothing yet.
        keep(&variables, &slots, &slots[1], false, true).unwrap();
        assert_eq!(firmware.order(), [0, 2, 1, 3]);
        let order = later(&variables, &entries, &slots[1], &slots).unwrap();
        assert_eq!(firmware.order(), [0, 2, 1, 3]);
        order.write().unwrap();
        assert_eq!(firmware.order(), [1, 3, 0, 2]);
        assert_eq!(not_running(&slots, &slots[1]), [&slots[0], &slots[2]]);
    }

    #[test]
    fn the_loader_says_from_which_partition_it_came() {
        let (firmware, variables) = Firmware::new();
        let slots = both();
        assert!(started(&variables, &slots).unwrap_err().to_string().contains("loader"));
        let say = |text: &str| {
            let units: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            firmware.set(&format!("LoaderDevicePartUUID-{LOADER}"), &units);
            started(&variables, &slots).unwrap().cloned()
        };
        for slot in &slots {
            assert_eq!(say(&slot.at.guid.to_string().to_uppercase()).as_ref(), Some(slot));
        }
        assert_eq!(say("00000000-0000-0000-0000-000000000000"), None);
        assert_eq!(say(""), None);
        firmware.set(&format!("LoaderDevicePartUUID-{LOADER}"), &[0]);
        assert_eq!(started(&variables, &slots).unwrap(), None);
    }

    #[test]
    fn an_order_that_is_none_is_made_anew() {
        let (firmware, variables) = Firmware::new();
        let slots = both();
        keep(&variables, &slots, &slots[0], false, true).unwrap();
        firmware.set(&format!("BootOrder-{GLOBAL}"), &[1]);
        keep(&variables, &slots, &slots[1], false, true).unwrap();
        assert_eq!(firmware.order(), [1, 3, 0, 2]);
    }

    #[test]
    fn only_the_firmware_s_own_names_are_entries() {
        for no in ["Boot00a0", "Boot001", "Boot00001", "BootOrder", "BootNext", "boot0001"] {
            assert_eq!(number_of(&format!("{no}-{GLOBAL}")), None, "{no}");
        }
        assert_eq!(number_of(&format!("Boot00A0-{GLOBAL}")), Some(0xa0));
        assert_eq!(number_of(&format!("Boot00A0-{LOADER}")), None);
    }
}
