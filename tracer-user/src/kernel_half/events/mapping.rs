//! What calls did to address spaces.

use super::{Decode, Ring};
use crate::kernel_half::{
    BpfError,
    loaded::KernelHalf,
    tables::{mappings::MAPPINGS_LOST, rings},
};
use aya::maps::{Array, MapData};
use tracer_common::mapping::MappingEvent;

impl Decode for MappingEvent {
    fn decode(bytes: &[u8]) -> Option<MappingEvent> {
        super::plain(bytes)
    }
}

/// The ring of mappings, for a thread of its own, with the number of calls that are missing in it.
pub struct MappingEvents {
    ring: Ring<MappingEvent>,
    lost: Array<MapData, u64>,
}

impl MappingEvents {
    /// Takes both over.
    pub fn take(half: &mut KernelHalf) -> Result<MappingEvents, BpfError> {
        Ok(MappingEvents { ring: Ring::take(half, &rings::MAPPING_EVENTS)?, lost: MAPPINGS_LOST.part(half)? })
    }

    /// Calls that are missing so far; `None` if the kernel does not say.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        self.lost.get(&0, 0).ok()
    }
}

impl Iterator for MappingEvents {
    type Item = MappingEvent;

    fn next(&mut self) -> Option<MappingEvent> {
        self.ring.next()
    }
}
