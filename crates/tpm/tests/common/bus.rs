//! An interposer between us and the TPM: sees every byte, and may change answers.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use hoidla_tpm::{Tcti, swtpm::free_pair};

const HOST: &str = "127.0.0.1";

#[derive(Default)]
struct Seen {
    commands: Vec<u8>,
    answers: Vec<u8>,
    /// The command whose next answer is to be changed.
    spoil: Option<u32>,
    last: u32,
}

/// Listens on ports of its own and passes everything on to a TPM's.
pub struct Bus {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Bus {
    pub fn before(port_of_tpm: u16) -> Self {
        let port = free_pair().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        for (offset, watched) in [(0, Some(seen.clone())), (1, None)] {
            let listener = TcpListener::bind((HOST, port + offset)).unwrap();
            thread::spawn(move || {
                for near in listener.incoming() {
                    let far = TcpStream::connect((HOST, port_of_tpm + offset)).unwrap();
                    join(near.unwrap(), far, watched.clone());
                }
            });
        }
        Self { port, seen }
    }

    pub fn tcti(&self) -> Tcti {
        Tcti::swtpm(HOST, self.port)
    }

    /// Changes the last byte of the next answer to this command.
    pub fn spoil_next_answer_to(&self, command: u32) {
        self.seen.lock().unwrap().spoil = Some(command);
    }

    /// Whether these bytes went by, either way.
    pub fn saw(&self, needle: &[u8]) -> bool {
        let seen = self.seen.lock().unwrap();
        [&seen.commands, &seen.answers].iter().any(|all| all.windows(needle.len()).any(|w| w == needle))
    }

    /// The codes of all commands, in order.
    pub fn commands(&self) -> Vec<u32> {
        let seen = self.seen.lock().unwrap();
        let (mut left, mut codes) = (&seen.commands[..], Vec::new());
        while let Some(head) = left.get(..10) {
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            codes.push(number(6));
            left = &left[number(2) as usize..];
        }
        assert!(left.is_empty(), "half a command");
        codes
    }
}

/// One client at a time, as the TPM has it.
fn join(near: TcpStream, far: TcpStream, watched: Option<Arc<Mutex<Seen>>>) {
    let (near_2, far_2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let there = watched.clone();
    let answers = thread::spawn(move || pass(far_2, near_2, |bytes| spoil(watched.as_deref(), bytes)));
    pass(near, far, |bytes| note(there.as_deref(), bytes));
    answers.join().unwrap();
}

fn note(seen: Option<&Mutex<Seen>>, bytes: &mut [u8]) {
    let Some(seen) = seen else { return };
    let mut seen = seen.lock().unwrap();
    seen.commands.extend_from_slice(bytes);
    if let Some(code) = bytes.get(6..10) {
        seen.last = u32::from_be_bytes(code.try_into().unwrap());
    }
}

fn spoil(seen: Option<&Mutex<Seen>>, bytes: &mut [u8]) {
    let Some(seen) = seen else { return };
    let mut seen = seen.lock().unwrap();
    seen.answers.extend_from_slice(bytes);
    if seen.spoil == Some(seen.last) {
        seen.spoil = None;
        *bytes.last_mut().unwrap() ^= 1;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&mut [u8])) {
    let mut buffer = [0; 8192];
    while let Ok(got) = from.read(&mut buffer) {
        if got == 0 {
            break;
        }
        look(&mut buffer[..got]);
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    // Gone on one side is gone on both.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
