//! What runs inside the helper process.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow, ensure};
use hoidla_crypto::{
    Secret,
    datakey::Binding,
    hpke::KeyPair,
    sign::{self, Signed, VerifyingKey},
};
use hoidla_format::{
    Hash32, Kind, frame,
    statements::{AgentCertificate, Covers, EpochHeader, Grant, SealedShare, Vault},
};
use hoidla_quorum::opening::{self, BadShare, VaultKey};
use hoidla_tpm::Tpm;

use super::{Answer, Job, MOST, Place, Sent};
use crate::{config::State, identify, machine, papers::Papers};

/// Runs one job; the body of the hidden subcommand.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let hardened = hoidla_cli::harden();
    ensure!(hardened.undumpable, "this system lets other processes look into this one; no share is opened here");
    hoidla_tpm::silence_libtss2();
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let one_time = KeyPair::from_seed(Secret::try_filled(|seed| input.read_exact(seed))?);
    let job: Job = serde_json::from_slice(&read_part(&mut input)?.context("no job")?)?;
    let helper = Helper::new(folder)?;
    let Some(grant) = &job.open else {
        return write_answer(&mut output, &answer(helper.check(&one_time, &job)));
    };
    match helper.open(&one_time, &job, grant) {
        Err(e) => write_answer(&mut output, &answer(Err(e))),
        Ok(opened) => {
            drop(one_time);
            write_answer(&mut output, &Answer::Done)?;
            while let Some(header) = read_part(&mut input)? {
                // A frame that is no sound header stays sealed; it stops nobody else's opening.
                let key = helper.rewrap(&opened, &header).inspect_err(|e| eprintln!("an epoch stays sealed: {e:#}"));
                write_part(&mut output, &key.unwrap_or_default())?;
            }
            Ok(())
        }
    }
}

fn answer(outcome: anyhow::Result<()>) -> Answer {
    match outcome {
        Ok(()) => Answer::Done,
        Err(e) if e.is::<BadShare>() => Answer::BadShare(e.to_string()),
        Err(e) => Answer::Failed(format!("{e:#}")),
    }
}

struct Helper {
    state: State,
    authority: VerifyingKey,
    papers: Papers,
}

/// Opened vaults, for the seconds of re-wrapping.
struct OpenedVaults {
    grant: Grant,
    hash: Hash32,
    vaults: Vec<(Covers, VaultKey)>,
}

impl Helper {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let state = State::at(folder)?;
        let authority = state.config()?.authority_key()?;
        let papers = Papers::kept(&state.papers(), &authority, &identify::known(&state)?)?;
        Ok(Self { state, authority, papers })
    }

    fn vault_of(&self, share: &SealedShare) -> anyhow::Result<&Signed<Vault>> {
        let fits = |v: &&Signed<Vault>| v.statement.dataset == share.dataset && v.statement.vault_epoch == share.vault_epoch;
        let found = self.papers.vaults.iter().find(fits);
        found.ok_or_else(|| anyhow!("this appliance holds no vault {} of {}", share.vault_epoch, share.dataset))
    }

    fn check(&self, one_time: &KeyPair, job: &Job) -> anyhow::Result<()> {
        for sent in &job.shares {
            let vault = &self.vault_of(&sent.share)?.statement;
            opening::open_share(one_time, &job.occasion(), vault, &sent.custodian, &sent.share)?;
        }
        Ok(())
    }

    fn open(&self, one_time: &KeyPair, job: &Job, note: &str) -> anyhow::Result<OpenedVaults> {
        // Its signature was the daemon's to check; what custodians signed is this hash.
        let grant = sign::read_unverified::<Grant>(note.as_bytes())?;
        ensure!(grant.hash == job.grant, "the grant is not the one that was approved");
        let tpm = machine::pinned(&self.state.config()?, &self.papers.identity)?;
        let open = |c: &Covers| Ok((c.clone(), self.open_vault(one_time, job, c, &tpm)?));
        let vaults = grant.statement.covers.iter().map(open).collect::<anyhow::Result<_>>()?;
        Ok(OpenedVaults { grant: grant.statement, hash: grant.hash, vaults })
    }

    fn open_vault(&self, one_time: &KeyPair, job: &Job, covers: &Covers, tpm: &Tpm) -> anyhow::Result<VaultKey> {
        let (dataset, vault_epoch) = (&covers.dataset, covers.vault_epoch);
        let vault = self.papers.vaults.iter().find(|v| v.hash == covers.vault).context("a vault that this appliance doesn't hold")?;
        let half = self.papers.halves.statement.halves.iter().find(|h| h.vault == vault.hash);
        let half =
            half.with_context(|| format!("this appliance has no half of {dataset}, vault epoch {vault_epoch}: it was not dealt for it"))?;
        let mine = |s: &&Sent| s.share.dataset == *dataset && s.share.vault_epoch == vault_epoch;
        let share = |s: &Sent| opening::open_share(one_time, &job.occasion(), &vault.statement, &s.custodian, &s.share);
        let shares = job.shares.iter().filter(mine).map(share).collect::<Result<Vec<_>, _>>()?;
        let blob = machine::half(&self.state, dataset, vault_epoch)?;
        let unseal = |_: &_, auth: &Secret<32>| tpm.unseal_half(&blob, &self.papers.approved, dataset, vault_epoch, auth);
        Ok(opening::open_with_tpm(&vault.statement, &self.papers.identity.name, half, &shares, unseal)?)
    }

    /// An epoch's data key for the reader, from a header that an agent of the authority's
    /// signed for the very place where it was found.
    fn rewrap(&self, opened: &OpenedVaults, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (place, frame) = Place::split(bytes)?;
        let (kind, body, rest) = frame::split(frame)?;
        ensure!(kind == Kind::EpochHeader && rest.is_empty(), "it begins with another frame than a header");
        let (agent, header) = frame::split_epoch_header(body)?;
        let agent = sign::open::<AgentCertificate>(agent, Some("authority"), &self.authority).context("its agent's certificate")?.statement;
        let key = VerifyingKey::from_sec1(&agent.key.0)?;
        let header = sign::open::<EpochHeader>(header, Some(agent.agent.as_str()), &key).context("its header")?.statement;
        let there = Place { dataset: header.dataset, stream: header.stream, epoch: header.epoch, start: header.start };
        ensure!(there == place && agent.dataset == place.dataset, "its header belongs elsewhere");
        let covering = |(c, _): &&(Covers, VaultKey)| c.dataset == place.dataset && c.vault == header.vault;
        let (_, vault) = opened.vaults.iter().find(covering).context("the grant doesn't cover its vault epoch")?;
        let Place { dataset, stream, epoch, .. } = place;
        let binding = Binding { site: header.site, dataset, stream, epoch, vault_epoch: header.vault_epoch };
        Ok(vault.rewrap(&header.wrapped_key.0, &binding, &opened.grant, &opened.hash)?)
    }
}

fn read_part(input: &mut impl Read) -> anyhow::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if let Err(e) = input.read_exact(&mut len) {
        return if e.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(e.into()) };
    }
    let len = u32::from_le_bytes(len) as usize;
    ensure!(len <= MOST, "a part of {len} bytes");
    let mut bytes = vec![0; len];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn write_part(output: &mut impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    output.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
    output.write_all(bytes)?;
    Ok(output.flush()?)
}

fn write_answer(output: &mut impl Write, answer: &Answer) -> anyhow::Result<()> {
    write_part(output, &serde_json::to_vec(answer)?)
}
