//! The folders and machines of the story, and how each person calls their program.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Answer, Narrator, Programs, SoftTpm, Supervisor,
    programs::{typed, wait_until},
    soft_tpm::free_port,
};

/// The site of the story.
pub const SITE: &str = "lux";
/// Its appliance.
pub const APPLIANCE: &str = "lux-1";
/// The dataset that is copied in.
pub const DATASET: &str = "population";
/// Its agent.
pub const AGENT: &str = "push-1";
/// Who opens: three of these five.
pub const CUSTODIANS: [&str; 5] = ["alpha", "bravo", "charlie", "delta", "echo"];
/// Who recovers: five of these seven.
pub const RECOVERY: [&str; 7] = ["foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"];
/// The two disks.
pub const DISKS: [&str; 2] = ["embassy/disk-a", "embassy/disk-b"];

/// One machine on which everything lies in folders.
pub struct Stage {
    /// The folder of folders.
    pub folder: PathBuf,
    /// The programs, run from there.
    pub programs: Programs,
    /// Who tells.
    pub narrator: Narrator,
    tpm: Option<SoftTpm>,
    daemon: Option<Supervisor>,
    address: String,
    digits: String,
    told: BTreeSet<String>,
}

impl Stage {
    /// An empty stage in `folder`, which must be on a disk with direct I/O.
    ///
    /// # Errors
    /// If the programs are not built or the folder cannot be used.
    pub fn new(folder: &Path, narrator: Narrator) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let programs = Programs::find(&folder, &folder.join("logs"))?;
        for place in ["home/authority", "home/agent", "embassy/state", "laptop"] {
            fs::create_dir_all(folder.join(place))?;
        }
        let address = format!("127.0.0.1:{}", free_port()?);
        Ok(Self { folder, programs, narrator, tpm: None, daemon: None, address, digits: String::new(), told: BTreeSet::new() })
    }

    /// A path on the stage.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// A file with a passphrase, made when first asked for.
    fn passphrase(&self, folder: &str) -> Result<String> {
        let path = format!("{folder}/passphrase");
        if !self.at(&path).exists() {
            fs::create_dir_all(self.at(folder))?;
            fs::write(self.at(&path), format!("only {folder} would think of this\n"))?;
            fs::set_permissions(self.at(&path), PermissionsExt::from_mode(0o600))?;
        }
        Ok(path)
    }

    /// Tells a command the first time that somebody uses it.
    fn tell(&mut self, program: &str, args: &[&str]) {
        let kind: String = args.iter().take_while(|a| !a.starts_with('-')).copied().collect::<Vec<_>>().join(" ");
        if self.told.insert(format!("{program} {kind}")) {
            self.narrator.command(&typed(program, args));
        }
    }

    fn must(&mut self, program: &str, args: &[&str]) -> Result<Answer> {
        self.tell(program, args);
        self.programs.must(program, args)
    }

    /// The authority's program in its folder.
    ///
    /// # Errors
    /// If it fails.
    pub fn authority(&mut self, args: &[&str]) -> Result<Answer> {
        let passphrase = self.passphrase("home/authority")?;
        let all = [args, &["--home", "home/authority", "--passphrase-file", &passphrase]].concat();
        self.must("hoidla-provision", &all)
    }

    /// Starts the software TPM.
    ///
    /// # Errors
    /// If swtpm does not start.
    pub fn start_tpm(&mut self) -> Result<()> {
        self.tpm = Some(SoftTpm::start(&self.at("embassy/tpm"))?);
        Ok(())
    }

    /// Stops it; its state stays.
    pub fn stop_tpm(&mut self) {
        self.tpm = None;
    }

    /// The authority's digits, as it reads them out by telephone when it has signed its site.
    ///
    /// # Errors
    /// If the site was not signed yet.
    pub fn digits(&self) -> Result<String> {
        ensure!(!self.digits.is_empty(), "the site has not been signed");
        Ok(self.digits.clone())
    }

    /// Where the appliance listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How libtss2 names the TPM.
    ///
    /// # Errors
    /// If it does not run.
    pub fn tcti(&self) -> Result<String> {
        Ok(self.tpm.as_ref().context("the TPM has not been started")?.tcti())
    }

    /// The running `hoidlad`.
    ///
    /// # Errors
    /// If it was not started.
    pub fn daemon(&self) -> Result<&Supervisor> {
        self.daemon.as_ref().context("hoidlad has not been started")
    }
}

