//! What the appliance answers to the appends of one connection, in their order.
//!
//! Promises: an append is acknowledged only when it and all before it on its connection
//! were kept; an acknowledgement never goes back; a stream's first refusal is told and
//! nothing after it; the window comes back for every frame that was counted against it,
//! once, whatever became of it.

use std::collections::{HashMap, VecDeque};

use crate::{
    Handle, Refused, Response, ServerSession,
    fault::{Fault, Faulty},
};

/// Names an append among those of its connection.
pub type Turn = u64;

/// What became of an append: the log's size when it was kept, none if it had been kept
/// before; or why not.
pub type Outcome = Result<Option<u64>, Refused>;

#[derive(Debug)]
struct Waiting {
    /// The frame's stream and end; none for one that was dropped.
    append: Option<(Handle, u64)>,
    frame: u32,
    outcome: Option<Outcome>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Answers {
    waiting: VecDeque<Waiting>,
    /// The turn of the first that waits.
    first: Turn,
    log_size: u64,
    /// By stream: all before this offset was acknowledged.
    kept: HashMap<Handle, u64>,
    faulty: Faulty,
}

impl Answers {
    /// To a connection that has sent nothing yet.
    pub fn new(faulty: Faulty) -> Self {
        Self { faulty, ..Self::default() }
    }

    /// A frame was handed to the store; it ends at `end` of its stream.
    pub fn submitted(&mut self, handle: Handle, end: u64, frame: u32) -> Turn {
        let outcome = self.faulty.is(Fault::AnswerAtOnce).then_some(Ok(None));
        self.push(Waiting { append: Some((handle, end)), frame, outcome })
    }

    /// A frame was read and dropped: only its window is given back.
    pub fn dropped(&mut self, frame: u32) {
        self.push(Waiting { append: None, frame, outcome: Some(Ok(None)) });
    }

    fn push(&mut self, waiting: Waiting) -> Turn {
        self.waiting.push_back(waiting);
        self.first + self.waiting.len() as u64 - 1
    }

    /// What became of an append.
    pub fn settled(&mut self, turn: Turn, outcome: Outcome) {
        let at = turn.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(waiting) = at.and_then(|at| self.waiting.get_mut(at)) {
            waiting.outcome.get_or_insert(outcome);
        }
    }

    /// What to tell the peer next, if the first that waits is settled.
    pub fn next(&mut self, session: &mut ServerSession) -> Option<Vec<Response>> {
        let Waiting { append, frame, outcome } = self.waiting.pop_front_if(|w| w.outcome.is_some())?;
        self.first += 1;
        let mut answers = Vec::new();
        if let (Some((handle, end)), Some(outcome)) = (append, outcome) {
            answers.extend(self.verdict(session, handle, end, outcome));
        }
        if !self.faulty.is(Fault::KeepWindow) {
            session.give_back(frame.into());
            answers.push(Response::Window { bytes: frame });
        }
        Some(answers)
    }

    fn verdict(&mut self, session: &mut ServerSession, handle: Handle, end: u64, outcome: Outcome) -> Option<Response> {
        match outcome {
            Ok(log_size) => {
                self.log_size = log_size.unwrap_or(0).max(self.log_size);
                let last = self.waiting.iter().filter_map(|w| w.append).rfind(|a| a.0 == handle && self.faulty.is(Fault::AnswerTooFar));
                let kept = self.kept.entry(handle).or_default();
                *kept = last.map_or(end, |(_, last)| last).max(*kept);
                Some(Response::Acknowledged { handle, before: *kept, log_size: self.log_size })
            }
            Err(refused) => session.refuse(handle).then(|| Response::Refused(refused.about(handle))),
        }
    }

    /// Frames that wait for their answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use hoidla_format::{StreamId, frame::Chain};

    use super::*;
    use crate::{Code, Opened, Role};

    fn session() -> (ServerSession, Handle) {
        let dataset: hoidla_format::Name = "land".parse().unwrap();
        let role = Role::Agent { dataset: dataset.clone(), agent: "one".parse().unwrap() };
        let mut session = ServerSession::new(role, 1 << 20);
        let opened = Opened { handle: Handle(0), epoch: 0, closed: false, acknowledged: Chain::EMPTY };
        let handle = session.opened(dataset, StreamId([1; 16]), 1, opened).unwrap().handle;
        (session, handle)
    }

    fn kept(handle: Handle, before: u64, log_size: u64, window: u32) -> Option<Vec<Response>> {
        Some(vec![Response::Acknowledged { handle, before, log_size }, Response::Window { bytes: window }])
    }

    #[test]
    fn answers_go_out_in_the_order_of_the_appends() {
        let ((mut session, handle), mut answers) = (session(), Answers::default());
        let (first, second) = (answers.submitted(handle, 10, 10), answers.submitted(handle, 30, 20));
        answers.settled(second, Ok(Some(2)));
        assert_eq!(answers.next(&mut session), None, "the first is under way");
        answers.settled(first, Ok(Some(1)));
        assert_eq!(answers.next(&mut session), kept(handle, 10, 1, 10));
        assert_eq!(answers.next(&mut session), kept(handle, 30, 2, 20));
        let again = answers.submitted(handle, 10, 10);
        answers.settled(again, Ok(None));
        assert_eq!(answers.next(&mut session), kept(handle, 30, 2, 10), "an acknowledgement never goes back");
    }

    #[test]
    fn the_first_refusal_is_told_and_every_window_comes_back_once() {
        let ((mut session, handle), mut answers) = (session(), Answers::default());
        let turns = [answers.submitted(handle, 10, 10), answers.submitted(handle, 20, 10)];
        answers.dropped(5);
        turns.iter().for_each(|t| answers.settled(*t, Err(Refused::new(Code::Full, "full"))));
        let told = answers.next(&mut session).unwrap();
        assert!(matches!(&told[..], [Response::Refused(r), Response::Window { bytes: 10 }] if r.handle == Some(handle)));
        assert_eq!(answers.next(&mut session), Some(vec![Response::Window { bytes: 10 }]));
        assert_eq!(answers.next(&mut session), Some(vec![Response::Window { bytes: 5 }]));
        answers.settled(turns[0], Ok(None));
        assert_eq!((answers.next(&mut session), answers.waiting()), (None, 0), "a second word on the same append is nothing");
    }
}
