//! An agent: seals, keeps, sends, believes only what fits, and comes back.

use hoidla_format::{StreamId, frame::Chain};
use hoidla_protocol::{ClientSession, Code, Faulty, Framed, HELLO, Handle, Open, Opened, Outbox, Request, Response};

use super::{LineNo, MARKER, network::Line};
use crate::{actors::writer::hash, dice::Dice, invariants::Broken, model::Model, world::World};

/// A sealed frame, and what is in it.
#[derive(Clone)]
struct Frame {
    epoch: u32,
    offset: u64,
    after: Chain,
    plain: Vec<u8>,
    bytes: Vec<u8>,
}

impl Framed for Frame {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn after(&self) -> Chain {
        self.after
    }
}

/// Where an agent is with its connection.
enum Call {
    None,
    Greeting(LineNo),
    Welcome(LineNo),
    Opening(LineNo, ClientSession, Chain),
    Open { line: LineNo, session: ClientSession, handle: Handle, at: u64 },
}

/// One agent with one stream.
pub struct Agent {
    dataset: hoidla_format::Name,
    stream: StreamId,
    outbox: Outbox<Frame>,
    /// Acknowledged since the record on its disk was written.
    unsaved: Vec<Frame>,
    saved: Chain,
    epoch: u32,
    /// Its data key is gone: what is left is sent, then a new epoch begins.
    resuming: bool,
    call: Call,
    /// It was told that the store is full.
    gave_up: bool,
    faulty: Faulty,
}

impl Agent {
    pub fn new(n: u8, faulty: Faulty) -> Self {
        let dataset = ["land", "people", "companies"][usize::from(n) % 3].parse().expect("a name");
        let (stream, outbox) = (StreamId([n + 1; 16]), Outbox::new(Chain::EMPTY, faulty));
        Self {
            dataset,
            stream,
            outbox,
            unsaved: Vec::new(),
            saved: Chain::EMPTY,
            epoch: 1,
            resuming: false,
            call: Call::None,
            gave_up: false,
            faulty,
        }
    }

    /// The connection that it uses.
    pub fn line(&self) -> Option<LineNo> {
        match &self.call {
            Call::None => None,
            Call::Greeting(line) | Call::Welcome(line) | Call::Opening(line, ..) | Call::Open { line, .. } => Some(*line),
        }
    }

    /// Its connection is no more.
    pub fn hang_up(&mut self) {
        self.call = Call::None;
    }

    /// Whether all that it sealed is acknowledged, or it was told that there is no room.
    pub fn has_nothing_to_send(&self) -> bool {
        self.outbox.frames().is_empty() || self.gave_up
    }

    /// Seals: other bytes each time, from which nobody learns what went in.
    fn seal(&mut self, plain: Vec<u8>, dice: &mut Dice) {
        let (end, key) = (self.outbox.end(), dice.bytes(plain.len()));
        let bytes: Vec<u8> = plain.iter().zip(key).map(|(p, k)| p ^ k).collect();
        let after = end.then(&hash(&bytes), bytes.len() as u32);
        self.outbox.push(Frame { epoch: self.epoch, offset: end.length, after, plain, bytes });
    }

    fn acknowledge(&mut self, before: u64) -> Result<(), Broken> {
        while let Some(frame) = self.outbox.acknowledge_one(before) {
            self.unsaved.push(frame);
        }
        self.outbox.stands_at(before).map_err(|e| ("nothing unacknowledged", e.to_string()))
    }

    /// The stream was opened: what the embassy says is held against what was sent.
    fn opened(&mut self, opened: &Opened, dice: &mut Dice) -> Result<(), Broken> {
        let stands = opened.acknowledged;
        match self.outbox.reconcile(stands).map_err(|e| ("sound agents served", e.to_string()))? {
            Some(before) => self.acknowledge(before)?,
            None => {
                self.outbox.reset(stands);
                (self.unsaved, self.saved, self.epoch, self.resuming) = (Vec::new(), stands, opened.epoch + 1, false);
            }
        }
        if opened.closed && self.epoch <= opened.epoch {
            let frames = self.outbox.reset(stands);
            if !self.resuming {
                self.epoch = opened.epoch + 1;
                frames.into_iter().for_each(|f| self.seal(f.plain, dice));
            }
        }
        if self.resuming && self.outbox.frames().is_empty() {
            (self.epoch, self.resuming) = (self.epoch.max(opened.epoch) + 1, false);
        }
        Ok(())
    }

