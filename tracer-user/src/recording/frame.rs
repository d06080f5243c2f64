//! The framing of a recording: a preamble, then frames of a fixed head and a payload.
//!
//! Knows lengths and checksums, never what a payload means.

use bytes::{Buf, BufMut, BytesMut};

/// Version of the framing. A reader refuses a larger one; new frame kinds do not change it.
pub const FORMAT: u32 = 1;

/// Most bytes of one payload as stored.
pub const MAX_STORED: u32 = 256 << 20;

/// Most bytes of one payload after decompression.
pub const MAX_PLAIN: u32 = 256 << 20;

/// First bytes of every recording: not text, not UTF-8, and a newline that a text-mode copy would break.
const MAGIC: [u8; 8] = *b"\x89MTRAIL\n";

/// Length of the preamble: magic and format.
pub(super) const PREAMBLE_BYTES: usize = 12;

/// Length of a frame's head.
pub(super) const HEAD_BYTES: usize = 20;

/// What a frame holds. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// [`super::Header`], first and once.
    Header = 1,
    /// [`crate::report::Interval`].
    Interval = 2,
    /// [`crate::report::Report`].
    Report = 3,
    /// An empty payload, last and once.
    End = 4,
    /// [`super::Mark`]: names the report before it.
    Mark = 5,
    /// [`super::changes::Changes`]: an interval as what changed since the one before.
    Changes = 6,
}

impl Kind {
    pub(super) fn from_number(number: u32) -> Option<Kind> {
        [Kind::Header, Kind::Interval, Kind::Report, Kind::End, Kind::Mark, Kind::Changes].into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// A [`Kind`] number, or one of a later version.
    pub(super) kind: u32,
    /// Bytes of the payload as stored.
    pub(super) stored: u32,
    /// Bytes of the payload after decompression.
    pub(super) plain: u32,
    /// CRC-32 of the stored payload.
    pub(super) payload_crc: u32,
}

/// The bytes before the first frame.
pub(super) fn preamble() -> BytesMut {
    let mut bytes = BytesMut::with_capacity(PREAMBLE_BYTES);
    bytes.put_slice(&MAGIC);
    bytes.put_u32_le(FORMAT);
    bytes
}

/// The format number of a preamble, `None` if the magic is another.
pub(super) fn parse_preamble(bytes: [u8; PREAMBLE_BYTES]) -> Option<u32> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    Some(rest.get_u32_le())
}

/// Whether these first bytes could become a preamble.
pub(super) fn is_start_of_preamble(bytes: &[u8]) -> bool {
    let known = bytes.len().min(MAGIC.len());
    bytes[..known] == MAGIC[..known]
}

/// One frame, ready to append in a single write.
pub(super) fn encode(kind: Kind, payload: &[u8], stored: u32, plain: u32) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    bytes.put_u32_le(kind as u32);
    bytes.put_u32_le(stored);
    bytes.put_u32_le(plain);
    bytes.put_u32_le(crc32fast::hash(payload));
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32_le(crc);
    bytes.put_slice(payload);
    bytes
}

/// The head, or what is wrong with it.
pub(super) fn parse_head(bytes: [u8; HEAD_BYTES]) -> Result<Head, String> {
    let mut rest = &bytes[..];
    let head = Head { kind: rest.get_u32_le(), stored: rest.get_u32_le(), plain: rest.get_u32_le(), payload_crc: rest.get_u32_le() };
    if crc32fast::hash(&bytes[..HEAD_BYTES - 4]) != rest.get_u32_le() {
        return Err("the checksum of a frame's head is wrong".to_owned());
    }
    if head.stored > MAX_STORED || head.plain > MAX_PLAIN {
        return Err(format!("a frame claims {} stored and {} plain bytes, more than any may have", head.stored, head.plain));
    }
    Ok(head)
}
