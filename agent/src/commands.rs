//! The command line: what is asked for, and what is said about it.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand};
use hoidla_cli::{NextStep, Outcome, Output, PassphraseSource, harden, human};
use hoidla_format::{Hash32, Moment, Name, StreamId, frame::Chain, text::from_hex};
use hoidla_quorum::fingerprint;
use hoidla_snapshot::{Only, Progress};
use serde_json::json;

use crate::{
    audit,
    home::{Home, open_site, read_bounded, target},
    push::{self, STANDARD_INPUT, Settings},
    reader, restore, stands, update,
};

const AUDIT_HELP: &str = "Examples:
  hoidla-agent audit --home land-agent-1
  hoidla-agent audit --home land-agent-1 --samples 200 --evidence audit-2027-01
  hoidla-agent audit --home land-agent-1 --since audit-2026-01/checkpoint.txt --evidence audit-2027-01
Exit code 1 is an alarm: the appliance contradicts itself or what was acknowledged. Both sides are kept.";

const UPDATE_HELP: &str = "Example:
  hoidla-agent update --home land-agent-1 public/
A dataset more, an agent revoked, days added: nobody goes to the rack. An older site file, or a shorter retention, is refused.";

/// Copies a registry into an embassy, and a granted reader's copy back.
#[derive(Parser)]
#[command(name = "hoidla-agent", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Copy a folder, a file or standard input (-) in.
    Push {
        #[command(flatten)]
        home: HomeArguments,
        /// What to copy; - is standard input.
        path: PathBuf,
        /// Begin a new generation: a whole copy, deduplicated against nothing before it.
        #[arg(long)]
        new_generation: bool,
        /// How many MiB may be sealed and not acknowledged.
        #[arg(long, value_name = "MIB", default_value_t = 256)]
        spool_mib: u64,
        /// How many seconds to go on trying while nothing is acknowledged.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        give_up_after: u64,
    },
    /// Show the generations that the embassy holds.
    List {
        #[command(flatten)]
        home: HomeArguments,
    },
    /// Show what is acknowledged, what is still to be sent, and how the appliance is.
    Status {
        #[command(flatten)]
        home: HomeArguments,
    },
    /// Hold the embassy to its word: its log only grew, and what was acknowledged is in it.
    #[command(after_help = AUDIT_HELP)]
    Audit {
        #[command(flatten)]
        home: HomeArguments,
        #[command(flatten)]
        wish: audit::Arguments,
    },
    /// Carry an appliance's newest head to another one, which signs it if it contradicts nothing.
    Witness {
        #[command(flatten)]
        home: HomeArguments,
        /// The appliance that shall see it.
        #[arg(long, value_name = "NAME")]
        to: Name,
        /// The agent's folder at that appliance's site, if it is another site of the same authority.
        #[arg(long, value_name = "DIR")]
        to_home: Option<PathBuf>,
    },
    /// Bring the appliance newer papers that the authority signed: they come into force by themselves.
    #[command(after_help = UPDATE_HELP)]
    Update {
        #[command(flatten)]
        home: HomeArguments,
        /// The authority's public folder, or the files of it that changed.
        #[arg(required = true)]
        papers: Vec<PathBuf>,
    },
    /// Restore under a grant that its quorum approved.
    Restore(RestoreArguments),
    /// Make a reader's key.
    Reader {
        #[command(subcommand)]
        command: ReaderCommand,
    },
}

