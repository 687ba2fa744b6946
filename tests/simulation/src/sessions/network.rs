//! Connections: two directions of bytes, in order within each.

use std::collections::VecDeque;

use hoidla_protocol::{HEAD, Head};

use super::MARKER;
use crate::invariants::Broken;

/// Bytes under way in one direction.
#[derive(Default)]
pub struct Bytes {
    under_way: VecDeque<u8>,
    arrived: Vec<u8>,
}

impl Bytes {
    /// A whole message goes on its way.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), Broken> {
        for part in parts {
            if part.windows(MARKER.len()).any(|w| w == MARKER) {
                return Err(("no plaintext", "a message holds what an agent sealed".into()));
            }
            self.under_way.extend(*part);
        }
        Ok(())
    }

    /// So many bytes arrive.
    pub fn arrive(&mut self, bytes: usize) {
        let bytes = bytes.min(self.under_way.len());
        self.arrived.extend(self.under_way.drain(..bytes));
    }

    /// The first `N` bytes that arrived.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let first = *self.arrived.first_chunk()?;
        self.arrived.drain(..N);
        Some(first)
    }

    /// The head of the next message and its body, once it is whole; it stays.
    pub fn peek(&self) -> Result<Option<(Head, &[u8])>, Broken> {
        let Some(head) = self.arrived.first_chunk::<HEAD>() else { return Ok(None) };
        let head = Head::parse(head).map_err(|e| ("protocol", format!("a head that is none: {e}")))?;
        Ok(self.arrived.get(HEAD..HEAD + head.len).map(|body| (head, body)))
    }

    /// The message that was looked at is done with.
    pub fn done(&mut self, head: Head) {
        self.arrived.drain(..HEAD + head.len);
    }
}

/// One connection.
#[derive(Default)]
pub struct Line {
    /// From the agent to the appliance.
    pub up: Bytes,
    /// From the appliance to the agent.
    pub down: Bytes,
}
