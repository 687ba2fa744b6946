//! Keeps one program running, as an init system would.

use std::{
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Programs;

/// Starts a program, and starts it again whenever it ends, until dropped.
#[derive(Debug)]
pub struct Supervisor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pid: Arc<AtomicU32>,
    starts: Arc<AtomicU32>,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Supervisor {
    /// Starts `program` with `args`.
    ///
    /// # Errors
    /// If the first start fails.
    pub fn start(programs: &Programs, program: &'static str, args: Vec<String>) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let pid = Arc::new(AtomicU32::new(0));
        let starts = Arc::new(AtomicU32::new(0));
        let last_error = Arc::new(Mutex::new(None));
        let programs = programs.clone();
        let begin = move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            programs.start(program, &args)
        };
        let mut child = begin()?;
        pid.store(child.id(), Ordering::SeqCst);
        starts.store(1, Ordering::SeqCst);
        let (shared_pid, shared_starts, shared_error) = (pid.clone(), starts.clone(), last_error.clone());
        let thread = std::thread::spawn(move || {
            loop {
                match stopped.recv_timeout(Duration::from_millis(50)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return end(&mut child),
                }
                if let Ok(Some(_)) = child.try_wait() {
                    match begin() {
                        Ok(next) => {
                            child = next;
                            shared_pid.store(child.id(), Ordering::SeqCst);
                            shared_starts.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(e) => *shared_error.lock().expect("no thread panics with it") = Some(format!("{e:#}")),
                    }
                }
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread), pid, starts, last_error })
    }

    /// The process that runs now.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::SeqCst)
    }

    /// SIGKILL: what a power cut is to a process. The supervisor starts it again by itself.
    ///
    /// # Errors
    /// If the process is gone already.
    pub fn kill(&self) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL).context("cannot kill it: it had ended by itself")
    }

    /// Why the last start failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().expect("no thread panics with it").clone()
    }
}

/// Asks a process to end, and after three seconds no longer asks.
pub fn end(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    for _ in 0..60 {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
