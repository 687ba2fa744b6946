//! What an agent has sealed and the embassy has not acknowledged yet, in order.
//!
//! Promises: frames lie one right after the other, from the acknowledged end on; only
//! whole frames are acknowledged; what the embassy says of the stream is held against
//! what was sent, and other bytes, or half a frame, are an error and not data.

use std::collections::VecDeque;

use hoidla_format::frame::Chain;
use thiserror::Error;

use crate::fault::{Fault, Faulty};

/// A frame that is kept until it is acknowledged.
pub trait Framed {
    /// Its first byte's offset in the stream.
    fn offset(&self) -> u64;
    /// The stream's chain after it.
    fn after(&self) -> Chain;
}

/// What no sound embassy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Odd {
    /// It holds something else.
    #[error("the embassy holds other bytes than this agent sent: stop, and tell the authority")]
    OtherBytes,
    /// It stands where no frame ends.
    #[error("the embassy stands at {0} bytes of the stream, where no frame of this agent ends: stop, and tell the authority")]
    HalfAFrame(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Outbox<F> {
    frames: VecDeque<F>,
    acknowledged: Chain,
    faulty: Faulty,
}

impl<F: Framed> Outbox<F> {
    /// Of a stream that is acknowledged so far.
    pub fn new(acknowledged: Chain, faulty: Faulty) -> Self {
        Self { frames: VecDeque::new(), acknowledged, faulty }
    }

    /// What is acknowledged.
    pub fn acknowledged(&self) -> Chain {
        self.acknowledged
    }

    /// The chain at the end of all frames.
    pub fn end(&self) -> Chain {
        self.frames.back().map_or(self.acknowledged, Framed::after)
    }

    /// The frames that wait, in order.
    pub fn frames(&self) -> &VecDeque<F> {
        &self.frames
    }

    /// Adds a frame at the end.
    pub fn push(&mut self, frame: F) {
        debug_assert_eq!(frame.offset(), self.end().length);
        self.frames.push_back(frame);
    }

    /// The frame that begins at `offset`; none if that is the end.
    pub fn at(&self, offset: u64) -> Result<Option<&F>, Odd> {
        let found = self.frames.get(self.frames.partition_point(|f| f.offset() < offset));
        if found.is_some_and(|f| f.offset() != offset) || (found.is_none() && offset != self.end().length) {
            return Err(Odd::HalfAFrame(offset));
        }
        Ok(found)
    }

    /// The first frame leaves, if it ends at `before` or earlier; all before that is kept
    /// in the embassy.
    pub fn acknowledge_one(&mut self, before: u64) -> Option<F> {
        let frame = self.frames.pop_front_if(|f| f.after().length <= before)?;
        self.acknowledged = frame.after();
        Some(frame)
    }

    /// Whether all before `offset` is acknowledged, and no more.
    pub fn stands_at(&self, offset: u64) -> Result<(), Odd> {
        if self.acknowledged.length == offset { Ok(()) } else { Err(Odd::HalfAFrame(offset)) }
    }

    /// Up to where frames may be acknowledged when the embassy says that the stream
    /// stands there; none if the embassy holds more than was kept here.
    pub fn reconcile(&self, stands: Chain) -> Result<Option<u64>, Odd> {
        if stands == self.acknowledged {
            return Ok(Some(stands.length));
        }
        if stands.length > self.end().length {
            return Ok((self.faulty.is(Fault::LossUnseen)).then(|| self.end().length));
        }
        let i = self.frames.iter().position(|f| f.after().length == stands.length);
        let frame = match i {
            Some(i) => &self.frames[i],
            None if stands.length == self.acknowledged.length => return Err(Odd::OtherBytes),
            None => return Err(Odd::HalfAFrame(stands.length)),
        };
        if frame.after() != stands {
            return Err(Odd::OtherBytes);
        }
        let next = i.and_then(|i| self.frames.get(i + 1)).filter(|_| self.faulty.is(Fault::ReconcileOffByOne));
        Ok(Some(next.unwrap_or(frame).after().length))
    }

    /// Begins anew where the stream stands; gives what was kept.
    pub fn reset(&mut self, stands: Chain) -> VecDeque<F> {
        self.acknowledged = stands;
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use hoidla_format::Hash32;

    use super::*;

    struct Frame(u64, Chain);

    impl Framed for Frame {
        fn offset(&self) -> u64 {
            self.0
        }

        fn after(&self) -> Chain {
            self.1
        }
    }

    fn three() -> Outbox<Frame> {
        let mut outbox = Outbox::new(Chain::EMPTY, Faulty::default());
        for n in 1..=3 {
            let end = outbox.end();
            outbox.push(Frame(end.length, end.then(&Hash32([n; 32]), 10)));
        }
        outbox
    }

    #[test]
    fn whole_frames_leave_in_order() {
        let mut outbox = three();
        assert_eq!(outbox.at(10).unwrap().map(Framed::offset), Some(10));
        assert!(outbox.at(30).unwrap().is_none(), "the end");
        assert!(outbox.at(5).is_err() && outbox.at(31).is_err());
        assert!(outbox.acknowledge_one(9).is_none());
        assert!(outbox.acknowledge_one(20).is_some() && outbox.acknowledge_one(20).is_some() && outbox.acknowledge_one(20).is_none());
        assert_eq!((outbox.stands_at(20), outbox.stands_at(25)), (Ok(()), Err(Odd::HalfAFrame(25))));
    }

    #[test]
    fn the_embassys_word_is_held_against_what_was_sent() {
        let outbox = three();
        let (second, end) = (outbox.frames()[1].1, outbox.end());
        assert_eq!(outbox.reconcile(Chain::EMPTY), Ok(Some(0)));
        assert_eq!(outbox.reconcile(second), Ok(Some(20)));
        assert_eq!(outbox.reconcile(end), Ok(Some(30)));
        assert_eq!(outbox.reconcile(Chain { length: 31, ..end }), Ok(None), "the spool's end was lost");
        assert_eq!(outbox.reconcile(Chain { root: Hash32([9; 32]), ..second }), Err(Odd::OtherBytes));
        assert_eq!(outbox.reconcile(Chain { root: Hash32([9; 32]), ..Chain::EMPTY }), Err(Odd::OtherBytes));
        assert_eq!(outbox.reconcile(Chain { length: 15, ..second }), Err(Odd::HalfAFrame(15)));
    }
}
