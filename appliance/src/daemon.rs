//! The daemon: opens the store, binds what it runs under into the TPM, opens the door.
//!
//! Promises: the door opens only after the papers were verified and hashed into
//! PCR 15; memory is bounded by what [`Settings`] says, whatever peers do; it stops
//! in order on SIGTERM, and needs no order to start again after a power cut.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hoidla_door::{Admission, AgentNames, Limits};
use hoidla_format::statements::Proof;
use hoidla_protocol::Health;
use hoidla_tpm::Tpm;
use hoidla_uring::{Report, Store};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    ceremonies::Ceremonies,
    checkpoints::{Checkpoints, Signer},
    config::{Config, State, replace},
    counts::Counts,
    enrol::{self, check_counters, store_id},
    helper::{Ground, Helpers},
    hourly::Hourly,
    identify,
    listen::listen,
    machine::{self, Asked, Membership, NodeKey},
    measure::measure,
    papers::Papers,
    scrubber::{Scrubber, Wholeness},
    session::{self, Writers},
    shares::Shares,
    time::{Ages, Keeper},
    trays::{TrayHealth, Trays, words::Words},
    update::{Next, Updates},
    witness::Witness,
};

pub use crate::settings::Settings;

/// The running appliance.
pub struct Daemon {
    /// Bounds.
    pub settings: Settings,
    /// What it runs under.
    pub papers: Arc<Papers>,
    /// What it keeps.
    pub store: Store,
    /// Its TPM. A question put to it outlives the daemon's end: whoever must have it alone waits
    /// until this one is held by nobody.
    pub tpm: Weak<Tpm>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) windows: Arc<Semaphore>,
    pub(crate) ceremonies: Arc<Ceremonies>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) witness: Arc<Witness>,
    /// Who writes what.
    pub writers: Writers,
    pub(crate) counts: Counts,
    pub(crate) shares: Shares,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) scrubber: Scrubber,
    pub(crate) hourly: Hourly,
    pub(crate) trays: Trays,
    pub(crate) updates: Arc<Updates>,
    pub(crate) stop: watch::Sender<bool>,
    limits: Arc<Limits>,
    damaged: AtomicU64,
    alarms: AtomicU64,
    /// Alarms that the start found, in words.
    standing: Vec<String>,
    started: Instant,
}

/// What the panel is told; also `health.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Panel {
    /// The daemon's process.
    pub pid: u32,
    /// Where the door listens.
    pub listen: String,
    /// The appliance.
    pub appliance: String,
    /// The release.
    pub release: String,
    /// Whether it is for development.
    pub development: bool,
    /// How the TPM was proven.
    pub tpm_proof: Proof,
    /// Disks configured, and current.
    pub disks: (u8, u8),
    /// Bytes in use, and all.
    pub used: (u64, u64),
    /// Streams kept.
    pub streams: u64,
    /// Leaves of the log.
    pub log_size: u64,
    /// Damaged records and alarms since the start.
    pub damaged: u64,
    /// Stores behind their agents or the counter since the start, forks that are kept here, and what the start found.
    pub alarms: u64,
    /// Alarms that the start found, or that last, and what to do.
    pub standing: Vec<String>,
    /// Grants open now.
    pub openings: u16,
    /// Connections now.
    pub connections: usize,
    /// Why nobody's certificate can be judged now, if the clock is wrong.
    pub wrong_clock: Option<String>,
    /// When everything was last seen whole.
    pub wholeness: Wholeness,
    /// Time and retention.
    pub ages: Ages,
    /// How each disk tray is, and what to do.
    pub trays: Vec<TrayHealth>,
    /// What went wrong with disks, in words.
    pub troubles: Vec<String>,
    /// Milliseconds that the start took, until the door was open.
    pub start_ms: u64,
    /// Unix seconds when this was written.
    pub written: u64,
}

/// A daemon whose door is open.
pub struct Running {
    /// The appliance.
    pub daemon: Arc<Daemon>,
    /// Where it listens.
    pub address: SocketAddr,
    state: State,
    listener: TcpListener,
    start_ms: u64,
}

/// Opens everything, the door last.
pub async fn start(state: &State, settings: Settings, helpers: Helpers) -> anyhow::Result<Running> {
    let config = state.config()?;
    let papers = Papers::kept(&state.papers(), &config.authority_key()?, &identify::known(state)?)?;
    let asked = Asked::of(&config, &papers.identity)?;
    start_under(state, &config, (papers, asked), settings, helpers).await
}

