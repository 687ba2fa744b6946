//! A machine: QEMU without hardware virtualisation, OVMF with Secure Boot, a software TPM.
//!
//! Promises: it is judged by the lines on its serial console, never by QEMU's exit code; it ends
//! with this value, which to it is a power cut; a machine that printed nothing at all is started
//! once more, and that is said. What it does not show: real firmware, a real TPM, real disks.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long any machine may take to say what it must.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Until then a machine must have printed something.
const FIRST_WORD: Duration = Duration::from_secs(40);
/// Where Debian's package has the firmware.
pub const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// And the empty variables to it.
pub const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The guest's address in the network of the door, one of QEMU's own.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The guest's address in the host's network, another one.
pub const AT_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 15);

/// What the machine starts from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A kernel and an initramfs, handed over by QEMU; not measured as an image.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// What it unpacks.
        initramfs: PathBuf,
        /// What it is told.
        command_line: String,
    },
    /// A stick at the USB port.
    Stick(PathBuf),
    /// Its first boot disk.
    Disk,
}

/// A machine's parts, as files.
#[derive(Clone, Debug)]
pub struct Parts {
    /// A folder of its own: sockets, logs.
    pub folder: PathBuf,
    /// The firmware's variables.
    pub variables: PathBuf,
    /// The TPM's state, a folder; where there is none, no TPM is.
    pub tpm: PathBuf,
    /// What it starts from.
    pub start: Start,
    /// Boot disks, at the ports of the AHCI controller; where there is no file, no disk is.
    pub boot_disks: Vec<PathBuf>,
    /// Disks in the trays, in their order; where there is no file, no disk is.
    pub trays: Vec<PathBuf>,
    /// TCP ports that are led from this machine to the guest: here, and there.
    pub ports: Vec<(u16, u16)>,
    /// The same in the host's network.
    pub host_ports: Vec<(u16, u16)>,
    /// Whether both networks have a cable for whole frames as well: [`door_wire`], [`host_wire`].
    pub wires: bool,
    /// What its clock says when it is switched on (`2005-01-01`); none: the time.
    pub clock: Option<&'static str>,
    /// MiB of memory.
    pub memory: u32,
    /// Processors; with one, several machines share this machine's better.
    pub processors: u32,
    /// Whether the firmware's own boot entries say what it starts, and not QEMU.
    pub by_entries: bool,
}

#[derive(Default)]
struct Said {
    lines: Vec<(Duration, String)>,
    ended: bool,
}

/// A running machine.
pub struct Machine {
    parts: Parts,
    qemu: Child,
    tpm: Option<Child>,
    said: Arc<(Mutex<Said>, Condvar)>,
}

impl Machine {
    /// Switches it on.
    pub fn start(parts: &Parts) -> Result<Self> {
        let machine = Self::switch_on(parts)?;
        if machine.first_word() {
            return Ok(machine);
        }
        eprintln!("the machine printed nothing within {} s; it is started once more", FIRST_WORD.as_secs());
        drop(machine);
        Self::switch_on(parts)
    }

    /// Switches it on with its console in this terminal, and waits until it is off. Ctrl-A and a
    /// letter speak to QEMU: x pulls the plug, c asks for its commands (`system_powerdown` is the
    /// power button). A machine that would start again is switched off instead, if so asked.
    pub fn attended(parts: &Parts, once: bool) -> Result<()> {
        let tpm = tpm(parts)?;
        let mut qemu = command(parts);
        qemu.args(["-chardev", "stdio,id=serial,signal=off,mux=on", "-mon", "chardev=serial"]);
        qemu.args(once.then_some("-no-reboot"));
        let ended = qemu.status().context("cannot start QEMU; next: apt-get install qemu-system-x86 ovmf");
        if let Some(mut tpm) = tpm {
            _ = tpm.kill();
            _ = tpm.wait();
        }
        ended.map(drop)
    }

