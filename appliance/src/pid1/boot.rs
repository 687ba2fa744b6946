//! From a bare kernel to an open door, step by step.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use hoidla_crypto::sign::VerifyingKey;
use hoidla_format::{
    Bytes,
    profile::{self, Place, Profile, Role},
    statements::ApplianceEntry,
};
use hoidla_tpm::{Tcti, Tpm};

use super::{
    console, devices,
    entries::{self, Variables},
    firmware, health, kernel, network,
    power::{self, End, Pressed, Watchdog},
    provision::{self, Person, Room, Stick},
    reaper, sandbox, slots,
    start::{self, Start},
};
use crate::{
    config::{Config, State, replace},
    daemon::{self, Daemon, Settings},
    helper::Helpers,
    identify,
    keep::{self, Keeper},
    machine::Asked,
    papers::Papers,
};

/// Where the kernel tells of devices.
pub const SYS: &str = "/sys";
/// What the image knows of machine and home.
const PROFILE: &str = "/etc/hoidla/profile.toml";
const AUTHORITY: &str = "/etc/hoidla/authority.pem";
const MODULES: &str = "/lib/modules";
/// Lists of modules: those of every start, and those that only a stick needs.
const ORDER: &str = "order";
const STICK: &str = "stick";
/// The state folder, in memory.
pub const STATE: &str = "/run/hoidla";
/// A link for each tray that has a disk in it.
const TRAYS: &str = "/run/trays";
/// The TPM behind the kernel's resource manager.
pub const TPM: &str = "device:/dev/tpmrm0";
/// Bytes of the store's buffers: the program stays below 128 MiB.
const MEMORY: usize = 96 << 20;
/// How long disks and network ports may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked which trays have a disk.
const LOOK: Duration = Duration::from_secs(2);
/// Registers that only something added to the image extends.
const ADDED: [u8; 2] = [12, 13];
/// The register that programs are measured into before they start.
const LAUNCHED: u8 = 4;
/// Registers that are told on the console.
const TOLD: [u8; 7] = [4, 7, 9, 11, 12, 13, 15];

/// A machine that is prepared, with the appliance still closed.
pub struct Ready {
    profile: Profile,
    state: State,
    watchdog: Option<Watchdog>,
    button: Pressed,
    /// Where the host is told how the machine is: an address, and the network port.
    health: Option<(std::net::SocketAddr, String)>,
    start: Start,
    config: Config,
    papers: (Papers, Asked),
    began: Instant,
}

/// What a start leads to.
pub enum Prepared {
    /// An appliance to be opened.
    Ready(Box<Ready>),
    /// Somebody was at the console, and the machine ends.
    Ended(End),
}

impl Prepared {
    /// Serves, if there is something to serve, until the machine ends.
    pub fn end(self) -> anyhow::Result<End> {
        match self {
            Self::Ready(ready) => ready.serve(),
            Self::Ended(end) => Ok(end),
        }
    }
}

/// A machine whose kernel is set, before anything else of it is used.
struct Bare {
    profile: Profile,
    authority: VerifyingKey,
    watchdog: Option<Watchdog>,
    button: Pressed,
    began: Instant,
}

/// Everything up to the appliance itself. What runs before the sandbox is here.
pub fn prepare() -> anyhow::Result<Prepared> {
    let began = Instant::now();
    kernel::mount_all()?;
    take_console()?;
    super::log_to_console();
    tracing::info!("hoidlad {} is PID 1", env!("CARGO_PKG_VERSION"));
    let sys = Path::new(SYS);
    let text = devices::read(PROFILE).context("the image holds no profile: it was built wrongly; call home, which builds it again")?;
    let profile = Profile::parse(&text).context("the image's profile")?;
    let loaded = kernel::load_modules(Path::new(MODULES), ORDER)?;
    let button = power::watch_buttons(sys);
    kernel::mount_firmware()?;
    start::look_early(sys);
    let has_keys = !firmware::in_setup_mode(sys)?;
    if has_keys {
        firmware::secure_boot(sys)?;
    }
    firmware::nothing_added(Path::new("/"))?;
    kernel::lockdown(sys)?;
    kernel::close_doors()?;
    ensure!(hoidla_cli::harden().undumpable, "this kernel lets processes look into one another");
    let secure = if has_keys { "on" } else { "IN SETUP" };
    tracing::info!("{}: {loaded} modules; Secure Boot {secure}, lockdown on, doors closed", profile.name);
    let watchdog = profile.watchdog.as_ref().map(|wanted| start_watchdog(sys, wanted)).transpose()?;
    let bare = Bare { authority: authority()?, profile, watchdog, button, began };
    fs::create_dir_all(TRAYS)?;
    if has_keys { bare.go_on(sys) } else { bare.attended(provision::offer_keys) }
}

