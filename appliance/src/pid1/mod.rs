//! `hoidlad` as PID 1 of the image: the machine around the appliance.
//!
//! Promises: the TPM is used only on a machine that Secure Boot guarded, with nothing added to
//! the image and a kernel that keeps its doors closed; what the appliance needs is found by the
//! profile in the image, never by chance; no other program runs but the opening helper, which is
//! this one; whatever fails, its reason stands on the console, and the machine tries again by
//! itself. It knows nothing of what is stored.

mod boot;
mod console;
pub mod devices;
pub mod entries;
mod firmware;
mod health;
mod kernel;
mod mirror;
mod network;
pub mod offer;
mod power;
mod provision;
mod reaper;
mod sandbox;
pub mod sensors;
pub mod slots;
pub mod start;
mod terminal;

use std::{io, time::Duration};

use hoidla_cli::Screen;
use power::End;
use tracing_subscriber::fmt::time::uptime;

/// How long a reason stands on the console before the machine tries again.
const READ_IT: Duration = Duration::from_secs(120);
/// The same, if it goes back to what ran before.
const GO_BACK: Duration = Duration::from_secs(10);

/// Runs the machine until it ends. To be called by process 1 only.
pub fn run() -> ! {
    let end = boot::prepare().and_then(boot::Prepared::end).unwrap_or_else(|why| {
        let wait = if start::on_trial() { GO_BACK } else { READ_IT };
        tracing::error!("NOT RUNNING: {why:#}");
        if start::on_trial() {
            start::gave_up(std::path::Path::new(boot::STATE), &format!("{why:#}"));
        }
        terminal::on_every_console(&not_running(&why, wait));
        wait_or_off(wait)
    });
    tracing::info!("{}", if end == End::PowerOff { "safe to switch off" } else { "starting again" });
    end.now()
}

/// The reason once more, for whoever stands before the machine.
fn not_running(why: &anyhow::Error, wait: Duration) -> String {
    let mut s = Screen::new();
    s.gap().heading("Hoidla: NOT RUNNING").words(&format!("{why:#}")).gap();
    s.words("Host staff: photograph this screen, and call the field engineer.");
    s.words(&format!("The machine starts again in {} seconds. Press the power button to switch it off.", wait.as_secs()));
    s.text().to_owned()
}

/// Waits a while, or for the power button.
fn wait_or_off(wait: Duration) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let button = power::watch_buttons(std::path::Path::new(boot::SYS));
    let ended = async {
        tokio::select! {
            () = power::pressed(button) => End::PowerOff,
            () = tokio::time::sleep(wait) => End::Restart,
        }
    };
    runtime.map_or(End::Restart, |runtime| runtime.block_on(ended))
}

/// What the appliance says of itself goes to the console, with the seconds since its start.
fn log_to_console() {
    tracing_subscriber::fmt().with_timer(uptime()).with_ansi(false).with_target(false).with_writer(io::stdout).init();
}
