//! The command line, and what each command prints.

use std::path::PathBuf;

use anyhow::Result;
use base64ct::{Base64, Encoding};
use clap::{Parser, Subcommand};
use hoidla_cli::{Outcome, Output, PassphraseSource, Screen};
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::{
    Hash32, Name,
    statements::{ApplianceEntry, Custodian, Door, Proof},
    text::from_hex,
};
use hoidla_quorum::fingerprint;
use serde_json::json;

use crate::{
    agent, clock, count, deal, disk, endorse, enrol,
    home::Home,
    release, roster, site,
    stick::{self, StickCommand},
};

/// The home authority's program, for an offline, witnessed machine.
#[derive(Parser)]
#[command(name = "hoidla-provision", version, after_help = EXAMPLES)]
pub struct Args {
    /// The authority's folder.
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    home: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "In order:
  hoidla-provision --home H site new --site lux --appliance lux-1=127.0.0.1:4460
  hoidla-provision --home H roster sign --quorum 3 --custodians a.txt b.txt c.txt d.txt e.txt \\
      --recovery-quorum 5 --recovery f.txt g.txt h.txt i.txt j.txt k.txt l.txt
  hoidla-provision --home H site sign
  (at the machine, before it is shipped: hoidlad endorse --out ek.txt)
  hoidla-provision --home H record-ek lux-1 ek.txt
  (at the rack: hoidlad identify)
  hoidla-provision --home H deal --identity identity.txt
  hoidla-provision --home H release sign --name drill --pcrs pcrs.json
  hoidla-provision --home H enrol lux-1
  hoidla-provision --home H agent --dataset population --name push-1
  (then carry H/public to the appliance: hoidlad enrol; H/agents/... to the institution)";

#[derive(Subcommand)]
enum Command {
    /// The site file.
    #[command(subcommand)]
    Site(SiteCommand),
    /// The rosters.
    #[command(subcommand)]
    Roster(RosterCommand),
    /// The releases.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// An appliance's time.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// The counter of an appliance's log.
    #[command(subcommand)]
    Count(CountCommand),
    /// An appliance's disks.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Sticks for the rack.
    #[command(subcommand)]
    Stick(StickCommand),
    /// Record which TPM an appliance must have, before it is shipped.
    #[command(after_help = "Example:
  hoidla-provision --home H record-ek lux-1 ek.txt")]
    RecordEk {
        /// The appliance.
        appliance: Name,
        /// The endorsement key, as hoidlad endorse wrote it.
        file: PathBuf,
        /// Take it although another is recorded: the hardware was replaced.
        #[arg(long)]
        replace: bool,
    },
    /// Take back the enrolment that an appliance's TPM opened, for auditors.
    #[command(after_help = "Example (the file that hoidlad enrol --out wrote):
  hoidla-provision --home H proven enrolment.txt")]
    Proven {
        /// The enrolment.
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Deal the next vault epoch of some or all datasets.
    #[command(after_help = "Examples:
  hoidla-provision --home H deal --identity identity.txt     all datasets without a vault
  hoidla-provision --home H deal --dataset population        the next vault epoch of one")]
    Deal {
        /// Only this dataset; may be given again. Without it: all that have no vault yet.
        #[arg(long, value_name = "NAME")]
        dataset: Vec<Name>,
        /// An appliance's identity, as hoidlad identify wrote it; may be given again.
        #[arg(long, value_name = "FILE")]
        identity: Vec<PathBuf>,
        /// Take an identity although another is recorded: the hardware was replaced.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Sign an appliance's enrolment and its node certificate, after dealing.
    #[command(after_help = "Example:
  hoidla-provision --home H enrol lux-1")]
    Enrol {
        /// The appliance.
        appliance: Name,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Make an agent's bundle: key file, certificates, site file, vault certificates.
    #[command(after_help = "Example:
  hoidla-provision --home H agent --dataset population --name push-1 --agent-passphrase-file pw")]
    Agent {
        /// The only dataset it may append to.
        #[arg(long, value_name = "NAME")]
        dataset: Name,
        /// The agent's name.
        #[arg(long, value_name = "NAME")]
        name: Name,
        /// For how long its certificate is valid.
        #[arg(long, default_value_t = 365)]
        days: u32,
        /// Take the new key file's passphrase from the first line of FILE instead of asking.
        #[arg(long, value_name = "FILE")]
        agent_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Subcommand)]
enum SiteCommand {
    /// Make the authority's keys and a site file to edit.
    #[command(after_help = "Example:
  hoidla-provision --home H site new --site lux --appliance lux-1=127.0.0.1:4460")]
    New {
        /// The site's name.
        #[arg(long, value_name = "NAME")]
        site: Name,
        /// A machine and where it listens; may be given again.
        #[arg(long, value_name = "NAME=HOST:PORT", required = true, value_parser = appliance)]
        appliance: Vec<ApplianceEntry>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Check the edited site file and sign it.
    #[command(after_help = "Example:
  hoidla-provision --home H site sign")]
    Sign {
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Subcommand)]
enum RosterCommand {
    /// Sign a roster out of the custodians' public cards, and put its hash into site.toml.
    #[command(after_help = "Example:
  hoidla-provision --home H roster sign --quorum 2 --custodians a.txt b.txt c.txt \\
      --recovery-quorum 3 --recovery a.txt b.txt c.txt d.txt")]
    Sign {
        /// The roster's name.
        #[arg(long, default_value = site::FIRST_ROSTER, value_name = "NAME")]
        name: Name,
        /// How many custodians open, with the appliance's TPM.
        #[arg(long, default_value_t = 3)]
        quorum: u8,
        /// The custodians' cards.
        #[arg(long, num_args = 1.., required = true, value_name = "CARD")]
        custodians: Vec<PathBuf>,
        /// How many recovery custodians open at home, without the TPM.
        #[arg(long, default_value_t = 5)]
        recovery_quorum: u8,
        /// The recovery custodians' cards.
        #[arg(long, num_args = 1.., required = true, value_name = "CARD")]
        recovery: Vec<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Subcommand)]
enum ClockCommand {
    /// Sign the word that time passed while an appliance was off: retention goes on from there.
    #[command(after_help = "Example (the seconds are those that hoidlad status shows):
  hoidla-provision --home H clock skip lux-1 --from 8640000 --days 90 --reason \"moved to another hall\"
then, at the appliance: hoidlad skip skip-lux-1-1.txt")]
    Skip {
        /// The appliance.
        appliance: Name,
        /// The powered seconds at which it stands.
        #[arg(long, value_name = "SECONDS")]
        from: u64,
        /// How many days it was off.
        #[arg(long)]
        days: u32,
        /// Why, for its log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Subcommand)]
enum CountCommand {
    /// Sign the word that somebody raised the log's counter by other means: a store that only reads goes on.
    #[command(
        after_help = "Example (the count is the one that hoidlad status shows; the checkpoint the newest that agents and auditors hold):
  hoidla-provision --home H count vouch lux-1 --stands 8013 --checkpoint checkpoint.txt --reason \"a tool on the TPM\"
then, at the appliance, stopped: hoidlad recount count-lux-1-8013.txt"
    )]
    Vouch {
        /// The appliance.
        appliance: Name,
        /// Where its counter stands.
        #[arg(long, value_name = "COUNT")]
        stands: u64,
        /// The newest head of its log that anybody holds: the log must extend it.
        #[arg(long, value_name = "FILE")]
        checkpoint: PathBuf,
        /// Why, for its log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

fn hash(text: &str) -> std::result::Result<Hash32, &'static str> {
    from_hex(text).map(Hash32).ok_or("copy the 64 digits that hoidlad status shows")
}

#[derive(Subcommand)]
enum DiskCommand {
    /// Sign the word that a disk with something on it may be erased and used.
    #[command(after_help = "Example (tray and hash are those that hoidlad status shows):
  hoidla-provision --home H disk allow lux-1 --tray 3 --seen HASH
then, at the appliance: hoidlad allow-disk disk-lux-1-1.txt")]
    Allow {
        /// The appliance.
        appliance: Name,
        /// The tray, from 1.
        #[arg(long)]
        tray: u8,
        /// The hash of what was seen on the disk.
        #[arg(long, value_name = "HASH", value_parser = hash)]
        seen: Hash32,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Subcommand)]
enum ReleaseCommand {
    /// Approve an image's PCR values, for the vault epochs that may be opened.
    #[command(after_help = "Examples:
  hoidla-provision --home H release sign --name drill --pcrs pcrs.json
  hoidla-provision --home H release sign --name drill --pcrs pcrs.json --retire population:1

pcrs.json: {\"4\": \"<64 hexadecimal digits>\", \"11\": ..., \"12\": ..., \"13\": ...}")]
    Sign {
        /// The release's name.
        #[arg(long, value_name = "NAME")]
        name: Name,
        /// The PCR values that the image gives (JSON).
        #[arg(long, value_name = "FILE")]
        pcrs: PathBuf,
        /// Leave out this vault epoch, for good; may be given again.
        #[arg(long, value_name = "DATASET:EPOCH", value_parser = release::vault_epoch)]
        retire: Vec<(Name, u32)>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

fn appliance(text: &str) -> Result<ApplianceEntry, String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=HOST:PORT, such as lux-1=127.0.0.1:4460")?;
    Ok(ApplianceEntry { name: name.parse()?, address: address.to_owned(), network: None, health: None })
}

/// Runs one command.
pub fn run(args: Args) -> Result<Outcome> {
    let Args { home, output, command } = args;
    let home = Home::at(&home);
    match command {
        Command::Site(SiteCommand::New { site, appliance, passphrase }) => new_site(&home, &site, &appliance, &passphrase, &output)?,
        Command::Site(SiteCommand::Sign { passphrase }) => sign_site(&home, &passphrase, &output)?,
        Command::Roster(RosterCommand::Sign { name, quorum, custodians, recovery_quorum, recovery, passphrase }) => {
            let request = roster::Request { name, quorum, recovery_quorum, custodians, recovery };
            sign_roster(&home, &request, &passphrase, &output)?;
        }
        Command::Release(ReleaseCommand::Sign { name, pcrs, retire, passphrase }) => {
            let release = release::sign(&home, &name, &pcrs, &retire, &passphrase)?;
            let text = format!("signed release {name}, release epoch {}, for {} vault epochs", release.epoch, release.vaults.len());
            output.result(&json!({ "release": name, "epoch": release.epoch, "vaults": release.vaults.len() }), text)?;
        }
        Command::Clock(ClockCommand::Skip { appliance, from, days, reason, passphrase }) => {
            let (file, word) = clock::skip(&home, &clock::Request { appliance, from, days, reason }, &passphrase)?;
            let text = format!(
                "{}: the time of {} goes on from {} s to {} s, {days} days.\nGenerations whose days are over by then end at once. Next, at the appliance: hoidlad skip FILE",
                file.display(),
                word.appliance,
                word.from,
                word.to
            );
            output.result(
                &json!({ "file": file, "appliance": word.appliance, "serial": word.serial, "from": word.from, "to": word.to }),
                text,
            )?;
        }
        Command::Count(CountCommand::Vouch { appliance, stands, checkpoint, reason, passphrase }) => {
            let (file, word) = count::vouch(&home, &count::Request { appliance, stands, checkpoint, reason }, &passphrase)?;
            let text = format!(
                "{}: {} goes on from its counter's {}, if its log extends the {} leaves of that head.\nNext, at the appliance, with hoidlad stopped: hoidlad recount FILE",
                file.display(),
                word.appliance,
                word.stands,
                word.log_size
            );
            let value = json!({ "file": file, "appliance": word.appliance, "stands": word.stands, "log_size": word.log_size });
            output.result(&value, text)?;
        }
        Command::Disk(DiskCommand::Allow { appliance, tray, seen, passphrase }) => {
            let (file, word) = disk::allow(&home, &disk::Request { appliance, tray, seen }, &passphrase)?;
            let text = format!(
                "{}: the disk in tray {} of {} may be erased, if it is the one that was seen.\nNext, at the appliance: hoidlad allow-disk FILE",
                file.display(),
                word.tray,
                word.appliance
            );
            output.result(&json!({ "file": file, "appliance": word.appliance, "tray": word.tray, "serial": word.serial }), text)?;
        }
        Command::Stick(command) => stick::commands::run(&command, &output)?,
        Command::RecordEk { appliance, file, replace } => {
            let endorsement = endorse::record(&home, &appliance, &file, replace)?;
            let digits = endorse::digits(&endorsement.ek)?;
            let text = format!(
                "Recorded: {appliance} must have the TPM with the endorsement key {digits}.\nHalves and enrolment will be sealed to it. Compare these digits with those that the machine showed."
            );
            output.result(&json!({ "appliance": appliance, "fingerprint": digits, "tpm": endorsement.tpm }), text)?;
        }
        Command::Proven { file, passphrase } => {
            let enrolment = endorse::proven(&home, &home.keys(&passphrase)?, &file)?;
            let (name, path) = (&enrolment.appliance, home.public_enrolment(&enrolment.appliance));
            let text = format!("{name}'s TPM opened its parcel. The enrolment is in {} now, for auditors.", path.display());
            output.result(&json!({ "appliance": name, "proof": enrolment.proof, "file": path }), text)?;
        }
        Command::Deal { dataset, identity, replace, passphrase } => {
            let request = deal::Request { datasets: dataset, identities: identity, replace };
            run_deal(&home, &request, &passphrase, &output)?;
        }
        Command::Enrol { appliance, passphrase } => run_enrol(&home, &appliance, &passphrase, &output)?,
        Command::Agent { dataset, name, days, agent_passphrase_file, passphrase } => {
            let agent_passphrase = PassphraseSource { passphrase_file: agent_passphrase_file };
            let request = agent::Request { dataset, agent: name, days, agent_passphrase };
            let (folder, certificate) = agent::issue(&home, &request, &passphrase)?;
            let text = format!("bundle for {} in {}; valid until {}", certificate.agent, folder.display(), certificate.not_after);
            output.result(&json!({ "folder": folder, "agent": certificate.agent, "not_after": certificate.not_after }), text)?;
        }
    }
    Ok(Outcome::Done)
}

fn new_site(home: &Home, name: &Name, appliances: &[ApplianceEntry], passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let text = site::new(home, name, appliances, passphrase)?;
    let made = site::read_edited(&home.site_toml(), &text)?;
    let authority = Base64::encode_string(&made.authority.0);
    let digits = fingerprint::of_key(&VerifyingKey::from_sec1(&made.authority.0)?);
    let mut screen = Screen::new();
    screen.heading(&format!("A new site: {name}"));
    screen.field("site file", &home.site_toml().display().to_string());
    screen.gap().words("The authority's key, for each machine's appliance.toml:").words(&authority);
    screen.gap().words("Its digits, for custodians to compare by telephone:").words(&digits);
    screen.gap().words("It is a drill site (development = true). Look through the site file, then sign the roster and the site.");
    output.result(&json!({ "site": name, "site_toml": home.site_toml(), "authority": authority, "fingerprint": digits }), screen.text())
}

fn sign_site(home: &Home, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let signed = site::sign(home, passphrase)?;
    let (file, digits) = (home.site(), &signed.authority);
    let text = format!("signed {}, serial {}\nhash {}\nauthority {digits}", file.display(), signed.serial, signed.hash);
    output.result(&json!({ "file": file, "serial": signed.serial, "hash": signed.hash, "fingerprint": digits }), text)
}

fn sign_roster(home: &Home, request: &roster::Request, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let (signed, hash) = roster::sign(home, request, passphrase)?;
    let (m, n, rm, rn) = (signed.quorum, signed.custodians.len(), signed.recovery_quorum, signed.recovery.len());
    let names = |all: &[Custodian]| all.iter().map(|c| c.name.to_string()).collect::<Vec<_>>();
    let mut screen = Screen::new();
    screen.heading(&format!("Roster {}", signed.name));
    screen.field("opens", &format!("{m} of {n}: {}", names(&signed.custodians).join(", ")));
    screen.field("recovers", &format!("{rm} of {rn}: {}", names(&signed.recovery).join(", ")));
    screen.gap().words("Each card's digits; the custodian read the same when making the key:");
    let again = |c: &&Custodian| !signed.custodians.contains(c);
    for card in signed.custodians.iter().chain(signed.recovery.iter().filter(again)) {
        screen.field(card.name.as_str(), &fingerprint::of_card(card));
    }
    screen.gap().words(&format!("hash {hash}"));
    screen.gap().words(&format!("The hash stands in site.toml now. Next: hoidla-provision --home {} site sign", home.dir().display()));
    let value = json!({ "roster": signed.name, "hash": hash, "quorum": m, "custodians": names(&signed.custodians),
        "recovery_quorum": rm, "recovery": names(&signed.recovery), "file": home.roster(&signed.name) });
    output.result(&value, screen.text())
}

fn run_deal(home: &Home, request: &deal::Request, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let dealt = deal::deal(home, request, passphrase, output)?;
    let rows: Vec<_> = dealt
        .vaults
        .iter()
        .map(|v| {
            let of = |door, quorum: u8| format!("{quorum} of {}", v.commitments.iter().filter(|c| c.door == door).count());
            let (opens, recovers) = (of(Door::Quorum, v.quorum), of(Door::Recovery, v.recovery_quorum));
            vec![v.dataset.to_string(), v.vault_epoch.to_string(), opens, recovers]
        })
        .collect();
    let mut screen = Screen::new();
    screen.heading("Dealt").table(&["dataset", "vault epoch", "opens", "recovers"], &rows).gap();
    screen.words(&format!("{} quorums were tried, and every one opens.", dealt.tested)).words("Halves for:");
    for (name, identity) in &dealt.appliances {
        screen.item(&format!("{name}, identity {}", fingerprint::of_hash(identity)));
    }
    screen.words("Compare these digits with the engineer's by telephone: whoever made up an identity would hold its half.");
    screen.words("Next: let each custodian confirm that theirs opens, then sign a release and enrol.");
    let vaults: Vec<_> = dealt.vaults.iter().map(|v| json!({ "dataset": v.dataset, "vault_epoch": v.vault_epoch })).collect();
    let appliances: Vec<_> = dealt.appliances.iter().map(|(name, identity)| json!({ "appliance": name, "identity": identity })).collect();
    output.result(&json!({ "vaults": vaults, "appliances": appliances, "tested": dealt.tested }), screen.text())
}

fn run_enrol(home: &Home, appliance: &Name, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let enrolment = enrol::enrol(home, appliance, passphrase)?;
    let mut screen = Screen::new();
    screen.heading(&format!("Enrolled: {appliance}"));
    screen.words(&format!("identity {}", fingerprint::of_hash(&enrolment.identity)));
    screen.gap();
    match enrolment.proof {
        Proof::TrustedOnFirstUse => {
            screen.field("TPM", "trusted on first use");
            screen.words("Nobody has proven that this TPM is a genuine one: whoever handed over the identity file could have made it up. That is good enough for a drill.");
        }
        Proof::CredentialActivated => {
            screen.field("TPM", "the one recorded before shipping, and no other");
            screen
                .words(&format!("Halves and enrolment are sealed to it in {}: no other TPM opens them.", home.parcel(appliance).display()));
        }
    }
    screen.words(&format!("Next: carry {} to the appliance and run hoidlad enrol there.", home.public().display()));
    let value = json!({ "appliance": appliance, "identity": enrolment.identity, "proof": enrolment.proof, "folder": home.public() });
    output.result(&value, screen.text())
}
