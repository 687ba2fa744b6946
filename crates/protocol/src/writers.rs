//! Who writes a stream: one connection at a time.
//!
//! Promises: from the moment that a connection takes a stream, no earlier one may begin
//! another append to it; the new one is let in only when all that the earlier ones had
//! begun is settled, so that what it is told of the stream stays true; a new one that
//! gives up leaves the stream to the one before.

use std::{collections::HashMap, hash::Hash};

use crate::fault::{Fault, Faulty};

/// Names one writer's hold on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold(u64);

#[derive(Debug)]
struct Writer {
    hold: Hold,
    under_way: usize,
    /// It begins nothing more, and is forgotten when all is settled.
    left: bool,
}

/// The writers of all streams, by whatever names a stream.
#[derive(Debug)]
pub struct Writers<K> {
    /// Of each stream, in the order in which they came: the last one writes.
    streams: HashMap<K, Vec<Writer>>,
    next: u64,
    faulty: Faulty,
}

impl<K: Clone + Eq + Hash> Default for Writers<K> {
    fn default() -> Self {
        Self::new(Faulty::default())
    }
}

impl<K: Clone + Eq + Hash> Writers<K> {
    /// None yet.
    pub fn new(faulty: Faulty) -> Self {
        Self { streams: HashMap::new(), next: 0, faulty }
    }

    /// Takes a stream; whoever had it begins nothing more. To be let in, wait until
    /// [`is_free`](Self::is_free).
    pub fn take(&mut self, key: K) -> Hold {
        self.next += 1;
        let hold = Hold(self.next);
        self.streams.entry(key).or_default().push(Writer { hold, under_way: 0, left: false });
        hold
    }

    /// Whether all that earlier writers had begun is settled.
    pub fn is_free(&self, key: &K, hold: Hold) -> bool {
        let earlier = self.streams.get(key).into_iter().flatten().take_while(|w| w.hold != hold);
        earlier.map(|w| w.under_way).sum::<usize>() == 0 || self.faulty.is(Fault::TakeOverAtOnce)
    }

    /// Begins an append. False: the stream was taken over, and nothing is begun.
    pub fn begin(&mut self, key: &K, hold: Hold) -> bool {
        let Some(writers) = self.streams.get_mut(key) else { return false };
        let newest = writers.last().map(|w| w.hold);
        let Some(writer) = writers.iter_mut().find(|w| w.hold == hold) else { return false };
        if newest != Some(hold) && !self.faulty.is(Fault::StaleWriter) {
            return false;
        }
        writer.under_way += 1;
        true
    }

    /// An append that was begun is settled, whatever became of it.
    pub fn settle(&mut self, key: &K, hold: Hold) {
        self.change(key, hold, |w| w.under_way = w.under_way.saturating_sub(1));
    }

    /// A writer is done, or gives up waiting.
    pub fn leave(&mut self, key: &K, hold: Hold) {
        self.change(key, hold, |w| w.left = true);
    }

    fn change(&mut self, key: &K, hold: Hold, change: impl FnOnce(&mut Writer)) {
        let Some(writers) = self.streams.get_mut(key) else { return };
        if let Some(writer) = writers.iter_mut().find(|w| w.hold == hold) {
            change(writer);
        }
        writers.retain(|w| !w.left || w.under_way > 0);
        if writers.is_empty() {
            self.streams.remove(key);
        }
    }

    /// Streams that have a writer.
    pub fn count(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_writer_waits_for_what_the_former_began_and_shuts_it_out() {
        let mut writers = Writers::default();
        let first = writers.take("land");
        assert!(writers.is_free(&"land", first) && writers.begin(&"land", first));
        let second = writers.take("land");
        assert!(!writers.begin(&"land", first), "shut out at once");
        assert!(!writers.is_free(&"land", second), "one append is under way");
        writers.settle(&"land", first);
        assert!(writers.is_free(&"land", second) && writers.begin(&"land", second));
        let other = writers.take("people");
        assert!(writers.is_free(&"people", other), "another stream is no matter");
    }

    #[test]
    fn whoever_gives_up_leaves_the_stream_to_the_one_before() {
        let mut writers = Writers::default();
        let (first, second) = (writers.take("land"), writers.take("land"));
        assert!(!writers.begin(&"land", first));
        writers.leave(&"land", second);
        assert!(writers.begin(&"land", first));
    }

    #[test]
    fn whoever_has_left_still_counts_until_all_of_theirs_is_settled() {
        let mut writers = Writers::default();
        let first = writers.take("land");
        assert!(writers.begin(&"land", first));
        writers.leave(&"land", first);
        let second = writers.take("land");
        assert!(!writers.is_free(&"land", second));
        writers.settle(&"land", first);
        assert!(writers.is_free(&"land", second));
        writers.leave(&"land", second);
        assert_eq!(writers.count(), 0, "nothing is left behind");
        assert!(!writers.begin(&"land", second));
    }
}
