//! An embassy whose appliance is a machine: home's papers, its image, its enrolled TPM and disks.
//!
//! Promises: everything is made by the programs that people use, from the site to the signed
//! stick. A machine that is [`Embassy::found`] was enrolled before it was first switched on; a
//! [`Embassy::bare`] one is set up at its own console.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use hoidla_journey::{Narrator, Stage, stage::APPLIANCE};
use hoidla_medium::{papers, stick::PAPERS};

use crate::{
    boot_disk,
    machine::{AT_HOST, GUEST, Parts, Start, VARIABLES},
    variables,
};

/// MiB of each disk of the store.
const STORE: u64 = 768;
/// The port in the guest where the host is told how it is.
pub const HEALTH: u16 = 9100;
/// MiB of the machine's memory.
const MEMORY: u32 = 768;
/// The profile of the machine.
const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hw-profiles/qemu-q35.toml");
/// The packages that an image is made of.
const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../image/packages.toml");

/// See the module.
pub struct Embassy {
    /// Home and its people.
    pub stage: Stage,
    /// A folder for the machine.
    pub machine: PathBuf,
    /// The registers that the image leads to, as `hoidla-image` foretells them.
    pub foretold: serde_json::Value,
}

impl Embassy {
    /// Founds the site, makes the image, and enrols the appliance under it beforehand.
    pub fn found(folder: &Path, narrator: Narrator) -> Result<Self> {
        let mut embassy = Self::home(folder, narrator)?;
        embassy.stage.start_tpm()?;
        embassy.stage.identify()?;
        embassy.stage.deal_under(&embassy.foretold.to_string())?;
        embassy.stage.new_agent()?;
        embassy.stage.enrol(STORE)?;
        embassy.stage.stop_tpm();
        embassy.give_keys()?;
        embassy.install(Some(&embassy.stage.at("embassy/state")))?;
        Ok(embassy)
    }

    /// Founds the site and makes the stick; the machine is as its maker delivers it: empty disks,
    /// a firmware without keys.
    pub fn bare(folder: &Path, narrator: Narrator) -> Result<Self> {
        let embassy = Self::home(folder, narrator)?;
        let trays = hoidla_journey::stage::DISKS.map(|d| (embassy.stage.at(d), STORE << 20));
        for (path, size) in embassy.boot_disks().into_iter().map(|d| (d, boot_disk::DISK)).chain(trays) {
            fs::File::create(path)?.set_len(size)?;
        }
        fs::copy(VARIABLES, embassy.machine.join("variables.fd"))?;
        fs::create_dir_all(embassy.stage.at("embassy/tpm"))?;
        let keys = ["db.auth", "KEK.auth", "PK.auth"].map(|f| embassy.stage.at("home/boot").join(f));
        embassy.put_on_stick(&[&keys[..], &[embassy.stage.at("home/authority/public/site.txt")]].concat())?;
        Ok(embassy)
    }

    /// Puts files among the papers on the stick.
    pub fn put_on_stick(&self, files: &[PathBuf]) -> Result<()> {
        let mut stick = fs::read(self.stick())?;
        for file in files {
            let name = file.file_name().and_then(|n| n.to_str()).context("a file has a name")?;
            papers::put(&mut stick[PAPERS], name, &fs::read(file)?)?;
        }
        Ok(fs::write(self.stick(), stick)?)
    }

    /// A paper that the machine put on the stick.
    pub fn from_stick(&self, name: &str) -> Result<Vec<u8>> {
        let papers = papers::read(&fs::read(self.stick())?[PAPERS])?;
        papers.get(name).cloned().with_context(|| format!("{name} is not on the stick: {:?}", papers.keys()))
    }

    /// Home takes from the stick which TPM the machine has.
    pub fn record(&mut self) -> Result<()> {
        fs::write(self.stage.at("home/ek.txt"), self.from_stick("endorsement.txt")?)?;
        self.stage.record_ek()
    }

    /// Home takes the identity from the stick, and puts its answer there.
    pub fn answer(&mut self) -> Result<()> {
        fs::write(self.stage.at("home/identity.txt"), self.from_stick(&format!("identity-{APPLIANCE}.txt"))?)?;
        self.stage.deal_under(&self.foretold.to_string())?;
        self.stage.new_agent()?;
        let public = fs::read_dir(self.stage.at("home/authority/public"))?;
        let files = public.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
        self.put_on_stick(&files.into_iter().filter(|f| f.is_file()).collect::<Vec<_>>())
    }

    /// Home takes the enrolment from the stick.
    pub fn take_enrolment(&mut self) -> Result<()> {
        fs::write(self.stage.at("home/enrolment.txt"), self.from_stick(&format!("enrolment-{APPLIANCE}.txt"))?)?;
        self.stage.proven()
    }

    /// Home with its people, and the image.
    fn home(folder: &Path, narrator: Narrator) -> Result<Self> {
        let mut stage = Stage::new(folder, narrator)?;
        stage.new_site()?;
        for name in hoidla_journey::stage::CUSTODIANS.iter().chain(&hoidla_journey::stage::RECOVERY) {
            stage.new_custodian(name)?;
        }
        give_network(&stage.at("home/authority/site.toml"))?;
        stage.sign_site()?;
        let machine = stage.at("machine");
        fs::create_dir_all(&machine)?;
        let foretold = image(&stage)?;
        Ok(Self { stage, machine, foretold })
    }

