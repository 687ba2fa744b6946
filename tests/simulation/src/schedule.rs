//! One schedule: what a seed makes happen, step by step.

use crate::{
    dice::Dice,
    invariants::{self, Broken},
    plan::Mistake,
    tally::Tally,
    trace::Trace,
    world::World,
};

/// A seed, and which of its steps are played: all of them, but where a failure was made small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The seed.
    pub seed: u64,
    /// The steps played, from 1; none: as many as the seed says.
    pub steps: Option<Vec<u32>>,
}

impl From<u64> for Schedule {
    fn from(seed: u64) -> Self {
        Self { seed, steps: None }
    }
}

/// A broken invariant, and where.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was played, up to the failure.
    pub schedule: Schedule,
    /// The step that broke it; 0 is the opening of the empty store.
    pub step: u32,
    /// The invariant's name.
    pub invariant: &'static str,
    /// How it was broken.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, step {}: `{}` is broken: {}", self.schedule.seed, self.step, self.invariant, self.why)
    }
}

/// What can be done in a step, each with its share of all throws.
type Act = fn(&mut World) -> Result<(), Broken>;
type Acts = &'static [(u64, &'static str, Act)];

/// What happens to the machine, whoever drives it.
const MACHINE: Acts = &[
    (320, "carry out", |w| {
        let n = 1 + w.dice.below(16);
        w.pump(n)
    }),
    (40, "close an epoch", World::close_epoch),
    (50, "power cut", |w| w.crash(true)),
    (30, "program killed", |w| w.crash(false)),
    (25, "rot", World::rot),
    (10, "latent errors", World::lose_sectors),
    (10, "lying disk", World::lie),
    (10, "failing disk", World::break_disk),
    (8, "rewound disk", World::rewind),
    (4, "throttled counter", World::throttle),
    (40, "swap in", World::swap_in),
    (60, "rebuild", World::rebuild),
    (6, "count", World::count),
    (10, "check", World::check_all),
    (20, "rewrite", World::rewrite),
    (10, "verify", |w| {
        w.drain()?;
        w.check_copies()
    }),
    (10, "drain", World::drain),
];

/// The store, driven by itself.
const STORE: Acts = &[
    (400, "submit", World::submit),
    (40, "submit again", World::submit_again),
    (10, "present", |w| {
        w.present()?;
        w.end_early()
    }),
    (20, "loss on every disk", World::lose_everywhere),
];

/// The store, driven by agents over the network.
const AGENTS: Acts = &[
    (300, "seal", World::seal),
    (700, "deliver", World::deliver),
    (60, "agent acts", World::agent_acts),
    (30, "cut line", World::cut_line),
    (30, "call again", World::call_again),
    (20, "agent crashes", World::agent_crashes),
    (20, "agent crashes while it sends", World::agent_crashes_while_it_sends),
    (30, "agent saves", World::agent_saves),
];

/// Plays a schedule.
pub fn play(schedule: &Schedule, mistake: Option<Mistake>, trace: Trace) -> Result<(Tally, Trace), Failure> {
    let mut step = 0;
    let mut played = Vec::new();
    let failed = |step, played, (invariant, why)| {
        let schedule = Schedule { seed: schedule.seed, steps: Some(played) };
        Failure { schedule, step, invariant, why }
    };
    let mut world = World::new(schedule.seed, mistake, trace).map_err(|b| failed(0, Vec::new(), b))?;
    let mut run = || {
        let steps = schedule.steps.clone().unwrap_or_else(|| (1..=world.plan.steps).collect());
        for n in steps {
            step = n;
            played.push(n);
            one_step(&mut world, schedule.seed, n)?;
        }
        the_end(&mut world, schedule.seed)
    };
    match run() {
        Ok(()) => Ok((world.tally, world.trace)),
        Err(broken) => Err(failed(step, played, broken)),
    }
}

fn one_step(world: &mut World, seed: u64, step: u32) -> Result<(), Broken> {
    world.time_passes(seed, step)?;
    world.dice = Dice::new(seed, step);
    let acts = || MACHINE.iter().chain(if world.sessions.is_some() { AGENTS } else { STORE });
    let acts: Vec<_> = acts().collect();
    let mut at = world.dice.below(acts.iter().map(|a| a.0).sum());
    for (share, name, act) in acts {
        if at < *share {
            world.say(|| format!("{step}: {name}"));
            return act(world);
        }
        at -= share;
    }
    unreachable!("the shares make the sum")
}

fn the_end(world: &mut World, seed: u64) -> Result<(), Broken> {
    world.dice = Dice::new(seed, u32::MAX);
    world.say(|| "the end: drain, check, cut the power, check again".into());
    world.drain()?;
    if world.sessions.is_some() {
        world.all_get_through()?;
    }
    world.check_all()?;
    world.crash(true)?;
    world.rebuild_all()?;
    world.check_all()?;
    world.check_copies()?;
    invariants::sealed(&world.disks)?;
    world.rot_at_rest()?;
    world.end_a_generation()?;
    world.put_back()
}
