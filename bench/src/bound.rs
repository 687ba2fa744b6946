//! What bounds a push: the least of what disks, connection and pipeline can do alone.

use std::path::Path;

use anyhow::Result;

use crate::{
    fio::{self, Direction},
    pipeline,
    setup::written_file,
    sink,
};

/// Rates in bytes a second, each measured alone on the whole machine.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// fio's best, over the number of copies.
    pub disks: f64,
    /// The plain TLS sink.
    pub sink: f64,
    /// The agent's pipeline into nothing.
    pub pipeline: f64,
}

impl Bound {
    /// Measures all three; fio's files are made in `scratch` if they aren't there.
    pub async fn measure(scratch: &Path, source: &Path, copies: u32, bytes: u64) -> Result<Self> {
        for i in 0..copies {
            let file = scratch.join(format!("fio.{i}"));
            if !file.exists() {
                written_file(&file, bytes)?;
            }
        }
        let grid = fio::grid(scratch, copies, bytes, Direction::Write { flush_every: 16 << 20 })?;
        let disks = grid.iter().map(|f| f.rate).fold(0.0, f64::max) / f64::from(copies);
        let sink = sink::rate(bytes).await?;
        let source = source.to_owned();
        let pipeline = tokio::task::spawn_blocking(move || pipeline::rate(&source)).await??;
        Ok(Self { disks, sink, pipeline })
    }

    /// The least of them.
    pub fn least(&self) -> f64 {
        self.disks.min(self.sink).min(self.pipeline)
    }

    /// Which of them it is.
    pub fn name(&self) -> &'static str {
        match self.least() {
            l if l == self.pipeline => "the agent's pipeline",
            l if l == self.sink => "TLS",
            _ => "the disks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_named() {
        let b = Bound { disks: 3.0, sink: 2.0, pipeline: 1.0 };
        assert_eq!((b.least(), b.name()), (1.0, "the agent's pipeline"));
        assert_eq!(Bound { pipeline: 9.0, ..b }.name(), "TLS");
        assert_eq!(Bound { disks: 0.5, ..b }.name(), "the disks");
    }
}
