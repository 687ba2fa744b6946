//! The short-lived process in which shares are checked and vaults opened, as the
//! daemon asks it; what runs inside is `hoidla_tpm::opening`.
//!
//! Promises: nothing of a vault's key, and no share, ever enters the daemon: it
//! holds sealed shares, and gets back a verdict, or data keys re-wrapped to the
//! grant's reader. The process forbids dumps and tracing, locks its pages, asks the
//! kernel for nothing but what its job needs ([`crate::confined`]), does it and ends.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use hoidla_crypto::{hpke::KeyPair, sign::VerifyingKey};
use hoidla_format::{
    Hash32, Name, statement,
    statements::{SealedShare, Vault},
};
use hoidla_quorum::{intake::Quorate, opening::Occasion};
use hoidla_tpm::{
    Tcti,
    opening::{self, Check, Open, OpenVault, Reply, Request, WrappedKey},
};
use hoidla_verify::Public;

use crate::{
    config::State,
    confined::{self, Way},
    machine,
    papers::Papers,
};

/// The hidden subcommand's name.
pub const COMMAND: &str = "open-helper";
/// How long a check may take.
const CHECK: Duration = Duration::from_secs(60);
/// How long an opening may take: some ten milliseconds a data key.
const OPEN: Duration = Duration::from_secs(600);

/// The body of the hidden subcommand: one question, one answer.
///
/// # Errors
/// If the process cannot be closed off, or its pipes break.
pub fn run(way: Way) -> anyhow::Result<()> {
    let hardened = hoidla_cli::harden();
    ensure!(hardened.undumpable, "this system lets other processes look into this one; no share is opened here");
    if !hardened.locked {
        // The keys themselves are locked apart; what libraries hold of them for a moment is not.
        eprintln!("the opening process could not lock all its memory: raise the memory lock limit, or have no swap");
    }
    confined::close(way)?;
    Ok(opening::serve(std::io::stdin().lock(), std::io::stdout().lock())?)
}

/// Whether what a helper was started for has ended: then it is killed.
pub type Ended = Arc<AtomicBool>;

/// Starts helpers.
#[derive(Clone, Debug)]
pub struct Helpers {
    program: PathBuf,
}

/// A data key to re-wrap, by the vault that it is sealed to.
#[derive(Clone, Debug)]
pub struct Wrapped {
    /// SHA-256 of the vault certificate.
    pub vault: Hash32,
    /// The key and its place.
    pub key: WrappedKey,
}

/// What the daemon checked when it started, and openings rest on. Nothing of it is read again.
pub struct Ground {
    /// The state folder, for the TPM's own blobs.
    pub state: State,
    /// The papers in force.
    pub papers: Arc<Papers>,
    /// Where the TPM is.
    pub tcti: Tcti,
    /// Whose word the papers are.
    pub authority: VerifyingKey,
}

impl Helpers {
    /// Helpers are this very program.
    pub fn this_program() -> anyhow::Result<Self> {
        Ok(Self { program: std::env::current_exe().context("where is this program?")? })
    }

    /// Helpers are another program's hidden subcommand, for tests.
    pub fn of(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    async fn ask(&self, request: Request, patience: Duration, ended: &Ended) -> anyhow::Result<Reply> {
        let (program, ended) = (self.program.clone(), ended.clone());
        let way = match &request {
            Request::Check(_) => Way::None,
            Request::Open(open) => Way::to(&open.tcti),
        };
        let ask = move || {
            opening::ask(Command::new(program).args([COMMAND, &way.to_string()]), &request, patience, || ended.load(Ordering::SeqCst))
        };
        Ok(tokio::task::spawn_blocking(ask).await??)
    }

    /// Checks a share on arrival. `Ok(Err(..))`: it is bad, in words that name its custodian.
    pub async fn check(
        &self,
        one_time: &KeyPair,
        occasion: Occasion,
        vault: Vault,
        custodian: Name,
        share: SealedShare,
        ended: &Ended,
    ) -> anyhow::Result<Result<(), String>> {
        let check = Check { one_time: one_time.seed().duplicate(), occasion, vault, custodian, share };
        match self.ask(Request::Check(check), CHECK, ended).await? {
            Reply::Checked => Ok(Ok(())),
            Reply::BadShare { custodian, dataset, vault_epoch, why } => {
                Ok(Err(format!("{custodian}'s share of {dataset}, vault epoch {vault_epoch}, {why}")))
            }
            Reply::Failed(why) => bail!("{why}"),
            Reply::Opened(_) => bail!("the opening process answered another question"),
        }
    }

    /// Opens the vaults of a complete ceremony and re-wraps `keys`; none for those that don't open.
    pub async fn open(
        &self,
        ground: &Ground,
        one_time: &KeyPair,
        quorate: &Quorate,
        keys: &[Wrapped],
        ended: &Ended,
    ) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let (request, order) = question(ground, one_time, quorate, keys)?;
        match self.ask(request, OPEN, ended).await? {
            Reply::Opened(by_vault) => {
                let answers: Vec<Option<Vec<u8>>> = by_vault.into_iter().flatten().collect();
                ensure!(answers.len() == order.len(), "the opening process lost a key");
                let mut out = vec![None; keys.len()];
                order.into_iter().zip(answers).for_each(|(place, answer)| out[place] = answer);
                Ok(out)
            }
            Reply::BadShare { custodian, why, .. } => bail!("{custodian}'s share {why}"),
            Reply::Failed(why) => bail!("{why}"),
            Reply::Checked => bail!("the opening process answered another question"),
        }
    }
}

/// The question of an opening, and which of `keys` its answers are for.
fn question(ground: &Ground, one_time: &KeyPair, quorate: &Quorate, keys: &[Wrapped]) -> anyhow::Result<(Request, Vec<usize>)> {
    let papers = &ground.papers;
    let (mut vaults, mut order) = (Vec::new(), Vec::new());
    for (covered, shares) in &quorate.vaults {
        let (dataset, vault_epoch) = (&covered.vault.dataset, covered.vault.vault_epoch);
        let vault_hash = statement::hash(&statement::write(&covered.vault));
        let dealt = papers.halves.statement.halves.iter().find(|h| h.vault == vault_hash);
        let dealt =
            dealt.ok_or_else(|| anyhow!("this appliance has no half of {dataset}, vault epoch {vault_epoch}: none was dealt for it"))?;
        let mine = keys.iter().enumerate().filter(|(_, k)| k.vault == vault_hash);
        let (places, of_vault): (Vec<usize>, Vec<WrappedKey>) = mine.map(|(i, k)| (i, k.key.clone())).unzip();
        order.extend(places);
        vaults.push(OpenVault {
            vault: covered.vault.clone(),
            half: machine::half(&ground.state, dataset, vault_epoch)?,
            wrapped_key: dealt.wrapped_key.0.clone(),
            shares: shares.clone(),
            keys: of_vault,
        });
    }
    let open = Open {
        one_time: one_time.seed().duplicate(),
        occasion: quorate.occasion,
        tcti: ground.tcti.clone(),
        srk: Public::parse(&papers.identity.srk.0)?.name(),
        release_key: papers.site.statement.release_key.0.clone(),
        release: papers.release.statement.clone(),
        appliance: papers.identity.name.clone(),
        grant: quorate.grant.statement.clone(),
        vaults,
    };
    Ok((Request::Open(Box::new(open)), order))
}
