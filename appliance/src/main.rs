//! `hoidlad`: the appliance's one program.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use hoidla_cli::{NextStep, Outcome, Output, Screen, human, main_with};
use hoidla_format::{Moment, Name, profile::Profile, statement};
use hoidla_tpm::Tcti;
use hoidlad::{
    config::State,
    confined::Way,
    daemon::{self, Panel, Settings},
    enrol::{self, Enrol},
    erase::{Eraser, Found},
    hardware,
    helper::{self, Helpers},
    identify,
    papers::Papers,
    scrub,
    time::skips::Skips,
    trays::words::Words,
    update::Next,
};
use tokio::signal::unix::{SignalKind, signal};

/// The sealed storage appliance of a data embassy.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// The state folder; it holds appliance.toml.
    #[arg(long, global = true, default_value = "/var/lib/hoidla")]
    state: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the TPM's endorsement key, for home to record before the machine is shipped.
    #[command(after_help = "Example:
  hoidlad endorse --out ek.txt
then, at home: hoidla-provision record-ek lux-1 ek.txt")]
    Endorse {
        /// Where the TPM is.
        #[arg(long, default_value = "device:/dev/tpmrm0")]
        tpm: Tcti,
        /// Where to put it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make this TPM's keys and write who it is, with the proof: take it home.
    Identify {
        /// The site file, signed by the authority.
        site: PathBuf,
        /// This appliance's name in it.
        #[arg(long)]
        name: Name,
        /// Where to put the identity, besides the state folder.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Check the authority's papers, import the halves, prepare the disks.
    Enrol {
        /// Files and folders with signed papers.
        #[arg(required = true)]
        papers: Vec<PathBuf>,
        /// Make disk files of so many bytes where there are none (4096, 64M, 8G).
        #[arg(long, value_parser = bytes)]
        disk_size: Option<u64>,
        /// Erase the disks and begin anew. Everything on them is lost.
        #[arg(long)]
        format: bool,
        /// Where to put the enrolment that this TPM opened: home keeps it (hoidla-provision proven).
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Serve.
    Run {
        /// Write logs as JSON.
        #[arg(long)]
        log_json: bool,
        /// Go on although disks are lost that alone held something. That is then lost here for
        /// good, even if they come back: attach every disk that can still be found first.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Check every stored byte on every disk, without keys; hoidlad must be stopped.
    Verify,
    /// Take the authority's word that time passed while this machine was off.
    Skip {
        /// The word, as the authority signed it.
        word: PathBuf,
    },
    /// Take the authority's word that somebody raised the log's counter by other means: the store goes on; hoidlad must be stopped.
    Recount {
        /// The word, as the authority signed it.
        word: PathBuf,
    },
    /// Take the authority's word that a disk with something on it may be erased and used.
    AllowDisk {
        /// The word, as the authority signed it.
        word: PathBuf,
    },
    /// Erase a disk that leaves, read it back, and write a certificate; hoidlad must be stopped.
    EraseDisk {
        /// The tray, from 1.
        #[arg(required_unless_present = "all")]
        tray: Option<u8>,
        /// Give it up first, if it counts as a copy and others hold what it holds.
        #[arg(long)]
        leave: bool,
        /// All disks of a machine that leaves for good; its TPM opens nothing any more.
        #[arg(long, conflicts_with_all = ["tray", "leave"])]
        all: bool,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Say how the running appliance is.
    Status,
    /// Write down this machine, or compare it with what was written.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Answer one question of an opening. Started by hoidlad itself.
    #[command(name = helper::COMMAND, hide = true)]
    OpenHelper {
        /// How it reaches the TPM.
        way: Way,
    },
}

#[derive(Subcommand)]
enum ProfileCommand {
    /// Write a hardware profile of this machine, for a person to look over.
    Capture {
        /// Its name: that of the file.
        name: Name,
        /// Its name for people.
        #[arg(long, default_value = "")]
        title: String,
        /// Where to: a folder.
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Say how this machine differs from a profile. Exit code 1: it does.
    Check {
        /// The profile.
        profile: PathBuf,
    },
}

/// A number of bytes with K, M, G or T behind it.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.len() - text.chars().last().filter(|c| c.is_ascii_alphabetic()).map_or(0, char::len_utf8));
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err("use a number of bytes, with K, M, G or T behind it".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "use a number of bytes, with K, M, G or T behind it".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too many bytes".into())
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        hoidlad::pid1::run();
    }
    main_with(|| {
        let cli = Cli::parse();
        if let Command::OpenHelper { way } = cli.command {
            helper::run(way)?;
            return Ok(Outcome::Done);
        }
        if let Command::Profile(command) = &cli.command {
            return profile(command, &cli.output);
        }
        hoidla_tpm::silence_libtss2();
        if let Command::Endorse { tpm, out } = &cli.command {
            return endorse_command(&cli.output, tpm, out);
        }
        let state = State::at(&cli.state)?;
        match cli.command {
            Command::Identify { site, name, out } => identify_command(&state, &cli.output, &site, &name, out),
            Command::Enrol { papers, disk_size, format, out } => {
                enrol_command(&state, &cli.output, Enrol { papers, disk_size, format }, out)
            }
            Command::Run { log_json, accept_loss } => run(&state, log_json, accept_loss),
            Command::Verify => verify(&state, &cli.output),
            Command::Skip { word } => skip(&state, &cli.output, &word),
            Command::Recount { word } => recount(&state, &cli.output, &word),
            Command::AllowDisk { word } => allow_disk(&state, &cli.output, &word),
            Command::EraseDisk { tray, leave, all: _, yes } => erase_disk(&state, &cli.output, tray, leave, yes),
            Command::Status => status(&state, &cli.output),
            Command::Profile(_) | Command::OpenHelper { .. } | Command::Endorse { .. } => unreachable!("answered above"),
        }
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn endorse_command(output: &Output, tpm: &Tcti, out: &PathBuf) -> anyhow::Result<Outcome> {
    let endorsement = identify::endorse(tpm)?;
    let digits = identify::ek_digits(&endorsement.ek)?;
    hoidlad::config::replace(out, statement::write(&endorsement).as_bytes())?;
    let text = format!(
        "The endorsement key of this machine's TPM is in {}.\nKey {digits}: write these digits down with the machine's serial number.\n\
         next, before the machine leaves your sight: hoidla-provision record-ek APPLIANCE {}",
        out.display(),
        out.display()
    );
    output.result(&serde_json::json!({ "endorsement": out, "fingerprint": digits, "tpm": endorsement.tpm }), text)?;
    Ok(Outcome::Done)
}

fn identify_command(state: &State, output: &Output, site: &PathBuf, name: &Name, out: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let note = fs::read(site).with_context(|| format!("{} cannot be read", site.display()))?;
    let identity = identify::identify(state, &note, name)?;
    let path = state.identity();
    if let Some(out) = &out {
        fs::copy(&path, out).with_context(|| format!("{} cannot be written", out.display()))?;
    }
    let (path, digits) = (out.unwrap_or(path), identify::digits(&identity));
    let text = format!(
        "The identity of {name} is in {}.\nIdentity {digits}: read these digits out by telephone to the authority.\nIts endorsement key is {}: home compares it with the one it recorded before shipping. Where none was recorded, nothing proves that this TPM is genuine.\n\
         next: take it home, let the authority deal and enrol for it, and bring back the folder that it wrote",
        path.display(),
        identify::ek_digits(&identity.ek)?
    );
    output.result(
        &serde_json::json!({ "identity": path, "fingerprint": digits, "tpm": identity.tpm, "ek": identify::ek_digits(&identity.ek)? }),
        text,
    )?;
    Ok(Outcome::Done)
}

fn enrol_command(state: &State, output: &Output, ask: Enrol, out: Option<PathBuf>) -> anyhow::Result<Outcome> {
    if ask.format {
        let name = identify::known(state)?.name;
        let question = "All that is on this appliance's disks will be lost.";
        anyhow::ensure!(hoidla_cli::confirm_typed(question, name.as_str())?, "not confirmed: nothing was changed");
    }
    let done = enrol::enrol(state, &ask)?;
    let site = &done.papers.site.statement;
    let mut text = format!(
        "{} is enrolled in {}, site file {}: {} halves imported, disks {}.",
        done.papers.identity.name,
        site.site,
        site.serial,
        done.halves,
        if done.formatted { "formatted" } else { "kept as they were" }
    );
    if site.development {
        text += "\nThis is a DEVELOPMENT site: for drills and tests only.";
    }
    let proof = done.papers.enrolment.statement.proof;
    text += &format!("\nThe TPM: {}.", proof.words());
    if let Some(out) = &out {
        hoidlad::config::replace(out, done.papers.enrolment.note.as_bytes())?;
        text += &format!("\nnext: take {} home, for hoidla-provision proven", out.display());
    }
    let json = serde_json::json!({
        "appliance": done.papers.identity.name, "site": site.site, "serial": site.serial, "development": site.development,
        "halves": done.halves, "formatted": done.formatted, "proof": proof,
    });
    output.result(&json, text)?;
    Ok(Outcome::Done)
}

fn run(state: &State, log_json: bool, accept_loss: bool) -> anyhow::Result<Outcome> {
    let hardened = hoidla_cli::harden();
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOIDLA_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log_json {
        log.json().init()
    } else {
        log.init()
    }
    if !hardened.undumpable {
        tracing::warn!("this system lets other processes look into this one");
    }
    if !hardened.locked {
        tracing::warn!("not all memory could be locked, keys apart: raise the memory lock limit, or have no swap");
    }
    if accept_loss {
        tracing::warn!(
            "--accept-loss: if a disk is missing that alone held something, that is now lost for good; start without it next time"
        );
    }
    let settings = Settings { accept_loss, ..Settings::default() };
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let running = daemon::start(state, settings.clone(), Helpers::this_program()?).await?;
            // Asked to end while nobody listened, between one start and the next.
            let asked = tokio::select! { biased; _ = terminate.recv() => true, () = std::future::ready(()) => false };
            if asked {
                running.daemon.ask_to_stop();
            }
            match running.serve().await? {
                Next::Stop => return anyhow::Ok(()),
                Next::Again => tracing::info!("beginning anew under newer papers"),
            }
        }
    })?;
    Ok(Outcome::Done)
}

fn verify(state: &State, output: &Output) -> anyhow::Result<Outcome> {
    let found = runtime()?.block_on(scrub::scrub(state, output)).next("stop hoidlad first: only one program has the disks")?;
    let mut text = format!(
        "{} records in {} segments checked, {} bytes read; {} repaired, {} damaged beyond repair",
        found.records,
        found.segments,
        found.bytes,
        found.repaired.len(),
        found.damage.len()
    );
    for line in &found.repaired {
        text += &format!("\nrepaired: {line}");
    }
    for line in &found.damage {
        text += &format!("\nDAMAGED: {line}");
    }
    if let Some(why) = &found.only_reads {
        text += &format!("\nALARM: {why}");
    }
    if found.missing > 0 {
        text += &format!("\n{} disks are missing", found.missing);
    }
    output.result(&found, text)?;
    Ok(if found.is_whole() { Outcome::Done } else { Outcome::No })
}

fn skip(state: &State, output: &Output, word: &PathBuf) -> anyhow::Result<Outcome> {
    let note = fs::read(word).with_context(|| format!("{} cannot be read", word.display()))?;
    let (authority, identity) = (state.config()?.authority_key()?, identify::known(state)?);
    let papers = Papers::kept(&state.papers(), &authority, &identity)?;
    let taken = Skips::kept(state, &authority, &papers)?.take(&note, state, &authority, &papers)?;
    let days = (taken.to - taken.from) / 86_400;
    let text = format!(
        "Taken: time goes on from {} s to {} s, {days} days ({}).\nIt counts as soon as the running appliance has reached its beginning, within a minute; its log says so.",
        taken.from, taken.to, taken.reason
    );
    output.result(&serde_json::json!({ "serial": taken.serial, "from": taken.from, "to": taken.to, "reason": taken.reason }), text)?;
    Ok(Outcome::Done)
}

fn recount(state: &State, output: &Output, word: &PathBuf) -> anyhow::Result<Outcome> {
    let note = fs::read(word).with_context(|| format!("{} cannot be read", word.display()))?;
    let taken = runtime()?.block_on(hoidlad::recount::recount(state, &note))?;
    let text = format!(
        "Taken: the store goes on from the counter's {} ({}). Its log extends the {} leaves that home knows.\nStart hoidlad, and have agents audit.",
        taken.stands, taken.reason, taken.log_size
    );
    output.result(&serde_json::json!({ "stands": taken.stands, "log_size": taken.log_size, "reason": taken.reason }), text)?;
    Ok(Outcome::Done)
}

fn allow_disk(state: &State, output: &Output, word: &PathBuf) -> anyhow::Result<Outcome> {
    let note = fs::read(word).with_context(|| format!("{} cannot be read", word.display()))?;
    let words = Words::new(state, state.config()?.authority_key()?, identify::known(state)?);
    let taken = words.take(&note)?;
    let text = format!(
        "Taken: the disk in tray {} may be erased and used, if what is on it is what home was told.\nThe running appliance looks at it within a minute; hoidlad status says what became of it.",
        taken.tray
    );
    output.result(&serde_json::json!({ "tray": taken.tray, "serial": taken.serial, "seen": taken.seen }), text)?;
    Ok(Outcome::Done)
}

/// One disk, or all if no tray is named.
fn erase_disk(state: &State, output: &Output, tray: Option<u8>, leave: bool, yes: bool) -> anyhow::Result<Outcome> {
    let eraser = Eraser::new(state)?;
    let found = tray.map_or_else(|| eraser.look_everywhere(), |tray| Ok(vec![eraser.look(tray)?]))?;
    let tell = |f: &Found| {
        let serial = if f.serial.is_empty() { "no serial number" } else { &f.serial };
        format!("Tray {}: {}, {}, {serial}, {}", f.tray, f.was, human::bytes(f.bytes), f.path.display())
    };
    let all: Vec<String> = found.iter().map(tell).collect();
    let (question, word) = match tray {
        Some(tray) => ("All that is on this disk will be lost.", format!("{tray}/{}", found[0].serial)),
        None => {
            ("All that this appliance keeps will be lost, and it will never open anything again.", identify::known(state)?.name.to_string())
        }
    };
    let word = word.trim_end_matches('/');
    anyhow::ensure!(
        yes || hoidla_cli::confirm_typed(&format!("{}\n{question}", all.join("\n")), word)?,
        "not confirmed: nothing was changed"
    );
    let done = runtime()?.block_on(async {
        match tray {
            Some(_) => Ok(vec![eraser.erase(&found[0], leave, output).await?]),
            None => eraser.erase_all(&found, output).await,
        }
    })?;
    let mut text = String::new();
    for d in &done {
        let says = d.certificate.says();
        text += &format!(
            "Tray {}: {} overwritten and read back as zeros. Certificate: {}\n",
            says.tray,
            human::bytes(says.bytes),
            d.file.display()
        );
    }
    text += match tray {
        Some(_) => "Take the disk out before hoidlad starts: a blank one in a tray is taken into use.",
        None => "The TPM opens no vault any more under any release that it knew.",
    };
    let files: Vec<_> = done.iter().map(|d| serde_json::json!({ "tray": d.certificate.says().tray, "certificate": d.file })).collect();
    output.result(&serde_json::json!({ "erased": files, "retired": tray.is_none() }), text)?;
    Ok(Outcome::Done)
}

fn profile(command: &ProfileCommand, output: &Output) -> anyhow::Result<Outcome> {
    let kernel = hardware::Kernel::here();
    match command {
        ProfileCommand::Capture { name, title, out } => {
            let path = out.join(format!("{name}.toml"));
            anyhow::ensure!(!path.exists(), "{} is there already: name another", path.display());
            let profile = hardware::capture(&kernel, name.clone(), title)?;
            fs::write(&path, profile.write()).with_context(|| format!("{} cannot be written", path.display()))?;
            let text = format!(
                "Written to {}.\nnext: compare trays with the numbers on the machine, network ports with their cables, and judge its TPM",
                path.display()
            );
            output.result(&serde_json::json!({ "profile": path, "trays": profile.trays.len() }), text)?;
            Ok(Outcome::Done)
        }
        ProfileCommand::Check { profile: path } => {
            let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let profile = Profile::parse(&text).with_context(|| path.display().to_string())?;
            let found = hardware::check(&kernel, &profile);
            let text = if found.is_empty() { format!("This machine is what {} says.", profile.name) } else { found.join("\n") };
            output.result(&serde_json::json!({ "profile": profile.name, "differences": found }), text)?;
            Ok(if found.is_empty() { Outcome::Done } else { Outcome::No })
        }
    }
}

fn status(state: &State, output: &Output) -> anyhow::Result<Outcome> {
    let path = state.health();
    let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display())).next("start hoidlad run")?;
    let panel: Panel = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let age = Moment::now().seconds().saturating_sub(panel.written);
    let alive = age <= 10 && PathBuf::from(format!("/proc/{}", panel.pid)).exists();
    let mut screen = Screen::new();
    let how = match (alive, panel.openings) {
        (false, _) => "NOT RUNNING".into(),
        (true, 0) => "running, sealed".into(),
        (true, open) => format!("running, OPEN for {open} grants"),
    };
    screen.heading(&format!("{}: {how}", panel.appliance));
    if panel.development {
        screen.words(&format!("DEVELOPMENT RELEASE {}: for drills and tests only.", panel.release));
    }
    screen.field("TPM", panel.tpm_proof.words());
    screen.field("listens", &panel.listen);
    screen.field("disks", &format!("{} of {} current", panel.disks.1, panel.disks.0));
    screen.field("used", &format!("{} of {}, {} streams", human::bytes(panel.used.0), human::bytes(panel.used.1), panel.streams));
    screen.field("log", &format!("{} leaves", panel.log_size));
    screen.field("open", &format!("{} grants", panel.openings));
    screen.field("alarms", &format!("{} alarms, {} damaged", panel.alarms, panel.damaged));
    panel.standing.iter().for_each(|what| _ = screen.item(&format!("ALARM: {what}")));
    panel.wrong_clock.iter().for_each(|why| _ = screen.item(&format!("nobody is let in: {why}")));
    screen.field(
        "time",
        &format!(
            "powered for {} days ({} s); {} generations ended since the start",
            panel.ages.powered / 86_400,
            panel.ages.powered,
            panel.ages.ended
        ),
    );
    screen.field("whole", &panel.wholeness.words(panel.ages.powered));
    panel.wholeness.damage.iter().for_each(|d| _ = screen.item(&format!("DAMAGED: {d}")));
    panel.ages.generations.iter().chain(&panel.ages.odd).for_each(|line| _ = screen.item(line));
    for tray in &panel.trays {
        screen.field(&format!("tray {}", tray.tray), &tray.says);
    }
    panel.troubles.iter().for_each(|t| _ = screen.item(&format!("since the start: {t}")));
    output.result(&serde_json::json!({ "alive": alive, "seconds_old": age, "panel": panel }), screen.text())?;
    let well = alive && panel.disks.0 == panel.disks.1 && panel.alarms == 0 && panel.damaged == 0;
    Ok(if well { Outcome::Done } else { Outcome::No })
}
