//! `restore`: with a reader's key, the site file and a grant, and nothing else from home.
//!
//! Promises: one stream, which the authority's agent signed, is checked and then restored.
//! Of two streams of one generation a person chooses. What a revoked agent signed is
//! taken only when a person names it, and then with a warning. Without
//! [`Wish::at_least`] it cannot tell whether the embassy keeps newer bytes from it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hoidla_cli::NextStep;
use hoidla_crypto::{
    datakey::{self, Binding},
    sealing::Sealer,
    sign::{self, Signed, VerifyingKey},
};
use hoidla_door::{Connection, DoorError, Identity, Target, connect, software_key};
use hoidla_format::{
    ByteRange, Hash32, Moment, Name, StreamId,
    frame::Chain,
    statements::{Grant, Site},
};
use hoidla_protocol::{Code, Key, Read, Request, Response, StreamEntry, client::Broken};
use hoidla_snapshot::{Only, Restored, restore as write_out};

use crate::{
    fetch::{self, End, Expected, Intake, Opened},
    reader::Reader,
};

/// Bytes asked for at once.
const RANGE: u64 = 32 << 20;

/// What to restore.
pub struct Wish<'a> {
    /// Where to.
    pub to: &'a Path,
    /// All, or one path.
    pub only: Only,
    /// Which dataset, if the grant covers several.
    pub dataset: Option<Name>,
    /// Which generation; the newest if none.
    pub generation: Option<u32>,
    /// Which stream, if a generation has several.
    pub stream: Option<StreamId>,
    /// Where the agent at home saw the stream stand.
    pub at_least: Option<Chain>,
    /// The last snapshot that was signed by then; the newest if none.
    pub before: Option<Moment>,
}

/// What came back.
pub struct Done {
    /// What was restored.
    pub restored: Restored,
    /// From which stream.
    pub stream: StreamEntry,
    /// How much of it is signed.
    pub signed: u64,
    /// Messages after that, which were not used.
    pub unsigned: usize,
    /// Up to where the snapshot's signature reaches.
    pub snapshot: u64,
    /// When the agent signed that, as its clock claimed.
    pub signed_at: Moment,
    /// What else is not as it should be: a line each.
    pub warnings: Vec<String>,
    /// Why what follows the signed range was refused, if it was.
    pub broken: Option<String>,
}

