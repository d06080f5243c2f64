//! A method: its name, its class, the source of that, and its table of lines (src/hotspot/share/oops/method.hpp, constMethod.hpp, constantPool.hpp, klass.hpp, symbol.hpp).

use super::{super::fetch, super::function::announce, super::state as managed, NAMED, UNNAMED, code::const_word};
use crate::{
    maps::{FUNCTIONS, HOTSPOTS},
    values::Managed,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use core::hint::black_box;
use tracer_common::{
    managed::{
        FAR, IN_PLACE, LINES_BYTES, NAME_BYTES, Text,
        hotspot::{CLASS_BYTES, CONST_BYTES, HotSpot, SOURCE_BYTES, STUB},
        key_of_code, number,
    },
    mix64,
};

/// What is known of a method's address is asked anew after so long (2^4 units of 2^30 nanoseconds): its class may have been unloaded, and another
/// have come to its place that is alike.
const EPOCH_SHIFT: u64 = 4;

/// Half a word of the constant part.
#[inline(always)]
fn quarter(m: &Managed, offset: u32) -> u64 {
    const_word(m, offset) >> ((offset & 6) * 8) & 0xffff
}

/// Whether the method in [`Managed::object`] is known: [`NAMED`], or [`UNNAMED`] if it is to be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_method() -> u64 {
    let Some(m) = managed() else { return NAMED };
    let Some(hotspot) = HOTSPOTS.get(m.build as u32) else { return NAMED };
    m.known.number = 0;
    m.code = m.object;
    if m.object & 7 != 0
        || !fetch(&raw mut m.other, 8, m.object + hotspot.method_const as u64)
        || !fetch(m.code_words.as_mut_ptr(), CONST_BYTES as u32, m.other)
    {
        return unreadable(m);
    }
    if m.start != 0 {
        // Where it was interrupted, or has called: not in a method that is native.
        let at = m.start.wrapping_sub(m.other + hotspot.const_code as u64);
        m.at = if at < quarter(m, hotspot.const_code_bytes) { at } else { FAR };
        m.start = 0;
    }
    // All but what changes as the method is used.
    let words = &m.code_words;
    let part = mix64(mix64(words[1], words[2]), mix64(words[4], words[5]));
    m.known.check = mix64(mix64(m.other, part), m.now_s >> EPOCH_SHIFT);
    if let Some(known) = FUNCTIONS.get_ptr(key_of_code(m.process, m.code)) {
        // SAFETY: a map value. One that is being replaced meanwhile belongs to the same method or does not agree.
        let (check, number) = unsafe { ((*known).check, (*known).number) };
        if check == m.known.check {
            return named(m, number);
        }
    }
    UNNAMED
}

/// The frame is that of a function with this number.
#[inline(always)]
fn named(m: &mut Managed, function: u64) -> u64 {
    m.known.number = 1;
    m.marks = number(function, m.at) | IN_PLACE | m.near;
    NAMED
}

/// There is a method that cannot be read: it is counted at the end of the frame, and read again the next time.
#[inline(always)]
fn unreadable(m: &mut Managed) -> u64 {
    m.failed = 1;
    m.at = FAR;
    named(m, 0)
}

/// Reads the last bytes of a name of the JVM's into a buffer; gives how many bytes it has, or none.
#[inline(always)]
fn symbol<const BYTES: usize>(hotspot: &HotSpot, held: &mut u64, buffer: *mut u8, at: u64) -> Option<u64> {
    *held = 0;
    if at == 0 || !fetch(held, 2, at + hotspot.symbol_bytes as u64) {
        return None;
    }
    let all = *held;
    let most = BYTES as u64 - 4;
    // The verifier must see the bound: the compiler would find another way to the same number.
    let bytes = black_box(if all > most { most } else { all }) & 0xff;
    let from = at + hotspot.symbol_text as u64 + all - bytes;
    // SAFETY: no more than the buffer has, by the comparison; the helper checks the address.
    let failed = unsafe { bpf_probe_read_user(buffer.cast(), bytes as u32, from as *const _) };
    if failed != 0 { None } else { Some(all) }
}

