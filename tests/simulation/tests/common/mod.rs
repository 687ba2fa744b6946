//! A small store on simulated disks, driven by hand.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;

use hoidla_format::{Hash32, StreamId};
use hoidla_simulation::{
    counter::Counter,
    disk::{Power, SimDisk},
    memory::Memory,
};
use hoidla_store::{
    Appended, BLOCK, Buffer, Disk, Engine, Event, Generation, Layout, Op, OpenError, Opened, Options, Pool, ReadError, Reader, Record,
    SealKey, ToCopy,
};

pub const STORE: [u8; 16] = [1; 16];
pub const KEY: SealKey = SealKey([6; 32]);
pub const SEGMENT: u64 = 64 * BLOCK as u64;
pub const LAYOUT: Layout = Layout { segment: SEGMENT, catalogue: 16 * BLOCK as u64, copies: 0 };

/// A disk with room for so many segments.
pub fn disk(name: &str, slots: u64) -> Arc<SimDisk> {
    Arc::new(SimDisk::new(name, 96 * BLOCK as u64 + slots * SEGMENT, Power::stays()))
}

pub fn as_disks(disks: &[&Arc<SimDisk>]) -> Vec<Arc<dyn Disk>> {
    disks.iter().map(|d| (*d).clone() as Arc<dyn Disk>).collect()
}

/// Lays a mirror on all of them.
pub fn format(disks: &[&Arc<SimDisk>], store: [u8; 16], nv: &Counter) {
    Engine::format(&as_disks(disks), store, KEY, LAYOUT, &Memory::new(8), &mut nv.clone()).unwrap();
}

/// Lays two copies of each segment over all of them.
pub fn two_copies_on(disks: &[&Arc<SimDisk>], nv: &Counter) {
    let layout = Layout { copies: 2, ..LAYOUT };
    Engine::format(&as_disks(disks), STORE, KEY, layout, &Memory::new(8), &mut nv.clone()).unwrap();
}

pub fn open(disks: &[&Arc<SimDisk>], nv: &Counter) -> Result<(Engine<Memory>, Opened), OpenError> {
    Engine::open(as_disks(disks), STORE, Arc::new(Memory::new(64)), Box::new(nv.clone()), Options::default())
}

/// Of a stream of the land registry's first generation.
pub fn record(stream: u8, offset: u64, bytes: &[u8]) -> Record<Memory> {
    record_in(1, stream, offset, bytes)
}

/// The same in any generation.
pub fn record_in(number: u32, stream: u8, offset: u64, bytes: &[u8]) -> Record<Memory> {
    let mut buffer = Memory::new(1).take(bytes.len()).unwrap();
    buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
    Record {
        generation: Generation { dataset: "land".parse().unwrap(), number },
        stream: StreamId([stream; 16]),
        epoch: 1,
        offset,
        len: bytes.len() as u32,
        hash: Hash32(blake3::hash(bytes).into()),
        blocks: buffer.freeze(bytes.len()),
    }
}

/// Appends records of a stream until it is so long; each must be acknowledged.
pub fn fill(engine: &mut Engine<Memory>, stream: u8, from: u64, to: u64) {
    for offset in (from..to).step_by(1000) {
        let bytes = [(offset / 1000) as u8; 1000];
        assert_eq!(engine.append(record(stream, offset, &bytes), offset), Ok(Appended::Pending));
        assert_eq!(settle(engine), [offset + 1000]);
    }
}

pub fn holds_all(engine: &mut Engine<Memory>, stream: u8, to: u64) {
    for offset in (0..to).step_by(1000) {
        assert_eq!(read(engine, stream, offset).unwrap(), [(offset / 1000) as u8; 1000]);
    }
}

/// Carries out all requests in order; the acknowledged ends.
pub fn settle(engine: &mut Engine<Memory>) -> Vec<u64> {
    let events = carry_out(engine);
    events.into_iter().filter_map(|e| if let Event::Acknowledged(a) = e { Some(a.end) } else { None }).collect()
}

/// Carries out all requests in order; the tickets that were noted.
pub fn noted(engine: &mut Engine<Memory>) -> Vec<u64> {
    let events = carry_out(engine);
    events.into_iter().filter_map(|e| if let Event::Noted { ticket } = e { Some(ticket) } else { None }).collect()
}

/// Carries out all requests in order; what the store told.
pub fn carry_out(engine: &mut Engine<Memory>) -> Vec<Event> {
    let disks = engine.disks();
    while let Some(request) = engine.next_request() {
        let disk = disks[usize::from(request.disk)].as_ref().unwrap();
        let outcome = match &request.op {
            Op::Write { at, blocks } => disk.write(*at, blocks.as_ref()).map(|()| blocks.as_ref().len()),
            Op::Flush => disk.flush().map(|()| 0),
        };
        engine.complete(request.id, outcome);
    }
    std::iter::from_fn(|| engine.next_event()).collect()
}

/// Copies all there is to copy to a disk that is being rebuilt, and says so.
pub fn rebuild(engine: &mut Engine<Memory>) -> Vec<Event> {
    let rebuilding = engine.rebuilding()[0];
    let mut reader = Reader::new(engine.disks(), Arc::new(Memory::new(8)));
    while let ToCopy::Segment(segment) = engine.to_copy(rebuilding.id).unwrap() {
        assert_eq!(reader.copy(&segment, rebuilding.place, |_| true).unwrap().damage, Vec::<String>::new());
        engine.copied(rebuilding.id, &segment).unwrap();
    }
    engine.disks()[usize::from(rebuilding.place)].as_ref().unwrap().flush().unwrap();
    engine.rebuilt(rebuilding.id).unwrap();
    carry_out(engine)
}

/// The bytes at an offset of a stream, read back.
pub fn read(engine: &mut Engine<Memory>, stream: u8, offset: u64) -> Result<Vec<u8>, ReadError> {
    let place = engine.locate(StreamId([stream; 16]), offset).unwrap();
    Reader::new(engine.disks(), Arc::new(Memory::new(8))).read(&place).map(|found| found.bytes().to_vec())
}
