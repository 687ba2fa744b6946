//! The command line, and what each command prints.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use hoidla_cli::{NextStep, Outcome, Output, PassphraseSource, Screen, confirm_typed, human};
use hoidla_crypto::sign::Signed;
use hoidla_format::{
    Hash32, Name,
    statements::{Challenge, Door as VaultDoor, Grant},
};
use hoidla_protocol::{Progress, Welcome};
use hoidla_verify::{Unattested, Vouched, opening};
use serde_json::json;

use crate::{
    ceremony::{Challenged, Door, approval},
    confirm,
    grant::{self, Wanted},
    me::{Me, compare, given},
    new,
    papers::{Known, Papers, read_grant, read_reader},
    review::{Asked, Page},
    trust::{self, Standing},
};

/// A custodian's program. It needs your key file, its passphrase, the site file, and a grant.
#[derive(Parser)]
#[command(name = "hoidla-custodian", version, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "With site.txt and grant.txt in the folder:
  once          hoidla-custodian new --name alpha
  at a dealing  hoidla-custodian confirm --key alpha.key public/
  to open       hoidla-custodian review
                hoidla-custodian approve --key alpha.key
  to close      hoidla-custodian seal --key alpha.key";

#[derive(Subcommand)]
enum Command {
    /// Make your key file, and the public card for the authority.
    #[command(after_help = "Example:
  hoidla-custodian new --name alpha      writes alpha.key (keep it) and alpha.txt (send it)")]
    New {
        /// Your name in rosters.
        #[arg(long, value_name = "NAME")]
        name: Name,
        /// Where to write both files.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// After a dealing: check that each of your shares opens. Opens nothing else.
    #[command(after_help = "Example:
  hoidla-custodian confirm --key alpha.key --site public/site.txt public/ recovery/")]
    Confirm {
        #[command(flatten)]
        me: Me,
        /// Files or folders with the dealing's vault-... and envelopes-... files.
        #[arg(required = true, value_name = "PATH")]
        papers: Vec<PathBuf>,
    },
    /// Write a grant: who may read what, why, for how long.
    #[command(after_help = "Examples:
  hoidla-custodian grant --key alpha.key --site site.txt --reader reader.txt \\
      --dataset population --purpose \"Restore after the loss of the first centre\" --open-for 2h
  ... --dataset population:2             one vault epoch only
  ... --papers public/                   without asking the appliance for the vault certificates")]
    Grant {
        #[command(flatten)]
        me: Me,
        /// The reader's public key file.
        #[arg(long, value_name = "FILE")]
        reader: PathBuf,
        /// DATASET or DATASET:VAULT-EPOCH; may be given again.
        #[arg(long, value_name = "DATASET", required = true)]
        dataset: Vec<Wanted>,
        /// Why, in words that the other custodians will read.
        #[arg(long)]
        purpose: String,
        /// How long the data may be fetched after the opening: 90s, 30m, 2h, 1d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = grant::duration)]
        open_for: u32,
        /// The appliance that shall open; needed if the site has several.
        #[arg(long, value_name = "NAME")]
        appliance: Option<Name>,
        /// Take the vault certificates from here instead of from the appliance; may be given again.
        #[arg(long, value_name = "PATH")]
        papers: Vec<PathBuf>,
        /// Where to write the grant.
        #[arg(long, value_name = "FILE", default_value = "grant.txt")]
        out: PathBuf,
    },
    /// Show a grant in clear words; with --key, also what the appliance asks. Agrees to nothing.
    #[command(after_help = "Examples:
  hoidla-custodian review --site site.txt --grant grant.txt
  hoidla-custodian review --site site.txt --grant grant.txt --key alpha.key")]
    Review {
        /// The site file.
        #[arg(long, value_name = "FILE", default_value = "site.txt")]
        site: PathBuf,
        /// The grant.
        #[arg(long, value_name = "FILE", default_value = "grant.txt")]
        grant: PathBuf,
        /// Your key file, to connect and see the appliance's challenge.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The authority's digits that you compared by telephone; they must be the site file's.
        #[arg(long, value_name = "DIGITS")]
        authority: Option<String>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Review a grant at the appliance and, after a typed yes, hand over your share for it.
    #[command(after_help = "Example:
  hoidla-custodian approve --site site.txt --grant grant.txt --key alpha.key
  ... --yes --authority DIGITS           in a script, without a trust file beside the key")]
    Approve {
        #[command(flatten)]
        me: Me,
        /// The grant.
        #[arg(long, value_name = "FILE", default_value = "grant.txt")]
        grant: PathBuf,
        /// Agree without being asked: for drills only.
        #[arg(long)]
        yes: bool,
    },
    /// Close openings now: one grant's, or all.
    #[command(after_help = "Examples:
  hoidla-custodian seal --site site.txt --key alpha.key
  hoidla-custodian seal --site site.txt --key alpha.key --grant grant.txt")]
    Seal {
        #[command(flatten)]
        me: Me,
        /// Only this grant's opening.
        #[arg(long, value_name = "FILE")]
        grant: Option<PathBuf>,
        /// The appliance; needed if the site has several.
        #[arg(long, value_name = "NAME")]
        appliance: Option<Name>,
    },
    /// Ask the appliance how it is.
    #[command(after_help = "Example:
  hoidla-custodian status --site site.txt --key alpha.key")]
    Status {
        #[command(flatten)]
        me: Me,
        /// The appliance; needed if the site has several.
        #[arg(long, value_name = "NAME")]
        appliance: Option<Name>,
    },
}

/// Runs one command.
pub fn run(args: Args) -> Result<Outcome> {
    let output = args.output;
    match args.command {
        Command::New { name, out, passphrase } => {
            let made = new::new(&out, &name, &passphrase)?;
            let (key, card, digits) = (made.key.display(), made.card.display(), &made.digits);
            let text = format!(
                "{key}: your key. Keep it, and a copy elsewhere; nobody can make it again.\n{card}: your public card. Send it to the \
                 authority,\nand read it these digits by telephone: {digits}"
            );
            output.result(&json!({ "key": made.key, "card": made.card, "fingerprint": digits }), text)?;
            Ok(Outcome::Done)
        }
        Command::Confirm { me, papers } => run_confirm(&me, &papers, &output),
        Command::Grant { me, reader, dataset, purpose, open_for, appliance, papers, out } => {
            let known = Known::read(&me.site)?;
            let reader = read_reader(&reader)?;
            let appliance = the_appliance(&known, appliance)?;
            ensure!(!out.exists(), "{} is there already; nothing was overwritten", out.display());
            let (name, keys, compared) = me.open(&known, &output)?;
            let at_hand = if papers.is_empty() {
                Door::enter(&known, &appliance, &name, &keys)?.papers(&known)?
            } else {
                Papers::gather(&known, &papers)?
            };
            let request = grant::Request { appliance, reader, wanted: dataset, purpose, open_for_seconds: open_for };
            let grant = grant::write(&known, &at_hand, request)?;
            let note = keys.signing_key().sign_statement(name.as_str(), &grant);
            new::write(&out, note.as_bytes(), 0o644)?;
            let signed = read_grant(&out, &known)?;
            output.say(page(&known, compared, &signed, None, false).screen().text());
            let text = format!("\nwrote {}; send it to the other custodians and the reader", out.display());
            output.result(&json!({ "grant": signed.hash, "file": out }), text)?;
            Ok(Outcome::Done)
        }
        Command::Review { site, grant, key: None, authority, .. } => {
            let known = Known::read(&site)?;
            let compared = given(authority.as_deref(), &known)?;
            let grant = read_grant(&grant, &known)?;
            show(&known, compared, &grant, None, &output)
        }
        Command::Review { site, grant, key: Some(key), authority, passphrase } => {
            let me = Me { site, key, authority, passphrase };
            let known = Known::read(&me.site)?;
            let grant = read_grant(&grant, &known)?;
            let (name, keys, compared) = me.open(&known, &output)?;
            let mut door = Door::enter(&known, &grant.statement.appliance, &name, &keys)?;
            let challenged = door.propose(&known, &grant)?;
            let papers = door.papers(&known)?;
            let attested = attested(&known, &challenged, &papers)?;
            let shown = show(&known, compared, &grant, Some(&asked(&known, door.welcome(), &challenged, &attested)), &output)?;
            Ok(if attested.is_ok() { shown } else { Outcome::No })
        }
        Command::Approve { me, grant, yes } => run_approve(&me, &grant, yes, &output),
        Command::Seal { me, grant, appliance } => {
            let known = Known::read(&me.site)?;
            let grant = grant.map(|path| read_grant(&path, &known)).transpose()?;
            let appliance = the_appliance(&known, appliance.or_else(|| grant.as_ref().map(|g| g.statement.appliance.clone())))?;
            let (name, keys, _) = me.open(&known, &output)?;
            let count = Door::enter(&known, &appliance, &name, &keys)?.seal(grant.map(|g| g.hash))?;
            let text = match count {
                0 => format!("{appliance} had nothing open"),
                n => format!("sealed: {} at {appliance}", human::count(n.into(), "opening or ceremony").replace("ceremonys", "ceremonies")),
            };
            output.result(&json!({ "sealed": count }), text)?;
            Ok(Outcome::Done)
        }
        Command::Status { me, appliance } => run_status(&me, appliance, &output),
    }
}

fn the_appliance(known: &Known, asked: Option<Name>) -> Result<Name> {
    let all = &known.site.statement.appliances;
    match (asked, all.as_slice()) {
        (Some(name), _) => Ok(name),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            let names: Vec<_> = all.iter().map(|a| a.name.as_str()).collect();
            Err(anyhow::anyhow!("the site has several appliances: {}", names.join(", "))).next("say which with --appliance")
        }
    }
}

fn run_confirm(me: &Me, papers: &[PathBuf], output: &Output) -> Result<Outcome> {
    let known = Known::read(&me.site)?;
    let papers = Papers::gather(&known, papers)?;
    let (name, keys) = new::open(&me.key, &me.passphrase)?;
    given(me.authority.as_deref(), &known)?;
    let standing = trust::check(&me.key, &name, &keys, &known)?;
    let confirmed = confirm::confirm(&name, &keys, &papers)?;
    let door = |d| if d == VaultDoor::Quorum { "quorum" } else { "recovery" };
    let word = |c: &confirm::Confirmed| match c {
        c if !c.tried => "not tried",
        c if c.error.is_none() => "your share opens",
        _ => "DOES NOT OPEN",
    };
    let row = |c: &confirm::Confirmed| vec![c.dataset.to_string(), c.vault_epoch.to_string(), door(c.door).to_owned(), word(c).to_owned()];
    let mut screen = Screen::new();
    screen.heading(&format!("{name}: shares at {}", known.site.statement.site));
    screen.table(&["dataset", "vault epoch", "door", ""], &confirmed.iter().map(row).collect::<Vec<_>>());
    let failures: Vec<_> = confirmed.iter().filter_map(|c| c.error.as_ref()).collect();
    let untried = !failures.is_empty() && confirmed.iter().all(|c| c.tried == c.error.is_none());
    for why in confirmed.iter().filter(|c| c.tried).filter_map(|c| c.error.as_ref()) {
        screen.gap().item(why);
    }
    screen.gap().words(&format!("authority: {}", known.fingerprint()));
    match (failures.is_empty(), standing) {
        (false, _) if untried => {
            screen.words("Nothing is wrong yet: give the folder with the vault-... certificates too (the authority's public folder), so that these envelopes can be tried.");
        }
        (false, _) => {
            screen.words("Tell the authority before anything is sealed to these vaults.");
        }
        (true, Standing::Known) => {
            screen.words("It is the one that you have believed before.");
        }
        (true, Standing::Unknown) => {
            trust::remember(&me.key, &name, &keys, &known)?;
            screen.words(&format!(
                "Compare these digits by telephone now, with the authority and another custodian: from today your program believes no other \
                 for {}. That stands in {}; keep it with each copy of your key.",
                known.site.statement.site,
                trust::beside(&me.key).display()
            ));
        }
    }
    let (digits, first) = (known.fingerprint(), standing == Standing::Unknown);
    output.result(&json!({ "custodian": name, "authority": digits, "first_time": first, "shares": confirmed }), screen.text())?;
    Ok(if failures.is_empty() { Outcome::Done } else { Outcome::No })
}

/// Whether the appliance's TPM says, in a state that the authority approves, that it asks exactly this.
fn attested(known: &Known, challenged: &Challenged, papers: &Papers) -> Result<std::result::Result<Vouched, Unattested>> {
    Ok(opening::check(&challenged.challenge, &known.site.statement.site, &papers.attesters(known)?))
}

fn asked<'a>(
    known: &Known,
    welcome: &Welcome,
    challenged: &'a Challenged,
    attested: &'a std::result::Result<Vouched, Unattested>,
) -> Asked<'a> {
    let challenge: &Challenge = &challenged.challenge;
    let site_hash: Hash32 = challenge.site_hash;
    Asked {
        challenge,
        challenge_hash: challenged.occasion.challenge,
        attested,
        site_serial: welcome.site_serial,
        same_site_file: site_hash == known.site.hash,
    }
}

