//! OOM kills and their victims, in order.

use super::{Decode, Ring};
use crate::kernel_half::{BpfError, loaded::KernelHalf, tables::rings};
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

impl Decode for Event {
    fn decode(bytes: &[u8]) -> Option<Event> {
        match u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) {
            OOM_KILL => super::plain(bytes).map(Event::Kill),
            OOM_VICTIM => super::plain(bytes).map(Event::Victim),
            _ => None,
        }
    }
}

/// Takes the ring over.
pub fn ring(half: &mut KernelHalf) -> Result<Ring<Event>, BpfError> {
    Ring::take(half, &rings::OOM_EVENTS)
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
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_or_foreign_is_no_event() {
        assert_eq!(Event::decode(&[]), None);
        assert_eq!(Event::decode(&OOM_KILL.to_ne_bytes()), None);
        assert_eq!(Event::decode(&[9; 4096]), None);
        let mut bytes = vec![0; size_of::<OomVictim>()];
        bytes[..4].copy_from_slice(&OOM_VICTIM.to_ne_bytes());
        bytes[8..16].copy_from_slice(&7_u64.to_ne_bytes());
        let Some(Event::Victim(victim)) = Event::decode(&bytes) else { panic!() };
        assert_eq!(victim.number, 7);
        assert!(Event::decode(&bytes[1..]).is_none());
    }
}