    fn switch_on(parts: &Parts) -> Result<Self> {
        let tpm = tpm(parts)?;
        let log = fs::File::create(parts.folder.join("qemu.log"))?;
        let mut qemu = command(parts)
            .args(["-chardev", "stdio,id=serial,signal=off"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start QEMU; next: apt-get install qemu-system-x86 ovmf")?;
        let said = Arc::new((Mutex::new(Said::default()), Condvar::new()));
        let (output, heard) = (qemu.stdout.take().context("piped")?, said.clone());
        let keep = fs::OpenOptions::new().create(true).append(true).open(parts.folder.join("console.log"))?;
        std::thread::spawn(move || listen(output, keep, &heard));
        Ok(Self { parts: parts.clone(), qemu, tpm, said })
    }

    fn first_word(&self) -> bool {
        let (lock, more) = &*self.said;
        let said = lock.lock().expect("no thread panics with it");
        let (said, _) = more.wait_timeout_while(said, FIRST_WORD, |s| s.lines.is_empty() && !s.ended).expect("no thread panics with it");
        !said.lines.is_empty()
    }

    /// Waits for a line with these words; the line, and when it came after the start.
    pub fn wait(&self, words: &str) -> Result<(Duration, String)> {
        self.wait_any(&[words], PATIENCE)
    }

    /// Waits for a line with any of these words.
    pub fn wait_any(&self, words: &[&str], patience: Duration) -> Result<(Duration, String)> {
        let fits = |s: &Said| s.lines.iter().find(|(_, l)| words.iter().any(|w| l.contains(w))).cloned();
        let (lock, more) = &*self.said;
        let said = lock.lock().expect("no thread panics with it");
        let waiting = |s: &mut Said| fits(s).is_none() && !s.ended;
        let (said, _) = more.wait_timeout_while(said, patience, waiting).expect("no thread panics with it");
        match fits(&said) {
            Some(found) => Ok(found),
            None => bail!("the machine didn't say {words:?}{}; it said:\n{}", if said.ended { " and ended" } else { "" }, tail(&said)),
        }
    }

    /// All lines so far with these words.
    pub fn lines(&self, words: &str) -> Vec<String> {
        let said = self.said.0.lock().expect("no thread panics with it");
        said.lines.iter().filter(|(_, l)| l.contains(words)).map(|(_, l)| l.clone()).collect()
    }

    /// Types on the serial console.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        let stdin = self.qemu.stdin.as_mut().context("piped")?;
        stdin.write_all(keys.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Pulls the cable out of the door's network port.
    pub fn unplug(&self) -> Result<()> {
        self.monitor(r#"{"execute":"set_link","arguments":{"name":"door-net","up":false}}"#).map(drop)
    }

    /// Presses the power button.
    pub fn press_power(&self) -> Result<()> {
        self.monitor(r#"{"execute":"system_powerdown"}"#).map(drop)
    }

    /// How often the stick was read since the machine was switched on.
    pub fn reads_of_stick(&self) -> Result<u64> {
        let said: serde_json::Value = serde_json::from_str(&self.monitor(r#"{"execute":"query-blockstats"}"#)?)?;
        let stick = said["return"].as_array().and_then(|all| all.iter().find(|disk| disk["device"] == "stick"));
        stick.and_then(|disk| disk["stats"]["rd_operations"].as_u64()).with_context(|| format!("no stick is plugged in: {said}"))
    }

    /// Asks QEMU itself; what it answers.
    pub fn monitor(&self, request: &str) -> Result<String> {
        let mut socket = UnixStream::connect(self.parts.folder.join("qmp.sock"))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answers = BufReader::new(socket.try_clone()?);
        let mut answer = || -> Result<String> {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            Ok(line)
        };
        let mut said = answer()?;
        for line in [r#"{"execute":"qmp_capabilities"}"#, request] {
            socket.write_all(line.as_bytes())?;
            said = answer()?;
            while said.contains("\"event\"") {
                said = answer()?;
            }
            ensure!(said.contains("\"return\""), "QEMU refuses {request}: {said}");
        }
        Ok(said)
    }

    /// Waits until the machine is off.
    pub fn wait_off(&mut self) -> Result<()> {
        let since = Instant::now();
        while self.qemu.try_wait()?.is_none() {
            ensure!(since.elapsed() < PATIENCE, "the machine didn't switch off; it said:\n{}", tail(&self.said.0.lock().expect("held")));
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A power cut: to the machine, and to its TPM.
    pub fn cut(&mut self) {
        for child in [Some(&mut self.qemu), self.tpm.as_mut()].into_iter().flatten() {
            // Gone already is as good.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut();
    }
}

fn tail(said: &Said) -> String {
    let lines: Vec<&str> = said.lines.iter().map(|(_, l)| l.as_str()).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Where the machine's TPM is reached.
fn tpm_socket(parts: &Parts) -> PathBuf {
    parts.folder.join("tpm.sock")
}

/// Starts the machine's TPM, if it has one.
fn tpm(parts: &Parts) -> Result<Option<Child>> {
    if !parts.tpm.exists() {
        return Ok(None);
    }
    let socket = tpm_socket(parts);
    _ = fs::remove_file(&socket);
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={},mode=0600", parts.tpm.display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start swtpm; next: apt-get install swtpm")?;
    let since = Instant::now();
    while !socket.exists() {
        ensure!(since.elapsed() < Duration::from_secs(10), "swtpm doesn't come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Some(child))
}

/// Reads the console, and writes it down.
fn listen(output: impl Read, mut keep: impl Write, heard: &(Mutex<Said>, Condvar)) {
    let began = Instant::now();
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let line = plain(&String::from_utf8_lossy(&bytes));
        bytes.clear();
        if !line.is_empty() {
            let at = began.elapsed();
            _ = writeln!(keep, "{:8.3} {line}", at.as_secs_f64());
            heard.0.lock().expect("no thread panics with it").lines.push((at, line));
            heard.1.notify_all();
        }
    }
    heard.0.lock().expect("no thread panics with it").ended = true;
    heard.1.notify_all();
}

/// A line without what steers a terminal.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // A sequence ends with its first letter.
            let _: Option<char> = chars.find(|c| c.is_ascii_alphabetic());
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

fn command(parts: &Parts) -> Command {
    let mut c = Command::new("qemu-system-x86_64");
    let drive = |path: &Path, id: &str| format!("if=none,id={id},format=raw,file={}", path.display());
    c.args(["-nodefaults", "-display", "none", "-vga", "std", "-accel", "tcg", "-cpu", "max", "-smp", &parts.processors.to_string()]);
    c.args(["-machine", "q35,smm=on", "-m", &parts.memory.to_string()]);
    c.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    c.args(["-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.noreboot=off", "-action", "watchdog=reset"]);
    c.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}")]);
    c.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", parts.variables.display())]);
    if parts.tpm.exists() {
        c.args(["-chardev", &format!("socket,id=tpm,path={}", tpm_socket(parts).display())]);
        c.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
    }
    if let Some(clock) = parts.clock {
        c.args(["-rtc", &format!("base={clock}T00:00:00")]);
    }
    c.args(["-serial", "chardev:serial", "-qmp", &format!("unix:{},server=on,wait=off", parts.folder.join("qmp.sock").display())]);
    network(&mut c, parts, "door", (GUEST, "10.0.2.0/24", "03.0"), &parts.ports);
    network(&mut c, parts, "host", (AT_HOST, "10.0.3.0/24", "02.0"), &parts.host_ports);
    for (n, disk) in parts.trays.iter().enumerate().filter(|(_, disk)| disk.exists()) {
        let id = format!("tray{}", n + 1);
        c.args(["-drive", &drive(disk, &id), "-device", &format!("virtio-blk-pci,drive={id},addr={:02x}.0", n + 4)]);
    }
    let first = |n: usize| if parts.by_entries { String::new() } else { format!(",bootindex={n}") };
    for (n, disk) in parts.boot_disks.iter().enumerate().filter(|(_, disk)| disk.exists()) {
        let id = format!("boot{}", n + 1);
        c.args(["-drive", &drive(disk, &id), "-device", &format!("ide-hd,drive={id},bus=ide.{n}{}", first(n + 5))]);
    }
    match &parts.start {
        Start::Kernel { kernel, initramfs, command_line } => {
            c.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", command_line]);
        }
        Start::Stick(stick) => {
            c.args(["-device", "qemu-xhci", "-drive", &drive(stick, "stick"), "-device", &format!("usb-storage,drive=stick{}", first(1))]);
        }
        Start::Disk => {}
    }
    c
}

/// A network of QEMU's own with the guest's card in it, and maybe a cable. It leads nowhere else.
fn network(c: &mut Command, parts: &Parts, name: &str, (guest, net, slot): (Ipv4Addr, &str, &str), ports: &[(u16, u16)]) {
    let forwards: String = ports.iter().map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-{guest}:{there}")).collect();
    c.args(["-netdev", &format!("user,id={name}-net,net={net},restrict=on{forwards}")]);
    let mut into = format!("{name}-net");
    if parts.wires {
        let hub = slot.trim_end_matches(".0");
        let socket = wire(parts, name);
        c.args(["-netdev", &format!("stream,id={name}-wire,server=on,addr.type=unix,addr.path={}", socket.display())]);
        for end in ["net", "wire"] {
            c.args(["-netdev", &format!("hubport,id={name}-{end}-end,hubid={hub},netdev={name}-{end}")]);
        }
        into = format!("{name}-hub");
        c.args(["-netdev", &format!("hubport,id={into},hubid={hub}")]);
    }
    c.args(["-device", &format!("virtio-net-pci,netdev={into},addr={slot},romfile=")]);
}

fn wire(parts: &Parts, name: &str) -> PathBuf {
    parts.folder.join(format!("{name}.wire"))
}

impl Machine {
    /// From now on nothing but what is at the cables' ends hears and speaks in its networks.
    pub fn only_wires(&self) -> Result<()> {
        ["door", "host"]
            .iter()
            .try_for_each(|name| self.monitor(&format!(r#"{{"execute":"netdev_del","arguments":{{"id":"{name}-net-end"}}}}"#)).map(drop))
    }
}

/// Where the cable into the door's network is.
pub fn door_wire(parts: &Parts) -> PathBuf {
    wire(parts, "door")
}

/// Where the cable into the host's network is.
pub fn host_wire(parts: &Parts) -> PathBuf {
    wire(parts, "host")
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_steers_a_terminal_is_no_part_of_a_line() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01HBdsDxe: loading\r\n"), "BdsDxe: loading");
        assert_eq!(plain("\u{1b}[0m\r\n"), "");
    }
}
