//! The home authority's program, for an offline machine that witnesses watch.
//!
//! Promises: everything it puts into `public/` is public or sealed and signed; secrets are
//! written with mode 0600 under a passphrase only; nothing that was signed is overwritten by
//! something else, but an appliance's halves and enrolment, which grow. It can't vouch for the
//! machine it runs on: that is what witnesses and an offline machine are for.
//!
//! One module a subject: [`site`], [`roster`], [`deal`](mod@deal), [`release`], [`enrol`](mod@enrol),
//! [`agent`], [`stick`]; [`home`] decides the folder's layout once.
#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod clock;
pub mod count;
pub mod deal;
pub mod disk;
pub mod endorse;
pub mod enrol;
pub mod halves;
pub mod home;
pub mod release;
pub mod roster;
pub mod site;
pub mod stick;
