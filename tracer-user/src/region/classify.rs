//! Mappings to regions: which class, and what told so. Pure but for the words it asks for.

use super::glibc::{self, Heap, Layout};
use super::maps::Vma;
use super::memory::ReadMemory;
use super::{Class, elf};

/// Where the Go runtime maps its first arena on 64-bit machines (runtime/malloc.go), and nothing else ever lands by chance.
const GO_FIRST_ARENA: u64 = 0xc0_0000_0000;

/// What told a class.
pub mod by {
    /// The mapping's name, which the kernel gives.
    pub const KERNEL_NAME: &str = "name given by the kernel";
    /// The mapping's name, which the program gave.
    pub const PROGRAM_NAME: &str = "name given by the program";
    /// A heap_info at the heap's base, and all of its arena's heaps.
    pub const HEAP_INFO: &str = "heap_info at its base";
    /// The mappings alone.
    pub const HEAP_LAYOUT: &str = "aligned heap and its reserve";
    /// A thread descriptor at the top that tells the stack's bounds.
    pub const THREAD_DESCRIPTOR: &str = "thread descriptor at its top";
    /// malloc's header.
    pub const BLOCK_HEADER: &str = "malloc's header of a mapped block";
    /// Private mapping of a file.
    pub const PRIVATE_FILE: &str = "private mapping of a file";
    /// Program headers.
    pub const ELF_SEGMENT: &str = "zeroed rest of an ELF segment";
    /// Shared mapping of a file.
    pub const SHARED_FILE: &str = "shared mapping of a file";
    /// Path of the mapped file.
    pub const FILE_NAME: &str = "name of the mapped file";
    /// Executable memory without a file.
    pub const EXECUTABLE: &str = "executable memory without a file";
    /// The address.
    pub const GO_ADDRESS: &str = "address of Go's first arena";
    /// The JVM's own description of itself.
    pub const VM_STRUCTS: &str = "the JVM's vmStructs";
    /// Functions of the JVM in the stack that reserved it.
    pub const RESERVED_BY: &str = "the JVM's stack that reserved it";
}

/// A range of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What for.
    pub class: Class,
    /// What told so; `None` for [`Class::Other`].
    pub by: Option<&'static str>,
    /// Index of the mapping that holds it.
    pub vma: usize,
}

/// A range that something other than its mapping tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What for.
    pub class: Class,
    /// What told so.
    pub by: &'static str,
}

/// All regions of a process.
#[derive(Clone, Debug, Default)]
pub struct Classified {
    /// By address; together they cover all mappings.
    pub regions: Vec<Region>,
    /// Heaps of glibc's arenas, by address.
    pub heaps: Vec<Heap>,
}

impl Classified {
    /// Index of the region at an address.
    #[must_use]
    pub fn index_at(&self, address: u64) -> Option<usize> {
        let after = self.regions.partition_point(|region| region.start <= address);
        after.checked_sub(1).filter(|&index| address < self.regions[index].end)
    }

    /// The region at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&Region> {
        self.index_at(address).map(|index| &self.regions[index])
    }
}

/// Classifies all mappings. `known` are claims from elsewhere; they win.
pub fn classify(vmas: &[Vma], memory: &mut dyn ReadMemory, layout: Layout, known: &[Claim]) -> Classified {
    let mut claims: Vec<Claim> = known.to_vec();
    // Before malloc's heaps: Go too cuts aligned pieces of 64 MiB.
    claims.extend(go_arenas(vmas));
    let mut heaps = glibc::heaps(vmas, memory, layout);
    heaps.retain(|heap| !claims.iter().any(|claim| claim.start <= heap.base && heap.base < claim.end));
    claims.extend(heaps.iter().map(|heap| Claim {
        start: heap.base,
        end: heap.base.saturating_add(layout.heap_max),
        class: Class::GlibcArena,
        by: if heap.arena.is_some() { by::HEAP_INFO } else { by::HEAP_LAYOUT },
    }));
    claims.extend(zeroed_segments(vmas, memory));
    let claims = disjoint(claims);
    let mut regions = Vec::with_capacity(vmas.len());
    for (index, vma) in vmas.iter().enumerate() {
        match in_heap(vma, &claims).or_else(|| by_mapping(vma)) {
            Some((class, by)) => regions.push(Region { start: vma.start, end: vma.end, class, by: Some(by), vma: index }),
            None => nameless(vma, index, memory, &claims, &mut regions),
        }
    }
    Classified { regions, heaps }
}

