//! The pack stream: items one after another, cut into messages.
//!
//! A run's messages are numbered from 0 and are all of one size but those that end
//! a run. An item may begin in one message and end in the next, so no room is lost
//! and a message's length says nothing about what is in it.
//!
//! ```text
//! message  Header ‖ run u32 ‖ number u32 ‖ record's number u32 ‖ record's position u32 ‖ items
//! item     0                                          nothing follows in this message
//!          1 ‖ len u32 ‖ len bytes                    a chunk as it is
//!          2 ‖ raw len u32 ‖ len u32 ‖ len bytes      a chunk under zstd
//!          3 ‖ len u32 ‖ len bytes                    a snapshot's record
//! ```

use hoidla_format::{Kind, Malformed, Reader, Writer};

/// The version of packs and all that is in them.
pub const VERSION: u8 = 1;
/// Bytes before a message's first item.
pub const HEAD: usize = 24;
/// The least size of a message that may be asked for.
pub const LEAST: usize = 4096;

/// Tag of the end of a message.
pub const END: u8 = 0;
/// Tag of a chunk as it is.
pub const PLAIN: u8 = 1;
/// Tag of a chunk under zstd.
pub const ZSTD: u8 = 2;
/// Tag of a snapshot's record.
pub const RECORD: u8 = 3;

/// Where an item begins: which run, which message of it, which byte of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The run: the number of the epoch in which its first message was sealed.
    pub run: u32,
    /// The message, from 0.
    pub number: u32,
    /// The byte in the message's plaintext.
    pub position: u32,
}

impl Place {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.u32(self.run).u32(self.number).u32(self.position);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { run: r.u32()?, number: r.u32()?, position: r.u32()? })
    }
}

/// One message's plaintext, ready to be sealed.
pub struct Message {
    /// The run.
    pub run: u32,
    /// The message in it, from 0.
    pub number: u32,
    /// The plaintext.
    pub bytes: Vec<u8>,
    /// Whether a snapshot ends with it.
    pub last: bool,
}

/// The first 24 bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHead {
    /// The run.
    pub run: u32,
    /// The message in it, from 0.
    pub number: u32,
    /// If a snapshot ends with this message: where its record begins.
    pub record: Option<Place>,
}

impl PackHead {
    /// Reads the head of a message's plaintext.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(message);
        r.header(Kind::Pack, VERSION)?;
        let (run, number) = (r.u32()?, r.u32()?);
        let at = Place { run, number: r.u32()?, position: r.u32()? };
        if at.position == 0 {
            return if at.number == 0 { Ok(Self { run, number, record: None }) } else { Err(Malformed::Field("a record at no position")) };
        }
        if at.number > number || (at.position as usize) < HEAD {
            return Err(Malformed::Field("a record that begins after its end"));
        }
        Ok(Self { run, number, record: Some(at) })
    }

    pub(crate) fn write(&self) -> [u8; HEAD] {
        let (number, position) = self.record.map_or((0, 0), |p| (p.number, p.position));
        let mut w = Writer::with_header(Kind::Pack, VERSION);
        w.u32(self.run).u32(self.number).u32(number).u32(position);
        w.finish().try_into().expect("a head has 24 bytes")
    }
}

/// The size to which a run's last message is padded: the next power of two, at most `most`.
pub(crate) fn bucket(len: usize, most: usize) -> usize {
    len.next_power_of_two().max(LEAST).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back_and_nonsense_is_refused() {
        let at = Place { run: 3, number: 1, position: 30 };
        for head in [PackHead { run: 3, number: 7, record: None }, PackHead { run: 3, number: 7, record: Some(at) }] {
            assert_eq!(PackHead::parse(&head.write()), Ok(head));
        }
        let mut bytes = PackHead { run: 3, number: 0, record: Some(at) }.write();
        assert!(PackHead::parse(&bytes).is_err(), "a record in a later message");
        bytes[7] = 2;
        assert!(matches!(PackHead::parse(&bytes), Err(Malformed::Version { found: 2, .. })));
        assert!(PackHead::parse(&bytes[..23]).is_err());
    }

    #[test]
    fn buckets_are_few() {
        assert_eq!(bucket(25, 1 << 20), LEAST);
        assert_eq!(bucket(5000, 1 << 20), 8192);
        assert_eq!(bucket(1_000_000, 1_000_001), 1_000_001);
    }
}
