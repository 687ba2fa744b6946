//! The appliance's side of a connection: reads messages, hands frames to the store,
//! answers.

use std::collections::BTreeMap;

use hoidla_format::Name;
use hoidla_protocol::{
    Answers, AppendHead, Code, HELLO, Handle, Head, Hold, Open, Opened, Refused, Request, Response, Role, ServerSession, Type, Welcome,
    answers::{Outcome, Turn},
    server::OpenStream,
};
use hoidla_store::{Appended, Generation, Pool, Refused as Why};

use super::{Key, LineNo, Sessions};
use crate::{
    actors::writer::hash,
    invariants::Broken,
    model::{Sent, Stream},
    world::{POOL, Waits, World},
};

/// What an append waits for besides its answer: who writes.
type Settles = BTreeMap<Turn, (Key, Hold)>;

/// One connection, as the appliance sees it.
pub struct Gate {
    session: ServerSession,
    answers: Answers,
    holds: BTreeMap<Handle, (Key, Hold)>,
    settles: Settles,
    /// A stream that was taken, whose former writer isn't done yet.
    opening: Option<(Open, Hold)>,
    greeted: bool,
    /// The peer is gone: what it sent is settled all the same.
    left: bool,
}

/// What becomes of the message at hand.
enum Done {
    Yes,
    /// It must wait for the store.
    Later,
}

impl Sessions {
    /// What became of an append.
    pub fn settle(&mut self, line: LineNo, turn: Turn, outcome: Outcome) {
        let Some(gate) = self.gates.get_mut(&line) else { return };
        gate.answers.settled(turn, outcome);
        if let Some((key, hold)) = gate.settles.remove(&turn) {
            self.writers.settle(&key, hold);
        }
    }

    /// A gate for a new connection of a dataset's agent.
    pub fn new_gate(&self, dataset: Name, window: u32) -> Gate {
        let role = Role::Agent { dataset, agent: "copier".parse().expect("a name") };
        let session = ServerSession::new(role, window);
        let answers = Answers::new(self.faulty);
        Gate { session, answers, holds: BTreeMap::new(), settles: BTreeMap::new(), opening: None, greeted: false, left: false }
    }
}

impl World {
    /// Bytes arrive at the appliance; it acts upon what is whole, and answers.
    pub fn to_gate(&mut self, no: LineNo, bytes: usize) -> Result<(), Broken> {
        let Some(line) = self.sessions().lines.get_mut(&no) else { return Ok(()) };
        line.up.arrive(bytes);
        loop {
            self.answer(no)?;
            let sessions = self.sessions.as_mut().expect("agents are there");
            let (Some(line), Some(gate)) = (sessions.lines.get_mut(&no), sessions.gates.get_mut(&no)) else { return Ok(()) };
            if !gate.greeted {
                if line.up.take::<{ HELLO.len() }>().is_none() {
                    return Ok(());
                }
                gate.greeted = true;
                line.down.send(&[&HELLO, &Response::Welcome(welcome(gate.session_window())).encode()])?;
                continue;
            }
            if let Some((open, hold)) = gate.opening.take() {
                if let Done::Later = self.open(no, open, hold)? {
                    return Ok(());
                }
                continue;
            }
            let Some((head, body)) = line.up.peek()? else { return Ok(()) };
            let body = body.to_vec();
            match self.message(no, head, &body)? {
                Done::Yes => self.sessions().lines.get_mut(&no).into_iter().for_each(|l| l.up.done(head)),
                Done::Later => return Ok(()),
            }
        }
    }

    fn gate(&mut self, no: LineNo) -> &mut Gate {
        self.sessions().gates.get_mut(&no).expect("it is there")
    }

    fn message(&mut self, no: LineNo, head: Head, body: &[u8]) -> Result<Done, Broken> {
        let broken = |why: &dyn std::fmt::Display| ("sound agents served", format!("a sound agent's message is refused: {why}"));
        if head.kind != Type::Append {
            self.gate(no).session.accept(head).map_err(|r| broken(&r))?;
            let Ok(Request::Open(open)) = Request::parse(head.kind, body) else { return Err(broken(&"not an opening")) };
            let sessions = self.sessions();
            let hold = sessions.writers.take((open.dataset.clone(), open.stream));
            self.gate(no).opening = Some((open, hold));
            return Ok(Done::Yes);
        }
        // Whoever submits leaves half of the pool to the engine.
        if self.memory.out() >= POOL / 2 {
            return Ok(Done::Later);
        }
        let (append, frame) = body.split_first_chunk().ok_or_else(|| broken(&"an append without its head"))?;
        let append = AppendHead::parse(append).map_err(|e| broken(&e))?;
        if self.is_busy(no, &append, frame)? {
            return Ok(Done::Later);
        }
        Ok(Done::Yes)
    }

