//! Files behind page-cache and shmem folios: their identity, and a record of each in `FILES`, made when a folio of it is first taken.
//!
//! Nothing here is on the path of a folio that is not taken. Names are read without the kernel's locks: a rename at the same moment may
//! give a mixed name, which the next look corrects; it never gives anything but the file's own numbers and somebody's names.

use crate::{
    globals::layout,
    loss,
    maps::{FILE_SCRATCH, FILES},
    scratch::Slot,
    values::FileScratch,
};
use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
};
use tracer_common::{
    file::{COMPONENT_BYTES, FILE_SYSTEM_BYTES, LINKS_UNKNOWN, MOST_COMPONENTS, NAME_START_BYTES, NameStatus, file_identity},
    loss::Loss,
};

/// Tag bits of a mapping: anonymous, movable. No file then.
const TAGS: u64 = 3;
/// A record is not made anew sooner, nanoseconds: a report looks at every folio of a file.
const FRESH_NS: u64 = 50_000_000;

/// Identity of a folio's file, whose record is made if it is new; 0 if there is none or it cannot be read.
#[inline(always)]
pub fn identity(folio: u64, slot: Slot) -> u64 {
    file_of(folio, slot as u64, 0)
}

/// As [`identity`], and makes the record anew: names and links change.
#[inline(always)]
pub fn refresh(folio: u64, slot: Slot) -> u64 {
    file_of(folio, slot as u64, 1)
}

/// A global function, so that it is verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn file_of(folio: u64, slot: u64, again: u64) -> u64 {
    let Some(scratch) = FILE_SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid map value that only this program uses on this CPU, guarded by `busy`.
    let scratch = unsafe { &mut *scratch };
    if scratch.busy != 0 {
        loss::count(Loss::ScratchBusy, 0);
        return 0;
    }
    scratch.busy = 1;
    let inode = numbers(scratch, folio);
    let mut identity = 0;
    if inode != 0 {
        identity = file_identity(scratch.record.device, scratch.record.inode, scratch.record.generation);
        keep(scratch, inode, identity, slot, again);
    }
    scratch.busy = 0;
    identity
}

/// Reads what a file is known by; its inode, or 0.
#[inline(always)]
fn numbers(scratch: &mut FileScratch, folio: u64) -> u64 {
    let mapping = pointer(&mut scratch.word, folio, layout!(page_mapping));
    if mapping == 0 || mapping & TAGS != 0 {
        return 0;
    }
    let inode = pointer(&mut scratch.word, mapping, layout!(mapping_host));
    if inode == 0 {
        return 0;
    }
    let superblock = pointer(&mut scratch.word, inode, layout!(inode_sb));
    let record = &mut scratch.record;
    let known = superblock != 0
        && fetch(&mut record.device, superblock, layout!(sb_dev))
        && fetch(&mut record.inode, inode, layout!(inode_ino))
        && fetch(&mut record.generation, inode, layout!(inode_generation));
    if known { inode } else { 0 }
}

/// Makes the file's record if it is new, or makes it anew.
#[inline(always)]
fn keep(scratch: &mut FileScratch, inode: u64, identity: u64, slot: u64, again: u64) {
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    scratch.record.first_seen_ns = now;
    scratch.record.refreshed_ns = now;
    let known = FILES.get_ptr_mut(identity);
    if let Some(known) = known {
        // SAFETY: a map value of plain numbers.
        let refreshed = unsafe { (*known).refreshed_ns };
        if again == 0 || now.wrapping_sub(refreshed) < FRESH_NS {
            return;
        }
        // SAFETY: as above.
        scratch.record.first_seen_ns = unsafe { (*known).first_seen_ns };
    }
    if !fetch(&mut scratch.record.links, inode, layout!(inode_nlink)) {
        scratch.record.links = LINKS_UNKNOWN;
    }
    if !fetch(&mut scratch.record.size, inode, layout!(inode_size)) {
        scratch.record.size = 0;
    }
    file_system(scratch, inode);
    let status = walk_names(inode, slot);
    if let Some(known) = known
        && status == NameStatus::None as u64
    {
        // Nobody has it open and its entry was dropped: the name that it had is still the best there is.
        // SAFETY: a map value; plain stores of what user space alone reads.
        unsafe {
            (*known).links = scratch.record.links;
            (*known).size = scratch.record.size;
            (*known).refreshed_ns = now;
        }
    } else if let Err(error) = FILES.insert(identity, &scratch.record, 0) {
        loss::count(loss::of_insert(error, Loss::FileTableFull), 0);
    }
}

