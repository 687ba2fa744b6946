//! Which disks a reference to stored bytes means.
//!
//! Promises: the very disks that counted when it was made. Whatever disk takes the tray of one
//! since is neither believed nor called checked, even if it counts by then.

use std::sync::{Arc, Weak};

use hoidla_format::disk::{Geometry, SealKey, superblock::Superblock};

use crate::device::{Disk, Disks};

/// The disks that count, and what is needed to read them. A clone means the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub geometry: Geometry,
    pub key: SealKey,
    /// By place; none where the disk doesn't count.
    disks: Arc<Vec<Option<Weak<dyn Disk>>>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.disks, &other.disks)
    }
}

impl Eq for Source {}

impl Source {
    /// Those of `disks` whose places are in `current`.
    pub fn new(superblock: &Superblock, disks: &Disks, current: u64) -> Self {
        let counting = (0..).zip(disks).map(|(place, d)| d.as_ref().filter(|_| current >> place & 1 == 1).map(Arc::downgrade));
        Self { geometry: superblock.geometry, key: superblock.key, disks: Arc::new(counting.collect()) }
    }

    /// The places at which those disks are still among `disks`.
    pub fn places(&self, disks: &Disks) -> u64 {
        let here = |place: usize, meant: &Weak<dyn Disk>| {
            disks.get(place).and_then(Option::as_ref).is_some_and(|d| std::ptr::addr_eq(Arc::as_ptr(d), meant.as_ptr()))
        };
        let meant = self.disks.iter().enumerate().filter_map(|(place, d)| Some((place, d.as_ref()?)));
        meant.filter(|(place, d)| here(*place, d)).fold(0, |mask, (place, _)| mask | 1 << place)
    }
}
