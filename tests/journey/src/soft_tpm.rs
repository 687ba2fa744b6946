//! A software TPM of this stage's own.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::programs::wait_until;

/// A running swtpm with its state in a folder. It ends when dropped.
#[derive(Debug)]
pub struct SoftTpm {
    child: Child,
    port: u16,
}

impl SoftTpm {
    /// Starts one over `state`, which is made if missing.
    ///
    /// # Errors
    /// If swtpm is not installed or doesn't listen.
    pub fn start(state: &Path) -> Result<Self> {
        fs::create_dir_all(state)?;
        let port = two_free_ports()?;
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={},mode=0600", state.display())])
            .args(["--server", &format!("type=tcp,port={port}")])
            .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
            .args(["--log", &format!("file={},level=1", state.join("swtpm.log").display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start swtpm; next: apt-get install swtpm")?;
        let tpm = Self { child, port };
        // Asked at the control port: the other takes one client at a time, and that is hoidlad.
        wait_until("swtpm listens", Duration::from_secs(10), || TcpStream::connect((Ipv4Addr::LOCALHOST, port + 1)).is_ok())?;
        Ok(tpm)
    }

    /// How libtss2 names it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of two free ports in a row: libtss2 takes it for granted that control follows data.
fn two_free_ports() -> Result<u16> {
    for _ in 0..100 {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if first < u16::MAX
            && TcpListener::bind((Ipv4Addr::LOCALHOST, first)).is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).is_ok()
        {
            return Ok(first);
        }
    }
    anyhow::bail!("no two free ports in a row")
}

/// A free port for a program to listen at.
///
/// # Errors
/// If the system gives none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