/// What a push is told apart by.
#[derive(Debug)]
pub struct Pushing {
    child: std::process::Child,
}

impl Stage {
    /// The authority makes its keys and the site file.
    ///
    /// # Errors
    /// If its program fails.
    pub fn new_site(&mut self) -> Result<()> {
        let appliance = format!("{APPLIANCE}={}", self.address);
        self.authority(&["site", "new", "--site", SITE, "--appliance", &appliance])?;
        Ok(())
    }

    /// A custodian makes a key on their own laptop; the public card goes home.
    ///
    /// # Errors
    /// If their program fails.
    pub fn new_custodian(&mut self, name: &str) -> Result<()> {
        let laptop = format!("custodians/{name}");
        let passphrase = self.passphrase(&laptop)?;
        self.must("hoidla-custodian", &["new", "--name", name, "--out", &laptop, "--passphrase-file", &passphrase])?;
        Ok(())
    }

    /// The authority signs the roster and the site file.
    ///
    /// # Errors
    /// If its program fails.
    pub fn sign_site(&mut self) -> Result<()> {
        let card = |name: &&str| format!("custodians/{name}/{name}.txt");
        let custodians: Vec<String> = CUSTODIANS.iter().map(card).collect();
        let recovery: Vec<String> = RECOVERY.iter().map(card).collect();
        let mut args = vec!["roster", "sign", "--quorum", "3", "--recovery-quorum", "5", "--custodians"];
        args.extend(custodians.iter().map(String::as_str));
        args.push("--recovery");
        args.extend(recovery.iter().map(String::as_str));
        self.authority(&args)?;
        let signed = self.authority(&["site", "sign"])?;
        let digits = signed.out.lines().find_map(|l| l.strip_prefix("authority "));
        self.digits = digits.context("the authority's program says no digits")?.to_owned();
        Ok(())
    }

    /// Home records the machine's endorsement key; at the rack the appliance says who its TPM is.
    ///
    /// # Errors
    /// If `hoidlad` fails.
    pub fn identify(&mut self) -> Result<()> {
        let site = fs::read_to_string(self.at("home/authority/public/site.txt"))?;
        let authority = site.lines().find(|l| l.starts_with("authority = ")).context("the site file names no authority")?;
        let disks = DISKS.map(|d| self.at(d).display().to_string());
        let config = format!("listen = {:?}\ntpm = {:?}\ndisks = {disks:?}\n{authority}\n", self.address, self.tcti()?);
        fs::write(self.at("embassy/state/appliance.toml"), config)?;
        let tcti = self.tcti()?;
        self.must("hoidlad", &["endorse", "--tpm", &tcti, "--out", "home/ek.txt"])?;
        self.record_ek()?;
        let args =
            ["identify", "home/authority/public/site.txt", "--name", APPLIANCE, "--state", "embassy/state", "--out", "home/identity.txt"];
        self.must("hoidlad", &args)?;
        Ok(())
    }

    /// Home records the endorsement key in `home/ek.txt`.
    ///
    /// # Errors
    /// If the authority's program fails.
    pub fn record_ek(&mut self) -> Result<()> {
        // No passphrase: nothing is signed.
        self.must("hoidla-provision", &["record-ek", APPLIANCE, "home/ek.txt", "--home", "home/authority"])?;
        Ok(())
    }

    /// The authority deals the vaults and signs release, enrolment and the agent's bundle.
    ///
    /// # Errors
    /// If its program fails.
    pub fn deal(&mut self) -> Result<Answer> {
        // A drill's machine measures nothing: its registers are zero, and that is what is approved.
        let zero = "0".repeat(64);
        self.deal_under(&format!("{{\"4\": \"{zero}\", \"11\": \"{zero}\", \"12\": \"{zero}\", \"13\": \"{zero}\"}}\n"))
    }

    /// The same, for a machine whose registers hold these values, as JSON.
    ///
    /// # Errors
    /// If its program fails.
    pub fn deal_under(&mut self, pcrs: &str) -> Result<Answer> {
        let dealt = self.authority(&["deal", "--identity", "home/identity.txt"])?;
        fs::write(self.at("home/pcrs.json"), pcrs)?;
        self.authority(&["release", "sign", "--name", "drill", "--pcrs", "home/pcrs.json"])?;
        self.authority(&["enrol", APPLIANCE])?;
        Ok(dealt)
    }

