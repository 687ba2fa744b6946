//! `hoidla-demo`: the story from dealing keys to restoring after home is lost, told aloud.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hoidla_cli::{NextStep, Outcome, human, main_with};
use hoidla_journey::{Narrator, Stage, story};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// Deals keys, copies PATH in, kills, searches, loses home, and restores.
#[derive(Parser)]
#[command(name = "hoidla-demo", version)]
struct Arguments {
    /// What to copy in; the Rust toolchain's libraries if not given.
    path: Option<PathBuf>,
    /// Where to play it: a folder on a disk with direct I/O.
    #[arg(long, value_name = "DIR")]
    stage: Option<PathBuf>,
    /// Leave everything in place afterwards.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    main_with(|| {
        let arguments = Arguments::parse();
        ensure!(nix::unistd::geteuid().is_root(), "the demo reads hoidlad's memory, which takes root; next: run it as root");
        let path = path(arguments.path)?;
        let scratch = tempfile::Builder::new().prefix("hoidla-demo-").tempdir_in(on_disk(arguments.stage)?)?;
        let folder = scratch.path().to_owned();
        let result = play(&folder, &path);
        if arguments.keep || result.is_err() {
            let _ = scratch.keep();
            eprintln!("everything is left in {}; logs of all programs in {}", folder.display(), folder.join("logs").display());
        }
        result.map(|()| Outcome::Done)
    })
}

fn play(folder: &Path, path: &Path) -> Result<()> {
    let mut stage = Stage::new(folder, Narrator::aloud())?;
    stage.narrator.say(&format!(
        "This plays a data embassy's worst day on one machine: {} from {}, real programs, a software TPM, two disks in files. It takes a few minutes.",
        human::bytes(story::weigh(path)?),
        path.display()
    ));
    let told = story::tell(&mut stage, path)?;
    story::table(&stage, &told);
    stage.narrator.say("\nAll that was made for this is deleted now; with --keep it stays.");
    Ok(())
}

/// PATH, or the libraries of the Rust toolchain: some hundred MB that every machine here has.
fn path(given: Option<PathBuf>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => {
            let out = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot ask rustc where it lives")?;
            Path::new(String::from_utf8(out.stdout)?.trim()).join("lib")
        }
    };
    path.canonicalize().with_context(|| format!("cannot read {}", path.display())).next("give a file or a folder that exists")
}

/// A folder that is not in memory: the disks want direct I/O.
fn on_disk(given: Option<PathBuf>) -> Result<PathBuf> {
    let places = given.map_or_else(|| vec![std::env::temp_dir(), PathBuf::from("/var/tmp")], |p| vec![p]);
    let fits = |p: &&PathBuf| statfs(p.as_path()).is_ok_and(|s| s.filesystem_type() != TMPFS_MAGIC);
    places.iter().find(fits).cloned().context("no folder on a disk was found").next("name one with --stage DIR")
}
