//! Folios and their frames. Before `struct folio` (5.16) a folio is the head page of a compound page; the words are the same.

use super::{read, typed::Typed, word};
use crate::globals::{layout, setting, vmemmap};
use tracer_common::{kind::Kind, oom::UNKNOWN, sampling::ORDERS};

/// Largest order that can be split; above it (gigantic hugetlb pages) only the first frame is marked.
pub const MAX_SPLIT_ORDER: u32 = ORDERS as u32 - 1;

/// Frame number of a `struct page` address; `None` beyond the frame table.
#[inline(always)]
pub fn frame_of(page: u64) -> Option<u64> {
    let frame = page.wrapping_sub(vmemmap()) >> setting!(page_struct_shift);
    if frame < setting!(frames) { Some(frame) } else { None }
}

/// Address of the `struct page` of a frame.
#[inline(always)]
pub fn page_of(frame: u64) -> u64 {
    vmemmap() + (frame << setting!(page_struct_shift))
}

/// A folio that a program is given.
#[derive(Clone, Copy)]
pub struct Folio {
    /// Address of its `struct folio`.
    pub address: u64,
    /// Its flags; [`UNKNOWN`] if they cannot be read.
    flags: u64,
}

impl Folio {
    /// One whose type the verifier knows.
    #[inline(always)]
    pub fn typed(argument: Typed) -> Folio {
        let flags = argument.word(layout!(page_flags)).unwrap_or(UNKNOWN);
        Folio { address: argument.number(), flags }
    }

    /// The one at that address.
    #[inline(always)]
    pub fn at(address: u64) -> Folio {
        Folio { address, flags: word(address, layout!(page_flags)) }
    }

    /// Whether a flag is set, whose number the kernel tells.
    #[inline(always)]
    pub fn has(&self, bit: Option<u64>) -> bool {
        match bit {
            Some(bit) => self.flags != UNKNOWN && self.flags >> (bit & 63) & 1 != 0,
            None => false,
        }
    }

    /// Whether it is a huge page of hugetlbfs, in or out of a file. Of kernels that may charge them (6.7 and later) those of 6.10 and 6.11 do not
    /// tell how such a page is known.
    #[inline(always)]
    pub fn is_hugetlb(&self) -> bool {
        self.has(layout!(pg_head)) && is_hugetlb(self.address)
    }

    /// Order, from its flags and its second page.
    #[inline(always)]
    pub fn order(&self) -> Option<u32> {
        // A plain number first: of an `Option`, LLVM compares the payload before it knows that there is one, which the verifier refuses.
        let order = match layout!(pg_head) {
            Some(head) if self.flags != UNKNOWN => {
                if self.flags >> (head & 63) & 1 == 0 {
                    0
                } else {
                    large_order(self.address)
                }
            }
            _ => UNKNOWN,
        };
        if order == UNKNOWN { None } else { Some(order as u32) }
    }
}

/// Order of the folio at that address.
#[inline(always)]
pub fn order(folio: u64) -> Option<u32> {
    Folio::at(folio).order()
}

/// Whether a compound page is one of hugetlbfs.
#[inline(always)]
fn is_hugetlb(folio: u64) -> bool {
    if let Some(kind) = layout!(page_type_hugetlb) {
        return read::<u32>(folio, layout!(page_mapcount)).unwrap_or(0) as u64 >> 24 == kind;
    }
    match layout!(pg_hugetlb) {
        Some(bit) => read::<u64>(folio, layout!(folio_flags_1)).unwrap_or(0) >> (bit & 63) & 1 != 0,
        None => false,
    }
}

/// Order of a compound page, or [`UNKNOWN`].
#[inline(never)]
fn large_order(folio: u64) -> u64 {
    // `_flags_1` is used for the order since 6.6; 6.0 to 6.5 have both members, but `_folio_order` only there.
    let order = if let Some(offset) = layout!(folio_order_byte) {
        read::<u8>(folio, Some(offset))
    } else if let Some(offset) = layout!(folio_flags_1) {
        read::<u8>(folio, Some(offset))
    } else {
        let second = 1 << setting!(page_struct_shift);
        read::<u8>(folio + second, layout!(page_compound_order))
    };
    match order {
        Some(order) => order as u64,
        None => UNKNOWN,
    }
}

/// Kind of a folio that is in the page cache or mapped, or on the LRU; `None` for one that is neither.
#[inline(always)]
pub fn kind(folio: u64) -> Option<Kind> {
    let mapping: u64 = read(folio, layout!(page_mapping))?;
    let given = Folio::at(folio);
    let swapbacked = given.has(layout!(pg_swapbacked));
    if mapping == 0 {
        // Swap cache (no mapping until it is mapped), or not committed yet.
        return if swapbacked && given.has(layout!(pg_swapcache)) { Some(Kind::Anon) } else { None };
    }
    Some(if given.is_hugetlb() {
        Kind::Hugetlb
    } else if mapping & 1 != 0 {
        Kind::Anon
    } else if swapbacked {
        Kind::Shmem
    } else {
        Kind::File
    })
}

/// Kind of a folio that is being uncharged: its mapping is gone by then unless it is anonymous. A folio of the swap cache that was never mapped
/// looks like one of shmem then.
#[inline(always)]
pub fn kind_at_uncharge(folio: Folio) -> Option<Kind> {
    let mapping: u64 = read(folio.address, layout!(page_mapping))?;
    Some(if mapping & 1 != 0 {
        Kind::Anon
    } else if folio.is_hugetlb() {
        Kind::Hugetlb
    } else if folio.has(layout!(pg_swapbacked)) {
        Kind::Shmem
    } else {
        Kind::File
    })
}

/// User address (anonymous, as it was at the fault) or offset in the file, bytes.
#[inline(always)]
pub fn position(folio: u64) -> u64 {
    let index = match layout!(page_index) {
        Some(offset) => read::<u64>(folio, Some(offset)),
        None => read::<u64>(folio, layout!(page_folio_index)),
    };
    index.unwrap_or(0) << 12
}
