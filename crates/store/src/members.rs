//! Which disks hold all that was acknowledged, by their superblocks and the counter.
//!
//! Promises: a disk below the membership epoch that counts is never current; one on which an
//! epoch was begun on top of it, and never counted, is, however many openings were cut short,
//! each with other disks; a disk that doesn't count decides nothing for those that do.

use hoidla_format::disk::superblock::Superblock;

use crate::{
    open::OpenError,
    options::{Fault, Options},
};

/// How far the numbers of a disk that doesn't count may be above those that do: openings that
/// were cut short, without the others, get it no further. The counter takes some steps, and no more.
const FAR: u64 = 512;

/// What the disks that are here lead to.
pub(crate) struct Members {
    /// Of the newest opening that all current disks took part in.
    pub superblock: Superblock,
    /// The places that hold all that was acknowledged, and all that this opening kept.
    pub current: u64,
    /// Those of them that carry its epoch: only their catalogues say no more than all hold.
    pub own: u64,
    /// Those that are to be rebuilt.
    pub stale: u64,
    /// No number is above these on any of all those disks.
    pub highest: Highest,
}

/// The highest numbers on some disks.
#[derive(Clone, Copy)]
pub(crate) struct Highest {
    pub membership: u64,
    pub run: u64,
    pub sequence: u64,
}

impl Highest {
    fn of<'a>(superblocks: impl Iterator<Item = &'a Superblock> + Clone) -> Self {
        let most = |number: fn(&Superblock) -> u64| superblocks.clone().map(number).max().unwrap_or(0);
        Self { membership: most(|s| s.membership), run: most(|s| s.run), sequence: most(|s| s.sequence) }
    }

    fn is_far_below(&self, s: &Superblock) -> bool {
        [(self.membership, s.membership), (self.run, s.run), (self.sequence, s.sequence)]
            .iter()
            .any(|(here, there)| there.saturating_sub(*here) > FAR)
    }
}

/// Judges the disks that are here, where the membership counter stands at `counted`; 0 on a
/// machine that never saw the store, such as one at home after the appliance died.
pub(crate) fn judge(present: &[&Superblock], counted: u64, options: &Options) -> Result<Members, OpenError> {
    let superblock = newest_that_counts(present, counted, options)?;
    let those = |accept: &dyn Fn(&Superblock) -> bool| present.iter().filter(|s| accept(s)).fold(0u64, |mask, s| mask | 1 << s.place);
    let own = those(&|s| s.membership == superblock.membership && s.is_member());
    let mut current = own | those(&|s| is_as_good(s, &superblock, counted) || is_believed(s, options));
    if counted == 0 && superblock.geometry.loses(superblock.members, current) {
        // Members that don't carry its epoch: it never counted, as it is written to all before.
        current |= those(&|s| is_as_good(s, &superblock, superblock.base));
    }
    let is_current = |s: &&&Superblock| current >> s.place & 1 == 1;
    let counts = Highest::of(present.iter().filter(is_current).copied());
    let near = || present.iter().filter(|s| is_current(s) || !counts.is_far_below(s)).copied();
    let stale = near().fold(0, |mask, s| mask | 1 << s.place) & !current;
    Ok(Members { superblock, current, own, stale, highest: Highest::of(near()) })
}

/// The superblock of those disks that hold all that was acknowledged, by the counter.
fn newest_that_counts(present: &[&Superblock], counted: u64, options: &Options) -> Result<Superblock, OpenError> {
    let highest = present.iter().map(|s| s.membership).max().ok_or(OpenError::Count(0))?;
    let newest = |accept: &dyn Fn(&Superblock) -> bool| {
        present.iter().filter(|s| s.is_member() && accept(s)).max_by_key(|s| (s.membership, s.sequence)).map(|s| (*s).clone())
    };
    if counted == 0 || options.faulty(Fault::TrustStaleDisk) {
        return newest(&|_| true).ok_or(OpenError::Stale { found: highest, wanted: counted });
    }
    // An epoch that was begun and not counted has acknowledged nothing; it is as good as its base.
    newest(&|s| s.membership == counted)
        .or_else(|| newest(&|s| is_begun(s, counted)))
        .ok_or(OpenError::Stale { found: highest, wanted: counted })
}

