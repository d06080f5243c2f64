//! Names of tasks, as the kernel keeps them: up to 15 bytes of anything, with NULs behind.

use crate::text;

/// The name without its padding, and without the newline of `/proc/PID/comm`.
#[must_use]
pub fn bytes(comm: &[u8]) -> &[u8] {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    comm[..end].strip_suffix(b"\n").unwrap_or(&comm[..end])
}

/// The same, escaped.
#[must_use]
pub fn text(comm: &[u8]) -> String {
    text::escape_bytes(bytes(comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_padding_or_the_newline_behind_it() {
        assert_eq!(bytes(b"java\0\0x"), b"java");
        assert_eq!(bytes(b"java\n"), b"java");
        assert_eq!((bytes(b"a\nb\n"), bytes(b"\0"), bytes(b"")), (&b"a\nb"[..], &b""[..], &b""[..]));
        assert_eq!(text(b"a\nb\n"), r"a\x0ab");
    }
}
