//! Finding and running the real programs, with a log of every command.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// The programs of one build, side by side.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    logs: PathBuf,
    work: PathBuf,
}

/// What a finished program left.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; a death by signal is 128 and the signal's number.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// How long it ran.
    pub took: Duration,
    /// The command as one would type it.
    pub command: String,
}

impl Programs {
    /// The programs beside this one, run from `work`, with their logs in `logs`.
    ///
    /// # Errors
    /// If any of them has not been built.
    pub fn find(work: &Path, logs: &Path) -> Result<Self> {
        let me = std::env::current_exe().context("cannot tell where this program is")?;
        // A test's binary lies one folder deeper than the programs.
        let folder = me
            .ancestors()
            .skip(1)
            .take(2)
            .find(|f| f.join("hoidlad").exists())
            .context("the programs are not built beside this one; next: cargo build --workspace --all-targets")?
            .to_owned();
        for name in ["hoidlad", "hoidla-provision", "hoidla-agent", "hoidla-custodian", "hoidla-verify"] {
            ensure!(folder.join(name).exists(), "{name} is not built; next: cargo build --workspace --all-targets");
        }
        fs::create_dir_all(logs)?;
        Ok(Self { folder, logs: logs.to_owned(), work: work.to_owned() })
    }

    /// A command for one of them, run from the stage's folder.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.args(args).current_dir(&self.work).stdin(Stdio::null());
        command
    }

    /// Where this program's output goes.
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{program}.log"))
    }

    /// Starts a program whose output goes to its log.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, program: &str, args: &[&str]) -> Result<Child> {
        let log = self.open_log(program, args)?;
        let mut command = self.command(program, args);
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {program}"))
    }

    /// Runs a program to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// If it cannot be started. Any exit code is an answer.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<Answer> {
        let mut log = self.open_log(program, args)?;
        let begun = Instant::now();
        let mut command = self.command(program, args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        // A program that asks nothing closes the pipe; that is its right.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let answer = Answer {
            code: code(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
            command: typed(program, args),
        };
        write!(log, "{}{}exit code {}\n\n", answer.out, answer.err, answer.code)?;
        Ok(answer)
    }

    /// Runs a program that must succeed.
    ///
    /// # Errors
    /// If its exit code is not 0; with what it said.
    pub fn must(&self, program: &str, args: &[&str]) -> Result<Answer> {
        self.must_with(program, args, "")
    }

    /// The same, with something on its standard input.
    ///
    /// # Errors
    /// As [`Self::must`].
    pub fn must_with(&self, program: &str, args: &[&str], input: &str) -> Result<Answer> {
        let answer = self.run(program, args, input)?;
        if answer.code != 0 {
            bail!("`{}` ended with code {}:\n{}{}", answer.command, answer.code, answer.out, answer.err);
        }
        Ok(answer)
    }

    /// Runs a program that must refuse.
    ///
    /// # Errors
    /// If its exit code is 0.
    pub fn must_refuse(&self, program: &str, args: &[&str]) -> Result<Answer> {
        let answer = self.run(program, args, "")?;
        ensure!(answer.code != 0, "`{}` was not refused:\n{}", answer.command, answer.out);
        ensure!(answer.code < 128 && !answer.err.contains("panicked"), "`{}` fell over:\n{}", answer.command, answer.err);
        Ok(answer)
    }

    fn open_log(&self, program: &str, args: &[&str]) -> Result<File> {
        let path = self.log(program);
        let mut log =
            OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(log, "$ {}", typed(program, args))?;
        Ok(log)
    }

    /// The last lines of a program's log.
    pub fn tail(&self, program: &str) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(self.log(program)) {
            let len = log.metadata().map_or(0, |m| m.len());
            let _ = log.seek(SeekFrom::Start(len.saturating_sub(4096)));
            let mut bytes = Vec::new();
            let _ = log.read_to_end(&mut bytes);
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// A command as one would type it.
pub fn typed(program: &str, args: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    let word = |a: &&str| if !a.is_empty() && a.chars().all(plain) { (*a).to_owned() } else { format!("'{}'", a.replace('\'', "'\\''")) };
    std::iter::once(program.to_owned()).chain(args.iter().map(word)).collect::<Vec<_>>().join(" ")
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits until `true`, asking fifty times a second.
///
/// # Errors
/// If that takes longer than `most`; `what` is what was waited for.
pub fn wait_until(what: &str, most: Duration, mut is: impl FnMut() -> bool) -> Result<Duration> {
    let begun = Instant::now();
    while !is() {
        ensure!(begun.elapsed() < most, "waited {} s in vain: {what}", most.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}
