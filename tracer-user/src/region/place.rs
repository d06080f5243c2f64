//! Where sampled folios are mapped. Pure but for the page map.
//!
//! A sample's address is that of its fault. On the tracepoint tier it comes from the folio: the address of the first fault, also after
//! an mremap, and for a copied page of a file the offset in the file. So each is checked against the page map, and what is not where it
//! was said to be is looked for by its frame.

use super::PAGE_BYTES;
use super::maps::{self, Vma};
use super::memory::ReadPages;
use tracer_common::attribution::frame_and_order;

/// Most pages of one process looked through for folios that are elsewhere: 32 MiB of its page map.
const MOST_PAGES: u64 = 4 << 20;
/// Frames of the largest anonymous folio.
const MOST_FRAMES: u64 = 512;

/// A live sample of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Its slot: first frame and order.
    pub slot: u64,
    /// Where it is said to be.
    pub address: u64,
}

/// What became of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// Slot and an address inside of it.
    pub found: Vec<(u64, u64)>,
    /// Freed or moved meanwhile, or mapped by another process only.
    pub missing: Vec<Sampled>,
}

/// Finds the samples of a process in its own mappings.
pub fn place(mut samples: Vec<Sampled>, vmas: &[Vma], pages: &mut dyn ReadPages) -> Placing {
    // In the order of addresses, so that the page map is read once.
    samples.sort_unstable_by_key(|sample| sample.address);
    let all = samples.len();
    let mut placing = Placing { found: Vec::with_capacity(all), missing: Vec::new() };
    for sample in samples {
        match at_its_address(sample, pages) {
            Some(address) => placing.found.push((sample.slot, address)),
            None => placing.missing.push(sample),
        }
    }
    // Copied pages of files, and the first ones of the main stack, which exec moves: few mappings. All others only if many samples are
    // missing.
    placing.missing.sort_unstable_by_key(|sample| sample.slot);
    let mut left = MOST_PAGES;
    look_through(vmas, is_moved, &mut placing, &mut left, pages);
    if placing.missing.len() > all / 100 {
        look_through(vmas, |vma| !is_moved(vma), &mut placing, &mut left, pages);
    }
    placing
}

/// Takes those samples out that this process maps, though another touched them: at the same address, as after a fork.
pub fn take_shared(samples: &mut Vec<Sampled>, vmas: &[Vma], pages: &mut dyn ReadPages) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    samples.retain(|sample| {
        let is_private = maps::index_at(vmas, sample.address).is_some_and(|index| !vmas[index].shared);
        let address = if is_private { at_its_address(*sample, pages) } else { None };
        found.extend(address.map(|address| (sample.slot, address)));
        address.is_none()
    });
    found
}

/// Memory whose first address says another place.
fn is_moved(vma: &Vma) -> bool {
    vma.inode != 0 || *vma.name == *b"[stack]"
}

fn at_its_address(sample: Sampled, pages: &mut dyn ReadPages) -> Option<u64> {
    let (first, order) = frame_and_order(sample.slot);
    let frames = 1_u64.checked_shl(order).unwrap_or(MOST_FRAMES).min(MOST_FRAMES);
    // Its first pages may have been unmapped or copied since.
    (0..frames).find_map(|n| {
        let address = sample.address.checked_add(n * PAGE_BYTES)?;
        let entry = pages.page(address)?;
        // A page in swap whose folio is still charged has no frame there any more.
        let is_there = entry.is_present() && !entry.is_file() && entry.frame().is_none_or(|frame| frame == first + n);
        (is_there || entry.is_swapped()).then_some(address)
    })
}

/// Looks for the frames of what is missing, which is sorted by slot, in private mappings with anonymous memory.
fn look_through(vmas: &[Vma], chosen: impl Fn(&Vma) -> bool, placing: &mut Placing, left: &mut u64, pages: &mut dyn ReadPages) {
    for vma in vmas.iter().filter(|vma| !vma.shared && chosen(vma) && vma.anonymous.map_or(!vma.is_inaccessible(), |bytes| bytes > 0)) {
        let mut address = vma.start;
        while address < vma.end && *left > 0 && !placing.missing.is_empty() {
            *left -= 1;
            if let Some(frame) = pages.page(address).filter(|entry| !entry.is_file()).and_then(|entry| entry.frame())
                && let Some(index) = holder(&placing.missing, frame)
            {
                placing.found.push((placing.missing.remove(index).slot, address));
            }
            address += PAGE_BYTES;
        }
    }
}