#[derive(Subcommand)]
enum ReaderCommand {
    /// Make a key for a reader; the public half beside it goes into a grant.
    New {
        /// The reader's name.
        #[arg(long)]
        name: Name,
        /// Where to write the key; its public half is written beside it as .reader.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Args)]
struct HomeArguments {
    /// The agent's folder, as `hoidla-provision agent` made it.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// Which appliance; the site's first if not given.
    #[arg(long, value_name = "NAME")]
    appliance: Option<Name>,
    /// Another address than the site file has.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

impl HomeArguments {
    fn open(&self) -> Result<(Home, hoidla_door::Target)> {
        let home = Home::open(&self.home, &self.passphrase)?;
        let mut target = home.target(self.appliance.as_ref())?;
        if let Some(address) = &self.address {
            target.address.clone_from(address);
        }
        Ok((home, target))
    }
}

#[derive(Args)]
struct RestoreArguments {
    /// The reader's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The grant.
    #[arg(long, value_name = "FILE")]
    grant: PathBuf,
    /// The signed site file, which is public.
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    /// Which appliance; the site's first if not given.
    #[arg(long, value_name = "NAME")]
    appliance: Option<Name>,
    /// Another address than the site file has.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The folder to restore into; made if need be.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only this path, beginning with the copied folder's own name.
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Which dataset, if the grant covers several.
    #[arg(long, value_name = "NAME")]
    dataset: Option<Name>,
    /// Which generation, whoever signed it; if not given, the newest that no revoked agent signed.
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u32>,
    /// Which stream, if a generation has several.
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamId>,
    /// What the agent's last push said, to refuse a copy that is behind it.
    #[arg(long, value_name = "LENGTH:ROOT", value_parser = parse_chain)]
    at_least: Option<Chain>,
    /// The last snapshot that was signed by then, by the agent's clock, such as 2026-11-20T18:00:00Z;
    /// if not given, the newest.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    before: Option<Moment>,
    /// The authority's digits that you compared by telephone; they must be the site file's.
    #[arg(long, value_name = "DIGITS")]
    authority: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// Where a stream stands, as `--at-least` takes it: its length, and the chain's root there.
fn parse_moment(text: &str) -> Result<Moment, String> {
    serde_json::from_value(json!(text)).map_err(|_| "write it as in statements: 2026-11-20T18:00:00Z".to_owned())
}

/// A chain as `--at-least` takes it.
pub(crate) fn written_chain(chain: Chain) -> String {
    format!("{}:{}", chain.length, chain.root)
}

fn parse_chain(text: &str) -> Result<Chain, String> {
    let chain = text.split_once(':').and_then(|(length, root)| {
        let length = length.parse().ok().filter(|l| *l > 0)?;
        Some(Chain { length, root: Hash32(from_hex(root)?) })
    });
    chain.ok_or_else(|| "write it as push said it: bytes, a colon, 64 digits of 0-9a-f".into())
}

/// Does what was asked.
pub fn run(arguments: Arguments) -> Result<Outcome> {
    harden();
    let out = arguments.output;
    match arguments.command {
        Command::Push { home, path, new_generation, spool_mib, give_up_after } => {
            let (home, target) = home.open()?;
            let settings = Settings {
                target,
                new_generation,
                spool: spool_mib << 20,
                give_up_after: Duration::from_secs(give_up_after),
                workers: thread::available_parallelism().map_or(2, usize::from).clamp(1, 16),
            };
            run_push(out, &home, &path, &settings)
        }
        Command::List { home } => stands::list(out, home.open()?),
        Command::Update { home, papers } => update::update(out, home.open()?, &papers),
        Command::Status { home } => stands::status(out, home.open()?),
        Command::Audit { home, wish } => {
            let (home, target) = home.open()?;
            audit::run(out, &home, &target, &wish)
        }
        Command::Witness { home, to, to_home } => {
            let there = Home::open(to_home.as_ref().unwrap_or(&home.home), &home.passphrase)?;
            let (home, target) = home.open()?;
            audit::run_witness(out, (&home, &target), (&there, &there.target(Some(&to))?))
        }
        Command::Restore(wish) => run_restore(out, &wish),
        Command::Reader { command: ReaderCommand::New { name, out: file, passphrase } } => {
            let made = reader::new(&name, &file, &passphrase)?;
            let (key, public, digits) = (file.display(), made.public.display(), &made.digits);
            let text = format!(
                "{key}: keep it secret\n{public}: give it to whoever writes the grant, and read the custodians these digits: {digits}"
            );
            out.result(&json!({ "key": file, "public": made.public, "fingerprint": digits }), text)?;
            Ok(Outcome::Done)
        }
    }
}

fn run_push(out: Output, home: &Home, path: &Path, settings: &Settings) -> Result<Outcome> {
    let progress = Progress::default();
    let bar = out.bytes("copying in", None);
    let tell = |line: &str| {
        if out.draws() {
            bar.line(line)
        } else if !out.quiet {
            eprintln!("{line}")
        }
    };
    if home.site.statement.development && !out.quiet {
        tell("DEVELOPMENT SITE: for drills and tests, not for real registries");
    }
    let stop = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        if out.draws() {
            scope.spawn(|| watch(&bar, path, &progress, &stop));
        }
        let done = push::push(home, path, settings, &progress, &tell);
        stop.store(true, Ordering::Relaxed);
        done
    });
    bar.done();
    let done = match done {
        Ok(done) => done,
        Err(e) => return audit::refused_push(out, home, &settings.target, &e).ok_or(e),
    };
    let p = &done.pushed;
    for note in &p.notes {
        tell(&format!("warning: {note}"));
    }
    let rate = human::rate(p.bytes, done.took);
    let mut text = format!(
        "{} of {} copied in, {rate}; {} sealed and acknowledged, {} new\ngeneration {}, stream {}: {} bytes, signed to {}",
        human::count(p.entries, "entry"),
        human::bytes(p.bytes),
        human::bytes(done.sealed),
        human::bytes(p.fresh),
        done.state.generation,
        done.state.stream,
        done.state.acknowledged.length,
        done.state.signed,
    );
    let stands = written_chain(done.state.acknowledged);
    text += &format!("\nwhoever restores can demand no less than this: --at-least {stands}");
    if p.changed + p.left_out > 0 {
        text += &format!("\nwarning: {} changed while being read, {} left out; see above", p.changed, p.left_out);
    }
    let (receipt, receipt_value) = audit::after_push(home, &settings.target, &done.state, &tell);
    let value = json!({
        "dataset": home.dataset(), "generation": done.state.generation, "stream": done.state.stream,
        "entries": p.entries, "bytes": p.bytes, "fresh_bytes": p.fresh, "messages": p.messages,
        "sealed_bytes": done.sealed, "resumed_bytes": done.resumed, "stream_bytes": done.state.acknowledged.length,
        "signed_to": done.state.signed, "at_least": stands, "changed": p.changed, "left_out": p.left_out, "notes": p.notes,
        "seconds": done.took.as_secs_f64(), "receipt": receipt_value,
    });
    out.result(&value, text)?;
    Ok(if p.changed + p.left_out > 0 { Outcome::No } else { receipt })
}

/// Draws progress; counts beside it how much there will be.
fn watch(bar: &hoidla_cli::Progress, path: &Path, progress: &Progress, stop: &AtomicBool) {
    let total = AtomicU64::new(0);
    thread::scope(|scope| {
        if path != Path::new(STANDARD_INPUT) {
            scope.spawn(|| total.store(weigh(path, stop), Ordering::Relaxed));
        }
        let began = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let read = progress.read.load(Ordering::Relaxed);
            bar.set(read);
            let left = match total.load(Ordering::Relaxed) {
                0 => String::new(),
                all if read == 0 => format!("of {}", human::bytes(all)),
                all => {
                    let per_byte = began.elapsed().as_secs_f64() / read.max(1) as f64;
                    let left = Duration::from_secs_f64(per_byte * all.saturating_sub(read) as f64);
                    format!("of {}, {} left, {} files", human::bytes(all), human::duration(left), progress.files.load(Ordering::Relaxed))
                }
            };
            bar.note(left);
            thread::sleep(Duration::from_millis(200));
        }
    });
}

/// Bytes of all files below a path, as far as can be seen.
fn weigh(path: &Path, stop: &AtomicBool) -> u64 {
    let (mut sum, mut todo) = (0, vec![path.to_owned()]);
    while let Some(path) = todo.pop() {
        match path.symlink_metadata() {
            Ok(m) if m.is_dir() => todo.extend(path.read_dir().into_iter().flatten().flatten().map(|e| e.path())),
            Ok(m) if m.is_file() => sum += m.len(),
            _ => {}
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    sum
}

fn run_restore(out: Output, wish: &RestoreArguments) -> Result<Outcome> {
    let (site, authority) = open_site(&read_bounded(&wish.site)?)?;
    let digits = fingerprint::of_key(&authority);
    if wish.authority.as_ref().is_some_and(|given| !fingerprint::same(given, &digits)) {
        return Err(anyhow!("the digits of this site file's authority are {digits}, not those you gave"))
            .next("don't go on with this site file; ask the authority or a custodian for theirs");
    }
    out.say(format!("the site file is of the authority {digits}; compare these digits with a custodian"));
    let mut target = target(&site.statement, wish.appliance.as_ref())?;
    if let Some(address) = &wish.address {
        target.address.clone_from(address);
    }
    let grant = read_bounded(&wish.grant)?;
    let reader = reader::open(&wish.key, &wish.passphrase)?;
    if site.statement.development && !out.quiet {
        eprintln!("DEVELOPMENT SITE: for drills and tests, not for real registries");
    }
    let only = wish.path.clone().map_or(Only::All, Only::Path);
    // A bar begins with its first byte: a restore that is refused shows none.
    let (began, fetching, writing) = (Instant::now(), OnceCell::new(), OnceCell::new());
    let wanted = restore::Wish {
        to: &wish.to,
        only,
        dataset: wish.dataset.clone(),
        generation: wish.generation,
        stream: wish.stream,
        at_least: wish.at_least,
        before: wish.before,
    };
    let mut fetched = |n, total| {
        let bar = fetching.get_or_init(|| out.bytes("fetching and checking", Some(total)));
        bar.total(total);
        bar.add(n);
    };
    let done = restore::restore(&reader, (&site, &authority), &grant, &target, &wanted, &mut fetched, &mut |n| {
        writing.get_or_init(|| out.bytes("restoring", None)).add(n);
    });
    [fetching.get(), writing.get()].into_iter().flatten().for_each(hoidla_cli::Progress::done);
    let done = done?;
    let r = &done.restored;
    for note in r.notes.iter().chain(&done.warnings) {
        eprintln!("warning: {}", hoidla_cli::screen::plain(note));
    }
    if let Some(broken) = &done.broken {
        eprintln!("warning: the stream is not sound from byte {} on: {}", done.signed, hoidla_cli::screen::plain(broken));
        eprintln!("warning: restored is the last whole snapshot before that; tell the authority");
    }
    if done.unsigned > 0 {
        let messages = human::count(done.unsigned as u64, "message");
        out.say(format!("the signed range ends at byte {}: {messages} after it were not used", done.signed));
    }
    let ((from, to), signed_at) = (r.taken, done.signed_at);
    let mut text = format!(
        "{} of {} restored to {}, {}\ngeneration {}, stream {}: {} bytes, signed to {}, this snapshot to {}\ncopied in from {from} to {to}, signed {signed_at}, by the agent's clock",
        human::count(r.entries - r.failed, "entry"),
        human::bytes(r.bytes),
        wish.to.display(),
        human::rate(r.bytes, began.elapsed()),
        done.stream.generation,
        done.stream.stream,
        done.stream.bytes,
        done.signed,
        done.snapshot,
    );
    text += match wish.at_least {
        Some(_) => "\nit holds what was acknowledged at home",
        None => "\nwhether that is the newest only home can tell: ask for the last push's --at-least",
    };
    if !r.owners {
        text += "\nowners were not restored: that takes root";
    }
    let value = json!({
        "generation": done.stream.generation, "stream": done.stream.stream, "stream_bytes": done.stream.bytes,
        "authority": digits, "taken": [from, to], "signed_at": signed_at, "at_least": wish.at_least.map(written_chain), "warnings": done.warnings,
        "signed_to": done.signed, "unsigned_messages": done.unsigned, "snapshot_to": done.snapshot, "broken": done.broken,
        "entries": r.entries, "bytes": r.bytes, "failed": r.failed, "changed": r.changed, "owners": r.owners,
        "notes": r.notes, "seconds": began.elapsed().as_secs_f64(),
    });
    out.result(&value, text)?;
    Ok(if r.failed > 0 || done.broken.is_some() || !done.warnings.is_empty() { Outcome::No } else { Outcome::Done })
}
