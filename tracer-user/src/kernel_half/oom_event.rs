//! The kernel half's events, from bytes of the ring, and kills put together from them.

use tracer_common::oom::{OOM_KILL, OOM_VICTIM, OomKill, OomVictim};

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a few at a time, and moved once")]
pub enum Event {
    /// A kill begins.
    Kill(OomKill),
    /// A victim of the kill with that number.
    Victim(OomVictim),
}

/// Reads one item of the ring; `None` for what is none of ours.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Event> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    match kind {
        OOM_KILL => plain::<OomKill>(bytes).map(Event::Kill),
        OOM_VICTIM => plain::<OomVictim>(bytes).map(Event::Victim),
        _ => None,
    }
}

fn plain<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a value of this plain type; the read does not need alignment.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A number that may be unknown.
#[must_use]
pub fn known(number: u64) -> Option<u64> {
    (number != tracer_common::oom::UNKNOWN).then_some(number)
}

/// Pages as bytes.
#[must_use]
pub fn pages(number: u64, page_bytes: u64) -> Option<u64> {
    known(number).map(|pages| pages.saturating_mul(page_bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_or_foreign_is_no_event() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&OOM_KILL.to_ne_bytes()), None);
        assert_eq!(decode(&[9; 4096]), None);
        let mut bytes = vec![0; size_of::<OomVictim>()];
        bytes[..4].copy_from_slice(&OOM_VICTIM.to_ne_bytes());
        bytes[8..16].copy_from_slice(&7_u64.to_ne_bytes());
        let Some(Event::Victim(victim)) = decode(&bytes) else { panic!() };
        assert_eq!(victim.number, 7);
        assert!(decode(&bytes[1..]).is_none());
    }
}