    /// Boot disks with the image, and this state.
    pub fn install(&self, state: Option<&Path>) -> Result<()> {
        let stick = fs::read(self.stick())?;
        boot_disk::make(&self.boot_disks(), &stick[hoidla_medium::stick::SLOT], state)
    }

    /// Firmware with the site's boot key.
    pub fn give_keys(&self) -> Result<()> {
        let key = fs::read(self.stage.at("home/boot/boot.crt"))?;
        variables::write(Path::new(VARIABLES), &self.machine.join("variables.fd"), &variables::keys(&key, &[&key]))
    }

    /// The boot disks, as files.
    pub fn boot_disks(&self) -> Vec<PathBuf> {
        ["boot-a", "boot-b"].map(|d| self.machine.join(d)).to_vec()
    }

    /// The port of the door, here and in the guest.
    pub fn port(&self) -> Result<u16> {
        let address = self.stage.address();
        Ok(address.rsplit_once(':').context("an address has a port")?.1.parse()?)
    }

    /// The stick.
    pub fn stick(&self) -> PathBuf {
        self.stage.at("home/hoidla.img")
    }

    /// The machine with everything where it belongs.
    pub fn parts(&self) -> Result<Parts> {
        Ok(Parts {
            folder: self.machine.clone(),
            variables: self.machine.join("variables.fd"),
            tpm: self.stage.at("embassy/tpm"),
            start: Start::Disk,
            boot_disks: self.boot_disks(),
            trays: hoidla_journey::stage::DISKS.map(|d| self.stage.at(d)).to_vec(),
            ports: vec![(self.port()?, self.port()?)],
            host_ports: Vec::new(),
            wires: false,
            clock: None,
            memory: MEMORY,
            processors: 2,
            by_entries: false,
        })
    }
}

/// Writes into the site file what the appliance's network port is given.
fn give_network(site: &Path) -> Result<()> {
    let text = fs::read_to_string(site)?;
    let address = text.lines().find(|l| l.starts_with("address = ")).context("the site file names an address")?;
    let network = format!(
        "{address}\n[appliance.network]\naddress = \"{GUEST}/24\"\ngateway = \"10.0.2.2\"\n\
         [appliance.health]\nport = {HEALTH}\n[appliance.health.network]\naddress = \"{AT_HOST}/24\""
    );
    Ok(fs::write(site, text.replacen(address, &network, 1))?)
}

/// Builds and signs image, manifest and stick; the registers that they lead to.
fn image(stage: &Stage) -> Result<serde_json::Value> {
    // What is measured is what runs: a build for tests without its debugging information.
    let me = std::env::current_exe()?;
    let built =
        me.ancestors().map(|f| f.join("hoidlad")).find(|p| p.is_file()).context("hoidlad is not built; next: cargo build --workspace")?;
    // Where the image's own tests keep what they fetched.
    let (program, packages) = (stage.at("home/hoidlad"), built.with_file_name("../tmp/packages"));
    let stripped =
        Command::new("strip").arg("-o").arg(&program).arg(&built).status().context("cannot run strip; next: apt-get install binutils")?;
    ensure!(stripped.success(), "strip failed");
    let (program, packages) = (program.display().to_string(), packages.display().to_string());
    let (passphrase, key) = ("home/authority/passphrase", "home/authority/keys/authority.key");
    let run = |args: &[&str]| stage.programs.must("hoidla-image", args);
    run(&["key", "home/boot", "--name", "test-boot", "--passphrase-file", passphrase])?;
    fs::copy(LOCK, stage.at("home/packages.toml"))?;
    let ingredients =
        ["--site", "home/authority/public/site.txt", "--name", "drill", "--lock", "home/packages.toml", "--packages", &packages];
    let build = ["build", "--profile", PROFILE, "--hoidlad", &program, "--out", "home/hoidla.unsigned.efi"];
    let build = [&build[..], &ingredients].concat();
    if let Err(e) = run(&build) {
        // Once the archive has moved on, today's packages serve a test as well; a release wants the lock.
        ensure!(format!("{e:?}").contains("no longer has"), e);
        eprintln!("the archive has moved on; run hoidla-image refresh. Going on with today's packages: {e}");
        run(&["refresh", "--lock", "home/packages.toml"])?;
        run(&build)?;
    }
    run(&["sign", "home/hoidla.unsigned.efi", "--boot-key", "home/boot", "--passphrase-file", passphrase, "--out", "home/hoidla.efi"])?;
    run(&["manifest", "home/hoidla.efi", "--authority-key", key, "--passphrase-file", passphrase, "--out", "home/manifest.txt"])?;
    run(&["stick", "home/hoidla.efi", "--manifest", "home/manifest.txt", "--out", "home/hoidla.img"])?;
    Ok(serde_json::from_str(&run(&["pcrs", "home/hoidla.efi"])?.out)?)
}
