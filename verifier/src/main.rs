//! `hoidla-verify`.
#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = hoidla_verify_cli::Arguments::parse();
    hoidla_cli::main_with(|| hoidla_verify_cli::run(&arguments))
}
