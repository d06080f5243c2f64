//! One frame to its caller.

use super::{CODE, GUESSED_CALLER, GUESSED_LEAF, LOOK, STEP, mapping::EXECUTABLE, state};
use crate::managed::hotspot;
use crate::{
    maps::{SCRATCH, UNWIND_PAGES, UNWIND_ROWS, UNWIND_RULES},
    values::{KNOWN, Range, Unwind, WINDOW},
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_common::{
    stack::{DEEPEST, IN_FILE, INNERMOST, LEFT_OUT, MAX_FRAMES, in_file},
    unwind::{
        CHUNK_ROWS, End, FileTable, Memory, PAGE_BYTES, Registers, Rule, SPECIAL, WITHOUT, kind, register, search,
        step::{by_frame_pointer, by_rule},
    },
};

/// The part of the stack that was read last.
pub struct Window<'a> {
    words: &'a mut [u64; WINDOW],
    at: &'a mut u64,
    bytes: &'a mut u64,
    value: &'a mut u64,
}

impl Memory for Window<'_> {
    /// Reads the stack by the window: from the address on, and never over the end of its page, behind which nothing may be.
    #[inline(always)]
    fn read(&mut self, address: u64) -> bool {
        let mut at = address.wrapping_sub(*self.at);
        if at >= *self.bytes {
            let to_end = PAGE_BYTES - (address & (PAGE_BYTES - 1));
            let bytes = if to_end < (WINDOW * 8) as u64 { to_end } else { (WINDOW * 8) as u64 };
            // SAFETY: no more than the window has; the helper checks the address.
            let failed = unsafe { bpf_probe_read_user(self.words.as_mut_ptr().cast(), bytes as u32, address as *const _) };
            if failed != 0 {
                *self.bytes = 0;
                return false;
            }
            *self.at = address;
            *self.bytes = bytes;
            at = 0;
        }
        *self.value = self.words[(at / 8) as usize & (WINDOW - 1)];
        true
    }

    #[inline(always)]
    fn value(&self) -> u64 {
        *self.value
    }
}

/// Records the frame and finds the rule that leads to its caller. [`STEP`], [`LOOK`] if its mapping must be found first, [`CODE`] if a JVM may have
/// made its code, or an [`End`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn record(slot: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return End::NoRegisters as u64 };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let (s, frames) = unsafe { (&mut (*scratch).unwind, &mut (*scratch).stack.frames) };
    // The instruction before a return address is the call, and may be the last of its function.
    let look = s.registers.pc.wrapping_sub(s.registers.returns);
    s.look = look;
    if look.wrapping_sub(s.current.start) >= s.current.end.wrapping_sub(s.current.start) && !recall(s) {
        leave_mapping(s);
        return LOOK;
    }
    if s.current.flags & EXECUTABLE == 0 {
        return End::NoMapping as u64;
    }
    // Code without a file: what made it knows more than the frame pointer does.
    if s.current.may_be_script != 0 && s.current.key.inode == 0 && s.java_asked == 0 && s.java_state != hotspot::NO_JVM {
        s.java_asked = 1;
        return CODE;
    }
    // Behind the innermost frames the latest ones, in a ring: the outermost of all, in the end.
    frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = number_of(&s.current, s.registers.pc);
    let is_script = s.current.may_be_script != 0 && s.registers.bp_known != 0;
    s.script_frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = if is_script { s.registers.bp } else { 0 };
    s.rule.kind = kind::NONE;
    if let Some(rule) = rule_at(s, look) {
        s.rule = *rule;
    }
    if s.rule.kind == kind::NONE && s.registers.returns != 0 {
        // Nobody calls out of code that nothing describes: the address may be that of a function which was put there to be returned to.
        s.registers.returns = 0;
        s.is_planted = 1;
        return End::Not as u64;
    }
    advance(s);
    // It was, as under a stack that a program made itself (makecontext of glibc): nothing called it.
    if s.is_planted != 0 && s.rule.kind != kind::NONE {
        return End::Root as u64;
    }
    s.is_planted = 0;
    STEP
}

/// The number of the frame at an address of a mapping.
#[inline(always)]
fn number_of(mapping: &Range, address: u64) -> u64 {
    if mapping.tag == 0 { address & !IN_FILE } else { in_file(mapping.tag, address.wrapping_add(mapping.delta)) }
}

/// Makes ready the look-up of the mapping of an address that the kernel's own walker left among the slot's frames; [`LOOK`] if it must be looked up.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn aim(slot: u64, at: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let (s, frames) = unsafe { (&mut (*scratch).unwind, &(*scratch).stack.frames) };
    let address = frames[(at & (MAX_FRAMES as u64 - 1)) as usize];
    // The instruction before a return address is the call.
    s.look = address.wrapping_sub(u64::from(at != 0));
    if s.look.wrapping_sub(s.current.start) < s.current.end.wrapping_sub(s.current.start) || recall(s) {
        return 0;
    }
    leave_mapping(s);
    LOOK
}

/// Puts the frame in the place of its address; 0 for what is no code.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put(slot: u64, at: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let (s, frames) = unsafe { (&mut (*scratch).unwind, &mut (*scratch).stack.frames) };
    let frame = &mut frames[(at & (MAX_FRAMES as u64 - 1)) as usize];
    let is_found = s.look.wrapping_sub(s.current.start) < s.current.end.wrapping_sub(s.current.start);
    *frame = if is_found && s.current.flags & EXECUTABLE != 0 { number_of(&s.current, *frame) } else { 0 };
    0
}