/// A private mapping of a file within a JVM's heap: objects of its archive (classes.jsa), which it copies as it writes to them.
fn in_heap(vma: &Vma, claims: &[Claim]) -> Option<(Class, &'static str)> {
    if vma.inode == 0 || vma.shared {
        return None;
    }
    let claim = claims.get(first_from(claims, vma.start))?;
    (claim.class == Class::JavaHeap && claim.start <= vma.start && vma.end <= claim.end).then_some((claim.class, claim.by))
}

/// The first of disjoint claims that does not end before an address.
fn first_from(claims: &[Claim], address: u64) -> usize {
    claims.partition_point(|claim| claim.end <= address)
}

/// What the mapping itself tells; `None` for private memory without a file, whose name tells nothing.
fn by_mapping(vma: &Vma) -> Option<(Class, &'static str)> {
    let name = &*vma.name;
    if vma.shared {
        return Some(match name {
            _ if name.starts_with(b"/memfd:") => (Class::Memfd, by::FILE_NAME),
            _ if name.starts_with(b"/SYSV") => (Class::SysvShm, by::FILE_NAME),
            _ if name.starts_with(b"/anon_hugepage") => (Class::Hugetlb, by::FILE_NAME),
            _ => (Class::FileShared, by::SHARED_FILE),
        });
    }
    if name.starts_with(b"/anon_hugepage") {
        return Some((Class::Hugetlb, by::FILE_NAME));
    }
    if vma.inode != 0 {
        return Some((Class::FilePrivate, by::PRIVATE_FILE));
    }
    match name {
        b"[heap]" => Some((Class::BrkHeap, by::KERNEL_NAME)),
        b"[stack]" => Some((Class::ThreadStack, by::KERNEL_NAME)),
        b"[vdso]" | b"[vsyscall]" | b"[vectors]" => Some((Class::Vdso, by::KERNEL_NAME)),
        _ if name.starts_with(b"[vvar") => Some((Class::Vdso, by::KERNEL_NAME)),
        _ if vma.is_named(b"glibc: malloc arena") => Some((Class::GlibcArena, by::PROGRAM_NAME)),
        _ if vma.is_named(b"glibc: malloc") => Some((Class::MmapMalloc, by::PROGRAM_NAME)),
        _ if vma.is_named(b"glibc: pthread stack") => Some((Class::ThreadStack, by::PROGRAM_NAME)),
        _ if vma.is_named(b"Go: ") => Some((Class::GoHeap, by::PROGRAM_NAME)),
        _ => None,
    }
}

/// Pieces of a mapping without a name: what is claimed, and what words in the rest tell.
fn nameless(vma: &Vma, index: usize, memory: &mut dyn ReadMemory, claims: &[Claim], regions: &mut Vec<Region>) {
    let mut at = vma.start;
    let first = first_from(claims, vma.start);
    for claim in claims[first..].iter().take_while(|claim| claim.start < vma.end) {
        let (start, end) = (claim.start.max(vma.start), claim.end.min(vma.end));
        if at < start {
            unclaimed(vma, index, (at, start), memory, regions);
        }
        regions.push(Region { start, end, class: claim.class, by: Some(claim.by), vma: index });
        at = end;
    }
    if at < vma.end {
        unclaimed(vma, index, (at, vma.end), memory, regions);
    }
}

