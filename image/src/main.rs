//! `hoidla-image`.
#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> std::process::ExitCode {
    hoidla_cli::harden();
    let arguments = hoidla_image::Arguments::parse();
    hoidla_cli::main_with(|| hoidla_image::run(&arguments))
}
