//! One TPM, one release key, one half: what every test begins with.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod bus;
pub mod dealt;

use std::{
    path::Path,
    process::{Command, Output},
};

use hoidla_crypto::Secret;
use hoidla_format::{Bytes, Hash32, Name, statements::TpmHalf};
use hoidla_tpm::{Blob, Swtpm, Tcti, Tpm};
use hoidla_verify::{
    Approved, PolicyRef, ReleaseKey, ReleasePublic, Terms, import,
    release::{approve, check},
};
use tempfile::TempDir;

pub const PCRS: [u8; 4] = [4, 11, 12, 13];
pub const SECRET: [u8; 32] = *b"the half that the TPM must keep!";
pub const AUTH: [u8; 32] = *b"auth value that the quorum gives";

pub fn name(s: &str) -> Name {
    s.parse().unwrap()
}

pub fn site() -> Name {
    name("lux")
}

pub fn dataset() -> Name {
    name("land-register")
}

pub fn secret(bytes: [u8; 32]) -> Secret<32> {
    Secret::filled(|b| *b = bytes)
}

pub struct World {
    pub swtpm: Swtpm,
    pub tpm: Tpm,
    pub key: ReleaseKey,
    pub state: TempDir,
}

impl World {
    pub fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(state.path()).unwrap();
        let tpm = Tpm::open(swtpm.tcti()).unwrap();
        tpm.counter(hoidla_tpm::Counter::Release).unwrap();
        Self { swtpm, tpm, key: ReleaseKey::generate().0, state }
    }

    /// The TPM loses power and comes back; its state folder stays.
    pub fn power_cut(&mut self) {
        // Its port is taken over by nobody else's TPM only if the old one is gone first.
        let name = self.tpm.srk().name();
        self.swtpm.stop();
        self.swtpm = Swtpm::start(self.state.path()).unwrap();
        self.tpm = Tpm::open_pinned(self.swtpm.tcti(), &name).unwrap();
    }

    /// Runs a program of tpm2-tools against this TPM, in the state folder.
    pub fn try_tool(&self, tool: &str, args: &[&str]) -> Output {
        tool_at(self.swtpm.tcti(), self.state.path(), tool, args)
    }

    /// The same, which must succeed.
    pub fn tool(&self, tool: &str, args: &[&str]) -> Output {
        let out = self.try_tool(tool, args);
        assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out
    }

    /// What is loaded in the TPM, as tpm2-tools sees it.
    pub fn loaded(&self) -> String {
        ["handles-transient", "handles-loaded-session", "handles-saved-session"]
            .map(|what| String::from_utf8(self.tool("tpm2_getcap", &[what]).stdout).unwrap())
            .concat()
    }

    pub fn public(&self) -> ReleasePublic {
        self.key.public()
    }

    pub fn node_ref(&self) -> PolicyRef {
        PolicyRef::node(&site(), true)
    }

    pub fn vault_ref(&self, vault_epoch: u32) -> PolicyRef {
        PolicyRef::vault(&site(), true, &dataset(), vault_epoch)
    }

    /// A release by this world's key for the registers as they stand.
    pub fn release(&self, epoch: u64, vault_epochs: &[u32]) -> Approved {
        self.release_by(&self.key, true, epoch, vault_epochs)
    }

    pub fn release_by(&self, key: &ReleaseKey, development: bool, epoch: u64, vault_epochs: &[u32]) -> Approved {
        let terms = Terms {
            site: site(),
            name: name("test"),
            development,
            epoch,
            pcrs: self.tpm.pcr_read(&PCRS).unwrap(),
            vaults: vault_epochs.iter().map(|e| (dataset(), *e)).collect(),
        };
        check(&approve(key, terms).unwrap(), &key.public()).unwrap()
    }

    pub fn half_with(&self, vault_epoch: u32, auth: [u8; 32]) -> TpmHalf {
        let policy = self.public().half_policy(&self.vault_ref(vault_epoch)).digest();
        let made = import::make(self.tpm.srk(), &secret(SECRET), policy, &secret(auth)).unwrap();
        TpmHalf {
            dataset: dataset(),
            vault_epoch,
            vault: Hash32([0; 32]),
            public: Bytes(made.public.marshal()),
            duplicate: Bytes(made.duplicate),
            seed: Bytes(made.seed),
            wrapped_key: Bytes(vec![]),
        }
    }

    pub fn half(&self, vault_epoch: u32) -> TpmHalf {
        self.half_with(vault_epoch, AUTH)
    }

    pub fn import(&self, vault_epoch: u32) -> Blob {
        self.tpm.import_half(&self.half(vault_epoch), &self.public(), &self.vault_ref(vault_epoch)).unwrap()
    }

    pub fn unseal(&self, blob: &Blob, release: &Approved, vault_epoch: u32) -> Result<Secret<32>, hoidla_tpm::TpmError> {
        self.tpm.unseal_half(blob, release, &dataset(), vault_epoch, &secret(AUTH))
    }
}

pub fn tool_at(tcti: &Tcti, folder: &Path, tool: &str, args: &[&str]) -> Output {
    let run = Command::new(tool).args(args).current_dir(folder).env("TPM2TOOLS_TCTI", tcti.as_str()).output();
    run.unwrap_or_else(|e| panic!("{tool} of the package tpm2-tools: {e}"))
}

/// The error of what must not succeed; a secret has no Debug.
pub fn refusal<T>(result: Result<T, hoidla_tpm::TpmError>) -> hoidla_tpm::TpmError {
    match result {
        Ok(_) => panic!("accepted"),
        Err(e) => e,
    }
}
