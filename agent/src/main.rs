//! `hoidla-agent`.
#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = hoidla_agent::Arguments::parse();
    hoidla_cli::main_with(|| hoidla_agent::run(arguments))
}
