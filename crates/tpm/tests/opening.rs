//! The opening helper, as a real process with a real TPM. This program is its own helper:
//! started with `helper`, it answers one question and ends; otherwise it runs the tests.

mod common;

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    dataset,
    dealt::{Dealt, dealt},
    name, site,
};
use hoidla_crypto::{
    Secret,
    datakey::{self, Binding, DataKey},
    hpke,
    keys::ReaderKeys,
};
use hoidla_format::{
    Bytes, Hash32, Moment, Name, StreamId, statement,
    statements::{Covers, Door, Grant, SealedShare},
};
use hoidla_quorum::{
    opening::{Occasion, seal_share},
    share::VaultId,
};
use hoidla_tpm::opening::{Check, HelperError, Open, OpenVault, Reply, Request, WrappedKey, ask, serve};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    if env::args().nth(1).as_deref() == Some("helper") {
        serve(std::io::stdin().lock(), std::io::stdout().lock()).expect("the pipes hold");
        return;
    }
    let tests: [(&str, fn()); 7] = [
        ("a_quorum_opens_for_the_reader", a_quorum_opens_for_the_reader),
        ("a_damaged_key_stops_no_other", a_damaged_key_stops_no_other),
        ("a_share_is_checked_and_its_custodian_named", a_share_is_checked_and_its_custodian_named),
        ("what_does_not_fit_opens_nothing", what_does_not_fit_opens_nothing),
        ("questions_and_answers_read_back", questions_and_answers_read_back),
        ("hostile_bytes_get_an_answer_and_no_more", hostile_bytes_get_an_answer_and_no_more),
        ("a_helper_that_hangs_or_dies_is_told_apart", a_helper_that_hangs_or_dies_is_told_apart),
    ];
    let filter = env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    for (what, test) in tests.iter().filter(|(what, _)| what.contains(&filter)) {
        test();
        println!("test {what} ... ok");
    }
}

/// A ceremony: a dealt vault, a grant for a reader, a one-time key, three data keys.
struct Ceremony {
    d: Dealt,
    reader: ReaderKeys,
    grant: Grant,
    one_time: hpke::KeyPair,
    keys: Vec<(DataKey, Binding)>,
}

impl Ceremony {
    fn new() -> Self {
        let d = dealt();
        let reader = ReaderKeys::from_seed(&Secret::random());
        let grant = Grant {
            site: site(),
            appliance: name("lux-1"),
            purpose: "a drill".into(),
            created: Moment::from_seconds(1_800_000_000),
            open_for_seconds: 60,
            nonce: Bytes(vec![1; 16]),
            reader: reader.public(&name("reader-1")),
            covers: vec![Covers { dataset: dataset(), vault_epoch: 1, vault: d.dealing.vault_hash }],
        };
        let binding = |epoch| Binding { site: site(), dataset: dataset(), stream: StreamId([3; 16]), epoch, vault_epoch: 1 };
        let keys = (1..=3).map(|epoch| (DataKey::random(), binding(epoch))).collect();
        Self { d, reader, grant, one_time: hpke::KeyPair::generate(), keys }
    }

    fn occasion(&self) -> Occasion {
        Occasion { grant: statement::hash(&statement::write(&self.grant)), challenge: Hash32([2; 32]) }
    }

    fn sent(&self, at: usize) -> (Name, SealedShare) {
        let (who, share) = (self.d.keys[at].0.clone(), self.d.share(at));
        let id = VaultId::of(&self.d.dealing.vault).share(Door::Quorum, &who, share.index());
        let sealed = seal_share(self.one_time.public(), &self.occasion(), &id, &share);
        (who, sealed)
    }

    fn check(&self, at: usize) -> Check {
        let (custodian, share) = self.sent(at);
        let vault = self.d.dealing.vault.clone();
        Check { one_time: self.one_time.seed().duplicate(), occasion: self.occasion(), vault, custodian, share }
    }