impl Bare {
    /// On a machine that Secure Boot guards.
    fn go_on(self, sys: &Path) -> anyhow::Result<Prepared> {
        let (tpm, odd) = registers(sys, &self.profile)?;
        let visited = from_stick(sys, &self.profile)?;
        let state = keep_state(sys, &self.profile, visited)?;
        if visited {
            return self.attended(|room| provision::visit(room, state.as_ref()));
        }
        let state = state.context("no boot disk is where its profile says: is this the right image for this machine?")?;
        let start = start::settle(sys, &self.profile, &state)?;
        ensure!(odd.is_empty(), "the TPM would not serve this start: {}", odd.join("; "));
        await_trays(sys, &self.profile)?;
        link_trays(sys, &self.profile);
        if !state.is_enrolled() {
            return self.attended(|room| provision::enrol(room, &state));
        }
        self.close(sys, state, start, tpm).map(|ready| Prepared::Ready(Box::new(ready)))
    }

    /// Everything before the door opens.
    fn close(self, sys: &Path, state: State, start: Start, tpm: Tpm) -> anyhow::Result<Ready> {
        kernel::no_more_modules()?;
        let identity = identify::known(&state)?;
        let bare = bare_config(&self.profile, &self.authority);
        // The TPM takes its time: the papers are checked meanwhile.
        let (papers, asked) = thread::scope(|scope| {
            let asked = scope.spawn(|| Asked::this(tpm, &identity));
            let papers = Papers::kept(&state.papers(), &self.authority, &identity);
            (papers, asked.join().unwrap_or_else(|_| bail!("asking the TPM fell over")))
        });
        let papers = (papers?, asked?);
        let (mut config, entry) = configure(bare, &papers.0)?;
        let plugged = network::up(sys, &self.profile, &entry)?;
        let plug = |role| plugged.iter().find(|(r, _)| *r == role).map(|(_, port)| port.clone());
        config.port = plug(Role::Door);
        write_config(&config, &state)?;
        let listen: std::net::SocketAddr = config.listen.parse()?;
        let address = entry.health.as_ref().map(|h| std::net::SocketAddr::new(h.network.address.ip(), h.port));
        let health = address.zip(plug(Role::Health));
        let ports: Vec<u16> = std::iter::once(listen.port()).chain(address.map(|h| h.port())).collect();
        if !start.writes() {
            kernel::firmware_is_settled()?;
        }
        sandbox::close(&ports, &[])?;
        let Self { profile, watchdog, button, began, .. } = self;
        Ok(Ready { profile, state, watchdog, button, health, start, config, papers, began })
    }

    /// With somebody at the console: no port is opened, and the power button ends it at once.
    fn attended(self, work: impl FnOnce(&mut Room) -> anyhow::Result<End>) -> anyhow::Result<Prepared> {
        kernel::load_modules(Path::new(MODULES), STICK)?;
        kernel::no_more_modules()?;
        if let Some(watchdog) = &self.watchdog {
            watchdog.wait_for_people();
        }
        power::end_at_button(self.button);
        sandbox::close(&[], &[kernel::FIRMWARE])?;
        let mut room = Room { sys: SYS.into(), person: Person::at(&self.profile), profile: self.profile, authority: self.authority };
        work(&mut room).map(Prepared::Ended)
    }
}

/// Whether this machine was started from a stick, and not from a slot of its boot disks. One that
/// was never looks for a stick, and has no driver for one.
fn from_stick(sys: &Path, profile: &Profile) -> anyhow::Result<bool> {
    let disk = || profile.boot_disks.iter().any(|b| devices::disk(sys, &b.place).is_ok_and(|disk| disk.is_some()));
    wait_for(|| Ok(disk().then_some(())))?;
    if entries::started(&Variables::of(sys), &slots::find(sys, profile))?.is_some() {
        return Ok(false);
    }
    kernel::load_modules(Path::new(MODULES), STICK)?;
    Ok(wait_for(|| Stick::find(sys))?.is_some())
}

