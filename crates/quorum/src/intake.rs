//! One ceremony after another, approval by approval.
//!
//! Promises: an approval counts once, for one custodian of the vault's roster, for the grant
//! and the challenge whose hashes it signs; a bad share names its custodian and changes
//! nothing; order doesn't matter; a ceremony that is complete, open, sealed or expired takes
//! no approval; the number of ceremonies side by side is bounded, for each proposer too, and one
//! never sees another's approvals; who keeps sending bad shares is heard no more. Time is the caller's monotonic clock. It opens no share itself: `check` does,
//! in the process that holds the one-time key.

use std::{collections::BTreeMap, time::Duration};

use hoidla_crypto::sign::{Signed, VerifyingKey};
use hoidla_format::{
    Hash32, Name,
    statements::{Approval, Challenge, Covers, Door, Grant, Roster, SealedShare, Vault},
};

use crate::{opening::Occasion, share::VaultId};

pub use crate::refusal::IntakeError;

/// The longest time for which approvals of one challenge count: a day.
pub const LONGEST_CHALLENGE: u32 = 24 * 60 * 60;

/// How many of one proposer's ceremonies may collect approvals at a time, so that one custodian
/// can't fill the appliance with grants that nobody wants.
pub const MOST_EACH: usize = 2;
/// After how many bad shares for one challenge a custodian is refused: each costs a process.
pub const MOST_BAD: u8 = 3;

/// One vault that a grant covers, with its roster.
#[derive(Clone)]
pub struct Covered {
    /// The vault certificate.
    pub vault: Vault,
    /// The roster that its hash names.
    pub roster: Roster,
}

/// Where a ceremony stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Approvals are missing; they count until this moment of the monotonic clock.
    Collecting {
        /// When the challenge dies.
        until: Duration,
    },
    /// Every covered vault has its quorum; the opening may run, once.
    Complete {
        /// When the challenge dies.
        until: Duration,
    },
    /// The opening runs.
    Opening {
        /// When the challenge dies.
        until: Duration,
    },
    /// The re-wrapped keys may be fetched until this moment.
    Open {
        /// When they are forgotten.
        until: Duration,
    },
}

/// How far a ceremony is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Approvals that count for the vault that is furthest behind.
    pub have: u8,
    /// Approvals that it needs.
    pub need: u8,
}

/// One ceremony: a grant, its challenge, and what custodians have sent.
pub struct Ceremony {
    grant: Signed<Grant>,
    proposer: Name,
    challenge: Challenge,
    challenge_hash: Hash32,
    covered: Vec<Covered>,
    approvals: BTreeMap<Name, Approval>,
    /// Who has sent how many bad shares; only custodians of the vaults stand here.
    bad: BTreeMap<Name, u8>,
    phase: Phase,
}

/// All ceremonies under way at one appliance, by the hash of their grant.
pub struct Intake {
    most: usize,
    ceremonies: BTreeMap<Hash32, Ceremony>,
}

/// An approval whose signature, challenge and shape are right; its shares are not checked yet.
pub struct Verified {
    approval: Approval,
}

/// What the opening needs: each covered vault with a quorum's sealed shares.
pub struct Quorate {
    /// The grant.
    pub grant: Signed<Grant>,
    /// What the shares are bound to.
    pub occasion: Occasion,
    /// Each covered vault, with who sent which share.
    pub vaults: Vec<(Covered, Vec<(Name, SealedShare)>)>,
}

impl Phase {
    fn until(self) -> Duration {
        match self {
            Self::Collecting { until } | Self::Complete { until } | Self::Opening { until } | Self::Open { until } => until,
        }
    }
}

impl Covered {
    fn id(&self) -> VaultId {
        VaultId::of(&self.vault)
    }

    /// The index of this custodian's share, if they are on the roster under this key.
    fn index_of(&self, custodian: &Name, key: &[u8]) -> Option<u8> {
        let listed = self.roster.custodians.iter().any(|c| c.name == *custodian && c.signing.0 == key);
        let dealt = self.vault.commitments.iter().find(|c| c.door == Door::Quorum && c.custodian == *custodian);
        if listed { dealt.map(|c| c.index) } else { None }
    }
}

impl Verified {
    /// Who approved.
    pub fn custodian(&self) -> &Name {
        &self.approval.custodian
    }

    /// Which grant.
    pub fn grant(&self) -> &Hash32 {
        &self.approval.grant
    }

