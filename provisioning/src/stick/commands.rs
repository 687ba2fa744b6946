//! The commands for sticks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use hoidla_cli::{NextStep, Output, confirm_typed, files::gather};
use hoidla_medium::{papers, stick};
use serde_json::json;

use super::{device::Disk, facts::Facts, home, write};

/// What is done with a stick.
#[derive(Subcommand)]
pub enum StickCommand {
    /// Write a stick's image to a device, and compare every byte with what the device gives back.
    #[command(after_help = "Example:
  hoidla-provision stick write hoidla.img --to /dev/sdb --papers H/public")]
    Write {
        /// The stick's bytes, as hoidla-image stick wrote them.
        image: PathBuf,
        /// The whole disk. Everything on it is lost.
        #[arg(long, value_name = "DEVICE")]
        to: PathBuf,
        /// Put the files of this folder among the stick's papers.
        #[arg(long, value_name = "FOLDER")]
        papers: Option<PathBuf>,
        /// Take a disk that is not one to pull out.
        #[arg(long)]
        not_removable: bool,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take home what the rack wrote on a stick.
    #[command(after_help = "Example:
  hoidla-provision stick read --from /dev/sdb --out from-lux-1")]
    Read {
        /// The stick, or a file with its bytes.
        #[arg(long, value_name = "DEVICE")]
        from: PathBuf,
        /// Where to. Nothing that is there is overwritten.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

/// Does what was asked.
///
/// # Errors
/// If it can't be done, or can't be told.
pub fn run(command: &StickCommand, output: &Output) -> Result<()> {
    match command {
        StickCommand::Write { image, to, papers, not_removable, yes } => {
            let facts = Facts::of(to)?;
            facts.check(*not_removable)?;
            let bytes = with_papers(image, papers.as_deref())?;
            let question = format!("/dev/{}: {}\nAll that is on this disk will be lost.", facts.name, facts.label());
            ensure!(*yes || confirm_typed(&question, &facts.word())?, "not confirmed: nothing was written");
            let mut disk = Disk::open(to)?;
            write::try_out(&mut disk)?;
            write::write(&mut disk, &bytes, output.draws())?;
            let text = format!("The stick is written and compared, byte for byte: {}.\nPull it out.", facts.label());
            output.result(&json!({ "device": to, "model": facts.model, "serial": facts.serial, "bytes": bytes.len() }), text)
        }
        StickCommand::Read { from, out } => {
            let names = home::take(from, out)?;
            let text = match names.is_empty() {
                true => "There are no papers on this stick.".into(),
                false => format!("In {}: {}.\nnext: what each of them is for, the runbook says", out.display(), names.join(", ")),
            };
            output.result(&json!({ "folder": out, "files": names }), text)
        }
    }
}

/// The image's bytes, with these files among its papers.
fn with_papers(image: &Path, folder: Option<&Path>) -> Result<Vec<u8>> {
    let long = fs::metadata(image).with_context(|| format!("{} cannot be read", image.display()))?.len() != stick::SIZE as u64;
    let not = || format!("{} is no stick of Hoidla's", image.display());
    ensure!(!long, "{}: make one with hoidla-image stick", not());
    let mut bytes = fs::read(image).with_context(not)?;
    stick::read(&bytes).with_context(not).next("make one with hoidla-image stick")?;
    for path in folder.map(|f| gather(&[f.to_owned()])).transpose()?.unwrap_or_default() {
        let name = path.file_name().and_then(|n| n.to_str()).with_context(|| format!("{} has a name that is no text", path.display()))?;
        let content = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(content.len() <= papers::LENGTH, "{} is too long for a stick's papers", path.display());
        papers::put(&mut bytes[stick::PAPERS], name, &content).with_context(|| path.display().to_string())?;
    }
    Ok(bytes)
}