/// The same, under papers that were read and checked already, with a TPM that was asked.
pub async fn start_under(
    state: &State,
    config: &Config,
    (papers, asked): (Papers, Asked),
    settings: Settings,
    helpers: Helpers,
) -> anyhow::Result<Running> {
    let began = Instant::now();
    let (identity, authority) = (papers.identity.clone(), config.authority_key()?);
    let tcti = config.tpm.parse().map_err(anyhow::Error::msg).context("appliance.toml: tpm")?;
    let Asked { tpm, stands } = asked;
    let papers = Arc::new(papers.under(&tpm)?);
    let ground = Ground { state: state.clone(), papers: papers.clone(), tcti, authority };
    warn_of_development(&papers);
    let tpm_held = Arc::downgrade(&tpm);
    check_counters(stands, &papers)?;
    // Before the store: an update that isn't approved leaves it as the former release must find it.
    ensure!(
        enrol::runs(&tpm, state, &papers, stands)?,
        "no release among this appliance's papers approves what runs here: start the image of a release that is, or bring the release for this one"
    );
    let options = hoidla_store::Options { accept_loss: settings.accept_loss, ..Default::default() };
    let store_settings = hoidla_uring::Settings { memory: settings.memory, options };
    let counters = Box::new(Membership::known(tpm.clone(), stands));
    let disks = config.disks.clone();
    let (name, words) = (store_id(state, &identity)?, Words::new(state, authority, identity));
    let open = move || Store::open(&disks, name, counters, store_settings);
    let measuring = {
        let (state, tpm, papers) = (state.clone(), tpm.clone(), papers.clone());
        move || measure(&state, &tpm, &papers)
    };
    let (opened, measured) = tokio::join!(tokio::task::spawn_blocking(open), tokio::task::spawn_blocking(measuring));
    let ((store, report), measured) = (opened??, measured??);
    let damaged = tell(&report);
    let admission = admission(&papers)?;
    let node = machine::node(state)?.context(
        "the node key's blob is missing: enrol anew (from the stick: anew; where hoidlad is a program: hoidlad identify, then enrol)",
    )?;
    let key = Arc::new(NodeKey { tpm: tpm.clone(), blob: node, release: papers.approved.clone(), turn: Mutex::default() });
    let tls = hoidla_door::server_config(&papers.enrolment.statement.certificate.0, key, admission.clone())?;
    let signer = Arc::new(Signer::new(tpm.clone(), papers.clone())?);
    let witness = Arc::new(Witness::new(state.witnessed(), authority, signer.clone())?);
    let checkpoints = Checkpoints::open(signer.clone(), store.clone(), state.checkpoint(), report.opened.only_reads.as_deref()).await?;
    let standing: Vec<String> = checkpoints.alarm().into_iter().collect();
    standing.iter().for_each(|what| tracing::error!("ALARM: {what}"));
    let ceremonies = Arc::new(Ceremonies::new(ground, (signer.clone(), measured), tpm.clone(), helpers, admission.clone(), store.clone()));
    let updates = Arc::new(Updates::new(state.clone(), tpm.clone(), papers.clone()));
    let keeper = Arc::new(Keeper::new(store.clone(), tpm, papers.clone(), ceremonies.clone(), state.clone(), authority));
    keeper.promise().await?;
    let scrubber = Scrubber::new(store.clone());
    let trays = Trays::new(store.clone(), name, &config.disks, words);
    let listener = listen(&config.listen, config.port.as_deref()).await?;
    let (total, handshakes, address, peer) = settings.crowd;
    let counts = Counts::of(papers.site.statement.datasets.iter().map(|d| d.name.clone()));
    counts.renew(&store).await;
    let shares = Shares::of(&papers.site.statement.datasets);
    shares.renew(&store).await;
    let daemon = Arc::new(Daemon {
        windows: Arc::new(Semaphore::new(settings.windows)),
        settings,
        papers,
        store,
        tpm: tpm_held,
        admission,
        acceptor: TlsAcceptor::from(tls),
        ceremonies,
        checkpoints,
        witness,
        writers: Writers::default(),
        counts,
        shares,
        keeper,
        scrubber,
        hourly: Hourly::default(),
        trays,
        updates,
        stop: watch::Sender::new(false),
        limits: Limits::new(total, handshakes, address, peer),
        damaged: AtomicU64::new(damaged),
        alarms: AtomicU64::new(standing.len() as u64),
        standing,
        started: Instant::now(),
    });
    let start_ms = began.elapsed().as_millis() as u64;
    let address = listener.local_addr()?;
    tracing::info!(%address, start_ms, "the door is open, the data is sealed");
    Ok(Running { daemon, address, state: state.clone(), listener, start_ms })
}

fn warn_of_development(papers: &Papers) {
    if papers.release.statement.development {
        tracing::warn!("DEVELOPMENT RELEASE {}: for drills and tests only", papers.release.statement.name);
    }
    if papers.enrolment.statement.proof == Proof::TrustedOnFirstUse {
        tracing::warn!("this appliance's TPM was {}", Proof::TrustedOnFirstUse.words());
    }
}