    /// An agent's bundle, brought to its institution.
    ///
    /// # Errors
    /// If the authority's program fails.
    pub fn new_agent(&mut self) -> Result<()> {
        let passphrase = self.passphrase("home/agent")?;
        self.authority(&["agent", "--dataset", DATASET, "--name", AGENT, "--agent-passphrase-file", &passphrase])?;
        for entry in fs::read_dir(self.at(&format!("home/authority/agents/{DATASET}-{AGENT}")))? {
            let entry = entry?;
            fs::copy(entry.path(), self.at("home/agent").join(entry.file_name()))?;
        }
        Ok(())
    }

    /// A custodian tries their envelopes, of both doors.
    ///
    /// # Errors
    /// If one doesn't open.
    pub fn confirm(&mut self, name: &str) -> Result<Answer> {
        let laptop = format!("custodians/{name}");
        let (key, passphrase) = (format!("{laptop}/{name}.key"), format!("{laptop}/passphrase"));
        let public = "home/authority/public";
        let site = format!("{laptop}/site.txt");
        fs::copy(self.at("home/authority/public/site.txt"), self.at(&site))?;
        let args = ["confirm", "--key", &key, "--passphrase-file", &passphrase, "--site", &site, public, "home/authority/recovery"];
        self.must("hoidla-custodian", &args)
    }

    /// The appliance's TPM opens its parcel, imports its halves and makes two disks of `size` MiB; what
    /// it opened goes home, for auditors.
    ///
    /// # Errors
    /// If `hoidlad` fails.
    pub fn enrol(&mut self, size: u64) -> Result<Answer> {
        let size = format!("{size}M");
        let args = ["enrol", "home/authority/public", "--state", "embassy/state", "--disk-size", &size, "--out", "home/enrolment.txt"];
        let answer = self.must("hoidlad", &args)?;
        self.proven()?;
        Ok(answer)
    }

    /// Home keeps the enrolment in `home/enrolment.txt`, which a TPM opened, for auditors.
    ///
    /// # Errors
    /// If the authority's program fails.
    pub fn proven(&mut self) -> Result<()> {
        self.authority(&["proven", "home/enrolment.txt"])?;
        Ok(())
    }

