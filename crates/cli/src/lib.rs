//! What all programs share: how they end, ask, show progress and write.
//!
//! Promises: exit codes mean the same everywhere ([`main_with`]); every error says
//! what to do next when somebody wrote it down ([`NextStep::next`]); passphrases
//! are never echoed and are wiped ([`Passphrase`]); nothing hostile reaches a
//! terminal as a control character ([`screen::plain`]). It does not know what any
//! program does, and a swapped-out page is out of its hands if the system refuses
//! to lock memory ([`harden`] says so).
#![forbid(unsafe_code)]

pub mod ask;
pub mod end;
pub mod files;
pub mod guard;
pub mod human;
pub mod output;
pub mod progress;
pub mod screen;

pub use ask::{Passphrase, PassphraseSource, confirm_typed};
pub use end::{NextStep, Outcome, main_with};
pub use guard::{Hardened, harden};
pub use output::Output;
pub use progress::Progress;
pub use screen::Screen;