#[inline(always)]
fn file_system(scratch: &mut FileScratch, inode: u64) {
    scratch.record.file_system = [0; FILE_SYSTEM_BYTES];
    let superblock = pointer(&mut scratch.word, inode, layout!(inode_sb));
    if superblock == 0 {
        return;
    }
    let kind = pointer(&mut scratch.word, superblock, layout!(sb_type));
    if kind == 0 {
        return;
    }
    let name = pointer(&mut scratch.word, kind, layout!(fs_type_name));
    // SAFETY: the helper checks the address and ends the string within the buffer. What fails leaves the name empty.
    let _ =
        unsafe { bpf_probe_read_kernel_str(scratch.record.file_system.as_mut_ptr().cast(), FILE_SYSTEM_BYTES as u32, name as *const _) };
}

/// Writes the names from the inode's first directory entry up to its root into the slot's record; a [`NameStatus`] number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_names(inode: u64, slot: u64) -> u64 {
    let Some(scratch) = FILE_SCRATCH.get_ptr_mut(slot as u32) else { return NameStatus::None as u64 };
    // SAFETY: a map value; the caller has marked it busy.
    let scratch = unsafe { &mut *scratch };
    scratch.record.name_status = NameStatus::None as u32;
    scratch.record.name_length = 0;
    scratch.record.components = 0;
    let alias = match layout!(dentry_alias) {
        Some(offset) => Some(offset),
        None => layout!(dentry_alias_unnamed),
    };
    let (Some(alias), Some(name_at), Some(string)) = (alias, layout!(dentry_name), layout!(qstr_name)) else {
        return NameStatus::None as u64;
    };
    let entry = pointer(&mut scratch.word, inode, layout!(inode_dentry));
    if entry == 0 {
        return NameStatus::None as u64;
    }
    let mut dentry = entry.wrapping_sub(alias);
    let mut status = NameStatus::Cut as u32;
    let mut at = 0_u64;
    let mut components = 0;
    while components < MOST_COMPONENTS as u64 {
        if at >= NAME_START_BYTES as u64 {
            if pointer(&mut scratch.word, dentry, layout!(dentry_parent)) == dentry {
                status = NameStatus::WholeButRoot as u32;
            }
            break;
        }
        let name = pointer(&mut scratch.word, dentry, Some(name_at + string));
        let start = (at & (NAME_START_BYTES as u64 - 1)) as usize;
        // SAFETY: the masked start and the length stay within the buffer; the helper checks the address.
        let length = unsafe {
            bpf_probe_read_kernel_str(scratch.record.name.as_mut_ptr().add(start).cast(), COMPONENT_BYTES as u32, name as *const _)
        };
        if length <= 0 {
            break;
        }
        at += length as u64;
        components += 1;
        let parent = pointer(&mut scratch.word, dentry, layout!(dentry_parent));
        if parent == 0 {
            break;
        }
        if parent == dentry {
            status = NameStatus::Whole as u32;
            break;
        }
        dentry = parent;
    }
    if components == 0 {
        status = NameStatus::None as u32;
    }
    scratch.record.name_status = status;
    scratch.record.name_length = at as u32;
    scratch.record.components = components as u32;
    status as u64
}

/// Reads a pointer through the scratch's word; 0 if it is null or cannot be read.
#[inline(always)]
fn pointer(word: &mut u64, address: u64, offset: Option<u64>) -> u64 {
    if fetch(word, address, offset) { *word } else { 0 }
}

/// Reads a value to where it is to stand; `false` if this kernel has no such member or the read fails.
#[inline(always)]
fn fetch<T>(value: &mut T, address: u64, offset: Option<u64>) -> bool {
    let Some(offset) = offset else { return false };
    // SAFETY: the destination is as long as said; the helper checks the address.
    unsafe { bpf_probe_read_kernel((&raw mut *value).cast(), size_of::<T>() as u32, (address + offset) as *const _) == 0 }
}
