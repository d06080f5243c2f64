//! What glibc's malloc and threads leave in memory: heaps of arenas, headers of mapped blocks, thread control blocks. Pure but for the
//! words it asks for.
//!
//! From malloc/arena.c, malloc/malloc.c and nptl/descr.h, unchanged in these points from 2.17 to 2.41:
//!
//! - A heap lies at a multiple of HEAP_MAX and begins with `heap_info`: arena, previous heap of the arena (0 in its first), bytes used,
//!   bytes made accessible. In an arena's first heap the arena itself follows. The rest up to HEAP_MAX is reserved without access.
//! - A block of its own mapping begins with 0 and its size, with IS_MMAPPED (2) as the only flag.
//! - A thread's descriptor lies at the top of its stack and begins with its own address; in it stand the stack's start and size side by
//!   side. musl's does too.

use super::PAGE_BYTES;
use super::maps::Vma;
use super::memory::ReadMemory;
use std::collections::HashSet;

/// Most places looked at for a heap: a process can reserve terabytes.
const MOST_CANDIDATES: usize = 65_536;
/// Blocks are mapped from this size on, unless the program asked for less (M_MMAP_THRESHOLD).
const LEAST_MAPPED_BYTES: u64 = 128 << 10;
/// Most pages looked at for the next block's header behind memory that is none: two stacks of the usual size, which kernels before 6.7 put right
/// below a block.
const MOST_STEPS: u32 = 4096;
/// The smallest stack that pthread_attr_setstacksize allows.
const LEAST_STACK_BYTES: u64 = 16 << 10;
/// A thread's descriptor ends this far below the top, at most.
const DESCRIPTOR_BYTES: usize = 2 * PAGE_BYTES as usize;

/// How a process's glibc was built and tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a pointer: 8 or 4.
    pub word: u8,
    /// HEAP_MAX_SIZE, bytes: 64 MiB, 1 MiB in 32-bit processes, four huge pages with `glibc.malloc.hugetlb=2`.
    pub heap_max: u64,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { word: 8, heap_max: 64 << 20 }
    }
}

impl Layout {
    /// Of 32-bit processes.
    pub const NARROW: Layout = Layout { word: 4, heap_max: 1 << 20 };
}

/// A heap of an arena other than the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// First address.
    pub base: u64,
    /// Bytes made accessible.
    pub committed: u64,
    /// Address of its arena; `None` where its first page cannot be read and the mappings alone tell.
    pub arena: Option<u64>,
    /// Bytes in use up to its end; as `arena`.
    pub used: Option<u64>,
}

/// Beginning of a heap.
struct HeapInfo {
    arena: u64,
    previous: u64,
    used: u64,
    committed: u64,
}

enum Look {
    Heap(HeapInfo),
    /// Something else is there.
    NoHeap,
    /// The page cannot be read.
    Unreadable,
}

/// The heaps of arenas, by address.
pub fn heaps(vmas: &[Vma], memory: &mut dyn ReadMemory, layout: Layout) -> Vec<Heap> {
    let mut found: Vec<(Heap, u64)> = Vec::new();
    let mut candidates = 0;
    for (index, vma) in vmas.iter().enumerate() {
        if !vma.write || vma.execute || vma.shared || vma.inode != 0 || !(vma.name.is_empty() || vma.is_named(b"glibc: malloc arena")) {
            continue;
        }
        let mut base = vma.start.next_multiple_of(layout.heap_max);
        while base < vma.end && candidates < MOST_CANDIDATES {
            candidates += 1;
            match look(memory, base, vma.end, layout) {
                Look::Heap(info) => {
                    let heap = Heap { base, committed: info.committed, arena: Some(info.arena), used: Some(info.used) };
                    found.push((heap, info.previous));
                }
                // Behaviour alone, where the heap's first page is out of reach. Every heap has touched it.
                Look::Unreadable if base == vma.start && memory.is_hidden(base) && is_laid_out(vmas, index, layout) => {
                    found.push((Heap { base, committed: vma.bytes(), arena: None, used: None }, 0));
                }
                Look::Unreadable | Look::NoHeap => {}
            }
            let Some(next) = base.checked_add(layout.heap_max) else { break };
            base = next;
        }
    }
    keep_whole_arenas(found, layout)
}

