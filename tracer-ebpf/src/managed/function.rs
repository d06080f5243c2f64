//! Which function a frame is in: its name, its file and its lines, read once in a process, and told to user space once.

use super::{
    LAST, fetch, frame,
    frame::{half, word},
    script, state,
};
use crate::{
    loss,
    maps::{FUNCTION_EVENTS, FUNCTIONS, PYTHONS},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_user};
use core::hint::black_box;
use tracer_common::{
    layout::ABSENT,
    loss::Loss,
    managed::{
        FILE_BYTES, FunctionEvent, KnownFunction, LINES_BYTES, NAME_BYTES, Text, key_of_code, key_of_told, number_of, python::Python,
        v8::POSITIONS,
    },
    mix64,
};

/// Reads the name of the function into the slot's event.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_name() -> u64 {
    let Some(m) = state() else { return 0 };
    let Some(python) = PYTHONS.get(m.build as u32) else { return 0 };
    let at = word(&m.code_words, python.code_name);
    m.event.name_text = text(python, &mut m.word, &mut m.event.name, at);
    0
}

/// Reads the path of its file, alike.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_file() -> u64 {
    let Some(m) = state() else { return 0 };
    let Some(python) = PYTHONS.get(m.build as u32) else { return 0 };
    let at = word(&m.code_words, python.code_file);
    m.event.file_text = text(python, &mut m.word, &mut m.event.file, at);
    0
}

/// Words of the texts of an event, which stand side by side.
const WORDS: u64 = (NAME_BYTES + FILE_BYTES) as u64 / 8;

/// Empties the texts of the slot's event: what is shorter than its room ends in zeros, so that hashes of equal texts are equal.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clear_texts() -> u64 {
    let Some(m) = state() else { return 0 };
    let texts: *mut u64 = (&raw mut m.event.name).cast();
    let mut at = 0;
    while black_box(at) < WORDS {
        // SAFETY: inside of the texts, which stand at a multiple of 8 in their record.
        unsafe { texts.add((at & 63) as usize).write(0) };
        at += 1;
    }
    0
}

/// Empties the path alone.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clear_file() -> u64 {
    let Some(m) = state() else { return 0 };
    let path: *mut u64 = (&raw mut m.event.file).cast();
    let mut at = 0;
    while black_box(at) < FILE_BYTES as u64 / 8 {
        // SAFETY: as above.
        unsafe { path.add((at & 31) as usize).write(0) };
        at += 1;
    }
    0
}

/// A hash of what tells the function of the slot's event from others.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_texts() -> u64 {
    let Some(m) = state() else { return 0 };
    let mut hash = mix64((m.event.first_line as u64) << 32 | m.event.code_units as u64, m.event.lines_bytes as u64);
    let texts: *const u64 = (&raw const m.event.name).cast();
    let mut at = 0;
    while black_box(at) < WORDS {
        // SAFETY: as above.
        hash = mix64(hash, unsafe { *texts.add((at & 63) as usize) });
        at += 1;
    }
    hash
}

/// Reads a text: its last characters if there are more than have room.
#[inline(always)]
fn text<const BYTES: usize>(python: &Python, held: &mut u64, buffer: &mut [u8; BYTES], at: u64) -> Text {
    let unreadable = Text { characters: 0, width: 0 };
    if !fetch(held, 8, at + python.text_length as u64) {
        return unreadable;
    }
    let characters = *held & 0xffff_ffff;
    *held = 0;
    if !fetch(held, 4, at + python.text_state as u64) {
        return unreadable;
    }
    let width = *held >> (python.text_kind & 63) & 7;
    let is_ascii = *held >> (python.text_ascii & 63) & 1 != 0;
    if width != 1 && width != 2 && width != 4 {
        return unreadable;
    }
    let data = at + if is_ascii { python.text_data_ascii } else { python.text_data } as u64;
    // Whole characters of any width have room.
    let most = BYTES as u64 - 4;
    let all = characters * width;
    let bytes = if all > most { most } else { all };
    // SAFETY: shorter than the buffer by the mask; the helper checks the address.
    let failed =
        unsafe { bpf_probe_read_user(buffer.as_mut_ptr().cast(), (bytes & (BYTES as u64 - 1)) as u32, (data + all - bytes) as *const _) };
    if failed != 0 { unreadable } else { Text { characters: characters as u32, width: width as u32 } }
}

/// Gives the function of Python its number, tells user space of it if it was not told before, and records the frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_function() -> u64 {
    let Some(m) = state() else { return LAST };
    let Some(python) = PYTHONS.get(m.build as u32) else { return LAST };
    if m.event.name_text.width == 0 || m.event.file_text.width == 0 {
        loss::count(Loss::ManagedUnreadable, 0);
        return frame::put(m, 0);
    }
    m.event.first_line = half(&m.code_words, python.code_first_line);
    m.event.code_units = if python.code_first == ABSENT { 0 } else { half(&m.code_words, python.code_size) };
    m.event.lines_format = python.lines;
    m.event.lines_bytes = 0;
    let lines = word(&m.code_words, python.code_lines);
    if fetch(&raw mut m.word, 8, lines + python.bytes_length as u64) {
        let bytes = if m.word < LINES_BYTES as u64 { m.word } else { LINES_BYTES as u64 - 1 };
        // SAFETY: shorter than the buffer by the mask; the helper checks the address.
        let failed = unsafe {
            bpf_probe_read_user(
                m.event.lines.as_mut_ptr().cast(),
                (bytes & (LINES_BYTES as u64 - 1)) as u32,
                (lines + python.bytes_data as u64) as *const _,
            )
        };
        if failed == 0 {
            m.event.lines_bytes = m.word as u32;
        }
    }
    let number = announce();
    frame::put(m, number)
}

/// The same of one of JavaScript, without the frame. One that belongs to no script is a part of V8, and has no name but that of its machine code.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_script() -> u64 {
    let Some(m) = state() else { return script::NONE };
    if m.event.file_text.width == 0 || m.event.name_text.width == 0 {
        return script::NONE;
    }
    m.event.code_units = 0;
    m.event.lines_format = POSITIONS;
    announce();
    script::KNOWN
}

/// Gives the function of the slot's event its number, and tells user space of it if it was not told before.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn announce() -> u64 {
    let number = number_of(hash_texts());
    let Some(m) = state() else { return 0 };
    m.event.number = number;
    m.event.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    m.event.reserved = 0;
    m.known.number = number;
    let told = key_of_told(number);
    if FUNCTIONS.get_ptr(told).is_none() {
        if FUNCTION_EVENTS.output::<FunctionEvent>(&m.event, 0).is_err() {
            // It is told when it is met again.
            loss::count(Loss::FunctionLost, 0);
            return number;
        }
        // Where there is no room it is told again.
        let _ = FUNCTIONS.insert(told, KnownFunction { check: number, number }, 0);
    }
    let _ = FUNCTIONS.insert(key_of_code(m.process, m.code), m.known, 0);
    number
}