/// Says what opening the store found; gives the number of damaged places.
fn tell(report: &Report) -> u64 {
    for absent in &report.absent {
        tracing::error!("a disk is missing, going on without it: {absent}");
    }
    for place in &report.opened.missing {
        tracing::error!("disk {place} is missing or stale; the store goes on with the others: replace it");
    }
    for place in &report.opened.rebuilding {
        tracing::warn!("disk {place} came back and is being rebuilt");
    }
    for (path, seen) in &report.strange {
        tracing::error!("{} holds {seen}: it is left alone", path.display());
    }
    for repaired in &report.opened.repaired {
        tracing::warn!("repaired: {repaired}");
    }
    for damage in &report.opened.damage {
        tracing::error!("damage: {damage}");
    }
    if report.opened.cut > 0 {
        tracing::info!(commits = report.opened.cut, "what was begun and never acknowledged was cut");
    }
    report.opened.damage.len() as u64
}

fn admission(papers: &Papers) -> anyhow::Result<Arc<Admission>> {
    let site = &papers.site.statement;
    let names = AgentNames {
        site: site.site.clone(),
        datasets: site.datasets.iter().map(|d| d.name.clone()).collect(),
        revoked: site.revoked_agents.iter().cloned().collect(),
    };
    Ok(Admission::new(&site.door_root.0, names, &papers.custodians())?)
}