/// The current mapping goes to those that the walk remembers, and there is none.
#[inline(always)]
fn leave_mapping(s: &mut Unwind) {
    let left = s.current;
    s.known[(s.turn & (KNOWN as u64 - 1)) as usize] = left;
    s.turn += 1;
    s.current.start = 0;
    s.current.end = 0;
}

/// Goes to the caller by the rule that was found. An [`End`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn step(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return End::NoRegisters as u64 };
    let mut registers = s.registers;
    let leaf = s.is_leaf;
    s.is_leaf = 0;
    s.java_asked = 0;
    let end = if s.rule.kind != kind::NONE { with_rule(s, leaf, &mut registers) } else { without_rule(s, leaf, &mut registers) };
    s.registers = registers;
    if s.rule.kind == kind::OTHER_STACK && end == End::Not {
        left_out(slot, s);
    }
    end as u64
}

/// Records that the function between two stacks is left out.
#[inline(always)]
fn left_out(slot: u64, s: &mut Unwind) {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let frames = unsafe { &mut (*scratch).stack.frames };
    frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = LEFT_OUT;
    s.script_frames[(s.place & (MAX_FRAMES as u64 - 1)) as usize] = 0;
    advance(s);
}

/// The next frame has the next place, and behind the innermost ones one of the ring's.
#[inline(always)]
pub fn advance(s: &mut Unwind) {
    s.length += 1;
    s.place += 1;
    if s.place == DEEPEST as u64 {
        s.place = INNERMOST as u64;
    }
}

/// The stack, as the walk reads it.
#[inline(always)]
pub fn window(s: &mut Unwind) -> Window<'_> {
    Window { words: &mut s.window, at: &mut s.window_at, bytes: &mut s.window_bytes, value: &mut s.word }
}

#[inline(always)]
fn with_rule(s: &mut Unwind, leaf: u64, registers: &mut Registers) -> End {
    let rule = s.rule;
    let mut base = registers.sp;
    let mut return_register = 0;
    if rule.base == register::BP {
        if registers.bp_known == 0 {
            return End::Unsupported;
        }
        base = registers.bp;
    } else if rule.base != register::SP || rule.return_register != 0 {
        // Other registers are known of the innermost frame only, and a system call has overwritten two of them.
        let overwritten = s.leaf[register::ORIG_AX as usize] != u64::MAX && (rule.base == register::R11 || rule.base == register::CX);
        if leaf == 0 || overwritten {
            return End::Unsupported;
        }
        base = s.leaf[(rule.base & 31) as usize % register::COUNT];
        return_register = s.leaf[(rule.return_register & 31) as usize % register::COUNT];
    }
    by_rule(&rule, base, return_register, registers, &mut window(s))
}

/// Without a rule, by the frame pointer: a guess, and less of one where the frame has called.
#[inline(always)]
fn without_rule(s: &mut Unwind, leaf: u64, registers: &mut Registers) -> End {
    // The vDSO has a table from the start. What else the kernel maps is what uretprobes put in the place of return addresses: the frame pointer is
    // that of the caller already, and would skip it.
    if s.current.key.inode == SPECIAL {
        return End::NoRow;
    }
    let end = by_frame_pointer(registers, &mut window(s));
    if end == End::Not {
        // While a table is being made, frame pointers are all that there is, and are taken for what they mostly are.
        let is_lasting = s.current.table.pages != 0 || s.current.table.state & WITHOUT != 0 || s.current.key.inode == 0;
        s.guessed |= if leaf != 0 && is_lasting { GUESSED_LEAF } else { GUESSED_CALLER };
        return end;
    }
    if s.guessed != 0 {
        return End::Chain;
    }
    if s.current.key.inode == 0 {
        End::NoFile
    } else if s.current.table.pages == 0 {
        End::NoTable
    } else {
        End::NoRow
    }
}

/// The rule in force at an address of the current mapping; `None` if there is no table.
#[inline(always)]
fn rule_at(s: &mut Unwind, look: u64) -> Option<&'static Rule> {
    let FileTable { first_page, pages, entry, .. } = s.current.table;
    let offset = look.wrapping_add(s.current.delta);
    let page = (offset / PAGE_BYTES).wrapping_sub(first_page as u64);
    if page >= pages as u64 {
        return None;
    }
    let place = UNWIND_PAGES.get(entry.wrapping_add(page as u32))?;
    let (first, count) = (place.first as u64, place.count as u64);
    let chunk = UNWIND_ROWS.get(place.chunk)?;
    if count == 0 {
        return None;
    }
    let row = search::find(|number| chunk.rows[number as usize & (CHUNK_ROWS - 1)], first, count, offset & (PAGE_BYTES - 1));
    UNWIND_RULES.get(row >> 16)
}

/// Whether one of the mappings of this walk has the address; it becomes the current one.
#[inline(always)]
fn recall(s: &mut Unwind) -> bool {
    let mut at = 0;
    while at < KNOWN {
        let known = s.known[at];
        if s.look.wrapping_sub(known.start) < known.end.wrapping_sub(known.start) {
            s.known[at] = s.current;
            s.current = known;
            return true;
        }
        at += 1;
    }
    false
}
