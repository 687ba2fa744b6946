//! `hoidla-vm`: the appliance as a machine for a person to try, its console in the terminal.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use hoidla_cli::{Outcome, main_with};
use hoidla_journey::Narrator;
use hoidla_vm::{Embassy, Machine};

/// Founds an embassy with a machine in it, enrols it, and switches it on.
///
/// Example: hoidla-vm --folder target/vm; then, in another terminal, the command that it prints.
#[derive(Parser)]
#[command(name = "hoidla-vm", version)]
struct Arguments {
    /// Where everything lies: a folder on a disk with direct I/O. It is made anew each time.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    main_with(|| {
        let folder = Arguments::parse().folder;
        if folder.exists() {
            // Only what this program made: it holds a machine.
            anyhow::ensure!(folder.join("machine").is_dir(), "{} is something else; name another folder", folder.display());
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let embassy = Embassy::found(&folder, Narrator::aloud())?;
        embassy.stage.narrator.say(&format!(
            "\nThe machine is switched on; half a minute until its door is open. Ctrl-C pulls its plug.\n\
             To copy something in, in another terminal:\n  cd {}; hoidla-agent push --home home/agent --passphrase-file home/agent/passphrase PATH\n",
            folder.canonicalize()?.display()
        ));
        Machine::attended(&embassy.parts()?)?;
        Ok(Outcome::Done)
    })
}