/// Whether a disk's membership epoch was begun on top of the one that counts, and doesn't count.
fn is_begun(s: &Superblock, counted: u64) -> bool {
    s.base == counted && s.membership > counted && s.is_member()
}

/// Whether a disk has all that was acknowledged up to the epoch `counted`, and all that the
/// opening of `superblock` kept: it took part in that one, or that one changed nothing since.
fn is_as_good(s: &Superblock, superblock: &Superblock, counted: u64) -> bool {
    let holds = is_begun(s, counted) || (s.membership == counted && s.is_member());
    holds && (superblock.membership == counted || superblock.members >> s.place & 1 == 1)
}

fn is_believed(s: &Superblock, options: &Options) -> bool {
    options.faulty(Fault::TrustStaleDisk) || (options.faulty(Fault::BelieveJoining) && s.membership == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoidla_format::disk::{Geometry, SealKey};

    /// A disk of three with two copies, at an epoch of these members that was begun on `base`.
    fn at(place: u8, membership: u64, base: u64, members: u64) -> Superblock {
        let geometry = Geometry { places: 3, copies: 2, segment_blocks: 64, catalogue_blocks: 16, slots: 20 };
        let (store, key) = ([1; 16], SealKey([2; 32]));
        Superblock { store, key, place, geometry, sequence: 9, membership, base, members, run: 3, run_first: 1, checkpoint: 1, counter: 0 }
    }

    fn current(disks: &[Superblock], counted: u64) -> u64 {
        judge(&disks.iter().collect::<Vec<_>>(), counted, &Options::default()).map_or(0, |m| m.current)
    }

    #[test]
    fn openings_that_were_cut_short_keep_no_disk_out_that_is_needed() {
        let (only_a, b_and_c) = (at(0, 6, 3, 0b011), [at(1, 4, 3, 0b110), at(2, 4, 3, 0b110)]);
        let all = [only_a.clone(), b_and_c[0].clone(), b_and_c[1].clone()];
        assert_eq!(current(&all, 3), 0b011, "b took part in what a began");
        assert_eq!(current(&all[..2], 3), 0b011);
        assert_eq!(current(&b_and_c, 3), 0b110);
        assert_eq!(current(&all, 0), 0b011, "nor at home");
        assert_eq!(current(&all, 6), 0b001, "that epoch counts: b is stale");
        assert_eq!(current(&all, 4), 0b110);
        assert_eq!(current(&[only_a, at(1, 3, 1, 0b111), at(2, 4, 3, 0b110)], 3), 0b111, "one is still at what counts");
    }

    #[test]
    fn a_disk_that_does_not_count_moves_no_number_far() {
        let judged = |stale: Superblock| {
            let disks = [at(0, 6, 3, 0b011), at(1, 6, 3, 0b011), stale];
            let m = judge(&disks.iter().collect::<Vec<_>>(), 6, &Options::default()).unwrap_or_else(|why| panic!("{why}"));
            (m.current, m.stale, m.highest.membership, m.highest.run, m.highest.sequence)
        };
        let stale = at(2, 3, 1, 0b111);
        assert_eq!(judged(stale.clone()), (0b011, 0b100, 6, 3, 9));
        assert_eq!(judged(Superblock { run: 30, ..stale.clone() }), (0b011, 0b100, 6, 30, 9), "it ran by itself");
        assert_eq!(judged(Superblock { run: 1 << 60, ..stale.clone() }), (0b011, 0, 6, 3, 9));
        assert_eq!(judged(Superblock { sequence: 1 << 60, ..stale.clone() }), (0b011, 0, 6, 3, 9));
        assert_eq!(judged(Superblock { membership: 1 << 60, ..stale }), (0b011, 0, 6, 3, 9));
    }
}