/// Heaps whose arena's first heap, and whose previous heap, were found too.
fn keep_whole_arenas(found: Vec<(Heap, u64)>, layout: Layout) -> Vec<Heap> {
    let bases: HashSet<u64> = found.iter().map(|(heap, _)| heap.base).collect();
    let first_of = |arena: u64| arena & !(layout.heap_max - 1);
    let whole = |(heap, previous): &(Heap, u64)| match heap.arena {
        None => true,
        Some(arena) if *previous == 0 => first_of(arena) == heap.base,
        Some(arena) => first_of(arena) != heap.base && bases.contains(&first_of(arena)) && bases.contains(previous),
    };
    found.into_iter().filter(whole).map(|(heap, _)| heap).collect()
}

fn look(memory: &mut dyn ReadMemory, base: u64, end: u64, layout: Layout) -> Look {
    let word = usize::from(layout.word);
    let mut bytes = [0; 32];
    if !memory.read(base, &mut bytes[..4 * word]) {
        return Look::Unreadable;
    }
    let field = |at: usize| {
        let bytes = &bytes[at * word..][..word];
        bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let info = HeapInfo { arena: field(0), previous: field(1), used: field(2), committed: field(3) };
    let whole_pages = info.committed.is_multiple_of(PAGE_BYTES) && info.used > 0 && info.used <= info.committed;
    let inside = info.committed <= layout.heap_max && info.committed <= end - base;
    let first = info.previous == 0 && info.arena > base && info.arena - base <= 256;
    let later = info.previous != 0 && info.previous.is_multiple_of(layout.heap_max) && info.previous != base;
    if whole_pages && inside && info.arena.is_multiple_of(u64::from(layout.word)) && (first || later) {
        Look::Heap(info)
    } else {
        Look::NoHeap
    }
}

/// Accessible from a multiple of HEAP_MAX on, and reserved from there to the next one at least.
fn is_laid_out(vmas: &[Vma], index: usize, layout: Layout) -> bool {
    let vma = &vmas[index];
    let rest = vmas.get(index + 1);
    let is_reserve = |rest: &&Vma| {
        rest.start == vma.end && rest.is_inaccessible() && rest.inode == 0 && !rest.shared && rest.end >= vma.start + layout.heap_max
    };
    vma.bytes() < layout.heap_max && rest.filter(is_reserve).is_some()
}

/// The stack of a thread that ends at `end`, not lower than `start`.
pub fn thread_stack(memory: &mut dyn ReadMemory, start: u64, end: u64) -> Option<u64> {
    thread_descriptor(memory, start, end).map(|(_, low)| low)
}

/// The descriptor of the thread whose stack ends at `end`, and where that stack begins.
pub fn thread_descriptor(memory: &mut dyn ReadMemory, start: u64, end: u64) -> Option<(u64, u64)> {
    let mut bytes = [0; DESCRIPTOR_BYTES];
    let length = if end - start >= DESCRIPTOR_BYTES as u64 { DESCRIPTOR_BYTES } else { PAGE_BYTES as usize };
    let mut from = end.checked_sub(length as u64)?;
    let mut bytes = &mut bytes[..length];
    if from < start || !memory.read(from, bytes) {
        // Its second highest page may be untouched.
        from = end.checked_sub(PAGE_BYTES)?;
        bytes = &mut bytes[..PAGE_BYTES as usize];
        if from < start || !memory.read(from, bytes) {
            return None;
        }
    }
    let words: Vec<u64> = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes)).collect();
    // Descriptors are aligned to 16 bytes at least.
    let descriptors = (0..words.len()).step_by(2).filter(|&at| words[at] == from + 8 * at as u64);
    // glibc's have that address twice, and a list that begins with its own address in them.
    let glibcs = descriptors.clone().filter(|&at| words.get(at + 2) == Some(&words[at]));
    glibcs.chain(descriptors.clone().rev()).find_map(|at| {
        let pairs = words[at..].windows(2).map(|pair| (pair[0], pair[1]));
        let is_stack = |(low, size): &(u64, u64)| {
            *size >= LEAST_STACK_BYTES && low.is_multiple_of(PAGE_BYTES) && low.checked_add(*size) == Some(end) && *low < from
        };
        pairs.filter(is_stack).map(|(low, _)| (words[at], low.max(start))).next()
    })
}

