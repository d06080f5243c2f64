//! One frame of CPython to the one that called it.

use super::{FULL, LAST, LEARN, NEXT, fetch, state};
use crate::{
    loss,
    maps::{FUNCTIONS, PYTHONS},
    values::{Managed, PIECE},
};
use tracer_common::{
    layout::ABSENT,
    loss::Loss,
    managed::{
        FAR, OUTERMOST, key_of_code, number,
        python::{PIECE_BYTES, Python, entry},
    },
    mix64,
    stack::MAX_FRAMES,
};

/// A word of what was read, by its offset in bytes.
#[inline(always)]
pub fn word(words: &[u64; PIECE], offset: u32) -> u64 {
    words[(offset / 8) as usize & (PIECE - 1)]
}

/// Half a word, alike.
#[inline(always)]
pub fn half(words: &[u64; PIECE], offset: u32) -> u32 {
    (word(words, offset) >> ((offset & 4) * 8)) as u32
}

/// Reads the next frame and records it: [`NEXT`], [`LAST`], [`LEARN`] or [`FULL`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_frame() -> u64 {
    let Some(m) = state() else { return LAST };
    let Some(python) = PYTHONS.get(m.build as u32) else { return LAST };
    if m.frame == 0 {
        return LAST;
    }
    if !fetch(m.frame_words.as_mut_ptr(), python.frame_bytes & (PIECE_BYTES as u32 - 1), m.frame) {
        return unreadable(m);
    }
    m.frame = word(&m.frame_words, python.frame_previous);
    let owner = word(&m.frame_words, python.frame_entry) >> ((python.frame_entry & 7) * 8) & 0xff;
    if python.entry == entry::OWNER && owner >= python.entry_value as u64 {
        // The evaluation loop's own: the frame before it is the one for which it was called.
        let before = m.place.wrapping_sub(1);
        let is_managed = m.frames[(before & (MAX_FRAMES as u64 - 1)) as usize] >> 62 == 1;
        if is_managed {
            m.frames[(before & (MAX_FRAMES as u64 - 1)) as usize] |= OUTERMOST;
        }
        return NEXT;
    }
    if m.place >= MAX_FRAMES as u64 {
        return FULL;
    }
    let is_outermost = python.entry == entry::EACH || python.entry == entry::FLAG && owner != 0;
    m.marks = if is_outermost { OUTERMOST } else { 0 };
    m.code = word(&m.frame_words, python.frame_code) & !(python.code_marks as u64);
    let at = if python.code_first == ABSENT {
        half(&m.frame_words, python.frame_place) as i32 as i64
    } else {
        // Instructions are units of two bytes.
        word(&m.frame_words, python.frame_place).wrapping_sub(m.code + python.code_first as u64) as i64 >> 1
    };
    // Before the first one: the frame has not begun.
    m.at = if at < 0 { 0 } else { at as u64 };
    if !fetch(m.code_words.as_mut_ptr(), python.code_bytes & (PIECE_BYTES as u32 - 1), m.code) {
        return unreadable(m);
    }
    m.known.check = check(m, python);
    if let Some(known) = FUNCTIONS.get_ptr(key_of_code(m.process, m.code)) {
        // SAFETY: a map value. One that is being replaced meanwhile belongs to the same code or does not agree.
        let (check, number) = unsafe { ((*known).check, (*known).number) };
        if check == m.known.check {
            return put(m, number);
        }
    }
    LEARN
}

/// A hash of what a code object points to: another one in its place has another.
#[inline(always)]
fn check(m: &Managed, python: &Python) -> u64 {
    let code = &m.code_words;
    let texts = mix64(word(code, python.code_name), word(code, python.code_file));
    mix64(mix64(texts, word(code, python.code_lines)), (half(code, python.code_first_line) as u64) << 32 ^ word(code, python.code_size))
}

/// Records a frame of the function with that number.
#[inline(always)]
pub fn put(m: &mut Managed, function: u64) -> u64 {
    if m.place >= MAX_FRAMES as u64 {
        return FULL;
    }
    m.frames[(m.place & (MAX_FRAMES as u64 - 1)) as usize] = number(function, m.at) | m.marks;
    m.place += 1;
    if m.frame == 0 { LAST } else { NEXT }
}

/// Records that there are frames which cannot be read, and ends the walk.
#[inline(always)]
fn unreadable(m: &mut Managed) -> u64 {
    loss::count(Loss::ManagedUnreadable, 0);
    m.at = FAR;
    m.marks = 0;
    put(m, 0);
    // Those further out are missing.
    FULL
}