    /// One append; true if it must be tried again.
    fn is_busy(&mut self, no: LineNo, append: &AppendHead, frame: &[u8]) -> Result<bool, Broken> {
        let broken = |r: Refused| ("sound agents served", format!("a sound agent's append is refused: {r}"));
        let gate = self.gate(no);
        // The head is looked at once the store has room, so that it is looked at once.
        let mut trial = gate.session.clone();
        trial.accept(Head { kind: Type::Append, len: AppendHead::LEN + frame.len() }).map_err(broken)?;
        let stream = trial.append(append, frame.len()).map_err(broken)?;
        let Some(stream) = stream else {
            gate.session = trial;
            gate.answers.dropped(frame.len() as u32);
            return Ok(false);
        };
        let Some((key, hold)) = gate.holds.get(&append.handle).cloned() else {
            return Err(("progress", "an open stream without a writer".into()));
        };
        let sessions = self.sessions.as_mut().expect("agents are there");
        if !sessions.writers.begin(&key, hold) {
            let gate = self.gate(no);
            gate.session = trial;
            let turn = gate.answers.submitted(append.handle, append.offset, frame.len() as u32);
            gate.answers.settled(turn, Err(Refused::new(Code::Busy, "another connection has taken this stream over")));
            self.tally.count("stale writers shut out", 1);
            return Ok(false);
        }
        match self.hand_over(no, append, &stream, frame)? {
            Some((ticket, outcome)) => {
                let gate = self.gate(no);
                gate.session = trial;
                let turn = gate.answers.submitted(append.handle, append.offset + frame.len() as u64, frame.len() as u32);
                gate.settles.insert(turn, (key, hold));
                match outcome {
                    None => _ = self.sessions().tickets.insert(ticket, (no, turn)),
                    Some(outcome) => self.sessions().settle(no, turn, outcome),
                }
                Ok(false)
            }
            None => {
                self.sessions().writers.settle(&key, hold);
                Ok(true)
            }
        }
    }

    /// Gives a frame to the store: its ticket, and the outcome if that is known at once;
    /// nothing if the store is busy.
    fn hand_over(
        &mut self,
        no: LineNo,
        append: &AppendHead,
        stream: &OpenStream,
        frame: &[u8],
    ) -> Result<Option<(u64, Option<Outcome>)>, Broken> {
        let id = stream.stream;
        let generation = Generation { dataset: stream.dataset.clone(), number: stream.generation };
        self.model.streams.entry(id).or_insert_with(|| Stream::new(generation));
        let Some(buffer) = self.memory.take(frame.len()) else { return Ok(None) };
        let record = self.record(id, append.epoch, append.offset, frame, buffer);
        let ticket = self.ticket(Waits::Record(id, append.offset + frame.len() as u64));
        let outcome = self.store().append(record, ticket);
        self.say(|| {
            format!(
                "connection {no}: append #{ticket} {id} epoch {} at {}, {} bytes: {outcome:?}",
                append.epoch,
                append.offset,
                frame.len()
            )
        });
        match outcome {
            Ok(Appended::Pending) => {
                let known = self.model.streams.get_mut(&id).expect("just made");
                if append.offset == known.chain().length {
                    let after = known.chain().then(&hash(frame), frame.len() as u32);
                    known.epoch = known.epoch.max(append.epoch);
                    known.sent.push(Sent { offset: append.offset, epoch: append.epoch, bytes: frame.to_vec(), after });
                }
                Ok(Some((ticket, None)))
            }
            Ok(Appended::Before(place)) => {
                self.void(ticket);
                let buffer = crate::memory::Memory::new(1).take(frame.len()).expect("a fresh pool");
                let record = self.record(id, append.epoch, append.offset, frame, buffer);
                let (_, _, mut reader) = self.parts();
                let same = reader.compare(&place, &record).map_err(|e| ("acknowledged is readable", e.to_string()))?;
                Ok(Some((ticket, Some(same.map(|()| None).map_err(|e| refusal(&e))))))
            }
            Err(Why::Busy) => {
                self.void(ticket);
                Ok(None)
            }
            Err(why) => {
                self.void(ticket);
                Ok(Some((ticket, Some(Err(refusal(&why))))))
            }
        }
    }

