//! What the kernel says of each page of a process (Documentation/admin-guide/mm/pagemap.rst).

use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

const PAGE: u64 = 4096;

/// Pages of a process.
#[derive(Debug)]
pub struct PageMap(File);

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct Page(u64);

impl PageMap {
    /// Opens it.
    ///
    /// # Errors
    /// The process is gone, or not ours to look at.
    pub fn open(pid: u32) -> Result<PageMap> {
        let path = format!("/proc/{pid}/pagemap");
        Ok(PageMap(File::open(&path).context(path)?))
    }

    /// The pages from one address to another.
    ///
    /// # Errors
    /// The process is gone.
    pub fn pages(&self, start: u64, end: u64) -> Result<Vec<Page>> {
        let mut entries = vec![0; ((end - start) / PAGE * 8) as usize];
        self.0.read_exact_at(&mut entries, start / PAGE * 8).with_context(|| format!("pagemap of {start:x}-{end:x}"))?;
        let word = |entry: &[u8]| entry.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Ok(entries.chunks_exact(8).map(|entry| Page(word(entry))).collect())
    }
}

impl Page {
    /// Its frame; `None` if it is not in memory.
    #[must_use]
    pub fn frame(self) -> Option<u64> {
        (self.0 >> 63 != 0).then_some(self.0 & ((1 << 55) - 1))
    }

    /// It is in memory, and neither a file's nor shared.
    #[must_use]
    pub fn is_anonymous(self) -> bool {
        self.frame().is_some() && self.0 >> 61 & 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_touched_is_anonymous() {
        let memory = vec![1_u8; 64 * PAGE as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let map = PageMap::open(std::process::id()).unwrap();
        assert!(map.pages(start, start + 32 * PAGE).unwrap().into_iter().all(Page::is_anonymous));
        assert!(map.pages(PAGE, 2 * PAGE).unwrap()[0].frame().is_none());
    }
}