/// Fetches, checks, opens and restores. `fetched` and `written` get bytes as they come.
pub fn restore(
    reader: &Reader,
    (site, authority): (&Signed<Site>, &VerifyingKey),
    grant: &[u8],
    target: &Target,
    wish: &Wish,
    fetched: &mut dyn FnMut(u64, u64),
    written: &mut dyn FnMut(u64),
) -> Result<Done> {
    let grant = check_grant(grant, reader, &site.statement, target)?;
    let dataset = covered(&grant.statement, wish.dataset.as_ref())?;
    let identity = Identity::own(&reader.name, software_key(&reader.keys.signing.to_pkcs8())?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    fs::create_dir_all(wish.to).with_context(|| format!("cannot make {}", wish.to.display()))?;
    let authority = (&site.statement, authority);
    let fetching = fetch_one(reader, authority, (target, &identity), (grant.hash, &dataset), wish, fetched);
    let done = runtime.block_on(fetching).and_then(|(found, warnings)| write_one(found, warnings, wish, written));
    if done.is_err() {
        _ = fs::remove_dir(wish.to); // only if nothing is in it
    }
    done
}

/// Writes out the newest snapshot of what was fetched.
fn write_one(found: Found, mut warnings: Vec<String>, wish: &Wish, written: &mut dyn FnMut(u64)) -> Result<Done> {
    let Found { stream, opened, broken } = found;
    let (end, later) = opened.newest().ok_or_else(|| no_snapshot(&opened, broken.as_deref()))?;
    let end = match wish.before {
        None => {
            warnings.extend(still_sealed(later, wish.at_least)?);
            end
        }
        Some(before) => opened
            .last_before(before)
            .ok_or_else(|| none_before(&opened, before))
            .next("give a later --before, or an earlier --generation")?,
    };
    warnings.extend(opened.revoked.iter().map(|a| format!("the agent {a}, which the site file revokes, signed in this stream")));
    warnings.extend(opened.damaged());
    let address = opened.address(&end)?;
    let restored = write_out(&opened, address, wish.to, &wish.only, written)?;
    let (signed, unsigned) = (opened.signed, opened.unsigned);
    Ok(Done { restored, stream, signed, unsigned, snapshot: end.signed_to, signed_at: end.signed_at, warnings, broken })
}

/// A stream that was fetched and checked.
struct Found {
    stream: StreamEntry,
    opened: Opened,
    broken: Option<String>,
}

/// Fetches the stream that is wished for; without a wish the newest that isn't a revoked agent's.
async fn fetch_one(
    reader: &Reader,
    (site, authority): (&Site, &VerifyingKey),
    (target, identity): (&Target, &Identity),
    (grant, dataset): (Hash32, &Name),
    wish: &Wish<'_>,
    fetched: &mut dyn FnMut(u64, u64),
) -> Result<(Found, Vec<String>)> {
    let mut connection = explained(connect(target, identity).await)?;
    let keys = keys(&mut connection, grant).await?;
    let mut streams = list(&mut connection, dataset).await?;
    let whoever_signed = wish.generation.is_some() || wish.stream.is_some();
    let newer = newer_site(site, connection.session.welcome().site_serial);
    let mut passed: Vec<String> = vec![];
    loop {
        let stream = match choose(&streams, wish, dataset) {
            Err(e) if !passed.is_empty() => return Err(e.context(passed.join("; "))),
            chosen => chosen?,
        };
        let expected = Expected {
            site: &site.site,
            dataset,
            stream: stream.stream,
            generation: stream.generation,
            authority,
            revoked: &site.revoked_agents,
            whoever_signed,
            at_least: wish.at_least,
        };
        let mut intake = Intake::new(expected, staging(wish.to)?);
        let broken = read_all(&mut connection, grant, dataset, &stream, &mut intake, fetched).await?;
        let reached = intake.reached();
        let opened = intake.finish(|binding| sealer(reader, binding, &grant, &keys));
        if !whoever_signed && opened.ends().is_empty() && !opened.revoked.is_empty() {
            passed.push(format!("generation {} was passed over: {}", stream.generation, broken.unwrap_or_default()));
            streams.retain(|s| s.stream != stream.stream);
            continue;
        }
        ensure_reached(reached, &stream, wish.at_least, broken.as_deref())?;
        _ = connection.writer.close().await;
        passed.extend(newer);
        return Ok((Found { stream, opened, broken }, passed));
    }
}

fn none_before(opened: &Opened, before: Moment) -> anyhow::Error {
    let earliest = opened.ends().first().map_or_else(String::new, |e| format!("; the earliest was signed {}", e.signed_at));
    anyhow!("no snapshot that the grant covers was signed by {before}{earliest}; nothing was restored")
}

/// Snapshots copied in after the opening stay sealed: worth a warning, unless home asks for one of them.
fn still_sealed(later: &[End], at_least: Option<Chain>) -> Result<Option<String>> {
    let Some(first) = later.first() else { return Ok(None) };
    if at_least.is_some_and(|least| least.length > first.signed_to) {
        return Err(anyhow!("what was acknowledged at home was copied in after this grant's opening; nothing was restored"))
            .next("write a new grant and have it approved; or leave --at-least out to restore what this one covers");
    }
    Ok(Some(format!("newer snapshots, copied in after the opening, stay sealed ({}): a new grant opens them", later.len())))
}

/// Its word is not signed, so it is worth a warning and no more.
fn newer_site(site: &Site, theirs: u32) -> Option<String> {
    let ours = site.serial;
    (theirs > ours).then(|| {
        format!("the appliance has the site file {theirs}, you gave {ours}: fetch the newest, which may revoke an agent that signed here")
    })
}

fn ensure_reached(reached: bool, stream: &StreamEntry, at_least: Option<Chain>, broken: Option<&str>) -> Result<()> {
    let (false, Some(least)) = (reached, at_least) else { return Ok(()) };
    let why = broken.map(|b| format!(" ({b})")).unwrap_or_default();
    let (generation, bytes) = (stream.generation, stream.bytes);
    let what = anyhow!(
        "the embassy gives {bytes} bytes of generation {generation}, and among them not what was acknowledged at home, {}:{}{why}; nothing was restored",
        least.length,
        least.root
    );
    Err(what)
        .next("what you hold may be of another generation (--generation); if not, the embassy keeps something back: tell the authority")
}

fn no_snapshot(opened: &Opened, broken: Option<&str>) -> anyhow::Error {
    let (length, signed) = (opened.length, opened.signed);
    let why = broken.map(|b| format!("; then: {b}")).unwrap_or_default();
    anyhow!(
        "no whole snapshot of this stream is signed: of {length} bytes the signed range ends at {signed}{why}; nothing was restored, try an earlier generation with --generation"
    )
}

fn check_grant(note: &[u8], reader: &Reader, site: &Site, target: &Target) -> Result<Signed<Grant>> {
    let grant = sign::read_unverified::<Grant>(note).context("the grant")?;
    let public = reader.keys.public(&reader.name);
    ensure!(
        grant.statement.reader.hpke == public.hpke,
        "this grant names another reader's key; give the key file whose public half stands in it"
    );
    ensure!(grant.statement.site == site.site, "this grant is for the site {}, the site file for {}", grant.statement.site, site.site);
    ensure!(
        grant.statement.appliance == target.appliance,
        "this grant opens at the appliance {}, not at {}",
        grant.statement.appliance,
        target.appliance
    );
    Ok(grant)
}

fn covered(grant: &Grant, wanted: Option<&Name>) -> Result<Name> {
    let mut names: Vec<&Name> = grant.covers.iter().map(|c| &c.dataset).collect();
    names.dedup();
    let list = || names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, &names[..]) {
        (Some(name), _) if names.contains(&name) => Ok(name.clone()),
        (Some(name), _) => bail!("the grant doesn't cover {name}; it covers: {}", list()),
        (None, [one]) => Ok((*one).clone()),
        (None, _) => bail!("the grant covers several datasets; say which with --dataset: {}", list()),
    }
}

