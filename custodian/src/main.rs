//! `hoidla-custodian`: new, confirm, grant, review, approve, seal, status.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    hoidla_cli::harden();
    let args = hoidla_custodian::cli::Args::parse();
    hoidla_cli::main_with(|| hoidla_custodian::cli::run(args))
}