    /// The shares to check before [`Intake::accept`].
    pub fn shares(&self) -> &[SealedShare] {
        &self.approval.shares
    }
}

impl Ceremony {
    /// The grant.
    pub fn grant(&self) -> &Signed<Grant> {
        &self.grant
    }

    /// The challenge that approvals answer.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// What approved shares are bound to.
    pub fn occasion(&self) -> Occasion {
        Occasion { grant: self.grant.hash, challenge: self.challenge_hash }
    }

    /// The vaults it covers.
    pub fn covered(&self) -> &[Covered] {
        &self.covered
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether more than one person stands behind it: somebody approved beside who proposed it, or it is open or just opening.
    pub fn is_backed(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. } | Phase::Open { .. }) || self.approvals.keys().any(|who| *who != self.proposer)
    }

    /// Who has approved.
    pub fn approved_by(&self) -> impl Iterator<Item = &Name> {
        self.approvals.keys()
    }

    /// How far the vault is that is furthest behind.
    pub fn progress(&self) -> Progress {
        self.by_vault().map(|(_, p)| p).max_by_key(|p| p.need.saturating_sub(p.have)).unwrap_or(Progress { have: 0, need: 0 })
    }

    /// How far each vault is.
    pub fn by_vault(&self) -> impl Iterator<Item = (VaultId, Progress)> {
        self.covered.iter().map(|c| (c.id(), Progress { have: self.count(c), need: c.vault.quorum }))
    }

    fn count(&self, covered: &Covered) -> u8 {
        let id = covered.id();
        let has = |a: &&Approval| a.shares.iter().any(|s| is_of(s, &id));
        u8::try_from(self.approvals.values().filter(has).count()).unwrap_or(u8::MAX)
    }

    fn quorate(&self) -> bool {
        self.covered.iter().all(|c| self.count(c) >= c.vault.quorum)
    }

    fn hears(&self, from: &Name) -> Result<(), IntakeError> {
        let bad = self.bad.get(from).copied().unwrap_or(0);
        if bad < MOST_BAD { Ok(()) } else { Err(IntakeError::Barred(from.clone())) }
    }

    fn verify(&self, from: &Name, note: &[u8]) -> Result<Verified, IntakeError> {
        self.hears(from)?;
        let key = self.key_of(from).ok_or_else(|| IntakeError::Stranger(from.clone()))?;
        let verifying = VerifyingKey::from_sec1(key).map_err(|_| IntakeError::Stranger(from.clone()))?;
        let approval = hoidla_crypto::sign::open::<Approval>(note, Some(from.as_str()), &verifying)
            .map_err(|_| IntakeError::Signature(from.clone()))?
            .statement;
        if approval.custodian != *from {
            return Err(IntakeError::OtherSender(approval.custodian));
        }
        if approval.grant != self.grant.hash || approval.challenge != self.challenge_hash {
            return Err(IntakeError::OtherChallenge);
        }
        self.check_shape(&approval, key)?;
        Ok(Verified { approval })
    }

    fn key_of(&self, custodian: &Name) -> Option<&[u8]> {
        self.covered.iter().flat_map(|c| &c.roster.custodians).find(|c| c.name == *custodian).map(|c| &c.signing.0[..])
    }

    /// Exactly one share, with the right index, for each vault whose roster lists the custodian.
    fn check_shape(&self, approval: &Approval, key: &[u8]) -> Result<(), IntakeError> {
        let wrong = || IntakeError::Shares(approval.custodian.clone());
        let mut expected = 0;
        for c in &self.covered {
            let Some(index) = c.index_of(&approval.custodian, key) else { continue };
            expected += 1;
            let id = c.id();
            let mut theirs = approval.shares.iter().filter(|s| is_of(s, &id));
            match (theirs.next(), theirs.next()) {
                (Some(s), None) if s.index == index => {}
                _ => return Err(wrong()),
            }
        }
        if expected == 0 || approval.shares.len() != expected { Err(wrong()) } else { Ok(()) }
    }

    fn take(&mut self) -> Quorate {
        let approvals = std::mem::take(&mut self.approvals);
        let shares_of = |c: &Covered| {
            let id = c.id();
            let sent = |(who, a): (&Name, &Approval)| Some((who.clone(), a.shares.iter().find(|s| is_of(s, &id))?.clone()));
            (c.clone(), approvals.iter().filter_map(sent).collect())
        };
        Quorate { grant: self.grant.clone(), occasion: self.occasion(), vaults: self.covered.iter().map(shares_of).collect() }
    }
}

