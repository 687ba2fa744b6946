//! The story, scene by scene: what the demo tells and the journey's test checks.
//!
//! Every scene returns an error if what it tells did not happen.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hoidla_cli::human;

use crate::{
    Stage,
    compare::{Compared, compare},
    keeping::{self, TAKEN},
    programs::wait_until,
    search::{Finder, NEEDLE, Seen, mapped_files, needles_of},
    stage::{CUSTODIANS, DATASET, DISKS, RECOVERY},
};

/// How long the grant stays open in the story.
const OPEN_FOR: u32 = 600;
/// Stretches of plaintext to look for.
const NEEDLES: usize = 4096;

/// What the story measured.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Bytes of the files below PATH.
    pub bytes: u64,
    /// Bytes of the stream: what the embassy holds of them.
    pub stream: u64,
    /// How long the push took, deaths included.
    pub push: Duration,
    /// From SIGKILL until `hoidlad` listened again, if it was killed in the middle.
    pub restart: Option<Duration>,
    /// Whether the agent was killed in the middle.
    pub agent_killed: bool,
    /// The largest resident memory of `hoidlad`, in bytes.
    pub peak: u64,
    /// From a disk's taking out until the blank one in its place was whole.
    pub rebuilt: Duration,
    /// What the search for plaintext saw on the disks.
    pub disks: Seen,
    /// And in memory.
    pub memory: Seen,
    /// How often the planted ciphertext was found on the disks.
    pub control: u64,
    /// How long the restore took.
    pub restore: Duration,
    /// What was compared.
    pub compared: Compared,
}

/// Tells all of it.
///
/// # Errors
/// At the first thing that is not as promised.
pub fn tell(stage: &mut Stage, path: &Path) -> Result<Told> {
    let mut told = Told { bytes: weigh(path)?, ..Told::default() };
    prologue(stage, told.bytes)?;
    let marker = copy_in(stage, path, &mut told)?;
    keeping::prove(stage)?;
    let swapped = keeping::swap_a_disk(stage, path)?;
    search(stage, path, &marker, &mut told)?;
    keeping::rebuilt(stage, swapped, &mut told)?;
    stage.narrator.done();
    lose_home(stage)?;
    restore(stage, path, &mut told)?;
    ends(stage, path)?;
    Ok(told)
}

/// The two scenes before anything is copied: a site, and a running appliance with room for `bytes`.
///
/// # Errors
/// If a program fails.
pub fn prologue(stage: &mut Stage, bytes: u64) -> Result<()> {
    found_site(stage)?;
    enrol(stage, bytes)
}

fn found_site(stage: &mut Stage) -> Result<()> {
    stage.narrator.scene("Home makes a site");
    stage.narrator.say(
        "The authority, on a machine without a network and before witnesses, makes its keys and the site file: one embassy, one appliance, ten registries.",
    );
    stage.new_site()?;
    stage.narrator.say("Twelve officials each make a key on a laptop of their own. Three of the first five will open; five of the other seven could, at home, should the appliance die.");
    let bar = stage.narrator.count("keys", (CUSTODIANS.len() + RECOVERY.len()) as u64);
    for name in CUSTODIANS.iter().chain(&RECOVERY) {
        stage.new_custodian(name)?;
        bar.add(1);
    }
    bar.done();
    stage.sign_site()?;
    stage.narrator.done();
    Ok(())
}

fn enrol(stage: &mut Stage, bytes: u64) -> Result<()> {
    stage.narrator.scene("The appliance is enrolled");
    stage.narrator.say("A software TPM stands in for the chip; home has recorded its endorsement key. The appliance asks it who it is, and home deals a vault for each registry: half of each vault's key is sealed to that TPM, in a parcel that no other opens, the other half is cut into shares.");
    stage.start_tpm()?;
    stage.identify()?;
    let dealt = stage.deal()?;
    if let Some(line) = dealt.out.lines().find(|l| l.contains("quorums were tried")) {
        stage.narrator.shown(line.trim());
    }
    stage.narrator.say("Each official checks that their own envelopes open. That opens nothing else.");
    let bar = stage.narrator.count("envelopes tried", (CUSTODIANS.len() + RECOVERY.len()) as u64);
    for name in CUSTODIANS.iter().chain(&RECOVERY) {
        stage.confirm(name)?;
        bar.add(1);
    }
    bar.done();
    stage.narrator.shown("all twelve open theirs");
    // Two copies of all, some room, and not less than a disk can be.
    let size = (bytes * 3 / 2).div_ceil(1 << 20) + 1024;
    let enrolled = stage.enrol(size)?;
    stage.narrator.quote(&enrolled.out);
    stage.new_agent()?;
    stage.start_daemon()?;
    stage.narrator.shown("hoidlad runs, sealed, and nobody typed a secret into it");
    stage.narrator.done();
    Ok(())
}