    fn open(&self, shares: &[usize]) -> Box<Open> {
        let vault = hpke::PublicKey::from_bytes(&self.d.dealing.vault.public_key.0).unwrap();
        let wrap = |(key, b): &(DataKey, Binding)| WrappedKey { stream: b.stream, epoch: b.epoch, wrapped: datakey::wrap(key, &vault, b) };
        let v = OpenVault {
            vault: self.d.dealing.vault.clone(),
            half: self.d.blob.clone(),
            wrapped_key: self.d.dealing.halves[0].1.wrapped_key.0.clone(),
            shares: shares.iter().map(|at| self.sent(*at)).collect(),
            keys: self.keys.iter().map(wrap).collect(),
        };
        Box::new(Open {
            one_time: self.one_time.seed().duplicate(),
            occasion: self.occasion(),
            tcti: self.d.w.swtpm.tcti().clone(),
            srk: self.d.w.tpm.srk().name(),
            release_key: self.d.w.public().to_sec1(),
            release: self.d.w.release(1, &[1]).release().clone(),
            appliance: name("lux-1"),
            grant: self.grant.clone(),
            vaults: vec![v],
        })
    }

    fn opened(&self, at: usize, rewrapped: &[u8]) -> bool {
        let (key, binding) = &self.keys[at];
        let got = datakey::unwrap_as_reader(&self.reader.hpke, binding, &self.occasion().grant, rewrapped);
        got.is_ok_and(|got| got.secret().ct_eq(key.secret()))
    }
}

fn helper() -> Command {
    let mut helper = Command::new(env::current_exe().unwrap());
    helper.arg("helper");
    helper
}

fn answer(request: Request) -> Reply {
    ask(&mut helper(), &request, PATIENCE, || false).unwrap()
}