fn is_of(share: &SealedShare, vault: &VaultId) -> bool {
    share.dataset == vault.dataset && share.vault_epoch == vault.vault_epoch
}

impl Intake {
    /// Takes at most `most` ceremonies at a time.
    pub fn new(most: usize) -> Self {
        Self { most, ceremonies: BTreeMap::new() }
    }

    /// The ceremony of a grant, if it is under way or open at `now`.
    pub fn get(&self, grant: &Hash32, now: Duration) -> Option<&Ceremony> {
        self.ceremonies.get(grant).filter(|c| now < c.phase.until())
    }

    /// All ceremonies under way or open.
    pub fn all(&self, now: Duration) -> impl Iterator<Item = &Ceremony> {
        self.ceremonies.values().filter(move |c| now < c.phase.until())
    }

    /// Begins a ceremony that `proposer`, whom the door let in, asks for. The caller has checked
    /// the grant ([`crate::grant::check`]) and the signatures of vaults and rosters.
    pub fn begin(
        &mut self,
        proposer: &Name,
        grant: Signed<Grant>,
        challenge: Challenge,
        covered: Vec<Covered>,
        now: Duration,
    ) -> Result<&Ceremony, IntakeError> {
        self.sweep(now);
        if self.ceremonies.contains_key(&grant.hash) {
            return Err(IntakeError::UnderWay);
        }
        if self.ceremonies.len() >= self.most {
            return Err(IntakeError::TooMany(self.most));
        }
        let theirs = |c: &&Ceremony| c.proposer == *proposer && matches!(c.phase, Phase::Collecting { .. });
        if self.ceremonies.values().filter(theirs).count() >= MOST_EACH {
            return Err(IntakeError::TooManyOf(proposer.clone()));
        }
        if challenge.grant != grant.hash
            || challenge.valid_for_seconds > LONGEST_CHALLENGE
            || challenge.appliance != grant.statement.appliance
        {
            return Err(IntakeError::Challenge);
        }
        check_covered(&grant.statement, &covered)?;
        let challenge_hash = hoidla_format::statement::hash(&hoidla_format::statement::write(&challenge));
        let until = now + Duration::from_secs(challenge.valid_for_seconds.into());
        let phase = Phase::Collecting { until };
        let hash = grant.hash;
        let (approvals, bad) = (BTreeMap::new(), BTreeMap::new());
        let ceremony = Ceremony { grant, proposer: proposer.clone(), challenge, challenge_hash, covered, approvals, bad, phase };
        Ok(self.ceremonies.entry(hash).or_insert(ceremony))
    }

    /// Checks all of an approval but its shares. `from` is whom the door let in.
    pub fn verify(&self, grant: &Hash32, from: &Name, note: &[u8], now: Duration) -> Result<Verified, IntakeError> {
        let ceremony = self.collecting(grant, now)?;
        let verified = ceremony.verify(from, note)?;
        if ceremony.approvals.contains_key(from) {
            return Err(IntakeError::Twice(from.clone()));
        }
        Ok(verified)
    }

    /// Counts an approval whose shares have been checked.
    pub fn accept(&mut self, verified: Verified, now: Duration) -> Result<Progress, IntakeError> {
        let approval = verified.approval;
        let challenge = self.collecting(&approval.grant, now)?.challenge_hash;
        let ceremony = self.ceremonies.get_mut(&approval.grant).ok_or(IntakeError::NoCeremony)?;
        if approval.challenge != challenge {
            return Err(IntakeError::OtherChallenge);
        }
        if ceremony.approvals.contains_key(&approval.custodian) {
            return Err(IntakeError::Twice(approval.custodian));
        }
        ceremony.approvals.insert(approval.custodian.clone(), approval);
        if ceremony.quorate() {
            ceremony.phase = Phase::Complete { until: ceremony.phase.until() };
        }
        Ok(ceremony.progress())
    }

    /// Whether a custodian's shares are still worth a check: fewer than [`MOST_BAD`] were bad.
    /// Ask again right before a check that had to wait.
    pub fn hears(&self, grant: &Hash32, from: &Name, now: Duration) -> Result<(), IntakeError> {
        self.collecting(grant, now)?.hears(from)
    }

    /// A verified approval of this custodian carried a bad share.
    pub fn blame(&mut self, grant: &Hash32, from: &Name) {
        let Some(ceremony) = self.ceremonies.get_mut(grant) else { return };
        let bad = ceremony.bad.entry(from.clone()).or_default();
        *bad = bad.saturating_add(1);
    }