    /// Sends what the window allows.
    fn send(&mut self, wire: &mut Line) -> Result<(), Broken> {
        let Call::Open { session, handle, at, .. } = &mut self.call else { return Ok(()) };
        while let Some(frame) = self.outbox.at(*at).map_err(|e| ("nothing unacknowledged", e.to_string()))? {
            if !session.may_append(frame.bytes.len()) {
                break;
            }
            let head = session.append(*handle, frame.epoch, *at, frame.bytes.len());
            wire.up.send(&[&head, &frame.bytes])?;
            *at = frame.after.length;
        }
        Ok(())
    }

    /// The machine at home crashes; its spool is whole, torn at the end, or gone.
    fn crash(&mut self, dice: &mut Dice) {
        let mut kept: Vec<Frame> = std::mem::take(&mut self.unsaved);
        kept.extend(self.outbox.frames().iter().cloned());
        match dice.below(3) {
            0 => kept.clear(),
            1 => kept.truncate(dice.below(kept.len() as u64 + 1) as usize),
            _ => {}
        }
        self.epoch = kept.last().map_or(0, |f| f.epoch);
        self.outbox = Outbox::new(self.saved, self.faulty);
        kept.into_iter().for_each(|f| self.outbox.push(f));
        self.resuming = true;
        self.hang_up();
    }
}

impl World {
    /// An agent seals some messages, as far as its spool has room.
    pub fn seal(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        self.seal_and_send(n)
    }

    fn seal_and_send(&mut self, n: usize) -> Result<(), Broken> {
        for _ in 0..1 + self.dice.below(5) {
            let len = if self.dice.one_in(8) { 1 + self.dice.below(20_000) } else { 1 + self.dice.below(2000) };
            let mut plain = MARKER.to_vec();
            plain.extend(self.dice.bytes(len as usize));
            let agent = &mut self.sessions.as_mut().expect("agents are there").agents[n];
            if !agent.resuming && agent.outbox.frames().len() < 60 {
                agent.seal(plain, &mut self.dice);
            }
        }
        self.agent_turn(n)
    }

    /// An agent connects, or sends what it may.
    pub fn agent_acts(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        self.agent_turn(n)
    }

    pub(super) fn agent_turn(&mut self, n: usize) -> Result<(), Broken> {
        let window = 24_000 + self.dice.below(64_000) as u32;
        let sessions = self.sessions.as_mut().expect("agents are there");
        let agent = &mut sessions.agents[n];
        if agent.gave_up {
            return Ok(());
        }
        if let Some(line) = agent.line() {
            return sessions.lines.get_mut(&line).map_or(Ok(()), |wire| agent.send(wire));
        }
        sessions.made += 1;
        let (no, mut line) = (sessions.made, Line::default());
        line.up.send(&[&HELLO])?;
        agent.call = Call::Greeting(no);
        let gate = sessions.new_gate(sessions.agents[n].dataset.clone(), window);
        sessions.gates.insert(no, gate);
        sessions.lines.insert(no, line);
        self.say(|| format!("agent {n} makes connection {no}"));
        self.tally.count("connections made", 1);
        Ok(())
    }

    /// An agent takes its connection for dead and makes another; the old one's bytes are
    /// still under way.
    pub fn call_again(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        self.sessions().agents[n].hang_up();
        self.tally.count("connections left half open", 1);
        self.agent_turn(n)
    }

    /// An agent's machine crashes.
    pub fn agent_crashes(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        self.say(|| format!("agent {n} crashes"));
        self.tally.count("agents crashed", 1);
        let sessions = self.sessions.as_mut().expect("agents are there");
        sessions.agents[n].crash(&mut self.dice);
        Ok(())
    }

    /// An agent's machine crashes in the middle of sending and comes back at once: what the old
    /// connection holds arrives before, between or after what the new one says.
    pub fn agent_crashes_while_it_sends(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        self.seal_and_send(n)?;
        let (old, bytes) = (self.sessions().agents[n].line(), self.dice.below(10_000) as usize);
        old.map_or(Ok(()), |old| self.to_gate(old, bytes))?;
        self.tally.count("agents crashed", 1);
        let sessions = self.sessions.as_mut().expect("agents are there");
        sessions.agents[n].crash(&mut self.dice);
        self.agent_turn(n)?;
        let new = self.sessions().agents[n].line().expect("it just called");
        for _ in 0..3 {
            self.to_gate(new, usize::MAX)?;
            self.to_agent(new, usize::MAX)?;
        }
        self.seal_and_send(n)?;
        old.map_or(Ok(()), |old| self.to_gate(old, usize::MAX))?;
        self.to_gate(new, usize::MAX)
    }