/// Copies in with two deaths on the way; gives ciphertext that was still on its way at the second.
fn copy_in(stage: &mut Stage, path: &Path, told: &mut Told) -> Result<Vec<[u8; NEEDLE]>> {
    stage.narrator.scene("An institution copies in, whatever happens");
    stage.narrator.say(&format!(
        "The agent cuts {} of {} into pieces, compresses, seals and sends them. In the middle the appliance dies (SIGKILL), then the agent does.",
        human::bytes(told.bytes),
        path.display()
    ));
    let begun = Instant::now();
    let mut push = stage.start_push(path)?;
    if reaches(stage, &mut push, told.bytes / 24)? {
        stage.daemon()?.kill()?;
        let dead = Instant::now();
        let starts = stage.daemon()?.starts();
        wait_until("hoidlad starts again", Duration::from_secs(30), || stage.daemon().is_ok_and(|d| d.starts() > starts))?;
        stage.wait_for_door()?;
        told.restart = Some(dead.elapsed());
        stage.narrator.shown(&format!("hoidlad was killed, and listened again after {}, still sealed", human::duration(dead.elapsed())));
    }
    let mut marker = Vec::new();
    // Long enough to find the way back to the appliance and send some more.
    std::thread::sleep(Duration::from_millis(250));
    if push.runs()? {
        push.kill()?;
        told.agent_killed = true;
        // Sealed bytes on their way; the same ones are sent again.
        marker = needles_of(&stage.at("home/agent/streams"), 64).unwrap_or_default();
        stage.narrator.shown("the agent was killed; the same command again:");
        push = stage.start_push(path)?;
    }
    let code = push.end()?;
    // Code 1: files changed or could not be read while it ran; the agent has named them.
    ensure!(code == 0 || code == 1, "hoidla-agent push ended with code {code}:\n{}", stage.programs.tail("hoidla-agent"));
    told.push = begun.elapsed();
    told.stream = stage.acknowledged()?;
    told.peak = peak_memory(stage.daemon()?.pid())?;
    ensure!(told.stream > 0, "the agent says that nothing was acknowledged");
    stage.narrator.shown(&format!(
        "{} acknowledged as {} of ciphertext in {}, on both disks",
        human::bytes(told.bytes),
        human::bytes(told.stream),
        human::duration(told.push)
    ));
    if told.restart.is_none() || !told.agent_killed {
        stage.narrator.shown("this PATH is so small that it was over before somebody could die in the middle");
    }
    stage.narrator.done();
    Ok(marker)
}