/// Rewrites closed segments of small batches densely, one after another, for ever.
async fn keep_dense(store: Store) {
    loop {
        let pause = match store.tidy().await {
            Ok(true) => Duration::ZERO,
            Ok(false) => Duration::from_secs(10),
            Err(e) => {
                tracing::warn!("a sparse segment was not rewritten; it stays as it is: {e}");
                Duration::from_secs(60)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Rebuilds disks, whenever there is one to rebuild, for ever.
async fn keep_whole(daemon: Arc<Daemon>) {
    loop {
        match daemon.store.rebuild().await {
            Ok(damage) => {
                daemon.damaged.fetch_add(damage.len() as u64, Ordering::Relaxed);
                damage.iter().for_each(|what| tracing::error!("damage, found while rebuilding: {what}"));
            }
            Err(e) => tracing::warn!("rebuilding was ended: {e}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the daemon is asked to stop.
pub(crate) async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await;
}

impl Daemon {
    /// Counts and says an alarm: somebody must look.
    pub(crate) fn alarm(&self, why: &str) {
        self.alarms.fetch_add(1, Ordering::Relaxed);
        tracing::error!("ALARM: {why}");
    }

    /// How the appliance is.
    pub async fn health(&self) -> Health {
        let (free, capacity) = self.store.room().await.unwrap_or_default();
        let (log_size, _) = self.store.log_head().await.unwrap_or((0, hoidla_format::Hash32([0; 32])));
        let disks = self.store.disks().await.unwrap_or_default();
        Health {
            copies: disks.len() as u8,
            current: disks.iter().filter(|d| d.state == hoidla_uring::State::Current).count() as u8,
            capacity,
            used: capacity.saturating_sub(free),
            streams: self.counts.streams(),
            log_size,
            damaged: self.damaged.load(Ordering::Relaxed) + self.scrubber.wholeness().damage.len() as u64,
            alarms: self.alarms.load(Ordering::Relaxed) + self.witness.forks(),
            openings: self.ceremonies.open_now(),
            uptime: self.started.elapsed().as_secs(),
        }
    }

    /// How each disk tray was when it was last looked at.
    pub fn trays(&self) -> Vec<TrayHealth> {
        self.trays.health()
    }

    /// Bytes of windows that no connection holds.
    pub fn windows_left(&self) -> usize {
        self.windows.available_permits()
    }

    /// Ends every opening and every ceremony at once; how many there were.
    pub fn seal_now(&self) -> u32 {
        self.ceremonies.seal(None)
    }

    /// Asks all sessions to end, and the door to close.
    pub fn ask_to_stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Panel {
    /// Writes it every two seconds, for ever; the accepting of connections doesn't wait for it.
    async fn keep(daemon: Arc<Daemon>, path: PathBuf, address: SocketAddr, start_ms: u64) {
        let mut every = tokio::time::interval(Duration::from_secs(2));
        loop {
            every.tick().await;
            daemon.counts.renew(&daemon.store).await;
            daemon.shares.renew(&daemon.store).await;
            let panel = Self::of(&daemon, address, start_ms).await;
            let json = serde_json::to_vec_pretty(&panel).map_err(anyhow::Error::from);
            if let Err(e) = json.and_then(|json| replace(&path, &json)) {
                tracing::warn!("{e:#}");
            }
        }
    }

    async fn of(d: &Daemon, address: SocketAddr, start_ms: u64) -> Self {
        let h = d.health().await;
        Self {
            pid: std::process::id(),
            listen: address.to_string(),
            appliance: d.papers.identity.name.to_string(),
            release: d.papers.release.statement.name.to_string(),
            development: d.papers.release.statement.development,
            tpm_proof: d.papers.enrolment.statement.proof,
            disks: (h.copies, h.current),
            used: (h.used, h.capacity),
            streams: h.streams,
            log_size: h.log_size,
            damaged: h.damaged,
            alarms: h.alarms,
            standing: d.standing.iter().cloned().chain(d.hourly.standing()).collect(),
            openings: h.openings,
            connections: d.limits.in_use(),
            wrong_clock: d.papers.wrong_clock(hoidla_format::Moment::now()),
            wholeness: d.scrubber.wholeness(),
            ages: d.keeper.ages(),
            trays: d.trays.health(),
            troubles: d.store.troubles(),
            start_ms,
            written: hoidla_format::Moment::now().seconds(),
        }
    }
}

impl Running {
    async fn retire_former(&self) -> anyhow::Result<()> {
        let (tpm, papers) = (self.daemon.tpm.upgrade().context("the daemon has its TPM")?, self.daemon.papers.clone());
        tokio::task::spawn_blocking(move || enrol::retire_former(&tpm, &papers)).await?
    }

    /// Serves until SIGTERM, SIGINT or [`Daemon::ask_to_stop`], or until newer papers are to come
    /// into force; then ends in order. From here on no former release runs any more.
    pub async fn serve(self) -> anyhow::Result<Next> {
        self.retire_former().await?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut stop = self.daemon.stop.subscribe();
        let mut sweep = tokio::time::interval(Duration::from_millis(250));
        let mut sessions = JoinSet::new();
        let mut background = JoinSet::new();
        let registering = self.daemon.store.clone();
        background.spawn(async move { registering.register().await.unwrap_or_else(|why| tracing::warn!("{why}")) });
        background.spawn(Panel::keep(self.daemon.clone(), self.state.health(), self.address, self.start_ms));
        background.spawn(self.daemon.keeper.clone().keep(self.daemon.settings.tick));
        let scrubbing = self.daemon.clone();
        background.spawn(async move { scrubbing.scrubber.keep(scrubbing.settings.tick).await });
        background.spawn(keep_dense(self.daemon.store.clone()));
        background.spawn(keep_whole(self.daemon.clone()));
        let counting = self.daemon.clone();
        background.spawn(async move { counting.hourly.keep(counting.store.clone(), |why| counting.alarm(why)).await });
        let signing = self.daemon.clone();
        background.spawn(async move { signing.checkpoints.keep().await });
        let looking = self.daemon.clone();
        background.spawn(async move { looking.trays.keep(looking.settings.trays).await });
        let next = loop {
            tokio::select! {
                accepted = self.listener.accept() => self.accepted(accepted, &mut sessions).await,
                _ = sweep.tick() => {
                    self.daemon.ceremonies.sweep();
                    if self.daemon.updates.due(&self.daemon.ceremonies) {
                        break Next::Again;
                    }
                }
                Some(_) = sessions.join_next() => {}
                _ = terminate.recv() => break Next::Stop,
                _ = interrupt.recv() => break Next::Stop,
                () = stopping(&mut stop) => break Next::Stop,
            }
        };
        background.shutdown().await; // with them go their handles of the store
        self.finish(sessions).await.map(|()| next)
    }

    async fn accepted(&self, accepted: std::io::Result<(tokio::net::TcpStream, SocketAddr)>, sessions: &mut JoinSet<()>) {
        match accepted {
            Ok((tcp, peer)) => match self.daemon.limits.enter(peer.ip()) {
                Some(ticket) => _ = sessions.spawn(session::serve(self.daemon.clone(), tcp, ticket, peer)),
                None => tracing::debug!(%peer, "turned away: too many connections"),
            },
            Err(e) => {
                // Out of descriptors, or a connection that is gone already: neither ends the daemon.
                tracing::warn!("accepting failed: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn finish(self, mut sessions: JoinSet<()>) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.daemon.ask_to_stop();
        self.daemon.ceremonies.seal(None);
        let all = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(15), all).await.is_err() {
            sessions.shutdown().await;
        }
        let store = self.daemon.store.clone();
        drop(self); // with it the other handles of the store
        tokio::task::spawn_blocking(move || store.close()).await?;
        tracing::info!("stopped");
        Ok(())
    }
}
