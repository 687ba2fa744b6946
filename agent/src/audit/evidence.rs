//! A folder for an auditor: the completeness statement, and all that it rests on.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hoidla_format::{
    Moment, Name,
    statements::{Completeness, KeptStream},
};
use hoidla_log::Receipt;

use super::{Head, Kept, Led, kept::write, sample::Sampled};
use crate::home::Home;

/// The heads that a newer one was shown to extend.
pub struct Past {
    /// An earlier one: an auditor's, or the last that was kept.
    pub since: Option<Led>,
    /// Those that other appliances signed, by `SITE.APPLIANCE`.
    pub seen: Vec<(String, Led)>,
}

/// One stream of the dataset, with its receipt.
pub struct Proven {
    /// Its generation.
    pub generation: u32,
    /// Its receipt.
    pub receipt: Receipt,
    /// Whether this agent copied it in.
    pub copied_here: bool,
}

/// What an audit showed.
pub struct Audited {
    /// The newest head.
    pub head: Head,
    /// What it extends.
    pub past: Past,
    /// All streams, each with its receipt under that head.
    pub streams: Vec<Proven>,
    /// Random places of them.
    pub sampled: Sampled,
}

/// The agent's statement over what was proven.
fn statement(home: &Home, appliance: &Name, audited: &Audited) -> Completeness {
    let (checkpoint, sampled) = (&audited.head.signed, audited.sampled);
    let kept = |p: &Proven| {
        let covers = p.receipt.covers();
        let (stream, length, root) = (p.receipt.leaf().stream, covers.length, covers.root);
        KeptStream { generation: p.generation, stream, length, root, copied_here: p.copied_here }
    };
    Completeness {
        site: home.site.statement.site.clone(),
        appliance: appliance.clone(),
        dataset: home.dataset().clone(),
        agent: home.agent.statement.agent.clone(),
        checkpoint: checkpoint.note().hash(),
        log_size: checkpoint.head().size,
        counter: checkpoint.head().counter,
        sampled_frames: sampled.frames,
        sampled_bytes: sampled.bytes,
        created: Moment::now(),
        streams: audited.streams.iter().map(kept).collect(),
    }
}

/// Writes the folder, which must be new or empty.
pub fn write_to(dir: &Path, home: &Home, appliance: &Name, kept: &Kept, audited: &Audited) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    ensure!(fs::read_dir(dir)?.next().is_none(), "{} is not empty; give a new folder, so that evidence is not mixed", dir.display());
    fs::create_dir(dir.join("papers"))?;
    fs::create_dir(dir.join("receipts"))?;
    let agent = home.agent.statement.agent.as_str();
    let said = home.keys.signing.sign_statement(agent, &statement(home, appliance, audited));
    write(&dir.join("statement.txt"), said.as_bytes())?;
    write(&dir.join("agent.txt"), home.agent.note.as_bytes())?;
    write(&dir.join("checkpoint.txt"), audited.head.signed.write().as_bytes())?;
    if let Some(led) = &audited.past.since {
        write(&dir.join("before.txt"), led.from.write().as_bytes())?;
        write(&dir.join("extension.txt"), led.extension.write().as_bytes())?;
    }
    for (who, led) in &audited.past.seen {
        let folder = dir.join("witnessed").join(who);
        fs::create_dir_all(&folder)?;
        write(&folder.join("head.txt"), led.from.write().as_bytes())?;
        write(&folder.join("extension.txt"), led.extension.write().as_bytes())?;
    }
    for (name, paper) in kept.papers()?.into_iter().chain(kept.seen_papers()?) {
        write(&dir.join("papers").join(name), &paper)?;
    }
    for p in &audited.streams {
        write(&dir.join("receipts").join(format!("{}.txt", p.receipt.leaf().stream)), p.receipt.write().as_bytes())?;
    }
    Ok(())
}
