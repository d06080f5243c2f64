//! Cgroups that were made and removed, in every hierarchy.

use super::{Decode, Ring};
use crate::kernel_half::{BpfError, loaded::KernelHalf, tables::rings};
use tracer_common::event::CgroupEvent;

impl Decode for CgroupEvent {
    fn decode(bytes: &[u8]) -> Option<CgroupEvent> {
        super::plain(bytes)
    }
}

/// Takes the ring over.
pub fn ring(half: &mut KernelHalf) -> Result<Ring<CgroupEvent>, BpfError> {
    Ring::take(half, &rings::EVENTS)
}
