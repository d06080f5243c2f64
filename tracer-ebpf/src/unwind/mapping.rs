//! Finds the mapping of a user address of the current task, without locks: what is found is checked, and a search that met a change is made
//! again. Programs run under RCU, and so are nodes of the tree and mappings freed, so that what is read is never another's memory.
//!
//! From 6.1 on mappings stand in a maple tree (lib/maple_tree.c, include/linux/maple_tree.h), before in a red-black tree.

use super::{LOOK, begin::fetch, miss, state};
use crate::{globals::layout, maps::UNWIND_FILES, values::Unwind};
use tracer_common::{
    stack::tag,
    unwind::{BY_ADDRESS, CLOSED, End, FileKey, HOTSPOT_SHIFT, INTERPRETER, PYTHON_SHIFT, SPECIAL, V8_SHIFT, WITHOUT},
};

/// Trees of 65,530 mappings and as many gaps, with nodes half full, are 9 levels deep.
const MOST_LEVELS: u64 = 12;
/// A red-black tree of 65,531 nodes is at most twice its logarithm deep.
const MOST_STEPS: u64 = 34;
/// Look-ups of one mapping: a node of the tree may be being replaced, or a mapping merged.
const TRIES: u64 = 3;
/// Low bits of a pointer to a node: its type, and marks.
const NODE_BITS: u64 = 0xff;
/// Entries up to here are none that point to anything.
const NO_POINTER: u64 = 4096;
/// VM_EXEC (include/linux/mm.h).
pub const EXECUTABLE: u64 = 4;

/// Above the pages of a special mapping, in what stands for its generation: it is one of 32-bit code.
const NARROW_SHIFT: u32 = 16;

const FOUND: u64 = End::Not as u64;
/// Nothing is mapped there.
const NOTHING: u64 = End::NoMapping as u64;
/// Something changed meanwhile.
const CHANGED: u64 = End::Busy as u64;

/// Looks `look` up in the task's address space and leaves its mapping in `current`. An [`End`]: [`End::Not`] if it was found; [`LOOK`] if it is to be looked up
/// again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return NOTHING };
    let mut found = if layout!(mm_mt).is_some() { in_maple_tree(s, slot) } else { in_red_black_tree(s) };
    if found == FOUND {
        found = identify(s);
    }
    s.tries += 1;
    if found == CHANGED && s.tries < TRIES {
        return LOOK;
    }
    s.tries = 0;
    found
}

/// A word of what was read, by its offset in bytes.
#[inline(always)]
fn held(s: &Unwind, offset: Option<u64>) -> u64 {
    match offset {
        Some(offset) => s.node[(offset / 8 & 31) as usize],
        None => 0,
    }
}

/// Reads the beginning of a mapping: as much as has room, and no more than there is.
#[inline(always)]
fn read_mapping(s: &mut Unwind, at: u64) -> bool {
    let bytes = match layout!(vma_size) {
        Some(size) if size < 256 => size,
        _ => 256,
    };
    s.vma = at;
    fetch(s.node.as_mut_ptr(), bytes as u32, at)
}

#[inline(always)]
fn in_maple_tree(s: &mut Unwind, slot: u64) -> u64 {
    let (Some(tree), Some(root), Some(leaf)) = (layout!(mm_mt), layout!(maple_root), layout!(maple_leaf)) else { return NOTHING };
    if !fetch(&raw mut s.word, 8, s.mm + tree + root) {
        return NOTHING;
    }
    let mut entry = s.word;
    // No node: an empty tree, or an entry for address 0 alone.
    if entry & 3 != 2 || entry <= NO_POINTER {
        return NOTHING;
    }
    let mut level = 0;
    while level < MOST_LEVELS {
        level += 1;
        let is_leaf = entry >> 3 & 15 == leaf;
        entry = child(slot, entry);
        if entry <= NO_POINTER {
            return if entry == CHANGED { CHANGED } else { NOTHING };
        }
        if is_leaf {
            // Marked entries stand for what is being made.
            if entry & 3 != 0 {
                return NOTHING;
            }
            return if read_mapping(s, entry) { FOUND } else { CHANGED };
        }
    }
    CHANGED
}