fn run_approve(me: &Me, grant: &std::path::Path, yes: bool, output: &Output) -> Result<Outcome> {
    let known = Known::read(&me.site)?;
    let grant = read_grant(grant, &known)?;
    ensure!(yes || !output.json, "with --json nobody can be asked: add --yes (drills only)");
    let (name, keys, compared) = me.open(&known, output)?;
    if !compared && !compare(me, &known, &name, &keys, yes)? {
        output.say("Nothing was approved; your share stayed here.");
        return Ok(Outcome::No);
    }
    let mut door = Door::enter(&known, &grant.statement.appliance, &name, &keys)?;
    let challenged = door.propose(&known, &grant)?;
    let attested = attested(&known, &challenged, &door.papers(&known)?)?;
    output.say(page(&known, true, &grant, Some(&asked(&known, door.welcome(), &challenged, &attested)), true).screen().text());
    attested?;
    if !yes && !confirm_typed("", "yes")? {
        output.say("Nothing was approved; your share stayed here.");
        return Ok(Outcome::No);
    }
    let approval = approval(&name, &keys, &grant.statement, &challenged)?;
    let note = keys.signing_key().sign_statement(name.as_str(), &approval);
    let progress = door.approve(&grant.hash, &note)?;
    output.result(&progress_json(&progress), progress_text(&progress))?;
    Ok(Outcome::Done)
}

