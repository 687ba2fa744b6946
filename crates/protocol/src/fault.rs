//! Mistakes that a session could make, made on purpose by the simulation.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "faults"), allow(dead_code, unreachable_pub))]
pub enum Fault {
    /// Acknowledges with one append whatever was sent after it.
    AnswerTooFar,
    /// Acknowledges an append when it is handed to the store.
    AnswerAtOnce,
    /// Never gives the window back.
    KeepWindow,
    /// Goes on taking appends of a writer whose stream was taken over.
    StaleWriter,
    /// Lets a new writer in while the former one's appends are under way.
    TakeOverAtOnce,
    /// Takes the frame after the one that the embassy stands at for acknowledged.
    ReconcileOffByOne,
    /// Goes on after a lost spool where that ended.
    LossUnseen,
}

/// Whether a mistake is switched on: never outside of tests of the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faulty {
    #[cfg(feature = "faults")]
    fault: Option<Fault>,
}

impl Faulty {
    /// Makes this mistake.
    #[cfg(feature = "faults")]
    pub fn with(fault: Option<Fault>) -> Self {
        Self { fault }
    }

    #[cfg(feature = "faults")]
    pub(crate) fn is(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    #[cfg(not(feature = "faults"))]
    pub(crate) fn is(self, _: Fault) -> bool {
        false
    }
}
