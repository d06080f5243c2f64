//! How much of malloc's arenas is free blocks: memory that the program gave back and glibc keeps.
//!
//! Follows the blocks of a heap from the first to the last by their sizes (malloc/malloc.c, `struct malloc_chunk`; unchanged since 2.17).
//! A block is free if the next one says that the one before it is not in use; the last one, the top, is free. Blocks in a thread's own
//! cache and in fast bins count as used, so the figure is a lower bound. The program runs meanwhile: a heap whose blocks do not lead to
//! its very end is passed over. Only resident bytes count. Pure but for the words it asks for.

use super::PAGE_BYTES;
use super::glibc::{Heap, Layout};
use super::memory::{PageEntry, ReadMemory, ReadPages};

/// Most bytes of heaps looked through in one process.
const MOST_BYTES: u64 = 256 << 20;
/// Every block is at least that large, and a multiple of 16.
const LEAST_BLOCK_BYTES: u64 = 32;
const PREVIOUS_IN_USE: u64 = 1;
const FLAGS: u64 = 7;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Resident bytes of free blocks.
    pub free: u64,
    /// Resident bytes of the heaps that were looked through.
    pub looked_through: u64,
}

/// Free blocks in the heaps; `None` if none could be followed. Larger processes are looked at in part, evenly over their heaps.
pub fn free_blocks<M: ReadMemory + ReadPages>(memory: &mut M, heaps: &[Heap], layout: Layout) -> Option<Free> {
    if layout.word != 8 {
        return None;
    }
    let committed: u64 = heaps.iter().map(|heap| heap.committed).sum();
    let step = usize::try_from(committed.div_ceil(MOST_BYTES).max(1)).unwrap_or(usize::MAX);
    let mut sum = Free::default();
    for heap in heaps.iter().step_by(step) {
        if let Some(found) = in_heap(memory, heap, layout) {
            sum.free += found.free;
            sum.looked_through += found.looked_through;
        }
    }
    (sum.looked_through > 0).then_some(sum)
}

fn in_heap<M: ReadMemory + ReadPages>(memory: &mut M, heap: &Heap, layout: Layout) -> Option<Free> {
    let (arena, end) = (heap.arena?, heap.base + heap.used?);
    let first_heap = arena & !(layout.heap_max - 1);
    let free = if heap.base == first_heap {
        // Behind the arena, whose size differs by version: 0x8a0 bytes in 2.26 to 2.41.
        let starts = (0x400..0x980).step_by(16).map(|offset: u64| arena + offset);
        starts.filter(|start| start % 16 == 0).find_map(|start| follow(memory, start, end))?
    } else {
        // Behind heap_info, which in the first heap ends where the arena begins.
        follow(memory, heap.base + (arena - first_heap), end)?
    };
    let pages = (heap.base..end).step_by(PAGE_BYTES as usize);
    let looked_through = pages.filter(|page| is_resident(memory, *page)).count() as u64 * PAGE_BYTES;
    Some(Free { free, looked_through })
}

/// Resident bytes of free blocks from the block at `start` to the heap's end; `None` if they do not lead there.
fn follow<M: ReadMemory + ReadPages>(memory: &mut M, start: u64, end: u64) -> Option<u64> {
    let mut page = Page { number: u64::MAX, bytes: [0; PAGE_BYTES as usize] };
    let mut free = 0;
    let mut at = start;
    let mut size = page.size_at(memory, at)?;
    if size & PREVIOUS_IN_USE == 0 {
        return None;
    }
    loop {
        let bytes = size & !FLAGS;
        if bytes == 0 {
            // The fence that stands where a heap was left for the next one.
            return (at + 16 == end).then_some(free);
        }
        let next = at.checked_add(bytes)?;
        let is_fence = bytes == 16 && next + 16 == end;
        if (bytes < LEAST_BLOCK_BYTES && !is_fence) || !bytes.is_multiple_of(16) || next > end {
            return None;
        }
        if next == end {
            return Some(free + resident(memory, at, next));
        }
        let following = page.size_at(memory, next)?;
        if following & PREVIOUS_IN_USE == 0 {
            free += resident(memory, at, next);
        }
        (at, size) = (next, following);
    }
}

