//! Words of a living process's memory, and the frames behind its addresses.
//!
//! Reading an untouched page would give it a page table, and a swapped one would come back from swap: only pages that the page map
//! shows as present are read. `/proc/PID/mem` stays bound to the memory it was opened with, whatever the process does then.

use super::PAGE_BYTES;
use crate::host::proc::Process;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Entries of the page map read at once: 2 MiB of addresses.
const WINDOW: u64 = 512;
/// Most reads of a process's memory. A process of 60,000 mappings takes that many.
const MOST_READS: u32 = 262_144;

/// One entry of `/proc/PID/pagemap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageEntry(pub u64);

impl PageEntry {
    /// A frame is mapped there.
    #[must_use]
    pub fn is_present(self) -> bool {
        self.0 >> 63 != 0
    }

    /// The frame is page cache or shared memory, not anonymous.
    #[must_use]
    pub fn is_file(self) -> bool {
        self.0 >> 61 & 1 != 0
    }

    /// The page is in swap.
    #[must_use]
    pub fn is_swapped(self) -> bool {
        self.0 >> 62 & 1 != 0
    }

    /// Number of the frame; `None` if there is none, or the kernel does not tell.
    #[must_use]
    pub fn frame(self) -> Option<u64> {
        let frame = self.0 & ((1 << 55) - 1);
        (self.is_present() && frame != 0).then_some(frame)
    }
}

/// Reads words of memory. False if they cannot be had.
pub trait ReadMemory {
    /// Fills `bytes` from `address` on.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool;

    /// There may be something at an address that [`ReadMemory::read`] does not give: an untouched page holds nothing for certain.
    fn is_hidden(&mut self, address: u64) -> bool;

    /// A word of eight bytes.
    fn word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_ne_bytes(bytes))
    }
}

/// Reads entries of a page map.
pub trait ReadPages {
    /// The entry of an address; `None` if it cannot be had.
    fn page(&mut self, address: u64) -> Option<PageEntry>;
}

/// Memory that cannot be read: of a process that is gone.
pub struct NoMemory;

impl ReadMemory for NoMemory {
    fn read(&mut self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn is_hidden(&mut self, _: u64) -> bool {
        true
    }
}

/// The memory of a living process.
pub struct ProcessMemory {
    mem: Option<File>,
    pages: PageMap,
    reads_left: u32,
}

impl ProcessMemory {
    /// Opens it. Without the right to read its words, its page map may still be had.
    ///
    /// # Errors
    /// When there is no such process, or the kernel has no page maps.
    pub fn open(process: &Process) -> io::Result<ProcessMemory> {
        let pages = PageMap { file: process.open_file("pagemap")?, first: 0, window: Vec::new() };
        let mem = process.open_file("mem").ok();
        Ok(ProcessMemory { mem, pages, reads_left: MOST_READS })
    }

    /// Its page map.
    pub fn pages(&mut self) -> &mut PageMap {
        &mut self.pages
    }

    /// The bound on reads was met: what was looked at later has no signature.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.reads_left == 0
    }
}

impl ReadMemory for ProcessMemory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(bytes.len() as u64) else { return false };
        let mut page = address & !(PAGE_BYTES - 1);
        while page < end {
            if !self.pages.page(page).is_some_and(PageEntry::is_present) {
                return false;
            }
            page += PAGE_BYTES;
        }
        let Some(left) = self.reads_left.checked_sub(1) else { return false };
        self.reads_left = left;
        self.mem.as_ref().is_some_and(|mem| mem.read_exact_at(bytes, address).is_ok())
    }

    fn is_hidden(&mut self, address: u64) -> bool {
        self.mem.is_none() || self.pages.page(address).is_some_and(PageEntry::is_swapped)
    }
}

impl ReadPages for ProcessMemory {
    fn page(&mut self, address: u64) -> Option<PageEntry> {
        self.pages.page(address)
    }
}

/// The page map of a living process, read by windows.
pub struct PageMap {
    file: File,
    /// Page number of the first entry in the window.
    first: u64,
    window: Vec<u64>,
}

impl ReadPages for PageMap {
    fn page(&mut self, address: u64) -> Option<PageEntry> {
        let number = address / PAGE_BYTES;
        if !(self.first..self.first + self.window.len() as u64).contains(&number) {
            self.fill(number / WINDOW * WINDOW);
        }
        self.window.get(usize::try_from(number.checked_sub(self.first)?).ok()?).map(|entry| PageEntry(*entry))
    }
}

impl PageMap {
    fn fill(&mut self, first: u64) {
        let mut bytes = [0; WINDOW as usize * 8];
        // Short at the end of the address space.
        let length = first.checked_mul(8).and_then(|at| self.file.read_at(&mut bytes, at).ok()).unwrap_or(0);
        self.first = first;
        self.window.clear();
        let entry = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        self.window.extend(bytes[..length / 8 * 8].chunks_exact(8).map(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_words_are_read_and_untouched_pages_are_not_made() {
        let mut own = ProcessMemory::open(&Process::own().unwrap()).unwrap();
        let word = Box::new(0x1234_5678_9abc_def0_u64);
        assert_eq!(own.word(&raw const *word as u64), Some(*word));
        assert_eq!(own.word(8), None);
        assert_eq!(own.word(u64::MAX - 3), None);
        let untouched: Vec<u8> = Vec::with_capacity(64 << 20);
        let inside = untouched.as_ptr() as u64 + (32 << 20);
        assert_eq!(own.word(inside), None);
        assert!(!own.pages().page(inside).unwrap().is_present());
    }

    #[test]
    fn the_bound_on_reads_holds() {
        let mut own = ProcessMemory::open(&Process::own().unwrap()).unwrap();
        own.reads_left = 1;
        let word = 7_u64;
        assert_eq!(own.word(&raw const word as u64), Some(7));
        assert_eq!(own.word(&raw const word as u64), None);
        assert!(own.is_exhausted());
    }
}