/// Reads the name of the method's class, and that of its source, into the slot's event.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_class() -> u64 {
    let Some(m) = managed() else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(m.build as u32) else { return 0 };
    m.event.file_text = Text { characters: 0, width: 0 };
    let pool = const_word(m, hotspot.const_pool);
    if !fetch(&raw mut m.object, 8, pool + hotspot.pool_class as u64) || !fetch(&raw mut m.word, 8, m.object + hotspot.class_name as u64) {
        return 0;
    }
    let at = m.word;
    let Some(bytes) = symbol::<CLASS_BYTES>(hotspot, &mut m.word, m.event.file.as_mut_ptr(), at) else { return 0 };
    m.event.file_text = Text { characters: bytes as u32, width: 1 };
    let holder = if hotspot.source_in_class != 0 { m.object } else { pool };
    m.word = 0;
    let mut is_read = fetch(&raw mut m.word, 2, holder + hotspot.source as u64);
    // A class may have no source.
    if is_read && m.word != 0 {
        is_read = fetch(&raw mut m.word, 8, pool + hotspot.pool_first as u64 + 8 * m.word);
        let at = m.word;
        // SAFETY: inside of the event: the class has no more room than this.
        let behind = unsafe { m.event.file.as_mut_ptr().add(CLASS_BYTES) };
        is_read = is_read && symbol::<SOURCE_BYTES>(hotspot, &mut m.word, behind, at).is_some();
    }
    if !is_read {
        // That is another thing than to have none.
        m.event.file[CLASS_BYTES] = b'?';
        m.failed = 1;
    }
    0
}

/// Reads the name of the method and its table of lines, alike.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_method() -> u64 {
    let Some(m) = managed() else { return 0 };
    let Some(hotspot) = HOTSPOTS.get(m.build as u32) else { return 0 };
    m.event.name_text = Text { characters: 0, width: 0 };
    let (pool, name) = (const_word(m, hotspot.const_pool), quarter(m, hotspot.const_name));
    if !fetch(&raw mut m.word, 8, pool + hotspot.pool_first as u64 + 8 * name) {
        return 0;
    }
    let at = m.word;
    let Some(bytes) = symbol::<NAME_BYTES>(hotspot, &mut m.word, m.event.name.as_mut_ptr(), at) else { return 0 };
    m.event.name_text = Text { characters: bytes as u32, width: 1 };
    m.event.first_line = (name << 16 | quarter(m, hotspot.const_signature)) as u32;
    m.event.code_units = quarter(m, hotspot.const_code_bytes) as u32;
    m.event.lines_format = hotspot.lines;
    m.event.lines_bytes = 0;
    let beginning: *mut u64 = (&raw mut m.event.lines).cast();
    // SAFETY: the first words of the table, which stands at a multiple of 8 in its record.
    unsafe {
        beginning.write(0);
        beginning.add(1).write(0);
    }
    if quarter(m, hotspot.const_flags) & 1 == 0 {
        return 0;
    }
    // Behind the bytecode, and before the end of the constant part.
    let first = hotspot.const_code as u64 + m.event.code_units as u64;
    let end = (const_word(m, hotspot.const_words) >> ((hotspot.const_words & 4) * 8) & 0xffff_ffff) * 8;
    let all = end.wrapping_sub(first);
    let bytes = black_box(if all < LINES_BYTES as u64 { all } else { LINES_BYTES as u64 - 1 });
    // SAFETY: shorter than the buffer by the mask; the helper checks the address.
    let failed = unsafe {
        bpf_probe_read_user(m.event.lines.as_mut_ptr().cast(), (bytes & (LINES_BYTES as u64 - 1)) as u32, (m.other + first) as *const _)
    };
    if failed != 0 {
        m.failed = 1;
        return 0;
    }
    m.event.lines_bytes = all as u32;
    // Two versions of a class may differ in the lines of their source alone.
    // SAFETY: as above.
    let lines = unsafe { mix64(*beginning, *beginning.add(1)) };
    m.event.first_line ^= lines as u32;
    0
}

/// Gives the method its number, and tells user space of it if it was not told before.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_method() -> u64 {
    let Some(m) = managed() else { return NAMED };
    if m.event.name_text.width == 0 || m.event.file_text.width == 0 {
        return unreadable(m);
    }
    let number = announce();
    named(m, number)
}

/// The same of a piece of the JVM's own code, whose name stands at [`Managed::code`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_stub() -> u64 {
    let Some(m) = managed() else { return NAMED };
    // SAFETY: no more than the buffer has; the helper checks the address, and ends the text.
    let bytes = unsafe { bpf_probe_read_user_str(m.event.name.as_mut_ptr().cast(), NAME_BYTES as u32 - 4, m.code as *const _) };
    if bytes <= 1 {
        return unreadable(m);
    }
    m.event.name_text = Text { characters: bytes as u32 - 1, width: 1 };
    m.event.file_text = Text { characters: 0, width: 1 };
    m.event.first_line = 0;
    m.event.code_units = 0;
    m.event.lines_bytes = 0;
    m.event.lines_format = STUB;
    m.known.check = m.code;
    let number = announce();
    m.at = FAR;
    named(m, number)
}