/// The page last read.
struct Page {
    number: u64,
    bytes: [u8; PAGE_BYTES as usize],
}

impl Page {
    /// Size and flags of the block at an address.
    fn size_at(&mut self, memory: &mut impl ReadMemory, block: u64) -> Option<u64> {
        let address = block.checked_add(8)?;
        if address / PAGE_BYTES != self.number {
            self.number = u64::MAX;
            if !memory.read(address & !(PAGE_BYTES - 1), &mut self.bytes) {
                return None;
            }
            self.number = address / PAGE_BYTES;
        }
        let at = (address % PAGE_BYTES) as usize;
        Some(u64::from_le_bytes(self.bytes.get(at..at + 8)?.try_into().ok()?))
    }
}

fn is_resident(memory: &mut impl ReadPages, address: u64) -> bool {
    memory.page(address).is_some_and(PageEntry::is_present)
}

/// Resident bytes of a range.
fn resident(memory: &mut impl ReadPages, start: u64, end: u64) -> u64 {
    let mut sum = 0;
    let mut at = start;
    while at < end {
        let next = ((at / PAGE_BYTES + 1) * PAGE_BYTES).min(end);
        sum += if is_resident(memory, at) { next - at } else { 0 };
        at = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::classify::tests::Words;

    const BASE: u64 = 0x7f00_0000_0000;
    const USED: u64 = 0x21000;

    fn heap(words: &mut Words) -> Heap {
        words.present(BASE, 0x8000);
        Heap { base: BASE, committed: USED, arena: Some(BASE + 0x30), used: Some(USED) }
    }

    fn sizes(words: &mut Words, mut at: u64, blocks: &[u64]) -> u64 {
        for size in blocks {
            words.set(at + 8, *size);
            at += size & !FLAGS;
        }
        at
    }

    #[test]
    fn a_first_heap_with_its_top() {
        let mut words = Words::default();
        let heap = heap(&mut words);
        let start = BASE + 0x8d0;
        // Used, free, used, and the top with the rest.
        let top = sizes(&mut words, start, &[0x100 | 5, 0x1000 | 1, 0x730 | 4]);
        words.set(top + 8, (BASE + USED - top) | 1);
        let free = free_blocks(&mut words, &[heap], Layout::default()).unwrap();
        // Of the top only what is resident.
        assert_eq!(free, Free { free: 0x1000 + BASE + 0x8000 - top, looked_through: 0x8000 });
        words.set(start + 8, 0x110 | 5);
        assert_eq!(free_blocks(&mut words, &[heap], Layout::default()), None, "the blocks lead elsewhere");
    }

    #[test]
    fn a_later_heap_with_its_fence() {
        let mut words = Words::default();
        let second = BASE + (64 << 20);
        words.present(second, USED);
        let heap = Heap { base: second, committed: USED, arena: Some(BASE + 0x30), used: Some(USED) };
        let fence = second + USED - 32;
        let last = sizes(&mut words, second + 0x30, &[0x1000 | 5]);
        words.set(last + 8, (fence - last) | 1);
        words.set(fence + 8, 16);
        words.set(fence + 24, 1);
        let free = free_blocks(&mut words, &[heap], Layout::default()).unwrap();
        assert_eq!(free, Free { free: fence - last, looked_through: USED });
        words.set(fence + 24, 33);
        assert_eq!(free_blocks(&mut words, &[heap], Layout::default()), None);
    }

    #[test]
    fn hostile_sizes_end_it() {
        for size in [0, 1, 16 | 1, 24 | 1, u64::MAX, !FLAGS | 1, 40 | 1, (USED * 2) | 1] {
            let mut words = Words::default();
            let heap = heap(&mut words);
            (0x400..0x1000).step_by(16).for_each(|offset| words.set(BASE + offset + 8, size));
            assert_eq!(free_blocks(&mut words, &[heap], Layout::default()), None, "{size:x}");
        }
    }
}
