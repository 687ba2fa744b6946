//! The counter in the TPM: survives everything, and is at times not to be had.

use std::{
    io,
    sync::{Arc, Mutex},
};

use hoidla_store::Counters;

struct State {
    value: u64,
    /// The log's, which begins where the TPM chose.
    log: u64,
    /// Calls that will fail.
    failing: u32,
    /// A call failed since this was asked last.
    failed: bool,
}

/// Membership, and the log's.
#[derive(Clone)]
pub struct Counter(Arc<Mutex<State>>);

impl Default for Counter {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { value: 0, log: 20, failing: 0, failed: false })))
    }
}

impl Counter {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.state().value
    }

    /// Where the log's counter stands.
    pub fn log(&self) -> u64 {
        self.state().log
    }

    /// The same state in a TPM of its own: what is raised in one never happened in the other.
    pub fn copy(&self) -> Self {
        let State { value, log, .. } = *self.state();
        Self(Arc::new(Mutex::new(State { value, log, failing: 0, failed: false })))
    }

    /// Somebody else on the TPM's bus raises the log's by so many.
    pub fn inject(&self, steps: u64) {
        self.state().log += steps;
    }

    /// The next calls fail, as when the TPM throttles.
    pub fn fail(&self, calls: u32) {
        self.state().failing = calls;
    }

    /// Whether a call failed since this was asked last.
    pub fn has_failed(&self) -> bool {
        std::mem::take(&mut self.state().failed)
    }

    fn call(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.failing == 0 {
            return Ok(state);
        }
        state.failing -= 1;
        state.failed = true;
        Err(io::Error::other("TPM_RC_NV_RATE"))
    }
}

impl Counters for Counter {
    fn membership(&self) -> io::Result<u64> {
        Ok(self.call()?.value)
    }

    fn raise_membership(&mut self, to: u64) -> io::Result<()> {
        let mut state = self.call()?;
        state.value = state.value.max(to);
        Ok(())
    }

    fn log_counter(&self) -> io::Result<u64> {
        Ok(self.call()?.log)
    }

    fn raise_log_counter(&mut self, to: u64) -> io::Result<u64> {
        let mut state = self.call()?;
        assert!(to <= state.log + 1, "the log's counter takes one step at a time");
        state.log = state.log.max(to);
        Ok(state.log)
    }
}
