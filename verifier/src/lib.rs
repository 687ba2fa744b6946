//! The offline verifier: what files prove, and what they don't, in sentences.
//!
//! Promises: no network, no TPM, no secret; all rests on the authority's digits that the
//! auditor gives, and on public standards. Whole is said (exit 0) only if every check passed;
//! a contradiction is a no (1); for want of papers or of a readable file nothing is said (2).
//! It doesn't know whether the TPM is genuine beyond what the enrolment says of its proof,
//! nor whether bytes are still there: that, only samples tell.
#![forbid(unsafe_code)]

mod judge;
mod papers;
mod report;
mod statement;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use hoidla_cli::{NextStep, Outcome, Output};

use papers::{Another, Papers};
pub use report::{Report, Verdict};

const HELP: &str = "Examples:
  hoidla-verify --authority '1a2b 3c4d 5e6f 7081 92a3 b4c5' statement audit-2027-01
  hoidla-verify --authority ... receipt audit-2027-01/receipts/4f...c1.txt
  hoidla-verify --authority ... consistency before.txt extension.txt --papers papers
Exit code 0: whole. 1: checked, and the answer is no. 2: cannot tell.";

/// Checks from files alone what an appliance committed to.
#[derive(Parser)]
#[command(name = "hoidla-verify", version, disable_help_subcommand = true, after_help = HELP)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
    /// The home authority's digits, from a source that you trust: 24 of 0-9a-f.
    #[arg(long, global = true, value_name = "DIGITS")]
    authority: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// Where the papers are.
#[derive(Args)]
struct PapersArgument {
    /// Site file, releases, enrolments and identities: files or folders; the folder `papers` beside the file, or above it, if not given.
    #[arg(long, value_name = "PATH")]
    papers: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// That an appliance committed to a stream's bytes.
    Receipt {
        /// The receipt.
        file: PathBuf,
        #[command(flatten)]
        papers: PapersArgument,
    },
    /// That a head of a log is its appliance's, and who else saw it.
    Checkpoint {
        /// The signed checkpoint.
        file: PathBuf,
        #[command(flatten)]
        papers: PapersArgument,
    },
    /// That an appliance overwrote a disk and read it back.
    Erased {
        /// The certificate that `hoidlad erase-disk` wrote.
        file: PathBuf,
        #[command(flatten)]
        papers: PapersArgument,
    },
    /// That a log only grew from an older checkpoint to a newer one.
    Consistency {
        /// The older signed checkpoint.
        old: PathBuf,
        /// The extension: proof and newer checkpoint.
        extension: PathBuf,
        #[command(flatten)]
        papers: PapersArgument,
    },
    /// That an agent's completeness statement holds, with all it rests on.
    Statement {
        /// The folder that `hoidla-agent audit --evidence` wrote.
        folder: PathBuf,
    },
    /// What the authority has on record: appliances, their keys, releases.
    Site {
        /// Papers: files or folders.
        #[arg(required = true)]
        papers: Vec<PathBuf>,
    },
}

/// Does what was asked.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let report = report(arguments)?;
    arguments.output.result(&report.value(), report.text())?;
    Ok(if report.verdict == Verdict::Whole { Outcome::Done } else { Outcome::No })
}

/// What the files show; an error if that cannot be told.
pub fn report(arguments: &Arguments) -> Result<Report> {
    judged(arguments).or_else(|e| e.downcast::<Another>().map(|no| Report::no(no.to_string())))
}

fn judged(arguments: &Arguments) -> Result<Report> {
    let digits = arguments.authority.as_deref();
    let gather = |paths: &PapersArgument, of: &Path| match paths.papers.as_slice() {
        [] => Papers::gather(&[beside(of)?], digits),
        given => Papers::gather(given, digits),
    };
    match &arguments.command {
        Command::Receipt { file, papers } => judge::receipt(&papers::read(file)?, &gather(papers, file)?),
        Command::Checkpoint { file, papers } => judge::checkpoint(&papers::read(file)?, &gather(papers, file)?),
        Command::Erased { file, papers } => judge::erased(&papers::read(file)?, &gather(papers, file)?),
        Command::Consistency { old, extension, papers } => {
            judge::consistency(&papers::read(old)?, &papers::read(extension)?, &gather(papers, extension)?)
        }
        Command::Statement { folder } => statement::check(folder, &Papers::gather(&[folder.join("papers")], digits)?),
        Command::Site { papers } => Ok(judge::site(&Papers::gather(papers, digits)?)),
    }
}

/// The papers of a folder of evidence, where the file lies in it or in one of its folders.
fn beside(file: &Path) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(file);
    let places = [folder.join("papers"), folder.join("../papers")];
    places
        .into_iter()
        .find(|p| p.is_dir())
        .with_context(|| format!("no papers lie beside {}", file.display()))
        .next("give the site file, release, enrolment and identity with --papers, a folder or file each")
}
