//! `hoidla-vm`: the appliance as a machine for a person to try, its console in the terminal.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::Parser;
use hoidla_cli::{Outcome, Screen, main_with};
use hoidla_journey::{Narrator, stage::APPLIANCE};
use hoidla_verify::manifest;
use hoidla_vm::{Embassy, Machine, Parts, Start};

/// Founds an embassy with a machine in it, enrols it, and switches it on.
///
/// Example: hoidla-vm --folder target/vm; then, in another terminal, the command that it prints.
/// With --new the machine comes as its maker delivers it, and you are its field engineer.
#[derive(Parser)]
#[command(name = "hoidla-vm", version)]
struct Arguments {
    /// Where everything lies: a folder on a disk with direct I/O. It is made anew each time.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,

    /// A new machine and its stick: set it up by docs/runbooks/field-engineer.md.
    #[arg(long)]
    new: bool,
}

/// How a person speaks to what is around the machine.
const KEYS: &str = "Ctrl-A x pulls the plug; Ctrl-A c, then system_powerdown and Enter, is the power button (Ctrl-A c leads back).";

/// What one can do with a new machine while it is off.
const CHOICES: [(&str, &str); 5] = [
    ("stick", "switch it on with the stick in, and choose that in the firmware's menu"),
    ("both", "switch it on with the stick in, and choose nothing"),
    ("disks", "switch it on without the stick"),
    ("home", "bring the stick home: what is on it is read and answered"),
    ("end", "leave it at this"),
];

fn main() -> ExitCode {
    main_with(|| {
        let Arguments { folder, new } = Arguments::parse();
        if folder.exists() {
            // Only what this program made: it holds a machine.
            ensure!(folder.join("machine").is_dir(), "{} is something else; name another folder", folder.display());
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        if new {
            practise(&folder)?
        } else {
            watch(&folder)?
        }
        Ok(Outcome::Done)
    })
}

fn watch(folder: &Path) -> anyhow::Result<()> {
    let embassy = Embassy::found(folder, Narrator::aloud())?;
    println!();
    say("The machine is switched on; half a minute until its door is open.");
    say(KEYS);
    println!("\n{}", push(folder)?);
    Machine::attended(&embassy.parts()?, false)
}

fn push(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.canonicalize()?;
    let agent = "hoidla-agent push --home home/agent --passphrase-file home/agent/passphrase PATH";
    Ok(format!("To copy something in, in another terminal:\n  cd {}; {agent}\n", folder.display()))
}

/// A person is the field engineer of a new machine, and the one who carries its stick.
fn practise(folder: &Path) -> anyhow::Result<()> {
    let mut embassy = Embassy::bare(folder, Narrator::aloud())?;
    let boot_key = manifest::boot_key_digits(&std::fs::read(embassy.stage.at("home/boot/boot.crt"))?);
    let mut paper = Screen::new();
    paper.words("The paper that came with the stick:").field("appliance", APPLIANCE).field("boot key", &boot_key);
    println!("\n{}\n", paper.text().trim_end());
    say(KEYS);
    loop {
        let mut choices = Screen::new();
        choices.words("The machine is off.");
        CHOICES.iter().for_each(|(word, what)| _ = choices.field(word, what));
        println!("\n{}", choices.text().trim_end());
        match asked()?.as_deref() {
            Some("stick") => Machine::attended(&Parts { start: Start::Stick(embassy.stick()), ..embassy.parts()? }, true)?,
            Some("both") => {
                Machine::attended(&Parts { start: Start::Stick(embassy.stick()), by_entries: true, ..embassy.parts()? }, true)?;
            }
            Some("disks") => Machine::attended(&Parts { by_entries: true, ..embassy.parts()? }, true)?,
            Some("home") => home(&mut embassy, folder).unwrap_or_else(|e| say(&format!("{e:#}"))),
            Some("end") | None => return Ok(()),
            Some(_) => say("That is none of these words."),
        }
    }
}

/// What home does with a stick depends on what the machine put there.
fn home(embassy: &mut Embassy, folder: &Path) -> anyhow::Result<()> {
    let has = |paper: &str| embassy.from_stick(&format!("{paper}-{APPLIANCE}.txt")).is_ok();
    let (identified, enrolled) = (has("identity"), has("enrolment"));
    embassy.record()?;
    say("Home has recorded the machine's TPM.");
    if enrolled {
        embassy.take_enrolment()?;
        say("Home has the enrolment: the machine is the embassy's. Switch it on without the stick.");
        println!("{}", push(folder)?);
    } else if identified {
        embassy.answer()?;
        say("Home has compared the identity's digits, and its answer is on the stick.");
    }
    Ok(())
}

fn say(what: &str) {
    println!("{}", Screen::new().words(what).text().trim_end());
}

/// A word, or none at the end of the input.
fn asked() -> anyhow::Result<Option<String>> {
    print!("Type a word and press Enter: ");
    io::stdout().flush()?;
    let mut line = String::new();
    Ok((io::stdin().read_line(&mut line)? > 0).then(|| line.trim().to_owned()))
}