    /// An agent writes down what is acknowledged.
    pub fn agent_saves(&mut self) -> Result<(), Broken> {
        let n = self.pick_agent();
        let agent = &mut self.sessions().agents[n];
        agent.saved = agent.outbox.acknowledged();
        agent.unsaved.clear();
        Ok(())
    }

    /// Bytes arrive at an agent; it acts upon what is whole.
    pub fn to_agent(&mut self, no: LineNo, bytes: usize) -> Result<(), Broken> {
        let sessions = self.sessions.as_mut().expect("agents are there");
        let Some(line) = sessions.lines.get_mut(&no) else { return Ok(()) };
        line.down.arrive(bytes);
        // Bytes of a connection that nobody holds any more are lost.
        let Some(agent) = sessions.agents.iter_mut().find(|a| a.line() == Some(no)) else { return Ok(()) };
        if matches!(agent.call, Call::Greeting(_)) {
            if line.down.take::<{ HELLO.len() }>().is_none() {
                return Ok(());
            }
            agent.call = Call::Welcome(no);
        }
        while let Some((head, body)) = line.down.peek()? {
            let answer = Response::parse(head.kind, body).map_err(|e| ("protocol", e.to_string()))?;
            line.down.done(head);
            self.trace.say(|| format!("connection {no}: the agent hears {answer:?}"));
            agent.heard(no, answer, line, &mut self.dice, &self.model)?;
            if agent.line() != Some(no) {
                return Ok(());
            }
        }
        agent.send(line)
    }
}

impl Agent {
    fn heard(&mut self, no: LineNo, answer: Response, line: &mut Line, dice: &mut Dice, model: &Model) -> Result<(), Broken> {
        let sound = |e: hoidla_protocol::client::Broken| ("sound agents served", e.to_string());
        match (std::mem::replace(&mut self.call, Call::None), answer) {
            (_, Response::Refused(refused)) => match refused.code {
                Code::EpochClosed | Code::Busy | Code::Slow | Code::Failed => {}
                Code::Full => self.gave_up = true,
                _ => return Err(("sound agents served", refused.to_string())),
            },
            (Call::Welcome(_), Response::Welcome(welcome)) => {
                let last = self.outbox.acknowledged();
                let open = Open { dataset: self.dataset.clone(), stream: self.stream, generation: 1, last };
                line.up.send(&[&Request::Open(open).encode()])?;
                self.call = Call::Opening(no, ClientSession::new(welcome), last);
            }
            (Call::Opening(_, mut session, last), Response::Opened(opened)) => {
                session.opened(self.stream, &last, &opened).map_err(sound)?;
                self.opened(&opened, dice)?;
                self.is_true(model)?;
                let (handle, at) = (opened.handle, self.outbox.acknowledged().length);
                self.call = Call::Open { line: no, session, handle, at };
            }
            (Call::Open { line, mut session, handle, at }, answer) => {
                session.received(&answer).map_err(sound)?;
                self.call = Call::Open { line, session, handle, at };
                if let Response::Acknowledged { before, .. } = answer {
                    self.acknowledge(before)?;
                    self.is_true(model)?;
                    if self.resuming && self.outbox.frames().is_empty() {
                        self.hang_up();
                    }
                }
            }
            (call, Response::Window { .. }) => self.call = call,
            (_, other) => return Err(("protocol", format!("an answer out of order: {other:?}"))),
        }
        Ok(())
    }

    /// *nothing unacknowledged*: what the agent believes to be kept, the store has acknowledged,
    /// byte for byte.
    fn is_true(&self, model: &Model) -> Result<(), Broken> {
        let believed = self.outbox.acknowledged();
        let kept = model.streams.get(&self.stream);
        let there = kept.map_or((0, Some(Chain::EMPTY)), |s| (s.acknowledged, s.chain_at(believed.length)));
        if believed.length > there.0 || there.1 != Some(believed) {
            let why = format!(
                "the agent of {} believes {} bytes to be kept; the store has acknowledged {}",
                self.stream, believed.length, there.0
            );
            return Err(("nothing unacknowledged", why));
        }
        Ok(())
    }
}
