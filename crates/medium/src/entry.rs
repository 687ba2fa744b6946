//! The firmware's own list of what it starts: boot entries (`Boot0000` to `BootFFFF`) and their
//! order (UEFI 2.10, 3.1 and 10).
//!
//! Promises: an entry is parsed whole or refused, bounded, and has one encoding, so that what
//! another wrote is put back as it was; [`Entry::of_slot`] names a slot by its partition's GUID
//! alone, so that a disk may move to another port. Which entry is whose is told by the partition
//! that it names, never by its title. Nothing here is trusted: firmware measures what it starts.

use thiserror::Error;
use uuid::Uuid;

/// The most bytes of an entry; firmware keeps its variables in a few tens of KiB.
pub const MOST: usize = 16 << 10;
/// What a slot's image is called on its partition.
pub const FILE: &str = r"\EFI\BOOT\BOOTX64.EFI";
/// `LOAD_OPTION_ACTIVE`: to be tried.
const ACTIVE: u32 = 1;
/// A node of the path that ends it (`0x7f`), wholly (`0xff`).
const END: (u8, u8) = (0x7f, 0xff);
/// A node that names a partition (media, hard drive).
const PARTITION: (u8, u8) = (4, 1);
/// A node that names a file (media, file path).
const FILE_PATH: (u8, u8) = (4, 4);
/// A GUID partition table, and its GUID as what the partition is known by.
const BY_GUID: [u8; 2] = [2, 2];

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Longer than any entry.
    #[error("a boot entry has at most {MOST} bytes")]
    Long,
    /// It ends within a field.
    #[error("a boot entry is cut short")]
    Short,
    /// A title without an end, or not of characters.
    #[error("a boot entry's title is no text")]
    Title,
    /// A path whose nodes don't fit its length.
    #[error("a boot entry's path is not whole")]
    Path,
    /// Not a list of numbers of two bytes, or one of them twice.
    #[error("the order of boot entries is no list of different numbers")]
    Order,
}

/// A partition of a disk with a GUID partition table, in blocks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its first block.
    pub first: u64,
    /// Its length.
    pub blocks: u64,
    /// Its GUID.
    pub guid: Uuid,
}

/// One element of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: (u8, u8),
    data: Vec<u8>,
}

/// `EFI_LOAD_OPTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    attributes: u32,
    title: String,
    path: Vec<Node>,
    /// What the program is handed.
    handed: Vec<u8>,
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EntryError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        Ok(*self.take(N)?.first_chunk().expect("as many as were asked for"))
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

impl Entry {
    /// The entry that starts the image in a slot, hands it nothing, and is tried.
    pub fn of_slot(title: &str, slot: &Partition) -> Self {
        let numbers = [&slot.number.to_le_bytes()[..], &slot.first.to_le_bytes(), &slot.blocks.to_le_bytes()].concat();
        let partition = Node { kind: PARTITION, data: [&numbers[..], &slot.guid.to_bytes_le(), &BY_GUID].concat() };
        let path = vec![partition, Node { kind: FILE_PATH, data: utf16(FILE) }, Node { kind: END, data: Vec::new() }];
        Self { attributes: ACTIVE, title: title.to_owned(), path, handed: Vec::new() }
    }

    /// Reads an entry, anybody's.
    ///
    /// # Errors
    /// If it isn't whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MOST {
            return Err(EntryError::Long);
        }
        let mut input = Input(bytes);
        let attributes = u32::from_le_bytes(input.array()?);
        let length = usize::from(u16::from_le_bytes(input.array()?));
        let title = title(&mut input)?;
        let path = path(input.take(length)?)?;
        Ok(Self { attributes, title, path, handed: input.0.to_vec() })
    }

    /// The variable's value.
    ///
    /// # Panics
    /// Never: a path that was parsed or made here is short.
    pub fn to_bytes(&self) -> Vec<u8> {
        let path: Vec<u8> = self.path.iter().flat_map(Node::to_bytes).collect();
        let length = u16::try_from(path.len()).expect("a path is short");
        [&self.attributes.to_le_bytes()[..], &length.to_le_bytes(), &utf16(&self.title), &path, &self.handed].concat()
    }

    /// What people see of it in the firmware's setup.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The partition that its path begins with; none if it leads to a device or the network.
    pub fn partition(&self) -> Option<Partition> {
        let node = self.path.first().filter(|n| n.kind == PARTITION)?;
        let (data, by_guid) = node.data.split_first_chunk::<36>()?;
        let mut input = Input(data);
        let number = u32::from_le_bytes(input.array().ok()?);
        let (first, blocks) = (u64::from_le_bytes(input.array().ok()?), u64::from_le_bytes(input.array().ok()?));
        let guid = Uuid::from_bytes_le(input.array().ok()?);
        (by_guid == BY_GUID).then_some(Partition { number, first, blocks, guid })
    }
}

impl Node {
    fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(4 + self.data.len()).expect("a node is short");
        [&[self.kind.0, self.kind.1][..], &length.to_le_bytes(), &self.data].concat()
    }
}

