//! Submits records to the store as agents' sessions do: anew, again, forked, and with
//! acknowledgements that the store doesn't know.

use hoidla_format::{Hash32, StreamId};
use hoidla_store::{Appended, Generation, Pool, Record, Refused};

use crate::{
    invariants::Broken,
    memory::{Memory, Page},
    model::{Sent, Stream},
    world::{POOL, Waits, World},
};

impl World {
    fn pick_stream(&mut self) -> Option<StreamId> {
        let n = self.model.streams.len() as u64;
        let at = self.dice.below(n) as usize;
        self.model.streams.keys().nth(at).copied()
    }

    fn stream_to_write(&mut self) -> StreamId {
        if self.model.streams.len() < 6 && (self.model.streams.is_empty() || self.dice.one_in(8)) {
            let id = StreamId(self.dice.bytes(16).try_into().expect("16 bytes"));
            let dataset = ["land", "people", "companies"][self.dice.below(3) as usize].parse().expect("a name");
            let generation = Generation { dataset, number: self.dice.below(2) as u32 };
            self.model.streams.insert(id, Stream::new(generation));
            return id;
        }
        self.pick_stream().expect("there is one")
    }

    /// New records of one stream.
    pub fn submit(&mut self) -> Result<(), Broken> {
        let id = self.stream_to_write();
        for _ in 0..1 + self.dice.below(6) {
            let len = match self.dice.below(20) {
                0..12 => 1 + self.dice.below(2000),
                12..17 => 1 + self.dice.below(20_000),
                17..19 => 32 * 1024 + self.dice.below(9000),
                _ => 1 + self.dice.below(100_000),
            };
            let bytes = self.dice.bytes(len as usize);
            let new_epoch = self.dice.one_in(12);
            let s = self.model.streams.get_mut(&id).expect("it is known");
            s.epoch = (s.epoch + u32::from(new_epoch)).max(s.closing + 1);
            let (epoch, chain) = (s.epoch, s.chain());
            match self.append(id, epoch, chain.length, &bytes)? {
                Ok(Appended::Pending) => {
                    let s = self.model.streams.get_mut(&id).expect("it is known");
                    let after = chain.then(&hash(&bytes), bytes.len() as u32);
                    s.sent.push(Sent { offset: chain.length, epoch, bytes, after });
                }
                Ok(Appended::Before(_)) => return Err(("forks refused", "a new record was taken for a stored one".into())),
                Err(Refused::Busy) => return self.pump(8),
                Err(Refused::Full) => {
                    self.tally.count("submissions to a full store", 1);
                    return self.drain();
                }
                Err(other) => return Err(("progress", other.to_string())),
            }
        }
        Ok(())
    }

    fn append(&mut self, id: StreamId, epoch: u32, offset: u64, bytes: &[u8]) -> Result<Result<Appended, Refused>, Broken> {
        // Whoever submits leaves half of the pool to the engine.
        let Some(buffer) = (self.memory.out() < POOL / 2).then(|| self.memory.take(bytes.len())).flatten() else {
            return Ok(Err(Refused::Busy));
        };
        let record = self.record(id, epoch, offset, bytes, buffer);
        let ticket = self.ticket(Waits::Record(id, offset + bytes.len() as u64));
        let outcome = self.store().append(record, ticket);
        if !matches!(outcome, Ok(Appended::Pending)) {
            self.void(ticket);
        }
        self.say(|| format!("append #{ticket} {id} epoch {epoch} at {offset}, {} bytes: {outcome:?}", bytes.len()));
        Ok(outcome)
    }

    /// A record of a stream that the model knows.
    pub fn record(&self, id: StreamId, epoch: u32, offset: u64, bytes: &[u8], mut buffer: Page) -> Record<Memory> {
        let generation = self.model.streams[&id].generation.clone();
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        let blocks = hoidla_store::Buffer::freeze(buffer, bytes.len());
        Record { generation, stream: id, epoch, offset, len: bytes.len() as u32, hash: hash(bytes), blocks }
    }