impl Ready {
    /// Opens the door and serves until the machine ends.
    pub fn serve(self) -> anyhow::Result<End> {
        let Self { profile, state, watchdog, button, health, mut start, config, papers, began } = self;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::spawn(reaper::keep());
            watchdog.map(|watchdog| tokio::spawn(watchdog.keep()));
            tokio::spawn(keep_trays(profile.clone()));
            let settings = Settings { memory: MEMORY, ..Settings::default() };
            let running = daemon::start_under(&state, &config, papers, settings, Helpers::this_program()?).await?;
            tracing::info!("ready to copy in after {} ms; {}", began.elapsed().as_millis(), memory());
            start.ready()?;
            start.mirror(state.config()?.authority_key()?);
            tell(profile, state, health, running.daemon.clone());
            let (appliance, pressed) = (running.daemon.clone(), button.clone());
            tokio::spawn(async move {
                power::pressed(pressed).await;
                tracing::info!("the power button was pressed: sealing and stopping");
                appliance.ask_to_stop();
            });
            running.serve().await?;
            keep::changed()?;
            Ok(if *button.borrow() { End::PowerOff } else { End::Restart })
        })
    }
}

/// Tells host staff how the machine is: on the consoles, and on the host's port if there is one.
fn tell(profile: Profile, state: State, health: Option<(std::net::SocketAddr, String)>, appliance: Arc<Daemon>) {
    let (told, telling) = tokio::sync::watch::channel(Default::default());
    tokio::spawn(async move { console::keep(Path::new(SYS), &profile, &state, appliance, told).await });
    if let Some((address, port)) = health {
        tokio::spawn(async move {
            if let Err(e) = health::serve(address, &port, telling).await {
                tracing::error!("{e:#}");
            }
        });
    }
}