    fn open(&mut self, no: LineNo, open: Open, hold: Hold) -> Result<Done, Broken> {
        let key = (open.dataset.clone(), open.stream);
        if !self.sessions().writers.is_free(&key, hold) {
            self.gate(no).opening = Some((open, hold));
            return Ok(Done::Later);
        }
        let generation = Generation { dataset: open.dataset.clone(), number: open.generation };
        let state = match self.store().present(&generation, open.stream, open.last.length) {
            Ok(state) => state,
            Err(Why::Busy) => {
                self.gate(no).opening = Some((open, hold));
                return Ok(Done::Later);
            }
            Err(why) => return Err(("sound agents served", format!("stream {} of a sound agent: {why}", open.stream))),
        };
        if open.last.length == state.chain.length && open.last.root != state.chain.root {
            return Err(("sound agents served", format!("stream {}: other bytes than were acknowledged", open.stream)));
        }
        let closed = state.epoch > 0 && state.closed >= state.epoch;
        let opened = Opened { handle: Handle(0), epoch: state.epoch, closed, acknowledged: state.chain };
        self.say(|| format!("connection {no}: {} stands at {}, epoch {}, closed {closed}", open.stream, state.chain.length, state.epoch));
        let sessions = self.sessions.as_mut().expect("agents are there");
        let gate = sessions.gates.get_mut(&no).expect("it is there");
        let opened = gate.session.opened(open.dataset, open.stream, open.generation, opened);
        let opened = opened.map_err(|r| ("sound agents served", r.to_string()))?;
        gate.holds.insert(opened.handle, (key, hold));
        sessions.lines.get_mut(&no).into_iter().try_for_each(|l| l.down.send(&[&Response::Opened(opened).encode()]))?;
        Ok(Done::Yes)
    }

    /// Sends whatever is to be answered now.
    fn answer(&mut self, no: LineNo) -> Result<(), Broken> {
        let sessions = self.sessions.as_mut().expect("agents are there");
        let Some(gate) = sessions.gates.get_mut(&no) else { return Ok(()) };
        while let Some(answers) = gate.answers.next(&mut gate.session) {
            let bytes: Vec<u8> = answers.iter().flat_map(Response::encode).collect();
            sessions.lines.get_mut(&no).into_iter().try_for_each(|l| l.down.send(&[&bytes]))?;
        }
        if gate.left && gate.answers.waiting() == 0 {
            for (key, hold) in std::mem::take(&mut gate.holds).into_values() {
                sessions.writers.leave(&key, hold);
            }
            sessions.gates.remove(&no);
        }
        Ok(())
    }

    /// The peer is gone. A stream that it was waiting for goes back to whoever had it.
    pub fn gate_is_left(&mut self, no: LineNo) {
        let sessions = self.sessions();
        sessions.lines.remove(&no);
        let Some(gate) = sessions.gates.get_mut(&no) else { return };
        gate.left = true;
        if let Some((open, hold)) = gate.opening.take() {
            sessions.writers.leave(&(open.dataset, open.stream), hold);
        }
    }

    /// Gates without a line come to their end as the store settles their appends.
    pub fn tend_gates(&mut self) -> Result<(), Broken> {
        let gates: Vec<_> = self.sessions.iter().flat_map(|s| s.gates.keys().copied()).collect();
        gates.into_iter().try_for_each(|no| self.answer(no))
    }
}

impl Gate {
    fn session_window(&self) -> u32 {
        self.session.window() as u32
    }
}

fn welcome(window: u32) -> Welcome {
    Welcome {
        site: "embassy".parse().expect("a name"),
        appliance: "one".parse().expect("a name"),
        site_hash: hash(b"site"),
        site_serial: 1,
        release: "r1".parse().expect("a name"),
        development: true,
        window,
    }
}

fn refusal(why: &Why) -> Refused {
    let code = match why {
        Why::Full => Code::Full,
        Why::Fork { .. } => Code::Fork,
        Why::EpochOver { .. } => Code::EpochClosed,
        Why::Alarmed { .. } => Code::Behind,
        Why::Gap { .. } | Why::NotARecord(_) => Code::Order,
        _ => Code::Failed,
    };
    Refused::new(code, why.to_string())
}
