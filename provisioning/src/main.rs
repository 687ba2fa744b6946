//! `hoidla-provision`: site, roster, deal, release, enrol, agent.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    hoidla_cli::harden();
    let args = hoidla_provision::cli::Args::parse();
    hoidla_cli::main_with(|| hoidla_provision::cli::run(args))
}
