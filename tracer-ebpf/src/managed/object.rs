//! Objects of V8's heap: their types, the name of a function, and text. The garbage collector may be moving them at the moment: where the type
//! should stand then stands where the object is by now.

use super::{fetch, frame::word, state};
use crate::{loss, maps::V8S, values::Managed};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_common::{
    loss::Loss,
    managed::{FILE_BYTES, NAME_BYTES, Text},
};

/// Stands for the type of what is no object.
const NO_TYPE: u64 = u64::MAX;
/// Stands for that of an object which cannot be read.
const UNREADABLE: u64 = u64::MAX - 1;
/// In an object's type, where that of the object stands.
const TYPE: u64 = 12;
/// Types from here on are none of text.
const NO_TEXT: u64 = 128;
/// Most objects that a text is followed through.
const MOST_HOPS: u64 = 8;
/// A function has no more names in its scope that stand there themselves.
const MOST_INLINE: u64 = 75;
/// Names in a scope that is believed.
const MOST_NAMES: u64 = 4096;

/// Finds the type of the slot's object, or that it has none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn_type() -> u64 {
    let Some(m) = state() else { return 0 };
    m.object_type = NO_TYPE;
    if m.object & 3 != 1 {
        return 0;
    }
    m.object_type = UNREADABLE;
    if !fetch(&raw mut m.word, 8, m.object - 1) {
        return 0;
    }
    if m.word & 1 == 0 {
        m.object = m.word + 1;
        if !fetch(&raw mut m.word, 8, m.object - 1) {
            return 0;
        }
    }
    let at = m.word.wrapping_sub(1) + TYPE;
    m.word = 0;
    if fetch(&raw mut m.word, 2, at) {
        m.object_type = m.word;
    }
    0
}

/// Makes the name of the function the slot's object, and reads its position. Where another name that V8 inferred is besides, that follows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_function() -> u64 {
    let Some(m) = state() else { return 0 };
    let Some(v8) = V8S.get(m.build as u32) else { return 0 };
    m.event.first_line = 0;
    m.event.name_text = Text { characters: 0, width: 1 };
    m.other = 0;
    m.object = word(&m.code_words, v8.shared_name);
    learn_type();
    if m.object_type < NO_TEXT {
        return 0;
    }
    let scope = m.object;
    m.object = 0;
    if m.object_type == UNREADABLE {
        return unreadable(&mut m.event.name_text);
    }
    if m.object_type != v8.type_scope as u64 {
        return 0;
    }
    if !fetch(m.frame_words.as_mut_ptr(), 40, scope - 1 + 8) {
        return unreadable(&mut m.event.name_text);
    }
    let flags = if v8.is_packed != 0 { m.frame_words[0] & 0xffff_ffff } else { m.frame_words[0] >> 32 };
    let mut names = m.frame_words[2] >> 32;
    if names > MOST_NAMES {
        names = MOST_NAMES;
    }
    let position = m.frame_words[3] >> 32;
    let mut at = v8.scope_start as u64 + 8 * names + if names < MOST_INLINE { 8 * names } else { 8 };
    if flags & 15 == v8.module_scope as u64 {
        at += v8.module_more as u64;
    }
    if flags >> 10 & 1 != 0 {
        at += 8;
    }
    if !fetch(m.frame_words.as_mut_ptr(), 40, scope - 1 + at) {
        return unreadable(&mut m.event.name_text);
    }
    let mut next = 0;
    if flags >> 12 & 3 != 0 {
        m.object = m.frame_words[0];
        next = 2;
    }
    if flags >> 14 & 1 != 0 {
        m.other = m.frame_words[next & 3];
        next += 1;
    }
    m.event.first_line = if v8.is_packed != 0 { position } else { m.frame_words[next & 3] >> 32 } as u32;
    0
}

/// Makes the name that V8 inferred the slot's object, if the function has no other.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_other() -> u64 {
    let Some(m) = state() else { return 0 };
    let has_none = m.event.name_text.characters == 0 && m.event.name_text.width != 0;
    m.object = if has_none { m.other } else { 0 };
    0
}

