//! Agents copy in over a network that loses, delays and cuts: the real sessions of
//! `hoidla_protocol` on both sides, above them what an agent keeps and seals, below them
//! the real store. The seam lies below TLS and sealing: frames are made from the seed.

mod agent;
mod gate;
mod network;

use std::collections::BTreeMap;

use hoidla_format::{Name, StreamId};
use hoidla_protocol::{Faulty, Writers, answers::Turn};
use hoidla_store::Ticket;

use crate::{invariants::Broken, plan::Mistake, world::World};

use agent::Agent;
use gate::Gate;
use network::Line;

/// Stands in every plaintext, and must stand in no message and on no disk.
pub const MARKER: &[u8] = b"plain words of a registry";

/// A connection, by the order in which they were made.
type LineNo = u64;
/// What names a stream to the appliance.
type Key = (Name, StreamId);

/// All that is above the store.
pub struct Sessions {
    agents: Vec<Agent>,
    lines: BTreeMap<LineNo, Line>,
    gates: BTreeMap<LineNo, Gate>,
    writers: Writers<Key>,
    /// Whose append a ticket of the store is.
    tickets: BTreeMap<Ticket, (LineNo, Turn)>,
    made: LineNo,
    faulty: Faulty,
}

impl Sessions {
    /// Some agents, none of them connected.
    pub fn new(agents: u64, mistake: Option<Mistake>) -> Self {
        let faulty = Faulty::with(mistake.and_then(Mistake::session));
        let agents = (0..agents).map(|n| Agent::new(n as u8, faulty)).collect();
        #[rustfmt::skip]
        let sessions = Self { agents, lines: BTreeMap::new(), gates: BTreeMap::new(), writers: Writers::new(faulty), tickets: BTreeMap::new(), made: 0, faulty };
        sessions
    }

    /// The store's word about an append, if it came through a gate.
    pub fn acknowledged(&mut self, ticket: Ticket, log_size: u64) {
        if let Some((line, turn)) = self.tickets.remove(&ticket) {
            self.settle(line, turn, Ok(Some(log_size)));
        }
    }

    /// The appliance is gone, with all connections and whatever it knew of them.
    pub fn crash(&mut self) {
        self.writers = Writers::new(self.faulty);
        (self.lines, self.gates, self.tickets) = Default::default();
        self.agents.iter_mut().for_each(Agent::hang_up);
    }

    fn pick_line(&self, at: u64) -> Option<LineNo> {
        self.lines.keys().nth((at % self.lines.len().max(1) as u64) as usize).copied()
    }
}

impl World {
    fn sessions(&mut self) -> &mut Sessions {
        self.sessions.as_mut().expect("agents are there")
    }

    fn pick_agent(&mut self) -> usize {
        let n = self.sessions().agents.len() as u64;
        self.dice.below(n) as usize
    }

    /// Some bytes of one connection arrive, in one direction; what is whole is acted upon.
    pub fn deliver(&mut self) -> Result<(), Broken> {
        for _ in 0..1 + self.dice.below(4) {
            let at = self.dice.below(1 << 16);
            let Some(no) = self.sessions().pick_line(at) else { return Ok(()) };
            let bytes = match self.dice.below(3) {
                0 => 1 + self.dice.below(40) as usize,
                1 => 1 + self.dice.below(8000) as usize,
                _ => usize::MAX,
            };
            if self.dice.one_in(2) { self.to_gate(no, bytes)? } else { self.to_agent(no, bytes)? }
        }
        Ok(())
    }

    /// The network cuts a connection: of what was under way each side gets a part, or nothing.
    pub fn cut_line(&mut self) -> Result<(), Broken> {
        let at = self.dice.below(1 << 16);
        let Some(no) = self.sessions().pick_line(at) else { return Ok(()) };
        self.tally.count("connections cut", 1);
        self.say(|| format!("connection {no} is cut"));
        let (up, down) = (self.dice.below(20_000) as usize, self.dice.below(2000) as usize);
        self.to_gate(no, up)?;
        self.to_agent(no, down)?;
        self.sessions().agents.iter_mut().filter(|a| a.line() == Some(no)).for_each(Agent::hang_up);
        self.gate_is_left(no);
        Ok(())
    }

    /// Once all is quiet, every agent gets through with all that it has sealed.
    pub fn all_get_through(&mut self) -> Result<(), Broken> {
        for _ in 0..400 {
            for agent in 0..self.sessions().agents.len() {
                self.agent_turn(agent)?;
            }
            let lines: Vec<_> = self.sessions().lines.keys().copied().collect();
            for no in lines {
                self.to_gate(no, usize::MAX)?;
                self.drain()?;
                self.to_gate(no, usize::MAX)?;
                self.to_agent(no, usize::MAX)?;
            }
            if self.sessions().agents.iter().all(|a| a.has_nothing_to_send()) {
                return Ok(());
            }
        }
        Err(("progress", "an agent doesn't get through, though nothing stands in its way".into()))
    }
}
