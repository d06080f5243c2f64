//! Names of other processes made safe to print. Every name is hostile.

use std::fmt::Write;

/// Escapes what could move a cursor, end a line, reverse text or break XML: control characters, line separators, bidirectional controls,
/// byte-order marks and noncharacters become `\xNN`, one for each byte.
#[must_use]
pub fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    push_escaped(&mut escaped, name);
    escaped
}

/// [`escape`] for names that may not be UTF-8: invalid bytes become `\xNN` too.
#[must_use]
pub fn escape_bytes(name: &[u8]) -> String {
    let mut escaped = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        push_escaped(&mut escaped, chunk.valid());
        push_hex(&mut escaped, chunk.invalid());
    }
    escaped
}

/// Every byte of the text as `\xNN`.
#[must_use]
pub fn hex(text: &str) -> String {
    let mut escaped = String::with_capacity(4 * text.len());
    push_hex(&mut escaped, text.as_bytes());
    escaped
}

fn push_escaped(escaped: &mut String, text: &str) {
    for character in text.chars() {
        if is_unsafe(character) {
            push_hex(escaped, character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            escaped.push(character);
        }
    }
}

fn push_hex(escaped: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(escaped, "\\x{byte:02x}");
    }
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || u32::from(character) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_terminal_is_escaped() {
        assert_eq!(escape("a\nb\x1b[31m\u{202e}"), r"a\x0ab\x1b[31m\xe2\x80\xae");
        assert_eq!(escape("\u{85}\u{2028}\u{ffff}"), r"\xc2\x85\xe2\x80\xa8\xef\xbf\xbf");
        assert_eq!(escape("Ünïcode::<T> é漢"), "Ünïcode::<T> é漢");
        assert_eq!(escape_bytes(b"a\xff\xc3(\0"), r"a\xff\xc3(\x00");
    }
}
