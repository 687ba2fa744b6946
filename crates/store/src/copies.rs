//! The copies of a store, side by side: reading from whichever is good, repairing
//! the others.
//!
//! Promises: bytes are used or copied only when their hash has been checked; a batch
//! whose parts are good on different copies is put together from them; damage on every
//! copy is said and left as it is.

use std::sync::Arc;

use hoidla_format::{
    Hash32,
    disk::{
        BLOCK, Geometry, SealKey,
        batch::{Head, LARGE, may_begin},
        blocks, check_seal,
        segment::SegmentHeader,
    },
};

use crate::{
    device::{Disk, DiskNo, Disks, MOST_BUFFER, Pool},
    read::{Checked, ReadError, SegmentRef},
};

pub(crate) struct Copies<P: Pool> {
    pub pool: Arc<P>,
    disks: Vec<(DiskNo, Arc<dyn Disk>)>,
    pub geometry: Geometry,
    key: SealKey,
    /// The disks whose heads count: a stale disk may hold what was cut since. Records are
    /// welcome from any disk: a head that counts holds their hashes.
    trusted: u64,
    /// A disk that is being rebuilt: for its sake one that takes no repair is noted, and no error.
    target: Option<DiskNo>,
}

/// One copy of a segment: the disk that holds it, and its first block there.
#[derive(Clone, Copy)]
pub(crate) struct Copy<'a> {
    pub no: DiskNo,
    disk: &'a dyn Disk,
    first: u64,
}

impl Copy<'_> {
    fn at(&self, block: u32) -> u64 {
        (self.first + u64::from(block)) * BLOCK as u64
    }

    pub fn write(&self, block: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.write(self.at(block), bytes)
    }
}

/// A batch that some copy holds in its place of the chain.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub slot: u32,
    pub block: u32,
    pub head: Head,
    pub hash: Hash32,
    /// Whether every copy has this head.
    pub everywhere: bool,
}

impl<P: Pool> Copies<P> {
    pub fn new(pool: Arc<P>, disks: &Disks, mask: u64, geometry: Geometry, key: SealKey) -> Self {
        let disks = (0..).zip(disks).filter(|(i, _)| mask >> i & 1 == 1).filter_map(|(i, d)| Some((i as DiskNo, d.clone()?))).collect();
        Self { pool, disks, geometry, key, trusted: mask, target: None }
    }

    /// The same with a disk that is to be made whole and is not believed.
    pub fn with_target(mut self, disks: &Disks, target: DiskNo) -> Self {
        let target_alone = Self::new(self.pool.clone(), disks, 1 << target, self.geometry, self.key).disks;
        self.disks.extend(target_alone);
        self.target = Some(target);
        self
    }

    /// The places of these disks.
    pub fn places(&self) -> u64 {
        self.disks.iter().fold(0, |mask, d| mask | 1 << d.0)
    }

    fn is_trusted(&self, disk: DiskNo) -> bool {
        self.trusted >> disk & 1 == 1
    }

