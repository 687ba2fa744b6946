//! The agent's work without disk and network: read, cut, name, compress, pack, seal, and
//! drop the sealed message.

use std::{path::Path, time::Instant};

use anyhow::{Result, ensure};
use hoidla_crypto::{
    datakey::DataKey,
    sealing::{Provider, Sealer, sealed_len},
};
use hoidla_format::{StreamId, frame};
use hoidla_snapshot::{Cache, GenerationKey, Index, Options, Progress, Source, push};

/// Bytes of `folder`'s files a second, through the pipeline into nothing.
pub fn rate(folder: &Path) -> Result<f64> {
    let began = Instant::now();
    let (key, sealer) = (GenerationKey::random(), Sealer::new(&DataKey::random(), Provider::default()));
    let (dataset, stream) = ("bench".parse().map_err(anyhow::Error::msg)?, StreamId([1; 16]));
    let (mut offset, mut sealed) = (0, Vec::with_capacity(frame::MOST));
    let mut sink = |message: hoidla_snapshot::Message| {
        let aad = frame::message_aad(&dataset, stream, 1, offset);
        sealed.clear();
        sealer.seal(&aad, &message.bytes, &mut sealed).map_err(|e| e.to_string())?;
        offset += (frame::HEAD + sealed.len()) as u64;
        Ok(message.bytes)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { run: 1, message: frame::MOST - frame::HEAD - sealed_len(0), workers, skip: None };
    let pushed = push(Source::Path(folder), &key, &mut Index::in_memory(), &mut Cache::none(), options, &Progress::default(), &mut sink)?;
    ensure!(pushed.bytes > 0 && offset > 0, "nothing was copied");
    Ok(pushed.bytes as f64 / began.elapsed().as_secs_f64())
}