/// The sample that a frame belongs to.
fn holder(sorted: &[Sampled], frame: u64) -> Option<usize> {
    // Of one first frame there can be several orders; a larger one may stand before a smaller one inside of it.
    let after = sorted.partition_point(|sample| frame_and_order(sample.slot).0 <= frame);
    let from = after.saturating_sub(MOST_FRAMES as usize);
    (from..after).rev().find(|&index| {
        let (first, order) = frame_and_order(sorted[index].slot);
        frame - first < 1_u64.checked_shl(order).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::memory::PageEntry;
    use std::collections::HashMap;
    use tracer_common::attribution::sample_slot;

    const PRESENT: u64 = 1 << 63;
    const FILE: u64 = 1 << 61;

    struct Pages(HashMap<u64, u64>);

    impl ReadPages for Pages {
        fn page(&mut self, address: u64) -> Option<PageEntry> {
            Some(PageEntry(self.0.get(&(address / PAGE_BYTES)).copied().unwrap_or(0)))
        }
    }

    fn found(samples: Vec<Sampled>, vmas: &[Vma], pages: &mut Pages) -> Vec<(u64, u64)> {
        place(samples, vmas, pages).found
    }

    fn private(start: u64, end: u64, inode: u64) -> Vma {
        Vma { start, end, read: true, write: true, inode, ..Vma::default() }
    }

    #[test]
    fn what_is_where_it_was_said_to_be() {
        let mut pages = Pages(HashMap::from([(0x10, PRESENT | 700), (0x11, PRESENT | 701)]));
        let sampled = |frame, order, address| Sampled { slot: sample_slot(frame, order), address };
        assert_eq!(found(vec![sampled(700, 0, 0x10000)], &[], &mut pages), [(sample_slot(700, 0), 0x10000)]);
        // Another frame is there now; the file's own page; nothing.
        assert_eq!(found(vec![sampled(701, 0, 0x10000), sampled(5, 0, 0x50000)], &[], &mut pages), []);
        pages.0.insert(0x10, PRESENT | FILE | 700);
        assert_eq!(found(vec![sampled(700, 0, 0x10000)], &[], &mut pages), []);
        // A huge page with its first piece gone.
        pages.0 = (1..512).map(|n| (0x200 + n, PRESENT | (1024 + n))).collect();
        assert_eq!(found(vec![sampled(1024, 9, 0x20_0000)], &[], &mut pages), [(sample_slot(1024, 9), 0x20_1000)]);
    }

    #[test]
    fn what_moved_is_found_by_its_frame() {
        // A file's page copied: its address is said to be the offset. And a block that mremap moved.
        let vmas = [private(0x7000_0000, 0x7000_4000, 9), private(0x8000_0000, 0x8010_0000, 0)];
        let mut pages = Pages(HashMap::from([(0x70002, PRESENT | 42), (0x80010, PRESENT | 513)]));
        let samples =
            vec![Sampled { slot: sample_slot(42, 0), address: 0x3000 }, Sampled { slot: sample_slot(512, 1), address: 0x9000_0000 }];
        let mut found = found(samples, &vmas, &mut pages);
        found.sort_unstable();
        assert_eq!(found, [(sample_slot(42, 0), 0x7000_2000), (sample_slot(512, 1), 0x8001_0000)]);
    }

    #[test]
    fn what_a_parent_touched_is_found_in_its_child() {
        let vmas = [private(0x10000, 0x12000, 0)];
        let mut pages = Pages(HashMap::from([(0x10, PRESENT | 700), (0x11, PRESENT | 9), (0x20, PRESENT | 701)]));
        let sampled = |frame, address| Sampled { slot: sample_slot(frame, 0), address };
        // The child's own page is at the second address by now; at the third nothing is mapped.
        let mut samples = vec![sampled(700, 0x10000), sampled(8, 0x11000), sampled(701, 0x20000)];
        assert_eq!(take_shared(&mut samples, &vmas, &mut pages), [(sample_slot(700, 0), 0x10000)]);
        assert_eq!(samples, [sampled(8, 0x11000), sampled(701, 0x20000)]);
    }

    #[test]
    fn a_kernel_that_hides_frames_is_believed() {
        let mut pages = Pages(HashMap::from([(0x10, PRESENT)]));
        let sample = Sampled { slot: sample_slot(700, 0), address: 0x10000 };
        assert_eq!(found(vec![sample], &[], &mut pages).len(), 1);
        assert_eq!(found(vec![Sampled { address: 0x11000, ..sample }], &[], &mut pages).len(), 0);
        pages.0.insert(0x11, 1 << 62);
        assert_eq!(found(vec![Sampled { address: 0x11000, ..sample }], &[], &mut pages).len(), 1, "in swap");
    }
}