fn failure(request: Request) -> String {
    match answer(request) {
        Reply::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn a_quorum_opens_for_the_reader() {
    let c = Ceremony::new();
    for shares in [[0, 1], [2, 0]] {
        let Reply::Opened(vaults) = answer(Request::Open(c.open(&shares))) else { panic!("refused") };
        assert_eq!((vaults.len(), vaults[0].len()), (1, 3));
        for (at, key) in vaults[0].iter().enumerate() {
            assert!(c.opened(at, key.as_ref().unwrap()));
            assert!(!c.opened((at + 1) % 3, key.as_ref().unwrap()), "for its own epoch only");
        }
    }
    assert_eq!(c.d.w.loaded(), "");
}

fn a_damaged_key_stops_no_other() {
    let c = Ceremony::new();
    let mut open = c.open(&[0, 1]);
    open.vaults[0].keys[1].wrapped[40] ^= 1;
    let Reply::Opened(vaults) = answer(Request::Open(open)) else { panic!("refused") };
    assert!(vaults[0][1].is_none());
    assert!(c.opened(0, vaults[0][0].as_ref().unwrap()) && c.opened(2, vaults[0][2].as_ref().unwrap()));
}

fn a_share_is_checked_and_its_custodian_named() {
    let c = Ceremony::new();
    assert_eq!(answer(Request::Check(c.check(1))), Reply::Checked);
    let changes: [fn(&mut Check); 5] = [
        |k| k.share.sealed.0[100] ^= 1,
        |k| k.share.index += 1,
        |k| k.occasion.challenge = Hash32([9; 32]),
        |k| k.one_time = Secret::random(),
        |k| k.vault.commitments[1].commitment = Hash32([9; 32]),
    ];
    for change in changes {
        let mut check = c.check(1);
        change(&mut check);
        let Reply::BadShare { custodian, dataset: of, vault_epoch, .. } = answer(Request::Check(check)) else { panic!("accepted") };
        assert_eq!((custodian, of, vault_epoch), (name("bravo"), dataset(), 1));
    }
    let mut open = c.open(&[0, 1]);
    open.vaults[0].shares[1].1.sealed.0[100] ^= 1;
    assert!(matches!(answer(Request::Open(open)), Reply::BadShare { custodian, .. } if custodian == name("bravo")));
}

fn what_does_not_fit_opens_nothing() {
    let c = Ceremony::new();
    failure(Request::Open(c.open(&[0])));
    failure(Request::Open(c.open(&[0, 0])));
    type Change = fn(&mut Open);
    let changes: [(&str, Change); 6] = [
        ("grant", |o| o.grant.purpose = "another".into()),
        ("appliance", |o| o.appliance = name("lux-2")),
        ("storage root key", |o| o.srk.0[5] ^= 1),
        ("release", |o| o.release.epoch += 1),
        ("release key", |o| o.release_key[10] ^= 1),
        ("vault key", |o| o.vaults[0].wrapped_key[20] ^= 1),
    ];
    for (what, change) in changes {
        let mut open = c.open(&[0, 1]);
        change(&mut open);
        assert!(!failure(Request::Open(open)).is_empty(), "{what}");
    }
    let old = c.open(&[0, 1]);
    c.d.w.tpm.retire_releases_below(2).unwrap();
    assert!(failure(Request::Open(old)).contains("retired"));
}

fn questions_and_answers_read_back() {
    let c = Ceremony::new();
    for request in [Request::Check(c.check(0)), Request::Open(c.open(&[0, 1]))] {
        let bytes = request.to_bytes();
        assert_eq!(Request::from_bytes(&bytes).unwrap().to_bytes()[..], bytes[..]);
        for cut in (0..bytes.len()).step_by(7) {
            assert!(Request::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Request::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }
    let bad = Reply::BadShare { custodian: name("alpha"), dataset: dataset(), vault_epoch: 7, why: "is bad".into() };
    let opened = Reply::Opened(vec![vec![Some(vec![1, 2]), None], vec![]]);
    for reply in [Reply::Checked, opened, bad, Reply::Failed("no".into())] {
        let bytes = reply.to_bytes();
        assert_eq!(Reply::from_bytes(&bytes).unwrap(), reply);
        for cut in 0..bytes.len() {
            assert!(Reply::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
    let long = Reply::Failed("ä".repeat(5000));
    assert!(matches!(Reply::from_bytes(&long.to_bytes()), Ok(Reply::Failed(why)) if why.len() == 4096));
}

fn hostile_bytes_get_an_answer_and_no_more() {
    let good = Request::Check(Ceremony::new().check(0)).to_bytes();
    let mut other_version = good.to_vec();
    other_version[7] = 2;
    for bytes in [&b""[..], b"hoidla", &other_version, &[0xFF; 1000], &good[..good.len() - 1]] {
        let mut out = Vec::new();
        serve(bytes, &mut out).unwrap();
        assert!(matches!(Reply::from_bytes(&out), Ok(Reply::Failed(_))));
    }
    assert!(serve(std::io::repeat(0), Vec::new()).is_err(), "endless input ends");
}

fn a_helper_that_hangs_or_dies_is_told_apart() {
    let request = Request::Check(Ceremony::new().check(0));
    let since = Instant::now();
    let hangs = ask(Command::new("/bin/sleep").arg("60"), &request, Duration::from_millis(200), || false);
    assert!(matches!(hangs, Err(HelperError::Late(_))));
    assert!(since.elapsed() < Duration::from_secs(10), "and was ended");
    let stopped = ask(Command::new("/bin/sleep").arg("60"), &request, PATIENCE, || true);
    assert!(matches!(stopped, Err(HelperError::Stopped)));
    assert!(matches!(ask(&mut Command::new("/bin/true"), &request, PATIENCE, || false), Err(HelperError::Answer(_) | HelperError::Io(_))));
    assert!(matches!(ask(&mut Command::new("/nowhere"), &request, PATIENCE, || false), Err(HelperError::Io(_))));
}