fn page<'a>(known: &'a Known, compared: bool, grant: &'a Signed<Grant>, asked: Option<&'a Asked<'a>>, decides: bool) -> Page<'a> {
    Page { site: &known.site.statement, authority: known.fingerprint(), compared, grant, asked, decides }
}

/// The result of a review.
fn show(known: &Known, compared: bool, grant: &Signed<Grant>, asked: Option<&Asked<'_>>, output: &Output) -> Result<Outcome> {
    let page = page(known, compared, grant, asked, false);
    let (hash, purpose, warnings) = (grant.hash, &grant.statement.purpose, page.warnings());
    let mut value = json!({ "grant": hash, "purpose": purpose, "authority": page.authority, "warnings": warnings });
    if let Some(asked) = asked {
        value["challenge"] = json!(asked.challenge_hash);
    }
    output.result(&value, page.screen().text())?;
    Ok(Outcome::Done)
}

fn progress_json(p: &Progress) -> serde_json::Value {
    let vaults: Vec<_> =
        p.vaults.iter().map(|v| json!({ "dataset": v.dataset, "vault_epoch": v.vault_epoch, "have": v.have, "need": v.need })).collect();
    json!({ "grant": p.grant, "opened": p.opened, "seconds_left": p.seconds_left, "vaults": vaults })
}

