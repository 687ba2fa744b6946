//! The daemon's side: starts helpers, asks them, waits for their end.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hoidla_crypto::hpke::KeyPair;
use hoidla_quorum::opening::Occasion;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{Answer, COMMAND, Job, MOST, Place, Sent};

/// Freed memory is overwritten, and at once.
const TUNABLES: &str = "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0";
/// How long one step of the helper may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts helpers.
#[derive(Clone, Debug)]
pub struct Helpers {
    program: PathBuf,
    state: PathBuf,
}

/// A helper that has opened a grant's vaults.
pub struct Opening {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Helpers {
    /// `program`'s hidden subcommand, over this state folder.
    pub fn new(program: &Path, state: &Path) -> Self {
        Self { program: program.to_owned(), state: state.to_owned() }
    }

    async fn start(&self, one_time: &KeyPair, job: &Job) -> anyhow::Result<(Opening, Answer)> {
        let mut child = Command::new(&self.program)
            .arg("--state")
            .arg(&self.state)
            .arg(COMMAND)
            .env_clear()
            .env("GLIBC_TUNABLES", TUNABLES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("the opening process cannot be started")?;
        let input = child.stdin.take().context("no pipe")?;
        let output = child.stdout.take().context("no pipe")?;
        let mut opening = Opening { child, input, output };
        opening.input.write_all(one_time.seed().expose()).await?;
        opening.send(&serde_json::to_vec(job)?).await?;
        let answer = serde_json::from_slice(&opening.receive().await?)?;
        Ok((opening, answer))
    }

    /// Checks shares on arrival. `Ok(Err(..))`: one is bad, in words that name its custodian.
    pub async fn check(&self, one_time: &KeyPair, occasion: &Occasion, shares: Vec<Sent>) -> anyhow::Result<Result<(), String>> {
        let job = Job { grant: occasion.grant, challenge: occasion.challenge, shares, open: None };
        let (opening, answer) = self.start(one_time, &job).await?;
        opening.end().await?;
        match answer {
            Answer::Done => Ok(Ok(())),
            Answer::BadShare(why) => Ok(Err(why)),
            Answer::Failed(why) => bail!("{why}"),
        }
    }

    /// Opens the vaults of a grant (its signed text).
    pub async fn open(&self, one_time: &KeyPair, occasion: &Occasion, grant: String, shares: Vec<Sent>) -> anyhow::Result<Opening> {
        let job = Job { grant: occasion.grant, challenge: occasion.challenge, shares, open: Some(grant) };
        match self.start(one_time, &job).await? {
            (opening, Answer::Done) => Ok(opening),
            (_, Answer::BadShare(why) | Answer::Failed(why)) => bail!("{why}"),
        }
    }
}

impl Opening {
    async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.input.write_all(&u32::try_from(bytes.len())?.to_le_bytes()).await?;
        self.input.write_all(bytes).await?;
        Ok(self.input.flush().await?)
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let read = async {
            let len = self.output.read_u32_le().await? as usize;
            if len > MOST {
                return Err(io::Error::other("an answer too long"));
            }
            let mut bytes = vec![0; len];
            self.output.read_exact(&mut bytes).await?;
            Ok(bytes)
        };
        let read = timeout(PATIENCE, read).await.context("the opening process took too long")?;
        read.context("the opening process ended early; the log says why")
    }

    /// The data key, for the reader, of the epoch whose header frame this is; none if it stays sealed.
    pub async fn rewrap(&mut self, place: &Place, frame: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        self.send(&place.with(frame)).await?;
        Ok(Some(self.receive().await?).filter(|key| !key.is_empty()))
    }

    /// Lets the process end, and waits for it: its memory is gone afterwards.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { mut child, input, output } = self;
        drop((input, output));
        let status = timeout(PATIENCE, child.wait()).await.context("the opening process does not end")??;
        ensure!(status.success(), "the opening process failed ({status})");
        Ok(())
    }
}