    /// An agent that lost its acknowledgement sends the same again; or, forked, other bytes.
    pub fn submit_again(&mut self) -> Result<(), Broken> {
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let n = self.model.streams[&id].sent.len() as u64;
        let at = self.dice.below(n) as usize;
        let Some(sent) = self.model.streams[&id].sent.get(at).cloned() else { return Ok(()) };
        let forked = self.dice.one_in(2);
        let mut bytes = sent.bytes;
        if forked {
            bytes[0] ^= 1;
        }
        let same = match self.append(id, sent.epoch, sent.offset, &bytes)? {
            Ok(Appended::Pending) => true,
            Ok(Appended::Before(place)) => {
                let buffer = Memory::new(1).take(bytes.len()).expect("a fresh pool");
                let record = self.record(id, sent.epoch, sent.offset, &bytes, buffer);
                let (_, _, mut reader) = self.parts();
                match reader.compare(&place, &record) {
                    Ok(compared) => compared.is_ok(),
                    Err(_) if self.model.lost => return Ok(()),
                    Err(e) => return Err(("acknowledged is readable", e.to_string())),
                }
            }
            Err(Refused::Fork { .. }) => false,
            Err(Refused::Lost { .. }) if self.model.lost => return Ok(()),
            Err(Refused::Busy) => return Ok(()),
            Err(other) => return Err(("progress", other.to_string())),
        };
        if same == forked {
            Err(("forks refused", format!("stream {id} at {}: forked {forked}, taken for the same {same}", sent.offset)))
        } else {
            Ok(())
        }
    }

    /// Closes the epoch that a stream is in; where agents are, the one that the store holds, as
    /// an opening does.
    pub fn close_epoch(&mut self) -> Result<(), Broken> {
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let epoch = if self.sessions.is_some() { self.store().state(id).map_or(0, |s| s.epoch) } else { self.model.streams[&id].epoch };
        if epoch == 0 {
            return Ok(());
        }
        let ticket = self.ticket(Waits::Close(id, epoch));
        let outcome = self.store().close_epoch(id, epoch, ticket);
        self.say(|| format!("close #{ticket} {id} epoch {epoch}: {outcome:?}"));
        match outcome {
            Ok(()) => {
                let s = self.model.streams.get_mut(&id).expect("it is known");
                s.closing = s.closing.max(epoch);
                self.take_events()
            }
            Err(Refused::Unknown | Refused::Busy | Refused::Full) => {
                self.void(ticket);
                Ok(())
            }
            Err(other) => Err(("progress", other.to_string())),
        }
    }

    /// An agent holds an acknowledgement that the store never gave: an alarm, until readmitted.
    pub fn present(&mut self) -> Result<(), Broken> {
        self.drain()?;
        let Some(id) = self.pick_stream() else { return Ok(()) };
        let (generation, ahead) = (self.model.streams[&id].generation.clone(), self.model.streams[&id].acknowledged + 1);
        match self.store().present(&generation, id, ahead) {
            Err(Refused::Alarmed { .. } | Refused::Busy) => {}
            other => return Err(("rollback alarms", format!("an agent that is ahead of the store was answered {other:?}"))),
        }
        let alarmed = self.store().present(&generation, id, 0).is_err();
        if alarmed && self.store().state(id).is_some() {
            self.readmit(id)?;
        }
        Ok(())
    }

    /// After an opening every agent says what it holds: where the store has less, that is an alarm.
    pub fn present_all(&mut self) -> Result<(), Broken> {
        let known: Vec<_> = self.model.streams.iter().map(|(id, s)| (*id, s.generation.clone(), s.acknowledged)).collect();
        for (id, generation, holds) in known {
            let behind = self.store().state(id).map_or(0, |s| s.chain.length) < holds;
            let before = self.store().state(id).is_some_and(|s| s.alarm.is_some());
            let mut answer = self.store().present(&generation, id, holds);
            for _ in 0..100 {
                if !matches!(answer, Err(Refused::Busy)) {
                    break;
                }
                self.pump(8)?;
                answer = self.store().present(&generation, id, holds);
            }
            let alarmed = matches!(answer, Err(Refused::Alarmed { .. }));
            if alarmed != (behind || before) {
                return Err(("rollback alarms", format!("stream {id}: behind {behind}, alarmed before {before}, alarmed now {alarmed}")));
            }
        }
        Ok(())
    }

    /// Lifts all alarms, once those just raised are noted.
    pub fn readmit_all(&mut self) -> Result<(), Broken> {
        if self.model.lost {
            self.drain()?;
        }
        let ids: Vec<_> = self.model.streams.keys().copied().collect();
        for id in ids {
            if self.store().state(id).is_some_and(|s| s.alarm.is_some()) {
                self.readmit(id)?;
            }
        }
        Ok(())
    }

    fn readmit(&mut self, id: StreamId) -> Result<(), Broken> {
        for _ in 0..100 {
            let ticket = self.ticket(Waits::Other);
            match self.store().readmit(id, ticket) {
                Ok(()) => return Ok(()),
                Err(Refused::Busy) => {
                    self.void(ticket);
                    self.pump(8)?;
                }
                Err(other) => return Err(("progress", format!("not readmitted: {other}"))),
            }
        }
        Err(("progress", "the store stays busy".into()))
    }
}

/// A record's hash.
pub fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(blake3::hash(bytes).into())
}