fn unclaimed(vma: &Vma, index: usize, (start, end): (u64, u64), memory: &mut dyn ReadMemory, regions: &mut Vec<Region>) {
    let mut push = |start: u64, end: u64, told: Option<(Class, &'static str)>| {
        if start < end {
            let (class, by) = told.map_or((Class::Other, None), |(class, by)| (class, Some(by)));
            regions.push(Region { start, end, class, by, vma: index });
        }
    };
    if vma.execute {
        push(start, end, Some((Class::Jit, by::EXECUTABLE)));
        return;
    }
    if !vma.write {
        push(start, end, None);
        return;
    }
    // Stacks end where their mapping ends, or where a block begins that the kernel merged with it.
    let (top, stacks) = stacks_below(memory, start, end);
    let mut at = start;
    for (low, high) in glibc::mapped_blocks(memory, start, top) {
        let (free, stacks) = stacks_below(memory, at, low);
        push(at, free, None);
        stacks.into_iter().rev().for_each(|(low, high)| push(low, high, Some((Class::ThreadStack, by::THREAD_DESCRIPTOR))));
        push(low, high, Some((Class::MmapMalloc, by::BLOCK_HEADER)));
        at = high;
    }
    push(at, top, None);
    stacks.into_iter().rev().for_each(|(low, high)| push(low, high, Some((Class::ThreadStack, by::THREAD_DESCRIPTOR))));
}

/// Threads' stacks side by side that end at `top`, the highest first, and where the lowest begins. Several touch where guards are no mappings of
/// their own.
fn stacks_below(memory: &mut dyn ReadMemory, start: u64, top: u64) -> (u64, Vec<(u64, u64)>) {
    let (mut top, mut stacks) = (top, Vec::new());
    while top > start
        && let Some(low) = glibc::thread_stack(memory, start, top)
    {
        stacks.push((low, top));
        top = low;
    }
    (top, stacks)
}

/// The zeroed parts of mapped programs and libraries.
fn zeroed_segments(vmas: &[Vma], memory: &mut dyn ReadMemory) -> Vec<Claim> {
    let is_beginning = |vma: &&Vma| vma.inode != 0 && vma.offset == 0 && !vma.shared && vma.read;
    let mut claims = Vec::new();
    for vma in vmas.iter().filter(is_beginning) {
        let mut header = [0; elf::HEADER_BYTES];
        if memory.read(vma.start, &mut header) {
            let claim = |(start, end)| Claim { start, end, class: Class::FilePrivate, by: by::ELF_SEGMENT };
            claims.extend(elf::zeroed_ranges(&header, vma.start).into_iter().map(claim));
        }
    }
    claims
}

/// Go's heap: what follows its first arena without a gap.
fn go_arenas(vmas: &[Vma]) -> Option<Claim> {
    let first = vmas.partition_point(|vma| vma.start < GO_FIRST_ARENA);
    let mut end = GO_FIRST_ARENA;
    for vma in &vmas[first..] {
        if vma.start != end || !vma.is_nameless() {
            break;
        }
        end = vma.end;
    }
    (end > GO_FIRST_ARENA).then_some(Claim { start: GO_FIRST_ARENA, end, class: Class::GoHeap, by: by::GO_ADDRESS })
}