    /// The copies of a segment.
    pub fn of(&self, slot: u32) -> impl Iterator<Item = Copy<'_>> {
        self.disks.iter().filter_map(move |(no, disk)| Some(Copy { no: *no, disk: &**disk, first: self.geometry.segment_at(slot, *no)? }))
    }

    /// Reads whole blocks; none if the disk doesn't give them.
    pub fn read(&self, copy: &Copy<'_>, block: u32, count: usize) -> Result<Option<P::Buffer>, ReadError> {
        let fits = block as usize + count <= self.geometry.segment_blocks as usize && count * BLOCK <= MOST_BUFFER;
        if !fits {
            return Ok(None);
        }
        let mut buffer = self.pool.take(count * BLOCK).ok_or(ReadError::Busy)?;
        let read = copy.disk.read(copy.at(block), &mut buffer.as_mut()[..count * BLOCK]);
        Ok(read.is_ok().then_some(buffer))
    }

    /// A valid head at a place of one copy.
    pub fn head(&self, copy: &Copy<'_>, block: u32) -> Result<Option<(Head, Hash32)>, ReadError> {
        let Some(first) = self.read(copy, block, 1)? else { return Ok(None) };
        let Ok(len) = Head::peek(&first.as_ref()[..BLOCK]) else { return Ok(None) };
        let whole = if len <= BLOCK { Some(first) } else { self.read(copy, block, blocks(len))? };
        let head = whole.and_then(|b| Head::read(&b.as_ref()[..blocks(len) * BLOCK], &self.key).ok());
        Ok(head.filter(|(h, _)| u64::from(block) + u64::from(h.blocks()) <= u64::from(self.geometry.segment_blocks)))
    }

    /// The batch at a place that `accept` takes, from any copy. Of a later run, if copies differ: what
    /// an earlier one wrote there was cut, and is still there if the write over it was lost.
    pub fn batch(&self, slot: u32, block: u32, accept: impl Fn(&Head) -> bool) -> Result<Option<Batch>, ReadError> {
        let mut found: Option<Batch> = None;
        let mut missing = false;
        for copy in self.of(slot) {
            match (self.head(&copy, block)?.filter(|(h, _)| accept(h)), &found) {
                (Some((head, hash)), None) if self.is_trusted(copy.no) => found = Some(Batch { slot, block, head, hash, everywhere: true }),
                (Some((head, hash)), Some(f)) if head.run > f.head.run && self.is_trusted(copy.no) => {
                    found = Some(Batch { slot, block, head, hash, everywhere: true });
                    missing = true;
                }
                (Some((_, hash)), Some(f)) if hash == f.hash => {}
                _ => missing = true,
            }
        }
        Ok(found.map(|f| Batch { everywhere: !missing, ..f }))
    }

    /// The first batch in `from .. to` that any copy holds and `accept` takes.
    pub fn later(&self, slot: u32, from: u32, to: u32, accept: impl Fn(&Head) -> bool) -> Result<Option<Batch>, ReadError> {
        let step = MOST_BUFFER / BLOCK;
        let mut chunk = from;
        while chunk < to {
            let count = step.min((to - chunk) as usize);
            let mut maybe = vec![false; count];
            for copy in self.of(slot) {
                let Some(buffer) = self.read(&copy, chunk, count)? else { continue };
                for (m, block) in maybe.iter_mut().zip(buffer.as_ref().chunks_exact(BLOCK)) {
                    *m |= may_begin(block);
                }
            }
            for at in (0..count).filter(|i| maybe[*i]) {
                if let Some(found) = self.batch(slot, chunk + at as u32, &accept)? {
                    return Ok(Some(found));
                }
            }
            chunk += count as u32;
        }
        Ok(None)
    }

    /// A segment's header that `accept` takes, from any copy; and whether all have it.
    pub fn header(&self, slot: u32, accept: impl Fn(&SegmentHeader) -> bool) -> Result<Option<(SegmentHeader, Hash32, bool)>, ReadError> {
        let mut found: Option<(SegmentHeader, Hash32)> = None;
        let mut missing = false;
        for copy in self.of(slot) {
            let block = self.read(&copy, 0, 1)?;
            let block = block.as_ref().and_then(|b| b.as_ref().first_chunk::<BLOCK>());
            let header = block.and_then(|b| SegmentHeader::from_block(b).ok()).filter(|(h, _)| h.slot == slot && accept(h));
            match (header, &found) {
                (Some(h), None) if self.is_trusted(copy.no) => found = Some(h),
                // Of a slot that was taken into use again only one copy may know.
                (Some(h), Some(f)) if h.0.incarnation > f.0.incarnation && self.is_trusted(copy.no) => {
                    found = Some(h);
                    missing = true;
                }
                (Some(h), Some(f)) if h.1 == f.1 => {}
                _ => missing = true,
            }
        }
        Ok(found.map(|(h, hash)| (h, hash, !missing)))
    }

    /// Writes a segment's header to every copy that lacks it.
    pub fn repair_header(&self, header: &SegmentHeader, out: &mut Checked) -> Result<(), ReadError> {
        let (block, hash) = header.to_block();
        for copy in self.of(header.slot) {
            let found = self.read(&copy, 0, 1)?;
            if found.is_some_and(|b| check_seal(&b.as_ref()[..BLOCK]) == Ok(hash)) {
                continue;
            }
            let mut buffer = self.pool.take(BLOCK).ok_or(ReadError::Busy)?;
            buffer.as_mut()[..BLOCK].copy_from_slice(&block);
            let what = format!("disk {}, segment {}: header", copy.no, header.slot);
            self.rewrite(&copy, 0, &buffer.as_ref()[..BLOCK], what, out)?;
        }
        Ok(())
    }

    /// Checks a batch on every copy; what is bad on one is written anew from another.
    pub fn reconcile(&self, batch: &Batch, out: &mut Checked) -> Result<(), ReadError> {
        let places = batch.head.places();
        self.reconcile_front(batch, &places, out)?;
        for (entry, place) in batch.head.records().zip(&places).filter(|(e, _)| e.len >= LARGE) {
            out.records += 1;
            let (block, count, len) = (batch.block + (place / BLOCK) as u32, blocks(entry.len as usize), entry.len as usize);
            let mut copies = Vec::new();
            for copy in self.of(batch.slot) {
                let buffer = self.read(&copy, block, count)?;
                out.bytes += (count * BLOCK) as u64;
                let good = buffer.as_ref().is_some_and(|b| {
                    let (record, rest) = b.as_ref()[..count * BLOCK].split_at(len);
                    blake3::hash(record).as_bytes() == &entry.hash.0 && rest.iter().all(|b| *b == 0)
                });
                copies.push((copy, buffer.filter(|_| good)));
            }
            let Some(good) = copies.iter().find_map(|c| c.1.as_ref()) else {
                out.damage.push(format!("segment {}, block {block}: a record of {len} bytes is damaged on every copy", batch.slot));
                continue;
            };
            for (copy, _) in copies.iter().filter(|c| c.1.is_none()) {
                let what = format!("disk {}, segment {}, block {block}: a record of {len} bytes", copy.no, batch.slot);
                self.rewrite(copy, block, &good.as_ref()[..count * BLOCK], what, out)?;
            }
        }
        Ok(())
    }

    fn reconcile_front(&self, batch: &Batch, places: &[usize], out: &mut Checked) -> Result<(), ReadError> {
        let (head, hash) = batch.head.to_bytes(&self.key);
        debug_assert_eq!(hash, batch.hash);
        let count = blocks(batch.head.front_len());
        let mut whole = self.pool.take(count * BLOCK).ok_or(ReadError::Busy)?;
        let merged = &mut whole.as_mut()[..count * BLOCK];
        merged.fill(0);
        merged[..head.len()].copy_from_slice(&head);
        let mut copies = Vec::new();
        for copy in self.of(batch.slot) {
            copies.push((copy, self.read(&copy, batch.block, count)?));
            out.bytes += (count * BLOCK) as u64;
        }
        let mut damaged = Vec::new();
        for (entry, place) in batch.head.records().zip(places).filter(|(e, _)| e.len < LARGE) {
            out.records += 1;
            let range = *place..place + entry.len as usize;
            let ranges = copies.iter().filter_map(|c| c.1.as_ref()).map(|b| &b.as_ref()[range.clone()]);
            match ranges.into_iter().find(|r| blake3::hash(r).as_bytes() == &entry.hash.0) {
                Some(good) => merged[range].copy_from_slice(good),
                None => damaged.push(range),
            }
        }
        if !damaged.is_empty() {
            let (slot, block) = (batch.slot, batch.block);
            out.damage.push(format!("segment {slot}, block {block}: {} small records are damaged on every copy", damaged.len()));
        }
        for (copy, read) in &copies {
            // Each copy keeps its own bytes of what is lost, and one that can't be read is left as it is:
            // all that is still good gets to every copy, and nothing that might be is written over.
            // On a disk that is being rebuilt there is nothing to lose.
            match read {
                Some(own) => damaged.iter().for_each(|lost| merged[lost.clone()].copy_from_slice(&own.as_ref()[lost.clone()])),
                None if !damaged.is_empty() && self.target != Some(copy.no) => continue,
                None => {}
            }
            if read.as_ref().is_none_or(|b| b.as_ref()[..count * BLOCK] != *merged) {
                let what = format!("disk {}, segment {}, block {}: head and small records", copy.no, batch.slot, batch.block);
                self.rewrite(copy, batch.block, merged, what, out)?;
            }
        }
        Ok(())
    }

    /// Checks every byte of a segment on every copy, and repairs. Doesn't flush: an error
    /// of a flush is told once, and must be told to whoever waits for its own writes.
    pub fn check(&self, segment: &SegmentRef) -> Result<Checked, ReadError> {
        let mut out = Checked::default();
        self.each_batch(segment, &mut out, |batch, out| self.reconcile(batch, out))?;
        Ok(out)
    }

    /// Goes through a segment's batches in order, over damage, header first.
    pub fn each_batch(
        &self,
        segment: &SegmentRef,
        out: &mut Checked,
        mut f: impl FnMut(&Batch, &mut Checked) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (slot, incarnation) = (segment.slot, segment.incarnation);
        let ours = |h: &SegmentHeader| h.store == segment.store && h.incarnation == incarnation;
        let mut previous = match self.header(slot, ours)? {
            Some((header, hash, everywhere)) => {
                if !everywhere {
                    self.repair_header(&header, out)?;
                }
                Some(hash)
            }
            None => {
                out.damage.push(format!("segment {slot}: its header is damaged on every copy"));
                None
            }
        };
        let (mut block, mut number) = (1, 0);
        while block < segment.end {
            let here = |h: &Head| h.incarnation == incarnation && h.number == number && previous.is_none_or(|p| p == h.previous);
            let batch = match self.batch(slot, block, here)? {
                Some(batch) => batch,
                None => {
                    out.damage.push(format!("segment {slot}, block {block}: a batch is damaged on every copy"));
                    let after = |h: &Head| h.incarnation == incarnation && h.number > number;
                    match self.later(slot, block + 1, segment.end, after)? {
                        Some(batch) => batch,
                        None => return Ok(()),
                    }
                }
            };
            f(&batch, out)?;
            previous = Some(batch.hash);
            number = batch.head.number + 1;
            block = batch.block + batch.head.blocks();
        }
        Ok(())
    }

    fn rewrite(&self, copy: &Copy<'_>, block: u32, bytes: &[u8], what: String, out: &mut Checked) -> Result<(), ReadError> {
        match copy.write(block, bytes) {
            Ok(()) => out.repaired.push(what),
            Err(why) if self.target.is_some_and(|target| target != copy.no) => out.unrepaired.push((copy.no, format!("{what}: {why}"))),
            Err(why) => return Err(ReadError::Repair { disk: copy.no, what, why: why.to_string() }),
        }
        Ok(())
    }

    pub fn flush_all(&self) -> Result<(), ReadError> {
        for (no, disk) in &self.disks {
            disk.flush().map_err(|e| ReadError::Repair {
                disk: *no,
                what: format!("disk {no}: flush after repair"),
                why: e.to_string(),
            })?;
        }
        Ok(())
    }
}
