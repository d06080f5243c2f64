//! Payloads: CBOR, compressed with zstd, both bounded on the way in.
//!
//! Never decodes before the number of CBOR items is known: a byte of CBOR can become hundreds of bytes of structures.

use super::Problem;
use super::frame::{MAX_PLAIN, MAX_STORED};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;

/// Compression level: zstd's own default, whose window is 2 MiB.
const LEVEL: i32 = 3;

/// Largest zstd window that a reader allocates for, as a power of two: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;

/// Most CBOR items of one payload. A report of 280,000 stacks has about as many; decoded, they take around 1 GiB at worst.
pub(super) const MAX_ITEMS: u64 = 16 << 20;

/// Deepest nesting of CBOR.
const MAX_DEPTH: usize = 64;

/// A payload as stored.
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    pub(super) stored: u32,
    pub(super) plain: u32,
}

/// Encodes and compresses; refuses what no reader would accept.
pub(super) fn pack<T: Serialize>(value: &T, name: &str) -> Result<Packed, Problem> {
    let too_large = |what: String| Problem::TooLarge { what: format!("{name} has {what}") };
    let mut cbor = Vec::new();
    ciborium::into_writer(value, &mut cbor).map_err(|error| Problem::TooLarge { what: format!("{name} cannot be encoded: {error}") })?;
    let plain = u32::try_from(cbor.len()).ok().filter(|length| *length <= MAX_PLAIN);
    let plain = plain.ok_or_else(|| too_large(format!("{} bytes, a frame holds {MAX_PLAIN}", cbor.len())))?;
    let items = count_items(&cbor).map_err(too_large)?;
    if items > MAX_ITEMS {
        return Err(too_large(format!("{items} values, a frame holds {MAX_ITEMS}")));
    }
    let bytes = zstd::bulk::compress(&cbor, LEVEL).map_err(|error| too_large(format!("a payload that cannot be compressed: {error}")))?;
    let stored = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_STORED);
    let stored = stored.ok_or_else(|| too_large(format!("{} compressed bytes, a frame holds {MAX_STORED}", bytes.len())))?;
    Ok(Packed { bytes, stored, plain })
}

/// Decompresses to exactly the promised length. Memory is bounded by that length and the window.
pub(super) fn decompress(stored: &[u8], plain: u32) -> Result<Vec<u8>, String> {
    let damaged = |error: std::io::Error| format!("a payload does not decompress: {error}");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(damaged)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(damaged)?;
    let mut cbor = Vec::new();
    decoder.take(u64::from(plain) + 1).read_to_end(&mut cbor).map_err(damaged)?;
    if cbor.len() as u64 != u64::from(plain) {
        return Err(format!("a payload decompresses to another length than the {plain} bytes promised"));
    }
    Ok(cbor)
}

/// Decodes CBOR whose items have been counted.
pub(super) fn decode<T: DeserializeOwned>(cbor: &[u8], name: &str) -> Result<T, String> {
    ciborium::de::from_reader_with_recursion_limit(cbor, MAX_DEPTH).map_err(|error| format!("{name} does not decode: {error}"))
}

/// Counts the items of well-formed CBOR in one pass without recursion: heads follow each other, only strings have bytes between.
pub(super) fn count_items(cbor: &[u8]) -> Result<u64, String> {
    let mut rest = cbor;
    let mut items = 0;
    while let Some((&first, after)) = rest.split_first() {
        items += 1;
        let argument_bytes = match first & 0x1f {
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            28..=30 => return Err("a payload has a reserved CBOR head".to_owned()),
            _ => 0,
        };
        let cut = || "a payload ends inside a CBOR item".to_owned();
        let (argument, after) = after.split_at_checked(argument_bytes).ok_or_else(cut)?;
        let value = argument.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let value = if argument_bytes == 0 { u64::from(first & 0x1f) } else { value };
        let is_string = matches!(first >> 5, 2 | 3) && first & 0x1f != 31;
        let content = if is_string { usize::try_from(value).map_err(|_| cut())? } else { 0 };
        rest = after.get(content..).ok_or_else(cut)?;
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_counted_without_recursion() {
        let mut cbor = Vec::new();
        ciborium::into_writer(&("text".to_owned(), vec![1_u64, 70_000], 1.5_f64, None::<u8>), &mut cbor).unwrap();
        assert_eq!(count_items(&cbor), Ok(7));
        assert_eq!(count_items(&[0x81; 1_000_000]), Ok(1_000_000));
        assert!(count_items(&[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'a']).is_err());
        assert!(count_items(&[0x19, 0x01]).is_err());
        assert!(count_items(&[0x1c]).is_err());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(decode::<serde_json::Value>(&[0x81; 10_000], "it").is_err());
    }

    #[test]
    fn long_strings_survive() {
        let long = serde_json::json!({ "name": "x".repeat(100_000) });
        let packed = pack(&long, "it").unwrap();
        let cbor = decompress(&packed.bytes, packed.plain).unwrap();
        assert_eq!(decode::<serde_json::Value>(&cbor, "it").unwrap(), long);
    }

    #[test]
    fn a_bomb_stops_at_the_promised_length() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(decompress(&bomb, 1000).is_err());
    }
}