fn progress_text(p: &Progress) -> String {
    let left = human::duration(std::time::Duration::from_secs(p.seconds_left.into()));
    let behind = p.vaults.iter().max_by_key(|v| v.need.saturating_sub(v.have));
    match behind {
        _ if p.opened => format!("Approved. The quorum is complete: the reader may fetch for {left}."),
        Some(v) => format!("Approved: {} of {} so far. The others have {left}.", v.have, v.need),
        None => "Approved.".to_owned(),
    }
}

fn run_status(me: &Me, appliance: Option<Name>, output: &Output) -> Result<Outcome> {
    let known = Known::read(&me.site)?;
    let appliance = the_appliance(&known, appliance)?;
    let (name, keys, _) = me.open(&known, output)?;
    let mut door = Door::enter(&known, &appliance, &name, &keys)?;
    let h = door.health()?;
    let w = door.welcome();
    let mut screen = Screen::new();
    screen.heading(&format!("{appliance} at {}", w.site));
    screen.field("sealed", if h.openings == 0 { "yes, nothing is open" } else { "NO" });
    if h.openings > 0 {
        screen.field("open grants", &h.openings.to_string());
    }
    screen.field("release", &format!("{}{}", w.release, if w.development { " (development: drills only)" } else { "" }));
    screen.field(
        "site file",
        &format!(
            "serial {}{}",
            w.site_serial,
            if w.site_hash == known.site.hash { ", the same as yours" } else { ", not the same as yours" }
        ),
    );
    screen.field("disks", &format!("{} of {} current", h.current, h.copies));
    screen.field("used", &format!("{} of {}", human::bytes(h.used), human::bytes(h.capacity)));
    screen.field("streams", &human::grouped(h.streams));
    screen.field("damaged", &human::grouped(h.damaged));
    screen.field("alarms", &human::grouped(h.alarms));
    screen.field("up for", &human::duration(std::time::Duration::from_secs(h.uptime)));
    let value = json!({ "appliance": appliance, "release": w.release, "development": w.development, "openings": h.openings,
        "site_serial": w.site_serial, "same_site_file": w.site_hash == known.site.hash, "copies": h.copies, "current": h.current,
        "used": h.used, "capacity": h.capacity, "streams": h.streams, "damaged": h.damaged, "alarms": h.alarms, "uptime": h.uptime });
    output.result(&value, screen.text())?;
    Ok(Outcome::Done)
}