/// Blocks with mappings of their own in `start..end`, merged where they touch.
pub fn mapped_blocks(memory: &mut dyn ReadMemory, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    let (mut at, mut steps) = (start.next_multiple_of(PAGE_BYTES), 0);
    while at < end && end - at >= LEAST_MAPPED_BYTES && steps < MOST_STEPS {
        match block_bytes(memory, at).filter(|bytes| *bytes <= end - at) {
            Some(bytes) => {
                match blocks.last_mut() {
                    Some(last) if last.1 == at => last.1 += bytes,
                    _ => blocks.push((at, at + bytes)),
                }
                at += bytes;
            }
            None => {
                at += PAGE_BYTES;
                steps += 1;
            }
        }
    }
    blocks
}

fn block_bytes(memory: &mut dyn ReadMemory, at: u64) -> Option<u64> {
    const FLAGS: u64 = 7;
    const IS_MMAPPED: u64 = 2;
    let mut header = [0; 16];
    if !memory.read(at, &mut header) {
        return None;
    }
    let word = |at: usize| header[at..at + 8].try_into().map_or(u64::MAX, u64::from_le_bytes);
    let (before, size) = (word(0), word(8));
    let bytes = size & !FLAGS;
    (before == 0 && size & FLAGS == IS_MMAPPED && bytes.is_multiple_of(PAGE_BYTES) && bytes >= LEAST_MAPPED_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::classify::tests::Words;

    const MIB: u64 = 1 << 20;
    const BASE: u64 = 0x7f00_0000_0000;

    fn vma(start: u64, end: u64, write: bool) -> Vma {
        Vma { start, end, read: write, write, ..Vma::default() }
    }

    fn info(words: &mut Words, base: u64, fields: [u64; 4]) {
        fields.iter().enumerate().for_each(|(at, field)| words.set(base + 8 * at as u64, *field));
    }

    #[test]
    fn several_heaps_of_one_arena_in_merged_mappings() {
        // Two full heaps merged into one mapping, the third begun.
        let (first, second, third) = (BASE, BASE + 64 * MIB, BASE + 256 * MIB);
        let vmas = [vma(first, third - 128 * MIB, true), vma(third, third + MIB, true), vma(third + MIB, third + 64 * MIB, false)];
        let mut words = Words::default();
        let arena = first + 0x30;
        info(&mut words, first, [arena, 0, 64 * MIB, 64 * MIB]);
        info(&mut words, second, [arena, first, 64 * MIB, 64 * MIB]);
        info(&mut words, third, [arena, second, MIB - 4096, MIB]);
        let heaps = heaps(&vmas, &mut words, Layout::default());
        assert_eq!(heaps.iter().map(|heap| heap.base).collect::<Vec<_>>(), [first, second, third]);
        assert!(heaps.iter().all(|heap| heap.arena == Some(arena)));
        assert_eq!(heaps[2], Heap { base: third, committed: MIB, arena: Some(arena), used: Some(MIB - 4096) });
    }

    #[test]
    fn what_only_looks_alike_is_no_heap() {
        let vmas = [vma(BASE, BASE + 4 * MIB, true), vma(BASE + 4 * MIB, BASE + 64 * MIB, false)];
        let cases: [[u64; 4]; 7] = [
            [0, 0, 0, 0],
            // An arena far away, in a heap that is not there.
            [BASE + 512 * MIB + 0x30, BASE + 512 * MIB, MIB, MIB],
            // More than is accessible, more than HEAP_MAX, not whole pages, more used than accessible.
            [BASE + 0x30, 0, MIB, 5 * MIB],
            [BASE + 0x30, 0, MIB, 65 * MIB],
            [BASE + 0x30, 0, MIB, MIB + 1],
            [BASE + 0x30, 0, MIB + 4096, MIB],
            [BASE + 0x1000, 0, MIB, MIB],
        ];
        for fields in cases {
            let mut words = Words::default();
            info(&mut words, BASE, fields);
            assert_eq!(heaps(&vmas, &mut words, Layout::default()), [], "{fields:x?}");
        }
    }

    #[test]
    fn without_words_the_layout_tells() {
        let reserve = |end| [vma(BASE, BASE + MIB, true), vma(BASE + MIB, end, false)];
        let found = |vmas: &[Vma]| heaps(vmas, &mut super::super::memory::NoMemory, Layout::default()).len();
        assert_eq!(found(&reserve(BASE + 64 * MIB)), 1);
        // Untrimmed, as the records show it: unmapping is not recorded.
        assert_eq!(found(&reserve(BASE + 100 * MIB)), 1);
        assert_eq!(found(&reserve(BASE + 63 * MIB)), 0);
        assert_eq!(found(&[vma(BASE + 4096, BASE + MIB, true), vma(BASE + MIB, BASE + 64 * MIB, false)]), 0);
    }

    #[test]
    fn heaps_of_32_bit_processes() {
        let base = 0xf000_0000_u64;
        let vmas = [vma(base, base + 0x21000, true), vma(base + 0x21000, base + MIB, false)];
        let mut words = Words::default();
        words.set(base, base + 0x10);
        words.set(base + 8, 0x21000 << 32 | 0x21000);
        let heaps = heaps(&vmas, &mut words, Layout::NARROW);
        assert_eq!(heaps, [Heap { base, committed: 0x21000, arena: Some(base + 0x10), used: Some(0x21000) }]);
    }

    #[test]
    fn thread_descriptors() {
        let (start, end) = (BASE + 4096, BASE + 8 * MIB);
        let descriptor = end - 0x940;
        let mut words = Words::default();
        words.present(end - 8192, 8192);
        words.set(descriptor, descriptor);
        assert_eq!(thread_stack(&mut words, start, end), None, "the main thread's: no stack of its own");
        words.set(descriptor + 0x690, BASE);
        words.set(descriptor + 0x698, 8 * MIB);
        assert_eq!(thread_stack(&mut words, start, end), Some(start));
        // A list of glibc's.
        words.set(descriptor + 0x2e0, descriptor + 0x2e0);
        words.set(descriptor + 16, descriptor);
        assert_eq!(thread_descriptor(&mut words, start, end), Some((descriptor, start)));
        words.set(descriptor + 0x2e0, 0);
        words.set(descriptor, descriptor + 16);
        assert_eq!(thread_stack(&mut words, start, end), None);
    }

    #[test]
    fn blocks_that_the_kernel_merged() {
        let mut words = Words::default();
        let start = BASE;
        words.present(start, 4096);
        let second = start + 8192;
        words.set(second + 8, 256 << 10 | 2);
        words.present(second + (256 << 10), 4096);
        words.set(second + (256 << 10) + 8, 512 << 10 | 2);
        let end = second + (768 << 10) + 4096;
        assert_eq!(mapped_blocks(&mut words, start, end), [(second, second + (768 << 10))]);
        // Too large for where it stands, in an arena (4), or of no whole page.
        for size in [(2 * MIB) | 2, 256 << 10 | 6, 256 << 10 | 3, ((256 << 10) + 16) | 2, 4096 | 2] {
            let mut words = Words::default();
            words.set(start + 8, size);
            assert_eq!(mapped_blocks(&mut words, start, start + MIB), [], "{size:x}");
        }
    }
}