/// Says what to do about a reader that isn't let in, or a grant that isn't open.
fn explained<T>(answer: Result<T, DoorError>) -> Result<T> {
    match &answer {
        Err(DoorError::NotAdmitted(_)) => {}
        Err(DoorError::Refused(r)) if r.code == Code::Sealed => {}
        _ => return Ok(answer?),
    }
    answer.next("the grant must be approved by its quorum first (hoidla-custodian approve), and it ends by itself")
}

async fn keys(connection: &mut Connection, grant: Hash32) -> Result<Vec<Key>> {
    let mut keys = vec![];
    let take = |part| match part {
        Response::Key(key) => {
            keys.push(key);
            Ok(())
        }
        _ => Err(Broken::Protocol("something else among keys").into()),
    };
    explained(connection.ask_parts(&Request::Keys { grant }, take).await)?;
    Ok(keys)
}

async fn list(connection: &mut Connection, dataset: &Name) -> Result<Vec<StreamEntry>> {
    let mut streams = vec![];
    let take = |part| match part {
        Response::Stream(stream) => {
            streams.push(stream);
            Ok(())
        }
        _ => Err(Broken::Protocol("something else in a listing").into()),
    };
    explained(connection.ask_parts(&Request::List { dataset: dataset.clone() }, take).await)?;
    Ok(streams)
}

fn choose(streams: &[StreamEntry], wish: &Wish, dataset: &Name) -> Result<StreamEntry> {
    let fits =
        |s: &&StreamEntry| s.bytes > 0 && wish.generation.is_none_or(|g| g == s.generation) && wish.stream.is_none_or(|id| id == s.stream);
    let newest = streams.iter().filter(fits).map(|s| s.generation).max();
    let mut found = streams.iter().filter(fits).filter(|s| Some(s.generation) == newest);
    let asked = if wish.generation.is_some() || wish.stream.is_some() { " that was asked for" } else { " to choose by itself" };
    let first = found.next().ok_or_else(|| anyhow!("the embassy has nothing of the dataset {dataset}{asked}"))?;
    let others: Vec<_> = found.map(|s| format!("{} ({} bytes)", s.stream, s.bytes)).collect();
    if others.is_empty() {
        return Ok(first.clone());
    }
    let what = anyhow!(
        "generation {} has several streams: {} ({} bytes), {}; nothing was restored",
        first.generation,
        first.stream,
        first.bytes,
        others.join(", ")
    );
    Err(what).next("an agent begins one for each generation: ask the authority which is right, and name it with --stream")
}

/// Gives why the stream was refused from some byte on, if it was.
async fn read_all(
    connection: &mut Connection,
    grant: Hash32,
    dataset: &Name,
    stream: &StreamEntry,
    intake: &mut Intake<'_>,
    fetched: &mut dyn FnMut(u64, u64),
) -> Result<Option<String>> {
    let mut at = 0;
    while at < stream.bytes {
        let range = ByteRange::new(at, RANGE.min(stream.bytes - at))?;
        let request = Request::Read(Read { grant, dataset: dataset.clone(), stream: stream.stream, range });
        let mut failed = None;
        let take = |part| match part {
            Response::Data { offset, bytes } if offset == at && at + bytes.len() as u64 <= range.end() => {
                at += bytes.len() as u64;
                fetched(bytes.len() as u64, stream.bytes);
                if failed.is_none() {
                    failed = intake.take(&bytes).err();
                }
                Ok(())
            }
            _ => Err(Broken::Protocol("other bytes than were asked for").into()),
        };
        explained(connection.ask_parts(&request, take).await)?;
        if let Some(e) = failed {
            return Ok(Some(format!("{e:#}")));
        }
        ensure!(at == range.end(), "the embassy gave fewer bytes of the stream than it listed");
    }
    Ok(None)
}

fn sealer(reader: &Reader, binding: &Binding, grant: &Hash32, keys: &[Key]) -> Result<Option<Sealer>> {
    let of = |k: &&Key| k.dataset == binding.dataset && k.stream == binding.stream && k.epoch == binding.epoch;
    let Some(key) = keys.iter().find(of) else { return Ok(None) };
    let key = datakey::unwrap_as_reader(&reader.keys.hpke, binding, grant, &key.sealed)
        .with_context(|| format!("the re-wrapped key of epoch {} doesn't open", binding.epoch))?;
    Ok(Some(fetch::sealer(&key)))
}

/// A file for ciphertext that has no name, so that nothing of it is left however this ends.
fn staging(to: &Path) -> Result<File> {
    let path: PathBuf = to.join(format!(".hoidla-ciphertext-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot write into {}", to.display()))?;
    fs::remove_file(&path)?;
    Ok(file)
}