/// How much memory this program has.
fn memory() -> String {
    let status = devices::read("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or("its memory is not known".into(), |kib| format!("{} MiB of memory", kib / 1024))
}

/// Standard input and output are the console.
fn take_console() -> anyhow::Result<()> {
    let console = fs::OpenOptions::new().read(true).write(true).open("/dev/console").context("there is no console")?;
    nix::unistd::dup2_stdin(console.as_fd())?;
    nix::unistd::dup2_stdout(console.as_fd())?;
    nix::unistd::dup2_stderr(console.as_fd())?;
    Ok(())
}

/// Waits for what is there, at most [`PATIENCE`].
pub fn wait_for<T>(mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
    let began = Instant::now();
    loop {
        match look()? {
            None if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            found => return Ok(found),
        }
    }
}

/// The watchdog that the profile names, as soon as its driver has found it.
fn start_watchdog(sys: &Path, wanted: &profile::Watchdog) -> anyhow::Result<Watchdog> {
    let started = wait_for(|| Watchdog::start(sys, wanted))?;
    started.with_context(|| format!("this machine has no watchdog {:?}, which its profile names", wanted.identity))
}

/// The state folder in memory, as the boot disks have it; none if no boot disk is there that
/// could hold one. On a `visit` a disk may be new, and isn't waited for.
fn keep_state(sys: &Path, profile: &Profile, visit: bool) -> anyhow::Result<Option<State>> {
    fs::create_dir_all(STATE)?;
    let partition = |place: &Place| {
        let disk = devices::disk(sys, place)?;
        disk.map_or(Ok(None), |disk| devices::state_partition(sys, &disk))
    };
    let mut partitions = Vec::new();
    for (number, boot) in (1..).zip(&profile.boot_disks) {
        let found = if visit { partition(&boot.place)? } else { wait_for(|| partition(&boot.place))? };
        match found {
            Some(name) => partitions.push((number, devices::path(&name))),
            None if visit => {}
            None => tracing::error!("boot disk {number}, at {}, is missing, or has no state partition: replace it", boot.place),
        }
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    let keeper = Keeper::open(Path::new(STATE), &partitions)?;
    tracing::info!("the state is on {} of {} boot disks", keeper.working().len(), profile.boot_disks.len());
    keep::begin(keeper);
    State::at(Path::new(STATE)).map(Some)
}

/// Refuses a machine that was started with something added; tells what was measured, and what the
/// firmware did before this image that nobody recorded.
fn registers(sys: &Path, profile: &Profile) -> anyhow::Result<(Tpm, Vec<String>)> {
    wait_for(|| Ok(Path::new("/dev/tpmrm0").exists().then_some(())))?
        .context("this machine has no TPM 2.0, or it is switched off in the firmware's setup")?;
    let tpm = Tpm::open(&TPM.parse::<Tcti>().map_err(anyhow::Error::msg)?)?;
    let values = tpm.pcr_read(&TOLD)?;
    for pcr in &values {
        tracing::info!("PCR {}: {}", pcr.index, pcr.value);
        ensure!(
            !ADDED.contains(&pcr.index) || pcr.value.0 == [0; 32],
            "PCR {} is not zero: something was added beside the image: write the stick again at home; if the machine was started from its own disks, call home",
            pcr.index
        );
    }
    let launched = values.iter().find(|pcr| pcr.index == LAUNCHED).context("register 4 was asked for")?;
    let odd = firmware::odd(sys, profile, &launched.value).unwrap_or_else(|e| {
        tracing::warn!("it isn't known what ran before this image: {e:#}");
        Vec::new()
    });
    Ok((tpm, odd))
}

/// Whose image this is.
fn authority() -> anyhow::Result<VerifyingKey> {
    let key = devices::read(AUTHORITY).context("the image names no authority: it was built wrongly; call home, which builds it again")?;
    let key: Bytes = key.parse().map_err(anyhow::Error::msg).context("the image's authority key")?;
    VerifyingKey::from_sec1(&key.0).context("the image's authority key")
}

/// What the daemon wants to know of this machine before any paper says where it listens.
pub fn bare_config(profile: &Profile, authority: &VerifyingKey) -> Config {
    let disks = profile.trays.iter().map(|tray| PathBuf::from(format!("{TRAYS}/{}", tray.number))).collect();
    Config { listen: String::new(), port: None, tpm: TPM.to_owned(), disks, copies: None, authority: Bytes(authority.to_sec1()) }
}

/// Puts it where the daemon looks.
pub fn write_config(config: &Config, state: &State) -> anyhow::Result<()> {
    replace(&state.folder().join("appliance.toml"), toml::to_string(config)?.as_bytes())
}

/// What the papers say of this machine.
fn configure(bare: Config, papers: &Papers) -> anyhow::Result<(Config, ApplianceEntry)> {
    let name = &papers.identity.name;
    let entry = papers.site.statement.appliances.iter().find(|a| a.name == *name).context("the site file doesn't name it")?.clone();
    let network = entry.network.as_ref().with_context(|| {
        format!("the site file says no network for {}: call home, which signs one with [appliance.network] for it", entry.name)
    })?;
    let port: u16 = entry
        .address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .context("the site file names no port: call home, which signs one with the port in the appliance's address")?;
    let listen = std::net::SocketAddr::new(network.address.ip(), port).to_string();
    Ok((Config { listen, ..bare }, entry))
}

/// Waits until every tray has its disk, or one is really missing: the store must not take a disk
/// that is slow for one that is gone.
fn await_trays(sys: &Path, profile: &Profile) -> anyhow::Result<()> {
    let there = |place: &Place| devices::disk(sys, place).is_ok_and(|disk| disk.is_some());
    wait_for(|| Ok(profile.trays.iter().all(|tray| there(&tray.place)).then_some(()))).map(drop)
}

/// Makes each tray's link lead to the disk in it, or nowhere.
pub fn link_trays(sys: &Path, profile: &Profile) {
    for tray in &profile.trays {
        let link = Path::new(TRAYS).join(tray.number.to_string());
        let disk = devices::disk(sys, &tray.place).unwrap_or_else(|e| {
            tracing::error!("tray {}: {e:#}", tray.number);
            None
        });
        let target = disk.map(|name| devices::path(&name));
        if fs::read_link(&link).ok() != target {
            _ = fs::remove_file(&link);
            let linked = target.map_or(Ok(()), |target| symlink(target, &link));
            linked.unwrap_or_else(|e| tracing::error!("tray {}: {e}", tray.number));
        }
    }
}

async fn keep_trays(profile: Profile) {
    loop {
        tokio::time::sleep(LOOK).await;
        link_trays(Path::new(SYS), &profile);
    }
}

/// The port of a role, found.
pub fn port_of(sys: &Path, profile: &Profile, role: Role) -> anyhow::Result<String> {
    let wanted = profile.port(role).with_context(|| format!("the profile {} has no network port for {role}", profile.name))?;
    wait_for(|| devices::port(sys, &wanted.plug))?
        .with_context(|| format!("no network card is at {}, where the profile {} has it", wanted.plug, profile.name))
}