    /// [`Intake::verify`], `check` for each share, [`Intake::accept`].
    pub fn approve(
        &mut self,
        grant: &Hash32,
        from: &Name,
        note: &[u8],
        now: Duration,
        mut check: impl FnMut(&Vault, &Occasion, &SealedShare) -> Result<(), IntakeError>,
    ) -> Result<Progress, IntakeError> {
        let verified = self.verify(grant, from, note, now)?;
        let ceremony = self.collecting(grant, now)?;
        for share in verified.shares() {
            let covered = ceremony.covered.iter().find(|c| is_of(share, &c.id())).ok_or_else(|| IntakeError::Shares(from.clone()))?;
            if let Err(e) = check(&covered.vault, &ceremony.occasion(), share) {
                if matches!(e, IntakeError::Bad(_)) {
                    self.blame(grant, from);
                }
                return Err(e);
            }
        }
        self.accept(verified, now)
    }

    fn collecting(&self, grant: &Hash32, now: Duration) -> Result<&Ceremony, IntakeError> {
        let ceremony = self.get(grant, now).ok_or(IntakeError::NoCeremony)?;
        if matches!(ceremony.phase, Phase::Collecting { .. }) { Ok(ceremony) } else { Err(IntakeError::Complete) }
    }

    /// Hands a complete ceremony to the opening, once.
    pub fn take(&mut self, grant: &Hash32, now: Duration) -> Result<Quorate, IntakeError> {
        let ceremony = self.ceremonies.get_mut(grant).filter(|c| now < c.phase.until()).ok_or(IntakeError::NoCeremony)?;
        let Phase::Complete { until } = ceremony.phase else { return Err(IntakeError::NoCeremony) };
        ceremony.phase = Phase::Opening { until };
        Ok(ceremony.take())
    }

    /// The opening succeeded: the keys may be fetched from now on, for as long as the grant says.
    pub fn opened(&mut self, grant: &Hash32, now: Duration) -> Result<Phase, IntakeError> {
        let ceremony = self.ceremonies.get_mut(grant).ok_or(IntakeError::NoCeremony)?;
        let Phase::Opening { .. } = ceremony.phase else { return Err(IntakeError::NoCeremony) };
        ceremony.phase = Phase::Open { until: now + Duration::from_secs(ceremony.grant.statement.open_for_seconds.into()) };
        Ok(ceremony.phase)
    }

    /// Whether the keys of a grant may be fetched at `now`.
    pub fn is_open(&self, grant: &Hash32, now: Duration) -> bool {
        self.get(grant, now).is_some_and(|c| matches!(c.phase, Phase::Open { .. }))
    }

    /// Ends one ceremony (the opening failed, or its reader is done).
    pub fn end(&mut self, grant: &Hash32) -> bool {
        self.ceremonies.remove(grant).is_some()
    }

    /// Ends every ceremony at once; says which.
    pub fn seal(&mut self) -> Vec<Hash32> {
        std::mem::take(&mut self.ceremonies).into_keys().collect()
    }

    /// Ends the ceremonies whose time has passed; says which, so that their keys are forgotten.
    pub fn sweep(&mut self, now: Duration) -> Vec<Hash32> {
        let ended: Vec<_> = self.ceremonies.iter().filter(|(_, c)| now >= c.phase.until()).map(|(h, _)| *h).collect();
        ended.iter().for_each(|h| {
            self.ceremonies.remove(h);
        });
        ended
    }
}

fn check_covered(grant: &Grant, covered: &[Covered]) -> Result<(), IntakeError> {
    use hoidla_format::statement::{hash, write};
    let is_right = |c: &Covered, vault: &Hash32| {
        c.vault.site == grant.site && hash(&write(&c.vault)) == *vault && c.vault.roster == hash(&write(&c.roster))
    };
    // Each vault that the grant names stands here once, and none other.
    let named_once = |g: &Covers| {
        let mut of = covered.iter().filter(|c| c.vault.dataset == g.dataset && c.vault.vault_epoch == g.vault_epoch);
        matches!((of.next(), of.next()), (Some(c), None) if is_right(c, &g.vault))
    };
    if covered.len() == grant.covers.len() && !covered.is_empty() && grant.covers.iter().all(named_once) {
        Ok(())
    } else {
        Err(IntakeError::Vaults)
    }
}
