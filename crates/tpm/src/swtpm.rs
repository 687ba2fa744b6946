//! A software TPM in a process of its own, for demonstrations, tests and benches.
//!
//! Promises: starts `swtpm` on a free pair of ports of this machine, waits until it answers,
//! and kills it when dropped, which to it is a power cut: its state stays and may be started
//! again. It is no protection of anything: whoever reads the state folder has the TPM.

use std::{
    fs::File,
    io,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::Tcti;

const HOST: &str = "127.0.0.1";
/// Below the ports that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `swtpm`, killed when dropped.
pub struct Swtpm {
    child: Child,
    tcti: Tcti,
    port: u16,
}

impl Swtpm {
    /// Starts one with its state in `state`, which must exist.
    ///
    /// # Errors
    /// If `swtpm` is missing or doesn't come up; its own words are in `state/swtpm.log`.
    pub fn start(state: &Path) -> io::Result<Self> {
        let mut last = io::Error::other("no free pair of ports");
        for _ in 0..20 {
            match Self::start_on(state, free_pair()?) {
                Ok(up) => return Ok(up),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(io::Error::new(e.kind(), "the program `swtpm` is missing: install the package swtpm"));
                }
                // Another program took the ports first, or the former swtpm still holds the state's lock.
                Err(e) => last = e,
            }
            sleep(Duration::from_millis(50));
        }
        Err(last)
    }

    fn start_on(state: &Path, port: u16) -> io::Result<Self> {
        let log = File::create(state.join("swtpm.log"))?;
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &format!("type=tcp,bindaddr={HOST},port={port}")])
            .args(["--ctrl", &format!("type=tcp,bindaddr={HOST},port={}", port + 1)])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut up = Self { child, tcti: Tcti::swtpm(HOST, port), port };
        up.wait()?;
        Ok(up)
    }

    fn wait(&mut self) -> io::Result<()> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("swtpm ended at once ({status}); see swtpm.log in its state folder")));
            }
            // The control port's listener exists before the command port's is served.
            if TcpStream::connect((HOST, self.port + 1)).is_ok() && TcpStream::connect((HOST, self.port)).is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(5));
        }
        Err(io::Error::other("swtpm doesn't answer within ten seconds; see swtpm.log in its state folder"))
    }

    /// Ends it now, as a power cut would, and waits until it has.
    pub fn stop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Where it listens.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// The port of its commands; its control port is the next.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that is free, and the next one too, as of now.
pub fn free_pair() -> io::Result<u16> {
    for _ in 0..200 {
        let mut random = [0; 2];
        hoidla_crypto::random(&mut random);
        let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
        if TcpListener::bind((HOST, port)).is_ok() && TcpListener::bind((HOST, port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free pair of ports between 20000 and 32000"))
}