/// UTF-16 to its zero.
fn title(input: &mut Input<'_>) -> Result<String, EntryError> {
    let mut units = Vec::new();
    loop {
        match u16::from_le_bytes(input.array()?) {
            0 => return String::from_utf16(&units).map_err(|_| EntryError::Title),
            unit => units.push(unit),
        }
    }
}

/// All nodes of a path, to its last byte; some end one device's path before the last.
fn path(bytes: &[u8]) -> Result<Vec<Node>, EntryError> {
    let (mut input, mut nodes) = (Input(bytes), Vec::new());
    while !input.0.is_empty() {
        let [kind, below] = input.array()?;
        let length = usize::from(u16::from_le_bytes(input.array()?));
        let data = input.take(length.checked_sub(4).ok_or(EntryError::Path)?)?.to_vec();
        nodes.push(Node { kind: (kind, below), data });
    }
    let ends = nodes.last().is_some_and(|n| n.kind == END && n.data.is_empty());
    if ends { Ok(nodes) } else { Err(EntryError::Path) }
}

/// The order in which firmware tries entries (`BootOrder`).
///
/// # Errors
/// If it isn't a list of different numbers.
pub fn parse_order(bytes: &[u8]) -> Result<Vec<u16>, EntryError> {
    let (numbers, rest) = bytes.as_chunks::<2>();
    let numbers: Vec<u16> = numbers.iter().map(|n| u16::from_le_bytes(*n)).collect();
    let once = numbers.iter().collect::<std::collections::BTreeSet<_>>().len() == numbers.len();
    if rest.is_empty() && once { Ok(numbers) } else { Err(EntryError::Order) }
}

/// The variable's value.
pub fn write_order(order: &[u16]) -> Vec<u8> {
    order.iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Partition =
        Partition { number: 2, first: 73728, blocks: 71680, guid: Uuid::from_u128(0x0011_2233_4455_8677_8899_aabb_ccdd_eeff) };

    fn vector(name: &str) -> Vec<u8> {
        let path = format!("{}/../../tests/vectors/boot/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn a_slot_s_entry_is_the_vector_and_reads_back() {
        let entry = Entry::of_slot("Hoidla b on disk 1", &SLOT);
        assert_eq!(entry.to_bytes(), vector("entry.bin"));
        let read = Entry::parse(&vector("entry.bin")).unwrap();
        assert_eq!(read, entry);
        assert_eq!(read.partition(), Some(SLOT));
        assert_eq!(read.title(), "Hoidla b on disk 1");
    }

    #[test]
    fn what_firmware_itself_wrote_is_read_and_written_as_it_was() {
        for (name, title) in [("entry-shell.bin", "EFI Internal Shell"), ("entry-disk.bin", "UEFI QEMU HARDDISK QM00003 ")] {
            let entry = Entry::parse(&vector(name)).unwrap();
            assert_eq!((entry.title(), entry.partition()), (title, None), "{name}");
            assert_eq!(entry.to_bytes(), vector(name), "{name}");
        }
    }

    #[test]
    fn an_entry_that_is_not_whole_is_refused() {
        let good = Entry::of_slot("x", &SLOT).to_bytes();
        for len in 0..good.len() {
            assert!(Entry::parse(&good[..len]).is_err(), "{len}");
        }
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            Entry::parse(&bad)
        };
        let node = 4 + 2 + 4;
        assert_eq!(with(node + 2, 3), Err(EntryError::Path), "a node shorter than its head");
        assert_eq!(with(node + 2, 255), Err(EntryError::Short), "a node longer than the path");
        assert_eq!(with(good.len() - 4, 4), Err(EntryError::Path), "a path without an end");
        assert_eq!(with(7, 0xd8), Err(EntryError::Title), "half a character");
        assert_eq!(Entry::parse(&vec![1; MOST + 1]), Err(EntryError::Long));
        assert_eq!(Entry::parse(&[0; 64]), Err(EntryError::Path), "no path at all");
    }

    #[test]
    fn only_a_partition_known_by_its_guid_is_one() {
        let entry = Entry::of_slot("x", &SLOT);
        let with = |change: fn(&mut Node)| {
            let mut other = entry.clone();
            change(&mut other.path[0]);
            Entry::parse(&other.to_bytes()).unwrap().partition()
        };
        assert_eq!(with(|_| {}), Some(SLOT));
        assert_eq!(with(|n| n.data[36] = 1), None, "a table of the old kind");
        assert_eq!(with(|n| n.data[37] = 1), None, "known by its signature");
        assert_eq!(with(|n| _ = n.data.pop()), None);
        assert_eq!(with(|n| n.data.push(0)), None);
        assert_eq!(with(|n| n.kind = (4, 2)), None, "a compact disc");
    }

    #[test]
    fn an_order_names_each_entry_once() {
        assert_eq!(parse_order(&[1, 0, 0, 2]), Ok(vec![1, 0x200]));
        assert_eq!(parse_order(&[]), Ok(vec![]));
        assert_eq!(write_order(&[1, 0x200]), [1, 0, 0, 2]);
        for bad in [&[1][..], &[1, 0, 2], &[1, 0, 1, 0]] {
            assert_eq!(parse_order(bad), Err(EntryError::Order), "{bad:?}");
        }
    }
}