/// What a node has for the address that is looked up: a mapping, a node, or a number that is no pointer ([`CHANGED`], or none).
///
/// A plain loop in a function of its own: the verifier looks at it once (475 instructions), and inlined for each level anew (25,000).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn child(slot: u64, entry: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    let (Some(leaf), Some(range), Some(arange)) = (layout!(maple_leaf), layout!(maple_range), layout!(maple_arange)) else { return 0 };
    let (Some(range_slots), Some(arange_slots)) = (layout!(range64_slot), layout!(arange64_slot)) else { return 0 };
    let node = entry & !NODE_BITS;
    let kind = entry >> 3 & 15;
    if !fetch(s.node.as_mut_ptr(), 256, node) {
        return CHANGED;
    }
    // A node that is its own parent is dead: another took its place.
    if s.node[0] & !NODE_BITS == node {
        return CHANGED;
    }
    let slots = if kind == arange {
        arange_slots / 8
    } else if kind == leaf || kind == range {
        range_slots / 8
    } else {
        return 0;
    };
    let wanted = s.look;
    let mut at = 0;
    while at < 15 {
        if at + 1 >= slots {
            break;
        }
        // The first pivot that is not below; zero is the end of those in use.
        let pivot = s.node[(at + 1) as usize & 31];
        if pivot >= wanted || pivot == 0 && at != 0 {
            break;
        }
        at += 1;
    }
    s.node[((slots + at) & 31) as usize]
}

#[inline(always)]
fn in_red_black_tree(s: &mut Unwind) -> u64 {
    let (Some(root), Some(node), Some(left), Some(right)) = (layout!(mm_rb), layout!(vma_rb), layout!(rb_left), layout!(rb_right)) else {
        return NOTHING;
    };
    if !fetch(&raw mut s.word, 8, s.mm + root) {
        return NOTHING;
    }
    let mut entry = s.word;
    let mut level = 0;
    while level < MOST_STEPS {
        level += 1;
        if entry == 0 {
            return NOTHING;
        }
        if !read_mapping(s, entry - node) {
            return CHANGED;
        }
        if s.look < held(s, layout!(vma_start)) {
            entry = held(s, Some(node + left));
        } else if s.look >= held(s, layout!(vma_end)) {
            entry = held(s, Some(node + right));
        } else {
            return FOUND;
        }
    }
    CHANGED
}

/// Checks the mapping that was read, and learns its file and the table of that.
#[inline(always)]
fn identify(s: &mut Unwind) -> u64 {
    let start = held(s, layout!(vma_start));
    let end = held(s, layout!(vma_end));
    // Mappings are used again: this one must be the task's, and hold the address.
    if s.look < start || s.look >= end || held(s, layout!(vma_mm)) != s.mm {
        return CHANGED;
    }
    let file = held(s, layout!(vma_file));
    s.current.start = start;
    s.current.end = end;
    s.current.delta = (held(s, layout!(vma_pgoff)) << 12).wrapping_sub(start);
    s.current.flags = held(s, layout!(vma_flags));
    forget(s);
    if s.current.flags & EXECUTABLE == 0 && s.any == 0 {
        return FOUND;
    }
    if file == 0 {
        if held(s, layout!(vma_ops)) == 0 {
            s.current.may_be_script = 1;
            return FOUND;
        }
        // The kernel's own pages: the vDSO, or the place that uprobes run instructions at.
        s.current.key.inode = SPECIAL;
        s.current.key.generation = ((end - start) >> 12 | s.is_narrow << NARROW_SHIFT) as u32;
        s.current.delta = 0_u64.wrapping_sub(start);
    } else {
        let known = identify_file(s, file);
        if known != FOUND {
            return known;
        }
    }
    s.current.tag = tag(s.current.key.number());
    // Who only asks which file it is wants no table of it.
    if s.any != 0 {
        return FOUND;
    }
    recognise(s);
    FOUND
}

/// Nothing is known of the file.
#[inline(always)]
fn forget(s: &mut Unwind) {
    s.current.tag = 0;
    s.current.may_be_script = 0;
    s.current.key.inode = 0;
    s.current.key.written = 0;
    s.current.key.device = 0;
    s.current.key.generation = 0;
    s.current.table.pages = 0;
    s.current.table.state = 0;
}

