//! The helper as a process: started, asked, ended.

use std::{
    io::{self, Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hoidla_format::Malformed;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Reply, Request, layout::MOST, run};

/// What glibc does in the helper: freed memory is overwritten at once, and none is set aside
/// before that. Without it an unsealed half stays on libtss2's heap until the process ends.
const TUNABLES: &str = "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0";

/// How often it is looked whether the answer is still wanted.
const POLL: Duration = Duration::from_millis(50);

/// Why the helper gave no answer.
#[derive(Debug, Error)]
pub enum HelperError {
    /// It couldn't be started or spoken to.
    #[error("the opening helper couldn't be run: {0}")]
    Io(#[from] io::Error),
    /// It took too long, and was ended.
    #[error("the opening helper gave no answer within {0:?} and was ended: see whether the TPM answers")]
    Late(Duration),
    /// What it was asked for has ended meanwhile.
    #[error("the opening helper was ended: what it was asked for is sealed")]
    Stopped,
    /// Its answer doesn't parse: it died.
    #[error("the opening helper died or answered nonsense: {0}")]
    Answer(#[from] Malformed),
}

/// The helper's side: reads one question, answers it, wipes it. `main` hardens the process
/// before it calls this, and ends after it.
///
/// # Errors
/// If standard input or output break.
pub fn serve(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let bytes = read_bounded(input)?;
    let reply = match Request::from_bytes(&bytes) {
        Ok(request) => run(request),
        Err(e) => Reply::Failed(e.to_string()),
    };
    output.write_all(&reply.to_bytes())?;
    output.flush()
}

/// The appliance's side: starts `helper`, which must end in [`serve`], asks, and waits at most
/// `patience`, and not once `stopped` says so. The helper inherits nothing of the environment.
pub fn ask(helper: &mut Command, request: &Request, patience: Duration, stopped: impl Fn() -> bool) -> Result<Reply, HelperError> {
    let question = request.to_bytes();
    let mut child = helper
        .env_clear()
        .env("GLIBC_TUNABLES", TUNABLES)
        .env("TSS2_LOG", "all+none")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let (mut input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let (sender, receiver) = mpsc::channel();
    let exchange = thread::spawn(move || {
        let answer = input.write_all(&question).and_then(|()| {
            drop(input);
            read_bounded(output)
        });
        // Nobody listens any more once patience has ended.
        let _ = sender.send(answer);
    });
    let since = Instant::now();
    let answer = loop {
        match receiver.recv_timeout(POLL.min(patience)) {
            Ok(answer) => break answer.map_err(HelperError::Io),
            Err(_) if stopped() => break Err(HelperError::Stopped),
            Err(_) if since.elapsed() >= patience => break Err(HelperError::Late(patience)),
            Err(_) => {}
        }
    };
    // Ended whatever it said: by now it holds nothing that is still wanted. Both ends of the
    // pipes close with it, so the exchange ends too.
    let _ = child.kill();
    child.wait()?;
    let _ = exchange.join();
    Ok(Reply::from_bytes(&answer?)?)
}

/// All of an input, unless it is longer than a question or an answer may be. No buffer is
/// moved while it grows, so that wiping them wipes all.
fn read_bounded(input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut parts: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    let mut input = input.take(MOST as u64 + 1);
    let mut total = 0;
    loop {
        let mut part = Zeroizing::new(vec![0; 64 << 10]);
        let got = input.read(&mut part)?;
        if got == 0 {
            break;
        }
        part.truncate(got);
        total += got;
        parts.push(part);
    }
    if total > MOST {
        return Err(io::Error::other("longer than a question to the opening helper may be"));
    }
    let mut all = Zeroizing::new(Vec::with_capacity(total));
    parts.iter().for_each(|p| all.extend_from_slice(p));
    Ok(all)
}
