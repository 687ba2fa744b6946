//! The bounds that a running appliance keeps to.

use std::time::Duration;

use crate::session::Patience;

/// Bounds on memory, time and crowds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of the store's buffers.
    pub memory: usize,
    /// Bytes of all windows together.
    pub windows: usize,
    /// Bytes of one connection's window.
    pub window: u32,
    /// How long a peer may take.
    pub patience: Patience,
    /// Connections in all, handshakes under way, from one address, of one peer. A home may have all its
    /// agents behind one address: who is through the door is bounded by its own number of connections.
    pub crowd: (usize, usize, usize, usize),
    /// How often the clocks are looked at.
    pub tick: Duration,
    /// How often the disk trays are looked at.
    pub trays: Duration,
    /// Open even if disks are gone that alone held something: that is lost for good.
    pub accept_loss: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory: 128 << 20,
            windows: 64 << 20,
            window: 16 << 20,
            patience: Patience::default(),
            crowd: (640, 64, 640, 4),
            tick: Duration::from_secs(60),
            trays: Duration::from_secs(10),
            accept_loss: false,
        }
    }
}
