//! Rebuilding a lost disk from the other one, against fio that reads one file and writes
//! another at the same time. Nothing else is asked of the store meanwhile.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use hoidla_store::{Layout, Options};
use hoidla_uring::{Settings, State, Store};

use crate::{
    engine::{Rounds, write_all},
    fio::{self, Direction},
    rows::Row,
    setup::{KEY, Memory, Scratch, new_store, written_file},
};

/// The place of the disk that is lost.
const LOST: u8 = 1;

/// The row.
pub async fn rows(folder: &Path, gib: u64, rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new(folder)?;
    let bytes = gib << 30;
    for disk in ["store.0", "store.1", "new"] {
        written_file(&scratch.path().join(disk), bytes + bytes / 10 + (1 << 29))?;
    }
    (0..2).try_for_each(|i| written_file(&scratch.path().join(format!("fio.{i}")), bytes))?;
    let mut all = Rounds::default();
    for round in 1..=rounds {
        eprintln!("rebuilding a disk, round {round} of {rounds}");
        all.add(rebuild(scratch.path(), bytes).await?, fio::grid(scratch.path(), 1, bytes, Direction::Copy)?);
    }
    let note = "bytes of one copy, each checked against its hash on the way; limit: the disk that is read and written at once, then BLAKE3";
    Ok(vec![all.row(("rebuild_vs_fio", 0.8), note)])
}

/// Bytes a second.
async fn rebuild(folder: &Path, bytes: u64) -> Result<f64> {
    let (counters, id) = (Memory::default(), new_store());
    let disks = ["store.0", "store.1"].map(|n| folder.join(n));
    hoidla_uring::format(&disks, id, KEY, Layout::default(), &mut counters.clone())?;
    let settings = Settings { options: Options { prewrite: false, ..Options::default() }, ..Settings::default() };
    let (store, _) = Store::open(&disks, id, Box::new(counters), settings)?;
    store.register().await.map_err(anyhow::Error::msg)?;
    write_all(&store, bytes).await?;
    store.leave(LOST, "it is taken out".into()).await?;
    let began = Instant::now();
    store.join(LOST, &folder.join("new")).await?;
    let damage = store.rebuild().await?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(damage.is_empty(), "damage on fresh disks: {damage:?}");
    let all = store.disks().await?;
    let new = all.iter().find(|d| d.place == LOST).context("the place is known")?;
    ensure!(matches!(new.state, State::Current | State::Rebuilding(..)), "the new disk is not whole: {new:?}");
    if let State::Rebuilding(copied, wanted) = new.state {
        ensure!(copied == wanted && copied >= bytes, "{copied} of {wanted} bytes were copied");
    }
    store.close();
    Ok(bytes as f64 / seconds)
}