    /// Starts `hoidlad` under a supervisor and waits until it listens.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn start_daemon(&mut self) -> Result<()> {
        let args = ["run", "--state", "embassy/state"];
        self.narrator.command(&typed("hoidlad", &args));
        self.daemon = Some(Supervisor::start(&self.programs, "hoidlad", args.map(str::to_owned).to_vec())?);
        self.wait_for_door()?;
        Ok(())
    }

    /// Waits until `hoidlad` listens.
    ///
    /// # Errors
    /// If it doesn't within half a minute; with the end of its log.
    pub fn wait_for_door(&self) -> Result<Duration> {
        let address: std::net::SocketAddr = self.address.parse()?;
        wait_until("hoidlad listens", Duration::from_secs(30), || {
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        })
        .with_context(|| self.programs.tail("hoidlad"))
    }

    /// Stops `hoidlad`.
    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// Starts a push of `path` in the background; its progress shows if somebody watches.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_push(&mut self, path: &Path) -> Result<Pushing> {
        let path = path.to_str().context("the demo needs a PATH that is text")?;
        // A small spool, so that a short push lasts long enough for somebody to die in it.
        let args = ["push", "--home", "home/agent", "--spool-mib", "32", path];
        self.narrator.command(&typed("hoidla-agent", &args));
        if self.narrator.draws() {
            let mut command = self.programs.command("hoidla-agent", &args);
            command.stdout(fs::OpenOptions::new().create(true).append(true).open(self.programs.log("hoidla-agent"))?);
            return Ok(Pushing { child: command.spawn()? });
        }
        Ok(Pushing { child: self.programs.start("hoidla-agent", &args)? })
    }

    /// How many bytes of its stream the agent knows to be acknowledged.
    ///
    /// # Errors
    /// If its record is damaged.
    pub fn acknowledged(&self) -> Result<u64> {
        let streams = hoidla_agent::state::State::all(&self.at("home/agent"))?;
        Ok(streams.first().map_or(0, |s| s.acknowledged.length))
    }

    /// The agent's program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn agent(&mut self, args: &[&str]) -> Result<Answer> {
        self.tell("hoidla-agent", args);
        self.programs.run("hoidla-agent", args, "")
    }

    /// The auditor's program; any exit code is an answer.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn auditor(&mut self, args: &[&str]) -> Result<Answer> {
        self.tell("hoidla-verify", args);
        self.programs.run("hoidla-verify", args, "")
    }

    /// How the appliance says it is.
    ///
    /// # Errors
    /// If its program cannot be started.
    pub fn panel(&mut self) -> Result<Answer> {
        let args = ["status", "--state", "embassy/state"];
        self.tell("hoidlad", &args);
        self.programs.run("hoidlad", &args, "")
    }

    /// A reader makes a key on a laptop.
    ///
    /// # Errors
    /// If it fails.
    pub fn new_reader(&mut self) -> Result<()> {
        let passphrase = self.passphrase("laptop")?;
        self.must(
            "hoidla-agent",
            &["reader", "new", "--name", "reader-1", "--out", "laptop/reader.key", "--passphrase-file", &passphrase],
        )?;
        Ok(())
    }

    /// A custodian writes a grant for that reader, open for so many seconds.
    ///
    /// # Errors
    /// If it fails.
    pub fn grant(&mut self, name: &str, seconds: u32, purpose: &str) -> Result<()> {
        let laptop = format!("custodians/{name}");
        let (key, site, passphrase) = (format!("{laptop}/{name}.key"), format!("{laptop}/site.txt"), format!("{laptop}/passphrase"));
        let open_for = format!("{seconds}s");
        let args = [
            "grant",
            "--reader",
            "laptop/reader.reader",
            "--dataset",
            DATASET,
            "--purpose",
            purpose,
            "--open-for",
            &open_for,
            "--out",
            "laptop/grant.txt",
            "--key",
            &key,
            "--site",
            &site,
            "--passphrase-file",
            &passphrase,
        ];
        self.must("hoidla-custodian", &args)?;
        Ok(())
    }

    /// A custodian reads the grant.
    ///
    /// # Errors
    /// If it fails.
    pub fn review(&mut self, name: &str) -> Result<Answer> {
        self.custodian(name, "review", &["--grant", "laptop/grant.txt"], "")
    }

    /// A custodian approves it, with a typed yes.
    ///
    /// # Errors
    /// If it fails.
    pub fn approve(&mut self, name: &str) -> Result<Answer> {
        self.custodian(name, "approve", &["--grant", "laptop/grant.txt"], "yes\n")
    }

    /// A custodian's program with their key and site file.
    ///
    /// # Errors
    /// If it fails.
    pub fn custodian(&mut self, name: &str, command: &str, more: &[&str], input: &str) -> Result<Answer> {
        let laptop = format!("custodians/{name}");
        let (key, site, passphrase) = (format!("{laptop}/{name}.key"), format!("{laptop}/site.txt"), format!("{laptop}/passphrase"));
        let args = [&[command], more, &["--key", &key, "--site", &site, "--passphrase-file", &passphrase]].concat();
        self.tell("hoidla-custodian", &args);
        self.programs.must_with("hoidla-custodian", &args, input)
    }

    /// The reader's restore; any exit code is an answer.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restore(&mut self, to: &str) -> Result<Answer> {
        self.restore_with(&["--to", to])
    }

    /// The reader's restore of one path.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restore_only(&mut self, to: &str, path: &str) -> Result<Answer> {
        self.restore_with(&["--to", to, "--path", path])
    }

    fn restore_with(&mut self, more: &[&str]) -> Result<Answer> {
        let site = "custodians/alpha/site.txt";
        let with = ["--key", "laptop/reader.key", "--passphrase-file", "laptop/passphrase", "--grant", "laptop/grant.txt", "--site", site];
        let args = [&["restore"], more, &with].concat();
        self.tell("hoidla-agent", &args);
        self.programs.run("hoidla-agent", &args, "")
    }

    /// Home burns down: the authority's and the agent's machines are gone, with all keys in them.
    ///
    /// # Errors
    /// If the folder cannot be deleted.
    pub fn lose_home(&mut self) -> Result<()> {
        fs::remove_dir_all(self.at("home"))?;
        ensure!(!self.at("home").exists());
        Ok(())
    }
}

impl Pushing {
    /// Whether it still runs.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end; its exit code.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn end(&mut self) -> Result<i32> {
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