/// Makes the path of the function's script the slot's object, and reads how long the script is. Without a script there is no path, and its text is
/// not to be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_script() -> u64 {
    /// In what stands for a script while it is debugged, the script.
    const DEBUGGED: u64 = 24;
    let Some(m) = state() else { return 0 };
    let Some(v8) = V8S.get(m.build as u32) else { return 0 };
    m.event.file_text = Text { characters: 0, width: 0 };
    m.object = word(&m.code_words, v8.shared_script);
    learn_type();
    if v8.type_debug != 0 && m.object_type == v8.type_debug as u64 && fetch(&raw mut m.object, 8, m.object - 1 + DEBUGGED) {
        learn_type();
    }
    let script = m.object;
    m.object = 0;
    if m.object_type == UNREADABLE {
        return unreadable(&mut m.event.file_text);
    }
    if m.object_type != v8.type_script as u64 {
        return 0;
    }
    // The source and the name.
    if !fetch(m.frame_words.as_mut_ptr(), 24, script - 1) {
        return unreadable(&mut m.event.file_text);
    }
    m.event.file_text.width = 1;
    m.object = m.frame_words[2];
    m.word = 0;
    // The length is 0 for a source that is none.
    fetch(&raw mut m.word, 4, m.frame_words[1] - 1 + 12);
    m.event.lines_bytes = m.word as u32;
    0
}

/// A text cannot be read: the function is not told, rather than told without it.
#[inline(always)]
fn unreadable(text: &mut Text) -> u64 {
    loss::count(Loss::ManagedUnreadable, 0);
    text.width = 0;
    0
}

/// Reads the slot's object, if it is text, into the name of its event, or with 1 the path. Of pieces that are put together two are read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_text(is_file: u64) -> u64 {
    let Some(m) = state() else { return 0 };
    (m.filled, m.behind, m.start) = (0, 0, 0);
    let mut hop = 0;
    while hop < MOST_HOPS {
        if follow_text(is_file) == 0 {
            break;
        }
        hop += 1;
    }
    0
}

/// One object of a text: whether there is another.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_text(is_file: u64) -> u64 {
    learn_type();
    let Some(m) = state() else { return 0 };
    let text = if is_file != 0 { &mut m.event.file_text } else { &mut m.event.name_text };
    if m.object_type == UNREADABLE {
        return unreadable(text);
    }
    if m.object_type >= NO_TEXT {
        return 0;
    }
    // The length stands in the upper half of the first word; what the others are depends on the kind.
    if !fetch(m.frame_words.as_mut_ptr(), 24, m.object - 1 + 8) {
        return unreadable(text);
    }
    let (length, first, second) = (m.frame_words[0] >> 32, m.frame_words[1], m.frame_words[2]);
    let data = match m.object_type & 7 {
        0 => m.object - 1 + 16,
        // Characters elsewhere, unless they are not kept.
        2 if m.object_type & 16 == 0 => second,
        1 => {
            m.behind = second;
            m.object = first;
            return 1;
        }
        3 => {
            m.start += second >> 32;
            m.object = first;
            return 1;
        }
        5 => {
            m.object = first;
            return 1;
        }
        _ => return 0,
    };
    let width = if m.object_type & 8 != 0 { 1 } else { 2 };
    append(m, is_file, data, width, length.wrapping_sub(m.start) & 0xffff_ffff);
    m.start = 0;
    m.object = m.behind;
    m.behind = 0;
    u64::from(m.object != 0)
}

/// Appends characters to a text of the event: the last ones of a single piece that is too long.
#[inline(always)]
fn append(m: &mut Managed, is_file: u64, data: u64, width: u64, characters: u64) {
    let most = if is_file != 0 { FILE_BYTES } else { NAME_BYTES } as u64 - 4;
    let text = if is_file != 0 { &mut m.event.file_text } else { &mut m.event.name_text };
    // Pieces of different widths: the first is told.
    if m.filled != 0 && text.width as u64 != width || m.filled >= most {
        return;
    }
    let all = characters * width;
    let room = most - m.filled;
    let bytes = if all > room { room } else { all };
    let skipped = if m.filled == 0 { all - bytes } else { 0 };
    let from = data + m.start * width + skipped;
    let to: *mut u8 = if is_file != 0 {
        // SAFETY: what follows the path in the event is larger than it.
        unsafe { m.event.file.as_mut_ptr().add((m.filled & (FILE_BYTES as u64 - 1)) as usize) }
    } else {
        // SAFETY: and the path follows the name, and is read later.
        unsafe { m.event.name.as_mut_ptr().add((m.filled & (NAME_BYTES as u64 - 1)) as usize) }
    };
    // SAFETY: a piece is no longer than the path, behind which there is as much room; the helper checks the address.
    if unsafe { bpf_probe_read_user(to.cast(), (bytes & (NAME_BYTES as u64 * 2 - 1)) as u32, from as *const _) } != 0 {
        unreadable(text);
        return;
    }
    text.width = width as u32;
    text.characters += characters as u32;
    m.filled += bytes;
}