/// By address; of two that overlap, the earlier in the list keeps the common part.
fn disjoint(claims: Vec<Claim>) -> Vec<Claim> {
    let mut kept: Vec<Claim> = Vec::new();
    for claim in claims {
        let mut at = claim.start;
        let mut pieces = Vec::new();
        let first = first_from(&kept, claim.start);
        for old in kept[first..].iter().take_while(|old| old.start < claim.end) {
            if at < old.start {
                pieces.push(Claim { start: at, end: old.start, ..claim });
            }
            at = at.max(old.end);
        }
        if at < claim.end {
            pieces.push(Claim { start: at, ..claim });
        }
        for piece in pieces {
            let place = kept.partition_point(|old| old.start < piece.start);
            kept.insert(place, piece);
        }
    }
    kept
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::region::{PAGE_BYTES, maps::Maps};
    use std::collections::{BTreeMap, BTreeSet};

    /// Memory of chosen words; other words of their pages are zero, other pages absent.
    #[derive(Default)]
    pub struct Words {
        words: BTreeMap<u64, u64>,
        pages: BTreeSet<u64>,
    }

    impl Words {
        pub fn set(&mut self, address: u64, word: u64) {
            self.words.insert(address, word);
            self.pages.insert(address / PAGE_BYTES);
        }

        pub fn present(&mut self, start: u64, bytes: u64) {
            self.pages.extend(start / PAGE_BYTES..(start + bytes).div_ceil(PAGE_BYTES));
        }
    }

    impl ReadMemory for Words {
        fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
            for (at, byte) in bytes.iter_mut().enumerate() {
                let place = address + at as u64;
                if !self.pages.contains(&(place / PAGE_BYTES)) {
                    return false;
                }
                let word = self.words.get(&(place & !7)).copied().unwrap_or(0);
                *byte = word.to_le_bytes()[(place & 7) as usize];
            }
            true
        }

        fn is_hidden(&mut self, _: u64) -> bool {
            false
        }
    }

    impl super::super::memory::ReadPages for Words {
        fn page(&mut self, address: u64) -> Option<super::super::memory::PageEntry> {
            Some(super::super::memory::PageEntry(u64::from(self.pages.contains(&(address / PAGE_BYTES))) << 63))
        }
    }

    /// As of a process that is gone.
    fn classes(text: &str) -> Vec<&'static str> {
        let maps = Maps::parse(text.as_bytes()).unwrap();
        let classified = classify(&maps.vmas, &mut super::super::memory::NoMemory, Layout::default(), &[]);
        classified.regions.iter().map(|region| region.class.name()).collect()
    }

    #[test]
    fn a_stack_that_the_kernel_merged_with_the_block_above_it() {
        const MIB: u64 = 1 << 20;
        let (start, block, end) = (0x7f00_0000_1000_u64, 0x7f00_0080_0000_u64, 0x7f00_0180_0000_u64);
        let vmas = [Vma { start, end, read: true, write: true, ..Vma::default() }];
        let (mut words, descriptor) = (Words::default(), block - 0x940);
        words.present(block - 8192, 8192);
        for (at, word) in [(0, descriptor), (16, descriptor), (0x690, start - 4096), (0x698, 8 * MIB)] {
            words.set(descriptor + at, word);
        }
        words.present(block, 4096);
        words.set(block + 8, (16 * MIB) | 2);
        let regions = classify(&vmas, &mut words, Layout::default(), &[]).regions;
        let found: Vec<(u64, u64, Class)> = regions.iter().map(|region| (region.start, region.end, region.class)).collect();
        assert_eq!(found, [(start, block, Class::ThreadStack), (block, end, Class::MmapMalloc)]);
    }

    #[test]
    fn names_and_files_tell() {
        let text = "1000-2000 rw-p 00000000 08:01 9 /bin/x\n2000-3000 rw-p 0 0:0 0 [heap]\n3000-4000 rw-s 0 0:1 5 /memfd:x (deleted)\n\
            4000-5000 rw-s 0 0:1 5 /SYSV00000000 (deleted)\n5000-6000 rw-s 0 0:1 5 /dev/shm/x\n6000-7000 rwxp 0 0:0 0 \n7000-8000 rw-p 0 0:0 0 \n\
            8000-9000 rw-p 0 0:0 0 [anon: glibc: malloc arena]\n9000-a000 rw-p 0 0:0 0 [anon: glibc: malloc]\na000-b000 rw-p 0 0:0 0 [anon: glibc: pthread stack: 7]\n\
            b000-c000 rw-p 0 0:0 0 [anon: Go: heap]\nc000-d000 rw-p 0 0:0 0 [anon:dalvik]\nd000-e000 r-xp 0 0:0 0 [vdso]\ne000-f000 r--p 0 0:0 0 [vvar_vclock]\n\
            f000-10000 rw-p 0 0:0 0 [stack]\n10000-11000 rw-p 0 0:f 3 /anon_hugepage (deleted)\n";
        let expected = [
            "file-private",
            "brk-heap",
            "memfd",
            "sysv-shm",
            "file-shared",
            "jit",
            "other",
            "glibc-arena",
            "mmap-malloc",
            "thread-stack",
            "go-heap",
            "other",
            "vdso",
            "vdso",
            "thread-stack",
            "hugetlb",
        ];
        assert_eq!(classes(text), expected);
    }

    #[test]
    fn go_arenas_follow_their_address() {
        let text = "c000000000-c000400000 rw-p 0 0:0 0 \nc000400000-c004000000 ---p 0 0:0 0 \nc005000000-c006000000 rw-p 0 0:0 0 \n";
        assert_eq!(classes(text), ["go-heap", "go-heap", "other"]);
        assert_eq!(classes("c000001000-c000400000 rw-p 0 0:0 0 \n"), ["other"]);
    }

    #[test]
    fn regions_cover_all_mappings_without_overlap() {
        let claim = |start, end, class| Claim { start, end, class, by: "test" };
        let maps = Maps::parse(&b"1000-9000 rw-p 0 0:0 0 \n9000-a000 ---p 0 0:0 0 \nb000-c000 rw-p 0 0:0 0 [heap]\n"[..]).unwrap();
        let known =
            [claim(0x2000, 0x4000, Class::JavaHeap), claim(0x3000, 0x9800, Class::JavaCode), claim(0, u64::MAX, Class::JavaMetaspace)];
        let classified = classify(&maps.vmas, &mut Words::default(), Layout::default(), &known);
        let found: Vec<_> = classified.regions.iter().map(|r| (r.start, r.end, r.class, r.vma)).collect();
        let expected = [
            (0x1000, 0x2000, Class::JavaMetaspace, 0),
            (0x2000, 0x4000, Class::JavaHeap, 0),
            (0x4000, 0x9000, Class::JavaCode, 0),
            (0x9000, 0x9800, Class::JavaCode, 1),
            (0x9800, 0xa000, Class::JavaMetaspace, 1),
            (0xb000, 0xc000, Class::BrkHeap, 2),
        ];
        assert_eq!(found, expected);
        assert_eq!(classified.at(0x9900).unwrap().class, Class::JavaMetaspace);
        assert!(classified.at(0xa000).is_none() && classified.at(0xfff).is_none());
    }

    #[test]
    fn an_archive_in_the_heap_is_heap() {
        let text = b"1000-2000 rw-p 0 8:1 9 /x/classes.jsa\n2000-3000 rw-s 0 8:1 9 /x/classes.jsa\n5000-6000 rw-p 0 8:1 9 /x/classes.jsa\n";
        let maps = Maps::parse(&text[..]).unwrap();
        let heap = Claim { start: 0x1000, end: 0x4000, class: Class::JavaHeap, by: "test" };
        let classified = classify(&maps.vmas, &mut Words::default(), Layout::default(), &[heap]);
        let found: Vec<_> = classified.regions.iter().map(|region| region.class).collect();
        assert_eq!(found, [Class::JavaHeap, Class::FileShared, Class::FilePrivate]);
    }

    #[test]
    fn zeroed_segments_and_descriptors_in_one_mapping() {
        let maps = Maps::parse(&b"10000-11000 r--p 00000000 08:01 9 /bin/x\n20000-40000 rw-p 0 0:0 0 \n"[..]).unwrap();
        let mut words = Words::default();
        words.present(0x3e000, 0x2000);
        let descriptor = 0x3f6c0;
        words.set(descriptor, descriptor);
        words.set(descriptor + 0x690, 0x30000);
        words.set(descriptor + 0x698, 0x10000);
        let classified = classify(&maps.vmas, &mut words, Layout::default(), &[]);
        let found: Vec<_> = classified.regions.iter().map(|r| (r.start, r.end, r.class)).collect();
        assert_eq!(
            found,
            [(0x10000, 0x11000, Class::FilePrivate), (0x20000, 0x30000, Class::Other), (0x30000, 0x40000, Class::ThreadStack)]
        );
    }
}