/// Waits until so many bytes are acknowledged; false if the push was over before.
fn reaches(stage: &Stage, push: &mut crate::stage::Pushing, bytes: u64) -> Result<bool> {
    let begun = Instant::now();
    while push.runs()? {
        if stage.acknowledged()? >= bytes.max(1) {
            return push.runs();
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(1800),
            "the push does not come forward; see {}",
            stage.programs.log("hoidla-agent").display()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

fn search(stage: &mut Stage, path: &Path, marker: &[[u8; NEEDLE]], told: &mut Told) -> Result<()> {
    stage.narrator.scene("It is sealed");
    let pid = stage.daemon()?.pid();
    let finder = Finder::new(&needles_of(path, NEEDLES)?).without(&mapped_files(pid)?)?;
    stage.narrator.say(&format!(
        "Somebody has the disk that was taken, the other one and an image of the running hoidlad's memory, and looks for {} stretches of 32 bytes out of the files.",
        human::grouped(finder.needles() as u64)
    ));
    let disks = [TAKEN, DISKS[1]];
    let sizes: u64 = disks.iter().map(|d| fs::metadata(stage.at(d)).map_or(0, |m| m.len())).sum();
    let bar = stage.narrator.bytes("searching", sizes);
    let planted = Finder::new(marker);
    for disk in disks {
        let file = stage.at(disk);
        let seen = finder.search_file(&file)?;
        told.disks = Seen { bytes: told.disks.bytes + seen.bytes, found: told.disks.found + seen.found, hidden: 0 };
        if !marker.is_empty() {
            let control = planted.search_file(&file)?.found;
            ensure!(control > 0, "the control failed: known ciphertext was not found on {disk}, so that finding nothing else says nothing");
            told.control += control;
        }
        bar.add(seen.bytes);
    }
    bar.done();
    told.memory = finder.search_memory(pid)?;
    ensure!(told.disks.found == 0, "plaintext stands on the disks, {} times", told.disks.found);
    ensure!(told.memory.found == 0, "plaintext stands in hoidlad's memory, {} times", told.memory.found);
    stage.narrator.shown(&format!(
        "nothing, in {} of disks and {} of memory{}",
        human::bytes(told.disks.bytes),
        human::bytes(told.memory.bytes),
        if told.memory.hidden > 0 {
            format!(" ({} more the kernel shows to nobody)", human::bytes(told.memory.hidden))
        } else {
            String::new()
        }
    ));
    if !marker.is_empty() {
        stage
            .narrator
            .shown(&format!("control: ciphertext taken from the agent's spool is found ({})", human::count(told.control, "time")));
    }
    let known = memory_control(stage, pid)?;
    stage.narrator.shown(&format!("control: the site file, which is public, is found in that memory ({})", human::count(known, "time")));
    stage.new_reader()?;
    stage.grant("alpha", OPEN_FOR, "A drill: is it refused while nobody has agreed?")?;
    refused(stage, "before anybody agreed")?;
    fs::remove_file(stage.at("laptop/grant.txt"))?;
    Ok(())
}

/// What must be in `hoidlad`'s memory: the authority's key in its papers, as text.
fn memory_control(stage: &Stage, pid: u32) -> Result<u64> {
    let site = fs::read(stage.at("home/authority/public/site.txt"))?;
    let at = site.windows(12).position(|w| w == b"authority = ").context("the site file names no authority")? + 13;
    let needle: [u8; NEEDLE] = site[at..at + NEEDLE].try_into()?;
    let found = Finder::new(&[needle]).search_memory(pid)?.found;
    ensure!(found > 0, "the control failed: hoidlad's papers were not found in its memory, so that finding nothing else says nothing");
    Ok(found)
}

fn refused(stage: &mut Stage, when: &str) -> Result<()> {
    let answer = stage.restore("laptop/refused")?;
    ensure!(answer.code != 0, "a restore {when} was not refused:\n{}", answer.out);
    ensure!(!answer.err.contains("panicked"), "the agent fell over:\n{}", answer.err);
    let left = stage.at("laptop/refused");
    ensure!(!left.exists() || fs::read_dir(&left)?.next().is_none(), "a refused restore left files behind");
    stage.narrator.shown(&format!("restore {when} is refused:"));
    stage.narrator.quote(answer.err.trim());
    Ok(())
}

fn lose_home(stage: &mut Stage) -> Result<()> {
    stage.narrator.scene("Home is lost");
    stage.narrator.say("The authority's machine and the agent's are gone: keys, spool, index, everything. What is left: the embassy, the officials' laptops with a key and the public site file, and you.");
    stage.lose_home()?;
    stage.narrator.done();
    Ok(())
}

fn restore(stage: &mut Stage, path: &Path, told: &mut Told) -> Result<()> {
    stage.narrator.scene("A quorum opens, for one reader");
    stage.narrator.say("The reader made a key on a new laptop. An official writes a grant; the others read it in clear words:");
    stage.grant("alpha", OPEN_FOR, "Home is lost. Restore the population registry abroad.")?;
    let review = stage.review("bravo")?;
    stage.narrator.quote(&review.out);
    for (name, so_far) in CUSTODIANS[..3].iter().zip(["one", "two", "three"]) {
        stage.approve(name)?;
        stage.narrator.shown(&format!("{name} types yes: {so_far} of three"));
        if so_far == "two" {
            refused(stage, "with two of three")?;
        }
    }
    stage.narrator.say("The TPM gave its half, three shares gave the other; for this moment a helper process had the vault's key, re-wrapped the data keys to the reader, and is gone.");
    let begun = Instant::now();
    let answer = stage.restore("laptop/restored")?;
    ensure!(answer.code == 0, "the restore failed:\n{}{}", answer.out, answer.err);
    told.restore = begun.elapsed();
    stage.narrator.quote(answer.out.trim());
    told.compared = same(stage, path)?;
    let c = told.compared;
    stage.narrator.shown(&format!(
        "byte for byte the same: {}, {}, {}, {} more names of a file, {} with holes; modes, owners and times too",
        human::count(c.files, "file"),
        human::count(c.folders, "folder"),
        human::count(c.links, "link"),
        human::grouped(c.hard_links),
        human::grouped(c.sparse),
    ));
    stage.narrator.done();
    Ok(())
}

fn same(stage: &Stage, path: &Path) -> Result<Compared> {
    let name = path.file_name().context("PATH has no name of its own")?;
    let restored = stage.at("laptop/restored").join(name);
    let bar = stage.narrator.bytes("comparing", weigh(path)?);
    let (compared, differences) = compare(path, &restored, &|n| bar.add(n))?;
    bar.done();
    if !differences.is_empty() {
        bail!("what came back differs from {}:\n  {}", path.display(), differences.join("\n  "));
    }
    Ok(compared)
}

fn ends(stage: &mut Stage, path: &Path) -> Result<()> {
    stage.narrator.scene("The grant ends by itself");
    stage.narrator.say("A second grant, open for ten seconds only: it is approved, it opens, and then nobody does anything.");
    let short = 10;
    fs::remove_file(stage.at("laptop/grant.txt"))?;
    stage.grant("alpha", short, "A drill: does it end by itself?")?;
    for name in &CUSTODIANS[2..] {
        stage.approve(name)?;
    }
    let opened = Instant::now();
    let answer = stage.restore_only("laptop/again", &one_path(path)?)?;
    ensure!(answer.code == 0, "the second restore failed:\n{}{}", answer.out, answer.err);
    let most = Duration::from_secs(u64::from(short) + 5);
    std::thread::sleep(most.saturating_sub(opened.elapsed()));
    refused(stage, "after its time")?;
    stage.narrator.done();
    Ok(())
}

/// PATH's own name, or one path in it whose name is text: enough to show that a grant is open.
fn one_path(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|n| n.to_str()).context("PATH has no name that is text")?;
    if !path.is_dir() {
        return Ok(name.to_owned());
    }
    let mut within: Vec<String> = fs::read_dir(path)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    within.sort();
    Ok(within.first().map_or(name.to_owned(), |first| format!("{name}/{first}")))
}

/// Bytes of all files below a path.
///
/// # Errors
/// If it cannot be read.
pub fn weigh(path: &Path) -> Result<u64> {
    let mut todo: Vec<PathBuf> = vec![path.to_owned()];
    let mut sum = 0;
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?);
        } else if meta.is_file() {
            sum += meta.size();
        }
    }
    Ok(sum)
}

