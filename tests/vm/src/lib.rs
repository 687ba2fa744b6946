//! The appliance as a machine, in QEMU: what tests of the image stand on.
#![forbid(unsafe_code)]

pub mod boot_disk;
pub mod embassy;
pub mod machine;
pub mod nvram;
pub mod spare;
pub mod variables;
pub mod wire;

pub use embassy::Embassy;
pub use machine::{Machine, Parts, Start};
pub use spare::Spare;
pub use wire::Wire;