/// Learns the table of the file that was identified, and tells user space of a file that it does not know.
#[inline(always)]
fn recognise(s: &mut Unwind) {
    let Some(table) = UNWIND_FILES.get_ptr_mut(&s.current.key) else {
        miss::first(s);
        return;
    };
    // SAFETY: a map value of plain numbers; words that change are written whole.
    unsafe {
        s.current.table.first_page = (*table).first_page;
        s.current.table.pages = (*table).pages;
        s.current.table.entry = (*table).entry;
        s.current.table.state = (*table).state;
        if (*table).used_s != s.now_s as u32 {
            (*table).used_s = s.now_s as u32;
        }
        let has_no_table = s.current.table.pages == 0 && s.current.table.state & WITHOUT == 0;
        if (has_no_table || s.current.table.state & CLOSED != 0) && (*table).asked_s != s.now_s as u32 {
            (*table).asked_s = s.now_s as u32;
            miss::tell(s);
        }
    }
    if s.current.table.state & BY_ADDRESS != 0 {
        s.current.tag = 0;
    }
    let python = s.current.table.state >> PYTHON_SHIFT & INTERPRETER;
    if python != 0 {
        s.python = python as u64;
        s.python_base = 0_u64.wrapping_sub(s.current.delta);
    }
    let hotspot = s.current.table.state >> HOTSPOT_SHIFT & INTERPRETER;
    if hotspot != 0 {
        s.hotspot = hotspot as u64;
        s.hotspot_base = 0_u64.wrapping_sub(s.current.delta);
    }
    let v8 = s.current.table.state >> V8_SHIFT & INTERPRETER;
    if v8 != 0 {
        s.v8 = v8 as u64;
        s.current.may_be_script = 1;
    }
}

/// The current task begins to execute a program: user space is told of its file as if a walk had met it, so that what it runs is known before it
/// is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn executed(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    let (Some(exe_file), Some(vma_file)) = (layout!(mm_exe_file), layout!(vma_file)) else { return 0 };
    forget(s);
    s.current.start = 0;
    s.current.end = 0;
    if !fetch(&raw mut s.word, 8, s.mm + exe_file) || s.word == 0 {
        return 0;
    }
    let file = s.word;
    // The place of the file's pointer is read again afterwards, as that of a mapping.
    s.vma = (s.mm + exe_file).wrapping_sub(vma_file);
    if identify_file(s, file) == FOUND {
        recognise(s);
    }
    0
}

/// Reads which file it is.
#[inline(always)]
fn identify_file(s: &mut Unwind, file: u64) -> u64 {
    let (Some(file_inode), Some(sb), Some(ino), Some(generation), Some(dev), Some(vma_file)) =
        (layout!(file_inode), layout!(inode_sb), layout!(inode_ino), layout!(inode_generation), layout!(sb_dev), layout!(vma_file))
    else {
        return NOTHING;
    };
    if !fetch(&raw mut s.word, 8, file + file_inode) {
        return CHANGED;
    }
    let inode = s.word;
    // i_sb, i_mapping, i_security and i_ino stand side by side in all kernels so far; where they do not, two reads.
    let read = if ino == sb + 24 {
        fetch(s.inode.as_mut_ptr(), 32, inode + sb)
    } else {
        fetch(&raw mut s.inode[0], 8, inode + sb) && fetch(&raw mut s.inode[3], 8, inode + ino)
    };
    let read = read
        && fetch((&raw mut s.current.key.generation).cast(), 4, inode + generation)
        && fetch((&raw mut s.current.key.device).cast(), 4, s.inode[0] + dev)
        && fetch(&raw mut s.word, 8, s.vma + vma_file);
    // Still the same file: else the mapping went while its file was looked at.
    if !read || s.word != file {
        return CHANGED;
    }
    s.current.key.inode = s.inode[3];
    s.current.key.written = written_at(s, inode);
    FOUND
}

/// When an inode's file was last written to (see [`FileKey::written`]).
#[inline(always)]
fn written_at(s: &mut Unwind, inode: u64) -> u64 {
    s.inode[2] = 0;
    let read = if let (Some(seconds), Some(nanoseconds)) = (layout!(inode_mtime_sec), layout!(inode_mtime_nsec)) {
        fetch(&raw mut s.inode[1], 8, inode + seconds) && fetch(&raw mut s.inode[2], 4, inode + nanoseconds)
    } else if let Some(time) = layout!(inode_mtime) {
        fetch(&raw mut s.inode[1], 16, inode + time)
    } else if let Some(time) = layout!(inode_mtime_private) {
        fetch(&raw mut s.inode[1], 16, inode + time)
    } else {
        false
    };
    if read { FileKey::written_at(s.inode[1], s.inode[2]) } else { 0 }
}
