//! How much of huge pages was ever written: a program that touches a byte here and there may get 2 MiB for each. Pure but for the words it asks
//! for.
//!
//! A page of zeros may have been written with zeros, so that what is found is a hint and no proof.

use super::PAGE_BYTES;
use super::maps::Maps;
use super::memory::{ReadMemory, ReadPages};

/// Bytes of a huge page on x86_64.
pub const HUGE_BYTES: u64 = 2 << 20;
/// Most places whose page map is looked at, and most that are read: 32 MiB.
const MOST: (usize, usize) = (64, 16);

/// What was found in aligned places of anonymous memory of which every page is resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Probed {
    /// Pages of 4 KiB that were read.
    pub pages: u64,
    /// Of them, pages of zeros.
    pub zero: u64,
}

/// Reads some places evenly over the private memory of a process; `None` where none is wholly resident.
pub fn probe<M: ReadMemory + ReadPages>(memory: &mut M, maps: &Maps) -> Option<Probed> {
    let private = maps.vmas.iter().filter(|vma| !vma.shared && vma.inode == 0 && vma.read && vma.write);
    let places = || {
        private.clone().flat_map(|vma| {
            let first = vma.start.next_multiple_of(HUGE_BYTES);
            (first..vma.end.saturating_sub(HUGE_BYTES - 1).max(first)).step_by(HUGE_BYTES as usize)
        })
    };
    let step = places().count().div_ceil(MOST.0).max(1);
    let mut probed = Probed::default();
    let mut left = MOST.1;
    for place in places().step_by(step) {
        if left == 0 {
            break;
        }
        let mut pages = (place..place + HUGE_BYTES).step_by(PAGE_BYTES as usize);
        if pages.all(|page| memory.page(page).is_some_and(|entry| entry.is_present() && !entry.is_file())) {
            left -= 1;
            for page in (place..place + HUGE_BYTES).step_by(PAGE_BYTES as usize) {
                let mut bytes = [0; PAGE_BYTES as usize];
                if memory.read(page, &mut bytes) {
                    probed.pages += 1;
                    probed.zero += u64::from(bytes.iter().all(|byte| *byte == 0));
                }
            }
        }
    }
    (probed.pages > 0).then_some(probed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::region::{Vma, memory::PageEntry};

    /// Every 16th page holds something, and one page is absent.
    struct Sparse(u64);

    impl ReadMemory for Sparse {
        fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
            bytes[7] = u8::from((address / PAGE_BYTES).is_multiple_of(16));
            true
        }

        fn is_hidden(&mut self, _: u64) -> bool {
            false
        }
    }

    impl ReadPages for Sparse {
        fn page(&mut self, address: u64) -> Option<PageEntry> {
            Some(PageEntry(u64::from(address != self.0) << 63))
        }
    }

    fn maps(start: u64, end: u64) -> Maps {
        Maps { vmas: vec![Vma { start, end, read: true, write: true, ..Vma::default() }], cut: false }
    }

    #[test]
    fn pages_of_zeros_are_counted_in_places_that_are_wholly_there() {
        let four = maps(HUGE_BYTES / 2, 5 * HUGE_BYTES);
        assert_eq!(probe(&mut Sparse(1), &four), Some(Probed { pages: 4 * 512, zero: 4 * 480 }));
        assert_eq!(probe(&mut Sparse(2 * HUGE_BYTES + PAGE_BYTES), &four), Some(Probed { pages: 3 * 512, zero: 3 * 480 }));
    }

    #[test]
    fn small_and_large_memory_is_bounded() {
        assert_eq!(probe(&mut Sparse(1), &maps(HUGE_BYTES / 2, 2 * HUGE_BYTES - 1)), None);
        assert_eq!(probe(&mut Sparse(1), &maps(0, 1 << 46)).unwrap().pages, 16 * 512);
        assert_eq!(probe(&mut Sparse(1), &Maps::default()), None);
    }
}