/// The largest resident memory that a process has had, in bytes.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("the kernel tells no peak")?;
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("the kernel tells no peak")?;
    Ok(kib << 10)
}

/// The table at the end.
pub fn table(stage: &Stage, told: &Told) {
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = vec![
        row("sealed before it leaves home", format!("{} became {} of ciphertext", human::bytes(told.bytes), human::bytes(told.stream))),
        row(
            "acknowledged is kept",
            told.restart.map_or("no death in the middle".into(), |d| format!("hoidlad dead and back in {}", human::duration(d))),
        ),
        row("provable", "checked offline; with one letter altered, refused".into()),
        row("a disk may go", format!("taken while copying; whole again after {}", human::duration(told.rebuilt))),
        row("nothing to steal", format!("0 finds in {}", human::bytes(told.disks.bytes + told.memory.bytes))),
        row("only a quorum opens", "refused with none and with two; opened with three".into()),
        row("home may be lost", format!("{} restored and compared", human::bytes(told.compared.bytes))),
        row("a grant ends", "refused after its time".into()),
        row("copied in", format!("{} ({} of it twice to disk)", human::rate(told.bytes, told.push), human::bytes(told.stream))),
        row("restored", human::rate(told.compared.bytes, told.restore)),
        row("hoidlad's peak memory", human::bytes(told.peak)),
        row("registry", format!("{DATASET}, one of ten")),
    ];
    stage.narrator.table(&["promise", "what was shown"], &rows);
}
